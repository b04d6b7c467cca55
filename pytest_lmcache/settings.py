"""Every setting once: its default, the values it takes, its ini key, its command-line option and its help.

To add one, add a field to `Settings`, `CacheSettings` or `RunSettings`. `SETTINGS` collects them: the marker's text,
the ini keys, the options and the validation are made from it; the tables of README and docs are tested against it.
The command line wins over the marker, the marker over the configuration file, and that over the default.
"""

# ruff: noqa: RUF009 - _setting() gives a dataclass field
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from pytest_lmcache import setting_kinds as kinds
from pytest_lmcache.errors import SettingsError


class Mode(StrEnum):
    """Whether calls are replayed, recorded or sent."""

    REPLAY = "replay"
    ONCE = "once"
    RECORD = "record"
    REWRITE = "rewrite"
    LIVE = "live"
    VERIFY = "verify"

    @property
    def replays(self) -> bool:
        """Whether the calls of a test that has a cassette get recorded answers only."""
        return self in {Mode.REPLAY, Mode.ONCE, Mode.VERIFY}


class CassetteScope(StrEnum):
    """Which tests have one cassette together: none, those of a class, of a file, or all."""

    FUNCTION = "function"
    CLASS = "class"
    MODULE = "module"
    SESSION = "session"


class Repeat(StrEnum):
    """What an identical call gets after the last recorded answer."""

    LAST = "last"
    CYCLE = "cycle"
    ERROR = "error"


class RecordErrors(StrEnum):
    """Which of the provider's errors are recorded: only those that will not go away, or all."""

    LASTING = "lasting"
    ALL = "all"

    def includes(self, *, lasting: bool) -> bool:
        """Whether an error is recorded at once, whatever comes after it; ``lasting``: asking again gives it again."""
        return lasting or self is RecordErrors.ALL


class OnExpired(StrEnum):
    """What happens to a recording that is older than ``max_age``."""

    WARN = "warn"
    FAIL = "fail"
    RECORD = "record"


class Unmarked(StrEnum):
    """What happens to the calls of a test that is not marked."""

    ALLOW = "allow"
    WARN = "warn"
    ERROR = "error"


class Usage(StrEnum):
    """Which token counts a replayed answer has: those of the recording, or none."""

    RECORDED = "recorded"
    EMPTY = "empty"


class Setting(NamedTuple):
    """One row of `SETTINGS`."""

    default: Any
    kind: kinds.Kind
    help: str
    ini: str  # ini key, "" for none
    option: str = ""  # command-line option with the name of its argument if it takes one, "" for none
    shown_default: str = ""  # the default in help and documentation
    alias: str = ""  # another spelling of the setting's name; after ``lm_`` also of its ini key
    adds_up: bool = False  # a mark adds values to those of the configuration
    in_children: bool = False  # the interception reads it, so a test's child processes get it; JSON data

    @property
    def full_help(self) -> str:
        """The help with the default and the valid values."""
        return f"{self.help} (default: {self.shown_default}; takes {self.kind.ini_takes or self.kind.takes})"

    def parse(self, value: Any, where: str) -> Any:
        """A value in the setting's one type; ``where`` names the setting as it was given. Raises SettingsError."""
        try:
            return self.kind.parse(value)
        except ValueError:
            raise self.error(value, where) from None

    def error(self, value: Any, where: str) -> SettingsError:
        """The error for a value that the setting does not take."""
        return SettingsError(f"{where} cannot be {self.kind.shown(value)}; it takes {self.kind.takes}.")


def _setting(
    default: Any, kind: kinds.Kind, text: str, shown_default: str = "", ini: str = "lm_{}", **more: Any
) -> Any:
    """A field with its row. The ini key is ``lm_`` and the field's name, unless ``ini`` says otherwise."""
    if not shown_default:
        shown_default = "none" if default in (None, ()) else str(default).lower()
    row = Setting(default, kind, text, ini, shown_default=shown_default, **more)
    return field(default=default, repr=not kind.is_secret, metadata={"row": row})


class _Group:
    """Settings that are given in the same places; ``rows`` are theirs of the table, by name."""

    rows: ClassVar[dict[str, Setting]]

    def updated(self, given: Mapping[str, Any], source: str) -> Self:
        """These settings with those given by name; ``source`` says in an error who gave them.

        Raises SettingsError for a name that does not exist and for a value that the setting does not take.
        """
        return self.with_values(_parsed(given, source, self.rows))

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """These settings with others, by name, that are parsed already."""
        new = dict(values)
        for name, row in self.rows.items():
            if row.adds_up and name in new:
                known = getattr(self, name)
                new[name] = known + tuple(value for value in new[name] if value not in known)
        return replace(self, **new) if new else self  # type: ignore[type-var]


