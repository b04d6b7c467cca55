"""DSPy, on its own engine and on LiteLLM's: recorded from the provider, replayed without it, the same either way."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import ModuleType

import dspy
import pytest
import yaml
from provider import Reply

from pytest_lmcache import CassetteError, CassetteMiss, DoorError, UnsupportedCall, use_cassette
from pytest_lmcache.libraries.dspy import intercept
from pytest_lmcache.libraries.dspy.compat import after_dspy_call
from pytest_lmcache.session import session

GONE = "http://127.0.0.1:9/v1"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nobody_records")]
NATIVE = hasattr(dspy, "lm15")  # DSPy 3.4 has an engine of its own
ENGINES = ["auto", "litellm"] if NATIVE else ["litellm"]
both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
native = pytest.mark.skipif(not NATIVE, reason="this DSPy calls LiteLLM only")
KEY = "sk-local-0123456789abcdefghij"


@pytest.fixture(autouse=True)
def plain_provider(provider):
    before = provider.answer
    yield
    provider.answer, provider.numbered = before, False


def model(url, engine="auto", name="openai/gpt-4o-mini", **more):
    own = {"engine": engine} if NATIVE else {}
    return dspy.LM(name, api_base=url, **{"api_key": KEY, "num_retries": 0, **own, **more})


class Twice:
    """Runs a program while it is recorded, and again without a provider."""

    def __init__(self, provider, path):
        self.provider = provider
        self.path = path

    def __call__(self, program, **settings):
        """What the program gave, which has to be the same both times, with as many calls, none of them asked again."""
        first, second = self.record(program, **settings), self.replay(program, **settings)
        assert second == first
        assert self.recording.recorded == self.replaying.replayed == len(self.replaying.calls)
        assert self.replaying.usage == self.recording.usage
        assert self.replaying.unused() == 0
        return first

    def record(self, program, **settings):
        with use_cassette(self.path, mode="record", **settings) as self.recording:
            return program(self.provider.url)

    def replay(self, program, **settings):
        asked = self.provider.count
        with use_cassette(self.path, **settings) as self.replaying:
            result = program(GONE)
        assert self.provider.count == asked
        return result

    @property
    def documents(self):
        return list(yaml.safe_load_all(self.path.read_text(encoding="utf-8")))[1:]


@pytest.fixture
def twice(provider, tmp_path):
    return Twice(provider, tmp_path / "x.yaml")


def fields(**values):
    """An answer in the form that ChatAdapter asks for."""
    return (
        "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in values.items())
        + "[[ ## completed ## ]]"
    )


class Capital(dspy.Signature):
    """Name the capital."""

    country: str = dspy.InputField()
    capital: str = dspy.OutputField()
    sure: bool = dspy.OutputField()
    people: int = dspy.OutputField()


PARIS = fields(capital="Paris", sure=True, people=2_100_000)


# ---- calls -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model_type", ["chat", "text", "responses"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_call(engine, model_type, is_async, twice):
    """A plain call of any model type, sync and async, on either engine, is replayed without the provider."""

    def program(url):
        lm = model(url, engine, model_type=model_type)
        return asyncio.run(lm.acall("hello")) if is_async else lm("hello")

    assert "hello" in str(twice(program))
    by_itself = NATIVE and engine == "auto" and model_type != "text"
    name = {"chat": "completion", "text": "text_completion", "responses": "responses"}[model_type]
    assert [call.name for call in twice.recording.calls] == ["dspy" if by_itself else name]


@native
def test_the_cassette_reads_like_any_other(twice):
    """A call of DSPy's own engine is stored as model, messages and parameters, without address, key and None."""
    twice(lambda url: model(url, temperature=0.5, max_tokens=100, stop=["END"])("hello"))
    [document] = twice.documents
    assert document["call"] == "dspy"
    assert document["request"] == {
        "model": "openai/gpt-4o-mini",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 100,
        "temperature": 0.5,
        "stop": ["END"],
    }
    assert document["response"]["message"]["parts"] == [{"type": "text", "text": "You said: hello"}]
    assert list(document["response"])[-1] == "provider_data"


@pytest.mark.parametrize("engine", ENGINES)
def test_sync_and_async_share_a_recording(engine, twice):
    """What was recorded by a sync call answers an async one."""
    twice.record(lambda url: model(url, engine)("hello"))
    assert twice.replay(lambda url: asyncio.run(model(url, engine).acall("hello"))) == ["You said: hello"]


@native
def test_another_providers_dialect(twice):
    """Anthropic's API, in its own shape, is recorded on DSPy's engine too."""

    def program(url):
        name = "anthropic/claude-3-5-haiku-latest"
        return model(url.removesuffix("/v1"), name=name, max_tokens=100)("hello")

    assert twice(program) == ["You said: hello"]


@native
def test_no_key_is_needed_on_replay(twice, monkeypatch):
    """Who replays a suite has no key of any provider, and DSPy does not ask for one."""
    for name in list(os.environ):
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    twice.record(lambda url: model(url)("hello"))
    assert twice.replay(lambda _: dspy.LM("openai/gpt-4o-mini")("hello")) == ["You said: hello"]


