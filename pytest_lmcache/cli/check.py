"""The command ``check``: finds problems in cassettes, and says what to do about them."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import click

from pytest_lmcache.cli.frame import FINE, FOUND, Command
from pytest_lmcache.cli.output import finish, json_option, print_json, safe
from pytest_lmcache.cli.project import shown
from pytest_lmcache.cli.suite import suite_of
from pytest_lmcache.cli.targets import Selection, is_of_vcrpy, takes_targets
from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.maintenance.check import Report, check
from pytest_lmcache.maintenance.usage import collect_all
from pytest_lmcache.wording import counted

LARGEST = "5MB"
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
# What the total calls a finding, where its kind is no word of its own.
_NOUNS = {
    "key": "wrong key",
    "formatting": "fragile text",
    "secret": "secret",
    "orphan": "orphan",
    "size": "large file",
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")


def _size(_ctx: click.Context, _param: click.Parameter, text: str) -> float:
    found = _SIZE.fullmatch(text.lower())
    if found is None or found[2] not in _UNITS:
        raise click.BadParameter(f"{text!r} is no size; it takes bytes, or a size such as 500kB or 5MB.")
    return float(found[1]) * _UNITS[found[2]]


@click.command("check", cls=Command, example="pytest-lmcache check --fix tests/test_agent.py")
@takes_targets
@click.option("--fix", is_flag=True, help="Rewrite the texts that formatters and editors would change.")
@click.option(
    "--files-only",
    is_flag=True,
    help="Only read the cassettes, which is fast. Finds no orphans and no unused recordings.",
)
@click.option(
    "--max-size",
    default=LARGEST,
    show_default=True,
    metavar="SIZE",
    callback=_size,
    help="The largest size of a cassette, such as 500kB.",
)
@json_option
def command(selection: Selection, *, fix: bool, files_only: bool, max_size: float, as_json: bool) -> int:
    """Find problems in cassettes, and say what to do about them.

    It finds broken files, keys that belong to another request, texts that formatters would change, secrets, files that
    are too large, and recordings older than lm_max_age. It lets pytest collect the tests, and finds cassettes without a
    test. With the record of the last full run it finds recordings that no test asked for. The exit code is 1 if it
    finds anything, or if there is no cassette.
    """
    # pre-commit names all changed files, also those of another recorder in a folder of the same name.
    paths = [path for path in selection.paths if not (files_only and is_of_vcrpy(path))]
    if not paths:
        return _none(selection, is_fine=files_only and bool(selection.paths), as_json=as_json)
    suite = suite_of(selection.project)
    problems = _fix(paths) if fix else []
    if not files_only:
        suite = collect_all(suite, paths)
    report = check(paths, suite, max_size=max_size, shown=shown, knows_usage=not files_only)
    if as_json:
        _print_json(report)
    else:
        for remedy, findings in groupby(report.findings, key=lambda each: each.fix):
            for finding in findings:
                click.echo(safe(finding.line_of_text))
            click.echo(safe(remedy.rstrip("\n")))  # once for findings that need the same
        click.echo(", ".join(_totals(report)))
    for note in report.notes:
        click.echo(safe(f"note: {note}"), err=True)
    return FOUND if finish(problems) or report.findings else FINE


def _none(selection: Selection, *, is_fine: bool, as_json: bool) -> int:
    if as_json:
        _print_json(Report((), (), 0, 0, 0))
    return (
        FINE
        if is_fine
        else finish([selection.emptiness or f"{selection.place} has no cassette of pytest-lmcache."])
    )


def _fix(paths: list[Path]) -> list[str]:
    """Make the files robust; returns what could not be written."""
    from pytest_lmcache.cassette.file import Cassette
    from pytest_lmcache.keys.strategies import strategy

    problems = []
    for path in paths:
        try:
            cassette = Cassette(path, strategy("exact"))
            is_fragile = bool(cassette.fragile())
        except LMCacheError:
            continue  # a finding
        if is_fragile:
            try:
                cassette.make_robust()
            except LMCacheError as problem:
                problems.append(str(problem))
    return problems


def _totals(report: Report) -> list[str]:
    totals = [
        counted(report.files, "cassette"),
        counted(report.interactions, "interaction"),
        counted(report.size, "byte"),
    ]
    return [*totals, *(_number_of(number, kind) for kind, number in report.by_kind.items())]


def _number_of(number: int, kind: str) -> str:
    noun = _NOUNS.get(kind)
    return counted(number, noun) if noun else f"{number:,} {kind}"


def _print_json(report: Report) -> None:
    print_json(
        {
            "cassettes": report.files,
            "interactions": report.interactions,
            "bytes": report.size,
            "found": report.by_kind,
            "findings": [finding.to_plain() for finding in report.findings],
            "notes": [*report.notes],
        }
    )
