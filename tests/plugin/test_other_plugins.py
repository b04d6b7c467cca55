"""Beside other plugins: each does its own work, and recordings come out the same."""

import importlib.util
from textwrap import dedent

import pytest

pytestmark = pytest.mark.slow

# All plugins that are installed, also those that other tests leave out.
WITH_ALL = ("-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function")
MARKED = """
@pytest.mark.lm_cache
def test_one():
    assert ask() == "You said: hello"
"""


def test_pytest_recording(suite):
    """pytest-recording's options and marks work in the same run, and its own cassette is not ours."""
    suite.test(
        """
        import urllib.request

        @pytest.mark.lm_cache
        def test_ours():
            ask()

        @pytest.mark.vcr
        def test_theirs():
            urllib.request.urlopen("URL/models")
    """.replace("URL", "http://127.0.0.1:9")
    )
    suite.run("-k", "ours", "--lm-record", "--record-mode=none").assert_outcomes(passed=1)
    suite.asked()
    result = suite.run("--record-mode=none", "--block-network")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*CannotOverwriteExistingCassetteException*"])
    assert suite.asked() == 0


def test_both_marks_on_one_test(suite):
    """A test may carry pytest-recording's mark and ours: model calls are ours, nothing reaches its cassette."""
    suite.file("pytest.ini", "[pytest]\nlm_cassette_dir = lm\n")
    suite.test("@pytest.mark.vcr\n" + MARKED)
    suite.run("--lm-record", "--record-mode=once").assert_outcomes(passed=1)
    suite.asked()
    suite.run("--record-mode=none").assert_outcomes(passed=1)
    assert suite.asked() == 0
    assert (suite.folder / "lm/test_it/test_one.yaml").is_file()


def test_pytest_socket(suite):
    """A replay opens no socket: ``--disable-socket`` lets it pass, sync and async."""
    suite.test(
        MARKED
        + """
@pytest.mark.lm_cache
@pytest.mark.asyncio
async def test_two():
    assert await aask() == "You said: hello"
"""
    )
    suite.record()
    suite.asked()
    suite.run("--disable-socket", "--allow-unix-socket").assert_outcomes(passed=2)
    assert suite.asked() == 0


def test_pytest_randomly(suite):
    """In any order, and with its reseeding, the same calls are found."""
    suite.test("""
        @pytest.mark.lm_cache
        @pytest.mark.parametrize("n", range(5))
        def test_one(n):
            ask(str(n))
    """)
    suite.record()
    suite.asked()
    for seed in (1, 2):
        result = suite.run(f"--randomly-seed={seed}", alone=WITH_ALL)
        result.assert_outcomes(passed=5)
        result.stdout.fnmatch_lines([f"Using --randomly-seed={seed}"])
    assert suite.asked() == 0


def test_pytest_mockllm(suite):
    """With pytest-mockllm loaded a run records and replays as without it."""
    assert importlib.util.find_spec("pytest_mockllm")
    suite.test(MARKED)
    for args in (["--lm-record"], []):
        result = suite.run(*args, alone=WITH_ALL)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["plugins: *mockllm*"])
    assert suite.asked() == 1


def test_rerun_starts_afresh(suite):
    """A rerun of a failing test starts with nothing asked and nothing missed, and is what gets recorded."""
    suite.test("""
        runs = []

        @pytest.mark.flaky(reruns=2)
        @pytest.mark.lm_cache
        def test_one(lm_cache):
            runs.append(len(lm_cache.calls))
            answer = ask(f"run {len(runs)}")
            ask("same")
            assert len(runs) == 3
            assert runs == [0, 0, 0]
    """)
    result = suite.run("--lm-record")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*1 passed*2 rerun*"])
    text = (suite.folder / "cassettes/test_it/test_one.yaml").read_text()
    assert "run 3" in text
    assert "run 1" not in text
    assert text.count("\n--- ") == 2


def test_rerun_after_a_miss(suite):
    """A miss fails each rerun alike, and the last with the message."""
    suite.test("@pytest.mark.flaky(reruns=1)" + MARKED)
    result = suite.run()
    result.stdout.fnmatch_lines(["E*Record it:  pytest --lm-record*", "*1 failed*1 rerun*"])


MISSES_ONCE = {
    "expected failure": """
        @pytest.mark.xfail
        @pytest.mark.lm_cache
        def test_one():
            runs.append(1)
            ask("recorded" if len(runs) > 1 else "not recorded")
            assert False
    """,
    "fixture": """
        @pytest.fixture(scope="module")
        def helper():
            runs.append(1)
            return ask("recorded" if len(runs) > 1 else "not recorded")

        @pytest.mark.lm_cache
        def test_one(helper):
            pass
    """,
}


@pytest.mark.parametrize("text", MISSES_ONCE.values(), ids=MISSES_ONCE)
def test_rerun_of_what_missed_once(suite, text):
    """Neither an expected failure nor a fixture that others share makes up for its miss in a second try."""
    suite.test("runs = [1]\n" + dedent(text))
    suite.record()
    suite.test("runs = []\n" + dedent(text))
    assert suite.run("--reruns=2").ret == 1


def test_rerun_that_would_not_miss(suite):
    """A second try that asks something else does not make up for the first: that one is not recorded."""
    suite.test("""
        runs = []

        @pytest.mark.flaky(reruns=2)
        @pytest.mark.lm_cache
        def test_one():
            runs.append(1)
            ask(f"attempt {len(runs)}")
            assert len(runs) == 2
    """)
    suite.record()
    suite.asked()
    result = suite.run()
    result.stdout.fnmatch_lines(["E*Record it:  pytest --lm-record*", "*1 failed*2 rerun*"])
    assert suite.asked() == 0


