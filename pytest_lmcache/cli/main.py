"""The command ``pytest-lmcache``, for work on cassettes outside of a test run. Each subcommand has a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pytest_lmcache import __version__
from pytest_lmcache.cli.check import check
from pytest_lmcache.cli.upgrade import upgrade


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0, or 1 if a cassette has a fault. Exits with 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="pytest-lmcache", description="Work on cassettes of pytest-lmcache."
    )
    parser.add_argument("--version", action="version", version=f"pytest-lmcache {__version__}")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("folder", nargs="?", default="cassettes", type=Path, help="default: cassettes")
    commands = parser.add_subparsers(dest="command", required=True)
    check_parser = commands.add_parser(
        "check", parents=[folder], help="read all cassettes, and name broken ones"
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
        return upgrade(options.folder)
    return check(options.folder, fix=options.fix)
