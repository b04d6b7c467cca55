"""Compares a recorded answer with a new answer to the same question. It calls no model."""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from operator import mul
from typing import Any, NamedTuple

from pytest_lmcache.conversation import Message, ToolCall, conversation
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.joined_streams import joined

SAME_VECTOR = (
    0.999  # cosine of two vectors that count as the same; providers do not repeat one to the last bit
)
MISSING = "missing"
# Compared as a conversation, or other in every answer.
_COMPARED = frozenset(
    """
    content text tool_calls function_call refusal role reasoning_content thinking_blocks finish_reason stop_reason status
    output parts error embedding audio images
    """.split()
)
_VOLATILE = frozenset(
    """
    id created created_at completed_at model object usage system_fingerprint service_tier provider_data
    provider_specific_fields stop_sequence index logprobs moderation billing incomplete_details
    """.split()
)
_TOKEN = re.compile(r"\w+|[^\w\s]")


class Cause(StrEnum):
    """The part in which two answers differ."""

    ERROR = "error"
    TOOL_CALLS = "tool calls"
    FINISH_REASON = "finish reason"
    STRUCTURE = "structure"
    VECTORS = "vectors"
    TEXT = "text"


class Difference(NamedTuple):
    """One difference: its cause, its path, such as ``get_weather.city``, and the values before and after."""

    cause: Cause
    path: str
    before: str
    after: str


SameText = Callable[[str, str], bool]
"""Whether a recorded and a new text count as the same."""


def is_comparable(answer: Answer) -> bool:
    """Whether a recorded answer is complete, so that it can be compared."""
    return answer.kind is not Kind.UNANSWERED and answer.ended is None


def differences(
    call: Call, recorded: Answer, new: Answer, same_text: SameText | None = None
) -> list[Difference]:
    """Return how a new answer differs from the recorded one.

    ``same_text`` decides on texts; without it they have to be equal, those that are JSON as data. Of a stream that its
    caller left early, the text that was read is compared.
    """
    errors = _error(recorded), _error(new)
    if any(errors):
        before, after = (error or "an answer" for error in errors)
        return [] if before == after else [Difference(Cause.ERROR, "", before, after)]
    if call.name == "embedding":
        return list(_of_vectors(recorded.data, new.data))
    one, other = conversation(call, recorded), conversation(call, new)
    if not recorded.complete:
        return [
            found
            for before, after in zip(one.answered, other.answered, strict=False)
            for found in _of_texts(before.text, after.text[: len(before.text)], same_text, "")
        ]
    found = []
    if one.finish_reason != other.finish_reason:
        found.append(Difference(Cause.FINISH_REASON, "", one.finish_reason, other.finish_reason))
    if len(one.answered) != len(other.answered):
        numbers = str(len(one.answered)), str(len(other.answered))
        found.append(Difference(Cause.STRUCTURE, "number of answers", *numbers))
    else:
        for number, pair in enumerate(zip(one.answered, other.answered, strict=True)):
            place = f"choices[{number}]." if len(one.answered) > 1 else ""
            found += _of_messages(*pair, same_text, place)
    return [*found, *_of_structure(_response(recorded), _response(new))]


