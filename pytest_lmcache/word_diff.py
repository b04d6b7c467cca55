"""The words by which two texts differ, and the lines that show them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

Tag = Literal["same", "removed", "added"]
Part = tuple[Tag, str]
"""A piece of two texts: in both of them, only in the first, or only in the second."""

CONTEXT = 40  # characters of an equal stretch that are shown on each side of a change
LONGEST = 100  # characters of a removed or added text that are shown
LONGEST_LINE = 240  # characters of a line that are shown

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_CLAUSE = re.compile(r"[^.,;:!?\n]*[.,;:!?\n]+[^\S\n]*|[^.,;:!?\n]+")
_WORD = re.compile(r"\w+|\n|[^\S\n]+|[^\w\s]")
_LEVELS = (_LINE, _CLAUSE, _WORD)
_MOST_ITEMS = 4_000  # lines, clauses or words that are compared; more are shown as rewritten
_LEAST_ALIKE = 0.25  # share of equal characters; texts that have less in common are shown one after the other


def words(before: str, after: str) -> list[Part]:
    """Return the pieces of two texts, in order: what is equal, and the words that were removed and added.

    The texts of ``same`` and ``removed`` pieces together are ``before``, those of ``same`` and ``added`` are ``after``.
    """
    return _joined(_parts(before, after, _LEVELS))


def _parts(before: str, after: str, levels: Sequence[re.Pattern[str]]) -> list[Part]:
    """The pieces, by comparing lines, then the clauses of changed lines, then the words of changed clauses."""
    if not (before and after and levels):
        return [("removed", before), ("added", after)]
    parts: list[Part] = []
    equal = 0
    for is_equal, old, new in _runs(levels[0].findall(before), levels[0].findall(after)):
        if is_equal:
            equal += _size(old)
            parts.append(("same", old))
        else:
            parts += _parts(old, new, levels[1:])
    is_word_level = len(levels) == 1
    if is_word_level and 2 * equal < _LEAST_ALIKE * (_size(before) + _size(after)):
        return [("removed", before), ("added", after)]
    return parts


def _size(text: str) -> int:
    return len(text) - sum(map(str.isspace, text))


def _has_no_word(text: str) -> bool:
    return not any(map(str.isalnum, text))


def _runs(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[bool, str, str]]:
    """Yield the texts that two lists have, in order, and whether they are equal."""
    from difflib import SequenceMatcher

    # difflib needs a time that grows with the square of what differs.
    start = _common(before, after)
    end = _common(before[start:][::-1], after[start:][::-1])
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    yield True, "".join(before[:start]), ""
    if max(len(old), len(new)) > _MOST_ITEMS:
        yield False, "".join(old), "".join(new)
    else:
        # What has no word is equal only beside other equal items.
        for tag, begin, stop, other_begin, other_stop in SequenceMatcher(
            _has_no_word, old, new
        ).get_opcodes():
            yield tag == "equal", "".join(old[begin:stop]), "".join(new[other_begin:other_stop])
    yield True, "".join(before[len(before) - end :]), ""


def _common(before: Sequence[str], after: Sequence[str]) -> int:
    """How many items at the beginning are equal."""
    length = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        length += 1
    return length


def _joined(parts: Iterable[Part]) -> list[Part]:
    """Join pieces of one kind, and changes that only spaces are between, removed before added."""
    joined: list[Part] = []
    removed = added = space = ""
    for tag, text in [*parts, ("same", "")]:
        if tag != "same":
            removed += space + text * (tag == "removed")
            added += space + text * (tag == "added")
            space = ""
        elif text and not text.strip(" ") and (removed or added):
            space += text
        else:
            if removed:
                joined.append(("removed", removed))
            if added:
                joined.append(("added", added))
            equal = joined.pop()[1] if joined and joined[-1][0] == "same" else ""
            if equal + space + text:
                joined.append(("same", equal + space + text))
            removed = added = space = ""
    return joined


# ---- showing -------------------------------------------------------------------------------------------


def shortened(parts: Iterable[Part], context: int = CONTEXT) -> list[Part]:
    """Return the pieces with long texts cut: equal ones to ``context`` characters on each side that has a change."""
    parts = list(parts)
    found: list[Part] = []
    for place, (tag, text) in enumerate(parts):
        head, tail = LONGEST - 1, 0
        if tag == "same":
            head, tail = context * (place > 0), context * (place + 1 < len(parts))
        is_long = len(text) > head + tail + 1
        found.append((tag, f"{text[:head]}…{text[len(text) - tail :]}" if is_long else text))
    return found


def changed_lines(parts: Iterable[Part]) -> list[tuple[int, list[Part]]]:
    """Return the lines that have a change, with their numbers in the second text, from 1.

    The texts are printable and without line ends: other characters are escaped, and so are changes that nobody would
    see. Long lines are shortened.
    """
    found = []
    number = 1
    for line in _lines(_with_visible_changes(_with_own_last_line(parts))):
        tags = {tag for tag, _ in line}
        # A line that was replaced as a whole is two lines, first as it was.
        for tag in [None] if "same" in tags else [tag for tag in ("removed", "added") if tag in tags]:
            shown_line = [part for part in line if tag in {None, part[0]}]
            if tags != {"same"}:
                found.append((number, _cut(shortened(_without_line_ends(shown_line)))))
        number += any(tag != "removed" and text.endswith("\n") for tag, text in line)
    return found


def _with_own_last_line(parts: Iterable[Part]) -> list[Part]:
    """Let lines that were added to the end, or removed from there, be lines, though they begin with a line end."""
    parts = list(parts)
    if len(parts) > 1 and parts[-2][0] == "same" and re.match("\n.", parts[-1][1], re.DOTALL):
        tag, text = parts.pop()
        parts += [("same", "\n"), (tag, text[1:])]
    return parts


def _lines(parts: Iterable[Part]) -> Iterator[list[Part]]:
    line: list[Part] = []
    for tag, text in parts:
        for piece in _LINE.findall(text):
            line.append((tag, piece))
            if piece.endswith("\n"):
                yield line
                line = []
    if line:
        yield line


def _without_line_ends(line: list[Part]) -> list[Part]:
    """Take the line ends out; one that was added or removed within a line, or with an empty line, is shown."""
    is_whole = len({tag for tag, _ in line}) == 1
    found = []
    for tag, text in line:
        shows = tag != "same" and (not is_whole or text == "\n")
        found.append((tag, printable(text.removesuffix("\n")) + r"\n" * (shows and text.endswith("\n"))))
    return [part for part in found if part[1]]


def _cut(line: list[Part]) -> list[Part]:
    found: list[Part] = []
    left = LONGEST_LINE
    for tag, text in line:
        if len(text) > left:
            return [*found, (tag, f"{text[:left]}…")]
        found.append((tag, text))
        left -= len(text)
    return found


def _with_visible_changes(parts: Iterable[Part]) -> Iterator[Part]:
    parts = list(parts)
    for place, (tag, text) in enumerate(parts):
        around = parts[max(0, place - 1) : place + 2]
        other = next((each for other_tag, each in around if {tag, other_tag} == {"removed", "added"}), "")
        if tag != "same":
            is_at_end = place + 1 == len(parts) or parts[place + 1][1].startswith("\n")
            show = visible if is_at_end or not text.strip(" ") else _distinct
            yield tag, show(text, other)
        else:
            yield tag, text


def visible(text: str, other: str) -> str:
    """Return a text with everything escaped that would hide how it differs from the other: it looks the same, or spaces.

    Line ends are left.
    """
    text = _distinct(text, other)
    bare = text.rstrip(" ")
    return _printable_lines(bare + r"\x20" * (len(text) - len(bare)))


def _distinct(text: str, other: str) -> str:
    if text != other and unicodedata.normalize("NFKC", text) == unicodedata.normalize("NFKC", other):
        return "\n".join(ascii(line)[1:-1] for line in text.split("\n"))
    return text


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def bracketed(tag: Tag, text: str) -> str:
    """Return a piece as git's word diff shows it without colours: ``[-removed-]{+added+}``."""
    return {"same": text, "removed": f"[-{text}-]", "added": f"{{+{text}+}}"}[tag]


def shown(parts: Sequence[Part], paint: Callable[[Tag, str], str] = bracketed) -> str:
    """Return one line of text for the pieces of a line: ``- removed``, ``+ added``, or with both marked by ``paint``.

    ``paint`` gets each piece with its tag.
    """
    tags = {tag for tag, _ in parts}
    if len(tags) == 1 and "same" not in tags:
        [tag] = tags
        text = f"{'-' if tag == 'removed' else '+'} {''.join(text for _, text in parts)}"
        return text if paint is bracketed else paint(tag, text)
    return "  " + "".join(paint(tag, text) for tag, text in parts)


def printable(text: str) -> str:
    """Return a text with everything escaped that a terminal would not show."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
