"""Tokens with their probabilities, which spell the text that they stand beside."""

from __future__ import annotations

from typing import Any


def is_logprobs(value: Any) -> bool:
    """Whether data is a list of tokens with their probabilities, as a chat's answer has it."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(
            isinstance(item, dict) and "top_logprobs" in item and isinstance(item.get("token"), str)
            for item in value
        )
    )


def is_completion_logprobs(value: dict[Any, Any]) -> bool:
    """Whether data is the logprobs of a text completion."""
    tokens = value.get("tokens") if "token_logprobs" in value else None
    return isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)


def with_token(item: dict[str, Any], token: Any) -> dict[str, Any]:
    """One token with another text, without the bytes and the alternatives, which spell the old one."""
    return {**item, "token": token, "top_logprobs": []} | ({"bytes": None} if "bytes" in item else {})


def with_tokens(value: dict[Any, Any], tokens: list[str]) -> dict[Any, Any]:
    """The logprobs of a text completion with other tokens, without the alternatives, which spell the old ones."""
    return value if tokens == value["tokens"] else {**value, "tokens": tokens, "top_logprobs": None}
