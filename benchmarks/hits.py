"""Times a hit of each cache on one request, in one process and in turn, and what opening a disk layer costs.

Prints JSON: for each name the microseconds of each round. Every cache is warm: a provider on loopback is asked
once for each, then it stops.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(tempfile.mkdtemp(prefix="lmcache-hits-"))
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["DSPY_CACHEDIR"] = str(FOLDER / "dspy")
warnings.simplefilter("ignore")

import dspy  # noqa: E402
import litellm  # noqa: E402
from litellm.caching.caching import Cache as LiteLLMCache  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from provider import Provider  # noqa: E402

from pytest_lmcache import Cache, use_cassette  # noqa: E402

MESSAGES = [
    {
        "role": "system",
        "content": "You are a support assistant of a shop for bicycles.\nAnswer in one short paragraph, politely.",
    },
    {
        "role": "user",
        "content": "My order 7919 has not come yet. Where is it? Can I still change the colour?",
    },
]
REQUEST = {"model": "openai/gpt-4o-mini", "messages": MESSAGES, "temperature": 0.0}
ROUNDS, HITS = 15, 200
Hit = Callable[[], Any]


def ours(**layers: Any) -> Cache:
    """A cache of ours with some of its layers."""
    return Cache(disk_cache_dir=FOLDER / "ours", **layers)


def dspys(name: str, **tiers: bool) -> Any:
    """A cache of DSPy's with one of its tiers."""
    return dspy.clients.Cache(disk_cache_dir=str(FOLDER / name), disk_size_limit_bytes=10**9, **tiers)


def alone(to: dict[str, str]) -> Iterator[tuple[str, Hit]]:
    """The caches by themselves: the key of a request, and what is kept under it."""
    live = litellm.completion(**REQUEST, **to)
    with use_cassette(None, cache=(source := ours(enable_disk_cache=False))) as tape:
        litellm.completion(**REQUEST, **to)
    value = dict(source.get(tape.calls[0].key) or {})
    tiers = {"memory": (True, False), "disk": (False, True)}
    for name, (memory, disk) in tiers.items():
        cache = ours(enable_memory_cache=memory, enable_disk_cache=disk)
        cache.put(cache.cache_key(REQUEST), value)
        yield f"{name}: ours, key and get", lambda cache=cache: cache.get(cache.cache_key(REQUEST))
        other = dspys("alone", enable_memory_cache=memory, enable_disk_cache=disk)
        other.put(REQUEST, live)
        yield f"{name}: DSPy's, key and get", lambda other=other: other.get(REQUEST)


def completions(to: dict[str, str]) -> Iterator[tuple[str, Hit]]:
    """A whole call of LiteLLM's, answered by a layer of ours and by its own local cache."""
    for name, off in (("memory", "enable_disk_cache"), ("disk", "enable_memory_cache")):
        cache = ours(**{off: False})

        def called(cache: Cache = cache) -> None:
            litellm.completion(**REQUEST, **to)

        yield f"{name}: litellm.completion() from ours", within(cache, called)

    lists = ("input_callback", "success_callback", "_async_success_callback")
    before = {name: list(getattr(litellm, name)) for name in lists}
    local = LiteLLMCache(type="local")
    listening = {name: list(getattr(litellm, name)) for name in lists}

    def hits() -> None:
        # It is a callback of LiteLLM's too, which the others are not to pay for.
        vars(litellm).update(listening, cache=local)
        for _ in range(HITS):
            litellm.completion(**REQUEST, **to, caching=True)
        vars(litellm).update(before, cache=None)

    hits.many = True  # type: ignore[attr-defined]
    vars(litellm).update(before, cache=None)
    yield "memory: litellm.completion() from LiteLLM's own", hits


def programs(to: dict[str, str]) -> Iterator[tuple[str, Hit]]:
    """A whole call of DSPy's, answered by its own cache and by a layer of ours."""
    lm = dspy.LM("openai/gpt-4o-mini", temperature=0.0, **to)
    for name, (memory, disk) in {"memory": (True, False), "disk": (False, True)}.items():
        cache = dspys("programs", enable_memory_cache=memory, enable_disk_cache=disk)

        def own(cache: Any = cache) -> None:
            dspy.cache = cache
            lm("Where is my order?")

        yield f"{name}: dspy.LM()() from DSPy's own", own
        layers = ours(enable_memory_cache=memory, enable_disk_cache=disk)
        yield f"{name}: dspy.LM()() from ours", within(layers, lambda: lm("Where is my order?"))


def within(cache: Cache, call: Hit) -> Hit:
    """A call behind which one of our caches stands, without a cassette; opened once for all calls of a round."""

    def hits() -> None:
        with use_cassette(None, cache=cache):
            for _ in range(HITS):
                call()

    hits.many = True  # type: ignore[attr-defined]
    return hits


def opening() -> Iterator[tuple[str, Hit]]:
    """What a process, or a test that has a cache of its own, pays for a disk layer before the first answer."""
    number = iter(range(10**6))
    yield (
        "opening: our disk layer, new",
        lambda: Cache(disk_cache_dir=FOLDER / f"new-{next(number)}", enable_memory_cache=False).get("k"),
    )
    kept = FOLDER / "opened"
    yield "opening: our disk layer", lambda: Cache(disk_cache_dir=kept, enable_memory_cache=False).get("k")
    yield (
        "opening: DSPy's disk cache, new",
        lambda: dspys(f"new-{next(number)}", enable_memory_cache=False, enable_disk_cache=True),
    )
    yield (
        "opening: DSPy's disk cache",
        lambda: dspys("opened", enable_memory_cache=False, enable_disk_cache=True),
    )


def timed(hit: Hit, often: int) -> float:
    """Microseconds for one hit."""
    began = time.perf_counter()
    if hasattr(hit, "many"):
        hit()
    else:
        for _ in range(often):
            hit()
    return 1e6 * (time.perf_counter() - began) / often


def main() -> None:
    with Provider() as provider:
        to = {"api_base": provider.url, "api_key": "sk-local"}
        hits = dict([*alone(to), *completions(to), *programs(to)])
        for hit in hits.values():
            hit()
    opened = dict(opening())
    took: dict[str, list[float]] = {name: [] for name in (*hits, *opened)}
    for _ in range(ROUNDS):
        for name, hit in hits.items():
            took[name].append(timed(hit, HITS))
        for name, hit in opened.items():
            took[name].append(timed(hit, 3))
    print(json.dumps(took))


main()
