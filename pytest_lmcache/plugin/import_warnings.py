"""Keeps off the warnings that LiteLLM's own modules raise when they, and their models, are made; and no others.

LiteLLM silences them when it is imported, for the whole process; pytest undoes that after each test.
"""

from __future__ import annotations

import re
import sys
import warnings
from types import FrameType
from typing import Any

# LiteLLM 1.106 to 1.110 as pydantic 2.14 sees it.
MESSAGE = re.compile(r"Items? .* on TypedDict class .* (is|are) using the .ReadOnly. qualifier")
# What stands between the warning and the module whose model is being made.
BETWEEN = frozenset({"pydantic", "typing", "typing_extensions", "functools", "contextlib", "abc"})


class _FromLiteLLM:
    """What a warning's filter takes for a pattern: matches LiteLLM's own."""

    def match(self, message: str) -> bool:
        """Whether a message that is just being raised is of the kind, and comes from LiteLLM's code."""
        return MESSAGE.match(message) is not None and _origin(sys._getframe(1)) == "litellm"  # noqa: SLF001


FILTER: Any = ("ignore", _FromLiteLLM(), UserWarning, None, 0)


def keep_off() -> None:
    """Have these warnings ignored, whatever the filters of now say, until those are undone."""
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    if FILTER not in filters[:1]:
        let_through()
        filters.insert(0, FILTER)


def let_through() -> None:
    """Have these warnings treated like any others."""
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    filters[:] = [each for each in filters if each is not FILTER]


def _origin(frame: FrameType | None) -> str:
    """The package of the code that has a model made."""
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in BETWEEN:
            return package
        frame = frame.f_back
    return ""
