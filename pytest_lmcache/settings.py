"""What can be set, to which values, and who wins: command line, then marker, then ini, then default."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from pytest_lmcache.errors import SettingsError, bad_choice, bad_setting, bad_url, unknown_setting


class Mode(StrEnum):
    """What may happen to a call: be replayed, be asked of the provider, be a miss."""

    REPLAY = "replay"
    ONCE = "once"
    RECORD = "record"
    REWRITE = "rewrite"
    LIVE = "live"

    @property
    def replays(self) -> bool:
        """Whether no provider is asked if there is a cassette."""
        return self in {Mode.REPLAY, Mode.ONCE}


class Repeat(StrEnum):
    """What an identical call gets once the recorded answers are used up."""

    LAST = "last"
    CYCLE = "cycle"
    ERROR = "error"


class RecordErrors(StrEnum):
    """Which of the provider's errors are recorded: those that will not change, or all."""

    LASTING = "lasting"
    ALL = "all"

    def includes(self, *, lasting: bool) -> bool:
        """Whether an error is recorded at once, whatever comes after it; ``lasting``: asking again gives it again."""
        return lasting or self is RecordErrors.ALL


class Usage(StrEnum):
    """What an answer that did not come from the provider says of its tokens: as recorded, or none."""

    RECORDED = "recorded"
    EMPTY = "empty"


CHOICES: dict[str, type[StrEnum]] = {
    "mode": Mode,
    "repeat": Repeat,
    "record_errors": RecordErrors,
    "usage": Usage,
}
SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")
OWN = ""
"""The ``cassette`` of a test that names none: its own."""
ALIASES = {"normalise": "normalize"}
"""Other spellings of settings, wherever a setting is named."""


class Settings(NamedTuple):
    """The settings of one test or one ``use_cassette``.

    ``mode`` None is replay, or record where there is no cassette. ``cassette`` is a file name relative to
    ``cassette_dir``, "" for the test's own, None for none: the cache layers alone answer. ``key`` is a
    strategy's name, the dotted path of a function, or a function ``request -> str``; None is the cache's own
    ``cache_key``. ``normalize`` names normalizers. ``redact`` are regular expressions, ``redact_with``
    functions ``str -> str`` or their dotted paths. ``max_age`` is in seconds. ``share`` lets the cache answer
    what another test asked. ``cache`` is the cache behind the cassette, ``layers`` what is set of its layers, as
    pairs of name and value.
    """

    mode: Mode | None = None
    cassette: str | None = OWN
    cassette_dir: str = "cassettes"
    key: str | Callable[[dict[str, Any]], str] | None = None
    normalize: tuple[str, ...] = ()
    repeat: Repeat = Repeat.LAST
    record_errors: RecordErrors = RecordErrors.LASTING
    usage: Usage = Usage.RECORDED
    max_age: float | None = None
    redact: tuple[str, ...] = ()
    redact_with: tuple[str | Callable[[str], str], ...] = ()
    share: bool = False
    cache: Any = None
    layers: tuple[tuple[str, Any], ...] = ()

    def updated(self, given: Mapping[str, Any], source: str) -> Self:
        """These settings with those given; ``source`` says in an error where they were given.

        Raises SettingsError for a name that does not exist or a value that it cannot have.
        """
        names = [name for name in self._fields if name != "layers"]
        given = without_aliases(given, source)
        layers = {name: value for name, value in given.items() if name in LAYER_NAMES}
        own = {name: value for name, value in given.items() if name not in layers}
        values = _all_checked([*names, *LAYER_NAMES], own, source, _checked)
        # Own rules add to each other: a secret that the suite names stays one in every test.
        for name in {"redact", "redact_with"}.intersection(values):
            known = getattr(self, name)
            values[name] = known + tuple(rule for rule in values[name] if rule not in known)
        if layers:
            CacheSettings().updated(layers, source)
            values["layers"] = tuple({**dict(self.layers), **layers}.items())
        return self._replace(**values) if values else self


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The settings of a cache: which layers it has, and how much and how long they keep.

    ``disk_cache_dir`` None is the default folder. ``ttl`` is in seconds, None for ever. ``url`` is that of a Redis
    or Valkey server, None for no such layer; it may hold a password.
    """

    enable_memory_cache: bool = True
    enable_disk_cache: bool = True
    disk_cache_dir: Path | None = None
    disk_size_limit_bytes: float = 1_000_000_000
    memory_max_entries: float = 1_000_000
    ttl: float | None = None
    url: str | None = field(default=None, repr=False)

    def updated(self, given: Mapping[str, Any], source: str) -> Self:
        """These settings with those given; as `Settings.updated`. A folder is taken from the current one."""
        values = _all_checked(LAYER_NAMES, given, source, _checked_for_cache)
        return replace(self, **values) if values else self


LAYER_NAMES = tuple(field.name for field in fields(CacheSettings))


def without_aliases(given: Mapping[str, Any], source: str, prefix: str = "") -> dict[str, Any]:
    """What was given, by the settings' own names, each after ``prefix``. Raises SettingsError for two spellings."""
    names = {prefix + alias: prefix + name for alias, name in ALIASES.items()}
    for alias, name in names.items():
        if alias in given and name in given:
            raise SettingsError(f"{source}: {alias} and {name} are one setting. Give {name} only.")
    return {names.get(name, name): value for name, value in given.items()}


