"""``samples``: several recorded answers to one prompt, which a test sees one by one or in turn."""

import pytest

RUNS = """
    @pytest.mark.lm_cache(samples=3)
    def test_one(lm_cache):
        answer = ask("again")
        assert answer == f"answer {lm_cache.sample}"
"""


def cassettes(suite):
    return sorted(path.name for path in (suite.folder / "cassettes/test_it").iterdir())


def test_a_test_runs_once_for_each_sample(numbered):
    """Recording asks once for each sample, which has its own test id and cassette, and replays it."""
    numbered.test(RUNS)
    numbered.record().assert_outcomes(passed=3)
    assert numbered.asked() == 3
    assert cassettes(numbered) == [f"test_one[sample-{number}].yaml" for number in (1, 2, 3)]
    result = numbered.run("-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines([f"*test_it.py::test_one?sample-{number}? PASSED*" for number in (1, 2, 3)])
    numbered.run("-k", "sample-2").assert_outcomes(passed=1, deselected=2)
    assert numbered.asked() == 0


def test_layers_keep_each_sample_its_answer(numbered, default_layers):
    """A run after a failed one takes the same answer for each sample, also if answers are shared between tests."""
    numbered.file("pytest.ini", "[pytest]\nlm_share = true\n")
    numbered.test(RUNS + "        assert lm_cache.settings.share\n")  # it fails, since samples are not shared
    numbered.run("--lm-record").assert_outcomes(failed=3)
    numbered.test(RUNS)
    numbered.record().assert_outcomes(passed=3)
    assert numbered.asked() == 3


def test_several_calls_with_each_sample(numbered):
    """Each sample is a run of its own: later prompts may hold earlier answers."""
    numbered.test(
        """
        @pytest.mark.lm_cache(samples=2)
        @pytest.mark.parametrize("word", ["a", "b"])
        def test_chat(word):
            first = ask(word)
            assert ask(f"You said {first}").startswith("answer")
        """
    )
    numbered.record().assert_outcomes(passed=4)
    assert numbered.asked() == 8
    assert cassettes(numbered) == [f"test_chat[{word}-sample-{n}].yaml" for word in "ab" for n in (1, 2)]
    numbered.run().assert_outcomes(passed=4)


def test_more_samples_than_recorded(numbered):
    """A sample that is not recorded misses, and the message records it."""
    numbered.test(RUNS)
    numbered.record()
    numbered.test(RUNS.replace("samples=3", "samples=4"))
    result = numbered.run()
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(['*pytest --lm-record "test_it.py::test_one?sample-4?"*'])


def test_on_a_class(numbered):
    """The marker of a class or a module is for each of its tests; the nearest one wins."""
    numbered.test(
        """
        @pytest.mark.lm_cache(samples=2)
        class TestAll:
            def test_one(self):
                assert ask("one")

            @pytest.mark.lm_cache(samples=None)
            def test_two(self):
                assert ask("two")
        """
    )
    numbered.record().assert_outcomes(passed=3)


@pytest.mark.slow
def test_with_xdist(numbered):
    """Workers record samples at the same time."""
    numbered.test(RUNS.replace('f"answer {lm_cache.sample}"', "answer"))
    result = numbered.spawn("--lm-record", "-n", "2")
    assert "3 passed" in str(result.stdout)
    numbered.run().assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("samples=0", "takes a whole number, 1 or more, or None"),
        ("samples=True", "takes a whole number, 1 or more, or None"),
        ("samples=2, cassette='x'", "cannot be combined with cassette="),
        ("samples=2, cassette=None", "cannot be combined with cassette="),
        ("in_turn=True", "Add their number: samples=5"),
    ],
)
def test_what_cannot_be(suite, marker, words):
    """A marker that makes no sense is an error before any test runs."""
    suite.test(f"@pytest.mark.lm_cache({marker})\ndef test_one():\n    pass\n")
    result = suite.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*{words}*"])


def test_a_test_that_cannot_be_parametrized(suite):
    """A unittest.TestCase runs once, so samples on it are an error."""
    suite.test(
        """
        import unittest

        @pytest.mark.lm_cache(samples=2)
        class TestIt(unittest.TestCase):
            def test_one(self):
                pass
        """
    )
    result = suite.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*pytest cannot parametrize this one*"])
