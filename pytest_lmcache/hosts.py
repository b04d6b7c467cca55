"""Hosts: which one a connection goes to, whether that is this machine, and whether the settings allow it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

LOCAL_NAMES = ("localhost", "ip6-localhost", "localhost.localdomain", "broadcasthost")


class Host(NamedTuple):
    """Where a connection goes. ``names`` are those that were looked up; ``port`` None if it is not known yet."""

    address: str
    port: int | None
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = next(iter(self.names), self.address)
        shown = f"[{name}]" if ":" in name else name
        return shown if self.port is None else f"{shown}:{self.port}"

    @property
    def is_here(self) -> bool:
        """Whether it is this machine's loopback interface, or a name of this machine."""
        name = self.address.rstrip(".").lower()
        if name in LOCAL_NAMES or name.endswith(".localhost"):
            return True
        if not is_address(name):
            from socket import gethostname

            return name in {"", gethostname().lower()}
        from ipaddress import ip_address

        address: Any = ip_address(name)
        address = getattr(address, "ipv4_mapped", None) or address
        return bool(address.is_loopback or address.is_unspecified)

    def is_allowed(self, allowed: Iterable[str]) -> bool:
        """Whether one of these hosts, as ``lm_allow_hosts`` has them, is this one."""
        return any(self._is(*split_host(entry)) for entry in allowed)

    def _is(self, name: str, port: int | None) -> bool:
        if port is not None and self.port not in {None, port}:
            return False
        names = {each.rstrip(".").lower() for each in (self.address, *self.names)}
        return any(each.endswith(name[1:]) for each in names) if name.startswith("*.") else name in names


def split_host(text: str) -> tuple[str, int | None]:
    """The name and the port, None for any, of ``host``, ``host:port`` or ``*.suffix``. Raises ValueError."""
    name, separator, port = text.strip().lower().rpartition(":")
    if not separator or (":" in name and not name.endswith("]")):  # an IPv6 address has colons too
        name, port = text.strip().lower(), ""
    name = name.removeprefix("[").removesuffix("]").rstrip(".")
    if not name or set(name.removeprefix("*.")) & set("/*@ ,") or (port and not port.isdecimal()):
        raise ValueError(text)
    return name, int(port) if port else None


def is_address(name: str) -> bool:
    """Whether a host is an IP address."""
    from ipaddress import ip_address  # here: settings need this file, but most runs no address

    try:
        ip_address(name)
    except ValueError:
        return False
    return True
