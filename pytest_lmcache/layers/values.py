"""An answer as JSON data that any layer of the cache can keep, and back, exact to the bit.

A value is a mapping: ``lmcache`` is the version of its form, ``recorded`` when the answer was given (ISO 8601,
UTC), ``stored`` when it was put away (seconds since 1970, by the clock of the test; where that one has moved it,
``real`` by the real one), ``asked_by`` which test or block asked first, where that is known; the rest are the fields of an Answer, where they differ from their default. What JSON
does not hold is a mapping of one tag:

- ``{"$bytes": base64}`` bytes
- ``{"$text": base64}`` text with surrogates, as UTF-8 that lets them pass
- ``{"$int": hex}`` a whole number of very many digits
- ``{"$nan": hex}`` not a number, with its bits
- ``{"$f32": base64}``, ``{"$f64": base64}`` a list of floats, little-endian, in half the size where that is exact
- ``{"$dict": [[key, value], ...]}`` a mapping with other keys than text, or that looks like a tag

Among the chunks of a stream a text is the last chunk that stands there whole, with this piece of text.
"""

from __future__ import annotations

import math
import re
import struct
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pytest_lmcache.cassette.yaml_writer import (
    BASES,
    LARGEST_INT_BITS,
    is_vector,
    pack_vector,
    type_name,
    unpack_vector,
)
from pytest_lmcache.clock import CLOCK_SKEW, RealTime, stamps
from pytest_lmcache.errors import CacheError, newer_value, no_value, shorten, unstorable
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.stream_chunks import is_stored

# A later form needs places of its own in the stores, as `lmcache:1:` is on a server: what is no value is overwritten.
VERSION = 1
RECORDED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]00:00)", re.ASCII)
LARGEST_AMOUNT = 1e9  # seconds, USD
LONGEST_NAME = 200  # characters of a test's name
_SURROGATE = re.compile("[\ud800-\udfff]")


def store(answer: Answer, recorded: str, asked_by: str = "") -> dict[str, Any]:
    """The value of an answer that was given at ``recorded``, to the test or block ``asked_by``; it ages from now on.

    Tuples become lists, instances of subclasses their base. Raises CacheError for what is not plain data.
    """
    value: dict[str, Any] = {
        "lmcache": VERSION,
        "recorded": recorded,
        **stamps(),
        "kind": answer.kind.value,
    }
    if asked_by:
        value["asked_by"] = _pack(asked_by)
    try:
        value["data"] = _pack(answer.data)
        if answer.error is not None:
            value["error"] = _pack(answer.error)
        if not answer.complete:
            value["complete"] = False
        if answer.hidden is not None:
            value["hidden"] = _pack(answer.hidden)
        value["seconds"] = _pack(answer.seconds)
        if answer.usd is not None:
            value["usd"] = _pack(answer.usd)
    except RecursionError:
        raise CacheError(unstorable("it is nested too deeply")) from None
    return value


def revive(value: Mapping[str, Any]) -> tuple[Answer, str]:
    """The answer of a value, and when it was given; shares nothing that can change with the value.

    Raises CacheError for anything that ``store`` has not made.
    """
    _check_version(value)
    try:
        error, hidden = value.get("error"), value.get("hidden")
        kind, data = Kind(value["kind"]), value["data"]
        answer = Answer(
            kind,
            _unpack(data),
            error=None if error is None else _unpack(error),
            complete=value.get("complete", True),
            hidden=None if hidden is None else _unpack(hidden),
            seconds=_unpack(value["seconds"]),
            usd=_unpack(value.get("usd")),
        )
        recorded = str(value["recorded"])
    except (ValueError, TypeError, LookupError, struct.error, RecursionError) as error:
        raise CacheError(no_value(error)) from None
    return answer, recorded


