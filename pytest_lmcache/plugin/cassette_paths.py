"""Which cassette a test, the tests of a scope or a shared fixture have: its name, below the folder found from rootdir."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pytest_lmcache.cassette_folders import (
    TEST_DIR,
    base_folder,
    below_rootdir,
    cassette_folder,
    folders_between,
    is_cassette,
    relative,
    test_folder,
)
from pytest_lmcache.errors import SettingsError
from pytest_lmcache.plugin.samples import PARAMETER
from pytest_lmcache.settings import CassetteScope, Settings

ADVICE = 'For cassettes that no rootdir moves, set lm_cassette_dir = "{test_dir}/cassettes" and record again.'


SEVERAL = "several tests"
"""Names the owners of a cassette that settings name."""


class Owner(NamedTuple):
    """A test or a shared fixture: what has a cassette of its own, unless its settings share one."""

    file: Path  # a folder for a fixture of a package or a session
    name: str
    label: str  # names it in messages
    nodeid: str  # pytest runs this to record it
    definition: tuple[Path, str] | None = None  # file and classes that tell a fixture from others of its name
    classes: tuple[str, ...] | None = None  # those that a test is in, None for a fixture

    def scope(self, settings: Settings) -> CassetteScope:
        """Which tests have one cassette with it, if the settings name none.

        A fixture has its own, and so has a test outside of classes in scope class.
        """
        if self.classes is None or (settings.scope is CassetteScope.CLASS and not self.classes):
            return CassetteScope.FUNCTION
        return settings.scope

    def sharers(self, settings: Settings) -> str:
        """Name the tests that share its cassette; empty if it has its own."""
        if settings.cassette:
            return SEVERAL
        file = self.nodeid.partition("::")[0]
        return {
            CassetteScope.FUNCTION: "",
            CassetteScope.CLASS: f"the tests of {'::'.join([file, *(self.classes or ())])}",
            CassetteScope.MODULE: f"the tests of {file}",
            CassetteScope.SESSION: "the tests of the whole suite",
        }[self.scope(settings)]

    def folder(self, settings: Settings, base: Path) -> Path:
        """The cassette folder, for a base folder; that of a whole suite is the one of rootdir."""
        is_whole = settings.cassette == "" and self.scope(settings) is CassetteScope.SESSION
        return cassette_folder(base, settings.cassette_dir, base if is_whole else self.file)

    def cassette_by_base(self, settings: Settings) -> Callable[[Path], Path]:
        """The path of its cassette, by the base folder of the cassette folder."""
        from pytest_lmcache.cassette.names import named_cassette, own_cassette

        scope = self.scope(settings)

        def cassette_in(base: Path) -> Path:
            folder = self.folder(settings, base)
            if settings.cassette:
                return named_cassette(settings.cassette, folder)
            if scope is CassetteScope.SESSION:
                return own_cassette((), "@session", folder)
            seen_from = test_folder(self.file) if TEST_DIR in settings.cassette_dir else base
            # Names of functions have no @, and those of fixtures have one with a dot behind the scope.
            name = {
                CassetteScope.CLASS: ".".join([*(self.classes or ()), "@class"]),
                CassetteScope.MODULE: "@module",
            }.get(scope, self.name)
            if self.definition is not None:
                path, classes = self.definition
                defined = "/".join(_parts(relative(path, seen_from))) + ("::" + classes if classes else "")
                name += f" from {defined.removesuffix('.py') or 'rootdir'}"
            return own_cassette(_parts(relative(self.file, seen_from).removesuffix(".py")), name, folder)

        return cassette_in


def _parts(path: str) -> list[str]:
    return [part for part in path.replace(os.sep, "/").split("/") if part not in {"", "."}]


def test_owner(item: pytest.Item) -> Owner:
    """A test as the owner of a cassette. Its name has its classes."""
    nodes = [
        node.name
        for node in item.listchain()[:-1]
        if not isinstance(node, pytest.Session | pytest.Directory | pytest.File)
    ]
    names = [*nodes, _name(item)]
    # Items of other plugins may have any name: prefixed, so that it is never the name of a function.
    name = (
        ".".join(names) if isinstance(item, pytest.Function) else f"{type(item).__name__} {'::'.join(names)}"
    )
    # As it is typed: without parameters that only repeat the test, and without pytest-xdist's name of a group.
    before, found, _ = item.nodeid.rpartition(item.name)
    nodeid = before + names[-1] if found else item.nodeid
    classes = tuple(node.name for node in item.listchain() if isinstance(node, pytest.Class))
    return Owner(below_rootdir(item.path, item.config.rootpath), name, nodeid, nodeid, classes=classes)


def _name(item: pytest.Item) -> str:
    """A test's name without parameters that only repeat it, such as those of pytest-repeat and pytest-flakefinder."""
    callspec: Any = getattr(item, "callspec", None)
    if not isinstance(item, pytest.Function) or callspec is None:
        return item.name
    info: Any = item._fixtureinfo
    taken = {PARAMETER, *info.initialnames, *info.argnames}
    taken.update(name for found in info.name2fixturedefs.values() for each in found for name in each.argnames)
    names, ids = list(callspec.params), list(callspec._idlist)
    while names and ids and names[-1] not in taken:
        del names[-1], ids[-1]
    while names and ids and names[0] not in taken:
        del names[0], ids[0]
    if len(names) == len(callspec.params):
        return item.name
    return f"{item.originalname}[{'-'.join(ids)}]" if ids else item.originalname


