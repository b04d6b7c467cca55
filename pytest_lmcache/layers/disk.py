"""The disk layer: values as JSON text in one SQLite database that the processes of a machine share."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from pytest_lmcache.clock import is_moved
from pytest_lmcache.errors import LayerError
from pytest_lmcache.layers.contract import from_text, is_fresh, make_folder, plain_key, to_text
from pytest_lmcache.layers.single_flight import SingleFlight
from pytest_lmcache.settings import DEFAULTS

DATABASE = Path("000", "cache.db")  # in the folder; diskcache's FanoutCache, used before, named it so
DB_TIMEOUT = 2.0  # seconds to wait for another process that has the database locked
CHECK_SIZE_AFTER = 0.01  # of the size limit: check the database's size after putting so much into it
IN_DATABASE = 1  # diskcache's MODE_RAW: the value is in the row, not in a file or pickled


class DiskLayer:
    """Stores values in ``folder`` up to about ``size_limit_bytes``, then evicts the least recently used.

    ``ttl`` is in seconds. The database is opened at the first `get` or `put`. Everything is in the database, so a
    value that `put` has returned from outlives the process, however that ends. Nothing is ever unpickled; a row
    that is not JSON text is removed.
    """

    name = "disk"

    def __init__(
        self, folder: Path, size_limit_bytes: float = DEFAULTS.disk_size_limit_bytes, ttl: float | None = None
    ) -> None:
        self.folder = Path(folder).absolute()
        self.single_flight = SingleFlight(self.folder)
        self._size_limit = size_limit_bytes
        self._ttl = ttl
        self._lock = threading.Lock()
        self._cache: Any = None
        self._used: dict[str, None] = {}  # the last used last
        self._unchecked = float(size_limit_bytes)  # bytes put since the size was checked

    def get(self, key: str) -> dict[str, Any] | None:
        """See `Layer.get`."""
        key = plain_key(key)

        def read(cache: Any) -> dict[str, Any] | None:
            text = cache.get(key)
            if text is None:
                return None
            value = from_text(text)
            if value is None:
                cache.delete(key)
            else:
                self._used[key] = self._used.pop(key, None)
            return value

        value = self._in_database(read)
        return value if value is not None and is_fresh(value, self._ttl) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """See `Layer.put`."""
        key, text = plain_key(key), to_text(value)

        def write(cache: Any) -> None:
            cache.set(key, text)
            self._unchecked += len(text)
            if is_moved():
                self._used[key] = self._used.pop(key, None)  # diskcache has stored the time of a test's clock
            elif self._unchecked > CHECK_SIZE_AFTER * self._size_limit:
                self._unchecked = 0
                self._evict(cache, key, text)

        self._in_database(write)

    def close(self) -> None:
        """See `Layer.close`. Closes the connection of the thread that calls it; other threads have none open."""
        with self._lock:
            cache, self._cache = self._cache, None
        if cache is not None:
            with suppress(Exception):  # when values were used is not worth an error
                self._store_use(cache)
            with suppress(sqlite3.Error):
                cache.close()

    def __del__(self) -> None:
        """Leave no connection open; Python would warn about it."""
        self.close()

    def _in_database(self, act: Callable[[Any], dict[str, Any] | None]) -> dict[str, Any] | None:
        try:
            with self._lock:
                if self._cache is None:
                    self._cache = self._open()
                cache = self._cache
            try:
                return act(cache)
            finally:
                # Each thread has a connection of its own, which nobody can close once the thread has ended.
                if threading.current_thread() is not threading.main_thread():
                    cache.close()
        except Exception as error:  # a broken database fails in many ways, none of which may end a test
            raise LayerError(
                f"The cache in {self.folder} cannot be used: {_reason(error)}.\n"
                "It holds only copies: delete the folder, or name another one "
                "(lm_disk_dir, disk_cache_dir=...), or switch the layer off (enable_disk_cache=False)."
            ) from error

    def _open(self) -> Any:
        from diskcache import Cache

        make_folder(self.folder)
        _check_writable(self.folder / DATABASE)
        opened = Cache(
            (self.folder / DATABASE).parent,
            timeout=DB_TIMEOUT,
            disk=_text_disk(),
            size_limit=self._size_limit,
            eviction_policy="least-recently-used",
            cull_limit=0,
        )
        opened.reset(
            "eviction_policy", "none", update=False
        )  # a read is to take no lock and to write nothing
        return opened

    def _store_use(self, cache: Any) -> None:
        """Store which values were used, all at once."""
        if not self._used or is_moved():
            return
        used, self._used = self._used, {}
        with _eviction(cache, 0), cache.transact():
            for key in list(used):
                cache.get(key)

    def _evict(self, cache: Any, key: str, text: str) -> None:
        """Remove what was not used for longest until all fits, but never the value that was just put.

        Putting it once more makes it the most recently used, and has diskcache evict a tenth of the others.
        """
        while cache.volume() > self._size_limit and (count := len(cache)) > 1:
            self._store_use(cache)
            with _eviction(cache, max(1, count // 10)):
                cache.set(key, text)


@contextmanager
def _eviction(cache: Any, count: int) -> Iterator[None]:
    """Have diskcache keep the order of use at each get, and evict up to ``count`` values at each set.

    In this process, not for the others that use the database.
    """
    cache.reset("eviction_policy", "least-recently-used", update=False)
    cache.reset("cull_limit", count, update=False)
    try:
        yield
    finally:
        cache.reset("eviction_policy", "none", update=False)
        cache.reset("cull_limit", 0, update=False)


@cache
def _text_disk() -> type[Any]:
    """How diskcache stores values: text in the database. It reads no key, so a pickled one is harmless."""
    import diskcache

    class TextDisk(diskcache.Disk):  # type: ignore[misc]
        def store(self, value: str, _read: Any, **_: Any) -> tuple[int, int, None, str]:
            """Store text of any length in the row."""
            return 0, IN_DATABASE, None, value

        def fetch(self, mode: Any, filename: Any, value: Any, _read: Any) -> str:
            """Return the text of a row; an empty one if it is of any other kind."""
            return value if mode == IN_DATABASE and filename is None and type(value) is str else ""

        def remove(self, _path: str) -> None:
            """Remove no file: this layer has none, and a foreign row may name any."""

    return TextDisk


def _check_writable(database: Path) -> None:
    """Raise an error if the database cannot be written: diskcache would go on trying for a minute."""
    database.parent.mkdir(exist_ok=True, mode=0o700)
    # SQLite gives the files beside the database the same permissions.
    os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(sqlite3.connect(database, timeout=DB_TIMEOUT, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def _reason(error: BaseException) -> str:
    """The first error of the chain: diskcache's Timeout hides it."""
    while error.__context__ is not None:
        error = error.__context__
    text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return text or type(error).__name__
