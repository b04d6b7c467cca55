"""The address that a call goes to: its plain form, and what counts as this machine."""

import pytest

from pytest_lmcache.address import is_loopback, without_secrets


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("https://me:secret@proxy.example:8443/v1?key=secret#x", "https://proxy.example:8443/v1"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("openai", "openai"),
        ("http://host:not-a-port/", "http://host:not-a-port/"),
    ],
)
def test_without_secrets(url, expected):
    """Credentials and queries are no part of an address."""
    assert without_secrets(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000/v1", True),
        ("http://LOCALHOST", True),
        ("http://api.localhost", True),
        ("http://127.0.0.1:4000", True),
        ("http://127.8.9.1", True),
        ("http://0.0.0.0:4000", True),
        ("http://[::1]:8000/v1", True),
        ("http://[::ffff:127.0.0.1]:8000", True),
        ("http+unix://%2Ftmp%2Fsocket/v1", True),
        ("ollama", True),
        ("localhost:11434", True),
        ("openai", False),
        ("https://api.openai.com/v1", False),
        ("http://192.168.1.7:8000", False),
        ("http://localhost.example.com", False),
        ("http://host:not-a-port/", False),
    ],
)
def test_is_loopback(url, expected):
    """A server on this machine is told from one elsewhere by its address alone."""
    assert is_loopback(without_secrets(url)) is expected