@native
def test_a_key_is_never_stored(twice, provider):
    """A key that is passed to DSPy is in no cassette, also where the provider repeats it."""
    own = "in-a-form-that-nobody-knows-4711"
    provider.answer = lambda _: Reply(text=f"your key is {own}")
    twice.record(lambda url: model(url, api_key=own)("hello"))
    assert own not in twice.path.read_text(encoding="utf-8")
    assert "your key is <redacted:" in twice.replay(lambda url: model(url)("hello"))[0]


@native
def test_a_typed_request(twice):
    """A Request gets the very Response that the provider's answer was, with all that the provider sent."""
    from dspy.lm15 import Config, Message, Request

    request = Request(
        model="openai/gpt-4o-mini",
        system="Be brief.",
        messages=(Message.user("one"), Message.assistant("two"), Message.user("three and a few more words")),
        config=Config(temperature=0.5),
    )
    response = twice(lambda url: model(url)(request))
    assert response.text == "You said: three and a few more words"
    assert response.provider_data["choices"][0]["message"]["content"] == response.text
    assert [said["content"] for said in twice.documents[0]["request"]["messages"]] == [
        "Be brief.",
        "one",
        "two",
        "three and a few more words",
    ]
    # A long text is told once, however often the provider's raw answer repeats it.
    assert twice.path.read_text(encoding="utf-8").count("You said: three and a few more words") == 1


@native
def test_tools_keep_their_calls_and_results(twice):
    """A call of a tool and its result are part of the question, in full."""
    from dspy.lm15 import FunctionTool, Message, Request, TextPart, ToolCallPart, ToolResultPart

    def program(url):
        messages = (
            Message.user("hello"),
            Message(
                role="assistant", parts=(ToolCallPart(id="call_1", name="add", input={"a": 1, "b": None}),)
            ),
            Message(role="tool", parts=(ToolResultPart(id="call_1", content=(TextPart("3"),)),)),
        )
        tool = FunctionTool(name="add", description="Adds.", parameters={"type": "object", "properties": {}})
        return model(url)(Request(model="openai/gpt-4o-mini", messages=messages, tools=(tool,)))

    twice(program)
    asked = twice.documents[0]["request"]
    assert asked["messages"][1]["content"] == [
        {"type": "tool_call", "id": "call_1", "name": "add", "input": {"a": 1, "b": None}}
    ]
    assert asked["messages"][2]["content"][0]["content"] == [{"type": "text", "text": "3"}]
    assert asked["tools"][0]["name"] == "add"


@pytest.mark.parametrize("engine", ENGINES)
def test_n_answers_to_one_call(engine, twice, provider):
    """Several completions of one prompt come back as they were, in their order."""
    provider.numbered = True
    answers = twice(lambda url: model(url, engine, temperature=1.0)("pick a number", n=3))
    assert len(answers) == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_rollouts_are_answered_in_order(engine, twice, provider):
    """Rollouts, which look the same to the provider, replay as they were recorded: first, second, third."""
    provider.numbered = True

    def program(url):
        lm = model(url, engine, temperature=1.0)
        return [lm(f"roll the dice {engine}", rollout_id=number)[0] for number in (1, 2, 3)]

    assert twice(program) == ["answer 1", "answer 2", "answer 3"]


@pytest.mark.parametrize("caching", [True, False])
def test_an_embedder(caching, twice):
    """Vectors of dspy.Embedder, which calls LiteLLM, come back exactly, with its own cache switched on or not."""

    def program(url):
        embedder = dspy.Embedder("openai/text-embedding-3-small", caching=caching, api_base=url, api_key=KEY)
        return embedder(["one", "two"]).tolist()

    assert len(twice(program)) == 2


@pytest.mark.parametrize("key", ["messages", "content"])
@pytest.mark.parametrize("engine", ENGINES)
def test_one_recording_for_several_models(key, engine, twice):
    """The strategies that leave the model out do so for DSPy too."""
    twice.record(lambda url: model(url, engine)("hello"), key=key)
    other = twice.replay(lambda url: model(url, engine, "openai/gpt-4o")("hello"), key=key)
    assert other == ["You said: hello"]


@native
def test_content_is_the_texts_alone(twice):
    """With key content neither roles, parameters nor calls of tools count, but what was said and what a tool gave."""
    from dspy.lm15 import Config, Message, Request, TextPart, ToolCallPart, ToolResultPart

    def program(tool, result, **config):
        messages = (
            Message.user("hello"),
            Message(role="assistant", parts=(ToolCallPart(id="call_1", name=tool, input={}),)),
            Message(role="tool", parts=(ToolResultPart(id="call_1", content=(TextPart(result),)),)),
        )
        request = Request(model="openai/gpt-4o-mini", messages=messages, config=Config(**config))
        return lambda url: model(url)(request)

    twice.record(program("add", "3"), key="content")
    twice.replay(program("plus", "3", temperature=1.0), key="content")
    with pytest.raises(CassetteMiss):
        twice.replay(program("add", "4"), key="content")


@native
def test_ids_of_tool_calls_can_be_left_out(twice):
    """With the normalizer tool_call_id the id of a call of a tool, new in each run, is not the question."""
    from dspy.lm15 import Message, Request, TextPart, ToolCallPart, ToolResultPart

    def program(name):
        messages = (
            Message.user("hello"),
            Message(role="assistant", parts=(ToolCallPart(id=name, name="add", input={}),)),
            Message(role="tool", parts=(ToolResultPart(id=name, content=(TextPart("3"),)),)),
        )
        return lambda url: model(url)(Request(model="openai/gpt-4o-mini", messages=messages))

    twice.record(program("one"))
    with pytest.raises(CassetteMiss):
        twice.replay(program("two"))
    twice.replay(program("two"), normalize=["tool_call_id"])


