"""The command ``prune``: removes cassettes and recordings that no test uses."""

from __future__ import annotations

import click

from pytest_lmcache.cli.frame import FINE, FOUND, Command, again
from pytest_lmcache.cli.output import json_option, print_json, safe
from pytest_lmcache.cli.project import shown
from pytest_lmcache.cli.suite import suite_of
from pytest_lmcache.cli.targets import Selection, takes_targets
from pytest_lmcache.maintenance.prune import Pruning, plan, prune
from pytest_lmcache.maintenance.usage import Unused, collect_all
from pytest_lmcache.wording import counted


@click.command(
    "prune", cls=Command, example="pytest-lmcache prune\npytest-lmcache prune --yes tests/test_agent.py"
)
@takes_targets
@click.option(
    "--yes", is_flag=True, help="Remove them. By default the command only prints what it would remove."
)
@json_option
def command(selection: Selection, *, yes: bool, as_json: bool) -> int:
    """Remove cassettes and recordings that no test uses.

    These are cassettes without a test, and recordings that the last full run of pytest did not use. Without --yes
    nothing is removed, and the exit code is 1 if there is something to remove. If the last run was partial, recordings
    that it did not use stay, because other tests may use them.
    """
    suite = collect_all(suite_of(selection.project), selection.paths)
    pruning = plan(selection.paths, suite)
    if yes:
        prune(pruning)
    if as_json:
        _print_json(pruning, done=yes)
    else:
        _print(pruning, done=yes)
    for note in pruning.notes:
        click.echo(safe(f"note: {note}"), err=True)
    if pruning.refused:
        for each in pruning.refused:
            click.echo(safe(f"not removed: {_unused(each)}"), err=True)
        click.echo(safe(f"refused: {pruning.reason}"), err=True)
        return FOUND
    return FOUND if not yes and (pruning.orphans or pruning.unused) else FINE


def _print(pruning: Pruning, *, done: bool) -> None:
    verb = "removed" if done else "would remove"
    for orphan in pruning.orphans:
        click.echo(safe(f"{verb} {shown(orphan.path)}: {orphan.why}"))
    for each in pruning.unused:
        click.echo(safe(f"{verb} {_unused(each)}"))
    files = len(pruning.files)
    recordings = sum(len(each.recordings) for each in pruning.unused if not each.is_whole)
    if not files and not recordings:
        click.echo("nothing to remove")
        return
    parts = [counted(files, "cassette")] if files else []
    if recordings:
        parts.append(f"{counted(recordings, 'recording')}{' of others' if files else ''}")
    click.echo(" and ".join(parts))
    if not done:
        click.echo(safe(f"To remove them: {again('--yes')}"))


def _unused(each: Unused) -> str:
    what = "" if each.is_whole else f"{counted(len(each.recordings), 'recording')} of "
    return f"{what}{shown(each.path)}: {each.why}"


def _print_json(pruning: Pruning, *, done: bool) -> None:
    def plain(each: Unused) -> dict[str, object]:
        return {
            "path": shown(each.path),
            "recordings": len(each.recordings),
            "whole": each.is_whole,
            "why": each.why,
        }

    print_json(
        {
            "removed": done,
            "orphans": [
                {"path": shown(each.path), "test": each.label, "why": each.why} for each in pruning.orphans
            ],
            "unused": [plain(each) for each in pruning.unused],
            "refused": [plain(each) for each in pruning.refused],
            "reason": pruning.reason,
            "notes": [*pruning.notes],
        }
    )
