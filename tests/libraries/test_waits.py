"""Waits between two attempts to ask a model: none in a test that replays, all of them while one records."""

import asyncio
import sys
import time

import litellm
import pytest
import tenacity
from litellm.types.router import RouterRateLimitError
from provider import FAILURES, Reply

from pytest_lmcache import use_cassette
from pytest_lmcache.session import session

GONE = "http://127.0.0.1:9/v1"
QUESTION = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
WAIT = 60  # seconds of a skipped wait
SHORT = 5  # seconds in which every test that replays ends


@pytest.fixture
def quick():
    """What runs in this test takes no time."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SHORT


@pytest.fixture
def limited(monkeypatch):
    """The provider's rate limit says how long to wait: briefly enough to record."""
    limit = FAILURES["rate_limit"]
    monkeypatch.setitem(FAILURES, "rate_limit", limit._replace(headers={"retry-after": "0.25"}))


def router(url=GONE, count=1, **settings):
    models = [
        {
            "model_name": "small",
            "litellm_params": {
                "model": "openai/gpt-4o-mini",
                "api_base": f"{url}?{number}" if number else url,
                "api_key": "sk-local",
                "max_retries": 0,
            },
        }
        for number in range(count)
    ]
    return litellm.Router(**{"model_list": models, "num_retries": 3, **settings})


def complete(router):
    return router.completion(**QUESTION)


def acomplete(router):
    return asyncio.run(router.acompletion(**QUESTION))


def ask(**more):
    question = {**QUESTION, "model": "openai/gpt-4o-mini", "api_base": GONE, "api_key": "sk-local"}
    return litellm.completion(**{**question, "max_retries": 0, **more})


async def aask():
    question = {**QUESTION, "model": "openai/gpt-4o-mini", "api_base": GONE, "api_key": "sk-local"}
    return await litellm.acompletion(**question, max_retries=0)


def sources(tape):
    return [call.source for call in tape.calls]


@pytest.mark.slow
@pytest.mark.parametrize("complete", [complete, acomplete])
def test_a_recorded_rate_limit_does_not_make_a_router_wait(provider, limited, tmp_path, complete):
    """The Router makes the recorded attempts in their order, as long as the provider told it to wait."""
    path = tmp_path / "x.yaml"
    provider.script(*[Reply(failure="rate_limit")] * 2, Reply(text="at last"))
    began = time.monotonic()
    with use_cassette(path, mode="record", record_errors="all") as recording:
        assert complete(router(provider.url)).choices[0].message.content == "at last"
    assert time.monotonic() - began > 0.5
    path.write_text(path.read_text().replace("'0.25'", f"'{WAIT}'").replace('"0.25"', f'"{WAIT}"'))
    assert str(WAIT) in path.read_text()
    began = time.monotonic()
    with use_cassette(path) as replaying:
        assert complete(router()).choices[0].message.content == "at last"
    assert time.monotonic() - began < SHORT
    assert recording.recorded == replaying.replayed == 3


@pytest.mark.parametrize("complete", [complete, acomplete])
def test_a_fault_does_not_make_a_router_wait(quick, tmp_path, complete):
    """An error of ``fail`` with a long ``retry_after`` is retried at once."""
    with use_cassette(tmp_path / "x.yaml") as tape:
        tape.fail(litellm.RateLimitError, times=2, retry_after=WAIT)
        tape.reply("yes")
        assert complete(router()).choices[0].message.content == "yes"
    assert sources(tape) == ["fault", "fault", "reply"]


def test_a_cooldown_ends_with_a_skipped_wait(quick, tmp_path):
    """A deployment that cools down is asked again when the Router's waits would have taken as long as that."""
    with use_cassette(tmp_path / "x.yaml") as tape:
        tape.fail(litellm.RateLimitError, times=2, retry_after=WAIT / 2)
        tape.reply("yes", times=None)
        cooling = router(count=2, cooldown_time=WAIT / 2)
        with pytest.raises(litellm.RateLimitError):
            complete(cooling)  # both cool down now
        with pytest.raises(RouterRateLimitError):
            complete(cooling)
        tape.fail(litellm.RateLimitError, times=2, retry_after=WAIT)
        assert complete(router()).choices[0].message.content == "yes"  # waits two minutes
        assert complete(cooling).choices[0].message.content == "yes"


