"""Takes secrets out of streams: texts that come in pieces, and server-sent events that come as bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

from pytest_lmcache.redact.placeholders import edited
from pytest_lmcache.redact.text import TextRedactor
from pytest_lmcache.stream_chunks import pack, text_path, whole

Path: TypeAlias = tuple[Any, ...]
# Where a text is: what it continues in other chunks, its place in its own chunk, and itself.
_Leaf: TypeAlias = tuple[Path, Path, str]

_PART = ("type", "item_id", "output_index", "content_index", "summary_index", "index")
_EVENT_DATA = re.compile(rb"(?:\A|(?<=[\r\n]))data:[ ]?(\{[^\r\n]*)")
_EVENT_FRAME = re.compile(rb"(?:event:[ ]?[a-z_.]*|data:[ ]?|[\r\n])*")
_JSON_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class StreamRedactor:
    """Takes secrets out of the chunks of a stream; ``data`` takes them out of one chunk."""

    def __init__(self, text: TextRedactor, data: Callable[[Any], Any]) -> None:
        self._text = text
        self._data = data

    def __call__(self, chunks: list[Any]) -> list[Any]:
        """Return the chunks without their secrets: the same list if there are none."""
        pieces = [_bytes_of(chunk) for chunk in chunks]
        if not chunks or None in pieces:
            return self._chunks(chunks)
        clean = self._events([piece for piece in pieces if piece is not None])
        return [
            chunk if new == old else _bytes_chunk(new)
            for chunk, old, new in zip(chunks, pieces, clean, strict=True)
        ]

    def _chunks(self, chunks: list[Any]) -> list[Any]:
        # First as they came: a chunk redacted by itself would hide where the rest of a secret in the next one began.
        clean = self._each(self._joined(chunks))
        is_same = all(new is old for new, old in zip(clean, chunks, strict=True))
        return clean if is_same else self._joined(clean)

    def _each(self, chunks: list[Any]) -> list[Any]:
        """Redact each chunk by itself."""
        if all(self._data(chunk) is chunk for chunk in chunks):
            return chunks
        return pack(map(self._data, whole(chunks)))

    def _joined(self, chunks: list[Any]) -> list[Any]:
        """Redact the texts that the chunks are pieces of: of the whole stream, then of each of its parts."""
        chunks = self._joined_by(chunks, lambda _: ())
        has_parts = any(part is not None for chunk in chunks for part in _part_of(chunk))
        return self._joined_by(chunks, _part_of) if has_parts else chunks

    def _joined_by(self, chunks: list[Any], part_of: Callable[[Any], Path]) -> list[Any]:
        runs: list[_Run] = []
        for number, chunk in enumerate(chunks):
            if isinstance(chunk, str):
                runs[-1].pieces.append(chunk)
            else:
                runs.append(_Run(number, list(_leaves(chunk, part_of(chunk))), text_path(chunk), []))
        changed: dict[int, dict[Path, str]] = {}
        for text in _texts_in_pieces(runs):
            clean = self._text.pieces([piece for *_, piece in text])
            for (number, place, old), new in zip(text, clean, strict=True):
                if new != old:
                    changed.setdefault(number, {})[place] = new
        if not changed:
            return chunks
        return pack(
            _with_leaves(chunk, changed[number]) if number in changed else chunk
            for number, chunk in enumerate(whole(chunks))
        )

    def _events(self, pieces: list[bytes]) -> list[bytes]:
        """Redact server-sent events: the JSON of each event as a chunk, and what else stands between as text."""
        stream = b"".join(pieces)
        events: list[tuple[int, int, str, dict[str, Any]]] = []
        for found in _EVENT_DATA.finditer(stream):
            text = found[1].decode(errors="surrogateescape")
            try:
                events.append((*found.span(1), text, json.loads(text)))
            except (ValueError, RecursionError):
                continue  # cut off, or no JSON: text
        edits: list[tuple[int, int, bytes]] = []
        done = 0
        clean = whole(self._chunks([event for *_, event in events]))
        for (start, end, text, event), new in zip(events, clean, strict=True):
            edits += self._between(stream, done, start)
            if new is not event and new != event:
                edits.append((start, end, _rewritten(text, new).encode(errors="surrogateescape")))
            done = end
        return list(edited(pieces, [*edits, *self._between(stream, done, len(stream))]))

    def _between(self, stream: bytes, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        if not _EVENT_FRAME.fullmatch(stream, start, end):
            text = stream[start:end].decode(errors="surrogateescape")
            if (clean := self._text(text)) != text:
                yield start, end, clean.encode(errors="surrogateescape")


# ---- logprobs: tokens with their probabilities, which spell the text beside them ----------------------


def is_logprobs(value: Any) -> bool:
    """Whether data is a list of tokens with their probabilities, as a chat's answer has it."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(
            isinstance(item, dict) and "top_logprobs" in item and isinstance(item.get("token"), str)
            for item in value
        )
    )


def is_completion_logprobs(value: dict[Any, Any]) -> bool:
    """Whether data is the logprobs of a text completion."""
    tokens = value.get("tokens") if "token_logprobs" in value else None
    return isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)


