"""The chunks of LiteLLM's streams <-> plain data, and the stored chunks of one answer in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, NoReturn

from pytest_lmcache.interaction import Answer, copied
from pytest_lmcache.libraries.litellm.answers import (
    OUTPUT_TYPES,
    SET_FIELDS,
    build,
    class_named,
    output_types,
    shortest_dump,
    with_output_types,
)
from pytest_lmcache.libraries.litellm.compat import with_null_logprobs
from pytest_lmcache.libraries.litellm.exceptions import error_from_plain
from pytest_lmcache.libraries.plain_data import to_plain
from pytest_lmcache.libraries.recorded_call import wait_to_be_cancelled, wait_to_be_cancelled_in_thread
from pytest_lmcache.stream_chunks import Chunk, packer, split, text_path, whole, with_text

CHAT_TEXT = ("choices", "delta", "content")


@dataclass(frozen=True, slots=True, eq=False)
class ChunkCodec:
    """The chunks of an entry point's streams <-> plain data.

    ``from_plain`` builds the chunk that LiteLLM gave, and uses its data up. ``is_chat``: the chunks' piece of text is at
    `CHAT_TEXT`.
    """

    from_plain: Callable[[dict[str, Any]], Any]
    is_chat: bool = False

    def to_plain(self, chunk: Any) -> dict[str, Any]:
        """Convert one chunk; one that is not a model becomes ``bytes``, ``raw``, ``text`` or ``event``."""
        if isinstance(chunk, bytes | bytearray):
            return bytes_to_plain(chunk)
        if isinstance(chunk, str):
            return {"text": chunk}
        if isinstance(chunk, dict):
            return {"event": to_plain(chunk)}
        return shortest_dump(chunk, self.from_plain, output_types(chunk))

    def packer(self) -> Callable[[Any], Chunk]:
        """A function that converts the chunks of one stream in turn to what is stored.

        The shortest form of a chunk is found out only if more than its text differs from the one before.
        """
        pack = packer()
        path: tuple[str, ...] = ()
        last: Any = None

        def store(chunk: Any) -> Chunk:
            nonlocal path, last
            # As pydantic gives it: `split` takes no other values than plain ones.
            whole = chunk.model_dump(**SET_FIELDS) if hasattr(chunk, "model_dump") else {}
            text, rest = split(whole, path)
            if text and rest is not None and rest == last:
                return text
            data, path = self.to_plain(chunk), text_path(whole)
            text, rest = split(whole, path)
            last = rest if text and split(data, path)[0] == text else None
            return pack(data)

        return store

    def unpacker(self) -> Callable[[Chunk], Any]:
        """A function that builds LiteLLM's objects of the stored chunks of one stream in turn.

        A text repeats a chat's chunk: that is a copy, made in a fifth of the time that LiteLLM's classes take.
        """
        repeat: Callable[[str], Any]

        def unpack(chunk: Chunk) -> Any:
            nonlocal repeat
            if isinstance(chunk, str):
                return repeat(chunk)
            if self.is_chat and not isinstance(chunk.get("choices", []), list):
                raise ValueError("`choices` is not a list")  # LiteLLM would put an empty choice in its place
            path = text_path(chunk)
            if self.is_chat and path == CHAT_TEXT and split(chunk, path)[1] is not None:
                repeat = _chat_repeater(first := self.from_plain(chunk))
                return first
            data = copied(chunk)
            repeat = lambda text: self.from_plain(copied(with_text(data, path, text)))  # noqa: E731
            return self.from_plain(chunk)

        return unpack


def of_class(class_name: str) -> Callable[[dict[str, Any]], Any]:
    """What builds chunks of a class of LiteLLM's, given by its path."""
    return lambda data: build(class_named(class_name), data)


def bytes_to_plain(chunk: bytes | bytearray) -> dict[str, Any]:
    """Convert a chunk of bytes: ``bytes`` holds them as a text, ``raw`` if they are none."""
    raw = bytes(chunk)
    try:
        return {"bytes": raw.decode()}
    except UnicodeDecodeError:
        return {"raw": raw}


def bytes_from_plain(data: dict[str, Any]) -> Any:
    """The chunk of a stream of Anthropic messages: bytes, or what stood in their place."""
    return data["bytes"].encode() if "bytes" in data else next(iter(data.values()))


def _chat_repeater(chunk: Any) -> Callable[[str], Any]:
    """A function that copies a chat's chunk of flat data with another piece of text."""
    choice = chunk.choices[0]
    new_chunk, new_choice, new_delta = map(_copier, (chunk, choice, choice.delta))
    return lambda text: new_chunk("choices", [new_choice("delta", new_delta("content", text))])


