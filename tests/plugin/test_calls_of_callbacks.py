"""Calls that a callback of LiteLLM's makes while another call is recorded are the test's own."""

import pytest
from provider import Reply

pytestmark = pytest.mark.slow

TEXT = """
import threading
from litellm.integrations.custom_logger import CustomLogger

LISTS = "input_callback", "success_callback", "failure_callback", "_async_success_callback", "_async_failure_callback"

class Asking(CustomLogger):
    def __init__(self):
        super().__init__()
        self.has_asked = threading.Event()

    def log_pre_api_call(self, model, messages, kwargs):
        if WHEN == "before" and messages[0]["content"] == "outer":
            ask("inner")
            self.has_asked.set()

    def log_success_event(self, kwargs, *_, **__):
        if WHEN in ("after", "after a stream") and kwargs["messages"][0]["content"] == "outer":
            ask("inner")
            self.has_asked.set()

    def log_failure_event(self, kwargs, *_, **__):
        if WHEN == "failure" and kwargs["messages"][0]["content"] == "outer":
            ask("inner")
            self.has_asked.set()

    async def async_log_success_event(self, kwargs, *_, **__):
        if WHEN == "after, async" and kwargs["messages"][0]["content"] == "outer":
            await aask("inner")
            self.has_asked.set()

def outer():
    if WHEN == "failure":
        with pytest.raises(litellm.BadRequestError):
            ask("outer")
    elif WHEN == "after a stream":
        assert list(litellm.completion(messages=said("outer"), stream=True, **SETTINGS))
    else:
        ask("outer")

@pytest.mark.lm_cache
def test_it(lm_cache, monkeypatch):
    asking = Asking()
    monkeypatch.setattr(litellm, "callbacks", [asking])
    for name in LISTS:  # LiteLLM adds it to these
        monkeypatch.setattr(litellm, name, [])
    if "async" in WHEN:
        async def go():
            await aask("outer")
            while not asking.has_asked.is_set():
                await asyncio.sleep(0.01)
        asyncio.run(asyncio.wait_for(go(), 20))
    else:
        outer()
        assert asking.has_asked.wait(20)
    assert len(lm_cache.calls) == 2
"""


@pytest.mark.parametrize("when", ["before", "after", "after, async", "failure", "after a stream"])
def test_recorded_and_replayed(suite, when):
    """Both calls are in the cassette, and neither is asked again."""
    if when == "failure":
        suite.provider.script(Reply(failure="invalid_request"))
    suite.test(f"WHEN = {when!r}\n{TEXT}")
    suite.record().assert_outcomes(passed=1)
    assert suite.asked() == 2
    result = suite.run()
    result.assert_outcomes(passed=1)
    assert suite.asked() == 0
    result.stdout.fnmatch_lines(["2 replayed"])
