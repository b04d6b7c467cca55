"""``lm_cache.fail`` and the other faults, as a test of a user's suite sets them up."""

import pytest

RETRY = """
    import tenacity

    @tenacity.retry(stop=tenacity.stop_after_attempt(3), reraise=True)
    def retried():
        return ask("again")
"""


def test_retries_are_tested_without_a_provider(suite):
    """The same test records and replays: faults are not sent, the retry gets the recording, the summary counts apart."""
    suite.test(
        RETRY
        + """
    def test_retry(lm_cache):
        lm_cache.fail(litellm.RateLimitError, times=2)
        assert retried() == "You said: again"
        assert [call.source for call in lm_cache.calls][:2] == ["fault", "fault"]
        assert "RateLimitError" in lm_cache.calls[0].answer.data["class"]
    """
    )
    suite.record().stdout.fnmatch_lines(["0 replayed, 1 recorded, 2 given a fault by the test"])
    assert suite.asked() == 1
    written = (suite.folder / "cassettes/test_it/test_retry.yaml").read_text()
    assert "RateLimit" not in written
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 replayed, 2 given a fault by the test", "saved * tokens*"])
    assert suite.asked() == 0


def test_choosing_calls(suite):
    """Faults are for calls by their number, by model, and by a function of the request."""
    suite.test(
        """
        def outcome(text, **more):
            try:
                return ask(text, **more)
            except litellm.InternalServerError:
                return None

        def test_number(lm_cache):
            lm_cache.fail(litellm.InternalServerError, call=2)
            lm_cache.fail(litellm.InternalServerError, call=[4, 5])
            lm_cache.reply("yes")
            assert [outcome("x") for _ in range(6)] == ["yes", None, "yes", None, None, "yes"]

        def test_model(lm_cache):
            lm_cache.fail(litellm.InternalServerError, model="gpt-4o-mini")
            lm_cache.fail(litellm.InternalServerError, model="openai/gpt-5*", times=None)
            lm_cache.reply("yes")
            models = ["openai/gpt-5-mini", "openai/gpt-4o-mini", "openai/gpt-4o-mini", "openai/gpt-5"]
            assert [outcome("x", model=model) for model in models] == [None, None, "yes", None]

        def test_function(lm_cache):
            lm_cache.fail(litellm.InternalServerError, when=lambda request: "bad" in str(request["messages"]))
            lm_cache.reply("yes")
            assert [outcome(text) for text in ("good", "bad", "bad")] == ["yes", None, "yes"]
        """
    )
    suite.run().assert_outcomes(passed=3)


def test_a_fault_that_no_call_meets(suite):
    """The test fails with a text that names the fault and the calls that there were; optional ones may stay unmet."""
    suite.test(
        """
        def test_unmet(lm_cache):
            lm_cache.fail(litellm.RateLimitError, times=2, model="gpt-5")
            lm_cache.fail(ValueError, model="gpt-6", optional=True)
            lm_cache.reply("yes")
            ask("x")

        def test_partly(lm_cache):
            lm_cache.fail(litellm.RateLimitError, times=3)
            with pytest.raises(litellm.RateLimitError):
                ask("x")

        def test_red(lm_cache):
            lm_cache.fail(litellm.RateLimitError)
            assert 0, "its own failure"

        @pytest.mark.xfail(reason="not yet")
        def test_expected(lm_cache):
            lm_cache.fail(litellm.RateLimitError)
        """
    )
    result = suite.run()
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(
        [
            "*lm_cache.fail(RateLimitError, times=2, model='gpt-5') met no call.",
            "*The calls so far:",
            "*<completion() from reply: model openai/gpt-4o-mini, 1 message, x>",
            "*set it up with optional=True.",
            "*lm_cache.fail(RateLimitError, times=3) met 1 of 3 calls.",
        ]
    )
    result.stdout.fnmatch_lines(["*its own failure*"])
    result.stdout.no_fnmatch_line("*lm_cache.fail(RateLimitError) met no call.\n*its own*")
    result.stdout.no_fnmatch_line("*pytest_lmcache/staged_calls.py*")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("fail('rate limit')", "takes an exception or a class of exceptions"),
        ("fail(litellm.Timeout, times=0)", "times is 1 or more"),
        ("fail(litellm.Timeout, call=0)", "call counts from 1"),
        ("fail(litellm.Timeout, times=2, call=1)", "not both"),
        ("slow(0)", "seconds is more than 0"),
        ("cut_stream(-1)", "0 or more"),
        ("reply()", "needs an answer"),
        ("reply(3)", "takes a text, a list of texts"),
        ("reply('a', 'b', times=2)", "several answers are for one call each"),
        ("reply('a', 'b', reasoning='c')", "Give several as Reply(…, reasoning=…)"),
    ],
)
def test_what_cannot_be_set_up(suite, call, words):
    """A set-up that cannot be is an error at once, which says why."""
    suite.test(
        f"""
        def test_one(lm_cache):
            with pytest.raises(ValueError) as caught:
                lm_cache.{call}
            assert {words!r} in str(caught.value)
        """
    )
    suite.run().assert_outcomes(passed=1)


@pytest.mark.slow
def test_child_processes(suite):
    """The faults and replies of a test are for the calls of its child processes too."""
    suite.file(
        "child.py",
        """
        import litellm
        from app import ask

        def work(_):
            try:
                ask("x")
            except litellm.RateLimitError as error:
                first = str(error)
            return first, ask("x"), ask("recorded")
        """,
    )
    suite.test(
        """
        import multiprocessing
        from child import work

        def test_pool(lm_cache):
            lm_cache.fail(litellm.RateLimitError)
            lm_cache.reply("by hand", times=1)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                [(error, second, third)] = pool.map(work, [1])
            assert "Rate limit reached for gpt-4o-mini" in error
            assert (second, third) == ("by hand", "You said: recorded")
        """
    )
    suite.record()
    suite.run().assert_outcomes(passed=1)


@pytest.mark.slow
def test_with_xdist(suite):
    """The counts of faults and replies come from the workers."""
    suite.test(
        """
        @pytest.mark.parametrize("number", range(4))
        def test_one(lm_cache, number):
            lm_cache.fail(litellm.RateLimitError)
            lm_cache.reply("yes")
            with pytest.raises(litellm.RateLimitError):
                ask("x")
            assert ask("x") == "yes"
        """
    )
    result = suite.spawn("-n", "2")
    assert "4 given a fault by the test, 4 given a reply by the test" in str(result.stdout)


def test_faults_come_before_replies(suite):
    """A reply that is for every call leaves faults their calls, whichever was set up first."""
    suite.test(
        """
        def test_one(lm_cache):
            lm_cache.reply("yes")
            lm_cache.fail(litellm.RateLimitError)
            with pytest.raises(litellm.RateLimitError):
                ask("x")
            assert ask("x") == "yes"
        """
    )
    suite.run().assert_outcomes(passed=1)
