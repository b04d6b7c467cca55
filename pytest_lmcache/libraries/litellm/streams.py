"""LiteLLM's streams: watched while they are recorded, handed out chunk for chunk on replay."""

from __future__ import annotations

import asyncio
import inspect
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import Any, NoReturn, Protocol, Self, TypeAlias

from pytest_lmcache.interaction import CANCELLED, Answer
from pytest_lmcache.libraries.litellm.answers import forget_response_classes
from pytest_lmcache.libraries.litellm.chunks import chunk_reviver, forget_chunk_classes, text_as_chat
from pytest_lmcache.libraries.litellm.exceptions import error_from_plain
from pytest_lmcache.libraries.plain_data import to_plain
from pytest_lmcache.stream_chunks import whole

LEAVING = 1.0  # seconds that another task has at least to end a reader where it left when it was recorded
POLL = 0.02  # seconds between two looks at whether a thread's task was cancelled
LONGEST = 30.0  # seconds that what was cancelled when it was recorded waits to be cancelled


class Tape(Protocol):
    """What a stream tells while it is recorded."""

    def chunk(self, chunk: Any) -> None:
        """One more chunk goes to the caller."""

    def ended(self, stream: Any) -> None:
        """The stream came to its end."""

    def failed(self, error: BaseException) -> None:
        """The stream broke, or its reader was cancelled."""

    def left(self) -> None:
        """The caller closed the stream before its end."""


# Gives LiteLLM's logging object of a call; where callbacks do not listen it is made when somebody asks for it.
LoggingOf: TypeAlias = Callable[[], Any]


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
    kind: Any = type(stream)
    stream.__class__ = _recording_class(kind)
    return stream


def hidden_usage(chunk: Any) -> dict[str, Any] | None:
    """The token usage that LiteLLM hides in a stream's last chunk where its caller did not ask for it."""
    hidden = _hidden(chunk)
    usage = hidden.get("usage") if isinstance(hidden, dict) else None
    return None if usage is None else to_plain(usage.model_dump(exclude_none=True, warnings=False))


# The stream whose next chunk is being taken in this context: at its end LiteLLM 1.110 closes it itself.
_taking: ContextVar[Any] = ContextVar("pytest_lmcache_taking", default=None)


def _told(tape: Tape, stream: Any, error: BaseException) -> None:
    """Tell a tape of what a stream raised: its end, or what it broke with."""
    if isinstance(error, StopIteration | StopAsyncIteration):
        tape.ended(stream)
    else:
        tape.failed(error)


def _left(stream: Any) -> None:
    """The stream is closed: by its reader, unless its next chunk is being taken."""
    if _taking.get() is not stream:
        vars(stream)["_lmcache_tape"].left()


@cache
def _recording_class(kind: Any) -> type[Any]:
    # `_taking` goes back without a token: a reader that is given up may be closed in another context.
    def take(self: Any) -> Any:
        tape, before = vars(self)["_lmcache_tape"], _taking.get()
        _taking.set(self)
        try:
            chunk = kind.__next__(self)
        except BaseException as error:
            _taking.set(before)
            _told(tape, self, error)
            raise
        _taking.set(before)
        tape.chunk(chunk)
        return chunk

    async def atake(self: Any) -> Any:
        tape, before = vars(self)["_lmcache_tape"], _taking.get()
        _taking.set(self)
        try:
            chunk = await kind.__anext__(self)
        except BaseException as error:
            _taking.set(before)
            _told(tape, self, error)
            raise
        _taking.set(before)
        tape.chunk(chunk)
        return chunk

    def close(self: Any) -> None:
        _left(self)
        kind.close(self)

    async def aclose(self: Any) -> None:
        _left(self)
        await kind.aclose(self)

    methods: dict[str, Any] = {"__next__": take, "__anext__": atake, "close": close, "aclose": aclose}
    return _named_like(kind, (kind,), {name: how for name, how in methods.items() if hasattr(kind, name)})


