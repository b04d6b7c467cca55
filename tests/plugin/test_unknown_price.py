"""``lm_unknown_price``: what a call of a model without a known price takes from the budget."""

from helpers import configure, summary_lines

from pytest_lmcache.plugin.budget import BUDGET_SPENT

TESTS = """
import pytest
SETTINGS["model"] = "openai/nobody-knows"
pytestmark = pytest.mark.lm_cache

@pytest.mark.parametrize("n", range(3))
def test_one(n):
    ask(f"{n}")
"""


def test_calls_without_a_price_are_told(suite):
    """Without the setting they take nothing from the budget, and the summary says how many there are."""
    suite.test(TESTS)
    result = suite.record("--lm-budget=1")
    assert suite.asked() == 3
    assert summary_lines(result)[-2:] == [
        "budget: $0 of $1.00 spent",
        (
            "the budget does not count 3 calls without a known price (set lm_unknown_price, in USD): "
            "openai/nobody-knows (3)"
        ),
    ]


def test_calls_without_a_price_count(suite):
    """With the setting each takes that many USD."""
    configure(suite, "toml", lm_unknown_price=0.6)
    suite.test(TESTS)
    result = suite.run("--lm-record", "--lm-budget=1")
    assert (result.ret, suite.asked()) == (BUDGET_SPENT, 2)
    assert "budget: $1.20 of $1.00 spent" in summary_lines(result)


def test_a_call_that_fails_takes_nothing(suite):
    """An error is not paid for."""
    configure(suite, "ini", lm_unknown_price="0.6")
    suite.test(
        """
        SETTINGS["model"] = "openai/nobody-knows"

        @pytest.mark.lm_cache
        def test_one():
            for _ in range(3):
                with pytest.raises(litellm.BadRequestError):
                    ask("x", api_base="http://127.0.0.1:9/v1")
    """.replace("litellm.BadRequestError", "Exception")
    )
    result = suite.run("--lm-record", "--lm-budget=1")
    assert result.ret == 0
    assert not [line for line in summary_lines(result) if "budget" in line]


def test_a_price_that_is_no_amount(suite):
    """A wrong value is told before any test runs."""
    configure(suite, "toml", lm_unknown_price=-1.0)
    suite.test("def test_one():\n    pass\n")
    result = suite.run()
    result.stderr.fnmatch_lines(["*lm_unknown_price cannot be -1.0; it takes a number of USD, 0 or more*"])
