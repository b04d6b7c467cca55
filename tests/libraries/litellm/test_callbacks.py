"""LiteLLM's callbacks, cost tracking and logging run on replay as they do live."""

import asyncio
import contextlib
import gc
import logging
import socket
import threading
import time
from importlib.metadata import version

import litellm
import pytest
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.litellm_logging import Logging
from litellm.types.utils import ModelResponseStream
from provider import Provider

from pytest_lmcache import CassetteMiss, use_cassette

pytestmark = pytest.mark.slow

GONE = "http://127.0.0.1:9/v1"
ASKED = [{"role": "user", "content": "hello there"}]
FIGURES = ("model", "custom_llm_provider", "response_cost", "stream", "call_type", "cache_hit", "user")

# What LiteLLM makes up when it tells callbacks of a stream of messages.
MADE_UP = {"anthropic_messages": ("id", "created")}


class Listener(CustomLogger):  # type: ignore[misc]
    """Notes what it is told, as plain facts; not the provider's raw answer, told of as often as its code likes."""

    def __init__(self):
        super().__init__()
        self.told = []
        self._lock = threading.Lock()

    def note(self, event, kwargs, response=None):
        logged = kwargs.get("standard_logging_object") or {}
        facts = {name: kwargs.get(name) for name in FIGURES}
        tokens = [
            logged.get(name) for name in ("prompt_tokens", "completion_tokens", "status", "model_group")
        ]
        text = response.model_dump(warnings=False) if hasattr(response, "model_dump") else response
        for name in MADE_UP.get(facts["call_type"], ()):
            text.pop(name)
        with self._lock:
            self.told.append(
                (event, facts, tokens, kwargs["litellm_params"].get("metadata", {}).get("run"), text)
            )

    def log_pre_api_call(self, model, messages, kwargs):
        self.told.append(("pre", model, messages))

    def log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.note("success", kwargs, response_obj)

    def log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self.told.append(("failure", type(kwargs.get("exception")).__name__, str(kwargs.get("exception"))))

    def function(self, kwargs, response_obj, start_time, end_time):
        """A plain function as callback; of a sync stream it also hears each chunk, as fast as LiteLLM's threads are."""
        if not isinstance(response_obj, ModelResponseStream):
            self.note("function success", kwargs, response_obj)

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.note("async success", kwargs, response_obj)

    def all_told(self, at_least):
        """What was told, once LiteLLM's logging threads are through."""
        seen = -1
        for _ in range(300):
            if seen == len(self.told) >= at_least:
                break
            seen = len(self.told)
            time.sleep(0.1)
        told, self.told = self.told, []
        return sorted(told, key=str)


@pytest.fixture(scope="module")
def provider():
    with Provider() as running:
        yield running


@pytest.fixture
def nobody_listens(monkeypatch):
    """Whatever other tests have left in LiteLLM: nothing looks at a call."""
    for name in (
        "callbacks",
        "success_callback",
        "_async_success_callback",
        "failure_callback",
        "_async_failure_callback",
        "input_callback",
        "service_callback",
        "pre_call_rules",
        "post_call_rules",
    ):
        monkeypatch.setattr(litellm, name, [])
    monkeypatch.setattr(litellm, "set_verbose", False)
    monkeypatch.setattr(litellm.utils, "add_breadcrumb", None)
    monkeypatch.setattr(litellm.verbose_logger, "level", logging.WARNING)
    monkeypatch.setattr(litellm.verbose_logger, "_cache", {})


@pytest.fixture
def listener(nobody_listens, monkeypatch):
    # LiteLLM sets callbacks up once in a process: what listens here first would be all that a later test may use.
    monkeypatch.setattr(litellm.utils, "callback_list", [])
    # LiteLLM carries what other tests' loops left unlogged into the next loop.
    asyncio.run(flushed())
    mine = Listener()
    litellm.callbacks = [mine]
    litellm.success_callback = [mine.function]
    yield mine


def arguments(url, **more):
    return {
        "model": "openai/gpt-4o-mini",
        "messages": ASKED,
        "api_base": url,
        "api_key": "sk-local",
        "metadata": {"run": 7},
        "user": "someone",
        **more,
    }


async def flushed():
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

    await asyncio.sleep(0.05)
    # LiteLLM 1.83 waits for ever for what another loop left, or asks that loop for it.
    with contextlib.suppress(TimeoutError, RuntimeError):
        await asyncio.wait_for(GLOBAL_LOGGING_WORKER.flush(), 1)


