"""The mark ``lm_budget``: a test fails if its recorded calls cost more."""

import pytest

TWO = """
    {mark}
    def test_two(lm_cache):
        ask("one")
        ask("two")
"""


def recorded(suite, mark):
    """A suite of one test with two calls and a mark, which was recorded without the mark."""
    suite.test(TWO.format(mark=""))
    suite.record()
    suite.test(TWO.format(mark=mark))


@pytest.mark.parametrize(
    "limits", ["calls=2", "tokens=1000, usd=0.1", "calls=5, tokens=5000", "usd=1"], ids=str
)
def test_within(suite, limits):
    """A test passes whose calls cost no more."""
    recorded(suite, f"@pytest.mark.lm_budget({limits})")
    suite.run().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ("calls=1", "The test made 2 calls; lm_budget allows 1."),
        ("tokens=10", "Its calls took ?? tokens; lm_budget allows 10."),
        ("usd=0.000001", "Its calls cost $*; lm_budget allows $1e-06."),
        ("calls=0", "The test made 2 calls; lm_budget allows 0."),
    ],
)
def test_exceeded(suite, limits, expected):
    """A test fails whose calls cost more, and its failure lists the calls with tokens and USD."""
    recorded(suite, f"@pytest.mark.lm_budget({limits})")
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([expected, "  calls[[]1] *two>, * tokens, $*"])


def test_a_prompt_that_grows_while_recording(suite):
    """A test that grows over its budget while it is recorded fails, and its cassette does not change."""
    recorded(suite, "@pytest.mark.lm_budget(calls=2)")
    cassette = suite.folder / "cassettes/test_it/test_two.yaml"
    before = cassette.read_bytes()
    suite.test(TWO.format(mark="@pytest.mark.lm_budget(calls=2)") + "        ask('three')\n")
    suite.run("--lm-record").assert_outcomes(failed=1)
    assert cassette.read_bytes() == before


def test_the_nearest_mark_wins(suite):
    """Marks of a class and of a test add up; for the same limit the test's own counts."""
    suite.test("""
        @pytest.mark.lm_cache
        @pytest.mark.lm_budget(calls=1, tokens=1)
        class TestAll:
            @pytest.mark.lm_budget(tokens=1000)
            def test_one(self):
                ask("one")

            @pytest.mark.lm_budget(tokens=1000)
            def test_two(self):
                ask("one")
                ask("two")
    """)
    result = suite.run("--lm-mode=live")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["The test made 2 calls; lm_budget allows 1."])


def test_under_lm_auto(suite):
    """Under lm_auto the mark needs no other."""
    suite.file("pytest.ini", "[pytest]\nlm_auto = true\n")
    suite.test("""
        @pytest.mark.lm_budget(calls=0)
        def test_one():
            ask("one")
    """)
    suite.run("--lm-record").assert_outcomes(failed=1)


def test_a_price_that_is_not_known(suite):
    """A limit in USD fails a test with a call that has no known price."""
    suite.test("""
        @pytest.mark.lm_cache
        @pytest.mark.lm_budget(usd=1)
        def test_one():
            ask("one", model="openai/unheard-of")
    """)
    result = suite.run("--lm-mode=live")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["lm_budget cannot tell whether the calls cost more than $1: *openai/unheard-of*"]
    )


@pytest.mark.parametrize(
    ("mark", "expected"),
    [
        (
            "lm_budget(3)",
            "*test_two: @pytest.mark.lm_budget takes calls, tokens and usd, by name, such as calls=3.",
        ),
        ("lm_budget", "*@pytest.mark.lm_budget takes calls, tokens and usd, by name, such as calls=3."),
        ("lm_budget(dollars=3)", "*@pytest.mark.lm_budget takes calls, tokens and usd, by name*"),
        ("lm_budget(calls=1.5)", "*lm_budget: calls cannot be 1.5; it takes a whole number, 0 or more."),
        ("lm_budget(usd='1')", "*lm_budget: usd cannot be '1'; it takes an amount in USD, 0 or more."),
        ("lm_budget(tokens=-1)", "*lm_budget: tokens cannot be -1; it takes a whole number, 0 or more."),
        ("lm_budget(calls=True)", "*lm_budget: calls cannot be True; it takes a whole number, 0 or more."),
    ],
)
def test_an_invalid_mark(suite, mark, expected):
    """An invalid mark is a usage error before any test runs."""
    suite.test(TWO.format(mark=f"@pytest.mark.{mark}"))
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {expected}"])


def test_a_test_that_is_not_recorded(suite):
    """The mark on a test that is not recorded is a usage error: it would count nothing."""
    suite.test("""
        @pytest.mark.lm_budget(calls=1)
        def test_one():
            ask("one")
    """)
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: *counts the calls of recorded tests only. Add @pytest.mark.lm_cache*"]
    )
