"""One intercepted call: replays the recorded answer, or asks the provider and records what it answers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, ClassVar, NoReturn, Protocol, final

from pytest_lmcache import errors
from pytest_lmcache.call_record import CallRecord
from pytest_lmcache.errors import (
    CacheError,
    CassetteError,
    CassetteMiss,
    UnkeyableCallError,
    UnrecordableError,
)
from pytest_lmcache.frozen_time import real_time
from pytest_lmcache.interaction import CANCELLED, Answer, Call, Kind
from pytest_lmcache.libraries.asking_again import NewAnswer, aask_again, ask_again
from pytest_lmcache.libraries.bypassed_caches import call_seen
from pytest_lmcache.libraries.stream_recording import (
    StreamCodec,
    StreamRecording,
    is_cancelled,
    record_stream,
)
from pytest_lmcache.not_recorded import NotRecorded, Reason, reason_of
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.settings import Mode, Usage
from pytest_lmcache.staged_answers import AnswerBuilder

POLL_INTERVAL = 0.02  # seconds between two attempts to claim a call, or two looks for a cancellation
MOST_ATTEMPTS = 3000  # in a minute
CANCEL_GRACE = 1.0  # seconds, at least, that another task has to end a reader which stopped by itself
LONGEST_WAIT = 30.0  # seconds that a call waits to be cancelled if it was cancelled when it was recorded


class LibraryCall(Protocol):
    """One call of a library's function: what it asks, and the library's objects <-> plain data."""

    library: ClassVar[str]
    """The library's name in messages."""
    name: str
    """The name under which the call is recorded, such as ``completion``."""
    model: str
    """The model that is asked, as the caller named it."""

    @property
    def asked_with(self) -> tuple[Any, ...]:
        """What the function that asks the provider takes."""

    def again(self, model: str) -> LibraryCall:
        """The same question to a model, about which nobody hears but us."""

    def to_model(self, model: str) -> LibraryCall:
        """The same call, but of another model."""

    def request(self, recorder: Recorder) -> dict[str, Any]:
        """The normalized request, not redacted; the recorder's redactor learns the secrets of the call."""

    def address(self) -> str:
        """Where the call goes: a URL without credentials, or the provider's name if it goes to the usual URL."""

    def stream_codec(self, result: Any, keep_headers: Sequence[str]) -> StreamCodec | None:
        """What records a result that is a stream; None for a whole answer.

        ``keep_headers`` names the response headers that are recorded, here and below.
        """

    def to_answer(self, result: Any, keep_headers: Sequence[str]) -> Answer:
        """Convert the whole answer that the library gave."""

    def prepare_replay(self, answer: Answer, recorded: RecordedCall) -> None:
        """Report a recorded answer to the library's own logging, before the answer is given or raised."""

    def from_answer(self, answer: Answer, recorded: RecordedCall) -> Any:
        """Build what the library gives for a recorded response, or an iterator for a recorded stream."""

    def without_usage(self, answer: Answer) -> Answer:
        """The same answer with zero tokens and a price of 0 USD."""

    def error_to_plain(
        self, error: Exception, keep_headers: Sequence[str]
    ) -> tuple[dict[str, Any] | None, bool]:
        """Convert an error, None if it is not the library's; and whether asking again would give the same error."""

    def error_from_plain(self, data: dict[str, Any]) -> Exception:
        """Build the exception of a recorded error."""

    def saved_by_prompt_cache(self, cached: tuple[int, int]) -> float:
        """What the provider's own prompt cache saved, in USD, for the tokens that it read and wrote."""

    def builder(self, call: Call) -> AnswerBuilder | None:
        """What makes the faults and the replies of the test; None if these are not for such a call."""


