"""The plugin's command line and ini keys: declared, read and checked; and the text of its marker."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.settings import ALIASES, CacheSettings, Mode, Settings, without_aliases

_Settings = TypeVar("_Settings", Settings, CacheSettings)
MARKER = (
    "lm_cache(cassette, mode, key, normalize, repeat, record_errors, usage, max_age, redact, redact_with, "
    "cassette_dir, share, cache): record and replay the test's language-model calls; takes the cache layers' settings too"
)
INI = {
    "lm_mode": ("string", "replay (default), once, record, rewrite or live"),
    "lm_cassette_dir": (
        "string",
        "folder of the cassettes under rootdir, {test_dir}/… for one beside each test file (default: cassettes)",
    ),
    "lm_key": ("string", "key strategy: exact (default), messages, content, or a function's dotted path"),
    "lm_normalize": (
        "linelist",
        "normalizers that act on keys: uuid, date, epoch, tmp_path, rootdir, tool_call_id, re:…",
    ),
    "lm_repeat": ("string", "an identical call after the last recording: last (default), cycle or error"),
    "lm_record_errors": ("string", "which errors of the provider are recorded: lasting (default) or all"),
    "lm_usage": ("string", "what a replayed answer says of its tokens: recorded (default) or empty"),
    "lm_max_age": (
        "string",
        "age, as text such as '90d' or '90' for seconds, from which recordings are told and recorded anew",
    ),
    "lm_redact": ("linelist", "regular expressions of own secrets, beside the built-in ones"),
    "lm_redact_with": ("string", "dotted path of a function str -> str that takes own secrets out"),
    "lm_share": ("bool", "let tests use answers that the cache keeps for other tests (default: false)"),
}
SPELLINGS = {f"lm_{alias}": f"lm_{name}" for alias, name in ALIASES.items()}
LAYERS = {
    "lm_enable_memory_cache": ("bool", "enable_memory_cache", "keep answers in memory (default: true)"),
    "lm_enable_disk_cache": ("bool", "enable_disk_cache", "keep answers on disk (default: true)"),
    "lm_disk_dir": (
        "string",
        "disk_cache_dir",
        "folder of the disk layer (default: in pytest's cache folder)",
    ),
    "lm_disk_size_limit_bytes": ("float", "disk_size_limit_bytes", "size of the disk layer (default: 1 GB)"),
    "lm_memory_max_entries": ("float", "memory_max_entries", "answers kept in memory (default: 1,000,000)"),
    "lm_ttl": ("float", "ttl", "seconds after which a layer forgets an answer (default: never)"),
    "lm_cache_url": ("string", "url", "redis://… of a layer that machines share (default: none)"),
}
SIZE = "a whole number above 0, or inf"
TAKES = {
    "lm_enable_memory_cache": "true or false",
    "lm_enable_disk_cache": "true or false",
    "lm_disk_dir": "a path, as text",
    "lm_disk_size_limit_bytes": SIZE,
    "lm_memory_max_entries": SIZE,
    "lm_ttl": "a number of seconds above 0",
    "lm_cache_url": "a URL such as redis://host:port/0, as text",
}
# Older ones have ini keys of texts only.
KNOWS_NUMBERS = pytest.version_tuple >= (8, 4)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and ini keys; before any other file can import it, have LiteLLM stay offline."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    group = parser.getgroup("lmcache", "language-model calls")
    group.addoption(
        "--lm-record", action="store_true", help="replay recorded language-model calls, record missing ones"
    )
    group.addoption(
        "--lm-rewrite",
        action="store_true",
        help="record all calls of the selected tests again when they pass",
    )
    group.addoption("--lm-mode", metavar="MODE", help="replay, once, record, rewrite or live")
    group.addoption(
        "--lm-durations",
        type=_count,
        metavar="N",
        help="show the N tests that are slowest to record, with tokens and USD (0 for all)",
    )
    parser.addini("lm_auto", "record and replay every test, marked or not", type="bool", default=False)
    for name, (kind, text) in INI.items():
        parser.addini(name, text, type=kind, default=None)  # type: ignore[arg-type]
    for alias, name in SPELLINGS.items():
        parser.addini(alias, f"another spelling of {name}", type=INI[name][0], default=None)  # type: ignore[arg-type]
    for name, (kind, _, text) in LAYERS.items():
        known = "string" if kind == "float" and not KNOWS_NUMBERS else kind
        parser.addini(name, text, type=known, default=None)  # type: ignore[arg-type]


def read_ini(config: pytest.Config, name: str, expected: str) -> Any:
    """The value of an ini key, None if it is not set. Raises UsageError with what it takes."""
    try:
        value = config.getini(name)
        is_number = name in LAYERS and LAYERS[name][0] == "float"
        return float(value) if is_number and isinstance(value, str) and value else value
    except (TypeError, ValueError, pytest.UsageError) as problem:
        raise pytest.UsageError(f"ini: {name}: {problem}. It takes: {expected}.") from None


def configured(settings: _Settings, given: Mapping[str, tuple[str, Any]]) -> _Settings:
    """Settings with those of the configuration: of each the option, and name and value of what it sets."""
    for option, (name, value) in given.items():
        try:
            settings = settings.updated({name: value}, "ini")
        except SettingsError as error:
            raise SettingsError(str(error).replace(f"ini: {name} ", f"ini: {option} ", 1)) from None
    return settings


def ini_settings(config: pytest.Config) -> dict[str, tuple[str, Any]]:
    """The settings of recording in the configuration: of each ini key the name and the value."""
    takes = {name: text for name, (_, text) in INI.items()}
    takes.update((alias, takes[name]) for alias, name in SPELLINGS.items())
    values = {name: read_ini(config, name, text) for name, text in takes.items()}
    given = without_aliases({name: value for name, value in values.items() if value}, "ini", "lm_")
    return {name: (name.removeprefix("lm_"), value) for name, value in given.items()}


def ini_layers(config: pytest.Config) -> dict[str, tuple[str, Any]]:
    """The settings of the cache layers in the configuration, as ``ini_settings`` gives them."""
    has_folder = config.pluginmanager.has_plugin("cacheprovider")
    folder = _folder(config, config.getini("cache_dir") if has_folder else ".pytest_cache")
    given: dict[str, tuple[str, Any]] = {"": ("disk_cache_dir", str(folder / "d" / "lmcache"))}
    for name, (_, setting, _) in LAYERS.items():
        value = read_ini(config, name, TAKES[name])
        if value not in (None, ""):
            given[name] = setting, str(_folder(config, value)) if name == "lm_disk_dir" else value
    return given


def _folder(config: pytest.Config, text: str) -> Path:
    """A folder as pytest takes its ``cache_dir``: under rootdir, with ``~`` and environment variables."""
    return config.rootpath / os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111 - which fails for ~nobody


def forced_mode(options: argparse.Namespace) -> Mode | None:
    """The mode that the command line sets, None if it sets none. Raises SettingsError for two."""
    given = [f"--lm-{flag}" for flag in ("record", "rewrite") if getattr(options, f"lm_{flag}")]
    named = options.lm_mode
    if len(given) + (named is not None) > 1:
        flags = " and ".join([*given, *(["--lm-mode"] if named is not None else [])])
        raise SettingsError(
            f"{flags} exclude each other: give one of them. The place for a mode of all runs is lm_mode in the "
            "configuration, not addopts."
        )
    if named is None and not given:
        return None
    value = given[0].removeprefix("--lm-") if given else named
    return Settings().updated({"mode": value}, "--lm-mode").mode


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"takes a number from 0, not {text!r}")
    return int(text)


def check_names(settings: Settings) -> None:
    """Refuse names that do not exist, as far as that can be told without importing the user's modules."""
    key = settings.key
    is_path = isinstance(key, str) and bool({".", ":"} & set(key))
    check_settings(settings._replace(key="exact" if is_path else key, redact_with=()), "ini")


def check_settings(settings: Settings, source: str) -> None:
    """Have the engine look at settings before the first call; ``source`` has them. Raises SettingsError."""
    default = Settings()
    names = ("key", "normalize", "redact", "redact_with")
    if any(getattr(settings, name) != getattr(default, name) for name in names):
        from pytest_lmcache.session import session

        try:
            session.recorders.make(settings, Path())
        except SettingsError as error:
            raise SettingsError(f"{source}: {error}") from None
