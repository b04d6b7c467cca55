"""Which cache stands behind a cassette: a user's own, or that of the settings, one for all equal settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from pytest_lmcache.layers.stack import Cache, FailedStores, Stats
from pytest_lmcache.settings import CacheSettings, Settings


class Caches:
    """The caches of a session. ``layers`` are the settings of the whole run."""

    def __init__(self) -> None:
        self.layers = CacheSettings()
        self._configured: dict[str, Any] = {}
        self._assigned: Any = None
        self._by_settings: dict[CacheSettings, Cache] = {}
        self._used: dict[int, Cache] = {}
        self._failed_stores: FailedStores = set()
        self._lock = threading.Lock()

    def configure(self, **layers: Any) -> None:
        """Choose the layers of the cache that stands behind all cassettes which name no other."""
        CacheSettings().updated(layers, "configure_cache()")
        self._failed_stores = set()  # try every folder and server again
        self._configured = layers
        self._assigned = None

    @property
    def default(self) -> Any:
        """The cache behind all cassettes that name no other; assign one, or None for that of the settings."""
        return self.by_settings() if self._assigned is None else self._assigned

    @default.setter
    def default(self, cache: Any) -> None:
        self._assigned = cache

    def by_settings(self, **layers: Any) -> Cache:
        """The cache of the run's settings, of ``configure`` and of these layers."""
        wanted = self.layers.updated(self._configured | layers, "the cache")
        with self._lock:
            if wanted not in self._by_settings:
                self._by_settings[wanted] = cache = Cache(**asdict(wanted))
                # One warning and one time-out for a server or folder, however many settings lead there.
                cache.share_failures(self._failed_stores)
            return self._by_settings[wanted]

    def users(self, settings: Settings, backend: Callable[[], Any] | None) -> Any:
        """The cache that a user made: the test's, the fixture's (``backend``) or the package's (``cache``).

        None if the settings make it.
        """
        if settings.cache is not None or settings.layers:
            return settings.cache
        found, source = backend() if backend is not None else None, "the fixture lm_cache_backend"
        if found is None:
            found, source = self._assigned, "pytest_lmcache.cache"
        return None if found is None else Settings().updated({"cache": found}, source).cache

    def find(self, settings: Settings, backend: Callable[[], Any] | None) -> Any:
        """The cache of a test."""
        cache = self.users(settings, backend)
        if cache is None:
            cache = self.by_settings(**dict(settings.layers))
        if isinstance(cache, Cache):
            self._used[id(cache)] = cache
        return cache

    def stats(self) -> Mapping[str, Stats]:
        """How often the layers of the caches behind cassettes were read and written, by the layer's name."""
        total: dict[str, Stats] = {}
        for cache in self._used.values():
            by_layer = Cache.stats(cache)  # by the class: a subclass may have something else under this name
            if any(stats != Stats() for stats in by_layer.values()):
                total |= {name: total.get(name, Stats()) + stats for name, stats in by_layer.items()}
        return total

    def close(self) -> None:
        """Close the layers that were opened here; the next call opens them again."""
        for cache in self._by_settings.values():
            cache.close()
        self._by_settings.clear()
        self._used.clear()
        self._failed_stores = set()
