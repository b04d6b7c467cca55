"""A library's stream, observed while its caller reads it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Protocol


class StreamObserver(Protocol):
    """What hears of a stream that is being read."""

    def chunk(self, chunk: Any) -> None:
        """One more chunk goes to the caller."""

    def ended(self, stream: Any) -> None:
        """The stream came to its end."""

    def failed(self, error: BaseException) -> None:
        """The stream broke, or its reader was cancelled."""

    def left(self) -> None:
        """The caller closed the stream before its end."""


def is_stream(result: Any) -> bool:
    """Whether a library's answer is an iterator of chunks, sync or async."""
    return (
        not isinstance(result, dict | str | bytes)
        and not hasattr(result, "model_dump")
        and (hasattr(result, "__anext__") or hasattr(result, "__next__"))
    )


def record_stream(stream: Any, observer: StreamObserver) -> Any:
    """The same stream, which reports to the observer all that it gives; ``isinstance`` sees no difference."""
    if inspect.isasyncgen(stream):
        return _record_async_generator(stream, observer)
    if inspect.isgenerator(stream):
        return _record_generator(stream, observer)
    vars(stream)["_lmcache_observer"] = observer
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
    """Reports to the observer how taking the next chunk ended, if not with a chunk."""

    __slots__ = ("_before", "observer", "stream")

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.observer: StreamObserver = vars(stream)["_lmcache_observer"]

    def __enter__(self) -> StreamObserver:
        self._before = _taking.get()
        _taking.set(self.stream)
        return self.observer

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        _taking.set(self._before)  # without a token: an abandoned reader may be closed in another context
        if isinstance(error, StopIteration | StopAsyncIteration):
            self.observer.ended(self.stream)
        elif error is not None:
            self.observer.failed(error)


def _report_close(stream: Any) -> None:
    """The stream is closed: by its reader, unless its next chunk is being taken."""
    if _taking.get() is not stream:
        vars(stream)["_lmcache_observer"].left()


@cache
def _recording_class(kind: Any) -> type[Any]:
    def take(self: Any) -> Any:
        with _Taking(self) as observer:
            chunk = kind.__next__(self)
        observer.chunk(chunk)
        return chunk

    async def atake(self: Any) -> Any:
        with _Taking(self) as observer:
            chunk = await kind.__anext__(self)
        observer.chunk(chunk)
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
def _reading(stream: Any, observer: StreamObserver) -> Iterator[None]:
    """Reports to the observer how reading a generator ended."""
    try:
        yield
    except GeneratorExit:
        observer.left()
        raise
    except BaseException as error:
        observer.failed(error)
        raise
    observer.ended(stream)


def _record_generator(stream: Iterator[Any], observer: StreamObserver) -> Iterator[Any]:
    with _reading(stream, observer):
        for chunk in stream:
            observer.chunk(chunk)
            yield chunk


async def _record_async_generator(stream: AsyncIterator[Any], observer: StreamObserver) -> AsyncIterator[Any]:
    with _reading(stream, observer):
        async for chunk in stream:
            observer.chunk(chunk)
            yield chunk
