"""The model that was asked for and the one that answered are both recorded, and a name that has moved on is told."""

import pytest
from provider import Reply

from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.conversation import conversation
from pytest_lmcache.keys.strategies import strategy

WAYS = """
import asyncio

SETTINGS |= {"model": "openai/gpt-4o-latest"}
BASE = SETTINGS["api_base"].removesuffix("/v1")

def way_completion():
    litellm.completion(messages=said("hello"), **SETTINGS)

def way_stream():
    list(litellm.completion(messages=said("hello"), stream=True, **SETTINGS))

def way_text():
    litellm.text_completion(prompt="hello", **SETTINGS)

def way_text_stream():
    list(litellm.text_completion(prompt="hello", stream=True, **SETTINGS))

def way_responses():
    litellm.responses(input="hello", **SETTINGS)

def way_responses_stream():
    list(litellm.responses(input="hello", stream=True, **SETTINGS))

def way_embedding():
    litellm.embedding(input=["hello"], **SETTINGS)

MESSAGES = {"max_tokens": 5, "api_key": "sk-x", "api_base": BASE, "model": "anthropic/claude-haiku-4-5"}

def way_messages():
    asyncio.run(litellm.anthropic_messages(messages=said("hello"), **MESSAGES))

def way_messages_stream():
    async def read():
        async for _ in await litellm.anthropic_messages(messages=said("hello"), stream=True, **MESSAGES):
            pass
    asyncio.run(read())

def way_dspy():
    import dspy
    dspy.LM("openai/gpt-4o-latest", api_base=SETTINGS["api_base"], api_key="sk-x", cache=False)("hello")

def way_router():
    router = litellm.Router(model_list=[{"model_name": "any", "litellm_params": SETTINGS}])
    router.completion("any", messages=said("hello"))

@pytest.mark.lm_cache
@pytest.mark.parametrize("way", [name for name in dir() if name.startswith("way_")])
def test_one(way):
    globals()[way]()
"""


@pytest.mark.slow
def test_both_models_are_recorded(suite, loopback):
    """Every kind of call has the model that was asked for and the one that answered, streams too.

    LiteLLM drops it from the streams of text_completion().
    """
    loopback.answer = lambda _: Reply(model="gpt-4o-2024-08-06")
    try:
        suite.test(WAYS)
        suite.record()
    finally:
        loopback.answer = lambda _: Reply()
    found = {}
    for file in suite.cassettes():
        [entry] = Cassette(suite.folder / "cassettes" / file, strategy("exact")).entries
        read = conversation(entry.call(), entry.answer())
        found[file.partition("[way_")[2].removesuffix("].yaml")] = read.model, read.answered_model
    assert len(found) == 11
    assert {asked.rpartition("/")[2] for asked, _ in found.values()} == {"gpt-4o-latest", "claude-haiku-4-5"}
    assert {way: answered for way, (_, answered) in found.items() if answered != "gpt-4o-2024-08-06"} == {
        "text_stream": "gpt-4o-latest"
    }
    suite.run().assert_outcomes(passed=11)


def test_stream_gives_the_model_again(suite, loopback):
    """A replayed stream has the name in its hidden parameters, as the live one had."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            chunks = list(litellm.completion(messages=said("hello"), stream=True, **SETTINGS))
            assert {chunk._hidden_params.get("provider_response_model") for chunk in chunks} == {"of-today"}
    """)
    loopback.script(Reply(model="of-today"))
    suite.record()
    suite.run().assert_outcomes(passed=1)


@pytest.mark.parametrize("stream", [False, True])
def test_alias_that_moved_is_told(suite, loopback, stream):
    """Recording anew tells a model that answers under another name than recorded, also after the prompt changed."""
    text = """
        @pytest.mark.lm_cache
        def test_one():
            list(litellm.completion(messages=said("PROMPT"), **SETTINGS | {"model": "openai/gpt-4o-latest"}, stream=STREAM))
    """.replace("STREAM", str(stream))
    told = [
        "models that answered under another name than recorded:",
        "  openai/gpt-4o-latest: gpt-4o-2024-08-06 -> gpt-4o-2024-11-20 (1 test)",
    ]
    suite.test(text)
    loopback.script(Reply(model="gpt-4o-2024-08-06"))
    suite.record().stdout.no_fnmatch_line("models that*")
    loopback.script(Reply(model="gpt-4o-2024-08-06"))
    suite.run("--lm-rewrite").stdout.no_fnmatch_line("models that*")
    loopback.script(Reply(model="gpt-4o-2024-11-20"))
    suite.run("--lm-rewrite").stdout.fnmatch_lines(told)
    suite.test(text.replace("PROMPT", "another prompt"))
    loopback.script(Reply(model="gpt-5"))
    suite.record().stdout.fnmatch_lines(["  openai/gpt-4o-latest: gpt-4o-2024-11-20 -> gpt-5 (1 test)"])
