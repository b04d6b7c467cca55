"""The command ``diff``: what changed between two recordings of the same tests."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from pytest_lmcache.cli.frame import FINE, FOUND, Command, Misuse
from pytest_lmcache.cli.output import finish, json_option, print_json
from pytest_lmcache.cli.project import Project, files_below, shown
from pytest_lmcache.cli.targets import is_of_vcrpy, select
from pytest_lmcache.maintenance.differences import (
    differences,
    markdown,
    shared_changes,
    shared_to_plain,
    summary,
    text,
    to_plain,
)
from pytest_lmcache.maintenance.versions import Git, Pair, Version, between_commits, paired
from pytest_lmcache.word_diff import Tag, bracketed

_PAIR = 2
_COLOURS = {"removed": "red", "added": "green"}


@click.command(
    "diff",
    cls=Command,
    example="pytest-lmcache diff --git main\npytest-lmcache diff old.yaml cassettes/test_agent/test_plan.yaml",
)
@click.argument("names", nargs=-1, metavar="[A B | TARGETS...]")
@click.option(
    "--git",
    "revision",
    metavar="REV",
    help="Compare with a commit, a branch or a tag of git. A..B and A...B mean the same as for git diff.",
)
@click.option(
    "--markdown", "as_markdown", is_flag=True, help="Print Markdown, for the text of a pull request."
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if anything differs.")
@json_option
def command(
    names: tuple[str, ...], *, revision: str | None, as_markdown: bool, exit_code: bool, as_json: bool
) -> int:
    """Show what changed between two recordings.

    It compares questions and answers word by word, tool calls as data, tokens and cost. A and B are two cassettes, or
    two folders of cassettes. With --git the cassettes of TARGETS (default: all) are compared with those of REV. Ids,
    times and the order of fields are ignored.
    """
    if as_markdown and as_json:
        raise click.UsageError("--markdown and --json exclude each other.")
    if revision is not None:
        pairs = _with_git(revision, names)
    elif len(names) == _PAIR:
        pairs = _of_files(*map(Path, names))
    else:
        raise click.UsageError("diff takes two cassettes or folders, or --git REV.")
    diffs, problems = differences(pairs, shown)
    if as_json:
        plain = [to_plain(diff) for diff in diffs if not diff.is_same]
        shared = [shared_to_plain(each) for each in shared_changes(diffs)]
        print_json({"summary": summary(diffs), "shared": shared, "cassettes": plain})
    elif as_markdown:
        click.echo(markdown(diffs), nl=False)
    else:
        for line in text(diffs, _painted if sys.stdout.isatty() else bracketed):
            click.echo(line)
    code = finish(problems)
    return FOUND if code or (exit_code and any(not diff.is_same for diff in diffs)) else FINE


def _with_git(revision: str, targets: Sequence[str]) -> list[Pair]:
    project = Project.find([Path.cwd() / target.partition("::")[0] for target in targets])
    git = Git(project.rootdir)
    existing = [
        target for target in targets if Path(target).suffix in {".yaml", ".yml"} or not _is_gone(target)
    ]
    gone = [Path.cwd() / target for target in existing if not Path(target.partition("::")[0]).exists()]
    present = [target for target in existing if Path(target.partition("::")[0]).exists()]
    paths = [*select(project, present).paths] if present or not targets else []
    if targets:
        places = [
            *(Path.cwd() / each for each in present if "::" not in each and not each.endswith(".py")),
            *paths,
            *gone,
        ]
    else:
        # A deleted folder of cassettes is where the default one is.
        places = [*project.cassette_folders(), project.rootdir / project.cassette_name]
    return between_commits(git, revision, list(dict.fromkeys(places)), paths)


def _is_gone(target: str) -> bool:
    return not Path(target.partition("::")[0]).exists()


def _of_files(one: Path, other: Path) -> list[Pair]:
    for path in (one, other):
        if not path.exists():
            raise Misuse(f"there is no {path}. To compare with git: pytest-lmcache diff --git main {path}")
    if one.is_dir() != other.is_dir():
        raise Misuse(f"{one} and {other} are a file and a folder; diff takes two files, or two folders.")
    if one.is_file():
        return [Pair(_read(one), _read(other))]
    before, after = (
        {path.relative_to(folder): path.read_bytes() for path in files_below(folder) if not is_of_vcrpy(path)}
        for folder in (one, other)
    )
    pairs = []
    for pair in paired(before, after):
        old = None if pair.before is None else Version(one / pair.before.path, pair.before.data)
        new = None if pair.after is None else Version(other / pair.after.path, pair.after.data)
        pairs.append(Pair(old, new, pair.is_renamed))
    return pairs


def _read(path: Path) -> Version:
    return Version(path, path.read_bytes())


def _painted(tag: Tag, piece: str) -> str:
    return click.style(piece, fg=_COLOURS[tag]) if tag in _COLOURS else piece
