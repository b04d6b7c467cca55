"""Finds secrets in a text by their format, their label and their place in a URL, and the secrets of a URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from pytest_lmcache.environment import DUMMY_KEY
from pytest_lmcache.redact.formats import AFTER_ESCAPE, ESCAPES, FORMATS, Format, matcher
from pytest_lmcache.redact.names import (
    BEFORE_HARMLESS_TOKEN,
    FILE,
    PASSWORDS,
    VARIABLE_OR_WORD,
    is_credential,
    is_dummy,
    is_password,
    is_random,
    is_searchable,
    is_secret_name,
    is_wordy,
    word_set,
    words_of,
)
from pytest_lmcache.redact.placeholders import (
    KNOWN_RANK,
    LABEL_RANK,
    PLACEHOLDER,
    URL_RANK,
    Span,
    placeholder_for,
    replaced,
)

Known: TypeAlias = tuple[tuple[str, str], ...]
"""Secrets of this machine as they may be written, each with its name; the longest first."""
_Finder: TypeAlias = Callable[[str, int, Known], Iterator[Span]]

_LEAST_ECHO = 4  # characters of a masked secret that have to be left to know it by

# ---- URLs ----------------------------------------------------------------------------------------------

_CREDENTIALS = re.compile(r"://(?P<span>[^\s/?#<>\"'\\`|]{1,256})@")
_PARAMETER = re.compile(r"([?&])([A-Za-z0-9_.\-]{2,40})=([^&#]*)")
_QUERY_SECRETS = word_set(
    "credential jwt pass sig signature subscriptionkey xamzcredential xamzsecuritytoken xamzsignature "
    "xgoogcredential xgoogsignature"
)
# The value of one of these is as likely a word or a number. A key is longer, of letters and digits.
_DOUBTFUL = word_set("auth code key token")
_QUERY_CHAR = r"[^\s&#\"'<>\\`|(){}\[\],;+]"
_LIKE_A_KEY = re.compile(
    rf"{_QUERY_CHAR}{{16}}|(?={_QUERY_CHAR}{{12}})(?={_QUERY_CHAR}{{0,15}}[A-Za-z])"
    rf"(?:(?={_QUERY_CHAR}{{0,15}}[0-9])|(?={_QUERY_CHAR}{{0,15}}[a-z])(?={_QUERY_CHAR}{{0,15}}[A-Z]))"
)


def is_query_secret(name: str, value: str) -> bool:
    """Whether a URL's parameter is a secret, by its name and its value."""
    if re.sub(r"[^a-z]", "", name.lower()) in _DOUBTFUL:
        return _LIKE_A_KEY.match(value) is not None and (value == DUMMY_KEY or not is_wordy(value))
    return _is_query_name(name) and not (is_dummy(value, name) or VARIABLE_OR_WORD.fullmatch(value))


@lru_cache(maxsize=4096)
def _is_query_name(name: str) -> bool:
    """Whether a URL's parameter of this name is a secret, whatever its value."""
    return re.sub(r"[^a-z]", "", name.lower()) in _QUERY_SECRETS or is_secret_name(name)


def redact_address(url: str) -> str:
    """The address of a call without its credentials: other machines have others in it, or none."""
    clean = redact_parameters(_CREDENTIALS.sub(f"://{placeholder_for('url-credentials')}@", url))
    return url if clean == url else clean  # the same object if nothing changes


def redact_parameters(query: str) -> str:
    """The parameters of a call's address, without the values of those that are secrets."""
    return _PARAMETER.sub(_redacted, query)


def _redacted(parameter: re.Match[str]) -> str:
    separator, name, value = parameter.groups()
    if name.lower() in _DOUBTFUL:
        is_secret = not value or is_query_secret(name, value)
    else:
        is_secret = _is_query_name(name)
    return f"{separator}{name}={placeholder_for(name.lower())}" if is_secret else parameter[0]


@lru_cache(maxsize=4096)
def secrets_in_url(url: str) -> Iterable[str]:
    """The secrets of a URL that may be searched for in any text."""
    try:
        parts = urlsplit(url)
        user, password = parts.username or "", parts.password or ""
        # A new server has one word for both; a server for development has a word of any prompt.
        is_set = password != user or any(map(str.isdigit, password))
        is_word = re.fullmatch("[a-z]{1,11}", password) is not None
        values = [
            password if is_set and not is_word else "",
            "" if password or not is_credential(user) else user,
        ]
        values += (value for name, value in parse_qsl(parts.query) if is_query_secret(name, f"={value}"))
    except ValueError:  # not a URL
        return ()
    return tuple(value for value in values if value and is_searchable(value, "url"))


