"""Which normalizers would let a recording answer a call that missed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_lmcache.errors import UnkeyableCallError
from pytest_lmcache.keys.normalizers import NORMALIZERS

if TYPE_CHECKING:
    from pytest_lmcache.commands import Commands
    from pytest_lmcache.interaction import Call
    from pytest_lmcache.keys.strategies import KeyStrategy


FOLDERS = ("tmp_path", "rootdir")


def normalizers_for(strategy: KeyStrategy, asked: Call, recorded: Call) -> tuple[str, ...]:
    """The fewest normalizers, beside those of the strategy, with which both calls have one key; none if there are none."""
    if not is_same_normalized(strategy, asked, recorded):
        return ()
    needed = list(NORMALIZERS)
    for name in NORMALIZERS:
        fewer = [other for other in needed if other != name]
        if _are_same(strategy, fewer, asked, recorded):
            needed = fewer
    return tuple(needed)


def is_same_normalized(strategy: KeyStrategy, asked: Call, recorded: Call) -> bool:
    """Whether both calls have one key with all the normalizers there are."""
    return _are_same(strategy, NORMALIZERS, asked, recorded)


def folders_in(strategy: KeyStrategy, asked: Call, recorded: Call) -> tuple[str, ...]:
    """The normalizers of folders that mask something in what was asked and nothing in what was recorded elsewhere."""
    found = []
    for name in FOLDERS:
        here, there = (_is_masked(strategy, name, call) for call in (asked, recorded))
        if here and not there:
            found.append(name)
    return tuple(found)


def folder_lines(normalizers: Sequence[str], commands: Commands) -> list[str]:
    """What to set before a call is recorded that names a folder of this machine."""
    listed = json.dumps(list(normalizers), ensure_ascii=False)
    setting = f"normalize={listed}" if commands.block else f"lm_normalize = {listed}"
    return [f"It names a folder of this machine. Before you record it, set {setting}."]


def _is_masked(strategy: KeyStrategy, name: str, call: Call) -> bool:
    try:
        return strategy.with_normalizers([name]).text(call) != strategy.text(call)
    except UnkeyableCallError:  # as below
        return False


def _are_same(strategy: KeyStrategy, more: Sequence[str], asked: Call, recorded: Call) -> bool:
    wider = strategy.with_normalizers(more)
    try:
        return wider.key(asked) == wider.key(recorded)
    except UnkeyableCallError:  # by a key function that cannot do with placeholders
        return False


def lines(normalizers: Sequence[str], commands: Commands, configuration: str) -> list[str]:
    """What to paste; ``normalizers`` are all that are to be set, ``commands`` record the call.

    ``configuration`` is the name of the run's configuration file.
    """
    # JSON's texts are TOML's and Python's too.
    listed = json.dumps(list(normalizers), ensure_ascii=False)
    said = [
        f"If what differs is part of the question, record it:  {commands.record}",
        "If it changes from run to run, normalize it; nothing needs to be recorded again:",
    ]
    if commands.block:
        return [*said, f"  {commands.block_with(f'normalize={listed}')}"]
    said.append(f"  this test   @pytest.mark.lm_cache(normalize={listed})")
    if configuration.endswith(".toml"):
        return [*said, f"  all tests   lm_normalize = {listed}  # {configuration}"]
    return [
        *said,
        f"  all tests   in {configuration}:",
        "lm_normalize =",
        *(f"  {each}" for each in normalizers),
    ]
