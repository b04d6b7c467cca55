r"""Values for which YAML or JSON has no exact form: bytes, NaNs, vectors, lone surrogates, very long integers.

Both write such a value as a tag and a text, YAML as ``!bytes AAE=`` and JSON as ``{"$bytes": "AAE="}``:

- ``bytes``: bytes, in base64
- ``f32``, ``f64``: a list of floats, packed as little-endian single precision if that loses nothing, else as double
  precision, in base64
- ``nan``: a NaN by its 8 bytes, in hexadecimal; YAML has a form for the usual NaN
- ``text``: text with surrogates; in JSON their UTF-8 in base64, in YAML with ``\uXXXX`` for each
- ``int``: an integer of very many digits, in hexadecimal; only in JSON
- ``dict``: a mapping as a list of pairs, if it has other keys than text or looks like a tag; only in JSON
"""

from __future__ import annotations

import math
import re
import struct
import sys
from array import array
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from typing import Any

VECTOR_LENGTH = 16  # a shorter list of floats is easier to review as numbers
LARGEST_INT_BITS = 2048  # Python may be set to refuse decimal numbers of 641 digits and more
_SURROGATE = re.compile("[\ud800-\udfff]")
_BASES: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, bytes.__bytes__),
    ((list, tuple), list),
    (dict, dict),
)


def as_base(value: Any) -> Any:
    """A tuple as a list, an instance of a subclass (an enum of strings, a numpy float) as its base.

    Raises TypeError for what is not plain data.
    """
    for kind, convert in _BASES:
        if isinstance(value, kind):
            return convert(value)
    raise TypeError(f"a part of it is of type {type_name(value)}")


def has_surrogate(text: str) -> bool:
    """Whether a text has a character that UTF-8 does not hold: half of a pair of UTF-16."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def type_name(value: Any) -> str:
    """A value's type for a message, with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def is_vector(value: list[Any]) -> bool:
    """Whether a list is packed: it has many floats and nothing else."""
    return len(value) >= VECTOR_LENGTH and type(value[0]) is float and set(map(type, value)) == {float}


def tagged(value: bytes | float | list[float]) -> tuple[str, str]:
    """The tag and the text of bytes, of a NaN or of a vector."""
    if isinstance(value, bytes):
        return "bytes", _base64(value)
    if isinstance(value, float):
        return "nan", struct.pack(">d", value).hex()
    doubles, singles = array("d", value), array("f", value)
    is_exact = array("d", singles).tobytes() == doubles.tobytes()
    packed = _little_endian(singles if is_exact else doubles)
    return "f32" if is_exact else "f64", _base64(packed.tobytes())


def _unpacked(code: str, text: str) -> list[float]:
    return _little_endian(array(code, a2b_base64(text, strict_mode=True))).tolist()


def _little_endian(vector: array[float]) -> array[float]:
    """A vector of this machine's byte order in the order that is stored, or back."""
    if sys.byteorder == "big":
        vector.byteswap()
    return vector


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")


# What makes a value of a tag's text. Each raises ValueError or struct.error for a text that is none of its own.
READERS: Mapping[str, Callable[[str], Any]] = {
    "bytes": lambda text: a2b_base64(text, strict_mode=True),
    "nan": lambda text: struct.unpack(">d", bytes.fromhex(text))[0],
    "f32": lambda text: _unpacked("f", text),
    "f64": lambda text: _unpacked("d", text),
}
_JSON_READERS: Mapping[str, Callable[[Any], Any]] = {
    **{f"${tag}": read for tag, read in READERS.items()},
    "$text": lambda text: a2b_base64(text, strict_mode=True).decode("utf-8", "surrogatepass"),
    "$int": lambda text: int(text, 16),
    "$dict": lambda pairs: {from_json(key): from_json(item) for key, item in pairs},
}


def to_json(value: Any) -> Any:  # noqa: PLR0911 - one for each kind
    """Plain data as JSON data, exact to the bit; shares nothing that can change with it.

    Tuples become lists, instances of subclasses their base. Raises TypeError for what is not plain data.
    """
    kind = type(value)
    if kind is str:
        # JSON would make one character of two surrogates side by side.
        return {"$text": _base64(value.encode("utf-8", "surrogatepass"))} if has_surrogate(value) else value
    if kind is dict:
        is_tag = len(value) == 1 and str(next(iter(value)))[:1] == "$"
        if is_tag or any(type(key) is not str or has_surrogate(key) for key in value):
            return {"$dict": [[_key_to_json(key), to_json(item)] for key, item in value.items()]}
        return {key: to_json(item) for key, item in value.items()}
    if kind is list and not is_vector(value):
        return [to_json(item) for item in value]
    if kind is int and value.bit_length() > LARGEST_INT_BITS:
        return {"$int": hex(value)}
    if kind is bytes or kind is list or (kind is float and math.isnan(value)):
        tag, text = tagged(value)
        return {f"${tag}": text}
    if value is None or kind is bool or kind is int or kind is float:
        return value
    return to_json(as_base(value))


def _key_to_json(key: Any) -> Any:
    if key is not None and not isinstance(key, str | int | float | bytes):
        raise TypeError(f"a key of it is of type {type_name(key)}")
    return to_json(key)


def from_json(data: Any) -> Any:
    """The plain data that `to_json` made JSON data of.

    Raises ValueError, TypeError, LookupError or struct.error for what it cannot have made.
    """
    if type(data) is dict:
        if len(data) == 1:
            [(tag, item)] = data.items()
            if tag[:1] == "$":
                return _JSON_READERS[tag](item)
        return {key: from_json(item) for key, item in data.items()}
    return [from_json(item) for item in data] if type(data) is list else data
