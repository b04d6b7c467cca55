"""The loopback provider speaks to real LiteLLM; read it to see how each shape of answer is called for."""

import array
import asyncio
import base64
import subprocess
import sys
import time
from pathlib import Path

import litellm
import litellm.exceptions
import provider as provider_module
import pytest
from provider import FAILURES, Provider, Reply, vector

# LiteLLM, pydantic and event loops warn about one another; here only the provider is on trial.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

KEY = "sk-local-1234567890"
HELLO = [{"role": "user", "content": "Hello there"}]
ADD = {
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "why": {"type": "string"}}},
}
CLAUDE = "anthropic/claude-sonnet-4-5"


@pytest.fixture
def provider():
    with Provider() as running:
        yield running


def ask(provider, model="openai/gpt-4o-mini", messages=HELLO, **more):
    """One chat call, without the retries of the SDK."""
    base = provider.base if model.startswith("anthropic/") else provider.url
    return litellm.completion(
        model=model, messages=messages, api_base=base, api_key=KEY, max_retries=0, **more
    )


def words(answer):
    return answer.choices[0].message.content


def built(chunks):
    """A stream put together again, as a user would."""
    return litellm.stream_chunk_builder(list(chunks)).choices[0].message


def test_plain_chat(provider):
    """A chat call is answered from its own words, and the request can be looked at."""
    assert words(ask(provider)) == "You said: Hello there"
    (request,) = provider.requests
    assert request.path == "/v1/chat/completions"
    assert request.body["messages"] == HELLO
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_streamed_chat(provider):
    """A stream gives the same words in pieces, and its usage when asked."""
    chunks = list(ask(provider, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert [piece for piece in pieces if piece] == ["You", " said:", " Hello", " there"]
    assert chunks[-1].usage.completion_tokens == 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", CLAUDE])
def test_tools(provider, model, stream):
    """Given tools, the first one is called with arguments that fit; after its result there are words."""
    tools = [{"type": "function", "function": ADD}]
    first = ask(provider, model, tools=tools, stream=stream)
    message = built(first) if stream else first.choices[0].message
    (call,) = message.tool_calls
    assert (call.function.name, call.function.arguments) == ("add", '{"a": 7, "why": "Hello there"}')
    result = {"role": "tool", "tool_call_id": call.id, "content": "9"}
    second = ask(provider, model, [*HELLO, message.model_dump(exclude_none=True), result], tools=tools)
    assert second.choices[0].finish_reason == "stop"


def test_json(provider):
    """A JSON schema gets JSON that fits it."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}, "names": {"type": "array"}}}
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert words(ask(provider, response_format=asked)) == '{"ok": true, "names": ["You said: Hello there"]}'


def test_choices_and_logprobs(provider):
    """Several choices and the log probabilities of their tokens come when asked for."""
    choices = ask(provider, n=2, logprobs=True).choices
    assert [choice.message.content for choice in choices] == [
        "You said: Hello there",
        "You said: Hello there (2)",
    ]
    assert choices[0].logprobs.content[0].token == "You"


def test_reasoning_annotations_audio_and_extras(provider):
    """What only some models send comes when the request asks for it."""
    thought = ask(provider, "openai/o3-mini", reasoning_effort="low")
    assert thought.choices[0].message.reasoning_content.startswith("First I think")
    thought = built(ask(provider, "openai/o3-mini", reasoning_effort="low", stream=True))
    assert thought.reasoning_content.startswith("First I think")
    found = ask(provider, "openai/gpt-4o-search-preview", web_search_options={})
    assert found.choices[0].message.annotations[0]["type"] == "url_citation"
    sound = {"voice": "alloy", "format": "wav"}
    spoken = ask(provider, "openai/gpt-4o-audio-preview", modalities=["text", "audio"], audio=sound)
    assert spoken.choices[0].message.audio.transcript == "You said: Hello there"
    extra = ask(provider, extra_body={"vendor_extras": True})
    assert extra.vendor_timing == {"queue": 0.25, "total": 1.5}


def test_thinking_blocks_and_cache_usage(provider):
    """Anthropic's thinking blocks and cache counters come when asked for, streamed or not."""
    thinking = {"type": "enabled", "budget_tokens": 1024}
    (block,) = ask(provider, CLAUDE, thinking=thinking).choices[0].message.thinking_blocks
    (streamed,) = built(ask(provider, CLAUDE, thinking=thinking, stream=True)).thinking_blocks
    assert block == streamed
    cached = [{"type": "text", "text": "Long", "cache_control": {"type": "ephemeral"}}]
    usage = ask(provider, CLAUDE, [{"role": "user", "content": cached}]).usage
    assert (usage.cache_creation_input_tokens, usage.cache_read_input_tokens) == (2048, 1024)


def test_text_completion(provider):
    """Legacy completions, whole and streamed, with one choice for each prompt."""
    to = {"model": "text-completion-openai/gpt-3.5-turbo-instruct", "api_base": provider.url, "api_key": KEY}
    answer = litellm.text_completion(prompt=["One", "Two"], **to)
    assert [choice.text for choice in answer.choices] == ["You said: One", "You said: Two"]
    chunks = litellm.text_completion(prompt="Once", stream=True, **to)
    assert "".join(chunk.choices[0].text or "" for chunk in chunks) == "You said: Once"


def test_embedding(provider):
    """A text always gets the same 1536 numbers, as numbers or packed."""
    to = {"model": "openai/text-embedding-3-small", "api_base": provider.url, "api_key": KEY}
    answer = litellm.embedding(input=["a", "b"], **to)
    assert [item["embedding"] for item in answer.data] == [vector("a").tolist(), vector("b").tolist()]
    assert len(answer.data[0]["embedding"]) == 1536
    packed = litellm.embedding(input=["a"], encoding_format="base64", **to).data[0]["embedding"]
    assert array.array("f", base64.b64decode(packed)) == vector("a")


def test_responses(provider):
    """The responses API: words, function calls, and a stream of events."""
    to = {"model": "openai/gpt-4o-mini", "input": "Hello", "api_base": provider.url, "api_key": KEY}
    assert litellm.responses(**to).output[0].content[0].text == "You said: Hello"
    call = litellm.responses(tools=[{"type": "function", **ADD}], **to).output[0]
    assert call.arguments == '{"a": 7, "why": "Hello"}'
    kinds = [event.type.value for event in litellm.responses(stream=True, **to)]
    assert kinds[0] == "response.created"
    assert kinds.count("response.output_text.delta") == 3
    assert kinds[-1] == "response.completed"


def test_async_forms(provider):
    """Every entry point's async form, streamed and not, through a Router too."""

    async def everything():
        to = {"api_base": provider.url, "api_key": KEY}
        chat = {"model": "openai/gpt-4o-mini", "messages": HELLO, **to}
        assert words(await litellm.acompletion(**chat)) == "You said: Hello there"
        stream = await litellm.acompletion(stream=True, **chat)
        assert built([chunk async for chunk in stream]).content == "You said: Hello there"
        router = litellm.Router([{"model_name": "m", "litellm_params": {"model": chat["model"], **to}}])
        assert words(await router.acompletion(model="m", messages=HELLO)) == "You said: Hello there"
        events = await litellm.aresponses(model=chat["model"], input="Hi", stream=True, **to)
        assert [event async for event in events][-1].type == "response.completed"

        message = {
            "model": CLAUDE,
            "messages": HELLO,
            "max_tokens": 9,
            "api_base": provider.base,
            "api_key": KEY,
        }
        for acreate in (litellm.anthropic_messages, litellm.anthropic.messages.acreate):
            whole = await acreate(**message)
            assert whole["content"] == [{"type": "text", "text": "You said: Hello there"}]
        stream = await litellm.anthropic_messages(stream=True, **message)
        assert b"message_stop" in b"".join([part async for part in stream])

    asyncio.run(everything())


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", CLAUDE])
def test_failures(provider, failure, model):
    """Each failure arrives as LiteLLM's exception with the status the provider sent, or its translation."""
    provider.script(Reply(failure=failure))
    with pytest.raises(Exception, match=r"litellm\.") as caught:
        ask(provider, model)
    sent = FAILURES[failure].status
    # What LiteLLM makes of some: 1.83 knows neither 403 nor 422 from Anthropic.
    translated = {422: {400, 500}, 403: {500}, 503: {500}}.get(sent, set())
    assert caught.value.status_code in {sent} | translated
    echoed = "sk-local****7890" in str(caught.value)
    assert echoed == (failure == "authentication")


def test_script_and_answer(provider):
    """Queued replies come first, in order; then the function; then the default."""
    provider.answer = lambda request: f"{len(request.prompt)} letters"
    provider.script("first", Reply(text="second", delay=0.2))
    assert words(ask(provider)) == "first"
    started = time.perf_counter()
    assert words(ask(provider)) == "second"
    assert time.perf_counter() - started > 0.2
    assert words(ask(provider)) == "11 letters"


@pytest.mark.parametrize("reply", [Reply(cut=3), Reply(cut=3, failure="server")])
def test_broken_stream(provider, reply):
    """A stream can end dead or with an error event, after as many pieces as wished."""
    provider.script(reply)
    got = []
    with pytest.raises(litellm.exceptions.MidStreamFallbackError):
        got.extend(chunk.choices[0].delta.content for chunk in ask(provider, stream=True))
    assert provider.count == 1


def test_dropped_connection(provider):
    """A dropped connection is what a dead network looks like."""
    provider.script(Reply(drop=True))
    with pytest.raises(litellm.InternalServerError, match="Connection error"):
        ask(provider)


def test_numbered():
    """With numbered answers the n-th identical request can be told from the others."""
    with Provider(numbered=True) as provider:
        assert [words(ask(provider)) for _ in range(2)] == ["answer 1", "answer 2"]
        assert words(ask(provider, temperature=0.5)) == "answer 1"


def test_stopped_provider_answers_nobody(provider):
    """After stop even a kept-alive connection is dead, so a replay cannot cheat."""
    ask(provider)
    provider.stop()
    with pytest.raises(litellm.InternalServerError):
        ask(provider)
    assert provider.count == 1


def test_from_a_shell():
    """Run as a program it prints its URL and serves it."""
    command = [sys.executable, Path(provider_module.__file__), "--numbered"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            answer = litellm.completion(
                model="openai/x", messages=HELLO, api_base=url, api_key=KEY, max_retries=0
            )
            assert words(answer) == "answer 1"
        finally:
            process.terminate()
