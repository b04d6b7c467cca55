"""The chunks of LiteLLM's streams <-> plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import cache
from typing import Any

from pytest_lmcache.interaction import copied
from pytest_lmcache.libraries.litellm.answers import output_types, with_output_types
from pytest_lmcache.libraries.litellm.compat import with_null_logprobs
from pytest_lmcache.libraries.litellm.model_dump import OUTPUT_TYPES, build, shortest_dump
from pytest_lmcache.libraries.plain_data import to_plain
from pytest_lmcache.stream_chunks import EXACT, Chunk, packer, split, text_path, with_text


def chunk_to_plain(name: str, chunk: Any) -> dict[str, Any]:
    """One chunk of a stream as plain data."""
    if isinstance(chunk, bytes | bytearray):
        raw = bytes(chunk)
        try:
            return {"bytes": raw.decode()}
        except UnicodeDecodeError:
            return {"raw": raw}
    if isinstance(chunk, str):
        return {"text": chunk}
    if isinstance(chunk, dict):
        return {"event": to_plain(chunk)}
    return shortest_dump(chunk, lambda data: chunk_from_plain(name, data), output_types(chunk))


CHAT_TEXT = ("choices", "delta", "content")


def chunk_packer(name: str) -> Callable[[Any], Chunk]:
    """A function that takes the chunks of one stream in turn, and gives each as it is stored.

    Most of a chat's differ from the one before only in their piece of text: to see that takes a quarter of the time
    that pydantic takes to dump a chunk.
    """
    pack = packer()
    last: Any = None

    def store(chunk: Any) -> Chunk:
        nonlocal last
        text, rest = _split_model(chunk) if name == "completion" else ("", None)
        if text and rest is not None and rest == last:
            return text
        data = chunk_to_plain(name, chunk)
        last = rest if text and split(data, CHAT_TEXT)[0] == text else None
        return pack(data)

    return store


def _split_model(chunk: Any) -> tuple[str, Any]:
    """As ``stream_chunks.split``, of LiteLLM's own object."""
    own = _fields(chunk)
    choices = own[0].get("choices") if own else None
    if own is None or type(choices) is not list or len(choices) != 1:
        return "", None
    choice = _fields(choices[0])
    delta = _fields(choice[0].get("delta")) if choice else None
    if choice is None or delta is None or type(content := delta[0].get("content")) is not str:
        return "", None
    own[0]["choices"] = choice[0]["delta"] = delta[0]["content"] = None
    rest = own, choice, delta
    is_exact = all([EXACT.issuperset(map(type, part.values())) for part, _ in rest])  # noqa: C419 - half the time
    return (content, rest) if is_exact else ("", None)


def _fields(model: Any) -> tuple[dict[str, Any], set[str]] | None:
    """What a model of pydantic's holds, and which fields it was given; a new dict."""
    extra = getattr(model, "__pydantic_extra__", None)
    return None if extra is None else ({**vars(model), **extra}, {*model.__pydantic_fields_set__})


def chunk_from_plain(name: str, data: dict[str, Any]) -> Any:
    """The chunk as LiteLLM handed it out, the owner of its data."""
    if name == "anthropic_messages":
        return data["bytes"].encode() if "bytes" in data else next(iter(data.values()))
    if name == "responses":
        return _event(data)
    return build(_chunk_class(name), data)


def text_as_chat(chunk: Mapping[str, Any]) -> dict[str, Any]:
    """A stored chunk of a text completion as the chat's chunk that LiteLLM makes such from."""
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


def chunk_unpacker(name: str) -> Callable[[Chunk], Any]:
    """A function that takes the stored chunks of one stream in turn, and gives each as LiteLLM's object.

    What repeats a chat's chunk is a copy of that, made in a fifth of the time that LiteLLM's classes take.
    """
    repeat: Callable[[str], Any]

    def revive(chunk: Chunk) -> Any:
        nonlocal repeat
        if isinstance(chunk, str):
            return repeat(chunk)
        data, path = copied(chunk), text_path(chunk)
        if name == "completion" and path == CHAT_TEXT and split(data, path)[1] is not None:
            repeat = _repeater(first := chunk_from_plain(name, chunk))
            return first
        repeat = lambda text: chunk_from_plain(name, copied(with_text(data, path, text)))  # noqa: E731
        return chunk_from_plain(name, chunk)

    return revive


def _repeater(chunk: Any) -> Callable[[str], Any]:
    """What makes copies of a chunk of flat data with another piece of text."""
    choice = chunk.choices[0]
    new_chunk, new_choice, new_delta = map(_copier, (chunk, choice, choice.delta))

    def again(content: str) -> Any:
        return new_chunk("choices", [new_choice("delta", new_delta("content", content))])

    return again


def _copier(model: Any) -> Callable[[str, Any], Any]:
    """What copies a model of flat data, hidden parameters included, but for one field; pydantic takes six times as long."""
    kind, fields, extra, given = type(model), {**vars(model)}, model.model_extra, {*model.model_fields_set}
    extra = None if extra is None else {**extra}
    private = {name: copy(value) for name, value in (model.__pydantic_private__ or {}).items()}
    kept = [name for name, value in private.items() if isinstance(value, dict)]
    new, put = object.__new__, object.__setattr__

    def copied_with(name: str, value: Any) -> Any:
        made = new(kind)
        own = {**fields}
        more = None if extra is None else {**extra}
        (more if more is not None and name in more else own)[name] = value
        put(made, "__dict__", own)
        put(made, "__pydantic_extra__", more)
        put(made, "__pydantic_fields_set__", {*given})
        hidden = {**private}
        for each in kept:
            hidden[each] = {**private[each]}
        put(made, "__pydantic_private__", hidden or None)
        return made

    return copied_with


def forget_chunk_classes() -> None:
    """Look the classes up anew: LiteLLM's modules may have been executed again."""
    _chunk_class.cache_clear()


@cache
def _chunk_class(name: str) -> Callable[..., Any]:
    from litellm.types.utils import ModelResponseStream, TextCompletionResponse

    kind: Callable[..., Any] = TextCompletionResponse if name == "text_completion" else ModelResponseStream
    return kind


def _event(data: dict[str, Any]) -> Any:
    from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig

    kind = OpenAIResponsesAPIConfig.get_event_model_class(data.get("type", ""))
    types = data.pop(OUTPUT_TYPES, None)
    try:
        event = kind(**data)
    except ValueError:
        if "part" in data:
            return kind(**with_null_logprobs(data))
        # LiteLLM's own success handler rewrites the usage of a finished response to chat's fields, which
        # the response's class then refuses: the class gets none, and the rewritten one is put back.
        response = dict(data["response"])
        usage = response.pop("usage", None)
        event = kind(**{**data, "response": response})
        vars(event.response)["usage"] = usage
    if types is not None:
        with_output_types(event.response, types)
    return event
