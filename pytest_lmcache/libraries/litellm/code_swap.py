"""Code that stands in for a function's own, and so is met by whatever name the function is bound to."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable
from functools import cache
from itertools import count
from types import CodeType, FunctionType
from typing import Any

# Python wants as many free variables in code as the function has cells. The code runs with that function's globals,
# so what it calls is put into its constants.
ENCLOSING = """
def enclosing({free}):
    {kind} swapped(*args, **kwargs):
        __tracebackhide__ = True
        {cells}
        call = {callee!r}
        {body}
    return swapped
"""
CALLEE = "callee"
CALLS = ("def", "return call(*args, **kwargs)")
AWAITS = ("async def", "return await call(*args, **kwargs)")
YIELDS = ("async def", "async for each in call(*args, **kwargs): yield each")

NUMBERS = count(1)


def calling(function: FunctionType, callee: Callable[..., Any]) -> CodeType:
    """Code for ``function``, of its kind, that calls ``callee`` with what the function was given."""
    code = function.__code__
    kind, body = CALLS
    if inspect.iscoroutinefunction(function):
        kind, body = AWAITS
    elif inspect.isasyncgenfunction(function):
        kind, body = YIELDS
    made = _code(kind, body, code.co_freevars)
    constants = tuple(callee if constant == CALLEE else constant for constant in made.co_consts)
    return made.replace(co_consts=constants, co_name=code.co_name, co_qualname=code.co_qualname)


def copy_of(function: FunctionType) -> FunctionType:
    """A function that does what ``function`` does, and keeps doing it when that gets other code."""
    same = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    same.__kwdefaults__ = function.__kwdefaults__
    return same


@cache
def _code(kind: str, body: str, free: tuple[str, ...]) -> CodeType:
    text = ENCLOSING.format(
        free=", ".join(free),
        kind=kind,
        cells=f"nonlocal {', '.join(free)}" if free else "",
        callee=CALLEE,
        body=body,
    )
    # Tracebacks show these lines.
    name = f"<pytest-lmcache swapped code {next(NUMBERS)}>"
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    made: dict[str, Any] = {}
    exec(compile(text, name, "exec"), made)  # noqa: S102 - the text above and names of variables
    code: CodeType = made["enclosing"](*free).__code__
    return code
