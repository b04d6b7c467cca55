"""LiteLLM's streams: watched while they are recorded, handed out chunk for chunk on replay."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from typing import Any, NoReturn, Protocol, Self

from pytest_lmcache.answers import plain, revive_chunk, revive_error
from pytest_lmcache.interaction import Answer


class Tape(Protocol):
    """What a stream tells while it is recorded."""

    def chunk(self, chunk: Any) -> None:
        """One more chunk goes to the caller."""

    def ended(self, stream: Any) -> None:
        """The stream came to its end."""

    def failed(self, error: Exception) -> None:
        """The stream broke."""

    def left(self) -> None:
        """The caller closed the stream before its end."""


def is_stream(result: Any) -> bool:
    """Whether an answer of LiteLLM's is to be iterated, not read."""
    return (
        not isinstance(result, dict | str | bytes)
        and not hasattr(result, "model_dump")
        and (hasattr(result, "__anext__") or hasattr(result, "__next__"))
    )


def record_stream(stream: Any, tape: Tape) -> Any:
    """The same stream, telling the tape all that it hands out; its type stays what it was."""
    if inspect.isasyncgen(stream):
        return _record_async_generator(stream, tape)
    if inspect.isgenerator(stream):
        return _record_generator(stream, tape)
    vars(stream)["_lmcache_tape"] = tape
    stream.__class__ = _recording_class(type(stream))
    return stream


def hidden_usage(chunk: Any) -> dict[str, Any] | None:
    """The token usage that LiteLLM hides in a stream's last chunk where its caller did not ask for it."""
    hidden = getattr(chunk, "_hidden_params", None)
    usage = hidden.get("usage") if isinstance(hidden, dict) else None
    return None if usage is None else plain(usage.model_dump(exclude_none=True, warnings=False))


