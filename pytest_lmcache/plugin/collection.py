"""Checks the collected tests before any of them runs: invalid markers, and misspelt marks."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from pytest_lmcache.errors import LMCacheWarning, SettingsError
from pytest_lmcache.plugin.cassette_names import test_owner
from pytest_lmcache.plugin.items import BACKEND, has_own_backend, is_marked, missed_key
from pytest_lmcache.plugin.node_recorders import check_settings
from pytest_lmcache.plugin.run import Run
from pytest_lmcache.settings import Mode, Settings

MISSPELT = 0.84  # similarity of a mark's name to ours: "lm_cashe" has 0.86, "cache" 0.83


def check_collected(run: Run, items: Sequence[pytest.Item]) -> None:
    """Reject invalid markers, and have ``lm_cache_backend`` set up before other fixtures. Raises UsageError."""
    checked: list[Settings] = []  # not a set: a key function need not be hashable
    for item in items:
        if is_marked(item):
            for found in getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {}).values():
                run.marked_fixtures.update(found)
        elif not run.is_auto:
            continue
        names = getattr(item, "fixturenames", None)
        if names is not None and BACKEND not in names and has_own_backend(item):
            names.insert(0, BACKEND)  # first, since other fixtures may call a model
        try:
            settings = run.recorders.settings_of(item)
            _check_redis(run, item, settings)
            if settings not in checked:
                checked.append(settings)
                check_settings(settings, item.nodeid)
                owner = test_owner(item)
                run.recorders.check_folder(settings, owner.file, item.nodeid)
                if settings.cassette:
                    _, path = run.recorders.cassette(owner, settings, item.nodeid)
                    run.recorders.existed[path] = path.exists()
        except SettingsError as error:
            # In a worker of xdist the test fails instead: an error here would break the worker.
            if not hasattr(run.config, "workerinput"):
                raise pytest.UsageError(str(error)) from None


def _check_redis(run: Run, item: pytest.Item, settings: Settings) -> None:
    """Raise SettingsError if a test is going to use the Redis layer and redis-py is not installed."""
    url = dict(settings.layers).get("url", run.layers.url)
    if url is None or settings.cache is not None or settings.mode is Mode.LIVE or has_own_backend(item):
        return
    uses_layers = settings.cassette is None or settings.mode in {Mode.RECORD, Mode.REWRITE}
    if settings.mode is Mode.ONCE and settings.cassette is not None:
        uses_layers = not run.recorders.cassette(test_owner(item), settings, item.nodeid)[1].exists()
    if uses_layers:
        from pytest_lmcache.layers.redis import check_installed

        check_installed()


def warn_of_misspelt_marks(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Warn of marks that are nearly ours and that nobody has registered: their tests would be live and green."""
    registered = {re.split("[:(]", line, maxsplit=1)[0].strip() for line in config.getini("markers")}
    for item in items:
        for name in [mark.name for mark in item.iter_markers() if mark.name not in registered]:
            registered.add(name)
            from difflib import get_close_matches

            if get_close_matches(name.lower().replace("_", ""), ["lmcache"], 1, MISSPELT):
                warning = LMCacheWarning(
                    f"{item.nodeid}: @pytest.mark.{name} does nothing: its calls are neither recorded nor "
                    "replayed. The mark is @pytest.mark.lm_cache. If it is another tool's, register it: "
                    "markers in the configuration."
                )
                try:
                    item.warn(warning)
                except LMCacheWarning as error:  # if warnings are errors
                    item.stash[missed_key] = error
