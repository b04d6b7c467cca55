"""What differs between the versions of LiteLLM: every line that names a version is in this file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from types import FunctionType
from typing import Any, cast

# ---------------------------------------------------------------- refusals of OpenAI's models
# LiteLLM 1.110 has a refusal in the message, 1.83 in the message's provider_specific_fields.

REFUSAL_STAYS = "as_here"
"""Marks a stored response whose refusal stays where it is, although another version has it there."""


def mark_refusals(data: dict[str, Any]) -> dict[str, Any]:
    """Mark the data of a response that looks as if another version of LiteLLM had recorded it."""
    is_marked = any(_is_other_version(choice) for choice in data.get("choices", ()))
    return {**data, REFUSAL_STAYS: True} if is_marked else data


def move_refusals(data: dict[str, Any]) -> None:
    """Move the refusals of a stored response to where the installed version has them."""
    if data.pop(REFUSAL_STAYS, False):
        return
    for choice in filter(_is_other_version, data.get("choices", ())):
        message = choice["message"]
        fields = message.get("provider_specific_fields") or {}
        if _message_has_refusal():
            message["refusal"] = fields["refusal"]
            choice.setdefault("logprobs", None)  # 1.83 dropped null logprobs too
        else:
            message["provider_specific_fields"] = {"refusal": message.pop("refusal"), **fields}


def put_refusals_last(response: Any, data: Mapping[str, Any]) -> None:
    """Make the refusal the last field of a message if it was: LiteLLM 1.110 sets it after all others."""
    for choice, stored in zip(response.choices, data.get("choices", ()), strict=False):
        if [*stored.get("message", ())][-1:] == ["refusal"] and "refusal" in vars(choice.message):
            fields = vars(choice.message)
            fields["refusal"] = fields.pop("refusal")


@cache
def _message_has_refusal() -> bool:
    from litellm.types.utils import Message

    return "refusal" in Message.model_fields


def _is_other_version(choice: Mapping[str, Any]) -> bool:
    message = choice.get("message") or {}
    if not _message_has_refusal():
        return "refusal" in message
    return "refusal" not in message and "refusal" in (message.get("provider_specific_fields") or {})


# ---------------------------------------------------------------- streams of responses()


def with_null_logprobs(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event whose part has logprobs, which LiteLLM 1.110 may leave out and 1.83 requires."""
    return {**event, "part": {"logprobs": None, **event["part"]}}


# ---------------------------------------------------------------- streams of Anthropic messages


@cache
def messages_module() -> Any:
    """LiteLLM's module for streams of Anthropic messages."""
    packages = (
        "messages.native",  # 1.110
        "pass_through.messages",  # 1.106
        "experimental_pass_through.messages",  # 1.83
    )
    for package in packages[:-1]:
        with suppress(ImportError):
            return import_module(f"litellm.llms.anthropic.{package}.streaming_iterator")
    return import_module(f"litellm.llms.anthropic.{packages[-1]}.streaming_iterator")


def messages_stream_class() -> type[Any] | None:
    """LiteLLM's class of a stream of Anthropic messages; None for 1.83, which gives a plain generator."""
    return getattr(messages_module(), "AnthropicMessagesStreamingResponse", None)


# ---------------------------------------------------------------- streams that broke


def failure_handlers(logging_obj: Any, *, is_async: bool) -> tuple[Any, Any]:
    """What reports the failure of a stream to callbacks: a function, or None, and an async function.

    To an async reader LiteLLM 1.110 reports by one function, 1.83 by one for sync and one for async callbacks.
    """
    both = getattr(logging_obj, "dispatch_attempt_failure_handlers", None)
    if is_async and both is not None:
        return None, both
    return logging_obj.failure_handler, logging_obj.async_failure_handler


# ---------------------------------------------------------------- prices

COST_CALCULATORS = ("response_cost_calculator", "_response_cost_calculator")
"""The method of a logging object that prices an answer: 1.83 has the second name only, 1.110 both."""


# ---------------------------------------------------------------- the wrapper of an entry point

