"""Any value of a library or a provider as plain data: None, str, bool, int, float, bytes, dict and list."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any


class LiveError(dict[str, Any]):
    """The plain data of an error that a test has set up, with the exception itself, which may be of any class."""

    def __init__(self, error: Exception, data: Mapping[str, Any]) -> None:
        super().__init__(data)
        self.error = error


def to_plain(value: Any) -> Any:  # noqa: PLR0911 - one for each kind
    """Convert a value to plain data; an object that is neither data nor a pydantic model becomes its ``str``."""
    kind = type(value)
    if value is None or kind in {str, int, float, bool, bytes}:
        return value
    if kind is dict:
        return {name if type(name) is str else to_plain(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, Enum):
        return to_plain(value.value)
    if isinstance(value, Mapping):
        return {to_plain(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if hasattr(value, "model_dump"):
        return to_plain(value.model_dump(exclude_unset=True, warnings=False))
    return value if isinstance(value, int | float) else str(value)


def is_plain(value: Any) -> bool:
    """Whether a value consists only of None, str, bool, int, float, sequences and mappings with str keys."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and is_plain(item) for name, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)
