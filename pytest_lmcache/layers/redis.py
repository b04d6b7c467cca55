"""The redis layer: values as JSON text on a Redis or Valkey server that a team and its CI machines share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import quote

from pytest_lmcache.errors import LayerError, SettingsError, bad_url, no_redis, redis_trouble
from pytest_lmcache.layers.contract import from_text, is_fresh, plain_key, seconds_left, to_text

LARGEST_ANSWER = 100_000_000  # bytes
WHOLE_ANSWER = 5  # times the time-out of one step
LONGEST_LIFE = 10**10  # seconds; servers refuse more than fits 64 bits of milliseconds

_T = TypeVar("_T")


def check_installed() -> None:
    """Raise SettingsError where redis-py is not installed; imports nothing."""
    if find_spec("redis") is None:
        raise SettingsError(no_redis())


class RedisLayer:
    """Keeps values under ``prefix`` and their key, as text; the server removes them ``ttl`` seconds after recording.

    ``timeout`` is how many seconds a server may take to connect or for any part of an answer, and a fifth of what
    it may take for all of it; nothing is tried twice. Values of more than 100 MB are not kept.
    Raises SettingsError for a URL that cannot be one, and where redis-py is not installed. Connects at the
    first `get` or `put`.
    """

    name = "redis"

    def __init__(
        self, url: str, ttl: float | None = None, prefix: str = "lmcache:1:", timeout: float = 1.0
    ) -> None:
        check_installed()
        from redis import ConnectionPool, Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        if not isinstance(url, str):
            raise SettingsError(bad_url("RedisLayer()", url))
        options: dict[str, Any] = {
            "socket_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,  # the one that every server speaks
        }
        if not url.lower().startswith("unix:"):  # whose connections do not take it in every redis-py
            options["socket_connect_timeout"] = timeout
        try:
            pool = ConnectionPool.from_url(_redis_url(url), **options)
            pool.connection_class = _bounded(pool.connection_class, timeout * WHOLE_ANSWER)
            pool.make_connection()  # not a connection yet, but it takes what the URL's query says
        except (ValueError, TypeError, AttributeError):
            raise SettingsError(bad_url("RedisLayer()", url)) from None
        self._client = Redis(connection_pool=pool)
        self._ttl = ttl
        self._prefix = prefix
        given = pool.connection_kwargs
        self._password = str(given.get("password") or "")
        self._place = given.get("path") or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._place}>"

    def get(self, key: str) -> dict[str, Any] | None:
        """As every layer."""
        name = self._name(key)

        def read() -> dict[str, Any] | None:
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

        value = self._asked(read)
        return value if value is not None and is_fresh(value, self._ttl) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """As every layer."""
        name, text = self._name(key), to_text(value)
        if len(text) >= LARGEST_ANSWER:
            return
        if self._ttl is None:
            self._asked(lambda: self._client.set(name, text))
            return
        left = seconds_left(value, self._ttl)
        if left > 0:
            self._asked(lambda: self._client.set(name, text, ex=min(math.ceil(left), LONGEST_LIFE)))
        else:
            self._asked(lambda: self._client.delete(name))

    def close(self) -> None:
        """As every layer."""
        self._client.connection_pool.disconnect()

    def _name(self, key: str) -> str:
        return self._prefix + plain_key(key)

    def _asked(self, ask: Callable[[], _T]) -> _T:
        try:
            return ask()
        except Exception as error:  # noqa: BLE001 - nothing that a server does may end a test
            problem = self._without_password(str(error) or type(error).__name__)
        # Outside of the except: what redis-py raised has the password in its frames.
        raise LayerError(redis_trouble(self._place, problem))

    def _without_password(self, text: str) -> str:
        if not self._password:
            return text
        return text.replace(self._password, "***").replace(quote(self._password, safe=""), "***")


class _BoundedSocket:
    """A socket on which each answer is limited as a whole, in seconds and in bytes."""

    def __init__(self, socket: Any, seconds: float) -> None:
        self._socket = socket
        self._seconds = seconds
        self._deadline = math.inf
        self._bytes_left = LARGEST_ANSWER

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def sendall(self, *args: Any) -> None:
        """Ask; the answer begins here."""
        self._deadline = time.monotonic() + self._seconds
        self._bytes_left = LARGEST_ANSWER
        self._socket.sendall(*args)

    def recv(self, *args: Any) -> bytes:
        """As a socket does."""
        data: bytes = self._socket.recv(*args)
        self._limit(len(data))
        return data

    def recv_into(self, *args: Any, **more: Any) -> int:
        """As a socket does."""
        size: int = self._socket.recv_into(*args, **more)
        self._limit(size)
        return size

    def _limit(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise ConnectionError(f"its answer has more than {LARGEST_ANSWER:,} bytes")
        if time.monotonic() > self._deadline:
            raise ConnectionError(f"its answer was not there after {self._seconds:g} seconds")


def _bounded(kind: type[Any], seconds: float) -> type[Any]:
    """A kind of connection of redis-py's with such sockets."""

    class Bounded(kind):  # type: ignore[misc]
        def _connect(self) -> Any:
            return _BoundedSocket(super()._connect(), seconds)

    return Bounded


def _redis_url(url: str) -> str:
    """The URL with the scheme that redis-py knows."""
    scheme, separator, rest = url.partition("://")
    return {"valkey": "redis", "valkeys": "rediss"}.get(scheme.lower(), scheme.lower()) + separator + rest
