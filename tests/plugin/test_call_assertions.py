"""``lm_cache.calls``, ``assert_called`` and ``assert_not_called``: what a test says of its calls."""

import pytest
from helpers import NO_LAYERS

ASSISTANT = """
    def remind(time):
        tools = [{"type": "function", "function": {"name": "set_alarm", "parameters": {
            "type": "object", "properties": {"time": {"type": "string"}}}}}]
        messages = [{"role": "system", "content": "You are a clock."}, *said(f"Wake me at {time}.")]
        return litellm.completion(messages=messages, tools=tools, temperature=0.5, **SETTINGS)
"""


def test_what_a_call_has(suite):
    """A call has its messages, tools, parameters, text, tool calls, usage and price, recorded and replayed alike."""
    suite.test(
        ASSISTANT
        + """
    def test_clock(lm_cache):
        answer = remind("seven").choices[0].message
        ask("hello", stop=["."])
        first, second = lm_cache.calls
        assert [(each.role, each.text) for each in first.messages] == [
            ("system", "You are a clock."), ("user", "Wake me at seven.")
        ]
        assert (first.system, second.system) == ("You are a clock.", "")
        assert first.prompt_text == "[system]\\nYou are a clock.\\n\\n[user]\\nWake me at seven."
        assert [tool["function"]["name"] for tool in first.tools] == ["set_alarm"]
        assert first.model == "openai/gpt-4o-mini"
        assert (first.parameters, second.parameters) == ({"temperature": 0.5}, {"stop": ["."]})
        [call] = first.tool_calls
        assert (call.name, type(call.arguments), call.id) == ("set_alarm", dict, answer.tool_calls[0].id)
        assert second.text and second.tool_calls == ()
        assert second.usage["total_tokens"] == sum(second.tokens) > 0
        assert second.usd > 0
    """
    )
    suite.record()
    suite.run().assert_outcomes(passed=1)


@pytest.mark.parametrize("ask", ["ask('{}')", "asyncio.run(aask('{}'))"], ids=["sync", "async"])
def test_assert_called(suite, ask):
    """assert_called() gives the calls of a model whose prompt contains a text."""
    suite.test(f"""
        def test_calls(lm_cache):
            lm_cache.assert_not_called()
            {ask.format("What is the capital of France?")}
            {ask.format("What is the capital of Peru?")}
            assert lm_cache.assert_called() == list(lm_cache.calls)
            assert lm_cache.assert_called(2, model="openai/gpt-4o-mini", containing="capital of") != []
            assert lm_cache.assert_called(times=1, containing="Peru") == [lm_cache.calls[1]]
            lm_cache.assert_not_called(containing="Chile")
            lm_cache.assert_not_called(model="openai/gpt-4o")
    """)
    suite.record()
    suite.run().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("assertion", "expected"),
    [
        ("assert_called(times=3)", "Expected 3 calls, but there were 2 calls."),
        (
            "assert_called(containing='Chile')",
            "Expected at least one call containing 'Chile', but there were none.",
        ),
        (
            "assert_called(1, model='openai/gpt-4o', containing='capital')",
            "Expected 1 call of openai/gpt-4o containing 'capital', but there were none.",
        ),
        ("assert_not_called(containing='Peru')", "Expected no call containing 'Peru', but there was 1 call."),
        ("assert_not_called()", "Expected no call, but there were 2 calls."),
    ],
)
def test_a_failed_assertion_shows_the_calls(suite, assertion, expected):
    """A failed assertion says what was expected, lists the calls, and points at the line of the test."""
    suite.test(f"""
        def test_calls(lm_cache):
            ask("What is the capital of France?")
            ask("What is the capital of Peru?")
            lm_cache.{assertion}
    """)
    result = suite.run("--lm-mode=live")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            f">*lm_cache.{assertion}".replace("[", "[[]"),
            f"E*AssertionError: {expected}",
            "E*The calls:",
            "E*calls[[]0] *model openai/gpt-4o-mini*capital of France*tokens*",
            "E*calls[[]1] *capital of Peru*",
        ]
    )
    result.stdout.no_fnmatch_line("*call_assertions.py*")


