"""Values that differ in each run: the normalizers with which a recording would answer a call that missed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_lmcache.errors import UnkeyableCallError
from pytest_lmcache.keys.normalizers import NORMALIZERS

if TYPE_CHECKING:
    from pytest_lmcache.interaction import Call
    from pytest_lmcache.keys.strategies import KeyStrategy
    from pytest_lmcache.nearest import Difference


def has_same_key(
    strategy: KeyStrategy, call: Call, recorded: Call, more: Sequence[str] = NORMALIZERS
) -> bool:
    """Whether both calls have one key if the strategy has more normalizers, by default all there are."""
    normalizing = strategy.with_normalizers(more)
    try:
        return normalizing.key(call) == normalizing.key(recorded)
    except UnkeyableCallError:  # from a key function that cannot cope with placeholders
        return False


def missing_normalizers(
    strategy: KeyStrategy, call: Call, recorded: Call, differences: Iterable[Difference]
) -> tuple[str, ...]:
    """Return the fewest normalizers with which both calls have one key; none if not even all of them suffice.

    The named ones, and patterns for the run ids that differ, as ``re:run-[0-9]+``.
    """
    every: Sequence[str] = NORMALIZERS
    if not has_same_key(strategy, call, recorded):
        every = (*run_id_patterns(differences), *NORMALIZERS)
        if len(every) == len(NORMALIZERS) or not has_same_key(strategy, call, recorded, every):
            return ()
    needed = list(every)
    for name in every:
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


# ---- run ids -------------------------------------------------------------------------------------------

_MOST_IDS = 8  # in one text
_TOKEN = re.compile(r"[\w-]+")
_RUN = r"run|build|job|request|trace|span|execution|invocation|correlation"
# Numbers this short are ids only after such a word, with or without a sign between.
_AFTER_RUN = re.compile(rf"(?i:\b(?:{_RUN})(?:[ _-]?(?:id|no|number))?[ :=#_-]{{1,2}}\Z)")
_LONG_ENOUGH = 8  # characters of an id that stands alone
_CLASSES = (
    ("[0-9]", re.compile(r"[0-9]+")),
    ("[0-9a-f]", re.compile(r"[0-9a-f]+")),
    ("[0-9A-F]", re.compile(r"[0-9A-F]+")),
    ("[0-9a-z]", re.compile(r"[0-9a-z]+")),
    ("[0-9A-Za-z]", re.compile(r"[0-9A-Za-z]+")),
)


def run_id_patterns(differences: Iterable[Difference]) -> tuple[str, ...]:
    """Return ``re:`` normalizers for the words in the differing texts that look like ids of a run."""
    found: dict[str, None] = {}
    for difference in differences:
        if isinstance(difference.before, str) and isinstance(difference.after, str):
            found.update(dict.fromkeys(_patterns(difference.before, difference.after)))
    return tuple(f"re:{pattern}" for pattern in found)


def _patterns(before: str, after: str) -> Iterator[str]:
    """The patterns of the ids that one text has in place of the other's."""
    olds, news = list(_TOKEN.finditer(before)), list(_TOKEN.finditer(after))
    if len(olds) != len(news):
        return
    pairs = [(old, new) for old, new in zip(olds, news, strict=True) if old[0] != new[0]]
    for old, new in pairs if len(pairs) <= _MOST_IDS else ():
        if pattern := _pattern(before[: old.start()], old[0], new[0]):
            yield pattern


def _pattern(text_before: str, old: str, new: str) -> str:
    """The pattern of two ids with the words before them, empty if they do not look like ids."""
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    # The beginning that both have, up to its last sign: `run-` of `run-8f3a` and `run-81c2`.
    start = max(old[:same].rfind("-"), old[:same].rfind("_")) + 1
    head, old, new = old[:start], old[start:], new[start:]
    characters = next((name for name, each in _CLASSES if each.fullmatch(old) and each.fullmatch(new)), None)
    has_digits = all(any(map(str.isdigit, text)) for text in (old, new))
    if characters is None or not has_digits:
        return ""
    # A word without a digit is no id.
    characters = characters if characters == "[0-9]" else f"(?=[A-Za-z]*[0-9]){characters}"
    lead = _AFTER_RUN.search(f"{text_before[-40:]}{head}")
    if lead is not None:
        return f"{lead[0]}{characters}+"
    if len(old) != len(new) or len(old) < _LONG_ENOUGH or characters == "[0-9]":
        return ""
    return f"{head}{characters}+" if head else f"(?<![0-9A-Za-z]){characters}{{{len(old)}}}(?![0-9A-Za-z])"
