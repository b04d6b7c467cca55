"""Every error that users meet, and the words it is told in: what was asked, where it was looked for, the mend."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

WIDTH = 100


# An attribute of an error that a test has failed with: a block that ends later need not raise it again.
REPORTED = "lmcache_reported"


class LMCacheError(Exception):
    """Base of this package's ordinary errors."""


class CassetteError(LMCacheError):
    """A cassette file that cannot be used: broken, truncated, newer, foreign, or not writable."""


class UnkeyableCallError(LMCacheError):
    """A call whose arguments cannot be turned into a key."""


class SettingsError(LMCacheError, ValueError):
    """A setting with a value that it cannot have."""


class CacheError(LMCacheError):
    """A value of the cache that cannot be made or used."""


class LayerError(CacheError):
    """Trouble with a layer's store: away, locked, full, broken."""


class LMCacheWarning(UserWarning):
    """Something that does not work as wished, and that recording and replaying goes on without."""


class DoorError(LMCacheError):
    """A library's functions are not where this package looks for them: calls could slip by unseen."""


if TYPE_CHECKING:
    _Outcome = BaseException
else:
    # Where pytest runs, its own kind of failure: what runs tests and fixtures for it (anyio's runner, the
    # cache of fixtures) takes any other BaseException for an interrupt.
    _Outcome = getattr(getattr(sys.modules.get("pytest"), "fail", None), "Exception", BaseException)


class MissCause(StrEnum):
    """Why no recording answers a call."""

    NO_CASSETTE = "no cassette"
    NOT_RECORDED = "not recorded"
    CHANGED = "changed"
    NOT_NORMALIZED = "not normalized"
    USED_UP = "used up"
    CUT_OFF = "cut off"


class CassetteMiss(_Outcome):
    """A call that no recording answers.

    Derives from BaseException, as pytest's own outcomes do: no ``except Exception``, no retry loop and no
    exception mapping between the call and the test swallows it. ``cause`` says why, ``normalizers`` are those that
    are to be set for the recording to answer.
    """

    cause: MissCause = MissCause.NOT_RECORDED
    normalizers: tuple[str, ...] = ()

    __repr__ = BaseException.__repr__


class UnsupportedCall(CassetteMiss):
    """A call that this package does not record, made where nothing may reach a provider."""


class MissInChild(CassetteMiss, Exception):  # noqa: N818 - a miss, as the others
    """A miss in a process that a test started: an ordinary exception, so that a pool's worker hands it on."""


class UnsupportedInChild(UnsupportedCall, MissInChild):
    """The same of a call that this package does not record."""


def named(kind: str, text: str) -> BaseException:
    """The error of this package that has a name, as another process met it."""
    found = globals().get(kind)
    if isinstance(found, type) and issubclass(found, LMCacheError | LMCacheWarning | CassetteMiss):
        return found(text)
    return LMCacheError(f"{kind}: {text}")


def add_line(error: BaseException, line: str) -> None:
    """Put a line below the first one of the message of an error that has no lines of the user's behind it."""
    first, separator, rest = str(error).partition("\n")
    text = f"{first}\n{line}{separator}{rest}"
    error.args = (text,)
    vars(error).update(msg=text, pytrace=False)  # as pytest's own failures have them


def shorten(value: Any, width: int = WIDTH) -> str:
    """One printable line of at most ``width`` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return text if len(text) <= width else text[: width - 1] + "…"


def unsupported_call(name: str, mode: str) -> str:
    """The message for an entry point that is not recorded."""
    called = name if name.startswith("dspy.") else f"litellm.{name}"
    return (
        f"{called}() is not recorded by pytest-lmcache yet, and mode {mode} lets nothing reach a "
        "provider unrecorded.\n"
        "Call it live with `pytest --lm-mode=live` or `@pytest.mark.lm_cache(mode='live')`, or replace it "
        "in the test."
    )


def still_running(test: str, seconds: float, miss: str) -> str:
    """What is told of a miss whose test does not end; ``seconds`` is for how long it has not."""
    return (
        f"\n{test} has not ended {seconds:.0f} seconds after this miss. If it hangs, it may be "
        f"waiting for a thread or a task that the miss has ended.\n\n{miss}\n"
    )


def miss(
    *,
    asked: Sequence[str],
    looked: Sequence[str],
    nearest: Sequence[str],
    mend: Sequence[str],
) -> str:
    """The message for a call that no recording answers, ending in what mends it."""
    parts = [*asked, "", *looked]
    if nearest:
        parts += ["", *nearest]
    return "\n".join([*parts, "", *mend])


def unknown_exception(name: str) -> str:
    """The message for a recorded exception that the installed LiteLLM does not have."""
    return (
        f"A recorded error is of class {name}, which the installed LiteLLM does not have.\n"
        "Record the test again: pytest --lm-rewrite, or install the LiteLLM that it was recorded with."
    )


def unstorable(problem: str) -> str:
    """The message for an answer, or a value, that the cache cannot keep."""
    return f"The cache cannot keep this answer: {problem}. It keeps plain data: what JSON holds, and bytes."


def no_value(problem: object) -> str:
    """The message for something that is not what the cache keeps of an answer."""
    return (
        f"This is no value of the cache ({shorten(str(problem))}). A cache gives back what it was given by put(), "
        "unchanged; pytest_lmcache.layers.values.store() makes a value of an answer."
    )


def newer_value(version: int, known: int) -> str:
    """The message for a value of a later form."""
    return (
        f"This value of the cache has form {version}; this pytest-lmcache reads form {known}.\n"
        "Install a newer one: pip install -U pytest-lmcache"
    )
