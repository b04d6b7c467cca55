"""One call between a door and its recorder: what every door does with it, whatever library made it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, NoReturn

from pytest_lmcache import errors
from pytest_lmcache.call_record import CallRecord
from pytest_lmcache.errors import CacheError, CassetteError, UnkeyableCallError
from pytest_lmcache.interaction import CANCELLED, Answer, Call, Kind
from pytest_lmcache.libraries.bypassed_caches import call_seen
from pytest_lmcache.libraries.cancellation import wait_to_be_cancelled
from pytest_lmcache.locks import NO_LOCK, Lock
from pytest_lmcache.not_recorded import NotRecorded, reason_of
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.settings import Mode
from pytest_lmcache.stream_chunks import Chunk

POLL_INTERVAL = 0.02  # seconds between two attempts to claim a call
MOST_ATTEMPTS = 3000  # in a minute

_calling: ContextVar[list[Callable[[], Any]] | None] = ContextVar("pytest_lmcache_calling", default=None)


class RecordedCall:
    """One call; ``stored`` is the recorded answer, None: ask the provider.

    ``ask`` gives the request, before redaction. ``fast_path``: see ``Recorder.begin``. A door's own kind of call says where its library's
    calls go, how errors are stored, and what the provider's prompt cache saved.
    """

    __slots__ = ("call", "lock", "model", "record", "recorder", "stored")
    library = ""
    fast_path: ClassVar[bool] = False

    def __init__(self, recorder: Recorder, name: str, model: str, ask: Callable[[], dict[str, Any]]) -> None:
        __tracebackhide__ = True
        order = recorder.number()
        call_seen()
        self.recorder = recorder
        self.lock: Lock = NO_LOCK
        self.model = model
        self.record: CallRecord
        self.stored: Answer | None
        with self._ours():
            self.call = Call(name, _request(recorder, ask))
            address = self.address() if recorder.may_ask else ""
            self.record, self.stored = recorder.begin(
                order, self.call, fast_path=self.fast_path, address=address
            )
            self.record.model = model
            self._note_caching()

    def address(self) -> str:
        """Where the call goes: a plain URL, or the provider's name where that has its usual address."""
        raise NotImplementedError

    def store_error(self, error: Exception) -> tuple[dict[str, Any] | None, bool]:
        """An error as plain data, None for one that is not the library's, and whether it will come again."""
        raise NotImplementedError

    def saved_by_prompt_cache(self) -> float:
        """What the provider's own prompt cache saved on this call, in USD."""
        raise NotImplementedError

    def wait_for_other_process(self, *, blocks: bool) -> Iterator[None]:
        """Claim the call; while another process of this machine asks the same, yield for the caller to sleep.

        ``stored`` is the other's answer then. ``blocks`` says that the caller's sleep stops its thread: if an event
        loop runs there, we do not wait, since the other may be a task of that loop.
        """
        if self.stored is not None:
            return
        can_wait = not (blocks and _has_loop())
        for attempt in range(MOST_ATTEMPTS):
            with self._ours():
                lock, self.stored = self.recorder.claim(
                    self.record, self.call, waited=attempt > 0, can_wait=can_wait
                )
            if lock is not None:
                self.lock = lock
                break
            yield
        else:
            self.record.may_be_asked_twice = True
        if self.stored is not None:
            self.lock.release()
            self._note_caching()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around the provider's call: what it fails with is recorded, if it is of those that are."""
        __tracebackhide__ = True
        try:
            yield
        except BaseException as error:
            self.failed(error)
            self.lock.release()
            raise

    def answered(self, result: Any) -> Any:
        """Record what the provider gave; what the caller is to get."""
        with self._ours():
            try:
                return self.taken(result)
            finally:
                self.lock.release()

    def taken(self, result: Any) -> Any:
        """Take down an answer, or begin to take down a stream; a door's own."""
        raise NotImplementedError

    def finish(self, answer: Answer) -> None:
        """Record an answer, or a stream that has ended."""
        with self._ours():
            self.recorder.finish(self.record, self.call, answer)
            self._note_caching()

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """Around what is not the provider's: its errors must not pass for one that the code under test may expect."""
        try:
            yield
        except Exception as fault:
            if fault not in self.recorder.faults:
                self.recorder.faults.append(fault)
            raise

    def failed(self, error: BaseException, stream: Answer | None = None) -> None:
        """Record how a call, or a stream of which this was read, ended without an answer."""
        with self._ours():
            stored, lasting = self.store_error(error) if isinstance(error, Exception) else (None, False)
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

    def revived(self, revive: Callable[..., Any], *stored: Any) -> Any:
        """What a recording is read to; one that the library's classes refuse is an error of ours."""
        __tracebackhide__ = True
        try:
            return revive(*stored)
        except Warning:
            raise  # it is an error by the run's own choice
        except Exception as problem:  # noqa: BLE001 - whatever a class makes of data that somebody edited
            self.broken(problem)

    def broken(self, problem: Exception) -> NoReturn:
        """Raise an error of ours for a recording that cannot be read, and remember it."""
        __tracebackhide__ = True
        fault: Exception = problem
        entry = self.record.entry
        what = errors.shorten((str(problem).splitlines() or [type(problem).__name__])[0])
        if self.record.asked_at:
            fault = CacheError(
                f"{self.library} cannot read the answer from {self.record.source}: {what}\n"
                f"Ask the provider again:  {self.recorder.commands.rewrite}"
            )
        elif entry is not None and isinstance(problem, CassetteError):
            fault = CassetteError(f"{entry.place}: {problem}")
        elif entry is not None:
            fault = entry.broken(f"{self.library} cannot read this answer: {what}")
        self.recorder.faults.append(fault)
        raise fault from None

    async def wait(self, stored: Answer) -> None:
        """Wait where an async call was cut off, to be cancelled as it was then; a miss if nothing does."""
        self.cut_off(stored, waited=await wait_to_be_cancelled(stored))

    def cut_off(self, stored: Answer, *, waited: float = 0.0) -> NoReturn:
        """What was cut off when it was recorded goes on now: a miss."""
        __tracebackhide__ = True
        self.recorder.cut_off(self.record, stored, waited=waited)

    def _note_caching(self) -> None:
        if any(self.record.cached):
            self.record.cached_usd = self.saved_by_prompt_cache()


