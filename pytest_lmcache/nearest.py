"""The recording that is nearest to a call that missed, the differences between the two, and how messages show them."""

from __future__ import annotations

import heapq
import json
import re
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from pytest_lmcache.errors import shorten
from pytest_lmcache.keys.plain import canonical
from pytest_lmcache.word_diff import bracketed, changed_lines, printable, shown, visible, words

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from pytest_lmcache.interaction import Call
    from pytest_lmcache.word_diff import Tag


ABSENT: Final[Any] = object()
"""The side of a Difference that has nothing at this path."""

ENTRY_POINT: Final = "entry point"
"""The path of the difference between two calls of different functions."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where a recorded request (``before``) and a call's (``after``) differ; either may be ABSENT.

    ``path`` counts the items of lists as the call has them, or as the recording has them if only it has the item.
    ``within`` is the role of the message, or the name of the tool, that the place is in; empty if it is in neither.
    """

    path: str
    before: Any
    after: Any
    within: str = ""


@dataclass(frozen=True, slots=True)
class Nearest:
    """The recorded call that is most like the one that missed, its place among the recorded, and the differences."""

    index: int
    call: Call
    differences: tuple[Difference, ...]


# ---- finding -------------------------------------------------------------------------------------------

_MAX_CHARACTERS = 4_000  # of each text that the first comparison reads, half of them at its end
_FINALISTS = 12  # recordings that are compared leaf by leaf after it
_MAX_ALIGNED = 400  # items: the items of longer lists are compared by their places
_WEIGHT_OF_USE = 0.5  # as much as half of a message
_QUESTION = frozenset({"messages", "input", "prompt", "system", "instructions"})


def nearest(
    call: Call,
    recorded: Iterable[Call],
    is_preferred: Callable[[Call], bool] = lambda _: False,
    used: Collection[int] = (),
) -> Nearest | None:
    """Return the recording that is most like ``call``, the first of equals, or None if nothing is recorded.

    Recordings of another entry point count only if there are none of the same. All are compared by the words that
    they share, the best dozen by their differences. A preferred one of these wins. One whose index is in ``used`` has
    answered another call: it is nearest only if it is much nearer.
    """
    calls = list(enumerate(recorded))
    candidates = [pair for pair in calls if pair[1].name == call.name] or calls
    words = set(_words(call.request))

    def overlap(candidate: tuple[int, Call]) -> tuple[float, bool]:
        other = set(_words(candidate[1].request))
        return len(words & other) / (len(words | other) or 1), candidate[0] not in used

    def distance(found: Nearest) -> tuple[bool, float, int]:
        weight = sum(map(_weight, found.differences)) + _WEIGHT_OF_USE * (found.index in used)
        return not is_preferred(found.call), weight, found.index

    finalists = heapq.nlargest(_FINALISTS, candidates, key=overlap)
    return min(
        (Nearest(index, other, tuple(_between(other, call))) for index, other in finalists),
        key=distance,
        default=None,
    )


def _words(value: Any, name: str = "") -> Iterator[str]:
    """The words of a request, and its other values with their names."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _words(item, key)
    elif isinstance(value, list) and not _is_vector(value):
        for item in value:
            yield from _words(item, name)
    elif isinstance(value, str):
        half = _MAX_CHARACTERS // 2
        yield from (value if len(value) <= _MAX_CHARACTERS else f"{value[:half]} {value[-half:]}").split()
    else:
        yield f"{name}={canonical(value[:3] if isinstance(value, list) else value)}"


def _weight(difference: Difference) -> float:
    """How far one difference sets two calls apart, from 0 to 1; the question weighs most."""
    share = 1.0 if re.split(r"\W", difference.path)[0] in _QUESTION else 0.25
    return share * (1.0 - _likeness(difference.before, difference.after))


def _likeness(*values: Any) -> float:
    """How alike two values are, from 0 to 1, by the words that they share."""
    if ABSENT in values:
        return 0.0
    texts = (value if isinstance(value, str) else canonical(value) for value in values)
    one, other = (Counter(re.findall(r"[^\s\"]+", text)) for text in texts)
    return 2 * (one & other).total() / ((one.total() + other.total()) or 1)


# ---- comparing -----------------------------------------------------------------------------------------


def _between(recorded: Call, call: Call) -> Iterator[Difference]:
    if recorded.name != call.name:
        yield Difference(ENTRY_POINT, recorded.name, call.name)
    yield from _differences("", recorded.request, call.request)


def _differences(path: str, before: Any, after: Any, within: str = "") -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in {**after, **before}:
            inner = f"{path}.{name}" if name.isidentifier() else f"{path}[{json.dumps(name)}]"
            one, other = before.get(name, ABSENT), after.get(name, ABSENT)
            yield from _differences(inner.lstrip("."), one, other, within)
    elif all(isinstance(value, list) and not _is_vector(value) for value in (before, after)):
        for index, one, other in _aligned(before, after):
            item = one if other is ABSENT else other
            yield from _differences(f"{path}[{index}]", one, other, within or _role_or_name(item))
    # Equal as a key sees it: 1, 1.0 and True are three things.
    elif before is ABSENT or after is ABSENT or canonical(before) != canonical(after):
        yield Difference(path, before, after, within)


def _role_or_name(item: Any) -> str:
    """The role of a message, or the name of a tool."""
    if not isinstance(item, dict):
        return ""
    function = item.get("function")
    found = (
        item.get("role") or item.get("name") or (function.get("name") if isinstance(function, dict) else "")
    )
    return found if isinstance(found, str) else ""


def _is_vector(value: list[Any]) -> bool:
    """Whether a list has only numbers, as an embedding or token ids: a reader takes it for one value."""
    return bool(value) and all(type(item) in {int, float} for item in value)


def _aligned(before: list[Any], after: list[Any]) -> Iterator[tuple[int, Any, Any]]:
    """The items that stand for each other, with their index; ABSENT if one list has none for the other's."""
    pairs: Iterable[tuple[Any, Any]] = zip_longest(before, after, fillvalue=ABSENT)
    if max(len(before), len(after)) <= _MAX_ALIGNED:
        pairs = []
        matcher = SequenceMatcher(None, [*map(canonical, before)], [*map(canonical, after)], autojunk=False)
        for _, start, end, other_start, other_end in matcher.get_opcodes():
            ours, theirs = before[start:end], after[other_start:other_end]
            pairs += zip(_padded(ours, theirs), _padded(theirs, ours), strict=True)
    index = other_index = 0
    for one, other in pairs:
        yield index if other is ABSENT else other_index, one, other
        index += one is not ABSENT
        other_index += other is not ABSENT


