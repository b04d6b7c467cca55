"""Caches of LiteLLM, DSPy, LangChain and instructor, which would answer a call before the interception sees it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

WATCHED = ("litellm", "dspy", "instructor.cache")
LANGCHAIN, INSTRUCTOR = "LangChain's set_llm_cache", "instructor's cache"


class Lookup:
    """A key that a cache of DSPy's does not have; ``called_model``: a model has been called since it was looked up."""

    __slots__ = ("called_model", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self.called_model = False


_lookups: ContextVar[tuple[Lookup, ...]] = ContextVar("pytest_lmcache_lookups", default=())


def call_seen() -> None:
    """Note that a recorder sees the call of a model, whose answer DSPy will put under the keys looked up so far."""
    for lookup in _lookups.get():
        lookup.called_model = True


class CacheBypass:
    """Keeps the caches of LiteLLM and DSPy from answering the calls of a recorder.

    ``is_bypassed`` says whether a cache must not answer a call made here and now. ``cache_used`` is called with the name
    of another library's cache that is looked into.
    """

    def __init__(self, is_bypassed: Callable[[Any], bool], cache_used: Callable[[str], None]) -> None:
        self._is_bypassed = is_bypassed
        self._cache_used = cache_used
        self._installed: dict[str, ExitStack] = {}
        self._empty: Any = None
        # By cache, the keys of answers that are not a model's.
        self._harmless: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()

    def install(self) -> None:
        """Bypass the caches of the libraries imported so far; call it again when another one has been imported."""
        libraries = {"litellm": self._litellm, "dspy": self._dspy, "instructor.cache": self._instructor}
        for name, install in libraries.items():
            module = sys.modules.get(name)
            if module is not None and name not in self._installed:
                with ExitStack() as stack:
                    if install(module, stack):
                        self._installed[name] = stack.pop_all()

    def remove(self) -> None:
        """Have all caches answer again."""
        while self._installed:
            self._installed.popitem()[1].close()

    def active_caches(self) -> list[Any]:
        """The caches of LiteLLM and DSPy that are in use now."""
        modules = (sys.modules.get(name) for name in ("litellm", "dspy"))
        # Not by getattr, by which DSPy may make its default cache, with its folder on disk.
        found = (vars(module).get("cache") for module in modules if module is not None)
        return [cache for cache in found if cache is not None]

    def caches_in_the_way(self) -> set[str]:
        """The names of the caches in use now that cannot be bypassed."""
        is_set = getattr(sys.modules.get("langchain_core.globals"), "_llm_cache", None) is not None
        return {LANGCHAIN} if is_set else set()

    def _instructor(self, module: Any, stack: ExitStack) -> bool:
        """Report that a cache is looked into: instructor's caches belong to its clients."""
        original = getattr(module, "load_cached_response", None)
        if original is None:
            return False

        @functools.wraps(original)
        def load(*args: Any, **kwargs: Any) -> Any:
            self._cache_used(INSTRUCTOR)
            return original(*args, **kwargs)

        _patch(stack, module, "load_cached_response", load)
        return True

    def _litellm(self, _: Any, stack: ExitStack) -> bool:
        """Have a bypassed cache not used; LiteLLM's caches hold answers of models only."""
        kind = getattr(sys.modules.get("litellm.caching.caching"), "Cache", None)
        if kind is None:  # it is being imported
            return False
        original = kind.should_use_cache

        @functools.wraps(original)
        def should_use_cache(cache: Any, *args: Any, **kwargs: Any) -> Any:
            return False if self._is_bypassed(cache) else original(cache, *args, **kwargs)

        _patch(stack, kind, "should_use_cache", should_use_cache)
        return True

    def _dspy(self, dspy: Any, stack: ExitStack) -> bool:
        """Have a bypassed cache hold and give only answers that are not a model's."""
        kind = getattr(sys.modules.get("dspy.clients.cache"), "Cache", None)
        if kind is None:  # it is being imported
            return False
        get, put = kind.get, kind.put

        @functools.wraps(get)
        def guarded_get(cache: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._is_bypassed(cache):
                return get(cache, request, *args, **kwargs)
            key = _key(cache, request, *args, **kwargs)
            if key in self._harmless.get(cache, ()):
                return get(cache, request, *args, **kwargs)
            _lookups.set((*_lookups.get(), Lookup(key)))
            return None

        @functools.wraps(put)
        def guarded_put(cache: Any, request: Any, value: Any, *args: Any, **kwargs: Any) -> None:
            is_free = not self._is_bypassed(cache)
            if is_free or self._is_harmless(cache, _key(cache, request, *args, **kwargs)):
                put(cache, request, value, *args, **kwargs)

        if "cache" not in vars(dspy):
            # DSPy makes its default cache, with a folder on disk, when somebody asks for it.
            self._empty = dspy.cache = self._empty or kind(False, True, None)
            stack.callback(self._remove_empty, dspy)
        _patch(stack, kind, "get", guarded_get)
        _patch(stack, kind, "put", guarded_put)
        return True

    def _remove_empty(self, dspy: Any) -> None:
        if vars(dspy).get("cache") is self._empty:  # else the program has configured another one
            del dspy.cache

    def _is_harmless(self, cache: Any, key: str) -> bool:
        """Whether no model was called between a lookup and the answer that is put under its key; forget the lookup."""
        lookups = _lookups.get()
        place = next((place for place, one in enumerate(lookups) if one.key == key), None)
        if place is None:
            return False
        _lookups.set(lookups[:place])
        if not lookups[place].called_model:
            self._harmless.setdefault(cache, set()).add(key)
        return not lookups[place].called_model


def _patch(stack: ExitStack, owner: Any, name: str, replacement: Any) -> None:
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, replacement)


def _key(cache: Any, request: Any, ignored: Any = None, *_: Any, **more: Any) -> str:
    """The key by which a cache of DSPy's knows a request; empty if it has none, so that nothing is cached."""
    try:
        return str(cache.cache_key(request, more.get("ignored_args_for_cache_key", ignored)))
    except Exception:  # noqa: BLE001 - as DSPy does
        return ""
