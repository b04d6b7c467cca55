"""Calls that got no answer while they were recorded: they failed, or were cancelled, and do so again on replay."""

import pytest
from provider import Provider, Reply

pytestmark = pytest.mark.slow

HEAD = """
import asyncio, litellm, pytest, time

URL = {url!r}
SAID = {{"model": "openai/gpt-4o-mini", "api_base": URL, "api_key": "sk-good-key-123456", "max_retries": 0}}
pytestmark = pytest.mark.lm_cache

def asked(text, more):
    return {{**SAID, "messages": [{{"role": "user", "content": text}}], **more}}

def call(text="hello", **more):
    return litellm.completion(**asked(text, more)).choices[0].message.content

def acall(text="hello", **more):
    return litellm.acompletion(**asked(text, more))
"""


def answer(request):
    """What the tests' provider says: no to a bad key, to the third of three, to what is at its limit."""
    if "bad" in request.headers.get("authorization", ""):
        return Reply(failure="authentication")
    if request.body["model"] == "full":
        return Reply(failure="rate_limit")
    if request.prompt.startswith("slow"):
        return Reply(delay=20.0)
    return Reply()


class Suite:
    """A suite that asks a provider of its own, which can go away."""

    def __init__(self, suite, provider):
        self.suite = suite
        self.provider = provider

    def test(self, text):
        """Write the test file."""
        self.suite.file("test_it.py", HEAD.format(url=self.provider.url) + text)

    def both(self, text, *args, **outcomes):
        """Record a suite, then replay it with the provider gone; what recording and replaying said."""
        self.test(text)
        recorded = self.suite.run("--lm-record", *args)
        recorded.assert_outcomes(**outcomes)
        self.provider.stop()
        replayed = self.suite.run(*args)
        replayed.assert_outcomes(**outcomes)
        replayed.stdout.no_fnmatch_line("*missed*")
        return recorded.stdout.str(), replayed.stdout.str()

    def cassette(self, name):
        """The text of a test's cassette."""
        return (self.suite.folder / f"cassettes/test_it/{name}.yaml").read_text(encoding="utf-8")


@pytest.fixture
def gone(suite):
    """A suite of a user's whose provider can be stopped."""
    with Provider(pause=0.05) as provider:
        provider.answer = answer
        yield Suite(suite, provider)


def test_errors_that_a_test_expects(gone):
    """A wrong key, a limit that is reached, a fallback: what no later identical call made up for is raised again."""
    gone.provider.answer = answer

    def limited(request):
        times = sum(asked.prompt == request.prompt for asked in gone.provider.requests)
        return Reply(failure="rate_limit") if request.prompt == "thrice" and times > 2 else answer(request)

    gone.provider.answer = limited
    recorded, _ = gone.both(
        """
def test_rate_limit():
    assert call("thrice") == call("thrice")
    with pytest.raises(litellm.RateLimitError, match="Please try again in 1s"):
        call("thrice")

def test_wrong_key():
    assert call()
    with pytest.raises(litellm.AuthenticationError) as refused:
        call(api_key="sk-bad-key-123456")
    assert refused.value.response.json()["error"]["code"] == "invalid_api_key"

def test_wrong_key_alone():
    with pytest.raises(litellm.AuthenticationError):
        call(api_key="sk-bad-key-123456")

async def refused_later():
    assert await acall()
    with pytest.raises(litellm.AuthenticationError):
        await acall(api_key="sk-bad-key-123456", stream=True)

def test_wrong_key_async():
    asyncio.run(refused_later())

def test_fallback():
    router = litellm.Router(
        [
            {"model_name": "first", "litellm_params": {**SAID, "model": "openai/full"}},
            {"model_name": "second", "litellm_params": SAID},
        ],
        fallbacks=[{"first": ["second"]}],
        num_retries=0,
    )
    assert "hello" in router.completion("first", [{"role": "user", "content": "hello"}]).choices[0].message.content

async def stream(router):
    chunks = await router.acompletion("first", [{"role": "user", "content": "stream"}], stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

def test_router():
    router = litellm.Router(
        [
            {"model_name": "first", "litellm_params": {**SAID, "model": "openai/full"}},
            {"model_name": "second", "litellm_params": SAID},
        ],
        fallbacks=[{"first": ["second"]}],
        num_retries=2,
        retry_after=0,
        disable_cooldowns=True,
    )
    assert "stream" in asyncio.run(stream(router))

def test_retries_in_vain():
    with pytest.raises(litellm.RateLimitError):
        call(model="openai/full", num_retries=2)
    with pytest.raises(litellm.RateLimitError) as limited:
        call(model="openai/full")
    assert limited.value.body["code"] == "rate_limit_exceeded"
""",
        passed=7,
    )
    assert "errors recorded because the test passed with them (pytest --lm-rewrite asks again):" in recorded
    assert "test_wrong_key_alone (completion() failed with AuthenticationError)" in recorded
    assert "not recorded" not in recorded.replace("live and not recorded", "")
    assert "sk-bad" not in gone.cassette("test_wrong_key")


