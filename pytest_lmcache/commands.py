"""What a user types or writes to record a test or a block again; messages name it."""

from __future__ import annotations

import shlex
from typing import NamedTuple


class Commands(NamedTuple):
    """How to record a test, or a ``use_cassette`` block, whose cassette is ``block`` as source code.

    ``target`` is what pytest is given for a test, seen from where pytest was started, and ``options`` those that it
    needs to find it. ``test`` is its id, seen from rootdir.
    """

    record: str = ""
    rewrite: str = ""
    block: str = ""  # empty for a test
    options: str = ""
    target: str = ""
    test: str = ""

    def block_with(self, settings: str = "") -> str:
        """The block as source code, with these settings: ``use_cassette("x.yaml", mode="record")``."""
        return f"use_cassette({self.block}{', ' * bool(settings)}{settings})"


def quoted(target: str) -> str:
    """Return a node id as it is typed in a shell."""
    return shlex.quote(target) if any(sign in target for sign in '"$`\\!') else f'"{target}"'
