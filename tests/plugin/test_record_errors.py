"""``lm_record_errors``: which of a provider's errors are recorded."""

from helpers import summary_lines
from provider import Reply


def test_transient_error_is_not_recorded(suite, loopback):
    """A test that lived with a transient error is told that it was not recorded, and how to keep such errors."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            with pytest.raises(litellm.RateLimitError):
                ask()
            ask()
    """)
    loopback.script(Reply(failure="rate_limit"))
    lines = summary_lines(suite.record())
    assert lines[0] == "0 replayed, 1 recorded, 1 live and not recorded"
    assert lines[-2:] == [
        "not recorded, may miss on replay (lm_record_errors = all keeps a provider's errors):",
        "  test_it.py::test_one (completion() failed with RateLimitError)",
    ]
