"""Finds the recording of a cassette that answers a call."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.cassette.file import Cassette, NoCassette
from pytest_lmcache.cassette.old_placeholders import OldRecording, old_recordings
from pytest_lmcache.clock import seconds_since
from pytest_lmcache.errors import CassetteError, shorten
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.libraries.equivalence import EQUIVALENCES, Equivalence
from pytest_lmcache.settings import Repeat

if TYPE_CHECKING:
    from pytest_lmcache.keys.strategies import KeyStrategy
    from pytest_lmcache.redact import Redactor


class Recordings:
    """The recordings of one cassette, found by the calls of one test; its methods must not run at once.

    ``repeat`` decides which recording more identical calls get than were recorded. A recording that is older
    than ``max_age`` seconds answers nothing.
    """

    def __init__(
        self,
        cassette: Cassette | NoCassette,
        strategy: KeyStrategy,
        redact: Redactor,
        *,
        repeat: Repeat,
        max_age: float | None,
    ) -> None:
        self._cassette = cassette
        self._strategy = strategy
        self._redact = redact
        self._repeat = repeat
        self._max_age = max_age
        self._other_keys: dict[str, dict[str, str]] = {}

    def key(self, call: Call, text: str, *, fast_path: bool) -> tuple[str, Equivalence | None]:
        """Return the key of a call in the cassette; with what converts the answer, if another kind of call has it.

        It is another key than that of ``text`` if the call was recorded under other rules of redaction.
        """
        key = self._strategy.key(call, text)
        if self._cassette.answers(key):
            return key, None
        if (old := next((old.key for old in self._old if old.matches(call, text)), None)) is not None:
            return old, None
        for equivalence in () if fast_path else EQUIVALENCES:
            if (name := equivalence.other_name(call)) is not None:
                keys = self._equivalent_keys(name, equivalence)
                form = equivalence.common_form(call) if keys else None
                if form is not None and (other := keys.get(self._strategy.key(form))) is not None:
                    return other, equivalence
        return key, None

    def find(self, key: str, nth: int) -> tuple[int, Entry] | None:
        """Return the recording for the n-th call with a key (from 0), and its own number; None if there is none."""
        answers = self._cassette.answers(key)
        if nth < len(answers):
            oldest = self._max_age
            is_old = oldest is not None and seconds_since(answers[nth].recorded()) > oldest
            return None if is_old else (nth, answers[nth])
        if not answers or self._repeat is Repeat.ERROR:
            return None
        nth = len(answers) - 1 if self._repeat is Repeat.LAST else nth % len(answers)
        return nth, answers[nth]

    @cached_property
    def _old(self) -> list[OldRecording]:
        return list(old_recordings(self._cassette.entries, self._strategy, self._redact))

    def _equivalent_keys(self, name: str, equivalence: Equivalence) -> dict[str, str]:
        """Return the keys of the responses to calls of a name, by the keys of the calls' common forms."""
        if name not in self._other_keys:
            found = self._other_keys[name] = {}
            line = f"\ncall: {name}".encode()
            for entry in self._cassette.entries:
                if entry.data.find(line, entry.start, entry.end) < 0:
                    continue  # before it is parsed: a cassette may have thousands
                try:
                    call = entry.call()
                    if call.name != name or entry.answer().kind is not Kind.RESPONSE:
                        continue
                except CassetteError:
                    continue  # the miss names it
                if (form := equivalence.common_form(call)) is not None:
                    found[self._strategy.key(form)] = entry.key
        return self._other_keys[name]


def answer_of(entry: Entry, call: Call, equivalence: Equivalence | None) -> Answer:
    """Return the answer of a recording, converted to the call's own kind. Raises CassetteError."""
    answer = entry.answer()
    if equivalence is None:
        return answer
    try:
        return equivalence.convert(call, answer)
    except Exception as problem:
        what = f"{equivalence.library} cannot convert this answer: {shorten(str(problem))}"
        raise entry.broken(what) from problem
