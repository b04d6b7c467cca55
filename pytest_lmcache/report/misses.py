"""Groups of misses as the data of the page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pytest_lmcache.miss_groups import Group, cost_lines
from pytest_lmcache.wording import counted

if TYPE_CHECKING:
    from pytest_lmcache.miss_causes import Change


def groups_data(groups: Iterable[Group]) -> list[dict[str, Any]]:
    """Return groups as plain data, in the same order."""
    return [_group(group) for group in groups]


def _group(group: Group) -> dict[str, Any]:
    tests, size = group.tests, len(group.misses)
    facts = [f"{counted(size, 'call')} in {counted(len(tests), 'test')}", *cost_lines(group.cost)]
    change = group.change
    if change is None and len(group.misses[0].changes) > 0:
        change = group.misses[0].changes[0]
    return {
        "title": group.title,
        "facts": facts,
        "differences": [] if change is None or not change.lines else [_difference(group, change)],
        "also": [f"{said}, in {counted(number, 'test')}" for said, number in group.also.items()],
        "tests": tests,
    }


def _difference(group: Group, change: Change) -> dict[str, Any]:
    """The changed lines of a text as one word diff."""
    place = [change.place]
    if change.number:
        place.append(f"line {change.number}")
    if group.is_mixed:
        place.append(f"for example in {group.tests[0].rpartition('::')[2]}")
    words: list[tuple[str, str]] = []
    for line in change.lines:
        words += [("same", "\n"), *line] if words else line
    return {"path": ", ".join(place), "words": words}