def check(answer: Answer, recorded: str, *, errors: bool = False) -> None:
    """Refuse what a value holds where no provider can have answered so, or not then; an error unless ``errors``.

    Raises CacheError. `revive` gives back whatever was stored; this is for what anybody may have put there.
    """
    failures = [answer.data] if answer.kind is Kind.ERROR else [] if answer.error is None else [answer.error]
    problems = {
        "kind": answer.complete is True and all(errors and _is_error(found) for found in failures),
        "data": is_stored(answer.data) if answer.kind is Kind.STREAM else isinstance(answer.data, dict),
        "hidden": isinstance(answer.hidden, dict | None),
        "seconds": _is_amount(answer.seconds),
        "usd": answer.usd is None or _is_amount(answer.usd),
        "recorded": _is_past(recorded),
    }
    wrong = [name for name, fits in problems.items() if not fits]
    if wrong:
        raise CacheError(no_value(f"its `{wrong[0]}` cannot be"))


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
    """Which test or block asked first for what a value holds; empty where the value does not say."""
    name = value.get("asked_by", "")
    return shorten(name, LONGEST_NAME) if isinstance(name, str) else ""


def _check_version(value: Any) -> None:
    version = value.get("lmcache") if isinstance(value, Mapping) else None
    if type(version) is not int or version < VERSION:
        raise CacheError(no_value("it has no `lmcache: 1`"))
    if version > VERSION:
        raise CacheError(newer_value(version, VERSION))


def _pack(value: Any) -> Any:  # noqa: PLR0911 - one for each kind
    kind = type(value)
    if kind is str:
        return value if value.isascii() or not _SURROGATE.search(value) else _tagged_text(value)
    if kind is dict:
        return _packed_dict(value)
    if kind is list:
        if is_vector(value):
            return _vector(value)
        return [_pack(item) for item in value]
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if value.bit_length() <= LARGEST_INT_BITS else {"$int": hex(value)}
    if kind is float:
        return {"$nan": struct.pack(">d", value).hex()} if math.isnan(value) else value
    if kind is bytes:
        return {"$bytes": _base64(value)}
    return _pack(_as_base(value))


def _packed_dict(value: dict[Any, Any]) -> dict[str, Any]:
    packed = {}
    for key, item in value.items():
        if type(key) is not str or not (key.isascii() or not _SURROGATE.search(key)):
            return _pairs(value)
        packed[key] = _pack(item)
    if len(packed) == 1 and key[:1] == "$":
        return _pairs(value)
    return packed


def _pairs(value: dict[Any, Any]) -> dict[str, Any]:
    for key in value:
        if key is not None and not isinstance(key, str | int | float | bytes):
            raise CacheError(unstorable(f"a key of it is of type {type_name(key)}"))
    return {"$dict": [[_pack(key), _pack(item)] for key, item in value.items()]}


def _as_base(value: Any) -> Any:
    """A tuple as a list, an instance of a subclass (an enum of strings, a numpy float) as its base."""
    for kind, convert in BASES:
        if isinstance(value, kind):
            return convert(value)
    raise CacheError(unstorable(f"a part of it is of type {type_name(value)}"))


def _tagged_text(text: str) -> dict[str, str]:
    # JSON would make one character of two surrogates that stand side by side.
    return {"$text": _base64(text.encode("utf-8", "surrogatepass"))}


def _vector(value: list[float]) -> dict[str, str]:
    code, data = pack_vector(value)
    return {"$f32" if code == "f" else "$f64": _base64(data)}


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")


def _unpack(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        if len(value) == 1:
            [(tag, item)] = value.items()
            if tag[:1] == "$":
                return _READERS[tag](item)
        return {key: _unpack(item) for key, item in value.items()}
    if kind is list:
        return [_unpack(item) for item in value]
    return value


def _read_nan(text: str) -> float:
    number: float = struct.unpack(">d", bytes.fromhex(text))[0]
    return number


_READERS: dict[str, Callable[[Any], Any]] = {
    "$bytes": lambda text: a2b_base64(text, strict_mode=True),
    "$text": lambda text: a2b_base64(text, strict_mode=True).decode("utf-8", "surrogatepass"),
    "$int": lambda text: int(text, 16),
    "$nan": _read_nan,
    "$f32": lambda text: unpack_vector("f", a2b_base64(text, strict_mode=True)),
    "$f64": lambda text: unpack_vector("d", a2b_base64(text, strict_mode=True)),
    "$dict": lambda pairs: {_unpack(key): _unpack(item) for key, item in pairs},
}
