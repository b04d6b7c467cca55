"""What differs between the versions of LiteLLM: every line that names a version is in this file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

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
