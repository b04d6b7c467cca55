"""The door to LiteLLM: puts the interception under every function of its public face, and takes it off."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import CellType, CodeType, FunctionType
from typing import Any

from pytest_lmcache import answers, errors, streams
from pytest_lmcache.doors import dspy, visit
from pytest_lmcache.doors.visit import POLL, StreamTape
from pytest_lmcache.errors import DoorError
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.keys import request_of
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.settings import Usage

RECORDED = ("completion", "text_completion", "embedding", "responses", "anthropic_messages")
# Entry points that LiteLLM does not build with its decorator `client`, and that ask a provider.
# moderation and OCR, assistants, and the plain halves of batches, files and fine-tuning (LiteLLM 1.106 to 1.110).
UNDECORATED = (
    "moderation",
    "ocr",
    "aocr",
    "acount_tokens",
    "get_assistants",
    "create_assistants",
    "delete_assistant",
    "create_thread",
    "get_thread",
    "add_message",
    "get_messages",
    "run_thread",
    "aget_assistants",
    "acreate_assistants",
    "adelete_assistant",
    "acreate_thread",
    "aget_thread",
    "a_add_message",
    "aget_messages",
    "arun_thread",
    "cancel_batch",
    "acancel_batch",
    "list_fine_tuning_jobs",
    "alist_fine_tuning_jobs",
    "file_content_streaming",
    "realtime_health_check",
)
# Others that ask, away from LiteLLM's public face: where they are, and how users know what asks (1.83 to 1.110).
ELSEWHERE = {
    "utils._get_valid_models_from_provider_api": "get_valid_models",
    "realtime_api.main._realtime_health_check": "ahealth_check",
    "a2a_protocol.main.asend_message_streaming": "a2a_protocol.asend_message_streaming",
    "a2a_protocol.main.create_a2a_client": "a2a_protocol.create_a2a_client",
    "a2a_protocol.main.aget_agent_card": "a2a_protocol.aget_agent_card",
    "guardrails.apply": "guardrails.apply",
}
MOCKS = ("mock_response", "mock_tool_calls", "mock_timeout")

_inside: ContextVar[bool] = ContextVar("pytest_lmcache_inside", default=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """One of LiteLLM's decorated functions: its cell, what was in it, and what we put there."""

    cell: CellType
    original: Callable[..., Any]
    replacement: Callable[..., Any]


