"""Where a cassette lies: below rootdir, or below one of the folders between rootdir and the test file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pytest_lmcache.errors import SettingsError

TEST_DIR = "{test_dir}"
# Files that make pytest take their folder for rootdir, some of them only with a section of pytest's.
CONFIGURATIONS = (
    *("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"),
    "setup.py",
)
INSTALLED = frozenset({"site-packages", "dist-packages"})


class Place(NamedTuple):
    """What has a cassette of its own: a test, or a fixture that tests share, by its file or folder and its name.

    ``definition`` is the path, and the classes in it, that tell a fixture from others of its name.
    """

    file: Path
    name: str
    definition: tuple[Path, str] | None = None

    def parts(self, folder: Path) -> list[str]:
        """The names of folders and file below a cassette folder, as seen from the folder that has that."""
        name = self.name
        if self.definition is not None:
            path, classes = self.definition
            base = "/".join(_split(relative(path, folder))) + ("::" + classes if classes else "")
            name += f" from {base.removesuffix('.py') or 'rootdir'}"
        return [*_split(relative(self.file, folder).removesuffix(".py")), name]


@cache
def relative(path: Path, folder: Path) -> str:
    """The way from one absolute path to another; a file's tests ask again and again."""
    return os.path.relpath(path, folder)


BESIDE_THE_TEST = 'lm_cassette_dir = "{test_dir}/cassettes"'


def below_rootdir(file: Path, rootdir: Path) -> Path:
    """A test file; one of an installed package, outside of rootdir, as if the package were there."""
    if not file.is_relative_to(rootdir):
        for folder in file.parents:
            if folder.name in INSTALLED:
                return rootdir / file.relative_to(folder)
    return file


def top(file: Path, rootdir: Path) -> Path:
    """Where the cassette folder of a test file begins: at rootdir, or for a file elsewhere at what holds both."""
    if file.is_relative_to(rootdir):
        return rootdir
    try:
        common = Path(os.path.commonpath([file, rootdir]))
    except ValueError:  # another drive
        return file.parent
    return file.parent if common == common.parent else common


def test_folder(file: Path) -> Path:
    """The folder of a test file; of a folder itself."""
    return file if file.is_dir() else file.parent


def folder_in(folder: Path, cassette_dir: str, file: Path) -> Path:
    """The cassette folder that a folder has, for a test file."""
    if TEST_DIR in cassette_dir:
        cassette_dir = cassette_dir.replace(TEST_DIR, str(test_folder(file)))
    return folder / cassette_dir


def locate(cassette_in: Callable[[Path], Path], file: Path, rootdir: Path) -> tuple[Path, Path]:
    """A cassette, and the folder whose cassette folder has it.

    It is the one below rootdir; if there is none, one that was recorded with a rootdir nearer to the test file.
    Raises SettingsError if there are several of those.
    """
    first = top(file, rootdir)
    path = cassette_in(first)
    if path.exists():
        return first, path
    found = {each: folder for folder in _between(file, first) if _is_cassette(each := cassette_in(folder))}
    if len(found) > 1:
        raise SettingsError(
            f"several cassettes can be the one of this test, and {path} is not there: {', '.join(map(str, found))}. "
            f"They were recorded with different rootdirs (this run's is {rootdir}): keep one of them. "
            f"For cassettes that no rootdir moves, set {BESIDE_THE_TEST} and record again."
        )
    for each, folder in found.items():
        return folder, each
    return first, path


def hints(cassette_in: Callable[[Path], Path], file: Path, rootdir: Path, inipath: Path | None) -> list[str]:
    """What to say of a cassette that is not there: which rootdir was taken, and where above it a recording is."""
    said = [f"rootdir    {rootdir}{f', from {inipath.name}' if inipath is not None else ''}"]
    for folder in top(file, rootdir).parents:
        path = cassette_in(folder)
        if _is_cassette(path):
            said.append(
                f"Found      {path}: recorded with another rootdir. Replay it with --rootdir={shlex.quote(str(folder))}"
            )
            said.append(
                f"           For cassettes that no rootdir moves, set {BESIDE_THE_TEST} and record again."
            )
            break
    return said


def options(file: Path, rootdir: Path, inipath: Path | None, here: Path, *, is_given: bool) -> str:
    """What has pytest take the same rootdir and configuration for one file alone; empty if it does so by itself.

    ``here`` is where pytest was started; ``is_given`` says that its command line named rootdir or configuration.
    """
    is_sure = rootdir == here if inipath is None else inipath.parent == rootdir
    folders = [*_between(file, rootdir)] if file.is_relative_to(rootdir) else None
    is_clear = folders is not None and not any(
        (folder / name).exists() for folder in folders for name in CONFIGURATIONS
    )
    if is_clear and is_sure and not is_given:
        return ""
    given = []
    if inipath is not None:
        given.append(f"-c {shlex.quote(_shown(inipath, here))}")
    if inipath is None or inipath.parent != rootdir:
        given.append(f"--rootdir={shlex.quote(_shown(rootdir, here))}")
    return " ".join(given) + " "


def _shown(path: Path, here: Path) -> str:
    return relative(path, here).replace(os.sep, "/")


def _split(path: str) -> list[str]:
    return [part for part in path.replace(os.sep, "/").split("/") if part not in {"", "."}]


def _between(file: Path, above: Path) -> Iterator[Path]:
    """The folders below one, down to that of a file."""
    for folder in reversed([file, *file.parents]):
        if folder != above and folder.is_relative_to(above):
            yield folder


def _is_cassette(path: Path) -> bool:
    """Whether a file is a cassette of ours: other recorders use the same names."""
    from pytest_lmcache.cassette.reader import VERSION

    try:
        with path.open("rb") as file:
            return VERSION.search(file.read(8192)) is not None
    except OSError:
        return False
