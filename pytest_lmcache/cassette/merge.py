"""What a cassette file holds after a test: the interactions of before, and the new ones."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple, TypeAlias

from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.errors import CassetteError
from pytest_lmcache.interaction import Answer, Kind

# Fields that differ in each answer, however alike the answers are.
VOLATILE = frozenset(
    {"created", "created_at", "completed_at", "system_fingerprint", "obfuscation", "timings", "_response_ms"}
    | {"queue_time", "prompt_time", "completion_time", "total_time"}
    | {"total_duration", "load_duration", "prompt_eval_duration", "eval_duration"}
    | {"headers", "response_headers"}
)
# Fields with the arguments of a tool: the model chooses all names in there.
ARGUMENTS = frozenset({"input", "arguments"})
SHORTEST_ID = 2  # characters; a shorter id may be a word of a prompt too
WORDS = re.compile(r"([A-Za-z0-9_-]+)")
MOST_PAIRS = 40_000  # of a new and an old question, to compare them; it takes about a tenth of a second

Place: TypeAlias = tuple[str, int]
"""A key, and which of its answers, from 0."""


class CallToSave(NamedTuple):
    """One call of a test: its key, which of the key's answers (from 0), and the document if the answer is new.

    ``replaces``: the new answer takes the place of one that was too old.
    """

    key: str
    nth: int
    new: Entry | None
    replaces: bool = False


class Changes(NamedTuple):
    """How many recordings of a file got another question or answer, are new, and are gone."""

    replaced: int = 0
    added: int = 0
    removed: int = 0


def places(entries: Iterable[Entry]) -> dict[Place, Entry]:
    """Return interactions by their places, in the same order."""
    seen: Counter[str] = Counter()
    found = {}
    for entry in entries:
        found[entry.key, seen[entry.key]] = entry
        seen[entry.key] += 1
    return found


def merge(
    old: Sequence[Entry], calls: Sequence[CallToSave], *, unused: set[Place], rewrite: bool
) -> tuple[list[Entry], Changes]:
    """Return the file's interactions after a test; ``calls`` are in the order in which they started.

    ``unused`` are the places that go, since nothing asks for them any more. What did not change keeps its text
    and its place. A new interaction goes into the place of the most similar one that goes; if there is none, it
    stands behind the call before it.
    """
    before = places(old)
    new = {(call.key, call.nth): call.new for call in calls if call.new is not None}
    asked = dict.fromkeys(_in_order(calls))
    known = asked.keys() <= before.keys()
    if rewrite:
        in_run = [new[place] for place in asked if place in new]
        if not known and _is_same_run(old, in_run, is_whole=bool(unused)):
            return list(old), Changes()
        chosen = before | new | {place: before[place] for place in _unchanged(before, new, known=known)}
    else:
        chosen = (
            new | before | {(each.key, each.nth): each.new for each in calls if each.new and each.replaces}
        )
    gone = {place: entry for place, entry in before.items() if place in unused}
    added = {place: chosen[place] for place in asked if place in chosen.keys() - before.keys()}
    in_place_of = most_similar(added, gone)
    order = _order([*before], [place for place in asked if place in chosen], in_place_of)
    changed = sum(chosen[place] is not entry for place, entry in before.items() if place not in gone)
    replaced = len(in_place_of)
    return (
        [chosen[place] for place in order if place not in gone],
        Changes(replaced + changed, len(added) - replaced, len(gone) - replaced),
    )


def _order(
    before: Sequence[Place], asked: Sequence[Place], in_place_of: Mapping[Place, Place]
) -> list[Place]:
    """Return the places of a file in order; a new one stands in another's place, or behind the call before it."""
    at = {place: (number, 0) for number, place in enumerate(before)}
    at |= {new: at[old] for new, old in in_place_of.items()}
    # New calls before the first known one stand in front of it; if none is known, at the end.
    behind = next((at[place][0] for place in asked if place in at), len(before)) - 1
    for number, place in enumerate(asked, 1):
        behind, _ = at.setdefault(place, (behind, number))
    return sorted(at, key=at.__getitem__)


def most_similar(new: Mapping[Place, Entry], old: Mapping[Place, Entry]) -> dict[Place, Place]:
    """Return for each new interaction the old one whose question has most lines in common, each old one once.

    Calls at once may start in another order than they did; of equally similar ones the first is taken.
    """
    if len(new) * len(old) > MOST_PAIRS:
        return dict(zip(new, old, strict=False))
    lines = {id(entry): {*entry.question.splitlines()} for entry in (*new.values(), *old.values())}

    def similarity(pair: tuple[Place, Place]) -> float:
        one, other = lines[id(new[pair[0]])], lines[id(old[pair[1]])]
        return len(one & other) / (len(one) + len(other))

    found: dict[Place, Place] = {}
    taken: set[Place] = set()
    for place, other in sorted(product(new, old), key=similarity, reverse=True):
        if place not in found and other not in taken:
            found[place] = other
            taken.add(other)
    return found


def _in_order(calls: Sequence[CallToSave]) -> Iterator[Place]:
    """Yield the places of the calls, in the order in which the calls started.

    Of identical calls at once, the last one may have got the lowest number: the numbers are dealt anew in order,
    so that the answers of a key never change places.
    """
    numbers: dict[str, set[int]] = defaultdict(set)
    for call in calls:
        numbers[call.key].add(call.nth)
    ranked = {key: iter(sorted(found)) for key, found in numbers.items()}
    for key, _ in dict.fromkeys((call.key, call.nth) for call in calls):
        yield key, next(ranked[key])


