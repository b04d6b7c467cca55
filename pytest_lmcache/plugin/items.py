"""Facts about a test item: its mark, its fixtures, and what the plugin stores with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder

BACKEND = "lm_cache_backend"
recorder_key: pytest.StashKey[Recorder] = pytest.StashKey()
missed_key: pytest.StashKey[BaseException] = pytest.StashKey()
backend_key: pytest.StashKey[Any] = pytest.StashKey()
passed_key: pytest.StashKey[bool | None] = pytest.StashKey()


def is_marked(item: pytest.Item) -> bool:
    """Whether a test is recorded: it has the mark or uses the fixture ``lm_cache``."""
    return item.get_closest_marker("lm_cache") is not None or "lm_cache" in getattr(item, "fixturenames", ())


def has_own_backend(item: pytest.Item) -> bool:
    """Whether a conftest or the test's module overrides ``lm_cache_backend``."""
    fixtures = item.session._fixturemanager.getfixturedefs(BACKEND, item)
    return fixtures is not None and len(fixtures) > 1


def given_backend(item: pytest.Item | None) -> Any:
    """What the fixture ``lm_cache_backend`` returned for a test, None if it is not overridden."""
    given = item.stash.get(backend_key, None) if item is not None else None
    return (getattr(item, "funcargs", None) or {}).get(BACKEND) if given is None else given


def raise_fault(item: pytest.Item) -> None:
    """Raise the first fault of a test's recorder."""
    __tracebackhide__ = True
    recorder = item.stash.get(recorder_key, None)
    if recorder is not None and recorder.faults:
        raise recorder.faults[0]
