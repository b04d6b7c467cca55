"""``--lm-mode=verify``: recorded questions are asked again, and the new answers compared with the recorded ones."""

import json

import pytest
from provider import Reply

ONE = """
@pytest.mark.lm_cache
def test_one():
    assert ask("one") == "You said: one"

@pytest.mark.lm_cache
def test_two():
    assert ask("two") == "You said: two"
"""


@pytest.fixture
def drift(loopback):
    """Has the provider answer otherwise: by a text, or a function of the request."""

    def set_to(answer):
        loopback.answer = answer if callable(answer) else lambda _: answer

    yield set_to
    loopback.answer = lambda _: Reply()


def turn_vectors(answer):
    """Each vector in another direction."""
    for item in answer["data"] if answer.get("object") == "list" else ():
        item["embedding"] = [-number for number in item["embedding"]]


def cut_short(answer):
    answer["choices"][0]["finish_reason"] = "length"


def cite(answer):
    """A whole citation: LiteLLM 1.83 refuses an answer with a part of one."""
    citation = {"start_index": 0, "end_index": 3, "title": "Example", "url": "https://example.com"}
    answer["choices"][0]["message"]["annotations"] = [{"type": "url_citation", "url_citation": citation}]


def travel_to(city):
    """The tool's arguments with another city."""

    def edit(answer):
        function = answer["choices"][0]["message"]["tool_calls"][0]["function"]
        function["arguments"] = json.dumps({"days": 7, "city": city})

    return edit


def files(suite):
    return {path: (suite.folder / "cassettes" / path).read_bytes() for path in suite.cassettes()}


def test_same_answers(suite):
    """Each recorded question is asked once; if all answers are the same, the run is green and nothing is written."""
    suite.test(ONE)
    suite.record()
    before = files(suite)
    suite.asked()
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    assert suite.asked() == 2
    assert files(suite) == before
    result.stdout.fnmatch_lines(
        ["lmcache: mode verify", "2 replayed, 2 asked again", "spent 2? tokens, $0.0*"]
    )


def test_a_difference(suite, drift):
    """The tests run on the recorded answers and stay green; what differs is told, and the exit status is 1."""
    suite.test(ONE)
    suite.record()
    drift(lambda request: f"You said: {request.prompt}" if request.prompt == "one" else "Something else.")
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "2 answers asked again: 1 as recorded, 1 different",
            "the text changed, 1 call in 1 test:",
            "  test_it.py::test_two, call 1: model openai/gpt-4o-mini, 1 message, two",
            "    - You said: two",
            "    + Something else.",
            "Record the new answers:  pytest --lm-rewrite test_it.py::test_two",
        ]
    )


def test_difference_does_not_hide_the_next(suite, drift):
    """All differences of a test are told, and the calls after one are asked as recorded."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            answer = ask("one")
            assert ask(f"After {answer}") == "You said: After You said: one"
    """)
    suite.record()
    drift("Otherwise.")
    result = suite.run("--lm-mode=verify", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*2 answers asked again: 2 different", "*, call 1: *", "*, call 2: *After You said*"]
    )


def test_a_miss_is_a_miss(suite):
    """A call without a recording fails its test as on replay, and nobody is asked for it."""
    suite.test(ONE)
    suite.record("-k", "one")
    suite.asked()
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["E*Mode       verify: records nothing; asks the recorded questions again; key exact/1"]
    )
    assert suite.asked() == 1


def test_layers_are_not_used(suite, drift):
    """Neither the memory nor the disk layer answers, and no new answer gets there."""
    suite.options = suite.options[:-4]
    suite.test(ONE)
    suite.record("-p", "cacheprovider")
    drift("Otherwise.")
    assert suite.run("--lm-mode=verify", "-p", "cacheprovider").ret == 1
    suite.test(ONE.replace('"one"', '"One"'))
    suite.asked()
    drift(lambda _: Reply())
    suite.record("-p", "cacheprovider", "-k", "two")
    assert suite.asked() == 0


