"""Tells the user's own lines from those of libraries, in a traceback and on the stack."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from traceback import walk_stack
from types import FrameType, TracebackType

HIDDEN_PACKAGES = ("pytest_lmcache", "litellm")  # also if they are installed from a working copy


def users_part(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of installed packages and the standard library, unless it has no others."""
    frames = list(_frames(traceback))
    shown = [each for each in frames if _package(each.tb_frame) not in HIDDEN_PACKAGES] or frames
    shown = [each for each in shown if not _is_of_library(each.tb_frame)] or shown
    traceback = None
    for each in reversed(shown):
        traceback = TracebackType(traceback, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return traceback


def is_raised_by_library(traceback: TracebackType) -> bool:
    """Whether an error was raised in an installed package or in the standard library."""
    *_, last = _frames(traceback)
    return _is_of_library(last.tb_frame)


def calling_file() -> tuple[str, bool]:
    """The user's file that makes the current call, and whether it is being imported; "" if no such file is found."""
    caller = ""
    for frame, _ in walk_stack(None):
        if _package(frame) in {"_pytest", "pluggy"}:
            break
        is_users = _package(frame) not in HIDDEN_PACKAGES and not _is_of_library(frame)
        if is_users and not frame.f_code.co_filename.startswith("<"):
            caller = frame.f_code.co_filename
            if frame.f_code.co_name == "<module>":
                return caller, True
    return caller, False


def _frames(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_of_library(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith((*_library_folders(), "<frozen"))


@cache
def _library_folders() -> tuple[str, ...]:
    import sysconfig

    return tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
