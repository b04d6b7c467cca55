"""Every shape of call, recorded against a provider on loopback and replayed when it is gone: nothing differs."""

import asyncio
import contextlib
import contextvars
import copy
import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import litellm
import pytest
from freezegun import freeze_time
from litellm.integrations.custom_logger import CustomLogger
from provider import Provider, Reply

from pytest_lmcache import Cache, use_cassette
from pytest_lmcache.errors import CassetteMiss
from pytest_lmcache.libraries.litellm.answers import Message

GONE = "http://127.0.0.1:9/v1"
ASKED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who is the GOAT?\nOne line."},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def provider():
    with Provider() as running:
        yield running


def chat(url, **more):
    arguments = {
        "model": "openai/gpt-4o-mini",
        "messages": ASKED,
        "api_base": url,
        "api_key": "sk-local",
        **more,
    }
    return litellm.completion(**arguments)


def achat(url, **more):
    arguments = {
        "model": "openai/gpt-4o-mini",
        "messages": ASKED,
        "api_base": url,
        "api_key": "sk-local",
        **more,
    }
    return litellm.acompletion(**arguments)


def claude(url, **more):
    base = url.removesuffix("/v1")
    arguments = {
        "model": "anthropic/claude-haiku-4-5",
        "messages": ASKED,
        "api_base": base,
        "api_key": "sk-local",
    }
    return litellm.completion(**{**arguments, **more})


def claude_messages(url, **more):
    return litellm.anthropic.messages.acreate(
        model="anthropic/claude-haiku-4-5",
        max_tokens=64,
        messages=ASKED[1:],
        api_base=url.removesuffix("/v1"),
        api_key="sk-local",
        **more,
    )


def text(url, **more):
    return litellm.text_completion(
        model="text-completion-openai/gpt-3.5-turbo-instruct",
        prompt="Say hi",
        api_base=url,
        api_key="sk",
        **more,
    )


def vectors(url, **more):
    return litellm.embedding(
        model="openai/text-embedding-3-small", input=["one", "two"], api_base=url, api_key="sk", **more
    )


def responses(url, **more):
    return litellm.responses(model="openai/gpt-4o-mini", input="Say hi", api_base=url, api_key="sk", **more)


def awaited(awaitable):
    async def run():
        return await awaitable

    return asyncio.run(run())


def read(make):
    async def run():
        return [chunk async for chunk in await make()]

    return asyncio.run(run())


def router(url):
    deployment = {"model": "openai/gpt-4o-mini", "api_base": url, "api_key": "sk-local"}
    return litellm.Router(
        model_list=[{"model_name": "small", "litellm_params": deployment, "model_info": {"id": "one"}}],
        num_retries=0,
    )


ANSWERS = {
    "plain": chat,
    "positional": lambda url: litellm.completion("openai/gpt-4o-mini", ASKED, api_base=url, api_key="sk"),
    "async": lambda url: awaited(achat(url)),
    "two choices": lambda url: chat(url, n=2),
    "tools": lambda url: chat(url, tools=[TOOL], tool_choice="required"),
    "JSON": lambda url: chat(url, response_format={"type": "json_object"}),
    "logprobs": lambda url: chat(url, logprobs=True, top_logprobs=2),
    "reasoning": lambda url: chat(url, model="openai/o3-mini", reasoning_effort="low"),
    "annotations": lambda url: chat(url, web_search_options={}),
    "audio": lambda url: chat(
        url, model="openai/gpt-audio", modalities=["text", "audio"], audio={"voice": "a", "format": "wav"}
    ),
    "vendor extras": lambda url: chat(url, extra_body={"vendor_extras": True}),
    "claude": claude,
    "claude thinking": lambda url: claude(
        url, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048
    ),
    "claude tools": lambda url: claude(url, tools=[TOOL]),
    "messages": lambda url: awaited(claude_messages(url)),
    "messages over chat": lambda url: awaited(
        litellm.anthropic.messages.acreate(
            model="openai/gpt-4o-mini", max_tokens=64, messages=ASKED[1:], api_base=url, api_key="sk"
        )
    ),
    "text": text,
    "text async": lambda url: awaited(
        litellm.atext_completion(
            model="text-completion-openai/gpt-3.5-turbo-instruct", prompt="Say hi", api_base=url, api_key="sk"
        )
    ),
    "embedding": vectors,
    "embedding in decimals": lambda url: vectors(url, encoding_format="float"),
    "embedding positional": lambda url: awaited(
        litellm.aembedding("openai/text-embedding-3-small", ["one"], api_base=url, api_key="sk")
    ),
    "embedding async": lambda url: awaited(
        litellm.aembedding(model="openai/text-embedding-3-small", input=["one"], api_base=url, api_key="sk")
    ),
    "responses": responses,
    "responses async": lambda url: awaited(
        litellm.aresponses(model="openai/gpt-4o-mini", input="Say hi", api_base=url, api_key="sk")
    ),
    "responses over claude": lambda url: litellm.responses(
        model="anthropic/claude-haiku-4-5", input="Say hi", api_base=url.removesuffix("/v1"), api_key="sk"
    ),
    "router": lambda url: router(url).completion(model="small", messages=ASKED),
    "router async": lambda url: awaited(router(url).acompletion(model="small", messages=ASKED)),
}

