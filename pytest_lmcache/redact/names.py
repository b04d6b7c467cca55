"""Names and values: what looks like a secret, and the placeholder that takes its place."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from enum import Enum, auto
from functools import lru_cache
from typing import Any

from pytest_lmcache.environment import DUMMY_KEY

PLACEHOLDER = re.compile(r"<redacted:[A-Za-z0-9_.\-]{1,80}(?::[0-9a-f]{6}(?:-[0-9]+)?)?>")
HASHLESS_PLACEHOLDER = re.compile(r"<redacted:[A-Za-z0-9_.\-]{1,80}>")
"""A placeholder of a secret of the machine; of any, in what was recorded before placeholders had hashes."""
SHORTEST = 8  # characters: a shorter value is found in innocent text too often
_SHORTEST_PASSWORD = 6
_LONG_NUMBER = 12  # digits: a shorter one is a port, a count or a year


def placeholder_of(name: str, secret: str = "") -> str:
    """What stands for a secret; ``secret`` is what of it is not known to be this machine's."""
    mark = f":{_short_hash(secret)}" if secret else ""
    return f"<redacted:{re.sub(r'[^A-Za-z0-9_.-]', '-', name)[:64]}{mark}>"


def _short_hash(secret: str) -> str:
    """24 bits, the same for a text and for that text within JSON, as a tool call's arguments have it."""
    text = _ESCAPED_BREAK.sub("\n", secret)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=3).hexdigest()


_ESCAPED_BREAK = re.compile(r"\\+[nr]")


def word_set(words: str) -> frozenset[str]:
    """The words of a text, a line of which is easier to read than a column."""
    return frozenset(words.split())


_SECRET_WORDS = word_set(
    "accesstoken apikey apitoken authorization authtoken bearertoken clientsecret cookie passphrase passwd password "
    "pwd refreshtoken secret secretkey sessiontoken"
)
_SECRET_KEYS = word_set(  # what stands before "key" in the name of a secret; a cache_key is none
    "access account admin anthropic api app application auth cohere encryption function functions gemini groq hmac ingestion "
    "license master mistral openai openrouter private proxy salt secret service shared signing storage subscription "
    "webhook"
)
_SECRET_TOKENS = word_set(  # what stands before "token" in the name of a secret; under a think_token the value decides
    "access ad api app auth authorization azure bearer bot client csrf db deploy github gitlab hf hub huggingface id "
    "identity integration ngrok oauth personal push refresh replicate secret security session slack telegram user vault "
    "watsonx xsrf"
)
HARMLESS_TOKENS = word_set(  # what stands before "token" where it is a piece of text or of a listing
    "audio begin bos cached class cls completion continuation cost decoder end eos first image input last mask max "
    "min next output pad page per prev previous prompt reasoning sep special start stop text to total unk"
)
_ENVIRONMENTS = word_set(  # what stands behind a secret's name where there is one for each of several places
    "a b backup ci central default dev development east eu global live local main new north old primary prod production "
    "qa sandbox secondary south stage staging test testing uat uk us v west"
)
_ABOUT_SECRETS = word_set(  # what follows "secret" where the name is of something else
    "arn count file manager name path project ref reference region type uri url version"
)
_MAYBE_SECRET = frozenset({"auth", "bearer", "credential", "credentials", "jwt", "pass", "pat", "token"})


