"""What changed in a set of cassettes, and how that is written: as text, as Markdown for a pull request, as JSON."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_lmcache.errors import CassetteError, shorten
from pytest_lmcache.maintenance.compare import CallDiff, Section, Spent, compare, total
from pytest_lmcache.maintenance.header import LABEL
from pytest_lmcache.maintenance.versions import Pair, Version
from pytest_lmcache.word_diff import Part, Tag, bracketed
from pytest_lmcache.word_diff import shown as shown_line
from pytest_lmcache.wording import counted, dollars

LONGEST_MARKDOWN = 60_000  # characters; GitHub refuses the text of a pull request from 65,536 on
_OFTEN = 3  # cassettes with the same change: it is shown once
_NAMED = 3  # of these
_MOST_ROWS = 50  # of a table
_ASKED = 70  # characters of a question in a heading


@dataclass(frozen=True, slots=True)
class CassetteDiff:
    """One cassette in two versions.

    ``label`` names its test. ``kind`` is ``changed``, ``renamed``, ``added`` or ``removed``. ``old_path`` is empty
    unless it was renamed.
    """

    label: str
    path: str
    old_path: str
    kind: str
    calls: tuple[CallDiff, ...]

    @property
    def is_same(self) -> bool:
        """Whether nothing that a person reads changed."""
        return self.kind == "changed" and all(call.is_same for call in self.calls)


def differences(
    pairs: Sequence[Pair], shown: Callable[[Path], str]
) -> tuple[list[CassetteDiff], list[CassetteError]]:
    """Compare pairs of versions, and return the errors of those that are broken. ``shown`` gives paths in messages."""
    found, problems = [], []
    for pair in pairs:
        try:
            found.append(_compared(pair, shown))
        except CassetteError as problem:
            problems.append(problem)
    return found, problems


def _compared(pair: Pair, shown: Callable[[Path], str]) -> CassetteDiff:
    before, after = (_entries(version, shown) for version in (pair.before, pair.after))
    version = pair.after or pair.before
    if version is None:
        raise ValueError("a pair has at least one version")
    path = shown(version.path)
    old_path = ""
    kind = "added" if pair.before is None else "removed" if pair.after is None else "changed"
    if pair.is_renamed and pair.before is not None:
        kind, old_path = "renamed", shown(pair.before.path)
    label = LABEL.search(version.data[:8192])
    name = path if label is None else label[1].decode(errors="replace").strip()
    return CassetteDiff(name, path, old_path, kind, tuple(compare(before, after)))


def _entries(version: Version | None, shown: Callable[[Path], str]) -> list[Any]:
    return [] if version is None else version.entries(shown(version.path))


# ---- totals --------------------------------------------------------------------------------------------


def summary(diffs: Sequence[CassetteDiff]) -> str:
    """One line: how many cassettes, questions, answers and calls changed, and what that costs."""
    changed = [diff for diff in diffs if not diff.is_same]
    if not changed:
        return "no difference" + (f" in {counted(len(diffs), 'cassette')}" if diffs else "")
    kinds = Counter(diff.kind for diff in changed)
    files = ", ".join(
        f"{kinds[kind]} {kind}" for kind in ("changed", "renamed", "added", "removed") if kinds[kind]
    )
    cassettes = "cassette" if len(changed) == 1 else "cassettes"
    first, _, rest = files.partition(" ")
    counts = _counts([call for diff in changed for call in diff.calls])
    return "; ".join(filter(None, (f"{first} {cassettes} {rest}: {counts}", _costs(changed))))


def _counts(calls: Sequence[CallDiff]) -> str:
    both = [call for call in calls if call.before is not None and call.after is not None]
    questions = sum(any(each.side == "question" for each in call.sections) for call in both)
    answers = sum(any(each.side != "question" for each in call.sections) for call in both)
    tools = sum(any(each.side == "tools" for each in call.sections) for call in both)
    added, removed = sum(call.before is None for call in calls), sum(call.after is None for call in calls)
    changed = [
        counted(number, noun) for number, noun in ((questions, "question"), (answers, "answer")) if number
    ]
    texts = [
        f"{' and '.join(changed)} changed" if changed else "",
        f"{counted(tools, 'answer')} with other tool calls" if tools else "",
        f"{counted(added, 'call')} added" if added else "",
        f"{counted(removed, 'call')} removed" if removed else "",
    ]
    return ", ".join(filter(None, texts)) or "no call changed"


def _costs(diffs: Sequence[CassetteDiff]) -> str:
    calls = [call for diff in diffs for call in diff.calls]
    return costs(total(call.spent_before for call in calls), total(call.spent_after for call in calls))


def costs(before: Spent, after: Spent) -> str:
    """Tokens and USD, as they were and as they are; empty if no usage was recorded."""
    if not any((before.tokens, after.tokens, before.usd, after.usd)):
        return ""
    tokens = f"{before.tokens:,} tokens"
    if before.tokens != after.tokens:
        tokens = f"{before.tokens:,} → {after.tokens:,} tokens ({after.tokens - before.tokens:+,})"
    if not (before.usd or after.usd):
        return tokens
    prices = [dollars(each.usd) if each.usd else "$0" for each in (before, after)]
    return f"{tokens}, {prices[0] if prices[0] == prices[1] else ' → '.join(prices)}"


# ---- what is the same in many cassettes ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SharedChange:
    """One change that many cassettes have: an edited system prompt, a new tool. It is shown once."""

    section: Section
    calls: int
    labels: tuple[str, ...]

    @property
    def where(self) -> str:
        """The number of calls and cassettes, and the first of these."""
        shown = ", ".join(_line(label) for label in self.labels[:_NAMED])
        rest = f" and {len(self.labels) - _NAMED} more" if len(self.labels) > _NAMED else ""
        return f"the same in {counted(self.calls, 'call')} of {counted(len(self.labels), 'cassette')} ({shown}{rest})"


def shared_changes(diffs: Sequence[CassetteDiff]) -> list[SharedChange]:
    """The changes that at least three cassettes have, the most frequent first."""
    found: dict[Section, list[str]] = {}
    for diff in diffs:
        for call in diff.calls:
            for section in call.sections:
                found.setdefault(section, []).append(diff.label)
    shared = [
        SharedChange(section, len(labels), tuple(dict.fromkeys(labels))) for section, labels in found.items()
    ]
    often = [each for each in shared if len(each.labels) >= _OFTEN]
    return sorted(often, key=lambda each: -each.calls)


def _without(diff: CassetteDiff, shared: Sequence[SharedChange]) -> CassetteDiff:
    """The changes of a cassette that are not shown with those of others."""
    known = {each.section for each in shared}
    calls = [
        replace(call, sections=tuple(each for each in call.sections if each not in known))
        for call in diff.calls
    ]
    return replace(diff, calls=tuple(calls))


# ---- text ----------------------------------------------------------------------------------------------


def text(diffs: Sequence[CassetteDiff], paint: Callable[[Tag, str], str] = bracketed) -> Iterator[str]:
    """The lines for a terminal; ``paint`` marks what was removed and added."""
    shared = shared_changes(diffs)
    for each in shared:
        yield each.where
        yield from _section(each.section, paint)
        yield ""
    hidden = 0
    for diff in diffs:
        own = _without(diff, shared)
        if own.is_same:
            hidden += not diff.is_same
            continue
        yield from _cassette(diff, own, paint)
    if hidden:
        yield f"{counted(hidden, 'cassette')} with nothing else changed"
    yield summary(diffs)


def _cassette(diff: CassetteDiff, own: CassetteDiff, paint: Callable[[Tag, str], str]) -> Iterator[str]:
    """The lines of one cassette; ``own`` has the changes that it does not share."""
    yield _title(diff)
    if all(call.is_same for call in diff.calls):  # only its name is new
        return
    for call in own.calls:
        if call.is_same:
            continue
        yield f"  {_heading(call)}"
        for section in call.sections:
            yield from _section(section, paint)
        spent = costs(call.spent_before, call.spent_after)
        if spent and call.before is not None and call.after is not None:
            yield f"    {spent}"
    same = sum(call.is_same for call in diff.calls)
    if same:
        yield f"  {counted(same, 'call')} unchanged"
    yield ""


def _title(diff: CassetteDiff) -> str:
    renamed = f", was {_line(diff.old_path)}" if diff.old_path else ""
    return f"{_line(diff.label)} ({diff.kind}, {_line(diff.path)}{renamed})"


def _section(section: Section, paint: Callable[[Tag, str], str]) -> Iterator[str]:
    yield f"    {_line(section.title)}"
    yield from (f"      {shown_line(line, paint)}" for line in section.lines)


def _heading(call: CallDiff) -> str:
    number = call.after if call.after is not None else call.before
    moved = (
        f" (was {call.before})" if None not in {call.before, call.after} and call.before != call.after else ""
    )
    how = " added" if call.before is None else " removed" if call.after is None else ""
    asked = f": {shorten(call.summary, _ASKED)}" if call.summary else ""
    return _line(f"call {number}{moved}{how}, {call.model}{asked}")


def _line(value: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value)


# ---- Markdown ------------------------------------------------------------------------------------------


def markdown(diffs: Sequence[CassetteDiff]) -> str:
    """The text for a pull request: the summary, what many tests share, a table of the tests, their changes, folded."""
    shared = shared_changes(diffs)
    changed = [diff for diff in diffs if not diff.is_same]
    own = [diff for diff in changed if not _without(diff, shared).is_same]
    lines = [f"**Recordings**: {_escaped(summary(diffs))}", ""]
    for each in shared:
        lines += [f"{_escaped(each.section.title)}, {_escaped(each.where)}:", "", *_fenced(each.section), ""]
    if own:
        lines += ["| test | what changed | tokens and cost |", "|---|---|---|"]
        lines += [
            f"| {_code(diff.label)} | {_escaped(_what(_without(diff, shared)))} | {_escaped(_costs([diff]))} |"
            for diff in own[:_MOST_ROWS]
        ]
        lines.append("")
    if len(own) > _MOST_ROWS:
        lines += [f"… and {counted(len(own) - _MOST_ROWS, 'more test')}", ""]
    if len(changed) > len(own):
        lines += [f"{counted(len(changed) - len(own), 'cassette')} with nothing else changed", ""]
    result = "\n".join(lines)
    folded = [diff for diff in own if not all(call.is_same for call in _without(diff, shared).calls)]
    for number, diff in enumerate(folded):
        block = "\n".join(_details(_without(diff, shared)))
        if len(result) + len(block) > LONGEST_MARKDOWN:
            left = counted(len(folded) - number, "more test")
            return f"{result[:LONGEST_MARKDOWN]}\n… and the changes of {left}, which are too long for this text.\n"
        result += f"\n{block}\n"
    return result


def _what(diff: CassetteDiff) -> str:
    counts = _counts(diff.calls)
    return counts if diff.kind == "changed" else f"{diff.kind}, {counts}"


def _details(diff: CassetteDiff) -> Iterator[str]:
    yield f"<details><summary>{_code(diff.label)}: {html.escape(_what(diff))}</summary>"
    yield ""
    for call in diff.calls:
        if call.is_same:
            continue
        yield f"**{_escaped(_heading(call))}**"
        yield ""
        for section in call.sections:
            yield f"{_escaped(section.title)}:"
            yield ""
            yield from _fenced(section)
            yield ""
    yield "</details>"


def _fenced(section: Section) -> Iterator[str]:
    lines = [line for parts in section.lines for line in _diff_lines(parts)]
    longest = max((len(each) for line in lines for each in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"{fence}diff"
    yield from lines
    yield fence


def _diff_lines(parts: Sequence[Part]) -> Iterator[str]:
    """A line as it was and as it is; only one of them if it was added or removed as a whole, none if it is the same."""
    if all(tag == "same" for tag, _ in parts):
        return
    for unwanted, sign in (("added", "-"), ("removed", "+")):
        kept = [piece for tag, piece in parts if tag != unwanted]
        if kept:
            yield f"{sign} {''.join(kept)}"


def _code(value: str) -> str:
    return f"<code>{html.escape(_line(value)).replace('|', '&#124;')}</code>"


def _escaped(value: str) -> str:
    """A text in which Markdown and HTML mean nothing."""
    return re.sub(r"([\\`*_\[\]<>|#~$@])", r"\\\1", _line(value))


# ---- JSON ----------------------------------------------------------------------------------------------


def shared_to_plain(change: SharedChange) -> dict[str, Any]:
    """A change that many cassettes have as JSON data."""
    return {**_section_to_plain(change.section), "calls": change.calls, "tests": [*change.labels]}


def to_plain(diff: CassetteDiff) -> dict[str, Any]:
    """A cassette's differences as JSON data."""
    return {
        "test": diff.label,
        "path": diff.path,
        "old_path": diff.old_path,
        "kind": diff.kind,
        "calls": [_call_to_plain(call) for call in diff.calls if not call.is_same],
        "unchanged": sum(call.is_same for call in diff.calls),
    }


def _call_to_plain(call: CallDiff) -> dict[str, Any]:
    return {
        "before": call.before,
        "after": call.after,
        "model": call.model,
        "changes": [_section_to_plain(each) for each in call.sections],
        "tokens": [call.spent_before.tokens, call.spent_after.tokens],
        "usd": [call.spent_before.usd, call.spent_after.usd],
    }


def _section_to_plain(section: Section) -> dict[str, Any]:
    lines = [[[*part] for part in line] for line in section.lines]
    return {"side": section.side, "what": section.title, "lines": lines}
