"""The disk layer: values as JSON text in one SQLite database that the processes of a machine share."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pytest_lmcache.clock import RealTime
from pytest_lmcache.errors import LayerError, disk_trouble
from pytest_lmcache.layers.contract import from_text, is_fresh, make_folder, plain_key, to_text
from pytest_lmcache.layers.single_flight import SingleFlight

LOOK_AFTER = 0.01  # of the size limit: after putting so much a layer looks how full the database is
PATIENCE = 2.0  # seconds to wait while another process writes, or has the database locked
SHARDS = 1  # each costs 3 ms to open; one takes 15,000 writes a second, from all processes together
SHARD, DATABASE = "000", "cache.db"  # diskcache's names
IN_DATABASE = 1  # diskcache's MODE_RAW
# What diskcache does in four statements, and with the test's clock.
PUT = """
INSERT INTO Cache (key, raw, store_time, access_time, mode, value) VALUES (:key, 1, :now, :now, :mode, :text)
ON CONFLICT (key, raw) DO UPDATE SET
store_time = :now, expire_time = NULL, access_time = :now, access_count = 0, tag = NULL, size = 0,
mode = :mode, filename = NULL, value = :text
"""

_T = TypeVar("_T")


class DiskLayer:
    """Keeps values in ``folder`` up to about ``size_limit_bytes``; who was not used for longest goes first.

    Opened at the first `get` or `put`. What is in the folder is never unpickled: a row that is not text is
    removed unread. Everything is in the database, nothing in files beside it, so a value that `put` has
    returned from outlives the process however that ends.
    """

    name = "disk"

    def __init__(
        self, folder: Path, size_limit_bytes: float = 1_000_000_000, ttl: float | None = None
    ) -> None:
        self.folder = Path(folder).absolute()
        self.single_flight = SingleFlight(self.folder)
        self._size_limit = size_limit_bytes
        self._ttl = ttl
        self._lock = threading.Lock()
        self._cache: Any = None
        self._used: dict[str, float] = {}
        self._unseen = float(size_limit_bytes)  # bytes put since the last look at the database's size

    def get(self, key: str) -> dict[str, Any] | None:
        """As every layer."""
        key = plain_key(key)

        def read(shard: Any) -> dict[str, Any] | None:
            try:
                text = shard.get(key)
                if text is None:
                    return None
                value = from_text(text)
            except _ForeignRowError:
                value = None
            if value is None:
                shard.delete(key)
            else:
                self._used[key] = RealTime.since_1970()
            return value

        found = self._in_database(read)
        return found if found is not None and is_fresh(found, self._ttl) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """As every layer."""
        key, text = plain_key(key), to_text(value)

        def write(shard: Any) -> None:
            now = RealTime.since_1970()  # a test's clock would make it first to go, or never
            shard._sql(PUT, {"key": key, "now": now, "mode": IN_DATABASE, "text": text})  # noqa: SLF001
            self._unseen += len(text)
            if self._unseen > LOOK_AFTER * self._size_limit:
                self._unseen = 0
                self._shrink(shard, key)

        self._in_database(write)

    def close(self) -> None:
        """As every layer; the connection is closed in the thread that has it."""
        with self._lock:
            if self._cache is not None:
                with suppress(Exception):  # what was read last is nothing to fail over
                    self._note_use(self._cache._shards[0])  # noqa: SLF001
                with suppress(sqlite3.Error):
                    self._cache.close()
                self._cache = None

    def __del__(self) -> None:
        """Leave no connection open, about which Python would warn."""
        self.close()

    def _in_database(self, act: Callable[[Any], _T]) -> _T:
        try:
            shard = self._shard()
            try:
                return act(shard)
            finally:
                # Each thread has a connection, which nobody else can close once the thread has ended.
                if threading.current_thread() is not threading.main_thread():
                    shard.close()
        except Exception as error:  # a broken database shows in many ways, none of which may end a test
            raise LayerError(disk_trouble(self.folder, _reason(error))) from error

    def _shard(self) -> Any:
        """The only shard: FanoutCache itself takes a database that is locked for a miss."""
        with self._lock:
            if self._cache is None:
                self._cache = self._open()
            return self._cache._shards[0]  # noqa: SLF001

    def _open(self) -> Any:
        from diskcache import FanoutCache

        make_folder(self.folder)
        _probe(self.folder / SHARD)
        opened = FanoutCache(
            self.folder,
            shards=SHARDS,
            timeout=PATIENCE,
            disk=_disk_class(),
            size_limit=self._size_limit,
            eviction_policy="least-recently-used",
            cull_limit=0,  # it would take ten rows, be the new one among them; see _shrink
        )
        # Here, not in the database: a read is to take no lock and to write nothing; see _note_use.
        opened._shards[0].eviction_policy = "none"  # noqa: SLF001
        return opened

    def _note_use(self, shard: Any) -> None:
        """Write down when values were read, all at once."""
        used, self._used = self._used, {}
        if used:
            with shard.transact():
                shard._con.executemany(  # noqa: SLF001
                    "UPDATE Cache SET access_time = max(access_time, ?) WHERE key = ? AND raw = 1",
                    [(when, key) for key, when in list(used.items())],
                )

    def _shrink(self, shard: Any, key: str) -> None:
        """Remove what was not used for longest until all fits, but never the value that was just put."""
        if shard.volume() > shard.size_limit:
            self._note_use(shard)
        while shard.volume() > shard.size_limit:
            removed = shard._sql(  # noqa: SLF001
                "DELETE FROM Cache WHERE rowid ="
                " (SELECT rowid FROM Cache WHERE key IS NOT ? ORDER BY access_time LIMIT 1)",
                (key,),
            )
            if not removed.rowcount:
                return


class _ForeignRowError(Exception):
    """A row that this layer has not written."""


@cache
def _disk_class() -> type[Any]:
    """How diskcache turns keys and values into columns: text only, and never by pickle."""
    import diskcache

    class TextDisk(diskcache.Disk):  # type: ignore[misc]
        def get(self, _key: Any, _raw: Any) -> Any:
            """Refuse to read a key back: nobody asks, and it may be pickled."""
            raise _ForeignRowError

        def fetch(self, mode: Any, filename: Any, value: Any, _read: Any) -> str:
            """Take text from the database, and nothing else from anywhere."""
            if mode == IN_DATABASE and filename is None and type(value) is str:
                return value
            raise _ForeignRowError

        def remove(self, _path: str) -> None:
            """Leave files alone: this layer has none, and a row may name any."""

    return TextDisk


def _probe(folder: Path) -> None:
    """Find out whether the database can be written: diskcache would try to open it for a minute."""
    folder.mkdir(exist_ok=True, mode=0o700)
    # SQLite gives the files beside the database the same permissions.
    os.close(os.open(folder / DATABASE, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(sqlite3.connect(folder / DATABASE, timeout=PATIENCE, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def _reason(error: BaseException) -> str:
    """What was first to go wrong: diskcache's Timeout hides it."""
    while error.__context__ is not None:
        error = error.__context__
    text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return text or type(error).__name__