def test_a_rewrite_of_nothing_but_an_error(gone):
    """A rewrite records the error that a test expects, the first time and again; it takes the place of no answer."""
    gone.test("""
def test_it():
    with pytest.raises(litellm.AuthenticationError):
        call(api_key="sk-bad-key-123456")
""")
    for _ in range(2):
        rewritten = gone.suite.run("--lm-rewrite")
        rewritten.assert_outcomes(passed=1)
        rewritten.stdout.fnmatch_lines(["0 replayed, 1 recorded"])
        gone.suite.run().assert_outcomes(passed=1)
    gone.test("""
def test_it():
    try:
        call()
    except litellm.InternalServerError:
        pass
""")
    gone.suite.run("--lm-rewrite").assert_outcomes(passed=1)
    answered = gone.cassette("test_it")
    gone.provider.stop()
    gone.suite.run("--lm-rewrite").assert_outcomes(passed=1)
    assert gone.cassette("test_it") == answered


def test_calls_that_a_test_cancels(gone):
    """Replay waits where life did: no patience, the loser of a race, a stop button, tasks left at the end."""
    recorded, _ = gone.both(
        """
def test_no_patience():
    async def go():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(acall("slow"), 0.4)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(acall("slow too", stream=True), 0.4)
        return await acall("quick")
    assert asyncio.run(go())

def test_race():
    async def go():
        slow, quick = asyncio.create_task(acall("slow")), asyncio.create_task(acall("quick"))
        done, pending = await asyncio.wait([slow, quick], return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        assert done == {quick}
        return quick.result().choices[0].message.content
    assert call(asyncio.run(go())) == "You said: You said: quick"

def test_group():
    async def fail():
        await acall("quick")
        raise ValueError("enough")
    async def go():
        async with asyncio.TaskGroup() as group:
            group.create_task(acall("slow"))
            group.create_task(fail())
    with pytest.raises(ExceptionGroup):
        asyncio.run(go())

STORY = "once upon a time there was a test that would not wait for the end of a story"

def test_stop_button():
    async def go():
        read = ""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                async for chunk in await acall(STORY, stream=True):
                    read += chunk.choices[0].delta.content or ""
        return read
    read = asyncio.run(go())
    assert call(read)

def test_stop_button_in_the_body():
    async def go():
        read = ""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.45):
                async for chunk in await acall(STORY, stream=True):
                    read += chunk.choices[0].delta.content or ""
                    await asyncio.sleep(0.1)
        return read
    assert asyncio.run(go())

def test_heartbeats():
    async def go():
        read, beats, stream = "", 0, await acall(STORY, stream=True)
        while True:
            try:
                read += (await asyncio.wait_for(anext(stream), 0.015)).choices[0].delta.content or ""
            except TimeoutError:
                beats += 1
            except litellm.exceptions.MidStreamFallbackError:
                return read, beats
    read, beats = asyncio.run(go())
    assert call(read)
    assert beats == 1

def test_left_at_the_end():
    async def go():
        asyncio.create_task(acall("slow"))
        return await acall("quick")
    assert asyncio.run(go())
""",
        passed=7,
    )
    assert "not recorded" not in recorded


@pytest.mark.parametrize("errors", ["lasting", "all"])
def test_errors_that_a_failing_test_met(gone, errors):
    """With ``all`` the next recording meets them again, from the layers; else it asks again."""
    from helpers import ALONE

    gone.suite.options = (*ALONE, "-o", f"lm_record_errors={errors}")
    gone.suite.pytester.makeini("[pytest]\nlm_disk_dir = kept\n")
    text = """
def test_it():
    with pytest.raises(litellm.RateLimitError):
        call(model="openai/full")
    assert WORKS
"""
    gone.test(text.replace("WORKS", "False"))
    gone.suite.run("--lm-record").assert_outcomes(failed=1)
    asked = gone.provider.count
    gone.test(text.replace("WORKS", "True"))
    gone.suite.run("--lm-record").assert_outcomes(passed=1)
    assert gone.provider.count - asked == (0 if errors == "all" else 1)
    gone.provider.stop()
    gone.suite.run().assert_outcomes(passed=1)


def test_what_replay_cannot_repeat(gone):
    """The last lines of the recording run name it, and the miss says what the call ended with."""
    gone.test("""
from litellm import CustomLLM

class Odd(CustomLLM):
    def completion(self, *args, **kwargs):
        raise SystemExit("enough")

def test_it(monkeypatch):
    monkeypatch.setattr(litellm, "custom_provider_map", [{"provider": "odd", "custom_handler": Odd()}])
    with pytest.raises(SystemExit):
        call(model="odd/one")
""")
    recorded = gone.suite.run("--lm-record")
    recorded.assert_outcomes(passed=1)
    lines = [line for line in recorded.stdout.lines if line][-3:-1]
    assert lines == [
        "not recorded, ended without an answer that can be replayed; the call will miss on replay:",
        "  test_it.py::test_it (completion() failed with SystemExit)",
    ]
    replayed = gone.suite.run()
    replayed.assert_outcomes(failed=1)
    replayed.stdout.fnmatch_lines(
        [
            "E*When it was recorded, this call of completion() ended with SystemExit. Replay cannot repeat that."
        ]
    )
