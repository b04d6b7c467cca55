"""What the report of a test says about its language-model calls, and which lines its traceback shows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from traceback import walk_stack
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import pytest

from pytest_lmcache.errors import REPORTED, CassetteMiss, LMCacheError
from pytest_lmcache.plugin.node_recorders import missed_key, passed_key, recorder_key
from pytest_lmcache.settings import Mode

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder

HIDDEN_PACKAGES = ("pytest_lmcache", "litellm")  # also if they are installed from a working copy


def shorten_traceback(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Show a miss in place of the error that a library made of it, with a traceback of the user's own lines."""
    excinfo = call.excinfo
    if excinfo is not None and (miss := _miss_behind(item, excinfo)) is not None:
        if not isinstance(excinfo.value, BaseExceptionGroup):  # a group holds the miss itself
            miss.__cause__ = excinfo.value.with_traceback(users_part(excinfo.tb))
        excinfo = call.excinfo = pytest.ExceptionInfo.from_exception(miss)
    if excinfo is None or not isinstance(excinfo.value, CassetteMiss | LMCacheError):
        return
    if not item.config.getoption("fulltrace", default=False):
        error = excinfo.value
        # An error that LiteLLM or this package was handling says no more than the message.
        error.__suppress_context__ = True
        if type(error.__cause__).__module__.startswith("pytest_lmcache."):
            error.__cause__ = None
        call.excinfo = pytest.ExceptionInfo.from_exception(error.with_traceback(users_part(excinfo.tb)))


def _miss_behind(item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]) -> CassetteMiss | None:
    """The miss that a library answered with another error, for example by cancelling the task that waited for it.

    None for an error of the test's own code, which may have handled the miss.
    """
    outcomes = (pytest.fail.Exception, pytest.skip.Exception, pytest.exit.Exception)
    recorder = item.stash.get(recorder_key, None)
    if recorder is None or isinstance(excinfo.value, (*outcomes, LMCacheError, KeyboardInterrupt)):
        return None
    misses = [fault for fault in recorder.faults if isinstance(fault, CassetteMiss)]
    return misses[0] if misses and is_raised_by_library(excinfo.tb) else None


def complete_report(report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Note whether the test passed, and add to its report what it needs to know about its calls."""
    recorder = item.stash.get(recorder_key, None)
    _note_outcome(report, item, call, recorder)
    failure = call.excinfo.value if report.failed and call.excinfo is not None else None
    if isinstance(failure, CassetteMiss | LMCacheError):
        setattr(failure, REPORTED, True)
    faults = list(recorder.faults) if recorder is not None else []
    if (missed := item.stash.get(missed_key, None)) is not None and not faults:
        faults = [missed]
    if faults and hasattr(report, "wasxfail"):
        # The test was expected to fail, the recording was not.
        item.stash[passed_key] = False
        del report.wasxfail
        report.outcome = "failed"
        if call.excinfo is None or call.excinfo.value is not faults[0]:
            report.longrepr = str(faults[0])
        _note_miss(report, faults[0])
    # An error of a child process is another exception with the same text.
    _note_miss(report, next((fault for fault in faults if str(fault) == str(failure)), failure))
    if failure is not None and recorder is not None:
        if recorder.mode is not Mode.LIVE and recorder.not_recorded:
            from pytest_lmcache.not_recorded import advice

            commands = recorder.commands
            command = commands.rewrite if recorder.mode is Mode.REWRITE else commands.record
            _show_first(report, advice(failure, recorder.not_recorded, command))
        from pytest_lmcache import answer_sources

        if sources := answer_sources.advice(recorder):
            report.sections.append(("language-model calls of this failure", sources))
    if report.failed and faults and str(failure) not in map(str, faults):
        report.sections.append(("language-model calls that missed", "\n\n".join(map(str, faults))))


def _note_miss(report: pytest.TestReport, fault: BaseException | None) -> None:
    """Note in a report which miss its test failed with, also for another process."""
    if isinstance(fault, CassetteMiss):
        from pytest_lmcache.miss_causes import is_miss, miss_of

        if is_miss(fault):
            report.lmcache_miss = miss_of(fault, "").digest  # type: ignore[attr-defined]


def _note_outcome(
    report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None], recorder: Recorder | None
) -> None:
    # Calls of a test before it skips itself are recorded.
    is_skip = report.skipped and recorder is not None
    if call.when == "call":
        # A test that fails as expected counts as passed. Subtests have a report each, before the test's own.
        passed = report.passed or hasattr(report, "wasxfail") or is_skip
        # The calls of a test after it skips itself, or says that it fails, are not known.
        ends = pytest.skip.Exception, pytest.xfail.Exception
        if recorder is not None and call.excinfo is not None and isinstance(call.excinfo.value, ends):
            recorder.is_cut_short = True
        if recorder is not None and report.skipped:
            recorder.keeps_unused = True  # it failed as expected, perhaps before its last call
        item.stash[passed_key] = passed and item.stash.get(passed_key, None) is not False
    elif call.when == "setup" and is_skip and recorder is not None:
        recorder.is_cut_short = item.stash[passed_key] = True


def _show_first(report: pytest.TestReport, line: str | None) -> None:
    """Show a line above the traceback of a failed test."""
    chain = getattr(report.longrepr, "chain", None)  # --tb=native has none
    if line is None:
        return
    if chain:
        chain.insert(0, (type(chain[0][0])([], None, "long"), None, line))
    else:
        report.sections.append(("language-model calls", line))


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
