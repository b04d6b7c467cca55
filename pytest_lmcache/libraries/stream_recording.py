"""A library's stream, observed while its caller reads it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from pytest_lmcache.clock import RealTime
from pytest_lmcache.interaction import CANCELLED, Answer, Kind
from pytest_lmcache.stream_chunks import Chunk


class StreamCodec(NamedTuple):
    """Turns a stream into plain data: each chunk as it is read, and the answer when the stream has ended."""

    to_plain: Callable[[Any], Chunk]
    to_answer: Callable[[list[Chunk]], Answer]


class StreamRecording:
    """Records a stream while its caller reads it.

    ``finish`` gets the answer at the stream's end, ``fail`` the error that broke the stream and what was read of it.
    """

    def __init__(
        self,
        codec: StreamCodec,
        finish: Callable[[Answer], None],
        fail: Callable[[BaseException, Answer], None],
    ) -> None:
        self._codec = codec
        self._finish_call = finish
        self._fail_call = fail
        self._chunks: list[Chunk] = []
        self._times = [RealTime.seconds()]
        self._open = True
        self._is_cancelled = False

    def chunk(self, chunk: Any) -> None:
        """Store one chunk before its reader can change it."""
        self._times.append(RealTime.seconds())
        self._chunks.append(self._codec.to_plain(chunk))

    def ended(self) -> None:
        """Finish the call with the whole stream."""
        self._finish(self._codec.to_answer(self._chunks))

    def failed(self, error: BaseException) -> None:
        """Record that the stream broke. A reader that was cancelled may still read on."""
        if is_cancelled(error):
            self._is_cancelled = True
        elif self._open:
            self._open = False
            self._fail_call(error, self._as_cut(Answer(Kind.STREAM, self._chunks)))

    def left(self) -> None:
        """Finish the call with what was read so far."""
        self._finish(Answer(Kind.STREAM, self._chunks, complete=False))

    def _finish(self, answer: Answer) -> None:
        if self._open:
            self._open = False
            self._finish_call(self._as_cut(answer))

    def _as_cut(self, answer: Answer) -> Answer:
        pace = tuple(round(1000 * (time - before)) for before, time in pairwise(self._times))
        answer = answer._replace(pace=pace[: len(answer.data)])
        return answer._replace(complete=False, ended=CANCELLED) if self._is_cancelled else answer


def is_cancelled(error: BaseException) -> bool:
    """Whether an error is the cancellation of asyncio or trio, or that of a coroutine that is closed."""
    names = {"CancelledError", "Cancelled", "GeneratorExit"}
    return not isinstance(error, Exception) and type(error).__name__ in names


def is_stream(result: Any) -> bool:
    """Whether a library's answer is an iterator of chunks, sync or async."""
    return (
        not isinstance(result, dict | str | bytes)
        and not hasattr(result, "model_dump")
        and (hasattr(result, "__anext__") or hasattr(result, "__next__"))
    )


def record_stream(stream: Any, recording: StreamRecording) -> Any:
    """The same stream, which gives the recording each chunk; ``isinstance`` sees no difference."""
    if inspect.isasyncgen(stream):
        return _record_async_generator(stream, recording)
    if inspect.isgenerator(stream):
        return _record_generator(stream, recording)
    vars(stream)["_lmcache_recording"] = recording
    kind: Any = type(stream)
    stream.__class__ = _recording_class(kind)
    return stream


def subclass_named_like(kind: type[Any], bases: tuple[type[Any], ...], methods: dict[str, Any]) -> type[Any]:
    """A class with the bases and methods, and with the name of another."""
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, bases, {**methods, **names})


# The stream whose next chunk is being taken in this context: LiteLLM may close a stream itself at its end.
_taking: ContextVar[Any] = ContextVar("pytest_lmcache_taking", default=None)


class _Taking:
    """Tells the recording how taking the next chunk ended, if not with a chunk."""

    __slots__ = ("_before", "recording", "stream")

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.recording: StreamRecording = vars(stream)["_lmcache_recording"]

    def __enter__(self) -> StreamRecording:
        self._before = _taking.get()
        _taking.set(self.stream)
        return self.recording

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        _taking.set(self._before)  # without a token: an abandoned reader may be closed in another context
        if isinstance(error, StopIteration | StopAsyncIteration):
            self.recording.ended()
        elif error is not None:
            self.recording.failed(error)


def _report_close(stream: Any) -> None:
    """The stream is closed: by its reader, unless its next chunk is being taken."""
    if _taking.get() is not stream:
        vars(stream)["_lmcache_recording"].left()


@cache
def _recording_class(kind: Any) -> type[Any]:
    def take(self: Any) -> Any:
        with _Taking(self) as recording:
            chunk = kind.__next__(self)
        recording.chunk(chunk)
        return chunk

    async def atake(self: Any) -> Any:
        with _Taking(self) as recording:
            chunk = await kind.__anext__(self)
        recording.chunk(chunk)
        return chunk

    def close(self: Any) -> None:
        _report_close(self)
        kind.close(self)

    async def aclose(self: Any) -> None:
        _report_close(self)
        await kind.aclose(self)

    methods: dict[str, Any] = {"__next__": take, "__anext__": atake, "close": close, "aclose": aclose}
    return subclass_named_like(
        kind, (kind,), {name: method for name, method in methods.items() if hasattr(kind, name)}
    )


@contextmanager
def _reading(recording: StreamRecording) -> Iterator[None]:
    """Tells the recording how reading a generator ended."""
    try:
        yield
    except GeneratorExit:
        recording.left()
        raise
    except BaseException as error:
        recording.failed(error)
        raise
    recording.ended()


def _record_generator(stream: Iterator[Any], recording: StreamRecording) -> Iterator[Any]:
    with _reading(recording):
        for chunk in stream:
            recording.chunk(chunk)
            yield chunk


async def _record_async_generator(
    stream: AsyncIterator[Any], recording: StreamRecording
) -> AsyncIterator[Any]:
    with _reading(recording):
        async for chunk in stream:
            recording.chunk(chunk)
            yield chunk
