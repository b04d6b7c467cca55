"""Measured inside one process: recording, one call out of a big cassette, memory. Prints JSON.

python inside.py single|memory OPENER SMALL BIG CALLS: SMALL is a cassette of the first call only, BIG one of CALLS
python inside.py record OPENER
OPENER is an expression that opens the cassette `path`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import suites

CALLS: dict = {}
exec(suites.CALLS.replace("import pytest", ""), CALLS)  # the very text that the suites run


def opened(opener, path):
    """The cassette, open for replay."""
    return eval(opener, {"path": path})  # from contestants.py


def timed(do):
    """Seconds of processor work: what a busy machine disturbs least."""
    began = time.process_time()
    do()
    return time.process_time() - began


def one_call(opener, path, number):
    with opened(opener, path):
        CALLS["sync"](number)


def fresh(path, folder, name):
    """A copy under a new name, in the page cache: nothing known from an earlier opening helps."""
    return Path(shutil.copyfile(path, Path(folder) / name))


def single(opener, small, big, calls):
    """Seconds to open, call once and close; of a cassette of one, of the big one; to read the big one's bytes."""
    rounds: dict[str, list[float]] = {"small": [], "big": [], "read": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(6):
            copy = fresh(big, folder, f"big-{number}.yaml")
            little = fresh(small, folder, f"small-{number}.yaml")
            rounds["read"].append(timed(copy.read_bytes))
            rounds["big"].append(timed(lambda: one_call(opener, copy, calls * 3 // 4)))  # noqa: B023
            rounds["small"].append(timed(lambda: one_call(opener, little, 0)))  # noqa: B023
    return {name: statistics.median(values[1:]) for name, values in rounds.items()}


def resident(name):
    """Bytes of this process's memory: VmRSS now, or VmHWM, the most so far (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", status)[1])


def memory(opener, small, big, calls):
    """Bytes above the warm process: after opening and one call, and at most while replaying every call."""
    one_call(opener, small, 0)
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
    with opened(opener, big):
        CALLS["sync"](0)
        first = resident("VmHWM")
        for number in range(1, calls):
            CALLS["sync"](number)
    return {"first": first - before, "all": resident("VmHWM") - before, "file": big.stat().st_size}


def one_of_each(numbers):
    """Sync calls, calls in one event loop, streamed calls."""

    async def in_one_loop():
        for number in numbers:
            await CALLS["litellm"].acompletion(**CALLS["request"](CALLS["question"](number), seed=1))

    for number in numbers:
        CALLS["sync"](number)
        CALLS["streamed"](number)
    asyncio.run(in_one_loop())


def record(opener):
    """Milliseconds a call, on the wall and of processor work, without and with recording, in turn.

    Each recording goes to a new cassette and is written when its calls are done. Each round asks anew: our
    cache layers, empty at first, answer nothing.
    """
    rounds = {"bare": [], "recorded": []}
    calls = 20
    with tempfile.TemporaryDirectory() as folder:
        if "pytest_lmcache" in opener:
            from pytest_lmcache import configure_cache

            configure_cache(disk_cache_dir=Path(folder) / "layers")
        for number in range(13):
            for name, context in (
                ("bare", nullcontext()),
                ("recorded", opened(opener, Path(folder) / f"{number}.yaml")),
            ):
                began = time.perf_counter(), time.process_time()
                with context:
                    one_of_each(range(number * calls, (number + 1) * calls))
                ended = time.perf_counter(), time.process_time()
                rounds[name].append([1000 * (e - b) / (3 * calls) for e, b in zip(ended, began, strict=True)])
    return {name: of[1:] for name, of in rounds.items()}


if __name__ == "__main__":
    what, opener, *rest = sys.argv[1:]
    if what == "record":
        print(json.dumps(record(opener)))
    else:
        small, big, calls = rest
        measure = {"single": single, "memory": memory}[what]
        print(json.dumps(measure(opener, Path(small), Path(big), int(calls))))
