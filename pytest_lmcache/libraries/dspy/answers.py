"""The requests, responses, stream events and errors of DSPy's own engine (its types are lm15) <-> plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields as fields_of
from functools import cache
from typing import Any

from pytest_lmcache.address import without_secrets
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.libraries.litellm.exceptions import LASTING_STATUS, unknown_exception
from pytest_lmcache.libraries.litellm.headers import kept_headers
from pytest_lmcache.libraries.litellm.usage import rounded, saved_at
from pytest_lmcache.libraries.plain_data import LiveError, to_plain
from pytest_lmcache.stream_chunks import Chunk, whole

HOME = "dspy.lm15."
# Arguments that the constructors of all of its errors take.
ERROR_ARGUMENTS = (
    *("code", "provider", "provider_code", "status", "request_id", "retry_after", "rate_limit_headers"),
)
# A provider's raw answer repeats the texts of the parts: those of this length or more are stored once.
LONG = 20
TEXT_OF_PART = "text_of_part"


# ---------------------------------------------------------------- requests


def question(request: Any, model_type: str, *, stream: bool) -> dict[str, Any]:
    """What a request asks, as other calls have it: model, messages, tools, parameters."""
    from dspy._vendor.lm15.serde import request_to_dict

    data = request_to_dict(request)
    messages = [_message(**message) for message in data["messages"]]
    if "system" in data:
        messages.insert(0, {"role": "system", "content": _content(data["system"])})
    asked = {**data.get("config", {}), "model": data["model"], "messages": messages}
    if "tools" in data:
        asked["tools"] = data["tools"]
    # A resource in the provider's cache is a part of the question, how the provider caches is not.
    if resource := (asked.pop("cache", None) or {}).get("resource"):
        asked["cached_content"] = resource
    if model_type != "chat":
        asked["model_type"] = model_type
    return {**asked, "stream": True} if stream else asked


def _message(role: str, parts: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"role": role, "content": _content(parts), **more}


def _content(parts: str | list[dict[str, Any]]) -> Any:
    """The parts of a message; the text if there is nothing else."""
    if len(parts) == 1 and isinstance(parts[0], dict) and parts[0].keys() == {"type", "text"}:
        return parts[0]["text"]
    return parts


def address(request: Any, engine: Any) -> str:
    """Where an engine sends a request: the URL of its configuration, else the provider's name."""
    name = provider(request, engine)
    return without_secrets((engine.config.base_urls or {}).get(name) or name)


def provider(request: Any, engine: Any) -> str:
    """The provider of a request as an engine names it."""
    try:
        name: str = engine.resolve(request.model).provider
    except Exception:  # noqa: BLE001 - the call itself will raise it
        return str(request.model.partition("/")[0])
    return name


# ---------------------------------------------------------------- responses


def response_to_plain(response: Any) -> dict[str, Any]:
    """Convert a response, with the provider's raw answer."""
    from dspy._vendor.lm15.serde import response_to_dict

    data: dict[str, Any] = to_plain(response_to_dict(response, include_provider_data=True))
    if "provider_data" in data:
        data["provider_data"] = _with_references(data["provider_data"], _texts(data))
    return data


def response_from_plain(data: Mapping[str, Any]) -> Any:
    """Build the response that the engine gave."""
    from dspy._vendor.lm15.serde import response_from_dict

    whole = dict(data)
    if "provider_data" in whole:
        whole["provider_data"] = _without_references(whole["provider_data"], _texts(whole))
    return response_from_dict(whole)


def mark_hit(response: Any) -> Any:
    """Mark a response as one that did not come from the provider: it has ``cache_hit``, as LiteLLM's have."""
    kind: Any = type(response)
    return _marked_class(kind)(**_fields(response))


@cache
def _marked_class(kind: Any) -> Any:
    """A subclass with the mark, whose objects equal those of the class, which has slots; copies have the mark too."""

    class Marked(kind):  # type: ignore[misc]
        __slots__ = ()
        cache_hit = True

        @property
        def _hidden_params(self) -> dict[str, Any]:
            return {"cache_hit": True}

        def __eq__(self, other: object) -> bool:
            return isinstance(other, kind) and _fields(self) == _fields(other)

        __hash__ = kind.__hash__

        def __reduce__(self) -> Any:
            return mark_hit, (kind(**_fields(self)),)

    return Marked


def _fields(response: Any) -> dict[str, Any]:
    return {field.name: getattr(response, field.name) for field in fields_of(response)}


def _texts(data: Mapping[str, Any]) -> list[Any]:
    return [part.get("text") for part in data["message"]["parts"]]


def _with_references(value: Any, texts: Sequence[Any]) -> Any:
    if isinstance(value, dict):
        return {name: _with_references(item, texts) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_references(item, texts) for item in value]
    if isinstance(value, str) and len(value) >= LONG and value in texts:
        return {TEXT_OF_PART: texts.index(value)}
    return value


