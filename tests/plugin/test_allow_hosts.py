"""``lm_allow_hosts``: what replaying tests may connect to under ``lm_block_network``."""

import pytest

# A name server that knows all names, and what Python tells audit hooks when it asks one.
CONFTEST = """
import _socket, sys
real = _socket.getaddrinfo

def resolve(host, port=None, *args, **kwargs):
    if not str(host).endswith(".test"):
        return real(host, port, *args, **kwargs)
    sys.audit("socket.getaddrinfo", host, port, 0, 0, 0)
    return [(_socket.AF_INET, _socket.SOCK_STREAM, 6, "", ("192.0.2.9", port))]

def pytest_configure():
    _socket.getaddrinfo = resolve

def pytest_unconfigure():
    _socket.getaddrinfo = real
"""
TEST = """
import socket

@pytest.mark.lm_cache{more}
def test_a():
    [(family, kind, *_, address)] = socket.getaddrinfo({host!r}, 5432, type=socket.SOCK_STREAM)
    with socket.socket(family, kind) as one:
        one.setblocking(False)
        one.connect_ex(address)
"""


@pytest.fixture
def connect(suite):
    """Gives a function that connects to a host in a test, with these hosts allowed."""
    suite.file("conftest.py", CONFTEST)

    def run(host, *allowed, more=""):
        suite.file(
            "pytest.ini", "\n  ".join(["[pytest]\nlm_block_network = true\nlm_allow_hosts =", *allowed])
        )
        suite.test(TEST.format(host=host, more=more))
        return suite.run()

    return run


@pytest.mark.parametrize(
    "allowed", ["db.test", "DB.test", "db.test:5432", "*.test", "other.example\n  db.test"]
)
def test_an_allowed_host(connect, allowed):
    """A name, one with a port, a suffix or an address lets the connection pass."""
    connect("db.test", allowed).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "allowed", ["", "db.test:5433", "b.test", "*.db.test", "test", "*.b.test", "192.0.2.1"]
)
def test_another_host(connect, allowed):
    """Another port, name, suffix or address does not."""
    result = connect("db.test", *filter(None, [allowed]))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_it.py::test_a connects to db.test:5432*"])


@pytest.mark.parametrize("allowed", ["db.test", "db.test:5432"])
def test_a_name_that_was_looked_up_before(suite, connect, allowed):
    """The address of an allowed name is allowed, also if a client remembers it from an earlier test."""
    connect("192.0.2.9", allowed).assert_outcomes(passed=1)


def test_an_address_without_a_name(connect):
    """Its message has the address."""
    result = connect("192.0.2.8", "*.test")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*connects to 192.0.2.8:5432*"])


@pytest.mark.parametrize("allowed", ["192.0.2.8", "192.0.2.8:5432"])
def test_an_allowed_address(connect, allowed):
    """An address is allowed where a test connects to it, but no name that leads to it is looked up."""
    connect("192.0.2.8", allowed).assert_outcomes(passed=1)
    connect("db.test", "192.0.2.9").assert_outcomes(failed=1)


def test_a_mark_adds_hosts(connect):
    """The mark's hosts add to those of the configuration."""
    connect("db.test", "a.test", more="(allow_hosts='db.test')").assert_outcomes(passed=1)
    connect("db.test", "db.test", more="(allow_hosts=['a.test'])").assert_outcomes(passed=1)


@pytest.mark.parametrize("value", ["https://a.test", "a.test/v1", "a.test:https", "*", "a b", "a*.test"])
def test_an_invalid_host_is_an_error(connect, value):
    """It is told before any test runs."""
    result = connect("db.test", value)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*lm_allow_hosts cannot be *; it takes a host, host:port or [*].suffix*"])