def _copier(model: Any) -> Callable[[str, Any], Any]:
    """A function that copies a flat pydantic model, hidden parameters included, with one field replaced.

    ``model_copy`` takes six times as long.
    """
    kind, fields, extra, names = type(model), {**vars(model)}, model.model_extra, {*model.model_fields_set}
    extra = None if extra is None else {**extra}
    private = {name: copy(value) for name, value in (model.__pydantic_private__ or {}).items()}
    dicts = [name for name, value in private.items() if isinstance(value, dict)]
    new, put = object.__new__, object.__setattr__

    def copied_with(name: str, value: Any) -> Any:
        model = new(kind)
        own = {**fields}
        more = None if extra is None else {**extra}
        (more if more is not None and name in more else own)[name] = value
        put(model, "__dict__", own)
        put(model, "__pydantic_extra__", more)
        put(model, "__pydantic_fields_set__", {*names})
        put(model, "__pydantic_private__", {**private, **{each: {**private[each]} for each in dicts}} or None)
        return model

    return copied_with


def text_as_chat(chunk: Mapping[str, Any]) -> dict[str, Any]:
    """The chat's chunk that LiteLLM makes a text completion's stored chunk from."""
    choices = [
        {
            "index": choice.get("index", 0),
            "finish_reason": choice.get("finish_reason"),
            "delta": {"content": choice.get("text"), "role": "assistant"},
        }
        for choice in chunk.get("choices", ())
    ]
    usage = {"usage": chunk["usage"]} if chunk.get("usage") else {}
    return {
        **{name: chunk[name] for name in ("id", "created", "model") if name in chunk},
        "object": "chat.completion.chunk",
        "choices": choices,
        **usage,
    }


def event_from_plain(data: dict[str, Any]) -> Any:
    """An event of a stream of ``responses()``."""
    from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig

    kind = OpenAIResponsesAPIConfig.get_event_model_class(data.get("type", ""))
    types = data.pop(OUTPUT_TYPES, None)
    try:
        event = kind(**data)
    except ValueError:
        if "part" in data:
            return kind(**with_null_logprobs(data))
        # LiteLLM's success handler rewrites the usage of a finished response to chat's fields, which the class of
        # the response refuses: it is built without, and gets the rewritten usage afterwards.
        response = dict(data["response"])
        usage = response.pop("usage", None)
        event = kind(**{**data, "response": response})
        vars(event.response)["usage"] = usage
    if types is not None:
        with_output_types(event.response, types)
    return event


class StoredChunks:
    """The chunks of one answer in turn.

    ``cut_off`` is called if the recording ends before the stream did, and raises the miss. ``broken`` is called if
    LiteLLM cannot read a chunk, and raises the error.
    """

    def __init__(
        self,
        codec: ChunkCodec,
        answer: Answer,
        cut_off: Callable[..., NoReturn],
        broken: Callable[[Exception], NoReturn],
    ) -> None:
        self.answer = answer
        self._given = 0
        self._stored = iter(answer.data)
        self._unpack = codec.unpacker()
        self._cut_off = cut_off
        self._broken = broken
        self._is_over = False

    def converted(
        self, convert: Callable[[dict[str, Any]], dict[str, Any]], codec: ChunkCodec
    ) -> StoredChunks:
        """The same chunks, each converted to one of another stream."""
        answer = self.answer._replace(data=[convert(chunk) for chunk in whole(self.answer.data)])
        return StoredChunks(codec, answer, self._cut_off, self._broken)

    @property
    def is_last(self) -> bool:
        """Whether the chunk given last is the stream's last."""
        return self._given == len(self.answer.data)

    def take(self) -> Any | None:
        """The next chunk, None at the end. Raises the error that broke the stream."""
        stored = next(self._stored, None)
        if stored is not None:
            self._given += 1
            return self.guarded(self._unpack, stored)
        if self.answer.error is not None:
            raise self.guarded(error_from_plain, self.answer.error)
        if not self.answer.complete and not self._is_over:
            wait_to_be_cancelled_in_thread(self.answer)
            self._cut_off(self.answer)
        return None

    async def atake(self) -> Any | None:
        """The same for an async reader."""
        await self.wait_at_end()
        return self.take()

    async def wait_at_end(self) -> None:
        """If the recording was cut off here, wait until the reader is cancelled; a miss if nothing cancels it."""
        if not self.is_last or self.answer.complete or self._is_over:
            return
        self._is_over = True  # a reader that is cancelled here and asks for more gets the end, as it did live
        waited = await wait_to_be_cancelled(self.answer)
        self._cut_off(self.answer, waited=waited)

    def guarded(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function on stored data, which somebody may have edited; ``broken`` raises for what fails."""
        try:
            return function(*args)
        except Warning:
            raise  # the run makes errors of warnings
        except Exception as problem:  # noqa: BLE001 - whatever a class makes of such data
            self._broken(problem)
