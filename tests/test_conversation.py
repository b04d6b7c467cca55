"""A call and its answer as a person reads them: over answers that were recorded, plain and streamed, of every entry point."""

import asyncio
import base64
from contextlib import nullcontext
from pathlib import Path

import litellm
import pytest
from helpers import exactly, quick, scalars
from hypothesis import given
from hypothesis import strategies as st
from provider import Reply

from pytest_lmcache import use_cassette
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.conversation import (
    Attachment,
    Conversation,
    Message,
    ToolCall,
    conversation,
    tool_name,
)
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.keys.strategies import strategy
from pytest_lmcache.stream_chunks import pack

PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG" + b"x" * 300).decode()
ASKED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who is the GOAT?\nOne line."},
]
READ = (Message("system", "Be brief."), Message("user", "Who is the GOAT?\nOne line."))
SAID = Message("assistant", "You said: Who is the GOAT?\nOne line.")
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("weather", "time")]  # fmt: skip
TOOL_CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
    {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"city": '}},
]
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


def conversations(path):
    """Those of a cassette."""
    entries = Cassette(path, strategy("exact")).entries
    return [conversation(each.call, each.answer) for each in (entry.interaction() for entry in entries)]


@pytest.fixture
def recorded(tmp_path, provider):
    """Records what a function calls, and gives the conversation of the only interaction, read from the file."""

    def record(call, *replies, fails=False):
        provider.script(*replies)
        (tmp_path / "x.yaml").unlink(missing_ok=True)
        with (
            use_cassette(tmp_path / "x.yaml", mode="rewrite"),
            pytest.raises(Exception) if fails else nullcontext(),
        ):
            call()
        [found] = conversations(tmp_path / "x.yaml")
        return found

    return record


@pytest.fixture
def chat(recorded, provider):
    """Records a chat completion, and gives its conversation."""

    def record(*replies, model="openai/gpt-4o-mini", fails=False, leave=False, **more):
        arguments = {
            "messages": ASKED,
            "api_base": provider.url,
            "api_key": "sk-local",
            "max_retries": 0,
            **more,
        }

        def call():
            answer = litellm.completion(model, **arguments)
            if leave:
                next(answer)
            elif more.get("stream"):
                list(answer)

        return recorded(call, *replies, fails=fails)

    return record


def read(make):
    """Read the stream that a coroutine function gives, or await its answer."""

    async def run():
        answer = await make()
        return [chunk async for chunk in answer] if hasattr(answer, "__aiter__") else answer

    return asyncio.run(run())


@STREAMED
def test_a_chat(chat, stream):
    """Roles and texts are read, a stream is joined, and parameters are all that is no message, model or tool."""
    assert chat(temperature=0, stream=stream) == Conversation(
        model="openai/gpt-4o-mini",
        asked=READ,
        answered=(SAID,),
        tools=(),
        parameters={"temperature": 0},
        finish_reason="stop",
        error="",
        answered_model="gpt-4o-mini",
    )


@STREAMED
def test_parallel_tool_calls_of_two_choices(chat, stream):
    """Each choice is a message with its tool calls, whose arguments are parsed."""
    found = chat(tools=TOOLS, parallel_tool_calls=True, tool_choice="required", n=2, stream=stream)
    assert [tool_name(tool) for tool in found.tools] == ["weather", "time"]
    assert found.finish_reason == "tool_calls"
    assert len(found.answered) == 2
    for message in found.answered:
        assert message.role == "assistant"
        assert message.text == ""
        assert [call.name for call in message.tool_calls] == ["weather", "time"]
        assert all(call.arguments == {"city": ASKED[1]["content"]} for call in message.tool_calls)
        assert len({call.id for call in message.tool_calls}) == 2


@STREAMED
def test_reasoning(chat, stream):
    """What the model thought is kept apart from what it says, also if the provider sends it as thinking blocks."""
    found = chat(model="openai/o3-mini", reasoning_effort="low", stream=stream)
    [message] = found.answered
    assert (message.text, message.reasoning) == (SAID.text, "First I think about it.\nThen I answer.")