# All names in the code of the two functions `wrapper` and `wrapper_async` of litellm.utils.client, read off 1.83.0,
# 1.90.0, 1.100.0, 1.106.2 and 1.110.2 (with dis, or `wrapper.__code__.co_names`).
KNOWN_NAMES = frozenset(
    """
    APIConnectionError APIError AsyncStream BaseException BudgetExceededError CallTypes CancelledError
    ContextWindowExceededError EmbeddingResponse Exception ImportError RateLimitError Stream Timeout
    _CALL_TYPE_ENUM_MAP _NEVER_STREAMING_CALL_TYPES __name__ _async_get_cache
    _client_async_logging_helper _combine_cached_embedding_response_with_api_result _current_cost
    _dispatch_success_logging _enqueue_deferred_logging _get_cached_llm_caching_handler
    _get_call_type_from_public_name _get_modified_max_tokens _get_wrapper_num_retries
    _get_wrapper_timeout _guardrail_view_of_requested_stream _is_async_request
    _is_converted_stream_result _is_debugging_on _is_litellm_router_call _is_streaming_request
    _is_streaming_response_for_correlation _llm_caching_handler _replayed_when_run_unstreamed
    _restore_correlation_context_if_supported _returns_requested_stream
    _run_success_deployment_hook_on_converted_chat_stream _sync_get_cache _transcription_runs_unstreamed
    aattach_github_copilot_user_session acompletion acompletion_with_retries acredential_updates
    anthropic_messages append arealtime aresponses aresponses_websocket aresponses_with_retries
    async_failure_handler async_get_cache async_post_call_failure_deployment_hook
    async_post_call_success_deployment_hook async_pre_call_deployment_hook async_set_cache asyncio
    atranscription attach_github_copilot_user_session bind_budget_reservation_to_callbacks cache
    cached_result combine_cached_embedding_response_with_api_result completion completion_with_retries
    contextvars copy_context create_task datetime debug dispatch_success_logging
    embedding_all_elements_cache_hit embedding_uncached_input enumerate exceptions executor
    failure_handler final_embedding_cached_response format_exc function_setup get
    get_num_retries_from_retry_policy getattr handle_sync_success_callbacks_for_async_calls info
    is_agentic_followup_failure is_debugging_on is_internal_call is_resent_failure iscoroutine
    isinstance len litellm litellm.litellm_core_utils.audio_utils.transcription_streaming
    litellm.llms.github_copilot.per_user_auth litellm_exception_mapper litellm_params litellm_utils
    llm_caching_handler load_credentials_from_list mark_attempt_answered max_budget model_call_details
    modify_params modules now num_retries num_retries_per_request openai pop post_call_processing
    preset_cache_key print_args_passed_to_litellm print_verbose reset_retry_policy responses
    responses_with_retries run setattr str stream stream_chunk_builder submit success_handler
    sync_get_cache sync_set_cache sys traceback transcription unbind_budget_reservation_from_callbacks
    update update_response_metadata uuid uuid4 value verbose_logger wrap_streaming_result_for_cache
    wrap_transcription_stream
    """.split()
)


def is_known_wrapper(wrapper: FunctionType) -> bool:
    """Whether a wrapper does no more than the versions that the fast path was written for."""
    return KNOWN_NAMES.issuperset(wrapper.__code__.co_names)


def answering_model(stream: Any) -> str | None:
    """The model that a chat's stream came from, as the provider named it: its chunks have the one that was asked for.

    None if LiteLLM does not note it: 1.110 does for providers with OpenAI's API, 1.83 does not.
    """
    name = getattr(stream, "__dict__", {}).get("_provider_response_model")
    return name if isinstance(name, str) else None


def provider_response_model(result: Any) -> dict[str, Any]:
    """The hidden parameter for the model that the provider answered with: 1.110 has it, 1.83 does not."""
    from litellm.litellm_core_utils.llm_response_utils import response_metadata

    function = getattr(response_metadata, "_provider_response_model", None)
    return {} if function is None else {"provider_response_model": function(result)}


# ---------------------------------------------------------------- arguments


def without_builtin(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments without the function `input` of Python's, which the Router of 1.83 to 1.110 adds to a rerank."""
    if kwargs.get("input") is not input:
        return kwargs
    return {name: value for name, value in kwargs.items() if name != "input"}


# ---------------------------------------------------------------- binary answers


def http_response(content: bytes, headers: Mapping[str, str]) -> Any:
    """A response of the HTTP client that OpenAI's package uses: 3.x has httpx2, older ones have httpx."""
    package = import_module("openai._legacy_response")
    http = getattr(package, "httpx2", None) or vars(package)["httpx"]
    return http.Response(200, content=content, headers=headers)


# ---------------------------------------------------------------- the Router's waits and cooldowns

# 1.110 sleeps by two methods of its host, and its cooldowns are in a store of their own, with a clock of Rust's.
# 1.83 has a method that returns the seconds to sleep, and its cooldowns are in a cache with the clock of a module.
SLEEPS = ("sleep", "sleep_sync")
RETRY_DELAY = "_time_to_sleep_before_retry"
COOLDOWN_STARTS = ("put", "async_put")
COOLDOWN_READS = ("active", "active_sync", "minimum")
COOLDOWN_CLOCK = "litellm.caching.in_memory_cache"
_RETRY_FUNCTIONS = (
    ("litellm.router_python_host", "PythonHost", SLEEPS),
    ("litellm.router", "Router", (RETRY_DELAY,)),
    ("litellm.redis.stores.router_cooldowns", "RouterCooldownStore", (*COOLDOWN_STARTS, *COOLDOWN_READS)),
)


def retry_functions(modules: Sequence[str]) -> Iterator[tuple[type[Any], str]]:
    """The methods in some modules by which a Router waits or reads its cooldowns, each with its class."""
    for module, name, methods in _RETRY_FUNCTIONS:
        kind = getattr(sys.modules[module], name, None) if module in modules else None
        for method in methods:
            if method in vars(kind or object):
                yield cast("type[Any]", kind), method
