"""What happens to each call of a test: replay, ask or miss; and what is recorded of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict, Unpack

from pytest_lmcache.answering_models import moved
from pytest_lmcache.call_record import CallLog, CallRecord, Failure
from pytest_lmcache.cassette.file import Cassette, NoCassette
from pytest_lmcache.cassette.merge import Changes
from pytest_lmcache.clock import RealTime, seconds_since, utc_now
from pytest_lmcache.commands import Commands
from pytest_lmcache.errors import BudgetExceeded, CassetteMiss, UnsupportedCall
from pytest_lmcache.interaction import Answer, Call, Interaction, Kind, copied
from pytest_lmcache.layers.answer_store import AnswerStore, Store
from pytest_lmcache.miss import Elsewhere, Misses
from pytest_lmcache.not_recorded import NotRecorded, Reason
from pytest_lmcache.recordings import Recordings, answer_of
from pytest_lmcache.saving import calls_to_save, is_partial, record_failures
from pytest_lmcache.settings import Mode, OnExpired, Repeat, Settings
from pytest_lmcache.spending import Spending

if TYPE_CHECKING:
    from pytest_lmcache.keys.strategies import KeyStrategy
    from pytest_lmcache.redact import Redactor
    from pytest_lmcache.verify import Verification


class Subject(TypedDict, total=False):
    """The test or block whose calls a recorder replays.

    - ``label`` names it in messages; ``asker``, in the cache layers, if it is not the same
    - ``commands`` record it
    - ``identity`` names its cassette on every machine
    - ``is_shared``: other tests use the cassette too
    - ``created_this_run``: the file did not exist when the run began
    - ``where`` returns lines for a miss about a cassette that does not exist
    - ``elsewhere`` looks for a key in the cassettes of tests that no longer exist
    """

    label: str
    asker: str
    commands: Commands
    identity: str
    is_shared: bool
    created_this_run: bool
    where: Callable[[], Sequence[str]]
    elsewhere: Callable[[str], Elsewhere | None]


class Recorder(CallLog):
    """Replays, asks or misses each call of one test, or of one ``use_cassette``, and writes its cassette.

    ``path`` None: there is no cassette, and the cache answers. ``open_cassette``, ``open_strategy`` and
    ``open_cache`` are called when the first call needs them. ``on_miss`` is called with each miss before it is
    raised. ``configuration`` is the name of the file that has the settings of all tests, ``spending`` counts what
    calls cost, ``verification`` compares recorded answers with new ones.
    """

    def __init__(
        self,
        settings: Settings,
        open_cassette: Callable[[], Cassette | NoCassette],
        path: Path | None,
        open_strategy: Callable[[], KeyStrategy],
        redact: Redactor,
        *,
        open_cache: Callable[[], Store],
        on_miss: Callable[[CassetteMiss], None],
        configuration: str,
        spending: Spending,
        verification: Verification | None = None,
        **subject: Unpack[Subject],
    ) -> None:
        super().__init__()
        has_cassette = path is not None
        self.settings = settings
        self.mode = settings.mode or (Mode.REPLAY if has_cassette else Mode.RECORD)
        self.path = path
        self.redact = redact
        self.label = subject.get("label", "")
        self.commands = subject.get("commands", Commands())
        self.is_shared = subject.get("is_shared", False)
        self.created_this_run = subject.get("created_this_run", False)
        self.shown_path = "no cassette" if path is None else _shown(path)
        self.inner_faults: list[BaseException] = []  # those of a `use_cassette` within this one
        self.caches_in_the_way: set[str] = set()
        self.bypassed_caches: list[Any] = []  # libraries' own, which would hide calls
        self.moved_models: Sequence[str] = ()  # those that answered under other names than recorded
        self.frozen_at = ""  # when the test runs, if its clock is stopped
        self.at_end = ExitStack()  # what is undone when the test or block ends
        self.is_cut_short = False  # whether the test may not have come to all of its calls
        # Whether recordings stay that no call asks for, except in mode rewrite.
        self.keeps_unused = self.mode is Mode.ONCE
        self.changes: Changes | None = None  # of the file, when it has been written
        self.has_dropped_unused = False
        self.store = AnswerStore(
            open_cache,
            settings,
            identity=(subject.get("identity") or str(path)) if has_cassette else None,
            asker=subject.get("asker", self.label),
            faults=self.faults,
        )
        # Whether a provider or the cache may answer a call, so that its address matters.
        self.may_ask = self.mode is not Mode.LIVE and not (
            has_cassette and self.mode in {Mode.REPLAY, Mode.VERIFY}
        )
        # Whether a call whose recording is older than `max_age` is asked again.
        by_setting = self.mode is Mode.ONCE and settings.on_expired is OnExpired.RECORD
        self._renews = settings.max_age is not None and (by_setting or self.mode is Mode.RECORD)
        self._misses = Misses(
            settings,
            self.mode,
            commands=self.commands,
            shown_path=self.shown_path,
            hints=subject.get("where", tuple),
            configuration=configuration,
            find_elsewhere=subject.get("elsewhere", lambda _: None),
        )
        self._turns = settings.samples if settings.in_turn else None
        self.verification = verification
        self._on_miss = on_miss
        self._spending = spending
        self._open_cassette = NoCassette if self.mode is Mode.LIVE else open_cassette
        self._open_strategy = open_strategy
        self._cassette: Cassette | NoCassette | None = None

    def __repr__(self) -> str:
        calls = len(self.calls)
        return (
            f"<lm_cache: {calls} call{'' if calls == 1 else 's'}, {self.replayed} replayed, "
            f"{self.recorded} recorded; mode {self.mode}, {self.shown_path}>"
        )

    @property
    def is_offline(self) -> bool:
        """Whether no provider is asked, so that calls need no API key."""
        if self.mode is Mode.ONCE:
            is_there = self.path is not None and not self.created_this_run and self.path.exists()
            return is_there and not self._renews
        return self.mode is Mode.REPLAY

    # What the first call opens.

    def open_cassette(self) -> Cassette | NoCassette:
        """Return the cassette, which the first call reads. Raises CassetteError if it is broken."""
        with self._lock:
            if self._cassette is None:
                self._cassette = self._open_cassette()
            return self._cassette

    @cached_property
    def strategy(self) -> KeyStrategy:
        """What makes two calls the same."""
        return self._open_strategy()

    @cached_property
    def _asks(self) -> bool:
        """Whether a call that is not found in the cassette goes to the cache or the provider; if not, it misses."""
        if self.mode is Mode.ONCE:
            return self.created_this_run or not self.open_cassette().exists
        return not self.mode.replays

    @cached_property
    def _recordings(self) -> Recordings:
        cassette = self.open_cassette()
        return Recordings(
            NoCassette() if self.mode is Mode.REWRITE else cassette,
            self.strategy,
            self.redact,
            repeat=Repeat.ERROR if self._asks else Repeat.CYCLE if self._turns else self.settings.repeat,
            max_age=self.settings.max_age if self._renews else None,
        )

    # The way of a call.

    def begin(
        self, order: int, call: Call, *, fast_path: bool = False, address: str = ""
    ) -> tuple[CallRecord, Answer | None]:
        """Return the record of a call, and its answer; None if the provider is to be asked.

        ``order`` is its `number`. With ``fast_path`` only a recorded response or stream is given; any other call
        is left as if it had not begun. ``address`` is the provider's, if ``may_ask``. Raises CassetteMiss if
        nothing answers the call, and CassetteError if the cassette is broken.
        """
        if self.mode is Mode.LIVE:
            record = CallRecord(order, call.name, "", self._numbers.take(""), live_request=call.request)
            self._calls.append(record)
            if self.verification is not None:
                self.verification.look_up(record, call)
            return record, self._unrecorded(record, call)
        text = self.strategy.text(call)
        with self._lock:
            key, equivalence = self._recordings.key(call, text, fast_path=fast_path)
            nth = self._numbers.take(key)
            if self._turns and not call.is_value:
                nth %= self._turns
            found = self._recordings.find(key, nth, ages=not call.is_value)
            record = CallRecord(order, call.name, key, nth, streamed=bool(call.request.get("stream")))
            if fast_path and (found is None or not found[1].is_answered):
                self._numbers.give_back(key, nth)
                return record, None
            if self.may_ask:
                is_custom = self.settings.key is None and not self.strategy.is_builtin
                self.store.assign_key(record, address, text if is_custom else None)
            self._calls.append(record)
        if found is None:
            again = self.earlier_answer(record, call) if self._turns else None
            return record, self._unrecorded(record, call) if again is None else again
        if self.settings.max_age is not None and not call.is_value:
            record.is_old = seconds_since(found[1].recorded()) > self.settings.max_age
            if record.is_old and self.settings.on_expired is OnExpired.FAIL and self.mode.replays:
                self._raise(self._misses.expired(call, self.strategy, found[1].recorded()))
        # First the source: if reading is interrupted, the recording must not count as a new answer.
        record.source, (record.nth, entry) = "cassette", found
        record.entry = entry
        answer = answer_of(entry, call, equivalence)
        record.seconds = answer.seconds
        record.copy_usage(answer)
        if self.verification is not None and not call.is_value:
            self.verification.begin(record, call, answer)
        return record, answer

    def _unrecorded(self, record: CallRecord, call: Call) -> Answer | None:
        """Return the cache's answer if there is no cassette, None if the provider is to be asked."""
        recorded = self.open_cassette().answers(record.key)
        renews = self._renews and record.nth < len(recorded)
        if self.path is None and self.may_ask and (answer := self.find_in_cache(record, call)) is not None:
            return answer
        if not (self._asks or renews):
            used = {(each.key, each.nth) for each in self._calls if each.source == "cassette"}
            cassette = self.open_cassette()
            self._raise(self._misses.not_recorded(call, record.key, cassette, self.strategy, used))
        record.replaces = renews
        record.source, record.started = "provider", RealTime.seconds()
        self._unanswered[record] = call
        return None

    def find_in_cache(self, record: CallRecord, call: Call) -> Answer | None:
        """Return the cache's answer to a call that is to be asked, recorded; None if there is none."""
        if self.mode is Mode.REWRITE:
            return None
        found = self.store.find(record)
        if found is None:
            return None
        # A test or a machine that knows of fewer secrets may have stored it.
        answer = redacted(found.answer, self.redact)
        self._unanswered.pop(record, None)
        record.source, record.seconds = found.layer, answer.seconds
        record.asked_by, record.asked_at = self.redact(found.asked_by), found.recorded
        record.copy_usage(answer)
        self._record(record, call, answer, found.recorded)
        if record.interaction is None:
            return answer
        data, error, hidden = map(copied, (answer.data, answer.error, answer.hidden))
        return answer._replace(data=data, error=error, hidden=hidden)

    def claim(
        self, record: CallRecord, call: Call, *, waited: bool, can_wait: bool
    ) -> tuple[bool, Answer | None]:
        """Claim a call that is to be asked, so that this machine's other processes wait until it has ended.

        Returns whether it is claimed, False while another process asks the same, and the answer if the layers have
        it by now. ``waited`` says that this is not the first attempt, ``can_wait`` that the caller can make another
        one. Raises BudgetExceeded if the provider would have to be asked, and the budget is spent.
        """
        answer = None
        if self.mode in {Mode.RECORD, Mode.ONCE}:
            single_flight = getattr(self.store.cache, "single_flight", None)
            if single_flight is not None:
                record.may_be_asked_twice = record.streamed or not can_wait
                if not record.may_be_asked_twice:
                    lock = single_flight.claim(record.cache_key())
                    if lock is None:
                        return False, None
                    record.lock = lock
            answer = self.find_in_cache(record, call) if waited or self.path is not None else None
        if answer is None:
            try:
                self._spending.start(record, call)
            except BudgetExceeded as refusal:
                self._unanswered.pop(record, None)
                record.source = ""
                record.lock.release()
                self._raise(refusal)
        else:
            record.lock.release()
        record.started = RealTime.seconds()
        return True, answer

    def finish(self, record: CallRecord, call: Call, answer: Answer) -> None:
        """Record the provider's answer to a call that ``begin`` did not answer, and put it into the cache at once."""
        self._unanswered.pop(record, None)
        record.seconds = RealTime.seconds() - record.started
        record.open_stream, record.left_early = None, not (answer.complete or answer.ended)
        record.copy_usage(answer)
        self._spending.end(record, answer)
        try:
            answer, now = redacted(answer, self.redact)._replace(seconds=record.seconds), utc_now()
            self._record(record, call, answer, now)
            if self.mode is not Mode.LIVE:
                self.store.put(record, answer, now)
            elif self.verification is not None:
                self.verification.answered(record, record.model, answer)
        finally:
            record.lock.release()

    def _record(self, record: CallRecord, call: Call, answer: Answer, recorded: str) -> None:
        interaction = Interaction(record.key, call, answer, recorded)
        record.entry = self.open_cassette().entry_of(interaction)
        if record.entry is None:
            record.interaction = interaction

    def discard(self, record: CallRecord, call: Call, answer: Answer, why: NotRecorded) -> None:
        """Give the place of a call that failed to the next identical call.

        The error is recorded at the end of the test, unless an identical call that was made later got an answer.
        """
        self._unanswered.pop(record, None)
        record.open_stream = None
        try:
            record.failure = self._failure(record, call, answer, why)
            if self.verification is not None:
                self.verification.answered(record, record.model, answer, why.what)
        finally:
            with self._lock:
                self._numbers.give_back(record.key, record.nth)
                if self.may_ask:
                    self.store.release_key(record)
            record.lock.release()

    def _failure(self, record: CallRecord, call: Call, answer: Answer, why: NotRecorded) -> Failure:
        self._spending.end(record, answer)
        seconds = RealTime.seconds() - record.started
        answer = redacted(answer, self.redact)._replace(seconds=seconds)
        entry = self.open_cassette().entry_of(Interaction(record.key, call, answer, utc_now()))
        return Failure(why, entry, self.number(), replays=answer.ended is None)

    def refuse(self, name: str, reason: str = "") -> None:
        """Let the call of an entry point that is not recorded pass; ``reason`` says why it is not.

        Raises UnsupportedCall in a replaying mode, and BudgetExceeded if the budget is spent.
        """
        if self.mode.replays:
            called = name if name.startswith("dspy.") else f"litellm.{name}"
            miss = UnsupportedCall(
                f"pytest-lmcache cannot record {called}() yet, and mode {self.mode} refuses calls that it cannot "
                f"replay{reason and f': {reason}'}.\n"
                "Call it live with `pytest --lm-mode=live` or `@pytest.mark.lm_cache(mode='live')`, or replace it "
                "in the test."
            )
            self._raise(miss)
        try:
            self._spending.let_pass(name)
        except BudgetExceeded as refusal:
            self._raise(refusal)
        record = CallRecord(self.number(), name, "", 0, "provider")
        why = NotRecorded(Reason.UNSUPPORTED, f"{name}()")
        record.failure = Failure(why, None, record.order, replays=False)
        self._calls.append(record)

    def cut_off(self, record: CallRecord, answer: Answer, *, waited: float = 0.0) -> NoReturn:
        """Raise the miss of a call that goes on where its recording was cut off.

        ``waited`` is for how many seconds it has waited to be cancelled.
        """
        self._raise(self._misses.cut_off(record.name, answer, waited))

    def _raise(self, miss: CassetteMiss) -> NoReturn:
        self.faults.append(miss)
        self._on_miss(miss)
        raise miss

    # The end of a test.

    def unused(self) -> int:
        """Return how many recordings no call asked for; 0 if others may ask for them."""
        if self.is_shared or self.is_cut_short or self.mode is Mode.REWRITE or self.path is None:
            return 0
        if self.settings.keep_unused or self.has_dropped_unused:
            return 0
        if self._cassette is None and not self.path.exists():
            return 0
        used = {(call.key, call.nth) for call in self._calls}
        recorded = Counter(entry.key for entry in self.open_cassette().entries)
        return sum((key, nth) not in used for key, size in recorded.items() for nth in range(size))

    def close(self, *, passed: bool) -> bool:
        """End the streams that are still open and, if the test passed, write the cassette.

        Recordings that a whole test no longer asks for go. Returns whether the file changed. Raises CassetteError
        if it cannot be written.
        """
        self.at_end.close()
        for record in self._calls:
            if record.open_stream is not None:
                record.open_stream.left()
        if self.staged is not None:
            self.staged.close()
        for record, call in list(self._unanswered.items()):
            answer = Answer(Kind.UNANSWERED, None, ended="the test, still unanswered")
            what = f"{record.name}() had no answer yet when the test ended"
            record.lock.release()
            record.failure = self._failure(record, call, answer, NotRecorded(Reason.NO_ANSWER, what))
        rewrite = self.mode is Mode.REWRITE
        if passed and any(record.failure and record.failure.entry for record in self._calls):
            record_failures(self._calls, self.open_cassette())
        if self.verification is not None:
            self.verification.compare()
        if not passed or self.mode in {Mode.REPLAY, Mode.VERIFY} or not (rewrite or self.has_new):
            return False
        self.moved_models = moved(self.calls, self.open_cassette().entries)
        comment = [f"pytest-lmcache cassette of {self.label}"] if self.label else ["pytest-lmcache cassette"]
        if self.commands.rewrite and not self.is_shared:
            comment.append(f"record again: {self.commands.rewrite}")
        cassette = self.open_cassette()
        keep = self.is_shared or self.settings.keep_unused or (self.keeps_unused and not rewrite)
        keep = keep or self.is_cut_short or is_partial(self.everything, rewrite=rewrite)
        self.changes = cassette.save(
            calls_to_save(self.everything, cassette, rewrite=rewrite),
            keep_unused=keep,
            rewrite=rewrite,
            comment=self.redact(comment),
            frozen_at=self.frozen_at,
        )
        self.has_dropped_unused = self.changes is not None and not keep
        return self.changes is not None


def redacted(answer: Answer, redact: Redactor) -> Answer:
    """Return an answer without secrets."""
    clean = redact.stream if answer.kind is Kind.STREAM else redact
    return answer._replace(data=clean(answer.data), error=redact(answer.error), hidden=redact(answer.hidden))


def _shown(path: Path) -> str:
    """Return a path relative to the current folder, if it can be."""
    try:
        return os.path.relpath(path)
    except (ValueError, OSError):  # on another drive, or the current folder is gone
        return str(path)
