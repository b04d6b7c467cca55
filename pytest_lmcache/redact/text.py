"""Takes secrets out of texts, by the built-in rules, the known secrets, and users' patterns and functions."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.redact.known_values import KnownSecrets
from pytest_lmcache.redact.names import SHORTEST_SECRET
from pytest_lmcache.redact.placeholders import (
    CUSTOM_RANK,
    KNOWN_RANK,
    Span,
    edited,
    edits_of,
    hashed_part,
    placeholder_for,
    replaced,
)
from pytest_lmcache.redact.scan import Known, find_secrets
from pytest_lmcache.time_limit import time_limit

_MAX_ROUNDS = 20  # more than any text needs that was not made to need them
_SHORT_TEXT = 500  # characters: the results for shorter texts are remembered
_MAX_MEMORY = 5_000  # results, for each of the last few sets of rules
_CUT_START = 12  # characters of a secret that a text has to have where it breaks off in it

Pattern = re.Pattern[str]
Function = Callable[[str], str]


class TextRedactor:
    """Takes secrets out of single texts, and of texts in pieces. Doing it again changes nothing."""

    __slots__ = ("_functions", "_memory", "_patterns", "_secrets")

    def __init__(
        self, patterns: tuple[Pattern, ...], functions: tuple[Function, ...], secrets: KnownSecrets
    ) -> None:
        self._patterns = patterns
        self._functions = functions
        self._secrets = secrets
        self._memory: tuple[Known, dict[str, str]] | None = None

    def __call__(self, text: str) -> str:
        """Return the text with placeholders for its secrets. Raises SettingsError."""
        clean = self._by_rules(text)
        for function in self._functions:
            changed = _apply(function, clean)
            clean = clean if changed == clean else self._by_rules(changed)
        return clean

    def pieces(self, pieces: list[str]) -> list[str]:
        """Return the pieces of one text without its secrets. A placeholder stands where the secret began."""
        for _ in range(_MAX_ROUNDS):
            text = "".join(pieces)
            edits = edits_of(text, self.spans(text))
            if not edits:
                break
            pieces = list(edited(pieces, edits))
        text = "".join(pieces)
        if self._functions and text:
            clean, whole = list(map(self, pieces)), self(text)
            return clean if "".join(clean) == whole else list(edited(pieces, _edits_between(text, whole)))
        return pieces

    def placeholder(self, name: str, secret: str) -> str:
        """Return the placeholder of a secret that is known by its name."""
        known = [span for span in self.spans(secret) if span.rank >= KNOWN_RANK]
        return placeholder_for(name.lower(), hashed_part(secret, Span(0, len(secret), 0, name), known))

    def spans(self, text: str) -> list[Span]:
        """Return what the rules take out of a text, but not what functions do. Raises SettingsError."""
        known = self._secrets.table
        if len(text) < SHORTEST_SECRET and not self._patterns:
            return []
        spans = list(find_secrets(text, known)) if len(text) >= SHORTEST_SECRET else []
        for secret, name in known:
            if secret in text:
                spans += (
                    Span(*found.span(), KNOWN_RANK, name) for found in re.finditer(re.escape(secret), text)
                )
            elif (at := _cut_secret(text, secret)) is not None:
                spans.append(Span(at, len(text), KNOWN_RANK, name))
        for pattern in self._patterns:
            group = "secret" if "secret" in pattern.groupindex else 0
            with time_limit("redact (lm_redact)", pattern.pattern):
                places = [found.span(group) for found in pattern.finditer(text)]
            spans += (Span(start, end, CUSTOM_RANK, "pattern") for start, end in places if start < end)
        return spans

    def _by_rules(self, text: str) -> str:
        # What the old rules gave is never remembered for the new ones: the memory is looked up before the text is.
        table = self._secrets.table
        if self._memory is None or self._memory[0] is not table:
            self._memory = table, _results(table, self._patterns)
        memory = self._memory[1]
        if (found := memory.get(text)) is not None:
            return text if found == text else found  # the same object if there are no secrets
        clean = text
        # Taking one secret out can uncover the edge of another.
        for _ in range(_MAX_ROUNDS):
            spans = self.spans(clean)
            if not spans or (changed := replaced(clean, spans)) == clean:
                break
            clean = changed
        if len(text) <= _SHORT_TEXT and len(memory) < _MAX_MEMORY:
            memory[text] = clean
        return clean


@lru_cache(maxsize=8)
def _results(_known: Known, _patterns: tuple[Pattern, ...]) -> dict[str, str]:
    """The texts that these rules were applied to, with the results: the same names and phrases come again."""
    return {}


def _cut_secret(text: str, secret: str) -> int | None:
    """Where a secret begins that the end of a text cuts off, if at least half of it is there."""
    at = text.find(secret[:_CUT_START], max(0, len(text) - len(secret)))
    left = text[at:]
    # Only letters may be a word of the language.
    is_cut = at >= 0 and len(left) >= len(secret) // 2 and not left.isalpha() and secret.startswith(left)
    return at if is_cut else None


def _edits_between(old: str, new: str) -> list[tuple[int, int, str]]:
    """One edit that makes one text of another: from their first difference to their last."""
    if old == new:
        return []
    shared = os.path.commonprefix  # of texts, not of paths
    start = min(len(shared([old, new])), len(old) - 1)
    end = len(shared([old[start:][::-1], new[start:][::-1]]))
    return [(start, len(old) - end, new[start : len(new) - end])]


# ---- users' rules --------------------------------------------------------------------------------------


def compiled_patterns(patterns: str | Iterable[str | Pattern]) -> tuple[Pattern, ...]:
    """Return a user's patterns. Raises SettingsError for one that is not a regular expression of text."""
    compiled = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            compiled.append(re.compile(pattern))
        except (re.error, TypeError) as error:
            raise SettingsError(f"{pattern!r} is not a regular expression for redact: {error}") from error
        if not isinstance(compiled[-1].pattern, str):
            raise SettingsError(
                f"{pattern!r} is a pattern of bytes. Redaction works on text: leave out the b."
            )
    return tuple(compiled)


def _apply(function: Function, text: str) -> str:
    """Call a user's function. Raises SettingsError if it fails, without the text, which may hold a secret."""
    try:
        changed: Any = function(text)
    except Exception as error:  # noqa: BLE001 - its message may hold the text
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise SettingsError(
            f"The redact_with function {function!r} raised {type(error).__name__} at {at.filename}:{at.lineno}. "
            "Correct it, or remove it from the settings."
        ) from None
    if not isinstance(changed, str):
        raise SettingsError(
            f"The redact_with function {function!r} returned {type(changed).__name__}. It has to return a str."
        )
    return changed
