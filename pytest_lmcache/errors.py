"""The exceptions and the warning of this package. Their messages are where they are raised."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

WIDTH = 100

# An attribute of an error that a test has failed with: a block that ends later need not raise it again.
REPORTED = "lmcache_reported"


class LMCacheError(Exception):
    """Base of the exceptions that are not misses."""


class CassetteError(LMCacheError):
    """Raised if a cassette cannot be used: it is broken, cut off, newer, no cassette, or cannot be written."""


class UnkeyableCallError(LMCacheError):
    """Raised by a call if its arguments cannot be turned into a key."""


class UnrecordableError(LMCacheError):
    """Raised while recording, if what a recorded function returned or raised cannot be stored."""


class SettingsError(LMCacheError, ValueError):
    """Raised for a setting that does not exist, or for an invalid value."""


class CacheError(LMCacheError):
    """Raised if the cache cannot store an answer, or if a stored value was not written by this package."""


class StagedAnswerError(LMCacheError):
    """Raised at the end of a test that has set up a fault or a reply which no call has met."""


class LayerError(CacheError):
    """Raised by a layer of the cache if its store cannot be used; `Cache` turns it into a warning."""


class LMCacheWarning(UserWarning):
    """Issued if something fails and recording and replaying go on without it."""


class DoorError(LMCacheError):
    """Raised when LiteLLM or DSPy is imported, if calls of that version cannot be intercepted."""


class MissCause(StrEnum):
    """Why no recording answers a call."""

    NO_CASSETTE = "no cassette"
    NOT_RECORDED = "not recorded"
    CHANGED = "changed"
    NOT_NORMALIZED = "not normalized"
    USED_UP = "used up"
    CUT_OFF = "cut off"
    EXPIRED = "expired"


class Outcome(BaseException):
    """Base of what ends a test. The pytest plugin makes misses derive from pytest's failure too."""


class CassetteMiss(Outcome):
    """Raised by a call that no recording answers, in a mode that does not ask the provider.

    It is not an ``Exception``, like pytest's own outcomes: no ``except Exception``, retry loop or exception
    mapping between the call and the test swallows it. ``cause`` says why it missed. ``normalizers`` are the names
    of the normalizers with which a recording would answer. ``details`` is a `pytest_lmcache.miss.MissDetails`, from
    which the message is made; None for a miss in a child process.
    """

    cause: MissCause = MissCause.NOT_RECORDED
    normalizers: tuple[str, ...] = ()
    details: Any = None

    __repr__ = BaseException.__repr__

    def add_line(self, line: str) -> None:
        """Add a line below the first one of the message; there are no lines of the user's behind this miss."""
        first, separator, rest = str(self).partition("\n")
        self.args = (f"{first}\n{line}{separator}{rest}",)
        vars(self).update(msg=self.args[0], pytrace=False)  # from these pytest shows a failure


class BudgetExceeded(CassetteMiss):
    """Raised by a call that is not sent because the run's budget is spent."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        vars(self).update(
            msg=message, pytrace=False
        )  # pytest shows no traceback: the test's code is not at fault


class UnsupportedCall(CassetteMiss):
    """Raised by a call that cannot be recorded, in a mode in which nothing may reach a provider."""


class BlockedConnection(UnsupportedCall):
    """Raised by a connection to another machine, in a replaying mode under ``lm_block_network``."""


class MissInChild(CassetteMiss, Exception):  # noqa: N818 - a miss, as the others
    """Raised by a call that misses in a process that a test started.

    It is an ordinary exception, so that the workers of a pool return it to their caller.
    """


class UnsupportedInChild(UnsupportedCall, MissInChild):
    """Raised by a call that cannot be recorded, in a process that a test started."""


def shorten(value: Any, width: int = WIDTH) -> str:
    """Return one printable line of at most ``width`` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return text if len(text) <= width else text[: width - 1] + "…"
