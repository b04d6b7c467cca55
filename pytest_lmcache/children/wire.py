"""The messages between a child process and the process of its test: a line of JSON each way, on a local socket.

Each message has ``do``, ``number`` (of a call that has begun, else null) and, if there are new ones, ``secrets``:

| do       | more                        | reply                                                   |
|----------|-----------------------------|---------------------------------------------------------|
| hello    | scope, token, pid, name     |                                                         |
| settings |                             | mode, may_ask, is_offline, and what is ``in_children`` |
| begin    | name, request, fast_path, address | number, key, nth, streamed, ask_again; answer, source if it is replayed |
| claim    | waited, can_wait            | is_claimed; answer, source if another process asked     |
| finish   | answer                      |                                                         |
| discard  | answer, reason, text        |                                                         |
| cut_off  | answer, waited              | always raised                                           |
| refuse   | name, reason                |                                                         |
| asked_again | model, answer, why       |                                                         |
| broken   | problem                     | text                                                    |
| fault    | kind, text                  |                                                         |

An error is replied as ``raised`` (its class and text) and ``is_known``: the test's recorder has noted it.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from pytest_lmcache import errors
from pytest_lmcache.errors import CassetteMiss, LMCacheError, LMCacheWarning
from pytest_lmcache.interaction import Answer
from pytest_lmcache.layers import values

# The C class itself, since plugins that forbid sockets replace `socket.socket`.
Socket = socket.SocketType
SIZE = 1 << 16  # bytes of one read
NO_TIME = "2000-01-01T00:00:00Z"  # in the place of the time of the recording, which is not sent


class Lines:
    """A socket that is read and written line by line."""

    def __init__(self, connection: Socket) -> None:
        self._connection = connection
        self._rest = b""

    def close(self) -> None:
        """Close the socket."""
        self._connection.close()

    def send(self, message: dict[str, Any]) -> None:
        """Write one line. Raises OSError."""
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """The lines that one more read completes, None at the end. Raises OSError and ValueError."""
        got = self._connection.recv(SIZE)
        if not got:
            return None
        *lines, self._rest = (self._rest + got).split(b"\n")
        return [json.loads(line) for line in lines]


def connect(address: str) -> Lines:
    """Connect to a server at ``unix:path`` or ``tcp:port``. Raises OSError and ValueError."""
    kind, _, place = address.partition(":")
    connection = Socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.connect(place if kind == "unix" else ("127.0.0.1", int(place)))
    except BaseException:
        connection.close()
        raise
    return Lines(connection)


def to_json(answer: Answer) -> dict[str, Any]:
    """An answer as JSON data. Raises CacheError if it holds anything but plain data."""
    return {"value": values.store(answer, NO_TIME), "ended": answer.ended}


def from_json(data: dict[str, Any]) -> Answer:
    """The answer of that data."""
    answer, _ = values.revive(data["value"])
    return answer._replace(ended=data["ended"])


def error_named(kind: str, text: str) -> BaseException:
    """The error that the other process has met, by its name; one that is not of this package becomes LMCacheError."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, LMCacheError | LMCacheWarning | CassetteMiss):
        return found(text)
    return LMCacheError(f"{kind}: {text}")
