"""Assertions on the calls of a test, and the limits of the marker ``lm_budget``; failures list the calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_lmcache.call_record import CallRecord

MOST_LISTED = 20  # calls


def assert_called(
    calls: Sequence[CallRecord], times: int | None, *, model: str | None, containing: str | None
) -> list[CallRecord]:
    """The calls of the model whose prompt contains the text; see `LMCacheFixture.assert_called`."""
    __tracebackhide__ = True
    found = [
        call
        for call in calls
        if (model is None or call.model == model) and (containing is None or containing in call.prompt_text)
    ]
    if len(found) == times or (found and times is None):
        return found
    conditions = (
        *([] if model is None else [f"of {model}"]),
        *([] if containing is None else [f"containing {containing!r}"]),
    )
    wanted = "at least one call" if times is None else _number(times) if times else "no call"
    asked = " ".join(["Expected", wanted, *conditions])
    raise AssertionError("\n".join([f"{asked}, but there {_were(len(found))}.", *listed(calls)]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the calls of a test may cost, None for any number. ``tokens`` are input and output, ``usd`` is in USD."""

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None

    def exceeded(self, calls: Sequence[CallRecord]) -> str:
        """What the calls cost more than they may, with a list of them; empty if they are within the limits."""
        lines = [*self._exceeded(calls)]
        return "\n".join([*lines, *listed(calls)]) if lines else ""

    def _exceeded(self, calls: Sequence[CallRecord]) -> Iterator[str]:
        if self.calls is not None and len(calls) > self.calls:
            yield f"The test made {_number(len(calls))}; lm_budget allows {self.calls:,}."
        tokens = sum(sum(call.tokens) for call in calls)
        if self.tokens is not None and tokens > self.tokens:
            yield f"Its calls took {tokens:,} tokens; lm_budget allows {self.tokens:,}."
        if self.usd is None:
            return
        usd = sum(call.usd or 0 for call in calls)
        if usd > self.usd:
            yield f"Its calls cost ${usd:.6g}; lm_budget allows ${self.usd:.6g}."
        elif unpriced := sorted({call.model for call in calls if call.usd is None and call.is_answered}):
            yield (
                f"lm_budget cannot tell whether the calls cost more than ${self.usd:.6g}: LiteLLM knows no price "
                f"of {', '.join(unpriced)}. Register it with litellm.register_model, or limit the tokens instead."
            )


def listed(calls: Sequence[CallRecord]) -> Iterator[str]:
    """The calls in a line each, as failures show them."""
    if not calls:
        yield "No model was called."
        return
    yield "The calls:"
    for number, call in enumerate(calls[:MOST_LISTED]):
        usd = "" if call.usd is None else f", ${call.usd:.6g}"
        yield f"  calls[{number}]  {call!r}, {sum(call.tokens):,} tokens{usd}"
    if len(calls) > MOST_LISTED:
        yield f"  … and {len(calls) - MOST_LISTED:,} more"


def _number(count: int) -> str:
    return f"{count:,} call{'' if count == 1 else 's'}"


def _were(count: int) -> str:
    return f"{'was' if count == 1 else 'were'} {_number(count) if count else 'none'}"
