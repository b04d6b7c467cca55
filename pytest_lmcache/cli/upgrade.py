"""The command ``pytest-lmcache upgrade``: cassettes of an older format are written in the newest one."""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_lmcache.cli.files import counted, is_of_vcrpy, yaml_files
from pytest_lmcache.errors import LMCacheError


def upgrade(folder: Path) -> int:
    """Write the streams of every cassette under a folder in the newest format, and nothing else of the files.

    Prints the files that changed. Gives the exit code: 1 if a cassette is broken or cannot be written, else 0.
    """
    from pytest_lmcache.cassette.file import Cassette
    from pytest_lmcache.keys.strategies import strategy

    written = failed = 0
    for path in yaml_files(folder):
        if path != folder and is_of_vcrpy(path):
            continue
        try:
            if Cassette(path, strategy("exact")).upgrade():
                written += 1
                print(path)  # noqa: T201 - a command prints
        except LMCacheError as problem:
            failed += 1
            print(problem, file=sys.stderr)  # noqa: T201
    print(f"{counted(written, 'cassette')} written")  # noqa: T201
    return 1 if failed else 0
