"""The pytest plugin, by what pytest looks for in it: hooks and fixtures. Only this folder imports pytest."""

import pytest

from pytest_lmcache.errors import CassetteMiss, Outcome
from pytest_lmcache.plugin.hooks import (
    lm_cache,
    lm_cache_backend,
    pytest_configure,
    pytest_generate_tests,
    pytest_load_initial_conftests,
    pytest_runtest_makereport,
    pytest_unconfigure,
)
from pytest_lmcache.plugin.options import pytest_addoption

# Runners of tests and fixtures, such as anyio's, take a BaseException for an interrupt if it is not one of pytest's.
CassetteMiss.__bases__ = (Outcome, pytest.fail.Exception)

__all__ = [
    "lm_cache",
    "lm_cache_backend",
    "pytest_addoption",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_load_initial_conftests",
    "pytest_runtest_makereport",
    "pytest_unconfigure",
]
