"""``lm_disk_size_limit_bytes`` and ``lm_memory_max_entries`` take ``inf`` for no limit."""

import pytest

pytestmark = pytest.mark.usefixtures("default_layers")


@pytest.mark.parametrize("kind", ["toml", "ini"])
def test_no_limit(suite, kind):
    """``inf`` is no limit, in both kinds of configuration."""
    suite.file(f"pytest.{kind}", "[pytest]\nlm_memory_max_entries = inf\nlm_disk_size_limit_bytes = inf\n")
    suite.test("""
        import math, pytest_lmcache

        @pytest.mark.lm_cache
        def test_one():
            ask()
            settings = pytest_lmcache.cache._settings
            assert settings.memory_max_entries == settings.disk_size_limit_bytes == math.inf
    """)
    suite.record().assert_outcomes(passed=1)
    assert suite.asked() == 1
