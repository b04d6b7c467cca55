"""Whether a page can be written to a path, before anything is done for it."""

from __future__ import annotations

import os
from pathlib import Path


def problem_of(path: Path) -> str:
    """Make the folder of a page. Return why no file can be written there, empty if one can be."""
    path = path.absolute()
    there = next(parent for parent in path.parents if parent.exists())
    if not there.is_dir():
        return f"{there} is no folder"
    if path.is_dir():
        return "it is a folder"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return "" if os.access(path.parent, os.W_OK) else "its folder is not writable"
