"""The data of the report's page: what a run did, or what cassettes hold, as plain data that goes from process to process."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypedDict

from pytest_lmcache.conversation import Attachment, Message, conversation, tool_name
from pytest_lmcache.errors import CassetteError, CassetteMiss
from pytest_lmcache.interaction import Answer, Call, Interaction, Kind
from pytest_lmcache.recorder import redacted
from pytest_lmcache.report.changes import as_text, asked_again, recorded_again, replaced
from pytest_lmcache.stream_chunks import Chunk, text_path, whole
from pytest_lmcache.summary import BY_TEST, outcome_of

if TYPE_CHECKING:
    from pytest_lmcache.call_record import CallRecord
    from pytest_lmcache.cassette.document import Entry
    from pytest_lmcache.recorder import Recorder
    from pytest_lmcache.redact import Redactor

MISSED, UNUSED, SAVED, VALUE = "missed", "unused", "saved", "value"
# Images that a browser shows without running anything; an SVG may hold a script.
IMAGE: Final = re.compile(r"data:image/(?:png|jpeg|gif|webp|avif);base64,[A-Za-z0-9+/=\s]+")
LONGEST_IMAGE: Final = 3_000_000  # characters; larger ones are only named

Json = dict[str, Any]


class Part(TypedDict):
    """What one test, shared fixture or block did, or what one cassette holds; ``calls`` are as `call_data` has them."""

    test: str
    cassette: str
    calls: list[Json]


# ---- from a run ----------------------------------------------------------------------------------------


def of_recorder(test: str, recorder: Recorder, *, passed: bool) -> Part:
    """What a recorder did, after its end; ``passed``: the test passed, and its cassette is written."""
    old = replaced(recorder) if passed else {}
    misses = _misses(recorder)
    calls = []
    for record in recorder.everything:
        if record.source:
            replaced_one = old.get(id(record.entry))
            call = _of_record(record, replaced_one, recorder.redact, passed=passed)
            if recorder.verification is not None and record in recorder.verification.comparisons:
                call |= asked_again(recorder.verification.comparisons[record], call["recorded"])
            calls.append(call)
        else:
            nothing = {**_empty(), "outcome": MISSED, "name": record.name}  # a child process has the call
            calls.append(next(misses, nothing))
    if passed:
        calls += [entry_data(UNUSED, entry) for entry in _unused(recorder)]
    return Part(test=test, cassette="" if recorder.path is None else recorder.shown_path, calls=calls)


def of_cassette(
    test: str, path: str, entries: Iterable[Entry], unused: Container[tuple[str, int]] = ()
) -> Part:
    """What a cassette holds; ``unused`` are the recordings that the last run did not ask for."""
    numbers: Counter[str] = Counter()
    calls = []
    for entry in entries:
        outcome = UNUSED if (entry.key, numbers[entry.key]) in unused else SAVED
        numbers[entry.key] += 1
        calls.append(entry_data(outcome, entry))
    return Part(test=test, cassette=path, calls=calls)


def _misses(recorder: Recorder) -> Iterator[Json]:
    """The calls that missed, in their order, each with its message."""
    for fault in recorder.faults:
        if isinstance(fault, CassetteMiss) and fault.details is not None and fault.details.call is not None:
            yield {**call_data(MISSED, fault.details.call, None), "problem": str(fault)}


def _unused(recorder: Recorder) -> list[Entry]:
    """The recordings that no call asked for."""
    if not recorder.unused():
        return []
    used = {(call.key, call.nth) for call in recorder.everything}
    cassette = recorder.open_cassette()
    keys = dict.fromkeys(entry.key for entry in cassette.entries)
    return [
        entry for key in keys for nth, entry in enumerate(cassette.answers(key)) if (key, nth) not in used
    ]


def _of_record(record: CallRecord, old: Entry | None, redact: Redactor, *, passed: bool) -> Json:
    outcome = VALUE if record.is_value else outcome_of(record, passed=passed)
    try:
        if record.interaction is not None:
            interaction = record.interaction
            call, answer, recorded = interaction.call, interaction.answer, interaction.recorded
            if outcome in BY_TEST:
                answer, recorded = redacted(answer, redact), ""
        elif record.entry is not None:
            call, answer, recorded = record.entry.call(), record.entry.answer(), record.entry.recorded()
        else:
            call, answer, recorded = Call(record.name, record.live_request), None, ""
    except CassetteError as fault:
        return {**_empty(), "outcome": outcome, "name": record.name, "problem": str(fault)}
    data = call_data(outcome, call, answer, recorded)
    data |= {
        "tokens": [*record.tokens],
        "cached": [*record.cached],
        "usd": record.usd,
        "seconds": record.seconds,
    }
    if record.failure is not None and record.entry is None:
        data["problem"] = f"not recorded: {record.failure.why.what}"
    if old is not None and answer is not None:
        found = recorded_again(old, Interaction(record.key, call, answer, recorded))
        data |= {} if found is None else {"comparison": found}
    return data


def entry_data(outcome: str, entry: Entry) -> Json:
    """A recording; one that cannot be read is data too, with its problem."""
    try:
        call = entry.call()
        outcome = VALUE if call.is_value and outcome == SAVED else outcome
        return call_data(outcome, call, entry.answer(), entry.recorded())
    except CassetteError as fault:
        return {**_empty(), "outcome": outcome, "problem": str(fault)}


def _empty() -> Json:
    return {
        "outcome": "",
        "name": "",
        "model": "",
        "asked": [],
        "answered": [],
        "tools": [],
        "parameters": {},
        "finish": "",
        "error": "",
        "problem": "",
        "recorded": "",
        "tokens": [0, 0],
        "cached": [0, 0],
        "usd": None,
        "seconds": 0.0,
    }


def call_data(outcome: str, call: Call, answer: Answer | None, recorded: str = "") -> Json:
    """A call and its answer; all that is shown of it is text."""
    read = conversation(call, answer)
    data = {
        **_empty(),
        "outcome": outcome,
        "name": call.name,
        "model": read.model,
        "asked": [message_data(each) for each in read.asked],
        "answered": [message_data(each) for each in read.answered],
        "tools": [{"name": tool_name(tool), "text": as_text(tool)} for tool in read.tools],
        "parameters": {name: as_text(value) for name, value in read.parameters.items()},
        "finish": read.finish_reason,
        "error": read.error,
        "recorded": recorded,
    }
    if answer is not None:
        data |= {
            "tokens": [*answer.tokens],
            "cached": [*answer.cached],
            "usd": answer.usd,
            "seconds": answer.seconds,
        }
        if answer.kind is Kind.STREAM:
            data["stream"] = {**_stream(answer.data), "pace": answer.pace}
    return data


def message_data(message: Message) -> Json:
    """A message; it has only the fields that say something."""
    found: Json = {"role": message.role, "text": message.text}
    if message.reasoning:
        found["reasoning"] = message.reasoning
    if message.tool_calls:
        found["calls"] = [
            {"name": call.name, "arguments": as_text(call.arguments), "id": call.id}
            for call in message.tool_calls
        ]
    if message.attachments:
        found["files"] = [_file(each) for each in message.attachments]
    if message.tool_call_id:
        found["answers"] = message.tool_call_id
    return found


def _file(attachment: Attachment) -> Json:
    found = {"kind": attachment.kind, "name": attachment.name}
    if len(attachment.url) <= LONGEST_IMAGE and IMAGE.fullmatch(attachment.url):
        found["data"] = attachment.url
    return found


def _stream(stored: Sequence[Chunk]) -> Json:
    """The number of chunks, and the pieces of text among them with what each is."""
    pieces = []
    for chunk in whole(stored):
        path = text_path(chunk)
        value: Any = chunk
        for name in path:
            value = value[0] if isinstance(value, list) else value
            value = value[name]
        if path and value:
            pieces.append([path[-1], value])
        elif isinstance(chunk.get("bytes"), str):  # server-sent events
            pieces.append(["bytes", chunk["bytes"]])
    return {"chunks": len(stored), "pieces": pieces}
