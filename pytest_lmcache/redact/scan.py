"""Finds secrets in a text by their format, their label and their place in a URL, and replaces them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from pytest_lmcache.environment import DUMMY_KEY
from pytest_lmcache.redact.formats import AFTER_ESCAPE, ESCAPES, FORMATS, Format, matcher
from pytest_lmcache.redact.names import (
    FILE,
    HARMLESS_TOKENS,
    PASSWORDS,
    PLACEHOLDER,
    STAND_IN,
    is_credible,
    is_filler,
    is_password,
    is_random,
    is_secret_name,
    is_wordy,
    placeholder_of,
    word_set,
    words_of,
)

_LEAST_ECHO = 4  # characters that have to be left of a masked secret to know it by


# One scan finds every place worth a closer look. It hangs on the rarest character of each literal, because
# the regex engine skips quickly to a set of first characters, and looks back and ahead from there.
_RARE = re.compile(
    r"(?P<rarest>[-_~*])|(?P<rare>[A-Z])|(?P<common>[./:=0-9])|(?P<seldom>[bjkpqvwxz])|(?P<frequent>.)"
)
_RARITY = {"rarest": 4, "rare": 3, "common": 2, "seldom": 1, "frequent": 0}


def _pivot(literal: str) -> int:
    """Where a literal's rarest character is."""
    kinds = [found.lastgroup or "" for found in _RARE.finditer(literal)]
    return max(range(len(literal)), key=lambda at: _RARITY[kinds[at]])


# The last two letters of every word that a secret's label ends in, so that other colons are passed over.
_ENDINGS = "|".join(
    "".join(f"[{letter}{letter.upper()}]" for letter in ending)
    for ending in sorted(word_set("al de ed en et ey ie ig is ls on rd re se th wd wt"))
)
_LABELLED = "(?:" + "|".join(rf"(?<=(?:{_ENDINGS}){quotes}.)" for quotes in ("", "[\"'` ]", r"\\[\"']")) + ")"

_MASK = re.compile(r"[*•…]|\.\.\.")
_MASK_START = r"(?=\*\*)(?<!\*\*)"


# An account's key in Azure's storage has no beginning; the digest of a script that a page loads looks like it.
_STORAGE_START = rf"(?==(?!=))(?<=(?:(?<![A-Za-z0-9+/-])|{AFTER_ESCAPE})[A-Za-z0-9+/]{{86}}=)"


Known: TypeAlias = tuple[tuple[str, str], ...]


class Span(NamedTuple):
    """A piece of a text to take out; where several overlap, the lowest rank names the whole."""

    start: int
    end: int
    rank: int
    name: str


_Look: TypeAlias = Callable[[str, int, Known], Iterator[Span]]


class _Place(NamedTuple):
    """Where in a text to look closer: at a character between what stands before and after it."""

    pivot: str
    around: str
    look: _Look
    before: str = ""  # the character right before it


def _place(form: Format, start: str, rank: int) -> _Place:
    look = _formatted(form, start, rank)
    if form.ahead:
        after_escape = "|".join(f"(?<={escape}.)" for escape in ESCAPES)
        around = f"(?={re.escape(start[1:])}{form.ahead})"
        if not any(form.back):
            around = f"(?:(?<!{form.left}.)|{after_escape}){around}"
        return _Place(start[0], around, look)
    at = _pivot(start)
    around = f"(?<={re.escape(start[: at + 1])})" if at else ""
    if after := start[at + 1 :]:
        around += f"(?={re.escape(after)})"
    return _Place(start[at], around, look, start[at - 1] if at else "")


