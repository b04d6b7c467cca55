"""``seed``: a test draws the same random numbers each time, and leaves those of others alone."""

import random

import pytest
from helpers import ALONE, NO_LAYERS, configure

from pytest_lmcache import SettingsError, use_cassette

NUMBERS = """
    import random, unittest

    @pytest.fixture
    def drawn():
        return random.random()

    @pytest.fixture(scope="module")
    def shared():
        return random.random()

    @pytest.mark.lm_cache(seed=7)
    def test_one(drawn):
        print("one", drawn, random.random())
        ask(f"{random.random()}")

    @pytest.mark.lm_cache(seed=7)
    def test_two(shared, drawn):
        print("two", drawn, random.random())

    @pytest.mark.lm_cache(seed=7)
    class TestCase(unittest.TestCase):
        def test_three(self):
            print("three", random.random(), random.random())
"""


def drawn(result):
    """The numbers that each test printed."""
    found = {}
    for line in result.outlines:
        words = line.removeprefix("test_it.py ").lstrip(".").split()
        if words and words[0] in {"one", "two", "three"}:
            found[words[0]] = words[1:3]
    return found


@pytest.mark.parametrize("plugins", ["alone", "randomly"])
def test_a_test_draws_the_same_numbers(suite, plugins):
    """Each run gives the same numbers to the fixtures and the test, alone or in any order, with pytest-randomly too."""
    suite.test(NUMBERS)
    if plugins == "randomly":
        suite.options = tuple(each for number, each in enumerate((*ALONE, *NO_LAYERS)) if number > 1)
    first = drawn(suite.record("-s"))
    random.seed(7)
    expected = [str(random.random()), str(random.random())]
    assert first == dict.fromkeys(("one", "two", "three"), expected)
    result = suite.run("-s")
    result.assert_outcomes(passed=3)
    assert drawn(result) == first
    assert drawn(suite.run("-s", "-k", "two")) == {"two": expected}


def test_the_state_is_restored(tmp_path):
    """After a block the generator goes on as if the block had drawn nothing."""
    random.seed(1)
    expected = [random.random(), random.random()]
    random.seed(1)
    first = random.random()
    with use_cassette(tmp_path / "x.yaml", seed=3):
        inside = random.random()
    assert [first, random.random()] == expected
    assert inside == random.Random(3).random()


def test_other_tests_are_left_alone(suite):
    """A shared fixture does not draw the test's numbers, and what follows the test goes on as before it."""
    suite.test(
        """
        import random

        @pytest.fixture(scope="module")
        def shared():
            return random.random()

        def test_first():
            random.seed(1)

        @pytest.mark.lm_cache(seed=7)
        def test_seeded(request):
            own = random.Random(7)
            assert random.random() == own.random()
            assert request.getfixturevalue("shared") == random.Random(1).random()
            assert random.random() == own.random()

        def test_last():
            again = random.Random(1)
            again.random()
            assert random.random() == again.random()
        """
    )
    suite.run().assert_outcomes(passed=3)


def test_numpy(suite):
    """numpy's global generator is seeded too if it has been imported, and restored."""
    pytest.importorskip("numpy")
    configure(suite, "classic", lm_seed="5")
    suite.test(
        """
        import numpy

        def test_first():
            numpy.random.seed(1)

        @pytest.mark.lm_cache
        def test_seeded():
            assert numpy.random.random() == numpy.random.RandomState(5).random_sample()

        def test_last():
            assert numpy.random.random() == numpy.random.RandomState(1).random_sample()
        """
    )
    suite.run().assert_outcomes(passed=3)


def test_under_auto(suite):
    """Under ``lm_auto`` the ini key seeds every test."""
    configure(suite, "toml", lm_auto=True, lm_seed=11)
    suite.test(
        """
        import random

        def test_seeded():
            assert random.random() == random.Random(11).random()
        """
    )
    suite.run().assert_outcomes(passed=1)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "x", True])
def test_what_is_no_seed(seed):
    """A seed that numpy would refuse is refused at once."""
    with pytest.raises(SettingsError, match="a whole number from 0 to 4294967295"):
        use_cassette("x.yaml", seed=seed)