def test_identical_calls_are_compared_in_turn(suite, loopback):
    """The n-th of identical calls is compared with the n-th recording, and no recording is asked for twice."""
    suite.test(
        """
        @pytest.mark.lm_cache
        def test_one():
            assert [ask("same"), ask("same")] == ["first", "second"]
            assert TAIL
    """.replace("TAIL", "True")
    )
    loopback.script("first", "second")
    suite.record()
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            assert [ask("same") for _ in range(4)] == ["first", "second", "second", "second"]
    """)
    suite.asked()
    loopback.script("first", "changed")
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=1)
    assert suite.asked() == 2
    result.stdout.fnmatch_lines(
        ["2 answers asked again: 1 as recorded, 1 different", "*, call 2: *", "    - second", "    + changed"]
    )


ALL = """
import asyncio

WEATHER = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {
    "city": {"type": "string"}, "days": {"type": "integer"}}}}}]
BASE = SETTINGS["api_base"].removesuffix("/v1")
MESSAGES = {"max_tokens": 5, "api_key": "sk-x", "api_base": BASE, "model": "anthropic/claude-haiku-4-5"}

def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

def way_completion():
    assert ask("hello") == "You said: hello"

def way_async():
    assert asyncio.run(aask("hello")) == "You said: hello"

def way_stream():
    assert text_of(litellm.completion(messages=said("hello"), stream=True, **SETTINGS)) == "You said: hello"

def way_async_stream():
    async def read():
        return [chunk async for chunk in await litellm.acompletion(messages=said("hello"), stream=True, **SETTINGS)]
    assert text_of(asyncio.run(read())) == "You said: hello"

def way_tool():
    message = litellm.completion(messages=said("hello"), tools=WEATHER, **SETTINGS).choices[0].message
    assert message.tool_calls[0].function.name == "weather"

def way_text():
    assert litellm.text_completion(prompt="hello", **SETTINGS).choices[0].text == "You said: hello"

def way_embedding():
    litellm.embedding(input=["hello"], **SETTINGS | {"model": "openai/text-embedding-3-small"})

def way_responses():
    assert litellm.responses(input="hello", **SETTINGS).output_text == "You said: hello"

def way_responses_stream():
    events = list(litellm.responses(input="hello", stream=True, **SETTINGS))
    assert events[-1].response.output_text == "You said: hello"

def way_messages():
    answer = asyncio.run(litellm.anthropic_messages(messages=said("hello"), **MESSAGES))
    assert answer["content"][0]["text"] == "You said: hello"

def way_messages_stream():
    async def read():
        stream = await litellm.anthropic_messages(messages=said("hello"), stream=True, **MESSAGES)
        return b"".join([chunk async for chunk in stream])
    assert b"hello" in asyncio.run(read())

def way_dspy():
    import dspy
    lm = dspy.LM("openai/gpt-4o-mini", api_base=SETTINGS["api_base"], api_key="sk-x", cache=False)
    assert lm("hello") == ["You said: hello"]

def way_dspy_async():
    import dspy
    lm = dspy.LM("openai/gpt-4o-mini", api_base=SETTINGS["api_base"], api_key="sk-x", cache=False)
    assert asyncio.run(lm.acall("hello")) == ["You said: hello"]

def way_router():
    router = litellm.Router(model_list=[{"model_name": "any", "litellm_params": SETTINGS}])
    assert router.completion("any", messages=said("hello")).choices[0].message.content == "You said: hello"

def way_router_async():
    router = litellm.Router(model_list=[{"model_name": "any", "litellm_params": SETTINGS}])
    answer = asyncio.run(router.acompletion("any", messages=said("hello")))
    assert answer.choices[0].message.content == "You said: hello"

def way_gather():
    async def all():
        return await asyncio.gather(*(aask(text) for text in "abc"))
    assert asyncio.run(all()) == [f"You said: {text}" for text in "abc"]

