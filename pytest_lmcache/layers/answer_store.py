"""The cache as a recorder uses it: the key of each answer, and whether a stored answer may be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

from pytest_lmcache.address import is_loopback
from pytest_lmcache.call_record import UNIT, CallNumbers, CallRecord
from pytest_lmcache.clock import seconds_since
from pytest_lmcache.errors import CacheError, LMCacheWarning
from pytest_lmcache.interaction import Answer
from pytest_lmcache.layers import values
from pytest_lmcache.settings import RecordErrors, Repeat, Settings


class Store(Protocol):
    """A ``pytest_lmcache.Cache``, or any object of the user's with these two methods."""

    def get(self, key: str) -> Any:
        """Return the value of a key, None if there is none."""

    def put(self, key: str, value: Any) -> None:
        """Store a value."""


class CachedAnswer(NamedTuple):
    """An answer of the cache: when it was given (ISO 8601), its layer, and the test or block that asked first."""

    answer: Answer
    recorded: str
    layer: str
    asked_by: str


class AnswerStore:
    """The cache behind one cassette, or in place of one.

    ``identity`` names the cassette on every machine. If it is None, there is no cassette: the answers are
    shared by all tests, and ``repeat`` decides what identical calls get. ``asker`` is the test or block that
    asks. Warnings of the cache that are raised as errors go into ``faults``: they fail the test, not the call.
    """

    def __init__(
        self,
        open_cache: Callable[[], Store],
        settings: Settings,
        *,
        identity: str | None,
        asker: str,
        faults: list[BaseException],
    ) -> None:
        self._open_cache = open_cache
        self._settings = settings
        self._identity = identity
        self._asker = asker
        self._faults = faults
        self._stores_errors = identity is not None and settings.record_errors is RecordErrors.ALL
        self._numbers = CallNumbers()
        self._known: Counter[str] = Counter()  # by key, how many answers to identical calls the cache has

    @cached_property
    def cache(self) -> Store:
        """The cache, opened by the first call that needs it."""
        return self._open_cache()

    def assign_key(self, record: CallRecord, address: str, custom_key: str | None) -> None:
        """Give a call its key in the cache; ``custom_key`` is the result of the cache's own ``cache_key``."""
        record.custom_key = custom_key
        record.owner = self._owner(address, has_custom_key=custom_key is not None)
        record.nth_in_layers = self._numbers.take(record.cache_key(0))

    def release_key(self, record: CallRecord) -> None:
        """Let the next identical call have the key of a call that failed."""
        self._numbers.give_back(record.cache_key(0), record.nth_in_layers)

    def find(self, record: CallRecord) -> CachedAnswer | None:
        """Return the stored answer of a call, None if there is none or if it is older than ``max_age``."""
        found = self._get(record.cache_key())
        known = self._known[record.cache_key(0)]
        if found is not None:
            self._count(record)
        elif known and self._identity is None and self._settings.repeat is not Repeat.ERROR:
            is_last = self._settings.repeat is Repeat.LAST
            found = self._get(record.cache_key(known - 1 if is_last else record.nth_in_layers % known))
        return None if found is None or self._is_old(found) else found

    def put(self, record: CallRecord, answer: Answer, recorded: str) -> None:
        """Store an answer that the provider gave just now, unless it is a part or an error that may pass."""
        if not answer.complete or not (answer.is_answered or self._stores_errors):
            return
        record.is_cached = getattr(self.cache, "keeps", True)
        if record.is_cached:
            other = self._get(record.cache_key()) if record.may_be_asked_twice else None
            record.asked_twice = other is not None and not self._is_old(other)
            try:
                self.cache.put(record.cache_key(), values.store(answer, recorded, self._asker))
            except LMCacheWarning as warning:
                self._faults.append(warning)
            record.is_cached = getattr(self.cache, "keeps", True)  # a layer may have failed just now
        self._count(record)

    def _get(self, key: str) -> CachedAnswer | None:
        try:
            value = self.cache.get(key)
        except LMCacheWarning as warning:
            self._faults.append(warning)
            return self._get(key)  # each layer warns once
        if value is None:
            return None
        try:
            answer, recorded = values.revive(value)
            values.check(answer, recorded, errors=self._stores_errors)
        except CacheError:
            if hasattr(value, "layer"):
                return None  # something else's value, or of a newer form: it will be replaced
            raise
        return CachedAnswer(answer, recorded, getattr(value, "layer", "cache"), values.asked_by(value))

    def _count(self, record: CallRecord) -> None:
        key = record.cache_key(0)
        self._known[key] = max(self._known[key], record.nth_in_layers + 1)

    def _is_old(self, found: CachedAnswer) -> bool:
        oldest = self._settings.max_age
        return oldest is not None and seconds_since(found.recorded) > oldest

    def _owner(self, address: str, *, has_custom_key: bool) -> str:
        """Return what a key has behind it: a hash of the cassette and the provider's address.

        A shared answer belongs to the address only; what runs on this machine is never shared between
        cassettes. A custom key that is shared has nothing behind it.
        """
        is_shared = self._identity is None or (self._settings.share and not is_loopback(address))
        if is_shared and has_custom_key:
            return ""
        owner = UNIT.join(("" if is_shared else self._identity or "", address))
        return "@" + blake2b(owner.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
