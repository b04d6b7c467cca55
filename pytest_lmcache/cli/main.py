"""The command ``pytest-lmcache``, for work on cassettes outside of a test run."""

# ruff: noqa: T201 - a command prints
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_lmcache import __version__
from pytest_lmcache.errors import LMCacheError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0, or 1 if a cassette has a fault. Exits with 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="pytest-lmcache", description="Check and upgrade the cassettes of pytest-lmcache."
    )
    parser.add_argument("--version", action="version", version=f"pytest-lmcache {__version__}")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "folder",
        nargs="?",
        default="cassettes",
        type=Path,
        help="folder of the cassettes (default: cassettes)",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check_parser = commands.add_parser(
        "check", parents=[folder], help="read all cassettes, and list the broken ones"
    )
    check_parser.add_argument(
        "--fix", action="store_true", help="rewrite the texts that formatters and editors would change"
    )
    commands.add_parser(
        "upgrade", parents=[folder], help="rewrite the streams of cassettes in the newest format"
    )
    options = parser.parse_args(arguments)
    if not options.folder.exists():
        parser.error(f"there is no folder {options.folder}")
    if options.command == "upgrade":
        return _upgrade(options.folder)
    return _check(options.folder, fix=options.fix)


def _upgrade(folder: Path) -> int:
    """Write the streams of every cassette in the newest format, and nothing else of the files."""
    from pytest_lmcache.cassette.file import Cassette
    from pytest_lmcache.keys.strategies import strategy

    written = failed = 0
    for path in _yaml_files(folder):
        if path != folder and _is_of_vcrpy(path):
            continue
        try:
            if Cassette(path, strategy("exact")).upgrade():
                written += 1
                print(path)
        except LMCacheError as problem:
            failed += 1
            print(problem, file=sys.stderr)
    print(f"{_counted(written, 'cassette')} written")
    return 1 if failed else 0


def _check(folder: Path, *, fix: bool) -> int:
    """Print the faults of every cassette, and the number of cassettes; a folder without a cassette is a fault."""
    files = interactions = size = 0
    broken: list[str] = []
    fragile: list[str] = []
    others: list[Path] = []
    for path in _yaml_files(folder):
        if path != folder and _is_of_vcrpy(path):
            others.append(path)
            continue
        files += 1
        count, problems, risks = _read(path, fix=fix)
        size += path.stat().st_size
        interactions += count
        broken += problems
        fragile += risks
    if not files:
        vcrpy = f"; it has {_counted(len(others), 'file')} of vcrpy, such as {others[0]}" if others else ""
        print(f"{folder} has no cassette of pytest-lmcache{vcrpy}.", file=sys.stderr)
        return 1
    for problem in [*broken, *fragile]:
        print(problem, file=sys.stderr)
    totals = [_counted(files, "cassette"), _counted(interactions, "interaction"), _counted(size, "byte")]
    if broken:
        totals.append(f"{len(broken)} broken")
    if fragile:
        totals.append(f"{len(fragile)} that formatters would change")
    print(", ".join(totals))
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


def _yaml_files(folder: Path) -> Iterator[Path]:
    """A file itself, or the YAML files below a folder, sorted."""
    if folder.is_file():
        yield folder
        return
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".yaml", ".yml"} and path.is_file():
            yield path


def _is_of_vcrpy(path: Path) -> bool:
    """Whether a file is a cassette of vcrpy's, which may be in a folder of the same name."""
    try:
        with path.open("rb") as file:
            return file.readline().rstrip() == b"interactions:"
    except OSError:
        return False  # whoever reads it reports the error


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
