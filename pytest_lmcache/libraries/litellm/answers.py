"""LiteLLM's responses, chunks and exceptions <-> plain data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from enum import Enum
from functools import cache, partial
from typing import Any

from pytest_lmcache.errors import CassetteError, unknown_exception
from pytest_lmcache.interaction import EXACT, Again, Answer, Kind, copied, framed

# Attributes of exceptions that hold whole prompts, keys or connections; never stored.
UNSAFE = frozenset(
    {"litellm_debug_info", "response", "request", "original_exception", "litellm_response_headers", "headers"}
)
SAFE_HEADERS = ("retry-after", "x-ratelimit-", "anthropic-ratelimit-")
LASTING = frozenset({400, 404, 413, 422})
# Where LiteLLM answers responses() over another API, its output items are of its own, looser classes.
OUTPUT_TYPES = "output_types"
# Of a response that looks as if another LiteLLM had recorded it: it is revived as it is.
AS_HERE = "as_here"
NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
NESTED = frozenset({dict, list})
PLACEHOLDER_URL = "https://recorded.invalid/"


# ---------------------------------------------------------------- responses


class Message(dict[str, Any]):
    """A revived answer of ``anthropic.messages``: the plain dict that LiteLLM gives, and a place for its marks."""

    _hidden_params: dict[str, Any]

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._hidden_params = {}


class Attributes(dict[str, Any]):
    """The attributes of an answer that is marked: what iterates over the answer does not get the mark."""

    def items(self) -> Any:
        """What pydantic gives of an answer as pairs, and ``dict(answer)`` takes."""
        return {name: value for name, value in super().items() if name != "cache_hit"}.items()

    def __reduce__(self) -> Any:
        return Attributes, (dict(self),)


def store_response(name: str, response: Any) -> tuple[Any, dict[str, Any] | None]:
    """A response as plain data, and the safe part of its hidden parameters."""
    data = _dumped(name, response, lambda data: _revived(name, data))
    if name == "completion" and any(_is_elsewhere(choice) for choice in data.get("choices", ())):
        data = {**data, AS_HERE: True}
    return data, _safe_hidden(response)


def revive_response(name: str, data: dict[str, Any]) -> Any:
    """LiteLLM's own object from a stored response, of which it becomes the owner."""
    if name == "completion" and not data.pop(AS_HERE, False):
        for choice in filter(_is_elsewhere, data.get("choices", ())):
            _move_refusal(choice)
    return _revived(name, data)


def _revived(name: str, data: dict[str, Any]) -> Any:
    if name == "anthropic_messages":
        return Message(dict(**data))  # refuses a name that is no text
    types = data.pop(OUTPUT_TYPES, None)
    response = _made(_response_class(name), data)
    if name == "completion":
        _put_refusals_last(response, data)
    return response if types is None else _with_output(response, types)


def _put_refusals_last(response: Any, data: dict[str, Any]) -> None:
    """Have a message show its refusal last where it was last: LiteLLM 1.110 sets OpenAI's when all else is there."""
    for choice, stored in zip(response.choices, data.get("choices", ()), strict=False):
        if [*stored.get("message", ())][-1:] == ["refusal"] and "refusal" in vars(choice.message):
            fields = vars(choice.message)
            fields["refusal"] = fields.pop("refusal")


@cache
def _has_refusal() -> bool:
    from litellm.types.utils import Message

    return "refusal" in Message.model_fields


def _is_elsewhere(choice: Mapping[str, Any]) -> bool:
    """Whether a refusal is where the other LiteLLM has OpenAI's: 1.110 in the message, 1.83 beside it."""
    message = choice.get("message") or {}
    if not _has_refusal():
        return "refusal" in message
    return "refusal" not in message and "refusal" in (message.get("provider_specific_fields") or {})


def _move_refusal(choice: dict[str, Any]) -> None:
    """Put a refusal where this LiteLLM has it; 1.83 dropped null logprobs too."""
    message = choice["message"]
    fields = message.get("provider_specific_fields") or {}
    if _has_refusal():
        message["refusal"] = fields["refusal"]
        choice.setdefault("logprobs", None)
    else:
        message["provider_specific_fields"] = {"refusal": message.pop("refusal"), **fields}