def test_tool_calls_and_results_in_a_request(chat):
    """Arguments that are no JSON are shown as text, and a tool's result names its call."""
    tools = [
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]  # fmt: skip
    found = chat(
        messages=[ASKED[1], {"role": "assistant", "content": None, "tool_calls": TOOL_CALLS}, *tools]
    )
    assert found.asked[1:] == (
        Message(
            "assistant",
            tool_calls=(
                ToolCall("weather", {"city": "Oslo"}, "call_1"),
                ToolCall("weather", '{"city": ', "call_2"),
            ),
        ),
        Message("tool", "rain", tool_call_id="call_1"),
        Message("tool", "a\nb", tool_call_id="call_2"),
    )


def test_images_audio_and_files(chat):
    """Each is named: by its file name, address or id, or as data by type, size and a short hash."""
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "image_url", "image_url": "https://example.org/cat.png"},
        {"type": "input_audio", "input_audio": {"data": "UklGRnh4eHg=", "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
        {"type": "file", "file": {"file_id": "file-123"}},
    ]
    [message] = chat(messages=[{"role": "user", "content": parts}]).asked
    assert message.text == "What is it?"
    assert [(each.kind, each.name) for each in message.attachments] == [
        ("image", "image/png, 304 bytes, 6ee860"),
        ("image", "https://example.org/cat.png"),
        ("audio", "audio/wav, 8 bytes, 839d06"),
        ("file", "a.pdf, 3 bytes, 31d88a"),
        ("file", "file-123"),
    ]
    assert [each.url for each in message.attachments] == [
        PNG,
        "https://example.org/cat.png",
        "data:audio/wav;base64,UklGRnh4eHg=",
        "data:application/pdf;base64,AAAA",
        "",
    ]


def test_an_answer_in_sound(chat):
    """It is an attachment, and its transcript the text."""
    found = chat(
        model="openai/gpt-audio", modalities=["text", "audio"], audio={"voice": "a", "format": "wav"}
    )
    [message] = found.answered
    assert message.text == SAID.text
    [sound] = message.attachments
    assert sound.kind == "audio"
    assert sound.name.startswith("audio, 600 bytes, ")


def test_errors(chat):
    """An error is its class and its message; a stream that it breaks off keeps what came before."""
    found = chat(Reply(failure="context_length_exceeded"), fails=True)
    assert found.error.startswith("litellm.ContextWindowExceededError: ")
    assert "maximum context length is 128000 tokens" in found.error
    assert (found.asked, found.answered, found.finish_reason) == (READ, (), "")
    found = chat(Reply(failure="server", cut=3), stream=True, fails=True)
    assert found.error.startswith("litellm.MidStreamFallbackError: ")
    assert found.answered == (Message("assistant", "You said:"),)


def test_what_the_caller_did_not_wait_for(chat, recorded, provider):
    """A cancelled call, and a stream that was left early, say so; a miss has no answer."""
    found = chat(stream=True, leave=True)
    assert (found.finish_reason, found.error) == ("left early", "")
    arguments = {"model": "openai/gpt-4o-mini", "messages": ASKED, "api_base": provider.url, "api_key": "sk"}

    async def cancelled():
        await asyncio.wait_for(litellm.acompletion(**arguments), 0.1)

    found = recorded(lambda: asyncio.run(cancelled()), Reply(delay=5), fails=True)
    assert (found.answered, found.error) == ((), "cancelled by the caller")
    miss = conversation(Call("completion", {"model": "m", "messages": ASKED}), None)
    assert (miss.asked, miss.answered, miss.error, miss.finish_reason) == (READ, (), "", "")
    ended = Answer(Kind.UNANSWERED, None, ended="builtins.SystemExit")
    assert (
        conversation(Call("completion", {"messages": ASKED}), ended).error == "ended with builtins.SystemExit"
    )


@pytest.mark.slow
@STREAMED
def test_a_text_completion(recorded, provider, stream):
    """The prompts are what the user says, and each choice is an answer."""
    arguments = {"api_base": provider.url, "api_key": "sk", "stream": stream}

    def call():
        answer = litellm.text_completion(model="text-completion-openai/gpt-3.5-turbo-instruct", prompt=["a", "b"], **arguments)  # fmt: skip
        if stream:
            list(answer)

    found = recorded(call)
    assert found.asked == (Message("user", "a"), Message("user", "b"))
    assert found.answered == (Message("assistant", "You said: a"), Message("assistant", "You said: b"))
    assert found.finish_reason == "stop"
    assert conversation(Call("text_completion", {"prompt": [1, 2]}), None).asked == (Message("user", "[1, 2]"),)  # fmt: skip


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_an_embedding(recorded, provider, encoding):
    """Each input is what the user says; vectors are named by their number and length."""
    arguments = {"model": "openai/text-embedding-3-small", "api_base": provider.url, "api_key": "sk"}
    found = recorded(lambda: litellm.embedding(input=["one", "two"], encoding_format=encoding, **arguments))
    assert found.asked == (Message("user", "one"), Message("user", "two"))
    assert found.answered == (Message("assistant", "2 vectors of 1,536 numbers"),)


RESPONSES_INPUT = [
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": PNG},
            {"type": "input_file", "filename": "b.pdf", "file_data": "data:application/pdf;base64,AAAA"},
        ],
    },
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "I look."}]},
    {"type": "function_call", "call_id": "call_9", "name": "w", "arguments": '{"a":1}'},
    {"type": "function_call_output", "call_id": "call_9", "output": "42"},
    {"role": "user", "content": "again"},
]


