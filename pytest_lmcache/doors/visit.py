"""One call between a door and its recorder: what all doors do with it, whatever library made it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from pytest_lmcache import errors
from pytest_lmcache.errors import CassetteError
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.recorder import CallRecord, Recorder
from pytest_lmcache.settings import Mode


class Visit:
    """One call; ``stored`` is the recorded answer, None: ask the provider.

    ``library`` is named where it cannot read a recording. ``ask`` gives the request, before redaction.
    """

    __slots__ = ("call", "library", "record", "recorder", "stored")

    def __init__(
        self, library: str, recorder: Recorder, name: str, ask: Callable[[], dict[str, Any]]
    ) -> None:
        __tracebackhide__ = True
        order = recorder.number()
        self.library = library
        self.recorder = recorder
        self.record: CallRecord
        self.stored: Answer | None
        try:
            request = {}
            if recorder.settings.mode is not Mode.LIVE:  # there is nothing to find, and nothing to store
                request = recorder.redact(ask())
            self.call = Call(name, request)
            self.record, self.stored = recorder.begin(order, self.call)
        except Exception as fault:
            # Ours, not the provider's: it must not pass for an error that the code under test may expect.
            recorder.faults.append(fault)
            raise

    def revived(self, revive: Callable[..., Any], *stored: Any) -> Any:
        """What a recording is read to; one that the library's classes refuse is an error of ours, remembered."""
        __tracebackhide__ = True
        try:
            return revive(*stored)
        except Exception as problem:  # noqa: BLE001 - whatever a class makes of data that somebody edited
            self.broken(problem)

    def broken(self, problem: Exception) -> NoReturn:
        """Raise for a recording that cannot be read, and remember it."""
        __tracebackhide__ = True
        fault: Exception = problem
        if self.record.entry is not None and not isinstance(problem, CassetteError):
            what = str(problem).splitlines() or [type(problem).__name__]
            fault = self.record.entry.broken(
                f"{self.library} cannot read this answer: {errors.shorten(what[0])}"
            )
        self.recorder.faults.append(fault)
        raise fault from None

    def chunks(
        self, answer: Answer, revive_chunk: Callable[..., Any], revive_error: Callable[..., Any]
    ) -> Iterator[Any]:
        """A recorded stream's chunks; then the error that it broke with, or a miss where its reader left it."""
        __tracebackhide__ = True
        for data in answer.data:
            yield self.revived(revive_chunk, data)
        if answer.error is not None:
            raise self.revived(revive_error, answer.error)
        if not answer.complete:
            self.recorder.past_end(self.record)

    def finish(self, answer: Answer) -> None:
        """Record what the provider gave."""
        self.recorder.finish(self.record, self.call, answer)

    def failed(self, error: Exception, stored: dict[str, Any] | None, *, lasting: bool) -> None:
        """Record an error of the provider's, if it is of those that are recorded."""
        if stored is None or not self.recorder.keeps(lasting=lasting):
            self.recorder.drop(self.record, f"{self.call.name}() failed with {type(error).__name__}")
        else:
            self.finish(Answer(Kind.ERROR, stored))


class StreamTape:
    """Takes down a stream while its caller reads it, and ends the call's record with it.

    ``store`` makes plain data of a chunk, ``stored_error`` of an error, with whether it is a lasting one;
    ``answer`` makes the whole of the chunks when the stream has ended.
    """

    def __init__(
        self,
        visit: Visit,
        store: Callable[[Any], dict[str, Any]],
        stored_error: Callable[[Exception], tuple[dict[str, Any] | None, bool]],
        answer: Callable[[list[dict[str, Any]]], Answer],
    ) -> None:
        self._visit = visit
        self._store = store
        self._stored_error = stored_error
        self._answer = answer
        self._chunks: list[dict[str, Any]] = []
        self._open = True
        visit.record.tape = self

    def chunk(self, chunk: Any) -> None:
        """Keep one chunk as it is now: its reader may change it."""
        self._chunks.append(self._store(chunk))

    def ended(self, _stream: Any) -> None:
        """The whole stream is there."""
        self._finish(self._answer(self._chunks))

    def failed(self, error: Exception) -> None:
        """The stream broke: kept with the error, or not at all where such errors are not recorded."""
        stored, lasting = self._stored_error(error)
        recorder = self._visit.recorder
        if stored is not None and recorder.keeps(lasting=lasting):
            self._finish(Answer(Kind.STREAM, self._chunks, error=stored))
        elif self._open:
            self._open = False
            recorder.drop(
                self._visit.record, f"a stream of {self._visit.call.name}() broke: {type(error).__name__}"
            )

    def left(self) -> None:
        """The reader stopped here."""
        self._finish(Answer(Kind.STREAM, self._chunks, complete=False))

    def _finish(self, answer: Answer) -> None:
        if self._open:
            self._open = False
            self._visit.finish(answer)
