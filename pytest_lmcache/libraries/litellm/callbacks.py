"""What LiteLLM's callbacks hear of a call: reports a replayed one, silences logging that nobody listens to."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pytest_lmcache.clock import RealTime
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.libraries.litellm.compat import COST_CALCULATORS
from pytest_lmcache.libraries.litellm.entry_points import EntryPoint
from pytest_lmcache.libraries.stream_recording import is_stream

inside: ContextVar[bool] = ContextVar("pytest_lmcache_inside", default=False)
"""Whether this context is within a call of LiteLLM: what LiteLLM calls meanwhile is a part of that call."""


@contextmanager
def within_call(kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Around a call that reaches LiteLLM; a call that one of its callbacks makes is the test's own."""
    logging_obj = kwargs.get("litellm_logging_obj")
    for name in ("pre_call", "post_call"):
        if (report := getattr(logging_obj, name, None)) is not None:
            vars(logging_obj)[name] = functools.partial(_outside, report)
    token = inside.set(True)
    try:
        yield
    finally:
        inside.reset(token)


def _outside(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    token = inside.set(False)
    try:
        return function(*args, **kwargs)
    finally:
        inside.reset(token)


def has_listeners(logging_obj: Any, *, fails: bool) -> bool:
    """Whether a callback would hear of a call; ``fails``: of one that raises, or of a stream that breaks."""
    import litellm

    registered = (
        litellm.callbacks,
        litellm.success_callback,
        litellm._async_success_callback,
        litellm.input_callback,
        litellm.service_callback,
        getattr(logging_obj, "dynamic_success_callbacks", None),
        getattr(logging_obj, "dynamic_async_success_callbacks", None),
        getattr(logging_obj, "dynamic_input_callbacks", None),
        getattr(logging_obj, "logger_fn", None),
    )
    of_failures = (
        litellm.failure_callback,
        litellm._async_failure_callback,
        getattr(logging_obj, "dynamic_failure_callbacks", None),
        getattr(logging_obj, "dynamic_async_failure_callbacks", None),
    )
    return any(registered) or (fails and any(of_failures)) or litellm.cache is not None


# ---- reporting a replayed call


def report(
    logging_obj: Any,
    entry: EntryPoint,
    kwargs: Mapping[str, Any],
    request: Mapping[str, Any],
    answer: Answer,
    *,
    model: str,
    provider: str | None,
    is_heard: bool,
) -> None:
    """Report a replayed call to its logging object, as the code that asks a provider does.

    ``model`` and ``provider`` are LiteLLM's names for them. If ``is_heard`` is false, callbacks hear nothing.
    """
    is_async = logging_obj.call_type == entry.async_name
    logging_obj.update_environment_variables(
        model=model,
        user=kwargs.get("user"),
        optional_params={
            name: value for name, value in request.items() if name not in {"model", entry.question}
        },
        litellm_params={
            "metadata": kwargs.get("metadata") or {},
            "model_info": kwargs.get("model_info") or {},
            # LiteLLM reports to async callbacks only if this is set.
            **({entry.async_flag: True} if is_async else {}),
        },
        custom_llm_provider=provider,
    )
    if not is_heard:
        return
    question = request.get(entry.question, "")
    logging_obj.pre_call(input=question, api_key="", additional_args={})
    if answer.kind is Kind.RESPONSE:
        response = json.dumps(answer.data, default=str)
        logging_obj.post_call(original_response=response, input=question, api_key="")


def set_price(
    logging_obj: Any, kwargs: Mapping[str, Any], answer: Answer, *, is_free: bool, is_heard: bool
) -> None:
    """Spare LiteLLM the pricing of a replayed answer if the recorded price is right, or if nobody hears of it.

    ``is_free``: the run counts no usage. A price that is given with a call is in the recorded price, since LiteLLM
    notes it only if it asks the provider.
    """
    has_model_info = bool(kwargs.get("model_info"))
    is_known = is_free or (any("cost_per" in name for name in kwargs) and not has_model_info)
    is_stream = answer.kind is Kind.STREAM
    if is_known or not is_heard:
        usd = 0.0 if is_stream and not is_known else answer.usd
        if usd is not None and (is_known or not has_model_info):
            _calculate_by(logging_obj, functools.partial(_constant, usd))
    elif (calculate := cost_calculator(logging_obj)) is None:
        return
    elif is_stream:
        _calculate_by(logging_obj, functools.partial(_cost_at_the_end, calculate))
    elif answer.usd is not None and not has_model_info:
        _calculate_by(logging_obj, functools.partial(_cost_or_recorded, calculate, answer.usd))


def cost_calculator(logging_obj: Any) -> Callable[..., float | None] | None:
    """The function by which LiteLLM prices an answer, in USD."""
    return next(filter(None, (getattr(logging_obj, name, None) for name in COST_CALCULATORS)), None)


def _calculate_by(logging_obj: Any, calculate: Callable[..., float | None]) -> None:
    vars(logging_obj).update(dict.fromkeys(COST_CALCULATORS, calculate))


def _constant(usd: float, *_: Any, **__: Any) -> float:
    return usd


def _cost_or_recorded(
    calculate: Callable[..., float | None], usd: float, result: Any = None, **more: Any
) -> float | None:
    """The cost of a response. LiteLLM can price some, such as a search, only where it asks the provider."""
    calculated = calculate(result=result, **more)
    return usd if calculated is None else calculated


def _cost_at_the_end(calculate: Callable[..., float | None], result: Any = None, **more: Any) -> float | None:
    """The cost of a stream. LiteLLM asks at the beginning too, and downloads a tokenizer to get 0."""
    return 0.0 if is_stream(result) else calculate(result=result, **more)


# ---- logging objects of our own


def logging_object(function: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], call_id: str) -> Any:
    """A logging object as LiteLLM's wrapper makes one for a call of a function."""
    from litellm.utils import function_setup

    made, _ = function_setup(
        function, _NoRules(), RealTime.now(), *args, **{**kwargs, "litellm_call_id": call_id}
    )
    return made


