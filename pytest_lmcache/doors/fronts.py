"""What answers before a door is reached, such as a library's own cache: put aside for a test, and put back."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

WATCHED = ("litellm", "dspy", "instructor.cache")
LANGCHAIN, INSTRUCTOR = "LangChain's set_llm_cache", "instructor's cache"


class Fronts:
    """Puts aside the caches of LiteLLM and DSPy; ``tell`` is told the name of another that is asked meanwhile."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._back: dict[str, Callable[[], None]] = {}

    def put_aside(self) -> None:
        """Have no cache answer, as far as its library has been imported; again, when more has been."""
        ways = {"litellm": _litellm, "dspy": _dspy, "instructor.cache": self._instructor}
        for name, put in ways.items():
            module = sys.modules.get(name)
            if module is not None and name not in self._back and (back := put(module)) is not None:
                self._back[name] = back

    def put_back(self) -> None:
        """Have all of them answer again as before."""
        while self._back:
            _, back = self._back.popitem()
            back()

    def standing(self) -> set[str]:
        """The names of the caches that stand in front now and cannot be put aside."""
        is_set = getattr(sys.modules.get("langchain_core.globals"), "_llm_cache", None) is not None
        return {LANGCHAIN} if is_set else set()

    def _instructor(self, module: Any) -> Callable[[], None] | None:
        """Instructor's caches belong to its clients: told of when one is looked into."""
        original = getattr(module, "load_cached_response", None)
        if original is None:
            return None

        @functools.wraps(original)
        def told(*args: Any, **kwargs: Any) -> Any:
            self._tell(INSTRUCTOR)
            return original(*args, **kwargs)

        module.load_cached_response = told

        def back() -> None:
            module.load_cached_response = original

        return back


def _litellm(litellm: Any) -> Callable[[], None] | None:
    """``litellm.cache`` is none; one that is set meanwhile, as by ``Router(cache_responses=True)``, is not used."""
    kind = getattr(sys.modules.get("litellm.caching.caching"), "Cache", None)
    if kind is None:  # it is just being imported
        return None
    old, uses = litellm.cache, kind.should_use_cache

    @functools.wraps(uses)
    def is_used(cache: Any, *args: Any, **kwargs: Any) -> Any:
        return False if cache is litellm.cache else uses(cache, *args, **kwargs)

    litellm.cache, kind.should_use_cache = None, is_used

    def back() -> None:
        kind.should_use_cache = uses
        if old is not None:
            litellm.cache = old

    return back


def _dspy(dspy: Any) -> Callable[[], None] | None:
    """``dspy.cache`` is an empty one; one that is configured meanwhile neither answers nor stores until the end."""
    kind = getattr(sys.modules.get("dspy.clients.cache"), "Cache", None)
    if kind is None:  # it is just being imported
        return None
    # Not by getattr: that makes the default cache, with its folder on disk (DSPy 3.4).
    known, empty = vars(dspy), kind(False, False, None)
    old = known.get("cache")
    get, put = kind.get, kind.put

    def unless_in_front(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def guarded(cache: Any, *args: Any, **kwargs: Any) -> Any:
            return None if cache is known.get("cache") else method(cache, *args, **kwargs)

        return guarded

    dspy.cache = empty
    kind.get, kind.put = unless_in_front(get), unless_in_front(put)

    def back() -> None:
        kind.get, kind.put = get, put
        if known.get("cache") is not empty:
            return  # configured meanwhile: that stays, as it does without us
        if old is None:
            del dspy.cache
        else:
            dspy.cache = old

    return back
