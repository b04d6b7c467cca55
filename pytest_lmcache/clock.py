"""The real clock, which freezegun does not move, and the age of stored values."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

CLOCK_SKEW = 300.0  # seconds by which the clocks of two machines may differ
MOVED_BY = 1.0  # seconds between the process's clock and the real one that mean that a test has moved it


class RealTime:
    """The real clock: freezegun replaces the names in modules, but not those in classes."""

    # If the clock is frozen when this is imported, freezegun has the real functions.
    _frozen = sys.modules.get("freezegun.api")
    now = (_frozen.real_datetime if _frozen else datetime).now
    seconds = _frozen.real_perf_counter if _frozen else time.perf_counter
    since_1970 = _frozen.real_time if _frozen else time.time


def is_moved() -> bool:
    """Return whether a test has moved the clock of this process."""
    return abs(time.time() - RealTime.since_1970()) > MOVED_BY


def stamps() -> dict[str, float]:
    """Return the time for a value that is stored now, in seconds since 1970.

    ``stored`` is by the clock of this process, ``real`` by the real one if a test has moved the other.
    """
    stamp = {"stored": time.time()}
    return stamp | {"real": RealTime.since_1970()} if is_moved() else stamp


def age(value: Mapping[str, Any]) -> float:
    """Return the seconds since a value was stored; ``math.inf`` if it has no time, or one in the future.

    A test that moves the clock makes a value older, never younger, and for itself only.
    """
    stored = _seconds(value.get("stored"))
    real_age = RealTime.since_1970() - (_seconds(value["real"]) if "real" in value else stored)
    if is_moved():
        return max(time.time() - stored, real_age)
    return real_age if real_age > -CLOCK_SKEW else math.inf


def _seconds(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else -math.inf


def utc_now() -> str:
    """Return the real time as ISO 8601, to the second."""
    return RealTime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(recorded: str) -> float:
    """Return the seconds since a time in ISO 8601, by the real clock; 0 if the text is no time."""
    try:
        then = datetime.fromisoformat(recorded)
    except ValueError:
        return 0.0
    return (RealTime.now(UTC) - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds()
