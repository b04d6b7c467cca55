"""Where a call goes: the address of its provider in a plain form, and whether that is this machine."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

# Providers that LiteLLM looks for on this machine if no address is given.
LOCAL_PROVIDERS = frozenset({"ollama", "ollama_chat"})


def plain(url: object) -> str:
    """A URL without credentials, query and closing slash; anything else as its text."""
    text = str(url)
    try:
        parts = urlsplit(text)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return text
    if not parts.netloc:
        return text.rstrip("/")
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def is_loopback(address: str) -> bool:
    """Whether a server at this address, or a provider of this name, runs on this machine."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    host = parts.hostname or ""
    if "unix" in parts.scheme or address in LOCAL_PROVIDERS:
        return True
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        found = ip_address(host)
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_unspecified
