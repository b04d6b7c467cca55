"""What stands behind the cassette: asked while recording, never on replay; and a cache without a cassette."""

import asyncio
import contextlib
import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import litellm
import openai
import pytest
from freezegun import freeze_time
from provider import Event, Provider, Reply

import pytest_lmcache
from pytest_lmcache import (
    Cache,
    CacheError,
    CassetteMiss,
    LMCacheWarning,
    SettingsError,
    configure_cache,
    use_cassette,
)
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.layers.stack import Stats
from pytest_lmcache.libraries import recorded_call
from pytest_lmcache.libraries.litellm.chunks import bytes_from_plain, bytes_to_plain
from pytest_lmcache.libraries.litellm.usage import without_usage
from pytest_lmcache.session import session
from pytest_lmcache.settings import CacheSettings

NOBODY = "http://127.0.0.1:9/v1"
GONE = "the provider's address, where it answers nobody"


RUNNING = []


@pytest.fixture(scope="module")
def provider():
    asyncio.run(asyncio.sleep(0))
    with Provider(numbered=True) as running:
        RUNNING.append(running)
        yield running
        RUNNING.remove(running)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Each test has a cache of its own behind its cassettes, and stands in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    pytest_lmcache.cache = with_own = Cache(disk_cache_dir=tmp_path / "disk")
    with session.configured(session.configuration._replace(layers=CacheSettings())):
        yield with_own
    with_own.close()
    pytest_lmcache.cache = None


def ask(text, url=GONE, **more):
    answer = litellm.completion(**request(text, url, **more))
    if more.get("stream"):
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    return answer.choices[0].message.content


async def aask(text, url=GONE, **more):
    answer = await litellm.acompletion(**request(text, url, **more))
    if more.get("stream"):
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])
    return answer.choices[0].message.content


def request(text, url, **more):
    said = [{"role": "user", "content": text}]
    settings = {"model": "openai/gpt-4o-mini", "api_key": "sk-local", "max_retries": 0}
    return {**settings, **at(url), "messages": said, **more}


def at(url):
    """The arguments that send a call to an address; to ``GONE``, to the provider with a header that it refuses."""
    if url != GONE:
        return {"api_base": url}
    [running] = RUNNING
    return {"api_base": running.url, "extra_headers": {"x-refuse": "yes"}}


def lose(path):
    """What a crash, or a failing test, leaves of a cassette."""
    Path(path).unlink()


def fresh_process(cache):
    """What a new process finds: the disk, and an empty memory."""
    cache._memory_cache.clear()  # type: ignore[attr-defined]


# ---- behind a cassette


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_paid_answer_outlives_a_failing_test(way, stream, provider, cache, tmp_path):
    """A test that fails writes no cassette; recorded again it gets the same answers from disk, unpaid."""

    def call(text, url):
        return ask(text, url, stream=stream) if way == "sync" else asyncio.run(aask(text, url, stream=stream))

    with pytest.raises(ZeroDivisionError), use_cassette("x.yaml", mode="record"):
        first = call("one", provider.url)
        raise ZeroDivisionError
    assert not Path("x.yaml").exists()
    fresh_process(cache)
    before = provider.count
    with use_cassette("x.yaml", mode="record") as tape:
        assert call("one", GONE) == first
    assert provider.count == before
    assert [asked.source for asked in tape.calls] == ["disk"]
    assert tape.recorded == 1
    with use_cassette("x.yaml") as tape:
        assert call("one", GONE) == first
    assert [asked.source for asked in tape.calls] == ["cassette"]


def test_a_failing_block_says_where_its_answers_came_from(provider):
    """What leaves a recording block as an error has a note of where the answers came from, and how to ask again."""
    with pytest.raises(ZeroDivisionError) as failed, use_cassette("x.yaml", mode="record"):
        ask("one", provider.url)
        raise ZeroDivisionError
    [note] = failed.value.__notes__
    assert "1 from the provider, asked just now" in note
    assert note.endswith('use_cassette("x.yaml", mode="rewrite")')
    with pytest.raises(ZeroDivisionError) as failed, use_cassette("x.yaml", mode="live"):
        raise ZeroDivisionError
    assert not hasattr(failed.value, "__notes__")


def test_promoted_to_memory(provider, cache):
    """What the disk had is in memory from then on; each call says where its answer came from."""
    sources = []
    for number in range(4):
        with use_cassette("x.yaml", mode="record") as tape:
            ask("one", provider.url)
        sources += [call.source for call in tape.calls]
        lose("x.yaml")
        if not number:
            fresh_process(cache)
    assert sources == ["provider", "disk", "memory", "memory"]
    stats = cache.stats()
    assert (stats["memory"].hits, stats["disk"].hits) == (2, 1)


def refused(*_):
    raise SystemExit("asked")


def test_replay_asks_no_layer(provider, monkeypatch):
    """A warm cache turns no test green that fails where there is none: on replay only the cassette counts."""
    with use_cassette("warm.yaml", mode="record"):
        ask("one", provider.url)
    with pytest.raises(CassetteMiss), use_cassette("cold.yaml"):
        ask("one", provider.url)
    with use_cassette("warm.yaml") as tape, monkeypatch.context() as patch:
        patch.setattr(Cache, "get", refused)
        patch.setattr(Cache, "put", refused)
        ask("one")
    assert tape.replayed == 1


