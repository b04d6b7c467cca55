"""Measures pytest-lmcache beside its peers and a hand-written stub, in one run, and prints the ratios.

python benchmarks/run.py [--quick] [--fresh] [many long single memory record size startup import hits layers]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import suites
from contestants import BARE, BY_URL, CASSETTER, EVERYONE, OURS, RECORDERS, RECORDING, STUBBED

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests"))
from provider import Provider  # noqa: E402

VENV = ROOT / ".benchmarks" / "venv"
PYTHON = VENV / "bin" / "python"
TIME_LIMIT = 300  # seconds for one pytest process


class Spent(NamedTuple):
    """Seconds: by the clock on the wall, and of processor work."""

    wall: float
    work: float

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.wall - other.wall, self.work - other.work)


@dataclass(frozen=True, slots=True)
class Run:
    """What one pytest process took: all of it, its `import litellm`, and each test."""

    whole: Spent
    imported: Spent
    tests: list[Spent]

    @property
    def rest(self) -> Spent:
        """All of the process but `import litellm`."""
        return self.whole - self.imported

    @property
    def warm(self) -> Spent:
        """Every test but the first, in which LiteLLM loads what it needs."""
        return Spent(*map(sum, zip(*self.tests[1:], strict=True)))


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
        whole = spent(command, folder, environ)
        times = json.loads(clock.read_text(encoding="utf-8"))
        return Run(whole, Spent(*times["imported"]), [Spent(*test) for test in times["tests"]])

    def startup(self, contestant, folder: Path, *more: str) -> Spent:
        """What pytest takes as a user starts it: no clock, nothing else."""
        command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *contestant.switches, *more]
        return spent(command, folder, self.environ(contestant))

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
        opener = contestant.opened_to("record" if what == "record" else "replay")
        return printed([HERE / "inside.py", what, opener, *map(str, arguments)], self.environ(contestant))


def printed(script: list, environ: dict[str, str]) -> dict:
    """The JSON that a script of ours prints in its last line."""
    done = subprocess.run(
        [PYTHON, *script], env=environ, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
    )
    if done.returncode:
        raise RunError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def spent(command: list, folder: Path, environ: dict[str, str]) -> Spent:
    """Run a process to its good end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=folder, env=environ, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"more than {TIME_LIMIT} s in {folder.name}") from None
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RunError(f"{folder}:\n{done.stdout[-3000:]}\n{done.stderr[-1000:]}")
    return Spent(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def figure(cell: object) -> str:
    """A table's cell: floats to three figures."""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return str(cell)


def table(title: str, head: list[str], rows: list[list[object]]) -> None:
    """Print a Markdown table."""
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
    base = runs.pop("base")
    for number, kind in enumerate(("the clock on the wall", "processor work")):
        bare = [run.rest[number] for run in base]
        whole = {name: [run.rest[number] for run in of] for name, of in runs.items()}
        warm = {name: [1000 * run.warm[number] / (calls - 3) for run in of] for name, of in runs.items()}

        def over(name: str, pick) -> float:
            return 1000 * (pick(whole[name]) - pick(bare)) / calls  # noqa: B023

        table(
            f"many: {tests} tests of 3 calls (sync, async, stream), replayed, {bench.rounds} rounds, by {kind}",
            ["", "ms a call over `import litellm`", "times stub", "of the least", "times stub",
             "warm: ms a call", "times stub", "least", "times stub"],
            [
                [name,
                 over(name, median), over(name, median) / over("stub", median),
                 over(name, min), over(name, min) / over("stub", min),
                 median(warm[name]), median(warm[name]) / median(warm["stub"]),
                 min(warm[name]), min(warm[name]) / min(warm["stub"])]
                for name in runs
            ],
        )  # fmt: skip


def long(bench: Bench) -> None:
    """One test with a thousand calls and more, replayed."""
    lengths = (200, 1_000) if bench.quick else (1_000, 4_000, 10_000)
    rows = []
    for calls in lengths:
        floor = 0.0
        for one in bench.those(STUBBED, *RECORDERS, *BY_URL):
            if calls > one.longest:
                continue
            try:
                with Provider() as provider:
                    folder = bench.recorded(f"long_{calls}", one, suites.long(one.marker, calls), provider)
                often = 3 if one in (STUBBED, OURS) else 1  # the others take a minute and more
                tests = [bench.pytest(one, folder, *one.replay).tests[1] for _ in range(often)]
            except RunError as failure:
                print(f"long, {calls:,} calls, {one.name}: {failure}", file=sys.stderr)
                continue
            wall, work = ([1000 * seconds / calls for seconds in kind] for kind in zip(*tests, strict=True))
            floor = floor or median(work)
            rows.append([f"{calls:,}", one.name, median(wall), min(wall), median(work), median(work) / floor])
    table(
        "long: one test of so many calls, replayed",
        ["calls", "", "ms a call", "least", "of processor work", "times stub"],
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


def ways(one) -> list[tuple[str, str]]:
    """How a contestant records: ours also with its cache layers, which are on by default."""
    return [(one.name, "bare"), *([(f"{one.name}, with layers", "layers")] if one is OURS else [])]


# What a provider takes: seconds to its first byte, and between two chunks; and how many blocks are measured.
PACES = {"at once": (0.0, 0.0, 40), "as a real one, only faster": (0.02, 0.002, 15)}


def record(bench: Bench) -> None:
    """Recording, beside the same calls in the same process without a plugin, from providers of two paces."""
    for pace, (delay, pause, blocks) in PACES.items():
        rows = []
        with Provider(delay=delay, pause=pause) as provider:
            bench.url = provider.url
            for one in bench.those(*RECORDERS):
                for name, layers in ways(one):
                    took = bench.inside("record", one, layers, blocks)
                    for number, clock in enumerate(("wall", "processor")):
                        cells = [took[kind][number] for kind in ("sync", "async", "stream")]
                        mean = statistics.mean(added for _, added in cells)
                        rows.append(
                            [name, clock, *[added for _, added in cells], mean, *[bare for bare, _ in cells]]
                        )
        table(
            "record: ms added to a call by recording it, writing included; streams of 28 chunks; a provider that "
            f"answers {pace} ({1000 * delay:g} ms, and {1000 * pause:g} between chunks)",
            ["", "", "sync", "async", "stream", "mean", "sync alone", "async alone", "stream alone"],
            rows,
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
    took: dict[str, list[Spent]] = {}
    for number in range(6 if bench.quick else 31):
        for one in bench.those(BARE, *RECORDERS):
            run = bench.startup(one, folder)
            if number:
                took.setdefault(one.name, []).append(run)
    plain = took[BARE.name]

    def ratio(of: list[Spent], kind: int) -> float:
        return median(one[kind] / other[kind] for one, other in zip(of, plain, strict=True))

    table(
        f"startup: pytest on one empty test, {len(plain)} rounds, medians of the paired ratios",
        ["", "ms", "least", "ratio", "ms of processor work", "ratio"],
        [
            [name, 1000 * median(run.wall for run in of), 1000 * min(run.wall for run in of), ratio(of, 0),
             1000 * median(run.work for run in of), ratio(of, 1)]
            for name, of in took.items()
        ],
    )  # fmt: skip


def imports(bench: Bench) -> None:
    """pytest on a suite that imports LiteLLM and asks nothing, with this plugin and without, in pairs."""
    folder = bench.folder / "imports"
    folder.mkdir(exist_ok=True)
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (folder / "test_import.py").write_text(f"import litellm\n\n{suites.EMPTY}", encoding="utf-8")
    ways = {
        BARE.name: (BARE, ()),
        OURS.name: (OURS, ()),
        "with lm_fast_import": (OURS, ("-o", "lm_fast_import=true")),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(3 if bench.quick else 31):
        names = [*ways][number % len(ways) :] + [*ways][: number % len(ways)]
        for name in names:
            contestant, options = ways[name]
            run = bench.startup(contestant, folder, *options)
            if number:
                took[name].append(run.work)
    ratios = {
        name: [one / bare for one, bare in zip(of, took[BARE.name], strict=True)] for name, of in took.items()
    }
    table(
        f"import: pytest on a suite that imports LiteLLM, {len(took[BARE.name])} rounds, paired ratios",
        ["", "s of processor work", "median ratio", "least", "greatest"],
        [
            [name, median(of), median(ratios[name]), min(ratios[name]), max(ratios[name])]
            for name, of in took.items()
        ],
    )


def hits(bench: Bench) -> None:
    """A hit of each cache on one request, and opening a disk layer; in one process, in turn."""
    took = printed([HERE / "hits.py"], bench.environ(OURS))
    table(
        "hits: microseconds, in one process and in turn",
        ["", "median", "least"],
        [[name, median(each), min(each)] for name, each in took.items()],
    )


def layers(bench: Bench) -> None:
    """A suite recorded from a provider of no delay, without layers and with them, and wholly out of the disk layer."""
    tests = 20 if bench.quick else 100
    off = ("-o", "lm_enable_memory_cache=false", "-o", "lm_enable_disk_cache=false")
    took: dict[str, list[Spent]] = {}
    with Provider() as provider:
        bench.url = provider.url
        folder = suites.write(bench.folder / "layers", OURS, "layers", suites.many(OURS.marker, tests))
        for number in range(bench.rounds + 1):
            for name, options, is_cold in (
                ("recorded, no layers", off, True),
                ("recorded, into memory and disk", (), True),
                ("recorded again, out of the disk layer", (), False),
            ):
                shutil.rmtree(folder / "cassettes", ignore_errors=True)
                if is_cold:
                    shutil.rmtree(folder / ".pytest_cache", ignore_errors=True)
                asked = provider.count
                run = bench.pytest(OURS, folder, "--lm-record", *options)
                if (provider.count > asked) is not is_cold:
                    raise RunError(f"{name}: {provider.count - asked} calls reached the provider")
                if number:
                    took.setdefault(name, []).append(run.rest)
    floor = median(run.work for run in took["recorded, no layers"])
    table(
        f"layers: {tests} tests of 3 calls recorded, {bench.rounds} rounds",
        ["", "s over `import litellm`", "of processor work", "times no layers", "more, ms a test"],
        [
            [
                name,
                median(run.wall for run in runs),
                work := median(run.work for run in runs),
                work / floor,
                1000 * (work - floor) / tests,
            ]
            for name, runs in took.items()
        ],
    )


SCENARIOS = {
    **{each.__name__: each for each in (many, long, single, memory, record, size, startup, hits, layers)},
    "import": imports,
}


def prepare(*, fresh: bool) -> None:
    """Make the environment that the contestants share: the peers once, this checkout anew in every run."""
    if fresh:
        shutil.rmtree(VENV, ignore_errors=True)
    pip = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        # fastapi and soundfile: for a hit of LiteLLM's own cache.
        peers = [package for one in (RECORDING, CASSETTER) for package in one.packages]
        subprocess.run(
            [*pip, "litellm", "dspy", "fastapi", "soundfile", *peers, "hatchling", ROOT], check=True
        )
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--force-reinstall", ROOT], check=True)


def versions() -> str:
    """What is measured, on what."""
    names = ("litellm", "dspy", "pytest", "pytest-lmcache", "pytest-recording", "vcrpy", "cassetter")
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
