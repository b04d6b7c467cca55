"""The secrets of this machine: values of its environment and of a call's arguments."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from pytest_lmcache.redact.names import (
    is_address_name,
    is_content,
    is_credential_name,
    is_credible,
    is_searchable,
    is_secret_name,
    is_secret_variable,
    may_be_secret,
    told_by,
    variable_words,
    word_set,
)
from pytest_lmcache.redact.scan import is_query_secret

_CUT_START = 12  # characters of a secret that have to be there where a text breaks off in it
_DEEPEST = 5  # levels of a call's arguments that are searched for secrets to learn


def secrets_in(name: str, value: str) -> Iterator[str]:
    """The secrets that a value under a secret name consists of: itself, without its scheme, and its parts."""
    value = without_scheme(value.strip())
    for part_name, part in (*_parts(name, value), (name, value)):
        if is_searchable(part, part_name):
            yield part


def _parts(name: str, value: str) -> Iterable[tuple[str, str]]:
    """The secrets with their names in a JSON key, in a connection string, in a list with commas."""
    if value.startswith(("{", "[")):
        try:
            return _texts(name, json.loads(value))
        except (ValueError, RecursionError):
            return ()
    if pairs := [pair for pair in _PAIR.findall(value) if is_secret_name(pair[0])]:
        return pairs
    return ((name, part) for part in _SEPARATED.split(value) if is_credible(part))


def _texts(name: str, data: Any) -> Iterator[tuple[str, str]]:
    if isinstance(data, dict):
        for inner, part in data.items():
            yield from _texts(inner, part)
    elif isinstance(data, list):
        for part in data:
            yield from _texts(name, part)
    elif isinstance(data, str) and (is_secret_name(name) or (may_be_secret(name) and is_credible(data))):
        yield name, data


_PAIR = re.compile(r"([A-Za-z][\w ]*?)\s*=\s*([^;\s]+)")
_SEPARATED = re.compile(r"[,;\s]+")


def without_scheme(value: str) -> str:
    """A credential without the scheme that a header has before it, such as ``Bearer``."""
    scheme, _, rest = value.partition(" ")
    return rest.strip() if scheme.lower() in ("bearer", "basic", "token", "apikey") else value


@lru_cache(maxsize=4096)
def _secrets_in_url(url: str) -> tuple[str, ...]:
    try:
        parts = urlsplit(url)
        user, password = parts.username or "", parts.password or ""
        # A server that is not yet set up has one word for both, one for development a word of any prompt.
        is_set = password != user or any(map(str.isdigit, password))
        is_word = re.fullmatch("[a-z]{1,11}", password) is not None
        values = [
            password if is_set and not is_word else "",
            "" if password or not is_credible(user) else user,
        ]
        values += (value for name, value in parse_qsl(parts.query) if is_query_secret(name, f"={value}"))
    except ValueError:  # not a URL after all
        return ()
    return tuple(value for value in values if value and is_searchable(value, "url"))


@lru_cache(maxsize=4096)
def as_written(secret: str) -> frozenset[str]:
    """A secret as it stands in plain text, in a URL and in JSON."""
    quoted = {quote(secret, safe=""), quote(secret)}
    in_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    lower = {_PERCENT.sub(lambda found: found[0].lower(), each) for each in quoted}
    return frozenset({secret, secret.replace("/", "\\/"), *quoted, *lower, *in_json})


_PERCENT = re.compile("%[0-9A-F]{2}")


_OFTEN_WORDS = frozenset({"auth", "credential", "credentials", "key", "keys", "pat", "tokens"})
# A name such as customer_id or gpt-4o-mini, or a number.
_WORDLIKE = re.compile(r"(?=.{1,19}\Z)(?:(?:[a-z]+|[0-9]+|[a-z0-9]{1,7})(?:[-_.]|\Z))+")


def secrets_of(name: str, value: str) -> Iterable[str]:
    """The secrets that an environment variable holds.

    A ``*_KEY`` may be a database's or a dictionary's, an ``*_AUTH`` the name of a method: where the name says no
    more, a word is none.
    """
    if not is_secret_variable(name):
        return _secrets_in_url(value)
    words = variable_words(name)
    if words[-2:] == ["connection", "string"]:
        parts = (part for part_name, part in _parts(name, value) if is_searchable(part, part_name))
        found = (*_secrets_in_url(value), *parts)
        return found if found or "://" in value else secrets_in(name, value)
    is_named = is_secret_name("_".join(words)) or words[-1] not in _OFTEN_WORDS
    return () if not is_named and _WORDLIKE.fullmatch(value.strip()) else secrets_in(name, value)


def may_hold_secret(name: str | bytes, value: str | bytes) -> bool:
    """Whether a variable may hold a secret."""
    return is_secret_variable(os.fsdecode(name)) or "://" in os.fsdecode(value)


class Environment:
    """The variables that may hold a secret; read again only when the environment changed."""

    __slots__ = ("_environ", "_last")

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._last: tuple[Any, frozenset[tuple[str, str]]] = (None, frozenset())

    def variables(self) -> frozenset[tuple[str, str]]:
        """Their names and values; the same object while they stay the same."""
        environ, (seen, variables) = self._environ, self._last
        # os.environ decodes every name and value when compared; the dict under it compares in 0.3 µs.
        raw = getattr(environ, "_data", environ)
        if raw != seen:
            # Looked at once: another thread may set a variable meanwhile. pytest sets one of its own three times a test.
            now = dict(raw)
            changed = seen is None or any(may_hold_secret(*pair) for pair in now.items() ^ seen.items())
            seen = now
            if changed:
                present = frozenset(
                    (name, value)
                    for name in list(environ)
                    if (value := environ.get(name)) and may_hold_secret(name, value)
                )
                variables = variables if present == variables else present
            self._last = (seen, variables)
        return variables


# Attributes of the module litellm that users set a provider's key on; the alphabetically first names a value.
MODULE_KEYS = tuple(
    sorted(
        word_set(
            "ai21_key aleph_alpha_key amazon_nova_api_key anthropic_key api_key azure_key baseten_key bytez_key "
            "clarifai_key cloudflare_api_key cohere_key cometapi_key databricks_key datarobot_key gdc_key gigachat_key "
            "gradient_ai_api_key groq_key heroku_key huggingface_key inception_key infinity_key lemonade_key "
            "llama_api_key maritalk_key nebius_key nlp_cloud_key novita_api_key ollama_key openai_key "
            "openai_like_key openrouter_key ovhcloud_key predibase_key replicate_key sap_service_key snowflake_key "
            "togetherai_api_key token vercel_ai_gateway_key wandb_key xai_key"
        )
    )
)


def cut_off(text: str, secret: str) -> int | None:
    """Where a secret begins that a text breaks off in, half of it at least, as the answer that was cut."""
    at = text.find(secret[:_CUT_START], max(0, len(text) - len(secret)))
    left = text[at:]
    # A word of letters alone may be one of the language.
    is_cut = at >= 0 and len(left) >= len(secret) // 2 and not left.isalpha() and secret.startswith(left)
    return at if is_cut else None


def learn_value(name: str, value: Any, found: dict[str, str], depth: int = _DEEPEST) -> None:
    """Add to ``found`` the secrets that an argument holds, with their names."""
    if isinstance(value, str):
        secrets: Iterable[str] = ()
        credible = (is_secret_name(name) or may_be_secret(name)) and is_credible(without_scheme(value))
        # Deeper down, the name of a password may be that of something else.
        if credible or (is_secret_name(name) if depth == _DEEPEST else is_credential_name(name)):
            secrets = secrets_in(name, value)
        elif "://" in value and is_address_name(name):
            secrets = _secrets_in_url(value)
        for secret in secrets:
            found[secret] = min(name.lower(), found.get(secret, "\uffff"))
    elif depth and isinstance(value, Mapping):
        for inner, part in value.items():
            if isinstance(inner, str) and is_content(inner):
                continue
            told = told_by(value) if inner == "key" else inner
            inner_depth = depth if name.endswith("headers") else depth - 1
            learn_value(told if isinstance(told, str) else "", part, found, inner_depth)
    elif depth and isinstance(value, list | tuple):
        for part in value:
            learn_value(name, part, found, depth - 1)
