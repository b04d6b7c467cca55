"""An answer as the JSON data that the layers of the cache keep, exact to the bit.

A value is a mapping with these fields:

- ``lmcache``: the version of this form
- ``recorded``: when the provider answered (ISO 8601, UTC)
- ``stored``: when the value was made, in seconds since 1970 by the clock of the test; ``real``: the same by the real
  clock, if the test has moved its own
- ``asked_by``: the test or block that sent the call first, if it is known
- the fields of an `Answer` that differ from their default, as `tags.to_json` writes them
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pytest_lmcache.clock import CLOCK_SKEW, RealTime, stamps
from pytest_lmcache.errors import CacheError, shorten
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.layers.contract import unstorable
from pytest_lmcache.stream_chunks import is_stored
from pytest_lmcache.tags import from_json, to_json

# A later form needs keys of its own in the stores, as `lmcache:1:` is on a server: a layer overwrites other values.
VERSION = 1
RECORDED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]00:00)", re.ASCII)
LARGEST_AMOUNT = 1e9  # seconds, USD
LONGEST_NAME = 200  # characters of a test's name
# The fields of an answer that a value always has, and those that it has if they differ from their default.
_ALWAYS = ("kind", "data", "seconds")
_DEFAULTS = {"error": None, "complete": True, "hidden": None, "usd": None, "pace": ()}


def store(answer: Answer, recorded: str, asked_by: str = "") -> dict[str, Any]:
    """The value of an answer, which ages from now on.

    ``recorded`` is when the provider answered (ISO 8601, UTC), ``asked_by`` the test or block that sent the call.
    Tuples become lists, instances of subclasses their base. Raises CacheError for what is not plain data.
    """
    fields = {
        name: field
        for name, field in answer._asdict().items()
        if name in _ALWAYS or (name in _DEFAULTS and field != _DEFAULTS[name])
    }
    try:
        stored = to_json(({"asked_by": asked_by} if asked_by else {}) | fields)
    except TypeError as problem:
        raise unstorable(str(problem)) from None
    except RecursionError:
        raise unstorable("it is nested too deeply") from None
    return {"lmcache": VERSION, "recorded": recorded, **stamps(), **stored}


def revive(value: Mapping[str, Any]) -> tuple[Answer, str]:
    """The answer of a value, and when the provider gave it (ISO 8601, UTC); shares no mapping and no list with it.

    Raises CacheError for anything that `store` has not made.
    """
    version = value.get("lmcache") if isinstance(value, Mapping) else None
    if type(version) is not int or version < VERSION:
        raise _no_value("it has no `lmcache: 1`")
    if version > VERSION:
        raise CacheError(
            f"This value of the cache has form {version}; this pytest-lmcache reads form {VERSION}.\n"
            "Install a newer one: pip install -U pytest-lmcache"
        )
    try:
        fields = {
            name: from_json(value[name])
            for name in (*_ALWAYS, *_DEFAULTS)
            if name in _ALWAYS or name in value
        }
        answer = Answer(**fields)._replace(kind=Kind(fields["kind"]), pace=tuple(fields.get("pace", ())))
        return answer, str(value["recorded"])
    except (ValueError, TypeError, LookupError, struct.error, RecursionError) as error:
        raise _no_value(error) from None


def check(answer: Answer, recorded: str, *, errors: bool = False) -> None:
    """Raise CacheError for an answer that no provider can have given, and for an error unless ``errors``.

    `revive` gives back whatever was stored. This is for values that anybody may have put into a store.
    """
    failures = [answer.data] if answer.kind is Kind.ERROR else [] if answer.error is None else [answer.error]
    problems = {
        "kind": answer.complete is True and all(errors and _is_error(found) for found in failures),
        "data": is_stored(answer.data) if answer.kind is Kind.STREAM else isinstance(answer.data, dict),
        "hidden": isinstance(answer.hidden, dict | None),
        "seconds": _is_amount(answer.seconds),
        "usd": answer.usd is None or _is_amount(answer.usd),
        "pace": all(isinstance(each, int) and _is_amount(each) for each in answer.pace),
        "recorded": _is_past(recorded),
    }
    wrong = [name for name, fits in problems.items() if not fits]
    if wrong:
        raise _no_value(f"its `{wrong[0]}` is invalid")


def _is_error(data: Any) -> bool:
    return isinstance(data, dict) and all(isinstance(data.get(name), str) for name in ("class", "message"))


def _is_amount(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < LARGEST_AMOUNT


def _is_past(recorded: str) -> bool:
    if not RECORDED.fullmatch(recorded):
        return False
    try:
        return datetime.fromisoformat(recorded).timestamp() < RealTime.since_1970() + CLOCK_SKEW
    except ValueError:
        return False


def asked_by(value: Mapping[str, Any]) -> str:
    """The test or block that sent a value's call first; empty if the value does not say."""
    name = value.get("asked_by", "")
    return shorten(name, LONGEST_NAME) if isinstance(name, str) else ""


def _no_value(problem: object) -> CacheError:
    return CacheError(
        f"This is not a value of the cache ({shorten(str(problem))}). get() must return what put() received, "
        "unchanged; pytest_lmcache.layers.values.store() makes a value of an answer."
    )
