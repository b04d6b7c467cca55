"""``--lm-budget``: counts what all workers spend, and reports it at the end of a run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache.commands import quoted
from pytest_lmcache.plugin.cassette_paths import test_owner
from pytest_lmcache.plugin.node_recorders import test_commands
from pytest_lmcache.settings import Mode

if TYPE_CHECKING:
    from pytest_lmcache.plugin.observer import RunObserver
    from pytest_lmcache.spending import Spending

BUDGET_SPENT = 75  # the exit status; sysexits.h calls it EX_TEMPFAIL: try again later
FILE = "lmcache_spending"  # the name of the shared file in what a worker of xdist gets
FLAGS = {Mode.RECORD: "--lm-record ", Mode.REWRITE: "--lm-rewrite ", Mode.REPLAY: ""}


class Budget:
    """The hooks that limit what a run spends; ``usd`` None: there is no limit.

    ``unknown_price`` is what a call without a known price counts as, in USD, None for nothing.
    """

    def __init__(
        self, config: pytest.Config, observer: RunObserver, usd: float | None, unknown_price: float | None
    ) -> None:
        self.usd = usd
        self.is_watched = (
            False  # whether the progress line needs the figures of all workers, without a limit too
        )
        self._config = config
        self._observer = observer
        self._unknown_price = unknown_price
        self._folder: Path | None = None  # of the file that the workers share

    @cached_property
    def spending(self) -> Spending:
        """What has been spent, by all workers."""
        from pytest_lmcache.spending import Spending

        return Spending(self.usd, self._unknown_price, self._command_of_test)

    @property
    def is_used(self) -> bool:
        """Whether anything may have been counted."""
        return "spending" in vars(self)

    def pytest_configure(self, config: pytest.Config) -> None:
        """In a worker of xdist, count together with the others."""
        given: dict[str, Any] = getattr(config, "workerinput", {})
        if FILE in given:
            self.spending.share(Path(given[FILE]), str(given["workerid"]))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give a worker of xdist the file in which all count."""
        if self.usd is None and not self.is_watched:
            return
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="lmcache-"))
            self.spending.share(self._folder / "spending.json", "controller")
        node.workerinput[FILE] = str(self._folder / "spending.json")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Set the exit status if the budget was spent."""
        observer = self._observer
        is_over = session.exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.TESTS_FAILED,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }
        if is_over and observer.has_counted and observer.summary.over_budget:
            session.exitstatus = BUDGET_SPENT

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was spent of the budget, and which tests were not recorded."""
        for line in self._lines():
            terminalreporter.write_line(line)

    def pytest_unconfigure(self) -> None:
        """Remove the file that the workers share."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _lines(self) -> Iterator[str]:
        from pytest_lmcache.wording import counted, dollars

        if self.usd is None or not self._observer.has_counted or not self.is_used:
            return
        ledger, refused = self.spending.ledger(), self._observer.summary.over_budget
        if not (ledger.usd or ledger.unpriced or refused):
            return
        yield f"budget: {dollars(ledger.usd)} of {dollars(self.usd)} spent"
        if ledger.unpriced:
            number = counted(sum(ledger.unpriced.values()), "call")
            which = ", ".join(f"{what} ({count})" for what, count in sorted(ledger.unpriced.items()))
            yield f"the budget does not count {number} without a known price (set lm_unknown_price, in USD): {which}"
        if refused:
            tests = counted(len(refused), "test")
            yield f"{tests} not recorded, because the budget was spent (go on: {self._command('--lf')}):"
            yield from (f"  {test} ({number})" for test, number in sorted(refused.items()))

    def _command(self, tests: str) -> str:
        mode = self._observer.mode
        return f"pytest {FLAGS.get(mode, f'--lm-mode={mode} ')}--lm-budget={self.usd:g} {tests}"

    def _command_of_test(self) -> str:
        """The command that continues with the test that runs, or with all failed tests."""
        item = self._observer.current
        if item is None:
            return self._command("--lf")
        commands = test_commands(self._config, test_owner(item).nodeid, item.path)
        return self._command(f"{commands.options}{quoted(commands.target)}")
