"""LiteLLM's responses <-> plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from pytest_lmcache.libraries.litellm import compat
from pytest_lmcache.libraries.litellm.headers import kept_headers
from pytest_lmcache.libraries.litellm.model_dump import OUTPUT_TYPES, build, shortest_dump
from pytest_lmcache.libraries.plain_data import to_plain


class Message(dict[str, Any]):
    """An answer of ``anthropic.messages``: LiteLLM's plain dict, with hidden parameters as other answers have."""

    _hidden_params: dict[str, Any]

    def __init__(self, *data: Any) -> None:
        super().__init__(*data)
        self._hidden_params = {}


class Attributes(dict[str, Any]):
    """The attributes of an answer marked by `mark_hit`; iterating over the answer does not give the mark."""

    def items(self) -> Any:
        """The pairs that pydantic iterates over, and that ``dict(answer)`` takes."""
        return {name: value for name, value in super().items() if name != "cache_hit"}.items()

    def __reduce__(self) -> Any:
        return Attributes, (dict(self),)


def response_to_plain(
    name: str, response: Any, keep_headers: Sequence[str] = ()
) -> tuple[Any, dict[str, Any] | None]:
    """Convert a response to plain data; also gives the part of its hidden parameters that is stored.

    ``name`` is LiteLLM's entry point, such as ``completion``. ``keep_headers`` names the response headers to store,
    see `headers`.
    """
    hidden = _stored_hidden(response, keep_headers)
    if not hasattr(response, "model_dump"):
        return to_plain(response), hidden
    data = shortest_dump(response, lambda data: _build_response(name, data), output_types(response))
    if name == "completion":
        data = compat.mark_refusals(data)
    return data, hidden


def response_from_plain(name: str, data: dict[str, Any]) -> Any:
    """Build LiteLLM's object of a stored response, and use its data up."""
    if name == "completion":
        compat.move_refusals(data)
    return _build_response(name, data)


def _build_response(name: str, data: dict[str, Any]) -> Any:
    if name == "anthropic_messages":
        return Message(dict(**data))  # raises if a name is no str
    types = data.pop(OUTPUT_TYPES, None)
    response = build(_response_class(name), data)
    if name == "completion":
        compat.put_refusals_last(response, data)
    return response if types is None else with_output_types(response, types)


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


def forget_response_classes() -> None:
    """Look the classes up anew: LiteLLM's modules may have been executed again."""
    _response_class.cache_clear()


def output_types(value: Any) -> list[str]:
    """The class names of the output items of a response of ``responses()``, or of the response in an event."""
    output = getattr(getattr(value, "response", value), "output", None)
    return [type(item).__name__ for item in output] if isinstance(output, list) else []


def with_output_types(response: Any, types: Sequence[str]) -> Any:
    """Give output items the classes that they had.

    LiteLLM has looser classes of its own if it answers ``responses()`` over another API.
    """
    import litellm.types.responses.main as own

    response.output = [
        getattr(own, kind)(**item.model_dump(exclude_unset=True, warnings=False))
        if hasattr(own, kind)
        else item
        for kind, item in zip(types, response.output, strict=True)
    ]
    return response


# ---------------------------------------------------------------- hidden parameters


def hidden_params(value: Any) -> Any:
    """The hidden parameters of an answer or a chunk, to be changed in place; None if it has none."""
    # pydantic's own way to a private attribute takes ten times as long.
    private = getattr(value, "__pydantic_private__", None) or {}
    return (
        private["_hidden_params"] if "_hidden_params" in private else getattr(value, "_hidden_params", None)
    )


def stored_headers(answer: Any, keep_headers: Sequence[str]) -> dict[str, Any]:
    """The hidden parameter ``additional_headers`` of a response or a stream, with the headers that are stored."""
    headers = kept_headers(_hidden_param(answer, "additional_headers"), keep_headers)
    return {"additional_headers": headers} if headers else {}


def _stored_hidden(response: Any, keep_headers: Sequence[str]) -> dict[str, Any] | None:
    if hidden_params(response) is None:
        return None
    hidden = stored_headers(response, keep_headers)
    if _hidden_param(response, "custom_llm_provider") is None:
        hidden["custom_llm_provider"] = None
    return hidden or None


def _hidden_param(answer: Any, name: str) -> Any:
    params = hidden_params(answer)
    return params.get(name) if isinstance(params, dict) else getattr(params, name, None)


def restore_hidden(response: Any, hidden: Mapping[str, Any] | None, provider: str | None) -> None:
    """Give a replayed response the hidden parameters that were recorded. Raises TypeError for broken headers."""
    params = hidden_params(response)
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


def mark_hit(answer: Any, *, openly: bool = True) -> Any:
    """Mark an answer as one that did not come from the provider; its ``model_dump()`` does not show the mark.

    ``openly`` adds the attribute ``cache_hit``, beside the hidden parameter of that name.
    """
    params = hidden_params(answer)
    if isinstance(params, dict):
        params["cache_hit"] = True
    elif params is not None:
        params.cache_hit = True
    if openly and hasattr(answer, "__dict__"):
        # Not by setattr: pydantic would take it for a field of the answer.
        object.__setattr__(answer, "__dict__", Attributes(vars(answer), cache_hit=True))
    return answer
