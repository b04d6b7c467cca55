"""The command ``report``: the page of cassettes, with what is known of the last run."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pytest_lmcache.cassette import reader
from pytest_lmcache.cli.frame import Command, Misuse
from pytest_lmcache.cli.output import finish, json_option, print_json
from pytest_lmcache.cli.project import Project, shown
from pytest_lmcache.cli.suite import suite_of
from pytest_lmcache.cli.targets import Selection, owner_of, takes_targets
from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.run_record import RunRecord, digest_of, last_run, path_from
from pytest_lmcache.wording import counted

if TYPE_CHECKING:
    from pytest_lmcache.report.data import Part

SHARED = "several tests"  # what the first line of a cassette says that tests share


@click.command("report", cls=Command, example="pytest-lmcache report -o report.html tests/test_agent.py")
@partial(takes_targets, override=["--override-ini"])  # -o is that of the page
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default="lmcache-report.html",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The file to write. Missing folders are created.",
)
@json_option
def command(selection: Selection, *, output: Path, as_json: bool) -> int:
    """Write an HTML page of all conversations in cassettes.

    The page is one file that loads nothing. It has a search, and bars of tokens, USD and seconds. If pytest's cache
    folder has a record of the last run, the page says how each test ended and which recordings no test asked for. To
    see the misses of a run, use pytest --lm-report. The exit code is 1 if a cassette is broken or if there is none.
    """
    from pytest_lmcache.report.page import Report, project_name, write
    from pytest_lmcache.report.page_path import problem_of

    if problem := problem_of(output):
        raise Misuse(f"the page cannot be written to {output}: {problem}. Name a file, such as report.html.")
    if not selection.paths:
        return finish([f"{selection.place} has no cassette of pytest-lmcache. The page was not written."])
    project = selection.project
    run = last_run(suite_of(project).cache_dir)
    problems: list[str] = []
    parts = [_part(path, project, run, problems) for path in selection.paths]
    problems += [call["problem"] for part in parts for call in part["calls"] if call["problem"]]
    outcomes = {} if run is None else {test: each.outcome for test, each in run.tests.items()}
    report = Report(
        project=project_name(project.rootdir),
        about=_about(len(parts), run),
        parts=parts,
        outcomes=outcomes,
        is_run=False,
    )
    try:
        write(report, output)
    except OSError as error:
        raise Misuse(f"{output} cannot be written: {error.strerror or error}") from None
    size = sum(len(part["calls"]) for part in parts)
    if as_json:
        unused = sum(call["outcome"] == "unused" for part in parts for call in part["calls"])
        print_json({"file": str(output), "cassettes": len(parts), "recordings": size, "unused": unused})
    else:
        click.echo(f"{output}: {counted(len(parts), 'cassette')}, {counted(size, 'recording')}")
    return finish(problems)


def _part(path: Path, project: Project, run: RunRecord | None, problems: list[str]) -> Part:
    """What a cassette holds; one that cannot be read is a problem, and a part that says so."""
    from pytest_lmcache.report.data import of_cassette

    test = owner_of(path)
    test = shown(path) if test in {"", SHARED} else test
    try:
        data = reader.read_bytes(path) or b""
        reader.read_header(path, data)
        entries = [*reader.read_documents(path, data)]
        return of_cassette(test, shown(path), entries, _unused(path, project, run))
    except LMCacheError as problem:
        problems.append(str(problem))
        return {"test": test, "cassette": shown(path), "calls": []}


def _unused(path: Path, project: Project, run: RunRecord | None) -> set[tuple[str, int]]:
    """The recordings that the last run did not ask for, if the file is still the same."""
    used = None if run is None else run.cassettes.get(path_from(project.rootdir, path))
    if used is None or not used.unused or digest_of(path) != used.digest:
        return set()
    return {*used.unused}


def _about(size: int, run: RunRecord | None) -> str:
    """What the page is about, in one line."""
    texts = [counted(size, "cassette")]
    if run is not None:
        counts = Counter(test.outcome for test in run.tests.values())
        results = ", ".join(f"{number:,} {outcome}" for outcome, number in counts.most_common())
        kind = "the last run" if run.is_full else "the last run, of a part of the suite"
        texts.append(f"{kind} ({run.ended.replace('T', ' ')[:16]} UTC): {results}")
    return " · ".join(texts)
