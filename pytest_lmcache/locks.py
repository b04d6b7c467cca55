"""Locks that the processes of a machine, and the threads of one, share: a lock file's descriptor, locked by filelock."""

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

POLL_INTERVAL = 0.005  # seconds between two tries of who waits
HANGS_AFTER = 10.0  # seconds for which one holder may keep others waiting
LONGEST_NAME = 255  # bytes
# A link in the place of a lock file leads to nothing of ours; Windows has no such flag, and few links.
OPEN = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


class HeldTooLongError(Exception):
    """One holder keeps a lock that others wait for."""


class Held:
    """A lock until it is released, by whichever thread; a process that ends, however it ends, holds none.

    ``descriptor`` is that of its file, None for one that locks nobody out.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let the next one in; a second time changes nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            from filelock import unlock_descriptor

            # Closing it would do, but where a forked process has it too.
            with suppress(OSError):
                unlock_descriptor(descriptor)
            os.close(descriptor)

    def __del__(self) -> None:
        """Who forgets a lock holds nobody up."""
        self.release()


def lock(path: Path) -> Held | None:
    """The lock of a file, which is made if need be; None while another has it.

    Raises OSError where there can be no such file, as where a link stands in its place, or no lock.
    """
    descriptor = os.open(path, OPEN, 0o600)
    return Held(descriptor) if _try_lock(descriptor) else None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what one at a time does to a file; the lock file lies beside it, and only meanwhile.

    Raises HeldTooLongError where one holder does not let go, OSError where there can be no lock file. On a file
    system without locks it warns, and keeps nobody out.
    """
    beside = _lock_file(path)
    held = _wait(beside, path)
    try:
        yield
    finally:
        if held is not None:
            # While it is locked: whoever has opened it meanwhile looks again. Windows removes no open file.
            with suppress(OSError):
                beside.unlink()
            held.release()
            if os.name == "nt":
                with suppress(OSError):
                    beside.unlink()


def _lock_file(path: Path) -> Path:
    name = f".{path.name}.lock"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.blake2b(os.fsencode(name), digest_size=12).hexdigest()}.lock"
    return path.with_name(name)


def _wait(beside: Path, path: Path) -> Held | None:
    """The lock of a lock file, as soon as nobody else has it; None where there are no locks."""
    holder, since = "", RealTime.seconds()
    while True:
        _clear(beside)
        descriptor = os.open(beside, OPEN, 0o666)
        try:
            is_ours = _try_lock(descriptor)
        except (OSError, NotImplementedError) as problem:
            beside.unlink(missing_ok=True)
            warnings.warn(_no_locks(path, problem), stacklevel=2)
            return None
        if is_ours:
            held = Held(descriptor)
            if _is_there(descriptor, beside):
                with suppress(OSError):  # a full disk is told by what is written next
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, _self().encode("utf-8", "backslashreplace"))
                return held
            held.release()
            continue
        found, now = _holder(beside), RealTime.seconds()
        if found != holder:
            holder, since = found, now
        elif now - since > HANGS_AFTER:
            raise HeldTooLongError(f"{holder or 'another process'} holds {beside.name}, the lock beside it")
        time.sleep(POLL_INTERVAL)


def _try_lock(descriptor: int) -> bool:
    """Lock an open file, or close it."""
    from filelock import lock_descriptor

    is_ours = False
    try:
        is_ours = lock_descriptor(descriptor, blocking=False)
    finally:
        if not is_ours:
            os.close(descriptor)
    return is_ours


def _clear(beside: Path) -> None:
    """Remove what stands in a lock file's place. Raises OSError for a folder, with its name."""
    try:
        if not _is_own(beside.lstat()):
            beside.unlink()
    except FileNotFoundError:
        return
    except OSError as problem:
        raise OSError(problem.errno, f"{beside}, which is no file, stands in the way of its lock") from None


def _is_own(status: os.stat_result) -> bool:
    """Whether a file can be a lock file of ours: no link of either kind, whose other end we would write to."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1


def _is_there(descriptor: int, path: Path) -> bool:
    """Whether a locked file is still the one of that name: who had it before has removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _self() -> str:
    """Who holds a lock; not the whole command, in which a secret may stand."""
    program = "/".join(Path(sys.argv[0] if sys.argv else "").parts[-2:])
    since = f"since {RealTime.now().strftime('%H:%M:%S.%f')}"
    return f"process {os.getpid()} on {platform.node() or 'this machine'} ({program or 'python'}, {since})"


def _holder(beside: Path) -> str:
    try:
        return beside.read_text(encoding="utf-8", errors="replace")[:300]
    except OSError:  # it has let go, or the system lets nobody read a locked file
        return ""


def _no_locks(path: Path, problem: Exception) -> LMCacheWarning:
    return LMCacheWarning(
        f"{path.parent} is on a file system without locks ({problem}): of two processes that record into {path.name} "
        "at once, one may undo what the other wrote."
    )
