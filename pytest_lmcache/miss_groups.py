"""Groups misses by cause, and writes the text about each group."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_lmcache.commands import quoted
from pytest_lmcache.miss_causes import Action, Cause, Change, Cost, Mend, Miss
from pytest_lmcache.word_diff import Tag, bracketed, shown
from pytest_lmcache.wording import counted, dollars

NAMED = 3  # tests of a group that are named
MOST_GROUPS = 10
_MOST_FILES = 5
_LEAST_MIXED = 3  # tests whose only common thing is the place that changed

Paint = Callable[[Tag, str], str]
"""Marks a removed or an added piece of text, as a colour does."""


@dataclass(slots=True)
class Group:
    """Misses with one cause.

    ``change`` is what they have in common, None if the cause is not a change. ``is_mixed``: only the place that changed
    is common, the texts are not.
    """

    misses: list[Miss] = field(default_factory=list)
    change: Change | None = None
    is_mixed: bool = False

    @property
    def cause(self) -> Cause:
        """The cause of the group's first miss."""
        return self.misses[0].cause if self.change is None else self.change.cause

    @property
    def mend(self) -> Mend:
        """How to fix the group."""
        return self.misses[0].mend

    @property
    def tests(self) -> list[str]:
        """The tests, each once, in the order in which they ran."""
        return list(dict.fromkeys(miss.test for miss in self.misses))

    @property
    def files(self) -> dict[str, int]:
        """The number of tests by file, most first."""
        return dict(Counter(test.partition("::")[0] for test in self.tests).most_common())

    @property
    def cost(self) -> Cost:
        """The cost of recording the calls again."""
        return sum((miss.cost for miss in self.misses), start=Cost())

    @property
    def also(self) -> dict[str, int]:
        """What else differs, with the number of tests, most first."""
        common = None if self.change is None else self.change.kind
        found: Counter[str] = Counter()
        for miss in {each.test: each for each in self.misses}.values():
            found.update({_said(change) for change in miss.changes if change.kind != common})
        return {} if self.change is None or self.cause is Cause.FUNCTION else dict(found.most_common())

    @property
    def title(self) -> str:
        """What the cause is, in a few words."""
        if self.change is not None:
            title = _said(self.change, self._path())
            return f"{title} in a different way in each test" if self.is_mixed else title
        return _TITLES[self.cause](self)

    def _path(self) -> str:
        """The path of the change, with `…` for indexes that differ."""
        if self.change is None:
            return ""
        paths = {
            change.path for miss in self.misses for change in miss.changes if change.kind == self.change.kind
        }
        path: str = self.change.path
        return path if len(paths) == 1 else re.sub(r"\[\d+\]", "[…]", path)


def grouped(misses: Iterable[Miss]) -> list[Group]:
    """Return misses grouped by cause, the group with the most tests first.

    A call that changed in several places belongs to the change that most tests have.
    """
    misses = list(misses)
    tests: dict[Any, set[str]] = {}
    for miss in misses:
        for change in miss.changes:
            tests.setdefault(change.identity, set()).add(miss.test)
    groups: dict[Any, Group] = {}
    for miss in misses:
        changes = miss.changes if _is_changed(miss) else ()
        shared = max(changes, key=lambda each: len(tests[each.identity]), default=None)
        key = (miss.mend, _common(miss) if shared is None else shared.identity)
        groups.setdefault(key, Group(change=shared)).misses.append(miss)
    places = {id(miss): place for place, miss in enumerate(misses)}
    found = list(_with_mixed(groups.values()))
    return sorted(found, key=lambda group: (-len(group.tests), places[id(group.misses[0])]))


def _is_changed(miss: Miss) -> bool:
    return bool(miss.changes) and miss.cause in {change.cause for change in miss.changes}


def _common(miss: Miss) -> Any:
    """What misses of one group have in common if that is no change."""
    if miss.cause is Cause.VOLATILE:
        return miss.cause, miss.normalizers, miss.changes[0].kind if miss.changes else ()
    if miss.cause is Cause.ELSEWHERE:
        return miss.cause, renaming(miss.old, miss.new)
    if miss.cause is Cause.UNKNOWN:
        return miss.cause, _TITLES[Cause.UNKNOWN](Group([miss]))
    return miss.cause, bool(_turns_of(miss))