def restore_hidden(result: Any, hidden: Mapping[str, Any] | None, provider: str | None) -> None:
    """Give a revived response the hidden parameters that it was recorded with."""
    params = getattr(result, "_hidden_params", None)
    if params is None:
        return
    for key, value in {"custom_llm_provider": provider, **(hidden or {})}.items():
        if value is None:
            continue
        if key == "additional_headers" and not isinstance(value, dict):
            raise TypeError("additional_headers is not a mapping")
        if isinstance(params, dict):
            params[key] = value
        else:
            setattr(params, key, value)


def mark_hit(result: Any, *, openly: bool = True) -> Any:
    """Have an answer say that it did not come from the provider, where its ``model_dump()`` does not show it.

    ``openly``: also by an attribute of its own, beside its hidden parameters.
    """
    params = getattr(result, "_hidden_params", None)
    if isinstance(params, dict):
        params["cache_hit"] = True
    elif params is not None:
        params.cache_hit = True
    if openly and hasattr(result, "__dict__"):
        # Around pydantic, which would take it for a field of the answer.
        object.__setattr__(result, "__dict__", Attributes(vars(result), cache_hit=True))
    return result


def without_usage(answer: Answer) -> Answer:
    """The same answer, which took no tokens and cost nothing."""
    data, hidden = answer.data, _unused(answer.hidden or {})
    if answer.kind is Kind.RESPONSE:
        data = _unused(data)
    elif answer.kind is Kind.STREAM:
        # What no chunk tells LiteLLM counts itself.
        data, hidden = _unused_chunks(data), {"usage": NO_USAGE, **hidden}
    return answer._replace(data=data, hidden=hidden, usd=0.0)


def _unused(data: dict[str, Any]) -> dict[str, Any]:
    """A response, a chunk or an event without its tokens: elsewhere ``usage`` is a word of the model's."""
    zeroed: dict[str, Any] = {"usage": _zeros(data["usage"])} if "usage" in data else {}
    # The first for events of responses(), the second for Anthropic's.
    for name in ("response", "message"):
        inner = data.get(name)
        if isinstance(inner, dict) and "usage" in inner:
            zeroed[name] = {**inner, "usage": _zeros(inner["usage"])}
    return {**data, **zeroed}


