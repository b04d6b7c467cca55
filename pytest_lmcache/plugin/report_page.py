"""``--lm-report``: collects what the tests do, over all workers, and writes the page at the end."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache.settings import Mode

if TYPE_CHECKING:
    from pytest_lmcache.miss_groups import Group
    from pytest_lmcache.recorder import Recorder
    from pytest_lmcache.report.data import Part

OUTPUT = "lmcache_report"  # the name in what a worker of xdist sends
OPTION = "--lm-report"


class ReportPage:
    """The page of one run. Raises UsageError for a path that no file can be written to."""

    def __init__(self, config: pytest.Config, path: str, mode: Mode) -> None:
        self.config = config
        self.mode = mode
        expanded = os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111 - which fails for ~nobody
        self.path = config.invocation_params.dir / expanded
        self._parts: list[Part] = []
        self._problem = ""
        self._is_worker = hasattr(config, "workerinput")
        if not self._is_worker:
            from pytest_lmcache.report.page_path import problem_of

            if problem := problem_of(self.path):
                raise pytest.UsageError(
                    f"{OPTION}: the page cannot be written to {self.path}: {problem}. Name a file, such as report.html."
                )

    def add_recorder(self, test: str, recorder: Recorder, *, passed: bool) -> None:
        """Collect what a test, a shared fixture or a block did; ``passed``: its cassette is written."""
        from pytest_lmcache.report.data import of_recorder

        part = of_recorder(test, recorder, passed=passed)
        if part["calls"]:  # most fixtures have none
            self._parts.append(part)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add what a worker collected."""
        text = getattr(node, "workeroutput", {}).get(OUTPUT)
        if text is not None:
            self._parts += json.loads(text)

    def finish(self, outcomes: Mapping[str, str], misses: Iterable[Group], mends: Iterable[str]) -> None:
        """Write the page, given the outcomes of all tests, their misses and the commands that fix them; a worker sends its part to the controller instead."""
        if self._is_worker:
            # As ASCII: xdist cannot send every text that a prompt may hold.
            getattr(self.config, "workeroutput", {})[OUTPUT] = json.dumps(self._parts)
            return
        if self.config.getoption("collectonly", default=False):
            return
        from pytest_lmcache.report.misses import groups_data
        from pytest_lmcache.report.page import Report, project_name, write

        report = Report(
            project=project_name(self.config.rootpath),
            about=_about(self.mode, outcomes),
            parts=self._parts,
            outcomes=outcomes,
            misses=groups_data(misses),
            mends=[*mends],
        )
        try:
            write(report, self.path)
        except OSError as problem:
            self._problem = f"{OPTION}: {self.path} could not be written: {problem.strerror or problem}"

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the page is."""
        if self._problem:
            terminalreporter.write_line(self._problem, red=True)
        elif not self.config.getoption("collectonly", default=False):
            terminalreporter.write_sep("-", f"language-model report: {self.path.as_uri()}")


def _about(mode: Mode, outcomes: Mapping[str, str]) -> str:
    from pytest_lmcache.clock import utc_now

    counts = ", ".join(
        f"{number:,} {outcome}" for outcome, number in Counter(outcomes.values()).most_common()
    )
    when = utc_now().replace("T", " ")[:16]
    return " · ".join(filter(None, (f"mode {mode}", counts, f"{when} UTC")))
