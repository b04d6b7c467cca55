"""The command ``move``: moves the cassettes of renamed tests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from pytest_lmcache.cli.frame import FINE, FOUND, Command, Misuse
from pytest_lmcache.cli.output import json_option, print_json, safe
from pytest_lmcache.cli.project import Project, files_below, shown
from pytest_lmcache.cli.suite import suite_of
from pytest_lmcache.cli.targets import NodeId, is_of_vcrpy
from pytest_lmcache.maintenance.move import Candidates, Move, candidates, move, moves_between
from pytest_lmcache.maintenance.suite import Suite
from pytest_lmcache.maintenance.usage import collect_all
from pytest_lmcache.wording import counted

_PAIR = 2
_SINGLE = 3  # cassettes of a moved file that are named one by one


@click.command(
    "move",
    cls=Command,
    example="pytest-lmcache move tests/test_a.py::test_plan tests/test_a.py::test_route\npytest-lmcache move --yes",
)
@click.argument("names", nargs=-1, metavar="[OLD NEW]")
@click.option("--yes", is_flag=True, help="Without OLD and NEW: move the cassettes that were found.")
@json_option
def command(names: tuple[str, ...], *, yes: bool, as_json: bool) -> int:
    """Move the cassettes of renamed tests from OLD to NEW.

    OLD and NEW are node ids, test files or folders. Rename the tests first. Without OLD and NEW the command looks for
    cassettes without a test, and for the tests that they may belong to; with --yes it moves them. It never overwrites
    a cassette, and it writes the new names into the comments in the first lines of the cassettes.
    """
    if len(names) not in {0, _PAIR}:
        raise click.UsageError("move takes OLD and NEW, or neither of them.")
    project = Project.find([NodeId.parse(name, Path.cwd()).file for name in names])
    paths = [
        path for folder in project.cassette_folders() for path in files_below(folder) if not is_of_vcrpy(path)
    ]
    suite = collect_all(suite_of(project), paths)
    if names:
        old, new = (_from_rootdir(name, suite) for name in names)
        found = moves_between(old, new, paths, suite)
    else:
        found = candidates(paths, suite)
    is_done = bool(names) or yes
    if is_done:
        move(found.moves, shown)
    if as_json:
        _print_json(found, done=is_done)
    else:
        _print(found, done=is_done)
    for note in found.notes:
        click.echo(safe(f"note: {note}"), err=True)
    return FOUND if found.undecided or (found.moves and not is_done) else FINE


def _from_rootdir(name: str, suite: Suite) -> str:
    """A node id or a path, seen from rootdir as in a cassette."""
    file, separator, rest = name.partition("::")
    path = Path(os.path.normpath(Path.cwd() / file))
    if not path.is_relative_to(suite.rootdir):
        raise Misuse(f"{name} is outside of rootdir, {suite.rootdir}.")
    return f"{path.relative_to(suite.rootdir).as_posix()}{separator}{rest}"


def _print(found: Candidates, *, done: bool) -> None:
    verb = "moved" if done else "would move"
    for lines in _grouped(found.moves):
        old, new, why = lines
        click.echo(safe(f"{verb} {old}\n   to {new}{f' ({why})' if why else ''}"))
    for orphan, why in found.undecided:
        click.echo(safe(f"not moved: {orphan.label}: {why}"))
    click.echo(_total(found.moves, done=done))
    if found.moves and not done:
        click.echo("To move them: pytest-lmcache move --yes")
    if found.undecided:
        click.echo(
            "To move one by hand: pytest-lmcache move OLD NEW. To remove those of deleted tests: pytest-lmcache prune"
        )


def _grouped(moves: Sequence[Move]) -> Iterator[tuple[str, str, str]]:
    """The old and the new name of each move, with the reason; the tests of a moved file are one line."""
    files: dict[tuple[str, str, str], list[Move]] = {}
    for each in moves:
        old, new = each.old.partition("::"), each.new.partition("::")
        is_file = old[2] == new[2] != ""
        key = (old[0], new[0], each.why) if is_file else (each.old, each.new, each.why)
        files.setdefault(key, []).append(each)
    for (old_name, new_name, why), same in files.items():
        if len(same) > _SINGLE:
            yield f"{counted(len(same), 'cassette')} of {old_name}", new_name, why
        else:
            yield from ((each.old, each.new, why) for each in same)


def _total(moves: Sequence[Move], *, done: bool) -> str:
    if not moves:
        return "nothing to move"
    return f"{counted(len(moves), 'cassette')} {'moved' if done else 'to move'}"


def _print_json(found: Candidates, *, done: bool) -> None:
    print_json(
        {
            "moved": done,
            "moves": [
                {
                    "from": shown(each.path),
                    "to": shown(each.target),
                    "old": each.old,
                    "new": each.new,
                    "why": each.why,
                }
                for each in found.moves
            ],
            "undecided": [
                {"path": shown(orphan.path), "test": orphan.label, "why": why}
                for orphan, why in found.undecided
            ],
            "notes": [*found.notes],
        }
    )