def awaiting(url):
    async def run():
        await litellm.acompletion(**arguments(url))
        await flushed()

    asyncio.run(run())


def reading(url):
    async def run():
        async for _ in await litellm.acompletion(**arguments(url, stream=True)):
            pass
        await flushed()

    asyncio.run(run())


def text(url, **more):
    return {
        "model": "text-completion-openai/gpt-3.5-turbo-instruct",
        "prompt": "Say hi",
        "api_base": url,
        "api_key": "sk",
        "metadata": {"run": 7},
        **more,
    }


def reading_text(url):
    async def run():
        async for _ in await litellm.atext_completion(**text(url, stream=True)):
            pass
        await flushed()

    asyncio.run(run())


def messages(url):
    return {
        "model": "anthropic/claude-haiku-4-5",
        "max_tokens": 64,
        "messages": ASKED,
        "api_base": url.removesuffix("/v1"),
        "api_key": "sk",
    }


def reading_messages(url):
    async def run():
        async for _ in await litellm.anthropic.messages.acreate(**messages(url), stream=True):
            pass
        await flushed()
        # LiteLLM 1.83 logs these in a task that nothing waits for.
        await asyncio.wait_for(asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()})), 1)

    with contextlib.suppress(TimeoutError):
        asyncio.run(run())


