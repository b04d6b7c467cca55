"""Tells the user's own lines from those of libraries, in the traceback of a failure and on the stack of a call."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from traceback import walk_stack
from types import TracebackType

import pytest

from pytest_lmcache.errors import CassetteMiss, LMCacheError
from pytest_lmcache.plugin.items import recorder_key

OWN_PACKAGES = ("pytest_lmcache", "litellm")


def miss_behind(item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]) -> CassetteMiss | None:
    """The miss that a library has answered with an error of its own: cancelled what waited for it, or grouped it.

    None for what the test's own code raises: that has seen the miss, or not, as it wishes.
    """
    outcomes = (pytest.fail.Exception, pytest.skip.Exception, pytest.exit.Exception)
    recorder = item.stash.get(recorder_key, None)
    if recorder is None or isinstance(excinfo.value, (*outcomes, LMCacheError, KeyboardInterrupt)):
        return None
    misses = [fault for fault in recorder.faults if isinstance(fault, CassetteMiss)]
    *_, last = _frames(excinfo.tb)
    return misses[0] if misses and _is_of_library(last) else None


def users_part(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of installed packages and of Python's own, as far as others remain."""
    frames = list(_frames(traceback))
    kept = [frame for frame in frames if not _is_ours(frame)] or frames
    kept = [frame for frame in kept if not _is_of_library(frame)] or kept
    traceback = None
    for frame in reversed(kept):
        traceback = TracebackType(traceback, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return traceback


def _frames(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _is_of_library(frame: TracebackType) -> bool:
    return frame.tb_frame.f_code.co_filename.startswith((*_libraries(), "<frozen"))


def calling_file() -> tuple[str, bool]:
    """The user's file that makes the call of here and now, empty where none does, and whether it is being imported."""
    caller = ""
    for frame, _ in walk_stack(None):
        package, file = frame.f_globals.get("__name__", "").partition(".")[0], frame.f_code.co_filename
        if package in {"_pytest", "pluggy"}:
            break
        if package not in OWN_PACKAGES and not file.startswith((*_libraries(), "<")):
            if frame.f_code.co_name == "<module>":
                return file, True
            caller = file
    return caller, False


@cache
def _libraries() -> tuple[str, ...]:
    import sysconfig

    return tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _is_ours(frame: TracebackType) -> bool:
    return frame.tb_frame.f_globals.get("__name__", "").partition(".")[0] in OWN_PACKAGES
