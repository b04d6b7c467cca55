"""Removes cassettes and recordings that no test uses any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.errors import CassetteError
from pytest_lmcache.keys.strategies import strategy
from pytest_lmcache.maintenance.suite import Suite
from pytest_lmcache.maintenance.usage import (
    Orphan,
    Unused,
    find_usage,
    full_run_command,
    unused_by_partial_run,
)


@dataclass(frozen=True, slots=True)
class Pruning:
    """What can be removed.

    ``refused`` are the recordings that only a partial run did not ask for; ``reason`` says why they stay, and the
    command that makes a full run. ``notes`` say what could not be known.
    """

    orphans: tuple[Orphan, ...]
    unused: tuple[Unused, ...]
    refused: tuple[Unused, ...]
    reason: str
    notes: tuple[str, ...]

    @property
    def files(self) -> list[Path]:
        """The files that are removed as a whole."""
        return [
            *(orphan.path for orphan in self.orphans),
            *(each.path for each in self.unused if each.is_whole),
        ]


def plan(cassettes: Sequence[Path], suite: Suite) -> Pruning:
    """Find what can be removed of some cassettes. Raises LMCacheError."""
    usage = find_usage(cassettes, suite)
    known = {*(each.path for each in usage.orphans), *(each.path for each in usage.unused)}
    partial = unused_by_partial_run([path for path in cassettes if path not in known], suite)
    refused: tuple[Unused, ...] = ()
    reason = ""
    if partial is not None and partial[1]:
        run, found = partial
        refused = tuple(found)
        reason = (
            f"the last run was partial ({'; '.join(run.partial)}), so other tests may use them. "
            f"Run: {full_run_command(suite, run)}"
        )
    return Pruning(usage.orphans, usage.unused, refused, reason, usage.notes)


def prune(pruning: Pruning) -> None:
    """Remove what was planned, and folders that become empty. Raises CassetteError."""
    for path in pruning.files:
        try:
            path.unlink()
        except OSError as problem:
            raise CassetteError(f"{path} cannot be removed: {problem.strerror or problem}.") from None
        _remove_empty(path.parent)
    for each in pruning.unused:
        if not each.is_whole:
            drop(each.path, each.recordings)


def drop(path: Path, recordings: Sequence[tuple[str, int]]) -> None:
    """Remove recordings, as pairs of key and number, from a cassette. Raises CassetteError."""
    unwanted = {*recordings}

    def change(head: bytes, entries: list[Entry]) -> tuple[bytes, list[Entry]]:
        seen: Counter[str] = Counter()
        kept = []
        for entry in entries:
            if (entry.key, seen[entry.key]) not in unwanted:
                kept.append(entry)
            seen[entry.key] += 1
        return head, kept

    Cassette(path, strategy("exact")).edit(change)


def _remove_empty(folder: Path) -> None:
    """Remove folders of a test file that has no cassette any more."""
    while folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
