"""The address of a provider without its secrets, and whether it is this machine's."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

# Providers that LiteLLM looks for on this machine if no address is given.
LOCAL_PROVIDERS = frozenset({"ollama", "ollama_chat"})


def without_secrets(url: object) -> str:
    """A URL without credentials, query and trailing slash; the ``str`` of anything else."""
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
    """Whether an address is this machine's: a URL, a host, or a provider's name."""
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