STREAMS = {
    "plain": lambda url: list(chat(url, stream=True)),
    "async": lambda url: read(lambda: achat(url, stream=True)),
    "usage": lambda url: list(chat(url, stream=True, stream_options={"include_usage": True})),
    "usage async": lambda url: read(lambda: achat(url, stream=True, stream_options={"include_usage": True})),
    "tools": lambda url: list(chat(url, stream=True, tools=[TOOL], tool_choice="required")),
    "two choices": lambda url: list(chat(url, stream=True, n=2)),
    "logprobs": lambda url: list(chat(url, stream=True, logprobs=True, top_logprobs=1)),
    "reasoning": lambda url: list(chat(url, stream=True, model="openai/o3-mini", reasoning_effort="low")),
    "vendor extras": lambda url: list(chat(url, stream=True, extra_body={"vendor_extras": True})),
    "claude": lambda url: list(claude(url, stream=True)),
    "claude thinking": lambda url: list(
        claude(url, stream=True, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048)
    ),
    "messages": lambda url: read(lambda: claude_messages(url, stream=True)),
    "messages over chat": lambda url: read(
        lambda: litellm.anthropic.messages.acreate(
            model="openai/gpt-4o-mini",
            max_tokens=64,
            messages=ASKED[1:],
            api_base=url,
            api_key="sk",
            stream=True,
        )
    ),
    "text": lambda url: list(text(url, stream=True)),
    "text async": lambda url: read(
        lambda: litellm.atext_completion(
            model="text-completion-openai/gpt-3.5-turbo-instruct",
            prompt="Say hi",
            api_base=url,
            api_key="sk",
            stream=True,
        )
    ),
    "responses": lambda url: list(responses(url, stream=True)),
    "responses async": lambda url: read(
        lambda: litellm.aresponses(
            model="openai/gpt-4o-mini", input="hi", api_base=url, api_key="sk", stream=True
        )
    ),
    "responses over claude": lambda url: read(
        lambda: litellm.aresponses(
            model="anthropic/claude-haiku-4-5",
            input="hi",
            api_base=url.removesuffix("/v1"),
            api_key="sk",
            stream=True,
        )
    ),
    "router": lambda url: list(router(url).completion(model="small", messages=ASKED, stream=True)),
    "router async": lambda url: read(
        lambda: router(url).acompletion(model="small", messages=ASKED, stream=True)
    ),
}


def dumped(value):
    if isinstance(value, dict) and isinstance(value.get("usage"), dict):
        # LiteLLM 1.83 writes the total into the caller's own answer when it logs.
        return {**value, "usage": {**value["usage"], "total_tokens": None}}
    return value.model_dump(warnings=False) if hasattr(value, "model_dump") else value


def both(tmp_path, provider, call):
    """What a call gives when it is recorded and when it is replayed with the provider out of reach."""
    before = provider.count
    with use_cassette(tmp_path / "x.yaml", mode="record") as recording:
        live = contextvars.copy_context().run(call, provider.url)
    assert provider.count == before + 1
    assert recording.recorded == 1
    with use_cassette(tmp_path / "x.yaml") as replaying:
        stored = contextvars.copy_context().run(call, GONE)
    assert provider.count == before + 1
    assert replaying.replayed == 1
    return live, stored


@pytest.mark.parametrize("shape", ANSWERS)
def test_a_replayed_answer_equals_the_recorded_one(shape, provider, tmp_path):
    """A replayed answer has LiteLLM's own type and all its values; a plain dict is one that can be marked."""
    live, stored = both(tmp_path, provider, ANSWERS[shape])
    assert type(stored) is (Message if type(live) is dict else type(live))
    assert dumped(stored) == dumped(live)
    # As text too, in which a program may ask on.
    assert json.dumps(dumped(stored), default=str) == json.dumps(dumped(live), default=str)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [*ANSWERS, *(f"streamed {name}" for name in STREAMS)])
def test_a_layer_gives_what_the_provider_gave(shape, provider, tmp_path):
    """What was paid for by a test that failed is the same from disk, type for type, and so is its recording."""
    is_stream = shape.startswith("streamed ")
    call = STREAMS[shape.removeprefix("streamed ")] if is_stream else ANSWERS[shape]
    cache = Cache(enable_memory_cache=False, disk_cache_dir=tmp_path / "disk")
    with (
        contextlib.suppress(ZeroDivisionError),
        use_cassette(tmp_path / "x.yaml", mode="record", cache=cache),
    ):
        live = contextvars.copy_context().run(call, provider.url)
        raise ZeroDivisionError
    asked_before = provider.count
    with use_cassette(tmp_path / "x.yaml", mode="record", cache=cache) as again:
        stored = contextvars.copy_context().run(call, provider.url)
    assert provider.count == asked_before
    assert [asked.source for asked in again.calls] == ["disk"]
    with use_cassette(tmp_path / "x.yaml"):
        replayed = contextvars.copy_context().run(call, GONE)
    cache.close()
    for other in (stored, replayed):
        pairs = zip(live, other, strict=True) if is_stream else [(live, other)]
        for one, two in pairs:
            assert type(two) is (Message if type(one) is dict else type(one))
            assert dumped(two) == dumped(one)


def test_what_litellm_s_classes_refuse_is_stored_whole(provider, tmp_path, monkeypatch):
    """A class that fails in its own way while the shortest form of an answer is looked for breaks no call."""
    from pytest_lmcache.libraries.litellm import answers

    def refused(*_):
        raise AttributeError("not yet")

    with monkeypatch.context() as broken:
        broken.setattr(answers, "build", refused)
        with use_cassette(tmp_path / "x.yaml", mode="record"):
            live = chat(provider.url)
    with use_cassette(tmp_path / "x.yaml"):
        assert dumped(chat(GONE)) == dumped(live)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_warning_that_is_an_error_is_no_broken_recording(stream, provider, tmp_path, monkeypatch):
    """Where a run makes errors of warnings, one that LiteLLM's classes give while they are read stays what it is."""
    from pytest_lmcache.libraries.litellm import answers, chunks

    def warns(*_):
        raise UserWarning("of pydantic's")

    def call(url):
        answer = chat(url, stream=stream)
        _ = list(answer) if stream else answer

    with use_cassette(tmp_path / "x.yaml", mode="record"):
        call(provider.url)
    for module in (answers, chunks):
        monkeypatch.setattr(module, "build", warns)
    with pytest.raises(UserWarning, match="of pydantic's"), use_cassette(tmp_path / "x.yaml"):
        call(GONE)


