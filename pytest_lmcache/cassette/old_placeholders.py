"""Finds recordings that were made under other rules of redaction.

What only today's rules redact is redacted in the recorded request too. A placeholder without a hash matches any
value, since the rules of that time may have redacted it. In newer recordings, whose keys begin with
``MACHINE_SECRET``, it stands for a secret of the machine and matches only itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from pytest_lmcache.errors import CassetteError
from pytest_lmcache.keys.strategies import MACHINE_SECRET
from pytest_lmcache.redact import HASHLESS_PLACEHOLDER

if TYPE_CHECKING:
    from pytest_lmcache.cassette.document import Entry
    from pytest_lmcache.interaction import Call
    from pytest_lmcache.keys.strategies import KeyStrategy
    from pytest_lmcache.redact import Redactor

# After a name, as in "api_key":"<redacted:api_key>", any text may have been there, or null.
_NAME_BEFORE = re.compile(r'"([^"\\]{1,80})":"$')
_WHOLE = r'(?:"(?:[^"\\]|\\.)*+"|null)'
_WITHIN = r'(?:<redacted:[^<>"]{1,100}>|[^\s"\\<>]|\\[^"])+?'
# In a URL that was an argument; the words of a prompt may follow.
_PARAMETER_BEFORE = re.compile(r"[?&][\w.\-]{2,40}=$")
_PARAMETER = r'(?:<redacted:[^<>"]{1,100}>|[^&#"\\<>]|\\.)*?'


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


def old_recordings(
    entries: Iterable[Entry], strategy: KeyStrategy, redact: Redactor
) -> Iterator[OldRecording]:
    """Yield the recordings that were made under other rules, except broken ones, which a miss names."""
    for entry in entries:
        question = entry.question.decode(errors="replace")
        has_own = HASHLESS_PLACEHOLDER.search(question) is not None
        is_same = redact(question) == question
        if is_same and not has_own:
            continue
        try:
            is_new, call = entry.stored_key().startswith(MACHINE_SECRET), entry.call()
        except CassetteError:
            continue
        if is_new and is_same:
            continue
        text = strategy.text(call._replace(request=redact.request(call.request)))
        yield OldRecording(
            entry.key, call.name, bool(call.request.get("stream")), text, is_new or not has_own
        )
