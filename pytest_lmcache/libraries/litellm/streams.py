"""LiteLLM's streams on replay: which class an entry point gives, over which stored chunks."""

from __future__ import annotations

from typing import Any

from pytest_lmcache.libraries.litellm import answers, chat_streams, chunks, compat, event_streams
from pytest_lmcache.libraries.litellm.stored_chunks import LoggingOf, StoredChunks

CLASSES = {
    "completion": chat_streams.chat_class,
    "text_completion": chat_streams.text_class,
    "responses": event_streams.responses_class,
    "anthropic_messages": event_streams.messages_class,
}


def replay_stream(
    stored: StoredChunks, logging_of: LoggingOf, model: str, provider: str | None, *, has_listeners: bool
) -> Any:
    """A stream of LiteLLM's own type over stored chunks; ``has_listeners``: callbacks hear of it."""
    return CLASSES[stored.name]()(stored, logging_of, model, provider, has_listeners)


def forget_classes() -> None:
    """Look up LiteLLM's classes anew: its modules may have been executed again."""
    answers.forget_response_classes()
    chunks.forget_chunk_classes()
    compat.messages_module.cache_clear()
    for find in CLASSES.values():
        find.cache_clear()
