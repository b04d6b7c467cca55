"""Faults and replies of a test's own, as real objects of LiteLLM's: whole, streamed, sync, async, through a Router."""

import asyncio
import json
import time

import httpx
import litellm
import pytest
from litellm.integrations.custom_logger import CustomLogger
from provider import Provider

from pytest_lmcache import Reply, SettingsError, StagedAnswerError, ToolCall, use_cassette
from pytest_lmcache.errors import CassetteMiss

ASKED = [{"role": "user", "content": "Who is the GOAT?"}]
GONE = "http://127.0.0.1:9/v1"
MODEL = "openai/gpt-4o-mini"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def provider():
    with Provider(numbered=True) as running:
        yield running


@pytest.fixture
def path(tmp_path):
    return tmp_path / "it.yaml"


def chat(url=GONE, **more):
    given = {"model": MODEL, "messages": ASKED, "api_base": url, "api_key": "sk-local", "max_retries": 0}
    return litellm.completion(**{**given, **more})


def said(answer):
    return answer.choices[0].message.content


def claude(url=GONE, **more):
    return litellm.anthropic_messages(
        model="anthropic/claude-haiku-4-5",
        messages=ASKED,
        max_tokens=9,
        api_base=url.removesuffix("/v1"),
        api_key="sk-local",
        **more,
    )


def text(url=GONE, **more):
    model = "openai/gpt-3.5-turbo-instruct"
    return litellm.text_completion(model=model, prompt="a", api_base=url, api_key="sk-local", **more)


def respond(url=GONE, **more):
    return litellm.responses(model=MODEL, input="a", api_base=url, api_key="sk-local", **more)


async def all_of(call):
    return [chunk async for chunk in await call]


def data_of(events):
    lines = b"".join(events).decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


# ---------------------------------------------------------------- replies


def test_a_chat():
    """A text becomes a ModelResponse of the model that is asked, without tokens and for nothing."""
    with use_cassette(None) as tape:
        tape.reply("Paris.")
        answer = chat()
    assert isinstance(answer, litellm.ModelResponse)
    assert (said(answer), answer.model, answer.choices[0].finish_reason) == ("Paris.", "gpt-4o-mini", "stop")
    assert answer.usage.total_tokens == 0
    assert answer._hidden_params["response_cost"] == 0
    assert [(call.source, call.text) for call in tape.calls] == [("reply", "Paris.")]
    assert (tape.replayed, tape.recorded) == (0, 0)


def test_an_async_chat():
    """An async call gets the same."""

    async def ask():
        return said(await litellm.acompletion(model=MODEL, messages=ASKED, api_base=GONE, api_key="k"))

    with use_cassette(None) as tape:
        tape.reply("Paris.")
        assert asyncio.run(ask()) == "Paris."


def test_tokens_have_their_price():
    """A reply with a usage costs what LiteLLM says of those tokens."""
    with use_cassette(None) as tape:
        tape.reply("Paris.", usage={"prompt_tokens": 1000, "completion_tokens": 100})
        answer = chat()
    assert answer.usage.total_tokens == 1100
    assert tape.calls[0].usd == pytest.approx(1000 * 1.5e-7 + 100 * 6e-7)
    assert answer._hidden_params["response_cost"] == pytest.approx(tape.calls[0].usd)
    assert tape.usage["total_tokens"] == 1100


def test_tool_calls_and_reasoning():
    """Tool calls get ids and JSON, and end the answer as tool calls do."""
    with use_cassette(None) as tape:
        tape.reply(
            tool_calls=[("weather", {"city": "Paris"}), ToolCall("weather", "{}", "own")], reasoning="Hm."
        )
        answer = chat(tools=[TOOL])
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert (message.content, message.reasoning_content) == (None, "Hm.")
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls] == [
        ("call_reply_1_1", "weather", '{"city": "Paris"}'),
        ("own", "weather", "{}"),
    ]
    assert [call.arguments for call in tape.calls[0].tool_calls] == [{"city": "Paris"}, {}]


