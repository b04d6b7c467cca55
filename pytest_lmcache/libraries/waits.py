"""The waits between two attempts to ask a model, which take no time in a test that replays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pytest_lmcache.recorder import Recorder

SLEEPS = time.sleep, asyncio.sleep


class Waits:
    """Says which waits are skipped, and how much time has passed by them.

    ``find`` returns the recorder of what runs here and now, None if no test or block is open.
    """

    def __init__(self, find: Callable[[], Recorder | None] = lambda: None) -> None:
        self._find = find
        self.skipped = 0.0  # seconds
        self.calls = 0  # of models, that recorders have seen

    def is_skipped(self, seconds: float) -> bool:
        """Whether the caller need not wait; the time has passed then.

        Somebody who has replaced a function that sleeps wants to see how long it is asked to sleep.
        """
        recorder = self._find()
        if recorder is None or not recorder.is_offline or (time.sleep, asyncio.sleep) != SLEEPS:
            return False
        self.skipped += max(0.0, seconds)
        return True


class ShiftedTime:
    """The module ``time``, by whose clock the time of skipped waits has passed too."""

    def __init__(self, module: Any, waits: Waits) -> None:
        self._module = module
        self._waits = waits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def time(self) -> float:
        """The seconds since 1970."""
        now: float = self._module.time()
        return now + self._waits.skipped
