"""LiteLLM's streams on replay: its own class for each entry point, over stored chunks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from pytest_lmcache.libraries.litellm import answers, chunks, compat
from pytest_lmcache.libraries.litellm.chat_streams import ReplayedChatStream, ReplayedTextStream
from pytest_lmcache.libraries.litellm.event_streams import ReplayedMessagesStream, ReplayedResponsesStream
from pytest_lmcache.libraries.litellm.stored_chunks import EmptyStream, Replay, StoredChunks
from pytest_lmcache.libraries.stream_recording import subclass_named_like


def replay_stream(
    stored: StoredChunks,
    logging_of: Callable[[], Any],
    model: str,
    provider: str | None,
    *,
    has_listeners: bool,
) -> Any:
    """A stream of LiteLLM's own type over stored chunks; ``has_listeners``: callbacks hear of it."""
    source: Any = EmptyStream()
    if stored.name == "text_completion" and has_listeners:
        # LiteLLM makes it from a chat's stream, which it logs.
        source = replay_stream(stored.as_chat(), logging_of, model, provider, has_listeners=True)
    return _class_of(stored.name)(Replay(stored, logging_of, model, provider, has_listeners, source))


@cache
def _class_of(name: str) -> type[Any]:
    """LiteLLM's class for the streams of an entry point, with ours before it."""
    import litellm.utils
    from litellm.responses import streaming_iterator

    ours: type[Any] = ReplayedMessagesStream
    if name == "anthropic_messages":
        theirs = compat.messages_stream_class()
    else:
        ours, theirs = {
            "completion": (ReplayedChatStream, litellm.CustomStreamWrapper),
            "text_completion": (ReplayedTextStream, litellm.utils.TextCompletionStreamWrapper),
            "responses": (ReplayedResponsesStream, streaming_iterator.ResponsesAPIStreamingIterator),
        }[name]
    return ours if theirs is None else subclass_named_like(theirs, (ours, theirs), {})


def forget_classes() -> None:
    """Look up LiteLLM's classes anew: its modules may have been executed again."""
    answers.forget_response_classes()
    chunks.forget_chunk_classes()
    compat.messages_module.cache_clear()
    _class_of.cache_clear()
