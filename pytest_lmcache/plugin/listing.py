"""Lists a suite's tests, their settings and their cassettes, for the command: loaded in a separate pytest process.

`pytest_lmcache.maintenance.suite` starts it with ``-p``. It writes JSON to the file that the
environment names, and runs no test.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.maintenance.suite import UNNAMED
from pytest_lmcache.plugin.cassette_paths import Owner, fixture_owner, test_owner
from pytest_lmcache.plugin.hooks import run_key
from pytest_lmcache.plugin.node_recorders import is_marked
from pytest_lmcache.plugin.run import Run
from pytest_lmcache.settings import Settings

VARIABLE = "PYTEST_LMCACHE_LISTING"
"""Names the file to write."""
# What the command needs of a test's settings.
_USED = ("key", "normalize", "max_age", "redact", "redact_with")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """List what is collected from here on."""
    config.pluginmanager.register(_Listing(config, os.environ[VARIABLE]), "lmcache-listing")


class _Listing:
    """The hooks of a collection."""

    def __init__(self, config: pytest.Config, path: str) -> None:
        self.config = config
        self.path = path
        self.failed: dict[str, str] = {}
        self.skipped: list[str] = []
        self.settings: list[dict[str, Any]] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that could not be collected, or that skips itself."""
        if report.failed:
            self.failed[report.nodeid] = str(report.longrepr).strip().rpartition("\n")[2]
        elif report.skipped:
            self.skipped.append(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Write the list, before anything deselects tests."""
        run = self.config.stash[run_key]
        tests = [self._test(run, item) for item in items]
        shared = {path for item in items for path in _fixtures(run, item)}
        data = {
            "tests": tests,
            "fixtures": sorted(shared),
            "skipped": self.skipped,
            "failed": self.failed,
            "settings": self.settings,
        }
        Path(self.path).write_text(json.dumps(data), encoding="utf-8")

    def _test(self, run: Run, item: pytest.Item) -> dict[str, Any]:
        owner = test_owner(item)
        found = {"nodeid": owner.nodeid, "file": _shown(owner.file, self.config.rootpath)}
        try:
            settings = run.recorders.settings_of(item)
            path = _cassette(run, owner, settings, item)
        except SettingsError as error:
            self.failed[item.nodeid] = str(error)
            return {**found, "cassette": None, "sharers": "", "is_marked": True, "settings": None}
        plain = _plain(settings)
        if plain not in self.settings:
            self.settings.append(plain)
        return {
            **found,
            "cassette": path,
            "sharers": "" if settings.cassette is None else owner.sharers(settings),
            "is_marked": run.is_auto or is_marked(item),
            "settings": self.settings.index(plain),
        }


def _cassette(run: Run, owner: Owner, settings: Settings, node: pytest.Item) -> str | None:
    if settings.cassette is None:
        return None
    return _shown(run.recorders.cassette(owner, settings, node.nodeid)[1], run.config.rootpath)


def _fixtures(run: Run, item: pytest.Item) -> set[str]:
    """The cassettes that the shared fixtures of a test may have. Those that it asks for by name at run time are missing."""
    found = set()
    known: Any = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for fixturedef in (each for same_name in known.values() for each in same_name):
        if fixturedef.scope == "function":
            continue
        node = _scope_node(fixturedef, item)
        request: Any = SimpleNamespace(node=node, config=run.config, _pyfuncitem=item)
        callspec = getattr(item, "callspec", None)
        if callspec is not None and fixturedef.argname in callspec.params:
            request.param = callspec.params[fixturedef.argname]
            request.param_index = callspec.indices[fixturedef.argname]
        try:
            settings = run.recorders.settings_of(node)
            path = _cassette(run, fixture_owner(fixturedef, request), settings, node)
        except SettingsError:  # the test of these settings is listed with the error
            continue
        if path is not None:
            found.add(path)
    return found


def _scope_node(fixturedef: Any, item: pytest.Item) -> Any:
    """The node that a fixture is set up for, as ``request.node`` is."""
    if fixturedef.scope == "class":
        return item.getparent(pytest.Class) or item
    if fixturedef.scope == "module":
        return item.getparent(pytest.Module) or item
    if fixturedef.scope == "package":
        packages = (each for each in item.iter_parents() if isinstance(each, pytest.Package))
        return next((each for each in packages if each.nodeid == fixturedef.baseid), item.session)
    return item.session


def _plain(settings: Settings) -> dict[str, Any]:
    """The settings as JSON; a function as its dotted path."""
    values = {each.name: getattr(settings, each.name) for each in fields(settings) if each.name in _USED}
    values["key"] = _path_of(settings.key)
    values["redact_with"] = [_path_of(each) for each in settings.redact_with]
    return json.loads(json.dumps(values))  # type: ignore[no-any-return]


def _path_of(function: Any) -> str | None:
    if function is None or isinstance(function, str):
        return function
    name = getattr(function, "__qualname__", "<")
    return UNNAMED if "<" in name else f"{function.__module__}:{name}"


def _shown(path: Path, rootdir: Path) -> str:
    from pytest_lmcache.run_record import path_from

    return path_from(rootdir, path)