def test_a_call_that_its_test_cancels_keeps_its_place(provider, tmp_path):
    """The second of three identical calls is cancelled: on replay it waits for that, and the third has its answer."""

    async def run(url):
        first = await achat(url)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(achat(url), 0.5)
        third = await achat(url)
        return [answer.choices[0].message.content for answer in (first, third)]

    provider.script(Reply(text="one"), Reply(delay=5.0), Reply(text="three"))
    with use_cassette(tmp_path / "x.yaml", mode="record") as tape:
        asyncio.run(run(provider.url))
    assert (tape.recorded, tape.not_recorded) == (3, [])
    with use_cassette(tmp_path / "x.yaml") as tape:
        assert asyncio.run(run(GONE)) == ["one", "three"]
    assert [(call.nth, call.source) for call in tape.calls] == [
        (0, "cassette"),
        (1, "cassette"),
        (2, "cassette"),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_what_nothing_cancels_misses(stream, provider, tmp_path, monkeypatch):
    """A cancelled call, or the rest of a stream, waits for a time, or not at all if it is a sync one; then it misses."""

    async def read(url):
        answer = await achat(url, stream=stream)
        async for _ in answer:
            pass

    with Provider(pause=0.2) as slow, use_cassette(tmp_path / "x.yaml", mode="record"):
        slow.answer = lambda _: Reply(delay=0.0 if stream else 5.0)
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(read(slow.url), 0.5))
    monkeypatch.setattr("pytest_lmcache.libraries.recorded_call.LONGEST_WAIT", 0.1)
    for run, why in (
        (lambda: asyncio.run(read(GONE)), "Now it has waited 0 seconds, and nothing has cancelled it."),
        (lambda: [*chat(GONE, stream=stream)], "Now the call is sync, and nothing can cancel it."),
    ):
        with pytest.raises(CassetteMiss) as missed, use_cassette(tmp_path / "x.yaml"):
            run()
        what = "stream" if stream else "call"
        assert str(missed.value).startswith(
            f"When it was recorded, this {what} of completion() was cancelled"
        )
        assert why in str(missed.value)


def test_a_call_that_is_cancelled_while_another_process_asks_it(provider, tmp_path):
    """What waits for the answer of another process is recorded as cancelled too."""

    class Busy(Cache):
        single_flight = SimpleNamespace(claim=lambda _: None)

    async def impatient(url):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(achat(url), 0.2)

    with use_cassette(tmp_path / "x.yaml", mode="record", cache=Busy()) as tape:
        asyncio.run(impatient(provider.url))
    assert (tape.recorded, tape.not_recorded) == (1, [])
    with use_cassette(tmp_path / "x.yaml"):
        asyncio.run(impatient(GONE))


def test_none_and_nothing_stay_apart():
    """What a provider sent as null is None on the replayed answer, what it left out is not there."""
    from pytest_lmcache.libraries.litellm.entry_points import BY_FUNCTION

    sent = {"finish_reason": "stop", "index": 0, "message": {"content": "Hi", "role": "assistant"}}
    for logprobs in ({}, {"logprobs": None}):
        choice = BY_FUNCTION["completion"].answer.from_plain({"choices": [{**sent, **logprobs}]}).choices[0]
        assert choice.get("logprobs", "nothing") is (
            None if logprobs or hasattr(choice, "logprobs") else "nothing"
        )
        assert hasattr(choice, "logprobs") or not logprobs


MESSAGES = {
    "1.83": {"content": "Hi", "role": "assistant", "provider_specific_fields": {"refusal": None}},
    "1.110": {"content": "Hi", "role": "assistant", "refusal": None},
}


@pytest.mark.parametrize("version", MESSAGES)
def test_an_answer_that_another_litellm_recorded(version, provider):
    """What code reads of a live answer it reads of a recording of LiteLLM 1.83 or 1.110, whichever runs now."""
    from pytest_lmcache.libraries.litellm.entry_points import BY_FUNCTION

    logprobs = {"logprobs": None} if version == "1.110" else {}
    choice = {"finish_reason": "stop", "index": 0, "message": copy.deepcopy(MESSAGES[version]), **logprobs}
    live = chat(provider.url).choices[0]
    stored = BY_FUNCTION["completion"].answer.from_plain({"choices": [choice]}).choices[0]
    for name in ("refusal", "provider_specific_fields", "tool_calls", "function_call"):
        assert hasattr(stored.message, name) >= hasattr(live.message, name), name
    assert hasattr(stored, "logprobs") >= hasattr(live, "logprobs")
    assert (stored.message.provider_specific_fields or {}).items() >= (
        live.message.provider_specific_fields or {}
    ).items()


