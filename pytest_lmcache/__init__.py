"""pytest-lmcache: record and replay language-model calls made through LiteLLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_lmcache.errors import (
    CacheError,
    CassetteError,
    CassetteMiss,
    DoorError,
    LMCacheError,
    LMCacheWarning,
    SettingsError,
    UnkeyableCallError,
    UnsupportedCall,
)

if TYPE_CHECKING:
    from pytest_lmcache.caches import Cache as Cache
    from pytest_lmcache.session import configure_cache as configure_cache
    from pytest_lmcache.session import use_cassette as use_cassette

    cache: Cache

__version__ = "0.1.0"
__all__ = [
    "Cache",
    "CacheError",
    "CassetteError",
    "CassetteMiss",
    "DoorError",
    "LMCacheError",
    "LMCacheWarning",
    "SettingsError",
    "UnkeyableCallError",
    "UnsupportedCall",
    "cache",
    "configure_cache",
    "use_cassette",
]


def __getattr__(name: str) -> Any:
    """Load the engine when it is first used: the plugin starts with every pytest, the engine need not.

    ``cache`` is what stands behind the cassettes; assign another Cache to replace it.
    """
    if name == "Cache":
        from pytest_lmcache.caches import Cache

        return Cache
    if name in {"cache", "configure_cache", "use_cassette"}:
        from pytest_lmcache import session

        return session.session.cache() if name == "cache" else getattr(session, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
