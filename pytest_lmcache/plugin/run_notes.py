"""Collects what each test did with which cassette, and whether the run was full; the controller writes it at the end."""

from __future__ import annotations

import glob
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache.settings import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_lmcache.recorder import Recorder
    from pytest_lmcache.run_record import RunRecord, UsedCassette

OUTPUT = "lmcache_run"  # the name in what a worker of xdist sends
# Options that select tests. What --deselect, -k and -m leave out is counted.
SELECTING = {"lf": "--last-failed", "ignore": "--ignore", "ignore_glob": "--ignore-glob"}
STOPPED = {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR}
_Unused = list[tuple[str, int]] | None


class RunNotes:
    """The hooks that note what a run does."""

    def __init__(self, config: pytest.Config, mode: Mode) -> None:
        self.config = config
        self.mode = mode
        self._outcomes: dict[str, tuple[str, float]] = {}
        # By cassette and user: what no call asked for.
        self._cassettes: dict[str, dict[str, _Unused]] = {}
        self._missed: dict[str, list[str]] = {}  # by test: the keys of calls that no recording answered
        self._deselected = 0
        self._not_collected: list[str] = []
        self._skipped: list[str] = []  # whole files and classes
        self._partial: list[str] = []
        self._problem = ""

    # What tests do.

    def add_recorder(self, test: str, recorder: Recorder, *, passed: bool) -> None:
        """Note what a test, a shared fixture or a block did with its cassette."""
        if recorder.path is None or (recorder.mode is Mode.LIVE and not recorder.path.exists()):
            return
        from pytest_lmcache.run_record import path_from

        users = self._cassettes.setdefault(path_from(self.config.rootpath, recorder.path), {})
        if missed := [call.key for call in recorder.calls if not call.source and call.key]:
            self._missed[test] = missed
        # Live, it asked for no recording; cut short, it may not have come to all of its calls.
        is_known = passed and recorder.mode is not Mode.LIVE and not recorder.is_cut_short
        _add(users, test, _unused(recorder) if is_known else None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of a test."""
        before, seconds = self._outcomes.get(report.nodeid, ("passed", 0.0))
        if report.when == "setup":  # a plugin may run a test again
            before, seconds = "passed", 0.0
        outcome = before
        is_expected = hasattr(report, "wasxfail")
        if report.failed:
            outcome = "failed" if report.when == "call" else "error"
        elif report.skipped and before == "passed":
            outcome = "xfailed" if is_expected else "skipped"
        elif is_expected and report.when == "call":
            outcome = "xpassed"
        self._outcomes[report.nodeid] = outcome, seconds + report.duration

    @property
    def outcomes(self) -> dict[str, str]:
        """The outcome of each test that has run, as `run_record.RanTest` has it."""
        return {test: outcome for test, (outcome, _) in self._outcomes.items()}

    # Whether all tests were collected.

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Count tests that were left out."""
        self._deselected += len(items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that could not be collected, or that skips itself."""
        if report.failed:
            self._not_collected.append(report.nodeid)
        elif report.skipped:
            self._skipped.append(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Add what a worker noted."""
        data = getattr(node, "workeroutput", {}).get(OUTPUT)
        if error is not None or data is None:
            self._partial.append(f"worker {node.gateway.id} did not end")
            return
        # Each worker collects all tests.
        self._deselected = max(self._deselected, data["deselected"])
        self._not_collected += data["not_collected"]
        self._skipped += data["skipped"]
        self._missed |= data["missed"]
        self._partial += data["partial"]
        for path, users in data["cassettes"].items():
            for user, unused in users.items():
                pairs = None if unused is None else [(key, nth) for key, nth in unused]
                _add(self._cassettes.setdefault(path, {}), user, pairs)

    # The end.

    def finish(self, session: pytest.Session) -> None:
        """Write the record of a run that opened a cassette; a worker sends its notes to the controller instead."""
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output[OUTPUT] = {
                "deselected": self._deselected,
                "not_collected": self._not_collected,
                "skipped": self._skipped,
                "missed": self._missed,
                "partial": self._partial,
                "cassettes": self._cassettes,
            }
            return
        cache = getattr(self.config, "cache", None)
        if cache is None or not self._cassettes or hasattr(self.config, "workerinput"):
            return
        from pytest_lmcache.run_record import FOLDER

        try:
            self._record(session).write(cache.mkdir(FOLDER))
        except OSError as problem:
            self._problem = f"the record of this run could not be written: {problem}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say that the record could not be written."""
        if self._problem:
            terminalreporter.write_line(f"pytest-lmcache: {self._problem}")

    def _record(self, session: pytest.Session) -> RunRecord:
        from pytest_lmcache.clock import utc_now
        from pytest_lmcache.run_record import RanTest, RunRecord

        rootdir = self.config.rootpath
        by_test: dict[str, list[str]] = {}
        cassettes = {}
        for path, users in self._cassettes.items():
            for user in users:
                by_test.setdefault(user, []).append(path)
            cassettes[path] = _used(rootdir / path, users)
        tests = {
            test: RanTest(
                outcome, round(seconds, 3), tuple(by_test.get(test, ())), tuple(self._missed.get(test, ()))
            )
            for test, (outcome, seconds) in self._outcomes.items()
        }
        tests |= {nodeid: RanTest("skipped", 0.0) for nodeid in self._skipped}
        reasons = tuple(dict.fromkeys(self._reasons(session)))
        return RunRecord(utc_now(), str(rootdir), self.mode.value, reasons, tests, cassettes)

    def _reasons(self, session: pytest.Session) -> Iterator[str]:
        """Why this was not a full run."""
        yield from self._partial
        if self.mode is Mode.LIVE:
            yield "mode live asks for no recording"
        if not _covers_suite(self.config):
            yield f"only {' '.join(self.config.args)} was run"
        by = " (by addopts)" if _addopts_select(self.config) else ""
        for name, option in SELECTING.items():
            if self.config.getoption(name, default=None):
                yield f"{option} was given{by}"
        if self._deselected:
            yield _were(self._deselected, f"deselected{by}")
        for nodeid in self._not_collected:
            yield f"{nodeid} could not be collected"
        if session.exitstatus in STOPPED or session.shouldstop or session.shouldfail:
            yield "the run was stopped"
        elif len(self._outcomes) < session.testscollected:
            yield _were(session.testscollected - len(self._outcomes), "not run")


def _addopts_select(config: pytest.Config) -> bool:
    """Whether the configuration itself leaves tests out of each run."""
    options = ("-k", "-m", "--deselect", "--ignore", "--lf", "--last-failed")
    return any(each.startswith(options) for each in config.getini("addopts"))


def _were(count: int, what: str) -> str:
    return f"1 test was {what}" if count == 1 else f"{count} tests were {what}"


def _add(users: dict[str, _Unused], user: str, unused: _Unused) -> None:
    """Note what a user did not ask for; if it used the file more than once, what it never asked for."""
    known = users.get(user, unused)
    users[user] = None if known is None or unused is None else [each for each in unused if each in known]


def _unused(recorder: Recorder) -> list[tuple[str, int]]:
    """The recordings that a recorder's calls did not ask for, except those that are gone or are to be kept."""
    if recorder.mode is Mode.REWRITE or recorder.has_dropped_unused or recorder.settings.keep_unused:
        return []
    asked = {(call.key, call.nth) for call in recorder.everything}
    recorded = Counter(entry.key for entry in recorder.open_cassette().entries)
    return [(key, nth) for key, size in recorded.items() for nth in range(size) if (key, nth) not in asked]


def _used(path: Path, users: dict[str, _Unused]) -> UsedCassette:
    """What all users of a cassette did."""
    from pytest_lmcache.run_record import UsedCassette, digest_of

    unused: list[tuple[str, int]] = []
    for number, part in enumerate(users.values()):
        if part is None:
            return UsedCassette(tuple(users), None)
        unused = part if not number else [each for each in unused if each in part]
    if not unused or not path.exists():
        return UsedCassette(tuple(users), ())
    return UsedCassette(tuple(users), tuple(unused), digest_of(path))


def _covers_suite(config: pytest.Config) -> bool:
    """Whether the paths of the command line, or their default, hold ``testpaths``, or all of rootdir."""
    if config.args_source is config.ArgsSource.TESTPATHS:
        return True
    rootdir, here = config.rootpath, config.invocation_params.dir
    given = [Path(os.path.abspath(here / each)) for each in config.args if "::" not in each]  # noqa: PTH100
    patterns = config.getini("testpaths") or [""]
    suite = [rootdir / each for pattern in patterns for each in _expanded(pattern, rootdir)]
    return all(any(path.is_relative_to(each) for each in given) for path in suite)


def _expanded(pattern: str, rootdir: Path) -> list[str]:
    """The paths of one of ``testpaths``, as pytest finds them."""
    return glob.glob(pattern, root_dir=rootdir, recursive=True) or [pattern]  # noqa: PTH207 - a pattern may be absolute
