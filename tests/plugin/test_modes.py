"""The options and what each mode does: design.md's table, and who wins."""

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


def test_recorded_once_then_replayed(suite):
    """``--lm-record`` asks the provider and writes the cassette; without it nothing is asked any more."""
    suite.test(MARKED)
    suite.record().stdout.fnmatch_lines(["lmcache: mode record", "*1 recorded*"])
    assert suite.asked() == 1
    assert suite.cassettes() == ["test_it/test_one.yaml"]
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 replayed"])
    assert suite.asked() == 0


@pytest.mark.parametrize(
    ("mode", "without", "found", "missing"),
    [
        ("replay", 0, 0, 0),
        ("once", 2, 0, 0),
        ("record", 2, 0, 1),
        ("rewrite", 2, 1, 2),
        ("live", 2, 1, 2),
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


def test_failing_test_writes_nothing(suite):
    """An answer is recorded when the test has passed, not before."""
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    assert ask() == 'something else'\n")
    suite.run("--lm-record").assert_outcomes(failed=1)
    assert suite.cassettes() == []


def test_failing_teardown_writes_nothing(suite):
    """A fixture of the test that fails after it counts as the test's own failure."""
    suite.test("""
        @pytest.fixture
        def broken():
            yield
            raise RuntimeError("broken")

        @pytest.mark.lm_cache
        def test_one(broken):
            ask()
    """)
    suite.run("--lm-record").assert_outcomes(passed=1, errors=1)
    assert suite.cassettes() == []


def test_bare_flag_takes_no_value(suite):
    """``pytest --lm-record tests/`` records tests/ and does not read it as a value."""
    suite.test(MARKED, name="tests/test_it.py")
    suite.file(
        "tests/conftest.py", "import sys, pathlib\nsys.path.insert(0, str(pathlib.Path(__file__).parents[1]))"
    )
    for flag in ("--lm-record", "--lm-rewrite"):
        suite.run(flag, "tests/").assert_outcomes(passed=1)
    assert suite.cassettes() == ["tests/test_it/test_one.yaml"]
    assert suite.asked() == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--lm-mode=reply"],
            "*--lm-mode cannot be 'reply'; it takes one of: replay, once, record, rewrite, live.",
        ),
        (["--lm-mode="], "*--lm-mode cannot be ''; it takes one of: *"),
        (["--lm-record", "--lm-rewrite"], "*--lm-record and --lm-rewrite exclude each other*"),
        (["--lm-record", "--lm-mode=live"], "*--lm-record and --lm-mode exclude each other*"),
        (["--lm-durations=few"], "*--lm-durations cannot be 'few'; it takes a number from 0.*"),
        (["--lm-durations=-1"], "*--lm-durations cannot be '-1'; it takes a number from 0.*"),
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


def test_rewrite_replaces_what_changed(suite, loopback):
    """``--lm-rewrite`` asks again, replaces the recordings, and drops those that no call asks for."""
    suite.test(TWO)
    suite.record()
    suite.test(MARKED)
    suite.run("--lm-rewrite").assert_outcomes(passed=1)
    text = (suite.folder / "cassettes/test_it/test_one.yaml").read_text()
    assert "one" in text
    assert "two" not in text


@pytest.mark.parametrize(
    "how", ["skip", "xfail_not_run", "setup_only", "broken_fixture", "deselected", "xfails"]
)
def test_rewrite_leaves_what_did_not_run(suite, how):
    """A test that does not get to its calls keeps its recordings, also under ``--lm-rewrite``."""
    suite.test(MARKED)
    suite.record()
    path = suite.folder / "cassettes/test_it/test_one.yaml"
    before = path.read_bytes()
    marks = {
        "skip": "@pytest.mark.skip",
        "xfail_not_run": "@pytest.mark.xfail(run=False)",
        "broken_fixture": "@pytest.mark.usefixtures('missing')",
    }
    xfails = """
        @pytest.mark.lm_cache
        def test_one():
            pytest.xfail("not here")
            ask("one")
    """
    suite.test(xfails if how == "xfails" else marks.get(how, "") + MARKED)
    args = {"setup_only": ["--setup-only"], "deselected": ["-k", "nothing"]}
    suite.run("--lm-rewrite", *args.get(how, []))
    assert path.read_bytes() == before
    assert suite.asked() == 1


def test_a_rewrite_of_an_expected_failure_keeps_nothing_old(suite):
    """A test that fails after its calls, as expected, is rewritten like any other."""
    for prompt in ("old", "new"):
        suite.test(f"""
            @pytest.mark.xfail
            @pytest.mark.lm_cache
            def test_one():
                assert ask("{prompt}") == ""
        """)
        suite.run("--lm-rewrite").assert_outcomes(xfailed=1)
    text = (suite.folder / "cassettes/test_it/test_one.yaml").read_text()
    assert "said: new" in text
    assert "said: old" not in text


@pytest.mark.parametrize("mode", ["--lm-rewrite", "--lm-record"])
def test_a_plan_touches_nothing(suite, mode):
    """``--setup-plan`` runs no fixture, so it knows of no recording that is not used."""
    suite.test("""
        @pytest.fixture(scope="module")
        def answer():
            return ask()

        @pytest.mark.lm_cache
        def test_one(answer):
            pass
    """)
    suite.record()
    before = suite.cassettes()
    assert before
    suite.run("--setup-plan", mode).stdout.no_fnmatch_line("*unused*")
    assert suite.cassettes() == before


def test_a_removed_cassette_is_told(suite):
    """A rewrite in which a test asks nothing removes its file, and says so."""
    suite.test(MARKED)
    suite.record()
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    pass\n")
    suite.run("--lm-rewrite").stdout.fnmatch_lines(
        ["0 replayed", "1 cassette removed because its test made no calls:", "  cassettes*test_one.yaml"]
    )
    assert suite.cassettes() == []


def test_expected_failure_is_recorded(suite):
    """A test that fails as its xfail mark expects is replayed like any other, and does not fail by a miss."""
    suite.test("""
        @pytest.mark.xfail(raises=AssertionError, strict=True)
        @pytest.mark.lm_cache
        def test_one():
            assert ask() == "something else"
    """)
    suite.run("--lm-record").assert_outcomes(xfailed=1)
    suite.asked()
    suite.run().assert_outcomes(xfailed=1)
    assert suite.asked() == 0


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


def test_a_cassette_that_workers_share_is_new_for_all_of_them(suite):
    """In mode once a file that one worker has made in this run is still new for another, and written by both."""
    suite.file("conftest.py", WAITS)
    for name in ("first", "later"):
        suite.test(SHARED.format(name=name, mode="once"), name=f"test_{name}.py")
    for asked in (2, 0):
        done = suite.spawn("-n", "2", "--dist=loadfile")
        assert "2 passed" in done.stdout, done.stdout
        assert suite.asked() == asked


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