def test_subtests(suite):
    """With subtests: one that fails keeps the cassette unwritten; one that swallows a miss fails its test."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one(subtests):
            for n in range(3):
                with subtests.test(n=n):
                    ask(str(n))
                    assert n != FAILS
    """)
    suite.file("conftest.py", "import builtins\nbuiltins.FAILS = 0\n")
    assert suite.run("--lm-record").ret == 1
    assert suite.cassettes() == []
    suite.file("conftest.py", "import builtins\nbuiltins.FAILS = None\n")
    missed = suite.run()
    assert missed.ret == 1
    missed.stdout.fnmatch_lines(["*0 replayed, * missed*"])
    suite.record()
    suite.asked()
    assert suite.run().ret == 0
    assert suite.asked() == 0


def test_unittest_subtests(suite):
    """unittest's own subTest likewise."""
    suite.test("""
        import unittest

        @pytest.mark.lm_cache
        class TestIt(unittest.TestCase):
            def test_one(self):
                for n in range(2):
                    with self.subTest(n=n):
                        ask(str(n))
                        assert n != FAILS
    """)
    suite.file("conftest.py", "import builtins\nbuiltins.FAILS = 0\n")
    assert suite.run("--lm-record").ret == 1
    assert suite.cassettes() == []
    suite.file("conftest.py", "import builtins\nbuiltins.FAILS = None\n")
    suite.record()
    suite.asked()
    assert suite.run().ret == 0
    assert suite.asked() == 0


def test_hypothesis(suite):
    """Each example of a property asks within one recorder; a miss fails the property."""
    suite.test("""
        from hypothesis import given, settings, strategies

        @pytest.mark.lm_cache
        @settings(max_examples=5, deadline=None, database=None, derandomize=True)
        @given(strategies.sampled_from(["a", "b"]))
        def test_one(text):
            ask(text)
    """)
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*Record it:  pytest --lm-record*"])
    suite.record()
    suite.asked()
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 0


def test_interrupt(suite):
    """Ctrl-C in the middle of a test writes nothing of it, and leaves nothing of ours in LiteLLM."""
    import litellm

    from pytest_lmcache.libraries.litellm.intercept import wrapper_chain
    from pytest_lmcache.session import session

    def state():
        wrappers = [
            each for name in ("completion", "acompletion") for each in wrapper_chain(getattr(litellm, name))
        ]
        return [(wrapper.__code__, cell.cell_contents) for wrapper, cell in wrappers], [*session.scopes]

    before = state()
    suite.test(
        MARKED
        + """
@pytest.mark.lm_cache
def test_two():
    ask("two")
    raise KeyboardInterrupt

def test_three():
    pass
"""
    )
    result = suite.run("--lm-record")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert suite.cassettes() == ["test_it/test_one.yaml"]
    assert state() == before
    result.stdout.fnmatch_lines(["0 replayed, 1 recorded, 1 live and not recorded"])


def test_collect_only(suite):
    """``--collect-only`` collects, records nothing and says nothing."""
    suite.test(MARKED)
    result = suite.run("--collect-only", "--lm-record")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_one*"])
    result.stdout.no_fnmatch_line("*language-model*")
    assert suite.asked() == 0
    assert not (suite.folder / "cassettes").exists()


def test_instrumented_threads_and_processes(suite):
    """OpenTelemetry and others wrap what starts threads and processes with wrapt before the first test."""
    suite.file(
        "conftest.py",
        """
        import concurrent.futures, subprocess, threading, wrapt

        def traced(wrapped, instance, args, kwargs):
            instance.is_traced = True
            return wrapped(*args, **kwargs)

        wrapt.wrap_function_wrapper(threading.Thread, "start", traced)
        wrapt.wrap_function_wrapper(concurrent.futures.ThreadPoolExecutor, "submit", traced)
        wrapt.wrap_function_wrapper(subprocess.Popen, "__init__", traced)
        """,
    )
    suite.test("""
        import subprocess, sys, threading
        from concurrent.futures import ThreadPoolExecutor

        @pytest.mark.lm_cache
        def test_one():
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
            with ThreadPoolExecutor() as pool:
                assert pool.submit(ask).result() == "You said: hello"
            with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
                assert process.wait() == 0
            assert thread.is_traced and pool.is_traced and process.is_traced
    """)
    assert "1 passed" in suite.spawn("--lm-record").stdout
    assert suite.asked() == 2
    assert "1 passed" in suite.spawn().stdout
    assert suite.asked() == 0


def test_inner_run_nests(suite):
    """A suite that runs pytest within a recorded test keeps both recordings apart."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_outer(lm_cache, pytester):
            ask("outer")
            pytester.makepyfile(app=open(APP).read())
            pytester.makepyfile(test_inner="import pytest\\nfrom app import ask\\n"
                "@pytest.mark.lm_cache\\ndef test_inner():\\n    ask('inner')\\n")
            pytester.runpytest_inprocess("--lm-record", "-p", "no:randomly", "-p", "no:mockllm",
                "-o", "asyncio_default_fixture_loop_scope=function").assert_outcomes(passed=1)
            assert [call.request["messages"] for call in lm_cache.calls] == [said("outer")]
            ask("after")
    """)
    suite.file(
        "conftest.py",
        f"import builtins\nbuiltins.APP = {str(suite.folder / 'app.py')!r}\npytest_plugins = ['pytester']\n",
    )
    suite.record()
    assert suite.asked() == 3
    assert (suite.folder / "cassettes/test_it/test_outer.yaml").read_text().count("\n--- ") == 2