def _record_generator(stream: Iterator[Any], tape: Tape) -> Iterator[Any]:
    try:
        for chunk in stream:
            tape.chunk(chunk)
            yield chunk
    except GeneratorExit:
        tape.left()
        raise
    except BaseException as error:
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
    except BaseException as error:
        tape.failed(error)
        raise
    tape.ended(stream)


class Chunks:
    """The stored chunks of one answer, given out one by one as LiteLLM's objects.

    ``cut_off`` is called where the recording ends before the stream did, and raises the miss; ``broken`` where
    LiteLLM cannot read a chunk, and raises the error.
    """

    def __init__(
        self,
        name: str,
        answer: Answer,
        cut_off: Callable[..., NoReturn],
        broken: Callable[[Exception], NoReturn],
    ) -> None:
        self.name = name
        self.answer = answer
        self.given = 0
        self.last: dict[str, Any] = {}  # the chunk given last, as plain data
        self._left = zip(answer.data, whole(answer.data), strict=True)
        self._revive = chunk_reviver(name)
        self._cut_off = cut_off
        self._is_over = False
        self._broken = broken

    def as_chat(self) -> Chunks:
        """The same chunks of text as those of a chat, which LiteLLM logs and prices."""
        answer = self.answer._replace(data=[text_as_chat(chunk) for chunk in whole(self.answer.data)])
        return Chunks("completion", answer, self._cut_off, self._broken)

    @property
    def is_last(self) -> bool:
        """Whether the chunk given last is the stream's last."""
        return self.given == len(self.answer.data)

    def take(self) -> Any | None:
        """The next chunk, None at the end. Raises the error that the stream broke with."""
        stored = next(self._left, None)
        if stored is not None:
            self.given, self.last = self.given + 1, stored[1]
            return self.guarded(self._revive, stored[0])
        if self.answer.error is not None:
            raise self.guarded(error_from_plain, self.answer.error)
        if not self.answer.complete and not self._is_over:
            wait_in_thread(self.answer)
            self._cut_off(self.answer)
        return None

    async def atake(self) -> Any | None:
        """The same for an async reader."""
        await self.settle()
        return self.take()

    async def settle(self) -> None:
        """Where the reader was cut off, wait for what cuts it off here too; a miss if nothing does."""
        if not self.is_last or self.answer.complete or self._is_over:
            return
        self._is_over = True  # for a reader that is cancelled here and asks for more, as it was live
        waited = await wait_to_be_cancelled(self.answer)
        self._cut_off(self.answer, waited=waited)

    def guarded(self, act: Callable[..., Any], *given: Any) -> Any:
        """What is made of stored data, which somebody may have edited: what is raised is ``broken``."""
        try:
            return act(*given)
        except Warning:
            raise  # it is an error by the run's own choice
        except Exception as problem:  # noqa: BLE001 - whatever a class makes of such data
            self._broken(problem)


async def wait_to_be_cancelled(answer: Answer) -> float:
    """Wait where a recording was cut off, for whoever cancels the caller to do so again; the seconds waited.

    One that left by itself may have been ended by another task: it waits for about as long as it was recorded.
    """
    from anyio import CapacityLimiter, to_thread  # the caller's loop may be trio's

    seconds = _patience(answer)
    if not seconds:
        return 0.0
    over = threading.Event()
    try:
        # In a thread: freezegun stops the loop's clock.
        await to_thread.run_sync(over.wait, seconds, abandon_on_cancel=True, limiter=CapacityLimiter(1))
    finally:
        over.set()
    return seconds


def wait_in_thread(answer: Answer) -> None:
    """The same in a thread in which a task runs sync code; raises what the task's cancellation raises there.

    In any other thread nothing can cancel a reader.
    """
    from anyio import from_thread

    over = threading.Event()
    for _ in range(round(_patience(answer) / POLL)):
        try:
            from_thread.check_cancelled()
        except RuntimeError:
            return
        over.wait(POLL)


