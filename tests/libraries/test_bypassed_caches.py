"""Caches that would answer first: bypassed while something is recorded, and restored afterwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import dspy
import litellm
import pytest
from dspy.clients.cache import request_cache

from pytest_lmcache import use_cassette
from pytest_lmcache.libraries.bypassed_caches import INSTRUCTOR, LANGCHAIN, CacheBypass
from pytest_lmcache.session import session

GONE = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def caches(nobody_records):
    """What a test leaves in front is not the next one's."""
    found = vars(dspy).get("cache"), litellm.cache
    yield
    dspy.cache, litellm.cache = found
    if found[0] is None:
        del dspy.cache


def ask_litellm(url, text="hello", **more):
    said = [{"role": "user", "content": text}]
    answer = litellm.completion(
        model="openai/gpt-4o-mini", messages=said, api_base=url, api_key="sk-local", **more
    )
    return str(answer.choices[0].message.content)


def ask_dspy(url, text="hello"):
    return dspy.LM("openai/gpt-4o-mini", api_base=url, api_key="sk-local", num_retries=0)(text)


def recorded(path, *calls):
    with use_cassette(path, mode="record") as tape:
        for call in calls:
            call()
    return tape


# ---- DSPy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
def test_a_warm_cache_of_dspys(on_disk, provider, tmp_path):
    """What a developer's DSPy has cached is asked and recorded all the same, each time; then the cache answers again."""
    dspy.configure_cache(
        enable_disk_cache=on_disk, enable_memory_cache=not on_disk, disk_cache_dir=tmp_path / "d"
    )
    warm = dspy.cache
    ask_dspy(provider.url)
    asked = provider.count
    ask_dspy(GONE)
    tape = recorded(tmp_path / "x.yaml", lambda: ask_dspy(provider.url), lambda: ask_dspy(provider.url))
    assert (tape.recorded, provider.count - asked) == (2, 2)
    assert dspy.cache is warm
    assert ask_dspy(GONE) == ["You said: hello"]
    with use_cassette(tmp_path / "x.yaml") as tape:
        ask_dspy(GONE)
        ask_dspy(GONE)
    assert tape.replayed == 2


def test_a_poisoned_cache_of_dspys(provider, tmp_path):
    """A wrong answer that lies in DSPy's cache gets into no recording, nor into a replay."""
    dspy.configure_cache(enable_disk_cache=False)
    provider.script("poison")
    ask_dspy(provider.url)
    assert ask_dspy(GONE) == ["poison"]
    recorded(tmp_path / "x.yaml", lambda: ask_dspy(provider.url))
    with use_cassette(tmp_path / "x.yaml"):
        assert ask_dspy(GONE) == ["You said: hello"]
    assert ask_dspy(GONE) == ["poison"]


def test_an_embedders_cache(provider, tmp_path):
    """The vectors that dspy.Embedder has cached are asked and recorded all the same."""
    dspy.configure_cache(enable_disk_cache=False)
    embedder = dspy.Embedder("openai/text-embedding-3-small", api_base=provider.url, api_key="sk-local")
    embedder("hello")
    assert recorded(tmp_path / "x.yaml", lambda: embedder("hello")).recorded == 1


def test_a_cache_that_the_test_configures(provider, tmp_path):
    """A cache configured in a test works there, since its first call was seen, and stays after it."""

    def configured():
        dspy.configure_cache(enable_disk_cache=False)
        ask_dspy(provider.url)
        ask_dspy(provider.url)

    before = dspy.cache
    assert recorded(tmp_path / "x.yaml", configured).recorded == 1
    assert dspy.cache is not before
    asked = provider.count
    ask_dspy(provider.url)
    assert provider.count == asked
    with use_cassette(tmp_path / "x.yaml") as tape:
        configured()
    assert tape.replayed == 1


def test_what_is_no_models_call(tmp_path, monkeypatch):
    """DSPy's cache keeps and answers what asks no model, in each mode: functions, an Embedder's, stubs."""
    counts = Counter()

    def embed(texts):
        counts["embedder"] += 1
        return [[float(len(text))] for text in texts]

    def stub(**given):
        counts["stub"] += 1
        return SimpleNamespace(data=[{"embedding": [1.0]} for _ in given["input"]])

    @request_cache()
    def plain(**given):
        counts["function"] += 1
        return given["x"]

    @request_cache()
    async def later(**given):
        counts["coroutine"] += 1
        return given["x"]

    monkeypatch.setattr(litellm, "embedding", stub)
    embedder, hosted = dspy.Embedder(embed), dspy.Embedder("openai/text-embedding-3-small")
    for number, mode in enumerate(("replay", "record", "live")):
        for _ in range(2):
            with use_cassette(tmp_path / "x.yaml", mode=mode):
                embedder([f"hello {number}"], caching=True)
                hosted([f"hello {number}"])
                assert plain(x=number) == number
                assert asyncio.run(later(x=number)) == number
        assert set(counts.values()) == {number + 1}


