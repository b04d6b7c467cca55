"""LiteLLM's streams on replay: its own class for each entry point, over stored chunks."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Self

from pytest_lmcache.interaction import ANSWERING_MODEL, Answer
from pytest_lmcache.libraries.litellm import compat
from pytest_lmcache.libraries.litellm.answers import class_named, hidden_params
from pytest_lmcache.libraries.litellm.chunks import ChunkCodec, StoredChunks
from pytest_lmcache.libraries.recorded_call import RecordedCall
from pytest_lmcache.libraries.stream_recording import subclass_named_like


@dataclass(frozen=True, slots=True, eq=False)
class StreamKind:
    """The streams of an entry point.

    ``replayed`` is our class of a replayed stream, which comes before ``theirs``, LiteLLM's own, if there is one.
    ``source``: LiteLLM makes the stream from one of that kind, which it logs; ``to_source`` converts a chunk to its.
    """

    chunks: ChunkCodec
    replayed: type[Any]
    theirs: Callable[[], type[Any] | None]
    source: StreamKind | None = None
    to_source: Callable[[dict[str, Any]], dict[str, Any]] = dict

    def replay(
        self,
        answer: Answer,
        recorded: RecordedCall,
        logging_of: Callable[[], Any],
        model: str,
        provider: str | None,
        *,
        has_listeners: bool,
    ) -> Any:
        """A stream of LiteLLM's own type over a stored answer; ``has_listeners``: callbacks hear of it."""
        stored = StoredChunks(self.chunks, answer, recorded.cut_off, recorded.broken)
        return self.over(stored, Replay(stored, logging_of, model, provider, has_listeners, EmptyStream()))

    def over(self, stored: StoredChunks, replay: Replay) -> Any:
        """A stream of LiteLLM's own type over stored chunks of this kind."""
        if self.source is not None and replay.has_listeners:
            converted = stored.converted(self.to_source, self.source.chunks)
            source = self.source.over(converted, replay._replace(chunks=converted))
            replay = replay._replace(source=source)
        return _class_of(self)(replay)


@cache
def _class_of(kind: StreamKind) -> type[Any]:
    theirs = kind.theirs()
    return kind.replayed if theirs is None else subclass_named_like(theirs, (kind.replayed, theirs), {})


def forget_classes() -> None:
    """Look up LiteLLM's classes anew: its modules may have been executed again."""
    class_named.cache_clear()
    compat.messages_module.cache_clear()
    _class_of.cache_clear()


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


# ---------------------------------------------------------------- chat and text completions


class ReplayedTextStream(ReplayedStream):
    """Comes before TextCompletionStreamWrapper; callbacks hear of the chat's stream that LiteLLM makes it from."""

    def __init__(self, replay: Replay) -> None:
        self.__dict__.update(
            model=replay.model,
            custom_llm_provider=replay.provider,
            completion_stream=replay.source,
            stream_options=None,
            _stored=replay.chunks,
        )

    def __next__(self) -> Any:
        next(vars(self)["completion_stream"], None)
        return super().__next__()

    async def __anext__(self) -> Any:
        await anext(vars(self)["completion_stream"], None)
        return await super().__anext__()


