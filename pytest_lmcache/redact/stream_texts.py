"""Texts that come in pieces: a stream's chunks, tokens with their probabilities, server-sent events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, AnyStr, NamedTuple, TypeAlias

TextPath: TypeAlias = tuple[Any, ...]
_Leaf: TypeAlias = tuple[TextPath, TextPath, str]


class Run(NamedTuple):
    """A chunk and those that repeat it: its number, its texts, the path to its piece of text, the others' pieces."""

    number: int
    leaves: list[_Leaf]
    path: TextPath
    pieces: list[str]


def in_pieces(runs: list[Run]) -> Iterator[list[tuple[int, TextPath, str]]]:
    """The texts that come in pieces: of each the pieces, with the number of the chunk and the place there."""
    texts: dict[TextPath, set[str]] = {}
    for run in runs:
        for path, place, text in run.leaves:
            texts.setdefault(path, set()).update((text, *run.pieces) if _is_at(place, run.path) else (text,))
    found: dict[TextPath, list[tuple[int, TextPath, str]]] = {
        path: [] for path, pieces in texts.items() if len(pieces) > 1
    }
    for run in runs:
        for path, place, text in run.leaves:
            if path in found:
                others = run.pieces if _is_at(place, run.path) else [text] * len(run.pieces)
                found[path] += (
                    (number, place, piece) for number, piece in enumerate([text, *others], run.number)
                )
    yield from found.values()


def _is_at(place: TextPath, path: TextPath) -> bool:
    """Whether a place is where a path of names leads."""
    return tuple(name for name in place if isinstance(name, str)) == path


def whole_of(_chunk: Any) -> TextPath:
    """The one text of a stream."""
    return ()


def part_of(chunk: Any) -> TextPath:
    """Which of a stream's texts an event is of: those of several items may come in turn."""
    found = map(chunk.get, _PARTS) if isinstance(chunk, dict) else ()
    return tuple(part if isinstance(part, str | int) else None for part in found)


_PARTS = ("type", "item_id", "output_index", "content_index", "summary_index", "index")


def leaves_of(value: Any, path: TextPath = (), place: TextPath = ()) -> Iterator[_Leaf]:
    """The texts of a chunk: what each continues in other chunks, where it is, and itself.

    An item of a list is at its own ``index`` if it has one; the tokens of logprobs are pieces of one text.
    """
    if isinstance(value, str):
        yield path, place, value
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "tokens" and is_spelled(value):
                for at, token in enumerate(item):
                    yield (*path, name), (*place, name, at), token
            else:
                yield from leaves_of(item, (*path, name), (*place, name))
    elif is_logprobs(value):
        for at, item in _places(value):
            yield (*path, "token"), (*place, at, "token"), item["token"]
    elif isinstance(value, list):
        for at, item in _places(value):
            yield from leaves_of(item, (*path, at), (*place, at))


def with_leaves(value: Any, texts: dict[tuple[Any, ...], str], place: tuple[Any, ...] = ()) -> Any:
    """A chunk with other texts at the given places."""
    if isinstance(value, str):
        return texts.get(place, value)
    if isinstance(value, dict):
        if "top_logprobs" in value and (token := texts.get((*place, "token"))) is not None:
            return retold(value, token)
        if is_spelled(value):
            tokens = [texts.get((*place, "tokens", at), old) for at, old in enumerate(value["tokens"])]
            return value if tokens == value["tokens"] else {**value, "tokens": tokens, "top_logprobs": None}
        return {name: with_leaves(item, texts, (*place, name)) for name, item in value.items()}
    if isinstance(value, list):
        return [with_leaves(item, texts, (*place, at)) for at, item in _places(value)]
    return value


def is_logprobs(value: Any) -> bool:
    """Whether data is a list of tokens with their probabilities, which spell a text."""
    return (
        bool(value)
        and isinstance(value, list | tuple)
        and all(
            isinstance(item, dict) and "top_logprobs" in item and isinstance(item.get("token"), str)
            for item in value
        )
    )


def is_spelled(value: dict[Any, Any]) -> bool:
    """Whether data is the logprobs of a text completion."""
    tokens = value.get("tokens") if "token_logprobs" in value else None
    return isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)


def retold(item: dict[str, Any], token: Any) -> dict[str, Any]:
    """A token of logprobs with another text: its bytes and what it might have been told the old one."""
    return {**item, "token": token, "top_logprobs": []} | ({"bytes": None} if "bytes" in item else {})


def _places(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    indexes = [item.get("index") if isinstance(item, dict) else None for item in items]
    known = all(isinstance(index, int) for index in indexes) and len(set(indexes)) == len(indexes)
    for place, item in enumerate(items):
        yield (("index", indexes[place]) if known else place), item


def edits_between(old: str, new: str) -> list[tuple[int, int, str]]:
    """What makes one text of another: all from their first difference to their last, at once."""
    if old == new:
        return []
    start = min(_in_common(old, new), len(old) - 1)
    end = _in_common(old[start:][::-1], new[start:][::-1])
    return [(start, len(old) - end, new[start : len(new) - end])]


def _in_common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    differ = (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    return next(differ, min(len(one), len(other)))


EVENT_DATA = re.compile(rb"(?:\A|(?<=[\r\n]))data:[ ]?(\{[^\r\n]*)")
EVENT_FRAME = re.compile(rb"(?:event:[ ]?[a-z_.]*|data:[ ]?|[\r\n])*")
_JSON_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def bytes_of(chunk: Any) -> bytes | None:
    """What a chunk of bytes holds, None for another."""
    if not isinstance(chunk, dict) or len(chunk) != 1:
        return None
    text, raw = chunk.get("bytes"), chunk.get("raw")
    if isinstance(text, str):
        return text.encode(errors="surrogatepass")
    return raw if isinstance(raw, bytes) else None


def bytes_chunk(piece: bytes) -> dict[str, Any]:
    """A chunk of bytes, as text where it can be."""
    try:
        return {"bytes": piece.decode()}
    except UnicodeDecodeError:
        return {"raw": piece}


def rewritten(text: str, data: Any) -> str:
    """The JSON text with the data's texts in the place of its own; all else as it was written, where possible."""
    ascii_only = text.isascii() or "\\ud" in text.lower()  # a lone surrogate must stay an escape
    plain = json.dumps(data, ensure_ascii=ascii_only, separators=(",", ":"))
    texts = iter(_JSON_TEXT.findall(plain))

    def text_of(found: re.Match[str]) -> str:
        new = next(texts, "")
        return found[0] if new and json.loads(found[0]) == json.loads(new) else new

    same_form = _JSON_TEXT.sub(text_of, text)
    try:
        return same_form if json.loads(same_form) == data else plain
    except ValueError:
        return plain


def edited(pieces: list[AnyStr], edits: list[tuple[int, int, AnyStr]]) -> Iterator[AnyStr]:
    """The pieces with each edit in that piece where it begins; edits are in order and do not overlap."""
    start = at = 0
    for piece in pieces:
        end, done = start + len(piece), start
        new: list[AnyStr] = []
        while at < len(edits) and edits[at][0] < end:
            first, last, text = edits[at]
            new.append(piece[done - start : max(first - start, 0)])
            if first >= start:
                new.append(text)
            done = min(last, end)
            if last > end:
                break
            at += 1
        new.append(piece[done - start :])
        yield piece[:0].join(new)
        start = end
