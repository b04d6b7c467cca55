"""``cassette=`` of a mark: a name that tests share, or None for no file."""

import pytest


def test_named_cassette_is_shared(suite):
    """Tests that name one cassette record into it and replay from it, in any order, alone or together."""
    suite.test("""
        pytestmark = pytest.mark.lm_cache(cassette="shared/one.yaml")
        def test_a():
            ask("a")
            ask("both")
        def test_b():
            ask("b")
            ask("both")
    """)
    suite.record()
    assert suite.cassettes() == ["shared/one.yaml"]
    assert suite.asked() == 3
    for args in ((), ("-k", "test_b"), ("test_it.py::test_b", "test_it.py::test_a")):
        result = suite.run(*args)
        assert result.ret == 0
        result.stdout.no_fnmatch_line("*unused*")
    assert suite.asked() == 0


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/out"])
def test_named_cassette_stays_inside(suite, name):
    """A cassette's name cannot lead out of the cassette folder, which is told before any test runs."""
    suite.test(f"@pytest.mark.lm_cache(cassette={name!r})\ndef test_one():\n    ask()\n")
    result = suite.run("--lm-record")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it.py::test_one: *would be outside the cassette folder*"])
    assert suite.asked() == 0


@pytest.mark.usefixtures("default_layers")
def test_without_a_cassette(suite):
    """A test with ``cassette=None`` is answered by the layers, asks what they do not have, and writes no file."""
    suite.test("""
        @pytest.mark.lm_cache(cassette=None)
        @pytest.mark.parametrize("number", [1, 2])
        def test_one(number, lm_cache):
            ask()
            assert lm_cache.calls[0].source == ("provider" if number == 1 else "memory")
    """)
    result = suite.run()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["0 replayed, 1 from memory, 1 asked and only cached"])
    assert suite.asked() == 1
    assert suite.cassettes() == []
    suite.run("--lm-mode=replay", "-k", "2").assert_outcomes(passed=0, failed=1)
