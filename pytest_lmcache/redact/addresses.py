"""The secrets of a URL: its credentials, and parameters such as ``sig``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import parse_qsl, urlsplit

from pytest_lmcache.environment import DUMMY_KEY
from pytest_lmcache.redact.names import is_secret_name
from pytest_lmcache.redact.placeholders import placeholder_for
from pytest_lmcache.redact.values import VARIABLE_OR_WORD, is_credential, is_dummy, is_searchable, is_wordy

CREDENTIALS = re.compile(r"://(?P<span>[^\s/?#<>\"'\\`|]{1,256})@")
_PARAMETER = re.compile(r"([?&])([A-Za-z0-9_.\-]{2,40})=([^&#]*)")
_SECRETS = frozenset(
    (
        "credential jwt pass sig signature subscriptionkey xamzcredential xamzsecuritytoken xamzsignature "
        "xgoogcredential xgoogsignature"
    ).split()
)
# The value of one of these is as likely a word or a number. A key is longer, of letters and digits.
_DOUBTFUL = frozenset({"auth", "code", "key", "token"})
_CHAR = r"[^\s&#\"'<>\\`|(){}\[\],;+]"
_LIKE_A_KEY = re.compile(
    rf"{_CHAR}{{16}}|(?={_CHAR}{{12}})(?={_CHAR}{{0,15}}[A-Za-z])"
    rf"(?:(?={_CHAR}{{0,15}}[0-9])|(?={_CHAR}{{0,15}}[a-z])(?={_CHAR}{{0,15}}[A-Z]))"
)


def is_query_secret(name: str, value: str) -> bool:
    """Whether a URL's parameter is a secret, by its name and its value."""
    if re.sub(r"[^a-z]", "", name.lower()) in _DOUBTFUL:
        return _LIKE_A_KEY.match(value) is not None and (value == DUMMY_KEY or not is_wordy(value))
    return _is_query_name(name) and not (is_dummy(value, name) or VARIABLE_OR_WORD.fullmatch(value))


@lru_cache(maxsize=4096)
def _is_query_name(name: str) -> bool:
    """Whether a URL's parameter of this name is a secret, whatever its value."""
    return re.sub(r"[^a-z]", "", name.lower()) in _SECRETS or is_secret_name(name)


def redact_address(url: str) -> str:
    """The address of a call without its credentials: other machines have others in it, or none."""
    bare = redact_parameters(CREDENTIALS.sub(f"://{placeholder_for('url-credentials')}@", url))
    return url if bare == url else bare


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
