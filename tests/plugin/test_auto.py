"""``lm_auto``: tests without a mark are recorded and replayed."""

import pytest
from helpers import configure

AUTO = """
def test_one():
    assert ask("one") == "You said: one"
"""


@pytest.mark.parametrize("kind", ["toml", "ini"])
def test_auto_records_unmarked_tests(suite, kind):
    """With ``lm_auto`` a test needs no mark."""
    configure(suite, kind, lm_auto=True if kind == "toml" else "true")
    suite.test(AUTO)
    suite.record()
    assert suite.cassettes() == ["test_it/test_one.yaml"]
    suite.asked()
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 0
