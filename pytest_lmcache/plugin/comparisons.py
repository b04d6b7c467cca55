"""Shows what modes verify and live found out about new answers, in the terminal and by the exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_lmcache.plugin.run import Run
    from pytest_lmcache.word_diff import Tag


class ComparisonHooks:
    """The hooks of one run of pytest, after those of `plugin.hooks.RunHooks`, which count."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def is_needed(self) -> bool:
        """Whether there are new answers, or some were asked for."""
        observer = self.run.observer
        return bool(self.run.models) or (observer.has_counted and bool(observer.summary.comparisons))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run for an answer that differs, or that could not be compared, though its tests passed."""
        is_worker = hasattr(session.config, "workeroutput")
        if is_worker or not self.is_needed or session.exitstatus != pytest.ExitCode.OK:
            return
        from pytest_lmcache.comparison_report import has_failed, unasked

        rows = self.run.observer.summary.comparisons
        if has_failed(rows) or unasked(rows, self.run.models):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the table of other models' answers, and what differs."""
        if not self.is_needed:
            return
        from pytest_lmcache.comparison_report import lines
        from pytest_lmcache.word_diff import bracketed

        rows, config = self.run.observer.summary.comparisons, terminalreporter.config
        writer, verbose = config.get_terminal_writer(), config.get_verbosity() > 0
        terminalreporter.write_sep("=", "recorded answers and new ones")
        if any(row["is_live"] or row["asked"] != row["model"] for row in rows):
            from pytest_lmcache.comparison_table import outcomes, table

            for line in table(rows, width=writer.fullwidth, colour=writer.hasmarkup, verbose=verbose):
                terminalreporter.write_line(line)
            if text := outcomes(rows):
                terminalreporter.write_line(text)

        def paint(tag: Tag, text: str) -> str:
            return writer.markup(text, red=tag == "removed", green=tag == "added")

        colours = paint if writer.hasmarkup else bracketed
        for line in lines(rows, models=self.run.models, paint=colours, verbose=verbose):
            terminalreporter.write_line(line)
