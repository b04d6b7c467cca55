"""Begins the calls of a test with faults or replies in place of the recorder."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from pytest_lmcache.call_record import CallRecord
from pytest_lmcache.clock import utc_now
from pytest_lmcache.conversation import ToolCall
from pytest_lmcache.errors import SettingsError, StagedAnswerError
from pytest_lmcache.interaction import Answer, Call, Interaction, Kind, copied
from pytest_lmcache.settings import Mode
from pytest_lmcache.staged_answers import (
    FAULT,
    AnswerBuilder,
    Answering,
    Cut,
    Fail,
    Malformed,
    Reply,
    Rule,
    Rules,
    Slow,
    Source,
    reply_of,
)
from pytest_lmcache.staged_delay import Delay, MovableClock

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder


class StagedCalls:
    """Begins the calls of a test that has set up faults or replies; ``recorder`` begins those that meet none.

    A stream that is to be cut has to be asked for if it is not recorded. It is kept until an identical call asks
    for it, or until the test ends, and recorded then.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._rules = Rules()
        self._replies = count(1)
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, int], tuple[CallRecord, Answer]] = {}
        self._clock = MovableClock()

    def add(self, rule: Rule) -> None:
        """Set up a fault or a reply."""
        self._rules.add(rule)
        if any(isinstance(outcome, Slow) and not outcome.waits for outcome in rule.outcomes):
            self._clock.start()

    def begin(
        self,
        order: int,
        call: Call,
        builder: AnswerBuilder,
        *,
        fast_path: bool = False,
        address: str = "",
    ) -> tuple[CallRecord, Answer | None]:
        """As `Recorder.begin`; ``builder`` builds the objects of the call's library."""
        if fast_path:  # the call has to pass LiteLLM's wrapper, which retries it and reports its failure
            return CallRecord(order, call.name, "", 0), None
        source, answering, changes = self._rules.choose(call)
        delay, times_out = None, False
        for change in changes:
            if isinstance(change, Slow):
                limit = builder.timeout
                times_out = limit is not None and limit < change.seconds
                delay = Delay(limit if times_out and limit is not None else change.seconds, change.waits)
        cut = next((change for change in changes if isinstance(change, Cut)), None)
        answer: Answer | None
        if times_out:
            record, answer = self._note(order, call, FAULT, builder.timed_out())
        elif answering is not None:
            record, answer = self._answered(order, call, source, answering, builder)
            if cut is not None and answer.kind is Kind.STREAM:
                answer = self._note_cut(record, call, builder.cut(answer, cut))
        else:
            record, found = self._begin(order, call, address)
            if cut is None or (found is not None and found.kind is not Kind.STREAM):
                record.delay = delay
                return record, found
            if found is None:
                record.cut, record.delay = cut, delay
                return record, None
            self._give_back(record)
            answer = self._note_cut(record, call, builder.cut(found, cut))
        record.delay = delay
        return record, answer

    def cut_recorded(self, record: CallRecord, call: Call, builder: AnswerBuilder) -> Answer | None:
        """Return the cut stream of a call whose stream the provider gave just now; None if it gave none."""
        stored = record.interaction.answer if record.interaction is not None else None
        if record.entry is not None:
            stored = record.entry.answer()
        if record.cut is None or stored is None or stored.kind is not Kind.STREAM:
            return None
        if self._recorder.mode is not Mode.LIVE:
            with self._lock:
                self._kept[record.key, record.nth] = replace(record), stored
            self._give_back(record)
        return self._note_cut(record, call, builder.cut(stored, record.cut))

    def close(self) -> None:
        """Close; streams that were kept for a call that was not made are recorded."""
        self._clock.stop()
        with self._lock:
            for record, _ in self._kept.values():
                self._recorder.add(record)
            self._kept.clear()

    def unmet(self) -> StagedAnswerError | None:
        """The error for faults and replies that no call, or too few calls, got; None if there are none."""
        unmet = self._rules.unmet()
        if not unmet:
            return None
        calls = [repr(record) for record in self._recorder.calls]
        made = [f"  {call}" for call in calls[:10]] or ["  none"]
        made += [f"  … and {len(calls) - 10} more"] * (len(calls) > 10)  # noqa: PLR2004
        return StagedAnswerError(
            "\n".join(
                [
                    *(f"lm_cache.{text}" for text in unmet),
                    "The calls so far:",
                    *made,
                    "Remove it, correct model, call, when or times, or set it up with optional=True.",
                ]
            )
        )

    # ---- one call

    def _begin(self, order: int, call: Call, address: str) -> tuple[CallRecord, Answer | None]:
        """Begin a call by the recorder; one whose stream was cut before, and kept, gets that."""
        record, answer = self._recorder.begin(order, call, address=address)
        if answer is None:
            with self._lock:
                kept = self._kept.pop((record.key, record.nth), None)
            if kept is not None:
                self._recorder.take_over(record, kept[0])
                answer = _used_up(kept[1])
        return record, answer

    def _answered(
        self, order: int, call: Call, source: Source, answering: Answering, builder: AnswerBuilder
    ) -> tuple[CallRecord, Answer]:
        if isinstance(answering, Malformed):
            name = answering.name or first_tool(call.request)
            answering = Reply(tool_calls=[ToolCall(name, answering.arguments)])
        elif not isinstance(answering, Fail | Reply):
            answering = reply_of(answering(copied(call.request)), "reply")
        if isinstance(answering, Fail):
            source, answer = FAULT, builder.error(answering)
        else:
            answer = builder.reply(answering, next(self._replies))
        return self._note(order, call, source, answer)

    def _note(self, order: int, call: Call, source: Source, answer: Answer) -> tuple[CallRecord, Answer]:
        """Add a call that the test answers to its calls."""
        record = CallRecord(order, call.name, "", 0, source, streamed=bool(call.request.get("stream")))
        record.interaction = Interaction("", call, answer, utc_now())
        record.copy_usage(answer)
        self._recorder.add(record)
        return record, _used_up(answer)

    def _note_cut(self, record: CallRecord, call: Call, answer: Answer) -> Answer:
        """Let a call's record show the cut stream, which is all that the test gets."""
        record.source, record.entry, record.cut = FAULT, None, None
        record.interaction = Interaction(record.key, call, answer, utc_now())
        record.seconds, record.is_old, record.replaces, record.is_cached = 0.0, False, False, False
        record.copy_usage(answer)
        return _used_up(answer)

    def _give_back(self, record: CallRecord) -> None:
        """Give the recording of a cut call to the next identical call."""
        self._recorder.give_back(record)
        if self._recorder.may_ask:
            self._recorder.store.release_key(record)


def _used_up(answer: Answer) -> Answer:
    """A copy of an answer, since building a library's object from an answer changes its data."""
    return answer if answer.kind is Kind.ERROR else answer._replace(data=copied(answer.data))


def first_tool(request: Mapping[str, Any]) -> str:
    """The name of the first tool that a request offers. Raises SettingsError if it offers none."""
    for tool in request.get("tools") or ():
        function = tool.get("function") if isinstance(tool, dict) else None
        name = (function or tool).get("name") if isinstance(function or tool, dict) else None
        if name:
            return str(name)
    raise SettingsError(
        "lm_cache.malformed_tool_call: this call offers no tool with a name. Name one: malformed_tool_call(name=…)."
    )
