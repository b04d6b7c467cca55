"""pytest-lmcache: record and replay language-model calls made through LiteLLM."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_lmcache.block import use_cassette as use_cassette
    from pytest_lmcache.call_record import CallRecord as CallRecord
    from pytest_lmcache.conversation import Message as Message
    from pytest_lmcache.conversation import ToolCall as ToolCall
    from pytest_lmcache.errors import CacheError as CacheError
    from pytest_lmcache.errors import CassetteError as CassetteError
    from pytest_lmcache.errors import CassetteMiss as CassetteMiss
    from pytest_lmcache.errors import DoorError as DoorError
    from pytest_lmcache.errors import LMCacheError as LMCacheError
    from pytest_lmcache.errors import LMCacheWarning as LMCacheWarning
    from pytest_lmcache.errors import SettingsError as SettingsError
    from pytest_lmcache.errors import StagedAnswerError as StagedAnswerError
    from pytest_lmcache.errors import UnkeyableCallError as UnkeyableCallError
    from pytest_lmcache.errors import UnrecordableError as UnrecordableError
    from pytest_lmcache.errors import UnsupportedCall as UnsupportedCall
    from pytest_lmcache.fixture import LMCacheFixture as LMCacheFixture
    from pytest_lmcache.layers.stack import Cache as Cache
    from pytest_lmcache.remembered import recorded as recorded
    from pytest_lmcache.session import configure_cache as configure_cache
    from pytest_lmcache.staged_answers import Reply as Reply

__version__ = "0.1.0"
__all__ = [
    "Cache",
    "CacheError",
    "CallRecord",
    "CassetteError",
    "CassetteMiss",
    "DoorError",
    "LMCacheError",
    "LMCacheFixture",
    "LMCacheWarning",
    "Message",
    "Reply",
    "SettingsError",
    "StagedAnswerError",
    "ToolCall",
    "UnkeyableCallError",
    "UnrecordableError",
    "UnsupportedCall",
    "cache",
    "configure_cache",
    "recorded",
    "use_cassette",
]


_FILES = {
    "Cache": "layers.stack",
    "CallRecord": "call_record",
    "LMCacheFixture": "fixture",
    "Message": "conversation",
    "Reply": "staged_answers",
    "ToolCall": "conversation",
    "configure_cache": "session",
    "recorded": "remembered",
    "use_cassette": "block",
}
"""Where the public names are defined, those of ``errors`` aside."""


def __getattr__(name: str) -> Any:
    """Load the engine at its first use: every pytest starts the plugin, but not every run needs the engine."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    file = _FILES.get(name, "errors")
    return getattr(import_module(f"{__name__}.{file}"), name)


class _Package(ModuleType):
    """The module, with an attribute ``cache`` that the engine stores."""

    @property
    def cache(self) -> Any:
        """The cache of all tests that do not set another one. Assign a `Cache`, or None for the configured one."""
        from pytest_lmcache.session import session

        return session.caches.default

    @cache.setter
    def cache(self, cache: Any) -> None:
        from pytest_lmcache.session import session

        session.caches.default = cache


import_module(__name__).__class__ = _Package  # Python's own way to give a module a property