# ---- places to look at closely -------------------------------------------------------------------------
# One scan finds them all. It hangs on the rarest character of each literal, because the regex engine skips quickly
# to a set of first characters, and looks back and ahead from there.

_BY_RARITY = ("[-_~*]", "[A-Z]", "[./:=0-9]", "[bjkpqvwxz]", ".")
_AFTER_ESCAPED = "|".join(f"(?<={escape}.)" for escape in ESCAPES)
# The last two letters of every word that a secret's label ends in, so that other colons are passed over.
_ENDINGS = "|".join(
    "".join(f"[{letter}{letter.upper()}]" for letter in ending)
    for ending in "al de ed en et ey ie ig is ls on rd re se th wd wt".split()
)
_LABELLED = "(?:" + "|".join(rf"(?<=(?:{_ENDINGS}){quotes}.)" for quotes in ("", "[\"'` ]", r"\\[\"']")) + ")"
_MASK = re.compile(r"[*•…]|\.\.\.")
_MASK_START = r"(?=\*\*)(?<!\*\*)"
# An account's key in Azure's storage has no beginning. The digest of a script that a page loads looks like it.
_STORAGE_START = rf"(?==(?!=))(?<=(?:(?<![A-Za-z0-9+/-])|{AFTER_ESCAPE})[A-Za-z0-9+/]{{86}}=)"


class _Place(NamedTuple):
    """Where to look closely: at a character between what stands before and after it."""

    character: str
    around: str
    finder: _Finder
    before: str = ""  # the character right before it


def _rarest(literal: str) -> int:
    """The index of a literal's rarest character."""
    return next(found.start() for kind in _BY_RARITY if (found := re.search(kind, literal)))


def _place(form: Format, start: str, rank: int) -> _Place:
    finder = _format_finder(form, start, rank)
    if form.followed_by:
        around = f"(?={re.escape(start[1:])}{form.followed_by})"
        if not any(form.offsets):
            around = f"(?:(?<!{form.not_after}.)|{_AFTER_ESCAPED}){around}"
        return _Place(start[0], around, finder)
    at = _rarest(start)
    around = f"(?<={re.escape(start[: at + 1])})" if at else ""
    if after := start[at + 1 :]:
        around += f"(?={re.escape(after)})"
    return _Place(start[at], around, finder, start[at - 1] if at else "")


def _scanner() -> tuple[re.Pattern[str], list[_Finder]]:
    """The scan, and the finder for each of its groups, which are empty: they tell which alternative matched."""
    places = [_place(form, start, rank) for rank, form in enumerate(FORMATS) for start in form.starts]
    # csk- before sk-, sk-ant- before sk-: the first that fits decides.
    places.sort(key=lambda place: -len(place.around))
    places += [
        _Place(":", "(?=//)", _find_credentials),
        _Place(":", _LABELLED, _find_labelled),
        _Place("=", _STORAGE_START, _find_storage_key),
        _Place("=", _LABELLED, _find_labelled),
        _Place("*", _MASK_START, _find_masked),
    ]
    # What stands right before a character decides first: most hyphens and underscores belong to no key.
    groups: dict[str, dict[str, list[_Place]]] = {}
    for place in places:
        groups.setdefault(place.character, {}).setdefault(place.before, []).append(place)
    choices: list[str] = []
    finders: list[_Finder] = []
    for character, by_before in groups.items():
        branches = []
        for before, group in by_before.items():
            lookbehind = f"(?<={re.escape(before)}.)" if before else ""
            branches.append(f"{lookbehind}(?:{'|'.join(f'{place.around}()' for place in group)})")
            finders += [place.finder for place in group]
        choices.append(f"{re.escape(character)}(?:{'|'.join(branches)})")
    return re.compile("|".join(choices), re.ASCII | re.DOTALL), finders


# ---- finders -------------------------------------------------------------------------------------------

