"""Keys: which calls are the same question. The functions here are for custom key strategies to build on."""

from pytest_lmcache.keys.strategies import content, exact, messages

__all__ = ["content", "exact", "messages"]
