"""The marker ``lm_budget``: limits on the calls, tokens and USD of a test."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.plugin.node_recorders import is_marked, recorder_key

MARKER = "lm_budget(calls, tokens, usd): fail the test if its language-model calls cost more"
LIMITS: dict[str, Any] = {"calls": int, "tokens": int, "usd": (int, float)}


def limits_of(item: pytest.Item) -> dict[str, Any]:
    """The limits of a test by name, the nearest mark's first; empty if it has none. Raises SettingsError."""
    limits: dict[str, Any] = {}
    for marker in item.iter_markers("lm_budget"):
        where = f"{item.nodeid}: @pytest.mark.lm_budget"
        if marker.args or not marker.kwargs or not marker.kwargs.keys() <= LIMITS.keys():
            raise SettingsError(f"{where} takes calls, tokens and usd, by name, such as calls=3.")
        for name, value in marker.kwargs.items():
            if not isinstance(value, LIMITS[name]) or isinstance(value, bool) or not value >= 0:
                what = "an amount in USD" if name == "usd" else "a whole number"
                raise SettingsError(f"{where}: {name} cannot be {value!r}; it takes {what}, 0 or more.")
        limits = {**marker.kwargs, **limits}
    return limits


def check_marks(item: pytest.Item, *, is_auto: bool) -> None:
    """Raise SettingsError for an invalid mark, and for one on a test whose calls are not recorded."""
    if limits_of(item) and not (is_auto or is_marked(item)):
        raise SettingsError(
            f"{item.nodeid}: @pytest.mark.lm_budget counts the calls of recorded tests only. "
            "Add @pytest.mark.lm_cache, or set lm_auto = true."
        )


def check_calls(item: pytest.Item) -> None:
    """Fail a test whose calls cost more than its marks allow."""
    __tracebackhide__ = True
    recorder = item.stash.get(recorder_key, None)
    limits = limits_of(item) if recorder is not None else {}
    if recorder is not None and limits:
        from pytest_lmcache.call_assertions import Limits

        if problem := Limits(**limits).exceeded(recorder.calls):
            pytest.fail(problem, pytrace=False)