def test_a_function_that_asks_a_model(provider, tmp_path):
    """A cached function that asks a model is run in each test, so that each cassette has its call."""

    @request_cache()
    def outer(**_):
        return ask_litellm(provider.url), plain(x=1)

    @request_cache()
    def plain(**given):
        return given["x"]

    for name in ("x.yaml", "y.yaml"):
        assert recorded(tmp_path / name, lambda: outer(x=1)).recorded == 1


def test_live_puts_nothing_aside(provider, tmp_path):
    """In mode live DSPy's and LiteLLM's caches answer as they do without this plugin."""
    dspy.configure_cache(enable_disk_cache=False)
    litellm.cache = litellm.Cache(type="local")
    warm = dspy.cache, litellm.cache
    with use_cassette(tmp_path / "x.yaml", mode="live") as tape:
        assert (dspy.cache, litellm.cache) == warm
        for _ in range(2):
            ask_dspy(provider.url, "live")
            ask_litellm(provider.url, "live too", caching=True)
    assert len(tape.calls) == 2


def test_another_cache_object_works(tmp_path):
    """A cache that a test has for itself, and that is not dspy.cache, keeps what it is given."""
    own = dspy.clients.Cache(False, True, None)
    with use_cassette(tmp_path / "x.yaml"):
        own.put({"prompt": "one"}, "two")
        assert own.get({"prompt": "one"}) == "two"


def test_dspy_is_what_it_was(tmp_path):
    """After the last recorder nothing of DSPy's cache has changed, also where recorders nest."""
    before, methods = vars(dspy).get("cache"), dict(vars(dspy.clients.Cache))
    with use_cassette(tmp_path / "x.yaml"):
        within = dspy.cache
        with use_cassette(tmp_path / "y.yaml"):
            assert dspy.cache is within is (before or within)
        assert dspy.cache is within
    assert vars(dspy).get("cache") is before
    assert dict(vars(dspy.clients.Cache)) == methods


FRESH = """
import os, sys
from pytest_lmcache import use_cassette

with use_cassette("x.yaml") as tape:
    import dspy
    try:
        dspy.LM("openai/gpt-4o-mini", api_key="sk-local")("hello")
    except BaseException as miss:
        print(type(miss).__name__)
    tape.faults.clear()
print("cache" in vars(dspy), os.path.exists(os.environ["DSPY_CACHEDIR"]), dspy.__version__ >= "3.4")
"""


