"""One of several processes on a machine that ask the same asks the provider; the others wait for its answer."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_lmcache.layers import make_folder

# So many lock files at most, however many keys. Two keys may share one; as waiting has an end, the worst of it
# is that one of two calls is asked a little later.
LOCKS = 1024


@dataclass(frozen=True, slots=True)
class Held:
    """A lock that is held until it is released; None where there was none to be had."""

    _lock: Any

    def release(self) -> None:
        """Let the next one in; a second time changes nothing."""
        if self._lock is not None:
            with suppress(OSError):
                self._lock.release()


class Flight:
    """The locks in ``folder``, of one cache. A folder that cannot be used locks nobody out.

    A lock is the process's own: one that ends, however it ends, holds none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()
        self._locks: Path | None = None

    def try_acquire(self, key: str) -> Held | None:
        """The lock of a key, None while another holds it: to be asked again after a sleep."""
        from filelock import FileLock, Timeout

        try:
            if self._locks is None:
                make_folder(self.folder)
                (self.folder / "locks").mkdir(exist_ok=True)
                self._locks = self.folder / "locks"
            # A lock that is tied to its thread could not be released from another.
            lock = FileLock(self._locks / _file_name(key), thread_local=False)
            lock.acquire(blocking=False)
        except Timeout:
            return None
        except (OSError, NotImplementedError):
            return Held(None)
        return Held(lock)


def _file_name(key: str) -> str:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return f"{int.from_bytes(digest, 'big') % LOCKS:03x}.lock"