@native
def test_switching_on_the_providers_cache_changes_no_key(twice):
    """How the provider caches a prompt is not the question: recordings stay valid."""
    from dspy.lm15 import CacheConfig

    twice.record(lambda url: model(url)("hello"))
    cached = CacheConfig(prefix="stable")
    assert twice.replay(lambda url: model(url, prompt_cache=cached)("hello")) == ["You said: hello"]


@native
def test_layers_answer_a_recording(twice, provider, tmp_path):
    """What DSPy's engine was answered once is paid for once: the cache layers answer the next recording."""
    disk = {"enable_disk_cache": True, "disk_cache_dir": str(tmp_path / "disk")}
    twice.record(lambda url: model(url)("hello"), **disk)
    asked, kept = provider.count, twice.documents
    twice.path.unlink()
    assert twice.record(lambda url: model(url)("hello"), **disk) == ["You said: hello"]
    assert (provider.count, twice.recording.calls[0].source) == (asked, "disk")
    assert twice.documents == kept


@native
@both
def test_of_those_that_ask_at_once_one_asks(is_async, provider, tmp_path):
    """What several processes, or here blocks, ask DSPy's engine at the same time reaches the provider once."""
    provider.answer = lambda asked: Reply(delay=0.3)
    layers = {"enable_disk_cache": True, "disk_cache_dir": str(tmp_path / "disk"), "mode": "record"}
    before = provider.count

    def one(_):
        with use_cassette(tmp_path / "x.yaml", **layers) as tape:
            lm = model(provider.url)
            asyncio.run(lm.acall("all at once")) if is_async else lm("all at once")
        return tape.calls[0].source

    with ThreadPoolExecutor(3) as pool:
        sources = list(pool.map(one, range(3)))
    assert provider.count - before == 1
    assert sources.count("provider") == 1


@native
def test_what_the_providers_prompt_cache_saved_is_counted(twice, provider):
    """Tokens that the provider read from its own prompt cache are counted, with what that saved."""
    usage = {"prompt_tokens": 2000, "completion_tokens": 3, "total_tokens": 2003}
    cached = {**usage, "prompt_tokens_details": {"cached_tokens": 1000}}
    message = {"role": "assistant", "content": "Hello."}
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": cached,
    }
    provider.answer = lambda _: Reply(body=body)
    twice(lambda url: model(url)("hello"))
    for tape in (twice.recording, twice.replaying):
        assert tape.calls[0].cached == (1000, 0)
        assert tape.calls[0].cached_usd == pytest.approx(1000 * 0.075e-6)


@native
def test_usage_that_is_empty(twice):
    """With usage empty a replayed call counts as DSPy counts a hit of its own cache: no tokens at all."""

    def program(url):
        lm = model(url)
        with dspy.track_usage() as tracker:
            lm("hello")
            stream = events(url, is_async=False)
        return tracker.get_total_tokens(), lm.history[0]["usage"], stream[-1].usage

    twice.record(program)
    assert twice.replay(program, usage="empty") == ({}, {}, None)


# ---- programs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("adapter", [None, dspy.JSONAdapter()], ids=["chat", "json"])
def test_a_typed_signature(engine, adapter, twice, provider):
    """A program with typed fields gives the same typed fields on replay."""
    if adapter is None:
        provider.answer = lambda _: Reply(text=PARIS)
    module = dspy.ChainOfThought(Capital) if adapter else dspy.Predict(Capital)

    def program(url):
        with dspy.context(lm=model(url, engine), adapter=adapter):
            found = module(country="France")
            return found.capital, found.sure, found.people

    capital, *others = twice(program)
    # For JSON the provider makes up an answer that fits the schema.
    assert (type(capital), *others) == (str, True, 7 if adapter else 2_100_000)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_streamify(engine, is_async, twice, provider):
    """A listener hears the same pieces of a streamed field, from a sync and from an async program."""
    provider.answer = lambda _: Reply(text=fields(answer="It is Paris, as everybody knows."))

    def program(url):
        from dspy.streaming import StreamListener, StreamResponse, streamify

        listener = StreamListener(signature_field_name="answer")
        predict = dspy.Predict("question -> answer")
        streamed = streamify(predict, stream_listeners=[listener], is_async_program=is_async)

        async def read():
            given = [piece async for piece in streamed(question="The capital?")]
            pieces = [piece.chunk for piece in given if isinstance(piece, StreamResponse)]
            return pieces, given[-1].answer

        with dspy.context(lm=model(url, engine)):
            return asyncio.run(read())

    pieces, answer = twice(program)
    assert answer == "It is Paris, as everybody knows."
    assert len(pieces) > 1
    assert twice.documents[0]["request"]["stream"] is True


