"""The misses of a run in its terminal: each cause once, later failures in two lines, and the commands that fix them."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_lmcache.miss_causes import Miss
    from pytest_lmcache.miss_groups import Group, Paint
    from pytest_lmcache.plugin.observer import RunObserver
    from pytest_lmcache.word_diff import Tag

SHOWN_LATER = 5  # later failures of a cause that FAILURES shows
ALL_IN_FULL = 2  # as -vv
MOST_TESTS_OF_FILE = 3  # more are recorded by naming the file


def _digest(report: Any) -> str:
    found: str = getattr(report, "lmcache_miss", "")
    return found


class MissReports:
    """The misses of a run in its terminal: in FAILURES, and in the summary of calls."""

    def __init__(self, config: pytest.Config, observer: RunObserver) -> None:
        self.config = config
        self.observer = observer
        self._all: dict[str, list[Any]] = {}  # what FAILURES leaves out is in the short summary
        self._own: dict[str, list[Any]] = {}  # as pytest has them

    @cached_property
    def groups(self) -> list[Group]:
        """The misses of the run, which has ended, by cause, the one with the most tests first."""
        from pytest_lmcache.miss_groups import grouped

        return grouped(self.observer.summary.misses)

    @cached_property
    def _group_of(self) -> dict[str, Group]:
        return {miss.digest: group for group in self.groups for miss in group.misses}

    # ---- FAILURES

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None]:
        """Shorten the later failures of a cause while pytest prints FAILURES."""
        stats, style = terminalreporter.stats, self.config.option.tbstyle
        has_misses = self.observer.has_counted and any(map(_digest, _failures(stats)))
        if has_misses and style != "no" and self.config.get_verbosity() < ALL_IN_FULL:
            self._own = {name: stats[name] for name in ("error", "failed") if name in stats}
            shorten = self._in_one_line if style == "line" else self._shortened
            shortened = {name: [*shorten(reports)] for name, reports in self._own.items()}
            self._all = {name: [report for report, _ in reports] for name, reports in shortened.items()}
            stats.update(
                {
                    name: [each for each, is_shown in reports if is_shown]
                    for name, reports in shortened.items()
                }
            )
        try:
            return (yield)
        finally:
            stats.update(self._own)

    def show_all(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Let the short summary have all failures; FAILURES has been printed."""
        terminalreporter.stats.update(self._all)

    def _shortened(self, reports: list[Any]) -> Iterator[tuple[Any, bool]]:
        """The reports, with copies in place of later failures of a cause; and whether FAILURES shows them."""
        from pytest_lmcache.wording import counted

        failures: dict[int, list[Any]] = {}
        groups = [self._group_of.get(_digest(report)) for report in reports]
        for report, group in zip(reports, groups, strict=True):
            same = failures.setdefault(id(report if group is None or group.is_mixed else group), [])
            same.append(report)
            if group is None or len(same) == 1:
                yield report if group is None else _headed(report, f"CassetteMiss: {group.title}"), True
                continue
            text = f"CassetteMiss: {group.title}, as in {same[0].nodeid}"
            left = groups.count(group) - 1 - SHOWN_LATER
            if len(same) == 1 + SHOWN_LATER and left > 0:
                text += f"\n… and {counted(left, 'more failure')} of this cause (-vv shows all)"
            yield _saying(report, text, shows=True), len(same) <= 1 + SHOWN_LATER

    def _in_one_line(self, reports: list[Any]) -> Iterator[tuple[Any, bool]]:
        """The reports as ``--tb=line`` shows them: it prints the whole message above the line."""
        for report in reports:
            group = self._group_of.get(_digest(report))
            text = "" if group is None else f"CassetteMiss: {group.title}"
            yield _saying(report, text, shows=False) if text else report, True

    # ---- the summary

    def lines(self, *, verbose: bool) -> Iterator[str]:
        """The lines of the summary about the causes."""
        if not self.groups:
            return
        from pytest_lmcache.miss_groups import MOST_GROUPS, lines

        yield from lines(self.groups, self._paint(), None if verbose else MOST_GROUPS)

    def commands(self, terminalreporter: pytest.TerminalReporter) -> Iterator[str]:
        """The commands that fix the misses; the last one records them, with its cost."""
        if not self.groups:
            return
        from pytest_lmcache.miss_causes import Cost, Mend
        from pytest_lmcache.miss_groups import cost_lines, mends

        yield from mends(self.groups)
        for mend in (Mend.RECORD, Mend.REWRITE):
            misses = [miss for group in self.groups if group.mend is mend for miss in group.misses]
            if not misses:
                continue
            option = f"--lm-{mend}"
            tests = [miss for miss in misses if not miss.block]
            can_use_lf = (
                bool(tests) and mend is Mend.RECORD and self._is_last_failed_right(tests, terminalreporter)
            )
            ways = [f"pytest --lf {option} {tests[0].options}".strip()] if can_use_lf else []
            if tests and not ways:
                ways = self._by_name(tests, option)
            ways += [
                f'use_cassette({block}, mode="{mend}")'
                for block in sorted({miss.block for miss in misses} - {""})
            ]
            yield from (
                f"{'and' if number else mend.capitalize()}:".ljust(12) + way
                for number, way in enumerate(ways)
            )
            stopped = Cost(stopped=len(self._stopped(misses, terminalreporter)))
            yield from (
                f"  {line}" for line in cost_lines(sum((miss.cost for miss in misses), start=stopped))
            )

    def _stopped(self, misses: Iterable[Miss], terminalreporter: pytest.TerminalReporter) -> set[str]:
        """The tests that did not run, since a fixture of several tests missed: their own calls are not known."""
        misses = list(misses)
        own, digests = {miss.test for miss in misses}, {miss.digest for miss in misses}
        reports = [each for each in _failures(terminalreporter.stats) if each.when == "setup"]
        return {each.nodeid for each in reports if _digest(each) in digests and each.nodeid not in own}

    def _paint(self) -> Paint:
        from pytest_lmcache.word_diff import bracketed

        writer = self.config.get_terminal_writer()
        if not writer.hasmarkup:
            return bracketed

        def paint(tag: Tag, text: str) -> str:
            if tag == "same":
                return text
            return writer.markup(text, red=True) if tag == "removed" else writer.markup(text, green=True)

        return paint

    def _is_last_failed_right(
        self, misses: Iterable[Miss], terminalreporter: pytest.TerminalReporter
    ) -> bool:
        """Whether ``pytest --lf`` runs all of the tests to be recorded, and no other that would call a model."""
        cache = getattr(self.config, "cache", None)
        known = set(cache.get("cache/lastfailed", {})) if cache is not None else set()
        digests = {miss.digest for miss in misses}
        failed = {report.nodeid for report in _failures(terminalreporter.stats)}
        wanted = {report.nodeid for report in _failures(terminalreporter.stats) if _digest(report) in digests}
        wanted |= {miss.test for miss in misses if miss.test in failed}
        facts = self.observer.summary.tests
        calls = {test for test in known if test in facts and (facts[test].misses or facts[test].unmarked)}
        is_exact = wanted <= known and not (known - wanted) & calls and known <= failed
        return bool(wanted) and is_exact and all(map(self._is_collected_by_default, wanted))

    def _is_collected_by_default(self, test: str) -> bool:
        """Whether ``pytest`` without a path, where this run was started, collects a test."""
        rootdir, start = self.config.rootpath, self.config.invocation_params.dir
        folders = [rootdir / name for name in self.config.getini("testpaths")] if start == rootdir else []
        file = rootdir / test.partition("::")[0]
        return any(file.is_relative_to(folder) for folder in folders or [start])

    def _by_name(self, misses: list[Miss], option: str) -> list[str]:
        """The commands that name the tests, one for each configuration; many tests of a file are named by it."""
        from pytest_lmcache.commands import quoted

        others = {
            _file(miss.target)
            for group in self.groups
            for miss in group.misses
            if miss.mend is not misses[0].mend
        }
        found: dict[str, dict[str, dict[str, None]]] = {}
        for miss in misses:
            found.setdefault(miss.options, {}).setdefault(_file(miss.target), {})[miss.target] = None
        commands = []
        for options, by_file in found.items():
            names: list[str] = []
            for file, targets in by_file.items():
                can_name_file = len(targets) > MOST_TESTS_OF_FILE and file not in others
                names += [file] if can_name_file else targets
            commands.append(f"pytest {option} {options}{' '.join(map(quoted, names))}")
        return commands


