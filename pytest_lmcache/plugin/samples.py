"""``samples``: a test runs once for each of several recorded answers to the same prompts."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.settings import CassetteScope, Settings

PARAMETER = "lm_cache_sample"
"""The name of the parameter that numbers the samples of a test, from 1."""


def parametrize(metafunc: pytest.Metafunc, settings: Settings) -> None:
    """Parametrize a test by its samples, if it has any."""
    if settings.samples is None or settings.in_turn:
        return
    numbers = range(1, settings.samples + 1)
    metafunc.fixturenames.append(PARAMETER)
    metafunc.parametrize(PARAMETER, numbers, ids=[f"sample-{number}" for number in numbers])


def sample_of(item: Any) -> int | None:
    """The number of the sample that a test runs with, from 1; None if it has no samples."""
    number: int | None = getattr(getattr(item, "callspec", None), "params", {}).get(PARAMETER)
    return number


def check(item: pytest.Item, settings: Settings) -> None:
    """Raise SettingsError for a test that cannot have samples."""
    where = f"{item.nodeid}: samples={settings.samples}"
    if settings.samples is None:
        if settings.in_turn:
            raise SettingsError(
                f"{item.nodeid}: in_turn says how samples are taken. Add their number: samples=5."
            )
    elif settings.in_turn:
        return
    elif sample_of(item) is None:
        raise SettingsError(
            f"{where} makes a parametrized test, and pytest cannot parametrize this one. Put the marker on a test "
            "function, or on a class or module without unittest.TestCase, or add in_turn=True."
        )
    elif settings.cassette != "" or settings.scope is not CassetteScope.FUNCTION:
        other, mend = ("cassette=…", "Leave that out")
        if settings.cassette == "":
            other, mend = (f"scope={settings.scope.value!r}", "Add scope='function'")
        raise SettingsError(
            f"{where} gives each sample its own cassette, so it cannot be combined with {other}. {mend}, or "
            "add in_turn=True."
        )
