"""The memory layer: the values used last, in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, MutableMapping
from typing import Any

from pytest_lmcache.interaction import copied
from pytest_lmcache.layers.contract import from_text, is_fresh, to_text


class MemoryLayer:
    """Keeps up to ``max_entries`` values; who was not used for longest goes first.

    ``mapping`` is where they are kept, as they are: a mapping that threads may share.
    """

    name = "memory"

    def __init__(self, max_entries: float = 1_000_000, ttl: float | None = None) -> None:
        self.mapping: MutableMapping[str, Any] = _Locked(max_entries)
        self._ttl = ttl

    def get(self, key: str) -> dict[str, Any] | None:
        """As every layer."""
        value = self.mapping.get(key)
        return copied(value) if isinstance(value, dict) and is_fresh(value, self._ttl) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """As every layer."""
        # By way of text, so that this layer gives what the others give.
        self.mapping[key] = from_text(to_text(value))

    def close(self) -> None:
        """As every layer; nothing to let go of."""


class _Locked(MutableMapping[str, Any]):
    """cachetools' LRUCache, which must not be used by two threads at once, behind a lock."""

    def __init__(self, max_entries: float) -> None:
        from cachetools import LRUCache

        self._entries: LRUCache[str, Any] = LRUCache(max_entries)
        self._lock = threading.Lock()

    def __getitem__(self, key: str) -> Any:
        with self._lock:
            return self._entries[key]

    def __setitem__(self, key: str, value: Any) -> None:
        with self._lock:
            self._entries[key] = value

    def __delitem__(self, key: str) -> None:
        with self._lock:
            del self._entries[key]

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._entries))

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)