@final
class RecordedCall:
    """One call that a recorder decides on.

    ``stored`` is the recorded answer, None if the provider is to be asked. ``fast_path`` is `Recorder.begin`'s.
    Raises CassetteMiss, and CassetteError if the cassette is broken.
    """

    __slots__ = ("call", "library", "record", "recorder", "stored")

    def __init__(self, recorder: Recorder, library: LibraryCall, *, fast_path: bool = False) -> None:
        __tracebackhide__ = True
        order = recorder.number()
        call_seen()
        self.recorder = recorder
        self.library = library
        self.record: CallRecord
        self.stored: Answer | None
        with self._remembering_faults():
            self.call = Call(library.name, _request(recorder, library))
            address = library.address() if recorder.may_ask else ""
            begin = recorder.begin
            if recorder.staged is not None and (builder := library.builder(self.call)) is not None:
                begin = partial(recorder.staged.begin, builder=builder)
            self.record, self.stored = begin(order, self.call, fast_path=fast_path, address=address)
            self.record.model = library.model or library.name
            self._add_savings()

    # ---- ask or replay

    def run(self, ask: Callable[..., Any]) -> Any:
        """Replay the recorded answer, or record the one that ``ask`` gets from the provider.

        ``ask`` takes the arguments of the library's call.
        """
        __tracebackhide__ = True
        if self.record.delay is not None:
            with self._recording_errors() if self.stored is None else nullcontext():
                self.record.delay.pass_time()
        for _ in self._wait_for_other_process(blocks=True):
            time.sleep(POLL_INTERVAL)
        if self.stored is not None:
            if self.record.is_asked_again:
                with real_time():
                    new = ask_again(self._question_again(), ask)
                self._note_new(new)
            return self.replay(self.stored)
        self._replace_model()
        with self._recording_errors(), real_time():
            result = ask(*self.library.asked_with)
        if self.record.cut is None:
            return self._record(result)
        for _ in self._record(result):
            pass
        return self._cut()

    async def arun(self, ask: Callable[..., Awaitable[Any]]) -> Any:
        """Do the same as `run` in an event loop. A call that was cancelled is replayed by waiting for it."""
        __tracebackhide__ = True
        if self.record.delay is not None:
            with self._recording_errors() if self.stored is None else nullcontext():
                await self.record.delay.apass_time()
        if self.stored is None:
            self._replace_model()
            with self._recording_errors(), real_time():
                for _ in self._wait_for_other_process(blocks=False):
                    await asyncio.sleep(POLL_INTERVAL)
                result = await ask(*self.library.asked_with) if self.stored is None else None
        if self.stored is None:
            if self.record.cut is None:
                return self._record(result)
            async for _ in self._record(result):
                pass
            return self._cut()
        if self.record.is_asked_again:
            # Not in a task of its own: that might outlive the test's event loop, and ask more at once than the test.
            with real_time():
                new = await aask_again(self._question_again(), ask)
            self._note_new(new)
        if self.stored.kind is Kind.UNANSWERED:
            await self.wait_to_be_cancelled(self.stored)
        return self.replay(self.stored)

    def _cut(self) -> Any:
        """Give the part of the provider's stream, recorded by now, that the test wants its caller to see."""
        staged, builder = self.recorder.staged, self.library.builder(self.call)
        stored = None
        if staged is not None and builder is not None:
            stored = staged.cut_recorded(self.record, self.call, builder)
        if stored is None:
            raise TypeError("the provider gave no stream")
        return self.replay(stored)

    # ---- mode verify, other models

    def _question_again(self) -> LibraryCall:
        return self.library.again(self.recorder.settings.asked_model(self.library.model))

    def _note_new(self, new: NewAnswer) -> None:
        """Have the new answer of a replayed call compared with the recorded one when the test has ended."""
        with self._remembering_faults():
            asked = self.recorder.settings.asked_model(self.library.model)
            if self.recorder.verification is not None:
                self.recorder.verification.answered(self.record, asked, *new)

    def _replace_model(self) -> None:
        """In mode live, have the call ask the model that stands in for its own."""
        if self.recorder.mode is Mode.LIVE:
            model = self.recorder.settings.asked_model(self.library.model)
            if model != self.library.model:
                self.library = self.library.to_model(model)
                self.record.model = model

    def replay(self, stored: Answer) -> Any:
        """Give a recorded answer as the library would have given it; raise a recorded error."""
        __tracebackhide__ = True
        if self.recorder.settings.usage is Usage.EMPTY and stored.kind in {Kind.RESPONSE, Kind.STREAM}:
            stored = self.build(self.library.without_usage, stored)
        self.library.prepare_replay(stored, self)
        if stored.kind is Kind.UNANSWERED:
            self.cut_off(stored)
        if stored.kind is Kind.ERROR:
            raise self.build(self.library.error_from_plain, stored.data)
        return self.build(self.library.from_answer, stored, self)

    def _wait_for_other_process(self, *, blocks: bool) -> Iterator[None]:
        """Claim the call; while another process of this machine asks the same, yield for the caller to sleep.

        ``stored`` is the other's answer then. ``blocks`` says that the caller's sleep stops its thread: if an event
        loop runs there, we do not wait, since the other may be a task of that loop.
        """
        if self.stored is not None:
            return
        can_wait = not (blocks and _has_loop())
        for attempt in range(MOST_ATTEMPTS):
            with self._remembering_faults():
                is_claimed, self.stored = self.recorder.claim(
                    self.record, self.call, waited=attempt > 0, can_wait=can_wait
                )
            if is_claimed:
                break
            yield
        else:
            self.record.may_be_asked_twice = True
        if self.stored is not None:
            self._add_savings()

    # ---- record

    def _record(self, result: Any) -> Any:
        """Record an answer of the provider, a stream while it is read; give what the caller gets."""
        with self._remembering_faults():
            keep_headers = self.recorder.settings.keep_headers
            codec = self.library.stream_codec(result, keep_headers)
            if codec is not None:
                recording = StreamRecording(codec, self.finish, self.failed)
                self.record.open_stream = recording
                return record_stream(result, recording)
            self.finish(self._to_answer(result, keep_headers))
            return result

    def _to_answer(self, result: Any, keep_headers: Sequence[str]) -> Answer:
        """Convert a whole answer. Raises UnrecordableError; a live call, which is not recorded, needs no plain form."""
        try:
            return self.library.to_answer(result, keep_headers)
        except UnrecordableError as problem:
            if self.recorder.mode is Mode.LIVE:
                return Answer(Kind.RESPONSE, {"unreadable": str(problem)})
            name = self.call.name
            why = NotRecorded(Reason.UNSUPPORTED, f"{name}()")
            self.recorder.discard(self.record, self.call, Answer(Kind.UNANSWERED, None, complete=False), why)
            raise UnrecordableError(
                f"pytest-lmcache cannot record this answer of {self.library.library}'s {name}(): {problem}.\n"
                "Call it live with `@pytest.mark.lm_cache(mode='live')`, or replace it in the test."
            ) from None

    def finish(self, answer: Answer) -> None:
        """Record an answer, or a stream that has ended."""
        with self._remembering_faults():
            self.recorder.finish(self.record, self.call, answer)
            self._add_savings()

    @contextmanager
    def _recording_errors(self) -> Iterator[None]:
        __tracebackhide__ = True
        try:
            yield
        except CassetteMiss:
            raise  # the call was not sent
        except BaseException as error:
            self.failed(error)
            raise

    def failed(self, error: BaseException, stream: Answer | None = None) -> None:
        """Record how a call ended without an answer; ``stream`` is what was read of a stream that broke."""
        with self._remembering_faults():
            stored, lasting = None, False
            if isinstance(error, Exception):
                keep_headers = self.recorder.settings.keep_headers
                stored, lasting = self.library.error_to_plain(error, keep_headers)
            what = f"{self.call.name}() failed with {type(error).__name__}"
            if stream is not None:
                answer, what = stream._replace(error=stored), f"a stream of {what}"
            elif stored is not None:
                answer = Answer(Kind.ERROR, stored)
            else:
                answer = Answer(Kind.UNANSWERED, None, complete=False)
            if stored is None:
                ended = CANCELLED if is_cancelled(error) else type(error).__name__
                answer = answer._replace(complete=False, ended=answer.ended or ended)
            if answer.ended == CANCELLED or (
                stored is not None and self.recorder.settings.record_errors.includes(lasting=lasting)
            ):
                self.recorder.finish(self.record, self.call, answer)
            else:
                why = NotRecorded(reason_of(error, of_provider=stored is not None), what)
                self.recorder.discard(self.record, self.call, answer, why)

    @contextmanager
    def _remembering_faults(self) -> Iterator[None]:
        """Have the test fail with an error of ours, even if the code under test catches it."""
        try:
            yield
        except Exception as fault:
            if fault not in self.recorder.faults:
                self.recorder.faults.append(fault)
            raise

    def _add_savings(self) -> None:
        if any(self.record.cached):
            self.record.cached_usd = self.library.saved_by_prompt_cache(self.record.cached)

    # ---- what goes wrong on replay

    def build(self, function: Callable[..., Any], *stored: Any) -> Any:
        """Call a function that builds a library's object of stored data; what it raises is a broken recording."""
        __tracebackhide__ = True
        try:
            return function(*stored)
        except Warning:
            raise  # the run turns warnings into errors
        except Exception as problem:  # noqa: BLE001 - a library's class may raise anything for edited data
            self.broken(problem)

    def broken(self, problem: Exception) -> NoReturn:
        """Raise CassetteError for a recording that cannot be read, CacheError for such a value of a cache layer."""
        __tracebackhide__ = True
        fault: Exception = problem
        library, entry = self.library.library, self.record.entry
        what = errors.shorten((str(problem).splitlines() or [type(problem).__name__])[0])
        if self.record.asked_at:
            fault = CacheError(
                f"{library} cannot read the answer from {self.record.source}: {what}\n"
                f"Ask the provider again:  {self.recorder.commands.rewrite}"
            )
        elif entry is not None and isinstance(problem, CassetteError):
            fault = CassetteError(f"{entry.place}: {problem}")
        elif entry is not None:
            fault = entry.broken(f"{library} cannot read this answer: {what}")
        self.recorder.faults.append(fault)
        raise fault from None

    async def wait_to_be_cancelled(self, stored: Answer) -> NoReturn:
        """Wait for the cancellation that was recorded; raise a miss if it does not come."""
        self.cut_off(stored, waited=await wait_to_be_cancelled(stored))

    def cut_off(self, stored: Answer, *, waited: float = 0.0) -> NoReturn:
        """Raise a miss: the recording ends here, and the caller goes on."""
        __tracebackhide__ = True
        self.recorder.cut_off(self.record, stored, waited=waited)


