"""The command line and the ini keys, made from the table of settings; and the text of the marker."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_lmcache.environment import prefer_local_prices
from pytest_lmcache.errors import SettingsError
from pytest_lmcache.setting_kinds import FOLDER, Kind
from pytest_lmcache.settings import (
    SETTINGS,
    CacheSettings,
    Mode,
    RunSettings,
    Setting,
    Settings,
    given_twice,
)

_Group = Settings | CacheSettings | RunSettings
MARKER = (
    f"lm_cache({', '.join(Settings.rows)}): record and replay the test's language-model calls; "
    "also takes the settings of the cache layers"
)
# Short forms of --lm-mode.
MODE_FLAGS = {
    "--lm-record": "replay recorded language-model calls, and record missing ones",
    "--lm-rewrite": "record all calls of the selected tests again if they pass",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare options and ini keys, and keep LiteLLM from downloading its price list when anything imports it."""
    prefer_local_prices()
    group = parser.getgroup("lmcache", "language-model calls")
    for flag, text in MODE_FLAGS.items():
        group.addoption(flag, action="store_true", help=text)
    for row in SETTINGS.values():
        if row.option:
            option, _, metavar = row.option.partition(" ")
            action = "append" if row.kind.ini == "linelist" else "store"
            if metavar:
                group.addoption(option, action=action, metavar=metavar, help=row.full_help)
            else:
                group.addoption(option, action="store_const", const=True, help=row.help)
        for key in _ini_keys(row):
            text = row.full_help if key == row.ini else f"another spelling of {row.ini}"
            kind: Any = row.kind.ini
            if kind == "float" and pytest.version_tuple < (8, 4):
                kind = "string"
            parser.addini(key, text, type=kind, default=None)


def ini_values(config: pytest.Config, group: type[_Group]) -> dict[str, Any]:
    """What the configuration file sets of a group's settings, parsed. Raises UsageError and SettingsError."""
    values: dict[str, Any] = {}
    for name, row in group.rows.items():
        for key in _ini_keys(row):
            value = _ini_value(config, key, row.kind)
            if value in (None, "", []):
                continue
            if name in values:
                raise given_twice("ini", key, row.ini)
            values[name] = row.parse(value, f"ini: {key}")
    return values


def cache_settings(config: pytest.Config, options: argparse.Namespace) -> CacheSettings:
    """The settings of the cache's layers; the disk layer is by default in pytest's cache folder."""
    has_folder = config.pluginmanager.has_plugin("cacheprovider")
    folder = _folder(config, config.getini("cache_dir") if has_folder else ".pytest_cache")
    default = CacheSettings(disk_cache_dir=folder / "d" / "lmcache")
    return default.with_values(ini_values(config, CacheSettings) | option_values(options, CacheSettings))


def option_values(options: argparse.Namespace, group: type[_Group]) -> dict[str, Any]:
    """What the command line sets of a group's settings, parsed. Raises SettingsError."""
    values = {}
    for name, row in group.rows.items():
        option = row.option.partition(" ")[0]
        if option and (value := getattr(options, _dest(option))) is not None:
            values[name] = row.parse(value, option)
    flags = [flag for flag in MODE_FLAGS if group is Settings and getattr(options, _dest(flag))]
    if len(given := [*flags, *(["--lm-mode"] if "mode" in values else [])]) > 1:
        raise SettingsError(
            f"{' and '.join(given)} exclude each other: give only one of them. To set a mode for all runs, use "
            "lm_mode in the configuration, not addopts."
        )
    for flag in flags:
        values["mode"] = Mode(flag.removeprefix("--lm-"))
    return values


def _dest(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _ini_keys(row: Setting) -> list[str]:
    return [key for key in (row.ini, row.alias and f"lm_{row.alias}") if key]


def _ini_value(config: pytest.Config, key: str, kind: Kind) -> Any:
    try:
        value = config.getini(key)
        if kind.ini == "float" and isinstance(value, str) and value:
            value = float(value)
    except (TypeError, ValueError, pytest.UsageError) as problem:
        takes = kind.ini_takes or kind.takes
        raise pytest.UsageError(f"ini: {key}: {problem}. It takes: {takes}.") from None
    return _folder(config, value) if value and kind is FOLDER else value


def _folder(config: pytest.Config, text: str) -> Path:
    """A folder as pytest takes its ``cache_dir``: under rootdir, with ``~`` and environment variables."""
    return config.rootpath / os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111 - which fails for ~nobody
