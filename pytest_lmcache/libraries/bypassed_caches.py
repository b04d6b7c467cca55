"""Caches that answer before a door is reached, such as DSPy's: what was there before a test answers no call of it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

WATCHED = ("litellm", "dspy", "instructor.cache")
LANGCHAIN, INSTRUCTOR = "LangChain's set_llm_cache", "instructor's cache"


class Question:
    """What a cache was asked and did not answer; ``is_seen``: a recorder has seen a call of a model's since."""

    __slots__ = ("is_seen", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self.is_seen = False


_open: ContextVar[tuple[Question, ...]] = ContextVar("pytest_lmcache_open_questions", default=())


def call_seen() -> None:
    """A recorder sees a call of a model's: what its caches were asked before is no longer their matter."""
    for question in _open.get():
        question.is_seen = True


class CacheBypass:
    """Keeps the caches of LiteLLM and DSPy from answering the calls of a recorder that they were there before.

    ``is_bypassed`` says that of a cache, for calls made here and now. ``tell`` is told the name of another
    library's cache that is asked meanwhile.
    """

    def __init__(self, is_bypassed: Callable[[Any], bool], tell: Callable[[str], None]) -> None:
        self._is_bypassed = is_bypassed
        self._tell = tell
        self._back: dict[str, Callable[[], None]] = {}
        self._empty: Any = None
        # Of each cache the keys of what is no model's call.
        self._harmless: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()

    def install(self) -> None:
        """Have no cache that is in front answer, as far as its library has been imported; again, when more has been."""
        ways = {"litellm": self._litellm, "dspy": self._dspy, "instructor.cache": self._instructor}
        for name, put in ways.items():
            module = sys.modules.get(name)
            if module is not None and name not in self._back and (back := put(module)) is not None:
                self._back[name] = back

    def remove(self) -> None:
        """Have all of them answer again as before."""
        while self._back:
            _, back = self._back.popitem()
            back()

    def active_caches(self) -> list[Any]:
        """The caches that answer the calls of everybody now."""
        modules = (sys.modules.get(name) for name in ("litellm", "dspy"))
        # Not by getattr: that makes DSPy's default cache, with its folder on disk (DSPy 3.4).
        found = (vars(module).get("cache") for module in modules if module is not None)
        return [cache for cache in found if cache is not None]

    def caches_in_the_way(self) -> set[str]:
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

    def _litellm(self, _: Any) -> Callable[[], None] | None:
        """A cache of LiteLLM's that is in front is not used: it is asked about models' calls only."""
        kind = getattr(sys.modules.get("litellm.caching.caching"), "Cache", None)
        if kind is None:  # it is just being imported
            return None
        uses = kind.should_use_cache

        @functools.wraps(uses)
        def is_used(cache: Any, *args: Any, **kwargs: Any) -> Any:
            return False if self._is_bypassed(cache) else uses(cache, *args, **kwargs)

        kind.should_use_cache = is_used

        def back() -> None:
            kind.should_use_cache = uses

        return back

    def _dspy(self, dspy: Any) -> Callable[[], None] | None:
        """A cache of DSPy's that is in front keeps and answers what is no model's call, and nothing else."""
        kind = getattr(sys.modules.get("dspy.clients.cache"), "Cache", None)
        if kind is None:  # it is just being imported
            return None
        get, put = kind.get, kind.put

        @functools.wraps(get)
        def guarded_get(cache: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._is_bypassed(cache):
                return get(cache, request, *args, **kwargs)
            key = _key(cache, request, *args, **kwargs)
            if key in self._harmless.get(cache, ()):
                return get(cache, request, *args, **kwargs)
            _open.set((*_open.get(), Question(key)))
            return None

        @functools.wraps(put)
        def guarded_put(cache: Any, request: Any, value: Any, *args: Any, **kwargs: Any) -> None:
            if not self._is_bypassed(cache) or self._was_harmless(
                cache, _key(cache, request, *args, **kwargs)
            ):
                put(cache, request, value, *args, **kwargs)

        kind.get, kind.put = guarded_get, guarded_put
        is_missing = "cache" not in vars(dspy)
        if is_missing:
            # DSPy 3.4 makes its default cache, with a folder on disk, when somebody looks at it.
            self._empty = dspy.cache = self._empty or kind(False, True, None)

        def back() -> None:
            kind.get, kind.put = get, put
            # One that is configured meanwhile stays, as it does without us.
            if is_missing and vars(dspy).get("cache") is self._empty:
                del dspy.cache

        return back

    def _was_harmless(self, cache: Any, key: str) -> bool:
        """Whether what a cache is given answers a question in which no recorder saw a call; the question is over."""
        questions = _open.get()
        place = next((place for place, one in enumerate(questions) if one.key == key), None)
        if place is None:
            return False
        _open.set(questions[:place])
        if not questions[place].is_seen:
            self._harmless.setdefault(cache, set()).add(key)
        return not questions[place].is_seen


def _key(cache: Any, request: Any, ignored: Any = None, *_: Any, **more: Any) -> str:
    """What a cache of DSPy's knows a request by; empty where it cannot know it, and so keeps nothing of it."""
    try:
        return str(cache.cache_key(request, more.get("ignored_args_for_cache_key", ignored)))
    except Exception:  # noqa: BLE001 - as DSPy does
        return ""
