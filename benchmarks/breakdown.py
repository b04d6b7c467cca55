"""Where a replayed call's time goes with pytest-lmcache: sync, in an event loop, and streamed, under cProfile.

.benchmarks/venv/bin/python benchmarks/breakdown.py [--calls 300] [--top 25]
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import logging
import os
import pstats
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import suites  # noqa: E402
from provider import Provider  # noqa: E402

import pytest_lmcache  # noqa: E402

MODULES = (
    r"/(pytest_lmcache/.*)$",
    r"/site-packages/(litellm/[^/]+)",
    r"/site-packages/([^/]+)",
    r"/python3[^/]*/([^/]+)",
)


def group_of(file: str, function: str) -> str:
    """The module of ours, or the package, that a function belongs to."""
    for pattern in MODULES:
        if found := re.search(pattern, file):
            return found[1].removesuffix(".py")
    return f"built in {function.rsplit(maxsplit=1)[-1].strip('>') if file == '~' else file}"


def report(kind: str, profile: cProfile.Profile, calls: int, plain: float, top: int) -> None:
    """Own time by module, then the functions with the most cumulative time."""
    stats = pstats.Stats(profile)
    own: Counter[str] = Counter()
    for (file, _, function), (_, _, seconds, _, _) in stats.stats.items():
        own[group_of(file, function)] += seconds
    total = sum(own.values())
    print(
        f"\n=== {kind}: {1e6 * plain / calls:.0f} µs of processor work a call ({1e6 * total / calls:.0f} under cProfile)"
    )
    for name, seconds in own.most_common(14):
        print(f"  {100 * seconds / total:5.1f} %  {1e6 * seconds / calls:7.1f} µs  {name}")
    functions(profile, calls, top)


def functions(profile: cProfile.Profile, calls: int, top: int, only: str = "") -> None:
    """The functions with the most cumulative time."""
    print("  by cumulative time, µs a call:")
    rows = sorted(pstats.Stats(profile).stats.items(), key=lambda item: -item[1][3])
    for (file, line, function), (_, times, _, cumulative, _) in [row for row in rows if only in row[0][0]][
        :top
    ]:
        where = re.sub(r".*/(site-packages|python3[^/]*)/|.*/(?=pytest_lmcache/)", "", file)
        print(f"  {1e6 * cumulative / calls:8.1f}  {times / calls:6.2f} times  {where}:{line} {function}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--top", type=int, default=25)
    options = parser.parse_args()
    logging.getLogger("LiteLLM").setLevel(logging.ERROR)  # each asyncio.run is told to be a new loop
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "breakdown.yaml"
        calls: dict = {}
        numbers = range(options.calls)
        with Provider() as provider:
            os.environ["BENCH_URL"] = provider.url
            exec(suites.CALLS.replace("import pytest", ""), calls)
            kinds = {"sync": calls["sync"], "in a loop": calls["in_a_loop"], "streamed": calls["streamed"]}
            for call in kinds.values():
                call(-1)
            profile = cProfile.Profile()
            profile.enable()
            with pytest_lmcache.use_cassette(path, mode="record"):
                for call in kinds.values():
                    for number in numbers:
                        call(number)
            profile.disable()
        print("=== recording: ours alone, in calls of each kind and the writing of the file")
        functions(profile, 3 * options.calls, options.top, only="pytest_lmcache/")
        for kind, call in kinds.items():
            with pytest_lmcache.use_cassette(path, mode="replay"):
                call(0)
                began = time.process_time()
                for number in numbers:
                    call(number)
                plain = time.process_time() - began
            with pytest_lmcache.use_cassette(path, mode="replay"):
                call(0)
                profile = cProfile.Profile()
                profile.enable()
                for number in numbers:
                    call(number)
                profile.disable()
            report(kind, profile, options.calls, plain, options.top)
        began = time.process_time()
        for _ in numbers:
            asyncio.run(asyncio.sleep(0))
        print(
            f"\nof the calls in a loop, asyncio.run itself: {1e6 * (time.process_time() - began) / options.calls:.0f} µs"
        )


if __name__ == "__main__":
    main()
