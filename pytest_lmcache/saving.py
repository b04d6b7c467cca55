"""What the calls of a test leave in its cassette when the test has passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pytest_lmcache.call_record import CallRecord, Failure
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
        call.entry = None if _is_made_up_for(call.key, failure, calls) else failure.entry


def is_partial(calls: Sequence[CallRecord], *, rewrite: bool) -> bool:
    """Return whether a test may have left out calls, or could not record one, so that old recordings have to stay.

    After an error that may pass, it may have left out the rest. A rewrite, which is to leave nothing old, takes a
    recorded error for an answer.
    """
    return any(
        not (rewrite and call.entry is not None and failure.replays)
        for call in calls
        if (failure := call.failure) is not None and not _is_made_up_for(call.key, failure, calls)
    )


def _is_made_up_for(key: str, failure: Failure, calls: Iterable[CallRecord]) -> bool:
    """Return whether an identical call that was made after a failed one got an answer."""
    return any(other.is_answered and other.key == key and other.order > failure.at for other in calls)


def calls_to_save(
    calls: Sequence[CallRecord], cassette: Cassette | NoCassette, *, rewrite: bool
) -> list[CallToSave]:
    """Return the calls that the cassette has or gets, in the order in which they started."""
    new: Counter[str] = Counter()
    found = []
    for call in calls:
        if not call.is_new or call.replaces:
            if call.entry is not None:
                found.append(
                    CallToSave(call.key, call.nth, call.entry if call.is_new else None, call.replaces)
                )
        else:
            # Counted anew: of two calls at once, the one that started first may have got the higher number.
            recorded = 0 if rewrite else len(cassette.answers(call.key))
            found.append(CallToSave(call.key, recorded + new[call.key], call.entry))
            new[call.key] += 1
    return found