@pytest.mark.lm_cache
@pytest.mark.parametrize("way", [name for name in dir() if name.startswith("way_")])
def test_one(way):
    globals()[way]()
"""
WAYS = ALL.count("\ndef way_")


@pytest.mark.slow
def test_every_kind_of_call(suite, drift):
    """Sync, async, streams, tools, embeddings, responses, messages, DSPy and Router: the same, then different."""
    suite.test(ALL)
    suite.record()
    before, _ = files(suite), suite.asked()
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=WAYS)
    assert suite.asked() == WAYS + 2
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines([f"{WAYS + 2} answers asked again: {WAYS + 2} as recorded"])
    drift(lambda request: Reply(text=f"Now {request.prompt}", edit=turn_vectors))
    result = suite.run("--lm-mode=verify", "-v")
    result.assert_outcomes(passed=WAYS)
    assert result.ret == 1
    # The tool is called with the prompt, whatever the text.
    result.stdout.fnmatch_lines([f"{WAYS + 2} answers asked again: 1 as recorded, {WAYS + 1} different"])
    result.stdout.fnmatch_lines(["the vectors changed, 1 call in 1 test:"])
    assert files(suite) == before


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ({"edit": cut_short}, "the finish reason changed from stop to length, 3 calls in 3 tests:"),
        (
            {"edit": cite},
            "the structure changed at choices[].message.annotations from missing to array, 3 calls*",
        ),
        (
            {"failure": "not_found"},
            "the outcome changed from an answer to NotFoundError (404), 3 calls in 3 tests:",
        ),
        ({"failure": "context_length_exceeded"}, "the outcome changed from an answer to ContextWindow*"),
    ],
)
def test_differences_by_cause(suite, drift, reply, told):
    """Calls that changed in the same way are one entry, with their number."""
    suite.test("""
        @pytest.mark.lm_cache
        @pytest.mark.parametrize("number", range(3))
        def test_one(number):
            ask(f"number {number}")
    """)
    suite.record()
    drift(Reply(**reply))
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=3)
    assert result.ret == 1
    result.stdout.fnmatch_lines([told])
    assert sum(" calls in 3 tests:" in line for line in result.outlines) == 1


def test_arguments_of_tools(suite, drift):
    """The arguments of a tool are compared as data, and each change is shown."""
    suite.test(
        ALL.partition("@pytest.mark.lm_cache")[0]
        + """
@pytest.mark.lm_cache
def test_tool():
    way_tool()
