"""The interception of tenacity's waits: those of a retry that asks a model take no time in a test that replays."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from pytest_lmcache.libraries.code_swap import calling, copy_of
from pytest_lmcache.libraries.waits import Waits

CALLS_BEFORE = "_pytest_lmcache_calls"
# The functions that are tenacity's defaults for waiting. The retries that exist hold them, so their code is replaced.
SLEEPS = (("tenacity.nap", "sleep"), ("tenacity.asyncio", "_portable_async_sleep"))


class Replacement(NamedTuple):
    """An attribute of a class or the code of a function, before the interception."""

    owner: Any
    attribute: str
    original: Any


class Interception:
    """Intercepts from ``open`` to ``close``."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._lock = threading.Lock()
        self._module: ModuleType | None = None
        self._replaced: list[Replacement] = []
        self._next = (
            threading.local()
        )  # whether this thread's next wait follows an attempt that asked a model

    def open(self) -> None:
        """Install the interception."""
        with self._lock:
            self._install()

    def rescan(self) -> None:
        """Install it in a tenacity that has been imported anew."""
        with self._lock:
            if sys.modules.get("tenacity", self._module) is not self._module:
                self._install()

    def module_executed(self, module: ModuleType) -> None:
        """Do nothing: `rescan` finds a new module."""

    def close(self) -> None:
        """Restore tenacity."""
        with self._lock:
            while self._replaced:
                owner, attribute, original = self._replaced.pop()
                setattr(owner, attribute, original)

    def _install(self) -> None:
        self._module = sys.modules["tenacity"]
        state = self._module.RetryCallState
        self._replace(state, "__init__", self._beginning)
        self._replace(state, "prepare_for_next_attempt", self._preparing)
        for module, name in SLEEPS:
            sleep = getattr(sys.modules.get(module), name, None)
            if isinstance(sleep, FunctionType) and not sleep.__code__.co_freevars:
                code = calling(sleep, self._sleeping(copy_of(sleep)))
                self._replaced.append(Replacement(sleep, "__code__", sleep.__code__))
                sleep.__code__ = code

    def _replace(self, kind: type, name: str, replacing: Callable[[Any], Any]) -> None:
        original = vars(kind)[name]
        self._replaced.append(Replacement(kind, name, original))
        setattr(kind, name, functools.wraps(original)(replacing(original)))

    def _beginning(self, original: Callable[..., None]) -> Callable[..., None]:
        def begin(state: Any, *args: Any, **kwargs: Any) -> None:
            original(state, *args, **kwargs)
            setattr(state, CALLS_BEFORE, self._waits.calls)

        return begin

    def _preparing(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        def prepare(state: Any) -> None:
            original(state)
            calls = self._waits.calls
            self._next.state = state if getattr(state, CALLS_BEFORE, calls) != calls else None
            setattr(state, CALLS_BEFORE, calls)

        return prepare

    def _sleeping(self, original: Callable[[float], Any]) -> Callable[[float], Any]:
        def sleep(seconds: float) -> Any:
            state = getattr(self._next, "state", None)
            self._next.state = None
            nap = sys.modules.get("tenacity.nap")
            if state is None or getattr(nap, "time", time) is not time or not self._waits.is_skipped(seconds):
                return original(seconds)
            state.start_time -= seconds  # so that `stop_after_delay` stops after as many attempts as live
            return original(0)

        return sleep
