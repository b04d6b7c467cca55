"""What the calls of a test mean for its cassette when the test ends: what is saved, what was not used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pytest_lmcache.call_record import CallRecord
from pytest_lmcache.cassette.file import Cassette, NoCassette
from pytest_lmcache.cassette.merge import CallToSave


def record_failures(calls: Sequence[CallRecord], cassette: Cassette | NoCassette) -> None:
    """Have the errors of a test that passed recorded, unless a later identical call got an answer."""
    nothing_answered = not any(call.is_answered and call.source != "cassette" for call in calls)
    for call in calls:
        failure = call.failure
        if failure is None or failure.entry is None:
            continue
        recorded = cassette.answers(call.key)
        if nothing_answered and call.nth < len(recorded) and recorded[call.nth].is_answered:
            continue  # the provider may be down: the recorded answer stays
        is_made_up_for = any(
            other.is_answered and other.key == call.key and other.order > failure.at for other in calls
        )
        call.entry = None if is_made_up_for else failure.entry


def calls_to_save(
    calls: Sequence[CallRecord], cassette: Cassette | NoCassette, *, rewrite: bool
) -> list[CallToSave]:
    """Return the calls that the cassette has or gets; ``calls`` are in the order in which they started."""
    new: Counter[str] = Counter()
    found = []
    for call in calls:
        if call.is_new and call.replaces:
            found.append(CallToSave(call.key, call.nth, call.entry, replaces=True))
        elif call.is_new:
            # Counted anew: of two calls at once, the one that started first may have got the higher number.
            recorded = 0 if rewrite else len(cassette.answers(call.key))
            found.append(CallToSave(call.key, recorded + new[call.key], call.entry))
            new[call.key] += 1
        elif call.entry is not None:
            found.append(CallToSave(call.key, call.nth, None))
    return found


def count_unused(calls: Sequence[CallRecord], cassette: Cassette | NoCassette) -> int:
    """Return how many recordings answered no call."""
    used = {(call.key, call.nth) for call in calls}
    recorded = Counter(entry.key for entry in cassette.entries)
    return sum((key, nth) not in used for key, size in recorded.items() for nth in range(size))