class _NoRules:
    """LiteLLM's rules of a call that was made when there were none."""

    def pre_call_rules(self, **_: Any) -> bool:
        """Let every call pass."""
        return True


# ---- silence


def deafen(logging_obj: Any) -> None:
    """Have LiteLLM report nothing of a call, to nobody."""
    vars(logging_obj).update(_SILENT, **_DEAF)


def silence(logging_obj: Any) -> None:
    """Have LiteLLM prepare no report of a call that succeeds."""
    vars(logging_obj).update(_SILENT)


def silence_unless_heard(logging_obj: Any) -> None:
    """Have LiteLLM prepare no report of a call that succeeds, unless a callback listens by then.

    LiteLLM prepares it in a thread, which holds up the next call.
    """
    for name, silent in _SILENT.items():
        if (report := getattr(logging_obj, name, None)) is not None:
            vars(logging_obj)[name] = functools.partial(_if_heard, logging_obj, report, silent)


def _if_heard(
    logging_obj: Any, report: Callable[..., Any], silent: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    return (report if has_listeners(logging_obj, fails=True) else silent)(*args, **kwargs)


def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


class _NothingToAwait(Coroutine[None, None, None]):
    """A coroutine that does nothing, and gives no warning if LiteLLM never awaits it.

    LiteLLM calls ``inspect.getcoroutinestate`` when an event loop has ended: the coroutine is closed.
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


_DEAF: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("pre_call", "post_call", "failure_handler"), _nothing),
    "async_failure_handler": _NothingToAwait,
}
_SILENT: dict[str, Callable[..., Any]] = {
    "success_handler": _nothing,
    "async_success_handler": _NothingToAwait,
    "claim_async_success_log": _nothing,
}