@STREAMED
def test_the_responses_api(recorded, provider, stream):
    """Items of input and output are messages: text, reasoning, tool calls and their results."""
    tool = {"type": "function", "name": "w", "parameters": PARAMETERS}

    def call():
        answer = litellm.responses(
            model="openai/o3-mini",
            instructions="Be brief",
            input=RESPONSES_INPUT,
            tools=[tool],
            tool_choice="required",
            reasoning={"effort": "low"},
            stream=stream,
            api_base=provider.url,
            api_key="sk",
        )
        if stream:
            list(answer)

    found = recorded(call)
    system, user, assistant, result, again = found.asked
    assert (system, again) == (Message("system", "Be brief"), Message("user", "again"))
    assert user.text == "look"
    assert [each.name for each in user.attachments] == [
        "image/png, 304 bytes, 6ee860",
        "b.pdf, 3 bytes, 31d88a",
    ]
    assert assistant == Message(
        "assistant", reasoning="I look.", tool_calls=(ToolCall("w", {"a": 1}, "call_9"),)
    )
    assert result == Message("tool", "42", tool_call_id="call_9")
    [message] = found.answered
    assert (message.role, message.text, message.reasoning) == ("assistant", "", "I thought about it.")
    assert [call.name for call in message.tool_calls] == ["w"]
    assert tool_name(found.tools[0]) == "w"
    assert found.finish_reason == "completed"


def test_a_stream_of_responses_that_was_left(recorded, provider):
    """What came until then is read, though no event has the whole response."""

    def call():
        stream = litellm.responses(
            model="openai/gpt-4o-mini", input="Say hi", stream=True, api_base=provider.url, api_key="sk"
        )
        for event in stream:
            if getattr(event, "delta", "") == " said:":
                break

    found = recorded(call)
    assert found.answered == (Message("assistant", "You said:"),)
    assert found.finish_reason == "left early"