def _patience(answer: Answer) -> float:
    """The seconds to wait where a recording was cut off."""
    if answer.ended not in {None, CANCELLED}:
        return 0.0
    return LONGEST if answer.ended else LEAVING + min(answer.seconds, LONGEST)


def replay_stream(
    chunks: Chunks, logging_of: LoggingOf, model: str, provider: str | None, *, heard: bool
) -> Any:
    """A stream of LiteLLM's own type over stored chunks; ``heard`` says that callbacks listen."""
    return _replaying_class(chunks.name)(chunks, logging_of, model, provider, heard)


def forget_classes() -> None:
    """LiteLLM's modules may have been executed anew: their classes are others then."""
    forget_response_classes()
    forget_chunk_classes()
    _replaying_class.cache_clear()
    _messages_module.cache_clear()


@cache
def _replaying_class(name: str) -> type[Any]:
    """LiteLLM's class for the streams of an entry point, with our way to the chunks in front."""
    import litellm
    from litellm.responses.streaming_iterator import ResponsesAPIStreamingIterator
    from litellm.utils import TextCompletionStreamWrapper

    if name == "anthropic_messages":
        return _messages_class()
    ours, theirs = {
        "completion": (ReplayedChat, litellm.CustomStreamWrapper),
        "text_completion": (ReplayedText, TextCompletionStreamWrapper),
        "responses": (ReplayedEvents, ResponsesAPIStreamingIterator),
    }[name]
    return _named_like(theirs, (ours, theirs), {})


def _messages_class() -> type[Any]:
    theirs: Any = getattr(_messages_module(), "AnthropicMessagesStreamingResponse", None)
    # LiteLLM 1.83 gives a plain generator.
    return ByteStream if theirs is None else _named_like(theirs, (ByteStream, theirs), {})


@cache
def _messages_module() -> Any:
    *homes, oldest = ("messages.native", "pass_through.messages", "experimental_pass_through.messages")
    for home in homes:  # LiteLLM 1.110; 1.106
        with suppress(ImportError):
            return import_module(f"litellm.llms.anthropic.{home}.streaming_iterator")
    return import_module(f"litellm.llms.anthropic.{oldest}.streaming_iterator")  # LiteLLM 1.83


def _named_like(kind: type[Any], bases: tuple[type[Any], ...], methods: dict[str, Any]) -> type[Any]:
    named = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, bases, {**methods, **named})


class Replayed:
    """A stream over stored chunks, sync and async; what a subclass does to each chunk is its ``_take``."""

    _stored: Chunks

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
        await self._settle()
        chunk = self._take()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def _settle(self) -> None:
        await self._stored.settle()

    def _take(self) -> Any:
        return self._stored.take()


class ByteStream(Replayed):
    """A replayed stream of Anthropic messages: server-sent events as the bytes that arrived."""

    completion_stream: Any

    def __init__(
        self, chunks: Chunks, logging_of: LoggingOf, _model: str, _provider: str | None, heard: bool
    ) -> None:
        stream = _told_of_bytes(chunks, logging_of()) if heard else Nothing()
        self.__dict__.update(_stored=chunks, _hidden_params={}, completion_stream=stream)

    async def __anext__(self) -> Any:
        # The async form alone: LiteLLM streams no messages in a sync one.
        if isinstance(self.completion_stream, Nothing):
            return await super().__anext__()
        return await anext(self.completion_stream)

    async def aclose(self) -> None:
        """Nothing is open; callbacks hear of what was read."""
        if not isinstance(self.completion_stream, Nothing):
            await self.completion_stream.aclose()


