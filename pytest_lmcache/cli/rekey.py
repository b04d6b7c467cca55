"""The command ``rekey``: recomputes the keys of cassettes, without a call."""

from __future__ import annotations

import click

from pytest_lmcache.cli.frame import Command
from pytest_lmcache.cli.output import finish, json_option, print_json, safe
from pytest_lmcache.cli.project import shown
from pytest_lmcache.cli.suite import suite_of
from pytest_lmcache.cli.targets import Selection, takes_targets
from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.keys.normalizers import Folders, folders_here
from pytest_lmcache.keys.strategies import KeyStrategy, strategy
from pytest_lmcache.maintenance.rekey import Rekeyed, rekey
from pytest_lmcache.maintenance.suite import UNNAMED, SuiteSettings, collect
from pytest_lmcache.wording import counted


@click.command(
    "rekey",
    cls=Command,
    example="pytest-lmcache rekey\npytest-lmcache rekey --key messages --normalize date cassettes/test_agent",
)
@takes_targets
@click.option(
    "--key",
    metavar="KEY",
    help="A key strategy: exact, messages, content, or your own function as package.module:function.",
)
@click.option(
    "--normalize",
    metavar="RULE",
    multiple=True,
    help="A normalizer, or re: and a regular expression. Can be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Write nothing.")
@json_option
def command(
    selection: Selection, *, key: str | None, normalize: tuple[str, ...], dry_run: bool, as_json: bool
) -> int:
    """Recompute the keys of cassettes. No model is called.

    By default each cassette gets keys by the settings of its test; --key and --normalize override them. Replay also
    recomputes outdated keys whenever it reads a cassette; after this command it no longer needs to. The command names
    calls that now have equal keys. On replay such calls get their answers in the order of the file.
    """
    suite = suite_of(selection.project)
    folders = Folders(str(suite.rootdir), folders_here().temporary)
    if key or normalize:
        settings = dict.fromkeys(selection.paths, SuiteSettings(key, normalize))
    else:
        tests = collect(suite).by_cassette
        settings = {
            path: tests[path][0].settings if path in tests else suite.settings for path in selection.paths
        }
    made: dict[SuiteSettings, KeyStrategy] = {}
    done: list[Rekeyed] = []
    problems = []
    for path, each in settings.items():
        if each.key == UNNAMED:
            problems.append(
                f"{shown(path)}: the key function of its test has no dotted path, so it cannot be called here. "
                "Define it in a module."
            )
            continue
        if each not in made:
            made[each] = strategy(each.key or "exact", each.normalize, folders)
        try:
            done.append(rekey(path, made[each], write=not dry_run))
        except LMCacheError as problem:
            problems.append(str(problem))
    code = finish(problems)
    if as_json:
        print_json({"written": not dry_run, "cassettes": [_plain(each) for each in done if _is_new(each)]})
    else:
        _print(done, dry_run=dry_run)
    return code


def _is_new(each: Rekeyed) -> bool:
    return each.is_written or bool(each.changed or each.merged)


def _plain(each: Rekeyed) -> dict[str, object]:
    return {
        "path": shown(each.path),
        "written": each.is_written,
        "changed": each.changed,
        "equal_now": [[*numbers] for numbers in each.merged],
    }


def _print(done: list[Rekeyed], *, dry_run: bool) -> None:
    for each in filter(_is_new, done):
        click.echo(safe(f"{shown(each.path)}: {counted(each.changed, 'new key')}"))
        for numbers in each.merged:
            click.echo(f"  calls {', '.join(map(str, numbers))} are equal now")
    files = sum(map(_is_new, done))
    merged = sum(len(each.merged) for each in done)
    equal = f"; {counted(merged, 'group')} of calls became equal" if merged else ""
    click.echo(f"{counted(files, 'cassette')} {'to write' if dry_run else 'written'}{equal}")
