"""Answers a replayed call before LiteLLM's wrapper sees it, if the wrapper would only prepare what nobody needs.

The wrapper prepares callbacks, rules, budgets and retries, which takes a third of a replayed call's time. The fast
path does to an answer what the wrapper does. It is off in a LiteLLM whose wrapper is not one that it knows.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from pytest_lmcache.clock import RealTime
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.libraries.litellm import callbacks, compat
from pytest_lmcache.libraries.litellm.call import Function, LiteLLMCall
from pytest_lmcache.libraries.recorded_call import RecordedCall
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.settings import Mode

# Arguments that the wrapper passes on without looking at them.
PASSED_ON = frozenset(
    """
    model messages input timeout temperature top_p n stream stream_options stop max_completion_tokens max_tokens
    modalities prediction audio presence_penalty frequency_penalty logit_bias user reasoning_effort verbosity
    response_format seed tools tool_choice logprobs top_logprobs parallel_tool_calls web_search_options
    safety_identifier service_tier store prompt_cache_key functions function_call thinking top_k extra_body
    dimensions encoding_format
    base_url api_base api_version api_key api_type custom_llm_provider max_retries headers extra_headers
    """.split()
)
REPLAYING = frozenset({Mode.REPLAY, Mode.ONCE})  # not `verify`, which asks too
# LiteLLM's settings that make the wrapper look at a call or change its answer, apart from callbacks.
SETTINGS = (
    *("pre_call_rules", "post_call_rules", "max_budget", "num_retries_per_request", "modify_params"),
    *("enable_json_schema_validation", "custom_provider_map", "set_verbose"),
)


def replay(
    recorder: Recorder | None, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The recorded answer, None if the call has to go through the wrapper."""
    __tracebackhide__ = True
    if recorder is None or recorder.mode not in REPLAYING or not _wrapper_adds_nothing(kwargs):
        return None
    call = RecordedCall(recorder, FastPathCall(function, args, kwargs), fast_path=True)
    return None if call.stored is None else call.replay(call.stored)


def _wrapper_adds_nothing(kwargs: Mapping[str, Any]) -> bool:
    import litellm

    return (
        PASSED_ON.issuperset(kwargs)
        and not callbacks.has_listeners(None, fails=True)
        and not any(getattr(litellm, name, None) for name in SETTINGS)
        and not _validates(kwargs.get("response_format"))
        and not litellm.utils.add_breadcrumb
        and not litellm.verbose_logger.isEnabledFor(logging.INFO)
    )


def _validates(response_format: Any) -> bool:
    return isinstance(response_format, dict) and "response_schema" in response_format


class FastPathCall(LiteLLMCall):
    """A call for which we do what LiteLLM's wrapper does, except for what callbacks hear."""

    __slots__ = ("_answer", "_began", "_id", "_recorded")

    def __init__(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(function, args, kwargs)
        self._began = RealTime.seconds()
        self._id = str(uuid.uuid4())

    def prepare_replay(self, answer: Answer, recorded: RecordedCall) -> None:
        """Remember what a logging object is made with."""
        self._answer, self._recorded = answer, recorded

    def _logging_obj(self) -> Any:
        made = callbacks.logging_object(self.function.name, self._args, self._kwargs, self._id)
        self.report(made, self._answer, self._recorded, is_heard=False)
        return made

    def _complete(self, result: Any, answer: Answer) -> None:
        is_stream = answer.kind is Kind.STREAM
        if is_stream:
            # The logging object of a stream is made when somebody looks at it: with the lists as they are now.
            self._args = tuple(map(_snapshot, self._args))
            self._kwargs = {name: _snapshot(value) for name, value in self._kwargs.items()}
        params = result._hidden_params
        took = (RealTime.seconds() - self._began) * 1000
        params.update(
            litellm_call_id=self._id,
            api_base=self._api_base(),
            model_id=None,
            response_cost=0.0 if is_stream else self._cost(result, answer),
            additional_headers=_headers(params.get("additional_headers")),
            litellm_model_name=self.model,
            callback_duration_ms=0.0,
            _response_ms=took,
            **compat.provider_response_model(result),
        )
        if not is_stream:
            result._response_ms = took

    def _api_base(self) -> str | None:
        given = self._kwargs.get("api_base")
        if isinstance(given, str) and given:
            return given
        from litellm import get_api_base

        base: str | None = get_api_base(model=self.model, optional_params=self._kwargs)
        return base

    def _cost(self, result: Any, answer: Answer) -> float | None:
        return self.price(result, self._logging_obj()) if answer.usd is None else answer.usd


def _snapshot(value: Any) -> Any:
    return [*value] if type(value) is list else value


def _headers(recorded: Mapping[str, str] | None) -> dict[str, str]:
    if not recorded:
        return {}
    from litellm.litellm_core_utils.core_helpers import process_response_headers

    headers: dict[str, str] = process_response_headers({**recorded})
    return headers
