"""The waits of LiteLLM's Router before a retry, and its cooldowns, which end when that much time would have passed."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pytest_lmcache.libraries.litellm import compat
from pytest_lmcache.libraries.waits import ShiftedTime, Waits

ENDS = "_pytest_lmcache_ends"


def wait_replacements(modules: Sequence[str], waits: Waits) -> Iterator[tuple[Any, str, Any]]:
    """Each owner in some modules of something that waits or measures time, its name, and what takes its place."""
    replacing: dict[str, Callable[..., Any]] = {
        **dict.fromkeys(compat.SLEEPS, _sleep),
        compat.RETRY_DELAY: _delay,
        **dict.fromkeys(compat.COOLDOWN_STARTS, _start),
        **dict.fromkeys(compat.COOLDOWN_READS, _read),
    }
    for kind, name in compat.retry_functions(modules):
        original = vars(kind)[name]
        yield kind, name, functools.wraps(original)(replacing[name](original, waits))
    if compat.COOLDOWN_CLOCK in modules:
        module = sys.modules[compat.COOLDOWN_CLOCK]
        yield module, "time", ShiftedTime(vars(module)["time"], waits)


def _sleep(original: Callable[..., Any], waits: Waits) -> Callable[..., Any]:
    def sleep(host: Any, seconds: float) -> Any:
        return original(host, 0 if waits.is_skipped(seconds) else seconds)

    return sleep


def _delay(original: Callable[..., float], waits: Waits) -> Callable[..., float]:
    def delay(*args: Any, **kwargs: Any) -> float:
        seconds = original(*args, **kwargs)
        return 0 if waits.is_skipped(seconds) else seconds

    return delay


def _start(original: Callable[..., Any], waits: Waits) -> Callable[..., Any]:
    def start(store: Any, model_id: str, value: Any, ttl: float) -> Any:
        vars(store).setdefault(ENDS, {})[model_id] = time.monotonic() + waits.skipped + ttl
        return original(store, model_id, value, ttl)

    return start


def _read(original: Callable[..., Any], waits: Waits) -> Callable[..., Any]:
    def read(store: Any, *args: Any, **kwargs: Any) -> Any:
        ends: dict[str, float] = vars(store).get(ENDS, {})
        now = time.monotonic() + waits.skipped
        for model_id in [model_id for model_id, end in [*ends.items()] if end <= now]:
            ends.pop(model_id, None)
            store.evict_local(model_id)
        return original(store, *args, **kwargs)

    return read