@pytest.mark.parametrize(
    "told", [{"provider_specific_fields": {"refusal": "no"}}, {"refusal": None}, {"refusal": "no"}]
)
@pytest.mark.parametrize("model", ["openai/m", "fireworks_ai/m"])
def test_a_second_turn_after_a_refusal(model, told, provider, tmp_path):
    """Wherever a provider puts a refusal, it is there on replay, and the next turn repeats it as live."""
    answer = {"role": "assistant", "content": "hi", **told}
    body = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": answer, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }

    def turns(url):
        to = {"model": model, "api_base": url, "api_key": "sk-local"}
        message = litellm.completion(messages=ASKED, **to).choices[0].message
        asked = [*ASKED, message.model_dump(), {"role": "user", "content": "and?"}]
        return [dumped(message), dumped(litellm.completion(messages=asked, **to))]

    provider.script(Reply(body=body), Reply(body=body))
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        live = turns(provider.url)
    with use_cassette(tmp_path / "x.yaml"):
        assert turns(GONE) == live


def test_fields_that_this_litellm_does_not_know():
    """A newer LiteLLM's fields without a value, or an older one's that it leaves out, break no replay."""
    from pytest_lmcache.libraries.litellm.chunks import event_from_plain
    from pytest_lmcache.libraries.litellm.entry_points import BY_FUNCTION

    usage = {"prompt_tokens_details": {"cache_creation_token_details": {"ephemeral_99m_input_tokens": None}}}
    assert (
        BY_FUNCTION["completion"].answer.from_plain({"choices": [], "usage": usage}).usage.total_tokens == 0
    )
    part = {"type": "output_text", "text": "Hi", "annotations": []}
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "sequence_number": 1}
    event = event_from_plain({"type": "response.content_part.done", "part": part, **where})
    assert event.part.text == "Hi"


@pytest.mark.parametrize(
    "shape", sorted(ANSWERS.keys() - {"messages", "messages over chat", "responses over claude"})
)
def test_a_replayed_answer_costs_what_it_did(shape, provider, tmp_path):
    """LiteLLM's own prices, providers and safe hidden parameters are on a replayed answer as on the live one."""
    live, stored = both(tmp_path, provider, ANSWERS[shape])
    for name in ("custom_llm_provider", "litellm_model_name", "model_id"):
        assert hidden(stored, name) == hidden(live, name), name
    # It is recorded with twelve digits.
    assert hidden(stored, "response_cost") == pytest.approx(hidden(live, "response_cost"), rel=1e-11)
    assert litellm.completion_cost(stored) == litellm.completion_cost(live) > 0


def hidden(response, name):
    params = response._hidden_params
    return params.get(name) if isinstance(params, dict) else getattr(params, name, None)


@pytest.mark.slow
@pytest.mark.parametrize("shape", STREAMS)
def test_a_replayed_stream_has_the_same_chunks(shape, provider, tmp_path):
    """A replayed stream gives the recorded chunks one for one, of the same types, and more than one."""
    live, stored = both(tmp_path, provider, STREAMS[shape])
    # Anthropic's events are handed on as the bytes that arrived, be it in one piece.
    assert len(live) > 1 or isinstance(live[0], bytes)
    assert [type(chunk) for chunk in stored] == [type(chunk) for chunk in live]
    assert [dumped(chunk) for chunk in stored] == [dumped(chunk) for chunk in live]


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}], ids=["bare", "usage"])
def test_chunks_build_the_same_response(options, provider, tmp_path):
    """stream_chunk_builder makes of replayed chunks what it makes of live ones."""
    live, stored = both(tmp_path, provider, lambda url: list(chat(url, stream=True, **options)))
    built = [litellm.stream_chunk_builder(chunks, messages=ASKED) for chunks in (live, stored)]
    assert dumped(built[0]) == dumped(built[1])


def test_a_replayed_stream_is_a_stream_of_litellm(provider, tmp_path):
    """Frameworks test for CustomStreamWrapper: a recorded and a replayed stream are one."""
    live, stored = both(tmp_path, provider, lambda url: [stream := chat(url, stream=True), list(stream)])
    assert isinstance(live[0], litellm.CustomStreamWrapper)
    assert isinstance(stored[0], litellm.CustomStreamWrapper)
    assert type(live[0]).__name__ == type(stored[0]).__name__ == "CustomStreamWrapper"


def test_each_replay_is_an_object_of_its_own(provider, tmp_path):
    """Changing one replayed answer changes no other, nor the cassette's."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        chat(provider.url)
    with use_cassette(tmp_path / "x.yaml"):
        first = chat(GONE)
        first.choices[0].message.content = "spoiled"
        first.usage.prompt_tokens = 10**6
        second = chat(GONE)
    assert second.choices[0].message.content != "spoiled"
    assert second.usage.prompt_tokens < 10**6


def test_each_chunk_of_a_replayed_stream_is_an_object_of_its_own(provider, tmp_path):
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        recorded = [chunk.model_dump() for chunk in chat(provider.url, stream=True)]
    with use_cassette(tmp_path / "x.yaml"):
        chunks = list(chat(GONE, stream=True))
    assert len(chunks) > 4
    for chunk in chunks[1:3]:
        chunk.choices[0].delta.content = "changed"
        chunk.choices[0].delta.note = chunk.choices[0].note = chunk.note = "new"
        chunk.choices[0].finish_reason = "length"
        chunk._hidden_params["note"] = "new"
        chunk.choices.append(chunk.choices[0])
    kept = [0, *range(3, len(chunks))]
    assert [chunks[n].model_dump() for n in kept] == [recorded[n] for n in kept]
    assert not any("note" in chunks[n]._hidden_params for n in kept)


def test_chunks_take_new_attributes(provider, tmp_path):
    """A framework may hang its own attributes on a replayed chunk, as DSPy does."""
    _, stored = both(tmp_path, provider, lambda url: list(chat(url, stream=True)))
    stored[0].predict_id = 7
    assert stored[0].predict_id == 7


def test_a_second_turn_with_the_replayed_message_is_found(provider, tmp_path):
    """A replayed message sent back in the next turn asks the recorded question."""

    def turns(url):
        first = chat(url, tools=[TOOL], tool_choice="required").choices[0].message
        result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "sunny"}
        as_object = chat(url, messages=[*ASKED, first, result])
        as_dict = chat(url, messages=[*ASKED, first.model_dump(), result])
        return as_object, as_dict

    with use_cassette(tmp_path / "x.yaml", mode="record"):
        live = turns(provider.url)
    with use_cassette(tmp_path / "x.yaml"):
        stored = turns(GONE)
    assert [dumped(each) for each in stored] == [dumped(each) for each in live]


def test_the_key_is_taken_before_the_caller_changes_its_messages(provider, tmp_path):
    """Appending to messages while a stream is read neither changes the recording nor the key."""

    def chatting(url):
        messages = [dict(message) for message in ASKED]
        said = ""
        for chunk in chat(url, messages=messages, stream=True):
            messages.append({"role": "assistant", "content": "spoiled"})
            said += chunk.choices[0].delta.content or ""
        return said

    live, stored = both(tmp_path, provider, chatting)
    assert live == stored != ""
    assert "spoiled" not in (tmp_path / "x.yaml").read_text()


def test_the_caller_s_metadata_is_no_part_of_the_question(provider, tmp_path):
    """LiteLLM writes into the caller's metadata during a call: another run's metadata finds the recording."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        chat(provider.url, metadata={"run": 1})
    with use_cassette(tmp_path / "x.yaml") as tape:
        chat(GONE, metadata={"run": 2})
    assert tape.replayed == 1


