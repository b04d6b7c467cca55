"""LiteLLM's pydantic models <-> the shortest plain data from which an equal model can be built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pkgutil import resolve_name
from typing import Any

from pytest_lmcache.interaction import copied
from pytest_lmcache.libraries.plain_data import to_plain

OUTPUT_TYPES = "output_types"
"""The classes of a response's output items, stored if LiteLLM's usual ones would not give an equal response."""
NESTED = frozenset({dict, list})


@cache
def class_named(path: str) -> Any:
    """A class of LiteLLM's by its path, ``module:name``; forget the cache if LiteLLM's modules are executed again."""
    return resolve_name(path)


def dump(model: Any, **options: Any) -> dict[str, Any]:
    """The fields of a model that were set, as plain data; ``options`` of pydantic's ``model_dump``."""
    data: dict[str, Any] = to_plain(model.model_dump(exclude_unset=True, warnings=False, **options))
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
    whole = model.model_dump(warnings=False)
    bare = dump(model, exclude_none=True)
    equal = []
    for types in ({}, {OUTPUT_TYPES: [*output_types]}) if output_types else ({},):
        for shorten in (_without_nulls, _unchanged):
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


def _unchanged(given: Any, _built: Any) -> Any:
    return given


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
