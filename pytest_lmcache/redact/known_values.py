"""The secrets of this machine: values of its environment, of calls' arguments, and of the module ``litellm``."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from pytest_lmcache.redact.names import (
    NameKind,
    is_address_name,
    is_content_name,
    is_credential,
    is_searchable,
    is_secret_name,
    is_secret_variable,
    name_from_type,
    name_kind,
    variable_words,
    word_set,
)
from pytest_lmcache.redact.scan import Known, secrets_in_url

_MAX_DEPTH = 5  # levels of a call's arguments that are searched for secrets
_LAST = "\uffff"  # sorts after every name
_OFTEN_INNOCENT = word_set("auth credential credentials key keys pat tokens")
# A name such as customer_id or gpt-4o-mini, or a number.
_IDENTIFIER = re.compile(r"(?=.{1,19}\Z)(?:(?:[a-z]+|[0-9]+|[a-z0-9]{1,7})(?:[-_.]|\Z))+")
_PAIR = re.compile(r"([A-Za-z][\w ]*?)\s*=\s*([^;\s]+)")
_SEPARATOR = re.compile(r"[,;\s]+")
_ESCAPE = re.compile("%[0-9A-F]{2}")
# Attributes of the module litellm that users set a provider's key on; the alphabetically first names a value.
MODULE_KEYS = (
    "ai21_key aleph_alpha_key amazon_nova_api_key anthropic_key api_key azure_key baseten_key bytez_key "
    "clarifai_key cloudflare_api_key cohere_key cometapi_key databricks_key datarobot_key gdc_key gigachat_key "
    "gradient_ai_api_key groq_key heroku_key huggingface_key inception_key infinity_key lemonade_key "
    "llama_api_key maritalk_key nebius_key nlp_cloud_key novita_api_key ollama_key openai_key "
    "openai_like_key openrouter_key ovhcloud_key predibase_key replicate_key sap_service_key snowflake_key "
    "togetherai_api_key token vercel_ai_gateway_key wandb_key xai_key"
).split()

# ---- the secrets in one value --------------------------------------------------------------------------


def without_scheme(value: str) -> str:
    """Return a credential without the scheme before it, such as ``Bearer``."""
    scheme, _, rest = value.partition(" ")
    return rest.strip() if scheme.lower() in ("bearer", "basic", "token", "apikey") else value


def _secrets_in(name: str, value: str) -> Iterator[str]:
    """The secrets in a value under a secret name: the value without its scheme, and its parts."""
    value = without_scheme(value.strip())
    for part_name, part in (*_parts(name, value), (name, value)):
        if is_searchable(part, part_name):
            yield part


def _parts(name: str, value: str) -> Iterable[tuple[str, str]]:
    """The secrets with their names in JSON, in a connection string, or in a list with commas."""
    if value.startswith(("{", "[")):
        try:
            return _json_texts(name, json.loads(value))
        except (ValueError, RecursionError):
            return ()
    if pairs := [pair for pair in _PAIR.findall(value) if is_secret_name(pair[0])]:
        return pairs
    return ((name, part) for part in _SEPARATOR.split(value) if is_credential(part))


def _json_texts(name: str, data: Any) -> Iterator[tuple[str, str]]:
    if isinstance(data, dict):
        for inner, part in data.items():
            yield from _json_texts(inner, part)
    elif isinstance(data, list):
        for part in data:
            yield from _json_texts(name, part)
    elif isinstance(data, str) and _is_secret(name, data, NameKind.SECRET):
        yield name, data


def _is_secret(name: str, value: str, kind: NameKind) -> bool:
    """Whether a text is a secret: by a name of at least this kind, or by a doubtful name and its value."""
    return name_kind(name) >= kind or (name_kind(name) is not NameKind.OTHER and is_credential(value))


def _secrets_in_variable(name: str, value: str) -> Iterable[str]:
    """The secrets in an environment variable.

    A ``*_KEY`` may be a database's or a dictionary's, an ``*_AUTH`` the name of a method: under such a name a word
    is no secret.
    """
    if not is_secret_variable(name):
        return secrets_in_url(value)
    words = variable_words(name)
    if words[-2:] == ["connection", "string"]:
        parts = (part for part_name, part in _parts(name, value) if is_searchable(part, part_name))
        found = (*secrets_in_url(value), *parts)
        return found if found or "://" in value else _secrets_in(name, value)
    is_innocent = words[-1] in _OFTEN_INNOCENT and not is_secret_name("_".join(words))
    return () if is_innocent and _IDENTIFIER.fullmatch(value.strip()) else _secrets_in(name, value)


@lru_cache(maxsize=4096)
def _spellings(secret: str) -> frozenset[str]:
    """A secret as it is written in plain text, in a URL and in JSON."""
    quoted = {quote(secret, safe=""), quote(secret)}
    in_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    lower = {_ESCAPE.sub(lambda found: found[0].lower(), each) for each in quoted}
    return frozenset({secret, secret.replace("/", "\\/"), *quoted, *lower, *in_json})


def _collect(name: str, value: Any, found: dict[str, str], depth: int = _MAX_DEPTH) -> None:
    """Add the secrets in an argument to ``found``, with their names."""
    if isinstance(value, str):
        secrets: Iterable[str] = ()
        # Deeper down, the name of a password may be that of something else.
        kind = NameKind.SECRET if depth == _MAX_DEPTH else NameKind.CREDENTIAL
        if _is_secret(name, without_scheme(value), kind):
            secrets = _secrets_in(name, value)
        elif "://" in value and is_address_name(name):
            secrets = secrets_in_url(value)
        for secret in secrets:
            found[secret] = min(name.lower(), found.get(secret, _LAST))
    elif depth and isinstance(value, Mapping):
        inner_depth = depth if name.endswith("headers") else depth - 1
        for inner, part in value.items():
            if not (isinstance(inner, str) and is_content_name(inner)):
                inner_name = name_from_type(value) if inner == "key" else inner
                _collect(inner_name if isinstance(inner_name, str) else "", part, found, inner_depth)
    elif depth and isinstance(value, list | tuple):
        for part in value:
            _collect(name, part, found, depth - 1)


# ---- the secrets of a machine --------------------------------------------------------------------------


def may_hold_secret(name: str | bytes, value: str | bytes) -> bool:
    """Whether a variable may hold a secret."""
    return is_secret_variable(os.fsdecode(name)) or "://" in os.fsdecode(value)


class KnownSecrets:
    """The secrets to search for in any text. A value seen once is searched for ever after.

    ``table`` has each way to write a secret with the name of its placeholder, the longest first.
    """

    __slots__ = ("_arguments", "_environ", "_last", "_lock", "_module", "_variables", "table")

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._last: Any = None
        self.table: Known = ()
        self._lock = threading.Lock()
        self._variables: frozenset[tuple[str, str]] = frozenset()
        self._arguments: dict[str, str] = {}
        self._module: tuple[Any, ...] = ()

    def read_environment(self) -> None:
        """Add the secrets of variables that changed."""
        # os.environ decodes every name and value when compared; the dict under it compares in 0.3 µs.
        environ, raw, last = self._environ, getattr(self._environ, "_data", self._environ), self._last
        if raw == last:
            return
        # Copied first: another thread may set a variable meanwhile. pytest sets one of its own three times a test.
        now = dict(raw)
        if last is None or any(may_hold_secret(*pair) for pair in now.items() ^ last.items()):
            pairs = ((name, environ.get(name)) for name in list(environ))
            self.add([(name, value) for name, value in pairs if value and may_hold_secret(name, value)], {})
        self._last = now

    def learn(self, arguments: Mapping[str, Any]) -> None:
        """Add the secrets among a call's raw arguments. Never raises."""
        found: dict[str, str] = {}
        self._read_module(found)
        for name, value in arguments.items():
            # A caller's odd mapping must not stop the call, nor hide the other arguments.
            with suppress(Exception):
                if name != "tools" and not is_content_name(name):
                    _collect(name, value, found)
                if value is not None and name.endswith("client"):
                    _collect("api_key", getattr(value, "api_key", None), found, 0)
        self.add((), found)

    def add(self, variables: Collection[tuple[str, str]], arguments: Mapping[str, str]) -> None:
        """Add variables (name and value), and secrets of arguments (each with its name)."""
        with self._lock:
            new = {
                secret: name
                for secret, name in arguments.items()
                if self._arguments.get(secret, _LAST) > name
            }
            if not new and self._variables.issuperset(variables):
                return
            self._variables = self._variables.union(variables)
            self._arguments |= new
            table: dict[str, str] = {}
            for name, value in sorted(self._variables):  # the environment's names before an argument's
                for secret in _secrets_in_variable(name, value):
                    table |= dict.fromkeys(_spellings(secret) - table.keys(), name)
            for name, secret in sorted((name, secret) for secret, name in self._arguments.items()):
                table |= dict.fromkeys(_spellings(secret) - table.keys(), name)
            self.table = tuple(sorted(table.items(), key=lambda item: (-len(item[0]), item)))

    def pairs(self) -> list[list[tuple[str, str]]]:
        """Return the variables and the arguments that hold secrets, as sorted pairs of a name and a value."""
        return [sorted(self._variables), sorted((name, secret) for secret, name in self._arguments.items())]

    def _read_module(self, found: dict[str, str]) -> None:
        module = sys.modules.get("litellm")
        if module is None:
            return
        headers = vars(module).get("headers")
        headers = dict(headers) if isinstance(headers, Mapping) else None
        values = (headers, *map(vars(module).get, MODULE_KEYS))
        if values != self._module:
            self._module = values
            _collect("headers", headers, found)
            for name, value in zip(MODULE_KEYS, values[1:], strict=True):
                if isinstance(value, str):
                    for secret in _secrets_in(name, value):
                        found.setdefault(secret, name)
