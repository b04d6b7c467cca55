"""What a cassette file holds after a test: the interactions of before, and the new ones."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.errors import (
    CassetteError,
)
from pytest_lmcache.stream_chunks import whole

# What a provider gives anew to the very same answer.
VOLATILE = frozenset(
    {"created", "created_at", "completed_at", "system_fingerprint", "obfuscation", "timings", "_response_ms"}
    | {"queue_time", "prompt_time", "completion_time", "total_time"}
    | {"total_duration", "load_duration", "prompt_eval_duration", "eval_duration"}
)
# What a model says to a tool: every name in there is the model's own.
SAID = frozenset({"input", "arguments"})


Place: TypeAlias = tuple[str, int]
"""A key, and which of its answers, from 0."""


class CallToSave(NamedTuple):
    """One call of a test, in the order of start: its key, which of the key's answers (from 0), what is new.

    ``replaces``: the new answer takes the place of one that was too old.
    """

    key: str
    nth: int
    new: Entry | None
    replaces: bool = False


def merge(
    old: Sequence[Entry], asked: Sequence[CallToSave], *, is_shared: bool, rewrite: bool
) -> list[Entry]:
    """The file's interactions after a test: in the order in which the calls started.

    What did not change keeps its text, and a rewrite with the same calls keeps the order, so that recording
    again touches nothing else. Where several tests share the file, each keeps its place and new ones come last.
    """
    before = dict(zip(_places(old), old, strict=True))
    fresh = {(call.key, call.nth): call.new for call in asked if call.new is not None}
    in_order = dict.fromkeys(_in_order(asked))
    known = in_order.keys() <= before.keys()
    if rewrite and not known and _is_same_run(before, [*in_order], fresh, whole=not is_shared):
        return list(old)
    if rewrite:
        chosen = before | fresh | {place: before[place] for place in _unchanged(before, fresh, known=known)}
    else:
        renewed = {(call.key, call.nth): call.new for call in asked if call.new is not None and call.replaces}
        chosen = fresh | before | renewed
    if is_shared or (known and not rewrite):
        order = [*before, *in_order]
    elif rewrite:
        order = [place for place in before if place in in_order] if known else [*in_order]
    else:
        order = [*in_order, *before]
    return [chosen[place] for place in dict.fromkeys(order) if place in chosen]


def _unchanged(before: dict[Place, Entry], fresh: dict[Place, Entry], *, known: bool) -> set[Place]:
    """Which places of the file were answered the same again; identifiers aside where that is consistent.

    An identifier may have gone on into a later question. Where one question reads otherwise than it did,
    identifiers are left aside only if no answer changed, so that all of the file is of one run.
    """
    pairs = {place: (before[place], new) for place, new in fresh.items() if place in before}
    same = {place for place, pair in pairs.items() if same_answer(*pair, ids=known)}
    if known and len(same) < len(pairs) and any(one.question != new.question for one, new in pairs.values()):
        return {place for place in same if same_answer(*pairs[place], ids=False)}
    return same


def _is_same_run(
    before: dict[Place, Entry], in_order: list[Place], fresh: dict[Place, Entry], *, whole: bool
) -> bool:
    """Whether the file holds all that a test asked and was answered, but for identifiers that providers made up.

    An identifier that goes on into a later question, as that of a tool call, makes a new key. The file still
    replays if each of the new run stands for one of the file's, wherever they stand. ``whole``: the file must
    hold nothing else.
    """
    if fresh.keys() != set(in_order) or (whole and len(in_order) != len(before)):
        return False
    others = {place: entry for place, entry in before.items() if place not in fresh}
    ids = _Ids({}, {})
    for place in in_order:
        # Of identical questions each has its own number, before and now.
        choice = [place] if place in before else [other for other in others if other[1] == place[1]]
        found = next(((one, then) for one in choice if (then := ids.of(before[one], fresh[place]))), None)
        if found is None:
            return False
        ids = found[1]
        others.pop(found[0], None)
    return True


SHORTEST_ID = 2  # characters
WORD = re.compile(r"[A-Za-z0-9_-]+")


class _Ids(NamedTuple):
    """Which identifier of one run is which of another's, there and back."""

    forth: dict[str, str]
    back: dict[str, str]

    def of(self, one: Entry, other: Entry) -> _Ids | None:
        """These and those that two interactions add; None where these are not the same otherwise."""
        if one.question.count(b"\n") != other.question.count(b"\n"):
            return None  # an identifier is a word: nothing is read in vain
        try:
            asked, now = one.call(), other.call()
            if asked.name != now.name or not self._fits(asked.request, now.request):
                return None
            said, new = one.answer(), other.answer()
        except CassetteError:
            return None  # somebody else's, in a file that tests share: it is nothing to stop for
        ids = _Ids({**self.forth}, {**self.back})
        is_same = (
            said.kind is new.kind
            and (said.complete, said.ended) == (new.complete, new.ended)
            and ids._learn(_settled(_events(said.data), False), _settled(_events(new.data), False))
            and ids._learn(_settled(said.error, False), _settled(new.error, False))
        )
        return ids if is_same else None

    def _learn(self, one: Any, other: Any) -> bool:
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(
                self._pair(item, other[name])
                if _is_id(name) and isinstance(item, str) and isinstance(other[name], str)
                else item == other[name]
                if name in SAID
                else self._learn(item, other[name])
                for name, item in one.items()
            )
        return _alike(one, other, self._learn)

    def _fits(self, one: Any, other: Any) -> bool:
        if isinstance(one, str) and isinstance(other, str):
            if one == other or one in self.forth or other in self.back:
                return self.forth.get(one, one) == other and self.back.get(other, other) == one
            return _exchanged(one, self.forth) == other and _exchanged(other, self.back) == one
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(self._fits(one[name], other[name]) for name in one)
        return _alike(one, other, self._fits)

    def _pair(self, one: str, other: str) -> bool:
        if one != other and min(len(one), len(other)) < SHORTEST_ID:
            return False  # it may be a word of a prompt too
        return self.forth.setdefault(one, other) == other and self.back.setdefault(other, one) == one


