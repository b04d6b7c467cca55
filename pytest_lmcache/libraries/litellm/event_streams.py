"""Replayed streams of server-sent events: those of ``responses()``, and Anthropic messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pytest_lmcache.libraries.litellm import compat
from pytest_lmcache.libraries.litellm.stored_chunks import (
    EmptyStream,
    Replay,
    ReplayedStream,
    StoredChunks,
)


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