def test_no_call_at_all(suite):
    """A failure says so if no model was called."""
    suite.test("""
        def test_calls(lm_cache):
            lm_cache.assert_called()
    """)
    result = suite.run()
    result.stdout.fnmatch_lines(
        ["E*Expected at least one call, but there were none.", "E*No model was called."]
    )


def test_every_entry_point_and_streams(suite):
    """Embeddings, the Responses API and streams have the same attributes."""
    suite.test(
        """
        def test_kinds(lm_cache):
            litellm.embedding(model="openai/text-embedding-3-small", input=["one", "two"],
                              api_base=SETTINGS["api_base"], api_key="sk-local-123456")
            litellm.responses(model="openai/gpt-4o-mini", input="hello", instructions="Be kind.",
                              api_base=SETTINGS["api_base"], api_key="sk-local-123456")
            for chunk in litellm.completion(messages=said("a stream"), stream=True, **SETTINGS):
                pass
            embedding, response, stream = lm_cache.calls
            assert "one" in embedding.prompt_text and embedding.tool_calls == ()
            assert (response.system, bool(response.text)) == ("Be kind.", True)
            assert (stream.messages[-1].text, bool(stream.text)) == ("a stream", True)
    """
    )
    suite.record()
    suite.run().assert_outcomes(passed=1)


def test_in_a_block(suite):
    """The value of a use_cassette block has the same assertions."""
    suite.test("""
        import pytest_lmcache
        def test_block():
            with pytest_lmcache.use_cassette("x.yaml", mode="record") as tape:
                ask("hello")
            tape.assert_called(1, containing="hello")
            with pytest.raises(AssertionError, match="Expected no call, but there was 1 call."):
                tape.assert_not_called()
    """)
    suite.run().assert_outcomes(passed=1)


SNAPSHOT = """
    def test_prompt(lm_cache, snapshot):
        ask("hello")
        assert lm_cache.calls[0].prompt_text == snapshot
        assert lm_cache.calls[0].messages == snapshot
"""


def test_syrupy(suite):
    """A prompt is a syrupy snapshot; a new prompt fails until both are renewed."""
    pytest.importorskip("syrupy")
    suite.options = NO_LAYERS
    suite.test(SNAPSHOT)
    suite.run("--lm-record", "--snapshot-update").assert_outcomes(passed=1)
    suite.run().assert_outcomes(passed=1)
    suite.test(SNAPSHOT.replace("hello", "good morning"))
    suite.run("--lm-record").assert_outcomes(failed=1)
    suite.run("--lm-record", "--snapshot-update").assert_outcomes(passed=1)
    suite.run().assert_outcomes(passed=1)


@pytest.mark.slow
def test_inline_snapshot(suite, monkeypatch):
    """A prompt is an inline snapshot. The run that creates it fails; the next one takes the answer from the cache."""
    pytest.importorskip("inline_snapshot")
    suite.options = ("-p", "no:mockllm")
    for name in ("CI", "GITHUB_ACTIONS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)  # inline-snapshot writes nothing there
    suite.test("""
        from inline_snapshot import snapshot
        from pytest_lmcache import Message
        def test_prompt(lm_cache):
            ask("hello")
            assert lm_cache.calls[0].prompt_text == snapshot()
            assert lm_cache.calls[0].messages == snapshot()
    """)
    suite.spawn("--lm-record", "--inline-snapshot=create")
    written = (suite.folder / "test_it.py").read_text()
    assert "snapshot()" not in written
    assert "Message(role='user', text='hello')" in written
    asked = suite.provider.count
    assert "1 passed" in suite.spawn("--lm-record").stdout
    assert "1 passed" in suite.spawn().stdout
    assert suite.provider.count == asked
