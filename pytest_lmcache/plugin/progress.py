"""The progress in a terminal while calls are recorded: the figures of each test, and the calls in flight."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

import pytest

from pytest_lmcache.clock import RealTime
from pytest_lmcache.plugin.node_recorders import recorder_key

if TYPE_CHECKING:
    from pytest_lmcache.plugin.budget import Budget

FIGURES = "lmcache_figures"  # the attribute of a report: calls that were sent, their seconds and USD
WORKER = "lmcache_progress"  # the name in what a worker of xdist gets
INTERVAL = 0.25  # seconds between two looks at what is going on
LONG = 1.0  # seconds after which a test is a long one
PROGRESS_COLUMN = 15  # pytest's own at the end of a line, such as " [123/456]"


class Progress:
    """The hooks of a run that calls providers; they do nothing if its output is no terminal."""

    def __init__(self, config: pytest.Config, budget: Budget) -> None:
        self._config = config
        self._budget = budget
        self._is_on = False
        self._is_running = False  # whether tests run, so that what pytest writes is a test's line
        self._shown: pytest.TestReport | None = None  # the last report whose line has its figures
        self._status: StatusLine | None = None
        self._is_paused = False
        self._began = 0.0

    def pytest_sessionstart(self) -> None:
        """Find out whether a person sees the output; xdist starts its workers after this."""
        given = getattr(self._config, "workerinput", None)
        if given is not None:
            self._is_on = given.get(WORKER, False)
            return
        self._is_on = bool(getattr(self._reporter, "isatty", False))  # it may be a bool that can be called
        self._budget.is_watched = self._is_on

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Let a worker of xdist report the figures of its tests."""
        node.workerinput[WORKER] = self._is_on

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Show what is going on while tests run."""
        self._is_running = self._is_on and not hasattr(self._config, "workerinput")
        if not self._is_running:
            return (yield)
        is_over = threading.Event()
        self._status = self._status_line()
        watch = threading.Thread(
            target=self._watch, args=[is_over], name="pytest-lmcache progress", daemon=True
        )
        if self._status is not None:
            watch.start()
        try:
            return (yield)
        finally:
            self._is_running = False
            if self._status is not None:
                is_over.set()
                watch.join()
                self._status.close()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Note when a test begins."""
        self._began = RealTime.seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add to the report of a test which calls it has sent."""
        report = yield
        recorder = item.stash.get(recorder_key, None)
        if self._is_on and report.when == "call" and recorder is not None:
            sent = [call for call in recorder.calls if call.source == "provider"]
            if sent:
                usd = [call.usd for call in sent if call.usd is not None]
                setattr(
                    report,
                    FIGURES,
                    [len(sent), sum(call.seconds for call in sent), sum(usd) if usd else None],
                )
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> Generator[None, Any, Any]:
        """With ``-v``, put the figures of a test behind its outcome, if pytest's progress has room behind them."""
        status = yield
        figures = self._figures(report)
        if not figures or not isinstance(status, tuple):
            return status
        category, letter, word = status
        text, *markup = (word,) if isinstance(word, str) else word
        text += f" ({figures})"
        writer = self._config.get_terminal_writer()
        is_of_worker = hasattr(report, "node")  # whose line begins with "[gw0] [ 50%] "
        before = PROGRESS_COLUMN + len(report.nodeid) if is_of_worker else writer.width_of_current_line
        if before + len(text) + PROGRESS_COLUMN > writer.fullwidth:
            return status
        self._shown = report
        return category, letter, (text, *markup) if markup else text

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the figures of a test below its line if there is no room for them in it."""
        if (figures := self._figures(report)) and self._shown is not report:
            # Without a newline behind it, as pytest leaves a test's line.
            self._config.get_terminal_writer().write(f"\n    {figures}", flush=True)

    def pytest_enter_pdb(self) -> None:
        """Leave the terminal to the debugger."""
        self._is_paused = True

    def pytest_leave_pdb(self) -> None:
        """Go on."""
        self._is_paused = False

    @property
    def _reporter(self) -> Any:
        return self._config.pluginmanager.get_plugin("terminalreporter")

    def _figures(self, report: Any) -> str:
        """The figures of a test's report as text; empty if they are not to be shown."""
        figures = getattr(report, FIGURES, None)
        if not self._is_running or not figures or self._config.get_verbosity() < 1:
            return ""
        from pytest_lmcache.wording import counted, dollars

        calls, seconds, usd = figures
        price = "price not known" if usd is None else dollars(usd)
        return f"{counted(calls, 'call')}, {seconds:.1f} s, {price}"

    def _status_line(self) -> StatusLine | None:
        """The status line; None if something else writes to the terminal while tests run."""
        from _pytest.terminal import TerminalReporter

        is_captured = self._config.getoption("capture", default="no") != "no"
        if (
            type(self._reporter) is not TerminalReporter
            or not is_captured
            or self._config.get_verbosity() < -1
        ):
            return None
        with suppress(AttributeError, KeyError, OSError, ValueError):
            return StatusLine(self._config.get_terminal_writer())
        return None

    def _watch(self, is_over: threading.Event) -> None:
        """Show the calls in flight, how long the test has run, and what was spent, until the tests are over."""
        from pytest_lmcache.wording import counted, dollars

        has_workers = self._config.pluginmanager.has_plugin("dsession")
        while not is_over.wait(INTERVAL):
            status, seconds = self._status, RealTime.seconds() - self._began
            if status is None or not self._budget.is_used or self._is_paused:
                continue
            ledger = self._budget.spending.ledger()
            if not ledger.calls_in_flight or (seconds < LONG and not has_workers):
                status.show("")
                continue
            parts = [f"{counted(ledger.calls_in_flight, 'call')} in flight", f"{dollars(ledger.usd)} spent"]
            if not has_workers:
                parts.insert(1, f"{seconds:.0f} s")
            status.show(f" {', '.join(parts)}")


class StatusLine:
    """A text behind the cursor of a terminal that goes before pytest writes anything else.

    Stands in the place of the file of pytest's ``TerminalWriter``. Raises OSError, ValueError, KeyError or
    AttributeError if that is no file.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._file: TextIO = vars(writer)["_file"]
        self._terminal = os.dup(self._file.fileno())  # while a test runs, pytest captures the original
        self._lock = threading.RLock()
        self._width = 0  # of what is shown
        vars(writer)["_file"] = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        """Write in the place of the status."""
        with self._lock:
            self.show("")
            return self._file.write(text)

    def show(self, text: str) -> None:
        """Show a text in the place of the one that is shown; without its last parts if the line has no room for them."""
        with self._lock:
            # Not the writer's width, for which it asks the captured output.
            columns = os.get_terminal_size(self._terminal).columns
            while len(text) > columns - self._writer.width_of_current_line - 1 and text:
                text = text.rpartition(",")[0]
            if not text and not self._width:
                return
            shown = text.ljust(self._width)
            # Backspaces leave the cursor where pytest has it, in any terminal.
            os.write(self._terminal, (shown + "\b" * len(shown)).encode("ascii", "replace"))
            self._width = len(text)

    def close(self) -> None:
        """Remove the status, and let pytest write to its file again."""
        with self._lock:
            self.show("")
            vars(self._writer)["_file"] = self._file
            os.close(self._terminal)