_CREDENTIALS = re.compile(r"://(?P<span>[^\s/?#<>\"'\\`|]{1,256})@")
_QUERY_NAME = re.compile(r"(?:[?&;#]|\\u0026)([A-Za-z0-9_.\-]{2,40})$")
_QUERY_VALUE = re.compile(r"=(?P<span>[^\s=&#\"'<>\\`|(){}\[\],;][^\s&#\"'<>\\`|(){}\[\],;]*)")
PARAMETER = re.compile(r"([?&])([A-Za-z0-9_.\-]{2,40})=([^&#]*)")
_QUERY_SECRETS = word_set(
    "credential jwt pass sig signature subscriptionkey xamzcredential xamzsecuritytoken xamzsignature "
    "xgoogcredential xgoogsignature"
)
# Under these a word or a number is as likely: a key is longer, of letters and digits.
_DOUBTFUL = frozenset({"auth", "code", "key", "token"})
_NOT_IN_IT = r"[^\s&#\"'<>\\`|(){}\[\],;+]"
_LIKE_A_KEY = re.compile(
    rf"=(?:{_NOT_IN_IT}{{16}}|(?={_NOT_IN_IT}{{12}})(?={_NOT_IN_IT}{{0,15}}[A-Za-z])"
    rf"(?:(?={_NOT_IN_IT}{{0,15}}[0-9])|(?={_NOT_IN_IT}{{0,15}}[a-z])(?={_NOT_IN_IT}{{0,15}}[A-Z])))"
)
_LABEL = re.compile(r"[A-Za-z0-9]+(?:[ _.\-][A-Za-z0-9]+){0,4}$")
_WORD = re.compile("[A-Za-z]{0,11}")
_PASSWORD_NAME = re.compile("(?i)pass|pwd")
_PASSWORD_VALUE = re.compile(
    r"=(?!=)\s?(?:\\{0,2}[\"'`])?(?P<span>[^\s\"'`<>;&,(){}\[\]|\\]{6,64})(?<![.:])(?![(\[{])"
)
_VALUE, _IN_VALUE = r"[A-Za-z0-9+/_.~\-]", r"[A-Za-z0-9+/_.~:=%\-]"
_LABELLED_VALUE = re.compile(
    r"[:=]\s{0,2}(?:\\{0,2}[\"'`])?(?:(?:Basic|Bearer|Token|ApiKey)\s)?"
    r"(?:(?P<masked>[^\s\"'*<>]{0,40}\*{3,}[A-Za-z0-9_-]{0,40})|"
    rf"(?P<span>(?={_IN_VALUE}{{12}}){_VALUE}{{1,4096}}+(?:[:=%](?=[A-Za-z0-9]){_VALUE}{{1,4096}}+){{0,8}}+={{0,2}})(?!\())"
)
_MASKED_HEAD = re.compile(r"[A-Za-z0-9_-]{0,40}$")
_MASKED_TAIL = re.compile(r"\*+([A-Za-z0-9_-]{0,40})")

_URL_RANK, _LABEL_RANK, KNOWN_RANK, OWN_RANK = -1, 1000, 2000, 3000


def _label_before(text: str, at: int) -> str | None:
    """The secret's name that ends right before a colon or an equals sign, such as ``api_key``."""
    found = _LABEL.search(text[max(0, at - 64) : at].rstrip(" \"'`\\"))
    if found is None:
        return None
    words = words_of(found[0])
    if words and words[-1] in ("provided", "is"):
        words.pop()
    for count in range(1, len(words) + 1):
        name = "_".join(words[-count:])
        if is_secret_name(name):
            return name
    is_token = words[-1:] == ["token"] and words[-2:-1] and words[-2] not in HARMLESS_TOKENS
    return "_".join(words[-2:]) if is_token or words in (["token"], ["x", "auth"]) else None


@lru_cache(maxsize=4096)
def _is_query_name(name: str) -> bool:
    """Whether a URL's parameter of this name is a secret, whatever its value is."""
    return re.sub(r"[^a-z]", "", name.lower()) in _QUERY_SECRETS or is_secret_name(name)


def is_query_secret(name: str, value: str) -> bool:
    """Whether a URL's parameter is a secret: by its name and its value."""
    if re.sub(r"[^a-z]", "", name.lower()) in _DOUBTFUL:
        return _LIKE_A_KEY.match(f"={value}") is not None and (value == DUMMY_KEY or not is_wordy(value))
    return _is_query_name(name) and not (is_filler(value, name) or STAND_IN.fullmatch(value))


