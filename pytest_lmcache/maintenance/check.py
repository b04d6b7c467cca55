"""Checks cassettes: each file alone, and which tests still use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_lmcache.maintenance.findings import Checked, Finding, Kind, Rules, check_file, strategies
from pytest_lmcache.maintenance.secrets import redactor
from pytest_lmcache.maintenance.suite import Suite
from pytest_lmcache.maintenance.usage import Usage, find_usage


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found, and how much it looked at. ``notes`` say what could not be known."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    files: int
    interactions: int
    size: int

    @property
    def by_kind(self) -> dict[str, int]:
        """The number of findings by kind."""
        counts = Counter(each.kind for each in self.findings)
        return {kind.value: counts[kind] for kind in Kind if counts[kind]}


def check(
    cassettes: Sequence[Path],
    suite: Suite,
    *,
    max_size: float | None,
    shown: Callable[[Path], str],
    knows_usage: bool = True,
) -> Report:
    """Check cassettes. ``shown`` gives their paths in findings.

    Orphans are found if the suite is collected; what the last full run did not use if ``knows_usage``. Raises
    LMCacheError if a rule of the suite cannot be applied.
    """
    checked = [
        check_file(path, shown(path), rules)
        for path, rules in zip(cassettes, _rules(cassettes, suite, max_size), strict=True)
    ]
    usage = find_usage(cassettes, suite) if knows_usage else Usage()
    findings = [*_of_files(checked), *_of_usage(usage, shown)]
    order = {shown(path): number for number, path in enumerate(cassettes)}
    findings.sort(key=lambda each: (order.get(each.path, -1), each.line))
    return Report(
        tuple(findings),
        (*_key_notes(checked), *usage.notes),
        len(checked),
        sum(each.interactions for each in checked),
        sum(each.size for each in checked),
    )


def _rules(cassettes: Sequence[Path], suite: Suite, max_size: float | None) -> list[Rules]:
    """The rules of each cassette: those of the tests that have it, else those of the configuration."""
    all_settings = dict.fromkeys([suite.settings, *(test.settings for test in suite.tests)])
    known = strategies((each.key, each.normalize) for each in all_settings)
    configured = suite.settings
    base = Rules(redactor(configured.redact, configured.redact_with), known, configured.max_age, max_size)
    by_settings = {configured: base}
    tests = suite.by_cassette
    found = []
    for path in cassettes:
        settings = tests[path][0].settings if path in tests else configured
        if settings not in by_settings:
            redact = redactor(settings.redact, settings.redact_with)
            by_settings[settings] = replace(base, redact=redact, max_age=settings.max_age)
        found.append(by_settings[settings])
    return found


def _of_files(checked: Sequence[Checked]) -> list[Finding]:
    return [finding for each in checked for finding in each.findings]


def _key_notes(checked: Sequence[Checked]) -> list[str]:
    unknown = sum(not each.keys_known for each in checked)
    if not unknown:
        return []
    whose = "1 cassette" if unknown == 1 else f"{unknown:,} cassettes"
    note = (
        f"the keys of {whose} were not checked: a key function, a pattern of another configuration, or a folder of "
        "another machine makes them"
    )
    return [note]


def _of_usage(usage: Usage, shown: Callable[[Path], str]) -> list[Finding]:
    found = []
    for orphan in usage.orphans:
        fix = (
            "If the test was renamed: pytest-lmcache move. If it was deleted: pytest-lmcache prune"
            if orphan.label
            else "Delete it: pytest-lmcache prune"
        )
        found.append(Finding(Kind.ORPHAN, shown(orphan.path), 0, orphan.why, fix))
    found += [
        Finding(Kind.UNUSED, shown(each.path), 0, each.why, "Remove: pytest-lmcache prune")
        for each in usage.unused
    ]
    return found