class ReplayedChatStream(ReplayedStream):
    """Comes before CustomStreamWrapper, which logs and prices a stream at its end, if callbacks listen."""

    chunks: list[Any]
    _has_listeners: bool

    def __init__(self, replay: Replay) -> None:
        hidden = replay.chunks.answer.hidden or {}
        self.__dict__.update(
            model=replay.model,
            custom_llm_provider=replay.provider,
            completion_stream=replay.source,
            chunks=[],
            created=None,
            response_id=None,
            response_uptil_now="",
            received_finish_reason=None,
            # The chunk with the usage is stored with the others.
            sent_last_chunk=True,
            sent_stream_usage=True,
            _hidden_params={"model_id": None, "api_base": None, "additional_headers": {}},
            _stored=replay.chunks,
            _has_listeners=replay.has_listeners,
            _logging_of=replay.logging_of,
            _usage=hidden.get("usage"),
            _model_params={name: value for name, value in hidden.items() if name == ANSWERING_MODEL},
        )
        if replay.has_listeners:
            self._prepare()

    def __getattr__(self, name: str) -> Any:
        # Only a reader who wants more than the chunks needs LiteLLM's own preparation, whose models take half a
        # second to build when first used.
        if name.startswith("__") or "_is_prepared" in self.__dict__:
            raise AttributeError(name)
        self._prepare()
        return getattr(self, name)

    def __del__(self) -> None:
        # LiteLLM may clean up here; a stream that was not prepared has nothing to clean up.
        theirs: Any = super()
        if "_is_prepared" in self.__dict__ and hasattr(theirs, "__del__"):
            theirs.__del__()

    def __next__(self) -> Any:
        try:
            chunk = self._take()
        except Exception as error:
            self._report_failure(error)
            raise
        if chunk is None:
            return self._end().__next__()
        if self._has_listeners:
            from litellm.litellm_core_utils.thread_pool_executor import executor

            executor.submit(self.run_success_logging_and_cache_storage, chunk, False)
        return chunk

    async def __anext__(self) -> Any:
        await self._wait_at_end()
        try:
            chunk = self._take()
        except Exception as error:
            self._report_failure(error, asyncio.create_task)
            raise
        return await self._end().__anext__() if chunk is None else chunk

    def _report_failure(self, error: Exception, run: Callable[[Any], Any] | None = None) -> None:
        """Report to callbacks that the stream broke; ``run`` runs a coroutine beside an async reader."""
        if not self._has_listeners:
            return
        cause = getattr(error, "original_exception", None) or error
        report = cause, "".join(traceback.format_exception(error))
        handler, async_handler = compat.failure_handlers(self.logging_obj, is_async=run is not None)
        if handler is not None:
            threading.Thread(target=handler, args=report).start()
        if run is not None:
            self.__dict__["_failure_logging"] = run(async_handler(*report))

    def _end(self) -> Any:
        """What ends the stream: LiteLLM's own class if callbacks are to hear of it."""
        return super(ReplayedStream, self) if self._has_listeners else EmptyStream()

    def _prepare(self) -> None:
        logging_obj = self.__dict__["_logging_of"]()
        ours = {**self.__dict__, "_is_prepared": True}
        self.__dict__["_is_prepared"] = True
        theirs: Any = super()
        theirs.__init__(
            completion_stream=ours["completion_stream"],
            model=ours["model"],
            custom_llm_provider=ours["custom_llm_provider"],
            logging_obj=logging_obj,
        )
        hidden = {**ours["_hidden_params"], **self.__dict__["_hidden_params"]}
        self.__dict__.update(ours, _hidden_params=hidden if self._has_listeners else ours["_hidden_params"])

    def _take(self) -> Any:
        chunk = self._stored.take()
        if chunk is None:
            self._stored.guarded(self._add_usage)
            return None
        self._stored.guarded(self._note, chunk)
        return chunk

    def _note(self, chunk: Any) -> None:
        """Keep of a chunk what LiteLLM's class keeps of it."""
        if not self.chunks:
            self.__dict__.update(created=chunk.created, response_id=chunk.id)
        hidden: dict[str, Any] = hidden_params(chunk)
        hidden["custom_llm_provider"] = self.custom_llm_provider
        hidden.update(self._model_params)
        self.chunks.append(chunk)
        for choice in chunk.choices[:1]:
            own = self.__dict__
            own["response_uptil_now"] += _field(_field(choice, "delta"), "content") or ""
            own["received_finish_reason"] = _field(choice, "finish_reason") or own["received_finish_reason"]
        if self._usage and self._stored.is_last:
            hidden["usage"] = _usage(self._usage)

    def _add_usage(self) -> None:
        """Add the usage to LiteLLM's copy of the last chunk, of which the caller holds the original."""
        if self._usage and self.chunks and not any(_field(chunk, "usage") for chunk in self.chunks):
            last = self.chunks[-1].model_copy()
            last.usage = _usage(self._usage)
            self.chunks[-1] = last


