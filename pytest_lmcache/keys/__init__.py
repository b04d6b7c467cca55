"""What makes two calls the same question. What a key strategy of a user's own may call is here."""

from pytest_lmcache.keys.strategies import content, exact, messages

__all__ = ["content", "exact", "messages"]
