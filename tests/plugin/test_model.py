"""``--lm-model OLD=NEW``: the recorded questions go to another model."""

import pytest
from provider import Provider, Reply

NEW = "openai/gpt-4o"
TESTS = """
@pytest.mark.lm_cache
def test_one():
    assert ask("one") == "You said: one"

@pytest.mark.lm_cache
def test_two():
    assert ask("two") == "You said: two"
"""


def of_new(request):
    """The new model answers one of the questions in other words."""
    if request.body["model"] == "gpt-4o" and request.prompt == "two":
        return Reply(text="Two, you said.")
    return Reply()


@pytest.fixture
def answers(loopback):
    """Has the provider answer by a function of the request."""

    def set_to(answer):
        loopback.answer = answer

    yield set_to
    loopback.answer = lambda _: Reply()


def models_asked(loopback, since):
    return [request.body["model"] for request in loopback.requests[since:]]


def test_verify_compares_models(suite, loopback, answers):
    """With verify the tests run on the recorded answers, and the table has both, with tokens, USD and seconds."""
    suite.test(TESTS)
    suite.record()
    answers(of_new)
    since = loopback.count
    result = suite.run("--lm-mode=verify", f"--lm-model=openai/gpt-4o-mini={NEW}")
    assert models_asked(loopback, since) == ["gpt-4o", "gpt-4o"]
    result.assert_outcomes(passed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "2 replayed, 2 asked again",
            "test_it.py::test_one, call 1: same; 12 → 12 tokens, $0.0000031 → $0.000053, * s",
            "You said: one * You said: one",
            "test_it.py::test_two, call 1: different; *",
            "You said: two * Two, you said.",
            "*model * calls * tokens * USD * seconds*",
            "*openai/gpt-4o-mini, recorded * 2 * 24 * $0.0000063 *",
            "*openai/gpt-4o, new * 2 * 24 * $0.00011 *",
            "2 answers asked again: 1 as recorded, 1 different",
            "the text changed, 1 call in 1 test:",
        ]
    )
    result.stdout.no_fnmatch_line("Record the new answers:*")
    result.stdout.no_fnmatch_line("models that answer under another name*")


def test_live_runs_tests_on_the_new_model(suite, loopback, answers):
    """With live the tests get the new answers: the report says which pass; nothing is written."""
    suite.test(TESTS)
    suite.record()
    before = [(suite.folder / "cassettes" / name).read_bytes() for name in suite.cassettes()]
    answers(of_new)
    since = loopback.count
    result = suite.run("--lm-mode=live", f"--lm-model=openai/gpt-4o-mini={NEW}")
    assert models_asked(loopback, since) == ["gpt-4o", "gpt-4o"]
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*2 live and not recorded",
            "✓ test_it.py::test_one, call 1: same; *",
            "✗ test_it.py::test_two, call 1: different; *",
            "tests on the new answers: 1 passed, 1 failed: test_it.py::test_two",
            "2 answers of other models: 1 as recorded, 1 different",
        ]
    )
    assert before == [(suite.folder / "cassettes" / name).read_bytes() for name in suite.cassettes()]


def test_live_without_a_recording(suite):
    """A live call that has no recording is shown without one; the run is green."""
    suite.test(TESTS)
    suite.record("-k", "one")
    result = suite.run("--lm-mode=live", f"--lm-model=openai/gpt-4o-mini={NEW}")
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "tests on the new answers: 2 passed, 0 failed",
            "2 answers of other models: 1 as recorded, 1 not compared",
            "not compared, 1 call in 1 test: there is no recording of this call",
        ]
    )


def test_live_without_models_compares_nothing(suite):
    """Mode live by itself reads no cassette."""
    suite.test(TESTS)
    suite.record()
    result = suite.run("--lm-mode=live")
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*recorded answers and new ones*")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["verify", "live"])
def test_every_kind_of_call(suite, loopback, mode):
    """Sync, async, streams, text, embeddings, responses, DSPy's engine and Router ask the new model."""
    suite.test("""
        SETTINGS |= {"model": "openai/gpt-4o-mini"}

        def way_completion():
            ask("hello")
        def way_positional():
            rest = {name: value for name, value in SETTINGS.items() if name != "model"}
            litellm.completion("openai/gpt-4o-mini", said("hello"), **rest)
        def way_async():
            asyncio.run(aask("hello"))
        def way_stream():
            list(litellm.completion(messages=said("hello"), stream=True, **SETTINGS))
        def way_text():
            litellm.text_completion(prompt="hello", **SETTINGS)
        def way_embedding():
            litellm.embedding(input=["hello"], **SETTINGS)
        def way_responses():
            litellm.responses(input="hello", **SETTINGS)
        def way_router():
            router = litellm.Router(model_list=[{"model_name": "any", "litellm_params": SETTINGS}])
            router.completion("any", messages=said("hello"))
        def way_dspy():
            import dspy
            dspy.LM("openai/gpt-4o-mini", api_base=SETTINGS["api_base"], api_key="sk-x", cache=False)("hello")

        @pytest.mark.lm_cache
        @pytest.mark.parametrize("way", [name for name in dir() if name.startswith("way_")])
        def test_one(way):
            globals()[way]()
    """)
    suite.record()
    since = loopback.count
    result = suite.run(f"--lm-mode={mode}", f"--lm-model=openai/gpt-4o-mini={NEW}")
    result.assert_outcomes(passed=9)
    assert models_asked(loopback, since) == ["gpt-4o"] * 9
    result.stdout.fnmatch_lines(["9 answers *: 9 as recorded"])
    assert result.ret == 0


