"""What happens to one call of a test: begin, decide, finish; and what the test asked, in order."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum, auto
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from pytest_lmcache import errors
from pytest_lmcache.cassette import Asked, Cassette, Entry, entry_of
from pytest_lmcache.errors import CassetteError, CassetteMiss, UnsupportedCall
from pytest_lmcache.interaction import Answer, Call, Interaction, Kind
from pytest_lmcache.nearest import explain, nearest
from pytest_lmcache.settings import Mode, RecordErrors, Repeat, Settings

if TYPE_CHECKING:
    from pytest_lmcache.keys import KeyStrategy
    from pytest_lmcache.redact import Redactor


# How many misses of one test are compared with all recordings: a program that goes on after one may have many.
EXPLAINED = 10


class RealTime:
    """The clock, also where a test stopped it: freezegun replaces the names of modules, not those of classes."""

    # Where time stands still already, freezegun keeps the real ones.
    _frozen = sys.modules.get("freezegun.api")
    now = (_frozen.real_datetime if _frozen else datetime).now
    seconds = _frozen.real_perf_counter if _frozen else perf_counter


class Decision(Enum):
    """What happens to a call."""

    REPLAY = auto()
    ASK = auto()
    PASS = auto()
    MISS = auto()


def decide(mode: Mode, *, exists: bool, found: bool) -> Decision:
    """The table of design: what a mode does with a call, given that the cassette exists and has the call.

    PASS goes to the provider and stores nothing.
    """
    if mode is Mode.LIVE:
        return Decision.PASS
    if mode is Mode.REWRITE:
        return Decision.ASK
    if found:
        return Decision.REPLAY
    if mode is Mode.RECORD or (mode is Mode.ONCE and not exists):
        return Decision.ASK
    return Decision.MISS


class Tape(Protocol):
    """A stream that is still being recorded."""

    def left(self) -> None:
        """Its reader reads no further."""


@dataclass(slots=True, eq=False)
class CallRecord:
    """One call of a test, as ``lm_cache.calls`` shows it.

    ``source`` is where the answer came from: ``cassette``, ``provider``, or empty for a miss. ``seconds`` is
    how long the provider took, when it was recorded or now; ``tokens`` are input and output tokens; ``usd``
    is the price, None where LiteLLM knows none.
    """

    order: int
    name: str
    key: str
    nth: int
    source: str = ""
    seconds: float = 0.0
    tokens: tuple[int, int] = (0, 0)
    usd: float | None = None
    left_early: bool = False
    started: float = 0.0
    entry: Entry | None = None
    tape: Tape | None = None

    @property
    def request(self) -> dict[str, Any]:
        """The normalised request; empty for a call that is not in the cassette."""
        return self.entry.call().request if self.entry is not None else {}

    @property
    def answer(self) -> Answer | None:
        """The answer as plain data, None where there is none in the cassette."""
        return self.entry.answer() if self.entry is not None else None

    @property
    def is_new(self) -> bool:
        """Whether the answer is the provider's and will be written to the cassette."""
        return self.source == "provider" and self.entry is not None