def bare_address(url: str) -> str:
    """An address that a call goes to without credentials: other machines have others in it, or none."""
    bare = PARAMETER.sub(own_parameter, _CREDENTIALS.sub(f"://{placeholder_of('url-credentials')}@", url))
    return url if bare == url else bare


def own_parameter(parameter: re.Match[str]) -> str:
    """A parameter of an address, without its value where that is a secret."""
    separator, name, value = parameter.groups()
    doubtful = name.lower() in _DOUBTFUL and (not value or is_query_secret(name, value))
    is_secret = doubtful or (name.lower() not in _DOUBTFUL and _is_query_name(name))
    return f"{separator}{name}={placeholder_of(name.lower())}" if is_secret else parameter[0]


def _formatted(form: Format, start: str, rank: int) -> _Look:
    pivot = 0 if form.ahead else _pivot(start)
    starts = [pivot + back for back in form.back]

    def look(text: str, at: int, _: Known) -> Iterator[Span]:
        for back in starts:
            # Compiled when the first text has its beginning: most formats turn up in no run.
            found = matcher(form, start).match(text, at - back) if at >= back else None
            if found and (not form.random or is_random(found["span"]) or _MASK.search(found["span"])):
                yield Span(*found.span("span"), rank, form.kind)

    return look


def _userinfo(text: str, at: int, _: Known) -> Iterator[Span]:
    found = _CREDENTIALS.match(text, at)
    if found is None:
        return
    user, colon, password = found["span"].partition(":")
    is_word = _WORD.fullmatch(password) or STAND_IN.fullmatch(password) or is_filler(password, user)
    if is_credible(user) or (colon and not is_word):
        yield Span(*found.span("span"), _URL_RANK, "url-credentials")


def _labelled(text: str, at: int, _: Known) -> Iterator[Span]:
    query = _QUERY_NAME.search(text[max(0, at - 48) : at]) if text[at] == "=" else None
    if query and (value := _QUERY_VALUE.match(text, at)) and is_query_secret(query[1], value["span"]):
        yield Span(*value.span("span"), _URL_RANK, query[1].lower())
        if value["span"] == DUMMY_KEY:  # what this machine has in the place of a key
            yield Span(*value.span("span"), KNOWN_RANK, query[1].lower())
        return
    found = _LABELLED_VALUE.match(text, at)
    password = None
    if text[at] == "=" and _PASSWORD_NAME.search(text, max(0, at - 24), at):
        password = _PASSWORD_VALUE.match(text, at)
    if (found is None and password is None) or (label := _label_before(text, at)) is None:
        return
    if found is not None and found["masked"]:
        is_echo = label.endswith(("key", "token")) and sum(map(str.isalnum, found["masked"])) >= _LEAST_ECHO
        if is_echo:
            yield Span(*found.span("masked"), _LABEL_RANK, label)
    elif found is not None and _is_labelled_secret(found["span"]):
        yield Span(*found.span("span"), _LABEL_RANK, label)
    elif password and label.endswith(tuple(PASSWORDS)) and is_password(password["span"], label):
        yield Span(*password.span("span"), _LABEL_RANK, label)


def _is_labelled_secret(value: str) -> bool:
    return is_credible(value) and "://" not in value and not FILE.fullmatch(value)


def _storage_key(_text: str, at: int, _: Known) -> Iterator[Span]:
    yield Span(at - 86, at + 2, len(FORMATS), "azure-key")


def _masked(text: str, at: int, known: Known) -> Iterator[Span]:
    tail = _MASKED_TAIL.match(text, at)
    head = _MASKED_HEAD.search(text[max(0, at - 40) : at])
    if tail is None or head is None or len(head[0]) + len(tail[1]) < _LEAST_ECHO:
        return
    for value, name in known:
        if value.startswith(head[0]) and value.endswith(tail[1]):
            yield Span(at - len(head[0]), tail.end(), KNOWN_RANK, name)


