"""Cache: the layers behind the cassette as one store. Use it as it is, or subclass it."""

from __future__ import annotations

import inspect
import os
import sysconfig
import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from traceback import walk_stack
from typing import TYPE_CHECKING, Any

from pytest_lmcache import keys
from pytest_lmcache.errors import LayerError, LMCacheWarning
from pytest_lmcache.layers.contract import Layer
from pytest_lmcache.layers.memory import MemoryLayer
from pytest_lmcache.settings import DEFAULTS, CacheSettings

if TYPE_CHECKING:
    from pytest_lmcache.layers.single_flight import SingleFlight

FOLDER = Path(".pytest_cache/d/lmcache")

FailedStores = set[tuple[str, object]]
"""The name of each layer that failed, and its folder or URL."""

_LOCK = threading.Lock()


class Value(dict[str, Any]):
    """A value; ``layer`` is the name of the layer that had it: ``memory``, ``disk`` or ``redis``."""

    __slots__ = ("layer",)

    def __init__(self, value: Mapping[str, Any], layer: str) -> None:
        super().__init__(value)
        self.layer = layer


@dataclass(frozen=True, slots=True)
class Stats:
    """How many requests to a layer found a value, how many did not, and how many values were stored in it."""

    hits: int = 0
    misses: int = 0
    puts: int = 0

    def __add__(self, other: Stats) -> Stats:
        return Stats(self.hits + other.hits, self.misses + other.misses, self.puts + other.puts)


HIT, MISS, PUT = Stats(hits=1), Stats(misses=1), Stats(puts=1)


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """What one cache works with; ``stats`` by the layer's name."""

    memory: MemoryLayer
    layers: tuple[Layer, ...]
    failures: FailedStores
    stats: dict[str, Stats] = field(default_factory=lambda: defaultdict(Stats))


