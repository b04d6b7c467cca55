"""``lm_memory_max_entries``: how many answers the memory layer keeps."""

import pytest

pytestmark = pytest.mark.usefixtures("default_layers")


@pytest.mark.parametrize(("most", "asked"), [("1", 3), ("2", 2), ("inf", 2)])
def test_the_oldest_answer_goes(suite, most, asked):
    """An answer that the layer has no room for is asked again."""
    suite.file("pytest.ini", f"[pytest]\nlm_memory_max_entries = {most}\nlm_enable_disk_cache = false\n")
    suite.test("""
        @pytest.mark.lm_cache(cassette=None)
        @pytest.mark.parametrize("number", [1, 2, 3])
        def test_one(number):
            ask("even" if number == 2 else "odd")
    """)
    suite.run().assert_outcomes(passed=3)
    assert suite.asked() == asked
