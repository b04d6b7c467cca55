"""Which normalizers would let a recording answer a call that missed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_lmcache.errors import UnkeyableCallError
from pytest_lmcache.keys.normalizers import NORMALIZERS

if TYPE_CHECKING:
    from pytest_lmcache.interaction import Call
    from pytest_lmcache.keys.strategies import KeyStrategy


def has_same_key(
    strategy: KeyStrategy, call: Call, recorded: Call, more: Sequence[str] = NORMALIZERS
) -> bool:
    """Whether both calls have one key if the strategy has more normalizers, by default all there are."""
    normalizing = strategy.with_normalizers(more)
    try:
        return normalizing.key(call) == normalizing.key(recorded)
    except UnkeyableCallError:  # from a key function that cannot cope with placeholders
        return False


def missing_normalizers(strategy: KeyStrategy, call: Call, recorded: Call) -> tuple[str, ...]:
    """Return the fewest normalizers with which both calls have one key; none if not even all of them suffice."""
    if not has_same_key(strategy, call, recorded):
        return ()
    needed = list(NORMALIZERS)
    for name in NORMALIZERS:
        fewer = [other for other in needed if other != name]
        if has_same_key(strategy, call, recorded, fewer):
            needed = fewer
    return tuple(needed)


def folder_normalizers(strategy: KeyStrategy, call: Call, recorded: Call) -> tuple[str, ...]:
    """Return those of ``tmp_path`` and ``rootdir`` that mask a folder in the call, but none in the recording."""
    return tuple(
        name
        for name in ("tmp_path", "rootdir")
        if _masks(strategy, name, call) and not _masks(strategy, name, recorded)
    )


def _masks(strategy: KeyStrategy, name: str, call: Call) -> bool:
    try:
        return strategy.with_normalizers([name]).text(call) != strategy.text(call)
    except UnkeyableCallError:
        return False
