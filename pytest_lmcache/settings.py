"""What can be set, to which values, and who wins: command line, then marker, then ini, then default."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pytest_lmcache.errors import SettingsError, bad_choice, bad_setting, bad_url, unknown_setting


class Mode(StrEnum):
    """What may happen to a call: be replayed, be asked of the provider, be a miss."""

    REPLAY = "replay"
    ONCE = "once"
    RECORD = "record"
    REWRITE = "rewrite"
    LIVE = "live"


class Repeat(StrEnum):
    """What an identical call gets once the recorded answers are used up."""

    LAST = "last"
    CYCLE = "cycle"
    ERROR = "error"


class RecordErrors(StrEnum):
    """Which of the provider's errors are recorded: those that will not change, or all."""

    LASTING = "lasting"
    ALL = "all"


SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")
CHOICES: dict[str, type[StrEnum]] = {"mode": Mode, "repeat": Repeat, "record_errors": RecordErrors}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one test or one ``use_cassette``.

    ``cassette`` is a file name relative to ``cassette_dir``, None for the test's own. ``key`` is a strategy's
    name, the dotted path of a function, or a function ``request -> str``. ``normalise`` names normalisers.
    ``redact`` are regular expressions, ``redact_with`` a function ``str -> str`` or its dotted path.
    """

    mode: Mode = Mode.REPLAY
    cassette: str | None = None
    cassette_dir: str = "cassettes"
    key: str | Callable[[dict[str, Any]], str] = "exact"
    normalise: tuple[str, ...] = ()
    repeat: Repeat = Repeat.LAST
    record_errors: RecordErrors = RecordErrors.LASTING
    redact: tuple[str, ...] = ()
    redact_with: str | Callable[[str], str] | None = None

    def updated(self, given: Mapping[str, Any], source: str) -> Self:
        """These settings with those given; ``source`` says in an error where they were given.

        Raises SettingsError for a name that does not exist or a value that it cannot have.
        """
        values = _all_checked(self, given, source, _checked)
        if "redact" in values:
            # Own rules add to each other: a secret that the suite names stays one in every test.
            values["redact"] = tuple(dict.fromkeys(self.redact + values["redact"]))
        return replace(self, **values) if values else self


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
        values = _all_checked(self, given, source, _checked_for_cache)
        return replace(self, **values) if values else self


def _all_checked(
    settings: Settings | CacheSettings,
    given: Mapping[str, Any],
    source: str,
    check: Callable[[str, Any, str], Any],
) -> dict[str, Any]:
    names = [field.name for field in fields(settings)]
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
    if name in {"normalise", "redact"}:
        if isinstance(value, str):
            return (value,)
        if isinstance(value, Iterable):
            items = tuple(value)
            if all(isinstance(item, str) for item in items):
                return items
        raise SettingsError(bad_setting(name, value, source, "a string or a list of strings"))
    if name in {"key", "redact_with"} and (callable(value) or (isinstance(value, str) and value)):
        return value
    if name == "redact_with" and value is None:
        return value
    if name in {"cassette", "cassette_dir"} and isinstance(value, str) and value:
        return value
    expected = "a name, a dotted path or a function" if name in {"key", "redact_with"} else "a path"
    raise SettingsError(bad_setting(name, value, source, expected))


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
