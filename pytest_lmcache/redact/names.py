"""What a name says of the value under it, and what a value looks like: a key, a password, words, or a dummy."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any

from pytest_lmcache.environment import DUMMY_KEY
from pytest_lmcache.redact.placeholders import PLACEHOLDER


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


_SECRET_WORDS = word_set(
    "accesstoken apikey apitoken authorization authtoken bearertoken clientsecret cookie passphrase passwd "
    "password pwd refreshtoken secret secretkey sessiontoken"
)
_BEFORE_KEY = word_set(  # in the name of a secret: an api_key is one, a cache_key is none
    "access account admin anthropic api app application auth cohere encryption function functions gemini groq hmac "
    "ingestion license master mistral openai openrouter private proxy salt secret service shared signing storage "
    "subscription webhook"
)
_BEFORE_TOKEN = word_set(  # in the name of a secret; under a think_token the value decides
    "access ad api app auth authorization azure bearer bot client csrf db deploy github gitlab hf hub huggingface "
    "id identity integration ngrok oauth personal push refresh replicate secret security session slack telegram "
    "user vault watsonx xsrf"
)
BEFORE_HARMLESS_TOKEN = word_set(  # a piece of text, or of a listing
    "audio begin bos cached class cls completion continuation cost decoder end eos first image input last mask max "
    "min next output pad page per prev previous prompt reasoning sep special start stop text to total unk"
)
_AFTER_VARIABLE = word_set(  # a variable may have one value for each of several places
    "a b backup ci central default dev development east eu global live local main new north old primary prod "
    "production qa sandbox secondary south stage staging test testing uat uk us v west"
)
# A secret_name is the name of something else.
_ABOUT_SECRETS = word_set(
    "arn count file manager name path project ref reference region type uri url version"
)
_DOUBTFUL = word_set("auth bearer credential credentials jwt pass pat token")
_PUBLIC_KEYS = word_set("public gpg cache object bucket")
PASSWORDS = word_set("pass passphrase passwd password pwd")
_ADDRESSES = word_set("base dsn endpoint host server uri url")
# In arguments and answers. Users' names and values in JSON schemas are listed; "parameters" are not, since those of
# Azure's data sources hold credentials.
_CONTENT = word_set(
    "$defs arguments args chat_template_kwargs content contents default definitions documents examples function "
    "functions guided_json input input_examples instructions messages prompt properties query response_format system"
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


# ---- values --------------------------------------------------------------------------------------------

SHORTEST_SECRET = 8  # characters: a shorter value is found in innocent text too often
_SHORTEST_PASSWORD = 6
_LONG_NUMBER = 12  # digits: a shorter one is a port, a count or a year
_WORD_LENGTH = 4  # letters or digits: the words of identifiers have more, a key's runs of one kind fewer
_LONGEST_WORD = 15  # letters

_CREDENTIAL = re.compile(
    r"(?=\S*[0-9])(?=\S*[A-Za-z])(?=\S*?[A-Za-z0-9]{13})\S{16,}"
    # AWS's secrets: one in a hundred has no such run.
    r"|(?=\S*[0-9])(?=\S*[a-z])(?=\S*[A-Z])[A-Za-z0-9+/]{40}"
)
_RUNS = re.compile(r"[0-9]+(?:[-:./][0-9]+)*|[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_UNSPEAKABLE = re.compile("(?i).*[bcdfghjklmnpqrstvwxz]{5}.*|[bcdfghjklmnpqrstvwxz]{4,}")
FILE = re.compile(r"(?:[~.]{0,2}/|[A-Za-z]:[\\/])[^\n]*\.[A-Za-z0-9]{1,5}")
VARIABLE_OR_WORD = re.compile(r"[$%{:<\\/~.*].*|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|[A-Za-z]*", re.DOTALL)
_WORDS = re.compile(r"(?=.{1,19}\Z)[a-z]+(?:[-_. ][a-z]+)*")  # community-edition
_DUMMY_WORDS = word_set(
    "a abc an any anything api apikey assistant auth bar baz change changeme content cpp default demo dev "
    "developer development dummy empty example fake false fixture foo for function here in insert is it key llama "
    "lm lmstudio local localhost me message mock mocked my needed no none not nothing null offline ok password pk "
    "placeholder postgres production proj project provided proxy put qux redacted redis replace replay required "
    "root sample secret set sk some something staging string studio system test tested testing tests text the this "
    "to todo token tool true unset unused used user value with xyz your yours lmcache litellm llm openai anthropic "
    "azure google gemini mistral cohere ollama vllm"
)


def is_credential(value: str) -> bool:
    """Whether a text looks like a credential: long, with letters and digits in no order; a UUID does not."""
    return _CREDENTIAL.fullmatch(value) is not None and is_random(value)


def is_random(value: str) -> bool:
    """Whether letters and digits follow each other as in a key, and not as in words, identifiers, dates, numbers."""
    runs = _RUNS.findall(value)
    # Words have no five consonants in a row, and always a vowel.
    count = sum(len(run) / 2 if _UNSPEAKABLE.fullmatch(run) else 1 for run in runs)
    return sum(map(len, runs)) <= _WORD_LENGTH * count


def is_wordy(value: str) -> bool:
    """Whether a text consists of words and numbers."""
    return not is_random(value) and max(map(len, _RUNS.findall(value))) <= _LONGEST_WORD


def is_password(value: str, name: str) -> bool:
    """Whether a text under this name looks like a password that a person chose."""
    return (
        len(value) >= _SHORTEST_PASSWORD
        and re.search(r"[A-Za-z]", value) is not None
        and re.search(r"[0-9!@#$%^&*?+~]", value) is not None
        and not VARIABLE_OR_WORD.fullmatch(value)
        and "<redacted:" not in value
        and not is_dummy(value, name)
    )


def is_dummy(value: str, name: str) -> bool:
    """Whether a value consists of words such as test, dummy or your, of the name's words, and of short numbers."""
    if value.replace(".", "", 1).isdigit():
        return len(value) < _LONG_NUMBER
    known = _DUMMY_WORDS.union(words_of(name))
    return all(_is_dummy_run(run, known) for run in re.findall("[a-z0-9]+", value.lower()))


def _is_dummy_run(run: str, known: frozenset[str]) -> bool:
    """Whether a run consists of known words and short numbers; one letter again and again counts as a word."""
    parts = re.findall("[a-z]+|[0-9]+", run)
    # With more parts, short words and single letters would make up every sixth key of 16 hexadecimal digits.
    shortest = 1 if len(parts) <= 2 else 3  # noqa: PLR2004
    return all(
        len(part) < SHORTEST_SECRET
        if part.isdigit()
        else len(part) >= shortest and (part in known or len(set(part)) == 1)
        for part in parts
    )


@lru_cache(maxsize=4096)
def is_searchable(value: str, name: str) -> bool:
    """Whether a value may be searched for in any text: a secret, and not a word, a path or our own dummy key."""
    return (
        len(value) >= SHORTEST_SECRET
        and value != DUMMY_KEY
        and "<redacted:" not in value
        and not is_dummy(value, name)
        and not _WORDS.fullmatch(value)
        and not FILE.fullmatch(value)
        and not os.path.exists(value)  # noqa: PTH110 - Path.exists raises on a name that is too long
    )