def _exchanged(text: str, ids: dict[str, str]) -> str:
    """A text with the identifiers of the other run, as of a tool call that an agent tells the model of."""
    return WORD.sub(lambda found: ids.get(found[0], found[0]), text)


def _alike(one: Any, other: Any, are: Callable[[Any, Any], bool]) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(are, one, other))
    return bool(one == other)


def same_answer(one: Entry, other: Entry, *, ids: bool) -> bool:
    """Whether two answers say the same, times and fingerprints aside, with ``ids`` also identifiers aside."""
    first, second = one.answer(), other.answer()
    return (
        first.kind is second.kind
        and (first.complete, first.ended) == (second.complete, second.ended)
        and _settled(_events(first.data), ids) == _settled(_events(second.data), ids)
        and _settled(first.error, ids) == _settled(second.error, ids)
    )


def _places(entries: Iterable[Entry]) -> Iterator[Place]:
    seen: Counter[str] = Counter()
    for entry in entries:
        yield entry.key, seen[entry.key]
        seen[entry.key] += 1


def _in_order(asked: Sequence[CallToSave]) -> Iterator[Place]:
    """The places asked for, by the start of their calls.

    Of identical calls at once, the one that started last may have been answered first: their numbers stay
    in order, so that the answers of a key never change places.
    """
    numbers: dict[str, set[int]] = defaultdict(set)
    for call in asked:
        numbers[call.key].add(call.nth)
    ranked = {key: iter(sorted(found)) for key, found in numbers.items()}
    for key, _ in dict.fromkeys((call.key, call.nth) for call in asked):
        yield key, next(ranked[key])


def _events(data: Any) -> Any:
    """A stream's server-sent events as data: their bytes hold the same in other pieces each time."""
    if not isinstance(data, list):
        return data
    data = [*whole(data)]
    if not data or not all(isinstance(chunk.get("bytes"), str) for chunk in data):
        return data
    lines = "".join(chunk["bytes"] for chunk in data).splitlines()
    return [_event(line) for line in lines if line]


def _event(line: str) -> Any:
    try:
        return json.loads(line.removeprefix("data:"))
    except ValueError:
        return line


def _settled(value: Any, ids: bool) -> Any:
    if isinstance(value, dict):
        return {
            name: item if name in SAID else _settled(item, ids)
            for name, item in value.items()
            if name not in VOLATILE and not (ids and _is_id(name))
        }
    if isinstance(value, list):
        return [_settled(item, ids) for item in value]
    return value


def _is_id(name: Any) -> bool:
    return isinstance(name, str) and (name == "id" or name.endswith("_id"))
