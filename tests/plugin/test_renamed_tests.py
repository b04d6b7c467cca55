"""A test that was renamed, moved or re-parametrised: its miss names the recordings that it had, and moves them."""

import pytest
from helpers import summary_lines

TWO = """
pytestmark = pytest.mark.lm_cache

def test_one():
    ask("one")

class TestAll:
    @pytest.mark.parametrize("n", ["a", "b"])
    def test_two(self, n):
        ask(f"two {n}")
"""


def moves(result):
    return [
        line.removeprefix("Move:       pytest-lmcache move ")
        for line in summary_lines(result)
        if line.startswith("Move:")
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("test_one", "test_first", '"test_it.py::test_one" "test_it.py::test_first"'),
        ("TestAll", "TestEach", '"test_it.py::TestAll" "test_it.py::TestEach"'),
        ("test_two", "test_second", '"test_it.py::TestAll::test_two" "test_it.py::TestAll::test_second"'),
        (
            '["a", "b"]',
            '["a", "b"], ids=["x", "b"]',
            '"test_it.py::TestAll::test_two[a]" "test_it.py::TestAll::test_two[x]"',
        ),
    ],
    ids=["function", "class", "method", "parameter"],
)
def test_a_renamed_test_is_recognised(suite, old, new, told):
    """One command moves all recordings of what was renamed, and nothing is said to be recorded anew."""
    suite.test(TWO)
    suite.record()
    suite.test(TWO.replace(old, new))
    result = suite.run()
    assert moves(result) == [told]
    assert not [line for line in summary_lines(result) if line.startswith("Record:")]
    result.stdout.fnmatch_lines(
        [
            "E*Found      cassettes/test_it/*.yaml, the cassette of test_it.py::*",
            "E*Move them:  pytest-lmcache move *",
        ]
    )


@pytest.mark.parametrize("cassette_dir", ["cassettes", "{test_dir}/cassettes"])
def test_a_moved_file_is_one_command(suite, cassette_dir):
    """A file that was moved is named once, not test by test."""
    suite.file("pytest.ini", f"[pytest]\npythonpath = .\nlm_cassette_dir = {cassette_dir}\n")
    suite.test(TWO, name="tests/test_it.py")
    suite.record()
    (suite.folder / "tests/test_it.py").unlink()
    suite.test(TWO, name="tests/unit/test_that.py")
    result = suite.run()
    result.assert_outcomes(failed=3)
    assert moves(result) == ['"tests/test_it.py" "tests/unit/test_that.py"']
    told = "recorded under another name: tests/test_it.py is now tests/unit/test_that.py, 3 calls in 3 tests"
    assert told in summary_lines(result)


def test_a_test_that_is_still_there_keeps_its_recordings(suite):
    """A copy of a test, with the same call, is recorded; the first one's recordings are not offered, also if it is not run."""
    suite.test(TWO)
    suite.record()
    suite.test(TWO, name="test_copy.py")
    for selection in ((), ("test_copy.py",), ("-k", "test_copy")):
        result = suite.run(*selection)
        assert moves(result) == []
        assert "never recorded, 3 calls in 3 tests" in summary_lines(result)


def test_other_recordings_are_not_offered(suite):
    """A renamed test whose question changed too is recorded anew; so is one beside a broken file."""
    suite.test(TWO)
    suite.record()
    suite.file("cassettes/notes.yaml", "# pytest-lmcache cassette of gone.py::test_gone\nnothing")
    suite.test(TWO.replace("def test_one", "def test_first").replace('"one"', '"first"'))
    result = suite.run()
    assert moves(result) == []
    assert "never recorded, 1 call in 1 test" in summary_lines(result)


@pytest.mark.slow
def test_workers_recognise_renamed_tests(suite):
    """With xdist too."""
    suite.test(TWO)
    suite.record()
    suite.test(TWO.replace("TestAll", "TestEach"))
    assert moves(suite.run("-n", "2")) == ['"test_it.py::TestAll" "test_it.py::TestEach"']
