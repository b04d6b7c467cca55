"""Sends a recorded question to the provider again, and returns the whole answer, also of a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol

from pytest_lmcache.clock import RealTime
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.libraries.stream_recording import StreamCodec
from pytest_lmcache.stream_chunks import Chunk
from pytest_lmcache.verify import reason


class Question(Protocol):
    """The part of a library's call that asking it again takes; see `libraries.recorded_call.LibraryCall`."""

    @property
    def asked_with(self) -> tuple[Any, ...]:
        """What the function that asks the provider takes."""

    def stream_codec(self, result: Any, keep_headers: Sequence[str]) -> StreamCodec | None:
        """What reads a result that is a stream; None for a whole answer."""

    def to_answer(self, result: Any, keep_headers: Sequence[str]) -> Answer:
        """Convert the whole answer that the library gave."""

    def error_to_plain(
        self, error: Exception, keep_headers: Sequence[str]
    ) -> tuple[dict[str, Any] | None, bool]:
        """Convert an error, None if it is not the library's; and whether asking again would give the same error."""


class NewAnswer(NamedTuple):
    """The new answer to a question; ``why`` is the error if the provider did not answer, which may pass."""

    answer: Answer
    why: str = ""


def ask_again(question: Question, ask: Callable[..., Any]) -> NewAnswer:
    """Ask a question and wait for the whole answer."""
    asking = _Asking(question)
    try:
        result = ask(*question.asked_with)
        if asking.begins_stream(result):
            for chunk in result:
                asking.add(chunk)
        return asking.ended(result)
    except Exception as error:  # noqa: BLE001 - the test goes on with the recorded answer
        return asking.failed(error)


async def aask_again(question: Question, ask: Callable[..., Awaitable[Any]]) -> NewAnswer:
    """Do the same in an event loop."""
    asking = _Asking(question)
    try:
        result = await ask(*question.asked_with)
        if asking.begins_stream(result):
            async for chunk in result:
                asking.add(chunk)
        return asking.ended(result)
    except Exception as error:  # noqa: BLE001 - as above
        return asking.failed(error)


class _Asking:
    """One question that is being asked."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._began = RealTime.seconds()
        self._codec: StreamCodec | None = None
        self._chunks: list[Chunk] = []

    def begins_stream(self, result: Any) -> bool:
        self._codec = self._question.stream_codec(result, ())
        return self._codec is not None

    def add(self, chunk: Any) -> None:
        if self._codec is not None:
            self._chunks.append(self._codec.to_plain(chunk))

    def ended(self, result: Any) -> NewAnswer:
        if self._codec is not None:
            return NewAnswer(self._timed(self._codec.to_answer(self._chunks)))
        return NewAnswer(self._timed(self._question.to_answer(result, ())))

    def failed(self, error: Exception) -> NewAnswer:
        data, lasting = self._question.error_to_plain(error, ())
        data = data or {"class": type(error).__name__, "message": str(error)}
        answer = Answer(Kind.ERROR, data)
        if self._chunks:
            answer = Answer(Kind.STREAM, self._chunks, error=data)
        return NewAnswer(self._timed(answer), "" if lasting else reason(error))

    def _timed(self, answer: Answer) -> Answer:
        return answer._replace(seconds=RealTime.seconds() - self._began)
