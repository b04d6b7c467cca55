"""What LiteLLM's wrapper does to an answer, for a replayed call of which nobody is told anything.

A third of a replayed call's time would go into the wrapper's preparations for callbacks, rules, budgets and
retries. Where there is none of these an answer is the same without them.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pytest_lmcache.clock import RealTime
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.libraries.litellm import call as litellm_call
from pytest_lmcache.recorder import Recorder

NAMES = frozenset({"completion", "embedding"})
# What of a call the wrapper hands on without a look at it (LiteLLM 1.83 to 1.110).
HANDED_ON = """
model messages input timeout temperature top_p n stream stream_options stop max_completion_tokens max_tokens
modalities prediction audio presence_penalty frequency_penalty logit_bias user reasoning_effort verbosity
response_format seed tools tool_choice logprobs top_logprobs parallel_tool_calls web_search_options
safety_identifier service_tier store prompt_cache_key functions function_call thinking top_k extra_body
dimensions encoding_format
base_url api_base api_version api_key api_type custom_llm_provider max_retries headers extra_headers
"""
PLAIN = frozenset(HANDED_ON.split())
# What of LiteLLM's own settings looks at a call or at its answer, beside callbacks.
SETTINGS = (
    *("pre_call_rules", "post_call_rules", "max_budget", "num_retries_per_request", "modify_params"),
    *("enable_json_schema_validation", "custom_provider_map", "set_verbose"),
)


def has_no_listeners(kwargs: Mapping[str, Any]) -> bool:
    """Whether the wrapper has nothing to do for a call but to hand it on."""
    import litellm

    return (
        PLAIN.issuperset(kwargs)
        and not litellm_call.has_listeners(None, fails=True)
        and not any(getattr(litellm, name, None) for name in SETTINGS)
        and not _validates(kwargs.get("response_format"))
        and not litellm.utils.add_breadcrumb
        and not litellm.verbose_logger.isEnabledFor(logging.INFO)
    )


def _validates(response_format: Any) -> bool:
    return isinstance(response_format, dict) and "response_schema" in response_format


class FastCall(litellm_call.LiteLLMCall):
    """A call that is answered before LiteLLM's wrapper sees it; ``entry`` is what LiteLLM calls it.

    ``stored`` is None where the wrapper is needed after all.
    """

    __slots__ = ("_args", "_began", "_entry", "_id")
    fast_path = True

    def __init__(
        self,
        recorder: Recorder,
        name: str,
        parameters: Sequence[str],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        entry: str,
    ) -> None:
        __tracebackhide__ = True
        self._began = RealTime.seconds()
        self._args = args
        self._entry = entry
        self._id = str(uuid.uuid4())
        super().__init__(recorder, name, parameters, args, kwargs)

    def _completed(self, result: Any, stored: Answer) -> Any:
        params = result._hidden_params  # noqa: SLF001 - where LiteLLM keeps what it knows of an answer
        is_stream = stored.kind is Kind.STREAM
        if is_stream:
            # As they are now, for whoever looks at what LiteLLM tells callbacks with.
            self._args, self.kwargs = (
                tuple(map(_now, self._args)),
                {name: _now(value) for name, value in self.kwargs.items()},
            )
        took = (RealTime.seconds() - self._began) * 1000
        params.update(
            litellm_call_id=self._id,
            api_base=self._api_base(),
            model_id=None,
            response_cost=0.0 if is_stream else self._cost(result, stored),
            additional_headers=_headers(params.get("additional_headers")),
            litellm_model_name=self.model,
            callback_duration_ms=0.0,
            _response_ms=took,
        )
        if _tells_model():
            is_chat = self.call.name == "completion" and not is_stream
            params["provider_response_model"] = result.model if is_chat else None
        if not is_stream:
            result._response_ms = took  # noqa: SLF001 - as LiteLLM does
        return result

    def _tell(self, _stored: Answer) -> tuple[str | None, bool]:
        return self.model_and_provider()[1], False

    def _logging_obj(self, stored: Answer) -> Any:
        from litellm.utils import function_setup

        given = {**self.kwargs, "litellm_call_id": self._id}
        made, _ = function_setup(self._entry, _NoRules(), RealTime.now(), *self._args, **given)
        self.tell_logging(made, stored, heard=False)
        return made

    def _api_base(self) -> str | None:
        given = self.kwargs.get("api_base")
        if isinstance(given, str) and given:
            return given
        from litellm import get_api_base

        base: str | None = get_api_base(model=self.model, optional_params=self.kwargs)
        return base

    def _cost(self, result: Any, stored: Answer) -> float | None:
        return self.calculated(result, self._logging_obj(stored)) if stored.usd is None else stored.usd


class _NoRules:
    """LiteLLM's rules where there were none when the call was made."""

    def pre_call_rules(self, **_: Any) -> bool:
        """No rule looks at what was asked."""
        return True


def _now(value: Any) -> Any:
    return [*value] if type(value) is list else value


@cache
def _tells_model() -> bool:
    """Whether this LiteLLM notes which model the provider answered with: 1.110 does."""
    from litellm.litellm_core_utils.llm_response_utils import response_metadata

    return hasattr(response_metadata, "_provider_response_model")


def _headers(recorded: Mapping[str, str] | None) -> dict[str, str]:
    if not recorded:
        return {}
    from litellm.litellm_core_utils.core_helpers import process_response_headers

    headers: dict[str, str] = process_response_headers({**recorded})
    return headers
