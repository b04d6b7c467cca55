"""Single flight: if several processes of a machine make the same call, one asks the provider, the others wait."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pytest_lmcache.layers.contract import make_folder
from pytest_lmcache.locks import NO_LOCK, Lock, try_lock

# The number of lock files. Two keys may share one; then one of two calls waits a little, a minute at most.
LOCKS = 1024


class SingleFlight:
    """One lock for each key, in ``folder``. A folder that cannot be used excludes nobody."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()
        self._locks: Path | None = None

    def claim(self, key: str) -> Lock | None:
        """Lock a key; None if another process or thread has locked it: sleep, and try again."""
        try:
            if self._locks is None:
                make_folder(self.folder)
                locks = self.folder / "locks"
                locks.mkdir(exist_ok=True, mode=0o700)
                if locks.is_symlink():
                    return NO_LOCK
                self._locks = locks
            digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).digest()
            return try_lock(self._locks / f"{int.from_bytes(digest, 'big') % LOCKS:03x}.lock")
        except OSError:
            return NO_LOCK
