"""The command ``stats``: totals of all recordings, and the cassettes that stand out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import click

from pytest_lmcache.call_record import described
from pytest_lmcache.cassette.facts import CallFacts, CassetteFacts
from pytest_lmcache.cli.frame import Command
from pytest_lmcache.cli.output import finish, json_option, print_json, print_table, write
from pytest_lmcache.cli.reading import Problem, each_cassette, named, parsed, place
from pytest_lmcache.cli.targets import Selection, takes_targets
from pytest_lmcache.clock import seconds_since
from pytest_lmcache.wording import age, counted, dollars, price, size


class Totals(NamedTuple):
    """Calls of one model, or of all."""

    calls: int
    input_tokens: int
    output_tokens: int
    usd: float
    unpriced: int
    seconds: float


class Duplicate(NamedTuple):
    """One question that several cassettes have. ``calls`` has all of its recordings, each with its cassette."""

    calls: list[tuple[CassetteFacts, CallFacts]]

    @property
    def cassettes(self) -> list[CassetteFacts]:
        """The cassettes, each once."""
        return [*{facts.path: facts for facts, _ in self.calls}.values()]

    @property
    def excess(self) -> Totals:
        """What would be left out if one cassette had the question: the recordings of all but the first."""
        first = self.cassettes[0]
        return _totals(call for facts, call in self.calls if facts is not first)


@click.command("stats", cls=Command, example="pytest-lmcache stats --top=10")
@takes_targets
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    metavar="N",
    help="The length of each list.",
)
@json_option
def command(selection: Selection, *, top: int, as_json: bool) -> int:
    """Show totals, the largest and oldest cassettes, and duplicates.

    The totals are size, age, calls, tokens, USD and seconds. A duplicate is a question that the cassettes of several
    tests contain, compared by their recorded keys.
    """
    problems: list[Problem] = []
    found = [*each_cassette(selection, problems)]
    duplicates = sorted(_duplicates(found), key=lambda each: (-len(each.calls), each.cassettes[0].path))
    if as_json:
        print_json({**_as_json(found, duplicates, top), "broken": [each.as_json() for each in problems]})
    elif found:
        _show(found, duplicates, top, problems)
    return finish(problems, [selection.emptiness])


# What each list of the cassettes that stand out is sorted by, and the text of its number.
LISTS: dict[str, tuple[Callable[[CassetteFacts], Any], Callable[[CassetteFacts], str]]] = {
    "biggest": (lambda facts: -facts.size, lambda facts: size(facts.size)),
    "oldest": (lambda facts: facts.oldest, lambda facts: age(seconds_since(facts.oldest))),
    "most expensive": (lambda facts: -facts.usd, lambda facts: price(facts.usd, facts.unpriced)),
}
FIELDS = {"biggest": "biggest", "oldest_cassettes": "oldest", "most_expensive": "most expensive"}


def _totals(calls: Iterable[CallFacts]) -> Totals:
    known = [*calls]
    return Totals(
        len(known),
        sum(call.tokens[0] for call in known),
        sum(call.tokens[1] for call in known),
        sum(call.usd or 0 for call in known),
        sum(call.is_unpriced for call in known),
        sum(call.seconds for call in known),
    )


def _by_model(found: Sequence[CassetteFacts]) -> dict[str, Totals]:
    calls = defaultdict(list)
    for facts in found:
        for call in facts.model_calls:
            calls[call.model].append(call)
    totals = {model: _totals(each) for model, each in calls.items()}
    return dict(sorted(totals.items(), key=lambda item: (-item[1].usd, -item[1].calls, item[0])))


def _duplicates(found: Sequence[CassetteFacts]) -> list[Duplicate]:
    questions = defaultdict(list)
    for facts in found:
        for call in facts.model_calls:
            questions[facts.key, call.name, call.entry.key].append((facts, call))
    return [Duplicate(calls) for calls in questions.values() if len({facts.path for facts, _ in calls}) > 1]


def _outstanding(found: Sequence[CassetteFacts], name: str, top: int) -> list[CassetteFacts]:
    ranked = sorted(found, key=LISTS[name][0])
    return [facts for facts in ranked if name != "most expensive" or facts.usd][:top]


def _show(
    found: Sequence[CassetteFacts], duplicates: Sequence[Duplicate], top: int, problems: list[Problem]
) -> None:
    total = _totals(call for facts in found for call in facts.model_calls)
    values = sum(len(facts.calls) for facts in found) - total.calls
    counts = [
        counted(len(found), "cassette"),
        counted(total.calls, "call"),
        *([counted(values, "remembered value")] if values else []),
        size(sum(facts.size for facts in found)),
    ]
    write(", ".join(counts), style="bold")
    oldest, newest = min(facts.oldest for facts in found), max(facts.newest for facts in found)
    write(
        f"recorded {age(seconds_since(oldest))} ago ({oldest[:10]}) to {age(seconds_since(newest))} ago ({newest[:10]})\n"
    )
    rows = [
        (
            model,
            f"{each.calls:,}",
            f"{each.input_tokens:,}",
            f"{each.output_tokens:,}",
            price(each.usd, each.unpriced),
            f"{each.seconds:,.1f}",
        )
        for model, each in _by_model(found).items()
    ]
    foot = (
        "all",
        f"{total.calls:,}",
        f"{total.input_tokens:,}",
        f"{total.output_tokens:,}",
        price(total.usd, total.unpriced),
        f"{total.seconds:,.1f}",
    )
    columns = ["model", ">calls", ">input tokens", ">output tokens", ">usd", ">seconds"]
    print_table(columns, rows, foot=foot)
    for name, (_, number) in LISTS.items():
        if outstanding := _outstanding(found, name, top):
            write(f"\n{name}", style="bold")
            numbers = [number(facts) for facts in outstanding]
            width = max(9, *map(len, numbers))
            for text, facts in zip(numbers, outstanding, strict=True):
                write(f"{text:>{width}}  {named(facts)}", indent=2)
    if not duplicates:
        return
    excess = _totals_of(duplicates)
    cost = counted(excess.input_tokens + excess.output_tokens, "token") + (
        f", {dollars(excess.usd)}" if excess.usd else ""
    )
    write(
        f"\n{counted(len(duplicates), 'question')} of several cassettes: {counted(excess.calls, 'recording')} too many, {cost}",
        style="bold",
    )
    for each in duplicates[:top]:
        interaction = parsed(each.calls[0][1], problems)
        question = described(interaction.call.request) if interaction is not None else each.calls[0][1].model
        write(f"{counted(len(each.cassettes), 'cassette'):>9}  {question}", indent=2)
        names = [named(facts) for facts in each.cassettes]
        more = f" and {len(names) - top} more" if len(names) > top else ""
        write(", ".join(names[:top]) + more, indent=13, style="dim")


def _totals_of(duplicates: Sequence[Duplicate]) -> Totals:
    columns = zip(*(each.excess for each in duplicates), strict=True)
    return Totals(*map(sum, columns))


def _as_json(found: Sequence[CassetteFacts], duplicates: Sequence[Duplicate], top: int) -> dict[str, Any]:
    return {
        "cassettes": len(found),
        "values": sum(len(facts.calls) - len(facts.model_calls) for facts in found),
        "bytes": sum(facts.size for facts in found),
        "oldest": min((facts.oldest for facts in found), default=None),
        "newest": max((facts.newest for facts in found), default=None),
        "total": _totals(call for facts in found for call in facts.model_calls)._asdict(),
        "models": [{"model": model, **each._asdict()} for model, each in _by_model(found).items()],
        **{
            field: [
                {**place(facts), "bytes": facts.size, "oldest": facts.oldest, "usd": facts.usd}
                for facts in _outstanding(found, name, top)
            ]
            for field, name in FIELDS.items()
        },
        "duplicates": [
            {
                "key": each.calls[0][1].entry.key,
                "model": each.calls[0][1].model,
                "recordings": len(each.calls),
                "excess": each.excess._asdict(),
                "cassettes": [place(facts) for facts in each.cassettes],
            }
            for each in duplicates
        ],
    }
