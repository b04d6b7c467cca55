"""What differs between the versions of DSPy: every line that names a version is in this file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# ---------------------------------------------------------------- the usage of answers that came from a cache
# DSPy up to 3.3 counts no usage for an answer that has `cache_hit` when the call of its language model ends.

_after: ContextVar[list[Callable[[], Any]] | None] = ContextVar(
    "pytest_lmcache_after_dspy_call", default=None
)


@contextmanager
def dspy_call() -> Iterator[None]:
    """Around a call of one of DSPy's language models; a call within another one is a part of that."""
    if _after.get() is not None:
        yield
        return
    functions: list[Callable[[], Any]] = []
    token = _after.set(functions)
    try:
        yield
    finally:
        _after.reset(token)
        for function in functions:
            function()


def calling(original: Callable[..., Any]) -> Callable[..., Any]:
    """Replace the sync call of a language model."""

    def called(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with dspy_call():
            return original(*args, **kwargs)

    return called


def acalling(original: Callable[..., Any]) -> Callable[..., Any]:
    """Replace the async call of a language model."""

    async def called(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with dspy_call():
            return await original(*args, **kwargs)

    return called


def after_dspy_call(function: Callable[[], Any]) -> bool:
    """Have a function called when DSPy's call ends; return False if no call of DSPy's is under way."""
    functions = _after.get()
    if functions is not None:
        functions.append(function)
    return functions is not None


# ---------------------------------------------------------------- DSPy's own engine


def has_own_engine() -> bool:
    """Whether DSPy is imported and can ask providers without LiteLLM: 3.4 and newer."""
    return hasattr(sys.modules.get("dspy"), "lm15")


def refused_client() -> type | None:
    """DSPy's client for one provider, which uses neither an engine nor LiteLLM: 3.4 and newer, else None."""
    try:
        # DSPy imports the module on demand, which may be in the middle of a test.
        from dspy.clients.typesafe import TypeSafe
    except ImportError:
        return None
    kind: type = TypeSafe
    return kind
