"""What happens to one call of a test: begin, decide, finish; and what the test asked, in order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_lmcache import answer_sources, errors
from pytest_lmcache.call_record import CallNumbers, CallRecord, Failure
from pytest_lmcache.cassette.document import Entry, entry_of
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.cassette.merge import CallToSave
from pytest_lmcache.cassette.old_placeholders import OldRecording, old_recordings
from pytest_lmcache.clock import RealTime, seconds_since, utc_now
from pytest_lmcache.commands import Commands
from pytest_lmcache.errors import (
    CassetteError,
    CassetteMiss,
    UnsupportedCall,
)
from pytest_lmcache.interaction import Answer, Call, Interaction, Kind, copied
from pytest_lmcache.layers.answer_store import AnswerStore, Store
from pytest_lmcache.libraries.dspy import two_engines
from pytest_lmcache.locks import NO_LOCK, Lock
from pytest_lmcache.miss import EXPLAINED, Misses
from pytest_lmcache.not_recorded import NotRecorded, Reason
from pytest_lmcache.settings import Mode, RecordErrors, Repeat, Settings

if TYPE_CHECKING:
    from pytest_lmcache.keys.strategies import KeyStrategy
    from pytest_lmcache.redact import Redactor

NO_COMMANDS = Commands()
WITH_THE_TEST = "the test, still unanswered"


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


class Recorder:
    """The calls of one test, or of one ``use_cassette``: replays, asks or misses each.

    ``path`` None is no cassette: the cache layers alone answer. ``open_cache`` gives what stands behind the
    cassette. ``on_miss`` is told of each miss before it is raised. ``label`` names the test in messages, ``commands`` record it. ``is_shared`` says that
    other tests use the cassette too, ``created_this_run`` that it was not there when the run began. ``watched`` stands for a test that is not marked: its calls pass and are
    counted. ``identity`` names the cassette on every machine; ``asker`` is the test or block that asks.
    """

    def __init__(
        self,
        settings: Settings,
        open_cassette: Callable[[], Cassette],
        path: Path | None,
        open_strategy: Callable[[], KeyStrategy],
        redact: Redactor,
        *,
        open_cache: Callable[[], Store],
        on_miss: Callable[[CassetteMiss], None],
        label: str = "",
        commands: Commands = NO_COMMANDS,
        is_shared: bool = False,
        watched: bool = False,
        created_this_run: bool = False,
        shown_path: str = "",
        identity: str = "",
        asker: str = "",
        where: Callable[[], Sequence[str]] | None = None,
        configuration: str = "pyproject.toml",
    ) -> None:
        self.settings = settings
        self.mode = settings.mode or (Mode.RECORD if path is None else Mode.REPLAY)
        self.path = path
        self.redact = redact
        self.label = label
        self.commands = commands
        self.is_shared = is_shared
        self.watched = watched
        self.created_this_run = created_this_run
        self.shown_path = shown_path or str(path or "no cassette")
        self.identity = identity or str(path)
        self.asker = asker or label
        self._misses = Misses(
            settings,
            self.mode,
            commands=commands,
            shown_path=self.shown_path,
            where=where or tuple,
            configuration=configuration,
        )
        self.faults: list[BaseException] = []
        self.inner_faults: list[BaseException] = []  # those of a `use_cassette` within this one
        self._unsupported: list[NotRecorded] = []
        self.caches_in_the_way: set[str] = set()
        self.bypassed_caches: list[Any] = []  # libraries' own, which would hide calls
        self.is_cut_short = False  # whether the test may not have come to all of its calls
        self._on_miss = on_miss
        self._open_cassette = open_cassette
        self._open_strategy = open_strategy
        self.store = AnswerStore(
            open_cache,
            settings,
            identity=None if path is None else self.identity,
            asker=self.asker,
            faults=self.faults,
        )
        self._cassette: Cassette | None = None
        self._order = count()
        self._lock = threading.RLock()
        self._calls: list[CallRecord] = []
        self._numbers = CallNumbers()
        self._unanswered: dict[CallRecord, Call] = {}
        self._old_recordings: list[OldRecording] | None = None
        self._other_keys: dict[str, dict[str, str]] = {}

    # What a test may look at.

    def __repr__(self) -> str:
        calls = len(self._calls)
        return (
            f"<lm_cache: {calls} call{'' if calls == 1 else 's'}, {self.replayed} replayed, "
            f"{self.recorded} recorded; mode {self.mode}, {self.shown_path}>"
        )

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

    @property
    def not_recorded(self) -> list[NotRecorded]:
        """The calls so far that are not recorded, or not such that replay can repeat them."""
        failures = [(record.failure, record.entry) for record in self.calls if record.failure is not None]
        lost = [
            failure.why if entry is None else failure.why._replace(reason=Reason.NO_ANSWER)
            for failure, entry in failures
            if entry is None or not failure.replays
        ]
        return [*self._unsupported, *lost]

    # The way of a call.

    @property
    def cassette(self) -> Cassette:
        """The cassette, opened by the first call that needs it. Raises CassetteError where it is broken."""
        with self._lock:
            if self._cassette is None:
                self._cassette = self._open_cassette()
            return self._cassette

    @property
    def replays(self) -> bool:
        """Whether the mode is one of those that ask no provider where there is a cassette."""
        return self.mode in {Mode.REPLAY, Mode.ONCE}

    @property
    def is_offline(self) -> bool:
        """Whether no provider is asked, so that a missing key is to hinder nobody."""
        if self.mode is Mode.ONCE:
            return self.path is not None and not self.created_this_run and self.path.exists()
        return self.mode is Mode.REPLAY

    @property
    def may_ask(self) -> bool:
        """Whether the layers or a provider may answer a call, so that its address matters."""
        return self.path is None or self.mode not in {Mode.REPLAY, Mode.LIVE}

    @cached_property
    def strategy(self) -> KeyStrategy:
        """What makes two calls the same, found when the first call needs it."""
        return self._open_strategy()

    def number(self) -> int:
        """The place of a call that starts now."""
        return next(self._order)

    def begin(
        self, order: int, call: Call, *, fast_path: bool = False, address: str = ""
    ) -> tuple[CallRecord, Answer | None]:
        """Decide on a call: its record, and its answer, None where the provider is to be asked.

        ``fast_path``: only where the cassette has a response or a stream of it; any other call is left as if it
        had not begun. ``address`` is the provider's, where ``may_ask`` holds. Raises CassetteMiss, and remembers it, where nothing answers the call; CassetteError
        where the cassette is broken.
        """
        live = self.mode is Mode.LIVE
        text = "" if live else self.strategy.text(call)
        custom_key = "" if live else self._recorded_key(call, text)
        with self._lock:
            key = self._key_in_cassette(call, custom_key, fast_path=fast_path)
            nth = self._numbers.take(key)
            found = None if live else self._find(key, nth)
            decision = decide(self.mode, exists=not live and self._exists, found=found is not None)
            record = CallRecord(order, call.name, key, nth, streamed=bool(call.request.get("stream")))
            if fast_path and (found is None or decision is not Decision.REPLAY or not found[1].is_answered):
                self._numbers.give_back(key, nth)
                return record, None
            if self.may_ask:
                is_custom = self.settings.key is None and not live and not self.strategy.is_builtin
                self.store.assign_key(record, address, text if is_custom else None)
            record.live_request = call.request if live else {}
            self._calls.append(record)
        if decision is Decision.REPLAY and found is not None:
            # Reading may be interrupted: what is the cassette's must not pass for a new answer then.
            record.source, (record.nth, record.entry) = "cassette", found
            answer = self._answer_of(record.entry, call, is_other=key != custom_key)
            record.seconds = answer.seconds
            self._copy_usage(record, answer)
            if self.settings.max_age is not None:
                record.age = seconds_since(record.entry.recorded())
            return record, answer
        if decision is Decision.ASK or (self.path is None and decision is Decision.MISS):
            is_old = self.mode is Mode.RECORD and self.path is not None
            record.replaces = is_old and nth < len(self.cassette.answers(key))
            # If there is a cassette, `claim` looks: once, and one process at a time.
            in_layers = self.find_in_cache(record, call) if self.path is None else None
            if in_layers is not None:
                return record, in_layers
        if decision is Decision.MISS:
            self._miss(call, used_up=self.path is not None and bool(self.cassette.answers(key)))
        record.source, record.started = "provider", RealTime.seconds()
        self._unanswered[record] = call
        return record, None

    def _recorded_key(self, call: Call, text: str) -> str:
        """A call's key, or that of a recording that was made under other rules of redaction."""
        key = self.strategy.key(call, text)
        if self.path is None or self.mode is Mode.REWRITE or self.cassette.answers(key):
            return key
        with self._lock:
            if self._old_recordings is None:
                self._old_recordings = list(old_recordings(self.cassette.entries, self.strategy, self.redact))
        return next((old.key for old in self._old_recordings if old.matches(call, text)), key)

    def find_in_cache(self, record: CallRecord, call: Call) -> Answer | None:
        """What the cache layers have of a call that is to be asked, None where they have nothing of it."""
        if self.mode is Mode.REWRITE:
            return None
        found = self.store.find(record)
        if found is None:
            return None
        # Kept by a test, or a machine, that may know of fewer secrets.
        answer = self._clean(found.answer)
        self._unanswered.pop(record, None)
        record.source, record.seconds = found.layer, answer.seconds
        record.asked_by, record.asked_at = self.redact(found.asked_by), found.recorded
        self._copy_usage(record, answer)
        self._record(record, call, answer, found.recorded)
        if record.interaction is None:
            return answer
        data, error, hidden = map(copied, (answer.data, answer.error, answer.hidden))
        return answer._replace(data=data, error=error, hidden=hidden)

    def claim(
        self, record: CallRecord, call: Call, *, waited: bool, can_wait: bool
    ) -> tuple[Lock | None, Answer | None]:
        """Claim a call that is to be asked, so that this machine's other processes wait for its answer.

        Returns the lock to release once the answer is in the layers, None while another process asks the same, and
        the answer if the layers have it by now. ``waited`` says that this is not the first attempt, ``can_wait``
        that the caller can make another one.
        """
        if self.mode not in {Mode.RECORD, Mode.ONCE}:
            return NO_LOCK, None
        lock: Lock | None = NO_LOCK
        single_flight = getattr(self.store.cache, "single_flight", None)
        if single_flight is not None:
            record.may_be_asked_twice = record.streamed or not can_wait
            if not record.may_be_asked_twice:
                lock = single_flight.claim(record.cache_key())
        looks = lock is not None and (waited or self.path is not None)
        answer = self.find_in_cache(record, call) if looks else None
        record.started = RealTime.seconds()
        return lock, answer

    def finish(self, record: CallRecord, call: Call, answer: Answer) -> None:
        """Take the provider's answer of a call that ``begin`` did not answer: into every layer at once."""
        self._unanswered.pop(record, None)
        record.seconds = RealTime.seconds() - record.started
        record.open_stream, record.left_early = None, not (answer.complete or answer.ended)
        self._copy_usage(record, answer)
        if self.watched:
            return
        answer, now = self._clean(answer)._replace(seconds=record.seconds), utc_now()
        if self.mode is Mode.LIVE:
            record.interaction = Interaction(record.key, call, answer, now)
            return
        self._record(record, call, answer, now)
        self.store.put(record, answer, now)

    def _copy_usage(self, record: CallRecord, answer: Answer) -> None:
        record.tokens, record.cached, record.usd = answer.tokens, answer.cached, answer.usd
        record.is_answered = answer.is_answered

    def _record(self, record: CallRecord, call: Call, answer: Answer, recorded: str) -> None:
        interaction = Interaction(record.key, call, answer, recorded)
        if self.path is None:
            record.interaction = interaction
        else:
            record.entry = entry_of(interaction, self.path)

    @property
    def _exists(self) -> bool:
        return self.path is not None and not self.created_this_run and self.cassette.exists

    def _is_old(self, recorded: str) -> bool:
        return self.settings.max_age is not None and seconds_since(recorded) > self.settings.max_age

    def discard(self, record: CallRecord, call: Call, answer: Answer, why: NotRecorded) -> None:
        """Take an error that may pass: the next identical call takes this one's place.

        At the end of the test it is recorded, unless an identical call that was made later got an answer.
        """
        failure = self._failure(record, call, answer, why)
        with self._lock:
            self._numbers.give_back(record.key, record.nth)
            if self.may_ask:
                self.store.release_key(record)
            self._unanswered.pop(record, None)
            record.open_stream, record.failure = None, failure

    def _failure(self, record: CallRecord, call: Call, answer: Answer, why: NotRecorded) -> Failure:
        entry = None
        if self.path is not None and self.mode is not Mode.LIVE:
            seconds = RealTime.seconds() - record.started
            answer = self._clean(answer)._replace(seconds=seconds)
            entry = entry_of(Interaction(record.key, call, answer, utc_now()), self.path)
        return Failure(why, entry, self.number(), replays=answer.ended is None)

    def should_record_error(self, *, lasting: bool) -> bool:
        """Whether an error of the provider is recorded at once, whatever comes after it."""
        return lasting or self.settings.record_errors is RecordErrors.ALL

    def refuse(self, name: str) -> None:
        """Let a call of an entry point that is not recorded pass, or in a replaying mode raise, remembered."""
        if self.replays:
            self._raise(UnsupportedCall(errors.unsupported_call(name, self.mode)))
        if not self.watched:
            self._unsupported.append(NotRecorded(Reason.UNSUPPORTED, f"{name}()"))
        self._calls.append(CallRecord(self.number(), name, "", 0, "provider"))

    def advice_on_failure(self) -> str:
        """What to say beside the failure of what recorded; empty where no answer was to be recorded."""
        is_recording = self.may_ask and self.mode in {Mode.RECORD, Mode.ONCE} and not self.faults
        return answer_sources.advice(self.calls, self.commands.rewrite) if is_recording else ""

    # The end of a test.

    def unused(self) -> int:
        """How many recordings of the cassette no call asked for; only for a cassette of one test."""
        if self.path is None or self.is_shared or self.mode in {Mode.LIVE, Mode.REWRITE}:
            return 0
        if self.is_cut_short:
            return 0
        if self._cassette is None and not self.path.exists():
            return 0
        asked = {(record.key, record.nth) for record in self._calls}
        return len(self.cassette.entries) - sum(
            (key, nth) in asked
            for key in {entry.key for entry in self.cassette.entries}
            for nth in range(len(self.cassette.answers(key)))
        )

    @property
    def old(self) -> int:
        """How many replayed recordings are older than ``max_age``."""
        oldest = self.settings.max_age
        return 0 if oldest is None else sum(record.age > oldest for record in self._calls)

    def close(self, *, passed: bool) -> bool:
        """End the streams that are still open and, when the test passed, write the cassette.

        Says whether the file changed. Raises CassetteError where it cannot be written.
        """
        for record in self._calls:
            if record.open_stream is not None:
                record.open_stream.left()
        for record, call in list(self._unanswered.items()):
            answer = Answer(Kind.UNANSWERED, None, ended=WITH_THE_TEST)
            what = f"{record.name}() had no answer yet when the test ended"
            record.failure = self._failure(record, call, answer, NotRecorded(Reason.NO_ANSWER, what))
        if passed:
            self._record_failures()
        rewrite = self.mode is Mode.REWRITE
        if self.path is None or not passed or self.mode in {Mode.LIVE, Mode.REPLAY}:
            return False
        if not (rewrite or self.recorded):
            return False
        comment = [f"pytest-lmcache cassette of {self.label}"] if self.label else ["pytest-lmcache cassette"]
        if self.commands.rewrite and not self.is_shared:
            comment.append(f"record again: {self.commands.rewrite}")
        # What a rewrite asked in vain keeps the answer that it had, and so does what it may not have come to.
        is_shared = self.is_shared or bool(self.not_recorded) or self.is_cut_short
        return self.cassette.save(
            self._asked_for(), is_shared=is_shared, rewrite=rewrite, comment=self.redact(comment)
        )

    def _record_failures(self) -> None:
        """Record the errors that belong to a test that passed, those that no later identical call made up for."""
        in_vain = not any(record.is_answered and record.source != "cassette" for record in self._calls)
        for record in self._calls:
            failure = record.failure
            # A provider that is down takes away no answer that was recorded.
            if failure is not None and not (in_vain and self._has_answer(record)):
                is_made_up_for = any(
                    other.is_answered and other.key == record.key and other.order > failure.at
                    for other in self._calls
                )
                record.entry = None if is_made_up_for else failure.entry

    def _has_answer(self, record: CallRecord) -> bool:
        """Whether the cassette has an answer, and no error, in the place of a call."""
        recorded = [] if self.path is None else self.cassette.answers(record.key)
        return record.nth < len(recorded) and recorded[record.nth].is_answered

    def _asked_for(self) -> list[CallToSave]:
        fresh: Counter[str] = Counter()
        asked = []
        for record in self.calls:
            if record.is_new and record.replaces:
                asked.append(CallToSave(record.key, record.nth, record.entry, replaces=True))
            elif record.is_new:
                # Counted anew: of two calls at once, the one that started first may have been keyed last.
                kept = 0 if self.mode is Mode.REWRITE else len(self.cassette.answers(record.key))
                asked.append(CallToSave(record.key, kept + fresh[record.key], record.entry))
                fresh[record.key] += 1
            elif record.entry is not None:
                asked.append(CallToSave(record.key, record.nth, None))
        return asked

    def _find(self, key: str, nth: int) -> tuple[int, Entry] | None:
        if self.path is None or self.mode is Mode.REWRITE:
            return None
        answers = self.cassette.answers(key)
        if nth < len(answers):
            is_renewed = self.mode is Mode.RECORD and self._is_old(answers[nth].recorded())
            return None if is_renewed else (nth, answers[nth])
        asks = decide(self.mode, exists=self._exists, found=False) is Decision.ASK
        if not answers or asks or self.settings.repeat is Repeat.ERROR:
            return None
        nth = len(answers) - 1 if self.settings.repeat is Repeat.LAST else nth % len(answers)
        return nth, answers[nth]

    def _key_in_cassette(self, call: Call, key: str, *, fast_path: bool) -> str:
        """The key under which the cassette has what a call asks, be it recorded by DSPy's other engine."""
        has_no_use = self.path is None or self.mode in {Mode.REWRITE, Mode.LIVE}
        if fast_path or has_no_use or not two_engines.may_be_the_others(call):
            return key
        asked = None if self.cassette.answers(key) else two_engines.as_own(call)
        return key if asked is None else self._by_other_engine(call.name).get(self.strategy.key(asked), key)

    def _by_other_engine(self, name: str) -> dict[str, str]:
        """The keys of the responses that DSPy's other engine recorded, by those of its own."""
        if name not in self._other_keys:
            found = self._other_keys[name] = {}
            line = f"\ncall: {two_engines.OTHER[name]}".encode()
            for entry in self.cassette.entries:
                if entry.data.find(line, entry.start, entry.end) < 0:
                    continue  # unparsed: a cassette may have thousands
                try:
                    call = entry.call()
                    if call.name != two_engines.OTHER[name] or entry.answer().kind is not Kind.RESPONSE:
                        continue
                except CassetteError:
                    continue  # the miss names it
                if (asked := two_engines.as_own(call)) is not None:
                    found[self.strategy.key(asked)] = entry.key
        return self._other_keys[name]

    def _answer_of(self, entry: Entry, call: Call, *, is_other: bool) -> Answer:
        """A recorded answer; ``is_other``: it was recorded by DSPy's other engine."""
        answer = entry.answer()
        if not is_other:
            return answer
        try:
            return two_engines.answer_for(call, answer)
        except Exception as problem:
            raise entry.broken(
                f"DSPy cannot convert this answer: {errors.shorten(str(problem))}"
            ) from problem

    def _clean(self, answer: Answer) -> Answer:
        clean = self.redact.stream if answer.kind is Kind.STREAM else self.redact
        data, error, hidden = clean(answer.data), self.redact(answer.error), self.redact(answer.hidden)
        return answer._replace(data=data, error=error, hidden=hidden)

    def _miss(self, call: Call, *, used_up: bool) -> NoReturn:
        cassette = None if self.path is None else self.cassette
        compares = len(self.faults) < EXPLAINED
        self._raise(self._misses.explained(call, cassette, self.strategy, used_up=used_up, compares=compares))

    def _raise(self, miss: CassetteMiss) -> NoReturn:
        self.faults.append(miss)
        self._on_miss(miss)
        raise miss

    def cut_off(self, record: CallRecord, answer: Answer, *, waited: float = 0.0) -> NoReturn:
        """What was cut off when it was recorded goes on now: a miss. ``waited``: seconds to be cancelled."""
        self._raise(self._misses.cut_off(record.name, answer, waited))
