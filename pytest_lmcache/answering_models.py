"""Models that answer under another name than when they were recorded, such as an alias that has moved on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from pytest_lmcache.call_record import CallRecord
from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.conversation import conversation
from pytest_lmcache.errors import CassetteError


def moved(calls: Iterable[CallRecord], recorded: Sequence[Entry]) -> list[str]:
    """Say which models answered the new calls of a test under names that its recordings do not have.

    One text for each: ``asked: recorded -> new``.
    """
    new = [entry for call in calls if call.is_new and (entry := call.entry) is not None]
    if not new or not recorded:
        return []
    before: dict[str, set[str]] = defaultdict(set)
    for entry in recorded:
        asked, answered = _names(entry)
        before[asked].add(answered)
    found = []
    for entry in new:
        asked, answered = _names(entry)
        known = before[asked] - {""}
        if answered and known and answered not in known:
            found.append(move(asked, ", ".join(sorted(known)), answered))
    return list(dict.fromkeys(found))


def move(asked: str, before: str, after: str) -> str:
    """Say under which names a model answered."""
    return f"{asked}: {before} -> {after}"


def _names(entry: Entry) -> tuple[str, str]:
    """The model that a recording asked for, and the name under which it answered; empty if it has none."""
    try:
        read = conversation(entry.call(), entry.answer())
    except CassetteError:
        return "", ""  # a test that needs the recording fails with its fault
    return read.model, read.answered_model