def _request(recorder: Recorder, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a call asks, redacted. A live call needs no key: what has none is shown by the reason."""
    try:
        return recorder.redact.request(ask())
    except UnkeyableCallError as problem:
        if recorder.mode is not Mode.LIVE:
            raise
        return {"unreadable": str(problem)}


def after_call(act: Callable[[], Any]) -> bool:
    """Act when the call of a language model of DSPy's ends that is under way here; False where there is none.

    DSPy up to 3.3 counts no usage for an answer that says ``cache_hit``: a replayed one must not say it before.
    """
    acts = _calling.get()
    if acts is not None:
        acts.append(act)
    return acts is not None


@contextmanager
def outer_call() -> Iterator[None]:
    """Around a call of a language model; one inside of another is a part of it."""
    if _calling.get() is not None:
        yield
        return
    acts: list[Callable[[], Any]] = []
    token = _calling.set(acts)
    try:
        yield
    finally:
        _calling.reset(token)
        for act in acts:
            act()


def is_cancelled(error: BaseException) -> bool:
    """Whether whoever waits for a call waits no more: asyncio's and trio's cancellation, a closed coroutine."""
    names = {"CancelledError", "Cancelled", "GeneratorExit"}
    return not isinstance(error, Exception) and type(error).__name__ in names


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class StreamRecording:
    """Takes down a stream while its caller reads it, and ends the call's record with it.

    ``store`` makes plain data of a chunk, ``whole`` the answer of all of them when the stream has ended.
    """

    def __init__(
        self,
        call: RecordedCall,
        store: Callable[[Any], Chunk],
        whole: Callable[[list[Chunk]], Answer],
    ) -> None:
        self._call = call
        self._store = store
        self._whole = whole
        self._chunks: list[Chunk] = []
        self._open = True
        self._is_cancelled = False
        call.record.open_stream = self

    def chunk(self, chunk: Any) -> None:
        """Keep one chunk as it is now: its reader may change it."""
        self._chunks.append(self._store(chunk))

    def ended(self, _stream: Any) -> None:
        """The whole stream is there."""
        self._finish(self._whole(self._chunks))

    def failed(self, error: BaseException) -> None:
        """The stream broke, or its reader was cancelled: that one may still ask for more."""
        if is_cancelled(error):
            self._is_cancelled = True
        elif self._open:
            self._open = False
            self._call.failed(error, self._as_cut(Answer(Kind.STREAM, self._chunks)))

    def left(self) -> None:
        """The reader stopped here."""
        self._finish(Answer(Kind.STREAM, self._chunks, complete=False))

    def _finish(self, answer: Answer) -> None:
        if self._open:
            self._open = False
            self._call.finish(self._as_cut(answer))

    def _as_cut(self, answer: Answer) -> Answer:
        return answer._replace(complete=False, ended=CANCELLED) if self._is_cancelled else answer
