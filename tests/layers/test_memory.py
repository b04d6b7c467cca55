"""The memory layer: what was used last stays, and the mapping behind it can be used by itself."""

import math
import threading

import pytest

from pytest_lmcache.layers.memory import MemoryLayer
from pytest_lmcache.layers.stack import Value


def test_least_recently_used_goes_first():
    """Up to its number of entries the layer keeps all; then what was not used for longest goes."""
    layer = MemoryLayer(max_entries=3)
    for key in ("a", "b", "c"):
        layer.put(key, {"is": key})
    layer.get("a")
    layer.put("d", {"is": "d"})
    assert [layer.get(key) is not None for key in ("a", "b", "c", "d")] == [True, False, True, True]
    assert len(layer.mapping) == 3


def test_no_limit():
    """``math.inf`` entries are as many as there are."""
    layer = MemoryLayer(max_entries=math.inf)
    for number in range(5000):
        layer.put(str(number), {})
    assert len(layer.mapping) == 5000


def test_mapping():
    """Behind the layer is an ordinary mapping of what was put."""
    layer = MemoryLayer()
    layer.put("a", {"is": "a"})
    layer.mapping["b"] = {"is": "b"}
    assert layer.get("b") == {"is": "b"}
    assert dict(layer.mapping) == {"a": {"is": "a"}, "b": {"is": "b"}}
    for key in layer.mapping:
        layer.mapping[key * 2] = {}
    assert set(layer.mapping) == {"a", "b", "aa", "bb"}
    del layer.mapping["a"]
    assert layer.get("a") is None
    assert layer.mapping.get("a", 5) == 5
    with pytest.raises(KeyError):
        layer.mapping["a"]


def test_what_a_cache_gave_can_be_put_into_the_mapping():
    """A class of a user's may keep in the mapping what a ``get`` gave it; changes of what comes out stay outside."""
    layer = MemoryLayer()
    layer.mapping["a"] = Value({"is": ["a"]}, "disk")
    for _ in range(2):
        found = layer.get("a")
        assert found == {"is": ["a"]}
        found["is"].append("b")
        found["more"] = True


@pytest.mark.parametrize("other", [object(), "text", None, [1]])
def test_other_things_in_the_mapping(other):
    """Whatever else somebody keeps in the mapping is no value to the layer."""
    layer = MemoryLayer()
    layer.mapping["a"] = other
    assert layer.get("a") is None
    assert layer.mapping["a"] is other


def test_threads_at_the_limit():
    """Threads that push each other's entries out, and look through the mapping, do so without a fault."""
    layer = MemoryLayer(max_entries=5)
    failures = []

    def work(number):
        try:
            for turn in range(2000):
                layer.mapping[f"{number}-{turn % 7}"] = {}
                layer.mapping.get(f"{number}-{turn % 5}")
                list(layer.mapping)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(layer.mapping) == 5
