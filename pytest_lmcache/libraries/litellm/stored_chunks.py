"""The stored chunks of one answer, given one by one as LiteLLM's objects, and the base of the streams over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Self

from pytest_lmcache.interaction import Answer
from pytest_lmcache.libraries.cancellation import wait_to_be_cancelled, wait_to_be_cancelled_in_thread
from pytest_lmcache.libraries.litellm.chunks import ChunkCodec
from pytest_lmcache.libraries.litellm.exceptions import error_from_plain
from pytest_lmcache.stream_chunks import whole


class StoredChunks:
    """The chunks of one answer in turn.

    ``cut_off`` is called if the recording ends before the stream did, and raises the miss. ``broken`` is called if
    LiteLLM cannot read a chunk, and raises the error.
    """

    def __init__(
        self,
        codec: ChunkCodec,
        answer: Answer,
        cut_off: Callable[..., NoReturn],
        broken: Callable[[Exception], NoReturn],
    ) -> None:
        self.answer = answer
        self.given = 0
        self.last: dict[str, Any] = {}  # the chunk given last, as plain data
        self._stored = zip(answer.data, whole(answer.data), strict=True)
        self._unpack = codec.unpacker()
        self._cut_off = cut_off
        self._broken = broken
        self._is_over = False

    def converted(
        self, convert: Callable[[dict[str, Any]], dict[str, Any]], codec: ChunkCodec
    ) -> StoredChunks:
        """The same chunks, each converted to one of another stream."""
        answer = self.answer._replace(data=[convert(chunk) for chunk in whole(self.answer.data)])
        return StoredChunks(codec, answer, self._cut_off, self._broken)

    @property
    def is_last(self) -> bool:
        """Whether the chunk given last is the stream's last."""
        return self.given == len(self.answer.data)

    def take(self) -> Any | None:
        """The next chunk, None at the end. Raises the error that broke the stream."""
        stored = next(self._stored, None)
        if stored is not None:
            self.given, self.last = self.given + 1, stored[1]
            return self.guarded(self._unpack, stored[0])
        if self.answer.error is not None:
            raise self.guarded(error_from_plain, self.answer.error)
        if not self.answer.complete and not self._is_over:
            wait_to_be_cancelled_in_thread(self.answer)
            self._cut_off(self.answer)
        return None

    async def atake(self) -> Any | None:
        """The same for an async reader."""
        await self.wait_at_end()
        return self.take()

    async def wait_at_end(self) -> None:
        """If the recording was cut off here, wait until the reader is cancelled; a miss if nothing cancels it."""
        if not self.is_last or self.answer.complete or self._is_over:
            return
        self._is_over = True  # a reader that is cancelled here and asks for more gets the end, as it did live
        waited = await wait_to_be_cancelled(self.answer)
        self._cut_off(self.answer, waited=waited)

    def guarded(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function on stored data, which somebody may have edited; ``broken`` raises for what fails."""
        try:
            return function(*args)
        except Warning:
            raise  # the run makes errors of warnings
        except Exception as problem:  # noqa: BLE001 - whatever a class makes of such data
            self._broken(problem)


class Replay(NamedTuple):
    """What a replayed stream is made of.

    ``logging_of`` gives LiteLLM's logging object, made on demand if no callback listens. ``source`` is the stream that
    LiteLLM's own class reads.
    """

    chunks: StoredChunks
    logging_of: Callable[[], Any]
    model: str
    provider: str | None
    has_listeners: bool
    source: Any = None


class ReplayedStream:
    """A stream over stored chunks, sync and async; a subclass adds to each chunk in ``_take``."""

    _stored: StoredChunks

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        chunk = self._take()
        if chunk is None:
            raise StopIteration
        return chunk

    async def __anext__(self) -> Any:
        await self._wait_at_end()
        chunk = self._take()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def _wait_at_end(self) -> None:
        await self._stored.wait_at_end()

    def _take(self) -> Any:
        return self._stored.take()


class EmptyStream(ReplayedStream):
    """A provider's stream that has ended."""

    async def _wait_at_end(self) -> None:
        pass

    def _take(self) -> Any:
        return None