def _told_of_bytes(chunks: Chunks, logging_obj: Any) -> AsyncIterator[bytes]:
    """The stored bytes by the hands of LiteLLM, which tells callbacks of them at the end."""

    class Response:
        status_code = 200

        async def aiter_bytes(self) -> AsyncIterator[bytes]:
            while (chunk := await chunks.atake()) is not None:
                yield chunk

    body = {**logging_obj.optional_params, "model": logging_obj.model_call_details["model"]}
    theirs = _messages_module().BaseAnthropicMessagesStreamingIterator(logging_obj, body)
    told: AsyncIterator[bytes] = theirs.get_async_streaming_response_iterator(Response(), body, logging_obj)
    return told


class Nothing(Replayed):
    """A provider's stream that has ended."""

    async def _settle(self) -> None:
        pass

    def _take(self) -> Any:
        return None


class ReplayedText(Replayed):
    """Goes before TextCompletionStreamWrapper; callbacks hear of the chat's stream that LiteLLM makes it from."""

    def __init__(
        self, chunks: Chunks, logging_of: LoggingOf, model: str, provider: str | None, heard: bool
    ) -> None:
        chat = (
            replay_stream(chunks.as_chat(), logging_of, model, provider, heard=True) if heard else Nothing()
        )
        self.__dict__.update(completion_stream=chat, model=model, custom_llm_provider=provider)
        self.__dict__.update(stream_options=None, _stored=chunks)

    def __next__(self) -> Any:
        next(vars(self)["completion_stream"], None)
        return super().__next__()

    async def __anext__(self) -> Any:
        await anext(vars(self)["completion_stream"], None)
        return await super().__anext__()


class ReplayedChat(Replayed):
    """Goes before CustomStreamWrapper, whose own end of a stream logs and prices it where callbacks listen."""

    chunks: list[Any]
    _heard: bool

    def __init__(
        self, chunks: Chunks, logging_of: LoggingOf, model: str, provider: str | None, heard: bool
    ) -> None:
        self.__dict__.update(
            model=model,
            custom_llm_provider=provider,
            completion_stream=Nothing(),
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
            _logging_of=logging_of,
            _usage=(chunks.answer.hidden or {}).get("usage"),
        )
        if heard:
            self._prepare()

    def __getattr__(self, name: str) -> Any:
        # LiteLLM prepares a stream with models that take half a second to build when first used: only for a
        # reader who wants more of it than its chunks.
        if name.startswith("__") or "_is_prepared" in self.__dict__:
            raise AttributeError(name)
        self._prepare()
        return getattr(self, name)

    def __del__(self) -> None:
        # LiteLLM 1.110 cleans up here; what was not prepared has nothing to clean up.
        theirs: Any = super()
        if "_is_prepared" in self.__dict__ and hasattr(theirs, "__del__"):
            theirs.__del__()

    def __next__(self) -> Any:
        try:
            chunk = self._take()
        except Exception as error:
            self._tell_failure(error)
            raise
        if chunk is None:
            return self._theirs().__next__()
        if self._heard:
            from litellm.litellm_core_utils.thread_pool_executor import executor

            executor.submit(self.run_success_logging_and_cache_storage, chunk, False)
        return chunk

    async def __anext__(self) -> Any:
        await self._settle()
        try:
            chunk = self._take()
        except Exception as error:
            self._tell_failure(error, asyncio.create_task)
            raise
        return await self._theirs().__anext__() if chunk is None else chunk

    def _tell_failure(self, error: Exception, run: Callable[[Any], Any] | None = None) -> None:
        """Tell callbacks that the stream broke, as LiteLLM's class does; ``run`` runs a coroutine beside an async reader."""
        if not self._heard:
            return
        cause = getattr(error, "original_exception", None) or error
        told = cause, "".join(traceback.format_exception(error))
        together = getattr(self.logging_obj, "dispatch_attempt_failure_handlers", None)  # LiteLLM 1.110
        if run is None or together is None:
            threading.Thread(target=self.logging_obj.failure_handler, args=told).start()
        if run is not None:
            tell = together or self.logging_obj.async_failure_handler
            self.__dict__["_failure_logging"] = run(tell(*told))

    def _theirs(self) -> Any:
        """What ends the stream: LiteLLM's own class, where callbacks are to hear of it."""
        return super(Replayed, self) if self._heard else Nothing()

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
        self.__dict__.update(ours, _hidden_params=hidden if self._heard else ours["_hidden_params"])

    def _take(self) -> Any:
        chunk = self._stored.take()
        if chunk is None:
            self._stored.guarded(self._tell_usage)
            return None
        self._stored.guarded(self._note, chunk)
        return chunk

    def _note(self, chunk: Any) -> None:
        """Keep of a chunk what LiteLLM's class keeps of it."""
        if not self.chunks:
            self.__dict__.update(created=chunk.created, response_id=chunk.id)
        hidden: dict[str, Any] = _hidden(chunk)
        hidden["custom_llm_provider"] = self.custom_llm_provider
        self.chunks.append(chunk)
        # As stored: pydantic takes longer to give what a chunk says.
        for choice in self._stored.last.get("choices", [])[:1]:
            own = self.__dict__
            own["response_uptil_now"] += (choice.get("delta") or {}).get("content") or ""
            own["received_finish_reason"] = choice.get("finish_reason") or own["received_finish_reason"]
        if self._usage and self._stored.is_last:
            hidden["usage"] = _usage(self._usage)

    def _tell_usage(self) -> None:
        if self._usage and self.chunks and not any(map(_has_usage, self.chunks)):
            # The caller holds the last chunk: only LiteLLM's copy of it gets the usage.
            last = self.chunks[-1].model_copy()
            last.usage = _usage(self._usage)
            self.chunks[-1] = last