def _unused_chunks(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not all("bytes" in chunk or "raw" in chunk for chunk in chunks):
        return [_unused_chunk(chunk) for chunk in chunks]
    # The wire may have cut an event in two, or a letter: each event becomes one chunk.
    name = "anthropic_messages"
    wire = b"".join(revive_chunk(name, chunk) for chunk in chunks).decode(errors="surrogateescape")
    events = re.split(r"(?<=\n\n)", _unused_lines(wire))
    return [store_chunk(name, event.encode(errors="surrogateescape")) for event in events if event]


def _unused_chunk(chunk: dict[str, Any]) -> dict[str, Any]:
    if chunk.keys() == {"event"}:
        return {"event": _unused(chunk["event"])}
    return {"text": _unused_lines(chunk["text"])} if chunk.keys() == {"text"} else _unused(chunk)


def _unused_lines(events: str) -> str:
    return re.sub(r'^data:(.*"usage".*)$', _unused_line, events, flags=re.MULTILINE)


def _unused_line(line: re.Match[str]) -> str:
    try:
        event = json.loads(line[1])
    except ValueError:
        return line[0]  # not an event of the API's: it says nothing of tokens
    zeroed = _unused(event) if isinstance(event, dict) else event
    return line[0] if zeroed == event else f"data: {json.dumps(zeroed)}"


def _zeros(usage: Any) -> Any:
    if isinstance(usage, dict):
        return {name: _zeros(value) for name, value in usage.items()}
    if isinstance(usage, list):
        return [_zeros(item) for item in usage]
    return type(usage)(0) if type(usage) in {int, float} else usage


def _made(kind: Callable[..., Any], data: dict[str, Any]) -> Any:
    """An object of LiteLLM's with all of its data, also each None that its class drops or fills (LiteLLM 1.110)."""
    made = kind(**data)
    if _has_none(data):
        _put_none(made, data)
    return made


def _has_none(value: Any) -> bool:
    if value and type(value) is list and type(value[0]) is float:
        return False  # a vector: long
    items = value.values() if type(value) is dict else value if type(value) is list else ()
    return any(item is None or (type(item) in NESTED and _has_none(item)) for item in items)


def _put_none(made: Any, data: Any) -> None:
    if type(made) is type(data) is list:
        for pair in zip(made, data, strict=False):
            if _has_none(pair[1]):
                _put_none(*pair)
    elif hasattr(made, "model_dump"):
        for name, value in data.items():
            if value is None:
                if getattr(made, name, "") is not None:
                    with suppress(ValueError):  # a field of another LiteLLM's
                        setattr(made, name, None)
            elif type(value) in NESTED and _has_none(value):
                _put_none(getattr(made, name, None), value)


@cache
def _response_class(name: str) -> Callable[..., Any]:
    from litellm.types.llms.openai import ResponsesAPIResponse
    from litellm.types.utils import EmbeddingResponse, ModelResponse, TextCompletionResponse

    classes: dict[str, Callable[..., Any]] = {
        "completion": ModelResponse,
        "text_completion": TextCompletionResponse,
        "embedding": EmbeddingResponse,
        "responses": ResponsesAPIResponse,
    }
    return classes[name]


def _safe_hidden(result: Any) -> dict[str, Any] | None:
    params = getattr(result, "_hidden_params", None)
    if params is None:
        return None
    get = params.get if isinstance(params, dict) else lambda key, default=None: getattr(params, key, default)
    headers = get("additional_headers") or {}
    safe = {name: value for name, value in headers.items() if _safe_headers({name: value})}
    hidden: dict[str, Any] = {"additional_headers": safe} if safe else {}
    if get("custom_llm_provider") is None:
        hidden["custom_llm_provider"] = None
    return hidden or None


# ---------------------------------------------------------------- chunks of streams


def store_chunk(name: str, chunk: Any) -> dict[str, Any]:
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
        return {"event": plain(chunk)}
    data: dict[str, Any] = _dumped(f"{name} chunk", chunk, lambda data: revive_chunk(name, data))
    return data


def chunk_storer(name: str) -> Callable[[Any], dict[str, Any]]:
    """What stores the chunks of one stream in turn; as for ``chunk_reviver``, only what differs is looked at."""
    if name != "completion":
        return partial(store_chunk, name)
    frame: Any = None
    first: dict[str, Any] = {}

    def store(chunk: Any) -> dict[str, Any]:
        nonlocal frame, first
        own, content = _framed_model(chunk)
        if frame is not None and own == frame and content:
            return Again(first, content)
        first = store_chunk(name, chunk)
        stored, said = framed(first)
        frame = own if stored is not None and content and said == content else None
        return first

    return store


def _framed_model(chunk: Any) -> tuple[Any, str]:
    """As ``framed``, of LiteLLM's own object."""
    own = _fields(chunk)
    choices = own[0].get("choices") if own else None
    if own is None or type(choices) is not list or len(choices) != 1:
        return None, ""
    choice = _fields(choices[0])
    delta = _fields(choice[0].get("delta")) if choice else None
    if choice is None or delta is None or type(content := delta[0].get("content")) is not str:
        return None, ""
    own[0]["choices"] = choice[0]["delta"] = delta[0]["content"] = None
    frame = own, choice, delta
    is_exact = all([EXACT.issuperset(map(type, part.values())) for part, _ in frame])  # noqa: C419 - half the time
    return (frame, content) if is_exact else (None, "")


def _fields(model: Any) -> tuple[dict[str, Any], set[str]] | None:
    """What a model of pydantic's holds, and which fields it was given; a new dict."""
    extra = getattr(model, "__pydantic_extra__", None)
    return None if extra is None else ({**vars(model), **extra}, {*model.__pydantic_fields_set__})


def revive_chunk(name: str, data: dict[str, Any]) -> Any:
    """The chunk as LiteLLM handed it out, the owner of its data."""
    if name == "anthropic_messages":
        return data["bytes"].encode() if "bytes" in data else next(iter(data.values()))
    if name == "responses":
        return _event(data)
    return _made(_chunk_class(name), data)


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


def chunk_reviver(name: str) -> Callable[[dict[str, Any]], Any]:
    """What revives the chunks of one stream in turn.

    Most of a chat's say the same as the one before but for a piece of text: those are copies with that text, in a
    fifth of the time that LiteLLM's classes take to make one.
    """
    if name != "completion":
        return partial(revive_chunk, name)
    frame: list[Any] | None = None
    again: Callable[[str], Any] | None = None

    def revive(data: dict[str, Any]) -> Any:
        nonlocal frame, again
        own, content = framed(data)
        if again is not None and own == frame:
            return again(content)
        frame, again = own, None
        first = revive_chunk(name, data)
        if own is not None:
            again = _repeater(first)
        return first

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


def forget_answer_classes() -> None:
    """LiteLLM's modules may have been executed anew: their classes are others then."""
    _response_class.cache_clear()
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
            # LiteLLM 1.110 may leave out the logprobs that 1.83 insists on.
            return kind(**{**data, "part": {"logprobs": None, **data["part"]}})
        # LiteLLM's own success handler rewrites the usage of a finished response to chat's fields, which
        # the response's class then refuses: the class gets none, and the rewritten one is put back.
        response = dict(data["response"])
        usage = response.pop("usage", None)
        event = kind(**{**data, "response": response})
        vars(event.response)["usage"] = usage
    if types is not None:
        _with_output(event.response, types)
    return event


def _with_output(response: Any, types: list[str]) -> Any:
    import litellm.types.responses.main as own

    response.output = [
        getattr(own, kind)(**item.model_dump(exclude_unset=True, warnings=False))
        if hasattr(own, kind)
        else item
        for kind, item in zip(types, response.output, strict=True)
    ]
    return response


def _output_types(value: Any) -> list[str]:
    output = getattr(getattr(value, "response", value), "output", None)
    return [type(item).__name__ for item in output] if isinstance(output, list) else []


# ---------------------------------------------------------------- errors


def store_error(error: BaseException) -> dict[str, Any] | None:
    """An exception of LiteLLM's or OpenAI's as plain data; None for one of any other library."""
    home = _exception_home(type(error))
    if home is None:
        return None
    fields: dict[str, Any] = {"class": home, "message": str(getattr(error, "message", None) or error)}
    for name, value in vars(error).items():
        if name not in UNSAFE and name != "message" and not name.startswith("_") and _is_plain(value):
            fields[name] = plain(value)
    args = list(error.args)
    if args != [fields["message"]] and all(isinstance(item, str) for item in args):
        fields["args"] = args
    response = getattr(error, "response", None)
    if safe := _safe_headers(getattr(error, "litellm_response_headers", None)):
        fields["headers"] = safe
    safe = _safe_headers(getattr(response, "headers", None))
    if safe or (response is not None and not _has_response(type(error))):
        fields["response_headers"] = safe
    if (body := _body(response)) is not None:
        fields["response_body"] = body
    original = getattr(error, "original_exception", None)
    if isinstance(original, BaseException) and (stored := store_error(original)) is not None:
        fields["original"] = stored
    return fields


def revive_error(data: Mapping[str, Any]) -> Exception:
    """The exception of a stored error: its class, its message, its attributes, as it was raised."""
    import httpx

    fields = dict(data)
    kind = _exception_class(fields.pop("class"))
    headers, response_headers = fields.pop("headers", None), fields.pop("response_headers", None)
    body = fields.pop("response_body", "")
    original, args = fields.pop("original", None), fields.pop("args", [fields["message"]])
    error: Exception = kind.__new__(kind)
    error.args = tuple(args)
    if kind.__module__ == "builtins":
        return error
    request = httpx.Request("POST", PLACEHOLDER_URL)
    vars(error).update(fields, request=request, litellm_debug_info=None)
    if response_headers is not None or _has_response(kind):
        vars(error)["response"] = httpx.Response(
            fields["status_code"],
            headers=response_headers,
            content=body if isinstance(body, str) else json.dumps(body),
            request=request,
        )
    if headers is not None:
        vars(error)["litellm_response_headers"] = httpx.Headers(headers)
    if original is not None:
        vars(error)["original_exception"] = revive_error(original)
    (
        str(error),
        repr(error),
    )  # LiteLLM's classes need more of their fields for it: not in the code that catches it
    return error


def is_lasting(error: BaseException) -> bool:
    """Whether asking again would give the same error: the request is at fault, not the moment.

    Bad request, context window, content policy, unsupported parameters (400), not found (404), too large
    (413) and unprocessable (422); a rate limit, a server's fault, a time-out, a lost connection or a refused
    key is not.
    """
    original = getattr(error, "original_exception", None)
    status = getattr(original if original is not None else error, "status_code", None)
    return status in LASTING if status is not None else isinstance(error, ValueError | TypeError)


def _body(response: Any) -> Any:
    """What a provider said of an error: JSON as data, else its text; None where it was not read, or says nothing."""
    try:
        text = response.text
    except Exception:  # noqa: BLE001 - there is none, or it is a stream's
        return None
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text if isinstance(text, str) and text else None


def _has_response(kind: type[BaseException]) -> bool:
    """Whether every exception of a class holds a response; LiteLLM 1.110 gives one to some others."""
    import openai

    return issubclass(kind, openai.APIStatusError)


def _exception_home(kind: type[BaseException]) -> str | None:
    if kind in {ValueError, TypeError}:
        return f"builtins.{kind.__name__}"
    for base in kind.__mro__:
        library = base.__module__.partition(".")[0]
        if library in {"litellm", "openai"} and _find_exception(library, base.__name__) is base:
            return f"{library}.{base.__name__}"
    return None


def _exception_class(home: str) -> type[Exception]:
    library, _, name = home.partition(".")
    kind = _find_exception(library, name)
    if kind is None:
        raise CassetteError(unknown_exception(home))
    return kind


def _find_exception(library: str, name: str) -> type[Exception] | None:
    import builtins

    import litellm.exceptions
    import openai

    where = {"litellm": litellm.exceptions, "openai": openai, "builtins": builtins}.get(library)
    kind = getattr(where, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def _safe_headers(headers: Any) -> dict[str, str]:
    found = {name.lower().removeprefix("llm_provider-"): value for name, value in dict(headers or {}).items()}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, str) and name.startswith(SAFE_HEADERS)
    }