@pytest.mark.parametrize("engine", ENGINES)
def test_an_agent_with_tools(engine, twice, provider):
    """ReAct calls its tools again on replay, with what the model said when it was recorded."""
    added = []

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        added.append(a + b)
        return a + b

    def program(url):
        with dspy.context(lm=model(url, engine)):
            return dspy.ReAct("question -> answer", tools=[add])(question="1 + 2?").answer

    provider.script(
        fields(next_thought="I add.", next_tool_name="add", next_tool_args='{"a": 1, "b": 2}'),
        fields(next_thought="Done.", next_tool_name="finish", next_tool_args="{}"),
        fields(reasoning="I added.", answer="3"),
    )
    assert twice(program) == "3"
    assert added == [3, 3]


class Chosen(dspy.Module):
    """Has one model say which other one answers."""

    def __init__(self, url, engine):
        super().__init__()
        self.choose = dspy.Predict("question -> model")
        self.answer = dspy.Predict("question -> answer")
        self.models = {name: model(url, engine, f"openai/{name}") for name in ("small", "large")}
        self.router = model(url, engine, "openai/router")

    def forward(self, question):
        with dspy.context(lm=self.router):
            chosen = self.choose(question=question).model
        with dspy.context(lm=self.models[chosen]):
            return self.answer(question=question)


