"""The rules by which a new text counts as the same as the recorded one: the setting ``compare``."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

from pytest_lmcache.answer_comparison import SameText, cosine, similarity
from pytest_lmcache.errors import SettingsError
from pytest_lmcache.setting_kinds import EMBEDDING, SIMILARITY

SIMILAR = 0.8  # what a user's own function has to return, if it returns a number


def same_text(setting: Any) -> SameText | None:
    """Return the rule of a setting, None if texts have to be equal. Raises SettingsError for a path without a function."""
    if setting is None:
        return None
    name, _, rest = setting.partition(":") if isinstance(setting, str) else ("", "", "")
    if name == SIMILARITY:
        return _at_least(float(rest), similarity)
    if name == EMBEDDING:
        model, _, threshold = rest.rpartition(":")
        return _at_least(float(threshold), lambda recorded, new: cosine(*_vectors(model, (recorded, new))))
    function = _function(setting) if isinstance(setting, str) else setting

    def own(recorded: str, new: str) -> bool:
        result = function(recorded, new)
        if isinstance(result, bool):
            return result
        return float(result) >= SIMILAR

    return own


def _at_least(threshold: float, measure: Callable[[str, str], float]) -> SameText:
    return lambda recorded, new: measure(recorded, new) >= threshold


def _vectors(model: str, texts: Sequence[str]) -> Sequence[Sequence[float]]:
    from pytest_lmcache.libraries.litellm.embedding import vectors

    return vectors(model, texts)


def _function(path: str) -> Callable[[str, str], Any]:
    try:
        found = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as problem:
        raise SettingsError(
            f"compare: {path!r} cannot be imported ({type(problem).__name__}: {problem}). "
            "Write it as package.module:function, with the folder of the package on the path (pythonpath = ...)."
        ) from problem
    if not callable(found):
        raise SettingsError(f"compare: {path!r} is no function, but a {type(found).__name__}.")
    return found  # type: ignore[no-any-return]