def similarity(recorded: str, new: str) -> float:
    """Return the share of words and punctuation that two texts have in common, in the same order: 0 to 1, by difflib."""
    from difflib import SequenceMatcher

    return SequenceMatcher(None, _TOKEN.findall(recorded), _TOKEN.findall(new), autojunk=False).ratio()


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of the angle between two vectors; 0 if their lengths differ or one of them is zero."""
    sizes = math.hypot(*one) * math.hypot(*other)
    return sum(map(mul, one, other)) / sizes if len(one) == len(other) and sizes else 0.0


# ---- the parts of an answer ----------------------------------------------------------------------------


def _error(answer: Answer) -> str:
    """The class and the status of the error that ended an answer, empty if none did."""
    error = answer.data if answer.kind is Kind.ERROR else answer.error
    if not isinstance(error, dict):
        return ""
    status = error.get("status_code", error.get("status"))
    name = str(error.get("class", "error")).rpartition(".")[2]
    return f"{name} ({status})" if status is not None else name


def _of_messages(
    one: Message, other: Message, same_text: SameText | None, place: str
) -> Iterator[Difference]:
    yield from _of_tool_calls(one.tool_calls, other.tool_calls, place)
    yield from _of_texts(one.text, other.text, same_text, place)
    for name, before, after in (
        ("reasoning", one.reasoning, other.reasoning),
        *((f"{kind}s", *pair) for kind, pair in _attachments(one, other).items()),
    ):
        if bool(before) != bool(after):
            has = "there" if before else MISSING, "there" if after else MISSING
            yield Difference(Cause.STRUCTURE, place + name, *has)


def _attachments(one: Message, other: Message) -> dict[str, tuple[int, int]]:
    kinds = [[each.kind for each in message.attachments] for message in (one, other)]
    return {kind: (kinds[0].count(kind), kinds[1].count(kind)) for kind in dict.fromkeys(kinds[0] + kinds[1])}


def _of_tool_calls(one: Sequence[ToolCall], other: Sequence[ToolCall], place: str) -> Iterator[Difference]:
    # Calls in parallel have no order.
    pairs = sorted(one, key=_sorted_by), sorted(other, key=_sorted_by)
    names = [", ".join(call.name for call in calls) for calls in pairs]
    if names[0] != names[1]:
        yield Difference(Cause.TOOL_CALLS, place.rstrip("."), names[0] or "none", names[1] or "none")
        return
    for before, after in zip(*pairs, strict=True):
        for path, old, new, _ in _of_data(before.arguments, after.arguments, place + before.name):
            yield Difference(Cause.TOOL_CALLS, path, old, new)


def _sorted_by(call: ToolCall) -> tuple[str, str]:
    return call.name, json.dumps(call.arguments, sort_keys=True, default=str)


def _of_texts(one: str, other: str, same_text: SameText | None, place: str) -> Iterator[Difference]:
    if one == other:
        return
    data = _json(one), _json(other)
    if None in data:
        if not one or not other or same_text is None or not same_text(one, other):
            yield Difference(Cause.TEXT, place.rstrip("."), one, other)
        return
    found = [*_of_data(*data, f"{place}text")]
    for path, before, after, is_value in found:
        if not is_value:
            yield Difference(Cause.STRUCTURE, path, before, after)
        elif same_text is None:
            yield Difference(Cause.TEXT, path, before, after)
    if same_text is not None and any(is_value for *_, is_value in found) and not same_text(one, other):
        yield Difference(Cause.TEXT, place.rstrip("."), one, other)


def _json(text: str) -> Any:
    """The data of a text that is JSON, an object or an array; else None."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _of_data(one: Any, other: Any, path: str) -> Iterator[tuple[str, str, str, bool]]:
    """Yield where data differs: path, before, after, and whether only a value differs, and not what data there is."""
    kinds = _kind(one), _kind(other)
    if kinds[0] != kinds[1]:
        yield path, *kinds, False
    elif isinstance(one, dict):
        for name in dict.fromkeys([*one, *other]):
            if name not in one or name not in other:
                has = [_kind(each[name]) if name in each else MISSING for each in (one, other)]
                yield f"{path}.{name}", has[0], has[1], False
            else:
                yield from _of_data(one[name], other[name], f"{path}.{name}")
    elif isinstance(one, list):
        for number, pair in enumerate(zip(one, other, strict=False)):
            yield from _of_data(*pair, f"{path}[{number}]")
        if len(one) != len(other):
            yield f"{path}[]", f"{len(one)} items", f"{len(other)} items", True
    elif one != other:
        texts = [each if isinstance(each, str) else json.dumps(each) for each in (one, other)]
        yield path, texts[0], texts[1], True


def _kind(value: Any) -> str:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")


def _of_vectors(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Difference]:
    pairs = [[_vector(item) for item in data.get("data", ())] for data in (one, other)]
    if len(pairs[0]) != len(pairs[1]):
        yield Difference(Cause.STRUCTURE, "number of vectors", str(len(pairs[0])), str(len(pairs[1])))
        return
    for before, after in zip(*pairs, strict=True):
        if len(before) != len(after):
            yield Difference(Cause.STRUCTURE, "length of vectors", str(len(before)), str(len(after)))
        elif before != after and (angle := cosine(before, after)) < SAME_VECTOR:
            yield Difference(Cause.VECTORS, "", "cosine 1", f"cosine {angle:.4f}")


def _vector(item: Any) -> Sequence[float]:
    vector = item.get("embedding") if isinstance(item, dict) else item
    if isinstance(vector, str):
        data = base64.b64decode(vector)
        return struct.unpack(f"<{len(data) // 4}f", data)
    return vector if isinstance(vector, list) else ()


# ---- what data an answer has ---------------------------------------------------------------------------


def _response(answer: Answer) -> Any:
    return joined(answer.with_whole_chunks().data) if answer.kind is Kind.STREAM else answer.data


def _of_structure(one: Any, other: Any) -> Iterator[Difference]:
    """Yield where one of two responses has data that the other has not, or data of another type.

    What is null or empty counts as missing; items of a list count together.
    """
    shapes = dict(_shape(one, "")), dict(_shape(other, ""))
    for path in dict.fromkeys([*shapes[0], *shapes[1]]):
        before, after = (shape.get(path, MISSING) for shape in shapes)
        is_told = any(path.startswith((f"{outer}.", f"{outer}[")) for outer in _one_sided(shapes))
        if before != after and not is_told:
            yield Difference(Cause.STRUCTURE, path, before, after)


def _one_sided(shapes: tuple[dict[str, str], dict[str, str]]) -> set[str]:
    return shapes[0].keys() ^ shapes[1].keys()


def _shape(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in _COMPARED and name not in _VOLATILE and item not in (None, "", [], {}):
                inner = f"{path}.{name}".lstrip(".")
                yield inner, _kind(item)
                yield from _shape(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _shape(item, f"{path}[]")