"""
    )
    suite.record()
    drift(Reply(edit=travel_to("Rome")))
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["weather.city changed in a tool call, 1 call in 1 test:", "    - hello", "    + Rome"]
    )
    drift(Reply(edit=travel_to("hello")))
    assert suite.run("--lm-mode=verify").ret == 0


@pytest.mark.parametrize("failure", ["rate_limit", "server", "overloaded", "authentication", "timeout"])
def test_provider_that_is_down(suite, drift, failure):
    """An error that may pass is no difference: the summary says that the provider could not be asked, the status is 1."""
    suite.test(ONE)
    suite.record()
    drift(Reply(failure=failure))
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["2 answers asked again: 2 could not be asked", "could not be asked, 2 calls in 2 tests: *"]
    )
    result.stdout.no_fnmatch_line("*changed*")


def test_provider_that_is_gone(suite):
    """A connection that is refused is told as such."""
    suite.test(ONE)
    suite.record()
    text = (suite.folder / "app.py").read_text()
    suite.file("app.py", text.replace(suite.provider.url, "http://127.0.0.1:9/v1"))
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["could not be asked, 2 calls in 2 tests: *onnection*"])


def test_recorded_error(suite, drift):
    """A recorded error is compared too: the same one is the same, an answer in its place is a difference."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            with pytest.raises(litellm.NotFoundError):
                ask("one")
    """)
    drift(Reply(failure="not_found"))
    suite.record()
    assert suite.run("--lm-mode=verify").ret == 0
    drift(Reply())
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["the outcome changed from NotFoundError (404) to an answer, 1 call in 1 test:"]
    )
    drift(Reply(failure="rate_limit"))
    suite.run("--lm-mode=verify").stdout.fnmatch_lines(["1 answer asked again: 1 could not be asked"])


def test_stream_that_breaks_now(suite, loopback):
    """A stream that breaks is compared as an error: one that may pass is told as such."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            list(litellm.completion(messages=said("one two three"), stream=True, **SETTINGS))
    """)
    suite.record()
    loopback.script(Reply(cut=2, failure="server"))
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 answer asked again: 1 could not be asked"])


def test_stream_that_was_left_early(suite, drift):
    """Of a stream that the test did not read to its end, only what it read is compared."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            stream = litellm.completion(messages=said("one two three"), stream=True, **SETTINGS)
            next(stream), next(stream)
    """)
    suite.record()
    drift(lambda request: "You said: something else.")
    assert suite.run("--lm-mode=verify").ret == 0
    drift(lambda request: "Other words.")
    assert suite.run("--lm-mode=verify").ret == 1


def test_alias_that_moved(suite, drift):
    """A model that answers under another name than recorded is told; that alone is no difference."""
    suite.test(ONE)
    drift(Reply(model="gpt-4o-mini-2024-07-18"))
    suite.record()
    drift(Reply(model="gpt-4o-mini-2025-01-01"))
    result = suite.run("--lm-mode=verify")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "models that answer under another name than recorded:",
            "  openai/gpt-4o-mini: gpt-4o-mini-2024-07-18 -> gpt-4o-mini-2025-01-01 (2 calls)",
        ]
    )


def test_callbacks_hear_of_one_call(suite):
    """Callbacks, and what they count, hear of the recorded answer only, as on replay."""
    suite.test("""
        import time
        from litellm.integrations.custom_logger import CustomLogger

        class Logger(CustomLogger):
            def __init__(self):
                super().__init__()
                self.heard = []
            def log_pre_api_call(self, model, messages, kwargs):
                self.heard.append("pre")
            def log_success_event(self, kwargs, *_, **__):
                self.heard.append("success")
            def log_failure_event(self, kwargs, *_, **__):
                self.heard.append("failure")

        @pytest.mark.lm_cache
        def test_one(monkeypatch):
            logger = Logger()
            monkeypatch.setattr(litellm, "callbacks", [logger])
            for name in ("input", "success", "failure", "_async_success", "_async_failure"):
                monkeypatch.setattr(litellm, f"{name}_callback", [])
            ask("one")
            list(litellm.completion(messages=said("two"), stream=True, **SETTINGS))
            until = time.monotonic() + 5
            while logger.heard.count("success") < 2 and time.monotonic() < until:
                time.sleep(0.02)
            time.sleep(0.2)
            assert sorted(logger.heard) == ["pre", "pre", "success", "success"]
    """)
    suite.record()
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=1)
    assert result.ret == 0


def test_secrets_are_not_shown(suite, drift):
    """A secret in a new answer is replaced, as it would be in a recording."""
    suite.test(ONE)
    suite.record()
    drift(Reply(text="The key is sk-proj-abcdefghijklmnopqrstuvwxyz0123456789."))
    result = suite.run("--lm-mode=verify", "-v")
    assert "abcdefghijkl" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*The key is <redacted:*"])


def test_block_without_pytest(tmp_path, provider):
    """Outside of pytest the block's ``comparisons`` have what differs, when it has ended."""
    import litellm

    from pytest_lmcache import use_cassette
    from pytest_lmcache.observer import Observer
    from pytest_lmcache.session import session

    asked = {"model": "openai/gpt-4o-mini", "api_base": provider.url, "api_key": "sk-x"}
    for mode in ("record", "verify"):
        # This run of pytest is not to hear of it, else it would fail.
        with (
            session.configured(session.configuration, Observer()),
            use_cassette(tmp_path / "x.yaml", mode=mode) as tape,
        ):
            litellm.completion(messages=[{"role": "user", "content": "one"}], **asked)
        provider.script("Otherwise.")
    [found] = tape.comparisons
    assert found.verdict == "different"
    assert [tuple(each) for each in found.differences] == [("text", "", "You said: one", "Otherwise.")]


