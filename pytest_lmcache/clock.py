"""The real clock, also where a test has stopped its own with freezegun; and how old a value is by the two."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

CLOCKS_DIFFER = 300.0  # seconds by which the clocks of two machines may
MOVED = 1.0  # seconds between the two clocks from which on one of them is a test's


class RealTime:
    """The clock, also where a test stopped it: freezegun replaces the names of modules, not those of classes."""

    # Where time stands still already, freezegun keeps the real ones.
    _frozen = sys.modules.get("freezegun.api")
    now = (_frozen.real_datetime if _frozen else datetime).now
    seconds = _frozen.real_perf_counter if _frozen else time.perf_counter
    since_1970 = _frozen.real_time if _frozen else time.time


def stamps() -> dict[str, float]:
    """When a value is stored: ``stored`` by the test's clock, and where that is moved ``real`` by the real one."""
    stamp = {"stored": time.time()}
    return stamp | {"real": RealTime.since_1970()} if is_moved() else stamp


def age(value: Mapping[str, Any]) -> float:
    """The seconds since a value was stored, ``math.inf`` where it does not say, or says a time to come.

    By the real clock; where a test has moved its own, by that one, unless the value is older really.
    """
    stored = _time(value.get("stored"))
    really = RealTime.since_1970() - (_time(value["real"]) if "real" in value else stored)
    if is_moved():
        return max(time.time() - stored, really)
    return really if really > -CLOCKS_DIFFER else math.inf


def is_moved() -> bool:
    """Whether the clock that everybody sees is not the real one."""
    return abs(time.time() - RealTime.since_1970()) > MOVED


def _time(value: Any) -> float:
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
