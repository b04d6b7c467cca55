"""Reads the cassettes of a selection one by one; a broken one is reported, and the others are still read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pytest_lmcache.cassette.facts import CallFacts, CassetteFacts, facts_of
from pytest_lmcache.cli.project import shown
from pytest_lmcache.cli.targets import Selection
from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.interaction import Interaction


class Problem(NamedTuple):
    """A cassette that cannot be read, or a part of it. ``text`` begins with the file and the line."""

    path: Path
    text: str

    def __str__(self) -> str:
        return self.text

    def as_json(self) -> dict[str, str]:
        """An item of the field ``broken`` of each command's JSON."""
        return {"file": shown(self.path), "problem": self.text}


def each_cassette(selection: Selection, problems: list[Problem]) -> Iterator[CassetteFacts]:
    """Read the facts of each cassette, which takes no parsing."""
    for path in selection.paths:
        try:
            yield facts_of(path)
        except LMCacheError as problem:
            problems.append(Problem(path, str(problem)))


def parsed(call: CallFacts, problems: list[Problem]) -> Interaction | None:
    """Parse an interaction; None if it is broken."""
    try:
        return call.entry.interaction()
    except LMCacheError as problem:
        problems.append(Problem(call.entry.path, str(problem)))
        return None


def named(facts: CassetteFacts) -> str:
    """What to call a cassette: the test that it belongs to, else its file."""
    return facts.test or shown(facts.path)


def place(facts: CassetteFacts) -> dict[str, Any]:
    """The fields that name a cassette in each command's JSON."""
    return {"file": shown(facts.path), "test": facts.test}
