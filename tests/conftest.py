"""What all tests share: the loopback provider, and pytest's own means to run a suite within the suite."""

from __future__ import annotations

import pytest
from provider import Provider

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def loopback():
    """One provider for the whole run; its count of requests only grows."""
    with Provider() as running:
        yield running
