"""Says where the answers of a test came from: in the summary, and beside the failure of a test that recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pytest_lmcache.settings import Mode
from pytest_lmcache.staged_answers import STAGED

if TYPE_CHECKING:
    from pytest_lmcache.call_record import CallRecord
    from pytest_lmcache.recorder import Recorder

WORDS = {"provider": "from the provider, asked just now", "cassette": "from the cassette"}


def from_layers(calls: Iterable[CallRecord]) -> list[str]:
    """Return a line for each layer and each test that asked first: how many answers, and since when they are there."""
    found: dict[tuple[str, str], list[str]] = {}
    for call in calls:
        if call.asked_at:
            found.setdefault((call.source, call.asked_by), []).append(call.asked_at)
    return [
        f"{len(times)} from {layer}, first asked{' by ' * bool(test)}{test} at {min(times)}"
        for (layer, test), times in found.items()
    ]


def advice(recorder: Recorder) -> str:
    """Return where a failed test's answers came from, and the command that asks again; empty if none was recorded."""
    if recorder.mode not in {Mode.RECORD, Mode.ONCE} or recorder.faults:
        return ""
    answered = [call for call in recorder.calls if call.answer is not None and call.source not in STAGED]
    counts = {word: sum(call.source == source for call in answered) for source, word in WORDS.items()}
    if len(answered) == counts[WORDS["cassette"]]:
        return ""
    lines = [*from_layers(answered), *(f"{count} {word}" for word, count in counts.items() if count)]
    return "\n".join(
        [
            "This test failed while its model calls were recorded. Its answers:",
            *(f"  {line}" for line in lines),
            "Recording again takes these answers from the cache. If one is bad, ask the provider again:",
            f"  {recorder.commands.rewrite}",
        ]
    )
