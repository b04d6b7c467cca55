"""``lm_usage``: the token counts of a replayed answer."""

import pytest

pytestmark = pytest.mark.usefixtures("default_layers")


def test_usage_by_ini(suite):
    """With ``lm_usage = empty`` a replayed answer tells of no tokens, and the summary of those saved."""
    suite.file("pytest.ini", "[pytest]\nlm_usage = empty\n")
    suite.test("""
        @pytest.mark.lm_cache
        def test_one(lm_cache):
            answer = litellm.completion(messages=said("hello"), **SETTINGS)
            live = lm_cache.calls[0].source == "provider"
            assert (answer.usage.total_tokens > 0) is live
    """)
    suite.record()
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["saved 1? tokens, $0.00000*"])
