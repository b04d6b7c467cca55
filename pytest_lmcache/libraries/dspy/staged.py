"""What a call of DSPy's own engine gets if its test has set up a fault or a reply."""

from __future__ import annotations

from typing import Any

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.libraries.dspy import answers
from pytest_lmcache.libraries.litellm.staged_errors import cannot_build
from pytest_lmcache.libraries.litellm.staged_replies import Draft, chat, event_usage
from pytest_lmcache.libraries.plain_data import LiveError
from pytest_lmcache.libraries.provider_errors import ERRORS, OTHER, REQUEST_ID
from pytest_lmcache.staged_answers import Cut, Fail, Reply
from pytest_lmcache.stream_chunks import pack

CLASSES = {
    "RateLimitError": "RateLimitError",
    "AuthenticationError": "AuthError",
    "PermissionDeniedError": "AuthError",
    "NotFoundError": "UnsupportedModelError",
    "BadRequestError": "InvalidRequestError",
    "ContextWindowExceededError": "ContextLengthError",
    "ContentPolicyViolationError": "InvalidRequestError",
    "UnprocessableEntityError": "InvalidRequestError",
    "InternalServerError": "ServerError",
    "APIError": "ServerError",
    "BadGatewayError": "ServerError",
    "ServiceUnavailableError": "ServerError",
    "Timeout": "TimeoutError",
    "APIConnectionError": "TransportError",
}
"""The engine's classes for LiteLLM's."""
REASONS = {"tool_calls": "tool_call"}
LOST = "server closed connection before sending response"


class Builder:
    """Makes what a call gets; see `AnswerBuilder`. ``provider`` is the engine's name for who is asked."""

    timeout: float | None = None

    def __init__(self, call: Call, provider: str) -> None:
        self._call = call
        self._provider = provider

    @property
    def _model(self) -> str:
        return str(self._call.request["model"]).rpartition("/")[2]

    def error(self, fault: Fail) -> Answer:
        """The answer that raises an error: of the engine's class for one of LiteLLM's."""
        return Answer(Kind.ERROR, self._live(fault))

    def reply(self, reply: Reply, number: int) -> Answer:
        """The answer that the test gives."""
        draft = Draft(reply, self._model, self._call.request, number)
        if self._call.request.get("stream"):
            return Answer(Kind.STREAM, pack(_events(draft)), usd=0.0)
        from dspy.lm15 import response_from_openai_chat

        response = response_from_openai_chat(chat(draft), model=self._call.request["model"])
        return Answer(Kind.RESPONSE, answers.response_to_plain(response), usd=0.0)

    def timed_out(self) -> Answer:
        """The answer that raises the engine's error for a call that took too long."""
        from dspy import lm15

        return self.error(Fail(lm15.TimeoutError, ERRORS["Timeout"].message))

    def cut(self, stream: Answer, cut: Cut) -> Answer:
        """A recorded stream that breaks."""
        error = None
        if cut.error is not None:
            from dspy import lm15

            is_lost = cut.error is ConnectionError
            error = self._live(Fail(lm15.TransportError, LOST) if is_lost else Fail(cut.error))
        return Answer(Kind.STREAM, stream.data[: cut.after], error=error, usd=0.0)

    def _live(self, fault: Fail) -> LiveError:
        error = self._error(fault)
        kind = type(error)
        stored = answers.error_to_plain(error, ["*"])
        return LiveError(
            error, stored or {"class": f"{kind.__module__}.{kind.__name__}", "message": str(error)}
        )

    def _error(self, fault: Fail) -> Exception:
        from dspy import lm15

        if not isinstance(fault.error, type):
            return fault.error.with_traceback(None)  # type: ignore[return-value]
        found = next((base.__name__ for base in fault.error.__mro__ if base.__name__ in CLASSES), "")
        is_litellm = fault.error.__module__.startswith("litellm.")
        wire = ERRORS.get(found, OTHER)
        kind: Any = getattr(lm15, CLASSES.get(found, "ProviderError")) if is_litellm else fault.error
        if not issubclass(kind, lm15.LM15Error):
            try:
                return kind() if fault.message is None else kind(fault.message)  # type: ignore[no-any-return]
            except TypeError as problem:
                raise cannot_build(kind, problem) from None
        message = fault.message or wire.message.format(model=self._model)
        given: dict[str, Any] = {"provider": self._provider}
        if wire.status and is_litellm:
            code = wire.code or wire.openai_type
            given.update(status=wire.status, provider_code=code, request_id=REQUEST_ID)
        if fault.retry_after is not None:
            given["retry_after"] = float(fault.retry_after)
            given["rate_limit_headers"] = {"retry-after": (f"{fault.retry_after:g}",)}
        error: Exception = kind(message, **given)
        return error


def _events(draft: Draft) -> list[dict[str, Any]]:
    """The events of a stream of the engine."""
    if draft.reply.embedding is not None:
        raise SettingsError("lm_cache.reply: this call of DSPy asks for a text, not for an embedding.")
    deltas: list[dict[str, Any]] = []
    part = 0
    if draft.reply.reasoning is not None:
        deltas.append({"type": "thinking", "text": draft.reply.reasoning, "part_index": part})
        part += 1
    pieces = [piece for piece in draft.reply.pieces if piece]
    deltas += [{"type": "text", "text": piece, "part_index": part} for piece in pieces]
    part += bool(pieces)
    for own, name, arguments in draft.tool_calls():
        call = {"type": "tool_call", "id": own, "name": name, "input": arguments}
        deltas.append({**call, "part_index": part})
        part += 1
    usage = event_usage(draft.reply.usage)
    reason = REASONS.get(draft.finish_reason, draft.finish_reason)
    return [
        {"type": "start", "model": draft.model, "id": f"chatcmpl-reply-{draft.number}"},
        *({"type": "delta", "delta": delta} for delta in deltas),
        {"type": "end", "finish_reason": reason, "usage": {**usage, "total_tokens": sum(usage.values())}},
    ]
