"""``lm_block_network``: connections of replaying tests to other machines are refused, whatever makes them."""

import pytest

HOST = "api.example.test"
WAYS = {
    "socket": "socket.socket().connect(('192.0.2.1', 443))",
    "connect_ex": "socket.socket().connect_ex(('192.0.2.1', 443))",
    "ipv6": "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 443))",
    "datagram": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 443))",
    "create_connection": "socket.create_connection(('192.0.2.1', 443))",
    "asyncio": "asyncio.run(asyncio.open_connection('192.0.2.1', 443))",
    "sock_connect": "asyncio.run(sock_connect())",
    "urllib": "urllib.request.urlopen('http://192.0.2.1:443/')",
    "urllib3": "urllib3.PoolManager().request('GET', 'http://192.0.2.1:443/')",
    "requests": "requests.get('http://192.0.2.1:443/')",
    "httpx": "httpx.get('http://192.0.2.1:443/')",
    "async httpx": "asyncio.run(ahttpx())",
    "aiohttp": "asyncio.run(with_aiohttp())",
    "anyio": "anyio.run(anyio.connect_tcp, '192.0.2.1', 443)",
}
HEAD = """
import socket, threading, urllib.request

import aiohttp, anyio, httpx, requests, urllib3

URL = "http://192.0.2.1:443/"

async def sock_connect():
    with socket.socket() as one:
        one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(one, ("192.0.2.1", 443))

async def ahttpx():
    async with httpx.AsyncClient() as client:
        await client.get(URL)

async def with_aiohttp():
    async with aiohttp.ClientSession() as client, client.get(URL):
        pass

pytestmark = pytest.mark.filterwarnings("ignore")
"""


@pytest.fixture
def blocked(suite):
    """Gives a function that runs a suite under the setting; the given code stands behind some imports."""

    def run(code, *args, alone=None):
        suite.test(HEAD + code)
        return suite.run("--lm-block-network", *args, alone=alone)

    return run


def marked(body):
    """A recorded test with one statement."""
    return f"@pytest.mark.lm_cache\ndef test_a():\n    {body}\n"


@pytest.mark.parametrize("how", WAYS)
def test_a_connection_is_refused(blocked, how):
    """The test fails, and the message has the test, the host, and what allows it."""
    address = "2001:db8::1" if how == "ipv6" else "192.0.2.1"
    shown = f"[{address}]" if how == "ipv6" else address
    result = blocked(marked(WAYS[how]))
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert f"test_it.py::test_a connects to {shown}:443" in text
    assert "lm_block_network refuses connections in mode replay." in text
    assert f'lm_allow_hosts = ["{address}"]' in text


@pytest.mark.parametrize(
    "how", [how for how in WAYS if how not in {"socket", "connect_ex", "ipv6", "datagram", "sock_connect"}]
)
def test_a_name_is_refused_before_it_is_looked_up(blocked, how):
    """The message has the host's name, and no name server was asked."""
    result = blocked(HEAD.replace("192.0.2.1", HOST) + marked(WAYS[how].replace("192.0.2.1", HOST)))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [f"*test_it.py::test_a connects to {HOST}*", f'*lm_allow_hosts = [[]"{HOST}"]*']
    )


@pytest.mark.parametrize("swallow", ["Exception", "BaseException"])
@pytest.mark.parametrize("where", ["test", "fixture", "teardown", "thread", "executor"])
def test_a_refusal_cannot_be_swallowed(blocked, where, swallow):
    """Catching it does not help, wherever in the test the connection is made."""
    given = {"fixture": "connect()\n    yield", "teardown": "yield\n    connect()"}.get(where, "yield")
    body = {
        "test": "connect()",
        "thread": "thread = threading.Thread(target=connect)\n    thread.start()\n    thread.join()",
        "executor": "asyncio.run(asyncio.to_thread(connect))",
    }.get(where, "pass")
    result = blocked(f"""
def connect():
    try:
        httpx.get(URL)
    except {swallow}:
        pass

@pytest.fixture
def given():
    {given}

@pytest.mark.lm_cache
def test_a(given):
    {body}
""")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*test_it.py::test_a connects to 192.0.2.1:443*"])


