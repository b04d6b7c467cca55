"""What changed between two recordings of the same test: questions, answers, tool calls, usage and cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.cassette.merge import Place, most_similar, places
from pytest_lmcache.conversation import Conversation, Message, ToolCall, conversation, tool_name
from pytest_lmcache.interaction import Interaction
from pytest_lmcache.keys.plain import canonical
from pytest_lmcache.tags import to_json
from pytest_lmcache.word_diff import Part, changed_lines, printable, words

_LEAST_ALIKE = 0.2  # share of the words of two questions; calls that have less in common are two calls
_PAIR = 2  # lines of a text that was replaced as a whole
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Spent:
    """What calls took: tokens as the providers counted them, USD where a price is known, seconds."""

    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.usd + other.usd,
            self.seconds + other.seconds,
        )

    @property
    def tokens(self) -> int:
        """Input and output tokens."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a call that changed, such as ``asked: system`` or ``answered``, as lines of pieces.

    ``side`` is ``question``, ``answer`` or ``tools`` (what the model called).
    """

    side: str
    title: str
    lines: tuple[tuple[Part, ...], ...]


@dataclass(frozen=True, slots=True)
class CallDiff:
    """One call in both recordings, or in one of them: its numbers there, from 1, None where it is not.

    ``model`` is the name of a call that asks no model, such as ``remember run id``.
    """

    before: int | None
    after: int | None
    model: str
    summary: str
    sections: tuple[Section, ...]
    spent_before: Spent
    spent_after: Spent

    @property
    def is_same(self) -> bool:
        """Whether nothing that a person reads changed."""
        return self.before is not None and self.after is not None and not self.sections


def compare(before: Sequence[Entry], after: Sequence[Entry]) -> list[CallDiff]:
    """Compare the interactions of two cassettes, in the order of the new one. Raises CassetteError."""
    numbers_before = {id(entry): number for number, entry in enumerate(before, 1)}
    pairs = _paired(before, after)
    taken = {id(old) for old in pairs.values()}
    found: list[tuple[float, CallDiff]] = []
    for number, entry in enumerate(after, 1):
        old = pairs.get(id(entry))
        diff = _compared(
            None if old is None else (numbers_before[id(old)], old.interaction()),
            (number, entry.interaction()),
        )
        found.append((number, diff))
    for number, entry in enumerate(before, 1):
        if id(entry) not in taken:
            found.append((number - 0.5, _compared((number, entry.interaction()), None)))
    return [diff for _, diff in sorted(found, key=lambda each: each[0])]


def _paired(before: Sequence[Entry], after: Sequence[Entry]) -> dict[int, Entry]:
    """The old interaction of each new one, by the ``id()`` of the new one: with equal keys, else the most similar."""
    olds, news = places(before), places(after)
    found: dict[Place, Place] = {place: place for place in news if place in olds}
    rest = {place: entry for place, entry in news.items() if place not in found}
    left = {place: entry for place, entry in olds.items() if place not in found}
    similar = most_similar(rest, left)
    found |= {new: old for new, old in similar.items() if _alike(rest[new], left[old]) >= _LEAST_ALIKE}
    return {id(news[new]): olds[old] for new, old in found.items()}


def _alike(one: Entry, other: Entry) -> float:
    """The share of the words of two questions that both have."""
    asked = [conversation(entry.call(), None).asked for entry in (one, other)]
    mine, theirs = ({word for message in each for word in message.text.split()} for each in asked)
    return len(mine & theirs) / len(mine | theirs) if mine | theirs else 1.0


_Numbered = tuple[int, Interaction] | None


def _compared(before: _Numbered, after: _Numbered) -> CallDiff:
    old, new = (None if each is None else _read(each[1]) for each in (before, after))
    shown = new or old
    sections: tuple[Section, ...] = ()
    if old is not None and new is not None:
        sections = tuple(_sections(old, new))
    return CallDiff(
        None if before is None else before[0],
        None if after is None else after[0],
        _name(after or before, shown),
        "" if shown is None else _summary(shown),
        sections,
        _spent(before),
        _spent(after),
    )


def _name(each: _Numbered, read: Conversation | None) -> str:
    """The model that was asked; for a value that a test remembered, what was remembered."""
    if each is None or read is None:
        return ""
    call = each[1].call
    return call.name if call.is_value else read.model


def _read(interaction: Interaction) -> Conversation:
    return conversation(interaction.call, interaction.answer)


def _spent(each: _Numbered) -> Spent:
    if each is None:
        return Spent()
    answer = each[1].answer
    return Spent(*answer.tokens, answer.usd or 0.0, answer.seconds)


def _summary(read: Conversation) -> str:
    """The last thing that was said to the model, in one line."""
    texts = [message.text for message in read.asked if message.text]
    return " ".join(texts[-1].split()) if texts else ""


# ---- sections ------------------------------------------------------------------------------------------


def _sections(old: Conversation, new: Conversation) -> Iterator[Section]:
    """The parts of two conversations that differ."""
    yield from _text("question", "model", old.model, new.model)
    yield from _messages("question", "asked", old.asked, new.asked)
    yield from _tools(old.tools, new.tools)
    yield from _data("question", "parameters", old.parameters, new.parameters)
    yield from _messages("answer", "answered", old.answered, new.answered)
    yield from _text("answer", "finish reason", old.finish_reason, new.finish_reason)
    yield from _text("answer", "error", old.error, new.error)
    yield from _text("answer", "answered as model", old.answered_model, new.answered_model)


def _text(side: str, title: str, before: str, after: str) -> Iterator[Section]:
    if before != after:
        lines = tuple(tuple(parts) for _, parts in changed_lines(words(before, after)))
        yield Section(side, title, lines)


def _messages(side: str, what: str, old: Sequence[Message], new: Sequence[Message]) -> Iterator[Section]:
    """The messages that differ: changed ones word by word, others as a whole."""
    for before, after in _aligned(old, new):
        message = after or before
        if before is None or after is None:
            if message is not None:
                text = "\n".join(_whole(message))
                yield from _text(
                    side,
                    f"{what}: {message.role}, {'added' if before is None else 'removed'}",
                    "" if before is None else text,
                    "" if after is None else text,
                )
            continue
        name = f"{what}: {after.role}" if what == "asked" else what
        if before.role != after.role:
            yield from _text(side, f"{what}: role", before.role, after.role)
        yield from _text(side, name, before.text, after.text)
        yield from _text(side, f"{name}, reasoning", before.reasoning, after.reasoning)
        yield from _calls("tools" if side == "answer" else side, name, before.tool_calls, after.tool_calls)
        files = ["\n".join(each.name for each in message.attachments) for message in (before, after)]
        yield from _text(side, f"{name}, attachments", *files)


def _aligned(
    old: Sequence[Message], new: Sequence[Message]
) -> Iterator[tuple[Message | None, Message | None]]:
    """Pairs of messages that stand for each other; a changed one of the same role pairs with its neighbour."""
    forms, new_forms = ([_form(message) for message in messages] for messages in (old, new))
    for tag, start, end, other, stop in SequenceMatcher(None, forms, new_forms, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        olds: list[Message] = [*old[start:end]]
        for message in new[other:stop]:
            same_role = next((each for each in olds if each.role == message.role), None)
            if same_role is None:
                yield None, message
                continue
            while olds[0] is not same_role:
                yield olds.pop(0), None
            yield olds.pop(0), message
        for each in olds:
            yield each, None


def _form(message: Message) -> str:
    """A message without the ids of tool calls, which each recording has anew."""
    calls = [[call.name, canonical(call.arguments)] for call in message.tool_calls]
    files = [each.name for each in message.attachments]
    return json.dumps([message.role, message.text, message.reasoning, calls, files])


def _whole(message: Message) -> Iterator[str]:
    """A message as text."""
    if message.text:
        yield message.text
    for call in message.tool_calls:
        yield f"{call.name}({_as_json(call.arguments)})"
    for each in message.attachments:
        yield f"[{each.name}]"


def _calls(side: str, name: str, old: Sequence[ToolCall], new: Sequence[ToolCall]) -> Iterator[Section]:
    """Tool calls as data: calls of the same tool by their arguments, others as a whole."""
    left = [*old]
    for call in new:
        same = next((each for each in left if each.name == call.name), None)
        title = f"{name}, tool call {call.name}"
        if same is None:
            yield from _text(side, f"{title}, added", "", f"{call.name}({_as_json(call.arguments)})")
            continue
        left.remove(same)
        yield from _data(side, title, same.arguments, call.arguments)
    for call in left:
        title = f"{name}, tool call {call.name}, removed"
        yield from _text(side, title, f"{call.name}({_as_json(call.arguments)})", "")


def _tools(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    """The tools that the model may call, by name."""
    before, after = ({tool_name(tool): tool for tool in tools} for tools in (old, new))
    for name in {**before, **after}:
        one, other = before.get(name, _ABSENT), after.get(name, _ABSENT)
        how = ", added" if one is _ABSENT else ", removed" if other is _ABSENT else ""
        yield from _data("question", f"tool {name}{how}", one, other)


def _data(side: str, title: str, before: Any, after: Any) -> Iterator[Section]:
    """The leaves by which two values differ, a line each."""
    lines: list[tuple[Part, ...]] = []
    for path, old, new in _leaves("", before, after):
        label: list[Part] = [("same", f"{path}: ")] if path else []
        changed = [parts for _, parts in changed_lines(words(old, new))] if _are_texts(old, new) else []
        if any(tag == "same" for parts in changed for tag, _ in parts) or len(changed) > _PAIR:
            lines += [(*label, *parts) for parts in changed]
            continue
        pieces: list[Part] = [("removed", printable(_as_json(old)))] if old is not _ABSENT else []
        if new is not _ABSENT:
            pieces.append(("added", printable(_as_json(new))))
        lines.append((*label, *pieces))
    if lines:
        yield Section(side, title, tuple(lines))


def _are_texts(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _leaves(path: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in {**before, **after}:
            inner = f"{path}.{name}" if path else str(name)
            yield from _leaves(inner, before.get(name, _ABSENT), after.get(name, _ABSENT))
    elif _is_list(before) and _is_list(after) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _leaves(f"{path}[{index}]", one, other)
    elif before is _ABSENT or after is _ABSENT or canonical(before) != canonical(after):
        yield path, before, after


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and not all(isinstance(item, int | float) for item in value)


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(to_json(value), ensure_ascii=False)


def total(spent: Iterable[Spent]) -> Spent:
    """What several calls took together."""
    return sum(spent, Spent())
