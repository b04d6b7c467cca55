"""The memory layer: the values used last, in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, MutableMapping
from typing import Any

from pytest_lmcache.interaction import copied
from pytest_lmcache.layers.contract import from_text, is_fresh, to_text


class MemoryLayer:
    """Stores up to ``max_entries`` values, then drops the least recently used; ``ttl`` is in seconds.

    ``mapping`` holds the values. Another mapping may take its place if threads may share it.
    """

    name = "memory"

    def __init__(self, max_entries: float = 1_000_000, ttl: float | None = None) -> None:
        self.mapping: MutableMapping[str, Any] = _LockedLRU(max_entries)
        self._ttl = ttl

    def get(self, key: str) -> dict[str, Any] | None:
        """See `Layer.get`."""
        value = self.mapping.get(key)
        return copied(value) if isinstance(value, dict) and is_fresh(value, self._ttl) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """See `Layer.put`. The value passes through JSON, so that every layer returns the same."""
        self.mapping[key] = from_text(to_text(value))

    def close(self) -> None:
        """See `Layer.close`; there is nothing to close."""


class _LockedLRU(MutableMapping[str, Any]):
    """The LRUCache of cachetools behind a lock; two threads must not use one at the same time."""

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
        return len(self._entries)
