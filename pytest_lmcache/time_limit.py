"""A time limit for a user's regular expression, which may take for ever on some texts.

``re`` holds the interpreter's lock while it matches, so a timer in another thread would never run; a signal does. If
SIGALRM is in use, as by pytest-timeout, the timer of processor time serves, which hardly anybody uses. There is no
limit in other threads than the main one, which get no signals, and on Windows, which has no such timers.
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
    """Limit the use of an option's pattern on one text. Raises SettingsError after ``SECONDS`` seconds."""
    # A signal that nobody handles, and its timer.
    free = (
        (sig, timer)
        for sig, timer in _TIMERS
        if signal.getsignal(sig) is signal.SIG_DFL and signal.getitimer(timer)[0] == 0
    )
    found = next(free, None) if threading.current_thread() is threading.main_thread() else None
    if found is None:
        yield
        return

    def stop(*_: object) -> NoReturn:
        raise SettingsError(
            f"The pattern {pattern!r} of {option} did not finish on one text within {SECONDS:g} seconds. "
            "Change it: the usual cause is a repetition within a repetition, such as (a+)+."
        )

    number, timer = found
    before = signal.signal(number, stop)
    signal.setitimer(timer, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(number, before)
