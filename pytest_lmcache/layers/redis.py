"""The redis layer: values as JSON text on a Redis or Valkey server that a team and its CI machines share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

from pytest_lmcache.clock import age
from pytest_lmcache.errors import LayerError, SettingsError
from pytest_lmcache.layers.contract import from_text, is_fresh, plain_key, to_text
from pytest_lmcache.settings import SETTINGS

LARGEST_ANSWER = 100_000_000  # bytes
LONGEST_ANSWER = 5  # times ``timeout``
LONGEST_LIFE = 10**10  # seconds; servers refuse more milliseconds than fit into 64 bits


def check_installed() -> None:
    """Raise SettingsError if redis-py is not installed. Imports nothing."""
    if find_spec("redis") is None:
        raise SettingsError(
            "A URL for the cache (lm_cache_url, url=...) needs the Redis client, which is not installed: "
            'pip install "redis>=5"'
        )


class RedisLayer:
    """Stores values under ``prefix`` and their key; the server removes them ``ttl`` seconds after the recording.

    ``timeout`` is in seconds: the server may take so long to connect and for each part of an answer, and five times
    as long for a whole answer. Nothing is tried twice. Values of 100 MB and more are not stored. Connects at the
    first `get` or `put`. Raises SettingsError for a bad URL, and if redis-py is not installed.
    """

    name = "redis"

    def __init__(
        self, url: str, ttl: float | None = None, prefix: str = "lmcache:1:", timeout: float = 1.0
    ) -> None:
        check_installed()
        from redis import ConnectionPool, Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        options: dict[str, Any] = {
            "socket_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,  # every server speaks it
        }
        try:
            scheme, separator, rest = url.partition("://")
            scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme.lower(), scheme.lower())
            if scheme != "unix":  # Unix connections do not take it in every redis-py
                options["socket_connect_timeout"] = timeout
            pool = ConnectionPool.from_url(scheme + separator + rest, **options)

            class Limited(pool.connection_class):  # type: ignore[misc,name-defined]
                def _connect(self) -> Any:
                    return _LimitedSocket(super()._connect(), timeout * LONGEST_ANSWER)

            pool.connection_class = Limited
            pool.make_connection()  # does not connect, but checks the URL's query
        except (ValueError, TypeError, AttributeError):
            raise SETTINGS["url"].error(url, "RedisLayer(): url") from None
        self._client = Redis(connection_pool=pool)
        self._ttl = ttl
        self._prefix = prefix
        given = pool.connection_kwargs
        self._password = str(given.get("password") or "")
        self._place = given.get("path") or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._place}>"

    def get(self, key: str) -> dict[str, Any] | None:
        """See `Layer.get`. What is not a value is removed."""
        value = self._on_server(self._read, self._prefix + plain_key(key))
        return value if value is not None and is_fresh(value, self._ttl) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """See `Layer.put`."""
        name, text = self._prefix + plain_key(key), to_text(value)
        if len(text) >= LARGEST_ANSWER:
            return
        life = LONGEST_LIFE if self._ttl is None else self._ttl - age(value)
        if life <= 0:
            self._on_server(self._client.delete, name)
        else:
            seconds = None if self._ttl is None else min(math.ceil(life), LONGEST_LIFE)
            self._on_server(self._client.set, name, text, ex=seconds)

    def close(self) -> None:
        """See `Layer.close`."""
        self._client.connection_pool.disconnect()

    def _read(self, name: str) -> dict[str, Any] | None:
        from redis.exceptions import ResponseError

        value = None
        try:
            found: Any = self._client.get(name)
            if found is None:
                return None
            value = from_text(found.decode() if isinstance(found, bytes) else found)
        except UnicodeDecodeError:
            pass
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
        if value is None:
            self._client.delete(name)
        return value

    def _on_server(self, act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return act(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - nothing that a server does may end a test
            problem = str(error) or type(error).__name__
        if self._password:
            problem = problem.replace(self._password, "***").replace(quote(self._password, safe=""), "***")
        # Raised outside the except block: the frames of redis-py's error hold the password.
        raise LayerError(
            f"The Redis server at {self._place} cannot be used: {problem.rstrip('.')}.\n"
            "Start it, or correct its URL (lm_cache_url, url=...), or remove the URL."
        )


class _LimitedSocket:
    """A socket that limits each answer as a whole, in seconds and in bytes."""

    def __init__(self, socket: Any, seconds: float) -> None:
        self._socket = socket
        self._seconds = seconds
        self._deadline = math.inf
        self._bytes_left = LARGEST_ANSWER

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def sendall(self, *args: Any) -> None:
        """Send a question; its answer begins here."""
        self._deadline = time.monotonic() + self._seconds
        self._bytes_left = LARGEST_ANSWER
        self._socket.sendall(*args)

    def recv(self, *args: Any) -> bytes:
        """Receive a part of an answer. Raises ConnectionError beyond a limit."""
        data: bytes = self._socket.recv(*args)
        self._count(len(data))
        return data

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Receive a part of an answer. Raises ConnectionError beyond a limit."""
        size: int = self._socket.recv_into(*args, **kwargs)
        self._count(size)
        return size

    def _count(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise ConnectionError(f"its answer has more than {LARGEST_ANSWER:,} bytes")
        if time.monotonic() > self._deadline:
            raise ConnectionError(f"its answer was not there after {self._seconds:g} seconds")
