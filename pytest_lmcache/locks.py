"""File locks that the threads and processes of one machine share; filelock locks the files.

Its functions for descriptors take 4 µs, its ``FileLock`` 90, which would neither name the holder nor remove the file.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_lmcache.clock import RealTime
from pytest_lmcache.errors import LMCacheWarning

POLL_INTERVAL = 0.005  # seconds between two attempts
HOLD_LIMIT = 10.0  # seconds for which one process may keep others waiting
LONGEST_NAME = 255  # bytes
# Follow no link to a file that is not ours. Windows has no such flag, and few links.
OPEN_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


class HeldTooLongError(Exception):
    """One process holds a lock for longer than HOLD_LIMIT."""


class Lock:
    """A lock that is held until any thread releases it, until nothing refers to it, or until the process ends.

    ``descriptor`` is that of the locked file; a lock without one excludes nobody.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let the next one in. A second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            from filelock import unlock_descriptor

            # Closing does not unlock a file that a forked process has open too.
            with suppress(OSError, NotImplementedError):
                unlock_descriptor(descriptor)
            os.close(descriptor)

    def __del__(self) -> None:
        """Release a lock that was forgotten."""
        self.release()


NO_LOCK = Lock()
"""Returned if there is nobody to exclude, or no way to do it."""


def try_lock(path: Path) -> Lock | None:
    """Lock a file, which is created if it is missing; None if another process or thread has locked it.

    Raises OSError if the file cannot be opened, if it is a link, and if its file system has no locks.
    """
    return _try_lock(os.open(path, OPEN_FLAGS, 0o600))


@contextmanager
def exclusive_writing(path: Path) -> Iterator[None]:
    """Let one process at a time change a file. The lock file beside it exists only meanwhile.

    Raises HeldTooLongError if a process does not release the lock, OSError if the lock file cannot be created. On
    a file system without locks it warns and excludes nobody.
    """
    name = f".{path.name}.lock"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.blake2b(os.fsencode(name), digest_size=12).hexdigest()}.lock"
    lock_file = path.with_name(name)
    lock = _wait_for_lock(lock_file, path)
    try:
        yield
    finally:
        if os.name == "nt":  # which removes no open file
            lock.release()
        # Elsewhere the file goes while it is locked: whoever waits with it open notices, and opens the next one.
        with suppress(OSError):
            lock_file.unlink()
        lock.release()


def _wait_for_lock(lock_file: Path, path: Path) -> Lock:
    holder, since = "", RealTime.seconds()
    while True:
        _remove_foreign(lock_file)
        descriptor = os.open(lock_file, OPEN_FLAGS, 0o666)
        try:
            lock = _try_lock(descriptor)
        except (OSError, NotImplementedError) as problem:
            warnings.warn(
                LMCacheWarning(
                    f"{path.parent} is on a file system without locks ({problem}): if two processes record into "
                    f"{path.name} at once, one may undo what the other wrote."
                ),
                stacklevel=2,
            )
            return NO_LOCK
        if lock is not None:
            if _has_name(descriptor, lock_file):
                with suppress(OSError):  # a full disk shows when the cassette is written
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, _this_process().encode("utf-8", "backslashreplace"))
                return lock
            lock.release()
            continue
        found, now = _holder(lock_file), RealTime.seconds()
        if found != holder:
            holder, since = found, now
        elif now - since > HOLD_LIMIT:
            raise HeldTooLongError(
                f"{holder or 'another process'} holds {lock_file.name}, the lock beside it"
            )
        time.sleep(POLL_INTERVAL)


def _try_lock(descriptor: int) -> Lock | None:
    """Lock an open file, or close it, as soon as nothing refers to its Lock."""
    from filelock import lock_descriptor

    lock = Lock(descriptor)
    return lock if lock_descriptor(descriptor, blocking=False) else None


def _remove_foreign(lock_file: Path) -> None:
    """Remove anything but a plain file. We would write to the other end of a link of either kind.

    Raises OSError for a folder.
    """
    try:
        status = lock_file.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            lock_file.unlink()
    except FileNotFoundError:
        return
    except OSError as problem:
        raise OSError(problem.errno, f"{lock_file} is not a file, so it cannot be the lock") from None


def _has_name(descriptor: int, path: Path) -> bool:
    """Return whether an open file has its name still: the process that held the lock before removes the file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _this_process() -> str:
    """Describe this process, without its arguments, which may hold a secret."""
    program = "/".join(Path(sys.argv[0] if sys.argv else "").parts[-2:]) or "python"
    machine = platform.node() or "this machine"
    return f"process {os.getpid()} on {machine} ({program}, since {RealTime.now().strftime('%H:%M:%S.%f')})"


def _holder(lock_file: Path) -> str:
    try:
        return lock_file.read_text(encoding="utf-8", errors="replace")[:300]
    except OSError:  # the lock was released, or Windows lets nobody read a locked file
        return ""