@pytest.mark.slow
def test_dspy_imported_within_the_test(tmp_path):
    """DSPy may be imported only in a test: its cache is out of the way, and none is made on disk by us."""
    environment = {
        **os.environ,
        "DSPY_CACHEDIR": str(tmp_path / "home"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", FRESH],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    miss, *told = done.stdout.split()
    # Before 3.4 DSPy makes its cache itself when it is imported.
    expected = ["False", "False", "True"] if told[-1] == "True" else ["True", "True", "False"]
    assert (miss, told) == ("CassetteMiss", expected), done.stdout + done.stderr


# ---- LiteLLM ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_warm_cache_of_litellms(is_async, provider, tmp_path):
    """What LiteLLM has cached is asked and recorded all the same; then the cache is in its place again."""
    litellm.cache = warm = litellm.Cache(type="local")
    ask_litellm(provider.url)

    def ask():
        said = [{"role": "user", "content": "hello"}]
        given = {"model": "openai/gpt-4o-mini", "messages": said, "api_base": provider.url}
        if is_async:
            asyncio.run(litellm.acompletion(**given, api_key="sk-local"))
        else:
            litellm.completion(**given, api_key="sk-local")

    assert recorded(tmp_path / "x.yaml", ask, ask).recorded == 2
    assert litellm.cache is warm


@pytest.mark.parametrize("made", ["before", "within"])
def test_a_router_that_caches(made, provider, tmp_path):
    """A Router's ``cache_responses`` of before the test answers no call of it; one of the test's own works."""
    deployment = {"model": "openai/gpt-4o-mini", "api_base": provider.url, "api_key": "sk-local"}

    def router():
        return litellm.Router(
            model_list=[{"model_name": "small", "litellm_params": deployment}],  # type: ignore[arg-type]
            cache_responses=True,
        )

    def ask(asked):
        for _ in range(2):
            asked.completion(model="small", messages=[{"role": "user", "content": f"hello {made}"}])

    litellm.cache = None
    early = router() if made == "before" else None
    assert (litellm.cache is None) == (made == "within")
    assert recorded(tmp_path / "x.yaml", lambda: ask(early or router())).recorded == (
        2 if made == "before" else 1
    )
    assert litellm.cache is not None


def test_litellm_is_what_it_was(tmp_path):
    """After the last recorder LiteLLM's cache and the class of it are what they were."""
    before = litellm.Cache.should_use_cache
    litellm.cache = kept = litellm.Cache(type="local")
    with use_cassette(tmp_path / "x.yaml"):
        assert not kept.should_use_cache()
    assert litellm.cache is kept
    assert kept.should_use_cache()
    assert litellm.Cache.should_use_cache is before


def test_another_cache_of_litellms_works(tmp_path):
    """A cache that is not ``litellm.cache``, or that the test makes, is left alone."""
    own = litellm.Cache(type="local")
    litellm.cache = before = litellm.Cache(type="local")
    with use_cassette(tmp_path / "x.yaml"):
        litellm.cache = made = litellm.Cache(type="local")
        assert [each.should_use_cache() for each in (own, before, made)] == [True, False, True]


def test_a_cache_of_litellms_that_the_test_makes(provider, tmp_path):
    """The second call is answered by the test's own ``litellm.cache``, when recorded and when replayed."""

    def test():
        litellm.cache = litellm.Cache(type="local")
        for _ in range(2):
            assert ask_litellm(provider.url, "own") == "You said: own"

    assert recorded(tmp_path / "x.yaml", test).recorded == 1
    with use_cassette(tmp_path / "x.yaml") as tape:
        test()
    assert len(tape.calls) == 1


# ---- when ------------------------------------------------------------------------------------------------


def test_watching_puts_nothing_aside():
    """A test that is not recorded runs with the caches that it has."""
    litellm.cache = kept = litellm.Cache(type="local")
    before = vars(dspy).get("cache")
    with session.watched():
        assert litellm.cache is kept
        assert vars(dspy).get("cache") is before


def test_a_library_that_is_being_imported(monkeypatch):
    """A library that is only half there is put aside when it is there, not before."""
    monkeypatch.delitem(sys.modules, "dspy.clients.cache")
    monkeypatch.delitem(sys.modules, "litellm.caching.caching")
    litellm.cache = kept = litellm.Cache(type="local")
    bypass = CacheBypass(lambda _: True, lambda _: None)
    bypass.install()
    assert kept.should_use_cache()
    monkeypatch.undo()
    bypass.install()
    assert not kept.should_use_cache()
    bypass.remove()
    assert kept.should_use_cache()


# ---- what cannot be put aside ----------------------------------------------------------------------------


def test_langchains_cache_is_named(tmp_path):
    """LangChain's cache stays where it is, and the recorder knows that it was in front."""
    caches = pytest.importorskip("langchain_core.caches")
    langchain = pytest.importorskip("langchain_core.globals")
    with use_cassette(tmp_path / "x.yaml") as tape:
        langchain.set_llm_cache(caches.InMemoryCache())
    assert tape.caches_in_the_way == {LANGCHAIN}
    with use_cassette(tmp_path / "x.yaml") as tape:
        langchain.set_llm_cache(None)
    assert tape.caches_in_the_way == {LANGCHAIN}
    with use_cassette(tmp_path / "x.yaml") as tape:
        pass
    assert tape.caches_in_the_way == set()


def test_instructors_cache_is_named(provider, tmp_path):
    """A client of instructor's that has a cache is told of, and its cache answers on."""
    instructor = pytest.importorskip("instructor")
    cache = pytest.importorskip("instructor.cache")
    from pydantic import BaseModel

    class Told(BaseModel):
        answer: str

    before = cache.load_cached_response
    client = instructor.from_litellm(litellm.completion, mode=instructor.Mode.JSON)
    cached = instructor.from_litellm(
        litellm.completion, mode=instructor.Mode.JSON, cache=cache.AutoCache(maxsize=10)
    )

    def ask(by):
        said = [{"role": "user", "content": "hello"}]
        by.create(
            model="openai/gpt-4o-mini",
            messages=said,
            response_model=Told,
            api_base=provider.url,
            api_key="sk-local",
        )

    tape = recorded(tmp_path / "x.yaml", lambda: ask(client), lambda: ask(client))
    assert (tape.recorded, tape.caches_in_the_way) == (2, set())
    tape = recorded(tmp_path / "y.yaml", lambda: ask(cached), lambda: ask(cached))
    assert (tape.recorded, tape.caches_in_the_way) == (1, {INSTRUCTOR})
    assert cache.load_cached_response is before
