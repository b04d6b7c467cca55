"""Finds the recording of a cassette that answers a call."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.cassette.file import Cassette, NoCassette
from pytest_lmcache.clock import seconds_since
from pytest_lmcache.errors import CassetteError, shorten
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.keys.strategies import MACHINE_SECRET, KeyStrategy
from pytest_lmcache.redact import HASHLESS_PLACEHOLDER, Redactor
from pytest_lmcache.settings import Repeat

# After a name, as in "api_key":"<redacted:api_key>", any text may have been there, or null.
_NAME_BEFORE = re.compile(r'"([^"\\]{1,80})":"$')
_WHOLE = r'(?:"(?:[^"\\]|\\.)*+"|null)'
_WITHIN = r'(?:<redacted:[^<>"]{1,100}>|[^\s"\\<>]|\\[^"])+?'
# In a URL that was an argument; the words of a prompt may follow.
_PARAMETER_BEFORE = re.compile(r"[?&][\w.\-]{2,40}=$")
_PARAMETER = r'(?:<redacted:[^<>"]{1,100}>|[^&#"\\<>]|\\.)*?'


class Equivalence(NamedTuple):
    """What a library knows of its calls and those of another one.

    ``other_name`` gives the name under which a call may have been recorded too, None if it has no equivalent.
    ``common_form`` gives the form in which equivalent calls are equal, None if a call has no such form. ``convert``
    gives an answer that was recorded under the other name as one of the call's own. ``library`` is named in messages.
    """

    library: str
    other_name: Callable[[Call], str | None]
    common_form: Callable[[Call], Call | None]
    convert: Callable[[Call, Answer], Answer]


EQUIVALENCES: list[Equivalence] = []
"""Those of the libraries that are intercepted."""


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

    def find(self, key: str, nth: int, *, ages: bool = True) -> tuple[int, Entry] | None:
        """Return the recording for the n-th call with a key (from 0), and its own number; None if there is none.

        ``ages`` False: the recording may be of any age.
        """
        answers = self._cassette.answers(key)
        if nth < len(answers):
            oldest = self._max_age if ages else None
            is_old = oldest is not None and seconds_since(answers[nth].recorded()) > oldest
            return None if is_old else (nth, answers[nth])
        if not answers or self._repeat is Repeat.ERROR:
            return None
        nth = len(answers) - 1 if self._repeat is Repeat.LAST else nth % len(answers)
        return nth, answers[nth]

    @cached_property
    def _old(self) -> list[OldRecording]:
        """The recordings that were made under other rules of redaction, except broken ones, which a miss names.

        What only today's rules redact is redacted in the recorded request too. A placeholder without a hash matches
        any value, since the rules of that time may have redacted it. In newer recordings, whose keys begin with
        ``MACHINE_SECRET``, it stands for a secret of the machine and matches only itself.
        """
        found = []
        for entry in self._cassette.entries:
            question = entry.question.decode(errors="replace")
            has_own = HASHLESS_PLACEHOLDER.search(question) is not None
            is_same = self._redact(question) == question
            if is_same and not has_own:
                continue
            try:
                is_new, call = entry.stored_key().startswith(MACHINE_SECRET), entry.call()
            except CassetteError:
                continue
            if not (is_new and is_same):
                text = self._strategy.text(call._replace(request=self._redact.request(call.request)))
                streamed = bool(call.request.get("stream"))
                found.append(OldRecording(entry.key, call.name, streamed, text, is_new or not has_own))
        return found

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


class OldRecording(NamedTuple):
    """A recording whose request today's rules would redact in another way."""

    key: str
    name: str
    streamed: bool
    text: str
    is_exact: bool

    def matches(self, call: Call, text: str) -> bool:
        """Whether a call is the recorded one, if a placeholder may stand for any value."""
        if call.name != self.name or bool(call.request.get("stream")) != self.streamed:
            return False
        if self.is_exact:
            return text == self.text
        texts, gaps = self._parts()
        if not (text.startswith(texts[0]) and text.endswith(texts[-1])):
            return False
        pattern = "".join(re.escape(part) + gap for part, gap in zip(texts, [*gaps, ""], strict=True))
        return re.fullmatch(pattern, text, re.DOTALL) is not None

    def _parts(self) -> tuple[list[str], list[str]]:
        """Return the text between the placeholders, and a pattern for each placeholder."""
        texts, gaps, done = [], [], 0
        for found in HASHLESS_PLACEHOLDER.finditer(self.text):
            start, end = found.span()
            name = _NAME_BEFORE.search(self.text[max(0, start - 90) : start])
            if name and found[0] == f"<redacted:{name[1].lower()}>" and self.text[end : end + 1] == '"':
                start, end = start - 1, end + 1
                gaps.append(_WHOLE)
            else:
                is_parameter = _PARAMETER_BEFORE.search(self.text[max(0, start - 45) : start])
                gaps.append(_PARAMETER if is_parameter else _WITHIN)
            texts.append(self.text[done:start])
            done = end
        return [*texts, self.text[done:]], gaps
