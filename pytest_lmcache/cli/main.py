"""The command ``pytest-lmcache``: what is done with cassettes outside of a test run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_lmcache import __version__
from pytest_lmcache.cli.files import counted, is_of_vcrpy, yaml_files
from pytest_lmcache.cli.upgrade import upgrade
from pytest_lmcache.errors import LMCacheError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code: 0, or 1 if a cassette is broken or there is none. Wrong usage exits with 2."""
    parser = argparse.ArgumentParser(
        prog="pytest-lmcache", description="Look after the cassettes of pytest-lmcache."
    )
    parser.add_argument("--version", action="version", version=f"pytest-lmcache {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="read every cassette, name the broken ones, count")
    checking.add_argument("folder", nargs="?", default="cassettes", type=Path, help="default: cassettes")
    checking.add_argument(
        "--fix", action="store_true", help="write anew the texts that formatters and editors would change"
    )
    upgrading = commands.add_parser(
        "upgrade", help="write the streams of older cassettes in the newest format"
    )
    upgrading.add_argument("folder", nargs="?", default="cassettes", type=Path, help="default: cassettes")
    options = parser.parse_args(arguments)
    if not options.folder.exists():
        parser.error(f"there is no folder {options.folder}")
    if options.command == "upgrade":
        return upgrade(options.folder)
    return check(options.folder, fix=options.fix)


def check(folder: Path, *, fix: bool = False) -> int:
    """Read each interaction of every cassette under a folder; prints what is broken, and the counts.

    ``fix``: what formatters would change is written anew.
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
        print(f"{folder} has no cassette of pytest-lmcache{vcrpy}.", file=sys.stderr)  # noqa: T201 - a command speaks
        return 1
    for problem in [*broken, *fragile]:
        print(problem, file=sys.stderr)  # noqa: T201
    totals = f"{counted(files, 'cassette')}, {counted(interactions, 'interaction')}, {counted(size, 'byte')}"
    broken_ones = f", {len(broken)} broken" if broken else ""
    fragile_ones = f", {len(fragile)} that formatters would change" if fragile else ""
    print(f"{totals}{broken_ones}{fragile_ones}")  # noqa: T201
    return 1 if broken or fragile else 0


def _read(path: Path, *, fix: bool) -> tuple[int, list[str], list[str]]:
    """How many interactions of a cassette can be read, what is wrong with it, and what formatters would change."""
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
            # Under another strategy the keys are made anew here, and fit.
            if exact.key(call, exact.text(call)) != entry.key:
                raise entry.broken("`key:` is that of another question: was this one edited by hand?")
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
