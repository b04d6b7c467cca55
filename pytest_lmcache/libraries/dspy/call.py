"""One call of DSPy's own engine: what it asks, where it goes, and its answers <-> plain data.

DSPy asks the same by its own engine and by LiteLLM: a recorded response of the one answers a call of the other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pytest_lmcache.interaction import Answer, Call, Kind, copied
from pytest_lmcache.keys.plain import request_of
from pytest_lmcache.libraries.dspy import answers
from pytest_lmcache.libraries.recorded_call import RecordedCall, wait_to_be_cancelled_in_thread
from pytest_lmcache.libraries.stream_recording import StreamCodec
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.recordings import Equivalence
from pytest_lmcache.staged_answers import AnswerBuilder
from pytest_lmcache.stream_chunks import Chunk, packer, whole

NAME, LITELLM = "dspy", "completion"


class EngineCall:
    """A call of ``complete`` or ``stream`` of one of DSPy's engines."""

    __slots__ = ("_engine", "_is_async", "_is_stream", "_request", "model", "name")
    library: ClassVar[str] = "DSPy"
    without_usage = staticmethod(answers.without_usage)
    error_from_plain = staticmethod(answers.error_from_plain)

    def __init__(self, engine: Any, request: Any, *, is_stream: bool, is_async: bool) -> None:
        self.name = NAME
        self.model: str = request.model
        self._engine = engine
        self._request = request
        self._is_stream = is_stream
        self._is_async = is_async

    @property
    def asked_with(self) -> tuple[Any, ...]:
        """What the engine's method takes."""
        return self._engine, self._request

    def again(self, model: str) -> EngineCall:
        """The same question to a model; an engine reports to nobody."""
        return self if model == self.model else self.to_model(model)

    def to_model(self, model: str) -> EngineCall:
        """The same call, but of another model, which the same engine asks."""
        request = replace(self._request, model=model)
        return EngineCall(self._engine, request, is_stream=self._is_stream, is_async=self._is_async)

    def request(self, recorder: Recorder) -> dict[str, Any]:
        """The normalized request, not redacted."""
        config = self._engine.config
        for name, by_provider in {"api_key": config.api_keys, "base_url": config.base_urls}.items():
            recorder.redact.learn({f"{each}_{name}": value for each, value in (by_provider or {}).items()})
        question = answers.question(self._request, self._engine.model_type, stream=self._is_stream)
        return request_of((), (), question, self.name)

    def address(self) -> str:
        """Where the engine sends the request."""
        return answers.address(self._request, self._engine)

    def stream_codec(self, _result: Any, _keep_headers: Sequence[str]) -> StreamCodec | None:
        """What records a stream event by event."""
        if not self._is_stream:
            return None
        pack = packer()

        def to_answer(events: list[Chunk]) -> Answer:
            usd = answers.price_of_stream(events, self._request, self._engine)
            return Answer(Kind.STREAM, events, usd=usd)

        return StreamCodec(lambda event: pack(answers.event_to_plain(event)), to_answer)

    def to_answer(self, result: Any, _keep_headers: Sequence[str]) -> Answer:
        """Convert a response."""
        usd = answers.price(result, self._request, self._engine)
        return Answer(Kind.RESPONSE, answers.response_to_plain(result), usd=usd)

    def prepare_replay(self, answer: Answer, recorded: RecordedCall) -> None:
        """Do nothing: an engine reports to nobody."""

    def from_answer(self, answer: Answer, recorded: RecordedCall) -> Any:
        """Build the engine's response, or an iterator over its events, sync or async."""
        if answer.kind is Kind.STREAM:
            return (self._aevents if self._is_async else self._events)(answer, recorded)
        return answers.mark_hit(answers.response_from_plain(answer.data))

    def _events(self, answer: Answer, recorded: RecordedCall) -> Iterator[Any]:
        __tracebackhide__ = True
        for data in whole(answer.data):
            yield recorded.build(answers.event_from_plain, data)
        if answer.error is not None:
            raise recorded.build(answers.error_from_plain, answer.error)
        if not answer.complete:
            wait_to_be_cancelled_in_thread(answer)
            recorded.cut_off(answer)

    async def _aevents(self, answer: Answer, recorded: RecordedCall) -> AsyncIterator[Any]:
        for data in whole(answer.data):
            yield recorded.build(answers.event_from_plain, data)
        if not answer.complete:
            await recorded.wait_to_be_cancelled(answer)
        if answer.error is not None:
            raise recorded.build(answers.error_from_plain, answer.error)

    def error_to_plain(
        self, error: Exception, keep_headers: Sequence[str]
    ) -> tuple[dict[str, Any] | None, bool]:
        """Convert an error of the engine's; and whether asking again would raise it again."""
        return answers.error_to_plain(error, keep_headers), answers.is_lasting(error)

    def builder(self, call: Call) -> AnswerBuilder:
        """What makes the faults and the replies of the test."""
        from pytest_lmcache.libraries.dspy.staged import Builder

        return Builder(call, answers.provider(self._request, self._engine))

    def saved_by_prompt_cache(self, cached: tuple[int, int]) -> float:
        """What the provider's own prompt cache saved, in USD."""
        return answers.saved_by_prompt_cache(cached, self._request, self._engine)