def atext(url, **more):
    return litellm.atext_completion(
        model="text-completion-openai/gpt-3.5-turbo-instruct", prompt="Hi", api_base=url, api_key="sk", **more
    )


def aresponses(url, **more):
    return litellm.aresponses(model="openai/gpt-4o-mini", input="Say hi", api_base=url, api_key="sk", **more)


READ_AHEAD = {
    "chat": achat,
    "text": atext,
    "responses": aresponses,
    "messages": claude_messages,
}


@pytest.mark.usefixtures("collected")
class TestStreamsThatEndOtherwise:
    """Streams that their readers leave, or that break."""

    def test_early_close_is_recorded_as_far_as_it_came(self, provider, tmp_path):
        """A stream that the test left after two chunks replays these two, and the run says so."""

        def two(url):
            stream = chat(url, stream=True)
            return [next(stream), next(stream)]

        with use_cassette(tmp_path / "x.yaml", mode="record") as recording:
            live = two(provider.url)
        assert [record.left_early for record in recording.calls] == [True]
        with use_cassette(tmp_path / "x.yaml"):
            stored = two(GONE)
        assert [dumped(chunk) for chunk in stored] == [dumped(chunk) for chunk in live]

    def test_reading_past_the_recorded_part_is_a_miss(self, provider, tmp_path):
        """A half-recorded stream never passes for a whole one."""
        with use_cassette(tmp_path / "x.yaml", mode="record"):
            next(chat(provider.url, stream=True))
        with (
            pytest.raises(BaseException, match="the test stopped reading there") as caught,
            use_cassette(tmp_path / "x.yaml"),
        ):
            list(chat(GONE, stream=True))
        assert type(caught.value).__name__ == "CassetteMiss"

    def test_aclose_ends_a_stream(self, provider, tmp_path):
        """Closing an async stream early works live, while recording and on replay."""

        async def one(url):
            stream = await achat(url, stream=True)
            first = await stream.__anext__()
            await stream.aclose()
            return first

        live, stored = both(tmp_path, provider, lambda url: asyncio.run(one(url)))
        assert dumped(stored) == dumped(live)

    @pytest.mark.slow
    @pytest.mark.parametrize("heard", [False, True], ids=["unheard", "heard"])
    @pytest.mark.parametrize("name", READ_AHEAD)
    def test_a_reader_that_another_task_ends(self, name, heard, monkeypatch, tmp_path):
        """A task that reads ahead is ended where it was: replay gives the other the time that the provider gave it."""
        monkeypatch.setattr(litellm, "callbacks", [CustomLogger()] if heard else [])

        async def two(url):
            stream = await READ_AHEAD[name](url, stream=True)
            got = asyncio.Queue()

            async def read():
                async for chunk in stream:
                    got.put_nowait(chunk)

            reader = asyncio.create_task(read())
            first = [await got.get(), await got.get()]
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            return [dumped(chunk) for chunk in first]

        with Provider(pause=0.1) as provider, use_cassette(tmp_path / "x.yaml", mode="record"):
            live = asyncio.run(two(provider.url))
        text = (tmp_path / "x.yaml").read_text()
        # Earlier versions recorded it as a reader that had left.
        for recorded in (text, text.replace("cancelled: true", "left_early: true")):
            (tmp_path / "x.yaml").write_text(recorded)
            with use_cassette(tmp_path / "x.yaml") as tape:
                assert asyncio.run(two(GONE)) == live
            assert tape.replayed == 1
        # LiteLLM 1.110 may take the cancellation of a reader of messages for the stream's end.
        assert "\ncancelled: true" in text or name == "messages"

    @pytest.mark.slow
    def test_reading_on_while_the_clock_is_stopped(self, provider, tmp_path):
        """The miss comes by the real clock: a test's frozen one would have it wait for ever."""

        async def read(url, most):
            stream = await achat(url, stream=True)
            for _ in range(most):
                await anext(stream, None)

        def replay():
            try:
                with freeze_time("2026-01-01"), use_cassette(tmp_path / "x.yaml"):
                    asyncio.run(read(GONE, 100))
            except BaseException as miss:
                missed.append(type(miss).__name__)

        missed = []
        with use_cassette(tmp_path / "x.yaml", mode="record"):
            asyncio.run(read(provider.url, 2))
        thread = threading.Thread(target=replay, daemon=True)
        thread.start()
        thread.join(60)
        assert missed == ["CassetteMiss"]

    def test_a_closed_stream_is_not_whole(self, provider, tmp_path):
        """LiteLLM 1.110 can close a sync stream, and its end closes every stream: only the former leaves early."""

        def reading(url, most):
            stream = chat(url, stream=True)
            got = [dumped(chunk) for chunk, _ in zip(stream, range(most), strict=False)]
            if hasattr(stream, "close"):
                stream.close()
            return got

        for most, early in ((2, True), (100, False)):
            live, stored = both(tmp_path / str(most), provider, lambda url, most=most: reading(url, most))
            assert stored == live
            text = (tmp_path / str(most) / "x.yaml").read_text()
            assert ("left_early: true" in text) is early

    @pytest.mark.slow
    @pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
    def test_an_error_in_mid_stream_is_replayed_in_its_place(self, is_async, provider, tmp_path):
        """The chunks before the error, then the same error, where such errors are recorded."""

        async def areading(url, got):
            async for chunk in await achat(url, stream=True):
                got.append(dumped(chunk))

        def reading(url):
            got = []
            with pytest.raises(litellm.exceptions.MidStreamFallbackError) as caught:
                if is_async:
                    asyncio.run(areading(url, got))
                else:
                    got.extend(dumped(chunk) for chunk in _collecting(chat(url, stream=True), got))
            return got, caught.value

        provider.script(Reply(cut=3, failure="server"))
        with use_cassette(tmp_path / "x.yaml", mode="record", record_errors="all"):
            live, live_error = reading(provider.url)
        with use_cassette(tmp_path / "x.yaml"):
            stored, stored_error = reading(GONE)
        assert live
        assert stored == live
        assert same_error(stored_error, live_error)
        assert stored_error.generated_content == live_error.generated_content  # type: ignore[attr-defined]

    def test_a_broken_stream_that_is_asked_for_again(self, provider, tmp_path):
        """A lost connection is of the moment: the next identical call takes its place in the cassette."""

        def reading(url):
            for _ in range(2):
                try:
                    return "".join(chunk.choices[0].delta.content or "" for chunk in chat(url, stream=True))
                except litellm.exceptions.MidStreamFallbackError:
                    continue
            return "broken twice"

        provider.script(Reply(cut=2))
        with use_cassette(tmp_path / "x.yaml", mode="record") as recording:
            live = reading(provider.url)
        assert recording.recorded == 1
        with use_cassette(tmp_path / "x.yaml"):
            assert reading(GONE) == live != "broken twice"