@pytest.mark.parametrize("usage", [None, {"include_usage": True}])
def test_a_stream_of_a_chat(usage):
    """A list of texts is streamed piece by piece, sync and async, as LiteLLM's own stream; whole calls get it joined."""
    more = {"stream_options": usage} if usage else {}
    with use_cassette(None) as tape:
        tape.reply(["Par", "is", "."])
        stream = chat(stream=True, **more)
        chunks = list(stream)
        arguments = {
            "model": MODEL,
            "messages": ASKED,
            "api_base": GONE,
            "api_key": "k",
            "stream": True,
            **more,
        }
        others = asyncio.run(all_of(litellm.acompletion(**arguments)))
        whole = said(chat())
    assert isinstance(stream, litellm.CustomStreamWrapper)
    assert whole == "Paris."
    for each in (chunks, others):
        assert [text for chunk in each for choice in chunk.choices if (text := choice.delta.content)] == [
            "Par",
            "is",
            ".",
        ]
        assert [choice.finish_reason for chunk in each for choice in chunk.choices][-1] == "stop"
        assert hasattr(each[-1], "usage") == bool(usage)
    assert said(litellm.stream_chunk_builder(chunks)) == "Paris."


def test_a_stream_of_tool_calls():
    """LiteLLM joins the chunks of a tool call that a reply streams."""
    with use_cassette(None) as tape:
        tape.reply(tool_calls=[("weather", {"city": "Paris"})], reasoning="Hm.")
        joined = litellm.stream_chunk_builder(list(chat(stream=True, tools=[TOOL])))
    [call] = joined.choices[0].message.tool_calls
    assert (call.id, call.function.name) == ("call_reply_1_1", "weather")
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert joined.choices[0].message.reasoning_content == "Hm."
    assert joined.choices[0].finish_reason == "tool_calls"


def test_a_text_completion():
    """text_completion() gets a TextCompletionResponse, or its stream."""
    with use_cassette(None) as tape:
        tape.reply(["Par", "is"])
        answer, chunks = text(), list(text(stream=True))
    assert isinstance(answer, litellm.TextCompletionResponse)
    assert answer.choices[0].text == "Paris"
    assert [chunk.choices[0].text for chunk in chunks] == ["Par", "is", None]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_an_embedding():
    """embedding() gets one vector for all inputs, or one for each."""
    with use_cassette(None) as tape:
        tape.reply(embedding=[0.5, 1], times=1)
        tape.reply(embedding=[[1, 2], [3, 4]])
        arguments = {"model": "openai/text-embedding-3-small", "api_base": GONE, "api_key": "k"}
        first = litellm.embedding(input=["a", "b"], **arguments)
        second = litellm.embedding(input=["a", "b"], **arguments)
        with pytest.raises(SettingsError, match="has 1 inputs, and the reply has 2 vectors"):
            litellm.embedding(input="a", **arguments)
        tape.faults.clear()
    assert isinstance(first, litellm.EmbeddingResponse)
    assert [item["embedding"] for item in first.data] == [[0.5, 1.0], [0.5, 1.0]]
    assert [item["embedding"] for item in second.data] == [[1.0, 2.0], [3.0, 4.0]]


def test_responses():
    """responses() gets a ResponsesAPIResponse, or the events of its stream."""
    with use_cassette(None) as tape:
        tape.reply(Reply(["Par", "is"], [ToolCall("weather", {"city": "P"})], reasoning="Hm."))
        answer, events = respond(), list(respond(stream=True))
    kinds = [item.type for item in answer.output]
    assert kinds == ["reasoning", "message", "function_call"]
    assert answer.output[1].content[0].text == "Paris"
    assert json.loads(answer.output[2].arguments) == {"city": "P"}
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert deltas == ["Par", "is"]
    assert events[-1].type == "response.completed"
    assert events[-1].response.output[1].content[0].text == "Paris"


def test_anthropic_messages():
    """anthropic.messages() gets a message, or the events of its stream."""
    with use_cassette(None) as tape:
        tape.reply(["Par", "is"], tool_calls=[("weather", {"city": "P"})], reasoning="Hm.")
        answer, events = asyncio.run(claude()), data_of(asyncio.run(all_of(claude(stream=True))))
    assert [block["type"] for block in answer["content"]] == ["thinking", "text", "tool_use"]
    assert (answer["content"][1]["text"], answer["stop_reason"]) == ("Paris", "tool_use")
    assert answer["content"][2]["input"] == {"city": "P"}
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert [delta.get("text") for delta in deltas if delta["type"] == "text_delta"] == ["Par", "is"]
    assert events[-1] == {"type": "message_stop"}


