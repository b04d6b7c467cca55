"""The comments in the first lines of a cassette: its test, and the command that records it again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

LABEL = re.compile(rb"^# pytest-lmcache cassette of (.*)$", re.MULTILINE)
COMMAND = re.compile(rb"^# record again: (.*)$", re.MULTILINE)
_FIXTURE = re.compile(r"the (?:class|module|package|session) fixture \S+ of (.*)")
_SCOPE = re.compile(r"the tests of (.+)")
_WHOLE_SUITE = "the whole suite"
_LONGEST_HEADER = 8192  # bytes


class Owner(StrEnum):
    """What a cassette was recorded by."""

    TEST = "test"
    FIXTURE = "shared fixture"
    SCOPE = "tests of a scope"
    SEVERAL = "several tests"
    BLOCK = "use_cassette block"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Header:
    """The comments above a cassette. ``label`` names its owner: the node id of a test, a fixture, or a block's path."""

    owner: Owner
    label: str = ""
    command: str = ""

    @property
    def test_file(self) -> str:
        """The path of the test file, as a node id has it; empty if the label names none."""
        fixture = _FIXTURE.fullmatch(self.label)
        nodeid = fixture[1] if fixture else self.label if self.owner is Owner.TEST else read_scope(self.label)
        if nodeid == _WHOLE_SUITE:
            return ""
        return nodeid.partition("::")[0]


def read_scope(label: str) -> str:
    """The class, file or suite whose tests share a cassette, empty if the label names something else."""
    found = _SCOPE.fullmatch(label)
    return found[1] if found else ""


def read_header(path: Path) -> Header:
    """The comments of a cassette; unknown if it has none of ours. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_LONGEST_HEADER).partition(b"\nlmcache:")[0]
    label, command = (
        found[1].decode(errors="replace").strip() if (found := pattern.search(head)) else ""
        for pattern in (LABEL, COMMAND)
    )
    if command.startswith("use_cassette("):
        return Header(Owner.BLOCK, label, command)
    if label == Owner.SEVERAL:
        return Header(Owner.SEVERAL, label, command)
    if _FIXTURE.fullmatch(label):
        return Header(Owner.FIXTURE, label, command)
    if read_scope(label):
        return Header(Owner.SCOPE, label, command)
    if "::" in label:
        return Header(Owner.TEST, label, command)
    return Header(Owner.BLOCK if label else Owner.UNKNOWN, label, command)
