"""The command ``check``: reads every cassette, and names what is broken."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_lmcache.cli.frame import FINE, FOUND, Command
from pytest_lmcache.cli.output import finish
from pytest_lmcache.cli.project import shown
from pytest_lmcache.cli.targets import Selection, takes_targets
from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.wording import counted


@click.command("check", cls=Command, example="pytest-lmcache check --fix tests/test_agent.py")
@takes_targets
@click.option("--fix", is_flag=True, help="Rewrite the texts that formatters and editors would change.")
def command(selection: Selection, *, fix: bool) -> int:
    """Read all cassettes, and list the broken ones.

    It exits with 1 if a cassette is broken, has a key that belongs to another request, or a text that formatters
    would change, and if there is no cassette.
    """
    interactions = size = 0
    broken: list[str] = []
    fragile: list[str] = []
    for path in selection.paths:
        count, problems, risks = _read(path, fix=fix)
        size += path.stat().st_size
        interactions += count
        broken += problems
        fragile += risks
    if not selection.paths:
        others = selection.of_vcrpy
        vcrpy = (
            f"; it has {counted(len(others), 'file')} of vcrpy, such as {shown(others[0])}" if others else ""
        )
        finish([f"{selection.place} has no cassette of pytest-lmcache{vcrpy}."])
        return FOUND
    finish([*broken, *fragile])
    totals = [
        counted(len(selection.paths), "cassette"),
        counted(interactions, "interaction"),
        counted(size, "byte"),
    ]
    if broken:
        totals.append(f"{len(broken)} broken")
    if fragile:
        totals.append(f"{len(fragile)} that formatters would change")
    click.echo(", ".join(totals))
    return FOUND if broken or fragile else FINE


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