@pytest.fixture
def heard(monkeypatch):
    """What LiteLLM's callbacks hear: a function waits until there is something."""
    told = []

    class Listener(CustomLogger):
        def log_success_event(self, kwargs, response_obj, start_time, end_time):
            told.append(response_obj)

        def log_failure_event(self, kwargs, response_obj, start_time, end_time):
            told.append(kwargs["exception"])

    for name in ("callbacks", "success_callback", "failure_callback"):
        monkeypatch.setattr(litellm, name, [Listener()] if name == "callbacks" else [])
    # LiteLLM sets callbacks up once in a process: what listens here first would be all that a later test may use.
    monkeypatch.setattr(litellm.utils, "callback_list", [])

    def wait():
        for _ in range(300):
            if told:
                break
            time.sleep(0.1)
        return told

    return wait


@pytest.mark.parametrize("function", [chat, text, respond])
def test_callbacks_hear_of_a_reply(heard, function):
    """LiteLLM's success callbacks get a reply as any answer."""
    with use_cassette(None) as tape:
        tape.reply("Paris.")
        answer = function()
    assert heard()[0].id == answer.id


@pytest.mark.parametrize(
    ("reply", "function", "words"),
    [
        ({"tool_calls": [("weather", {})]}, text, "text_completion() gives no tool call"),
        ({"embedding": [1.0]}, chat, "completion() gives no embedding"),
        ({"embedding": [1.0]}, respond, "responses() gives no embedding"),
    ],
)
def test_what_an_entry_point_cannot_give(reply, function, words):
    """A reply that a call cannot get is an error that says why, not another answer."""
    with pytest.raises(SettingsError) as caught, use_cassette(None) as tape:
        tape.reply(**reply)
        function()
    assert words in str(caught.value)


# ---------------------------------------------------------------- broken streams


def record(path, provider, *functions):
    with use_cassette(path, mode="record"):
        for function in functions:
            function(provider.url)


def streamed(url, **more):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chat(url, stream=True, **more))


def read(stream, got):
    for chunk in stream:
        got.append(chunk)


def test_a_cut_stream(path, provider):
    """A recorded stream breaks after some chunks as a lost connection does; the retry gets the whole recording."""
    whole = []
    record(path, provider, *[lambda url: whole.append(streamed(url))] * 2)
    got = []
    with use_cassette(path) as tape:
        tape.cut_stream(after=2)
        with pytest.raises(litellm.exceptions.MidStreamFallbackError) as caught:
            read(chat(stream=True), got)
        again = [streamed(GONE), streamed(GONE)]
    assert len(got) == 2
    assert caught.value.generated_content == "".join(chunk.choices[0].delta.content or "" for chunk in got)
    assert caught.value.generated_content.startswith("answer")
    assert isinstance(caught.value.original_exception, litellm.APIConnectionError)
    assert "peer closed connection" in str(caught.value)
    assert again == whole
    assert len({*whole}) == 2
    assert [call.source for call in tape.calls] == ["fault", "cassette", "cassette"]


def test_a_cut_stream_while_it_is_recorded(path, provider):
    """A stream that is not recorded yet is asked for once: the caller sees its beginning, the retry the whole."""
    asked, got = provider.count, []

    def test(url, **settings):
        with use_cassette(path, **settings) as tape:
            tape.cut_stream(after=2)
            with pytest.raises(litellm.exceptions.MidStreamFallbackError):
                read(chat(url, stream=True), got)
            return streamed(url), [call.source for call in tape.calls], tape.recorded

    whole = test(provider.url, mode="record")
    assert provider.count == asked + 1
    assert whole[1:] == (["fault", "provider"], 1)
    assert test(GONE) == (whole[0], ["fault", "cassette"], 0)
    assert path.read_text().count("\n--- #") == 1
    rewritten = test(provider.url, mode="rewrite")
    assert provider.count == asked + 2
    assert test(GONE)[0] == rewritten[0] != whole[0]


def test_a_cut_stream_that_nobody_retries(path, provider):
    """What was asked for is recorded even if no call gets the whole: replay needs it."""

    def test(url, **settings):
        with use_cassette(path, **settings) as tape:
            tape.cut_stream(after=1, error=None)
            return [chunk.choices[0].delta.content for chunk in chat(url, stream=True)]

    recorded = test(provider.url, mode="record")
    replayed = test(GONE)
    assert recorded == replayed
    assert len(replayed) == 1
    assert path.read_text().count("\n--- #") == 1


