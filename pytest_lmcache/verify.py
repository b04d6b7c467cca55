"""The questions of a test that are asked again: their new answers, and how they differ from the recorded ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pytest_lmcache.answer_comparison import Difference, SameText, differences, is_comparable
from pytest_lmcache.call_record import CallRecord, described
from pytest_lmcache.conversation import Message, conversation
from pytest_lmcache.errors import BudgetExceeded, CassetteError, shorten
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.recordings import Recordings, answer_of
from pytest_lmcache.spending import Spending


class Verdict(StrEnum):
    """The result of asking a recorded question again."""

    SAME = "same"
    DIFFERENT = "different"
    UNAVAILABLE = "unavailable"
    NOT_COMPARED = "not compared"


@dataclass(slots=True, eq=False)
class Comparison:
    """A recorded answer and the new answer to the same question.

    - ``asked``: the model that was asked now
    - ``recorded``: None for a call without a recording
    - ``new``: None for a call that was not asked again
    - ``why``: why the two could not be compared, empty if they were
    """

    call: Call
    asked: str
    recorded: Answer | None
    new: Answer | None = None
    why: str = ""
    verdict: Verdict = Verdict.NOT_COMPARED
    differences: Sequence[Difference] = ()

    def compare(self, same_text: SameText | None) -> None:
        """Set the verdict and the differences."""
        if self.recorded is None or self.new is None:
            return
        try:
            found = differences(self.call, self.recorded, self.new, same_text)
        except Exception as problem:  # noqa: BLE001 - a user's function, or the provider of an embedding model
            self.why = f"the texts could not be compared: {reason(problem)}"
            return
        if found and self.why:
            self.verdict = Verdict.UNAVAILABLE
        else:
            self.verdict, self.why = (Verdict.DIFFERENT if found else Verdict.SAME), ""
            self.differences = found


class Verification:
    """Notes the new answers of one test, or of one ``use_cassette`` block, and compares them when it has ended.

    ``same_text`` decides whether two texts are the same; without it they have to be equal. ``clean`` takes the secrets
    out of an answer, ``redact`` out of a text. ``asked_model`` gives the model that is asked in the place of one, and
    ``spending`` counts what that costs. ``open_recordings`` finds the recordings in mode live, in which the recorder
    reads none; None in mode verify.
    """

    def __init__(
        self,
        same_text: SameText | None,
        *,
        clean: Callable[[Answer], Answer],
        redact: Callable[[str], str],
        asked_model: Callable[[str], str],
        spending: Spending,
        open_recordings: Callable[[], Recordings] | None,
        key_text: Callable[[Call], str],
    ) -> None:
        self._same_text = same_text
        self._clean = clean
        self._redact = redact
        self._asked_model = asked_model
        self._spending = spending
        self._open_recordings = open_recordings
        self._key_text = key_text
        self._recordings: Recordings | None = None
        self._numbers: dict[str, int] = {}
        self._asked: set[tuple[str, int]] = set()
        self._in_flight: dict[CallRecord, CallRecord] = {}
        self.sent: list[CallRecord] = []  # what was asked beside the replay
        self.comparisons: dict[CallRecord, Comparison] = {}

    @property
    def is_live(self) -> bool:
        """Whether the test gets the new answers."""
        return self._open_recordings is not None

    # What is asked.

    def begin(self, record: CallRecord, call: Call, recorded: Answer) -> None:
        """Add a replayed call; returns whether to ask it again. Each recording is asked again once."""
        place = record.key, record.nth
        if place in self._asked:
            return
        self._asked.add(place)
        self.comparisons[record] = found = Comparison(call, str(call.request.get("model", "")), recorded)
        if not is_comparable(recorded):
            found.why = "the call was cut off when it was recorded"
            return
        sent = CallRecord(record.order, call.name, record.key, record.nth, source="asked again")
        sent.model = found.asked = self._asked_model(found.asked)
        try:
            self._spending.start(sent, call)
        except BudgetExceeded:
            found.verdict, found.why = Verdict.UNAVAILABLE, "the budget of this run is spent"
            return
        record.is_asked_again = True
        self._in_flight[record] = sent

    def look_up(self, record: CallRecord, call: Call) -> None:
        """Find the recording of a live call, to compare its answer with."""
        self.comparisons[record] = found = Comparison(call, str(call.request.get("model", "")), None)
        if "unreadable" in call.request or self._open_recordings is None:
            found.why = "the call has no key"
            return
        try:
            if self._recordings is None:
                self._recordings = self._open_recordings()
            key, equivalence = self._recordings.key(call, self._key_text(call), fast_path=False)
            number = self._numbers.get(key, 0)
            self._numbers[key] = number + 1
            entry = self._recordings.find(key, number)
            if entry is None:
                found.why = "there is no recording of this call"
            else:
                found.recorded = answer_of(entry[1], call, equivalence)
        except CassetteError as fault:
            found.why = str(fault).splitlines()[0]

    def answered(self, record: CallRecord, asked: str, new: Answer, why: str = "") -> None:
        """Note the new answer of a call to model ``asked``; ``why`` the provider did not answer, for a passing error."""
        if (found := self.comparisons.get(record)) is None:
            return
        found.asked, found.new = asked, self._clean(new)
        found.why = found.why or self._redact(why)
        sent = self._in_flight.pop(record, None)
        if sent is not None:
            sent.seconds = new.seconds
            sent.copy_usage(new)
            self._spending.end(sent, new)
            self.sent.append(sent)

    # What came of it.

    def compare(self) -> None:
        """Compare all answers; asks an embedding model, if the setting names one."""
        for record, sent in self._in_flight.items():
            self._spending.end(sent, Answer(Kind.UNANSWERED, None, complete=False))
            self.comparisons[record].why = "the test was cancelled while the call was asked again"
        self._in_flight.clear()
        for found in self.comparisons.values():
            found.compare(self._same_text)

    def rows(self, calls: Sequence[CallRecord], **more: Any) -> list[dict[str, Any]]:
        """Return plain data of each comparison, with the call's number among those of its test, from 1."""
        return [
            {
                **more,
                "call": number,
                "name": found.call.name,
                "question": described(found.call.request),
                "model": str(found.call.request.get("model", "")),
                "asked": found.asked,
                "verdict": str(found.verdict),
                "why": found.why,
                "differences": [{**each._asdict(), "cause": str(each.cause)} for each in found.differences],
                "recorded": _plain(found.call, found.recorded),
                "new": _plain(found.call, found.new),
                "is_live": self.is_live,
            }
            for number, record in enumerate(calls, 1)
            if (found := self.comparisons.get(record)) is not None
        ]


def reason(problem: BaseException) -> str:
    """The first line of an exception's message, after its class."""
    lines = str(problem).strip().splitlines()
    return shorten(": ".join([type(problem).__name__, *lines[:1]]), 200)


def _plain(call: Call, answer: Answer | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    read = conversation(call, answer)
    return {
        "model": read.answered_model,
        "messages": [_plain_message(message) for message in read.answered],
        "finish_reason": read.finish_reason,
        "error": read.error,
        "tokens": [*answer.tokens],
        "usd": answer.usd,
        "seconds": answer.seconds,
    }


def _plain_message(message: Message) -> dict[str, Any]:
    return {
        "text": message.text,
        "reasoning": message.reasoning,
        "tool_calls": [{"name": each.name, "arguments": each.arguments} for each in message.tool_calls],
        "attachments": [each.name for each in message.attachments],
    }
