"""Measures pytest-lmcache beside its peers and a hand-written stub, in one run, and prints the ratios.

python benchmarks/run.py [--quick] [--fresh] [many long single memory record size startup]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import suites
from contestants import BARE, BY_URL, CASSETTER, EVERYONE, OURS, RECORDERS, RECORDING, STUBBED

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests"))
from provider import Provider  # noqa: E402

VENV = ROOT / ".benchmarks" / "venv"
PYTHON = VENV / "bin" / "python"
TIME_LIMIT = 300  # seconds for one pytest process


@dataclass(frozen=True, slots=True)
class Run:
    """One pytest process: seconds of wall time, of that importing LiteLLM, each test; processor seconds."""

    wall: float
    import_seconds: float
    tests: list[float]
    cpu: float

    @property
    def rest(self) -> float:
        """All of the process but `import litellm`."""
        return self.wall - self.import_seconds


class RunError(Exception):
    """A contestant did not get through."""


class Bench:
    """The folder, the contestants and the number of rounds of this run."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.quick = options.quick
        self.rounds = options.rounds or (2 if options.quick else 7)
        self.only = options.only.split(",") if options.only else list(EVERYONE)
        self.url = "http://127.0.0.1:9/v1"

    def those(self, *contestants):
        """The contestants that take part."""
        return [one for one in contestants if one.name in self.only]

    def environ(self, contestant) -> dict[str, str]:
        """No keys, no proxies, the local price map, and the harness importable."""
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {
            **keep,
            "PYTHONPATH": str(HERE),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "BENCH_URL": self.url,
            **contestant.environ,
        }

    def pytest(self, contestant, folder: Path, *more: str) -> Run:
        """Run the suite in a folder once; every test must pass."""
        clock = folder / "clock.json"
        clock.unlink(missing_ok=True)
        environ = {**self.environ(contestant), "BENCH_CLOCK": str(clock)}
        command = [
            PYTHON, "-m", "pytest", "-q", "-p", "clock", "-p", "no:cacheprovider", *contestant.switches, *more,
        ]  # fmt: skip
        began = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environ,
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RunError(f"more than {TIME_LIMIT} s") from None
        wall = time.perf_counter() - began
        if done.returncode:
            raise RunError(f"{contestant.name} in {folder}:\n{done.stdout[-3000:]}\n{done.stderr[-1000:]}")
        return Run(wall=wall, **json.loads(clock.read_text(encoding="utf-8")))

    def startup(self, contestant, folder: Path) -> float:
        """Seconds of wall time of pytest as a user starts it: no clock, nothing else."""
        command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *contestant.switches]
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, env=self.environ(contestant), capture_output=True, check=True)
        return time.perf_counter() - began

    def recorded(self, name: str, contestant, text: str, provider: Provider) -> Path:
        """A suite's folder with its cassettes recorded."""
        folder = suites.write(self.folder / name, contestant, name, text)
        if contestant.record:
            self.url = provider.url
            self.pytest(contestant, folder, *contestant.record)
            provider.requests.clear()
        return folder

    def inside(self, what: str, contestant, *arguments: object) -> dict[str, float]:
        """What inside.py prints."""
        command = [PYTHON, HERE / "inside.py", what, contestant.opener, *map(str, arguments)]
        done = subprocess.run(
            command,
            env=self.environ(contestant),
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )
        if done.returncode:
            raise RunError(done.stderr[-3000:])
        return json.loads(done.stdout.splitlines()[-1])


