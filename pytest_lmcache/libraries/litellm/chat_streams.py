"""Replayed streams of chat and text completions: LiteLLM's own classes over stored chunks."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable
from typing import Any

from pytest_lmcache.libraries.litellm import compat
from pytest_lmcache.libraries.litellm.answers import hidden_params
from pytest_lmcache.libraries.litellm.stored_chunks import EmptyStream, Replay, ReplayedStream


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
            _usage=(replay.chunks.answer.hidden or {}).get("usage"),
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
        self.chunks.append(chunk)
        # Of the plain data, since pydantic's attributes are slower.
        for choice in self._stored.last.get("choices", [])[:1]:
            own = self.__dict__
            own["response_uptil_now"] += (choice.get("delta") or {}).get("content") or ""
            own["received_finish_reason"] = choice.get("finish_reason") or own["received_finish_reason"]
        if self._usage and self._stored.is_last:
            hidden["usage"] = _usage(self._usage)

    def _add_usage(self) -> None:
        """Add the usage to LiteLLM's copy of the last chunk, of which the caller holds the original."""
        if self._usage and self.chunks and not any(map(_has_usage, self.chunks)):
            last = self.chunks[-1].model_copy()
            last.usage = _usage(self._usage)
            self.chunks[-1] = last


def _has_usage(chunk: Any) -> bool:
    # Not by getattr: pydantic builds an error for an attribute that is missing.
    return bool(vars(chunk).get("usage") or (chunk.model_extra or {}).get("usage"))


def _usage(fields: dict[str, Any]) -> Any:
    from litellm.types.utils import Usage

    return Usage(**fields)
