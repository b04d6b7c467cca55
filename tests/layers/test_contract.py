"""What every layer does, and every cache made of layers: one suite for all, and a machine that shows they agree."""

import copy
import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from freezegun import freeze_time
from helpers import exactly
from helpers import values as plain_data
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from pytest_lmcache import Cache
from pytest_lmcache.errors import CacheError
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.layers.disk import DiskLayer
from pytest_lmcache.layers.memory import MemoryLayer
from pytest_lmcache.layers.redis import RedisLayer
from pytest_lmcache.layers.values import revive, store

pytestmark = pytest.mark.slow

RECORDED = "2026-11-23T09:12:44Z"
# The clock of these tests; the server's own goes on, and is not to remove anything meanwhile.
START = "2026-11-25T00:00:00Z"
TTL = 1000
KEYS = [
    "k3f9a1c0e5d21b7aa",
    "k3f9a1c0e5d21b7aa#2",
    "",
    "Größe: 🐐\x00\n",
    "\ud800",
    "x" * 1000,
    "y" * 1000,
    "#",
]


class Near(Cache):
    """A subclass that has a near and a far store."""

    def __init__(self, near, far):
        self.near, self.far = near, far

    def get(self, key):
        value = self.near.get(key)
        if value is None:
            value = self.far.get(key)
            if value is not None:
                self.near.put(key, value)
        return value

    def put(self, key, value):
        self.near.put(key, value)
        self.far.put(key, value)

    def close(self):
        self.near.close()
        self.far.close()


class Own(Cache):
    """A subclass that overrides all three and knows of nothing but the mapping."""

    def __init__(self, *_given):
        pass

    def cache_key(self, request):
        return json.dumps(request)

    def get(self, key):
        return self._memory_cache.get(key)

    def put(self, key, value):
        self._memory_cache[key] = value


def cache(**given):
    return lambda folder, _url, ttl: Cache(disk_cache_dir=folder, ttl=ttl, **given)


STORES = {
    "memory": lambda _folder, _url, ttl: MemoryLayer(ttl=ttl),
    "disk": lambda folder, _url, ttl: DiskLayer(folder, ttl=ttl),
    "redis": lambda _folder, url, ttl: RedisLayer(url, ttl=ttl),
    "cache-memory": cache(enable_disk_cache=False),
    "cache-disk": cache(enable_memory_cache=False),
    "cache-memory-disk": cache(),
    "cache-disk-redis": lambda folder, url, ttl: Cache(
        enable_memory_cache=False, disk_cache_dir=folder, url=url, ttl=ttl
    ),
    "cache-all": lambda folder, url, ttl: Cache(disk_cache_dir=folder, url=url, ttl=ttl),
    "near-far": lambda folder, url, ttl: Near(
        Cache(enable_disk_cache=False, ttl=ttl), DiskLayer(folder, ttl=ttl)
    ),
}
LASTING = [name for name in STORES if "disk" in name or "redis" in name or "far" in name]


@pytest.fixture
def empty(valkey, client):
    """The server's URL, with nothing on the server."""
    return valkey


@pytest.fixture
def make(tmp_path, empty):
    """Makes stores over one folder and one server, and closes them."""
    made = []

    def make(name, ttl=None):
        made.append(STORES[name](tmp_path / "cache", empty, ttl))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(params=STORES)
def a_store(request, make):
    return make(request.param)


def answered(text, **given):
    return store(Answer(Kind.RESPONSE, {"choices": [{"message": {"content": text}}]}), RECORDED) | given


def test_nothing_at_first(a_store):
    """What was never put is not there."""
    assert a_store.get("k1") is None


@pytest.mark.parametrize("key", KEYS, ids=ascii)
def test_put_then_get(a_store, key):
    """What is put under a key, whatever it looks like, is got under it, and under no other."""
    for other in KEYS:
        a_store.put(other, answered(f"for {other!r}"))
    a_store.put(key, answered("mine"))
    assert a_store.get(key) == answered("mine", stored=a_store.get(key)["stored"])
    for other in set(KEYS) - {key}:
        assert a_store.get(other)["data"] == answered(f"for {other!r}")["data"]


