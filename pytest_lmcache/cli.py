"""The command ``pytest-lmcache``: what is done with cassettes outside of a test run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_lmcache import __version__
from pytest_lmcache.errors import LMCacheError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code: 0, or 1 where a cassette is broken. Wrong usage exits with 2."""
    parser = argparse.ArgumentParser(
        prog="pytest-lmcache", description="Look after the cassettes of pytest-lmcache."
    )
    parser.add_argument("--version", action="version", version=f"pytest-lmcache {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="read every cassette, name the broken ones, count")
    checking.add_argument("folder", nargs="?", default="cassettes", type=Path, help="default: cassettes")
    options = parser.parse_args(arguments)
    if not options.folder.exists():
        checking.error(f"there is no folder {options.folder}")
    return check(options.folder)


def check(folder: Path) -> int:
    """Read each interaction of every cassette under a folder; prints what is broken, and the counts."""
    files = interactions = size = 0
    broken: list[str] = []
    for path in _cassettes(folder):
        files += 1
        size += path.stat().st_size
        count, problems = _read(path)
        interactions += count
        broken += problems
    for problem in broken:
        print(problem, file=sys.stderr)  # noqa: T201 - a command speaks
    counted = f"{_number(files, 'cassette')}, {_number(interactions, 'interaction')}, {_number(size, 'byte')}"
    print(f"{counted}{f', {len(broken)} broken' if broken else ''}")  # noqa: T201
    return 1 if broken else 0


def _cassettes(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".yaml", ".yml"} and path.is_file() and not _is_of_vcrpy(path):
            yield path


def _is_of_vcrpy(path: Path) -> bool:
    """Whether a file is a cassette of vcrpy's, which lie in a folder of the same name."""
    try:
        with path.open("rb") as file:
            return file.readline().rstrip() == b"interactions:"
    except OSError:
        return False  # reading it says what is wrong


def _read(path: Path) -> tuple[int, list[str]]:
    """How many interactions of a cassette can be read, and what is wrong with it."""
    from pytest_lmcache.cassette import Cassette
    from pytest_lmcache.keys import strategy

    exact = strategy("exact")
    try:
        entries = Cassette(path, exact).entries
    except LMCacheError as problem:
        return 0, [str(problem)]
    problems = []
    for entry in entries:
        try:
            call = entry.interaction().call
            # Under another strategy the keys are made anew here, and fit.
            if exact.key(call, exact.text(call)) != entry.key:
                raise entry.broken("`key:` is that of another question: was this one edited by hand?")
        except LMCacheError as problem:
            problems.append(str(problem))
    return len(entries) - len(problems), problems


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
