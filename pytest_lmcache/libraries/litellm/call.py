"""One call of LiteLLM's: what it asks, where it goes, and its answers <-> plain data."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple

from pytest_lmcache.address import without_secrets
from pytest_lmcache.interaction import ANSWERING_MODEL, Answer, Call, Kind, copied
from pytest_lmcache.keys.ignored_arguments import belongs_to_provider
from pytest_lmcache.keys.plain import request_of
from pytest_lmcache.libraries.dspy.compat import after_dspy_call
from pytest_lmcache.libraries.litellm import answers, callbacks, compat, exceptions, usage
from pytest_lmcache.libraries.litellm.entry_points import EntryPoint
from pytest_lmcache.libraries.recorded_call import RecordedCall
from pytest_lmcache.libraries.stream_recording import StreamCodec, is_stream
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.settings import Usage
from pytest_lmcache.staged_answers import AnswerBuilder
from pytest_lmcache.stream_chunks import Chunk

# LiteLLM logs in to find out which of these a model belongs to.
AUTHENTICATING = frozenset({"chatgpt", "github_copilot"})


class Function(NamedTuple):
    """The sync or the async function of an entry point, with the names of its positional parameters."""

    entry: EntryPoint
    name: str
    parameters: Sequence[str]


class LiteLLMCall:
    """A call of one of LiteLLM's entry points."""

    __slots__ = (
        "_args",
        "_is_async",
        "_is_heard",
        "_kwargs",
        "_parameters",
        "_resolved",
        "entry",
        "function",
        "model",
        "name",
    )
    library: ClassVar[str] = "LiteLLM"
    without_usage = staticmethod(usage.without_usage)
    error_from_plain = staticmethod(exceptions.error_from_plain)

    def __init__(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.function = function
        self.entry = function.entry
        self.name = function.entry.name
        self.model = str(kwargs.get("model") or _positional_model(function.parameters, args) or "")
        self._parameters = function.parameters
        self._args = args
        self._kwargs = kwargs
        self._resolved: tuple[str, str | None] | None = None
        self._is_heard = False
        self._is_async = function.name == function.entry.async_name

    # ---- the question

    @property
    def asked_with(self) -> tuple[Any, ...]:
        """The positional and the named arguments."""
        return self._args, self._kwargs

    def again(self, model: str) -> LiteLLMCall:
        """The same question to a model, with a logging object of its own that reports to nobody.

        Its arguments are copies, since LiteLLM changes some.
        """
        call = self if model == self.model else self.to_model(model)
        args, kwargs = call.asked_with
        args, kwargs = tuple(map(copied, args)), copied(kwargs)
        kwargs.pop("litellm_logging_obj", None)
        call_id = str(uuid.uuid4())
        quiet = {
            name: value for name, value in kwargs.items() if not name.endswith(("callback", "callbacks"))
        }
        logging_obj = callbacks.logging_object(self.function.name, args, quiet, call_id)
        callbacks.deafen(logging_obj)
        kwargs.update(litellm_logging_obj=logging_obj, litellm_call_id=call_id)
        return LiteLLMCall(self.function, args, kwargs)

    def to_model(self, model: str) -> LiteLLMCall:
        """The same call, but of another model; one of another provider gets no address and no key of the old one's."""
        args, kwargs = self._args, {**self._kwargs}
        if "model" in kwargs or _positional_model(self._parameters, args) is None:
            kwargs["model"] = model
        else:
            place = self._parameters.index("model")
            args = *args[:place], model, *args[place + 1 :]
        _, provider = model_and_provider(model, {})
        is_other = provider != self.model_and_provider()[1]
        for name in [*kwargs]:
            if name == "model_info" or "cost_per" in name or (is_other and belongs_to_provider(name)):
                del kwargs[name]
        return LiteLLMCall(self.function, args, kwargs)

    def request(self, recorder: Recorder) -> dict[str, Any]:
        """The normalized request, not redacted."""
        recorder.redact.learn(self._kwargs)
        return request_of(self._parameters, self._args, compat.without_builtin(self._kwargs), self.name)

    def address(self) -> str:
        """Where LiteLLM sends the call: by its client, its arguments, LiteLLM's settings, the environment."""
        import litellm

        given = (
            getattr(self._kwargs.get("client"), "base_url", None),
            self._kwargs.get("base_url"),
            self._kwargs.get("api_base"),
            getattr(litellm, "api_base", None),
        )
        return without_secrets(next(filter(None, given), None) or _usual_address(self.model, self._kwargs))

    def model_and_provider(self) -> tuple[str, str | None]:
        """The model and its provider as LiteLLM names them."""
        if self._resolved is None:
            model, provider = model_and_provider(self.model, self._kwargs)
            self._resolved = model, self.entry.provider(model, provider)
        return self._resolved

    # ---- the answer

    def stream_codec(self, result: Any, keep_headers: Sequence[str]) -> StreamCodec | None:
        """What records a stream chunk by chunk, with the usage that LiteLLM hides from who did not ask for it."""
        kind = self.entry.stream
        if kind is None or not is_stream(result):
            return None
        found: dict[str, Any] | None = None
        last: Any = None
        pack = kind.chunks.packer()
        headers = answers.stored_headers(result, keep_headers)

        def to_plain(chunk: Any) -> Chunk:
            nonlocal found, last
            stored, last = pack(chunk), chunk
            if not isinstance(stored, str):
                found = usage.hidden_usage(chunk) or found
            return stored

        def to_answer(stored: list[Chunk]) -> Answer:
            # If no chunk has a usage, LiteLLM may count the tokens and put the usage into the last chunk at the end.
            tokens = usage.hidden_usage(last) or found or usage.usage_in_events(stored)
            hidden = ({"usage": tokens} if tokens else {}) | headers
            if (name := compat.answering_model(result)) not in {None, getattr(last, "model", None)}:
                hidden[ANSWERING_MODEL] = name
            answer = Answer(Kind.STREAM, stored, hidden=hidden or None)
            return answer._replace(usd=usage.price_of_usage(answer.usage, self.model, self._provider))

        return StreamCodec(to_plain, to_answer)

    def to_answer(self, result: Any, keep_headers: Sequence[str]) -> Answer:
        """Convert a response. LiteLLM gets its price, which it would calculate next, in ``_hidden_params``."""
        hidden = answers.stored_hidden(result, keep_headers)
        params = getattr(result, "_hidden_params", None)
        # To price images, LiteLLM replaces their usage. In a chat it would add what no provider sent.
        data = self.entry.answer.to_plain(result) if self.entry.is_own else None
        usd = self.price(result, self._logging_obj() if isinstance(params, dict) else None)
        data = self.entry.answer.to_plain(result) if data is None else data
        if isinstance(params, dict) and usd is not None and self._logging_obj() is not None:
            params["response_cost"] = usd
        return Answer(Kind.RESPONSE, data, hidden=hidden, usd=usd)

    def price(self, result: Any, logging_obj: Any) -> float | None:
        """What LiteLLM says that a response costs, in USD, by its price map and by the arguments of the call."""
        calculate = callbacks.cost_calculator(logging_obj)
        if calculate is None:
            return usage.price(result, self.model, self._provider)
        model_id = (self._kwargs.get("model_info") or {}).get("id")
        usd = calculate(result=result, litellm_model_name=self.model, router_model_id=model_id)
        return None if usd is None else usage.rounded(usd)

    def prepare_replay(self, answer: Answer, recorded: RecordedCall) -> None:
        """Report a recorded answer to LiteLLM's logging."""
        if (logging_obj := self._logging_obj()) is not None:
            self._is_heard = callbacks.has_listeners(logging_obj, fails=answer.error is not None)
            self.report(logging_obj, answer, recorded, is_heard=self._is_heard)

    def report(self, logging_obj: Any, answer: Answer, recorded: RecordedCall, *, is_heard: bool) -> None:
        """Tell a logging object what the code that asks a provider would have told it."""
        is_free = recorded.recorder.settings.usage is Usage.EMPTY
        if not is_heard:
            callbacks.silence(logging_obj)
        callbacks.set_price(logging_obj, self._kwargs, answer, is_free=is_free, is_heard=is_heard)
        model, provider = self.model_and_provider()
        callbacks.report(
            logging_obj,
            self.entry,
            self._kwargs,
            recorded.call.request,
            answer,
            model=model,
            provider=provider,
            is_heard=is_heard,
        )

    def from_answer(self, answer: Answer, recorded: RecordedCall) -> Any:
        """Build LiteLLM's response or stream, marked as one that did not come from the provider."""
        _, provider = self.model_and_provider()
        if answer.kind is Kind.STREAM and self.entry.stream is not None:
            result = self.entry.stream.replay(
                answer,
                recorded,
                self._logging_obj,
                self.model,
                provider,
                has_listeners=self._is_heard,
            )
            headers = (answer.hidden or {}).get("additional_headers")
            answers.set_hidden_param(result, "additional_headers", headers)
        else:
            result = self.entry.answer.from_plain(answer.data)
            for name, value in {"custom_llm_provider": provider, **(answer.hidden or {})}.items():
                answers.set_hidden_param(result, name, value)
        self._complete(result, answer)
        is_counted = recorded.recorder.settings.usage is Usage.RECORDED
        waits = is_counted and after_dspy_call(functools.partial(answers.mark_hit, result))
        return answers.mark_hit(result, openly=not waits)

    def error_to_plain(
        self, error: Exception, keep_headers: Sequence[str]
    ) -> tuple[dict[str, Any] | None, bool]:
        """Convert an exception of LiteLLM's or OpenAI's; and whether asking again would raise it again."""
        return exceptions.error_to_plain(error, keep_headers), exceptions.is_lasting(error)

    def saved_by_prompt_cache(self, cached: tuple[int, int]) -> float:
        """What the provider's own prompt cache saved, in USD."""
        return usage.saved_by_prompt_cache(cached, self.model, self._provider)

    def builder(self, call: Call) -> AnswerBuilder:
        """What makes the faults and the replies of the test."""
        from pytest_lmcache.libraries.litellm.staged import builder_of

        model, provider = self.model_and_provider()
        return builder_of(
            call,
            model,
            provider,
            asked=self.model,
            is_async=self._is_async,
            timeout=self._kwargs.get("timeout"),
        )

    def _logging_obj(self) -> Any:
        return self._kwargs.get("litellm_logging_obj")

    def _complete(self, result: Any, answer: Answer) -> None:
        """Add what LiteLLM's wrapper would add if the call never reaches it."""

    @property
    def _provider(self) -> str | None:
        return self._kwargs.get("custom_llm_provider")


def _positional_model(parameters: Sequence[str], args: tuple[Any, ...]) -> Any:
    """The model among the positional arguments; None if it is not there."""
    if not args or "model" not in parameters:
        return None
    return next(iter(args[parameters.index("model") :]), None)


def model_and_provider(model: str, kwargs: Mapping[str, Any]) -> tuple[str, str | None]:
    """A model and its provider as LiteLLM names them, for the arguments of a call."""
    import litellm

    provider = kwargs.get("custom_llm_provider") or model.rpartition("/")[0]
    if not model:
        return model, provider or None
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
    """Where a call goes that does not say: by the environment, else LiteLLM's URL, else the provider's name."""
    import litellm

    usual, provider = None, kwargs.get("custom_llm_provider") or model.partition("/")[0]
    if provider not in AUTHENTICATING:
        with suppress(litellm.BadRequestError):  # the call itself is about to raise it
            _, provider, _, usual = litellm.get_llm_provider(
                model=model, custom_llm_provider=kwargs.get("custom_llm_provider")
            )
    in_environment = provider.removeprefix("text-completion-").upper().replace("-", "_")
    names = (f"{in_environment}_{suffix}" for suffix in ("BASE_URL", "API_BASE", "ENDPOINT", "API_URL"))
    return next(filter(None, map(os.environ.get, names)), None) or usual or provider