def test_tenacity_does_not_wait_for_a_model(quick, tmp_path):
    """Neither a decorated function, nor an async one, nor a loop of attempts waits if each attempt asked a model."""
    slow = {"wait": tenacity.wait_fixed(WAIT), "stop": tenacity.stop_after_attempt(3), "reraise": True}

    def loop():
        for attempt in tenacity.Retrying(**slow):
            with attempt:
                answer = ask()
        return answer

    async def aloop():
        async for attempt in tenacity.AsyncRetrying(**slow):
            with attempt:
                answer = await aask()
        return answer

    functions = [
        tenacity.retry(**slow)(ask),
        loop,
        lambda: asyncio.run(tenacity.retry(**slow)(aask)()),
        lambda: asyncio.run(aloop()),
    ]
    for number, function in enumerate(functions):
        with use_cassette(tmp_path / f"{number}.yaml") as tape:
            tape.fail(litellm.RateLimitError, times=2)
            tape.reply("yes")
            assert function().choices[0].message.content == "yes"
        assert sources(tape) == ["fault", "fault", "reply"]


def test_tenacity_stops_after_as_many_seconds_as_live(quick, tmp_path):
    """``stop_after_delay`` counts the waits that are skipped."""
    retrying = tenacity.Retrying(
        wait=tenacity.wait_fixed(WAIT), stop=tenacity.stop_after_delay(WAIT * 2 - 1), reraise=True
    )
    with use_cassette(tmp_path / "x.yaml") as tape:
        tape.fail(litellm.RateLimitError, times=None)
        with pytest.raises(litellm.RateLimitError):
            retrying(ask)
    assert len(tape.calls) == 3


def test_litellms_own_retries_do_not_wait(quick, tmp_path):
    """``num_retries`` with LiteLLM's exponential back-off, which tenacity does."""
    with use_cassette(tmp_path / "x.yaml") as tape:
        tape.fail(litellm.RateLimitError, times=4)
        tape.reply("yes")
        answer = ask(num_retries=6, retry_strategy="exponential_backoff_retry")
        assert answer.choices[0].message.content == "yes"


def test_other_waits_are_waited(tmp_path):
    """The test's own sleeps, and tenacity's around what asks no model, take their time in a test that replays."""
    asked = []

    @tenacity.retry(wait=tenacity.wait_fixed(0.2), stop=tenacity.stop_after_attempt(2))
    def poll():
        asked.append(1)
        assert len(asked) == 2

    with use_cassette(tmp_path / "x.yaml") as tape:
        tape.reply("yes")
        ask()
        for wait in (
            poll,
            lambda: time.sleep(0.2),
            lambda: asyncio.run(asyncio.sleep(0.2)),
            lambda: tenacity.nap.sleep(0.2),
        ):
            began = time.monotonic()
            wait()
            assert time.monotonic() - began > 0.19


@pytest.mark.parametrize("mode", ["record", "live"])
def test_a_test_that_may_ask_waits(tmp_path, mode):
    """While a test records, and live, the provider gets the time that it asks for."""
    with use_cassette(tmp_path / "x.yaml", mode=mode) as tape:
        tape.fail(litellm.RateLimitError, times=2)
        tape.reply("yes")
        retrying = tenacity.Retrying(wait=tenacity.wait_fixed(0.2), stop=tenacity.stop_after_attempt(3))
        began = time.monotonic()
        retrying(ask)
        assert time.monotonic() - began > 0.39


def test_a_sleep_that_the_test_replaced_is_called(tmp_path, monkeypatch):
    """A test that looks at how long a retry waits sees the same seconds as live."""
    waits = []

    async def asleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(time, "sleep", waits.append)
    # The Router of LiteLLM 1.83 waits by it in sync calls too.
    monkeypatch.setattr(asyncio, "sleep", asleep)
    with use_cassette(tmp_path / "x.yaml") as tape:
        tape.fail(litellm.RateLimitError, retry_after=WAIT)
        tape.fail(litellm.RateLimitError)
        tape.reply("yes", times=None)
        complete(router())
        tape.fail(litellm.RateLimitError)
        tenacity.Retrying(wait=tenacity.wait_fixed(WAIT))(ask)
    assert [wait // 1 for wait in waits if wait > 30] == [WAIT, WAIT]


def test_nothing_is_left_of_it():
    """When no test is open, LiteLLM's and tenacity's functions are what they were."""
    from litellm.caching import in_memory_cache

    from pytest_lmcache.libraries.litellm import compat

    state = tenacity.RetryCallState
    asleep = tenacity.AsyncRetrying().sleep

    def parts():
        return [
            *(vars(kind)[name] for kind, name in compat.retry_functions(sys.modules)),
            state.__init__,
            state.prepare_for_next_attempt,
            in_memory_cache.time,
            tenacity.nap.sleep.__code__,
            asleep.__code__,
        ]

    def changed(before, now):
        return [old is not new for old, new in zip(before, now, strict=True)]

    with session.suspended():
        before = parts()
        with use_cassette(None, mode="replay"):
            assert all(changed(before, parts()))
        assert not any(changed(before, parts()))
    assert before[-3] is time
