"""Checks the collected tests before any of them runs: invalid markers, and marks that are nearly ours."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from pytest_lmcache import places
from pytest_lmcache.errors import LMCacheWarning, SettingsError
from pytest_lmcache.places import Place
from pytest_lmcache.plugin.cassette_names import test_place
from pytest_lmcache.plugin.items import BACKEND, has_own_backend, is_marked, is_nearly_ours, missed_key
from pytest_lmcache.plugin.recorders import check_settings
from pytest_lmcache.plugin.run import Run
from pytest_lmcache.settings import Mode, Settings


def check_collected(run: Run, items: Sequence[pytest.Item]) -> None:
    """Reject markers that cannot be. Raises UsageError; in a worker of xdist the test itself fails."""
    config, recorders = run.config, run.recorders
    checked: list[Settings] = []  # a key may be any callable, hashable or not
    for item in items:
        if is_marked(item):
            for found in getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {}).values():
                run.marked_fixtures.update(found)
        elif not run.is_auto:
            continue
        names = getattr(item, "fixturenames", None)
        if names is not None and BACKEND not in names and has_own_backend(item):
            # First of all: other fixtures may call.
            names.insert(0, BACKEND)
        try:
            settings = recorders.settings_of(item)
            _check_layers(run, item, settings)
            if settings not in checked:
                checked.append(settings)
                check_settings(settings, item.nodeid)
                place = Place(places.below_rootdir(item.path, config.rootpath), "")
                recorders.check_folder(settings, place.file, item.nodeid)
                if settings.cassette:
                    _, path = recorders.cassette(place, settings, item.nodeid)
                    recorders.there[path] = path.exists()
        except SettingsError as error:
            # A worker must not end its run: the test itself tells.
            if not hasattr(config, "workerinput"):
                raise pytest.UsageError(str(error)) from None


def _check_layers(run: Run, item: pytest.Item, settings: Settings) -> None:
    """Raises SettingsError where a test is about to ask layers that need what is not installed."""
    url = dict(settings.layers).get("url", run.layers.url)
    if url is None or settings.cache is not None or settings.mode is Mode.LIVE or has_own_backend(item):
        return
    asks = settings.cassette is None or settings.mode in {Mode.RECORD, Mode.REWRITE}
    if settings.mode is Mode.ONCE and settings.cassette is not None:
        asks = not run.recorders.cassette(test_place(item), settings, item.nodeid)[1].exists()
    if asks:
        from pytest_lmcache.layers.redis import check_installed

        check_installed()


def warn_of_near_marks(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """A misspelt mark leaves its test live and green. One that the project or a plugin registers is theirs."""
    seen = {"lm_cache"}
    known: set[str] | None = None
    for item in items:
        for name in [mark.name for mark in item.iter_markers() if mark.name not in seen]:
            seen.add(name)
            if known is None:
                lines = config.getini("markers")
                known = {re.split("[:(]", line, maxsplit=1)[0].strip() for line in lines}
            if name not in known and is_nearly_ours(name):
                warning = LMCacheWarning(
                    f"{item.nodeid}: @pytest.mark.{name} does nothing: its calls are neither recorded nor "
                    "replayed. The mark is @pytest.mark.lm_cache. If it is another tool's, register it: "
                    "markers in the configuration."
                )
                try:
                    item.warn(warning)
                except LMCacheWarning as error:  # where warnings are errors
                    item.stash[missed_key] = error
