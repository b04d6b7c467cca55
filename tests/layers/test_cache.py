"""Cache: layers in order, each left out once it fails; made to be subclassed, and open to any subclass."""

import math
import subprocess
import sys
import threading
import warnings

import pytest

from pytest_lmcache import Cache, LMCacheWarning, SettingsError, keys
from pytest_lmcache.errors import LayerError
from pytest_lmcache.layers import stack
from pytest_lmcache.layers.memory import MemoryLayer
from pytest_lmcache.layers.stack import Stats, Value
from pytest_lmcache.session import Session

ONE, TWO = {"lmcache": 1, "a": 1}, {"lmcache": 1, "a": 2}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def url(valkey, client):
    return valkey


@pytest.fixture
def make(folder):
    """Makes caches over one folder, and closes them."""
    made = []

    def make(kind=Cache, **given):
        made.append(kind(**{"disk_cache_dir": folder} | given))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


class Broken:
    """A layer that fails as soon as it is told to; counts how often it was asked."""

    def __init__(self, name="disk", *, broken=True):
        self.name, self.broken = name, broken
        self.asked = 0
        self.kept = MemoryLayer()

    def get(self, key):
        self.asked += 1
        if self.broken:
            raise LayerError(f"{self.name} is gone.\nMend it.")
        return self.kept.get(key)

    def put(self, key, value):
        self.get(key)
        self.kept.put(key, value)

    def close(self):
        pass


@pytest.fixture
def stacked(monkeypatch):
    """Makes a cache of the layers that it is given."""

    def make(*layers):
        monkeypatch.setattr(stack, "make_layers", lambda *_: layers)
        return Cache()

    return make


# ---- layers in order ----------------------------------------------------------------------------------------


def test_first_that_has_it(make, url):
    """Layers are asked in the order memory, disk, redis; the value says which one had it."""
    everything = make(url=url)
    everything.put("k1", ONE)
    value = everything.get("k1")
    assert (value, value.layer) == (ONE, "memory")
    assert isinstance(value, Value)
    assert make(url=url).get("k1").layer == "disk"
    assert make(url=url, enable_memory_cache=False, enable_disk_cache=False).get("k1").layer == "redis"
    assert make(url=url).get("k2") is None


def test_promoted(make, url, folder):
    """What a farther layer had, the nearer ones have from then on."""
    make(url=url, enable_disk_cache=False).put("k1", ONE)
    cache = make(url=url)
    assert [cache.get("k1").layer, cache.get("k1").layer] == ["redis", "memory"]
    assert make().get("k1").layer == "disk"


def test_put_into_all(make, url):
    """An answer is in every layer as soon as ``put`` has returned: in the new place of an older one, too."""
    cache = make(url=url)
    cache.put("k1", ONE)
    cache.put("k1", TWO)
    for given in ({"enable_disk_cache": False, "url": url}, {}):
        assert make(enable_memory_cache=False, **given).get("k1") == TWO


@pytest.mark.parametrize(
    ("given", "layers"),
    [
        ({}, ["memory", "disk"]),
        ({"enable_disk_cache": False}, ["memory"]),
        ({"enable_memory_cache": False}, ["disk"]),
        ({"enable_memory_cache": False, "enable_disk_cache": False}, []),
        ({"memory_max_entries": math.inf, "disk_size_limit_bytes": 10**10}, ["memory", "disk"]),
        ({"enable_disk_cache": False, "disk_size_limit_bytes": 5, "memory_max_entries": 1}, ["memory"]),
    ],
)
def test_combinations(make, folder, given, layers):
    """Each layer can be had by itself, with the other, or not at all; nothing is kept where both are off."""
    cache = make(**given)
    assert list(cache.stats()) == layers
    cache.put("k1", ONE)
    assert cache.get("k1") == (ONE if layers else None)
    assert folder.exists() == ("disk" in layers)


def test_limits_reach_the_layers(make):
    """The limits that are set are those that the layers keep to."""
    cache = make(memory_max_entries=2, disk_size_limit_bytes=200_000)
    for number in range(300):
        cache.put(str(number), {"a": "x" * 2000})
    assert len(cache._memory_cache) == 2
    assert cache.get("0") is None
    assert cache.get("297").layer == "disk"


def test_default_folder(tmp_path, monkeypatch):
    """Without a folder given, the disk layer is in pytest's own, where the cache was made."""
    monkeypatch.chdir(tmp_path)
    cache = Cache(enable_memory_cache=False)
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    cache.put("k1", ONE)
    cache.close()
    assert (tmp_path / ".pytest_cache" / "d" / "lmcache" / "000" / "cache.db").exists()


