"""Parameters that only repeat a test: all its runs share one cassette, and one command."""

import pytest

# As pytest-repeat 0.9 does.
REPEAT = """
import pytest

@pytest.fixture
def __pytest_repeat_step_number(request):
    return request.param

@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc):
    metafunc.fixturenames.append("__pytest_repeat_step_number")
    metafunc.parametrize(
        "__pytest_repeat_step_number", range(3), indirect=True, ids=lambda i: f"{i + 1}-3", scope="function"
    )
"""
# As pytest-flakefinder 1.1 does.
FLAKES = """
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    name = f"__flakefinder_{metafunc.function.__name__}"
    metafunc.fixturenames.append(name)
    metafunc.parametrize(argnames=name, argvalues=list(range(3)))
"""
TESTS = """
@pytest.fixture(params=["x", "y"])
def taken(request):
    return request.param

@pytest.mark.lm_cache
def test_one():
    ask("one")

class TestIt:
    @pytest.mark.lm_cache
    @pytest.mark.parametrize(("word", "other"), [("a-1", "b"), ("c", "d")])
    def test_two(self, taken, word, other):
        ask(f"two {taken} {word}")
"""
CASSETTES = [
    "test_it/TestIt.test_two%5Bx-a-1-b%5D.yaml",
    "test_it/TestIt.test_two%5Bx-c-d%5D.yaml",
    "test_it/TestIt.test_two%5By-a-1-b%5D.yaml",
    "test_it/TestIt.test_two%5By-c-d%5D.yaml",
    "test_it/test_one.yaml",
]


@pytest.mark.slow
@pytest.mark.parametrize("repeats", [REPEAT, FLAKES], ids=["pytest-repeat", "pytest-flakefinder"])
def test_repetitions_share_a_cassette(suite, repeats):
    """A repeated test replays what it recorded without, misses once for all, and records once for all."""
    suite.test(TESTS)
    suite.record()
    recorded = suite.cassettes()
    assert [name.replace("[", "%5B").replace("]", "%5D") for name in recorded] == CASSETTES
    suite.asked()
    suite.file("conftest.py", repeats)
    suite.run().assert_outcomes(passed=15)
    assert suite.asked() == 0
    for name in recorded:
        (suite.folder / "cassettes" / name).unlink()
    suite.run("-k", "test_one").stdout.fnmatch_lines(
        ['*Record it:  pytest --lm-record "test_it.py::test_one"']
    )
    suite.record()
    assert suite.asked() == 5
    assert suite.cassettes() == recorded


def test_parameters_of_a_test_stay(suite):
    """A parameter that a test takes by ``usefixtures`` or through a fixture tells its cassettes apart."""
    suite.test("""
        @pytest.fixture
        def used(request):
            return request.param

        @pytest.mark.lm_cache
        @pytest.mark.usefixtures("used")
        @pytest.mark.parametrize("used", [1, 2], indirect=True)
        def test_one(request):
            ask(request.node.name)
    """)
    suite.record()
    assert len(suite.cassettes()) == 2


@pytest.mark.slow
def test_groups_of_xdist(suite):
    """The command for a test that pytest-xdist groups is one that pytest knows."""
    suite.test("""
        @pytest.mark.xdist_group("slow")
        @pytest.mark.lm_cache
        def test_one():
            ask()
    """)
    result = suite.spawn("-n", "1", "--dist=loadgroup")
    assert 'Record it:  pytest --lm-record "test_it.py::test_one"' in result.stdout