# ---------------------------------------------------------------- the same call by either engine


def _other_name(call: Call) -> str | None:
    """The name of a call by the other engine; streams cannot be converted."""
    return None if call.request.get("stream") else {NAME: LITELLM, LITELLM: NAME}.get(call.name)


def _as_own(call: Call) -> Call | None:
    """A call as DSPy's own engine makes it; None if it cannot."""
    if call.name == NAME:
        return call
    if call.request.get("n", 1) != 1:
        return None
    from dspy.lm15 import request_from_openai_chat

    body = {name: value for name, value in call.request.items() if name != "n"}
    try:
        body.update(_strict_format(body.get("response_format")))
        asked = answers.question(request_from_openai_chat(body), "chat", stream=False)
    except Exception:  # noqa: BLE001 - DSPy raises whatever it likes for a request that it cannot convert
        return None
    return Call(NAME, request_of((), (), asked, NAME))


def _strict_format(form: Any) -> dict[str, Any]:
    """The schema of a pydantic class as DSPy's own engine sends it: strict."""
    if not isinstance(form, dict) or form.keys() != {"name", "schema"}:
        return {}
    from dspy.clients.legacy_requests import _strict_json_schema

    form = {"name": form["name"], "schema": _strict_json_schema(copied(form["schema"])), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def _convert(call: Call, answer: Answer) -> Answer:
    """A response that the other engine recorded, as this call's engine gives it."""
    if call.name == LITELLM:
        return answer._replace(data=_chat(answers.response_from_plain(answer.data), call.request))
    from dspy.lm15 import response_from_openai_chat

    response = response_from_openai_chat(dict(answer.data), model=call.request["model"])
    return answer._replace(data=answers.response_to_plain(response), hidden=None)


def _chat(response: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """A response of DSPy's own engine as LiteLLM gives it."""
    from dspy.clients.call_result import legacy_output, usage_dict

    output = legacy_output(response, logprobs=response.logprobs is not None)
    message = {"role": "assistant", "content": output["text"]}
    message.update((name, output[name]) for name in ("tool_calls", "reasoning_content") if name in output)
    reason = "tool_calls" if response.finish_reason == "tool_call" else response.finish_reason
    choice = {"index": 0, "finish_reason": reason, "message": message}
    if "logprobs" in output:
        choice["logprobs"] = output["logprobs"]
    provider = request["model"].partition("/")[0]
    data = {
        "id": response.id,
        "created": 0,
        "model": response.model,
        "object": "chat.completion",
        "choices": [choice],
        "usage": usage_dict(response, provider),
    }
    plain: dict[str, Any] = copied(data)
    return plain


EQUIVALENCE = Equivalence("DSPy", _other_name, _as_own, _convert)
