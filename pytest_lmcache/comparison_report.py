"""The report of modes verify and live: the differences by cause, and why answers could not be compared.

``rows`` are those of `Summary.comparisons`.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pytest_lmcache.answer_comparison import Cause
from pytest_lmcache.answering_models import move
from pytest_lmcache.verify import Verdict
from pytest_lmcache.word_diff import Tag, bracketed, changed_lines, printable, shown, words
from pytest_lmcache.wording import counted

Row: TypeAlias = Mapping[str, Any]
Paint: TypeAlias = Callable[[Tag, str], str]
EXAMPLES = 3  # calls of a cause that are shown
LINES = 4  # lines of a text that are shown
FILES = 3  # tests that the last command names
LONGEST = 100  # characters of a value
VALUES = {Cause.TEXT, Cause.VECTORS}  # each call has its own; other differences are the same in many calls


def has_failed(rows: Iterable[Row]) -> bool:
    """Whether mode verify found a difference, or could not tell whether there is one."""
    return any(not row["is_live"] and _is_failure(row) for row in rows)


def _is_failure(row: Row) -> bool:
    both = row["recorded"] is not None and row["new"] is not None
    return row["verdict"] in {Verdict.DIFFERENT, Verdict.UNAVAILABLE} or (
        row["verdict"] == Verdict.NOT_COMPARED and both
    )


def unasked(rows: Iterable[Row], models: Sequence[str]) -> dict[str, list[str]]:
    """Return the models OLD of the pairs ``OLD=NEW`` that no call named, each with those that calls did name."""
    named = {row["model"] for row in rows}
    old = (pair.partition("=")[0] for pair in models)
    return {model: sorted(named) for model in old if model not in named}


def lines(
    rows: Sequence[Row],
    *,
    models: Sequence[str] = (),
    paint: Paint = bracketed,
    verbose: bool = False,
) -> Iterator[str]:
    """Yield the lines of the report; ``models`` are the pairs ``OLD=NEW`` of the run, ``verbose`` shows all calls."""
    if rows:
        yield _counts(rows)
    for title, found in _grouped(rows).items():
        calls, tests = len(found), len({row["test"] for row, _ in found})
        yield f"{title}, {counted(calls, 'call')} in {counted(tests, 'test')}:"
        yield from _examples(found, paint, len(found) if verbose else EXAMPLES)
    yield from _reasons("could not be asked", Verdict.UNAVAILABLE, rows)
    yield from _reasons("not compared", Verdict.NOT_COMPARED, rows)
    moved = Counter(
        move(row["model"], row["recorded"]["model"], row["new"]["model"]) for row in rows if _has_moved(row)
    )
    if moved:
        yield "models that answer under another name than recorded:"
        yield from (f"  {each} ({counted(count, 'call')})" for each, count in sorted(moved.items()))
    for model, named in unasked(rows, models).items():
        yield f"--lm-model {model}=…: no call names this model; calls name {', '.join(named) or 'none'}"
    yield from _commands(rows)


def properties(rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """Yield the properties of a test in a JUnit report: one for each difference, and for each call that failed."""
    for row in rows:
        for each in row["differences"]:
            values = _short(each["before"]), _short(each["after"])
            yield f"lm_{row['verdict']}", f"call {row['call']}: {_title(each)}: {' -> '.join(values)}"
        if not row["differences"] and _is_failure(row):
            yield f"lm_{row['verdict'].replace(' ', '_')}", f"call {row['call']}: {row['why']}"


def _counts(rows: Sequence[Row]) -> str:
    counts = Counter(row["verdict"] for row in rows)
    is_live = any(row["is_live"] for row in rows)
    names = {
        Verdict.SAME: "as recorded",
        Verdict.DIFFERENT: "different",
        Verdict.UNAVAILABLE: "could not be asked",
        Verdict.NOT_COMPARED: "not compared",
    }
    found = ", ".join(f"{counts[verdict]} {name}" for verdict, name in names.items() if counts[verdict])
    return f"{counted(len(rows), 'answer')} {'of other models' if is_live else 'asked again'}: {found}"


def _has_moved(row: Row) -> bool:
    is_same_model = row["asked"] == row["model"] and row["recorded"] and row["new"]
    names = (row["recorded"]["model"], row["new"]["model"]) if is_same_model else ("", "")
    return all(names) and names[0] != names[1]


# ---- by cause ------------------------------------------------------------------------------------------


def _grouped(rows: Sequence[Row]) -> dict[str, list[tuple[Row, Mapping[str, str]]]]:
    """Return the differences by their titles, those of most tests first."""
    groups: dict[str, list[tuple[Row, Mapping[str, str]]]] = defaultdict(list)
    for row in rows:
        for each in row["differences"]:
            groups[_group(each)].append((row, each))
    size = {title: len({row["test"] for row, _ in found}) for title, found in groups.items()}
    return {title: groups[title] for title in sorted(groups, key=lambda title: -size[title])}


def _title(difference: Mapping[str, str]) -> str:
    cause, path = Cause(difference["cause"]), re.sub(r"\[\d+\]", "[]", difference["path"])
    return {
        Cause.ERROR: "the outcome changed",
        Cause.TOOL_CALLS: f"{path} changed in a tool call" if path else "other tools are called",
        Cause.FINISH_REASON: "the finish reason changed",
        Cause.STRUCTURE: f"the structure changed at {path}",
        Cause.VECTORS: "the vectors changed",
        Cause.TEXT: f"{path} changed" if path else "the text changed",
    }[cause]


def _group(difference: Mapping[str, str]) -> str:
    title = _title(difference)
    is_value = difference["cause"] in VALUES or (
        difference["cause"] == Cause.TOOL_CALLS and difference["path"]
    )
    return title if is_value else f"{title} from {difference['before']} to {difference['after']}"


def _examples(found: Sequence[tuple[Row, Mapping[str, str]]], paint: Paint, most: int) -> Iterator[str]:
    for row, difference in found[:most]:
        yield f"  {row['test']}, call {row['call']}: {_short(row['question'], 60)}"
        if _group(difference) == _title(difference):
            changed = changed_lines(words(difference["before"], difference["after"]))
            for _, parts in changed[:LINES]:
                yield f"    {shown(parts, paint)}"
            if len(changed) > LINES:
                yield f"      … and {len(changed) - LINES} more lines"
    if more := [row["test"] for row, _ in found[most:]]:
        yield f"  … and {counted(len(more), 'more call')} in {counted(len(set(more)), 'test')} (-v shows all)"


def _reasons(title: str, verdict: Verdict, rows: Sequence[Row]) -> Iterator[str]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["verdict"] == verdict:
            groups[row["why"]].append(row)
    for why, found in groups.items():
        tests = dict.fromkeys(row["test"] for row in found)
        yield f"{title}, {counted(len(found), 'call')} in {counted(len(tests), 'test')}: {printable(why)}"
        yield from (f"  {test}" for test in [*tests][:EXAMPLES])
        if len(tests) > EXAMPLES:
            yield f"  … and {counted(len(tests) - EXAMPLES, 'more test')}"


def _commands(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what records the new answers, if they are those of the recorded models."""
    drifted = [row for row in rows if row["verdict"] == Verdict.DIFFERENT and row["asked"] == row["model"]]
    tests = list(dict.fromkeys(row["test"] for row in drifted if not row["is_live"]))
    if tests:
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        named = tests if len(tests) <= FILES else files if len(files) <= FILES else []
        yield f"Record the new answers:  {' '.join(['pytest --lm-rewrite', *map(shlex.quote, named)])}"


def _short(text: str, longest: int = LONGEST) -> str:
    text = printable(" ".join(text.split()))
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
