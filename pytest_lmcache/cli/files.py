"""The cassette files that a command works on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def yaml_files(folder: Path) -> Iterator[Path]:
    """A file itself, or the YAML files below a folder, sorted."""
    if folder.is_file():
        yield folder
        return
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".yaml", ".yml"} and path.is_file():
            yield path


def is_of_vcrpy(path: Path) -> bool:
    """Whether a file is a cassette of vcrpy's, which may be in a folder of the same name."""
    try:
        with path.open("rb") as file:
            return file.readline().rstrip() == b"interactions:"
    except OSError:
        return False  # whoever reads it reports the error


def counted(count: int, noun: str) -> str:
    """A number and its noun, such as ``2 cassettes``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