def _with_mixed(groups: Iterable[Group]) -> Iterator[Group]:
    """The groups; those of one test whose calls changed in the same place are one."""
    alone: dict[Any, list[Group]] = {}
    for group in groups:
        if group.change is None or len(group.tests) > 1:
            yield group
        else:
            alone.setdefault((group.mend, group.change.kind), []).append(group)
    for same in alone.values():
        if len({test for group in same for test in group.tests}) < _LEAST_MIXED:
            yield from same
        else:
            yield Group([miss for group in same for miss in group.misses], same[0].change, is_mixed=True)


def renaming(old: str, new: str) -> tuple[str, str]:
    """Return the shortest ids of what was renamed: of a file, a class, a function with its parameters, or a test."""
    olds, news = (_parts(test) for test in (old, new))
    if len(olds) == len(news):
        differing = [place for place, pair in enumerate(zip(olds, news, strict=True)) if pair[0] != pair[1]]
        if len(differing) == 1 and differing[0] < len(olds) - 1:
            return _joined(olds[: differing[0] + 1]), _joined(news[: differing[0] + 1])
    return old, new


def _parts(test: str) -> list[str]:
    """The file, the classes and the function of a test, and its parameters: `[]` if it has none."""
    name, bracket, parameters = test.partition("[")
    return [*name.split("::"), f"{bracket}{parameters}"]


def _joined(parts: Sequence[str]) -> str:
    return "::".join(parts)


# ---- what is said --------------------------------------------------------------------------------------

_ACTIONS = {Action.CHANGED: "changed", Action.NEW: "is new", Action.GONE: "is gone"}


def _said(change: Change, path: str = "") -> str:
    """What changed: ``messages[0].content (system) changed``."""
    path = path or change.path
    action = _ACTIONS[change.action]
    is_all = path.isidentifier()  # the argument, not a part of it
    if change.cause is Cause.TOOL and is_all:
        action = action.replace("is ", "are ")
    within = f" ({change.within})" if change.within else ""
    is_whole = re.fullmatch(r"\w+\[.*?\]", path) is not None  # a tool, not a part of it
    subject = {
        Cause.MODEL: "model",
        Cause.RESPONSE_FORMAT: "response format" if is_all else f"response format ({path})",
        Cause.TOOL: f"tool {change.within}{'' if is_whole else f' ({path})'}"
        if within
        else f"tools{'' if is_all else f' ({path})'}",
        Cause.MESSAGE: f"{path}{within}",
    }.get(change.cause, path)
    if change.cause is Cause.FUNCTION:
        subject, action = "another function", "is called"
    values = " → ".join(filter(None, (change.before, change.after)))
    return f"{subject} {action}{': ' * bool(values)}{values}"


def _turns_of(miss: Miss) -> list[Change]:
    """The messages that only one side has, if nothing else differs: answers of the model are among them."""
    if miss.cause not in {Cause.MORE_CALLS, Cause.FEWER_CALLS}:
        return []
    found = [change for change in miss.changes if change.action is not Action.CHANGED]
    return (
        found if len(found) == len(miss.changes) and any(each.within == "assistant" for each in found) else []
    )


def _turns(group: Group) -> str:
    """How many calls more or fewer than recorded there were."""
    size = "more" if group.cause is Cause.MORE_CALLS else "fewer"
    if not (changes := _turns_of(group.misses[0])):
        return f"one call {size} than recorded"
    calls = sum(change.within == "assistant" for change in changes)
    where = "the conversation" if size == "more" else "the recorded conversation"
    paths = sorted({change.path.partition(".")[0] for change in changes})
    return (
        f"{counted(calls, 'call')} {size} than recorded before this one: {', '.join(paths)} only in {where}"
    )


