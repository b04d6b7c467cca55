"""The command ``pytest-lmcache``, for work on cassettes outside of a test run: its entry point and its subcommands."""

from __future__ import annotations

from collections.abc import Sequence

import click

from pytest_lmcache import __version__
from pytest_lmcache.cli.frame import FINE, Group

# In the order of the help. Each module has a `command`.
COMMANDS = {
    "list": "pytest_lmcache.cli.list_",
    "show": "pytest_lmcache.cli.show",
    "search": "pytest_lmcache.cli.search",
    "stats": "pytest_lmcache.cli.stats",
    "explain": "pytest_lmcache.cli.explain",
    "diff": "pytest_lmcache.cli.diff",
    "check": "pytest_lmcache.cli.check",
    "scan": "pytest_lmcache.cli.scan",
    "report": "pytest_lmcache.cli.report",
    "prune": "pytest_lmcache.cli.prune",
    "move": "pytest_lmcache.cli.move",
    "rekey": "pytest_lmcache.cli.rekey",
    "upgrade": "pytest_lmcache.cli.upgrade",
}
PROGRAM = "pytest-lmcache"


@click.group(
    cls=Group,
    modules=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
To complete commands, files and node ids, put this into ~/.bashrc:
  eval "$(_PYTEST_LMCACHE_COMPLETE=bash_source pytest-lmcache)"
For zsh use zsh_source and ~/.zshrc; for fish see docs/command.md.""",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def group() -> None:
    """Read, compare, check and change the cassettes of pytest-lmcache.

    TARGETS are cassettes, folders, test files or node ids. Without them a command works on all cassettes of the
    project. The exit code is 0 if all is well, 1 if something was found, and 2 for wrong usage.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0, 1 if something was found, such as a broken cassette, 2 for misuse."""
    try:
        group.main(arguments, prog_name=PROGRAM)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FINE
    return FINE
