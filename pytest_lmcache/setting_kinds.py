"""The kinds of values that settings take: what is valid, in which type it comes out, and what an error says."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pytest_lmcache.errors import shorten
from pytest_lmcache.hosts import split_host

LONGEST_NAME = 250  # bytes of a file's name without its suffix; file systems take 255
SIMILARITY, EMBEDDING = "similarity", "embedding"
COMPARISONS = (SIMILARITY, EMBEDDING)
SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")
LARGEST_SEED = 2**32  # and no more: numpy takes no larger one
AGE = r"\s*(\d+(?:\.\d+)?)\s*(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?|)\s*"
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Kind(NamedTuple):
    """The values that some settings take."""

    parse: Callable[[Any], Any]  # gives any valid value in one type; raises ValueError
    takes: str  # the valid values, for errors
    ini: str = "string"  # pytest's type for the ini key
    ini_takes: str = ""  # the valid values in a configuration file, if they are written in another way
    shown: Callable[[Any], str] = lambda value: shorten(repr(value))  # a value in an error
    is_secret: bool = False  # a value must not be printed


def _refuse(value: Any) -> Any:
    raise ValueError(value)


def _flag(value: Any) -> Any:
    return value if isinstance(value, bool) else _refuse(value)


def _texts(value: Any) -> Any:
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (None,)
    return texts if all(isinstance(text, str) for text in texts) else _refuse(value)


def _path(value: Any) -> Any:
    path = str(value) if isinstance(value, PurePath) else value
    return path if isinstance(path, str) and path and "\0" not in path else _refuse(value)


def _file(value: Any) -> Any:
    path = _path(value)
    name = path.replace("\\", "/").rpartition("/")[2]
    return path if name and len(os.fsencode(name)) <= LONGEST_NAME else _refuse(value)


def _folder(value: Any) -> Any:
    if not isinstance(value, Path | str) or value == "":
        _refuse(value)
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:  # the home of a user that does not exist
        return _refuse(value)


def _function(value: Any) -> Any:
    return value if callable(value) or (isinstance(value, str) and value) else _refuse(value)


def _functions(value: Any) -> Any:
    return () if value is None else (_function(value),)


def _positive(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and value > 0 else _refuse(value)


def _size(value: Any) -> Any:
    return value if _positive(value) == math.inf or value == int(value) else _refuse(value)


def _seconds(value: Any) -> Any:
    return value if math.isfinite(_positive(value)) else _refuse(value)


def _age(value: Any) -> Any:
    """Seconds, given as a number or as a text such as ``90d``."""
    if not isinstance(value, str):
        return float(_positive(value))
    found = re.fullmatch(AGE, value) or _refuse(value)
    return _positive(float(found[1])) * SECONDS[found[2][:1]]


def _cache(value: Any) -> Any:
    is_cache = all(callable(getattr(value, name, None)) for name in ("cache_key", "get", "put"))
    return value if is_cache and not isinstance(value, type) else _refuse(value)


def _url(value: Any) -> Any:
    """The URL of a server, checked as far as is possible without the server's client."""
    parts = urlsplit(value if isinstance(value, str) else _refuse(value))
    place = parts.path if parts.scheme == "unix" else parts.hostname
    return value if parts.scheme in SCHEMES and place and parts.port != 0 else _refuse(value)


def _without_password(url: Any) -> str:
    scheme, separator, _ = url.partition("://") if isinstance(url, str) else ("", "", "")
    shown = f"a URL that begins with {shorten(scheme, 20)}://" if separator else "a value that is no URL"
    return f"{shown} (not shown in full: it may hold a password)"