def test_what_came_from_a_layer_is_recorded_as_it_was_given(provider, cache):
    """A cassette written from disk says when the provider answered and how long it took, as the first did."""
    with use_cassette("x.yaml", mode="record") as tape:
        ask("one", provider.url)
    first = Path("x.yaml").read_text()
    lose("x.yaml")
    fresh_process(cache)
    with use_cassette("x.yaml", mode="record") as again:
        ask("one")
    assert again.calls[0].seconds == pytest.approx(tape.calls[0].seconds)
    assert again.calls[0].tokens == tape.calls[0].tokens
    assert Path("x.yaml").read_text().partition("---")[2] == first.partition("---")[2]


def test_identical_calls_are_kept_apart(provider, cache):
    """The n-th identical call of a test gets the n-th answer from the layers too."""
    with pytest.raises(ZeroDivisionError), use_cassette("x.yaml", mode="record"):
        first = [ask("again", provider.url) for _ in range(3)]
        raise ZeroDivisionError
    assert len(set(first)) == 3
    fresh_process(cache)
    with use_cassette("x.yaml", mode="record") as tape:
        assert [ask("again") for _ in range(3)] == first
    assert {call.source for call in tape.calls} == {"disk"}


def test_rewrite_asks_the_provider_and_refreshes_the_layers(provider):
    """A rewrite is paid for; what it got is what the layers have from then on."""
    with use_cassette("x.yaml", mode="record"):
        old = ask("news", provider.url)
    with use_cassette("x.yaml", mode="rewrite") as tape:
        new = ask("news", provider.url)
    assert tape.calls[0].source == "provider"
    assert new != old
    lose("x.yaml")
    with use_cassette("x.yaml", mode="record"):
        assert ask("news") == new


def test_live_stores_nothing(provider, cache):
    """In mode live no layer is asked and none keeps anything."""
    with use_cassette("x.yaml", mode="live"):
        ask("one", provider.url)
    assert not any(stats.puts or stats.hits or stats.misses for stats in cache.stats().values())


@pytest.mark.slow
@pytest.mark.usefixtures("collected")
def test_errors_and_half_read_streams_are_not_kept(provider, cache):
    """A layer keeps whole answers only: another test may read on, and an error may be gone tomorrow."""
    with use_cassette("x.yaml", mode="record"):
        provider.script(Reply(failure="invalid_request"))
        with pytest.raises(litellm.BadRequestError):
            ask("error", provider.url)
        next(iter(litellm.completion(**request("half", provider.url, stream=True))))
    assert all(not stats.puts for stats in cache.stats().values())


