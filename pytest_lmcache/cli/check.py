"""``pytest-lmcache check``: names broken cassettes, and texts that formatters would change."""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_lmcache.cli.files import counted, is_of_vcrpy, yaml_files
from pytest_lmcache.errors import LMCacheError


def check(folder: Path, *, fix: bool = False) -> int:
    """Read every interaction of every cassette in a folder; print its faults, and the number of cassettes.

    ``fix``: rewrite the texts that formatters would change. Returns the exit code: 1 if there is a fault or no cassette.
    """
    files = interactions = size = 0
    broken: list[str] = []
    fragile: list[str] = []
    others: list[Path] = []
    for path in yaml_files(folder):
        if path != folder and is_of_vcrpy(path):
            others.append(path)
            continue
        files += 1
        count, problems, risks = _read(path, fix=fix)
        size += path.stat().st_size
        interactions += count
        broken += problems
        fragile += risks
    if not files:
        vcrpy = f"; it has {counted(len(others), 'file')} of vcrpy, such as {others[0]}" if others else ""
        print(f"{folder} has no cassette of pytest-lmcache{vcrpy}.", file=sys.stderr)  # noqa: T201 - a command prints
        return 1
    for problem in [*broken, *fragile]:
        print(problem, file=sys.stderr)  # noqa: T201
    totals = f"{counted(files, 'cassette')}, {counted(interactions, 'interaction')}, {counted(size, 'byte')}"
    broken_ones = f", {len(broken)} broken" if broken else ""
    fragile_ones = f", {len(fragile)} that formatters would change" if fragile else ""
    print(f"{totals}{broken_ones}{fragile_ones}")  # noqa: T201
    return 1 if broken or fragile else 0


def _read(path: Path, *, fix: bool) -> tuple[int, list[str], list[str]]:
    """The number of valid interactions of a cassette, its faults, and what formatters would change."""
    from pytest_lmcache.cassette.file import Cassette
    from pytest_lmcache.keys.strategies import strategy

    exact = strategy("exact")
    try:
        cassette = Cassette(path, exact)
        entries = cassette.entries
    except LMCacheError as problem:
        return 0, [str(problem)], []
    problems = []
    for entry in entries:
        try:
            call = entry.interaction().call
            # If the file has keys of another strategy, `entry.key` was computed anew, and fits.
            if exact.key(call, exact.text(call)) != entry.key:
                raise entry.broken("`key:` belongs to another request: was the request edited by hand?")
        except LMCacheError as problem:
            problems.append(str(problem))
    fragile = [] if problems else cassette.fragile()
    if fragile and fix:
        try:
            cassette.make_robust()
            fragile = []
        except LMCacheError as problem:
            problems.append(str(problem))
    return len(entries) - len(problems), problems, [str(risk) for risk in fragile]