def _file(target: str) -> str:
    return target.partition("::")[0]


def _failures(stats: dict[str, list[Any]]) -> list[Any]:
    return [*stats.get("error", ()), *stats.get("failed", ())]


def _headed(report: Any, text: str) -> Any:
    """A copy of a report that the short summary shows with another text."""
    if not hasattr(report.longrepr, "reprcrash") or report.longrepr.reprcrash is None:
        return report
    shown = copy.copy(report)
    shown.longrepr = copy.copy(report.longrepr)
    shown.longrepr.reprcrash = copy.copy(report.longrepr.reprcrash)
    shown.longrepr.reprcrash.message = text
    return shown


def _saying(report: Any, text: str, *, shows: bool) -> Any:
    """A copy of a report that says only a text, and ``shows`` it in place of the traceback."""
    shown = copy.copy(report)
    shown.longrepr = _Text(text, getattr(report.longrepr, "reprcrash", None), shows=shows)
    shown.sections = []
    vars(shown).pop("node", None)  # xdist's: pytest names the worker above the traceback
    return shown


class _Text:
    """In place of a failure's traceback; pytest takes the failure's line from ``reprcrash``."""

    def __init__(self, text: str, crash: Any, *, shows: bool) -> None:
        self.text = text
        self.shows = shows
        if crash is not None:
            self.reprcrash = copy.copy(crash)
            self.reprcrash.message = text

    def toterminal(self, writer: Any) -> None:
        """Print the text."""
        if self.shows:
            for line in self.text.split("\n"):
                writer.line(line, red=True)

    def __str__(self) -> str:
        return self.text
