"""Finds what was recorded before placeholders had a hash.

A placeholder without a hash stood for whatever the rules of that time took out, so it matches any one value.
In newer recordings it stands for a secret of the machine, and matches itself alone: their keys begin with
``keys.OWN_SECRETS``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from pytest_lmcache.errors import CassetteError
from pytest_lmcache.keys import OWN_SECRETS
from pytest_lmcache.redact import HASHLESS

if TYPE_CHECKING:
    from pytest_lmcache.cassette import Entry
    from pytest_lmcache.interaction import Call
    from pytest_lmcache.keys import KeyStrategy

# Under a name, as in "api_key":"<redacted:api_key>", any text may have stood there, or null.
_NAME_BEFORE = re.compile(r'"([^"\\]{1,80})":"$')
_WHOLE = r'(?:"(?:[^"\\]|\\.)*+"|null)'
_WITHIN = r'(?:<redacted:[^<>"]{1,100}>|(?:[^\s"\\<>]|\\[^"])+?)'


class OldRecording(NamedTuple):
    """A recording that holds such placeholders."""

    key: str
    name: str
    streamed: bool
    text: str

    def matches(self, call: Call, text: str) -> bool:
        """Whether a call is what was recorded, but for what the placeholders stand for."""
        if call.name != self.name or bool(call.request.get("stream")) != self.streamed:
            return False
        kept, gaps = self._parts()
        if not (text.startswith(kept[0]) and text.endswith(kept[-1])):
            return False
        pattern = "".join(re.escape(part) + gap for part, gap in zip(kept, [*gaps, ""], strict=True))
        return re.fullmatch(pattern, text, re.DOTALL) is not None

    def _parts(self) -> tuple[list[str], list[str]]:
        """The text between its placeholders, and a pattern for what each stands for."""
        kept, gaps, done = [], [], 0
        for found in HASHLESS.finditer(self.text):
            start, end = found.span()
            name = _NAME_BEFORE.search(self.text[max(0, start - 90) : start])
            if name and found[0] == f"<redacted:{name[1].lower()}>" and self.text[end : end + 1] == '"':
                start, end = start - 1, end + 1
                gaps.append(_WHOLE)
            else:
                gaps.append(_WITHIN)
            kept.append(self.text[done:start])
            done = end
        return [*kept, self.text[done:]], gaps


def old_recordings(entries: Iterable[Entry], strategy: KeyStrategy) -> Iterator[OldRecording]:
    """The recordings of a cassette that hold such placeholders; the miss names those that cannot be read."""
    for entry in entries:
        if HASHLESS.search(entry.question.decode(errors="replace")) is None:
            continue
        try:
            is_new, call = entry.stored_key().startswith(OWN_SECRETS), entry.call()
        except CassetteError:
            continue
        if not is_new:
            yield OldRecording(entry.key, call.name, bool(call.request.get("stream")), strategy.text(call))