_VALUES = {
    "uuid": "a UUID",
    "date": "a date or a time",
    "epoch": "a time in seconds",
    "tmp_path": "a temporary path",
    "rootdir": "the path of the checkout",
    "tool_call_id": "the id of a tool call",
}


def _volatile(group: Group) -> str:
    miss = group.misses[0]
    values = [_VALUES.get(name, "the id of a run") for name in miss.normalizers]
    places = list(dict.fromkeys(change.place for change in miss.changes))
    where = f" in {places[0]}{' and elsewhere' if len(places) > 1 else ''}" if places else ""
    return f"{' and '.join(dict.fromkeys(values))}{where} differ{'s' if len(values) == 1 else ''} from run to run"


def _elsewhere(group: Group) -> str:
    old, new = renaming(group.misses[0].old, group.misses[0].new)
    return f"recorded under another name: {old} is now {new}"


_TITLES: dict[Cause, Callable[[Group], str]] = {
    Cause.MORE_CALLS: _turns,
    Cause.FEWER_CALLS: _turns,
    Cause.NEVER_RECORDED: lambda _: "never recorded",
    Cause.ELSEWHERE: _elsewhere,
    Cause.VOLATILE: _volatile,
    Cause.USED_UP: lambda _: "the recorded answers are used up (repeat = error)",
    Cause.READ_ON: lambda _: "a stream is read further than it was recorded",
    Cause.CUT_OFF: lambda _: "the recording was cut off, and replay cannot go on",
    Cause.EXPIRED: lambda _: "the recording is older than lm_max_age",
    Cause.KEY: lambda _: "only the key differs: a recording was edited, or a key function is not stable",
    Cause.UNKNOWN: lambda group: (
        "not compared: only the first misses of a test are compared"
        if group.misses[0].problem.startswith("No recording answers")
        else group.misses[0].problem
    ),
}


def lines(groups: Sequence[Group], paint: Paint = bracketed, most: int | None = MOST_GROUPS) -> Iterator[str]:
    """Yield the lines of a summary: each cause with its changed lines, its tests and its files.

    At most ``most`` groups, None for all of them.
    """
    for group in groups[:most]:
        tests, size = group.tests, len(group.misses)
        yield f"{group.title}, {counted(size, 'call')} in {counted(len(tests), 'test')}"
        yield from (f"  {line}" for line in changed_lines(group, paint))
        for said, count in list(group.also.items())[:NAMED]:
            where = "" if count == len(tests) else f" in {counted(count, 'test')}"
            yield f"  also{where}: {said}"
        yield from (f"  {test}" for test in tests[:NAMED])
        if len(tests) > NAMED:
            yield f"  … and {counted(len(tests) - NAMED, 'more test')}"
            yield f"  in {_files(group.files)}"
    if left := groups[most:] if most is not None else ():
        size = len({test for group in left for test in group.tests})
        yield f"… and {counted(len(left), 'more cause')} in {counted(size, 'test')} (-v shows all)"


def changed_lines(group: Group, paint: Paint = bracketed) -> Iterator[str]:
    """Yield the changed lines of a group's text, as a word diff, with the number of the first one."""
    change = group.change
    if change is None and group.cause is Cause.VOLATILE and group.misses[0].changes:
        change = group.misses[0].changes[0]
    if change is None:
        if group.cause is Cause.MORE_CALLS and not _turns_of(group.misses[0]):
            yield f"for example: {group.misses[0].problem.partition(': ')[2]}"
        return
    head = f"for example in {group.tests[0].rpartition('::')[2]}, " if group.is_mixed else ""
    head += f"line {change.number}, " if change.number else ""
    found = [shown(line, paint) for line in change.lines]  # type: ignore[arg-type]
    if head and found:
        found[0] = f"{head.removesuffix(', ')}: {found[0].removeprefix('  ')}"
    yield from (line.removeprefix("  ") if len(found) == 1 else line for line in found)


def _files(files: dict[str, int]) -> str:
    named = [f"{file} ({count})" for file, count in list(files.items())[:_MOST_FILES]]
    left = len(files) - len(named)
    return ", ".join(named) + (f" and {counted(left, 'more file')}" if left > 0 else "")


