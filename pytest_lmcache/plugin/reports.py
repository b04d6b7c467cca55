"""What a test's report says of its language-model calls, and whose lines its traceback shows."""

from __future__ import annotations

import pytest

from pytest_lmcache import answer_sources
from pytest_lmcache.errors import REPORTED, CassetteMiss, LMCacheError
from pytest_lmcache.plugin.items import missed_key, passed_key, recorder_key, stopped_itself
from pytest_lmcache.plugin.tracebacks import miss_behind, users_part
from pytest_lmcache.settings import Mode


def show_users_lines(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Show a miss by the user's own lines, not by those of the libraries between them and the miss."""
    # Not a wrapper: pytest gives the exception of a unittest.TestCase to the call only in its own hook.
    excinfo = call.excinfo
    if excinfo is not None and (miss := miss_behind(item, excinfo)) is not None:
        if not isinstance(excinfo.value, BaseExceptionGroup):  # which holds the miss itself
            miss.__cause__ = excinfo.value.with_traceback(users_part(excinfo.tb))
        excinfo = call.excinfo = pytest.ExceptionInfo.from_exception(miss)
    if excinfo is None or not isinstance(excinfo.value, CassetteMiss | LMCacheError):
        return
    if not item.config.getoption("fulltrace", default=False):
        # What was being handled, by LiteLLM or by our own code, says no more than the message.
        excinfo.value.__suppress_context__ = True
        if type(excinfo.value.__cause__).__module__.startswith("pytest_lmcache."):
            excinfo.value.__cause__ = None
        call.excinfo = pytest.ExceptionInfo.from_exception(
            excinfo.value.with_traceback(users_part(excinfo.tb))
        )


def complete_report(report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Note whether the test has failed; tell the misses of one that failed in another way."""
    recorder = item.stash.get(recorder_key, None)
    # What a test asked before it was skipped is recorded.
    is_skip = report.skipped and recorder is not None
    if call.when == "call":
        # An expected failure is how the test goes. Of subtests, each has a report before the test's own.
        passed = report.passed or hasattr(report, "wasxfail") or is_skip
        if recorder is not None and stopped_itself(call):
            recorder.is_cut_short = True
        item.stash[passed_key] = passed and item.stash.get(passed_key, None) is not False
    elif call.when == "setup" and report.skipped and recorder is not None:
        recorder.is_cut_short = item.stash[passed_key] = True
    failure = call.excinfo.value if report.failed and call.excinfo is not None else None
    if isinstance(failure, CassetteMiss | LMCacheError):
        setattr(failure, REPORTED, True)
    faults = list(recorder.faults) if recorder is not None else []
    if (missed := item.stash.get(missed_key, None)) is not None and not faults:
        faults = [missed]
    if faults and hasattr(report, "wasxfail"):
        # What was expected to fail was not the recording.
        item.stash[passed_key] = False
        del report.wasxfail
        report.outcome, report.longrepr = "failed", str(faults[0])
    if (
        failure is not None
        and recorder is not None
        and recorder.mode is not Mode.LIVE
        and recorder.not_recorded
    ):
        from pytest_lmcache.not_recorded import advice

        is_rewrite = recorder.mode is Mode.REWRITE
        command = recorder.commands.rewrite if is_rewrite else recorder.commands.record
        _put_first(report, advice(failure, recorder.not_recorded, command))
    if failure is not None and recorder is not None and (told := answer_sources.advice(recorder)):
        report.sections.append(("language-model calls of this failure", told))
    # What a child process raised is another exception with the same text.
    if report.failed and faults and str(failure) not in map(str, faults):
        report.sections.append(("language-model calls that missed", "\n\n".join(map(str, faults))))


def _put_first(report: pytest.TestReport, line: str | None) -> None:
    """Show a line above the traceback of a failed test."""
    chain = getattr(report.longrepr, "chain", None)  # which --tb=native has not
    if line is None:
        return
    if chain:
        chain.insert(0, (type(chain[0][0])([], None, "long"), None, line))
    else:
        report.sections.append(("language-model calls", line))