# ---------------------------------------------------------------- plain data


def _dumped(name: str, value: Any, revive: Callable[[Any], Any]) -> Any:
    """The shortest plain data that revives to the same; found out once for all values of one shape."""
    if not hasattr(value, "model_dump"):
        return plain(value)
    given = plain(value.model_dump(exclude_unset=True, warnings=False))
    shape = (name, type(value), _shape(given))
    if shape not in _SHORTENED:
        if len(_SHORTENED) >= SHAPES:
            _SHORTENED.clear()
        _SHORTENED[shape] = _outline(_shortest(value, given, revive))
    return _cut_to(given, _SHORTENED[shape])


# What was kept of the last values, by their shape: most answers of a suite differ in words alone.
_SHORTENED: dict[Any, Any] = {}
SHAPES = 500


def _shortest(value: Any, given: Any, revive: Callable[[Any], Any]) -> Any:
    """Without each None that reviving puts back: to the same, in the same order where that can be had."""
    whole = value.model_dump(warnings=False)
    bare = plain(value.model_dump(exclude_unset=True, exclude_none=True, warnings=False))
    kinds = _output_types(value)
    same = []
    for types in ({}, {OUTPUT_TYPES: kinds}) if kinds else ({},):
        for shorten in (_without_none, _whole):
            try:
                revived = revive(copied({**bare, **types}))
                short = {**shorten(given, revived.model_dump(warnings=False)), **types}
                again = revive(copied(short)).model_dump(warnings=False)
            except Exception:  # noqa: BLE001, S112 - such as a field that may be None but may not be missing
                continue
            if repr(again) == repr(whole):
                return short
            same += [short] * (again == whole)
    return [*same, given][0]  # whatever LiteLLM's classes make of less, the call goes on


