"""``--lm-record``: what it asks and writes, and when it writes nothing."""

import pytest

MARKED = """
@pytest.mark.lm_cache
def test_one():
    assert ask("one") == "You said: one"
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


SKIPS = {
    "in the test": """
        @pytest.mark.lm_cache
        def test_it():
            ask()
            pytest.skip("enough")
    """,
    "in a fixture": """
        @pytest.fixture
        def asked():
            ask()
            pytest.skip("enough")

        @pytest.mark.lm_cache
        def test_it(asked):
            pass
    """,
    "in unittest": """
        import unittest

        @pytest.mark.lm_cache
        class TestIt(unittest.TestCase):
            def test_it(self):
                ask()
                self.skipTest("enough")
    """,
}


@pytest.mark.slow
@pytest.mark.parametrize("where", SKIPS)
def test_a_test_that_skips_itself_is_recorded(suite, where):
    """What a test asked before it skipped itself replays; a rewrite leaves what it does not ask."""
    suite.test(SKIPS[where])
    suite.run("--lm-record").assert_outcomes(skipped=1)
    [name] = suite.cassettes()
    text = (suite.folder / "cassettes" / name).read_text()
    suite.asked()
    suite.run().assert_outcomes(skipped=1)
    assert suite.asked() == 0
    result = suite.run("--lm-rewrite")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*, 1 recorded"])
    assert (suite.folder / "cassettes" / name).read_text() == text
    assert suite.asked() == 1
