"""Measured inside one process: recording, one call out of a big cassette, memory. Prints JSON.

python inside.py single|memory OPENER SMALL BIG CALLS: SMALL is a cassette of the first call only, BIG one of CALLS
python inside.py record OPENER layers|bare BLOCKS
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
from contextlib import ExitStack
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


def spent(do):
    """Milliseconds on the wall, and of this thread's processor work."""
    began = time.perf_counter(), time.thread_time()
    do()
    return [
        1000 * (now - then)
        for now, then in zip((time.perf_counter(), time.thread_time()), began, strict=True)
    ]


def record(opener, layers, blocks):
    """What recording adds to a call of each kind: milliseconds on the wall and of the calling thread's work.

    So many blocks of ten calls, without and with recording in turn, each recording into a new cassette. The
    difference of the medians of all calls, and the median of writing a file over its calls. Each call asks anew:
    our cache layers, if they are on, answer nothing.
    """
    added, calls = {}, 10
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        if "pytest_lmcache" in opener:
            from pytest_lmcache import configure_cache

            on = layers == "layers"
            configure_cache(
                disk_cache_dir=Path(folder) / "layers", enable_memory_cache=on, enable_disk_cache=on
            )

        def in_the_loop(number):
            request = CALLS["request"](CALLS["question"](number), seed=1)
            runner.run(CALLS["litellm"].acompletion(**request))

        for kind, call in {"sync": CALLS["sync"], "async": in_the_loop, "stream": CALLS["streamed"]}.items():
            numbers = iter(range(10**6))
            for _ in range(40):
                call(next(numbers))
            gc.collect()
            gc.freeze()
            took = {"bare": [], "recorded": []}
            closing = []
            for number in range(int(blocks)):
                took["bare"] += [spent(lambda: call(next(numbers))) for _ in range(calls)]  # noqa: B023
                with ExitStack() as stack:
                    stack.enter_context(opened(opener, Path(folder) / f"{kind}-{number}.yaml"))
                    took["recorded"] += [spent(lambda: call(next(numbers))) for _ in range(calls)]  # noqa: B023
                    closing.append(spent(stack.close))
            bare, recorded, written = (
                [statistics.median(each[clock] for each in of) for clock in (0, 1)]
                for of in (took["bare"], took["recorded"], closing)
            )
            added[kind] = [
                [without, with_ + writes / calls - without]
                for without, with_, writes in zip(bare, recorded, written, strict=True)
            ]
    return added


if __name__ == "__main__":
    what, opener, *rest = sys.argv[1:]
    if what == "record":
        print(json.dumps(record(opener, *rest)))
    else:
        small, big, calls = rest
        measure = {"single": single, "memory": memory}[what]
        print(json.dumps(measure(opener, Path(small), Path(big), int(calls))))
