"""``lm_enable_memory_cache``: whether answers are kept in memory."""

import pytest

pytestmark = pytest.mark.usefixtures("default_layers")


@pytest.mark.parametrize(("enabled", "source"), [("true", "memory"), ("false", "disk")])
def test_which_layer_answers(suite, enabled, source):
    """The second of two identical calls without a cassette is answered from memory, or from disk if it is off."""
    suite.file("pytest.ini", f"[pytest]\nlm_enable_memory_cache = {enabled}\n")
    suite.test("""
        @pytest.mark.lm_cache(cassette=None)
        @pytest.mark.parametrize("number", [1, 2])
        def test_one(number):
            ask()
    """)
    suite.run().stdout.fnmatch_lines([f"0 replayed, 1 from {source}, 1 asked and only cached"])
    assert suite.asked() == 1