def with_token(item: dict[str, Any], token: Any) -> dict[str, Any]:
    """One token with another text, without the bytes and the alternatives, which spell the old one."""
    return {**item, "token": token, "top_logprobs": []} | ({"bytes": None} if "bytes" in item else {})


def with_tokens(value: dict[Any, Any], tokens: list[str]) -> dict[Any, Any]:
    """The logprobs of a text completion with other tokens, without the alternatives, which spell the old ones."""
    return value if tokens == value["tokens"] else {**value, "tokens": tokens, "top_logprobs": None}


# ---- texts in pieces -----------------------------------------------------------------------------------


class _Run(NamedTuple):
    """A chunk and those that repeat it: its number, its texts, the path to its piece of text, the others' pieces."""

    number: int
    leaves: list[_Leaf]
    path: Path
    pieces: list[str]

    def pieces_at(self, place: Path) -> list[str]:
        """The pieces of the chunks that repeat this one, if they stand at this place."""
        return self.pieces if tuple(name for name in place if isinstance(name, str)) == self.path else []


def _texts_in_pieces(runs: list[_Run]) -> Iterator[list[tuple[int, Path, str]]]:
    """The texts that come in different pieces: for each piece the number of its chunk, its place there, itself."""
    texts: dict[Path, list[tuple[_Run, Path, str]]] = {}
    for run in runs:
        for path, place, text in run.leaves:
            texts.setdefault(path, []).append((run, place, text))
    for found in texts.values():
        if len({piece for run, place, text in found for piece in (text, *run.pieces_at(place))}) > 1:
            yield [
                (number, place, piece)
                for run, place, text in found
                for number, piece in enumerate(
                    [text, *(run.pieces_at(place) or [text] * len(run.pieces))], run.number
                )
            ]


def _part_of(chunk: Any) -> Path:
    """Which part of the stream an event belongs to: the events of several items may take turns."""
    found = map(chunk.get, _PART) if isinstance(chunk, dict) else ()
    return tuple(part if isinstance(part, str | int) else None for part in found)


def _leaves(value: Any, path: Path = (), place: Path = ()) -> Iterator[_Leaf]:
    """The texts of a chunk. An item of a list is at its own ``index`` if it has one; tokens are pieces of one text."""
    if isinstance(value, str):
        yield path, place, value
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "tokens" and is_completion_logprobs(value):
                for at, token in enumerate(item):
                    yield (*path, name), (*place, name, at), token
            else:
                yield from _leaves(item, (*path, name), (*place, name))
    elif is_logprobs(value):
        for at, item in _places(value):
            yield (*path, "token"), (*place, at, "token"), item["token"]
    elif isinstance(value, list):
        for at, item in _places(value):
            yield from _leaves(item, (*path, at), (*place, at))


def _with_leaves(value: Any, texts: dict[Path, str], place: Path = ()) -> Any:
    """A chunk with other texts at the given places."""
    if isinstance(value, str):
        return texts.get(place, value)
    if isinstance(value, dict):
        if "top_logprobs" in value and (token := texts.get((*place, "token"))) is not None:
            return with_token(value, token)
        if is_completion_logprobs(value):
            tokens = [texts.get((*place, "tokens", at), old) for at, old in enumerate(value["tokens"])]
            return with_tokens(value, tokens)
        return {name: _with_leaves(item, texts, (*place, name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_leaves(item, texts, (*place, at)) for at, item in _places(value)]
    return value


def _places(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    indexes = [item.get("index") if isinstance(item, dict) else None for item in items]
    is_indexed = all(isinstance(index, int) for index in indexes) and len(set(indexes)) == len(indexes)
    for number, item in enumerate(items):
        yield (("index", indexes[number]) if is_indexed else number), item


# ---- bytes ---------------------------------------------------------------------------------------------


def _bytes_of(chunk: Any) -> bytes | None:
    """The bytes of a chunk, None for another kind of chunk."""
    if not isinstance(chunk, dict) or len(chunk) != 1:
        return None
    text, raw = chunk.get("bytes"), chunk.get("raw")
    if isinstance(text, str):
        return text.encode(errors="surrogatepass")
    return raw if isinstance(raw, bytes) else None


def _bytes_chunk(piece: bytes) -> dict[str, Any]:
    """A chunk of bytes, as text if it can be."""
    try:
        return {"bytes": piece.decode()}
    except UnicodeDecodeError:
        return {"raw": piece}


def _rewritten(text: str, data: Any) -> str:
    """A JSON text with the strings of ``data`` in the place of its own, and all else as it was, if possible."""
    ascii_only = text.isascii() or "\\ud" in text.lower()  # a lone surrogate must stay an escape
    plain = json.dumps(data, ensure_ascii=ascii_only, separators=(",", ":"))
    strings = iter(_JSON_TEXT.findall(plain))

    def string(found: re.Match[str]) -> str:
        new = next(strings, "")
        return found[0] if new and json.loads(found[0]) == json.loads(new) else new

    same_form = _JSON_TEXT.sub(string, text)
    try:
        return same_form if json.loads(same_form) == data else plain
    except ValueError:
        return plain
