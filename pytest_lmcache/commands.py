"""What a user types or writes to record a test or a block again; messages name it."""

from __future__ import annotations

from typing import NamedTuple


class Commands(NamedTuple):
    """How to record a test, or a ``use_cassette`` block, whose cassette is ``block`` as source code."""

    record: str = ""
    rewrite: str = ""
    block: str = ""  # empty for a test

    def block_with(self, settings: str = "") -> str:
        """The block as source code, with these settings: ``use_cassette("x.yaml", mode="record")``."""
        return f"use_cassette({self.block}{', ' * bool(settings)}{settings})"
