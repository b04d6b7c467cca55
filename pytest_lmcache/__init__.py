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
    from pytest_lmcache.cache import Cache as Cache
    from pytest_lmcache.session import use_cassette as use_cassette

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
    "use_cassette",
]


def __getattr__(name: str) -> Any:
    """Load the engine when it is first used: the plugin starts with every pytest, the engine need not."""
    if name == "use_cassette":
        from pytest_lmcache.session import use_cassette

        return use_cassette
    if name == "Cache":
        from pytest_lmcache.cache import Cache

        return Cache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