class ReplayedEvents(Replayed):
    """Goes before ResponsesAPIStreamingIterator; the last event is logged by LiteLLM's own hands."""

    def __init__(
        self, chunks: Chunks, logging_of: LoggingOf, model: str, provider: str | None, heard: bool
    ) -> None:
        import httpx

        theirs: Any = super()
        theirs.__init__(
            response=httpx.Response(200, content=b""),
            model=model,
            responses_api_provider_config=None,
            logging_obj=logging_of(),
            custom_llm_provider=provider,
        )
        self._stored = chunks
        self._heard = heard

    def __next__(self) -> Any:
        event = super().__next__()
        if self._is_last(event):
            from litellm.responses.streaming_iterator import SyncResponsesAPIStreamingIterator

            SyncResponsesAPIStreamingIterator._handle_logging_completed_response(self)  # noqa: SLF001
        return event

    async def __anext__(self) -> Any:
        event = await super().__anext__()
        if self._is_last(event):
            theirs: Any = self
            theirs._handle_logging_completed_response()  # noqa: SLF001 - as LiteLLM's own does
        return event

    def _take(self) -> Any:
        try:
            event = self._stored.take()
        except Exception as error:
            theirs: Any = self
            if self._heard:
                theirs._handle_failure(error)  # noqa: SLF001
            raise
        self.finished = event is None
        return event

    def _is_last(self, event: Any) -> bool:
        if str(getattr(event.type, "value", event.type)) not in {"response.completed", "response.incomplete"}:
            return False
        self.completed_response = event
        return self._heard


def _hidden(chunk: Any) -> Any:
    """What LiteLLM keeps of a chunk beside its fields, to be changed in place; None for one of another kind."""
    # pydantic's own way to a private attribute takes ten times as long.
    private = getattr(chunk, "__pydantic_private__", None) or {}
    return (
        private["_hidden_params"] if "_hidden_params" in private else getattr(chunk, "_hidden_params", None)
    )


def _has_usage(chunk: Any) -> bool:
    # Not by getattr: of an attribute that is not there pydantic makes an error first.
    return bool(vars(chunk).get("usage") or (chunk.model_extra or {}).get("usage"))


def _usage(fields: dict[str, Any]) -> Any:
    from litellm.types.utils import Usage

    return Usage(**fields)
