"""How commands print: tables, JSON, problems; colours on a terminal only, and nothing that a prompt can do to it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from pytest_lmcache.cli.frame import FINE, FOUND
from pytest_lmcache.tags import to_json

if TYPE_CHECKING:
    from rich.console import Console

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
UNLIMITED = 100_000  # columns where nobody sees a terminal's edge: in a pipe or a file

json_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, with the fields that docs/command.md describes."
)
"""Give a command the flag ``--json``, as its parameter ``as_json``."""


def console() -> Console:
    """The console of standard output: as wide as the terminal, without colours and edges in a pipe.

    Texts are printed as they are, without markup; pass those from a cassette through `safe`.
    """
    from rich.console import Console

    is_terminal = sys.stdout.isatty()
    return Console(
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=not is_terminal,
        width=None if is_terminal else UNLIMITED,
    )


def safe(text: str) -> str:
    """A text whose control characters are escaped: a recorded answer must not move the cursor or set a title."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, foot: Sequence[str] = ()) -> None:
    """Print rows of texts under the names of their columns.

    A name that begins with ``>`` is of a column of numbers, which is aligned to the right. On a terminal the first
    column is folded if the table is too wide. In a pipe each row is one line.
    """
    names = [name.removeprefix(">") for name in columns]
    cells = [[safe(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.table import Table

        table = Table(
            box=None, pad_edge=False, header_style="bold", show_footer=bool(foot), footer_style="bold"
        )
        for index, column in enumerate(columns):
            table.add_column(
                names[index],
                foot[index] if foot else "",
                justify="right" if column.startswith(">") else "left",
                overflow="fold",
                no_wrap=index > 0,
            )
        for row in cells:
            table.add_row(*row)
        console().print(table)
        return
    lines = [names, *cells, *([list(foot)] if foot else [])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            cell.rjust(width) if column.startswith(">") else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def write(text: str = "", *, indent: int = 0, style: str = "", marked: tuple[int, int] | None = None) -> None:
    """Print a text of one or more lines, which a terminal wraps at its edge, with an indentation.

    ``style`` is rich's, such as ``bold`` or ``red``; ``marked`` is the part of the text that stands out.
    """
    if not sys.stdout.isatty():
        for line in text.split("\n"):
            click.echo((" " * indent + safe(line)).rstrip())
        return
    from rich.padding import Padding
    from rich.text import Text

    pieces = Text(style=style)
    start, end = marked or (0, 0)
    pieces.append(safe(text[:start])).append(safe(text[start:end]), "bold reverse").append(safe(text[end:]))
    console().print(Padding(pieces, (0, 0, 0, indent)))


def print_json(value: Any) -> None:
    """Print plain data as indented JSON. Bytes and what else JSON does not have are tagged, as in `tags`."""
    value = to_json(value)
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    click.echo(text)


def finish(problems: Iterable[object], notes: Iterable[str] = ()) -> int:
    """Print notes and problems on standard error, each of one or more lines. Returns the exit code.

    A problem is something that was found, a note is not.
    """
    code = FINE
    for note in filter(None, notes):
        click.echo(safe(note), err=True)
    for problem in problems:
        click.echo(safe(str(problem)), err=True)
        code = FOUND
    return code
