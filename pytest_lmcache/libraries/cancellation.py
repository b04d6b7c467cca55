"""Waiting where a recorded call was cut off, for whoever cancels the caller to do so again."""

from __future__ import annotations

import threading

from pytest_lmcache.interaction import CANCELLED, Answer

CANCEL_GRACE = 1.0  # seconds, at least, that another task has to end a reader which stopped by itself
LONGEST_WAIT = 30.0  # seconds that a call waits to be cancelled if it was cancelled when it was recorded
POLL_INTERVAL = 0.02  # seconds


async def wait_to_be_cancelled(answer: Answer) -> float:
    """Wait until the caller is cancelled; gives the seconds waited if nothing cancels it.

    A reader that stopped by itself may have been ended by another task: it waits about as long as the recording took.
    """
    from anyio import CapacityLimiter, to_thread  # the caller's loop may be trio's

    seconds = _seconds_to_wait(answer)
    if not seconds:
        return 0.0
    is_over = threading.Event()
    try:
        # In a thread, since freezegun stops the loop's clock.
        await to_thread.run_sync(is_over.wait, seconds, abandon_on_cancel=True, limiter=CapacityLimiter(1))
    finally:
        is_over.set()
    return seconds


def wait_to_be_cancelled_in_thread(answer: Answer) -> None:
    """Wait in a thread in which an async task runs sync code; raises what the task's cancellation raises there.

    Returns at once in any other thread, where nothing can cancel the caller.
    """
    from anyio import from_thread

    is_over = threading.Event()
    for _ in range(round(_seconds_to_wait(answer) / POLL_INTERVAL)):
        try:
            from_thread.check_cancelled()
        except RuntimeError:
            return
        is_over.wait(POLL_INTERVAL)


def _seconds_to_wait(answer: Answer) -> float:
    if answer.ended not in {None, CANCELLED}:
        return 0.0
    return LONGEST_WAIT if answer.ended else CANCEL_GRACE + min(answer.seconds, LONGEST_WAIT)