def _unchanged(before: dict[Place, Entry], new: dict[Place, Entry], *, known: bool) -> set[Place]:
    """Return the places whose answers did not change, apart from ids if all places are ``known``.

    An answer with a response header that the old one lacks has changed; the values of headers differ in each.
    An id may be repeated in a later question. If one question differs from what it was, ids are ignored only
    if no answer changed, so that all ids of the file are of one run.
    """
    pairs = {place: (before[place], entry) for place, entry in new.items() if place in before}
    answers = {place: [each.answer() for each in pair] for place, pair in pairs.items()}

    def unchanged(id_form: Callable[[Any], Any]) -> set[Place]:
        return {
            place
            for place, (one, other) in answers.items()
            if _answer_form(one, id_form) == _answer_form(other, id_form)
            and _header_names(other) <= _header_names(one)
        }

    same = unchanged(lambda _: None) if known else set()
    if not known or (
        len(same) < len(pairs) and any(one.question != two.question for one, two in pairs.values())
    ):
        return unchanged(lambda ident: ident)
    return same


def _is_same_run(old: Sequence[Entry], new: Sequence[Entry], *, is_whole: bool) -> bool:
    """Whether the file holds all that a test asked and was answered, apart from the ids of providers.

    An id that is repeated in a later question, as that of a tool call is, gives the question a new key. With
    ``is_whole`` it must hold nothing else.
    """
    if is_whole and len(old) != len(new):
        return False
    # An id has no line ends: interactions with other numbers of lines need not be parsed.
    lines = {entry.question.count(b"\n") for entry in new}
    numbers: dict[Any, int] = {}
    recorded = _forms((entry for entry in old if entry.question.count(b"\n") in lines), numbers)
    return _forms(new, numbers) <= recorded


def _forms(entries: Iterable[Entry], numbers: dict[Any, int]) -> set[Any]:
    """Return the interactions of a run in a form that is the same for all runs with the same answers.

    An id is replaced by the number of the interaction in which it appeared first, and its place there.
    ``numbers`` gives equal interactions of several runs the same number.
    """
    forms = set()
    ids: dict[Any, Any] = {}
    asked: Counter[Any] = Counter()
    for entry in entries:
        try:
            call, answer = entry.call(), entry.answer()
        except CassetteError:
            continue  # in a file that tests share, it may be another's
        found: dict[Any, Any] = {}

        def id_form(ident: Any, found: dict[Any, Any] = found) -> Any:
            if len(str(ident)) < SHORTEST_ID:
                return ident
            return ids.get(ident) or found.setdefault(ident, ("id", len(found)))

        question = call.name, _frozen(call.request, ids)
        form = question, asked[question], _answer_form(answer, id_form)
        asked[question] += 1
        number = numbers.setdefault(form, len(numbers))
        ids.update((ident, (*place, number)) for ident, place in found.items())
        forms.add(form)
    return forms


def _answer_form(answer: Answer, id_form: Callable[[Any], Any]) -> Any:
    """Return what an answer says in a comparable form."""
    answer = answer.with_whole_chunks()
    data, error = _comparable(_events(answer.data), id_form), _comparable(answer.error, id_form)
    return answer.kind, answer.complete, answer.ended, answer.hidden_model, data, error


def _header_names(answer: Answer) -> set[str]:
    """Return the names of the response headers that are stored with an answer."""
    found = [(answer.hidden or {}).get("additional_headers")]
    if answer.kind is Kind.ERROR:
        found += [answer.data.get("headers"), answer.data.get("response_headers")]
    return {name for headers in found if isinstance(headers, dict) for name in headers}


def _comparable(value: Any, id_form: Callable[[Any], Any]) -> Any:
    """Return plain data that is hashable, without volatile fields, each id by ``id_form``."""
    if isinstance(value, dict):
        fields = {name: item for name, item in value.items() if name not in VOLATILE}
        for name, item in fields.items():
            if name in ARGUMENTS:
                fields[name] = _frozen(item)
            elif isinstance(item, str | int) and (name == "id" or str(name).endswith("_id")):
                fields[name] = id_form(item)
            else:
                fields[name] = _comparable(item, id_form)
        return frozenset(fields.items())
    if isinstance(value, list):
        return tuple(_comparable(item, id_form) for item in value)
    return value


def _frozen(value: Any, ids: Mapping[Any, Any] | None = None) -> Any:
    """Return plain data that is hashable; ids that stand in its texts are replaced."""
    if isinstance(value, dict):
        return frozenset((name, _frozen(item, ids)) for name, item in value.items())
    if isinstance(value, list):
        return tuple(_frozen(item, ids) for item in value)
    if not ids or not isinstance(value, str):
        return value
    words = WORDS.split(value)
    if value in ids or ids.keys().isdisjoint(words):
        return ids.get(value, value)
    return tuple(ids.get(word, word) for word in words)


def _events(data: Any) -> Any:
    """A stream's server-sent events as data: their bytes hold the same in other pieces each time."""
    if not isinstance(data, list) or not all(isinstance(chunk.get("bytes"), str) for chunk in data):
        return data
    events: list[Any] = []
    for line in filter(None, "".join(chunk["bytes"] for chunk in data).splitlines()):
        try:
            events.append(json.loads(line.removeprefix("data:")))
        except ValueError:
            events.append(line)
    return events
