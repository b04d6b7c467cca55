"""The options and what each mode does, and which setting wins."""

import pytest

MARKED = """
@pytest.mark.lm_cache
def test_one():
    assert ask("one") == "You said: one"
"""
TWO = """
@pytest.mark.lm_cache
def test_one():
    assert [ask("one"), ask("two")] == ["You said: one", "You said: two"]
"""


@pytest.mark.parametrize(
    ("mode", "without", "found", "missing"),
    [
        ("replay", 0, 0, 0),
        ("once", 2, 0, 0),
        ("record", 2, 0, 1),
        ("rewrite", 2, 1, 2),
        ("live", 2, 1, 2),
        ("verify", 0, 1, 1),
    ],
)
def test_table_of_modes(suite, mode, without, found, missing):
    """Each mode asks the provider exactly where the documented table says."""
    suite.test(TWO)
    suite.run(f"--lm-mode={mode}")
    assert suite.asked() == without, "without a cassette"
    suite.test(MARKED)
    suite.run("--lm-rewrite")
    suite.asked()
    suite.run(f"--lm-mode={mode}")
    assert suite.asked() == found, "found in the cassette"
    before = suite.cassettes(), (suite.folder / "cassettes/test_it/test_one.yaml").read_bytes()
    suite.test(TWO)
    result = suite.run(f"--lm-mode={mode}")
    assert suite.asked() == missing, "one of two not found"
    passes = mode in {"record", "rewrite", "live"}
    result.assert_outcomes(passed=int(passes), failed=int(not passes))
    after = suite.cassettes(), (suite.folder / "cassettes/test_it/test_one.yaml").read_bytes()
    assert (before != after) == (mode in {"record", "rewrite"})


def test_live_stores_nothing(suite):
    """Mode live leaves no file behind."""
    suite.test(MARKED)
    suite.run("--lm-mode=live").stdout.fnmatch_lines(["*1 live and not recorded*"])
    assert suite.cassettes() == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--lm-mode=reply"],
            "*--lm-mode cannot be 'reply'; it takes one of: replay, once, record, rewrite, live, verify.",
        ),
        (["--lm-mode="], "*--lm-mode cannot be ''; it takes one of: *"),
        (["--lm-record", "--lm-rewrite"], "*--lm-record and --lm-rewrite exclude each other*"),
        (["--lm-record", "--lm-mode=live"], "*--lm-record and --lm-mode exclude each other*"),
        (["--lm-durations=few"], "*--lm-durations cannot be 'few'; it takes a whole number, 0 or more.*"),
        (["--lm-durations=-1"], "*--lm-durations cannot be '-1'; it takes a whole number, 0 or more.*"),
    ],
)
def test_bad_option_is_a_usage_error(suite, args, said):
    """A value that cannot be ends pytest with exit code 4 and names the valid ones."""
    suite.test(MARKED)
    result = suite.run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    result.stderr.no_fnmatch_line("*INTERNALERROR*")


def test_once_records_a_shared_cassette_in_one_run(suite):
    """A file that was not there when the run began is recorded by all tests that share it, and by no later run."""
    shared = """
        @pytest.mark.lm_cache(cassette="shared")
        @pytest.mark.parametrize("text", {texts})
        def test_one(text):
            ask(text)
    """
    suite.test(shared.format(texts=["one", "two", "one"]))
    suite.run("--lm-mode=once").assert_outcomes(passed=3)
    assert suite.asked() == 2
    suite.test(shared.format(texts=["one", "two", "three"]))
    suite.run("--lm-mode=once").assert_outcomes(passed=2, failed=1)
    assert suite.asked() == 0


def test_command_line_beats_marker_beats_ini(suite):
    """The nearest to the run's command wins: option, then marker, then ini, then replay."""
    suite.file("pytest.ini", "[pytest]\nlm_mode = live\n")
    suite.test("""
        @pytest.mark.lm_cache
        def test_ini(lm_cache):
            assert lm_cache.settings.mode == MODES["ini"]

        @pytest.mark.lm_cache(mode="once")
        def test_marker(lm_cache):
            assert lm_cache.settings.mode == MODES["marker"]
    """)
    suite.file(
        "conftest.py",
        """
        import pytest
        @pytest.fixture(autouse=True)
        def modes(request):
            mode = request.config.getoption("--lm-mode")
            request.module.MODES = {"ini": mode or "live", "marker": mode or "once"}
    """,
    )
    suite.run().assert_outcomes(passed=2)
    suite.run("--lm-mode=record").assert_outcomes(passed=2)
    suite.file("pytest.ini", "[pytest]\n")
    suite.run("-k", "ini").stdout.fnmatch_lines(["*'live'*"])


WAITS = """
import time
from pathlib import Path

def pytest_runtest_protocol(item):
    path = Path("cassettes/shared.yaml")
    while item.name == "test_later" and not (path.exists() and "said: first" in path.read_text()):
        time.sleep(0.05)
"""
SHARED = """
@pytest.mark.lm_cache(cassette="shared", mode="{mode}")
def test_{name}():
    ask("{name}")
"""


@pytest.mark.slow
def test_a_cassette_that_workers_share_is_new_for_all_of_them(suite):
    """In mode once a file that one worker has made in this run is still new for another, and written by both."""
    suite.file("conftest.py", WAITS)
    for name in ("first", "later"):
        suite.test(SHARED.format(name=name, mode="once"), name=f"test_{name}.py")
    for asked in (2, 0):
        done = suite.spawn("-n", "2", "--dist=loadfile")
        assert "2 passed" in done.stdout, done.stdout
        assert suite.asked() == asked


@pytest.mark.slow
def test_a_cassette_that_a_worker_adds_to_is_not_new(suite):
    """In mode once nothing is asked for a file that was there, though another worker has just written to it."""
    suite.test(SHARED.format(name="early", mode="record"))
    suite.record()
    suite.file("conftest.py", WAITS)
    for name, mode in (("first", "record"), ("later", "once")):
        suite.test(SHARED.format(name=name, mode=mode), name=f"test_{name}.py")
    suite.asked()
    done = suite.spawn("-n", "2", "--dist=loadfile", "test_first.py", "test_later.py")
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert suite.asked() == 1


@pytest.mark.slow
def test_live_calls_are_shown_as_in_other_modes(suite):
    """``lm_cache.calls`` of a live test has the redacted request and the answer; what has no key is no hindrance."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one(lm_cache):
            ask("hello", user="sk-proj-abcdefghijklmnopqrstuvwxyz0123456789")
            list(litellm.completion(messages=said("streamed"), stream=True, **SETTINGS))
            one, two = lm_cache.calls
            assert one.request["messages"] == said("hello")
            assert "abcdefghij" not in str(one.request)
            assert one.answer.data["choices"][0]["message"]["content"] == "You said: hello"
            assert two.request["stream"] and two.answer.data[0]["choices"][0]["delta"]
            if lm_cache.settings.mode == "live":
                with pytest.raises(litellm.APIConnectionError, match="Unsupported response_format"):
                    ask("hello", response_format=len)
                assert "response_format" in lm_cache.calls[2].request["unreadable"]
    """)
    for mode in ("live", "record", "replay"):
        suite.run(f"--lm-mode={mode}").assert_outcomes(passed=1)