def _collecting(stream, got):
    for chunk in stream:
        got.append(dumped(chunk))
    yield from ()


LASTING = {
    "invalid_request": litellm.BadRequestError,
    "context_length_exceeded": litellm.ContextWindowExceededError,
    "content_policy_violation": litellm.ContentPolicyViolationError,
    "not_found": litellm.NotFoundError,
    "unprocessable": litellm.BadRequestError,
}
PASSING = {
    "authentication": litellm.AuthenticationError,
    "permission": litellm.APIError,
    "timeout": litellm.Timeout,
    "rate_limit": litellm.RateLimitError,
    "server": litellm.InternalServerError,
    "overloaded": litellm.ServiceUnavailableError,
}


def same_error(one, other):
    names = ("message", "status_code", "llm_provider", "model", "code", "param", "type", "body")
    return (
        type(one) is type(other)
        and str(one) == str(other)
        and repr(one) == repr(other)
        and all(getattr(one, name, None) == getattr(other, name, None) for name in names)
    )


def failing(url):
    with pytest.raises(Exception, match="litellm") as caught:
        chat(url, max_retries=0)
    return caught.value


@pytest.mark.parametrize("failure", LASTING)
def test_an_error_that_will_not_change_is_recorded(failure, provider, tmp_path):
    """The same class, message, status, provider and model are raised again."""
    provider.script(Reply(failure=failure))
    live, stored = both(tmp_path, provider, failing)
    assert isinstance(live, LASTING[failure])
    assert same_error(stored, live)


@pytest.mark.parametrize("errors", ["lasting", "all"])
@pytest.mark.parametrize("failure", PASSING)
def test_an_error_of_the_moment(failure, errors, provider, tmp_path):
    """A rate limit, a server's fault, a refused key that the block expected is raised again, retry-after included."""
    provider.script(Reply(failure=failure))
    with use_cassette(tmp_path / "x.yaml", mode="record", record_errors=errors) as recording:
        live = failing(provider.url)
    assert isinstance(live, PASSING[failure])
    assert recording.recorded == 1
    with use_cassette(tmp_path / "x.yaml"):
        stored = failing(GONE)
    assert same_error(stored, live) or failure == "authentication"
    assert type(stored) is type(live)
    assert hasattr(stored, "response") == hasattr(live, "response")
    has_body = bool(getattr(live, "response", None) and live.response.content)  # none in LiteLLM 1.83
    if has_body and failure != "authentication":  # which repeats a part of the key
        assert stored.response.json() == live.response.json()
        assert stored.response.json()["error"]["message"] in str(stored)
    sent = dict(getattr(live, "litellm_response_headers", None) or {}).get("retry-after")
    assert dict(getattr(stored, "litellm_response_headers", None) or {}).get("retry-after") == sent
    assert (sent is not None) == (failure == "rate_limit")