def words_of(name: str) -> list[str]:
    """The words of a name in any spelling; a number at the end, as in ``API_KEY_2``, does not count."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.rstrip("0123456789_- "))
    return re.findall(r"[a-z0-9]+", spaced.lower())


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a text under this argument, header or key name is a secret, whatever it says.

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
        return before in _SECRET_KEYS
    if last == "token":
        return before in _SECRET_TOKENS
    return (last in ("credential", "credentials") and before != "") or words[-3:] == ["access", "key", "id"]


@lru_cache(maxsize=4096)
def is_credential_name(name: str) -> bool:
    """Whether this is a credential wherever it is an argument; a game may have a ``secret`` and a ``password`` too."""
    words = words_of(name)
    return is_secret_name(name) and not (
        words[-1] in PASSWORDS
        or words[-1].endswith("password")
        or words[-1] == "cookie"
        or words == ["secret"]
        or ("secret" in words[:-1] and words[-1] not in ("key", "keys"))
    )


PASSWORDS = frozenset({"pass", "passphrase", "passwd", "password", "pwd"})


@lru_cache(maxsize=4096)
def may_be_secret(name: str) -> bool:
    """Whether the value decides: a name that ends in a word which is often innocent."""
    return bool(_MAYBE_SECRET.intersection(words_of(name)[-1:]))


class NameKind(Enum):
    """What a name says of the text under it."""

    OTHER = auto()
    DOUBTFUL = auto()
    SECRET = auto()
    CREDENTIAL = auto()


@lru_cache(maxsize=4096)
def name_kind(name: str) -> NameKind:
    """What a name says of the text under it."""
    if is_credential_name(name):
        return NameKind.CREDENTIAL
    if is_secret_name(name):
        return NameKind.SECRET
    return NameKind.DOUBTFUL if may_be_secret(name) else NameKind.OTHER


def variable_words(name: str) -> list[str]:
    """The words of an environment variable's name, without that of the place that it is for."""
    words = words_of(name)
    while len(words) > 1 and words[-1] in _ENVIRONMENTS:
        words.pop()
    return words


@lru_cache(maxsize=4096)
def is_secret_variable(name: str) -> bool:
    """The same for an environment variable, where any ``*_KEY`` that is not public counts."""
    words = variable_words(name)
    if name in ("PWD", "OLDPWD") or not words:
        return False
    if words[-1] in ("key", "keys"):
        return not {"public", "gpg", "cache", "object", "bucket"}.intersection(words)
    if words[-2:] in (["webhook", "url"], ["connection", "string"]) or "bearer" in words:
        return True
    if words[-1] in ("token", "tokens"):
        return not HARMLESS_TOKENS.intersection(words[-2:-1])
    return is_secret_name("_".join(words)) or words[-1] in _MAYBE_SECRET or words[-1] == "sshpass"


_CREDIBLE = re.compile(
    r"(?=\S*[0-9])(?=\S*[A-Za-z])(?=\S*?[A-Za-z0-9]{13})\S{16,}"
    # AWS's secrets: one in a hundred has no such run.
    r"|(?=\S*[0-9])(?=\S*[a-z])(?=\S*[A-Z])[A-Za-z0-9+/]{40}"
)


def is_credible(value: str) -> bool:
    """Whether a text looks like a credential: long, of letters and digits without order; a uuid does not."""
    return _CREDIBLE.fullmatch(value) is not None and is_random(value)


