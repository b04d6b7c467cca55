"""Refuses this process's connections to other machines while a recorded test may not make any.

Python reports each connection of its sockets to audit hooks, whatever library makes it and whatever other tools have
replaced in the module `socket`. A hook cannot be removed: while the guard is off it returns at once.
"""

from __future__ import annotations

import _socket
import socket
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.hosts import Host, is_address, split_host

CHECK = "pytest_lmcache.network"  # the event by which we see that our hook is there


class Guard:
    """Has ``refuse`` called with each host that is not this machine, between ``open`` and ``close``.

    What ``refuse`` raises, the code that connects gets.
    """

    def __init__(self, refuse: Callable[[Host], None]) -> None:
        self._refuse = refuse
        self._is_open = self._is_installed = False
        self._names: dict[str, set[str]] = {}  # those that were looked up, by address
        self._resolve: Any = None
        self._is_ours: ContextVar[bool] = ContextVar("pytest_lmcache_resolves", default=False)

    def open(self) -> None:
        """Begin. Raises LMCacheError if another tool forbids audit hooks."""
        if self._is_open:
            return
        self._is_open = True
        if not self._is_installed:
            self._install()
            if not self._is_installed:
                self._is_open = False
                raise LMCacheError(
                    "lm_block_network cannot see connections, because another audit hook forbids new ones. Remove "
                    "that hook, or set lm_block_network = false."
                )
        self._resolve = _socket.getaddrinfo
        _socket.getaddrinfo = self._resolving

    def close(self) -> None:
        """End."""
        if self._is_open:
            self._is_open = False
            if _socket.getaddrinfo == self._resolving:
                _socket.getaddrinfo = self._resolve

    def is_address_of(self, entries: Iterable[str], host: Host) -> bool:
        """Whether an address is now that of one of these ``host`` or ``host:port``, which was looked up unseen."""
        token = self._is_ours.set(True)
        try:
            names = [name for name, port in map(split_host, entries) if port in {None, host.port}]
            return any(host.address in self._addresses(name) for name in names if not is_address(name))
        finally:
            self._is_ours.reset(token)

    def _addresses(self, name: str) -> set[str]:
        try:
            found = _socket.getaddrinfo(name, None)
        except OSError:
            return set()
        return {str(each[4][0]) for each in found}

    def _resolving(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        """``_socket.getaddrinfo``, whose results say by which name an address is meant."""
        found = self._resolve(host, *args, **kwargs)
        if (name := _text(host)) and not is_address(name):
            for each in found:
                self._names.setdefault(str(each[4][0]), set()).add(name)
        return found

    def _install(self) -> None:
        def hook(event: str, args: tuple[Any, ...]) -> None:
            if self._is_open and (event in READERS or event == CHECK):
                self._seen(event, args)

        # Without this attribute Python looks for it in vain at each event: most of what a hook costs.
        hook.__cantrace__ = False  # type: ignore[attr-defined]
        sys.addaudithook(hook)
        sys.audit(CHECK)

    def _seen(self, event: str, args: tuple[Any, ...]) -> None:
        if event == CHECK:
            self._is_installed = True
            return
        host = READERS[event](args)
        if host is None or self._is_ours.get() or host.is_here:
            return
        self._refuse(host._replace(names=tuple(sorted(self._names.get(host.address, ())))))


def _of_socket(connection: Any, address: Any) -> Host | None:
    if connection.family not in {socket.AF_INET, socket.AF_INET6} or not isinstance(address, tuple):
        return None
    name, port, *_ = (*address, None, None)
    return Host(text, port) if (text := _text(name)) else None


def _of_lookup(name: Any, port: Any = None) -> Host | None:
    """The host of a name that is looked up; None for an address, for which nobody is asked."""
    text = _text(name)
    if not text or is_address(text):
        return None
    port = _text(port) if isinstance(port, bytes | str) else port
    if isinstance(port, str):
        port = int(port) if port.isdecimal() else None
    return Host(text, port or None)


def _text(name: Any) -> str:
    if isinstance(name, bytes | bytearray):
        return bytes(name).decode("ascii", "replace")
    return name if isinstance(name, str) else ""


# What each event of Python's says about the host; see "Audit events table" in Python's documentation.
READERS: dict[str, Callable[[tuple[Any, ...]], Host | None]] = {
    "socket.connect": lambda args: _of_socket(args[0], args[1]),
    "socket.sendto": lambda args: _of_socket(args[0], args[1]),
    "socket.sendmsg": lambda args: _of_socket(args[0], args[1]),
    "socket.getaddrinfo": lambda args: _of_lookup(args[0], args[1]),
    "socket.gethostbyname": lambda args: _of_lookup(args[0]),
}
