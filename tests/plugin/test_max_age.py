"""``lm_max_age``: old recordings are named, and recorded again."""

import pytest

pytestmark = pytest.mark.usefixtures("default_layers")


def test_old_recordings_are_told(suite):
    """``lm_max_age``: replay replays what is older and names it; recording asks it again."""
    suite.file("pytest.ini", "[pytest]\nlm_max_age = 30d\nlm_enable_disk_cache = false\n")
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            ask()
    """)
    suite.record()
    path = suite.folder / "cassettes/test_it/test_one.yaml"
    head, _, tail = path.read_text().partition("\nrecorded: ")
    path.write_text(f"{head}\nrecorded: 2020-01-01T00:00:00Z{tail[20:]}")
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["1 recording older than lm_max_age (pytest --lm-record asks again):", "  test_it.py::test_one (1)"]
    )
    suite.asked()
    suite.record()
    assert suite.asked() == 1
    suite.run().stdout.no_fnmatch_line("*lm_max_age*")
