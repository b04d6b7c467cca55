"""Which recording comes nearest to a call that missed, and what differs between the two."""

from __future__ import annotations

import difflib
import heapq
import json
import os.path
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from pytest_lmcache.keys.plain import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pytest_lmcache.interaction import Call


class _Absent(Enum):
    ABSENT = "not there"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent.ABSENT
"""Stands in a Difference for the side that has nothing at this path."""

ENTRY_POINT: Final = "entry point"
"""The path of the difference between two calls of different functions."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where a recorded request and the one asked for differ; either side may be ABSENT.

    ``path`` counts list items as the call has them, and as the recording has them for what only it has.
    """

    path: str
    recorded: Any
    asked: Any


@dataclass(frozen=True, slots=True)
class Nearest:
    """The recorded call that is most like the one asked for, its position among the recorded, and why not."""

    index: int
    call: Call
    differences: tuple[Difference, ...]


# ---- finding -------------------------------------------------------------------------------------------

# How much of one text the first look at all recordings reads, at either end, in characters.
_GLANCE = 2_000
# How many recordings are compared leaf by leaf after it.
_FINALISTS = 12
# Lists longer than this are compared item by item without looking for what moved.
_ALIGNED = 400


def nearest(
    asked: Call, recorded: Iterable[Call], is_same: Callable[[Call], bool] = lambda _: False
) -> Nearest | None:
    """The recording most like ``asked``, of equals the first, but before all one that ``is_same`` takes for it.

    None where nothing is recorded.

    A recording of another entry point is looked at only where the same one has none. All are compared by the
    words they share, reading at most 4,000 characters of each text; the dozen best by their differences.
    """
    calls = list(enumerate(recorded))
    if not calls:
        return None
    candidates = [pair for pair in calls if pair[1].name == asked.name] or calls
    wanted = _glance(asked.request)
    scored = ((_overlap(wanted, _glance(call.request)), -index, call) for index, call in candidates)
    finalists = heapq.nlargest(_FINALISTS, scored, key=lambda entry: entry[:2])
    found = (Nearest(-minus, call, tuple(_between(call, asked))) for _, minus, call in finalists)
    return min(
        found, key=lambda each: (not is_same(each.call), sum(map(_weight, each.differences)), each.index)
    )


def _glance(request: Any) -> set[str]:
    """The words of a request, and its short values together with their names."""
    words: set[str] = set()
    todo = [("", request)]
    while todo:
        name, value = todo.pop()
        if isinstance(value, dict):
            todo.extend(value.items())
        elif isinstance(value, list):
            if _is_vector(value):
                words.add(f"{name}={canonical(value[:3])}")
            else:
                todo.extend((name, item) for item in value)
        elif not isinstance(value, str):
            words.add(f"{name}={canonical(value)}")
        elif len(value) <= 2 * _GLANCE:
            words.update(value.split())
        else:
            words.update(value[:_GLANCE].split(), value[-_GLANCE:].split())
    return words


def _overlap(one: set[str], other: set[str]) -> float:
    shared = len(one & other)
    return shared / ((len(one) + len(other) - shared) or 1)


def _weight(difference: Difference) -> float:
    """How much one difference sets two calls apart, from 0 to 1: the question tells more than who is asked and how."""
    share = 1.0 if re.split(r"\W", difference.path)[0] in QUESTION else 0.25
    return share * (1.0 - _likeness(difference.recorded, difference.asked))


QUESTION = frozenset({"messages", "input", "prompt", "system", "instructions"})


def _likeness(one: Any, other: Any) -> float:
    """How alike two values are, from 0 to 1: by their words for texts, by their members for the rest."""
    if isinstance(one, str) and isinstance(other, str):
        return _share(Counter(one.split()), Counter(other.split())) if one != other else 1.0
    if isinstance(one, dict) and isinstance(other, dict):
        names = one.keys() | other.keys()
        shared = sum(_likeness(one[name], other[name]) for name in one.keys() & other.keys())
        return shared / (len(names) or 1)
    if isinstance(one, list) and isinstance(other, list):
        return _share(Counter(map(canonical, one)), Counter(map(canonical, other)))
    return 1.0 if _same(one, other) else 0.0


def _share(one: Counter[str], other: Counter[str]) -> float:
    return 2 * (one & other).total() / ((one.total() + other.total()) or 1)


# ---- comparing -----------------------------------------------------------------------------------------


def _between(recorded: Call, asked: Call) -> Iterator[Difference]:
    if recorded.name != asked.name:
        yield Difference(ENTRY_POINT, recorded.name, asked.name)
    yield from _differences("", recorded.request, asked.request)