def mends(groups: Sequence[Group]) -> Iterator[str]:
    """Yield the fixes other than recording: the settings to paste, and the commands to run."""
    misses = [group.misses[0] for group in groups if group.mend is Mend.NORMALIZE]
    for block in sorted({miss.block for miss in misses if miss.block}):
        names = _names(miss for miss in misses if miss.block == block)
        yield f"Normalize:  use_cassette({block}, normalize={json.dumps(names, ensure_ascii=False)})"
    tests = [miss for miss in misses if not miss.block]
    if tests:
        yield from _setting("Normalize: ", _names(tests), tests[0].configuration)
    folders = [
        miss for group in groups for miss in group.misses if group.mend is Mend.RECORD and miss.normalizers
    ]
    if folders:
        # Else each machine would miss the others' recordings.
        yield from _setting("Set before:", _names(folders), folders[0].configuration)
    moves = [
        renaming(group.misses[0].old, group.misses[0].new) for group in groups if group.mend is Mend.MOVE
    ]
    for old, new in moves[:MOST_GROUPS]:
        yield f"Move:       pytest-lmcache move {quoted(old)} {quoted(new)}"
    if len(moves) > MOST_GROUPS:
        yield f"            … and {counted(len(moves) - MOST_GROUPS, 'more test')}"


def _names(misses: Iterable[Miss]) -> list[str]:
    return list(dict.fromkeys(name for miss in misses for name in miss.normalizers))


def _setting(label: str, names: Sequence[str], configuration: str) -> Iterator[str]:
    """The setting as the configuration file has it."""
    if configuration.endswith(".toml"):
        yield f"{label} lm_normalize = {json.dumps(names, ensure_ascii=False)}  # {configuration}"
    else:
        yield f"{label} in {configuration}:"
        yield "lm_normalize ="
        yield from (f"  {name}" for name in names)


def cost_lines(cost: Cost) -> Iterator[str]:
    """Yield the cost of recording again, by the recordings that this replaces, and what cannot be estimated."""
    if cost.calls:
        usd = f", {dollars(cost.usd)}" if cost.usd else ""
        what = f"{counted(cost.calls, 'call')}, {counted(cost.tokens, 'token')}{usd}"
        yield f"{what}: the cost of the {'recording' if cost.calls == 1 else 'recordings'} that this replaces"
    missing = []
    if cost.unknown:
        them = "it" if cost.unknown == 1 else "them"
        missing.append(f"{counted(cost.unknown, 'call')} without a recording, and what follows from {them}")
    if cost.stopped:
        missing.append(
            f"the calls of {counted(cost.stopped, 'test')} that did not run because a fixture missed"
        )
    if cost.unpriced:
        missing.append(f"the price of {counted(cost.unpriced, 'call')}")
    if missing:
        yield f"not estimated: {'; '.join(missing)}"


def paragraph(misses: Sequence[Miss], record: str, rewrite: str) -> str:
    """Return what is said of the misses of one block: their causes, what mends them, and what that costs."""
    groups = grouped(misses)
    causes = []
    for group in groups:
        changed = " / ".join(line.strip() for line in changed_lines(group))
        size = "" if len(misses) == 1 else f", {counted(len(group.misses), 'call')}"
        causes.append(f"{group.title}{size}{f' ({changed})' if changed else ''}")
    sentences = [f"Why: {'; '.join(causes)}."]
    for block in sorted({miss.block for miss in misses if miss.mend is Mend.NORMALIZE}):
        names = json.dumps(_names(miss for miss in misses if miss.block == block), ensure_ascii=False)
        sentences.append(f"If the value does not matter: use_cassette({block}, normalize={names}).")
    for mend, command in ((Mend.RECORD, record), (Mend.REWRITE, rewrite)):
        found = [miss for miss in misses if miss.mend is mend]
        cost = "; ".join(cost_lines(sum((miss.cost for miss in found), start=Cost())))
        if found:
            sentences.append(f"Record {'it' if len(found) == 1 else 'them'} with {command} ({cost}).")
    return " ".join(sentences)
