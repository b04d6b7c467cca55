"""One of several processes on a machine that ask the same asks the provider; the others wait for its answer."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pytest_lmcache.layers.contract import make_folder
from pytest_lmcache.locks import Held, lock

# So many lock files at most, however many keys. Two keys may share one; as waiting has an end, the worst of it
# is that one of two calls is asked a little later.
LOCKS = 1024


class Flight:
    """The locks in ``folder``, of one cache. A folder that cannot be used locks nobody out."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()
        self._locks: Path | None = None

    def try_acquire(self, key: str) -> Held | None:
        """The lock of a key, None while another holds it: to be asked again after a sleep."""
        try:
            if self._locks is None:
                make_folder(self.folder)
                locks = self.folder / "locks"
                locks.mkdir(exist_ok=True, mode=0o700)
                if locks.is_symlink():
                    return Held(None)
                self._locks = locks
            return lock(self._locks / _file_name(key))
        except OSError:
            return Held(None)


def _file_name(key: str) -> str:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return f"{int.from_bytes(digest, 'big') % LOCKS:03x}.lock"