def _field(model: Any, name: str) -> Any:
    # Not by getattr: pydantic takes 2 µs for a field that the class does not declare, more for one that is missing.
    return vars(model).get(name) or (model.model_extra or {}).get(name)


def _usage(fields: dict[str, Any]) -> Any:
    from litellm.types.utils import Usage

    return Usage(**fields)


# ---------------------------------------------------------------- server-sent events


class ReplayedResponsesStream(ReplayedStream):
    """Comes before ResponsesAPIStreamingIterator, which logs the last event."""

    def __init__(self, replay: Replay) -> None:
        import httpx

        theirs: Any = super()
        theirs.__init__(
            response=httpx.Response(200, content=b""),
            model=replay.model,
            responses_api_provider_config=None,
            logging_obj=replay.logging_of(),
            custom_llm_provider=replay.provider,
        )
        self._stored = replay.chunks
        self._has_listeners = replay.has_listeners

    def __next__(self) -> Any:
        event = super().__next__()
        if self._is_last(event):
            from litellm.responses.streaming_iterator import SyncResponsesAPIStreamingIterator

            SyncResponsesAPIStreamingIterator._handle_logging_completed_response(self)
        return event

    async def __anext__(self) -> Any:
        event = await super().__anext__()
        if self._is_last(event):
            theirs: Any = self
            theirs._handle_logging_completed_response()
        return event

    def _take(self) -> Any:
        try:
            event = self._stored.take()
        except Exception as error:
            theirs: Any = self
            if self._has_listeners:
                theirs._handle_failure(error)
            raise
        self.finished = event is None
        return event

    def _is_last(self, event: Any) -> bool:
        if str(getattr(event.type, "value", event.type)) not in {"response.completed", "response.incomplete"}:
            return False
        self.completed_response = event
        return self._has_listeners


class ReplayedAnyStream(ReplayedStream):
    """A replayed stream of an entry point for which there is no more to know than its chunks."""

    def __init__(self, replay: Replay) -> None:
        self._stored = replay.chunks
        self._hidden_params: dict[str, Any] = {}

    def close(self) -> None:
        """Close the stream, which holds nothing."""

    async def aclose(self) -> None:
        """Close the stream, which holds nothing."""


class ReplayedMessagesStream(ReplayedStream):
    """A replayed stream of Anthropic messages: the bytes that arrived."""

    completion_stream: Any

    def __init__(self, replay: Replay) -> None:
        stream = replay.source
        if replay.has_listeners:
            stream = _logged_bytes(replay.chunks, replay.logging_of())
        self.__dict__.update(_stored=replay.chunks, _hidden_params={}, completion_stream=stream)

    async def __anext__(self) -> Any:
        # LiteLLM streams no messages to a sync caller.
        if isinstance(self.completion_stream, EmptyStream):
            return await super().__anext__()
        return await anext(self.completion_stream)

    async def aclose(self) -> None:
        """Close LiteLLM's stream, which reports to callbacks what was read."""
        if not isinstance(self.completion_stream, EmptyStream):
            await self.completion_stream.aclose()


def _logged_bytes(chunks: StoredChunks, logging_obj: Any) -> AsyncIterator[bytes]:
    """The stored bytes through LiteLLM's iterator, which reports to callbacks at the end."""

    class Response:
        status_code = 200

        async def aiter_bytes(self) -> AsyncIterator[bytes]:
            while (chunk := await chunks.atake()) is not None:
                yield chunk

    body = {**logging_obj.optional_params, "model": logging_obj.model_call_details["model"]}
    iterator = compat.messages_module().BaseAnthropicMessagesStreamingIterator(logging_obj, body)
    stream: AsyncIterator[bytes] = iterator.get_async_streaming_response_iterator(
        Response(), body, logging_obj
    )
    return stream