class Door:
    """Puts the interception on with the first ``open`` and takes it off with the last ``close``.

    ``find`` gives the recorder that a call belongs to, None where nobody records. Safe with threads.
    """

    def __init__(self, find: Callable[[], Recorder | None]) -> None:
        self._find = find
        self._users = 0
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._codes: list[tuple[FunctionType, CodeType, CodeType]] = []
        self._scanned = self._modules = self._litellm = 0

    def open(self) -> None:
        """Put the interception on. Raises DoorError where this LiteLLM hides its functions."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            try:
                self._look()
            except BaseException:
                self._users = 0
                raise
            for entry in self._entries:
                entry.cell.cell_contents = entry.replacement
            for function, _, guarded in self._codes:
                function.__code__ = guarded

    def look_again(self) -> None:
        """See what of LiteLLM has been imported since, also where it has been imported anew."""
        with self._lock:
            known = len(self._entries)
            if self._look():
                for entry in self._entries[known:]:
                    entry.cell.cell_contents = entry.replacement
                for function, _, guarded in self._codes:
                    function.__code__ = guarded

    def close(self) -> None:
        """Take the interception off: every function of LiteLLM's is what it was before."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            for entry in self._entries:
                entry.cell.cell_contents = entry.original
            for function, original, _ in self._codes:
                function.__code__ = original

    def _look(self) -> bool:
        """Find LiteLLM's functions, again only when more of it has been imported since; says whether it looked."""
        litellm = id(sys.modules.get("litellm"))
        if (len(sys.modules), litellm) == (self._modules, self._litellm):
            return False
        self._modules = len(sys.modules)
        modules = [name for name in sys.modules if name == "litellm" or name.startswith("litellm.")]
        if len(modules) == self._scanned and litellm == self._litellm:
            return False
        known = {id(entry.cell) for entry in self._entries}
        for cell in _cells(modules):
            if id(cell) not in known:
                known.add(id(cell))
                original = cell.cell_contents
                self._entries.append(Entry(cell, original, self._replacement(original)))
        if litellm != self._litellm:
            for function, original_code, _ in self._codes:
                function.__code__ = original_code
            self._codes = []
        self._codes += self._guards([function for function, _, _ in self._codes])
        self._test()
        self._scanned, self._litellm = len(modules), litellm
        return True

    def _test(self) -> None:
        import litellm

        cells = {id(entry.cell) for entry in self._entries}
        public = [name for name in (*RECORDED, *(f"a{name}" for name in RECORDED)) if hasattr(litellm, name)]
        hidden = [
            name for name in public if not any(id(cell) in cells for cell in _chain(getattr(litellm, name)))
        ]
        missing = [name for name in RECORDED if name not in public]
        if hidden or missing:
            version = getattr(sys.modules.get("litellm._version"), "version", "of unknown version")
            self._entries.clear()
            raise DoorError(errors.hidden_functions(str(version), hidden + missing))

    def _guards(self, known: Sequence[FunctionType]) -> list[tuple[FunctionType, CodeType, CodeType]]:
        guards = []
        for place, name in {**dict(zip(UNDECORATED, UNDECORATED, strict=True)), **ELSEWHERE}.items():
            module, _, attribute = f"litellm.{place}".rpartition(".")
            function = getattr(sys.modules.get(module), attribute, None)
            if not isinstance(function, FunctionType) or function.__code__.co_freevars or function in known:
                continue
            original = function.__code__
            passing = FunctionType(
                original, function.__globals__, attribute, function.__defaults__, function.__closure__
            )
            passing.__kwdefaults__ = function.__kwdefaults__
            guards.append((function, original, _guard(function, self._guarded(name, passing))))
        return guards

    def _guarded(self, name: str, passing: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            recorder = None if _inside.get() else self._find()
            if recorder is not None:
                recorder.refuse(name)
            return passing(*args, **kwargs)

        return guarded

    def _replacement(self, original: Callable[..., Any]) -> Callable[..., Any]:
        name, is_async = original.__name__, inspect.iscoroutinefunction(original)
        plain_name = name.removeprefix("a") if is_async and name.removeprefix("a") in RECORDED else name
        if plain_name not in RECORDED:
            return self._refusing(original, _qualified(original), is_async=is_async)
        parameters = _positional(original)
        if not parameters:
            # Some async forms take anything and hand it on: their sync twin names it.
            parameters = _positional(getattr(sys.modules[original.__module__], plain_name))
        return (self._async if is_async else self._sync)(original, plain_name, parameters)

    def _refusing(self, original: Callable[..., Any], name: str, *, is_async: bool) -> Callable[..., Any]:
        def refuse() -> None:
            recorder = None if _inside.get() else self._find()
            if recorder is not None:
                recorder.refuse(name)

        if is_async:

            @functools.wraps(original)
            async def replacement(*args: Any, **kwargs: Any) -> Any:
                __tracebackhide__ = True
                refuse()
                return await original(*args, **kwargs)

        else:

            @functools.wraps(original)
            def replacement(*args: Any, **kwargs: Any) -> Any:
                __tracebackhide__ = True
                refuse()
                return original(*args, **kwargs)

        return replacement

    def _sync(self, original: Callable[..., Any], name: str, parameters: Sequence[str]) -> Callable[..., Any]:
        flag = f"a{name}"

        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            recorder = (
                None
                if _inside.get() or kwargs.get(flag) is True or _is_mocked(name, kwargs)
                else self._find()
            )
            if recorder is None:
                return original(*args, **kwargs)
            call = Visit(recorder, name, parameters, args, kwargs)
            for _ in call.queue(blocks=True):
                time.sleep(POLL)
            if call.stored is not None:
                return call.replay(call.stored)
            with call.asking():
                result = original(*args, **kwargs)
            return call.answered(result)

        return replacement

    def _async(
        self, original: Callable[..., Any], name: str, parameters: Sequence[str]
    ) -> Callable[..., Any]:
        @functools.wraps(original)
        async def replacement(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            recorder = None if _inside.get() or _is_mocked(name, kwargs) else self._find()
            if recorder is None:
                return await original(*args, **kwargs)
            call = Visit(recorder, name, parameters, args, kwargs)
            for _ in call.queue(blocks=False):
                await asyncio.sleep(POLL)
            if call.stored is not None:
                return call.replay(call.stored)
            with call.asking():
                result = await original(*args, **kwargs)
            return call.answered(result)

        return replacement


class Visit(visit.Visit):
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

    def store_error(self, error: Exception) -> tuple[dict[str, Any] | None, bool]:
        """An error as plain data, None for one that is not LiteLLM's, and whether it will come again."""
        return answers.store_error(error), answers.is_lasting(error)

    def saved_by_prompt_cache(self) -> float:
        """What the provider's own prompt cache saved on this call, in USD."""
        return answers.saved_by_prompt_cache(self.record.cached, self.model, self._provider)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around the provider's call: what LiteLLM calls meanwhile is a part of it."""
        __tracebackhide__ = True
        token = _inside.set(True)
        try:
            with super().asking():
                yield
        finally:
            _inside.reset(token)

    def replay(self, stored: Answer) -> Any:
        """The stored answer as LiteLLM would have given it; a stored error is raised."""
        __tracebackhide__ = True
        name = self.call.name
        if self.recorder.settings.usage is Usage.EMPTY:
            stored = answers.without_usage(stored)
        logging_obj = self.kwargs.get("litellm_logging_obj")
        heard = _is_heard(logging_obj, fails=stored.error is not None)
        provider = self._tell_logging(logging_obj, stored, heard=heard)
        if stored.kind is Kind.STREAM:
            chunks = streams.Chunks(name, stored, self.past_end, self.broken)
            return self._marked(streams.replay_stream(chunks, logging_obj, self.model, provider, heard=heard))
        if stored.kind is Kind.ERROR:
            raise self.revived(answers.revive_error, stored.data)
        response = self.revived(answers.revive_response, name, stored.data)
        answers.restore_hidden(response, stored.hidden, provider)
        return self._marked(response)

    def taken(self, result: Any) -> Any:
        """Take down what the provider gave; a stream is recorded while it is read."""
        name = self.call.name
        if streams.is_stream(result):
            usage: dict[str, Any] | None = None
            last: Any = None
            store_chunk = answers.chunk_storer(name)

            def store(chunk: Any) -> dict[str, Any]:
                nonlocal usage, last
                usage, last = streams.hidden_usage(chunk) or usage, chunk
                return store_chunk(chunk)

            def whole(chunks: list[dict[str, Any]]) -> Answer:
                # LiteLLM 1.110 counts at the end what the provider did not tell, and puts it into the last chunk.
                told = streams.hidden_usage(last) or usage or answers.usage_in_events(chunks)
                answer = Answer(Kind.STREAM, chunks, hidden={"usage": told} if told else None)
                return replace(answer, usd=answers.price_of_usage(answer.usage, self.model, self._provider))

            return streams.record_stream(result, StreamTape(self, store, whole))
        data, hidden = answers.store_response(name, result)
        self.finish(Answer(Kind.RESPONSE, data, hidden=hidden, usd=self._price(result)))
        return result

    def _price(self, result: Any) -> float | None:
        """What an answer cost: LiteLLM is about to calculate it, and takes what already stands in the answer."""
        hidden, logging_obj = getattr(result, "_hidden_params", None), self.kwargs.get("litellm_logging_obj")
        calculate = getattr(logging_obj, "response_cost_calculator", None)  # LiteLLM 1.110; before: with a _
        calculate = calculate or getattr(logging_obj, "_response_cost_calculator", None)
        if calculate is None or not isinstance(hidden, dict):
            return answers.price(result, self.model, self._provider)
        model_id = (self.kwargs.get("model_info") or {}).get("id")
        usd: float | None = calculate(result=result, litellm_model_name=self.model, router_model_id=model_id)
        if usd is not None:
            hidden["response_cost"] = usd
        return usd

    @property
    def _provider(self) -> str | None:
        return self.kwargs.get("custom_llm_provider")

    def _marked(self, result: Any) -> Any:
        """Marked as one that did not come from the provider, openly when DSPy has counted its usage."""
        is_counted = self.recorder.settings.usage is Usage.RECORDED
        waits = is_counted and dspy.after_call(functools.partial(answers.mark_hit, result))
        return answers.mark_hit(result, openly=not waits)

    def _tell_logging(self, logging_obj: Any, stored: Answer, *, heard: bool) -> str | None:
        """Tell LiteLLM's logging what its provider code would have told it: model, provider, parameters."""
        import litellm

        model, provider = _model_and_provider(self.model, self.kwargs)
        if (
            self.call.name == "text_completion"
            and provider == "openai"
            and model not in litellm.open_ai_chat_completion_models
        ):
            provider = "text-completion-openai"  # as LiteLLM goes on to call it
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
                known = functools.partial(_known_cost, usd)
                vars(logging_obj).update(response_cost_calculator=known, _response_cost_calculator=known)
        request = self.call.request
        flag = {ASYNC_FLAGS[name]: True} if (name := logging_obj.call_type) in ASYNC_FLAGS else {}
        logging_obj.update_environment_variables(
            model=model,
            user=self.kwargs.get("user"),
            optional_params={name: request[name] for name in request if name not in {"model", "messages"}},
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

    def _has_own_prices(self) -> bool:
        return any("cost_per" in name for name in self.kwargs) and not self.kwargs.get("model_info")


def _tell_nobody(*_: Any, **__: Any) -> None:
    """LiteLLM's logging of a replayed call that no callback listens to."""


class _Silence(Coroutine[None, None, None]):
    """The same, async: nothing to await, and no complaint where LiteLLM never awaits it."""

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


def _known_cost(usd: float, *_: Any, **__: Any) -> float:
    return usd


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


def _cells(modules: Sequence[str]) -> Iterator[CellType]:
    for name in modules:
        for value in list(vars(sys.modules[name]).values()):
            if type(value) is FunctionType and (value.__closure__ or hasattr(value, "__wrapped__")):
                yield from _chain(value)


def _chain(function: Any) -> Iterator[CellType]:
    """The cells named ``original_function`` of a function and of all that it wraps."""
    while isinstance(function, FunctionType):
        free = function.__code__.co_freevars
        if "original_function" in free and function.__closure__ and function.__module__.startswith("litellm"):
            cell = function.__closure__[free.index("original_function")]
            if callable(cell.cell_contents):
                yield cell
        function = getattr(function, "__wrapped__", None)


def _guard(function: FunctionType, guarded: Callable[..., Any]) -> CodeType:
    """Code for ``function``, of its kind, that calls ``guarded``: seen by every name that the function is bound to."""
    kinds = zip((inspect.iscoroutinefunction, inspect.isasyncgenfunction), (_awaits, _yields), strict=True)
    code = next((stand_in for is_kind, stand_in in kinds if is_kind(function)), _calls).__code__
    constants = tuple(guarded if constant == GUARDED else constant for constant in code.co_consts)
    return code.replace(co_consts=constants, co_name=function.__code__.co_name)


# What stands in for a function of each kind. Its code runs with that function's globals and without cells, so
# what it calls is put into its constants.
GUARDED = "guarded"


def _calls(*args: Any, **kwargs: Any) -> Any:
    call: Any = "guarded"
    return call(*args, **kwargs)


async def _awaits(*args: Any, **kwargs: Any) -> Any:
    call: Any = "guarded"
    return await call(*args, **kwargs)


async def _yields(*args: Any, **kwargs: Any) -> Any:
    call: Any = "guarded"
    async for each in call(*args, **kwargs):
        yield each


def _qualified(original: Callable[..., Any]) -> str:
    """The name under which users know a function: ``litellm.rerank`` is ``rerank``."""
    import litellm

    name = original.__name__
    module = original.__module__.removeprefix("litellm.").removesuffix(".main")
    return name if hasattr(litellm, name) else f"{module}.{name}"


def _positional(function: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind in kinds
    ]


def _is_mocked(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether LiteLLM itself makes the answer up, as the call asks: no provider is involved (LiteLLM 1.83 to 1.110)."""
    mock = kwargs.get("mock_response")
    if name in {"completion", "text_completion"}:
        return any(kwargs.get(each) for each in MOCKS)
    return mock is not None if name == "embedding" else isinstance(mock, str) and bool(mock)


def _model_and_provider(model: str, kwargs: Mapping[str, Any]) -> tuple[str, str | None]:
    import litellm

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


def _is_heard(logging_obj: Any, *, fails: bool) -> bool:
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
