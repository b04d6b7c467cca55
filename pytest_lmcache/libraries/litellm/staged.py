"""What a call of LiteLLM's gets if its test has set up a fault or a reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.libraries.litellm import staged_errors, usage
from pytest_lmcache.libraries.litellm.staged_replies import STREAMED, WHOLE, Draft, chat_usage
from pytest_lmcache.staged_answers import Cut, Fail, Reply
from pytest_lmcache.stream_chunks import Chunk, pack, whole

CLIENT_ERRORS = range(400, 500)
PASSING_ERRORS = frozenset({408, 429})
LOST = "peer closed connection without sending complete message body (incomplete chunked read)"
LOST_BY_ASYNC_CLIENT = (
    "Response payload is not completed: <TransferEncodingError: 400, "
    "message='Not enough data to satisfy transfer length header.'>"
)


class Names(NamedTuple):
    """A model and its provider as LiteLLM names them, and the model as the call's errors name it."""

    model: str
    provider: str
    in_errors: str


class Builder:
    """Makes what a call gets; see `AnswerBuilder`. ``is_async``: an async function was called."""

    def __init__(
        self, call: Call, names: Names, *, is_async: bool = False, timeout: float | None = None
    ) -> None:
        self._call = call
        self._names = names
        self._is_async = is_async
        self.timeout = timeout

    def error(self, fault: Fail) -> Answer:
        """The answer that raises an error."""
        return Answer(Kind.ERROR, staged_errors.live(self._error(fault)))

    def reply(self, reply: Reply, number: int) -> Answer:
        """The answer that the test gives."""
        draft = Draft(reply, self._names.model, self._call.request, number)
        name, streamed = self._call.name, bool(self._call.request.get("stream"))
        if not (streamed and name in STREAMED):
            return Answer(Kind.RESPONSE, WHOLE[name](draft), usd=self._price(reply))
        # LiteLLM counts the tokens itself if it finds no usage.
        hidden = {"usage": chat_usage(reply.usage)} if name != "anthropic_messages" else None
        return Answer(Kind.STREAM, pack(STREAMED[name](draft)), hidden=hidden, usd=self._price(reply))

    def timed_out(self) -> Answer:
        """The answer that raises LiteLLM's error for a call that took too long."""
        import litellm

        return self.error(Fail(litellm.Timeout))

    def cut(self, stream: Answer, cut: Cut) -> Answer:
        """A recorded stream that breaks."""
        data = stream.data[: cut.after]
        error = self._error_in_stream(cut, data)
        return Answer(Kind.STREAM, data, error=None if error is None else staged_errors.live(error), usd=0.0)

    def _error(self, fault: Fail) -> Exception:
        asked = staged_errors.Asked(self._call.name, self._names.in_errors, self._names.provider)
        return staged_errors.build(fault, asked)

    def _price(self, reply: Reply) -> float | None:
        if reply.usage is None:
            return 0.0
        return usage.price_of_usage(chat_usage(reply.usage), self._names.model, self._names.provider)

    def _error_in_stream(self, cut: Cut, data: list[Chunk]) -> Exception | None:
        """The error as a reader of this kind of stream gets it."""
        import httpx
        import litellm

        if cut.error is None:
            return None
        is_lost, name = cut.error is ConnectionError, self._call.name
        lost = LOST_BY_ASYNC_CLIENT if self._is_async else LOST
        if is_lost and name not in {"completion", "text_completion"}:
            return httpx.ReadError(lost) if self._is_async else httpx.RemoteProtocolError(lost)
        error = self._error(Fail(litellm.APIConnectionError, lost) if is_lost else Fail(cut.error))
        status = getattr(error, "status_code", None)
        is_final = status in CLIENT_ERRORS and status not in PASSING_ERRORS
        is_own = not type(error).__module__.startswith("litellm.")
        if name not in {"completion", "text_completion"} or is_final or is_own:
            return error
        broken: Exception = litellm.exceptions.MidStreamFallbackError(
            message=str(error),
            model=self._names.model,
            llm_provider=self._names.provider,
            original_exception=error,
            generated_content="".join(map(_text, whole(data))),
            is_pre_first_chunk=not data,
        )
        if name == "completion" or not is_lost:
            return broken
        return self._error(Fail(litellm.InternalServerError, str(broken)))


def builder_of(
    call: Call,
    model: str,
    provider: str | None,
    *,
    asked: str,
    is_async: bool = False,
    timeout: Any = None,
) -> Builder:
    """The builder for a call; ``asked`` is the model as the caller names it, ``timeout`` what the caller gives."""
    # In the errors of an async chat LiteLLM names the model as the caller does.
    in_errors = asked if is_async and call.name in {"completion", "anthropic_messages"} else model
    seconds = getattr(timeout, "read", timeout)
    return Builder(
        call,
        Names(model, provider or "openai", in_errors),
        is_async=is_async,
        timeout=float(seconds) if isinstance(seconds, int | float) else None,
    )


def _text(chunk: Mapping[str, Any]) -> str:
    return "".join(
        (choice.get("delta") or {}).get("content") or choice.get("text") or ""
        for choice in chunk.get("choices", ())
    )