def by_model(asked):
    name = asked.body["model"].removeprefix("openai/")
    return Reply(text=fields(model="large") if name == "router" else fields(answer=f"said {name}"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_module_that_chooses_the_model(engine, twice, provider):
    """A router module asks the same models in the same order on replay."""
    provider.answer = by_model
    assert twice(lambda url: Chosen(url, engine)(question="hard?").answer) == "said large"
    assert [document["request"]["model"] for document in twice.documents] == ["openai/router", "openai/large"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_for_each_thread(engine, twice, provider):
    """Threads that each have a model of their own get that model's answer, on replay too."""
    provider.answer = by_model
    names = ["one", "two", "three"]

    def program(url):
        said = {}

        def ask(name):
            with dspy.context(lm=model(url, engine, f"openai/{name}")):
                said[name] = dspy.Predict("question -> answer")(question="who?").answer

        threads = [threading.Thread(target=ask, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return said

    assert twice(program) == {name: f"said {name}" for name in names}


@pytest.mark.parametrize("engine", ENGINES)
def test_parallel_and_asyncify(engine, twice, provider):
    """Calls out of DSPy's own threads are recorded with the test that started them."""
    provider.answer = by_model

    def program(url):
        with dspy.context(lm=model(url, engine)):
            predict = dspy.Predict("question -> answer")
            pairs = [(predict, dspy.Example(question=f"q{n}").with_inputs("question")) for n in range(4)]
            several = [
                found.answer for found in dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)
            ]
            return [*several, asyncio.run(dspy.asyncify(predict)(question="last")).answer]

    assert twice(program) == ["said gpt-4o-mini"] * 5


# ---- what is counted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model_type", ["chat", "responses"])
def test_usage_and_history_are_as_live(engine, model_type, twice):
    """Code that counts tokens and money is tested as it runs live: tracker, history and cost say the same."""

    def program(url):
        lm = model(url, engine, model_type=model_type)
        with dspy.track_usage() as tracker:
            lm("hello")
        [entry] = lm.history
        return str(tracker.get_total_tokens()), str(entry["usage"]), entry["cost"], entry["response_model"]

    tracked, usage, cost, _ = twice(program)
    assert "'openai/gpt-4o-mini'" in tracked
    assert "3" in usage
    assert cost > 0
    assert twice.recording.calls[0].usd == twice.replaying.calls[0].usd == pytest.approx(cost)
    assert twice.replaying.calls[0].tokens == (9, 3)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_predictions_usage_is_as_live(engine, twice, provider):
    """``get_lm_usage()`` of a replayed prediction says what the recorded one said."""
    provider.answer = lambda _: Reply(text=PARIS)

    def program(url):
        with dspy.context(lm=model(url, engine), track_usage=True):
            return str(dspy.Predict(Capital)(country="France").get_lm_usage())

    assert "prompt_tokens" in twice(program)


@both
@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_says_that_it_is_not_the_providers(engine, is_async, twice):
    """``lm.history`` tells a replayed answer from a live one, and the usage of both is counted."""

    def program(url):
        lm = model(url, engine)
        with dspy.track_usage() as tracker:
            asyncio.run(lm.acall("hello")) if is_async else lm("hello")
        assert tracker.get_total_tokens()
        return lm.history[-1]["response"]

    live, replayed = twice.record(program), twice.replay(program)
    assert not getattr(live, "cache_hit", False)
    assert replayed.cache_hit is True
    assert replayed._hidden_params["cache_hit"] is True
    if engine == "auto" and NATIVE:
        assert replayed == live
    else:
        assert replayed.model_dump() == live.model_dump()


def test_it_is_known_that_dspy_calls(twice):
    """Something can be done when a call of DSPy's has ended, sync and async, and at no other call."""
    seen = []

    class Own(dspy.BaseLM):
        def forward(self, prompt=None, messages=None, **_):
            seen.append(after_dspy_call(lambda: seen.append("ended")))
            seen.append("asked")
            raise ZeroDivisionError

        async def aforward(self, prompt=None, messages=None, **_):
            self.forward()

    with use_cassette(twice.path):
        for call in (lambda: Own("own")("hello"), lambda: asyncio.run(Own("own").acall("hello"))):
            with pytest.raises(ZeroDivisionError), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that such classes will go
                call()
        assert not after_dspy_call(lambda: seen.append("never"))
    assert seen == [True, "asked", "ended"] * 2


@native
@pytest.mark.parametrize("kind", ["call", "stream"])
def test_a_model_without_a_price(kind, twice):
    """An answer of a model that no list prices is recorded without a price."""
    from dspy.lm15 import Message, Request

    def program(url):
        request = Request(model="openai/no-such-model", messages=(Message.user("hello"),))
        engine = own_engine(url)
        return engine.complete(request).text if kind == "call" else len(list(engine.stream(request)))

    twice(program)
    assert twice.recording.calls[0].usd is None
    assert twice.replaying.calls[0].tokens == (9, 3)


# ---- errors and misses -----------------------------------------------------------------------------------


def caught(url, engine, **more):
    try:
        return model(url, engine, **more)("hello")
    except Exception as error:
        names = ("message", "status", "provider", "code", "retry_after", "status_code")
        return type(error), *(getattr(error, name, None) for name in names)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "failure", ["invalid_request", "context_length_exceeded", "not_found", "unprocessable"]
)
def test_a_lasting_error(engine, failure, twice, provider):
    """An error that will come again is recorded, and raised again with class, message, status and provider."""
    provider.answer = lambda _: Reply(failure=failure)
    kind, *_ = twice(lambda url: caught(url, engine))
    assert kind.__name__.endswith("Error")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("failure", ["rate_limit", "server", "authentication", "timeout"])
def test_a_passing_error(engine, failure, twice, provider):
    """An error that passes, and that the block expected, is raised again as it was."""
    provider.answer = lambda _: Reply(failure=failure)
    for errors in ("lasting", "all"):
        if failure != "authentication":  # which repeats a part of the key
            twice(lambda url: caught(url, engine), record_errors=errors)
            twice.path.unlink()
    twice.record(lambda url: caught(url, engine))
    assert (twice.recording.recorded, twice.recording.not_recorded) == (1, [])


@native
def test_a_retry_is_recorded_once(twice, provider):
    """Of a call that DSPy repeats after a passing error, the answer alone is recorded, and replayed at once."""
    provider.script(Reply(failure="rate_limit", headers={"retry-after": "0"}))
    assert twice(lambda url: model(url, num_retries=2)("hello")) == ["You said: hello"]
    assert len(twice.documents) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_miss_is_swallowed_by_nobody(engine, twice):
    """Neither DSPy's retries, its error classes, its threads nor an ``except Exception`` swallows a miss."""
    twice.record(lambda url: model(url, engine)("hello"))
    with (
        pytest.raises(CassetteMiss, match='recorded "hello", asked "good bye"'),
        use_cassette(twice.path) as tape,
    ):
        try:
            model(GONE, engine, num_retries=3)("good bye")
        except Exception:
            pytest.fail("swallowed")
    assert len(tape.faults) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_miss_in_dspys_threads_is_remembered(engine, tmp_path):
    """A miss in a thread of dspy.Parallel fails the test that started it."""

    def program():
        with dspy.context(lm=model(GONE, engine)):
            example = dspy.Example(question="q").with_inputs("question")
            # One alone: of several, the others would go on after the end of this test.
            dspy.Parallel(num_threads=2, disable_progress_bar=True)(
                [(dspy.Predict("question -> answer"), example)]
            )

    with pytest.raises(CassetteMiss), use_cassette(tmp_path / "none.yaml"):
        try:
            program()
        except BaseException:
            pass


@native
def test_a_broken_recording_is_told(twice):
    """A recording that DSPy's classes refuse is an error of the cassette, with its line, not of the provider."""
    twice.record(lambda url: model(url)("hello"))
    text = twice.path.read_text(encoding="utf-8")
    twice.path.write_text(text.replace("finish_reason: stop", "finish_reason: nonsense", 1), encoding="utf-8")
    with (
        pytest.raises(CassetteError, match=r"x\.yaml:\d+: DSPy cannot read this answer"),
        use_cassette(twice.path) as tape,
    ):
        try:
            model(GONE)("hello")
        except Exception as wrapped:
            assert "unexpected" in type(wrapped).__name__.lower()
    assert len(tape.faults) == 1


@native
def test_an_error_of_an_unknown_class(twice, provider):
    """A recorded error that the installed DSPy does not have is told as such."""
    provider.answer = lambda _: Reply(failure="invalid_request")
    twice.record(lambda url: caught(url, "auto"))
    text = twice.path.read_text(encoding="utf-8")
    twice.path.write_text(text.replace("InvalidRequestError", "NoSuchError"), encoding="utf-8")
    with pytest.raises(CassetteError, match=r"x\.yaml:\d+: .*NoSuchError"):
        twice.replay(lambda url: caught(url, "auto"))


@native
@pytest.mark.parametrize("message", ["5", "true", "[1]", "null"])
def test_an_error_whose_message_was_edited(message, twice, provider):
    """What DSPy would stumble over, far from the file, is told with the file's line."""
    provider.answer = lambda _: Reply(failure="invalid_request")
    twice.record(lambda url: caught(url, "auto"))
    text = twice.path.read_text(encoding="utf-8")
    twice.path.write_text(re.sub(r"\n  message: .*", f"\n  message: {message}", text), encoding="utf-8")
    with pytest.raises(
        CassetteError, match=r"x\.yaml:\d+: DSPy cannot read this answer: `message:` must be a text"
    ):
        twice.replay(lambda url: caught(url, "auto"))


# ---- streams of the engine itself --------------------------------------------------------------------------


def own_engine(url, *, is_async=False):
    from dspy.clients.engines import AsyncLM15Engine, LM15Engine
    from dspy.lm15 import RouterConfig

    names = ("openai", "openai-chat")
    config = RouterConfig(api_keys=dict.fromkeys(names, KEY), base_urls=dict.fromkeys(names, url))
    return (AsyncLM15Engine if is_async else LM15Engine)(config)


def events(url, most=None, *, is_async):
    """The events of a stream, at most so many; then it is closed. An error ends them."""
    from contextlib import aclosing, closing

    from dspy.lm15 import LM15Error, Message, Request

    request = Request(model="openai/gpt-4o-mini", messages=(Message.user("hello over there"),))
    got = []

    async def read():
        async with aclosing(own_engine(url, is_async=True).stream(request)) as stream:
            async for event in stream:
                got.append(event)
                if len(got) == most:
                    break

    try:
        if is_async:
            asyncio.run(read())
        else:
            with closing(own_engine(url).stream(request)) as stream:
                for event in stream:
                    got.append(event)
                    if len(got) == most:
                        break
    except LM15Error as error:
        got.append((type(error), error.message, error.code, error.provider))
    return got


@native
@both
def test_a_stream(is_async, twice):
    """The events of a stream come back as they were, every one, with the price of the whole."""
    got = twice(lambda url: events(url, is_async=is_async))
    assert [event.type for event in got][:2] == ["start", "delta"]
    assert twice.recording.calls[0].usd == twice.replaying.calls[0].usd is not None
    assert twice.replaying.usage["total_tokens"] > 0


@native
@both
def test_a_stream_left_early(is_async, twice):
    """Of a stream that was left early the part that was read is replayed; reading on is a miss."""
    assert len(twice(lambda url: events(url, 2, is_async=is_async))) == 2
    assert twice.recording.calls[0].left_early
    with pytest.raises(CassetteMiss, match="ends after 2 chunks"):
        twice.replay(lambda url: events(url, is_async=is_async))


@native
def test_a_reader_that_another_task_ends(twice, provider, monkeypatch):
    """A task that reads ahead is ended where it was, as the provider's pauses allowed it when it was recorded."""
    from dspy.lm15 import Message, Request

    request = Request(model="openai/gpt-4o-mini", messages=(Message.user("hello over there"),))
    monkeypatch.setattr(provider, "pause", 0.1)

    async def two(url):
        got = asyncio.Queue()

        async def read():
            async for event in own_engine(url, is_async=True).stream(request):
                got.put_nowait(event)

        reader = asyncio.create_task(read())
        first = [await got.get(), await got.get()]
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
        return first

    assert len(twice(lambda url: asyncio.run(two(url)))) == 2
    assert twice.recording.calls[0].answer.ended == "cancelled"


@native
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_cancelled(stream, twice, provider):
    """A call, or a stream before its first event, that its caller cancels waits on replay until it is cancelled."""
    from dspy.lm15 import Message, Request

    request = Request(model="openai/gpt-4o-mini", messages=(Message.user("hello over there"),))
    provider.answer = lambda _: Reply(delay=10.0)

    async def ask(url):
        engine = own_engine(url, is_async=True)
        if not stream:
            await engine.complete(request)
        async for _ in engine.stream(request):
            pytest.fail("nothing is said for ten seconds")

    async def impatient(url):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(url), 0.3)
        return "waited"

    assert twice(lambda url: asyncio.run(impatient(url))) == "waited"
    assert twice.recording.not_recorded == []


@native
@both
def test_a_stream_that_breaks(is_async, twice, provider):
    """A stream that breaks in its middle is replayed up to there, and breaks with the same error."""
    provider.answer = lambda _: Reply(failure="server", cut=2)
    got = twice(lambda url: events(url, is_async=is_async))
    assert len(got) > 1
    assert got[-1][2] == "server"


@native
@both
def test_a_stream_that_is_closed_is_closed_at_once(is_async, twice):
    """Who closes a stream closes the provider's, and ends its recording, then and not at some later time."""
    from dspy.clients.engines import AsyncLM15Engine, LM15Engine
    from dspy.lm15 import Message, Request

    kind = AsyncLM15Engine if is_async else LM15Engine
    original, sources, done = kind.stream, [], []
    request = Request(model="openai/gpt-4o-mini", messages=(Message.user("hello over there"),))

    def stream(engine, asked):
        try:
            yield from original(engine, asked)
        finally:
            done.append("closed")

    async def astream(engine, asked):
        try:
            async for event in original(engine, asked):
                yield event
        finally:
            done.append("closed")

    def kept(engine, asked):
        # By a name of its own, so that nothing but closing it ends it.
        sources.append((astream if is_async else stream)(engine, asked))
        return sources[-1]

    looked = intercept.METHODS[kind.__name__, "stream"][1](
        intercept.Interception(session.current, lambda _: None).begin, kept
    )

    async def aread():
        events = looked(own_engine(twice.provider.url, is_async=True), request)
        await anext(events)
        await events.aclose()
        done.append(tape.calls[0].left_early)

    with use_cassette(twice.path, mode="record") as tape:
        if is_async:
            asyncio.run(aread())
        else:
            given = looked(own_engine(twice.provider.url), request)
            next(given)
            given.close()
            done.append(tape.calls[0].left_early)
    assert done == ["closed", True]


@native
@both
def test_nobody_records(is_async, provider):
    """Where nobody records, the engine's calls pass through the interception as they are."""
    from dspy.lm15 import Message, Request

    inner = intercept.Interception(lambda: None, lambda _: None)
    inner.open()
    try:
        assert len(events(provider.url, is_async=is_async)) > 2
        engine = own_engine(provider.url, is_async=is_async)
        answer = engine.complete(Request(model="openai/gpt-4o-mini", messages=(Message.user("hello"),)))
        assert (asyncio.run(answer) if is_async else answer).text == "You said: hello"
    finally:
        inner.close()


# ---- the interception --------------------------------------------------------------------------------------------


def state():
    """All that the interception may touch."""
    kinds = [dspy.BaseLM]
    if NATIVE:
        from dspy.clients.engines import AsyncLM15Engine, LM15Engine
        from dspy.clients.typesafe import TypeSafe

        kinds += [LM15Engine, AsyncLM15Engine, TypeSafe]
    return [dict(vars(kind)) for kind in kinds]


def test_the_door_leaves_nothing_behind(tmp_path):
    """After the last recorder DSPy's classes are what they were before, also where recorders nest."""
    before = state()
    with use_cassette(tmp_path / "x.yaml"):
        within = state()
        with use_cassette(tmp_path / "y.yaml"):
            pass
        assert state() == within != before
    assert state() == before


@native
@pytest.mark.parametrize(("kind", "method"), [("LM15Engine", "complete"), ("AsyncLM15Engine", "stream")])
def test_an_engine_that_is_built_otherwise(kind, method, tmp_path, monkeypatch):
    """With a DSPy whose calls would slip by unseen nothing is recorded at all, and it is said why."""
    module = sys.modules["dspy.clients.engines.lm15_engine"]
    monkeypatch.delattr(getattr(module, kind), method)
    with pytest.raises(DoorError, match=rf"DSPy \({re.escape(dspy.__version__)}\): {kind}\.{method} "):
        use_cassette(tmp_path / "x.yaml").__enter__()
    assert not session.scopes
    monkeypatch.undo()
    with use_cassette(tmp_path / "x.yaml"):
        pass


@native
def test_an_engine_that_is_called_elsewhere(tmp_path, monkeypatch):
    """Where DSPy has an engine of the same name but calls another, that is noticed too."""
    from dspy.clients import execution

    monkeypatch.setattr(execution, "LM15Engine", object)
    with pytest.raises(DoorError, match="LM15Engine"):
        use_cassette(tmp_path / "x.yaml").__enter__()
    monkeypatch.undo()


def test_dspy_imported_anew(tmp_path, monkeypatch):
    """Where DSPy is imported a second time, the calls of both are seen, whoever holds the first one's classes."""
    before = state()
    with use_cassette(tmp_path / "x.yaml"):
        within = state()
        monkeypatch.setitem(sys.modules, "dspy", ModuleType("dspy"))
        monkeypatch.delitem(sys.modules, "dspy.clients.base_lm")
        with use_cassette(tmp_path / "y.yaml"):
            assert state()[:3] == within[:3]
        monkeypatch.undo()
        with use_cassette(tmp_path / "y.yaml"):
            assert [list(kind) for kind in state()] == [list(kind) for kind in within]
            assert state() != before
    assert state() == before


@native
@both
def test_what_is_no_request(is_async, tmp_path):
    """An engine that is asked wrongly says so itself, as it does without this plugin."""
    with use_cassette(tmp_path / "x.yaml") as tape:
        with pytest.raises(TypeError, match=r"requires a dspy\.lm15\.Request"):
            asked = own_engine(GONE, is_async=is_async).complete("hello")
            asyncio.run(asked)
        with pytest.raises(TypeError, match=r"requires a dspy\.lm15\.Request"):
            next(own_engine(GONE).stream("hello"))
    assert tape.calls == []


@native
@pytest.mark.filterwarnings("ignore:.*experimental")
def test_a_client_that_is_not_recorded_is_refused(tmp_path, monkeypatch):
    """TypeSafe, whose calls are not recorded, lets nothing out on replay, by name, also where it is imported late."""
    monkeypatch.delitem(sys.modules, "dspy.clients.typesafe", raising=False)
    with (
        pytest.raises(UnsupportedCall, match=r"^pytest-lmcache cannot record dspy\.TypeSafe\(\) yet"),
        use_cassette(tmp_path / "x.yaml"),
    ):
        from dspy.clients.typesafe import TypeSafe

        TypeSafe(api_key=KEY, base_url=GONE)("state", {})


# ---- compiled programs -----------------------------------------------------------------------------------

LOAD = """
import os, sys
import dspy
from pytest_lmcache import use_cassette

how, path, cassette = sys.argv[1:]
lm = dspy.LM("openai/gpt-4o-mini", api_base="http://127.0.0.1:9/v1", api_key="sk-local", num_retries=0)
dspy.configure(lm=lm)
if how == "state":
    program = dspy.Predict("question -> answer")
    program.load(path)
else:
    program = dspy.load(path, **({"allow_pickle": True} if dspy.__version__ >= "3.1" else {}))
with use_cassette(cassette) as tape:
    print(program(question="What is 3 + 4?").answer, len(program.demos), tape.replayed, tape.recorded)
"""


@pytest.fixture(scope="module")
def compiled(provider, tmp_path_factory):
    """A program that BootstrapFewShot compiled while it was recorded, and then asked; its cassettes' folder."""
    folder = tmp_path_factory.mktemp("compiled")
    before, provider.answer = provider.answer, lambda _: Reply(text=fields(answer="7"))
    try:
        # Layers are to answer nothing here either; the fixture that sees to it comes after this one.
        alone = {"mode": "record", "enable_memory_cache": False, "enable_disk_cache": False}
        with use_cassette(folder / "compile.yaml", **alone):
            program = compile_with(provider.url)
        with (
            use_cassette(folder / "ask.yaml", **alone),
            dspy.context(lm=model(provider.url)),
        ):
            assert program(question="What is 3 + 4?").answer == "7"
    finally:
        provider.answer = before
    return folder, program


def compile_with(url):
    examples = [
        dspy.Example(question=f"What is {n} + {7 - n}?", answer="7").with_inputs("question") for n in range(3)
    ]
    with dspy.context(lm=model(url)):
        optimizer = dspy.BootstrapFewShot(metric=lambda example, found, _: example.answer == found.answer)
        return optimizer.compile(dspy.Predict("question -> answer"), trainset=examples)


def test_an_optimizer_compiles_offline(compiled):
    """BootstrapFewShot compiles from a cassette the program that it compiled with the provider."""
    folder, program = compiled
    with use_cassette(folder / "compile.yaml") as tape:
        again = compile_with(GONE)
    assert tape.replayed > 0
    assert len(again.demos) == len(program.demos) > 0
    assert [dict(demo) for demo in again.demos] == [dict(demo) for demo in program.demos]


@pytest.mark.parametrize("how", ["state", "program"])
def test_a_saved_program_in_a_fresh_process(how, compiled, tmp_path):
    """A compiled program, saved as state or as a whole, replays in a new process from the same cassette."""
    folder, program = compiled
    path = tmp_path / ("state.json" if how == "state" else "program")
    program.save(path, **({} if how == "state" else {"save_program": True}))
    environment = {
        **os.environ,
        "DSPY_CACHEDIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD, how, str(path), str(folder / "ask.yaml")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.split() == ["7", str(len(program.demos)), "1", "0"], done.stdout + done.stderr


# ---- recorded by one engine, asked by the other ----------------------------------------------------------


def said_by(engine, url):
    """What a language model on this engine says to a text, a typed signature, a tool and two identical calls."""
    asked = model(url, engine, cache=False)
    tool = {
        "type": "function",
        "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}},
    }
    with dspy.context(lm=asked, adapter=dspy.JSONAdapter()):
        found = dspy.Predict("question -> answer, score: int")(question="How many?")
    called = asked("find it", tools=[tool])[0]["tool_calls"][0]["function"]["name"]
    said = [asked("hello")[0], dict(found), called, asked("again"), asked("again")]
    return [*said, {name: asked.history[0]["usage"][name] for name in ("prompt_tokens", "completion_tokens")}]


@native
@pytest.mark.parametrize(("recorded", "asked"), [("litellm", "auto"), ("auto", "litellm")])
def test_either_engine_replays_what_the_other_recorded(recorded, asked, twice):
    """Where a test is recorded with OPENAI_API_BASE and replayed without, DSPy takes another engine: no miss."""
    first = twice.record(functools.partial(said_by, recorded))
    assert twice.replay(functools.partial(said_by, asked)) == first
    assert twice.replaying.replayed == twice.recording.recorded
    assert twice.replaying.unused() == 0
    # Nor is it asked again when more is recorded.
    count = twice.provider.count
    with use_cassette(twice.path, mode="record") as tape:
        said_by(asked, twice.provider.url)
    assert (tape.recorded, twice.provider.count) == (0, count)


@native
def test_the_engine_follows_the_environment(twice, monkeypatch):
    """The same program with and without OPENAI_API_BASE has one cassette."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def program(_):
        return dspy.LM("openai/gpt-4o-mini", cache=False)("hello")

    monkeypatch.setenv("OPENAI_API_BASE", twice.provider.url)
    first = twice.record(program)
    monkeypatch.delenv("OPENAI_API_BASE")
    assert twice.replay(program) == first
    assert [call.name for call in twice.recording.calls] == ["completion"]


@native
@pytest.mark.parametrize(
    ("recorded", "asked", "way"), [("litellm", "auto", "litellm"), ("auto", "litellm", "lm15")]
)
@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_miss_names_the_other_engine(recorded, asked, way, kind, twice):
    """What cannot be converted, such as another question, misses, and the miss names both ways out."""

    def program(engine, text, url):
        return model(url, engine, cache=False, model_type=kind)(text)

    twice.record(functools.partial(program, recorded, "hello"))
    with pytest.raises(CassetteMiss, match=f'OPENAI_API_BASE(?s:.*)engine="{way}"'):
        twice.replay(functools.partial(program, asked, "good bye"))
