"""One of several processes on a machine that ask the same asks the provider; the others wait for its answer."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from pytest_lmcache.layers import make_folder

# So many lock files at most, however many keys. Two keys may share one; as waiting has an end, the worst of it
# is that one of two calls is asked a little later.
LOCKS = 1024


class Held:
    """A lock that is held until it is released, as a descriptor of its file; None where there was none to be had."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let the next one in; a second time changes nothing."""
        from filelock import unlock_descriptor

        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):  # closed, it is free all the same, but not while a forked process has it too
                unlock_descriptor(descriptor)
            os.close(descriptor)


class Flight:
    """The locks in ``folder``, of one cache. A folder that cannot be used locks nobody out.

    A lock is the process's own: one that ends, however it ends, holds none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()
        self._locks: Path | None = None

    def try_acquire(self, key: str) -> Held | None:
        """The lock of a key, None while another holds it: to be asked again after a sleep."""
        from filelock import lock_descriptor

        try:
            if self._locks is None:
                make_folder(self.folder)
                (self.folder / "locks").mkdir(exist_ok=True)
                self._locks = self.folder / "locks"
            descriptor = os.open(self._locks / _file_name(key), os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return Held(None)
        try:
            is_ours = lock_descriptor(descriptor, blocking=False)
        except OSError:  # a system, or a network's file system, without locks
            os.close(descriptor)
            return Held(None)
        if is_ours:
            return Held(descriptor)
        os.close(descriptor)
        return None


def _file_name(key: str) -> str:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return f"{int.from_bytes(digest, 'big') % LOCKS:03x}.lock"
