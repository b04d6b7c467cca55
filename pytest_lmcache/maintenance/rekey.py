"""Recomputes the keys of cassettes, by another strategy or other normalizers; no model is called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pytest_lmcache.cassette.document import Entry, scalar
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.keys.strategies import KeyStrategy
from pytest_lmcache.keys.strategies import strategy as named_strategy

_KEY = re.compile(rb"^key: .*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """One cassette with new keys.

    ``changed`` is the number of interactions whose key changed. ``merged`` has the numbers (from 1) of interactions
    that had several keys and have one now: each such call gets the answer of its place among them.
    """

    path: Path
    is_written: bool
    changed: int
    merged: tuple[tuple[int, ...], ...]


def rekey(path: Path, strategy: KeyStrategy, *, write: bool) -> Rekeyed:
    """Make the keys of a cassette anew. Without ``write`` the file stays as it is. Raises LMCacheError."""
    exact = named_strategy("exact")  # whatever made the file's keys, they are read as they are
    result: list[tuple[str, str]] = []

    def change(head: bytes, entries: list[Entry]) -> tuple[bytes, list[Entry]]:
        keys = [strategy.key(entry.call()) for entry in entries]
        result.extend(zip((entry.key for entry in entries), keys, strict=True))
        if not write:
            return head, entries
        line = f"key: {scalar(strategy.name)}".encode()
        head = _KEY.sub(lambda _: line, head, count=1)
        pairs = zip(entries, keys, strict=True)
        changed = [entry if entry.key == key else entry.rekeyed(key) for entry, key in pairs]
        return head, entries if changed == entries else changed

    is_written = Cassette(path, exact).edit(change)
    return Rekeyed(path, is_written, sum(old != key for old, key in result), _merged(result))


def _merged(keys: list[tuple[str, str]]) -> tuple[tuple[int, ...], ...]:
    by_key: dict[str, list[int]] = {}
    for number, (_, key) in enumerate(keys, 1):
        by_key.setdefault(key, []).append(number)
    return tuple(
        tuple(numbers) for numbers in by_key.values() if len({keys[number - 1][0] for number in numbers}) > 1
    )
