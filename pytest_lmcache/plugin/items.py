"""What the plugin knows of a test: its mark, its fixtures, how it ended, and what is stored with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder

NEAR = 0.84  # how alike a mark's name is to ours for a slip of the pen: "lm_cashe" is 0.86, "cache" 0.83
BACKEND = "lm_cache_backend"
recorder_key: pytest.StashKey[Recorder] = pytest.StashKey()
missed_key: pytest.StashKey[BaseException] = pytest.StashKey()
backend_key: pytest.StashKey[Any] = pytest.StashKey()
passed_key: pytest.StashKey[bool | None] = pytest.StashKey()


def has_own_backend(item: pytest.Item) -> bool:
    """Whether anything that the test sees overrides ``lm_cache_backend``."""
    fixtures = item.session._fixturemanager.getfixturedefs(BACKEND, item)  # noqa: SLF001 - pytest has no other way
    return fixtures is not None and len(fixtures) > 1


def stopped_itself(call: pytest.CallInfo[None]) -> bool:
    """Whether a test ended by skipping itself, or by saying that it fails: what it would have asked is not known."""
    from unittest import SkipTest

    stops = (pytest.skip.Exception, pytest.xfail.Exception, SkipTest)
    return call.excinfo is not None and isinstance(call.excinfo.value, stops)


def is_nearly_ours(mark: str) -> bool:
    """Whether the name of a mark is ours but for a slip."""
    from difflib import get_close_matches

    return bool(get_close_matches(mark.lower().replace("_", ""), ["lmcache"], 1, NEAR))


def is_marked(item: pytest.Item) -> bool:
    """Whether a test is recorded: it has the mark, or asks for the fixture ``lm_cache``."""
    return item.get_closest_marker("lm_cache") is not None or "lm_cache" in getattr(item, "fixturenames", ())


def raise_fault(item: pytest.Item) -> None:
    """Raise the first fault of a test's recorder."""
    __tracebackhide__ = True
    recorder = item.stash.get(recorder_key, None)
    if recorder is not None and recorder.faults:
        raise recorder.faults[0]
