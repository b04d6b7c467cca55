"""A stream as cassettes and layers store it: its chunks, most of them reduced to their piece of text.

A stored chunk is a mapping, or a text. A text stands for the last mapping before it, with this text in the place of
its own: ``[{"delta": {"text": "Par"}}, "is"]`` is ``[{"delta": {"text": "Par"}}, {"delta": {"text": "is"}}]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

Chunk: TypeAlias = dict[str, Any] | str

# The names that lead to a chunk's piece of text, and those of the piece itself, in LiteLLM's chunks and DSPy's events.
# What is stored depends on them: another name, or another order, needs a new format of cassettes and values.
STEPS = ("choices", "delta", "tool_calls", "function")
TEXTS = ("content", "text", "arguments", "reasoning_content")
# Values of these types are the same if they are equal, unlike 1, 1.0 and True.
EXACT = frozenset({str, int, type(None)})


def text_path(chunk: Any) -> tuple[str, ...]:
    """The names that lead to a chunk's piece of text, such as ``("choices", "delta", "content")``; empty if it has none.

    Lists on the way have one item.
    """
    path: tuple[str, ...] = ()
    value = chunk
    while isinstance(value, dict):
        name = next(filter(value.get, STEPS), None)
        if name is None:
            texts = [name for name in TEXTS if isinstance(value.get(name), str)]
            return (*path, next(filter(value.get, texts), texts[0])) if texts else ()
        path = (*path, name)
        value = value[name]
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else None
    return ()


def with_text(chunk: dict[str, Any], path: Sequence[str], text: str) -> dict[str, Any]:
    """A copy of a chunk with another text at the path. Raises ValueError if the path is empty."""
    name, *rest = path
    inner: Any = chunk[name]
    if not rest:
        inner = text
    elif isinstance(inner, list):
        inner = [with_text(inner[0], rest, text)]
    else:
        inner = with_text(inner, rest, text)
    return {**chunk, name: inner}


def whole(chunks: Iterable[Chunk]) -> Iterator[dict[str, Any]]:
    """Every chunk of a stored stream as a mapping. Raises ValueError for a text that has no chunk to repeat."""
    last: dict[str, Any] = {}
    path: tuple[str, ...] = ()
    for chunk in chunks:
        if isinstance(chunk, str):
            yield with_text(last, path, chunk)
        else:
            last, path = chunk, text_path(chunk)
            yield chunk


def is_stored(data: Any) -> bool:
    """Whether data is a stored stream: a list of mappings and texts, each text after a mapping with a piece of text."""
    if not isinstance(data, list) or not all(isinstance(chunk, dict | str) for chunk in data):
        return False
    pairs = pairwise([None, *data])
    return all(isinstance(last, str) or text_path(last) for last, chunk in pairs if isinstance(chunk, str))


def packer() -> Callable[[dict[str, Any]], Chunk]:
    """A function that takes the chunks of one stream in turn, and gives each as it is stored."""
    path: tuple[str, ...] = ()
    last: list[Any] | None = None

    def pack(chunk: dict[str, Any]) -> Chunk:
        nonlocal path, last
        if last is not None:
            text, rest = split(chunk, path)
            if rest == last:
                return text
        path = text_path(chunk)
        last = split(chunk, path)[1] if path else None
        return chunk

    return pack


def pack(chunks: Iterable[dict[str, Any]]) -> list[Chunk]:
    """The chunks of a stream as they are stored."""
    return [*map(packer(), chunks)]


def split(chunk: dict[str, Any], path: tuple[str, ...]) -> tuple[str, list[Any] | None]:
    """The text at a path, and all else of a chunk, which is equal to that of the chunks that repeat it.

    The second is None if there is no text, or other data beside it than texts, whole numbers and nulls.
    """
    value: Any = chunk
    rest: list[Any] = []
    for name in path:
        if type(value) is list and len(value) == 1:
            [value] = value
            rest.append(list)
        if type(value) is not dict:
            return "", None
        fields = {**value, name: None}
        if not EXACT.issuperset(map(type, fields.values())):
            return "", None
        rest.append([*fields.items()])
        value = value.get(name)
    return (value, rest) if type(value) is str else ("", None)