def test_a_recorded_error_holds_no_key(provider, tmp_path):
    """A provider that refuses a key echoes a part of it: not into the cassette."""
    provider.script(Reply(failure="authentication"))
    with use_cassette(tmp_path / "x.yaml", mode="record", record_errors="all"):
        failing(provider.url)
    assert "local" not in (tmp_path / "x.yaml").read_text()


def test_a_lost_connection(provider, tmp_path):
    """A connection that nobody answers is raised again where the block expected it."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        live = failing(GONE)
    with use_cassette(tmp_path / "x.yaml"):
        assert same_error(failing(provider.url), live)


def test_unsupported_parameters_are_recorded(tmp_path, provider):
    """What LiteLLM itself refuses before it asks anyone is refused again on replay."""

    def refused(url):
        with pytest.raises(litellm.UnsupportedParamsError) as caught:
            claude(url, logit_bias={"1": 2})
        return caught.value

    with use_cassette(tmp_path / "x.yaml", mode="record"):
        live = refused(provider.url)
    with use_cassette(tmp_path / "x.yaml"):
        assert same_error(refused(GONE), live)


def test_retries_run_on_replay_as_they_did(provider, tmp_path):
    """A recorded error, retried by LiteLLM, then the recorded success: the same attempts in the same order."""
    url = provider.url

    def retrying(url):
        router = litellm.Router(
            model_list=[
                {
                    "model_name": "small",
                    "litellm_params": {
                        "model": "openai/gpt-4o-mini",
                        "api_base": url,
                        "api_key": "sk",
                        "max_retries": 0,
                    },
                }
            ],
            num_retries=2,
            retry_after=0,
        )
        return str(router.completion(model="small", messages=ASKED).choices[0].message.content)

    provider.script(Reply(failure="server"), Reply(text="at last"))
    with use_cassette(tmp_path / "x.yaml", mode="record", record_errors="all") as recording:
        live = retrying(url)
    with use_cassette(tmp_path / "x.yaml") as replaying:
        assert retrying(GONE) == live == "at last"
    assert recording.recorded == replaying.replayed == 2


def test_fallbacks_run_on_replay_as_they_did(provider, tmp_path):
    """A Router that falls back to a second model does so on replay."""

    def falling(url):
        models = {"first": "openai/gpt-4o", "second": "openai/gpt-4o-mini"}
        router = litellm.Router(
            model_list=[
                {"model_name": name, "litellm_params": {"model": model, "api_base": url, "api_key": "sk"}}
                for name, model in models.items()
            ],
            fallbacks=[{"first": ["second"]}],
            num_retries=0,
        )
        return str(router.completion(model="first", messages=ASKED).model)

    provider.script(Reply(failure="not_found"))
    with use_cassette(tmp_path / "x.yaml", mode="record") as recording:
        live = falling(provider.url)
    with use_cassette(tmp_path / "x.yaml"):
        assert falling(GONE) == live == "gpt-4o-mini"
    assert recording.recorded == 2


def test_a_call_without_a_key_in_the_environment_replays(provider, tmp_path, monkeypatch):
    """On replay neither LiteLLM nor an SDK client misses a key."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        chat(provider.url)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with use_cassette(tmp_path / "x.yaml") as tape:
        import openai

        openai.OpenAI()
        litellm.completion(model="openai/gpt-4o-mini", messages=ASKED)
    assert tape.replayed == 1


def test_a_mocked_call_passes(tmp_path):
    """mock_response asks LiteLLM for a made-up answer: no provider, no recording, no miss."""
    with use_cassette(tmp_path / "x.yaml") as tape:
        answer = litellm.completion(model="openai/gpt-4o-mini", messages=ASKED, mock_response="made up")
    assert answer.choices[0].message.content == "made up"
    assert not tape.calls


def test_secrets_stay_out_of_the_cassette(provider, tmp_path):
    """A key given in a call, and echoed by the provider, is nowhere in the file."""
    secret = "sk-proj-" + "a1B2c3D4e5F6g7H8" * 3
    provider.script(Reply(text=f"your key is {secret}"))
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        answer = chat(provider.url, api_key=secret, extra_headers={"Authorization": f"Bearer {secret}"})
    assert secret in answer.choices[0].message.content
    text = (tmp_path / "x.yaml").read_text()
    assert secret not in text
    assert "redacted" in text


def test_a_stored_call_has_the_key_that_it_is_stored_under(provider, tmp_path):
    """Every recorded request can be keyed again, so that a new strategy needs no new recording."""
    from pytest_lmcache.cassette.file import Cassette
    from pytest_lmcache.keys.strategies import strategy

    with use_cassette(tmp_path / "x.yaml", mode="record"):
        for call in ANSWERS.values():
            contextvars.copy_context().run(call, provider.url)
    keys = strategy("exact")
    entries = Cassette(tmp_path / "x.yaml", keys).entries
    assert len(entries) == len(ANSWERS)
    assert [keys.key(entry.call()) for entry in entries] == [entry.key for entry in entries]
    for name in ("messages", "content"):
        with use_cassette(tmp_path / "x.yaml", key=name):
            assert json.loads(json.dumps(dumped(chat(GONE))))


def test_one_recording_serves_several_models(provider, tmp_path):
    """The strategy content asks for the words alone."""
    with use_cassette(tmp_path / "x.yaml", mode="record", key="content"):
        chat(provider.url)
    with use_cassette(tmp_path / "x.yaml", key="content") as tape:
        chat(GONE, model="openai/gpt-4o", temperature=0.5)
    assert tape.replayed == 1


