"""The command ``upgrade``: rewrites the streams of cassettes in the newest format."""

from __future__ import annotations

import click

from pytest_lmcache.cli.frame import Command
from pytest_lmcache.cli.output import finish
from pytest_lmcache.cli.project import shown
from pytest_lmcache.cli.targets import Selection, takes_targets
from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.wording import counted


@click.command("upgrade", cls=Command, example="pytest-lmcache upgrade")
@takes_targets
def command(selection: Selection) -> int:
    """Rewrite the streams of cassettes in the newest format, and nothing else of the files."""
    from pytest_lmcache.cassette.file import Cassette
    from pytest_lmcache.keys.strategies import strategy

    written = 0
    failed: list[str] = []
    for path in selection.paths:
        try:
            if Cassette(path, strategy("exact")).upgrade():
                written += 1
                click.echo(shown(path))
        except LMCacheError as problem:
            failed.append(str(problem))
    code = finish(failed)
    click.echo(f"{counted(written, 'cassette')} written")
    return code
