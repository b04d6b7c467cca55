"""Stops a regular expression of the user's that does not come to an end.

While ``re`` matches it holds the interpreter's lock, so a timer in another thread never runs, but a signal
interrupts it. SIGALRM is left to whoever has it, such as pytest-timeout; then the timer of processor time, which
hardly anybody uses, takes its place. Threads other than the main one get no signals, and Windows has no timers.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from pytest_lmcache.errors import SettingsError

SECONDS = 10.0
_TIMERS = [
    (getattr(signal, number), getattr(signal, timer))
    for number, timer in (("SIGALRM", "ITIMER_REAL"), ("SIGVTALRM", "ITIMER_VIRTUAL"))
    if hasattr(signal, timer)
]


@contextmanager
def time_limit(option: str, pattern: str) -> Iterator[None]:
    """Around the use of an option's pattern on one text. Raises SettingsError when it takes too long."""
    found = _free_timer() if threading.current_thread() is threading.main_thread() else None
    if found is None:
        yield
        return

    def stop(*_: object) -> NoReturn:
        raise SettingsError(
            f"The pattern {pattern!r} of {option} was still at work on one text after {SECONDS:g} seconds; "
            "mend it: a repetition within a repetition, such as (a+)+, is the usual cause."
        )

    number, timer = found
    before = signal.signal(number, stop)
    signal.setitimer(timer, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(number, before)


def _free_timer() -> tuple[int, int] | None:
    """A signal that nobody handles, and its timer."""
    for number, timer in _TIMERS:
        if signal.getsignal(number) is signal.SIG_DFL and signal.getitimer(timer)[0] == 0:
            return number, timer
    return None
