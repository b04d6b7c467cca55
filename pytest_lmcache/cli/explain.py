"""The command ``explain``: what the keys of a test's recordings are made of."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from pytest_lmcache.cassette.facts import CassetteFacts
from pytest_lmcache.cli.frame import Command
from pytest_lmcache.cli.output import finish, json_option, print_json, write
from pytest_lmcache.cli.project import Project, shown
from pytest_lmcache.cli.reading import Problem, each_cassette, named, place
from pytest_lmcache.cli.suite import suite_of
from pytest_lmcache.cli.targets import Selection, takes_targets
from pytest_lmcache.errors import LMCacheError, SettingsError, shorten
from pytest_lmcache.explanation import Explanation, explain, strategies_named
from pytest_lmcache.keys.normalizers import Folders
from pytest_lmcache.keys.strategies import KeyStrategy
from pytest_lmcache.settings import Settings

WIDTH = 100  # characters of a value, unless all are asked for
# What counts, by the scope of a strategy.
COUNTS = {
    "exact": "the whole request counts",
    "messages": "everything but the model counts",
    "content": "only the content of the messages counts",
}
NEVER = "Credentials, headers, addresses, timeouts, retries, callbacks and metadata are not recorded and are part of no key."


@click.command("explain", cls=Command, example='pytest-lmcache explain "tests/test_agent.py::test_plan[a]"')
@takes_targets
@click.option("--full", is_flag=True, help="Do not shorten long values.")
@json_option
def command(selection: Selection, *, full: bool, as_json: bool) -> int:
    """Show what the key of each recording is made of.

    It also shows what is dropped, redacted and normalized. The strategy and the normalizers are those that the cassette
    names; the test may have others by now.
    """
    problems: list[Problem] = []
    cassettes: list[dict[str, Any]] = []
    for facts in each_cassette(selection, problems):
        try:
            suite_of(selection.project)  # so that functions of the project can be imported
            keys, bare, notes = strategies_named(
                facts.key, selection.project.settings(Settings).normalize, _folders(selection.project)
            )
        except SettingsError as problem:
            problems.append(Problem(facts.path, f"{facts.path}: its keys cannot be explained. {problem}"))
            continue
        found = [*_explained(facts, keys, bare, problems)]
        if as_json:
            calls = [
                {"number": number, "name": name, "recorded_key": key, **asdict(each)}
                for number, name, key, each in found
            ]
            cassettes.append({**place(facts), "key": facts.key, "notes": notes, "calls": calls})
            continue
        write(named(facts), style="bold")
        if facts.test:
            write(shown(facts.path), style="dim")
        what = COUNTS.get(facts.key.partition("/")[0], "what the function returns counts")
        write(f"{facts.key}: {what}")
        for note in notes:
            write(note, style="yellow")
        for number, name, key, each in found:
            _show(number, name, key, each, width=10**9 if full else WIDTH, is_certain=not notes)
        write()
    if as_json:
        print_json({"cassettes": cassettes, "broken": [each.as_json() for each in problems]})
    elif len(problems) < len(selection.paths):
        write(NEVER, style="dim")
    return finish(problems, [selection.emptiness])


def _folders(project: Project) -> Folders:
    return Folders(str(project.rootdir), (os.path.realpath(tempfile.gettempdir()), tempfile.gettempdir()))


def _explained(
    facts: CassetteFacts, keys: KeyStrategy, bare: KeyStrategy, problems: list[Problem]
) -> Iterator[tuple[int, str, str, Explanation]]:
    for number, call in enumerate(facts.calls, 1):
        try:
            yield number, call.name, call.entry.key, explain(call.entry.call(), keys, bare)
        except LMCacheError as problem:
            problems.append(Problem(facts.path, str(problem)))


def _show(number: int, name: str, key: str, found: Explanation, *, width: int, is_certain: bool) -> None:
    write(f"\n#{number} {key}", style="bold")
    if key != found.key and is_certain:
        write(
            f"this request has another key, {found.key}: was it edited by hand? pytest-lmcache check says where",
            indent=3,
            style="red",
        )
    rows = [("call", name + (", streamed" if found.streamed else "")), *_rows(found.question, width)]
    _table("made of", rows)
    _table("dropped", [(path, "") for path in found.dropped])
    counts = {True: "its hash counts", False: "the same for every secret"}
    _table(
        "redacted", [(each.path, f"{each.placeholder} ({counts[each.counts]})") for each in found.redacted]
    )
    _table(
        "normalized",
        [
            (each.path, f"{shorten(json.dumps(each.value, ensure_ascii=False), width)} counts as {each.mask}")
            for each in found.normalized
        ],
    )


def _table(title: str, rows: list[tuple[str, str]]) -> None:
    if not rows:
        write(f"{title}: nothing", indent=3, style="dim")
        return
    write(title, indent=3, style="bold")
    longest = max(len(name) for name, _ in rows)
    for name, text in rows:
        write(f"{name:<{longest}}  {text}".rstrip(), indent=5)


def _rows(question: Any, width: int) -> Iterator[tuple[str, str]]:
    """The parts of a question, one for each argument, and for each item of a list of messages or tools."""
    items = question.items() if isinstance(question, dict) else [("content", question)]
    for name, value in items:
        if isinstance(value, list) and value and isinstance(value[0], dict | str):
            for index, item in enumerate(value):
                yield f"{name}[{index}]", _brief(item, width)
        else:
            yield name, _brief(value, width)


def _brief(value: Any, width: int) -> str:
    if isinstance(value, dict) and value.keys() == {"role", "content"} and isinstance(value["content"], str):
        return shorten(f"{value['role']}: {json.dumps(value['content'], ensure_ascii=False)}", width)
    return shorten(json.dumps(value, ensure_ascii=False), width)
