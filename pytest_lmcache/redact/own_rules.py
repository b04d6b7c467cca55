"""Users' rules: patterns and functions."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable

from pytest_lmcache.errors import SettingsError


def applied(function: Callable[[str], str], text: str) -> str:
    """What a user's function makes of a text."""
    try:
        own = function(text)
    except Exception as error:  # noqa: BLE001 - whatever it is; its message may hold what the function was given
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise SettingsError(
            f"the function that redacts, {function!r}, raised {type(error).__name__} at "
            f"{at.filename}:{at.lineno}; mend it, or take it out"
        ) from None
    if not isinstance(own, str):
        raise SettingsError(
            f"the function that redacts, {function!r}, has to return a text, got {type(own).__name__}"
        )
    return own


def compiled_pattern(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    """A user's pattern. Raises SettingsError where it is none."""
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise SettingsError(f"{pattern!r} is no regular expression to redact by: {error}") from error
    if not isinstance(compiled.pattern, str):
        raise SettingsError(f"{pattern!r} is a pattern of bytes; redaction works on text, leave out the b")
    return compiled