@pytest.mark.slow
def test_a_kill_loses_nothing_that_was_paid_for(provider, tmp_path):
    """After kill -9 in the middle of 20 calls, recording again asks the provider for the rest alone."""
    code = f"""
import os, signal, sys
import litellm
import pytest_lmcache
pytest_lmcache.configure_cache(disk_cache_dir={str(tmp_path / "killed")!r})
with pytest_lmcache.use_cassette("x.yaml", mode="record") as tape:
    for number in range(20):
        if number == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        litellm.completion(
            model="openai/gpt-4o-mini", messages=[{{"role": "user", "content": f"call {{number}}"}}],
            api_base={provider.url!r}, api_key="sk-local",
        )
print([call.source for call in tape.calls].count("disk"))
"""
    environ = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    before = provider.count
    killed = subprocess.run([sys.executable, "-c", code, "12"], env=environ, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert provider.count - before == 12
    again = subprocess.run(
        [sys.executable, "-c", code, "-1"],
        env=environ,
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert again.stdout.strip() == "12"
    assert provider.count - before == 20


@pytest.mark.parametrize("stream", [False, True])
def test_a_secret_that_a_layer_holds_is_in_no_cassette(stream, provider):
    """What a test without a rule has put into a layer is redacted for a test that has one."""
    provider.script(Reply(text="It is customer-12345678."))
    with use_cassette("x.yaml", mode="record"):
        assert ask("Who is it?", provider.url, stream=stream) == "It is customer-12345678."
    lose("x.yaml")
    with use_cassette("x.yaml", mode="record", redact="customer-[0-9]+") as tape:
        assert ask("Who is it?", stream=stream) == "It is <redacted:pattern>."
    assert tape.calls[0].source == "memory"
    assert "customer-12345678" not in Path("x.yaml").read_text()


def test_a_retry_takes_the_place_of_the_call_that_failed(provider):
    """Of identical calls at once one fails: its retry is asked, and gets no sibling's answer."""
    retry = request("sample", provider.url, num_retries=0)

    async def sample():
        provider.script(Reply(failure="rate_limit"))
        several = [litellm.acompletion(**retry) for _ in range(3)]
        return [*await asyncio.gather(*several, return_exceptions=True), await litellm.acompletion(**retry)]

    before = provider.count
    with use_cassette("x.yaml", mode="record") as tape:
        answers = asyncio.run(sample())
    assert provider.count - before == 4
    said = [answer.choices[0].message.content for answer in answers if not isinstance(answer, Exception)]
    assert len(set(said)) == len(said) == 3
    assert {call.source for call in tape.calls} == {"provider"}


@pytest.mark.parametrize("fails", ["get", "put"])
def test_a_failing_own_cache_is_not_swallowed(fails, provider):
    """What an own cache fails with fails the test, also where the code under test expects errors of a provider."""

    def broken(*_):
        raise ConnectionError("the store is away")

    own = type("Broken", (Cache,), {fails: broken})(enable_disk_cache=False)
    with (
        pytest.raises(ConnectionError, match="the store is away"),
        use_cassette("x.yaml", mode="record", cache=own),
        contextlib.suppress(Exception),
    ):
        ask("x", provider.url)
    assert not Path("x.yaml").exists()


@pytest.mark.parametrize("foreign", [{"a": 1}, {"lmcache": 2}], ids=["no value", "newer"])
def test_what_is_no_value_in_a_layer_is_asked_anew(foreign, provider, cache):
    """What somebody else, or a newer version, has left under a call's key fails no recording."""
    with use_cassette("x.yaml", mode="record") as tape:
        ask("foreign", provider.url)
    cache.put(tape.calls[0].cache_key(), foreign)
    for source in ("provider", "memory"):
        lose("x.yaml")
        with use_cassette("x.yaml", mode="record") as tape:
            ask("foreign", provider.url)
        assert tape.calls[0].source == source


POISON = {
    "seconds": ["abc", -1, True, 1e400, 10**400],
    "data": [[1], "x", None],
    "hidden": ["x", [1]],
    "usd": ["abc", -0.5, True],
    "error": [{"class": "RateLimitError"}],
    "complete": [False],
    "kind": ["error", "stream", "reply"],
    "recorded": ["2026\n--- # 2\nkey: kx", "2026-11-23\n09:12:44", "2199-01-01T00:00:00Z", "today", 5],
}


@pytest.mark.parametrize("name", POISON)
def test_a_value_that_cannot_be_is_asked_anew(name, provider, cache):
    """What somebody has changed in a layer, field by field, gets into no cassette and ends no test."""
    with use_cassette("x.yaml", mode="record") as tape:
        first = ask("poison", provider.url)
    key = tape.calls[0].cache_key()
    value = dict(cache.get(key) or {})
    for wrong in POISON[name]:
        fresh_process(cache)
        cache.put(key, value | {name: wrong})
        lose("x.yaml")
        with use_cassette("x.yaml", mode="record") as tape:
            assert ask("poison", provider.url) != first
        assert tape.calls[0].source == "provider", wrong
        assert Path("x.yaml").read_text().count("\n--- ") == 1


@pytest.mark.parametrize("path", ["x.yaml", None])
def test_an_answer_of_a_layer_that_litellm_cannot_read(path, provider, cache):
    """The error names the layer, not the cassette, and the command that asks the provider again."""
    with use_cassette(path, mode="record") as tape:
        ask("odd", provider.url)
    fresh_process(cache)
    key = tape.calls[0].cache_key()
    cache.put(key, {**(cache.get(key) or {}), "data": {"choices": 5}})
    if path:
        lose(path)
    message = r"LiteLLM cannot read the answer from memory: .*\nAsk the provider again: .*rewrite"
    with pytest.raises(CacheError, match=message), use_cassette(path, mode="record"):
        ask("odd", provider.url)
    with use_cassette(path, mode="rewrite"):
        ask("odd", provider.url)


def test_an_own_cache_that_gives_what_cannot_be(provider):
    """A cache of the user's that gives something else than it was given fails the test, by the field's name."""
    own = Own()
    with use_cassette(None, cache=own):
        ask("own", provider.url)
    own._memory_cache['"own"']["seconds"] = "abc"
    with pytest.raises(CacheError, match="its `seconds` is invalid"), use_cassette(None, cache=own):
        ask("own", provider.url)


def test_each_call_is_one_look(provider, cache):
    """The layers' counts are those of the calls."""
    with use_cassette("x.yaml", mode="record"):
        ask("counted", provider.url)
    lose("x.yaml")
    with use_cassette("x.yaml", mode="record"):
        ask("counted")
        ask("counted elsewhere", provider.url)
    assert cache.stats()["memory"] == Stats(hits=1, misses=2, puts=2)
    assert cache.stats()["disk"] == Stats(hits=0, misses=2, puts=2)


def test_changing_an_answer_changes_no_other(provider):
    """What one test does to an answer is not seen by another that gets the same from memory."""
    with use_cassette("x.yaml", mode="record"):
        answer = litellm.completion(**request("one", provider.url))
        said = answer.choices[0].message.content
        answer.choices[0].message.content = "changed"
        answer.usage.total_tokens = 0
    for _ in range(2):
        lose("x.yaml")
        with use_cassette("x.yaml", mode="record") as tape:
            answer = litellm.completion(**request("one", GONE))
            assert answer.choices[0].message.content == said
            assert answer.usage.total_tokens > 0
            answer.choices[0].message.content = "changed"
        assert tape.calls[0].source == "memory"


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_broken_layer_warns_once_and_recording_goes_on(way, provider, tmp_path):
    """Where the disk cannot be used there is one warning, and the cassette is recorded all the same."""
    (tmp_path / "file").write_text("not a folder")
    broken = Cache(disk_cache_dir=tmp_path / "file")
    with (
        pytest.warns(LMCacheWarning, match="disk") as warned,
        use_cassette("x.yaml", mode="record", cache=broken),
    ):
        for text in ("one", "two"):
            ask(text, provider.url) if way == "sync" else asyncio.run(aask(text, provider.url))
    [warning] = [each for each in warned if each.category is LMCacheWarning]
    assert Path(warning.filename).name == "test_behind_cassettes.py", "it points at the user's line"
    with use_cassette("x.yaml"):
        ask("one")


def test_a_warning_that_is_an_error_fails_the_test_and_loses_nothing(provider, tmp_path):
    """Under -W error a broken layer fails the block at its end; the calls themselves go on."""
    (tmp_path / "file").write_text("not a folder")
    broken = Cache(disk_cache_dir=tmp_path / "file")
    with pytest.raises(LMCacheWarning), use_cassette("x.yaml", mode="record", cache=broken):
        said = ask("one", provider.url)
        assert said == ask("one", provider.url)[: len(said)] or said
    with use_cassette("x.yaml", mode="record", cache=broken) as tape:
        assert ask("one") == said
    assert tape.calls[0].source == "memory"


# ---- whose answers a cassette's recording gets


WAYS = {
    "api_base": lambda url, _: {"api_base": url},
    "base_url": lambda url, _: {"base_url": url},
    "client": lambda url, _: {"client": openai.OpenAI(base_url=url, api_key="sk-local")},
    "litellm.api_base": lambda url, patch: patch.setattr(litellm, "api_base", url),
    "OPENAI_BASE_URL": lambda url, patch: patch.setenv("OPENAI_BASE_URL", url),
    "OPENAI_API_BASE": lambda url, patch: patch.setenv("OPENAI_API_BASE", url),
}


@pytest.mark.slow
@pytest.mark.parametrize("path", [None, "x.yaml"])
@pytest.mark.parametrize("way", WAYS)
def test_two_servers_that_are_asked_the_same(way, path, provider, cache, monkeypatch):
    """However a call is sent to a server, the layers give it that server's answer, whoever is asked first."""

    def call(url):
        more = WAYS[way](url, monkeypatch) or {}
        with contextlib.closing(more["client"]) if "client" in more else contextlib.nullcontext():
            answer = litellm.completion(
                model="openai/gpt-4o-mini", messages=[{"role": "user", "content": way}], api_key="x", **more
            )
        return answer.choices[0].message.content

    with Provider() as other:
        with contextlib.suppress(ZeroDivisionError), use_cassette(path, mode="record"):
            said = [call(other.url), call(provider.url)]
            raise ZeroDivisionError
        fresh_process(cache)
        with use_cassette(path, mode="record") as tape:
            assert [call(provider.url), call(other.url)] == said[::-1]
        assert {asked.source for asked in tape.calls} == {"disk"}


def test_a_router_sends_each_deployment_to_its_server(provider):
    """A Router's deployments of one model at two addresses are two servers."""
    with Provider() as other, use_cassette(None, repeat="error") as tape:
        for url in (provider.url, other.url, provider.url):
            there = {"model": "openai/gpt-4o-mini", "api_base": url, "api_key": "sk-local"}
            router = litellm.Router(model_list=[{"model_name": "it", "litellm_params": there}])
            router.completion(model="it", messages=[{"role": "user", "content": "routed"}])
    owners = [call.owner for call in tape.calls]
    assert owners[0] == owners[2] != owners[1]
    assert [call.source for call in tape.calls] == ["provider"] * 3


def test_an_answer_says_who_asked_first(provider, cache):
    """A value keeps which test or block asked; one of an earlier version, which does not say, is used all the same."""
    with use_cassette("x.yaml", mode="record") as tape:
        ask("who", provider.url)
    key, earlier = tape.calls[0].cache_key(), {}
    for known in ("x.yaml", ""):
        lose("x.yaml")
        with use_cassette("x.yaml", mode="record") as tape:
            ask("who")
        assert (tape.calls[0].source, tape.calls[0].asked_by) == ("memory", known)
        assert tape.calls[0].asked_at.startswith("20")
        earlier = dict(cache.get(key) or {})
        earlier.pop("asked_by", None)
        cache.put(key, earlier)


# ---- without a cassette


def test_layers_alone(provider, cache):
    """Without a cassette the layers answer, and what they do not have is asked, in the default mode."""
    before = provider.count
    with use_cassette(None) as tape:
        first = ask("one", provider.url)
    assert (tape.recorded, tape.calls[0].source, tape.calls[0].request["model"]) == (
        0,
        "provider",
        "openai/gpt-4o-mini",
    )
    fresh_process(cache)
    with use_cassette(None) as tape:
        assert [ask("one"), ask("one")] == [first, first]
    assert [call.source for call in tape.calls] == ["disk", "memory"]
    assert provider.count - before == 1
    assert tape.calls[0].answer is not None
    assert not list(Path().glob("*.yaml"))


def test_memory_only(provider, tmp_path):
    """With ``enable_disk_cache=False`` nothing is written to disk, and the next block of the process has it."""
    for expected in ("provider", "memory"):
        with use_cassette(None, enable_disk_cache=False) as tape:
            ask("memory only", provider.url)
        assert [call.source for call in tape.calls] == [expected]
    assert [path.name for path in tmp_path.iterdir()] == []


def test_both_off(provider):
    """With both layers off each call is asked: for debugging."""
    before = provider.count
    with use_cassette(None, enable_disk_cache=False, enable_memory_cache=False) as tape:
        answers = [ask("debug", provider.url) for _ in range(2)]
    assert answers[0] != answers[1]
    assert provider.count - before == 2
    assert [call.source for call in tape.calls] == ["provider", "provider"]


@pytest.mark.parametrize(
    ("repeat", "expected"), [("last", [0, 1, 1, 1]), ("cycle", [0, 1, 0, 1]), ("error", [0, 1, 2, 3])]
)
def test_identical_calls_without_a_cassette(repeat, expected, provider, cache):
    """Of identical calls the layers give what they have in order; then ``repeat`` decides, error asks."""
    with use_cassette(None, repeat="error"):
        known = [ask(repeat, provider.url) for _ in range(2)]
    with use_cassette(None, repeat=repeat):
        said = [ask(repeat, provider.url) for _ in range(4)]
    new = [text for text in said if text not in known]
    assert said == [[*known, *new][place] for place in expected]


def test_replay_without_a_cassette_asks_nobody(provider):
    """With mode replay what no layer has is a miss, also where there is no cassette."""
    with use_cassette(None, enable_disk_cache=False):
        ask("known", provider.url)
    with use_cassette(None, mode="replay", enable_disk_cache=False):
        ask("known")
    with (
        pytest.raises(CassetteMiss, match="Looked in  the cache layers"),
        use_cassette(None, mode="replay", enable_disk_cache=False),
    ):
        ask("unknown", provider.url)


def test_ttl_counts_from_the_recording(provider):
    """An answer is forgotten when its time is over, however often it was read meanwhile."""
    with freeze_time("2026-01-01") as clock:
        sources = []
        for _ in range(4):
            with use_cassette(None, enable_disk_cache=False, ttl=100) as tape:
                ask("ttl", provider.url)
            sources.append(tape.calls[0].source)
            clock.tick(40)
    assert sources == ["provider", "memory", "memory", "provider"]


# ---- own caches


class Own(Cache):
    """As in the documentation: all three overridden, on the memory layer's mapping alone."""

    def cache_key(self, request):
        return json.dumps(request["messages"][-1]["content"])

    def get(self, key):
        return self._memory_cache.get(key)

    def put(self, key, value):
        self._memory_cache[key] = value


class Uninitialised(Own):
    """One that does not call ``super().__init__()``."""

    def __init__(self, name):
        self.name = name


@pytest.mark.parametrize("own", [Own(), Uninitialised("x")], ids=["plain", "uninitialised"])
@pytest.mark.parametrize("where", ["argument", "module"])
def test_own_cache(where, own, provider, monkeypatch):
    """A subclass that overrides all three works as it stands: its key is the key, one answer serves two models."""
    more = {"cache": own} if where == "argument" else {}
    if where == "module":
        monkeypatch.setattr(pytest_lmcache, "cache", own)
    text = f"{where} {type(own).__name__}"
    with use_cassette(None, **more) as tape:
        first = ask(text, provider.url)
        assert ask(text, model="openai/gpt-4o", temperature=1) == first
        with pytest.raises(litellm.InternalServerError):
            ask(f"not {text}")
    assert [call.source for call in tape.calls] == ["provider", "cache", "provider"]


def test_an_own_cache_gets_its_own_keys(provider):
    """``get`` and ``put`` are given what ``cache_key`` gave; another kind of call, or the n-th, has another key."""
    expected = [['"keys"'], ['"keys"', "#2"], ['"keys"', "completion stream"], ['"keys\\"\\u001f#2"']]
    for path in (None, "x.yaml"):
        own = Own()
        with use_cassette(path, mode="record", repeat="error", cache=own):
            ask("keys", provider.url)
            ask("keys", provider.url)
            ask("keys", provider.url, stream=True)
            ask('keys"\x1f#2', provider.url)
        parts = [key.split("\x1f") for key in own._memory_cache]
        owners = {part for key in parts for part in key if part.startswith("@")}
        assert [[part for part in key if part not in owners] for key in parts] == expected
        assert len(owners) == (path is not None)


def test_the_key_of_an_own_cache_is_that_of_its_cassettes(provider):
    """A cassette behind which an own cache stands is looked up by the cache's key; ``key=`` has the last word."""
    with use_cassette("x.yaml", mode="record", cache=Own()):
        said = ask("shared", provider.url)
    with use_cassette("x.yaml", cache=Own()):
        assert ask("shared", model="openai/gpt-4o") == said
    with pytest.raises(CassetteMiss), use_cassette("x.yaml", cache=Own(), key="exact"):
        ask("shared", model="openai/gpt-4o")


def test_configure_cache(provider, tmp_path):
    """``configure_cache`` replaces the cache of all that names no other; what cannot be is refused."""
    configure_cache(disk_cache_dir=tmp_path / "here", enable_memory_cache=False)
    for expected in ("provider", "disk"):
        with use_cassette(None) as tape:
            ask("configured", provider.url)
        assert tape.calls[0].source == expected
    assert (tmp_path / "here").is_dir()
    with use_cassette(None, ttl=3600) as tape:
        ask("configured", provider.url)
    assert tape.calls[0].source == "disk", "a nearer setting goes with those of configure_cache"
    with pytest.raises(SettingsError, match=r"configure_cache\(\): there is no setting 'enable_disk'"):
        configure_cache(enable_disk=False)
    with pytest.raises(SettingsError, match="memory_max_entries"):
        configure_cache(memory_max_entries=0)


class Empty(Cache):
    """A cache that says how much it holds."""

    def __len__(self):
        return 0


def test_an_empty_cache_is_one(provider, monkeypatch):
    """A cache that is false as a truth value is used all the same."""
    own = Empty(enable_disk_cache=False)
    monkeypatch.setattr(pytest_lmcache, "cache", own)
    with use_cassette(None):
        ask("empty", provider.url)
    assert own.stats()["memory"].puts == 1


@pytest.mark.parametrize("wrong", ["x", object(), Cache], ids=["text", "object", "class"])
def test_what_is_no_cache_is_refused(wrong, monkeypatch):
    """Something else in the place of a cache is told by its name."""
    monkeypatch.setattr(pytest_lmcache, "cache", wrong)
    with (
        pytest.raises(SettingsError, match=r"pytest_lmcache\.cache: cache cannot be .*; it takes a"),
        use_cassette(None),
    ):
        ask("x")


def test_an_unset_module_cache_is_the_configured(monkeypatch):
    """``pytest_lmcache.cache`` is there without being set: the configuration's cache."""
    monkeypatch.setattr(pytest_lmcache, "cache", None)
    assert pytest_lmcache.cache is session.caches.by_settings()


# ---- what an answer says


def hits(answer):
    params = answer._hidden_params
    hidden = params.get("cache_hit") if isinstance(params, dict) else getattr(params, "cache_hit", None)
    return getattr(answer, "cache_hit", None), hidden


def test_an_answer_says_that_it_is_not_the_providers(provider):
    """``cache_hit`` tells a replayed answer and one from a layer from a live one; ``model_dump()`` does not show it."""
    with use_cassette("x.yaml", mode="record"):
        live = litellm.completion(**request("hit", provider.url))
        vectors = litellm.embedding(
            model="openai/text-embedding-3-small", input=["x"], api_base=provider.url, api_key="sk-local"
        )
        events = litellm.responses(
            model="openai/gpt-4o", input="x", api_base=provider.url, api_key="sk-local"
        )
    assert not hits(live)[0]
    assert not hits(live)[1]
    for block in (use_cassette("x.yaml"), use_cassette("x.yaml", mode="record")):
        with block:
            replayed = litellm.completion(**request("hit", GONE))
            embedded = litellm.embedding(
                model="openai/text-embedding-3-small", input=["x"], api_key="sk-local", **at(GONE)
            )
            responded = litellm.responses(model="openai/gpt-4o", input="x", api_key="sk-local", **at(GONE))
        lose("x.yaml")
        assert hits(replayed) == hits(embedded) == hits(responded) == (True, True)
        for one, other in ((replayed, live), (embedded, vectors), (responded, events)):
            assert dict(one) == dict(other)
            assert list(one) == list(other)
            assert one.model_dump_json() == other.model_dump_json()
            for copied in (one.model_copy(), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
                assert dict(copied) == dict(one)
                assert hits(copied) == (True, True)
        assert replayed.model_dump() == live.model_dump()
        assert embedded.model_dump() == vectors.model_dump()
        assert responded.model_dump() == events.model_dump()


def test_a_message_of_anthropics_says_it_too(provider):
    """The plain dict of ``anthropic.messages`` is marked by attributes: as data it is what the provider's is."""

    def ask_claude(base, *before):
        said = {
            "model": "anthropic/claude-sonnet-4-5",
            "max_tokens": 9,
            "api_key": "sk-local",
            "api_base": base,
        }
        asked = [{"role": "user", "content": "x"}, *before]
        answer = asyncio.run(litellm.anthropic.messages.acreate(messages=asked, **said))
        del answer["usage"]  # to which LiteLLM 1.83 adds a sum afterwards, where somebody may listen
        return answer

    def again(base, answer):
        return ask_claude(base, answer, {"role": "user", "content": "and then?"})

    with use_cassette("x.yaml", mode="record"):
        live = ask_claude(provider.base)
        again(provider.base, live)
    assert not hasattr(live, "cache_hit")
    before = provider.count
    for block in (use_cassette("x.yaml"), use_cassette("x.yaml", mode="record")):
        with block as tape:
            replayed = ask_claude(provider.base)
            again(provider.base, replayed)
        written = Path("x.yaml").read_text(encoding="utf-8")
        lose("x.yaml")
        assert hits(replayed) == (True, True)
        assert isinstance(replayed, dict)
        assert replayed == live
        assert json.dumps(replayed) == json.dumps(live)
        for copied in (copy.copy(replayed), copy.deepcopy(replayed), pickle.loads(pickle.dumps(replayed))):
            assert copied == live
            assert hits(copied) == (True, True)
        assert "cache_hit" not in json.dumps([call.request for call in tape.calls])
    assert "cache_hit" not in written
    assert provider.count == before


def test_usage_empty(provider):
    """With ``usage="empty"`` a replayed answer took no tokens; what was saved is counted all the same."""
    with use_cassette("x.yaml", mode="record", usage="empty"):
        live = litellm.completion(**request("empty", provider.url)).usage.total_tokens
        asked = {"stream": True, "stream_options": {"include_usage": True}}
        ask("empty", provider.url, **asked)
    assert live > 0
    with use_cassette("x.yaml", usage="empty") as tape:
        answer = litellm.completion(**request("empty", GONE))
        usage = [
            chunk.usage for chunk in litellm.completion(**request("empty", GONE, **asked)) if "usage" in chunk
        ]
    assert answer.usage.total_tokens == answer.usage.prompt_tokens == 0
    assert [each.total_tokens for each in usage if each] == [0]
    assert litellm.completion_cost(answer) == 0
    assert tape.usage["total_tokens"] > live


def test_usage_empty_in_server_sent_events(provider):
    """The same for Anthropic's events, whose text holds the tokens."""

    async def ask_claude(base):
        stream = await litellm.anthropic.messages.acreate(
            model="anthropic/claude-sonnet-4-5",
            messages=[{"role": "user", "content": "x"}],
            max_tokens=9,
            stream=True,
            api_base=base,
            api_key="sk-local",
        )
        return b"".join([chunk async for chunk in stream])

    with use_cassette("x.yaml", mode="record"):
        live = asyncio.run(ask_claude(provider.base))
    with use_cassette("x.yaml", usage="empty"):
        empty = asyncio.run(ask_claude(NOBODY))
    assert b'"output_tokens":' in live
    assert b'"output_tokens": 0' in empty
    assert b'"input_tokens": 0' in empty
    assert [line for line in empty.split(b"\n") if b"usage" not in line] == [
        line for line in live.split(b"\n") if b"usage" not in line
    ]


COUNTS = {
    "input_tokens": 7,
    "speed": "fast",
    "cost": 0.5,
    "is_byok": True,
    "details": None,
    "iterations": [{"type": "message", "output_tokens": 3}],
}
NONE = {
    "input_tokens": 0,
    "speed": "fast",
    "cost": 0.0,
    "is_byok": True,
    "details": None,
    "iterations": [{"type": "message", "output_tokens": 0}],
}
SAID = {"content": [{"type": "tool_use", "input": {"usage": 120}}], "tools": [{"properties": {"usage": 1}}]}


@pytest.mark.parametrize("kind", ["bytes", "text", "event", "chunk"])
@pytest.mark.parametrize("place", ["usage", "message", "response"])
def test_usage_empty_changes_no_word_of_the_models(place, kind):
    """Tokens are taken out where a response or an event tells them; a ``usage`` elsewhere is something said."""

    def event(counts):
        told = {"usage": counts}
        return SAID | (told if place == "usage" else {place: SAID | told})

    def chunk(counts):
        lines = f"event: é\ndata: {json.dumps(event(counts))}\n\n"
        kinds = {"bytes": {"bytes": lines}, "text": {"text": lines}}
        return {**kinds, "event": {"event": event(counts)}, "chunk": event(counts)}[kind]

    stored = Answer(Kind.STREAM, [chunk(COUNTS), chunk(COUNTS)], usd=1.5, hidden={"usage": COUNTS, "x": 1})
    empty = without_usage(stored)
    assert empty.with_whole_chunks().data == [chunk(NONE), chunk(NONE)]
    assert (empty.usd, empty.tokens, empty.hidden) == (0.0, (0, 0), {"usage": NONE, "x": 1})
    assert stored.data == [chunk(COUNTS), chunk(COUNTS)]
    whole = Answer(Kind.RESPONSE, SAID | {"usage": COUNTS})
    assert without_usage(whole).data == SAID | {"usage": NONE}
    error = Answer(Kind.ERROR, {"message": "x", "usage": COUNTS})
    assert without_usage(error).data == error.data


def test_usage_empty_in_bytes_that_are_no_text():
    """Wherever the wire was cut, in a letter too, and whatever it holds, tokens are taken out and no other byte changes."""
    other = b'data: {"text": "Pel\xc3\xa9", "usage": 1\ndata: [{"usage": 2}]\n\ndata: \xff\r\n\r\n\n\n\n'
    lines = [
        b'data: {"usage": {"output_tokens": %d}}\n\n',
        other,
        b'data:{"usage": {"a": 0}}\n\nda',
        b"ta: x",
    ]
    wire = b"".join(lines)
    for size in (1, 7, len(wire)):
        cut = [(wire % 5)[start : start + size] for start in range(0, len(wire), size)]
        chunks = [bytes_to_plain(piece) for piece in cut]
        empty = without_usage(Answer(Kind.STREAM, chunks)).data
        assert b"".join(bytes_from_plain(chunk) for chunk in empty) == wire % 0


# ---- the provider's own prompt cache


def claude(url, **more):
    manual = {"type": "text", "text": "A long manual."}
    said = [{"role": "system", "content": [manual]}, {"role": "user", "content": "What does it say?"}]
    settings = {"model": "anthropic/claude-sonnet-4-5", "api_base": url, "api_key": "sk-local"}
    return litellm.completion(**{**settings, "messages": said, **more})


def test_prompt_caching_reaches_the_provider_and_changes_no_key(provider):
    """Switching the provider's cache on puts its mark where it belongs on the wire and invalidates no recording."""
    with use_cassette("x.yaml", mode="record"):
        live = claude(provider.base)
    assert "cache_control" not in json.dumps(provider.requests[-1].body)
    points = [{"location": "message", "role": "system"}]
    with use_cassette("x.yaml") as tape:
        assert claude(NOBODY, cache_control_injection_points=points).model_dump() == live.model_dump()
    assert tape.replayed == 1
    with use_cassette("y.yaml", mode="rewrite"):
        claude(provider.base, cache_control_injection_points=points)
    assert provider.requests[-1].body["system"][-1]["cache_control"] == {"type": "ephemeral"}
    marked = {"type": "text", "text": "A long manual.", "cache_control": {"type": "ephemeral"}}
    said = [{"role": "system", "content": [marked]}, {"role": "user", "content": "What does it say?"}]
    with use_cassette("z.yaml", mode="rewrite"):
        claude(provider.base, messages=said)
    assert provider.requests[-1].body["system"][-1]["cache_control"] == {"type": "ephemeral"}
    with use_cassette("x.yaml"):
        claude(NOBODY, messages=said)


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_prompt_cache_saved_is_kept(stream, provider):
    """Tokens read from and written to Anthropic's cache are in the recording, with what they saved by the price list."""
    usage = {"input_tokens": 5, "output_tokens": 3}
    cached = {"cache_read_input_tokens": 1000, "cache_creation_input_tokens": 200}
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "It says so."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {**usage, **cached},
    }
    events = [
        Event("message_start", {"type": "message_start", "message": {**answer, "content": []}}),
        Event(
            "content_block_start",
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        ),
        Event(
            "content_block_delta",
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Yes."}},
        ),
        Event("content_block_stop", {"type": "content_block_stop", "index": 0}),
        Event(
            "message_delta",
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {**usage, **cached}},
        ),
        Event("message_stop", {"type": "message_stop"}),
    ]
    provider.script(Reply(body=events if stream else answer))
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    prices = litellm.get_model_info("anthropic/claude-sonnet-4-5")
    usual = prices["input_cost_per_token"]
    saved = 1000 * (usual - prices["cache_read_input_token_cost"])
    saved += 200 * (usual - prices["cache_creation_input_token_cost"])
    assert saved > 0
    for mode in ("record", "replay"):
        with use_cassette("x.yaml", mode=mode) as tape:
            result = claude(provider.base if mode == "record" else NOBODY, **more)
            for _ in result if stream else ():
                pass
        assert tape.calls[0].cached == (1000, 200)
        assert tape.calls[0].cached_usd == pytest.approx(saved)


def test_openais_cached_tokens(provider):
    """OpenAI's own field counts as well."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}],
        "usage": {
            "prompt_tokens": 2000,
            "completion_tokens": 1,
            "total_tokens": 2001,
            "prompt_tokens_details": {"cached_tokens": 1024},
        },
    }
    provider.script(Reply(body=body))
    with use_cassette("x.yaml", mode="record"):
        ask("cached", provider.url)
    with use_cassette("x.yaml") as tape:
        ask("cached")
    assert tape.calls[0].cached == (1024, 0)
    assert tape.calls[0].cached_usd > 0


# ---- several at once


def test_threads_share_a_cache(provider):
    """Calls of many threads at once are all kept, each under its own question."""
    texts = [f"thread {number}" for number in range(20)]
    with use_cassette("x.yaml", mode="record"), ThreadPoolExecutor(8) as pool:
        first = list(pool.map(lambda text: ask(text, provider.url), texts))
    lose("x.yaml")
    with use_cassette("x.yaml", mode="record") as tape:
        assert [ask(text) for text in texts] == first
    assert {call.source for call in tape.calls} == {"memory"}


def test_a_call_that_blocks_its_event_loop_waits_for_no_task_of_it(provider, monkeypatch):
    """A sync call in a task is asked at once where another task of the loop asks the same: nobody waits for ever."""

    async def both():
        with use_cassette("x.yaml", mode="record"):
            asking = asyncio.create_task(aask("blocked", provider.url))
            await asyncio.sleep(0.1)
        with use_cassette("y.yaml", mode="record") as tape:
            ask("blocked", provider.url)
        sources.extend(call.source for call in tape.calls)
        await asking

    monkeypatch.setattr(recorded_call, "time", SimpleNamespace(sleep=refused))
    sources = []
    provider.script(Reply(delay=0.5), Reply())
    before = provider.count
    asyncio.run(both())
    assert sources == ["provider"]
    assert provider.count - before == 2


# ---- age


def test_an_old_recording_is_recorded_anew(provider):
    """In mode record what is older than ``max_age`` is asked again and takes the old one's place; replay replays it."""
    with use_cassette("x.yaml", mode="record"):
        texts = [ask("old", provider.url), ask("young", provider.url)]
    cassette = Path("x.yaml").read_text()
    place = cassette.index("\nrecorded: ") + len("\nrecorded: ")
    Path("x.yaml").write_text(cassette[:place] + "2020-01-01T00:00:00Z" + cassette[place + 20 :])
    with use_cassette("x.yaml", max_age="30d") as tape:
        assert [ask("old"), ask("young")] == texts
    assert tape.old == 1
    off = {"enable_disk_cache": False, "enable_memory_cache": False}
    with use_cassette("x.yaml", mode="record", max_age="30d", **off) as tape:
        new = ask("old", provider.url)
        assert ask("young") == texts[1]
    assert new != texts[0]
    assert [call.source for call in tape.calls] == ["provider", "cassette"]
    with use_cassette("x.yaml", max_age="30d") as tape:
        assert [ask("old"), ask("young")] == [new, texts[1]]
    assert tape.old == 0
    with freeze_time("2040-01-01"), use_cassette("x.yaml", max_age="30d") as tape:
        ask("young")
    assert tape.old == 0, "by the real clock"
    assert Path("x.yaml").read_text().count("\nkey: k") == 2


def test_an_old_value_in_a_layer_is_no_race(provider):
    """A stream whose value in the layers is too old is asked anew, and was not asked by another process meanwhile."""
    for name in ("x.yaml", "y.yaml"):
        with use_cassette(name, mode="record", max_age=0.5) as tape:
            ask("aged", provider.url, stream=True)
        time.sleep(1.6)  # a recording tells whole seconds
        assert [(call.source, call.asked_twice) for call in tape.calls] == [("provider", False)]
