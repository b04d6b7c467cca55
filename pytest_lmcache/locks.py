"""Locks that the processes of a machine, and the threads of one, share: a lock file's descriptor, locked by filelock."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

WAIT = 0.005  # seconds between two tries where the caller waits


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


def lock(path: Path, *, waits: bool) -> Held | None:
    """The lock of a file, which is made if need be; None where another has it and nobody ``waits`` for it.

    Raises OSError where there can be no such file, or no lock.
    """
    from filelock import lock_descriptor

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        is_ours = lock_descriptor(descriptor, blocking=waits, poll_interval=WAIT)
    except BaseException:
        os.close(descriptor)
        raise
    if is_ours:
        return Held(descriptor)
    os.close(descriptor)
    return None