@pytest.mark.parametrize("mode", ["record", "replay"])
def test_cut_streams_of_other_entry_points(path, provider, mode):
    """Each kind of stream breaks with the error that its readers get live."""
    record(
        path,
        provider,
        lambda url: list(text(url, stream=True)),
        lambda url: list(respond(url, stream=True)),
        lambda url: asyncio.run(all_of(claude(url, stream=True))),
    )
    if mode == "record":
        path.unlink()
    url, got = provider.url if mode == "record" else GONE, []
    with use_cassette(path, mode=mode) as tape:
        tape.cut_stream(after=2, times=2)
        with pytest.raises(litellm.InternalServerError, match="MidStreamFallbackError"):
            read(text(url, stream=True), got)
        with pytest.raises(httpx.RemoteProtocolError):
            read(respond(url, stream=True), got)
        tape.cut_stream(after=1)
        with pytest.raises(httpx.ReadError):
            asyncio.run(all_of(claude(url, stream=True)))
        assert [call.source for call in tape.calls] == ["fault"] * 3
    assert len(got) == 4


def test_a_cut_reply():
    """A stream of a reply can break too, with an error of the test's own."""
    with use_cassette(None) as tape:
        tape.reply(["Par", "is"])
        tape.cut_stream(after=2, error=litellm.RateLimitError)
        got = []
        with pytest.raises(litellm.exceptions.MidStreamFallbackError) as caught:
            read(chat(stream=True), got)
    assert isinstance(caught.value.original_exception, litellm.RateLimitError)
    assert len(got) == 2


def test_a_cut_stream_without_a_recording(path, provider):
    """On replay a stream that is to be cut has to be recorded."""
    record(path, provider, lambda url: chat(url, messages=ASKED * 2))
    with pytest.raises(CassetteMiss), use_cassette(path) as tape:
        tape.cut_stream(after=1)
        list(chat(stream=True))


# ---------------------------------------------------------------- retries and fallbacks


def test_retries_of_litellm(path, provider):
    """num_retries asks again after a fault; the retry gets the first recording."""
    record(path, provider, chat, chat)
    with use_cassette(path) as tape:
        tape.fail(litellm.RateLimitError, times=2)
        assert said(chat(num_retries=2)).startswith("answer")
    assert [call.source for call in tape.calls] == ["fault", "fault", "cassette"]
    assert tape.calls[-1].nth == 0


def router(**more):
    both = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_base": GONE, "api_key": "k"}}
        for name in ("first", "second")
    ]
    return litellm.Router(model_list=both, **{"num_retries": 0, **more})


def test_fallbacks_of_a_router():
    """A Router goes on to its fallback, sync and async."""
    with use_cassette(None) as tape:
        tape.fail(litellm.InternalServerError, model="first", times=2)
        tape.reply("from the second", model="openai/second")
        asking = router(fallbacks=[{"first": ["second"]}])
        assert said(asking.completion("first", ASKED)) == "from the second"
        assert said(asyncio.run(asking.acompletion("first", ASKED))) == "from the second"
    assert [(call.source, call.model) for call in tape.calls] == [
        ("fault", "openai/first"),
        ("reply", "openai/second"),
    ] * 2


def test_retries_of_a_router():
    """A Router retries, and the header of the error says when."""
    with use_cassette(None) as tape:
        tape.fail(litellm.RateLimitError, retry_after=0.01)
        tape.reply("Paris.")
        assert said(router(num_retries=2).completion("first", ASKED)) == "Paris."
    assert [call.source for call in tape.calls] == ["fault", "reply"]


def test_failure_callbacks_hear_of_a_fault(heard):
    """LiteLLM's failure callbacks get the error of a fault."""
    with use_cassette(None) as tape:
        tape.fail(litellm.RateLimitError)
        with pytest.raises(litellm.RateLimitError):
            chat()
    assert isinstance(heard()[0], litellm.RateLimitError)


# ---------------------------------------------------------------- other faults


def test_an_empty_answer():
    """empty() gives an answer without text, as a stream too."""
    with use_cassette(None) as tape:
        tape.empty(times=2)
        assert said(chat()) == ""
        assert streamed(GONE) == ""
    assert [call.source for call in tape.calls] == ["fault", "fault"]


def test_a_malformed_tool_call():
    """malformed_tool_call() calls the first tool that is offered, with arguments that are no JSON."""
    with use_cassette(None) as tape:
        tape.malformed_tool_call()
        tape.reply("Paris.")
        assert said(chat()) == "Paris."
        [call] = chat(tools=[TOOL]).choices[0].message.tool_calls
    assert call.function.name == "weather"
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(call.function.arguments)


def test_a_malformed_tool_call_of_anthropic_messages():
    """A stream of anthropic.messages can carry it; a whole message cannot, and says so."""
    tools = [{"name": "weather", "input_schema": {"type": "object"}}]
    with use_cassette(None) as tape:
        tape.malformed_tool_call(arguments="{", times=2)
        events = data_of(asyncio.run(all_of(claude(stream=True, tools=tools))))
        with pytest.raises(SettingsError, match="cannot be malformed JSON"):
            asyncio.run(claude(tools=tools))
        tape.faults.clear()
    assert [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"] == [
        "{"
    ]