def _guard() -> tuple[re.Pattern[str], list[_Look]]:
    """The scan, and for each of its groups what looks closer; empty groups tell which alternative matched."""
    places = [_place(form, start, rank) for rank, form in enumerate(FORMATS) for start in form.starts]
    # csk- before sk-, sk-ant- before sk-: the first that fits is looked at.
    places.sort(key=lambda place: -len(place.around))
    places += _Place(":", "(?=//)", _userinfo), _Place(":", _LABELLED, _labelled)
    places += _Place("=", _STORAGE_START, _storage_key), _Place("=", _LABELLED, _labelled)
    places.append(_Place("*", _MASK_START, _masked))
    choices: list[str] = []
    looks: list[_Look] = []
    for pivot in dict.fromkeys(place.pivot for place in places):
        # What stands right before decides first: most hyphens and underlines belong to no key.
        groups: dict[str, list[_Place]] = {}
        for place in places:
            if place.pivot == pivot:
                groups.setdefault(place.before, []).append(place)
        branches = [
            (f"(?<={re.escape(before)}.)" if before else "")
            + "(?:"
            + "|".join(f"{place.around}()" for place in group)
            + ")"
            for before, group in groups.items()
        ]
        looks += [place.look for group in groups.values() for place in group]
        choices.append(f"{re.escape(pivot)}(?:{'|'.join(branches)})")
    return re.compile("|".join(choices), re.ASCII | re.DOTALL), looks


_GUARD, LOOKS = _guard()


def built_in(text: str, known: Known) -> Iterator[Span]:
    """What the built-in rules take out of a text."""
    done: dict[int, int] = {}
    for place in _GUARD.finditer(text):
        which = (place.lastindex or 0) - 1
        # Not inside of what the same look found: a text of many beginnings would be read again and again.
        if place.start() >= done.get(which, 0):
            for span in LOOKS[which](text, place.start(), known):
                done[which] = span.end
                yield span


def shown_in_a_name(text: str) -> str:
    """A text fit for a file's name: the same on every machine, secrets of well-known formats by their kind."""
    clean, before = text, ""
    while clean != before:
        before, clean = clean, replaced(clean, list(built_in(clean, ())))
    if clean == text:
        return text
    return PLACEHOLDER.sub(lambda found: "-".join(found[0][1:-1].split(":")[:2]), clean)


def replaced(text: str, spans: list[Span]) -> str:
    """Put placeholders in the place of spans; what is a placeholder already stays."""
    pieces: list[str] = []
    done = 0
    for start, end, placeholder in edits_of(text, spans):
        pieces += text[done:start], placeholder
        done = end
    return "".join([*pieces, text[done:]])


def edits_of(text: str, spans: list[Span]) -> list[tuple[int, int, str]]:
    """The placeholders in order, each with the part of the text that it replaces; placeholders stay."""
    if spans and "<redacted:" in text:
        for kept in PLACEHOLDER.finditer(text):
            spans = [piece for span in spans for piece in _outside(span, *kept.span())]
    known = [span for span in spans if span.rank >= KNOWN_RANK]
    return [
        (span.start, span.end, placeholder_of(span.name, unknown_part(text, span, known)))
        for span in _merged(spans)
    ]


def unknown_part(text: str, span: Span, known: list[Span]) -> str:
    """What of a span is no secret of this machine, nor what an own pattern takes out: others may have others."""
    left, done = "", span.start
    for own in sorted(known):
        if own.start < span.end and own.end > done:
            left += text[done : max(own.start, done)]
            done = own.end
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
    merged: list[Span] = []
    best: tuple[int, int, str] = (0, 0, "")  # of the spans that overlap: the rank, the longest, the name
    for span in sorted(spans):
        own = (span.rank, span.start - span.end, span.name)
        if merged and span.start < merged[-1].end:
            best = min(best, own)
            last = merged.pop()
            merged.append(Span(last.start, max(last.end, span.end), best[0], best[2]))
        else:
            best = own
            merged.append(span)
    return merged
