"""Where cassette folders are: below rootdir, or beside the test files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TEST_DIR = "{test_dir}"
INSTALLED = frozenset({"site-packages", "dist-packages"})


@cache
def relative(path: Path, folder: Path) -> str:
    """The relative path from a folder to an absolute path. Cached: every test of a file needs it."""
    return os.path.relpath(path, folder)


def below_rootdir(file: Path, rootdir: Path) -> Path:
    """A test file; one of an installed package, which is outside of rootdir, as if it were in rootdir."""
    if not file.is_relative_to(rootdir):
        for folder in file.parents:
            if folder.name in INSTALLED:
                return rootdir / file.relative_to(folder)
    return file


def base_folder(file: Path, rootdir: Path) -> Path:
    """The folder that a relative ``cassette_dir`` of a test file begins in: rootdir.

    For a file outside of rootdir it is the folder that holds both.
    """
    if file.is_relative_to(rootdir):
        return rootdir
    try:
        common = Path(os.path.commonpath([file, rootdir]))
    except ValueError:  # another drive
        return file.parent
    return file.parent if common == common.parent else common


def test_folder(file: Path) -> Path:
    """The folder of a test file; a folder is its own."""
    return file if file.is_dir() else file.parent


def cassette_folder(base: Path, cassette_dir: str, file: Path) -> Path:
    """The cassette folder of a test file, for a setting ``cassette_dir`` that begins in ``base``."""
    if TEST_DIR in cassette_dir:
        cassette_dir = cassette_dir.replace(TEST_DIR, str(test_folder(file)))
    return base / cassette_dir


def folders_between(above: Path, file: Path) -> Iterator[Path]:
    """The folders below ``above``, down to that of a file."""
    for folder in reversed([file, *file.parents]):
        if folder != above and folder.is_relative_to(above):
            yield folder


def is_cassette(path: Path) -> bool:
    """Whether a file is a cassette of this package: other recorders use the same names."""
    from pytest_lmcache.cassette.reader import VERSION

    try:
        with path.open("rb") as file:
            return VERSION.search(file.read(8192)) is not None
    except OSError:
        return False