@STREAMED
def test_anthropic_messages(recorded, provider, stream):
    """Thinking, tool_use and tool_result are read; results of tools come before the text beside them."""
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "document", "title": "t", "source": {"type": "text", "media_type": "text/plain", "data": "body"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hmm", "signature": "s"},
                {"type": "tool_use", "id": "tu1", "name": "w", "input": {"city": "Oslo"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "tu1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "text", "text": "so?"},
            ],
        },
    ]  # fmt: skip
    arguments = {
        "model": "anthropic/claude-haiku-4-5",
        "max_tokens": 2048,
        "system": [{"type": "text", "text": "Be kind", "cache_control": {"type": "ephemeral"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [{"name": "w", "input_schema": PARAMETERS}],
        "messages": messages,
        "stream": stream,
        "api_base": provider.base,
        "api_key": "sk-local",
    }
    found = recorded(lambda: read(lambda: litellm.anthropic.messages.acreate(**arguments)))
    assert found.asked == (
        Message("system", "Be kind"),
        Message("user", "see\nbody", attachments=(Attachment("image", "image/png, 3 bytes, 31d88a", "data:image/png;base64,AAAA"),)),
        Message("assistant", reasoning="hmm", tool_calls=(ToolCall("w", {"city": "Oslo"}, "tu1"),)),
        Message("tool", "rain", tool_call_id="tu1"),
        Message("user", "so?"),
    )  # fmt: skip
    assert [tool_name(tool) for tool in found.tools] == ["w"]
    assert found.answered[0].reasoning == "First I think.\nThen I answer."
    assert found.finish_reason == "end_turn"
    assert found.answered_model == "claude-haiku-4-5"


@STREAMED
def test_tool_use_of_anthropic(recorded, provider, stream):
    """The input of a tool is data, joined from the pieces of its JSON."""
    arguments = {
        "model": "anthropic/claude-haiku-4-5",
        "max_tokens": 9,
        "messages": ASKED[1:],
        "stream": stream,
    }
    arguments |= {"tools": [{"name": "w", "input_schema": PARAMETERS}], "tool_choice": {"type": "any"}}
    arguments |= {"api_base": provider.base, "api_key": "sk-local"}
    found = recorded(lambda: read(lambda: litellm.anthropic.messages.acreate(**arguments)))
    [message] = found.answered
    assert [(call.name, call.arguments) for call in message.tool_calls] == [
        ("w", {"city": ASKED[1]["content"]})
    ]
    assert found.finish_reason == "tool_use"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Passing OpenAI-style message:DeprecationWarning")
def test_calls_of_dspy(recorded, provider):
    """Those of its own engine read as LiteLLM's do: parts, tools, thinking, errors."""
    pytest.importorskip("dspy.lm15")
    import dspy

    def lm(model="openai/gpt-4o-mini", **more):
        return dspy.LM(model, api_base=provider.url, api_key="sk-local", cache=False, num_retries=0, **more)

    messages = [
        ASKED[0],
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": PNG}}]},
        {"role": "assistant", "content": "", "tool_calls": TOOL_CALLS[:1]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]  # fmt: skip
    found = recorded(lambda: lm()(messages=messages, tools=TOOLS))
    system, user, assistant, result = found.asked
    assert (system, user.text) == (READ[0], "hi")
    assert [each.name for each in user.attachments] == ["image/png, 304 bytes, 6ee860"]
    assert assistant == Message("assistant", tool_calls=(ToolCall("weather", {"city": "Oslo"}, "call_1"),))
    assert result == Message("tool", "rain", tool_call_id="call_1")
    assert [tool_name(tool) for tool in found.tools] == ["weather", "time"]
    assert found.answered == (Message("assistant", "You said: rain"),)
    thinking = recorded(
        lambda: lm("openai/o3-mini", reasoning_effort="low", temperature=1.0, max_tokens=20000)("hello")
    )
    assert thinking.answered == (
        Message("assistant", "You said: hello", reasoning="First I think about it.\nThen I answer."),
    )
    failed = recorded(lambda: lm()("hello"), Reply(failure="invalid_request"), fails=True)
    assert failed.error == "dspy.lm15.InvalidRequestError: 'temperature' must be at most 2."


def test_a_stream_of_dspy():
    """Its events are joined part by part."""
    events = [
        {"type": "start", "model": "gpt-4o-mini"},
        {"type": "delta", "delta": {"type": "thinking", "text": "hm"}},
        {"type": "delta", "delta": {"type": "text", "text": "You", "part_index": 1}},
        {"type": "delta", "delta": {"type": "text", "text": " said", "part_index": 1}},
        {"type": "delta", "delta": {"type": "tool_call", "input": '{"a"', "id": "c", "name": "w", "part_index": 2}},
        {"type": "delta", "delta": {"type": "tool_call", "input": ": 1}", "part_index": 2}},
        {"type": "delta", "delta": {"type": "continuation", "provider": "openai", "kind": "item"}},
        {"type": "end", "finish_reason": "tool_call"},
    ]  # fmt: skip
    found = conversation(Call("dspy", {"messages": ASKED}), Answer(Kind.STREAM, pack(events)))
    assert found.answered == (
        Message("assistant", "You said", reasoning="hm", tool_calls=(ToolCall("w", {"a": 1}, "c"),)),
    )
    assert (found.finish_reason, found.answered_model) == ("tool_call", "gpt-4o-mini")


COMMITTED = Path(__file__).parents[1] / "cassettes"


@pytest.mark.parametrize(
    "name", sorted(str(path.relative_to(COMMITTED)) for path in COMMITTED.rglob("*.yaml"))
)
def test_committed_cassettes(name):
    """Recordings of a real model read as conversations: everybody says something."""
    for found in conversations(COMMITTED / name):
        assert found.model
        assert not found.model.startswith("{")
        for message in (*found.asked, *found.answered):
            assert message.text or message.tool_calls or message.reasoning or message.attachments
        assert found.answered or found.error


def test_parts_that_nobody_knows():
    """They are shown as JSON, and calls of a provider's own tools as calls."""
    message = {"role": "user", "content": [{"type": "hologram", "x": 1}, {"text": "y"}, 3]}
    [found] = conversation(Call("completion", {"messages": [message]}), None).asked
    assert found.text == '{"type": "hologram", "x": 1}\ny\n3'
    output = [
        {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"query": "goat"}},
        {"type": "image_generation_call", "id": "ig", "result": "AAAA"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is."}]},
    ]
    answer = Answer(Kind.RESPONSE, {"output": output, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}})  # fmt: skip
    found = conversation(Call("responses", {"input": "hi"}), answer)
    [message] = found.answered
    assert message.text == "It is."
    assert message.tool_calls == (ToolCall("web_search_call", {"action": {"query": "goat"}}, "ws"),)
    assert [(each.kind, each.name) for each in message.attachments] == [("image", "image, 3 bytes, 31d88a")]
    assert found.finish_reason == "incomplete: max_output_tokens"
    strange = conversation(Call("new", {}), Answer(Kind.RESPONSE, {"result": 1}))
    assert strange.answered == (Message("assistant", '{"result": 1}'),)


NAMES = st.sampled_from(
    "type role content text parts tool_calls function name arguments input output message messages choices delta item "
    "index id event bytes response error class source data url image_url file result thinking audio images".split()
)
TYPES = st.sampled_from(
    "text image_url tool_use tool_result thinking function_call response.output_text.delta content_block_start start "
    "delta message_start error".split()
)
odd = st.recursive(
    scalars | TYPES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)
odd_mapping = st.dictionaries(NAMES, odd, max_size=4)


@pytest.mark.slow
@given(request=odd_mapping, data=odd_mapping, chunks=st.lists(odd_mapping, max_size=4))
@quick
def test_whatever_a_file_holds(request, data, chunks):
    """A cassette that somebody edited is read, whatever it holds, and reading changes nothing of it."""
    call = Call("completion", request)
    before = exactly([request, data, chunks])
    for answer in (Answer(Kind.RESPONSE, data), Answer(Kind.ERROR, data), Answer(Kind.STREAM, chunks)):
        found = conversation(call, answer)
        assert all(isinstance(message.text, str) for message in (*found.asked, *found.answered))
    assert exactly([request, data, chunks]) == before
