"""Ignores the warnings that pydantic raises when it builds LiteLLM's models, and no others.

LiteLLM silences them for the whole process when it is imported; pytest undoes that after each test.
"""

from __future__ import annotations

import re
import warnings
from inspect import currentframe
from typing import Any

# As pydantic 2.14 words it.
MESSAGE = re.compile(r"Items? .* on TypedDict class .* (is|are) using the .ReadOnly. qualifier")
# The packages on the stack between the warning and the module whose model is built.
BETWEEN = frozenset({"pydantic", "typing", "typing_extensions", "functools", "contextlib", "abc"})


class _FromLiteLLM:
    """Stands for the regular expression of a warning filter; matches only in calls of LiteLLM's code."""

    def match(self, message: str) -> bool:
        """Whether a message that is being raised right now is such a warning of LiteLLM's."""
        if MESSAGE.match(message) is None:
            return False
        frame, package = currentframe(), __package__.partition(".")[0]
        while frame is not None and (package in BETWEEN or package == "pytest_lmcache"):
            frame = frame.f_back
            package = "" if frame is None else str(frame.f_globals.get("__name__", "")).partition(".")[0]
        return package == "litellm"


FILTER: Any = ("ignore", _FromLiteLLM(), UserWarning, None, 0)


def ignore() -> None:
    """Ignore these warnings, before any other filter."""
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    if FILTER not in filters[:1]:
        stop_ignoring()
        filters.insert(0, FILTER)


def stop_ignoring() -> None:
    """Take the filter out."""
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    filters[:] = [each for each in filters if each is not FILTER]