@cache
def _recording_class(kind: Any) -> type[Any]:
    def take(self: Any) -> Any:
        tape: Tape = vars(self)["_lmcache_tape"]
        try:
            chunk = kind.__next__(self)
        except StopIteration:
            tape.ended(self)
            raise
        except Exception as error:
            tape.failed(error)
            raise
        tape.chunk(chunk)
        return chunk

    async def atake(self: Any) -> Any:
        tape: Tape = vars(self)["_lmcache_tape"]
        try:
            chunk = await kind.__anext__(self)
        except StopAsyncIteration:
            tape.ended(self)
            raise
        except Exception as error:
            tape.failed(error)
            raise
        tape.chunk(chunk)
        return chunk

    async def aclose(self: Any) -> None:
        vars(self)["_lmcache_tape"].left()
        await kind.aclose(self)

    methods: dict[str, Any] = {"__next__": take, "__anext__": atake, "aclose": aclose}
    own = {name: method for name, method in methods.items() if hasattr(kind, name)}
    return type(
        kind.__name__, (kind,), {**own, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    )


def _record_generator(stream: Iterator[Any], tape: Tape) -> Iterator[Any]:
    try:
        for chunk in stream:
            tape.chunk(chunk)
            yield chunk
    except GeneratorExit:
        tape.left()
        raise
    except Exception as error:
        tape.failed(error)
        raise
    tape.ended(stream)


async def _record_async_generator(stream: AsyncIterator[Any], tape: Tape) -> AsyncIterator[Any]:
    try:
        async for chunk in stream:
            tape.chunk(chunk)
            yield chunk
    except GeneratorExit:
        tape.left()
        raise
    except Exception as error:
        tape.failed(error)
        raise
    tape.ended(stream)


class Chunks:
    """The stored chunks of one answer, given out one by one as LiteLLM's objects.

    ``past_end`` is called where the recording ends because its caller left early; it raises the miss.
    """

    def __init__(self, name: str, answer: Answer, past_end: Callable[[], NoReturn]) -> None:
        self.name = name
        self.answer = answer
        self.given = 0
        self._left = iter(answer.data)
        self._past_end = past_end

    @property
    def is_last(self) -> bool:
        """Whether the chunk given last is the stream's last."""
        return self.given == len(self.answer.data)

    def take(self) -> Any | None:
        """The next chunk, None at the end. Raises the error that the stream broke with."""
        data = next(self._left, None)
        if data is not None:
            self.given += 1
            return revive_chunk(self.name, data)
        if self.answer.error is not None:
            raise revive_error(self.answer.error)
        if not self.answer.complete:
            self._past_end()
        return None


def replay_stream(chunks: Chunks, logging_obj: Any, model: str, provider: str | None, *, heard: bool) -> Any:
    """A stream of LiteLLM's own type over stored chunks; ``heard`` says that callbacks listen."""
    stream: Any
    if chunks.name == "completion":
        stream = _chat_class()(chunks, logging_obj, model, provider, heard)
    elif chunks.name == "text_completion":
        stream = _text_class()(chunks, model, provider)
    elif chunks.name == "responses":
        stream = _responses_class()(chunks, logging_obj, model, provider, heard)
    else:
        stream = ByteStream(chunks)
    return stream


class ByteStream:
    """A replayed stream of Anthropic messages: server-sent events as bytes, one chunk each."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._hidden_params: dict[str, Any] = {}

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        chunk = self._chunks.take()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Nothing is open."""


class _Empty:
    """A provider's stream that has ended, sync and async."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        raise StopIteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        raise StopAsyncIteration


@cache
def _chat_class() -> type[Any]:
    from litellm import CustomStreamWrapper
    from litellm.litellm_core_utils.thread_pool_executor import executor
    from litellm.types.utils import Usage

    class ReplayedStream(CustomStreamWrapper):  # type: ignore[misc]
        """Hands out the stored chunks as they are; LiteLLM's own end of a stream then logs and prices them."""

        def __init__(
            self, chunks: Chunks, logging_obj: Any, model: str, provider: str | None, heard: bool
        ) -> None:
            vars(self).update(
                model=model,
                custom_llm_provider=provider,
                logging_obj=logging_obj,
                completion_stream=_Empty(),
                chunks=[],
                created=None,
                response_id=None,
                response_uptil_now="",
                received_finish_reason=None,
                # The stored chunks already hold the one that tells the usage.
                sent_last_chunk=True,
                sent_stream_usage=True,
                _hidden_params={"model_id": None, "api_base": None, "additional_headers": {}},
                _stored=chunks,
                _heard=heard,
                _usage=(chunks.answer.hidden or {}).get("usage"),
            )
            if heard:
                self._prepare()

        def __getattr__(self, name: str) -> Any:
            # LiteLLM prepares a stream with models that take half a second to build when first used: only
            # for a reader who wants more of it than its chunks.
            if name.startswith("__") or "_is_prepared" in vars(self):
                raise AttributeError(name)
            self._prepare()
            return getattr(self, name)

        def _prepare(self) -> None:
            ours = {**vars(self), "_is_prepared": True}
            vars(self).update(ours)
            super().__init__(
                completion_stream=self.completion_stream,
                model=self.model,
                custom_llm_provider=self.custom_llm_provider,
                logging_obj=self.logging_obj,
            )
            hidden = (
                {**self._hidden_params, **ours["_hidden_params"]} if not self._heard else self._hidden_params
            )
            vars(self).update(ours, _hidden_params=hidden)

        def __next__(self) -> Any:
            chunk = self._take()
            if chunk is not None:
                if self._heard:
                    executor.submit(self.run_success_logging_and_cache_storage, chunk, False)  # noqa: FBT003
                return chunk
            if self._heard:
                return super().__next__()
            raise StopIteration

        async def __anext__(self) -> Any:
            chunk = self._take()
            if chunk is not None:
                return chunk
            if self._heard:
                return await super().__anext__()
            raise StopAsyncIteration

        def _take(self) -> Any:
            chunk = self._stored.take()
            if chunk is None:
                self._tell_usage()
                return None
            if not self.chunks:
                self.created, self.response_id = chunk.created, chunk.id
            chunk._hidden_params["custom_llm_provider"] = self.custom_llm_provider  # noqa: SLF001
            self.chunks.append(chunk)
            choice = chunk.choices[0] if chunk.choices else None
            self.response_uptil_now += (choice.delta.content or "") if choice is not None else ""
            if choice is not None and choice.finish_reason:
                self.received_finish_reason = choice.finish_reason
            if self._usage and self._stored.is_last:
                chunk._hidden_params["usage"] = Usage(**self._usage)  # noqa: SLF001
            return chunk

        def _tell_usage(self) -> None:
            if (
                self._usage
                and self.chunks
                and not any(getattr(chunk, "usage", None) for chunk in self.chunks)
            ):
                # The caller holds the last chunk: only LiteLLM's copy of it gets the usage.
                last = self.chunks[-1].model_copy()
                last.usage = Usage(**self._usage)
                self.chunks[-1] = last

    ReplayedStream.__name__ = ReplayedStream.__qualname__ = CustomStreamWrapper.__name__
    return ReplayedStream


@cache
def _text_class() -> type[Any]:
    from litellm.utils import TextCompletionStreamWrapper

    class ReplayedTextStream(TextCompletionStreamWrapper):  # type: ignore[misc]
        """Hands out the stored chunks of a text completion as they are."""

        def __init__(self, chunks: Chunks, model: str, provider: str | None) -> None:
            super().__init__(completion_stream=_Empty(), model=model, custom_llm_provider=provider)
            self._stored = chunks

        def __next__(self) -> Any:
            chunk = self._stored.take()
            if chunk is None:
                raise StopIteration
            return chunk

        async def __anext__(self) -> Any:
            chunk = self._stored.take()
            if chunk is None:
                raise StopAsyncIteration
            return chunk

    ReplayedTextStream.__name__ = ReplayedTextStream.__qualname__ = TextCompletionStreamWrapper.__name__
    return ReplayedTextStream


@cache
def _responses_class() -> type[Any]:
    import httpx
    from litellm.responses.streaming_iterator import (
        ResponsesAPIStreamingIterator,
        SyncResponsesAPIStreamingIterator,
    )

    class ReplayedEvents(ResponsesAPIStreamingIterator):  # type: ignore[misc]
        """Hands out the stored events as they are; the last one is logged by LiteLLM's own hands."""

        def __init__(
            self, chunks: Chunks, logging_obj: Any, model: str, provider: str | None, heard: bool
        ) -> None:
            super().__init__(
                response=httpx.Response(200, content=b""),
                model=model,
                responses_api_provider_config=None,
                logging_obj=logging_obj,
                custom_llm_provider=provider,
            )
            self._stored = chunks
            self._heard = heard

        def __iter__(self) -> Self:
            return self

        def __next__(self) -> Any:
            event = self._take()
            if event is None:
                raise StopIteration
            if self._is_last(event):
                SyncResponsesAPIStreamingIterator._handle_logging_completed_response(self)  # noqa: SLF001
            return event

        async def __anext__(self) -> Any:
            event = self._take()
            if event is None:
                raise StopAsyncIteration
            if self._is_last(event):
                self._handle_logging_completed_response()
            return event

        def _take(self) -> Any:
            event = self._stored.take()
            self.finished = event is None
            return event

        def _is_last(self, event: Any) -> bool:
            kind = str(getattr(event.type, "value", event.type))
            if kind not in {"response.completed", "response.incomplete"}:
                return False
            self.completed_response = event
            return self._heard

    ReplayedEvents.__name__ = ReplayedEvents.__qualname__ = ResponsesAPIStreamingIterator.__name__
    return ReplayedEvents