def _request(recorder: Recorder, library: LibraryCall) -> dict[str, Any]:
    """The request, redacted. A live call needs no key: its request may hold the reason why it has none."""
    try:
        return recorder.redact.request(library.request(recorder))
    except UnkeyableCallError as problem:
        if recorder.mode is not Mode.LIVE:
            raise
        return {"unreadable": str(problem)}


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# ---------------------------------------------------------------- waiting where a recorded call was cut off


async def wait_to_be_cancelled(answer: Answer) -> float:
    """Wait until the caller is cancelled; gives the seconds waited if nothing cancels it.

    A reader that stopped by itself may have been ended by another task: it waits about as long as the recording took.
    """
    from anyio import CapacityLimiter, to_thread  # the caller's loop may be trio's

    seconds = _seconds_to_wait(answer)
    if not seconds:
        return 0.0
    is_over = threading.Event()
    try:
        # In a thread, since freezegun stops the loop's clock.
        await to_thread.run_sync(is_over.wait, seconds, abandon_on_cancel=True, limiter=CapacityLimiter(1))
    finally:
        is_over.set()
    return seconds


def wait_to_be_cancelled_in_thread(answer: Answer) -> None:
    """Wait in a thread in which an async task runs sync code; raises what the task's cancellation raises there.

    Returns at once in any other thread, where nothing can cancel the caller.
    """
    from anyio import from_thread

    is_over = threading.Event()
    for _ in range(round(_seconds_to_wait(answer) / POLL_INTERVAL)):
        try:
            from_thread.check_cancelled()
        except RuntimeError:
            return
        is_over.wait(POLL_INTERVAL)


def _seconds_to_wait(answer: Answer) -> float:
    if answer.ended not in {None, CANCELLED}:
        return 0.0
    return LONGEST_WAIT if answer.ended else CANCEL_GRACE + min(answer.seconds, LONGEST_WAIT)