def _differences(path: str, recorded: Any, asked: Any) -> Iterator[Difference]:
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for name in {**asked, **recorded}:
            yield from _differences(_at(path, name), recorded.get(name, ABSENT), asked.get(name, ABSENT))
    elif (
        isinstance(recorded, list)
        and isinstance(asked, list)
        and not (_is_vector(recorded) or _is_vector(asked))
    ):
        for one, other in _aligned(recorded, asked):
            index = one if other is None else other
            yield from _differences(
                f"{path}[{index}]",
                ABSENT if one is None else recorded[one],
                ABSENT if other is None else asked[other],
            )
    elif not _same(recorded, asked):
        yield Difference(path, recorded, asked)


def _at(path: str, name: str) -> str:
    if not name.isidentifier():
        return f"{path}[{json.dumps(name)}]"
    return f"{path}.{name}" if path else name


def _same(one: Any, other: Any) -> bool:
    """Equal as a key sees it: 1, 1.0 and True are three things."""
    if one is ABSENT or other is ABSENT:
        return one is other
    return canonical(one) == canonical(other)


def _is_vector(value: list[Any]) -> bool:
    """A list of numbers, such as an embedding or token ids, is one value to a reader."""
    return bool(value) and all(type(item) in {int, float} for item in value)


def _aligned(recorded: list[Any], asked: list[Any]) -> Iterator[tuple[int | None, int | None]]:
    """Which item stands for which; None where one side has nothing for the other's."""
    if max(len(recorded), len(asked)) > _ALIGNED:
        yield from _side_by_side(range(len(recorded)), range(len(asked)))
        return
    matcher = difflib.SequenceMatcher(
        None, [canonical(item) for item in recorded], [canonical(item) for item in asked], autojunk=False
    )
    for _, start, end, other_start, other_end in matcher.get_opcodes():
        ours, theirs = range(start, end), range(other_start, other_end)
        if len(ours) == len(theirs):
            yield from _side_by_side(ours, theirs)
        else:
            yield from _by_likeness(recorded, asked, ours, theirs)


def _side_by_side(ours: Sequence[int], theirs: Sequence[int]) -> Iterator[tuple[int | None, int | None]]:
    for place in range(max(len(ours), len(theirs))):
        yield (
            ours[place] if place < len(ours) else None,
            theirs[place] if place < len(theirs) else None,
        )


def _by_likeness(
    recorded: list[Any], asked: list[Any], ours: Sequence[int], theirs: Sequence[int]
) -> Iterator[tuple[int | None, int | None]]:
    """Pair each item of the shorter side, in order, with the one most like it; the others have no pair."""
    spare = abs(len(ours) - len(theirs))
    place = other_place = 0
    while place < len(ours) or other_place < len(theirs):
        if place == len(ours):
            yield None, theirs[other_place]
            other_place += 1
        elif other_place == len(theirs):
            yield ours[place], None
            place += 1
        else:
            longer_is_ours = len(ours) - place > len(theirs) - other_place
            likenesses = [
                _likeness(recorded[ours[place + step]], asked[theirs[other_place]])
                if longer_is_ours
                else _likeness(recorded[ours[place]], asked[theirs[other_place + step]])
                for step in range(spare + 1)
            ]
            skipped = likenesses.index(max(likenesses))
            for _ in range(skipped):
                yield (ours[place], None) if longer_is_ours else (None, theirs[other_place])
                place += longer_is_ours
                other_place += not longer_is_ours
            spare -= skipped
            yield ours[place], theirs[other_place]
            place += 1
            other_place += 1


# ---- telling -------------------------------------------------------------------------------------------

_WIDTH = 100
_BEFORE_THE_CHANGE = 30
_SHORT = 40
_LINES = 40
_LINES_OF_ONE = 16


def explain(found: Nearest) -> list[str]:
    """Lines for a terminal: the differing leaves by path, ``-`` as recorded and ``+`` as asked for.

    At most 40 lines of about 100 characters, saying how much was left out; all characters are printable.
    """
    lines: list[str] = []
    if not found.differences:
        return [
            "nothing differs but the key: was the recording edited by hand? Then delete it and record again.",
            "Or does a key function of your own give another key each time?",
        ]
    if found.differences[0].path == ENTRY_POINT:
        lines += _other_engine(found.differences[0])
    if [difference.path for difference in found.differences] == ["model"]:
        lines.append('the question is the same; key = "messages" has one recording serve all models')
    for done, difference in enumerate(found.differences):
        block = _block(difference)
        if len(lines) + len(block) >= _LINES:
            left = len(found.differences) - done
            return [*lines, f"… and {left} more {'difference' if left == 1 else 'differences'}"]
        lines += block
    return lines


