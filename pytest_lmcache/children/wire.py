"""One connection between a process and the test that started it: a line of JSON each way, on a socket of this machine."""

from __future__ import annotations

import json
import socket
from typing import Any

from pytest_lmcache import errors
from pytest_lmcache.errors import CassetteMiss, LMCacheError, LMCacheWarning
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.layers import values

# The C class itself: plugins that forbid sockets replace `socket.socket`.
Socket = socket.SocketType
LONGEST_PAUSE = 60.0  # seconds in which the other side has to take what it is sent
SIZE = 1 << 16
NEVER = "2000-01-01T00:00:00Z"  # when an answer was recorded is not sent


class Lines:
    """A socket that is read and written line by line."""

    def __init__(self, connection: Socket) -> None:
        self._connection = connection
        self._rest = b""

    def fileno(self) -> int:
        """Of the socket."""
        return self._connection.fileno()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def send(self, data: dict[str, Any]) -> None:
        """Write one line. Raises OSError."""
        self._connection.sendall(json.dumps(data).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """The lines that are complete after one more read, None at the end. Raises OSError, and ValueError."""
        got = self._connection.recv(SIZE)
        if not got:
            return None
        *lines, self._rest = (self._rest + got).split(b"\n")
        return [json.loads(line) for line in lines]

    def ask(self, data: dict[str, Any]) -> dict[str, Any]:
        """Send one line and wait for the other's. Raises OSError, and ValueError."""
        self.send(data)
        while True:
            lines = self.receive()
            if lines is None:
                raise ConnectionResetError
            if lines:
                return lines[0]


def connect(address: str) -> Lines:
    """Reach a server: ``unix:path`` or ``tcp:port``. Raises OSError, and ValueError."""
    kind, _, place = address.partition(":")
    if kind == "unix":
        connection = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        connection = Socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.connect(place if kind == "unix" else ("127.0.0.1", int(place)))
    except BaseException:
        connection.close()
        raise
    return Lines(connection)


def packed(answer: Answer) -> dict[str, Any]:
    """An answer as JSON data. Raises CacheError for what is not plain data."""
    return {"value": values.store(answer, NEVER), "ended": answer.ended}


def unpacked(data: dict[str, Any]) -> Answer:
    """The answer of that data."""
    answer, _ = values.revive(data["value"])
    return answer._replace(ended=data["ended"])


def packed_request(request: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments as JSON data. Raises CacheError for what is not plain data."""
    return packed(Answer(Kind.RESPONSE, request))


def unpacked_request(data: dict[str, Any]) -> dict[str, Any]:
    """The arguments of that data."""
    request: dict[str, Any] = unpacked(data).data
    return request


def error_named(kind: str, text: str) -> BaseException:
    """The error of this package that has a name, as the other process met it."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, LMCacheError | LMCacheWarning | CassetteMiss):
        return found(text)
    return LMCacheError(f"{kind}: {text}")
