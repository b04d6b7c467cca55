"""What differs between the versions of LiteLLM: every line that names a version is in this file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
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