def _whole(given: Any, _revived: Any) -> Any:
    return given


def _without_none(given: Any, revived: Any) -> Any:
    if isinstance(given, dict) and isinstance(revived, dict):
        return {
            # LiteLLM keeps a provider's own fields as they came, each None among them.
            name: value if name == "provider_specific_fields" else _without_none(value, revived.get(name))
            for name, value in given.items()
            if value is not None or name not in revived
        }
    if isinstance(given, list) and isinstance(revived, list) and len(given) == len(revived):
        return [_without_none(*pair) for pair in zip(given, revived, strict=True)]
    return given


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((name, _shape(item)) for name, item in value.items())
    if isinstance(value, list):
        return ("list", *map(_shape, value)) if _is_nested(value) else ("list", bool(value))
    return value if value is None else (type(value), bool(value))


def _outline(value: Any) -> Any:
    """Which names a value has, at every level, without what stands under them."""
    if isinstance(value, dict):
        return {name: item if name == OUTPUT_TYPES else _outline(item) for name, item in value.items()}
    return [_outline(item) for item in value] if isinstance(value, list) and _is_nested(value) else None


def _cut_to(value: Any, outline: Any) -> Any:
    """Of a value only what an outline has; what the outline alone has is ours: the types of the output."""
    if isinstance(outline, dict):
        return {name: _cut_to(value[name], kept) if name in value else kept for name, kept in outline.items()}
    if isinstance(outline, list):
        return [_cut_to(*pair) for pair in zip(value, outline, strict=True)]
    return value


