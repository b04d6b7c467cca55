"""A slow answer: moves the clock that the code under test sees, or really waits."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, timedelta
from typing import Any, NamedTuple

from pytest_lmcache.clock import RealTime


class Delay(NamedTuple):
    """How many seconds a call takes longer; ``waits``: whether to really wait."""

    seconds: float
    waits: bool

    def pass_time(self) -> None:
        """Let the time pass in a sync call."""
        if self.waits:
            time.sleep(self.seconds)
        else:
            move_clock(self.seconds)

    async def apass_time(self) -> None:
        """Let the time pass in an async call; timers that are due in the meantime, such as a timeout, fire first."""
        if self.waits:
            from anyio import sleep  # the caller's loop may be trio's

            await sleep(self.seconds)
            return
        loop = _asyncio_loop()
        if loop is None:
            move_clock(self.seconds)
            return
        due = loop.create_future()
        timer = loop.call_later(self.seconds, _end, due)
        before = loop.time()
        move_clock(self.seconds)
        if loop.time() - before < self.seconds:
            _move_loop(loop, self.seconds)
        try:
            await due
        finally:
            timer.cancel()


def move_clock(seconds: float) -> None:
    """Move the clock that freezegun has set, if it has set one."""
    if (frozen := frozen_clock()) is not None:
        frozen.move_to(frozen() + timedelta(seconds=seconds))  # its tick() would forget the time that went by


def frozen_clock() -> Any:
    """The clock that freezegun has frozen last, to be moved; None if the clock is the real one."""
    freezegun = sys.modules.get("freezegun.api")
    factories = getattr(freezegun, "freeze_factories", ())
    return factories[-1] if factories else None


class MovableClock:
    """The clock of the code under test, which runs as usual until a call is slow."""

    def __init__(self) -> None:
        self._freezer: Any = None

    def start(self) -> None:
        """Begin, unless the test has frozen the clock itself."""
        if frozen_clock() is None and self._freezer is None:
            import freezegun

            now = RealTime.now(UTC)
            self._freezer = freezegun.freeze_time(
                now, tz_offset=now.astimezone().utcoffset() or 0, tick=True, real_asyncio=True
            )
            self._freezer.start()

    def stop(self) -> None:
        """End: the clock is the real one again."""
        if self._freezer is not None:
            self._freezer.stop()
            self._freezer = None


def _end(due: asyncio.Future[None]) -> None:
    if not due.done():
        due.set_result(None)


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # trio
        return None


def _move_loop(loop: Any, seconds: float) -> None:
    """Move the clock of an event loop, by which its timers are due."""
    time_of = loop.time
    loop.time = lambda: time_of() + seconds