def test_put_again(a_store):
    """The newer value takes the place of the older."""
    a_store.put("k1", answered("old"))
    a_store.get("k1")
    a_store.put("k1", answered("new"))
    assert a_store.get("k1")["data"] == answered("new")["data"]


def test_changes_do_not_reach_it(a_store):
    """A test that changes an answer changes it for nobody else."""
    value = answered("as put")
    before = copy.deepcopy(value)
    a_store.put("k1", value)
    value["data"]["choices"].clear()
    for _ in range(2):
        got = a_store.get("k1")
        assert got == before
        got["data"]["choices"][0]["message"]["content"] = "changed"
        got["data"]["choices"].append(1)
        del got["kind"]


def test_values_of_any_size(a_store):
    """An answer of megabytes, with what JSON cannot hold in it, is kept like any other."""
    answer = Answer(Kind.RESPONSE, {"audio": b"\x00\xff" * 2_000_000, "text": "\ud83d" + "\ude00"})
    a_store.put("k1", store(answer, RECORDED))
    assert revive(a_store.get("k1")) == (answer, RECORDED)


def test_refuses_what_is_no_json(a_store):
    """A value that could not be read back is refused when it is put."""
    with pytest.raises(CacheError, match="cannot store this answer: Object of type object"):
        a_store.put("k1", {"lmcache": object()})
    assert a_store.get("k1") is None


def test_opens_again(a_store):
    """A store that was closed, twice even, goes on when it is used."""
    a_store.close()
    a_store.put("k1", answered("one"))
    a_store.close()
    a_store.close()
    assert a_store.get("k1")["data"] == answered("one")["data"]


@pytest.mark.parametrize("name", LASTING)
def test_outlives_the_process(make, name):
    """A later run gets what an earlier one has put."""
    make(name).put("k1", answered("one"))
    assert make(name).get("k1")["data"] == answered("one")["data"]


@pytest.mark.parametrize("name", STORES)
def test_ages_from_the_recording(make, name):
    """A value is gone ``ttl`` seconds after it was stored, however often it was read, and put again it lives again."""
    with freeze_time(START) as clock:
        aging = make(name, TTL)
        value = answered("one")
        clock.tick(TTL - 1)
        aging.put("k1", value)
        for _ in range(2):
            assert aging.get("k1") == value
            clock.tick(0.4)
        clock.tick(0.2)
        assert aging.get("k1") is None
        aging.put("k1", answered("two"))
        assert aging.get("k1")["data"] == answered("two")["data"]
        aging.put("k1", value)
        assert aging.get("k1") is None, "too old when it was put"


@pytest.mark.parametrize("moved", ["2020-01-01", "2040-01-01"])
@pytest.mark.parametrize("name", STORES)
def test_a_clock_that_a_test_has_moved_ages_nothing_for_others(make, name, moved):
    """What was stored where a test has moved the clock is as old for everybody else as it really is."""
    aging = make(name, TTL)
    with freeze_time(moved) as clock:
        aging.put("k1", answered("one"))
        assert aging.get("k1") is not None
        clock.tick(TTL)
        assert aging.get("k1") is None, "the test that moves it sees it grow old"
    assert aging.get("k1")["data"] == answered("one")["data"]
    old = answered("old")
    for real in (TTL / 2, TTL + 1):
        with freeze_time(moved):
            value = answered("old", real=old["stored"] - real)
            aging.put("k1", value)
            assert (aging.get("k1") is None) == (real > TTL), "and what is old really is so there, too"
        aging.put("k1", value)
        assert (aging.get("k1") is None) == (real > TTL)


