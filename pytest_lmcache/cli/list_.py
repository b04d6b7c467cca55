"""The command ``list``: one line for each cassette."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from pytest_lmcache.cassette.facts import CassetteFacts
from pytest_lmcache.cli.frame import Command
from pytest_lmcache.cli.output import finish, json_option, print_json, print_table
from pytest_lmcache.cli.reading import Problem, each_cassette, named, place
from pytest_lmcache.cli.targets import Selection, takes_targets
from pytest_lmcache.clock import seconds_since
from pytest_lmcache.wording import age, counted, price, size

# The largest number and the oldest recording come first.
SORTS: dict[str, Callable[[CassetteFacts], Any]] = {
    "test": lambda facts: facts.path,
    "calls": lambda facts: -len(facts.model_calls),
    "models": lambda facts: facts.models,
    "tokens": lambda facts: -sum(facts.tokens),
    "usd": lambda facts: -facts.usd,
    "age": lambda facts: facts.oldest,
    "size": lambda facts: -facts.size,
}


@click.command("list", cls=Command, example="pytest-lmcache list --sort=usd tests/test_agent.py")
@takes_targets
@click.option(
    "--sort",
    type=click.Choice([*SORTS]),
    default="test",
    show_default=True,
    help="The column to sort by.",
)
@click.option("-r", "--reverse", is_flag=True, help="Reverse the order.")
@json_option
def command(selection: Selection, *, sort: str, reverse: bool, as_json: bool) -> int:
    """List cassettes: test, calls, models, tokens, USD, age, size.

    The age is that of the oldest recording. USD is "-" if no price is known, and ends with "+" if the price of some
    answers is not known. With --sort the largest or oldest cassette comes first.
    """
    problems: list[Problem] = []
    found = sorted(each_cassette(selection, problems), key=SORTS[sort], reverse=reverse)
    if as_json:
        print_json({"cassettes": [*map(_as_json, found)], "broken": [each.as_json() for each in problems]})
    elif found:
        columns = ["test", ">calls", "models", ">tokens", ">usd", ">age", ">size"]
        print_table(columns, map(_row, found), foot=_total(found))
    return finish(problems, [selection.emptiness])


def _row(facts: CassetteFacts) -> list[str]:
    return [
        named(facts),
        f"{len(facts.model_calls):,}",
        ", ".join(facts.models),
        f"{sum(facts.tokens):,}",
        price(facts.usd, facts.unpriced),
        age(seconds_since(facts.oldest)),
        size(facts.size),
    ]


def _total(found: list[CassetteFacts]) -> list[str]:
    return [
        counted(len(found), "cassette"),
        f"{sum(len(facts.model_calls) for facts in found):,}",
        "",
        f"{sum(sum(facts.tokens) for facts in found):,}",
        price(sum(facts.usd for facts in found), sum(facts.unpriced for facts in found)),
        age(seconds_since(min(facts.oldest for facts in found))),
        size(sum(facts.size for facts in found)),
    ]


def _as_json(facts: CassetteFacts) -> dict[str, Any]:
    return {
        **place(facts),
        "calls": len(facts.model_calls),
        "values": len(facts.calls) - len(facts.model_calls),
        "models": [*facts.models],
        "input_tokens": facts.tokens[0],
        "output_tokens": facts.tokens[1],
        "usd": facts.usd,
        "unpriced": facts.unpriced,
        "oldest": facts.oldest,
        "newest": facts.newest,
        "bytes": facts.size,
        "key": facts.key,
        "format": facts.format,
    }
