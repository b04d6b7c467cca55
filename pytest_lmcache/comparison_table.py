"""Recorded answers beside those of another model, with tokens, USD and seconds, as a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pytest_lmcache.verify import Verdict
from pytest_lmcache.wording import dollars, price

Row: TypeAlias = Mapping[str, Any]
MOST = 40  # calls that are shown, unless all are wanted
LONGEST = 240  # characters of an answer
STYLES = {Verdict.SAME: "green", Verdict.DIFFERENT: "yellow", Verdict.UNAVAILABLE: "red"}


def table(rows: Sequence[Row], *, width: int, colour: bool, verbose: bool) -> Iterator[str]:
    """Yield the answers side by side, then what both sides cost, laid out by rich; ``verbose`` shows all calls.

    ``rows`` are those of `Summary.comparisons`, ``width`` is in characters.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(
        width=width, force_terminal=colour, no_color=not colour, highlight=False, legacy_windows=False
    )
    shown = rows if verbose else rows[:MOST]
    with console.capture() as capture:
        for row in shown:
            style = STYLES.get(row["verdict"], "")
            heading = Text.assemble(
                (_passed(row), "bold"), f"{_name(row)}: ", (row["verdict"], style), _cost(row)
            )
            console.print(heading, soft_wrap=True)
            answers = Table.grid(padding=(0, 2), expand=True)
            for _ in range(2):
                answers.add_column(ratio=1, overflow="fold")
            answers.add_row(Text(_answer(row["recorded"])), Text(_answer(row["new"])))
            console.print(answers)
        if len(shown) < len(rows):
            console.print(f"… and {len(rows) - len(shown)} more calls (-v shows all)")
        totals = Table("model", box=SIMPLE_HEAD, pad_edge=False)
        for title in ("calls", "tokens", "USD", "seconds"):
            totals.add_column(title, justify="right")
        for name, side in (("model", "recorded"), ("asked", "new")):
            for model, found in _by_model(rows, name, side).items():
                tokens = sum(sum(each["tokens"]) for each in found)
                usd = price(
                    sum(each["usd"] or 0 for each in found), sum(each["usd"] is None for each in found)
                )
                seconds = sum(each["seconds"] for each in found)
                totals.add_row(
                    Text(f"{model}, {side}"), str(len(found)), f"{tokens:,}", usd, f"{seconds:.2f}"
                )
        console.print(totals)
    yield from (line.rstrip() for line in capture.get().splitlines() if line.strip())


def outcomes(rows: Sequence[Row]) -> str:
    """Say how many tests pass on the new answers, and which do not; empty if no test got them."""
    passed: dict[str, bool] = {}
    for row in rows:
        if row["is_live"]:
            passed[row["test"]] = passed.get(row["test"], True) and row["passed"]
    if not passed:
        return ""
    failed = [test for test, has_passed in passed.items() if not has_passed]
    text = f"tests on the new answers: {len(passed) - len(failed)} passed, {len(failed)} failed"
    more = f" and {len(failed) - MOST} more" if len(failed) > MOST else ""
    return text + (f": {', '.join(failed[:MOST])}{more}" if failed else "")


def _passed(row: Row) -> str:
    """The mark of a test that got the new answers."""
    return "" if not row["is_live"] else "✓ " if row["passed"] else "✗ "


def _name(row: Row) -> str:
    return f"{row['test']}, call {row['call']}"


def _cost(row: Row) -> str:
    sides = [row[side] for side in ("recorded", "new") if row[side] is not None]
    tokens = " → ".join(f"{sum(side['tokens']):,}" for side in sides)
    usd = " → ".join("?" if side["usd"] is None else dollars(side["usd"]) for side in sides)
    seconds = " → ".join(f"{side['seconds']:.2f}" for side in sides)
    return f"; {tokens} tokens, {usd}, {seconds} s"


def _by_model(rows: Sequence[Row], name: str, side: str) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row[side] is not None:
            found.setdefault(row[name], []).append(row[side])
    return found


def _answer(answer: Mapping[str, Any] | None) -> str:
    if answer is None:
        return "-"
    if answer["error"]:
        return _short(answer["error"])
    texts = []
    for message in answer["messages"]:
        calls = [
            f"{each['name']}({json.dumps(each['arguments'], ensure_ascii=False)})"
            for each in message["tool_calls"]
        ]
        texts.append(" ".join([*filter(None, [message["text"]]), *calls, *message["attachments"]]))
    return _short(" | ".join(texts))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