def test_a_slow_answer_by_the_clock(path, provider):
    """The clock moves on, and the caller does not wait."""
    record(path, provider, chat)
    began = time.perf_counter()
    with use_cassette(path) as tape:
        tape.slow(30)
        times = time.monotonic(), time.time(), time.perf_counter()
        assert said(chat(timeout=60)).startswith("answer")
        took = [
            now - then
            for now, then in zip((time.monotonic(), time.time(), time.perf_counter()), times, strict=True)
        ]
        assert all(30 <= seconds < 40 for seconds in took)
    assert time.perf_counter() - began < 20
    assert [call.source for call in tape.calls] == ["cassette"]


def test_a_slow_answer_that_times_out(path):
    """A call with a shorter timeout of its own raises LiteLLM's error, and takes no recording."""
    with use_cassette(path) as tape:
        tape.slow(30)
        began = time.monotonic()
        with pytest.raises(litellm.Timeout):
            chat(timeout=10)
        assert 10 <= time.monotonic() - began < 15
    assert [call.source for call in tape.calls] == ["fault"]


def test_a_slow_answer_of_asyncio(path, provider):
    """asyncio's time-outs come before a slower answer, and the loop's clock shows how long an answer took."""
    record(path, provider, chat)

    async def ask():
        loop = asyncio.get_running_loop()
        arguments = {"model": MODEL, "messages": ASKED, "api_base": GONE, "api_key": "k"}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(litellm.acompletion(**arguments), 10)
        began = loop.time()
        answer = await asyncio.wait_for(litellm.acompletion(**arguments), 60)
        return said(answer), loop.time() - began

    began = time.perf_counter()
    with use_cassette(path) as tape:
        tape.slow(30, times=2)
        answer, took = asyncio.run(ask())
    assert answer.startswith("answer")
    assert 30 <= took < 40
    assert time.perf_counter() - began < 20


def test_a_slow_answer_that_is_cancelled_while_it_is_recorded(path):
    """A call that a time-out cancels before it is sent is recorded as a cancelled one, and nothing is said to miss."""

    async def ask():
        arguments = {"model": MODEL, "messages": ASKED, "api_base": GONE, "api_key": "k"}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(litellm.acompletion(**arguments), 10)

    with use_cassette(path, mode="record") as tape:
        tape.slow(30)
        asyncio.run(ask())
    assert tape.recorded == 1
    assert "cancelled: true" in path.read_text()
    with use_cassette(path) as tape:
        tape.slow(30)
        asyncio.run(ask())
    assert tape.replayed == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_an_answer_that_is_really_slow(is_async):
    """With wait the call takes its time."""
    with use_cassette(None) as tape:
        tape.slow(0.2, wait=True)
        tape.reply("Paris.")
        began = time.perf_counter()
        arguments = {"model": MODEL, "messages": ASKED, "api_base": GONE, "api_key": "k"}
        answer = (
            asyncio.run(litellm.acompletion(**arguments)) if is_async else litellm.completion(**arguments)
        )
        took = time.perf_counter() - began
    assert said(answer) == "Paris."
    assert took >= 0.2


# ---------------------------------------------------------------- blocks


def test_a_fault_that_no_call_meets(path):
    """A block in which no call met its fault raises."""
    with pytest.raises(StagedAnswerError) as caught, use_cassette(path) as tape:
        tape.fail(litellm.RateLimitError, model="gpt-9")
    assert "lm_cache.fail(RateLimitError, model='gpt-9') met no call." in str(caught.value)


def test_nothing_is_recorded(path, provider):
    """While recording, neither faults nor replies are sent, or written into the cassette."""
    asked = provider.count
    with use_cassette(path, mode="record") as tape:
        tape.fail(litellm.RateLimitError)
        tape.reply("by hand", when=lambda request: request["messages"][0]["content"] == "hand")
        with pytest.raises(litellm.RateLimitError):
            chat(provider.url)
        assert said(chat(provider.url, messages=[{"role": "user", "content": "hand"}])) == "by hand"
        first = said(chat(provider.url))
    assert provider.count == asked + 1
    written = path.read_text()
    assert "by hand" not in written
    assert written.count("\n--- #") == 1
    with use_cassette(path) as tape:
        assert said(chat()) == first