@dataclass(frozen=True)
class CacheSettings(_Group):
    """The layers of a cache, how much they keep, and for how long.

    ``disk_cache_dir`` None is the default folder. ``ttl`` is in seconds; None keeps answers for ever. ``url`` is that
    of a Redis or Valkey server, None for no such layer; it may hold a password.
    """

    enable_memory_cache: bool = _setting(True, kinds.FLAG, "keep answers in memory")
    enable_disk_cache: bool = _setting(True, kinds.FLAG, "keep answers on disk")
    disk_cache_dir: Path | None = _setting(
        None, kinds.FOLDER, "folder of the disk layer", ".pytest_cache/d/lmcache", ini="lm_disk_dir"
    )
    disk_size_limit_bytes: float = _setting(
        1_000_000_000, kinds.SIZE, "largest size of the disk layer, in bytes", "1,000,000,000"
    )
    memory_max_entries: float = _setting(
        1_000_000, kinds.SIZE, "largest number of answers in the memory layer", "1,000,000"
    )
    ttl: float | None = _setting(
        None, kinds.TTL, "seconds after its recording in which an answer may be used"
    )
    url: str | None = _setting(
        None, kinds.URL, "URL of a Redis or Valkey server that machines share", ini="lm_cache_url"
    )


@dataclass(frozen=True)
class Settings(_Group):
    """The settings of one test or one ``use_cassette``.

    ``mode`` None is replay, or record if ``cassette`` is None. ``cassette`` is a file name relative to
    ``cassette_dir``, "" for that of ``scope``, None for none: only the cache layers answer. ``key`` is a strategy's
    name, the dotted path of a function, or a function ``request -> str``; None is the cache's own ``cache_key``.
    ``redact_with`` are functions ``str -> str`` or their dotted paths. ``max_age`` is in seconds. ``layers`` has the
    settings of the cache's layers, as pairs of name and value.
    """

    mode: Mode | None = _setting(
        None, kinds.one_of(Mode), "what may happen to a call", "replay", option="--lm-mode MODE"
    )
    cassette: str | None = _setting("", kinds.FILE, "file in the cassette folder", "one per test", ini="")
    scope: CassetteScope = _setting(
        CassetteScope.FUNCTION,
        kinds.one_of(CassetteScope),
        "which tests share one cassette: none, those of a class, of a module, or all",
    )
    cassette_dir: str = _setting(
        "cassettes",
        kinds.PATH,
        "cassette folder, below rootdir; {test_dir}/… puts it beside each test file",
    )
    key: str | Callable[[dict[str, Any]], str] | None = _setting(
        None,
        kinds.KEY,
        "what makes two calls the same: exact, messages, content, or your own function",
        "exact",
    )
    normalize: tuple[str, ...] = _setting(
        (),
        kinds.TEXTS,
        "what keys ignore: uuid, date, epoch, tmp_path, rootdir, tool_call_id, re:…",
        alias="normalise",
    )
    repeat: Repeat = _setting(
        Repeat.LAST, kinds.one_of(Repeat), "what an identical call gets after the last recorded answer"
    )
    record_errors: RecordErrors = _setting(
        RecordErrors.LASTING,
        kinds.one_of(RecordErrors),
        "which errors of the provider are recorded",
        in_children=True,
    )
    usage: Usage = _setting(
        Usage.RECORDED, kinds.one_of(Usage), "token counts of a replayed answer", in_children=True
    )
    keep_headers: tuple[str, ...] = _setting(
        (),
        kinds.TEXTS,
        "response headers to record, such as x-request-id or x-ratelimit-*",
        in_children=True,
    )
    max_age: float | None = _setting(
        None, kinds.MAX_AGE, "age after which the summary counts a recording as old and mode record renews it"
    )
    on_expired: OnExpired = _setting(
        OnExpired.WARN,
        kinds.one_of(OnExpired),
        "what happens to a recording older than max_age: the summary counts it, its test fails, or mode once also renews "
        "it",
    )
    keep_unused: bool = _setting(
        False, kinds.FLAG, "keep the recordings that a passing test no longer asks for"
    )
    freeze_time: bool = _setting(False, kinds.FLAG, "run the test at the time of its recording")
    seed: int | None = _setting(None, kinds.SEED, "seed of the test's random numbers, Python's and numpy's")
    samples: int | None = _setting(
        None, kinds.SAMPLES, "how many answers to each prompt to record; the test runs once for each", ini=""
    )
    in_turn: bool = _setting(
        False, kinds.FLAG, "let the identical calls of one test take the samples in turn", ini=""
    )
    compare: str | Callable[[str, str], bool | float] | None = _setting(
        None,
        kinds.COMPARE,
        "when mode verify takes two texts for the same: similarity:0.8, embedding:MODEL:0.9, or your own function",
        "equal texts",
    )
    model: tuple[str, ...] = _setting(
        (),
        kinds.MODELS,
        "ask another model in modes verify and live; can be repeated",
        ini="",
        option="--lm-model OLD=NEW",
        in_children=True,
    )
    block_network: bool = _setting(
        False,
        kinds.FLAG,
        "refuse connections to other machines while nothing may be recorded",
        option="--lm-block-network",
    )
    allow_hosts: tuple[str, ...] = _setting(
        (), kinds.HOSTS, "hosts that block_network lets pass: host, host:port, *.suffix", adds_up=True
    )
    share: bool = _setting(False, kinds.FLAG, "let tests use answers that the cache keeps for other tests")
    cache: Any = _setting(None, kinds.CACHE, "the cache behind the cassette", ini="")
    redact: tuple[str, ...] = _setting(
        (), kinds.TEXTS, "regular expressions of your own secrets", adds_up=True
    )
    redact_with: tuple[str | Callable[[str], str], ...] = _setting(
        (), kinds.FUNCTION, "a function str -> str that removes your own secrets", adds_up=True
    )
    layers: tuple[tuple[str, Any], ...] = ()

    def asked_model(self, model: str) -> str:
        """The model that is asked instead of ``model``; ``model`` itself if no other is set."""
        pairs = (pair.split("=", 1) for pair in self.model)
        return next((new for old, new in pairs if old == model), model)

    def updated(self, given: Mapping[str, Any], source: str) -> Self:
        """As in `_Group`; the settings of the cache's layers may be given too."""
        layer_rows = CacheSettings.rows
        values = _parsed(given, source, Settings.rows | layer_rows)
        layers = {name: values.pop(name) for name in layer_rows if name in values}
        if layers:
            values["layers"] = tuple({**dict(self.layers), **layers}.items())
        return self.with_values(values)


