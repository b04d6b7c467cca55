"""``lm_enable_disk_cache``: whether answers are kept on disk."""

import pytest

pytestmark = pytest.mark.usefixtures("default_layers")


@pytest.mark.parametrize(("enabled", "asked"), [("true", 0), ("false", 1)])
def test_the_next_run(suite, enabled, asked):
    """A call without a cassette is answered in the next run too, or asked again if the layer is off."""
    suite.file("pytest.ini", f"[pytest]\nlm_enable_disk_cache = {enabled}\n")
    suite.test("""
        @pytest.mark.lm_cache(cassette=None)
        def test_one():
            ask()
    """)
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 1
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == asked
    assert bool([*suite.folder.rglob("cache.db")]) is (enabled == "true")
