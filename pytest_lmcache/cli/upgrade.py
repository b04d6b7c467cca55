"""The command ``upgrade``: rewrites the streams of cassettes in the newest format."""

from __future__ import annotations

import click

from pytest_lmcache.cli.frame import Command
from pytest_lmcache.cli.output import finish, json_option, print_json
from pytest_lmcache.cli.project import shown
from pytest_lmcache.cli.reading import Problem
from pytest_lmcache.cli.targets import Selection, takes_targets
from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.wording import counted


@click.command("upgrade", cls=Command, example="pytest-lmcache upgrade")
@takes_targets
@json_option
def command(selection: Selection, *, as_json: bool) -> int:
    """Rewrite the streams of cassettes in the newest format."""
    from pytest_lmcache.cassette.file import Cassette
    from pytest_lmcache.keys.strategies import strategy

    written: list[str] = []
    problems: list[Problem] = []
    for path in selection.paths:
        try:
            if Cassette(path, strategy("exact")).upgrade():
                written.append(shown(path))
        except LMCacheError as problem:
            problems.append(Problem(path, str(problem)))
    if as_json:
        print_json({"written": written, "broken": [each.as_json() for each in problems]})
    else:
        for name in written:
            click.echo(name)
    code = finish(problems, [selection.emptiness])
    if not as_json:
        click.echo(f"{counted(len(written), 'cassette')} written")
    return code
