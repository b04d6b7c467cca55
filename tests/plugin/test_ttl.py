"""``lm_ttl``: how long the layers keep an answer."""

import time

import pytest

pytestmark = pytest.mark.usefixtures("default_layers")


@pytest.mark.parametrize(("ttl", "asked"), [("3600", 0), ("0.05", 1)])
def test_an_answer_that_is_too_old(suite, ttl, asked):
    """A call without a cassette is asked again once its answer in the layers is older than the setting."""
    suite.file("pytest.ini", f"[pytest]\nlm_ttl = {ttl}\n")
    suite.test("""
        @pytest.mark.lm_cache(cassette=None)
        def test_one():
            ask()
    """)
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 1
    time.sleep(0.1)
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == asked