def fixture_owner(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Owner:
    """A shared fixture as the owner of a cassette.

    It stands where its scope does: in a file, a class or a package. One of scope session stands where it is defined.
    """
    nodeid = request.node.nodeid or fixturedef.baseid or "."
    label = f"the {fixturedef.scope} fixture {fixturedef.argname} of {nodeid}"
    # pytest 9.0 calls rootdir "", pytest 9.2 ".".
    node, base = (each.removesuffix(".") for each in (request.node.nodeid, fixturedef.baseid))
    file, _, classes = (node or base).partition("::")
    if fixturedef.scope == "class":
        # A class within a class may get the node of the outermost one.
        classes = base.partition("::")[2] or classes.partition("::")[0]
        node = f"{file}::{classes}"
    name = f"@{fixturedef.scope}.{fixturedef.argname}"
    if hasattr(request, "param"):
        name += f"[{_parameter(request.param, request.param_index)}]"  # type: ignore[attr-defined]
    item: Any = request._pyfuncitem
    callspec = getattr(item, "callspec", None)
    if callspec is not None:
        for other in sorted(_needs(fixturedef, item).intersection(callspec.params)):
            name += f"[{other}={_parameter(callspec.params[other], callspec.indices[other])}]"
    rootdir = request.config.rootpath
    definition = None
    # It may extend another fixture of its name.
    if node and base != node:
        defined_in, _, within = base.partition("::")
        definition = rootdir / defined_in, within
    elif not node and not base and fixturedef.func.__module__.rpartition(".")[2] != "conftest":
        name += f" from {fixturedef.func.__module__}"
    # The id of a test outside of rootdir, such as one of --pyargs, is not its path.
    path = request.node.path if node else Path(os.path.normpath(rootdir / file))
    full_name = ".".join([*filter(None, classes.split("::")), name])
    return Owner(below_rootdir(path, rootdir), full_name, label, nodeid, definition)


def _needs(fixturedef: pytest.FixtureDef[Any], item: Any) -> set[str]:
    """The names of all fixtures and parameters that a fixture needs, directly or through other fixtures."""
    known = item._fixtureinfo.name2fixturedefs
    found: set[str] = set()
    same_name = list(known.get(fixturedef.argname, ()))
    # It does not see nearer ones of its name. A fixture that needs its own name gets the one that it overrides.
    seen = {fixturedef, *same_name[same_name.index(fixturedef) if fixturedef in same_name else 0 :]}
    todo = [fixturedef]
    while todo:
        for name in todo.pop().argnames:
            found.add(name)
            unseen = [each for each in known.get(name, ()) if each not in seen][-1:]
            seen.update(unseen)
            todo += unseen
    return found - {fixturedef.argname}


def _parameter(value: Any, index: int) -> str:
    """A parameter in a name: itself if it is simple, a hash of JSON data, or the parameter's number."""
    if isinstance(value, str):
        return repr(value) if _reads_as_another_type(value) else value
    if isinstance(value, int | float | None):
        return str(value)
    import hashlib
    import json

    try:
        # Only JSON data: a path differs on the next machine, and an object may hold an id of this run.
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return str(index)
    return hashlib.blake2b(repr(value).encode(errors="surrogatepass"), digest_size=4).hexdigest()


def _reads_as_another_type(text: str) -> bool:
    """Whether a text reads as a number, a bool or None, which may be another parameter."""
    try:
        float(text)
    except ValueError:
        return text in {"None", "True", "False"}
    return True


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
        each: folder for folder in folders_between(base, file) if is_cassette(each := cassette_in(folder))
    }
    if len(found) > 1:
        raise SettingsError(
            f"several cassettes could belong to this test, and {path} does not exist: "
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
        if is_cassette(path):
            replay = f"Replay it with --rootdir={shlex.quote(str(folder))}"
            return [
                *lines,
                f"Found      {path}: recorded with another rootdir. {replay}",
                f"           {ADVICE}",
            ]
    return lines
