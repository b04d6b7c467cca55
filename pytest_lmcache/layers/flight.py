"""One of several processes on a machine that ask the same asks the provider; the others wait for its answer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_lmcache.layers import make_folder

# So many lock files at most, however many keys. Two keys may share one; as waiting has an end, the worst of it
# is that one of two calls is asked a little later.
LOCKS = 1024
POLL = 0.02  # seconds


@dataclass(frozen=True, slots=True)
class Held:
    """A lock that is held until it is released."""

    _lock: Any

    def release(self) -> None:
        """Let the next one in; a second time changes nothing."""
        with suppress(OSError):
            self._lock.release()


class Flight:
    """The locks in ``folder``, of one cache. A folder that cannot be used locks nobody out.

    A lock is the process's own: one that ends, however it ends, holds none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()

    @contextmanager
    def enter(self, key: str, wait_seconds: float) -> Iterator[bool]:
        """Hold the lock of a key; False where it could not be had in time, or not at all: go on without it."""
        held = self.try_acquire(key)
        # Counted, not timed: a test may have stopped the clock.
        for _ in range(int(wait_seconds / POLL)):
            if held is not None:
                break
            time.sleep(POLL)
            held = self.try_acquire(key)
        try:
            yield held is not None
        finally:
            if held is not None:
                held.release()

    def try_acquire(self, key: str) -> Held | None:
        """The lock of a key if it is free now; for callers that must not block, to ask again after a sleep."""
        from filelock import FileLock, Timeout

        try:
            make_folder(self.folder)
            locks = self.folder / "locks"
            locks.mkdir(exist_ok=True)
            # A lock that is tied to its thread could not be released from another.
            lock = FileLock(locks / _file_name(key), thread_local=False)
            lock.acquire(timeout=0)
        except (Timeout, OSError, NotImplementedError):
            return None
        return Held(lock)


def _file_name(key: str) -> str:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return f"{int.from_bytes(digest, 'big') % LOCKS:03x}.lock"