@dataclass(frozen=True)
class RunSettings(_Group):
    """The settings of a whole run of pytest."""

    auto: bool = _setting(False, kinds.FLAG, "record and replay every test, marked or not")
    unmarked: Unmarked = _setting(
        Unmarked.WARN,
        kinds.one_of(Unmarked),
        "what happens to calls of unmarked tests: they are sent, sent and listed in the summary, or refused",
    )
    fast_import: bool = _setting(
        False, kinds.FLAG, "no garbage collection while LiteLLM or DSPy is imported, nor of what that leaves"
    )
    durations: int | None = _setting(
        None,
        kinds.COUNT,
        "show the N tests that are slowest to record, with tokens and USD; 0 shows all",
        ini="",
        option="--lm-durations N",
    )
    report: str | None = _setting(
        None,
        kinds.PATH,
        "write an HTML page of the run's calls, misses and conversations to a file",
        ini="",
        option="--lm-report PATH",
    )
    budget: float | None = _setting(
        None,
        kinds.USD,
        "send no more calls once so many USD are spent",
        ini="",
        option="--lm-budget USD",
    )
    unknown_price: float | None = _setting(
        None, kinds.USD, "what a call without a known price takes from the budget, in USD"
    )


def _parsed(given: Mapping[str, Any], source: str, rows: Mapping[str, Setting]) -> dict[str, Any]:
    names = {row.alias: name for name, row in rows.items() if row.alias}
    values: dict[str, Any] = {}
    for written, value in given.items():
        name = names.get(written, written)
        if name not in rows:
            from difflib import get_close_matches

            near = get_close_matches(name, rows, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            known = ", ".join(rows)
            raise SettingsError(f"{source}: there is no setting {name!r}.{hint} The settings are: {known}.")
        if name in values:
            raise given_twice(source, rows[name].alias, name)
        values[name] = rows[name].parse(value, f"{source}: {written}")
    return values


def given_twice(source: str, alias: str, name: str) -> SettingsError:
    """The error for a setting that one place gives in both of its spellings."""
    return SettingsError(f"{source}: {alias} and {name} are one setting. Give {name} only.")


def _rows_of(group: Any) -> dict[str, Setting]:
    rows = {found.name: found.metadata["row"] for found in fields(group) if found.metadata}
    return {name: row._replace(ini=row.ini.format(name)) for name, row in rows.items()}


Settings.rows, CacheSettings.rows, RunSettings.rows = map(_rows_of, (Settings, CacheSettings, RunSettings))
SETTINGS = Settings.rows | CacheSettings.rows | RunSettings.rows
DEFAULTS = CacheSettings()