def test_what_stays_open(suite, blocked):
    """Loopback addresses and names, unix sockets, pairs and this machine's own name are no other machine's."""
    result = blocked(f"""
@pytest.mark.lm_cache
def test_a(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("0.0.0.0", 0)) as server, socket.socket(socket.AF_UNIX) as unix:
        for host in ("127.0.0.1", "localhost", "127.0.0.2", "0.0.0.0"):
            socket.create_connection((host, server.getsockname()[1])).close()
        unix.bind("s")
        unix.listen()
        with socket.socket(socket.AF_UNIX) as one:
            one.connect("s")
    socket.getaddrinfo(socket.gethostname(), None)
    socket.getaddrinfo(None, 0)
    socket.socketpair()
    assert httpx.get("{suite.provider.url}/models").status_code
""")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("mark", "options"),
    [
        ("", ()),
        ("@pytest.mark.lm_cache", ("--lm-record",)),
        ("@pytest.mark.lm_cache", ("--lm-mode=once",)),
        ("@pytest.mark.lm_cache(mode='live')", ()),
        ("@pytest.mark.lm_cache(block_network=False)", ("-o", "addopts=", "-o", "lm_block_network=true")),
    ],
    ids=["unmarked", "record", "once", "live", "marker"],
)
def test_where_it_does_not_hold(suite, mark, options):
    """Tests without a mark, modes that may ask a provider, and tests whose mark says so connect as they like."""
    suite.test(f"""
import socket

{mark}
def test_a():
    with socket.socket() as one:
        one.setblocking(False)
        one.connect_ex(("192.0.2.1", 443))
""")
    suite.run("-o", "lm_block_network=true", *options).assert_outcomes(passed=1)


def test_it_ends_with_the_test(blocked):
    """The test after it connects, and the module socket is as it was."""
    result = blocked("""
import _socket
BEFORE = _socket.getaddrinfo, socket.getaddrinfo, dict(vars(socket.socket))

@pytest.mark.lm_cache
def test_a():
    pass

def test_b():
    assert (_socket.getaddrinfo, socket.getaddrinfo, dict(vars(socket.socket))) == BEFORE
    with socket.socket() as one:
        one.setblocking(False)
        one.connect_ex(("192.0.2.1", 443))
""")
    result.assert_outcomes(passed=2)


def test_under_auto_every_test_is_recorded(blocked):
    """A test that never imports LiteLLM is refused too."""
    blocked("def test_a():\n    httpx.get(URL)\n", "-o", "lm_auto=true").assert_outcomes(failed=1)


def test_a_recorded_suite_replays(suite, blocked):
    """Replay needs no network: LiteLLM's calls are as without the setting."""
    code = "@pytest.mark.lm_cache\ndef test_a():\n    assert ask() and asyncio.run(aask('b'))\n"
    suite.test(HEAD + code)
    suite.record()
    blocked(code).assert_outcomes(passed=1)


@pytest.mark.parametrize("outer", ["", "@pytest.mark.lm_cache"])
def test_a_block_is_refused_too(blocked, outer):
    """A block that replays may not connect; one that records may, also in a test that replays."""
    result = blocked(f"""
from pytest_lmcache import use_cassette

def connect():
    with socket.socket() as one:
        one.setblocking(False)
        one.connect_ex(("192.0.2.1", 443))

{outer}
def test_replay():
    with use_cassette("cassettes/a.yaml"):
        connect()

{outer}
def test_record():
    with use_cassette("cassettes/b.yaml", mode="record"):
        connect()
""")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*connects to 192.0.2.1:443*"])


def test_a_shared_fixture_is_refused(blocked):
    """Its name is in the message."""
    result = blocked("""
@pytest.fixture(scope="module")
def given():
    httpx.get(URL)

@pytest.mark.lm_cache
def test_a(given):
    pass
""")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*given* connects to 192.0.2.1:443*"])


@pytest.mark.parametrize("order", [("-p", "socket"), ()], ids=["loaded first", "loaded later"])
@pytest.mark.parametrize(
    ("option", "mark", "said"),
    [
        ("--disable-socket", "", "A test tried to use socket*"),
        ("--disable-socket", "@pytest.mark.enable_socket", "*test_a connects to 192.0.2.1:443*"),
        ("--allow-hosts=192.0.2.1", "", "*test_a connects to 192.0.2.1:443*"),
        ("--allow-hosts=127.0.0.1", "", "*A test tried to use socket.socket.connect() with host*"),
    ],
)
def test_pytest_socket(blocked, option, mark, said, order):
    """Both plugins hold; what one allows, the other may still refuse, and afterwards nothing is left of either."""
    code = f"{mark}\n@pytest.mark.lm_cache\ndef test_a():\n    socket.socket().connect(('192.0.2.1', 443))\n"
    after = """
@pytest.mark.enable_socket
def test_b():
    with socket.socket() as one:
        one.setblocking(False)
        one.connect_ex(("192.0.2.1", 443))
"""
    result = blocked(code + after, *order, option)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f"*{said}"])
