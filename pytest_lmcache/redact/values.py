"""What a value looks like: a key, a password, words, or a dummy that is no secret."""

from __future__ import annotations

import os
import re
from functools import lru_cache

from pytest_lmcache.environment import DUMMY_KEY
from pytest_lmcache.redact.names import words_of

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
_DUMMY_WORDS = frozenset(
    (
        "a abc an any anything api apikey assistant auth bar baz change changeme content cpp default demo dev "
        "developer development dummy empty example fake false fixture foo for function here in insert is it key llama "
        "lm lmstudio local localhost me message mock mocked my needed no none not nothing null offline ok password pk "
        "placeholder postgres production proj project provided proxy put qux redacted redis replace replay required "
        "root sample secret set sk some something staging string studio system test tested testing tests text the this "
        "to todo token tool true unset unused used user value with xyz your yours lmcache litellm llm openai anthropic "
        "azure google gemini mistral cohere ollama vllm"
    ).split()
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