SHAPES = {
    "completion": lambda url: litellm.completion(**arguments(url)),
    "acompletion": awaiting,
    "stream": lambda url: list(litellm.completion(**arguments(url, stream=True))),
    "stream with usage": lambda url: list(
        litellm.completion(**arguments(url, stream=True, stream_options={"include_usage": True}))
    ),
    "async stream": reading,
    "text": lambda url: litellm.text_completion(**text(url)),
    "text stream": lambda url: list(litellm.text_completion(**text(url, stream=True))),
    "text stream with usage": lambda url: list(
        litellm.text_completion(**text(url, stream=True, stream_options={"include_usage": True}))
    ),
    "async text stream": reading_text,
    "async messages stream": reading_messages,
    "embedding": lambda url: litellm.embedding(
        model="openai/text-embedding-3-small", input=["hi"], api_base=url, api_key="sk"
    ),
    "responses": lambda url: litellm.responses(
        model="openai/gpt-4o-mini", input="hi", api_base=url, api_key="sk"
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_callbacks_are_told_the_same(shape, provider, listener, tmp_path):
    """Success, model, provider, tokens, cost and the response: on replay a callback hears what it heard live."""
    call, events = SHAPES[shape], 2 if shape.startswith(("a", "async")) else 3
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        call(provider.url)
        live = listener.all_told(events)
    with use_cassette(tmp_path / "x.yaml"):
        call(GONE)
        stored = listener.all_told(events)
    assert any("success" in told[0] for told in live)
    assert stored == live


def test_text_of_a_chat_model(provider, listener, tmp_path):
    """A text completion that LiteLLM asks of a chat model has the same provider, tokens and cost on replay."""

    def figures(url):
        for stream in (False, True):
            list(litellm.text_completion(**text(url, stream=stream, model="openai/gpt-4o-mini")))
        return [told[:4] for told in listener.all_told(6) if "success" in told[0]]

    with use_cassette(tmp_path / "x.yaml", mode="record"):
        live = figures(provider.url)
    with use_cassette(tmp_path / "x.yaml"):
        assert figures(GONE) == live
    assert len(live) == len(("listener", "function")) * len(("whole", "streamed"))


@pytest.mark.parametrize("shape", SHAPES)
def test_callbacks_are_told_of_no_tokens(shape, provider, listener, tmp_path):
    """With ``usage="empty"`` a callback hears of no tokens and of no cost, whatever was called."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        SHAPES[shape](provider.url)
        listener.all_told(2)
    with use_cassette(tmp_path / "x.yaml", usage="empty"):
        SHAPES[shape](GONE)
        told = [each for each in listener.all_told(2) if "success" in each[0]]
    assert told
    # LiteLLM 1.83 takes a stream's usage of 0 for none, and counts itself.
    counts = "stream" in shape and not hasattr(Logging, "claim_async_success_log")
    for _, facts, tokens, _, _ in told:
        assert not facts["response_cost"]
        assert counts or not any(tokens[:2])


def test_failure_callbacks_are_told(provider, listener, tmp_path):
    """A recorded error reaches the failure callbacks on replay."""
    from provider import Reply

    def failing(url):
        with pytest.raises(litellm.NotFoundError):
            litellm.completion(**arguments(url))
        return [told for told in listener.all_told(2) if told[0] == "failure"]

    provider.script(Reply(failure="not_found"))
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        live = failing(provider.url)
    with use_cassette(tmp_path / "x.yaml"):
        assert failing(GONE) == live
    assert live


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_failure_callbacks_are_told_of_a_stream_that_broke(is_async, provider, listener, tmp_path):
    """An error in mid-stream is told to callbacks once, as live."""
    from provider import Reply

    async def told(**facts):
        listener.log_failure_event(**facts)

    listener.async_log_failure_event = told  # type: ignore[method-assign]

    def breaking(url):
        with pytest.raises(litellm.exceptions.MidStreamFallbackError):
            if is_async:
                reading(url)
            else:
                list(litellm.completion(**arguments(url, stream=True)))
        if is_async:
            asyncio.run(flushed())
        return [each[0] for each in listener.all_told(2) if each[0] != "pre"]

    provider.script(Reply(cut=3, failure="server"))
    with use_cassette(tmp_path / "x.yaml", mode="record", record_errors="all"):
        live = breaking(provider.url)
    with use_cassette(tmp_path / "x.yaml"):
        assert set(breaking(GONE)) == set(live)
    assert "failure" in live


@pytest.mark.parametrize("shape", ["stream", "text stream"])
def test_failure_callbacks_alone_are_told_of_a_stream_that_broke(shape, provider, tmp_path, monkeypatch):
    """Also where nobody listens to success; with no callback at all no thread is started for it."""
    from provider import Reply

    told = []

    def breaking(url):
        with pytest.raises(Exception, match="error"):
            SHAPES[shape](url)
        for _ in range(50 if litellm.failure_callback else 5):
            if told:
                break
            time.sleep(0.02)
        heard, told[:] = len(told), []
        return heard

    for name in ("callbacks", "success_callback", "_async_success_callback", "_async_failure_callback"):
        monkeypatch.setattr(litellm, name, [])
    monkeypatch.setattr(litellm, "failure_callback", [lambda *_: told.append("failure")])
    provider.script(Reply(cut=3, failure="server"))
    with use_cassette(tmp_path / "x.yaml", mode="record", record_errors="all"):
        live = breaking(provider.url)
    with use_cassette(tmp_path / "x.yaml"):
        assert breaking(GONE) == live > 0
        monkeypatch.setattr(litellm, "failure_callback", [])
        threads = threading.active_count()
        assert breaking(GONE) == 0
        assert threading.active_count() <= threads


def test_nobody_is_bothered_where_nobody_listens(provider, tmp_path, monkeypatch):
    """Without callbacks a replayed async call leaves no logging task behind for a later event loop."""
    for name in ("callbacks", "success_callback", "_async_success_callback", "input_callback"):
        monkeypatch.setattr(litellm, name, [])

    async def run():
        await litellm.acompletion(**arguments(GONE))
        return {task.get_coro().__name__ for task in asyncio.all_tasks() - {asyncio.current_task()}}

    with use_cassette(tmp_path / "x.yaml", mode="record"):
        litellm.completion(**arguments(provider.url))
    gc.collect()  # a stream that an earlier test left would be closed by a task of this loop
    with use_cassette(tmp_path / "x.yaml"):
        left = asyncio.run(run())
    # LiteLLM 1.83 asks nobody before it hands its log, which is empty then, to its worker.
    asks_first = hasattr(Logging, "claim_async_success_log")
    assert left == (set() if asks_first else {"_client_async_logging_helper"})


def test_a_callback_that_comes_while_a_stream_is_recorded_is_told(provider, tmp_path, monkeypatch):
    """Who listens is asked when LiteLLM tells, as live, not when the call returns."""
    told = []
    for name in ("callbacks", "success_callback", "_async_success_callback", "input_callback"):
        monkeypatch.setattr(litellm, name, [])
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        stream = litellm.completion(**arguments(provider.url), stream=True)
        monkeypatch.setattr(litellm, "success_callback", [lambda *args: told.append(args)])
        list(stream)
    deadline = time.monotonic() + 10
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)  # a thread tells
    assert told


def test_an_event_loop_may_end_before_its_logs_are_written(provider, tmp_path, monkeypatch, caplog):
    """LiteLLM looks at the state of what still waits when the next loop comes; what nobody hears is over."""
    for name in ("callbacks", "success_callback", "_async_success_callback", "input_callback"):
        monkeypatch.setattr(litellm, name, [])
    model = "openai/responses/gpt-4o-mini"  # over another API: the inner call has claimed the log

    async def run():
        await asyncio.create_task(litellm.acompletion(**arguments(provider.url, model=model)))

    for number in range(2):
        with use_cassette(tmp_path / f"{number}.yaml", mode="record"):
            asyncio.run(run())
    assert not [record.message for record in caplog.records if "enqueue failed" in record.message]


def test_a_miss_in_a_callback_is_not_lost(provider, listener, tmp_path):
    """A callback that asks a model itself, in LiteLLM's logging thread, fails the block when it misses."""

    def ask(**_):
        if not listener.told:
            listener.told.append("asked")
            litellm.completion(
                model="openai/gpt-4o-mini", messages=[{"role": "user", "content": "a judge's"}]
            )

    with use_cassette(tmp_path / "x.yaml", mode="record"):
        litellm.completion(**arguments(provider.url))
    listener.told.clear()
    litellm.success_callback = []
    listener.log_success_event = ask  # type: ignore[method-assign]
    listener.log_pre_api_call = lambda **_: None  # type: ignore[method-assign]
    with pytest.raises(CassetteMiss, match="a judge's"), use_cassette(tmp_path / "x.yaml") as tape:
        litellm.completion(**arguments(GONE))
        for _ in range(100):
            if tape.faults:
                break
            time.sleep(0.02)


@pytest.fixture
def price_map():
    """LiteLLM 1.83 keeps the prices that come with a call."""
    before = {model: {**known} for model, known in litellm.model_cost.items()}
    yield
    for model in litellm.model_cost.keys() - before.keys():
        del litellm.model_cost[model]
    # All of them at once take LiteLLM many seconds.
    changed = {model: known for model, known in before.items() if litellm.model_cost.get(model) != known}
    litellm.model_cost.update(changed)
    litellm.register_model(changed)


@pytest.mark.usefixtures("price_map")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "openai/a-model-of-mine"])
def test_prices_that_come_with_a_call(stream, model, provider, listener, tmp_path):
    """A call that names its own prices costs the same on replay, in what callbacks hear and on the answer."""
    prices = {"input_cost_per_token": 0.25, "output_cost_per_token": 1.0, "model": model}

    def run(url):
        answer = litellm.completion(**{**arguments(url), **prices, "stream": stream})
        return list(answer) if stream else answer._hidden_params["response_cost"]

    with use_cassette(tmp_path / "x.yaml", mode="record") as recording:
        live = run(provider.url)
    with use_cassette(tmp_path / "x.yaml") as replaying:
        stored = run(GONE)
    if not stream:
        assert stored == live
        assert live > 1
    assert recording.calls[0].usd == replaying.calls[0].usd