_QUERY_NAME = re.compile(r"(?:[?&;#]|\\u0026)([A-Za-z0-9_.\-]{2,40})$")
_QUERY_VALUE = re.compile(r"=(?P<span>[^\s=&#\"'<>\\`|(){}\[\],;][^\s&#\"'<>\\`|(){}\[\],;]*)")
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
    is_token = words[-1:] == ["token"] and words[-2:-1] and words[-2] not in BEFORE_HARMLESS_TOKEN
    return "_".join(words[-2:]) if is_token or words in (["token"], ["x", "auth"]) else None


def _format_finder(form: Format, start: str, rank: int) -> _Finder:
    index = 0 if form.followed_by else _rarest(start)
    offsets = [index + offset for offset in form.offsets]

    def find(text: str, at: int, _: Known) -> Iterator[Span]:
        for offset in offsets:
            # Compiled for the first text that has the beginning: most formats turn up in no run.
            found = matcher(form, start).match(text, at - offset) if at >= offset else None
            if found and (not form.is_random or is_random(found["span"]) or _MASK.search(found["span"])):
                yield Span(*found.span("span"), rank, form.kind)

    return find


def _find_credentials(text: str, at: int, _: Known) -> Iterator[Span]:
    found = _CREDENTIALS.match(text, at)
    if found is None:
        return
    user, colon, password = found["span"].partition(":")
    is_word = _WORD.fullmatch(password) or VARIABLE_OR_WORD.fullmatch(password) or is_dummy(password, user)
    if is_credential(user) or (colon and not is_word):
        yield Span(*found.span("span"), URL_RANK, "url-credentials")


def _find_labelled(text: str, at: int, _: Known) -> Iterator[Span]:
    query = _QUERY_NAME.search(text[max(0, at - 48) : at]) if text[at] == "=" else None
    if query and (value := _QUERY_VALUE.match(text, at)) and is_query_secret(query[1], value["span"]):
        yield Span(*value.span("span"), URL_RANK, query[1].lower())
        if value["span"] == DUMMY_KEY:  # what this machine has in the place of a key
            yield Span(*value.span("span"), KNOWN_RANK, query[1].lower())
        return
    found = _LABELLED_VALUE.match(text, at)
    password = None
    if text[at] == "=" and _PASSWORD_NAME.search(text, max(0, at - 24), at):
        password = _PASSWORD_VALUE.match(text, at)
    if not (found or password) or (label := _label_before(text, at)) is None:
        return
    if found and (masked := found["masked"]):
        if label.endswith(("key", "token")) and sum(map(str.isalnum, masked)) >= _LEAST_ECHO:
            yield Span(*found.span("masked"), LABEL_RANK, label)
    elif (
        found
        and is_credential(found["span"])
        and "://" not in found["span"]
        and not FILE.fullmatch(found["span"])
    ):
        yield Span(*found.span("span"), LABEL_RANK, label)
    elif password and label.endswith(tuple(PASSWORDS)) and is_password(password["span"], label):
        yield Span(*password.span("span"), LABEL_RANK, label)


def _find_storage_key(_text: str, at: int, _: Known) -> Iterator[Span]:
    yield Span(at - 86, at + 2, len(FORMATS), "azure-key")


def _find_masked(text: str, at: int, known: Known) -> Iterator[Span]:
    tail = _MASKED_TAIL.match(text, at)
    head = _MASKED_HEAD.search(text[max(0, at - 40) : at])
    if tail is None or head is None or len(head[0]) + len(tail[1]) < _LEAST_ECHO:
        return
    for value, name in known:
        if value.startswith(head[0]) and value.endswith(tail[1]):
            yield Span(at - len(head[0]), tail.end(), KNOWN_RANK, name)


_SCANNER, FINDERS = _scanner()


def find_secrets(text: str, known: Known) -> Iterator[Span]:
    """Find what the built-in rules take out of a text; ``known`` are the secrets of this machine."""
    done: dict[int, int] = {}
    for place in _SCANNER.finditer(text):
        which = (place.lastindex or 0) - 1
        # Not within what the same finder found: a text of many beginnings would be read again and again.
        if place.start() >= done.get(which, 0):
            for span in FINDERS[which](text, place.start(), known):
                done[which] = span.end
                yield span


def redact_file_name(text: str) -> str:
    """Return a text for a file's name, the same on every machine, with the kinds of well-known keys in their place."""
    clean, before = text, ""
    while clean != before:
        before, clean = clean, replaced(clean, list(find_secrets(clean, ())))
    if clean == text:
        return text
    return PLACEHOLDER.sub(lambda found: "-".join(found[0][1:-1].split(":")[:2]), clean)
