"""LiteLLM's streams on replay: its own class for each entry point, over stored chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from pytest_lmcache.interaction import Answer
from pytest_lmcache.libraries.litellm import compat
from pytest_lmcache.libraries.litellm.chunks import ChunkCodec
from pytest_lmcache.libraries.litellm.model_dump import class_named
from pytest_lmcache.libraries.litellm.stored_chunks import EmptyStream, Replay, StoredChunks
from pytest_lmcache.libraries.recorded_call import RecordedCall
from pytest_lmcache.libraries.stream_recording import subclass_named_like


@dataclass(frozen=True, slots=True, eq=False)
class StreamKind:
    """The streams of an entry point.

    ``replayed`` is our class of a replayed stream, which comes before ``theirs``, LiteLLM's own, if there is one.
    ``source``: LiteLLM makes the stream from one of that kind, which it logs; ``to_source`` converts a chunk to its.
    """

    chunks: ChunkCodec
    replayed: type[Any]
    theirs: Callable[[], type[Any] | None]
    source: StreamKind | None = None
    to_source: Callable[[dict[str, Any]], dict[str, Any]] = dict

    def replay(
        self,
        answer: Answer,
        recorded: RecordedCall,
        logging_of: Callable[[], Any],
        model: str,
        provider: str | None,
        *,
        has_listeners: bool,
    ) -> Any:
        """A stream of LiteLLM's own type over a stored answer; ``has_listeners``: callbacks hear of it."""
        stored = StoredChunks(self.chunks, answer, recorded.cut_off, recorded.broken)
        return self.over(stored, Replay(stored, logging_of, model, provider, has_listeners, EmptyStream()))

    def over(self, stored: StoredChunks, replay: Replay) -> Any:
        """A stream of LiteLLM's own type over stored chunks of this kind."""
        if self.source is not None and replay.has_listeners:
            converted = stored.converted(self.to_source, self.source.chunks)
            source = self.source.over(converted, replay._replace(chunks=converted))
            replay = replay._replace(source=source)
        return _class_of(self)(replay)


@cache
def _class_of(kind: StreamKind) -> type[Any]:
    theirs = kind.theirs()
    return kind.replayed if theirs is None else subclass_named_like(theirs, (kind.replayed, theirs), {})


def forget_classes() -> None:
    """Look up LiteLLM's classes anew: its modules may have been executed again."""
    class_named.cache_clear()
    compat.messages_module.cache_clear()
    _class_of.cache_clear()