def test_stats(make, url):
    """Per layer: how often it had an answer, had none, and was given one; promotion is no giving."""
    make(url=url, enable_memory_cache=False, enable_disk_cache=False).put("k1", ONE)
    cache = make(url=url)
    assert cache.stats() == {"memory": Stats(), "disk": Stats(), "redis": Stats()}
    for key in ("k1", "k1", "k2"):
        cache.get(key)
    cache.put("k3", ONE)
    assert cache.stats() == {
        "memory": Stats(hits=1, misses=2, puts=1),
        "disk": Stats(hits=0, misses=2, puts=1),
        "redis": Stats(hits=1, misses=1, puts=1),
    }


def test_stats_of_threads(make):
    """No hit is lost to the count, however many threads there are."""
    cache = make(enable_disk_cache=False)
    cache.put("k1", ONE)
    threads = [threading.Thread(target=lambda: [cache.get("k1") for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.stats()["memory"].hits == 4000


def test_key():
    """Unless a subclass says otherwise, everything that was asked counts."""
    request = {"model": "a", "messages": [{"role": "user", "content": "b"}], "temperature": 0.5}
    assert Cache().cache_key(request) == keys.exact(request)
    assert Cache().cache_key(request | {"temperature": 1}) != keys.exact(request)


# ---- trouble ------------------------------------------------------------------------------------------------


def test_failing_layer_is_left_out(stacked):
    """A layer that fails costs one warning, which says which, why and what mends it, and is asked no more."""
    broken, working = Broken(), MemoryLayer()
    working.put("k1", ONE)
    cache = stacked(broken, working)
    with pytest.warns(LMCacheWarning) as caught:
        assert cache.get("k1") == ONE
    [warning] = caught
    assert str(warning.message) == (
        "The disk layer of the cache is not used any more in this run; recording goes on without it. "
        "disk is gone.\nMend it."
    )
    assert warning.filename == __file__
    cache.put("k1", TWO)
    assert cache.get("k1") == TWO
    assert broken.asked == 1
    assert cache.stats()["disk"] == Stats()


@pytest.mark.parametrize("act", ["get", "put", "promote"])
def test_nothing_is_lost_where_warnings_are_errors(act, stacked):
    """With ``-W error`` the warning ends the call, but only once the other layers have been served."""
    above, broken, below = MemoryLayer(), Broken(), MemoryLayer()
    if act == "promote":
        broken.broken = False
    below.put("k1", ONE)
    cache = stacked(above, broken, below)
    if act == "promote":
        broken.put = Broken().put
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LMCacheWarning):
            cache.put("k1", TWO) if act == "put" else cache.get("k1")
    expected = TWO if act == "put" else ONE
    assert above.get("k1") == below.get("k1") == expected
    assert cache.get("k1") == expected


def test_one_warning_from_many_threads(stacked):
    """However many threads meet the trouble at once, it is told once."""
    broken = Broken()
    gate = threading.Barrier(6)
    get = broken.get
    broken.get = lambda key: (gate.wait(), get(key))
    cache = stacked(broken)
    with pytest.warns(LMCacheWarning) as caught:
        threads = [threading.Thread(target=cache.get, args=("k1",)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(caught) == 1
    assert broken.asked == 6


def test_each_layer_is_told_of(stacked):
    """Two layers in trouble are two warnings, also where the first of them is an error."""
    cache = stacked(Broken("disk"), Broken("redis"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("disk", "redis"):
            with pytest.raises(LMCacheWarning, match=f"The {name} layer"):
                cache.get("k1")
    cache.put("k1", ONE)


def test_silent_server_costs_one_time_out(make, silent):
    """A server that accepts and never answers is waited for once, not once per call."""
    port, connections = silent
    cache = make(url=f"redis://127.0.0.1:{port}")
    with pytest.warns(LMCacheWarning, match="redis layer .*Timeout") as caught:
        for number in range(20):
            assert cache.get(str(number)) is None
            cache.put(str(number), ONE)
    assert len(caught) == len(connections) == 1
    assert cache.get("5") == ONE


def test_silent_server_costs_one_time_out_whatever_leads_there(folder, silent):
    """The caches of a run, one for each set of layer settings, tell of a server once, and the next run again."""
    port, connections = silent
    run = Session()
    settings = {"url": f"redis://127.0.0.1:{port}", "disk_cache_dir": folder}
    with pytest.warns(LMCacheWarning, match="redis layer .*Timeout") as caught:
        for ttl in (None, 60, 3600):
            cache = run.caches.by_settings(ttl=ttl, **settings)
            cache.put("k1", ONE)
            assert cache.get("k2") is None
    assert len(caught) == len(connections) == 1
    cache = run.caches.by_settings(enable_disk_cache=False, url=f"redis://127.0.0.1:{port}/1")
    with pytest.warns(LMCacheWarning, match="redis layer"):
        assert cache.get("k1") is None, "another place is one of its own"
    run.caches.close()
    with pytest.warns(LMCacheWarning, match="redis layer"):
        assert run.caches.by_settings(**settings).get("k2") is None
    run.caches.close()


def test_real_disk_trouble(make, folder):
    """A broken database does not keep the memory layer from serving."""
    (folder / "000").mkdir(parents=True)
    (folder / "000" / "cache.db").write_bytes(b"garbage" * 1000)
    cache = make()
    with pytest.warns(LMCacheWarning, match="not a database"):
        cache.put("k1", ONE)
    assert cache.get("k1") == ONE


# ---- arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"enable_disk_cach": False}, "there is no setting 'enable_disk_cach'. Did you mean 'enable_disk_cache'?"),
        ({"enable_disk_cache": "no"}, "enable_disk_cache cannot be 'no'; it takes True or False."),
        ({"memory_max_entries": 0}, "memory_max_entries cannot be 0; it takes a whole number above 0"),
        ({"url": "memcached://host"}, "url cannot be a URL that begins with memcached://"),
    ],
)  # fmt: skip
def test_senseless_arguments(given, said):
    """An argument that has no sense is refused when the cache is made, a subclass by its own name."""

    class Own(Cache):
        pass

    for kind in (Cache, Own):
        with pytest.raises(SettingsError) as caught:
            kind(**given)
        assert str(caught.value).startswith(f"{kind.__name__}(): {said}")


def test_redis_not_installed(monkeypatch):
    """A URL without a client for it is told when the cache is made, not at the first call of a long recording."""
    monkeypatch.setattr("pytest_lmcache.layers.redis.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match='pip install "redis>=5"'):
        Cache(url="redis://host")


# ---- subclasses ---------------------------------------------------------------------------------------------


class Own(Cache):
    """Overrides all three; never calls ``super().__init__``."""

    def __init__(self, model):
        self.model = model

    def cache_key(self, request):
        return f"{self.model}: {request['messages'][-1]['content']}"

    def get(self, key):
        return self._memory_cache.get(key)

    def put(self, key, value):
        self._memory_cache[key] = value


class Called(Own):
    """The same, with ``super().__init__()`` and no arguments."""

    def __init__(self, model):
        Cache.__init__(self)
        self.model = model


class Mine(Own):
    """The same, with a mapping of its own."""

    def __init__(self, model):
        self.model = model
        self._memory_cache = {}


@pytest.mark.parametrize("kind", [Own, Called, Mine])
def test_own_cache(kind, tmp_path, monkeypatch):
    """A class that overrides all three and uses the mapping alone works as it stands, and touches no disk."""
    monkeypatch.chdir(tmp_path)
    one, other = kind("m"), kind("m")
    key = one.cache_key({"messages": [{"content": "hi"}]})
    assert key == "m: hi"
    assert one.get(key) is None
    one.put(key, ONE)
    assert one.get(key) is ONE
    assert other.get(key) is None, "and shares nothing with another one"
    one.close()
    assert list(tmp_path.iterdir()) == []


def test_own_get_alone(make):
    """A class that overrides one of them still has the layers for the rest."""

    class Loud(Cache):
        found = ()

        def get(self, key):
            value = super().get(key)
            self.found += (value is not None,)
            return value

    cache = make(Loud)
    cache.get("k1")
    cache.put("k1", ONE)
    assert cache.get("k1") == ONE
    assert cache.found == (False, True)
    assert cache.stats()["memory"] == Stats(hits=1, misses=1, puts=1)


def test_mapping_is_that_of_the_memory_layer(make):
    """What the layer was given is in the mapping, and what is put into the mapping is in the layer."""
    cache = make(enable_disk_cache=False)
    cache.put("k1", ONE)
    assert cache._memory_cache.get("k1") == ONE
    cache._memory_cache["k2"] = TWO
    assert cache.get("k2") == TWO
    cache._memory_cache = {"k3": ONE}
    assert (cache.get("k1"), cache.get("k3")) == (None, ONE)


def test_mapping_without_memory(make):
    """The mapping is there also where the memory layer is off, but ``get`` and ``put`` leave it alone."""
    cache = make(enable_memory_cache=False)
    cache.put("k1", ONE)
    assert cache._memory_cache.get("k1") is None
    cache._memory_cache["k1"] = TWO
    assert cache.get("k1") == ONE


# ---- start-up -----------------------------------------------------------------------------------------------


def test_nothing_before_it_is_used(tmp_path):
    """Making a cache imports no library, opens nothing and makes no file; those of a layer that is off never load."""
    code = (
        "import sys\n"
        "from pytest_lmcache import Cache\n"
        "heavy = {'diskcache', 'sqlite3', 'cachetools', 'redis', 'filelock', 'litellm', 'yaml'}\n"
        "cache = Cache(url='redis://127.0.0.1:1')\n"
        "cache.close()\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "cache = Cache(enable_disk_cache=False)\n"
        "cache.put('k1', {})\n"
        "assert heavy & set(sys.modules) == {'cachetools'}, heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_built_once_by_many_threads():
    """Threads that use a new cache at once use the same layers."""
    cache = Cache(enable_disk_cache=False)
    gate = threading.Barrier(8)
    seen = []

    def work():
        gate.wait()
        seen.append(cache._memory_cache)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(mapping) for mapping in seen}) == 1
