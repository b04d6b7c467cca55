"""What can be set, to which values, and who wins: command line, then marker, then ini, then default."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Self

from pytest_lmcache.errors import SettingsError, bad_choice, bad_setting, unknown_setting


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
        names = [field.name for field in fields(self)]
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in names:
                raise SettingsError(unknown_setting(name, source, names))
            values[name] = _checked(name, value, source)
        if "redact" in values:
            # Own rules add to each other: a secret that the suite names stays one in every test.
            values["redact"] = tuple(dict.fromkeys(self.redact + values["redact"]))
        return replace(self, **values) if values else self


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
