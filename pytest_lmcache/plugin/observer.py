"""Counts what the session reports to a run of pytest, prints the miss of a test that hangs, and refuses calls."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache import origins
from pytest_lmcache.cassette_folders import relative
from pytest_lmcache.errors import BudgetExceeded, CassetteMiss, UnsupportedCall
from pytest_lmcache.observer import Observer
from pytest_lmcache.plugin.node_recorders import missed_key
from pytest_lmcache.plugin.report_page import ReportPage
from pytest_lmcache.plugin.reports import calling_file
from pytest_lmcache.plugin.run_notes import RunNotes
from pytest_lmcache.settings import Mode, Unmarked

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder
    from pytest_lmcache.summary import Summary

HANG_WARNING_AFTER = 10.0  # seconds that a test goes on after a miss
OUTSIDE = "outside of the tests, such as while a module is imported: use_cassette records them"


class RunObserver(Observer):
    """The observer of one run of pytest; ``current`` is the test that runs."""

    has_summary = True

    def __init__(
        self,
        config: pytest.Config,
        mode: Mode,
        notes: RunNotes,
        *,
        refuses_outside: bool,
        unmarked: Unmarked = Unmarked.WARN,
    ) -> None:
        self.config = config
        self.mode = mode
        self.notes = notes
        self.page: ReportPage | None = None  # of --lm-report
        self.refuses_outside = refuses_outside  # whether to refuse calls that belong to no test
        self.unmarked = unmarked  # what happens to the calls of unmarked tests
        self.current: pytest.Item | None = None
        self.send_unseen: Callable[[str], None] = lambda _: (
            None
        )  # raises to refuse a call that nothing records
        self._alarm: Timer | None = None
        self._lock = threading.RLock()

    @cached_property
    def summary(self) -> Summary:
        """The facts of this process and of the workers that have ended."""
        from pytest_lmcache.summary import Summary

        return Summary()

    @property
    def has_counted(self) -> bool:
        """Whether anything was counted."""
        return "summary" in vars(self)

    def add_worker(self, data: dict[str, Any]) -> None:
        """Add the facts that a worker process sent."""
        self.summary += type(self.summary).from_plain(data)

    def call_missed(self, miss: CassetteMiss) -> None:
        """Print a miss if its test goes on: it may hang, waiting for a thread that the miss has ended."""
        if self.current is not None and self._alarm is None:
            self._alarm = Timer(HANG_WARNING_AFTER, self._warn_of_hang, [self.current.nodeid, miss])
            self._alarm.daemon = True
            self._alarm.start()

    def test_has_ended(self) -> None:
        """The test that ran has ended."""
        self.current = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _warn_of_hang(self, test: str, miss: CassetteMiss) -> None:
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
            sys.stderr.write(
                f"\n{test} has not ended {HANG_WARNING_AFTER:.0f} seconds after this miss. If it hangs, it may be "
                f"waiting for a thread or a task that the miss has ended.\n\n{miss}\n"
            )
            sys.stderr.flush()

    def block_ended(self, recorder: Recorder, *, passed: bool, written: bool, in_test: bool) -> None:
        """Count what a ``use_cassette`` block did."""
        with self._lock:
            self.recorder_ended(self._place, recorder, passed=passed, written=written, in_test=in_test)

    def recorder_ended(
        self, test: str, recorder: Recorder, *, passed: bool, written: bool, in_test: bool = False
    ) -> None:
        """Count what a test, a shared fixture or a block did; ``in_test``: a test counts the block's misses."""
        self.summary.add_recorder(test, recorder, passed=passed, written=written, counted_by_test=in_test)
        self.notes.add_recorder(test, recorder, passed=passed)
        if self.page is not None:
            self.page.add_recorder(test, recorder, passed=passed)

    def live_call(self, name: str) -> None:
        """Count a call that nothing records.

        Refuses it if the budget is spent, under ``lm_auto`` if it is made outside of the tests, and under
        ``lm_unmarked = "error"`` if it is made in a test.
        """
        origin = origins.current()
        is_late = origin is not None and origin.late is not None
        if self.current is None and self.refuses_outside and not is_late:
            file, is_import = calling_file()
            where = relative(Path(file), self.config.rootpath) if file else "a thread"
            with self._lock:
                self.summary.add_refused_outside(where)
            when = "while it is imported" if is_import else "outside of the tests"
            raise UnsupportedCall(
                f"{where} calls a language model {when}. The call belongs to no test, and under lm_auto mode "
                f"{self.mode} refuses such calls.\n"
                "Make it in a test or a fixture, or record it in place: "
                'with pytest_lmcache.use_cassette("cassettes/name.yaml"): ...'
            )
        from pytest_lmcache.summary import Facts

        if self.unmarked is Unmarked.ERROR and self.current is not None and not is_late:
            with self._lock:
                self.summary.add(self.current.nodeid, Facts(refused_unmarked=1))
            refusal = _unmarked_call(self.current.nodeid, name)
            self.current.stash.setdefault(missed_key, refusal)  # the test may catch it
            raise refusal
        try:
            self.send_unseen(name)
        except BudgetExceeded:
            with self._lock:
                self.summary.add(self._place, Facts(over_budget=1))
            raise
        if self.unmarked is not Unmarked.ALLOW or self.current is None:
            with self._lock:
                self.summary.add(self._place, Facts(unmarked=1))

    def late_call(self, test: str, name: str = "", *, refused: bool) -> None:
        """Count a call that was made after its test had ended."""
        from pytest_lmcache.not_recorded import Reason
        from pytest_lmcache.summary import Facts

        passed = {Reason.LATE.value: [f"{name}() was called after it had ended"]}
        facts = Facts(refused_late=1) if refused else Facts(not_recorded=passed)
        with self._lock:
            self.summary.add(test, facts)

    @property
    def _place(self) -> str:
        return self.current.nodeid if self.current is not None else OUTSIDE


def _unmarked_call(test: str, name: str) -> UnsupportedCall:
    called = name if name.startswith("dspy.") else f"litellm.{name}"
    return UnsupportedCall(
        f"{test} calls {called}(), and has no mark. lm_unmarked = error refuses the calls of such tests.\n"
        "Add @pytest.mark.lm_cache to record and replay them, or @pytest.mark.lm_cache(mode='live') to send them in "
        "every run. To record all tests, set lm_auto = true."
    )