def test_sync_and_async_share_a_recording(provider, tmp_path):
    """Whether a call is awaited, and whether its arguments are named, is no part of the question."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        litellm.embedding("openai/text-embedding-3-small", ["one"], api_base=provider.url, api_key="sk")
        chat(provider.url)
    with use_cassette(tmp_path / "x.yaml") as tape:
        awaited(litellm.aembedding("openai/text-embedding-3-small", ["one"], api_base=GONE, api_key="sk"))
        awaited(litellm.aembedding(input=["one"], model="openai/text-embedding-3-small"))
        awaited(litellm.acompletion("openai/gpt-4o-mini", ASKED))
    assert tape.replayed == 3


@pytest.mark.parametrize("shape", ["usage", "claude", "messages", "messages over chat", "responses"])
def test_the_tokens_of_a_stream_are_counted(shape, provider, tmp_path):
    """Where a stream tells its usage, the record of the call has its tokens and, where LiteLLM knows it, its price."""
    with use_cassette(tmp_path / "x.yaml", mode="record") as recording:
        STREAMS[shape](provider.url)
    with use_cassette(tmp_path / "x.yaml") as replaying:
        STREAMS[shape](GONE)
    (live,), (stored,) = recording.calls, replaying.calls
    assert stored.tokens == live.tokens
    # LiteLLM 1.83 tells only the output of Claude's streams.
    assert (max if shape == "claude" else min)(live.tokens) > 0
    assert stored.usd == live.usd
    assert (live.usd or 0) > 0


@pytest.mark.parametrize("shape", ANSWERS)
def test_an_answer_with_empty_usage_costs_nothing(shape, provider, tmp_path):
    """With ``usage="empty"`` no count of tokens is left and no cost; all else is as it was live."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        live = dumped(contextvars.copy_context().run(ANSWERS[shape], provider.url))
    with use_cassette(tmp_path / "x.yaml", usage="empty"):
        stored = contextvars.copy_context().run(ANSWERS[shape], GONE)
    if not isinstance(stored, dict):
        assert not hidden(stored, "response_cost")
    stored = dumped(stored)
    assert has_counts(live["usage"])
    assert not has_counts(stored["usage"])
    assert {**stored, "usage": 0} == {**live, "usage": 0}


@pytest.mark.slow
@pytest.mark.parametrize("shape", STREAMS)
def test_a_stream_with_empty_usage_tells_no_tokens(shape, provider, tmp_path):
    """The same for the chunks of a stream, hidden counts included."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        contextvars.copy_context().run(STREAMS[shape], provider.url)
    with use_cassette(tmp_path / "x.yaml", usage="empty"):
        chunks = contextvars.copy_context().run(STREAMS[shape], GONE)
    told = [hidden(chunk, "usage") for chunk in chunks if hasattr(chunk, "_hidden_params")]
    told += [getattr(getattr(chunk, "response", chunk), "usage", None) for chunk in chunks]
    events = b"".join(chunk for chunk in chunks if isinstance(chunk, bytes)).splitlines()
    events = [json.loads(line.removeprefix(b"data:")) for line in events if b'"usage"' in line]
    told += [event.get("usage") or event["message"]["usage"] for event in events]
    assert not any(has_counts(dumped(usage)) for usage in told)


def has_counts(usage):
    """Whether anywhere in a usage a number is not 0."""
    if isinstance(usage, dict | list):
        return any(has_counts(value) for value in (usage.values() if isinstance(usage, dict) else usage))
    return isinstance(usage, int | float) and usage != 0


def tool_loop(url):
    """Calls two tools at once and gives their results back, in the three APIs that have tools, and in a stream."""
    tools = [{**TOOL, "function": {**TOOL["function"], "name": name}} for name in ("weather", "tide")]
    said = list(ASKED)
    for stream in (False, True):
        answer = chat(
            url, messages=said, tools=tools, tool_choice="required", parallel_tool_calls=True, stream=stream
        )
        message = (litellm.stream_chunk_builder(list(answer)) if stream else answer).choices[0].message
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": call.function.name}
            for call in message.tool_calls
        ]
        said = [*said, message, *results, {"role": "user", "content": "again"}]
    chat(url, messages=said[:-1], tools=tools)

    flat = {"type": "function", **TOOL["function"]}
    first = responses(url, tools=[flat], tool_choice="required")
    output = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "20"}
    litellm.responses(
        model="openai/gpt-4o-mini",
        input=[output],
        previous_response_id=first.id,
        tools=[flat],
        api_base=url,
        api_key="sk",
    )

    tool = {"name": "weather", "input_schema": TOOL["function"]["parameters"]}
    block = awaited(claude_messages(url, tools=[tool], tool_choice={"type": "any"}))["content"][0]
    asked = [
        *ASKED[1:],
        {"role": "assistant", "content": [block]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block["id"], "content": "20"}]},
    ]
    return awaited(
        litellm.anthropic.messages.acreate(
            model="anthropic/claude-haiku-4-5",
            max_tokens=64,
            messages=asked,
            tools=[tool],
            api_base=url.removesuffix("/v1"),
            api_key="sk",
        )
    )


def test_a_rewritten_tool_loop_leaves_the_file_alone(provider, tmp_path):
    """Each run's tool calls have new ids, which the next question repeats: the same answers change not a byte."""
    path = tmp_path / "x.yaml"
    with use_cassette(path, mode="record") as tape:
        tool_loop(provider.url)
    before = path.read_bytes()
    with use_cassette(path, mode="rewrite") as again:
        tool_loop(provider.url)
    assert again.recorded == tape.recorded > 6
    assert path.read_bytes() == before
    with use_cassette(path):
        tool_loop(GONE)
