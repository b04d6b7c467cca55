"""``cache=`` of a mark, and settings of the layers in a mark."""

import pytest

pytestmark = pytest.mark.usefixtures("default_layers")


def test_marker_names_the_cache(suite):
    """A mark gives one test a cache of its own, or other layers."""
    suite.test("""
        from pytest_lmcache import Cache

        OWN = Cache(enable_disk_cache=False)

        @pytest.mark.lm_cache(cassette=None, cache=OWN)
        def test_own():
            ask()
            assert OWN.stats()["memory"].puts == 1

        @pytest.mark.lm_cache(cassette=None, enable_disk_cache=False)
        def test_memory():
            ask()

        @pytest.mark.lm_cache(cassette=None, ttl=-5)
        def test_bad():
            ask()
    """)
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_bad: @pytest.mark.lm_cache: ttl cannot be *"])
    suite.run("-k", "not bad").assert_outcomes(passed=2)
    assert not (suite.folder / ".pytest_cache").exists()