def _is_nested(value: list[Any]) -> bool:
    return any(isinstance(item, dict | list) for item in value)


def plain(value: Any) -> Any:  # noqa: PLR0911 - one for each kind
    """Plain data of anything that a provider or LiteLLM puts into an answer."""
    kind = type(value)
    if value is None or kind in {str, int, float, bool, bytes}:
        return value
    if kind is dict:
        return {name if type(name) is str else plain(name): plain(item) for name, item in value.items()}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {plain(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(exclude_unset=True, warnings=False))
    return value if isinstance(value, int | float) else str(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_plain(item) for name, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


# ---------------------------------------------------------------- prices


def price(response: Any, model: str, provider: str | None) -> float | None:
    """What LiteLLM's price map says that an answer cost, in USD; None where it knows no price."""
    import litellm

    try:
        return float(
            litellm.completion_cost(completion_response=response, model=model, custom_llm_provider=provider)
        )
    except Exception:  # noqa: BLE001 - LiteLLM raises a bare Exception for a model without a price
        return None


def saved_by_prompt_cache(cached: tuple[int, int], model: str, provider: str | None) -> float:
    """What a provider's own prompt cache saved, in USD by LiteLLM's price map; 0 where it knows no prices.

    ``cached`` are the tokens read from it, cheaper than others, and written to it, often dearer.
    """
    import litellm

    try:
        prices = litellm.get_model_info(model=model, custom_llm_provider=provider)
    except Exception:  # noqa: BLE001 - LiteLLM raises a bare Exception for a model that it does not know
        return 0.0
    return saved_at(prices, cached)


def saved_at(prices: Mapping[str, Any], cached: tuple[int, int]) -> float:
    """The same, by the prices of one model."""
    usual = prices.get("input_cost_per_token") or 0.0
    kinds = ("cache_read_input_token_cost", "cache_creation_input_token_cost")
    return sum(
        tokens * (usual - (usual if (cost := prices.get(kind)) is None else cost))
        for tokens, kind in zip(cached, kinds, strict=True)
    )


def price_of_usage(usage: dict[str, Any] | None, model: str, provider: str | None) -> float | None:
    """What LiteLLM's price map says that a stream's tokens cost, in USD; None where it knows no price."""
    if not usage:
        return None
    cost: Any = usage.get("cost")
    if type(cost) in {int, float} and math.isfinite(cost) and cost > 0:
        return float(cost)  # LiteLLM 1.110 has calculated it, or taken it from the provider
    if "input_tokens" in usage:
        return price({"model": model, "usage": usage}, model, provider)
    from litellm.types.utils import ModelResponse

    return price(ModelResponse(model=model, usage=usage), model, provider)


def usage_in_events(chunks: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The token usage in a stream of Anthropic's server-sent events: the first tells the input, the last the output."""
    usage: dict[str, Any] = {}
    for line in "".join(chunk.get("bytes", "") for chunk in chunks).splitlines():
        if line.startswith("data:") and '"usage"' in line:
            try:
                event = json.loads(line.removeprefix("data:"))
            except ValueError:
                continue  # not an event of the API's: it says nothing of tokens
            told = event.get("usage") or event.get("message", {}).get("usage") or {}
            usage.update({name: value for name, value in told.items() if isinstance(value, int)})
    return usage or None