# ---- no network


@pytest.fixture
def looked_up(monkeypatch):
    """The hosts that anybody looked up; none but this machine is found."""
    hosts = []
    look_up = socket.getaddrinfo

    def nowhere(host, *more, **options):
        if host == "127.0.0.1":
            return look_up(host, *more, **options)
        hosts.append(host)
        raise OSError(f"{host} is not to be looked up")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    return hosts


LOGS_IN = pytest.mark.skipif(
    tuple(map(int, version("litellm").split(".")[:2])) < (1, 110),
    reason="LiteLLM 1.83 logs in by itself, before its functions are called",
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "heard"),
    [
        ("openai/llama-2-7b", True),
        pytest.param("github_copilot/gpt-4o", False, marks=LOGS_IN),
        pytest.param("chatgpt/gpt-5", False, marks=LOGS_IN),
    ],
)
def test_replay_needs_no_network(
    *,
    model,
    heard,
    stream,
    provider,
    tmp_path,
    looked_up,
    request,
):
    """Of some models LiteLLM would download a tokenizer, to price a stream's beginning, or log in to name the provider."""
    path, asked = tmp_path / "x.yaml", {"messages": ASKED, "stream": stream, "api_key": "sk-1"}
    asked |= {"stream_options": {"include_usage": True}} if stream else {}
    with use_cassette(path, mode="record", key="messages"):
        answer = litellm.completion("openai/gpt-4o-mini", api_base=provider.url, **asked)
        recorded = list(answer) if stream else [answer]
    request.getfixturevalue("listener" if heard else "nobody_listens")
    with use_cassette(path, key="messages") as tape:
        answer = litellm.completion(model, **asked)
        replayed = list(answer) if stream else [answer]
    assert tape.replayed == 1
    assert [chunk.choices for chunk in replayed] == [chunk.choices for chunk in recorded]
    assert replayed[-1].usage == recorded[-1].usage
    assert not looked_up