def _count(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else _refuse(value)


def _usd(value: Any) -> Any:
    """An amount in USD, given as a number or as a text such as ``2.50`` or ``$2.50``."""
    usd = float(value.strip().removeprefix("$")) if isinstance(value, str) else value
    is_number = isinstance(usd, int | float) and not isinstance(usd, bool)
    return float(usd) if is_number and 0 <= usd < math.inf else _refuse(value)


def _seed(value: Any) -> Any:
    seed = int(value) if isinstance(value, float) and value.is_integer() else value  # as pytest reads it
    return seed if type(seed) is int and 0 <= seed < LARGEST_SEED else _refuse(value)


def _samples(value: Any) -> Any:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and value >= 1 else _refuse(value)


def _compare(value: Any) -> Any:
    """A function, its dotted path, or a name with a threshold from 0 to 1."""
    name, *rest = value.split(":") if isinstance(value, str) else ("",)
    if name not in COMPARISONS:
        return _function(value)
    threshold = rest[-1] if len(rest) > (name == EMBEDDING) and all(rest) else ""
    if not re.fullmatch(r"0?\.\d+|1(\.0*)?|0", threshold) or (name == SIMILARITY and len(rest) > 1):
        _refuse(value)
    return value


def _models(value: Any) -> Any:
    for text in _texts(value):
        old, _, new = text.partition("=")
        if not (old.strip() and new.strip()):
            _refuse(value)
    return tuple("=".join(part.strip() for part in text.split("=", 1)) for text in _texts(value))


def _hosts(value: Any) -> Any:
    texts = tuple(text.strip().lower() for text in _texts(value))
    for text in texts:
        split_host(text)
    return texts


def _or_none(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else parse(value)


def one_of(choices: type[StrEnum]) -> Kind:
    """The kind that takes the values of an enumeration."""
    return Kind(choices, f"one of: {', '.join(choices)}")


FLAG = Kind(_flag, "True or False", "bool", "true or false")
TEXTS = Kind(_texts, "a string or a list of strings", "linelist", "a list of strings")
HOSTS = Kind(
    _hosts,
    "a host, host:port or *.suffix, or a list of them",
    "linelist",
    "a list of host, host:port or *.suffix",
)
KEY = Kind(_or_none(_function), "a name, a dotted path or a function", ini_takes="a name or a dotted path")
COMPARE = Kind(
    _or_none(_compare),
    "similarity:0.8, embedding:MODEL:0.9 (thresholds from 0 to 1), a dotted path or a function",
    ini_takes="similarity:0.8, embedding:MODEL:0.9 (thresholds from 0 to 1), or a dotted path",
)
MODELS = Kind(_models, "OLD=NEW, two names of models", "linelist")
FUNCTION = Kind(_functions, KEY.takes, ini_takes="a dotted path")
FILE = Kind(_or_none(_file), "the path of a file, or None for no cassette")
PATH = Kind(_path, "a path")
FOLDER = Kind(_or_none(_folder), "a path, or None for the default one", ini_takes="a path, as text")
CACHE = Kind(_or_none(_cache), "a pytest_lmcache.Cache")
SIZE = Kind(
    _size, "a whole number above 0, or math.inf for no limit", "float", "a whole number above 0, or inf"
)
TTL = Kind(
    _or_none(_seconds),
    "a number of seconds above 0, or None for ever",
    "float",
    "a number of seconds above 0",
)
MAX_AGE = Kind(
    _or_none(_age),
    "seconds, or a number with a unit such as 90d (s, m, h, d, w)",
    ini_takes="a text such as '90d', or '90' for seconds",
)
URL = Kind(
    _or_none(_url),
    "redis://host:port/0, rediss://..., unix:///path, valkey://... or valkeys://...",
    ini_takes="a URL such as redis://host:port/0, as text",
    shown=_without_password,
    is_secret=True,
)
USD = Kind(_usd, "a number of USD, 0 or more, such as 2.50", "float", "a number of USD, 0 or more")
SEED = Kind(
    _or_none(_seed),
    "a whole number from 0 to 4294967295, or None for no seed",
    "float",
    "a whole number from 0 to 4294967295",
)
SAMPLES = Kind(_or_none(_samples), "a whole number, 1 or more, or None for no samples")
COUNT = Kind(_count, "a whole number, 0 or more")
