"""Replaces the code of a function, so that a call is seen by whatever name the caller holds the function."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable
from functools import cache
from itertools import count
from types import CodeType, FunctionType
from typing import Any

# Python wants as many free variables in the code as the function has cells. The code runs with the function's globals,
# so what it calls is one of its constants.
ENCLOSING = """
def enclosing({free}):
    {kind} swapped(*args, **kwargs):
        __tracebackhide__ = True
        {cells}
        call = 'callee'
        {body}
    return swapped
"""
CALLS = ("def", "return call(*args, **kwargs)")
AWAITS = ("async def", "return await call(*args, **kwargs)")
YIELDS = ("async def", "async for each in call(*args, **kwargs): yield each")

NUMBERS = count(1)


def calling(function: FunctionType, callee: Callable[..., Any]) -> CodeType:
    """Code that calls ``callee`` with the arguments that the function gets; it is of the function's kind."""
    code = function.__code__
    kind = CALLS
    if inspect.iscoroutinefunction(function):
        kind = AWAITS
    elif inspect.isasyncgenfunction(function):
        kind = YIELDS
    swapped = _code(*kind, code.co_freevars)
    constants = tuple(callee if constant == "callee" else constant for constant in swapped.co_consts)
    return swapped.replace(co_consts=constants, co_name=code.co_name, co_qualname=code.co_qualname)


def copy_of(function: FunctionType) -> FunctionType:
    """A function that does what ``function`` does, even after the code of that is replaced."""
    code, names, defaults = function.__code__, function.__globals__, function.__defaults__
    copy = FunctionType(code, names, function.__name__, defaults, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


@cache
def _code(kind: str, body: str, free: tuple[str, ...]) -> CodeType:
    names = ", ".join(free)
    text = ENCLOSING.format(free=names, kind=kind, cells=f"nonlocal {names}" if free else "", body=body)
    name = f"<pytest-lmcache swapped code {next(NUMBERS)}>"
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name  # for tracebacks
    scope: dict[str, Any] = {}
    exec(compile(text, name, "exec"), scope)  # noqa: S102 - the text above and names of variables
    code: CodeType = scope["enclosing"](*free).__code__
    return code