def _without_references(value: Any, texts: Sequence[Any]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {TEXT_OF_PART}:
            return texts[value[TEXT_OF_PART]]
        return {name: _without_references(item, texts) for name, item in value.items()}
    return [_without_references(item, texts) for item in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- stream events


def event_to_plain(event: Any) -> dict[str, Any]:
    """Convert one event of a stream; a delta of the first part has no ``part_index``."""
    from dspy._vendor.lm15.serde import stream_event_to_dict

    data: dict[str, Any] = to_plain(stream_event_to_dict(event))
    delta = data.get("delta", {})
    if delta.get("part_index") == 0 and delta["type"] != "continuation":
        del delta["part_index"]
    return data


def event_from_plain(data: Mapping[str, Any]) -> Any:
    """Build the event that the engine gave."""
    from dspy._vendor.lm15.serde import stream_event_from_dict

    return stream_event_from_dict(dict(data))


def without_usage(answer: Answer) -> Answer:
    """The same answer without a usage, and with a price of 0 USD."""

    def bare(data: Any) -> Any:
        is_text = isinstance(data, str)
        return data if is_text else {name: value for name, value in data.items() if name != "usage"}

    is_stream = answer.kind is Kind.STREAM
    return answer._replace(data=[*map(bare, answer.data)] if is_stream else bare(answer.data), usd=0.0)


# ---------------------------------------------------------------- errors


def error_to_plain(error: BaseException, keep_headers: Sequence[str] = ()) -> dict[str, Any] | None:
    """Convert an error of an engine, ValueError or TypeError; None for any other.

    ``keep_headers`` names the response headers to store, see `libraries.litellm.headers`.
    """
    if type(error) in {ValueError, TypeError}:
        return {"class": f"builtins.{type(error).__name__}", "message": str(error)}
    kind = _nearest(type(error))
    if kind is None:
        return None
    bare, fields = vars(kind("")), vars(error)
    stored = {"class": HOME + kind.__name__, "message": str(fields.get("message", error))}
    for name, value in fields.items():
        if name in bare and name not in {"message", "partial"} and value != bare[name]:
            stored[name] = to_plain(value)
    if kept := kept_headers(stored.pop("rate_limit_headers", None), keep_headers):
        stored["rate_limit_headers"] = kept
    if fields.get("partial") is not None:
        stored["partial"] = response_to_plain(fields["partial"])
    return stored


def error_from_plain(data: Mapping[str, Any]) -> Exception:
    """Build the exception of a stored error. Raises CassetteError for a class that DSPy does not have."""
    if isinstance(data, LiveError):
        return data.error
    fields = dict(data)
    home, message = fields.pop("class"), fields.pop("message")
    if not isinstance(message, str):
        raise TypeError("`message:` must be a text")  # DSPy looks into it
    if home.startswith("builtins."):
        builtin: Exception = {"builtins.ValueError": ValueError, "builtins.TypeError": TypeError}[home](
            message
        )
        return builtin
    kind = _error_classes().get(home.removeprefix(HOME))
    if kind is None:
        raise unknown_exception(home)
    if "partial" in fields:
        fields["partial"] = response_from_plain(fields["partial"])
    given = {name: fields.pop(name) for name in ERROR_ARGUMENTS if name in fields}
    error: Exception = kind("", **given)
    bare = vars(error)
    attributes = {
        name: tuple(value) if isinstance(bare.get(name), tuple) else value for name, value in fields.items()
    }
    # The constructor would add its advice to the message once more.
    bare.update(attributes, message=message)
    error.args = (message,)
    return error


def is_lasting(error: BaseException) -> bool:
    """Whether asking again would give the same error, since the request is at fault."""
    from dspy import lm15

    status = getattr(error, "status", None)
    if status is not None:
        return status in LASTING_STATUS
    at_fault = (
        lm15.InvalidRequestError,
        lm15.CapabilityError,
        lm15.UnknownModelError,
        lm15.AmbiguousModelError,
    )
    return isinstance(error, (*at_fault, ValueError, TypeError))


def _nearest(kind: type[BaseException]) -> Any:
    """The class of DSPy's own for an error; that of a base for a subclass of a user's."""
    known = _error_classes()
    return next((base for base in kind.__mro__ if known.get(base.__name__) is base), None)


def _error_classes() -> dict[str, Any]:
    from dspy import lm15

    return {
        name: kind
        for name, kind in vars(lm15).items()
        if isinstance(kind, type) and issubclass(kind, lm15.LM15Error)
    }


# ---------------------------------------------------------------- prices


def price(response: Any, request: Any, engine: Any) -> float | None:
    """What a response cost, in USD, by DSPy's price list; None if that has no price."""
    from dspy.clients.costs import estimate_cost

    try:
        route = engine.resolve(request.model)
        usd, _ = estimate_cost(
            response,
            provider=route.provider,
            requested_model=route.model,
            request=request,
            namespaces=_namespaces(route),
        )
        return None if usd is None else rounded(usd)
    except Exception:  # noqa: BLE001 - the answer is recorded without a price
        return None


def price_of_stream(events: list[Chunk], request: Any, engine: Any) -> float | None:
    """The same for the events of a stream."""
    from dspy._vendor.lm15.result import StreamAccumulator

    accumulator = StreamAccumulator(request)
    try:
        for event in whole(events):
            accumulator.push(event_from_plain(event))
        return price(accumulator.response(), request, engine)
    except Exception:  # noqa: BLE001 - an incomplete stream has no price
        return None


def saved_by_prompt_cache(cached: tuple[int, int], request: Any, engine: Any) -> float:
    """What a provider's own prompt cache saved, in USD, by DSPy's price list; 0 if that has no price."""
    from dspy.clients.model_metadata import model_info

    try:
        route = engine.resolve(request.model)
        return saved_at(model_info(route.provider, route.model, namespaces=_namespaces(route)), cached)
    except Exception:  # noqa: BLE001 - as above
        return 0.0


def _namespaces(route: Any) -> tuple[str, ...] | None:
    """Where the price list has a provider that the user declared; None for any other provider."""
    from dspy.lm15 import registered_providers

    if not route.declared:
        return None
    own = (known for known in registered_providers() if known.id == route.provider)
    return next((known.metadata_namespaces for known in own), ())
