"""Suites that run within this process."""

import gc

# Five seconds: once, before pytester notes which modules it may forget after each inner run.
import litellm  # noqa: F401
import pytest
from helpers import ALONE


@pytest.fixture(scope="session", autouse=True)
def frozen():
    """pytest collects garbage five times after each inner run: not among all of LiteLLM, that takes most of it."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def default_layers(suite):
    """The suite has the layers that there are by default."""
    suite.options = ALONE


@pytest.fixture
def numbered(suite, monkeypatch):
    """The provider numbers its answers to identical requests."""
    numbers = {}

    def answer(request):
        numbers[request.prompt] = numbers.get(request.prompt, 0) + 1
        return f"answer {numbers[request.prompt]}"

    monkeypatch.setattr(suite.provider, "answer", answer)
    return suite
