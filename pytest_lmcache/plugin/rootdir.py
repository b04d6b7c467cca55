"""Where cassettes are looked for: below rootdir, then below the folders between rootdir and the test file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from pytest_lmcache.errors import SettingsError

TEST_DIR = "{test_dir}"
INSTALLED = frozenset({"site-packages", "dist-packages"})
ADVICE = 'For cassettes that no rootdir moves, set lm_cassette_dir = "{test_dir}/cassettes" and record again.'


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


def find_cassette(cassette_in: Callable[[Path], Path], file: Path, rootdir: Path) -> tuple[Path, Path]:
    """Find a cassette, given its path by base folder; returns its base folder and its path.

    It is the one below rootdir. If that does not exist, it is one that was recorded with a rootdir nearer to the test
    file. Raises SettingsError if there are several of those.
    """
    base = base_folder(file, rootdir)
    path = cassette_in(base)
    if path.exists():
        return base, path
    found = {
        each: folder for folder in folders_between(base, file) if _is_cassette(each := cassette_in(folder))
    }
    if len(found) > 1:
        raise SettingsError(
            f"several cassettes may be the one of this test, and {path} does not exist: "
            f"{', '.join(map(str, found))}. They were recorded with different rootdirs (this run's is {rootdir}): "
            f"keep one of them. {ADVICE}"
        )
    for each, folder in found.items():
        return folder, each
    return base, path


def hints(cassette_in: Callable[[Path], Path], file: Path, rootdir: Path, inipath: Path | None) -> list[str]:
    """What a miss says about a cassette that does not exist: rootdir, and a recording made with one above it."""
    lines = [f"rootdir    {rootdir}{f', from {inipath.name}' if inipath is not None else ''}"]
    for folder in base_folder(file, rootdir).parents:
        path = cassette_in(folder)
        if _is_cassette(path):
            replay = f"Replay it with --rootdir={shlex.quote(str(folder))}"
            return [
                *lines,
                f"Found      {path}: recorded with another rootdir. {replay}",
                f"           {ADVICE}",
            ]
    return lines


def folders_between(above: Path, file: Path) -> Iterator[Path]:
    """The folders below ``above``, down to that of a file."""
    for folder in reversed([file, *file.parents]):
        if folder != above and folder.is_relative_to(above):
            yield folder


def _is_cassette(path: Path) -> bool:
    """Whether a file is a cassette of this package: other recorders use the same names."""
    from pytest_lmcache.cassette.reader import VERSION

    try:
        with path.open("rb") as file:
            return VERSION.search(file.read(8192)) is not None
    except OSError:
        return False
