"""The pytest plugin, by what pytest looks for in it: hooks and fixtures. Only this folder imports pytest."""

from pytest_lmcache.plugin.hooks import (
    lm_cache,
    lm_cache_backend,
    pytest_configure,
    pytest_load_initial_conftests,
    pytest_runtest_makereport,
    pytest_unconfigure,
)
from pytest_lmcache.plugin.options import pytest_addoption

__all__ = [
    "lm_cache",
    "lm_cache_backend",
    "pytest_addoption",
    "pytest_configure",
    "pytest_load_initial_conftests",
    "pytest_runtest_makereport",
    "pytest_unconfigure",
]