def table(title: str, head: list[str], rows: list[list[object]]) -> None:
    """Print a Markdown table, floats to three figures."""
    text = [
        head,
        *([f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows),
    ]
    widths = [max(len(row[column]) for row in text) for column in range(len(head))]
    text.insert(1, ["-" * width for width in widths])
    print(f"\n### {title}\n")
    for row in text:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    sys.stdout.flush()


def cassettes(folder: Path) -> list[Path]:
    """The cassettes below a folder."""
    return [path for path in folder.rglob("*.yaml") if path.is_file()]


def median(values) -> float:
    return statistics.median(list(values))


def in_turn(bench: Bench, jobs: dict[str, tuple]) -> dict[str, list[Run]]:
    """Run each job once a round, A B C A B C …, after a first round that only warms the disk."""
    runs: dict[str, list[Run]] = {name: [] for name in jobs}
    for number in range(bench.rounds + 1):
        for name, (contestant, folder, *more) in jobs.items():
            run = bench.pytest(contestant, folder, *more)
            if number:
                runs[name].append(run)
    return runs


def many(bench: Bench) -> None:
    """100 tests of 3 calls, each test its own cassette, replayed."""
    tests = 20 if bench.quick else 100
    calls = 3 * tests
    jobs = {"base": (BARE, suites.write(bench.folder / "base", BARE, "empty", suites.EMPTY))}
    with Provider() as provider:
        for one in bench.those(STUBBED, *RECORDERS):
            jobs[one.name] = (
                one,
                bench.recorded("many", one, suites.many(one.marker, tests), provider),
                *one.replay,
            )
    runs = in_turn(bench, jobs)
    base = median(run.rest for run in runs.pop("base"))
    over = {name: [1000 * (run.rest - base) / calls for run in of] for name, of in runs.items()}
    warm = {name: [1000 * sum(run.tests[1:]) / (calls - 3) for run in of] for name, of in runs.items()}
    cpu = {name: [1000 * run.cpu / calls for run in of] for name, of in runs.items()}
    floor_over, floor_warm = median(over["stub"]), median(warm["stub"])
    rows = [
        [name, median(over[name]), min(over[name]), median(over[name]) / floor_over,
         median(warm[name]), min(warm[name]), median(warm[name]) / floor_warm, median(cpu[name]) - median(cpu["stub"])]
        for name in runs
    ]  # fmt: skip
    table(
        f"many: {tests} tests of 3 calls (sync, async, stream), replayed, {bench.rounds} rounds",
        ["", "ms a call over `import litellm`", "least", "times stub", "warm: ms a call", "least", "times stub",
         "processor ms a call over the stub's"],
        rows,
    )  # fmt: skip


def long(bench: Bench) -> None:
    """One test with a thousand calls and more, replayed."""
    lengths = (200, 1_000) if bench.quick else (1_000, 4_000, 10_000)
    rows = []
    for calls in lengths:
        jobs, row = {}, {}
        with Provider() as provider:
            for one in bench.those(STUBBED, *RECORDERS, *BY_URL):
                if calls <= one.longest:
                    text = suites.long(one.marker, calls)
                    jobs[one.name] = (one, bench.recorded(f"long_{calls}", one, text, provider), *one.replay)
        for number in range(2 if bench.quick else 3):
            for name, (one, folder, *more) in jobs.items():
                if number and one.plugin == RECORDING.plugin:
                    continue  # once is long enough
                run = bench.pytest(one, folder, *more)
                row.setdefault(name, []).append(1000 * run.tests[1] / calls)
        rows += [
            [f"{calls:,}", name, median(took), min(took), median(took) / median(row["stub"])]
            for name, took in row.items()
        ]
    table(
        "long: one test of so many calls, replayed",
        ["calls", "", "ms a call", "least", "times stub"],
        rows,
    )


def big_cassettes(bench: Bench):
    """For each recorder its cassettes of one call and of as many as it gets through, and how many that is."""
    most = 1_000 if bench.quick else 10_000
    for one in bench.those(*RECORDERS):
        calls = min(most, one.longest)
        folder = bench.folder / f"long_{calls}" / one.name
        if not cassettes(folder):
            with Provider() as provider:
                bench.recorded(f"long_{calls}", one, suites.long(one.marker, calls), provider)
        small, big = sorted(cassettes(folder), key=lambda path: path.stat().st_size)
        yield one, small, big, calls


def single(bench: Bench) -> None:
    """One call out of the biggest cassette, beside reading the file's bytes."""
    rows = []
    for contestant, small, big, calls in big_cassettes(bench):
        bench.url = recorded_url(big)
        took = bench.inside("single", contestant, small, big, calls)
        more = took["big"] - took["small"]
        rows.append([
            contestant.name, f"{calls:,}", big.stat().st_size / 1e6, 1000 * took["big"], 1000 * took["small"],
            1000 * more, 1000 * took["read"], more / took["read"],
        ])  # fmt: skip
    table(
        "single: open, one call, close; of a big cassette and of one with a single call",
        [
            "",
            "recorded",
            "MB",
            "ms, big",
            "ms, single",
            "difference",
            "ms to read the bytes",
            "difference times reading",
        ],
        rows,
    )


def memory(bench: Bench) -> None:
    """Memory for opening and replaying the biggest cassette."""
    rows = []
    for contestant, small, big, calls in big_cassettes(bench):
        bench.url = recorded_url(big)
        took = bench.inside("memory", contestant, small, big, calls)
        rows.append([
            contestant.name, f"{calls:,}", took["file"] / 1e6, took["first"] / 1e6, took["first"] / took["file"],
            took["all"] / 1e6, took["all"] / took["file"],
        ])  # fmt: skip
    table(
        "memory: resident above the warm process, after the first call and at most over all calls",
        ["", "recorded", "MB of file", "MB, first call", "times file", "MB, all calls", "times file"],
        rows,
    )


def recorded_url(cassette: Path) -> str:
    """The provider's URL that an HTTP cassette was recorded from: its port is part of what they match."""
    with cassette.open(encoding="utf-8") as lines:
        for line in lines:
            if "uri:" in line:
                return line.split("uri:")[1].strip().strip("'\"").partition("/v1/")[0] + "/v1"
    return "http://127.0.0.1:9/v1"


def record(bench: Bench) -> None:
    """Recording, beside the same calls without a plugin; the provider answers at once."""
    tests = 10 if bench.quick else 40
    calls = 3 * tests
    warm: dict[str, list[float]] = {}
    with Provider() as provider:
        bench.url = provider.url
        for number in range(bench.rounds + 1):
            for one in bench.those(BARE, *RECORDERS):
                folder = suites.write(bench.folder / "record", one, "record", suites.many(one.marker, tests))
                for path in cassettes(folder):
                    path.unlink()
                run = bench.pytest(one, folder, *one.record)
                provider.requests.clear()
                if number:
                    warm.setdefault(one.name, []).append(1000 * sum(run.tests[1:]) / (calls - 3))
    floor = median(warm[BARE.name])
    table(
        f"record: {tests} tests of 3 calls from a provider of no delay, {bench.rounds} rounds",
        ["", "ms a call", "least", "added"],
        [[name, median(took), min(took), median(took) - floor] for name, took in warm.items()],
    )


def size(bench: Bench) -> None:
    """Bytes of the cassettes for 300 chat calls and for 100 vectors; and deflated, as git keeps them."""
    rows = []
    with Provider() as provider:
        for name, what, text in (
            ("chats", "300 chat calls, 100 of them streamed", lambda one: suites.many(one.marker, 100)),
            ("vectors", "100 vectors of 1,536 numbers", lambda one: suites.vectors(one.marker, 100)),
        ):
            kept = {}
            for one in bench.those(*RECORDERS):
                files = [
                    path.read_bytes() for path in cassettes(bench.recorded(name, one, text(one), provider))
                ]
                kept[one.name] = (sum(map(len, files)), sum(len(zlib.compress(data)) for data in files))
            ours = kept.get(OURS.name, (1, 1))
            rows += [
                [what, name, whole / 1e3, packed / 1e3, whole / ours[0], packed / ours[1]]
                for name, (whole, packed) in kept.items()
            ]
    table("size: of the cassettes", ["", "", "kB", "kB deflated", "times ours", "deflated times ours"], rows)


def startup(bench: Bench) -> None:
    """pytest on a suite without a call, with each plugin and without, in pairs."""
    folder = bench.folder / "startup"
    folder.mkdir(exist_ok=True)
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (folder / "test_empty.py").write_text(suites.EMPTY, encoding="utf-8")
    took: dict[str, list[float]] = {}
    for number in range(6 if bench.quick else 31):
        for one in bench.those(BARE, *RECORDERS):
            seconds = bench.startup(one, folder)
            if number:
                took.setdefault(one.name, []).append(1000 * seconds)
    plain = took[BARE.name]
    table(
        f"startup: pytest on one empty test, {len(plain)} rounds",
        ["", "ms", "least", "median of the paired ratios", "ratio of the least"],
        [
            [
                name,
                median(of),
                min(of),
                median(a / b for a, b in zip(of, plain, strict=True)),
                min(of) / min(plain),
            ]
            for name, of in took.items()
        ],
    )


SCENARIOS = {each.__name__: each for each in (many, long, single, memory, record, size, startup)}


def prepare(*, fresh: bool) -> None:
    """Make the environment that the contestants share, from the newest on PyPI and this checkout."""
    if fresh:
        shutil.rmtree(VENV, ignore_errors=True)
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        peers = [package for one in (RECORDING, CASSETTER) for package in one.packages]
        subprocess.run([PYTHON, "-m", "pip", "install", "-q", "litellm", *peers, "-e", ROOT], check=True)


def versions() -> str:
    """What is measured, on what."""
    names = ("litellm", "pytest", "pytest-lmcache", "pytest-recording", "vcrpy", "cassetter")
    command = [PYTHON, "-m", "pip", "list", "--format=json"]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    found = ", ".join(f"{one['name']} {one['version']}" for one in listed if one["name"] in names)
    return f"{found}, Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help="all if none is named")
    parser.add_argument("--quick", action="store_true", help="fewer calls and rounds: minutes, and rough")
    parser.add_argument("--rounds", type=int, default=0, help="how often each contestant is timed")
    parser.add_argument("--only", default="", help=f"contestants, by commas: {', '.join(EVERYONE)}")
    parser.add_argument(
        "--fresh", action="store_true", help="make the environment anew, with the newest peers"
    )
    options = parser.parse_args()
    prepare(fresh=options.fresh)
    print(versions())
    with tempfile.TemporaryDirectory(prefix="lmcache-bench-") as folder:
        bench = Bench(Path(folder), options)
        for name in options.scenario or SCENARIOS:
            try:
                SCENARIOS[name](bench)
            except RunError as failure:
                print(f"\n### {name}: FAILED\n\n{failure}")


if __name__ == "__main__":
    main()