class Recorder:
    """The calls of one test, or of one ``use_cassette``: replays, asks or misses each.

    ``label`` names the test in messages, ``command`` is what records it. ``owned`` says that no other test
    uses the cassette. ``watched`` stands for a test that is not marked: its calls pass and are counted.
    """

    def __init__(
        self,
        settings: Settings,
        open_cassette: Callable[[], Cassette],
        path: Path | None,
        strategy: KeyStrategy,
        redact: Redactor,
        *,
        label: str = "",
        command: str = "",
        owned: bool = True,
        watched: bool = False,
        shown_path: str = "",
    ) -> None:
        self.settings = settings
        self.path = path
        self.redact = redact
        self.label = label
        self.command = command
        self.owned = owned
        self.watched = watched
        self.strategy = strategy
        self.shown_path = shown_path or str(path)
        self.faults: list[BaseException] = []
        self.unstored: list[str] = []
        self.in_front: set[str] = set()
        self._open_cassette = open_cassette
        self._cassette: Cassette | None = None
        self._order = count()
        self._lock = threading.RLock()
        self._calls: list[CallRecord] = []
        self._asked: Counter[str] = Counter()
        self._unanswered: set[CallRecord] = set()
        self._recorded_calls: list[Call] | None = None
        self._unreadable: list[str] = []

    # What a test may look at.

    @property
    def calls(self) -> Sequence[CallRecord]:
        """The calls so far, in the order in which they started."""
        return sorted(self._calls, key=lambda record: record.order)

    @property
    def replayed(self) -> int:
        """How many calls the cassette answered."""
        return sum(record.source == "cassette" for record in self._calls)

    @property
    def recorded(self) -> int:
        """How many answers of the provider will be written to the cassette."""
        return sum(record.is_new for record in self._calls)

    @property
    def usage(self) -> dict[str, int]:
        """The tokens of all calls so far, as the provider counted them."""
        asked = sum(record.tokens[0] for record in self._calls)
        said = sum(record.tokens[1] for record in self._calls)
        return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}

    # The way of a call.

    @property
    def cassette(self) -> Cassette:
        """The cassette, opened by the first call that needs it. Raises CassetteError where it is broken."""
        with self._lock:
            if self._cassette is None:
                self._cassette = self._open_cassette()
            return self._cassette

    def number(self) -> int:
        """The place of a call that starts now."""
        return next(self._order)

    def begin(self, order: int, call: Call) -> tuple[CallRecord, Answer | None]:
        """Decide on a call: its record, and its answer, None where the provider is to be asked.

        Raises CassetteMiss, and remembers it, where nothing answers the call; CassetteError where the
        cassette is broken.
        """
        live = self.settings.mode is Mode.LIVE
        key = "" if live else self.strategy.key(call)
        with self._lock:
            nth = self._asked[key]
            self._asked[key] += 1
            found = None if live else self._find(key, nth)
            decision = decide(
                self.settings.mode, exists=live or self.cassette.exists, found=found is not None
            )
            record = CallRecord(order, call.name, key, nth)
            self._calls.append(record)
        if decision is Decision.MISS:
            self._miss(call, used_up=bool(self.cassette.answers(key)))
        if decision is not Decision.REPLAY or found is None:
            record.source, record.started = "provider", RealTime.seconds()
            self._unanswered.add(record)
            return record, None
        record.nth, entry = found
        answer = entry.answer()
        record.source, record.entry = "cassette", entry
        record.seconds, record.tokens, record.usd = answer.seconds, answer.tokens, answer.usd
        return record, answer

    def finish(self, record: CallRecord, call: Call, answer: Answer) -> None:
        """Take the provider's answer of a call that ``begin`` did not answer."""
        self._unanswered.discard(record)
        record.seconds = RealTime.seconds() - record.started
        record.tokens, record.usd, record.tape = answer.tokens, answer.usd, None
        record.left_early = not answer.complete
        if self.settings.mode is Mode.LIVE:
            return
        answer = replace(self._clean(answer), seconds=record.seconds)
        now = RealTime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        record.entry = entry_of(Interaction(record.key, call, answer, now), self.path or Path())

    def drop(self, record: CallRecord, why: str) -> None:
        """Forget a call whose answer is not to be recorded, so that the next identical call takes its place."""
        with self._lock:
            self._asked[record.key] -= 1
            self._unanswered.discard(record)
            record.tape = None
            self.unstored.append(why)

    def keeps(self, *, lasting: bool) -> bool:
        """Whether an error of the provider is recorded."""
        return lasting or self.settings.record_errors is RecordErrors.ALL

    def refuse(self, name: str) -> None:
        """Let a call of an entry point that is not recorded pass, or in a replaying mode raise, remembered."""
        if self.settings.mode in {Mode.REPLAY, Mode.ONCE}:
            miss = UnsupportedCall(errors.unsupported_call(name))
            self.faults.append(miss)
            raise miss
        if not self.watched:
            self.unstored.append(f"{name}() is not recorded yet")
        self._calls.append(CallRecord(self.number(), name, "", 0, "provider"))

    # The end of a test.

    def unused(self) -> int:
        """How many recordings of the cassette no call asked for; only for a cassette of one test."""
        if not self.owned or self.settings.mode in {Mode.LIVE, Mode.REWRITE}:
            return 0
        if self._cassette is None and (self.path is None or not self.path.exists()):
            return 0
        asked = {(record.key, record.nth) for record in self._calls}
        return len(self.cassette.entries) - sum(
            (key, nth) in asked
            for key in {entry.key for entry in self.cassette.entries}
            for nth in range(len(self.cassette.answers(key)))
        )

    def close(self, *, passed: bool) -> bool:
        """End the streams that are still open and, when the test passed, write the cassette.

        Says whether the file changed. Raises CassetteError where it cannot be written.
        """
        for record in self._calls:
            if record.tape is not None:
                record.tape.left()
        for record in list(self._unanswered):
            self.unstored.append(f"{record.name}() had no answer yet when the test ended")
        rewrite = self.settings.mode is Mode.REWRITE
        if not passed or self.settings.mode is Mode.LIVE or not (rewrite or self.recorded):
            return False
        comment = [f"pytest-lmcache cassette of {self.label}"] if self.label else ["pytest-lmcache cassette"]
        if self.owned and self.command:
            comment.append(f"record again: {self._again}")
        # What a rewrite asked in vain keeps the answer that it had.
        owned = self.owned and not self.unstored
        return self.cassette.save(
            self._asked_for(), owned=owned, rewrite=rewrite, comment=self.redact(comment)
        )

    def _asked_for(self) -> list[Asked]:
        fresh: Counter[str] = Counter()
        asked = []
        for record in self.calls:
            if record.is_new:
                # Counted anew: of two calls at once, the one that started first may have been keyed last.
                kept = 0 if self.settings.mode is Mode.REWRITE else len(self.cassette.answers(record.key))
                asked.append(Asked(record.key, kept + fresh[record.key], record.entry))
                fresh[record.key] += 1
            elif record.entry is not None:
                asked.append(Asked(record.key, record.nth, None))
        return asked

    @property
    def _again(self) -> str:
        return self.command.replace("--lm-record", "--lm-rewrite").replace('"record"', '"rewrite"')

    def _find(self, key: str, nth: int) -> tuple[int, Entry] | None:
        if self.settings.mode is Mode.REWRITE:
            return None
        answers = self.cassette.answers(key)
        if nth < len(answers):
            return nth, answers[nth]
        asks = decide(self.settings.mode, exists=self.cassette.exists, found=False) is Decision.ASK
        if not answers or asks or self.settings.repeat is Repeat.ERROR:
            return None
        nth = len(answers) - 1 if self.settings.repeat is Repeat.LAST else nth % len(answers)
        return nth, answers[nth]

    def _clean(self, answer: Answer) -> Answer:
        clean = self.redact.stream if answer.kind is Kind.STREAM else self.redact
        data, error, hidden = clean(answer.data), self.redact(answer.error), self.redact(answer.hidden)
        return replace(answer, data=data, error=error, hidden=hidden)

    def _miss(self, call: Call, *, used_up: bool) -> NoReturn:
        miss = CassetteMiss(self._explained(call, used_up=used_up))
        self.faults.append(miss)
        raise miss

    def past_end(self, record: CallRecord) -> NoReturn:
        """A stream is read further than it was when its caller left it: a miss."""
        chunks = len(record.answer.data) if record.answer is not None else 0
        miss = CassetteMiss(
            errors.miss(
                asked=[errors.left_early(record.name, chunks)],
                looked=[f"Looked in  {self.shown_path}"],
                nearest=[],
                command=self._again,
            )
        )
        self.faults.append(miss)
        raise miss

    def _explained(self, call: Call, *, used_up: bool) -> str:
        asked = [f"No recording answers this call of {call.name}(): {_described(call)}"]
        cassette = self.cassette
        if not cassette.exists:
            looked = [f"Looked in  {self.shown_path}: there is no such file yet."]
            return self._told(asked, looked, [])
        size = len(cassette.entries)
        looked = [
            f"Looked in  {self.shown_path}: {size} recording{'s' if size != 1 else ''}, none with this key."
        ]
        if used_up:
            why = "its recordings of this call are used up, and repeat = error allows each once."
            return self._told(asked, [f"Looked in  {self.shown_path}: {why}"], [])
        if len(self.faults) >= EXPLAINED:
            return self._told(asked, looked, [])
        closest = nearest(call, self._readable())
        looked += self._unreadable
        return self._told(asked, looked, explain(closest) if closest is not None else [])

    def _told(self, asked: Sequence[str], looked: list[str], near: Sequence[str]) -> str:
        mode = self.settings.mode
        looked.append(f"Mode       {mode}: {MODE_SAYS[mode]}; key {self.strategy.name}")
        return errors.miss(asked=asked, looked=looked, nearest=near, command=self.command)

    def _readable(self) -> Iterable[Call]:
        """What the recordings were asked; of those that cannot be read, what is wrong is kept for the message."""
        with self._lock:
            if self._recorded_calls is None:
                self._recorded_calls = []
                for entry in self.cassette.entries:
                    try:
                        self._recorded_calls.append(entry.call())
                    except CassetteError as fault:
                        self._unreadable.append(str(fault))
            return self._recorded_calls


MODE_SAYS = {
    Mode.REPLAY: "nothing is recorded unasked",
    Mode.ONCE: "records only where there is no cassette yet",
    Mode.RECORD: "records what is missing",
    Mode.REWRITE: "records everything again",
    Mode.LIVE: "everything goes to the provider",
}


def _described(call: Call) -> str:
    request = call.request
    text = [f"model {request.get('model', '?')}"]
    if request.get("stream"):
        text.append("streamed")
    for name in ("messages", "input", "prompt"):
        value = request.get(name)
        if isinstance(value, list):
            text.append(f"{len(value)} {name if len(value) != 1 else name.rstrip('s')}")
        if value:
            last = value[-1] if isinstance(value, list) else value
            content = last.get("content") if isinstance(last, dict) else last
            text.append(errors.shorten(content if isinstance(content, str) else str(content), 60))
    return ", ".join(text)
