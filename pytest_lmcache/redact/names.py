"""What the name of an argument, a header, a field or a variable says of the value under it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any

from pytest_lmcache.redact.placeholders import PLACEHOLDER

_SECRET_WORDS = frozenset(
    (
        "accesstoken apikey apitoken authorization authtoken bearertoken clientsecret cookie passphrase passwd "
        "password pwd refreshtoken secret secretkey sessiontoken"
    ).split()
)
_BEFORE_KEY = frozenset(  # in the name of a secret: an api_key is one, a cache_key is none
    (
        "access account admin anthropic api app application auth cohere encryption function functions gemini groq hmac "
        "ingestion license master mistral openai openrouter private proxy salt secret service shared signing storage "
        "subscription webhook"
    ).split()
)
_BEFORE_TOKEN = frozenset(  # in the name of a secret; under a think_token the value decides
    (
        "access ad api app auth authorization azure bearer bot client csrf db deploy github gitlab hf hub huggingface "
        "id identity integration ngrok oauth personal push refresh replicate secret security session slack telegram "
        "user vault watsonx xsrf"
    ).split()
)
BEFORE_HARMLESS_TOKEN = frozenset(  # a piece of text, or of a listing
    (
        "audio begin bos cached class cls completion continuation cost decoder end eos first image input last mask max "
        "min next output pad page per prev previous prompt reasoning sep special start stop text to total unk"
    ).split()
)
_AFTER_VARIABLE = frozenset(  # a variable may have one value for each of several places
    (
        "a b backup ci central default dev development east eu global live local main new north old primary prod "
        "production qa sandbox secondary south stage staging test testing uat uk us v west"
    ).split()
)
_ABOUT_SECRETS = frozenset(  # secret_name is the name of something else
    "arn count file manager name path project ref reference region type uri url version".split()
)
_DOUBTFUL = frozenset({"auth", "bearer", "credential", "credentials", "jwt", "pass", "pat", "token"})
_PUBLIC_KEYS = frozenset({"public", "gpg", "cache", "object", "bucket"})
PASSWORDS = frozenset({"pass", "passphrase", "passwd", "password", "pwd"})
_ADDRESSES = frozenset({"base", "dsn", "endpoint", "host", "server", "uri", "url"})
# In arguments and answers. Users' names and values in JSON schemas are listed; "parameters" are not, since those of
# Azure's data sources hold credentials.
_CONTENT = frozenset(
    (
        "$defs arguments args chat_template_kwargs content contents default definitions documents examples function "
        "functions guided_json input input_examples instructions messages prompt properties query response_format system"
    ).split()
)


class NameKind(IntEnum):
    """What a name says of the text under it."""

    OTHER = 0
    DOUBTFUL = 1  # the value decides
    SECRET = 2
    CREDENTIAL = 3  # a secret wherever it is an argument; a game may have a ``secret`` and a ``password`` too


def words_of(name: str) -> list[str]:
    """The words of a name in any spelling, without a number at its end, as in ``API_KEY_2``."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.rstrip("0123456789_- "))
    return re.findall(r"[a-z0-9]+", spaced.lower())


@lru_cache(maxsize=4096)
def name_kind(name: str) -> NameKind:
    """What a name says of the text under it."""
    words = words_of(name)
    if not is_secret_name(name):
        return NameKind.DOUBTFUL if _DOUBTFUL.intersection(words[-1:]) else NameKind.OTHER
    is_password = (
        words[-1] in PASSWORDS
        or words[-1].endswith("password")
        or words[-1] == "cookie"
        or words == ["secret"]
        or ("secret" in words[:-1] and words[-1] not in ("key", "keys"))
    )
    return NameKind.SECRET if is_password else NameKind.CREDENTIAL


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a text under this argument, header or key name is a secret, whatever its value.

    False for ``token``, ``auth`` and ``credentials`` alone, which are often innocent: there the value decides.
    """
    words = words_of(name)
    if not words or PLACEHOLDER.fullmatch(name):  # the key of a mapping was a secret itself
        return False
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last in _SECRET_WORDS or last.endswith(("apikey", "password")):
        return True
    if "secret" in words:
        return not _ABOUT_SECRETS.intersection(words[words.index("secret") :])
    if last in ("key", "keys"):
        return before in _BEFORE_KEY
    if last == "token":
        return before in _BEFORE_TOKEN
    return (last in ("credential", "credentials") and before != "") or words[-3:] == ["access", "key", "id"]


def variable_words(name: str) -> list[str]:
    """The words of an environment variable's name, without those for the place that it is for."""
    words = words_of(name)
    while len(words) > 1 and words[-1] in _AFTER_VARIABLE:
        words.pop()
    return words


@lru_cache(maxsize=4096)
def is_secret_variable(name: str) -> bool:
    """Whether an environment variable of this name holds a secret: any ``*_KEY`` that is not public does."""
    words = variable_words(name)
    if name in ("PWD", "OLDPWD") or not words:
        return False
    if words[-1] in ("key", "keys"):
        return not _PUBLIC_KEYS.intersection(words)
    if words[-2:] in (["webhook", "url"], ["connection", "string"]) or "bearer" in words:
        return True
    if words[-1] in ("token", "tokens"):
        return not BEFORE_HARMLESS_TOKEN.intersection(words[-2:-1])
    return is_secret_name("_".join(words)) or words[-1] in _DOUBTFUL or words[-1] == "sshpass"


def is_content_name(name: str) -> bool:
    """Whether a model reads or writes what stands under this name: it is never a source of secrets to search for."""
    return name in _CONTENT or name.lower().endswith(("schema", "instruction"))


@lru_cache(maxsize=4096)
def is_address_name(name: str) -> bool:
    """Whether an argument of this name says where a call goes."""
    return bool(_ADDRESSES.intersection(words_of(name)[-1:]))


def name_from_type(value: Mapping[Any, Any]) -> str:
    """The name of what stands under ``key``: the ``type`` beside it, as in Azure's ``{"type": "api_key", "key": …}``."""
    kind = value.get("type")
    if isinstance(kind, str) and re.fullmatch("[A-Za-z0-9_-]{1,40}", kind) and is_secret_name(kind):
        return kind
    return "key"
