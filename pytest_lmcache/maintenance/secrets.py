"""Finds secrets in cassettes, by the rules of recording. It never shows one."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_lmcache.cassette import reader
from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.errors import CassetteError, SettingsError
from pytest_lmcache.recorder import redacted
from pytest_lmcache.redact import Redactor

_PLACEHOLDER = re.compile(r"<redacted:([A-Za-z0-9_.\-]{1,80}?)(?::[0-9a-f]{6}(?:-[0-9]+)?)?>")
_TRACE = re.compile(
    r"[A-Za-z0-9_\-./+=]{6,}"
)  # what a secret looks like in the file, whatever is escaped around it
CUSTOM = "redact_with"
"""The kind of what a function of the user's takes out without a placeholder."""


@dataclass(frozen=True, slots=True, order=True)
class Secret:
    """A secret in a file: the line, from 1, and its kind, such as ``openai-key``; never the secret."""

    line: int
    kind: str


def redactor(patterns: Iterable[str], functions: Iterable[str]) -> Redactor:
    """The redactor with a suite's own rules; ``functions`` by their dotted paths. Raises SettingsError."""
    return Redactor(patterns, [_imported(path) for path in functions])


def secrets_in(path: Path, redact: Redactor) -> list[Secret]:
    """The secrets in a cassette, in a broken one too. Raises CassetteError if the file cannot be read."""
    data = reader.read_bytes(path) or b""
    found: set[Secret] = set()
    try:
        entries = reader.read_documents(path, data)
    except CassetteError:
        return sorted(_in_text(data, 1, redact))
    found.update(_in_text(data[: entries[0].start], 1, redact))
    for entry in entries:
        try:
            found.update(_in_entry(entry, redact))
        except CassetteError:
            found.update(_in_text(entry.text, _line_of(entry, 0), redact))
    return sorted(found)


def _in_text(data: bytes, first: int, redact: Redactor) -> Iterator[Secret]:
    """The secrets in a text that cannot be parsed, or is a comment, line by line and as a whole."""
    text = data.decode(errors="replace")
    for before, _, kind in _changes(text, redact(text)):
        yield Secret(first + max(0, text[: _place(text, before)].count("\n")), kind)


def _in_entry(entry: Entry, redact: Redactor) -> Iterator[Secret]:
    interaction = entry.interaction()
    request = interaction.call.request
    answer = interaction.answer
    clean = redacted(answer, redact)
    pairs = [
        (request, redact.request(request)),
        (answer.data, clean.data),
        (answer.error, clean.error),
        (answer.hidden, clean.hidden),
    ]
    text = entry.text.decode(errors="replace") if any(before is not after for before, after in pairs) else ""
    for before, after in pairs:
        changes = [change for leaf in _leaves(before, after) for change in _changes(*leaf)]
        # The later pieces of a secret in a stream lose it without a placeholder.
        named = [change for change in changes if change[2] != CUSTOM] or changes
        for secret, place, kind in named:
            yield Secret(_line_of(entry, _place(text, secret, place)), kind)


def _leaves(before: Any, after: Any) -> Iterator[tuple[str, str]]:
    """The texts that differ; a text that was no text before it was redacted counts as an empty one."""
    if isinstance(before, dict) and isinstance(after, dict):
        for (old_name, old), (new_name, new) in zip(before.items(), after.items(), strict=False):
            if isinstance(old_name, str) and isinstance(new_name, str) and old_name != new_name:
                yield old_name, new_name
            yield from _leaves(old, new)
    elif isinstance(before, list) and isinstance(after, list):
        for old, new in zip(before, after, strict=False):
            yield from _leaves(old, new)
    elif isinstance(before, str) and isinstance(after, str) and before != after:
        yield before, after


def _changes(before: str, after: str) -> Iterator[tuple[str, str, str]]:
    """What was taken out of a text: it, the text before it, and its kind."""
    if before == after:
        return
    parts = _PLACEHOLDER.split(after)
    texts, kinds = parts[::2], parts[1::2]
    if not kinds:
        yield "", "", CUSTOM
        return
    at = len(texts[0])
    for number, (kind, text) in enumerate(zip(kinds, texts[1:], strict=True), 1):
        is_last = number == len(kinds)
        end = len(before) - len(text) if is_last else before.find(text, at) if text else at
        if not before.startswith(texts[0]) or end < at:  # a user's function has changed more
            yield "", "", kind
            return
        secret = before[at:end]
        if not _PLACEHOLDER.fullmatch(secret):
            yield secret, before[:at], kind
        at = end + len(text)


def _place(text: str, secret: str, before: str = "") -> int:
    """Where a secret stands in the text of a document, 0 if it is written in another way there."""
    trace = _TRACE.search(secret)
    wanted = trace[0] if trace else secret
    if not wanted:
        return 0
    after = _TRACE.findall(before)[-1:]  # the last word before it tells one of several equal ones
    start = max(0, text.find(after[0])) if after else 0
    return max(0, text.find(wanted, start) if text.find(wanted, start) >= 0 else text.find(wanted))


def _line_of(entry: Entry, offset: int) -> int:
    return (
        entry.data.count(b"\n", 0, entry.start) + 1 + entry.text.decode(errors="replace")[:offset].count("\n")
    )


def _imported(path: str) -> Any:
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as problem:
        raise SettingsError(
            f"redact_with: {path!r} cannot be imported ({type(problem).__name__}: {problem}).\n"
            "Run the command with the Python that runs your suite; pythonpath in pytest's configuration counts."
        ) from problem
