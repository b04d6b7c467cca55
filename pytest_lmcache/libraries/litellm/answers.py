"""LiteLLM's responses <-> plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from typing import Any, Final

from pytest_lmcache.interaction import copied
from pytest_lmcache.libraries.litellm.headers import kept_headers
from pytest_lmcache.libraries.plain_data import to_plain

OUTPUT_TYPES = "output_types"
"""The classes of a response's output items, stored if LiteLLM's usual ones would not give an equal response."""
NESTED = frozenset({dict, list})


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


def _nothing(*_: Any) -> None:
    pass


@dataclass(frozen=True, slots=True, eq=False)
class AnswerCodec:
    """The whole answers of an entry point <-> plain data.

    ``class_name`` is the path of their class, ``module:name``. ``mark`` changes the plain data of an answer before it
    is stored, ``adapt`` the stored data before an answer is built of it, ``finish`` the answer.
    """

    class_name: str
    mark: Callable[[dict[str, Any]], dict[str, Any]] = dict
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


# ---------------------------------------------------------------- the shortest plain data of a model


@cache
def class_named(path: str) -> Any:
    """A class of LiteLLM's by its path, ``module:name``; forget the cache if LiteLLM's modules are executed again."""
    return resolve_name(path)


SET_FIELDS: Final = {"exclude_unset": True, "warnings": False}
"""Options of pydantic's ``model_dump`` for the fields that were set."""


def dump(model: Any, **options: Any) -> dict[str, Any]:
    """The fields of a model that were set, as plain data; ``options`` of pydantic's ``model_dump``."""
    data: dict[str, Any] = to_plain(model.model_dump(**SET_FIELDS, **options))
    return data


def shortest_dump(
    model: Any, from_plain: Callable[[dict[str, Any]], Any], output_types: Sequence[str] = ()
) -> dict[str, Any]:
    """Dump a model without the nulls that ``from_plain`` restores, in the same order if that is possible.

    ``from_plain`` builds the model of a dump. ``output_types`` are the classes of a response's output items.
    """
    given = dump(model)
    if not output_types and not _has_null(given):
        return given
    shape = (type(model), *output_types, _shape(given))
    if shape not in _OUTLINES:
        if len(_OUTLINES) >= MOST_OUTLINES:
            _OUTLINES.clear()
        _OUTLINES[shape] = _outline(_shortest(model, given, from_plain, output_types))
    short: dict[str, Any] = _cut_to(given, _OUTLINES[shape])
    return {**short, OUTPUT_TYPES: [*output_types]} if OUTPUT_TYPES in short else short


# The names that remain of a dump, by its shape: most answers of a suite differ only in their texts, and building an
# answer twice would add a third to the time that recording a call takes.
_OUTLINES: dict[Any, Any] = {}
MOST_OUTLINES = 500


def _shortest(
    model: Any,
    given: dict[str, Any],
    from_plain: Callable[[dict[str, Any]], Any],
    output_types: Sequence[str],
) -> dict[str, Any]:
    whole = model.model_dump(warnings=False)
    bare = dump(model, exclude_none=True)
    equal = []
    for types in ({}, {OUTPUT_TYPES: [*output_types]}) if output_types else ({},):
        for shorten in (_without_nulls, lambda given, _: given):
            try:
                built = from_plain(copied({**bare, **types}))
                short = {**shorten(given, built.model_dump(warnings=False)), **types}
                again = from_plain(copied(short)).model_dump(warnings=False)
            except Exception:  # noqa: BLE001, S112 - such as a field that may be null but not missing
                continue
            if repr(again) == repr(whole):
                return short
            equal += [short] * (again == whole)
    return [*equal, given][0]  # the call goes on, whatever LiteLLM's classes make of less


def _shape(value: Any) -> Any:
    """What decides on the nulls of a dump: its names, and the type of each value and whether it is empty."""
    if type(value) is dict:
        return tuple((name, _shape(item)) for name, item in value.items())
    if type(value) is list and value and type(value[0]) in NESTED:
        return (list, *map(_shape, value))
    return type(value), bool(value)


def _outline(value: Any) -> Any:
    if type(value) is dict:
        return {name: _outline(item) for name, item in value.items()}
    if type(value) is list and value and type(value[0]) in NESTED:
        return [*map(_outline, value)]
    return None


def _cut_to(value: Any, outline: Any) -> Any:
    if type(outline) is dict:
        return {name: _cut_to(value.get(name), part) for name, part in outline.items()}
    return [_cut_to(*pair) for pair in zip(value, outline, strict=True)] if type(outline) is list else value


def _without_nulls(given: Any, built: Any) -> Any:
    if isinstance(given, dict) and isinstance(built, dict):
        return {
            # LiteLLM passes on a provider's own fields as they came, nulls included.
            name: value if name == "provider_specific_fields" else _without_nulls(value, built.get(name))
            for name, value in given.items()
            if value is not None or name not in built
        }
    if isinstance(given, list) and isinstance(built, list) and len(given) == len(built):
        return [_without_nulls(*pair) for pair in zip(given, built, strict=True)]
    return given


def build(kind: Callable[..., Any], data: dict[str, Any]) -> Any:
    """Build a model of plain data, and restore each null that its class drops or replaces by a default."""
    model = kind(**data)
    if _has_null(data):
        _restore_nulls(model, data)
    return model


def _has_null(value: Any) -> bool:
    if value and type(value) is list and type(value[0]) is float:
        return False  # a vector, which is long
    items = value.values() if type(value) is dict else value if type(value) is list else ()
    return any(item is None or (type(item) in NESTED and _has_null(item)) for item in items)


def _restore_nulls(model: Any, data: Any) -> None:
    if type(model) is type(data) is list:
        for pair in zip(model, data, strict=False):
            if _has_null(pair[1]):
                _restore_nulls(*pair)
    elif hasattr(model, "model_dump"):
        for name, value in data.items():
            if value is None:
                if getattr(model, name, "") is not None:
                    with suppress(ValueError):  # another version of LiteLLM has the field
                        setattr(model, name, None)
            elif type(value) in NESTED and _has_null(value):
                _restore_nulls(getattr(model, name, None), value)