def test_another_provider_gets_no_key(suite, loopback, monkeypatch):
    """A model of another provider is asked at its own address with its own key, not with those of the call."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            ask("one", extra_headers={"x-account": "mine"}, organization="org")
    """)
    suite.record()
    with Provider() as other:
        monkeypatch.setenv("ANTHROPIC_API_BASE", other.base)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-own")
        since = loopback.count
        args = "--lm-model=openai/gpt-4o-mini=anthropic/claude-haiku-4-5"
        assert suite.run("--lm-mode=verify", args).ret == 0
        suite.run("--lm-mode=live", args).assert_outcomes(passed=1)
        assert loopback.count == since
        assert [request.headers["x-api-key"] for request in other.requests] == ["sk-ant-own"] * 2
        assert "sk-local" not in str([request.headers for request in other.requests])
        assert not any("x-account" in request.headers for request in other.requests)


def test_name_that_no_call_uses(suite):
    """A name that no call uses fails the run and lists those that calls use."""
    suite.test(TESTS)
    suite.record()
    result = suite.run("--lm-mode=verify", f"--lm-model=gpt-4o-mini={NEW}")
    result.assert_outcomes(passed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["--lm-model gpt-4o-mini=…: no call names this model; calls name openai/gpt-4o-mini"]
    )


@pytest.mark.parametrize("mode", ["", "--lm-record", "--lm-rewrite", "--lm-mode=once"])
def test_only_with_verify_or_live(suite, mode):
    """No other mode asks another model: recordings say which model they are of."""
    suite.test(TESTS)
    result = suite.run(*filter(None, [mode]), "--lm-model=a=b")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*--lm-model asks another model, and mode * asks none.*--lm-mode=verify*--lm-mode=live*"]
    )


@pytest.mark.parametrize("value", ["gpt-4o", "=b", "a="])
def test_invalid_pair(suite, value):
    """What is no pair of names is a usage error."""
    result = suite.run("--lm-mode=verify", f"--lm-model={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--lm-model cannot be *; it takes OLD=NEW, two names of models.*"])


def test_several_models(suite, loopback):
    """Each pair replaces its own model; others are asked as they are."""
    suite.test("""
        @pytest.mark.lm_cache
        @pytest.mark.parametrize("model", ["openai/a", "openai/b", "openai/c"])
        def test_one(model):
            ask("one", model=model)
    """)
    suite.record()
    since = loopback.count
    suite.run("--lm-mode=verify", "--lm-model=openai/a=openai/x", "--lm-model=openai/b=openai/y")
    assert models_asked(loopback, since) == ["x", "y", "c"]


def test_marker(suite, loopback):
    """A mark replaces models too, in modes verify and live only."""
    suite.test("""
        @pytest.mark.lm_cache(model="openai/gpt-4o-mini=openai/gpt-4o")
        def test_one():
            ask("one")
    """)
    suite.record()
    assert models_asked(loopback, -1) == ["gpt-4o-mini"]
    suite.run().assert_outcomes(passed=1)
    suite.run("--lm-mode=verify")
    assert models_asked(loopback, -1) == ["gpt-4o"]


def test_model_that_refuses(suite, answers):
    """A model that does not take the question is told with its error, beside the recorded answer."""
    suite.test(TESTS)
    suite.record()
    answers(lambda request: Reply(failure="not_found") if request.body["model"] == "gpt-4o" else Reply())
    result = suite.run("--lm-mode=verify", f"--lm-model=openai/gpt-4o-mini={NEW}")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["the outcome changed from an answer to NotFoundError (404), 2 calls in 2 tests:"]
    )


@pytest.mark.slow
def test_child_process(suite, loopback):
    """The calls of a process that a live test starts go to the other model too."""
    suite.file("child.py", "from app import ask\nask('one')\n")
    suite.test("""
        import subprocess, sys
        @pytest.mark.lm_cache
        def test_one():
            subprocess.run([sys.executable, "child.py"], check=True)
    """)
    suite.record()
    result = suite.run("--lm-mode=live", f"--lm-model=openai/gpt-4o-mini={NEW}")
    result.assert_outcomes(passed=1)
    assert models_asked(loopback, -1) == ["gpt-4o"]
    result.stdout.fnmatch_lines(["1 answer of other models: 1 as recorded"])


def test_a_price_that_is_not_known_is_not_zero(suite, loopback):
    """The totals of a model without a known price have no amount."""
    suite.test(TESTS)
    suite.record()
    result = suite.run("--lm-mode=verify", "--lm-model=openai/gpt-4o-mini=openai/our-own")
    result.stdout.fnmatch_lines(["*openai/our-own, new * 2 * 24 * - *"])