_RUNS = re.compile(r"[0-9]+(?:[-:./][0-9]+)*|[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_UNSPEAKABLE = re.compile("(?i).*[bcdfghjklmnpqrstvwxz]{5}.*|[bcdfghjklmnpqrstvwxz]{4,}")
_WORD_LENGTH = 4  # letters or digits: the words of identifiers have more, a key's runs of one kind fewer


def is_random(value: str) -> bool:
    """Whether letters and digits follow each other as in a key, and not as in words, identifiers, dates, numbers."""
    runs = _RUNS.findall(value)
    # Nor do words have five consonants in a row, or no vowel.
    count = sum(len(run) / 2 if _UNSPEAKABLE.fullmatch(run) else 1 for run in runs)
    return sum(map(len, runs)) <= _WORD_LENGTH * count


_LONGEST_WORD = 15  # letters


def is_wordy(value: str) -> bool:
    """Whether a text consists of words and numbers."""
    return not is_random(value) and max(map(len, _RUNS.findall(value))) <= _LONGEST_WORD


STAND_IN = re.compile(r"[$%{:<\\/~.*].*|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|[A-Za-z]*", re.DOTALL)


def is_password(value: str, name: str) -> bool:
    """Whether a text looks like what a person takes for a password; ``name`` is what it stands under."""
    return (
        len(value) >= _SHORTEST_PASSWORD
        and re.search(r"[A-Za-z]", value) is not None
        and re.search(r"[0-9!@#$%^&*?+~]", value) is not None
        and not STAND_IN.fullmatch(value)
        and "<redacted:" not in value
        and not is_filler(value, name)
    )


_FILLER = word_set(
    "a abc an any anything api apikey assistant auth bar baz change changeme content cpp default demo dev developer "
    "development dummy empty example fake false fixture foo for function here in insert is it key llama lm lmstudio "
    "local localhost me message mock mocked my needed no none not nothing null offline ok password pk placeholder "
    "postgres production proj project provided proxy put qux redacted redis replace replay required root sample secret "
    "set sk some something staging string studio system test tested testing tests text the this to todo token tool true "
    "unset unused used user value with xyz your yours lmcache litellm llm openai anthropic azure google gemini mistral "
    "cohere ollama vllm"
)


def is_filler(value: str, name: str) -> bool:
    """Whether a value is an obvious stand-in, made of words such as test, dummy, your and of the name's own."""
    if value.replace(".", "", 1).isdigit():
        return len(value) < _LONG_NUMBER
    known = _FILLER.union(words_of(name))
    return all(_is_filler_run(run, known) for run in re.findall("[a-z0-9]+", value.lower()))


def _is_filler_run(run: str, known: frozenset[str]) -> bool:
    """Whether letters and digits are such words and short numbers; one letter again and again may be a word."""
    parts = re.findall("[a-z]+|[0-9]+", run)
    # Of more, short words and single letters would make up every sixth key of 16 hexadecimal digits.
    shortest = 1 if len(parts) <= 2 else 3  # noqa: PLR2004
    return all(
        len(part) < SHORTEST
        if part.isdigit()
        else len(part) >= shortest and (part in known or len(set(part)) == 1)
        for part in parts
    )


FILE = re.compile(r"(?:[~.]{0,2}/|[A-Za-z]:[\\/])[^\n]*\.[A-Za-z0-9]{1,5}")


_ORDINARY = re.compile(r"(?=.{1,19}\Z)[a-z]+(?:[-_. ][a-z]+)*")  # words: community-edition


@lru_cache(maxsize=4096)
def is_searchable(value: str, name: str) -> bool:
    """Whether a value may be looked for in any text: a secret, and not a word, a path or our own dummy."""
    return (
        len(value) >= SHORTEST
        and value != DUMMY_KEY
        and "<redacted:" not in value
        and not is_filler(value, name)
        and not _ORDINARY.fullmatch(value)
        and not FILE.fullmatch(value)
        and not os.path.exists(value)  # noqa: PTH110 - Path.exists raises on a name that is too long
    )


# Within arguments and answers. What JSON schemas have users' names and values under is listed, "parameters" are not:
# those of Azure's data sources hold credentials.
_CONTENT = word_set(
    "$defs arguments args chat_template_kwargs content contents default definitions documents examples function "
    "functions guided_json input input_examples instructions messages prompt properties query response_format system"
)


def is_content(name: str) -> bool:
    """Whether a model reads or writes what stands under this name: never a source of secrets to look for."""
    return name in _CONTENT or name.lower().endswith(("schema", "instruction"))


@lru_cache(maxsize=4096)
def is_address_name(name: str) -> bool:
    """Whether an argument of this name says where a call goes to."""
    return bool(_ADDRESSES.intersection(words_of(name)[-1:]))


_ADDRESSES = word_set("base dsn endpoint host server uri url")


def told_by(value: Mapping[Any, Any]) -> str:
    """What stands under ``key`` is named by the ``type`` beside it, as in Azure's ``{"type": "api_key", "key": …}``."""
    kind = value.get("type")
    return kind if isinstance(kind, str) and _NAME.fullmatch(kind) and is_secret_name(kind) else "key"


_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
