"""Which cassette a test or a shared fixture has: its file, its name, and the parameters in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_lmcache import places
from pytest_lmcache.places import Place
from pytest_lmcache.settings import Settings


def test_place(item: pytest.Item) -> Place:
    """Where a test stands: its file, and its name with its classes'."""
    nodes = [
        node
        for node in item.listchain()
        if not isinstance(node, pytest.Session | pytest.Directory | pytest.File)
    ]
    names = [*(node.name for node in nodes[:-1]), _name(item)]
    # What is not Python's may have any name: apart, so that it never is that of a function.
    name = (
        ".".join(names) if isinstance(item, pytest.Function) else f"{type(item).__name__} {'::'.join(names)}"
    )
    return Place(places.below_rootdir(item.path, item.config.rootpath), name)


def _name(item: pytest.Item) -> str:
    """A test's name without the parameters that only repeat it, as those of pytest-repeat and pytest-flakefinder."""
    callspec: Any = getattr(item, "callspec", None)
    if not isinstance(item, pytest.Function) or callspec is None:
        return item.name
    info: Any = item._fixtureinfo  # noqa: SLF001 - pytest has no other way
    taken = {*info.initialnames, *info.argnames}
    taken.update(name for found in info.name2fixturedefs.values() for each in found for name in each.argnames)
    names, ids = list(callspec.params), list(callspec._idlist)  # noqa: SLF001 - as above
    while names and ids and names[-1] not in taken:
        del names[-1], ids[-1]
    while names and ids and names[0] not in taken:
        del names[0], ids[0]
    if len(names) == len(callspec.params):
        return item.name
    return f"{item.originalname}[{'-'.join(ids)}]" if ids else item.originalname


def typed_nodeid(item: pytest.Item) -> str:
    """A test's id as it is typed: without what repeats it, and without what pytest-xdist appends for its groups."""
    before, name, _ = item.nodeid.rpartition(item.name)
    return before + _name(item) if name else item.nodeid


def cassette_by_folder(place: Place, settings: Settings) -> Callable[[Path], Path]:
    """Which file the cassette of a place is, by the folder that has the cassette folder."""
    from pytest_lmcache.cassette.names import named_cassette, own_cassette

    def cassette_in(folder: Path) -> Path:
        inside = places.folder_in(folder, settings.cassette_dir, place.file)
        if settings.cassette:
            return named_cassette(settings.cassette, inside)
        seen_from = places.test_folder(place.file) if places.TEST_DIR in settings.cassette_dir else folder
        *parts, name = place.parts(seen_from)
        return own_cassette(parts, name, inside)

    return cassette_in


def fixture_place(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Place:
    """Where a shared fixture stands: at the node that it lives for, or for a run's, at its own definition."""
    # Of pytest 9.0 and 9.2, one calls rootdir "", the other ".".
    node, base = (nodeid.removesuffix(".") for nodeid in (request.node.nodeid, fixturedef.baseid))
    file, _, classes = (node or base).partition("::")
    if fixturedef.scope == "class":
        # Classes within a class may get the one of the outermost.
        classes = base.partition("::")[2] or classes.partition("::")[0]
        node = f"{file}::{classes}"
    name = f"@{fixturedef.scope}.{fixturedef.argname}"
    if hasattr(request, "param"):
        name += f"[{_parameter(request.param, request.param_index)}]"  # type: ignore[attr-defined]
    item: Any = request._pyfuncitem  # noqa: SLF001 - pytest has no other way to the parameters of other fixtures
    callspec = getattr(item, "callspec", None)
    if callspec is not None:
        for other in sorted(_needs(fixturedef, item).intersection(callspec.params)):
            name += f"[{other}={_parameter(callspec.params[other], callspec.indices[other])}]"
    rootdir = request.config.rootpath
    definition = None
    # It may extend another of its own name.
    if node and base != node:
        defined_in, _, within = base.partition("::")
        definition = rootdir / defined_in, within
    elif not node and not base and not _is_in_conftest(fixturedef):
        name += f" from {fixturedef.func.__module__}"
    # Of a test that lies elsewhere, such as one of --pyargs, the id says less.
    path = request.node.path if node else Path(os.path.normpath(rootdir / file))
    stands = places.below_rootdir(path, rootdir)
    return Place(stands, ".".join([*filter(None, classes.split("::")), name]), definition)


def _needs(fixturedef: pytest.FixtureDef[Any], item: Any) -> set[str]:
    """The names of all fixtures and parameters that a fixture asks for, and those that they ask for."""
    known = item._fixtureinfo.name2fixturedefs  # noqa: SLF001 - as above
    found: set[str] = set()
    own = list(known.get(fixturedef.argname, ()))
    # Nearer ones of its name are not for it; who asks for a name again gets the one that the first overrides.
    seen = {fixturedef, *own[own.index(fixturedef) if fixturedef in own else 0 :]}
    todo = [fixturedef]
    while todo:
        for name in todo.pop().argnames:
            found.add(name)
            unseen = [each for each in known.get(name, ()) if each not in seen][-1:]
            seen.update(unseen)
            todo += unseen
    return found - {fixturedef.argname}


def _parameter(value: Any, index: int) -> str:
    """What tells a parameter from others in a name: itself, a hash of JSON data, the number of anything else."""
    if isinstance(value, str):
        return repr(value) if _reads_as_another(value) else value
    if isinstance(value, int | float | None):
        return str(value)
    import hashlib
    import json

    try:
        # Nothing else: a path is another on the next machine, and an object may hold an id of this run.
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return str(index)
    return hashlib.blake2b(repr(value).encode(errors="surrogatepass"), digest_size=4).hexdigest()


def _reads_as_another(text: str) -> bool:
    """Whether a text reads as a number or as None, which may be another parameter."""
    try:
        float(text)
    except ValueError:
        return text in {"None", "True", "False"}
    return True


def _is_in_conftest(fixturedef: pytest.FixtureDef[Any]) -> bool:
    return fixturedef.func.__module__.rpartition(".")[2] == "conftest"
