"""One call of LiteLLM's, between the door and its recorder."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from pytest_lmcache.address import plain
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.keys.plain import request_of
from pytest_lmcache.libraries import recorded_call
from pytest_lmcache.libraries.litellm import answers, chunks, exceptions, prices, streams, usage
from pytest_lmcache.libraries.litellm.stored_chunks import StoredChunks
from pytest_lmcache.libraries.recorded_call import StreamRecording, after_call
from pytest_lmcache.libraries.stream_recording import is_stream, record_stream
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.settings import Mode, Usage
from pytest_lmcache.stream_chunks import Chunk

# What LiteLLM calls while it answers a call is a part of that.
inside: ContextVar[bool] = ContextVar("pytest_lmcache_inside", default=False)


class LiteLLMCall(recorded_call.RecordedCall):
    """One call of LiteLLM's."""

    __slots__ = ("kwargs",)
    library = "LiteLLM"

    def __init__(
        self,
        recorder: Recorder,
        name: str,
        parameters: Sequence[str],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        __tracebackhide__ = True
        self.kwargs = kwargs

        def ask() -> dict[str, Any]:
            recorder.redact.learn(kwargs)
            return request_of(parameters, args, kwargs, name)

        super().__init__(recorder, name, str(kwargs.get("model") or (args[0] if args else "")), ask)

    def address(self) -> str:
        """Where LiteLLM sends the call: by its client, its arguments, LiteLLM's settings, the environment."""
        import litellm

        given = (
            getattr(self.kwargs.get("client"), "base_url", None),
            self.kwargs.get("base_url"),
            self.kwargs.get("api_base"),
            getattr(litellm, "api_base", None),
        )
        return plain(next(filter(None, given), None) or _usual_address(self.model, self.kwargs))

    def store_error(self, error: Exception) -> tuple[dict[str, Any] | None, bool]:
        """An error as plain data, None for one that is not LiteLLM's, and whether it will come again."""
        return exceptions.error_to_plain(error), exceptions.is_lasting(error)

    def saved_by_prompt_cache(self) -> float:
        """What the provider's own prompt cache saved on this call, in USD."""
        return prices.saved_by_prompt_cache(self.record.cached, self.model, self._provider)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around the provider's call: what LiteLLM calls meanwhile is a part of it."""
        __tracebackhide__ = True
        with inside_call(self.kwargs), super().asking():
            yield

    def replay(self, stored: Answer) -> Any:
        """The stored answer as LiteLLM would have given it; a stored error is raised."""
        __tracebackhide__ = True
        if self.recorder.settings.usage is Usage.EMPTY:
            stored = self.revived(usage.without_usage, stored)
        provider, heard = self._tell(stored)
        if stored.kind is Kind.UNANSWERED:
            self.cut_off(stored)
        if stored.kind is Kind.ERROR:
            raise self.revived(exceptions.error_from_plain, stored.data)
        return self.revived(self._replayed, stored, provider, heard)

    def _replayed(self, stored: Answer, provider: str | None, heard: bool) -> Any:
        name = self.call.name
        if stored.kind is Kind.STREAM:
            stored_chunks = StoredChunks(name, stored, self.cut_off, self.broken)
            logging_of = functools.partial(self._logging_obj, stored)
            result = streams.replay_stream(
                stored_chunks, logging_of, self.model, provider, has_listeners=heard
            )
        else:
            result = answers.response_from_plain(name, stored.data)
            answers.restore_hidden(result, stored.hidden, provider)
        return self._marked(self._completed(result, stored))

    def _completed(self, result: Any, _stored: Answer) -> Any:
        """An answer with what LiteLLM's wrapper will not put into it: nothing, where it goes through that."""
        return result

    def _logging_obj(self, _stored: Answer) -> Any:
        """What LiteLLM tells callbacks of this call with."""
        return self.kwargs.get("litellm_logging_obj")

    def _tell(self, stored: Answer) -> tuple[str | None, bool]:
        """Tell LiteLLM's logging of an answer; its provider, and whether callbacks listen."""
        logging_obj = self._logging_obj(stored)
        heard = has_listeners(logging_obj, fails=stored.error is not None)
        return self.tell_logging(logging_obj, stored, heard=heard), heard

    def taken(self, result: Any) -> Any:
        """Take down what the provider gave; a stream is recorded while it is read."""
        name = self.call.name
        self._hush()
        if is_stream(result):
            hidden: dict[str, Any] | None = None
            last: Any = None
            store_chunk = chunks.chunk_packer(name)

            def store(chunk: Any) -> Chunk:
                nonlocal hidden, last
                stored, last = store_chunk(chunk), chunk
                if not isinstance(stored, str):
                    hidden = usage.hidden_usage(chunk) or hidden
                return stored

            def whole(stored: list[Chunk]) -> Answer:
                # LiteLLM 1.110 counts at the end what the provider did not tell, and puts it into the last chunk.
                told = usage.hidden_usage(last) or hidden or usage.usage_in_events(stored)
                answer = Answer(Kind.STREAM, stored, hidden={"usage": told} if told else None)
                return answer._replace(usd=prices.price_of_usage(answer.usage, self.model, self._provider))

            return record_stream(result, StreamRecording(self, store, whole))
        data, hidden = answers.response_to_plain(name, result)
        self.finish(Answer(Kind.RESPONSE, data, hidden=hidden, usd=self._price(result)))
        return result

    def _hush(self) -> None:
        """Spare LiteLLM what it prepares, in threads that hold up the next call, where no callback listens by then."""
        logging_obj = self.kwargs.get("litellm_logging_obj")
        if logging_obj is None or self.recorder.mode is Mode.LIVE:
            return
        for name, silence in QUIET.items():
            if (tell := getattr(logging_obj, name, None)) is not None:
                vars(logging_obj)[name] = functools.partial(_tell_if_listened_to, logging_obj, tell, silence)

    def _price(self, result: Any) -> float | None:
        """What an answer cost: LiteLLM is about to calculate it, and takes what already stands in the answer."""
        hidden = getattr(result, "_hidden_params", None)
        if not isinstance(hidden, dict):
            return prices.price(result, self.model, self._provider)
        usd = self.calculated(result, self.kwargs.get("litellm_logging_obj"))
        if usd is not None:
            hidden["response_cost"] = usd
        return usd

    def calculated(self, result: Any, logging_obj: Any) -> float | None:
        """What LiteLLM says that an answer costs, by its price map and what the call asked for."""
        calculate = _calculator(logging_obj)
        if calculate is None:
            return prices.price(result, self.model, self._provider)
        model_id = (self.kwargs.get("model_info") or {}).get("id")
        usd: float | None = calculate(result=result, litellm_model_name=self.model, router_model_id=model_id)
        return None if usd is None else prices.rounded(usd)

    @property
    def _provider(self) -> str | None:
        return self.kwargs.get("custom_llm_provider")

    def _marked(self, result: Any) -> Any:
        """Marked as one that did not come from the provider, openly when DSPy has counted its usage."""
        is_counted = self.recorder.settings.usage is Usage.RECORDED
        waits = is_counted and after_call(functools.partial(answers.mark_hit, result))
        return answers.mark_hit(result, openly=not waits)

    def tell_logging(self, logging_obj: Any, stored: Answer, *, heard: bool) -> str | None:
        """Tell LiteLLM's logging what its provider code would have told it: model, provider, parameters."""
        model, provider = self.model_and_provider()
        if logging_obj is None:
            return provider
        # LiteLLM notes prices that come with a call where it asks the provider: the recorded price has them.
        is_known = self.recorder.settings.usage is Usage.EMPTY or self._has_own_prices()
        if not heard:
            vars(logging_obj).update(QUIET)
        if is_known or not heard:
            # LiteLLM would price the answer again, a stream with a tokenizer when it begins, which gives 0.
            usd = 0.0 if stored.kind is Kind.STREAM and not is_known else stored.usd
            if usd is not None and (is_known or not self.kwargs.get("model_info")):
                _price_with(logging_obj, functools.partial(_known_cost, usd))
        elif stored.kind is Kind.STREAM and (price := _calculator(logging_obj)) is not None:
            _price_with(logging_obj, functools.partial(_cost_at_the_end, price))
        request = self.call.request
        flag = {ASYNC_FLAGS[name]: True} if (name := logging_obj.call_type) in ASYNC_FLAGS else {}
        logging_obj.update_environment_variables(
            model=model,
            user=self.kwargs.get("user"),
            optional_params={name: request[name] for name in request if name not in QUESTION},
            litellm_params={name: self.kwargs.get(name) or {} for name in ("metadata", "model_info")} | flag,
            custom_llm_provider=provider,
        )
        if heard:
            asked = next((request[name] for name in ("messages", "input", "prompt") if name in request), "")
            logging_obj.pre_call(input=asked, api_key="", additional_args={})
            if stored.kind is Kind.RESPONSE:
                logging_obj.post_call(
                    original_response=json.dumps(stored.data, default=str), input=asked, api_key=""
                )
        return provider

    def model_and_provider(self) -> tuple[str, str | None]:
        """The model and its provider as LiteLLM names them."""
        import litellm

        model, provider = _model_and_provider(self.model, self.kwargs)
        if (
            self.call.name == "text_completion"
            and provider == "openai"
            and model not in litellm.open_ai_chat_completion_models
        ):
            provider = "text-completion-openai"  # as LiteLLM goes on to call it
        return model, provider

    def _has_own_prices(self) -> bool:
        return any("cost_per" in name for name in self.kwargs) and not self.kwargs.get("model_info")


@contextmanager
def inside_call(kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Around the provider's call: what LiteLLM calls meanwhile is a part of it, but not what callbacks call."""
    logging_obj = kwargs.get("litellm_logging_obj")
    for name in ("pre_call", "post_call"):
        if (tell := getattr(logging_obj, name, None)) is not None:
            vars(logging_obj)[name] = functools.partial(_outside, tell)
    token = inside.set(True)
    try:
        yield
    finally:
        inside.reset(token)


def _outside(tell: Callable[..., Any], /, *args: Any, **more: Any) -> Any:
    token = inside.set(False)
    try:
        return tell(*args, **more)
    finally:
        inside.reset(token)


def _tell_nobody(*_: Any, **__: Any) -> None:
    """LiteLLM's logging of a replayed call that no callback listens to."""


def _tell_if_listened_to(
    logging_obj: Any, tell: Callable[..., Any], silence: Callable[..., Any], /, *args: Any, **more: Any
) -> Any:
    return (tell if has_listeners(logging_obj, fails=True) else silence)(*args, **more)


class _Silence(Coroutine[None, None, None]):
    """The same, async: nothing to await, and no complaint where LiteLLM never awaits it.

    To ``inspect.getcoroutinestate``, which LiteLLM asks of what waits when an event loop has ended, it is over.
    """

    cr_running = cr_suspended = False
    cr_frame = cr_await = None

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __await__(self) -> Iterator[None]:  # type: ignore[override]
        return iter(())

    def send(self, _value: None, /) -> None:
        raise StopIteration

    def throw(self, *_: Any) -> None:
        raise StopIteration

    def close(self) -> None:
        pass


# What LiteLLM tells callbacks apart from a call's parameters.
QUESTION = frozenset({"model", "messages", "input", "prompt"})
# What LiteLLM prices an answer with, in 1.110 and before.
CALCULATORS = ("response_cost_calculator", "_response_cost_calculator")


def _calculator(logging_obj: Any) -> Callable[..., float | None] | None:
    return next(filter(None, (getattr(logging_obj, name, None) for name in CALCULATORS)), None)


def _price_with(logging_obj: Any, calculate: Callable[..., float | None]) -> None:
    vars(logging_obj).update(dict.fromkeys(CALCULATORS, calculate))


def _known_cost(usd: float, *_: Any, **__: Any) -> float:
    return usd


def _cost_at_the_end(calculate: Callable[..., float | None], result: Any = None, **more: Any) -> float | None:
    """What a stream costs is known at its end; LiteLLM asks at its beginning too, and downloads a tokenizer to get 0."""
    return 0.0 if is_stream(result) else calculate(result=result, **more)


# By what LiteLLM knows that a call is async, of which it tells async callbacks alone.
ASYNC_FLAGS = {
    "acompletion": "acompletion",
    "atext_completion": "acompletion",
    "aembedding": "aembedding",
    "aresponses": "aresponses",
    "anthropic_messages": "aanthropic_messages",
}
QUIET = {
    "success_handler": _tell_nobody,
    "async_success_handler": _Silence,
    "claim_async_success_log": _tell_nobody,
}


# Where LiteLLM logs in to say which provider a model is of.
AUTHENTICATING = frozenset({"chatgpt", "github_copilot"})


def _model_and_provider(model: str, kwargs: Mapping[str, Any]) -> tuple[str, str | None]:
    import litellm

    provider = kwargs.get("custom_llm_provider") or model.rpartition("/")[0]
    if provider in AUTHENTICATING:
        return model.removeprefix(f"{provider}/"), provider
    try:
        name, provider, _, _ = litellm.get_llm_provider(
            model=model,
            custom_llm_provider=kwargs.get("custom_llm_provider"),
            api_base=kwargs.get("api_base"),
        )
    except litellm.BadRequestError:
        # The model of a recorded error may be one that no provider has.
        return model, kwargs.get("custom_llm_provider")
    return name, provider


def _usual_address(model: str, kwargs: Mapping[str, Any]) -> str:
    """Where LiteLLM sends a call that does not say: as the environment or LiteLLM itself has it, else the provider."""
    import litellm

    usual, provider = None, kwargs.get("custom_llm_provider") or model.partition("/")[0]
    if provider not in AUTHENTICATING:
        with suppress(litellm.BadRequestError):  # which the call itself is about to raise
            _, provider, _, usual = litellm.get_llm_provider(
                model=model, custom_llm_provider=kwargs.get("custom_llm_provider")
            )
    in_environment = provider.removeprefix("text-completion-").upper().replace("-", "_")
    names = (f"{in_environment}_{suffix}" for suffix in ("BASE_URL", "API_BASE", "ENDPOINT", "API_URL"))
    return next(filter(None, map(os.environ.get, names)), None) or usual or provider


def has_listeners(logging_obj: Any, *, fails: bool) -> bool:
    """Whether any callback would be told of a call, ``fails``: of a stream that breaks."""
    import litellm

    registered = (
        litellm.callbacks,
        litellm.success_callback,
        litellm._async_success_callback,  # noqa: SLF001 - LiteLLM keeps the async ones there
        litellm.input_callback,
        litellm.service_callback,
        getattr(logging_obj, "dynamic_success_callbacks", None),
        getattr(logging_obj, "dynamic_async_success_callbacks", None),
        getattr(logging_obj, "dynamic_input_callbacks", None),
        getattr(logging_obj, "logger_fn", None),
    )
    of_failures = (
        litellm.failure_callback,
        litellm._async_failure_callback,  # noqa: SLF001 - as above
        getattr(logging_obj, "dynamic_failure_callbacks", None),
        getattr(logging_obj, "dynamic_async_failure_callbacks", None),
    )
    return any(registered) or (fails and any(of_failures)) or litellm.cache is not None