class Cache:
    """Answers by key: looked up in memory, then on disk, then on a Redis server, and put into all of them.

    In a subclass, override any of `cache_key`, `get` and `put`; you need not call ``super().__init__()``.
    Threads may share a cache. Nothing is opened before the first `get` or `put`.
    """

    # Class attributes, for subclasses whose __init__ does not call ours.
    _settings = DEFAULTS
    _shared_failures: FailedStores | None = None
    _built: _State | None = None

    def __init__(
        self,
        *,
        enable_memory_cache: bool = True,
        enable_disk_cache: bool = True,
        disk_cache_dir: str | Path | None = None,
        disk_size_limit_bytes: float = DEFAULTS.disk_size_limit_bytes,
        memory_max_entries: float = DEFAULTS.memory_max_entries,
        ttl: float | None = None,
        url: str | None = None,
        **unknown: Any,
    ) -> None:
        """Choose the layers.

        ``disk_cache_dir`` defaults to ``.pytest_cache/d/lmcache`` in the current folder, ``disk_size_limit_bytes``
        is in bytes. ``memory_max_entries`` is a number of answers, or ``math.inf``. ``ttl`` is in seconds, counted
        from the recording. ``url`` is that of a Redis or Valkey server: ``redis://``, ``rediss://``, ``unix://``,
        ``valkey://`` or ``valkeys://``. Raises SettingsError for any other argument, for an invalid
        value, and for a URL if redis-py is not installed.
        """
        if disk_cache_dir is None:
            disk_cache_dir = FOLDER
        given = {name: value for name, value in locals().items() if name not in {"self", "unknown"}}
        self._settings = DEFAULTS.updated(given | unknown, f"{type(self).__name__}()")
        if url is not None:
            from pytest_lmcache.layers.redis import check_installed

            check_installed()

    def cache_key(self, request: dict[str, Any]) -> str:
        """Return the key of a request: calls with equal keys are the same call. By default, the whole request counts.

        ``request`` is the normalized request: plain data such as ``{"model": ..., "messages": [...]}``, without
        API keys. The key may be any text.
        """
        return keys.exact(request)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the value of a key from the first layer that has it, or None. The layers before it get the value, too.

        The value is a `Value`: a dict of JSON data with the layer's name in ``layer``. A layer that fails is not
        used any more, with an LMCacheWarning.
        """
        failures: dict[Layer, LayerError] = {}
        above: list[Layer] = []
        found: Value | None = None
        for layer in self._working_layers():
            try:
                value = layer.get(key)
            except LayerError as error:
                failures[layer] = error
                continue
            self._count(layer, MISS if value is None else HIT)
            if value is not None:
                found = Value(value, layer.name)
                failures |= _put(above, key, found)
                break
            above.append(layer)
        self._leave_out(failures)
        return found

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Put a value, a dict of JSON data, into every layer; it replaces an earlier value of the key.

        A layer that fails is not used any more, with an LMCacheWarning. Raises CacheError for a value that is
        not JSON data.
        """
        layers = self._working_layers()
        failures = _put(layers, key, value)
        for layer in layers:
            if layer not in failures:
                self._count(layer, PUT)
        self._leave_out(failures)

    @property
    def keeps(self) -> bool:
        """Whether `put` stores values anywhere."""
        return type(self).put is not Cache.put or bool(self._working_layers())

    @property
    def single_flight(self) -> SingleFlight | None:
        """The locks that let one process of the machine ask at a time; None without a disk layer to hold them."""
        if type(self).get is not Cache.get and type(self).put is not Cache.put:
            return None  # the subclass stores its values elsewhere
        found = (getattr(layer, "single_flight", None) for layer in self._working_layers())
        return next((locks for locks in found if locks is not None), None)

    def stats(self) -> dict[str, Stats]:
        """How often each layer, by name, was used by `get` and `put`."""
        state = self._state()
        return {layer.name: state.stats[layer.name] for layer in state.layers}

    def close(self) -> None:
        """Close files and connections; the next `get` or `put` opens them again."""
        if self._built is not None:
            for layer in self._built.layers:
                layer.close()

    def share_failures(self, failures: FailedStores) -> None:
        """Leave out the stores in ``failures``, and add those that fail; call it before the first `get` or `put`.

        Caches with the same set try a failing server or folder once, and warn of it once.
        """
        self._shared_failures = failures

    @property
    def _memory_cache(self) -> MutableMapping[str, Any]:
        """The mapping behind the memory layer, for subclasses, as in DSPy; it exists if the layer is off, too."""
        return self._state().memory.mapping

    @_memory_cache.setter
    def _memory_cache(self, mapping: MutableMapping[str, Any]) -> None:
        self._state().memory.mapping = mapping

    def _state(self) -> _State:
        if self._built is None:
            with _LOCK:
                if self._built is None:
                    memory = MemoryLayer(self._settings.memory_max_entries, self._settings.ttl)
                    failures = set() if self._shared_failures is None else self._shared_failures
                    self._built = _State(memory, tuple(make_layers(self._settings, memory)), failures)
        return self._built

    def _working_layers(self) -> list[Layer]:
        state = self._state()
        return [layer for layer in state.layers if self._store(layer) not in state.failures]

    def _store(self, layer: Layer) -> tuple[str, object]:
        stores = {"disk": self._settings.disk_cache_dir, "redis": self._settings.url}
        return layer.name, stores.get(layer.name)

    def _count(self, layer: Layer, use: Stats) -> None:
        stats = self._state().stats
        with _LOCK:
            stats[layer.name] += use

    def _leave_out(self, failures: Mapping[Layer, LayerError]) -> None:
        """Leave layers out from now on. Called last of all: a warning may be an error here."""
        for layer, error in failures.items():
            store, known = self._store(layer), self._state().failures
            with _LOCK:
                if store in known:
                    continue
                known.add(store)
            message = (
                f"The {layer.name} layer of the cache is not used any more in this run; recording goes on without "
                f"it. {error}"
            )
            warnings.warn(message, LMCacheWarning, stacklevel=_users_level())


def make_layers(settings: CacheSettings, memory: MemoryLayer) -> Iterator[Layer]:
    """Make the layers that are switched on, in the order in which they are asked."""
    if settings.enable_memory_cache:
        yield memory
    if settings.enable_disk_cache:
        from pytest_lmcache.layers.disk import DiskLayer

        yield DiskLayer(settings.disk_cache_dir or FOLDER, settings.disk_size_limit_bytes, settings.ttl)
    if settings.url is not None:
        from pytest_lmcache.layers.redis import RedisLayer

        yield RedisLayer(settings.url, settings.ttl)


def _put(layers: Sequence[Layer], key: str, value: dict[str, Any]) -> dict[Layer, LayerError]:
    """Put a value into layers; returns those that failed."""
    failures = {}
    for layer in layers:
        try:
            layer.put(key, value)
        except LayerError as error:
            failures[layer] = error
    return failures


def _users_level() -> int:
    """The ``stacklevel`` with which a warning of our caller's points at the user's code."""
    installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    others = (f"{Path(__file__).parents[1]}{os.sep}", *installed, "<frozen", "<pytest-lmcache")
    files = (frame.f_code.co_filename for frame, _ in walk_stack(inspect.currentframe()))
    return next((level for level, file in enumerate(files) if not file.startswith(others)), 1)
