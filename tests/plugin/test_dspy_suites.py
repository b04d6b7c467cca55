"""Suites that call DSPy, which may be there without LiteLLM: watched, recorded and replayed like any other."""

import functools
import subprocess
import sys

import dspy
import pytest
from provider import Provider

pytestmark = pytest.mark.slow

native = pytest.mark.skipif(not hasattr(dspy, "lm15"), reason="this DSPy calls LiteLLM only")
APP = """
import dspy

def ask(text="hello"):
    return dspy.LM("openai/gpt-4o-mini", api_base={url!r}, api_key="sk-local-123456", num_retries=0)(text)
"""
TEST = """
import sys

def test_it():
    from program import ask
    assert ask() == ["You said: hello"]
    assert "litellm" not in sys.modules
"""


@pytest.fixture
def program(suite):
    """A suite whose ``program.py`` calls DSPy's own engine."""
    suite.file("program.py", APP.format(url=suite.provider.url))
    suite.test(TEST, "test_it.py").write_text(TEST, encoding="utf-8")
    return suite


def told(done):
    """The run's output, which has to be that of a passing run."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@native
def test_live_calls_are_counted_without_litellm(program):
    """A live call of DSPy's own engine by a test that is not marked is told of, also where nothing imports LiteLLM."""
    lines = told(program.spawn()).splitlines()
    assert "1 live call in unmarked tests (add @pytest.mark.lm_cache, or set lm_auto = true):" in lines
    assert "  test_it.py::test_it (1)" in lines


@native
def test_auto_without_litellm(program):
    """With lm_auto a suite that calls DSPy alone is recorded and replayed, its tests as they are."""
    program.file("pytest.ini", "[pytest]\nlm_auto = true\n")
    assert "1 recorded" in told(program.spawn("--lm-record"))
    assert program.asked() == 1
    assert program.cassettes() == ["test_it/test_it.yaml"]
    assert "1 replayed" in told(program.spawn())
    assert program.asked() == 0


def test_a_miss_fails_the_test(program):
    """A call of DSPy's that was not recorded fails the test with the command that records it."""
    program.test(
        """
        import dspy
        from program import ask as ask_dspy

        @pytest.mark.lm_cache
        def test_it():
            try:
                ask_dspy()
            except Exception:
                pass
        """
    )
    result = program.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(['E*Record it:  pytest --lm-record "test_it.py::test_it"'])
    assert program.asked() == 0


def test_a_cache_in_front_is_named(suite):
    """A cache of another library's that cannot be put aside is named in the summary, with the tests it was in."""
    suite.test(
        """
        import sys, types

        @pytest.mark.lm_cache
        def test_it(monkeypatch):
            front = types.SimpleNamespace(_llm_cache={})
            sys.modules["langchain_core.globals"] = front

        def test_after():
            del sys.modules["langchain_core.globals"]
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "caches that answer before *switch them off in tests:",
            "  test_it.py::test_it (LangChain's set_llm_cache)",
        ]
    )


def test_a_developers_poisoned_cache(program, monkeypatch, tmp_path_factory):
    """What lies in a developer's own cache on disk, be it wrong, gets into no cassette, and stays where it lies."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("DSPY_CACHEDIR", str(home))
    program.provider.script("poison")
    warm = [sys.executable, "-c", "from program import ask; print(ask())"]
    run = functools.partial(subprocess.run, cwd=program.folder, capture_output=True, text=True, check=True)
    assert run(warm).stdout == run(warm).stdout == "['poison']\n"
    assert program.asked() == 1
    kept = sorted(path.name for path in home.rglob("*"))
    program.file("pytest.ini", "[pytest]\nlm_auto = true\n")
    program.file(
        "test_it.py", "from program import ask\n\ndef test_it():\n    assert ask() == ['You said: hello']\n"
    )
    told(program.spawn("--lm-record"))
    told(program.spawn())
    assert program.asked() == 1
    assert sorted(path.name for path in home.rglob("*")) == kept
    assert run(warm).stdout == "['poison']\n"


STOPPED = """
import dspy

@pytest.mark.lm_cache
def test_stop_button():
    async def go():
        lm = dspy.LM("openai/gpt-4o-mini", api_base={url!r}, api_key="sk-local-123456", num_retries=0, cache=False)
        with dspy.context(lm=lm), pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                async for _ in dspy.streamify(dspy.Predict("question -> answer"))(question="a " * 200):
                    if limit.when() is None:
                        limit.reschedule(asyncio.get_running_loop().time() + 0.1)
    asyncio.run(go())
"""


def test_a_stop_button_of_streamify(suite):
    """A program that DSPy runs in a thread waits there on replay, to be cancelled where it was when it was recorded."""
    with Provider(pause=0.03) as provider:
        suite.test(STOPPED.format(url=provider.url))
        suite.record().assert_outcomes(passed=1)
    suite.run().assert_outcomes(passed=1)
