"""A pytest plugin (`-p clock`) that notes what a run took: importing LiteLLM, each test, processor time, memory."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path

import pytest

TIMES = {"import_seconds": 0.0, "tests": []}


def imported(seconds):
    """What `import litellm` took, told by the suite's conftest."""
    TIMES["import_seconds"] = seconds


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol():
    """One test with its set-up and tear-down: what every plugin does for it is inside."""
    began = time.perf_counter()
    result = yield
    TIMES["tests"].append(time.perf_counter() - began)
    return result


@pytest.hookimpl(trylast=True)
def pytest_unconfigure():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    TIMES["cpu"] = usage.ru_utime + usage.ru_stime
    if path := os.environ.get("BENCH_CLOCK"):
        Path(path).write_text(json.dumps(TIMES), encoding="utf-8")