def _padded(items: list[Any], longer: list[Any]) -> list[Any]:
    """Items as many as ``longer`` has: each stands where the one most like it does, in order, between ABSENT."""
    if len(items) >= len(longer):
        return items
    padded: list[Any] = []
    for number, item in enumerate(items):
        last = len(longer) - (len(items) - number)
        likeness = [_likeness(item, each) for each in longer[len(padded) : last + 1]]
        padded += [*[ABSENT] * likeness.index(max(likeness)), item]
    return [*padded, *[ABSENT] * (len(longer) - len(padded))]


# ---- showing -------------------------------------------------------------------------------------------

_SHORT = 40  # characters: two such values stand in one line
_MAX_LINES = 40
_MAX_LINES_OF_TEXT = 16
_DSPY_ENTRY_POINTS = {"dspy", "completion", "text_completion", "responses"}


def explain(differences: Sequence[Difference]) -> list[str]:
    """Return lines for a terminal: the differing leaves by path, with the words that were removed and added.

    At most 40 lines, which say how much was left out. All characters are printable.
    """
    if not differences:
        return [
            "Nothing differs but the key. If you edited the recording by hand, delete it and record it again.",
            "If you have a key function of your own, it may return another key each time.",
        ]
    first, lines = differences[0], list[str]()
    if first.path == ENTRY_POINT and {"dspy"} < {first.before, first.after} <= _DSPY_ENTRY_POINTS:
        engine = "lm15" if first.before == "dspy" else "litellm"
        lines += [
            "DSPy has two engines, and chooses by OPENAI_API_BASE and the like. Set these as they were,",
            f'or name the engine that it was recorded through: dspy.LM(..., engine="{engine}").',
        ]
    if first.path == "model" and len(differences) == 1:
        lines.append('Only the model differs. With key = "messages" one recording serves all models.')
    for number, difference in enumerate(differences):
        block = _block(difference)
        if len(lines) + len(block) >= _MAX_LINES:
            left = len(differences) - number
            return [*lines, f"… and {left} more {'difference' if left == 1 else 'differences'}"]
        lines += block
    return lines


def _block(difference: Difference) -> list[str]:
    path, before, after = printable(difference.path), difference.before, difference.after
    if before is ABSENT:
        return [f"{path}: only in the call: {shorten(as_json(after))}"]
    if after is ABSENT:
        return [f"{path}: only in the recording: {shorten(as_json(before))}"]
    if isinstance(before, str) and isinstance(after, str):
        if max(len(before), len(after)) <= _SHORT and "\n" not in before + after:
            return [f'{path}: recorded "{visible(before, after)}", asked "{visible(after, before)}"']
    else:
        before, after = as_json(before), as_json(after)
        if len(before) + len(after) <= 2 * _SHORT:
            return [f"{path}: recorded {before}, asked {after}"]
    return text_block(path, before, after)


def text_block(
    heading: str,
    before: str,
    after: str,
    paint: Callable[[Tag, str], str] = bracketed,
    most: int = _MAX_LINES_OF_TEXT,
) -> list[str]:
    """Return a heading and at most ``most`` changed lines of a text, with the words that changed.

    ``paint`` marks them, see `pytest_lmcache.word_diff.shown`. The heading gets the number of the first line.
    """
    found = changed_lines(words(before, after))
    place = f", line {found[0][0]}" if "\n" in before + after and found else ""
    lines = [f"{heading}{place}:"]
    for number, (line, parts) in enumerate(found):
        if number and line > found[number - 1][0] + 1:
            lines.append("  …")
        lines.append(f"  {shown(parts, paint)}")
    if len(lines) > most + 1:
        lines[most:] = [f"  … {len(lines) - most} more lines"]
    return lines


def as_json(value: Any) -> str:
    """Return a value as one printable line of JSON."""
    try:
        return printable(json.dumps(value, ensure_ascii=False))
    except ValueError:  # an integer longer than Python prints
        return printable(canonical(value))