def _all_checked(
    names: Sequence[str],
    given: Mapping[str, Any],
    source: str,
    check: Callable[[str, Any, str], Any],
) -> dict[str, Any]:
    values = {}
    for name, value in given.items():
        if name not in names:
            raise SettingsError(unknown_setting(name, source, names))
        values[name] = check(name, value, source)
    return values


def _checked(name: str, value: Any, source: str) -> Any:
    if name in CHOICES:
        try:
            return CHOICES[name](value)
        except ValueError:
            raise SettingsError(bad_choice(name, value, source, list(CHOICES[name]))) from None
    check, expected = CHECKS[name]
    checked = check(value)
    if checked is REFUSED:
        raise SettingsError(bad_setting(name, value, source, expected))
    return checked


def _strings(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    items = tuple(value) if isinstance(value, Iterable) else ()
    return items if isinstance(value, Iterable) and all(isinstance(item, str) for item in items) else REFUSED


LONGEST_NAME = 250  # bytes, the suffix aside: what file systems take


def _path(value: Any) -> Any:
    value = str(value) if isinstance(value, PurePath) else value
    return value if isinstance(value, str) and value and "\0" not in value else REFUSED


def _file(value: Any) -> Any:
    path = _path(value)
    name = "" if path is REFUSED else path.replace("\\", "/").rpartition("/")[2]
    return path if name and len(os.fsencode(name)) <= LONGEST_NAME else REFUSED


def _function(value: Any) -> Any:
    return value if callable(value) or (isinstance(value, str) and value) else REFUSED


def _functions(value: Any) -> Any:
    if value is None:
        return ()
    found = _function(value)
    return found if found is REFUSED else (found,)


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


def _age(value: Any) -> Any:
    """Seconds, as a number or as a text such as ``90d``."""
    if isinstance(value, str):
        found = AGE.fullmatch(value)
        return float(found[1]) * SECONDS[found[2][:1]] if found and float(found[1]) else REFUSED
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value > 0 else REFUSED


def _flag(value: Any) -> Any:
    return value if _is_flag(value) else REFUSED


def _cache(value: Any) -> Any:
    is_cache = all(callable(getattr(value, name, None)) for name in ("cache_key", "get", "put"))
    return value if is_cache and not isinstance(value, type) else REFUSED


REFUSED: Any = object()
AGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?|)\s*")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
CHECKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "normalize": (_strings, "a string or a list of strings"),
    "redact": (_strings, "a string or a list of strings"),
    "key": (_or_none(_function), "a name, a dotted path or a function"),
    "redact_with": (_functions, "a name, a dotted path or a function"),
    "cassette": (_or_none(_file), "the path of a file, or None for no cassette"),
    "cassette_dir": (_path, "a path"),
    "max_age": (_or_none(_age), "seconds, or a number with a unit such as 90d (s, m, h, d, w)"),
    "share": (_flag, "True or False"),
    "cache": (_or_none(_cache), "a pytest_lmcache.Cache"),
}


def _checked_for_cache(name: str, value: Any, source: str) -> Any:
    if name == "url":
        if not _is_url(value):
            raise SettingsError(bad_url(source, value))
        return value
    fits, expected = _FOR_CACHE.get(name, (_is_size, "a whole number above 0, or math.inf for no limit"))
    if not fits(value):
        raise SettingsError(bad_setting(name, value, source, expected))
    if name == "disk_cache_dir" and value is not None:
        try:
            return Path(value).expanduser().absolute()
        except RuntimeError:  # the home of nobody
            raise SettingsError(bad_setting(name, value, source, expected)) from None
    return value


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_folder(value: Any) -> bool:
    return value is None or isinstance(value, Path) or (isinstance(value, str) and value != "")


def _is_age(value: Any) -> bool:
    return value is None or (_is_positive(value) and math.isfinite(value))


def _is_size(value: Any) -> bool:
    return _is_positive(value) and (value == math.inf or value == int(value))


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_url(value: Any) -> bool:
    """Whether a value is the URL of a server, as far as can be told without its client; None is none."""
    if not isinstance(value, str):
        return value is None
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    place = parts.path if parts.scheme == "unix" else parts.hostname
    return parts.scheme in SCHEMES and bool(place) and port != 0


_FOR_CACHE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "enable_memory_cache": (_is_flag, "True or False"),
    "enable_disk_cache": (_is_flag, "True or False"),
    "disk_cache_dir": (_is_folder, "a path, or None for the default one"),
    "ttl": (_is_age, "a number of seconds above 0, or None for ever"),
}
