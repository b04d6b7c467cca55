"""Faults and replies of a test's own for the calls of DSPy, on its own engine and on LiteLLM's."""

import asyncio

import dspy
import litellm
import pytest
from provider import Provider

from pytest_lmcache import use_cassette

GONE = "http://127.0.0.1:9/v1"
NATIVE = hasattr(dspy, "lm15")  # DSPy 3.4 has an engine of its own
ENGINES = ["auto", "litellm"] if NATIVE else ["litellm"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nobody_records")]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
FIELDS = ["[[ ## answer ## ]]\n", "Par", "is", "\n\n[[ ## completed ## ]]"]


def model(engine, url=GONE, **more):
    own = {"engine": engine} if NATIVE else {}
    return dspy.LM(
        "openai/gpt-4o-mini", api_base=url, api_key="sk-local-012345", num_retries=0, **own, **more
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_replies(engine):
    """A program gets the text, the tool call and the stream that a test gives."""
    lm = model(engine)
    with use_cassette(None) as tape, dspy.context(lm=lm):
        tape.reply("Paris.", "".join(FIELDS), tape_tool())
        assert lm("Capital of France?") == ["Paris."]
        assert dspy.Predict("question -> answer")(question="Capital?").answer == "Paris"
        [output] = lm("Weather?", tools=[TOOL])
    assert output["tool_calls"][0]["function"]["arguments"].replace(" ", "") == '{"city":"Paris"}'
    assert [call.source for call in tape.calls] == ["reply"] * 3


def tape_tool():
    from pytest_lmcache import ToolCall

    return ToolCall("weather", {"city": "Paris"})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_streamed_reply(engine):
    """dspy.streamify gets the pieces of a reply."""

    async def pieces():
        listener = dspy.streaming.StreamListener(signature_field_name="answer")
        program = dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[listener])
        with dspy.context(lm=model(engine)):
            return [each async for each in program(question="Capital?")]

    with use_cassette(None) as tape:
        tape.reply(FIELDS)
        *chunks, prediction = asyncio.run(pieces())
    assert "".join(chunk.chunk for chunk in chunks) == prediction.answer == "Paris"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["RateLimitError", "InternalServerError", "Timeout", "APIConnectionError"])
def test_faults(engine, kind):
    """A fault is given by LiteLLM's class for either engine, and DSPy makes of it what it makes of a live one."""
    lm = model(engine)
    with use_cassette(None) as tape:
        tape.fail(getattr(litellm, kind), retry_after=3)
        tape.reply("Paris.")
        with pytest.raises(Exception) as caught:
            lm("Capital?")
        assert lm("Capital?") == ["Paris."]
    if engine == "auto" and NATIVE:
        own = {"InternalServerError": "LMServerError", "Timeout": "LMTimeoutError"}
        name = own.get(kind) or {"RateLimitError": "LMRateLimitError"}.get(kind, "LMTransportError")
        assert type(caught.value).__name__ == name
        assert caught.value.retry_after == 3
        status = {"RateLimitError": 429, "InternalServerError": 500}
        assert caught.value.status == status.get(kind)
    assert [call.source for call in tape.calls] == ["fault", "reply"]


@pytest.mark.skipif(not NATIVE, reason="this DSPy calls LiteLLM only")
def test_a_cut_stream(tmp_path):
    """A recorded stream of the engine breaks with the engine's error; the retry gets the whole recording."""
    from dspy import lm15

    def ask(url):
        lm = model("auto", url)
        engine_call = dspy.streamify(dspy.Predict("question -> answer"), async_streaming=False)
        with dspy.context(lm=lm):
            return [*engine_call(question="Capital?")][-1].answer

    answer = "".join(FIELDS)
    with Provider() as provider:
        provider.answer = lambda _: answer
        with use_cassette(tmp_path / "it.yaml", mode="record"):
            assert ask(provider.url) == "Paris"
    with use_cassette(tmp_path / "it.yaml") as tape:
        tape.cut_stream(after=2, error=lm15.RateLimitError)
        with pytest.raises(BaseException) as caught:
            ask(GONE)
        assert "RateLimit" in repr(caught.value)
        assert ask(GONE) == "Paris"
    assert [call.source for call in tape.calls] == ["fault", "cassette"]
