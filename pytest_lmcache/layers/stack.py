"""Cache: the layers behind the cassette as one store, to be used as it is or subclassed."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from traceback import walk_stack
from typing import TYPE_CHECKING, Any

from pytest_lmcache import keys
from pytest_lmcache.errors import LayerError, LMCacheWarning, layer_off
from pytest_lmcache.layers.contract import Layer
from pytest_lmcache.layers.memory import MemoryLayer
from pytest_lmcache.settings import CacheSettings

if TYPE_CHECKING:
    from pytest_lmcache.layers.single_flight import SingleFlight

FOLDER = Path(".pytest_cache/d/lmcache")

_BUILDING = threading.Lock()


class Value(dict[str, Any]):
    """A value, and the name of the layer that it came from: memory, disk or redis."""

    __slots__ = ("layer",)

    def __init__(self, value: Mapping[str, Any], layer: str) -> None:
        super().__init__(value)
        self.layer = layer


@dataclass(frozen=True, slots=True)
class Stats:
    """What a layer was asked and told: values found, values not found, values put."""

    hits: int = 0
    misses: int = 0
    puts: int = 0

    def __add__(self, other: Stats) -> Stats:
        """The two together."""
        return Stats(self.hits + other.hits, self.misses + other.misses, self.puts + other.puts)


@dataclass(frozen=True, slots=True, eq=False)
class Troubles:
    """The stores that have failed, by layer and by folder or URL; caches that share it leave out the same ones."""

    off: set[tuple[str, Any]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True, eq=False)
class _Stack:
    """The layers of one cache, top first, and how often each was asked and told; ``lock`` is for ``counts``."""

    memory: MemoryLayer
    layers: tuple[Layer, ...]
    troubles: Troubles
    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)


class Cache:
    """Answers by key, in memory, on disk and on a Redis server: looked up in this order, put into all of them.

    Made to be subclassed: override `cache_key`, `get`, `put`, any of them or all; ``super().__init__()`` need
    not be called. Threads may share one. Nothing is opened before the first `get` or `put`.
    """

    # Here for subclasses whose __init__ leaves it out.
    _settings = CacheSettings()
    _built: _Stack | None = None
    _shared: Troubles | None = None

    def __init__(
        self,
        *,
        enable_memory_cache: bool = True,
        enable_disk_cache: bool = True,
        disk_cache_dir: str | Path | None = None,
        disk_size_limit_bytes: float = 1_000_000_000,
        memory_max_entries: float = 1_000_000,
        ttl: float | None = None,
        url: str | None = None,
        **unknown: Any,
    ) -> None:
        """Choose the layers.

        ``disk_cache_dir`` is ``.pytest_cache/d/lmcache`` in the current folder unless it is given. ``ttl`` is in
        seconds, counted from the recording. ``memory_max_entries`` may be ``math.inf``. ``url`` is that of a
        Redis or Valkey server. Raises SettingsError for a value that an argument cannot have.
        """
        given = {
            "enable_memory_cache": enable_memory_cache,
            "enable_disk_cache": enable_disk_cache,
            "disk_cache_dir": FOLDER if disk_cache_dir is None else disk_cache_dir,
            "disk_size_limit_bytes": disk_size_limit_bytes,
            "memory_max_entries": memory_max_entries,
            "ttl": ttl,
            "url": url,
        }
        self._settings = CacheSettings().updated(given | unknown, f"{type(self).__name__}()")
        if url is not None:
            from pytest_lmcache.layers.redis import check_installed

            check_installed()

    def cache_key(self, request: dict[str, Any]) -> str:
        """What makes two calls the same: everything that was asked. ``request`` is normalized."""
        return keys.exact(request)

    def get(self, key: str) -> dict[str, Any] | None:
        """The value of a key from the first layer that has it; the layers above it have it then too.

        None where no layer has it. A layer that fails is left out from then on, with a warning.
        """
        troubles: list[tuple[Layer, LayerError]] = []
        above: list[Layer] = []
        found: Value | None = None
        for layer in self._working():
            try:
                value = layer.get(key)
            except LayerError as error:
                troubles.append((layer, error))
                continue
            self._count(layer, "misses" if value is None else "hits")
            if value is not None:
                found = Value(value, layer.name)
                self._put(above, key, found, troubles)
                break
            above.append(layer)
        self._tell(troubles)
        return found

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a value in every layer, in place of what was there under its key.

        A layer that fails is left out from then on, with a warning. Raises CacheError for what is not JSON data.
        """
        troubles: list[tuple[Layer, LayerError]] = []
        for layer in self._put(self._working(), key, value, troubles):
            self._count(layer, "puts")
        self._tell(troubles)

    @property
    def keeps(self) -> bool:
        """Whether what is put is kept anywhere."""
        return type(self).put is not Cache.put or bool(self._working())

    @property
    def single_flight(self) -> SingleFlight | None:
        """The locks that let one process of the machine ask at a time; None without a disk layer: they lie in its folder."""
        if type(self).get is not Cache.get and type(self).put is not Cache.put:
            return None  # what they keep, and where, is their own
        found: Iterator[SingleFlight | None] = (
            getattr(layer, "single_flight", None) for layer in self._working()
        )
        return next(filter(None, found), None)

    def stats(self) -> dict[str, Stats]:
        """For each layer by name, how often it was asked by `get` and told by `put`, and with what success."""
        stack = self._stack
        with stack.lock:
            return {
                layer.name: Stats(*(stack.counts[layer.name, what] for what in ("hits", "misses", "puts")))
                for layer in stack.layers
            }

    def close(self) -> None:
        """Let go of files and connections; the next `get` or `put` takes them up again."""
        if self._built is not None:
            for layer in self._built.layers:
                layer.close()

    @property
    def _memory_cache(self) -> MutableMapping[str, Any]:
        """The mapping behind the memory layer; there also where the layer is off, but then for subclasses alone."""
        return self._stack.memory.mapping

    @_memory_cache.setter
    def _memory_cache(self, mapping: MutableMapping[str, Any]) -> None:
        self._stack.memory.mapping = mapping

    @property
    def _stack(self) -> _Stack:
        if self._built is None:
            with _BUILDING:
                if self._built is None:
                    self._built = _stack_of(self._settings, self._shared or Troubles())
        return self._built

    def _working(self) -> list[Layer]:
        stack = self._stack
        return [layer for layer in stack.layers if self._place(layer) not in stack.troubles.off]

    def _place(self, layer: Layer) -> tuple[str, Any]:
        places = {"disk": self._settings.disk_cache_dir, "redis": self._settings.url}
        return layer.name, places.get(layer.name)

    def _put(
        self, layers: list[Layer], key: str, value: dict[str, Any], troubles: list[tuple[Layer, LayerError]]
    ) -> list[Layer]:
        """Put a value into layers; returns those that took it."""
        took = []
        for layer in layers:
            try:
                layer.put(key, value)
            except LayerError as error:
                troubles.append((layer, error))
            else:
                took.append(layer)
        return took

    def _count(self, layer: Layer, what: str) -> None:
        with self._stack.lock:
            self._stack.counts[layer.name, what] += 1

    def _tell(self, troubles: list[tuple[Layer, LayerError]]) -> None:
        """Switch layers off; last of all, since a warning may be an error here."""
        for layer, trouble in troubles:
            place, known = self._place(layer), self._stack.troubles
            with known.lock:
                if place in known.off:
                    continue
                known.off.add(place)
            warnings.warn(layer_off(layer.name, trouble), LMCacheWarning, stacklevel=_users_level())


def _users_level() -> int:
    """For a warning of our caller's: which of its callers is the user's code, else what called this package."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    ours = f"{Path(__file__).parents[1]}{os.sep}"
    files = [frame.f_code.co_filename for frame, _ in walk_stack(sys._getframe(1))]  # noqa: SLF001
    foreign = [level for level, file in enumerate(files, 1) if not file.startswith(ours)]
    users = (
        level for level in foreign if not files[level - 1].startswith((*places, "<frozen", "<pytest-lmcache"))
    )
    return next(users, foreign[0] if foreign else 1)


def _stack_of(settings: CacheSettings, troubles: Troubles) -> _Stack:
    memory = MemoryLayer(settings.memory_max_entries, settings.ttl)
    layers: list[Layer] = []
    if settings.enable_memory_cache:
        layers.append(memory)
    if settings.enable_disk_cache:
        from pytest_lmcache.layers.disk import DiskLayer

        folder = settings.disk_cache_dir or FOLDER
        layers.append(DiskLayer(folder, settings.disk_size_limit_bytes, settings.ttl))
    if settings.url is not None:
        from pytest_lmcache.layers.redis import RedisLayer

        layers.append(RedisLayer(settings.url, settings.ttl))
    return _Stack(memory, tuple(layers), troubles)
