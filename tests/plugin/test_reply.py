"""``lm_cache.reply``: answers that a test gives in place of the provider."""


def test_answers_by_hand(suite):
    """A text is for every call, several texts are for one call after the other, a function sees the request."""
    suite.test(
        """
        def test_one(lm_cache):
            lm_cache.reply("Paris.")
            assert [ask("a"), ask("b"), asyncio.run(aask("c"))] == ["Paris."] * 3
            assert [call.source for call in lm_cache.calls] == ["reply"] * 3

        def test_several(lm_cache):
            lm_cache.reply("one", litellm.RateLimitError, {"city": "Paris"})
            assert ask() == "one"
            with pytest.raises(litellm.RateLimitError):
                ask()
            assert ask() == '{"city": "Paris"}'
            assert [call.source for call in lm_cache.calls] == ["reply", "fault", "reply"]

        def test_function(lm_cache):
            def answer(request):
                return request["messages"][0]["content"].upper()

            lm_cache.reply(answer)
            assert ask("loud") == "LOUD"

        def test_wrong_function(lm_cache):
            lm_cache.reply(lambda request: None)
            with pytest.raises(ValueError, match="not None"):
                ask("x")
            lm_cache.faults.clear()

        def test_tools(lm_cache):
            lm_cache.reply(tool_calls=[("weather", {"city": "Paris"})], times=1)
            lm_cache.reply("Sunny.")
            answer = litellm.completion(messages=said("x"), **SETTINGS)
            assert answer.choices[0].message.tool_calls[0].function.name == "weather"
            assert ask() == "Sunny."
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["0 replayed, 1 given a fault by the test, 8 given a reply by the test"])


def test_replies_are_not_recorded(suite):
    """Recordings and replies live side by side; the cassette has the recordings only."""
    suite.test(
        """
        def test_both(lm_cache):
            lm_cache.reply("by hand", when=lambda request: "hand" in str(request))
            assert [ask("hand"), ask("recorded"), ask("hand")] == ["by hand", "You said: recorded", "by hand"]
            assert lm_cache.assert_called(3)
        """
    )
    suite.record()
    assert suite.asked() == 1
    assert "hand" not in (suite.folder / "cassettes/test_it/test_both.yaml").read_text()
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 replayed, 2 given a reply by the test"])


def test_replies_need_no_key(suite):
    """A test that answers all calls by itself records nothing, and needs neither a cassette nor a key."""
    suite.test(
        """
        def test_one(lm_cache, monkeypatch):
            monkeypatch.delenv("OPENAI_API_KEY", raising=False)
            lm_cache.reply("Paris.")
            answer = litellm.completion(model="openai/gpt-4o-mini", messages=said("x"))
            assert answer.choices[0].message.content == "Paris."
        """
    )
    for args in ((), ("--lm-record",), ("--lm-rewrite",), ("--lm-mode=live",)):
        suite.run(*args).assert_outcomes(passed=1)
    assert not (suite.folder / "cassettes").exists()
    assert suite.asked() == 0


def test_replies_that_are_used_up(suite):
    """A call after the last of several replies is looked for among the recordings."""
    suite.test(
        """
        def test_one(lm_cache):
            lm_cache.reply("one", "two")
            ask(), ask(), ask()
        """
    )
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*CassetteMiss: No recording answers this call*"])


def test_values_get_no_replies(suite):
    """What a test remembers is recorded as ever: faults and replies are for the calls of models."""
    suite.test(
        """
        def test_one(lm_cache):
            lm_cache.fail(litellm.RateLimitError, times=None)
            assert lm_cache.remember("run id", lambda: "a1b2") == "a1b2"
            with pytest.raises(litellm.RateLimitError):
                ask("x")
        """
    )
    suite.record()
    suite.run().assert_outcomes(passed=1)


def test_a_failing_test_with_replies(suite):
    """The report of a test that fails while recording says where recorded answers came from, not those by hand."""
    suite.test(
        """
        def test_by_hand(lm_cache):
            lm_cache.reply("Paris.")
            assert not ask("x")
        """
    )
    result = suite.run("--lm-record")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*failed while its model calls were recorded*")