def test_block(suite, drift):
    """``use_cassette(mode="verify")`` compares too, and its calls show the comparison; the run tells it."""
    suite.test(
        """
        from pytest_lmcache import use_cassette

        def test_one():
            with use_cassette("x.yaml", mode=MODE):
                ask("one")
    """.replace("MODE", '"record"')
    )
    suite.run().assert_outcomes(passed=1)
    text = (suite.folder / "test_it.py").read_text()
    suite.file("test_it.py", text.replace('"record"', '"verify"'))
    drift("Otherwise.")
    result = suite.run()
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["1 answer asked again: 1 different"])


def test_budget(suite, drift):
    """What verify asks counts for ``--lm-budget``: once it is spent, nothing more is asked, and the run fails."""
    suite.test("""
        @pytest.mark.lm_cache
        @pytest.mark.parametrize("number", range(3))
        def test_one(number):
            ask(f"number {number}")
    """)
    suite.record()
    suite.asked()
    result = suite.run("--lm-mode=verify", "--lm-budget=0.000001")
    result.assert_outcomes(passed=3)
    assert suite.asked() == 1
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "3 answers asked again: 1 as recorded, 2 could not be asked",
            "could not be asked, 2 calls in 2 tests: the budget of this run is spent",
        ]
    )


@pytest.mark.slow
def test_xdist_and_junit(suite, drift):
    """With xdist the controller tells all differences; the JUnit report has them as properties, and its tests passed."""
    suite.test(ONE)
    suite.record()
    drift("Otherwise.")
    done = suite.spawn("-n", "2", "--lm-mode=verify", "--junit-xml=report.xml")
    assert done.returncode == 1
    assert "2 passed" in done.stdout
    assert "2 answers asked again: 2 different" in done.stdout
    assert "the text changed, 2 calls in 2 tests:" in done.stdout
    report = (suite.folder / "report.xml").read_text()
    assert 'failures="0"' in report
    assert 'name="lm_different" value="call 1: the text changed: You said: one -&gt; Otherwise."' in report


@pytest.mark.slow
def test_child_process(suite, drift):
    """The calls of a process that a test starts are asked again there, and compared in the test's process."""
    suite.file("child.py", "from app import ask\nask('one')\n")
    suite.test("""
        import subprocess, sys
        @pytest.mark.lm_cache
        def test_one():
            subprocess.run([sys.executable, "child.py"], check=True)
    """)
    suite.record()
    suite.asked()
    drift("Otherwise.")
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=1)
    assert suite.asked() == 1
    assert result.ret == 1
    result.stdout.fnmatch_lines(["1 answer asked again: 1 different", "    + Otherwise."])


def test_cancelled_call_is_not_asked_again(suite, loopback):
    """A call that the test cancelled when it was recorded has no answer to compare with."""
    suite.test("""
        import asyncio
        @pytest.mark.lm_cache
        def test_one():
            async def main():
                task = asyncio.create_task(aask("slow"))
                await asyncio.sleep(0.3)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            asyncio.run(main())
    """)
    loopback.script(Reply(delay=0.6))
    suite.record()
    suite.asked()
    result = suite.run("--lm-mode=verify")
    result.assert_outcomes(passed=1)
    assert suite.asked() == 0
    assert result.ret == 0
    result.stdout.fnmatch_lines(["not compared, 1 call in 1 test: the call was cut off when it was recorded"])