def _other_engine(difference: Difference) -> list[str]:
    """Advice for what DSPy asks by another engine than it was recorded by."""
    engines = dict.fromkeys(("completion", "text_completion", "responses"), ("litellm", "LiteLLM"))
    engines["dspy"] = ("lm15", "DSPy's own engine")
    none = ("", "")
    (name, recorded), (other, asked) = (
        engines.get(each, none) for each in (difference.recorded, difference.asked)
    )
    if {name, other} != {"litellm", "lm15"}:
        return []
    return [
        f"recorded through {recorded}, asked through {asked}, which DSPy chooses by OPENAI_API_BASE and the like:",
        f'set that as it was, or give dspy.LM(..., engine="{name}")',
    ]


def _block(difference: Difference) -> list[str]:
    path, recorded, asked = _safe(difference.path), difference.recorded, difference.asked
    if recorded is ABSENT:
        return [f"{path}: only in the call: {_short(asked)}"]
    if asked is ABSENT:
        return [f"{path}: only in the recording: {_short(recorded)}"]
    if not isinstance(recorded, str) or not isinstance(asked, str):
        recorded, asked = _json(recorded), _json(asked)
        if max(len(recorded), len(asked)) <= _WIDTH:
            return _pair(path, recorded, asked)
    if "\n" in recorded or "\n" in asked:
        return [f"{path}:", *_changed_lines(recorded, asked)]
    if max(len(recorded), len(asked)) <= _SHORT:
        return _pair(path, f'"{_visible(recorded, asked)}"', f'"{_visible(asked, recorded)}"')
    one, other = _cut_around(recorded, asked)
    return [f"{path}:", f"  - {one}", f"  + {other}"]


def _pair(path: str, recorded: str, asked: str) -> list[str]:
    if len(recorded) + len(asked) <= 2 * _SHORT:
        return [f"{path}: recorded {recorded}, asked {asked}"]
    return [f"{path}:", f"  - {recorded}", f"  + {asked}"]


def _changed_lines(recorded: str, asked: str) -> list[str]:
    """The changed lines of a text, each change with one line around it."""
    before, after = recorded.split("\n"), asked.split("\n")
    # Without its heuristic for popular lines the matcher is quadratic on long texts.
    matcher = difflib.SequenceMatcher(
        None, before, after, autojunk=len(before) + len(after) > 2 * _LINES_FINE
    )
    lines: list[str] = []
    for group in matcher.get_grouped_opcodes(1):
        if lines or group[0][1] > 0:
            lines.append(f"  … line {group[0][3] + 1}")
        for tag, start, end, other_start, other_end in group:
            if tag == "equal":
                lines += [f"    {_line(line)}" for line in before[start:end]]
            else:
                lines += _replaced(before[start:end], after[other_start:other_end])
    if len(lines) <= _LINES_OF_ONE:
        return lines
    left = len(lines) - _LINES_OF_ONE + 1
    return [*lines[: _LINES_OF_ONE - 1], f"  … {left} more lines"]


_LINES_FINE = 1_000


def _replaced(before: list[str], after: list[str]) -> list[str]:
    if len(before) == len(after):
        pairs = [_cut_around(one, other) for one, other in zip(before, after, strict=True)]
        return [*(f"  - {one}" for one, _ in pairs), *(f"  + {other}" for _, other in pairs)]
    return [*(f"  - {_line(line)}" for line in before), *(f"  + {_line(line)}" for line in after)]


def _line(text: str) -> str:
    if not text:
        return "(empty line)"
    return _whole(text) if len(text) <= _WIDTH else f"{_safe(text[:_WIDTH])}…"


def _cut_around(one: str, other: str) -> tuple[str, str]:
    """Two texts of one line each, from a little before the place where they part."""
    parting = len(os.path.commonprefix([one, other]))  # noqa: RUF071, what a path must not, a text may
    start = max(0, parting - _BEFORE_THE_CHANGE) if max(len(one), len(other)) > _WIDTH else 0
    return _part(one, other, start), _part(other, one, start)


def _part(text: str, other: str, start: int) -> str:
    if not text:
        return "(empty)"
    end = start + _WIDTH
    shown = _visible(text[start:end], other[start:end], whole=end >= len(text))
    return f"{'…' if start else ''}{shown}{'…' if end < len(text) else ''}"


def _visible(text: str, other: str, *, whole: bool = True) -> str:
    """A text beside the one it differs from: printable, and told apart from it by the eye."""
    if text != other and unicodedata.normalize("NFKC", text) == unicodedata.normalize("NFKC", other):
        text = ascii(text)[1:-1]
    return _whole(text) if whole else _safe(text)


def _short(value: Any) -> str:
    return _cut(_json(value), _WIDTH)


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except ValueError:  # an integer longer than Python prints
        text = canonical(value)
    return _safe(text)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _safe(text: str) -> str:
    """A text with everything escaped that a terminal would not show."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _whole(text: str) -> str:
    """A text to its end, so that spaces there are shown as well."""
    safe = _safe(text)
    bare = safe.rstrip(" ")
    return bare + r"\x20" * (len(safe) - len(bare))
