"""LiteLLM's responses <-> plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_lmcache.libraries.litellm.headers import kept_headers
from pytest_lmcache.libraries.litellm.model_dump import OUTPUT_TYPES, build, class_named, shortest_dump
from pytest_lmcache.libraries.plain_data import to_plain


class Message(dict[str, Any]):
    """An answer of ``anthropic.messages``: LiteLLM's plain dict, with hidden parameters as other answers have."""

    _hidden_params: dict[str, Any]

    def __init__(self, /, **data: Any) -> None:
        super().__init__(data)
        self._hidden_params = {}


class Attributes(dict[str, Any]):
    """The attributes of an answer marked by `mark_hit`; iterating over the answer does not give the mark."""

    def items(self) -> Any:
        """The pairs that pydantic iterates over, and that ``dict(answer)`` takes."""
        return {name: value for name, value in super().items() if name != "cache_hit"}.items()

    def __reduce__(self) -> Any:
        return Attributes, (dict(self),)


def _unchanged(data: dict[str, Any]) -> dict[str, Any]:
    return data


def _nothing(*_: Any) -> None:
    pass


@dataclass(frozen=True, slots=True, eq=False)
class AnswerCodec:
    """The whole answers of an entry point <-> plain data.

    ``class_name`` is the path of their class, ``module:name``. ``mark`` changes the plain data of an answer before it
    is stored, ``adapt`` the stored data before an answer is built of it, ``finish`` the answer.
    """

    class_name: str
    mark: Callable[[dict[str, Any]], dict[str, Any]] = _unchanged
    adapt: Callable[[dict[str, Any]], None] = _nothing
    finish: Callable[[Any, dict[str, Any]], None] = _nothing

    def to_plain(self, answer: Any) -> Any:
        """Convert an answer."""
        if not hasattr(answer, "model_dump"):
            return to_plain(answer)
        return self.mark(shortest_dump(answer, self._build, output_types(answer)))

    def from_plain(self, data: dict[str, Any]) -> Any:
        """Build LiteLLM's object of a stored answer, and use its data up."""
        self.adapt(data)
        return self._build(data)

    def _build(self, data: dict[str, Any]) -> Any:
        types = data.pop(OUTPUT_TYPES, None)
        answer = build(class_named(self.class_name), data)
        self.finish(answer, data)
        return answer if types is None else with_output_types(answer, types)


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


def stored_hidden(response: Any, keep_headers: Sequence[str]) -> dict[str, Any] | None:
    """The part of a response's hidden parameters that is stored; ``keep_headers``: see `headers`."""
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
    """Give a replayed response the hidden parameters that were recorded."""
    for name, value in {"custom_llm_provider": provider, **(hidden or {})}.items():
        set_hidden_param(response, name, value)


def set_hidden_param(answer: Any, name: str, value: Any) -> None:
    """Set a hidden parameter, if the answer has them and there is a value. Raises TypeError for broken headers."""
    params = hidden_params(answer)
    if params is None or value is None:
        return
    if name == "additional_headers" and not isinstance(value, dict):
        raise TypeError("additional_headers is not a mapping")
    if isinstance(params, dict):
        params[name] = value
    else:
        setattr(params, name, value)


def mark_hit(answer: Any, *, openly: bool = True) -> Any:
    """Mark an answer as one that did not come from the provider; its ``model_dump()`` does not show the mark.

    ``openly`` adds the attribute ``cache_hit``, beside the hidden parameter of that name.
    """
    set_hidden_param(answer, "cache_hit", True)
    if openly and hasattr(answer, "__dict__"):
        # Not by setattr: pydantic would take it for a field of the answer.
        object.__setattr__(answer, "__dict__", Attributes(vars(answer), cache_hit=True))
    return answer
