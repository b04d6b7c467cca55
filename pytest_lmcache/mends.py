"""Which normalizers would let a recording answer a call that missed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_lmcache.errors import UnkeyableCallError
from pytest_lmcache.normalizers import NORMALIZERS

if TYPE_CHECKING:
    from pytest_lmcache.interaction import Call
    from pytest_lmcache.keys import KeyStrategy


def normalizers_for(strategy: KeyStrategy, asked: Call, recorded: Call) -> tuple[str, ...]:
    """The fewest normalizers, beside those of the strategy, with which both calls have one key; none if there are none."""
    if not _are_same(strategy, NORMALIZERS, asked, recorded):
        return ()
    needed = list(NORMALIZERS)
    for name in NORMALIZERS:
        fewer = [other for other in needed if other != name]
        if _are_same(strategy, fewer, asked, recorded):
            needed = fewer
    return tuple(needed)


def _are_same(strategy: KeyStrategy, more: Sequence[str], asked: Call, recorded: Call) -> bool:
    wider = strategy.also(more)
    try:
        return wider.key(asked) == wider.key(recorded)
    except UnkeyableCallError:  # by a key function that cannot do with placeholders
        return False


def lines(normalizers: Sequence[str], command: str) -> list[str]:
    """What to paste; ``normalizers`` are all that are to be set, ``command`` records the call."""
    # JSON's texts are TOML's and Python's too.
    listed = json.dumps(list(normalizers), ensure_ascii=False)
    return [
        f"If what differs is part of the question, record it:  {command}",
        "If it changes from run to run, normalize it; nothing needs to be recorded again:",
        f"  this test   @pytest.mark.lm_cache(normalize={listed})",
        f"  all tests   lm_normalize = {listed}  # pyproject.toml",
    ]
