"""A pytest plugin (`-p clock`) that notes what a run took: importing LiteLLM, and each test.

Every time is a pair of seconds: by the clock on the wall, and of processor work in all threads of the process.
The second hardly changes when the machine is busy with something else.
"""

from __future__ import annotations

import gc
import json
import os
import time
from pathlib import Path

import pytest

TIMES = {"imported": (0.0, 0.0), "tests": []}


def now():
    return time.perf_counter(), time.process_time()


def since(began):
    return tuple(later - earlier for later, earlier in zip(now(), began, strict=True))


def imported(began):
    """`import litellm` has ended, says the suite's conftest.

    What it left is out of the garbage collector's sight from here on: a full pass over it takes 200 ms, and falls
    by chance on one contestant and not on another.
    """
    TIMES["imported"] = since(began)
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol():
    """One test with its set-up and tear-down: what every plugin does for it is inside."""
    began = now()
    result = yield
    TIMES["tests"].append(since(began))
    return result


@pytest.hookimpl(trylast=True)
def pytest_unconfigure():
    if path := os.environ.get("BENCH_CLOCK"):
        Path(path).write_text(json.dumps(TIMES), encoding="utf-8")
