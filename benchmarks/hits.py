"""Times a hit of each cache on the same request, in one process and in turn; prints JSON: microseconds a hit.

Every cache is warm: the provider on loopback is asked once for each, then stopped.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
FOLDER = Path(tempfile.mkdtemp(prefix="lmcache-hits-"))
os.environ["DSPY_CACHEDIR"] = str(FOLDER / "dspy")

import dspy  # noqa: E402
import litellm  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from provider import Provider  # noqa: E402

from pytest_lmcache import Cache, use_cassette  # noqa: E402

SYSTEM = "You are a support assistant of a shop for bicycles.\nAnswer in one short paragraph, politely."
MESSAGES = [
    {"role": "system", "content": SYSTEM},
    {
        "role": "user",
        "content": "My order 7919 has not come yet. Where is it, and can I still change the colour?",
    },
]
REQUEST = {"model": "openai/gpt-4o-mini", "messages": MESSAGES, "temperature": 0.0}
ROUNDS, HITS = 15, 200


def layers(**layers):
    """A cache of ours with some of its layers."""
    return Cache(disk_cache_dir=FOLDER / "ours", **layers)


def contestants(to):
    """What is timed: a name, and a function that is a hit once it has been called."""
    memory, disk = layers(enable_disk_cache=False), layers(enable_memory_cache=False)
    engine = (
        {"engine": "litellm"} if hasattr(dspy.LM, "engine") or "engine" in dspy.LM.__init__.__doc__ else {}
    )
    lm = dspy.LM("openai/gpt-4o-mini", temperature=0.0, **to)
    dspy_memory = dspy.clients.Cache(enable_disk_cache=False, enable_memory_cache=True, disk_cache_dir=None)
    dspy_disk = dspy.clients.Cache(
        enable_disk_cache=True, enable_memory_cache=False, disk_cache_dir=str(FOLDER / "dspy"),
        disk_size_limit_bytes=10**9,
    )  # fmt: skip
    del engine
    value = {}

    def ours(cache):
        def hit():
            return cache.get(cache.cache_key(REQUEST))

        with use_cassette(None, cache=cache) as tape:
            litellm.completion(**REQUEST, **to)
        key = tape.calls[0].key
        value.update(cache.get(f"{key}#1"))
        cache.put(cache.cache_key(REQUEST), dict(value))
        return hit

    def dspys(cache):
        request = {**REQUEST, "_fn_identifier": "bench"}
        cache.put(request, litellm.ModelResponse(**value["data"]))
        return lambda: cache.get(request)

    def dspy_lm(cache):
        def hit():
            dspy.cache = cache
            return lm(messages=MESSAGES)

        return hit

    yield "our memory layer: key and get", ours(memory)
    yield "DSPy's memory cache: key and get", dspys(dspy_memory)
    yield "our disk layer: key and get", ours(disk)
    yield "DSPy's disk cache: key and get", dspys(dspy_disk)
    yield "DSPy's lm() from its memory cache", dspy_lm(dspy_memory)
    yield "DSPy's lm() from its disk cache", dspy_lm(dspy_disk)


def main():
    with Provider() as provider:
        to = {"api_base": provider.url, "api_key": "sk-local"}
        those = dict(contestants(to))
        for hit in those.values():
            hit()
    took = {name: [] for name in those}
    for _ in range(ROUNDS):
        for name, hit in those.items():
            began = time.perf_counter()
            for _ in range(HITS):
                hit()
            took[name].append(1e6 * (time.perf_counter() - began) / HITS)
    print(json.dumps(took))
    for name, each in took.items():
        print(f"{sorted(each)[len(each) // 2]:8.1f} {min(each):8.1f}  {name}", file=sys.stderr)


main()
