"""The pieces of a text to take out, and the placeholders in their place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import AnyStr, NamedTuple

PLACEHOLDER = re.compile(r"<redacted:[A-Za-z0-9_.\-]{1,80}(?::[0-9a-f]{6}(?:-[0-9]+)?)?>")
HASHLESS_PLACEHOLDER = re.compile(r"<redacted:[A-Za-z0-9_.\-]{1,80}>")
"""A placeholder for a secret of the machine. Before placeholders had hashes, it stood for any secret."""


def placeholder_for(name: str, hashed: str = "") -> str:
    """Return the placeholder of a secret; ``hashed`` is the part of it that is not known to be the machine's."""
    suffix = f":{_short_hash(hashed)}" if hashed else ""
    return f"<redacted:{re.sub(r'[^A-Za-z0-9_.-]', '-', name)[:64]}{suffix}>"


def _short_hash(secret: str) -> str:
    """24 bits, the same for a text and for that text within JSON, such as a tool call's arguments."""
    text = re.sub(r"\\+[nr]", "\n", secret)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=3).hexdigest()


# Between the first two: places in FORMATS.
URL_RANK, LABEL_RANK, KNOWN_RANK, CUSTOM_RANK = -1, 1000, 2000, 3000


class Span(NamedTuple):
    """A piece of a text to take out. If several overlap, the lowest rank names the whole."""

    start: int
    end: int
    rank: int
    name: str


def replaced(text: str, spans: list[Span]) -> str:
    """Return the text with placeholders in the place of spans; placeholders stay."""
    return "".join(edited([text], edits_of(text, spans)))


def edits_of(text: str, spans: list[Span]) -> list[tuple[int, int, str]]:
    """Return start, end and placeholder of each piece to replace, in order; placeholders stay."""
    if spans and "<redacted:" in text:
        for found in PLACEHOLDER.finditer(text):
            spans = [piece for span in spans for piece in _outside(span, *found.span())]
    known = [span for span in spans if span.rank >= KNOWN_RANK]
    return [
        (span.start, span.end, placeholder_for(span.name, hashed_part(text, span, known)))
        for span in _merged(spans)
    ]


def edited(pieces: list[AnyStr], edits: list[tuple[int, int, AnyStr]]) -> Iterator[AnyStr]:
    """Yield the pieces with each edit in the piece where it begins; edits are in order and do not overlap."""
    start = at = 0
    for piece in pieces:
        end, done = start + len(piece), start
        new: list[AnyStr] = []
        while at < len(edits) and edits[at][0] < end:
            first, last, text = edits[at]
            new.append(piece[done - start : max(first - start, 0)])
            if first >= start:
                new.append(text)
            done = min(last, end)
            if last > end:
                break
            at += 1
        new.append(piece[done - start :])
        yield piece[:0].join(new)
        start = end


def hashed_part(text: str, span: Span, known: list[Span]) -> str:
    """The part of a span that is neither a secret of this machine nor found by a custom pattern."""
    left, done = "", span.start
    for each in sorted(known):
        if each.start < span.end and each.end > done:
            left += text[done : max(each.start, done)]
            done = each.end
    return left + text[done : span.end]


def _outside(span: Span, start: int, end: int) -> Iterator[Span]:
    if span.end <= start or span.start >= end:
        yield span
        return
    if span.start < start:
        yield span._replace(end=start)
    if span.end > end:
        yield span._replace(start=end)


def _merged(spans: list[Span]) -> list[Span]:
    """Overlapping spans as one, with the name of the lowest rank, then of the longest, then the first name."""
    merged: list[Span] = []
    best: tuple[int, int, str] = (0, 0, "")
    for span in sorted(spans):
        this = (span.rank, span.start - span.end, span.name)
        if merged and span.start < merged[-1].end:
            best = min(best, this)
            last = merged.pop()
            merged.append(Span(last.start, max(last.end, span.end), best[0], best[2]))
        else:
            best = this
            merged.append(span)
    return merged
