"""Calls of different names that ask the same: a recording of one of them answers the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pytest_lmcache.interaction import Answer, Call


class Equivalence(NamedTuple):
    """What a library knows of its calls and those of another one.

    ``other_name`` gives the name under which a call may have been recorded too, None if it has no equivalent.
    ``common_form`` gives the form in which equivalent calls are equal, None if a call has no such form. ``convert``
    gives an answer that was recorded under the other name as one of the call's own. ``library`` is named in messages.
    """

    library: str
    other_name: Callable[[Call], str | None]
    common_form: Callable[[Call], Call | None]
    convert: Callable[[Call, Answer], Answer]


EQUIVALENCES: list[Equivalence] = []
"""Those of the libraries that are intercepted."""