@pytest.mark.parametrize("name", STORES)
def test_a_clock_that_a_test_has_set_back_makes_nothing_young(make, name):
    """What is too old stays so where a test has moved the clock before its recording."""
    aging, old = make(name, TTL), answered("old")
    aging.put("k1", old | {"stored": old["stored"] - TTL - 1})
    with freeze_time("2020-01-01"):
        assert aging.get("k1") is None


@pytest.mark.parametrize("name", STORES)
def test_a_test_moves_the_clock_to_see_what_is_stored_grow_old(make, name):
    """An answer that was stored before a test moved the clock is too old where the clock says so, and only there."""
    aging = make(name, TTL)
    value = answered("one")
    aging.put("k1", value)
    for later, is_old in ((TTL - 10, False), (TTL + 1, True)):
        with freeze_time(datetime.fromtimestamp(value["stored"] + later, UTC)):
            assert (aging.get("k1") is None) == is_old
    assert aging.get("k1") is not None


@pytest.mark.parametrize("name", STORES)
def test_lasts_without_ttl(make, name):
    """Without a ttl nothing ever grows too old."""
    with freeze_time(START) as clock:
        lasting = make(name)
        lasting.put("k1", answered("one"))
        clock.tick(10**9)
        assert lasting.get("k1") is not None


@pytest.mark.parametrize("name", STORES)
def test_of_unknown_age(make, name):
    """With a ttl, a value that does not say when it was stored, or says a time to come, is not used."""
    aging = make(name, TTL)
    for stored in (None, True, "1", float("nan"), time.time() + 10**6):
        aging.put("k1", answered("one", stored=stored))
        assert aging.get("k1") is None


def test_threads(a_store):
    """Threads may put and get at once; each gets what was put."""
    failures = []

    def work(number):
        try:
            for turn in range(20):
                key = f"k{number % 3}-{turn}"
                a_store.put(key, answered(key))
                assert a_store.get(key)["data"] == answered(key)["data"]
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


class Agreement(RuleBasedStateMachine):
    """All stores, told the same, tell the same; ``model`` is what they should tell."""

    url = ""

    @initialize(ttl=st.sampled_from([None, TTL]))
    def start(self, ttl):
        import redis

        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        self.folder = TemporaryDirectory()
        self.ttl = ttl
        self.model = {}
        self.clock = freeze_time(START)
        self.now = self.clock.start()
        self.stores = {
            name: one(Path(self.folder.name) / name, f"{self.url}?db={number}", ttl)
            for number, (name, one) in enumerate((STORES | ({"own": Own} if ttl is None else {})).items())
        }

    @rule(key=st.sampled_from(KEYS[:4]), data=plain_data)
    def put(self, key, data):
        value = store(Answer(Kind.RESPONSE, data), RECORDED)
        self.model[key] = (exactly(data), value["stored"])
        for name, one in self.stores.items():
            mine = copy.deepcopy(value)
            one.put(key, mine)
            if name != "own":  # which keeps what it is given
                mine["data"] = "changed"

    @rule(key=st.sampled_from(KEYS[:4]))
    def get(self, key):
        import time

        expected, stored = self.model.get(key, (None, 0))
        if self.ttl is not None and time.time() - stored >= self.ttl:
            expected = None
        for name, one in self.stores.items():
            value = one.get(key)
            assert (value and exactly(revive(value)[0].data)) == expected, name
            if value and name != "own":
                value["data"] = "changed"

    @rule(seconds=st.sampled_from([1, TTL // 2, TTL - 1, TTL]))
    def wait(self, seconds):
        self.now.tick(seconds)

    @rule()
    def reopen(self):
        for one in self.stores.values():
            one.close()

    def teardown(self):
        for one in self.stores.values():
            one.close()
        self.clock.stop()
        self.folder.cleanup()


def test_all_agree(empty):
    """Whatever is put, changed and waited for, every layer and every composition of them says the same."""
    Agreement.url = empty
    run_state_machine_as_test(
        Agreement,
        settings=settings(
            max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
