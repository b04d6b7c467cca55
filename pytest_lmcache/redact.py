"""Takes secrets out of plain data: by name, by well-known format, by value; idempotent.

What is taken out becomes a placeholder, which no rule touches again. It is named by the first of these that
applies:

1. the name it stands under in a mapping or in a URL's query (``api_key``), if it looks like a key;
2. its format (``openai-key``);
3. the label before it in a text (``MISTRAL_API_KEY=...``);
4. the environment variable that holds it, then the argument that it was passed as; of several names the
   alphabetically first;
5. ``pattern``, where an own pattern matched it: patterns may be added and reordered.

Two different questions must stay different, so a placeholder ends in a short hash of what it stands for:
``<redacted:openai-key:3f9a1c>``. The hash is too short to confirm a guess by. Recordings are compared between
machines that hold different keys or none, so the secrets of this machine leave no hash: the values of its
environment, a call's arguments, the attributes of LiteLLM. Nor does what an own pattern matches. Under a
credential's name in a call's arguments and in headers, any value becomes the same placeholder, and so does a
missing one.

What a model reads or writes is told apart by its value alone: ``{"password": "hunter2"}`` in a message, in a
schema or in a tool call's arguments stays, and a long key beside ``"api_key"`` does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum, auto
from functools import cache, lru_cache
from typing import Any, AnyStr, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, quote, urlsplit

from pytest_lmcache.environment import DUMMY_KEY
from pytest_lmcache.errors import SettingsError
from pytest_lmcache.interaction import Again
from pytest_lmcache.time_limit import time_limit

_PLACEHOLDER = re.compile(r"<redacted:[A-Za-z0-9_.\-]{1,80}(?::[0-9a-f]{6}(?:-[0-9]+)?)?>")
HASHLESS = re.compile(r"<redacted:[A-Za-z0-9_.\-]{1,80}>")
"""A placeholder of a secret of the machine; of any, in what was recorded before placeholders had hashes."""
_SHORTEST = 8  # characters: a shorter value is found in innocent text too often
_SHORTEST_PASSWORD = 6
_LONG_NUMBER = 12  # digits: a shorter one is a port, a count or a year
_CUT_START = 12  # characters of a secret that have to be there where a text breaks off in it
_LEAST_ECHO = 4  # characters that have to be left of a masked secret to know it by
_ROUNDS = 20  # more than any text needs that was not made to need them
_SHORT_TEXT = 500  # characters: of such texts it is remembered what is left of them
_TEXTS = 5_000  # so many are, for each of the last few sets of rules
_DEEPEST = 5  # levels of a call's arguments that are searched for secrets to learn


def _placeholder(name: str, secret: str = "") -> str:
    """What stands for a secret; ``secret`` is what of it is not known to be this machine's."""
    mark = f":{_short_hash(secret)}" if secret else ""
    return f"<redacted:{re.sub(r'[^A-Za-z0-9_.-]', '-', name)[:64]}{mark}>"


def _short_hash(secret: str) -> str:
    """24 bits, the same for a text and for that text within JSON, as a tool call's arguments have it."""
    text = _ESCAPED_BREAK.sub("\n", secret)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=3).hexdigest()


_ESCAPED_BREAK = re.compile(r"\\+[nr]")


# --- names -----------------------------------------------------------------------------------------------


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SECRET_WORDS = _set(
    "accesstoken apikey apitoken authorization authtoken bearertoken clientsecret cookie passphrase passwd password "
    "pwd refreshtoken secret secretkey sessiontoken"
)
_SECRET_KEYS = _set(  # what stands before "key" in the name of a secret; a cache_key is none
    "access account admin anthropic api app application auth cohere encryption function functions gemini groq hmac ingestion "
    "license master mistral openai openrouter private proxy salt secret service shared signing storage subscription "
    "webhook"
)
_SECRET_TOKENS = _set(  # what stands before "token" in the name of a secret; under a think_token the value decides
    "access ad api app auth authorization azure bearer bot client csrf db deploy github gitlab hf hub huggingface id "
    "identity integration ngrok oauth personal push refresh replicate secret security session slack telegram user vault "
    "watsonx xsrf"
)
_HARMLESS_TOKENS = _set(  # what stands before "token" where it is a piece of text or of a listing
    "audio begin bos cached class cls completion continuation cost decoder end eos first image input last mask max "
    "min next output pad page per prev previous prompt reasoning sep special start stop text to total unk"
)
_ENVIRONMENTS = _set(  # what stands behind a secret's name where there is one for each of several places
    "a b backup ci central default dev development east eu global live local main new north old primary prod production "
    "qa sandbox secondary south stage staging test testing uat uk us v west"
)
_ABOUT_SECRETS = _set(  # what follows "secret" where the name is of something else
    "arn count file manager name path project ref reference region type uri url version"
)
_MAYBE_SECRET = frozenset({"auth", "bearer", "credential", "credentials", "jwt", "pass", "pat", "token"})


def _words(name: str) -> list[str]:
    """The words of a name in any spelling; a number at the end, as in ``API_KEY_2``, does not count."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.rstrip("0123456789_- "))
    return re.findall(r"[a-z0-9]+", spaced.lower())


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a text under this argument, header or key name is a secret, whatever it says.

    False for ``token``, ``auth`` and ``credentials`` alone, which are often innocent: there the value decides.
    """
    words = _words(name)
    if not words or _PLACEHOLDER.fullmatch(name):  # the key of a mapping was a secret itself
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
def _is_credential_name(name: str) -> bool:
    """Whether this is a credential wherever it is an argument; a game may have a ``secret`` and a ``password`` too."""
    words = _words(name)
    return is_secret_name(name) and not (
        words[-1] in _PASSWORDS
        or words[-1].endswith("password")
        or words[-1] == "cookie"
        or words == ["secret"]
        or ("secret" in words[:-1] and words[-1] not in ("key", "keys"))
    )


_PASSWORDS = frozenset({"pass", "passphrase", "passwd", "password", "pwd"})


@lru_cache(maxsize=4096)
def _may_be_secret(name: str) -> bool:
    """Whether the value decides: a name that ends in a word which is often innocent."""
    return bool(_MAYBE_SECRET.intersection(_words(name)[-1:]))


class _Name(Enum):
    """What a name says of the text under it."""

    OTHER = auto()
    DOUBTFUL = auto()
    SECRET = auto()
    CREDENTIAL = auto()


@lru_cache(maxsize=4096)
def _name_kind(name: str) -> _Name:
    if _is_credential_name(name):
        return _Name.CREDENTIAL
    if is_secret_name(name):
        return _Name.SECRET
    return _Name.DOUBTFUL if _may_be_secret(name) else _Name.OTHER


def _variable_words(name: str) -> list[str]:
    """The words of an environment variable's name, without that of the place that it is for."""
    words = _words(name)
    while len(words) > 1 and words[-1] in _ENVIRONMENTS:
        words.pop()
    return words


@lru_cache(maxsize=4096)
def _is_secret_variable(name: str) -> bool:
    """The same for an environment variable, where any ``*_KEY`` that is not public counts."""
    words = _variable_words(name)
    if name in ("PWD", "OLDPWD") or not words:
        return False
    if words[-1] in ("key", "keys"):
        return not {"public", "gpg", "cache", "object", "bucket"}.intersection(words)
    if words[-2:] in (["webhook", "url"], ["connection", "string"]) or "bearer" in words:
        return True
    if words[-1] in ("token", "tokens"):
        return not _HARMLESS_TOKENS.intersection(words[-2:-1])
    return is_secret_name("_".join(words)) or words[-1] in _MAYBE_SECRET or words[-1] == "sshpass"


_CREDIBLE = re.compile(
    r"(?=\S*[0-9])(?=\S*[A-Za-z])(?=\S*?[A-Za-z0-9]{13})\S{16,}"
    # AWS's secrets: one in a hundred has no such run.
    r"|(?=\S*[0-9])(?=\S*[a-z])(?=\S*[A-Z])[A-Za-z0-9+/]{40}"
)


def _is_credible(value: str) -> bool:
    """Whether a text looks like a credential: long, of letters and digits without order; a uuid does not."""
    return _CREDIBLE.fullmatch(value) is not None and _is_random(value)


_RUNS = re.compile(r"[0-9]+(?:[-:./][0-9]+)*|[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_UNSPEAKABLE = re.compile("(?i).*[bcdfghjklmnpqrstvwxz]{5}.*|[bcdfghjklmnpqrstvwxz]{4,}")
_WORD_LENGTH = 4  # letters or digits: the words of identifiers have more, a key's runs of one kind fewer


def _is_random(value: str) -> bool:
    """Whether letters and digits follow each other as in a key, and not as in words, identifiers, dates, numbers."""
    runs = _RUNS.findall(value)
    # Nor do words have five consonants in a row, or no vowel.
    count = sum(len(run) / 2 if _UNSPEAKABLE.fullmatch(run) else 1 for run in runs)
    return sum(map(len, runs)) <= _WORD_LENGTH * count


_LONGEST_WORD = 15  # letters


def _is_wordy(value: str) -> bool:
    """Whether a text consists of words and numbers."""
    return not _is_random(value) and max(map(len, _RUNS.findall(value))) <= _LONGEST_WORD


_STAND_IN = re.compile(r"[$%{:<\\/~.*].*|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|[A-Za-z]*", re.DOTALL)


def _is_password(value: str, name: str) -> bool:
    """Whether a text looks like what a person takes for a password; ``name`` is what it stands under."""
    return (
        len(value) >= _SHORTEST_PASSWORD
        and re.search(r"[A-Za-z]", value) is not None
        and re.search(r"[0-9!@#$%^&*?+~]", value) is not None
        and not _STAND_IN.fullmatch(value)
        and "<redacted:" not in value
        and not _is_filler(value, name)
    )


_FILLER = _set(
    "a abc an any anything api apikey assistant auth bar baz change changeme content cpp default demo dev developer "
    "development dummy empty example fake false fixture foo for function here in insert is it key llama lm lmstudio "
    "local localhost me message mock mocked my needed no none not nothing null offline ok password pk placeholder "
    "postgres production proj project provided proxy put qux redacted redis replace replay required root sample secret "
    "set sk some something staging string studio system test tested testing tests text the this to todo token tool true "
    "unset unused used user value with xyz your yours lmcache litellm llm openai anthropic azure google gemini mistral "
    "cohere ollama vllm"
)


def _is_filler(value: str, name: str) -> bool:
    """Whether a value is an obvious stand-in, made of words such as test, dummy, your and of the name's own."""
    if value.replace(".", "", 1).isdigit():
        return len(value) < _LONG_NUMBER
    known = _FILLER.union(_words(name))
    return all(_is_filler_run(run, known) for run in re.findall("[a-z0-9]+", value.lower()))


def _is_filler_run(run: str, known: frozenset[str]) -> bool:
    """Whether letters and digits are such words and short numbers; one letter again and again may be a word."""
    parts = re.findall("[a-z]+|[0-9]+", run)
    # Of more, short words and single letters would make up every sixth key of 16 hexadecimal digits.
    shortest = 1 if len(parts) <= 2 else 3  # noqa: PLR2004
    return all(
        len(part) < _SHORTEST
        if part.isdigit()
        else len(part) >= shortest and (part in known or len(set(part)) == 1)
        for part in parts
    )


_FILE = re.compile(r"(?:[~.]{0,2}/|[A-Za-z]:[\\/])[^\n]*\.[A-Za-z0-9]{1,5}")


_ORDINARY = re.compile(r"(?=.{1,19}\Z)[a-z]+(?:[-_. ][a-z]+)*")  # words: community-edition


@lru_cache(maxsize=4096)
def _is_searchable(value: str, name: str) -> bool:
    """Whether a value may be looked for in any text: a secret, and not a word, a path or our own dummy."""
    return (
        len(value) >= _SHORTEST
        and value != DUMMY_KEY
        and "<redacted:" not in value
        and not _is_filler(value, name)
        and not _ORDINARY.fullmatch(value)
        and not _FILE.fullmatch(value)
        and not os.path.exists(value)  # noqa: PTH110 - Path.exists raises on a name that is too long
    )


# --- formats ---------------------------------------------------------------------------------------------


class _Format(NamedTuple):
    """A well-known kind of key: literal beginnings, and what follows them.

    ``left`` must not stand before the beginning (short beginnings turn up inside of URL-safe base64);
    ``keep`` leaves the beginning in the text; ``back`` is how many characters before it the secret may begin.
    ``ahead`` is what must follow a beginning that turns up often; ``random``: what reads like words is none.
    """

    kind: str
    starts: tuple[str, ...]
    rest: str
    left: str = "[A-Za-z0-9]"
    keep: bool = False
    back: tuple[int, ...] = (0,)
    ahead: str = ""
    random: bool = False


_RUN = "[A-Za-z0-9_-]"
_LONG = r"[A-Za-z0-9]{20,}"
_NUMBERED = rf"(?={_RUN}{{0,99}}[0-9]){_RUN}{{16,}}"
# Within a name, as in from_hf_AutoModel..., there is a digit.
_NO_NAME = r"(?:(?<!_hf_)(?<!_api_org_)|(?=[A-Za-z]*[0-9]))"
_DASHED = _RUN + "{20,}"
# Nothing else begins as GitHub's do: also those that a log has cut, unless it is a word.
_CUT = r"(?=[A-Za-z]*[0-9])[A-Za-z0-9]{16,}"
# "sk-" alone begins CSS classes and package names too: ask for digits and capitals, or for one long run.
_MIXED = (
    rf"(?!SK-)(?=(?={_RUN}*[0-9])(?:{_RUN}*[A-Z]|{_RUN}*?[a-z0-9]{{20}})|(?:{_RUN}*?[A-Z]){{3}}){_RUN}{{20,}}"
)
# Nor a word between dashes, as in the CSS class sk-Button_primary__a1B2c.
_NO_CLASS = rf"(?!(?:{_RUN}*[-_])?(?!(?:demo|live|prod|test|user)[-_])[A-Z]?[a-z]{{3,}}(?:[-_]|(?!{_RUN})))"
# From its beginning to its end, whatever stands before each line: a quote's mark, a diff's, a string's. One that is
# cut goes as far as it reads like one. No hyphen pair in that, so that a text full of BEGIN lines is read once.
_INSIDE = "(?:[^-]|-(?!----(?:BEGIN|END) ))"
_KIND = "(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
_PEM = (
    rf"{_KIND}(?:"
    rf"(?={_INSIDE}{{0,400}}?(?:[A-Za-z0-9+/]{{32}}|,ENCRYPTED)){_INSIDE}*+-----END {_KIND}"
    r"|(?=[^-]{0,200}?[A-Za-z0-9+/]{32}|[^\"']{0,200}?,ENCRYPTED)(?:[A-Za-z0-9+/=\s\\:,.]|-(?!-))*+"
    r")"
)

# Lengths and alphabets: the providers' documentation and the rules of public secret scanners, with the
# lower bounds relaxed, since formats grow.
_FORMATS = (
    _Format("anthropic-key", ("sk-ant-",), _NUMBERED),
    _Format("openrouter-key", ("sk-or-",), r"(?:v\d+-)?" + _LONG),
    _Format("langfuse-key", ("sk-lf-",), _DASHED),
    _Format("openai-key", ("sk-proj-", "sk-svcacct-", "sk-admin-", "sk-None-"), _NUMBERED),
    _Format("openai-key", ("sk-",), _NO_CLASS + _MIXED, _RUN, random=True),
    _Format("google-key", ("AIza",), _RUN + "{30,}"),
    _Format("google-key", ("AQ.A",), _RUN + "{30,}"),
    _Format("google-token", ("ya29.",), r"[A-Za-z0-9_.-]{20,}(?<!\.)"),
    _Format("google-secret", ("GOCSPX-",), _DASHED),
    _Format("aws-key-id", ("AKIA", "ASIA", "ABIA", "ACCA"), r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    _Format("aws-session-token", ("IQoJb3JpZ2luX2Vj", "FwoGZXIvYXdzE"), r"[A-Za-z0-9+/]{60,}={0,2}"),
    _Format("aws-bedrock-key", ("ABSK", "bedrock-api-key-"), r"[A-Za-z0-9+/]{60,}={0,2}"),
    _Format("azure-key", ("JQQJ9",), r"[A-Za-z0-9]{57,}(?:==)?", back=(52,)),
    _Format("azure-secret", ("7Q~", "8Q~"), r"[A-Za-z0-9_.~-]{37,}", "[A-Za-z0-9_.~-]", back=(3,)),
    _Format("huggingface-token", ("hf_", "api_org_"), _NO_NAME + _LONG, "[A-Za-z0-9-]"),
    _Format("groq-key", ("gsk_",), _LONG),
    _Format("xai-key", ("xai-",), r"[A-Za-z0-9_]{20,}"),
    _Format("perplexity-key", ("pplx-",), _LONG),
    _Format("nvidia-key", ("nvapi-",), _DASHED),
    _Format("cerebras-key", ("csk-",), _LONG),
    _Format("fireworks-key", ("fw_",), _LONG, _RUN),
    _Format("replicate-token", ("r8_",), rf"(?={_RUN}{{0,99}}[0-9]){_DASHED}", _RUN),
    _Format("together-key", ("tgp_v1_",), _DASHED),
    _Format("tavily-key", ("tvly-",), _DASHED),
    _Format("langsmith-key", ("lsv2_pt_", "lsv2_sk_"), r"[a-f0-9_]{20,}"),
    _Format("github-token", ("ghp_", "gho_", "ghu_", "ghr_"), rf"(?:{_LONG}|{_CUT})"),
    _Format("github-token", ("ghs_",), rf"(?:{_DASHED}|{_CUT})(?:\.{_RUN}+)*"),
    _Format("github-token", ("github_pat_",), rf"(?:{_CUT}|11[A-Z0-9]{{7,}})[A-Za-z0-9_]*"),
    _Format(
        "gitlab-token",
        tuple(f"gl{kind}-" for kind in _set("agent cbt dt ffct ft imt oas pat ptt rt rtr soat wt")),
        r"[A-Za-z0-9_.-]{20,}(?<!\.)",
    ),
    _Format("gitlab-token", ("GR1348941",), _DASHED),
    _Format("slack-token", tuple(f"xox{kind}-" for kind in "abcdeoprs"), r"[A-Za-z0-9-]{10,}"),
    _Format("slack-token", ("xoxe.xox",), r"[a-z]-[A-Za-z0-9-]{10,}"),
    _Format("slack-token", ("xapp-",), r"[A-Za-z0-9-]{10,}"),
    _Format(
        "slack-webhook",
        ("hooks.slack.com/",),
        r"(?:services|workflows|triggers)/[A-Za-z0-9/_-]{16,}",
        keep=True,
    ),
    _Format("npm-token", ("npm_",), r"[A-Za-z0-9]{30,}"),
    _Format("pypi-token", ("pypi-AgE",), _RUN + "{16,}"),
    _Format("sendgrid-key", ("SG.",), rf"{_RUN}{{16,}}\.{_RUN}{{30,}}"),
    _Format("databricks-token", ("dapi",), r"[a-f0-9]{32}(?:-[0-9]+)?"),
    # It begins with a number in base64.
    _Format(
        "discord-token",
        (".",),
        rf"(?:M[Tjz]|N[DTjz]|O[DT]){_RUN}{{21,26}}\.{_RUN}{{6}}\.{_RUN}{{27,}}",
        _RUN,
        back=tuple(range(23, 29)),
        ahead=rf"{_RUN}{{6}}\.",
    ),
    _Format(
        "discord-webhook",
        tuple(
            f"{host}.com/api/{version}webhooks/"
            for host in ("discord", "discordapp")
            for version in ("", "v6/", "v7/", "v8/", "v9/", "v10/")
        ),
        rf"[0-9]{{16,20}}/{_RUN}{{30,}}",
        keep=True,
    ),
    # In the address of its interface it follows "bot".
    _Format(
        "telegram-token",
        (":AA",),
        rf"[0-9]{{8,10}}:AA{_RUN}{{30,}}",
        "[A-Za-z0-9](?<!/bot)",
        back=(8, 9, 10),
    ),
    _Format(
        "firebase-key", (":",), rf"AAAA{_RUN}{{7}}:{_RUN}{{100,}}", _RUN, back=(11,), ahead=f"{_RUN}{{60}}"
    ),
    _Format("supabase-token", ("sbp_",), r"(?:oauth_|v[0-9]_)?(?=[a-z]*[0-9])[a-z0-9]{32,}"),
    _Format("vault-token", ("hvs.", "hvb.", "hvr."), _DASHED),
    _Format("digitalocean-token", ("dop_v1_", "doo_v1_", "dor_v1_"), r"[a-f0-9]{32,}"),
    _Format(
        "shopify-token",
        ("shpat_", "shpca_", "shppa_", "shpss_", "shptka_", "shpua_", "prtapi_"),
        r"[A-Fa-f0-9]{32,}",
    ),
    _Format("stripe-secret", ("whsec_",), r"[A-Za-z0-9+/]{24,}={0,2}"),
    _Format("pinecone-key", ("pcsk_",), r"[A-Za-z0-9]{2,8}_[A-Za-z0-9]{30,}"),
    _Format("jina-key", ("jina_",), rf"[A-Za-z0-9]{{20,}}{_RUN}*"),
    _Format("elevenlabs-key", ("sk_",), r"[a-f0-9]{48}(?![A-Za-z0-9])"),
    _Format("twilio-key", ("SK",), r"[A-Fa-f0-9]{32}(?![A-Za-z0-9])", ahead="[A-Fa-f0-9]{32}"),
    _Format("voyage-key", ("pa-",), _RUN + "{40,}", _RUN, random=True),
    _Format("stripe-key", ("sk_live_", "sk_test_", "rk_live_", "rk_test_"), _LONG),
    _Format("jwt", ("eyJ",), rf"{_RUN}{{8,}}+\.{_RUN}{{8,}}+(?:\.{_RUN}*+){{0,3}}", _RUN),
    _Format("private-key", ("-----BEGIN ",), _PEM, "--"),
    _Format(
        "bearer-token",
        ("Bearer ", "bearer "),
        r"(?=\S*[0-9])[A-Za-z0-9._~+/-]{16,}=*(?<!\.)",
        keep=True,
        random=True,
    ),
)
# A key that a provider echoes with its middle taken out.
_STARS = rf"{_RUN}{{0,60}}[*•]{{3,}}{_RUN}{{0,60}}"
_DOTS = rf"{_RUN}{{0,60}}(?:\.\.\.|…)(?=[a-z]{{0,3}}[A-Z0-9]){_RUN}{{4,12}}(?!{_RUN})"
# A literal may follow an escape that ends in a letter or digit: \n in JSON, \u003c, %3D.
_ESCAPES = (r"\\[nrtbf]", r"\\u[0-9A-Fa-f]{4}", "%[0-9A-Fa-f]{2}")
_AFTER_ESCAPE = "|".join(f"(?<={escape})" for escape in _ESCAPES)


@cache
def _matcher(form: _Format, start: str) -> re.Pattern[str]:
    left = rf"(?:(?<!{form.left})|{_AFTER_ESCAPE})"
    if any(form.back):
        return re.compile(left + rf"(?P<span>{form.rest})", re.ASCII)
    literal = re.escape(start)
    if form.keep:
        return re.compile(left + rf"{literal}(?P<span>{form.rest})", re.ASCII)
    return re.compile(left + rf"(?P<span>{literal}(?:{form.rest}|{_STARS}|{_DOTS}))", re.ASCII)


# --- where to look ---------------------------------------------------------------------------------------

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
    for ending in sorted(_set("al de ed en et ey ie ig is ls on rd re se th wd wt"))
)
_LABELLED = "(?:" + "|".join(rf"(?<=(?:{_ENDINGS}){quotes}.)" for quotes in ("", "[\"'` ]", r"\\[\"']")) + ")"

_MASK = re.compile(r"[*•…]|\.\.\.")
_MASK_START = r"(?=\*\*)(?<!\*\*)"


# An account's key in Azure's storage has no beginning; the digest of a script that a page loads looks like it.
_STORAGE_START = rf"(?==(?!=))(?<=(?:(?<![A-Za-z0-9+/-])|{_AFTER_ESCAPE})[A-Za-z0-9+/]{{86}}=)"


_Known: TypeAlias = tuple[tuple[str, str], ...]


class _Span(NamedTuple):
    """A piece of a text to take out; where several overlap, the lowest rank names the whole."""

    start: int
    end: int
    rank: int
    name: str


_Look: TypeAlias = Callable[[str, int, _Known], Iterator[_Span]]


class _Place(NamedTuple):
    """Where in a text to look closer: at a character between what stands before and after it."""

    pivot: str
    around: str
    look: _Look
    before: str = ""  # the character right before it


def _place(form: _Format, start: str, rank: int) -> _Place:
    look = _formatted(form, start, rank)
    if form.ahead:
        after_escape = "|".join(f"(?<={escape}.)" for escape in _ESCAPES)
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
_PARAMETER = re.compile(r"([?&])([A-Za-z0-9_.\-]{2,40})=([^&#]*)")
_QUERY_SECRETS = _set(
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

_URL_RANK, _LABEL_RANK, _KNOWN_RANK, _OWN_RANK = -1, 1000, 2000, 3000


def _label_before(text: str, at: int) -> str | None:
    """The secret's name that ends right before a colon or an equals sign, such as ``api_key``."""
    found = _LABEL.search(text[max(0, at - 64) : at].rstrip(" \"'`\\"))
    if found is None:
        return None
    words = _words(found[0])
    if words and words[-1] in ("provided", "is"):
        words.pop()
    for count in range(1, len(words) + 1):
        name = "_".join(words[-count:])
        if is_secret_name(name):
            return name
    is_token = words[-1:] == ["token"] and words[-2:-1] and words[-2] not in _HARMLESS_TOKENS
    return "_".join(words[-2:]) if is_token or words in (["token"], ["x", "auth"]) else None


@lru_cache(maxsize=4096)
def _is_query_name(name: str) -> bool:
    """Whether a URL's parameter of this name is a secret, whatever its value is."""
    return re.sub(r"[^a-z]", "", name.lower()) in _QUERY_SECRETS or is_secret_name(name)


def _is_query_secret(name: str, value: str) -> bool:
    """Whether a URL's parameter is a secret: by its name and its value."""
    if re.sub(r"[^a-z]", "", name.lower()) in _DOUBTFUL:
        return _LIKE_A_KEY.match(f"={value}") is not None and (value == DUMMY_KEY or not _is_wordy(value))
    return _is_query_name(name) and not (_is_filler(value, name) or _STAND_IN.fullmatch(value))


def _address(url: str) -> str:
    """An address that a call goes to without credentials: other machines have others in it, or none."""
    bare = _PARAMETER.sub(_own_parameter, _CREDENTIALS.sub(f"://{_placeholder('url-credentials')}@", url))
    return url if bare == url else bare


def _own_parameter(parameter: re.Match[str]) -> str:
    separator, name, value = parameter.groups()
    doubtful = name.lower() in _DOUBTFUL and (not value or _is_query_secret(name, value))
    is_secret = doubtful or (name.lower() not in _DOUBTFUL and _is_query_name(name))
    return f"{separator}{name}={_placeholder(name.lower())}" if is_secret else parameter[0]


def _formatted(form: _Format, start: str, rank: int) -> _Look:
    pivot = 0 if form.ahead else _pivot(start)
    starts = [pivot + back for back in form.back]

    def look(text: str, at: int, _: _Known) -> Iterator[_Span]:
        for back in starts:
            # Compiled when the first text has its beginning: most formats turn up in no run.
            found = _matcher(form, start).match(text, at - back) if at >= back else None
            if found and (not form.random or _is_random(found["span"]) or _MASK.search(found["span"])):
                yield _Span(*found.span("span"), rank, form.kind)

    return look


def _userinfo(text: str, at: int, _: _Known) -> Iterator[_Span]:
    found = _CREDENTIALS.match(text, at)
    if found is None:
        return
    user, colon, password = found["span"].partition(":")
    is_word = _WORD.fullmatch(password) or _STAND_IN.fullmatch(password) or _is_filler(password, user)
    if _is_credible(user) or (colon and not is_word):
        yield _Span(*found.span("span"), _URL_RANK, "url-credentials")


def _labelled(text: str, at: int, _: _Known) -> Iterator[_Span]:
    query = _QUERY_NAME.search(text[max(0, at - 48) : at]) if text[at] == "=" else None
    if query and (value := _QUERY_VALUE.match(text, at)) and _is_query_secret(query[1], value["span"]):
        yield _Span(*value.span("span"), _URL_RANK, query[1].lower())
        if value["span"] == DUMMY_KEY:  # what this machine has in the place of a key
            yield _Span(*value.span("span"), _KNOWN_RANK, query[1].lower())
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
            yield _Span(*found.span("masked"), _LABEL_RANK, label)
    elif found is not None and _is_labelled_secret(found["span"]):
        yield _Span(*found.span("span"), _LABEL_RANK, label)
    elif password and label.endswith(tuple(_PASSWORDS)) and _is_password(password["span"], label):
        yield _Span(*password.span("span"), _LABEL_RANK, label)


def _is_labelled_secret(value: str) -> bool:
    return _is_credible(value) and "://" not in value and not _FILE.fullmatch(value)


def _storage_key(_text: str, at: int, _: _Known) -> Iterator[_Span]:
    yield _Span(at - 86, at + 2, len(_FORMATS), "azure-key")


def _masked(text: str, at: int, known: _Known) -> Iterator[_Span]:
    tail = _MASKED_TAIL.match(text, at)
    head = _MASKED_HEAD.search(text[max(0, at - 40) : at])
    if tail is None or head is None or len(head[0]) + len(tail[1]) < _LEAST_ECHO:
        return
    for value, name in known:
        if value.startswith(head[0]) and value.endswith(tail[1]):
            yield _Span(at - len(head[0]), tail.end(), _KNOWN_RANK, name)


def _guard() -> tuple[re.Pattern[str], list[_Look]]:
    """The scan, and for each of its groups what looks closer; empty groups tell which alternative matched."""
    places = [_place(form, start, rank) for rank, form in enumerate(_FORMATS) for start in form.starts]
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


_GUARD, _LOOKS = _guard()


def _built_in(text: str, known: _Known) -> Iterator[_Span]:
    done: dict[int, int] = {}
    for place in _GUARD.finditer(text):
        which = (place.lastindex or 0) - 1
        # Not inside of what the same look found: a text of many beginnings would be read again and again.
        if place.start() >= done.get(which, 0):
            for span in _LOOKS[which](text, place.start(), known):
                done[which] = span.end
                yield span


def shown_in_a_name(text: str) -> str:
    """A text fit for a file's name: the same on every machine, secrets of well-known formats by their kind."""
    clean, before = text, ""
    while clean != before:
        before, clean = clean, _replace(clean, list(_built_in(clean, ())))
    if clean == text:
        return text
    return _PLACEHOLDER.sub(lambda found: "-".join(found[0][1:-1].split(":")[:2]), clean)


def _replace(text: str, spans: list[_Span]) -> str:
    """Put placeholders in the place of spans; what is a placeholder already stays."""
    pieces: list[str] = []
    done = 0
    for start, end, placeholder in _edits_of(text, spans):
        pieces += text[done:start], placeholder
        done = end
    return "".join([*pieces, text[done:]])


def _edits_of(text: str, spans: list[_Span]) -> list[tuple[int, int, str]]:
    """The placeholders in order, each with the part of the text that it replaces; placeholders stay."""
    if spans and "<redacted:" in text:
        for kept in _PLACEHOLDER.finditer(text):
            spans = [piece for span in spans for piece in _outside(span, *kept.span())]
    known = [span for span in spans if span.rank >= _KNOWN_RANK]
    return [
        (span.start, span.end, _placeholder(span.name, _unknown(text, span, known)))
        for span in _merged(spans)
    ]


def _unknown(text: str, span: _Span, known: list[_Span]) -> str:
    """What of a span is no secret of this machine, nor what an own pattern takes out: others may have others."""
    left, done = "", span.start
    for own in sorted(known):
        if own.start < span.end and own.end > done:
            left += text[done : max(own.start, done)]
            done = own.end
    return left + text[done : span.end]


def _outside(span: _Span, start: int, end: int) -> Iterator[_Span]:
    if span.end <= start or span.start >= end:
        yield span
        return
    if span.start < start:
        yield span._replace(end=start)
    if span.end > end:
        yield span._replace(start=end)


def _merged(spans: list[_Span]) -> list[_Span]:
    merged: list[_Span] = []
    best: tuple[int, int, str] = (0, 0, "")  # of the spans that overlap: the rank, the longest, the name
    for span in sorted(spans):
        own = (span.rank, span.start - span.end, span.name)
        if merged and span.start < merged[-1].end:
            best = min(best, own)
            last = merged.pop()
            merged.append(_Span(last.start, max(last.end, span.end), best[0], best[2]))
        else:
            best = own
            merged.append(span)
    return merged


# --- values ----------------------------------------------------------------------------------------------


def _secrets_in(name: str, value: str) -> Iterator[str]:
    """The secrets that a value under a secret name consists of: itself, without its scheme, and its parts."""
    value = _without_scheme(value.strip())
    for part_name, part in (*_parts(name, value), (name, value)):
        if _is_searchable(part, part_name):
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
    return ((name, part) for part in _SEPARATED.split(value) if _is_credible(part))


def _texts(name: str, data: Any) -> Iterator[tuple[str, str]]:
    if isinstance(data, dict):
        for inner, part in data.items():
            yield from _texts(inner, part)
    elif isinstance(data, list):
        for part in data:
            yield from _texts(name, part)
    elif isinstance(data, str) and (is_secret_name(name) or (_may_be_secret(name) and _is_credible(data))):
        yield name, data


_PAIR = re.compile(r"([A-Za-z][\w ]*?)\s*=\s*([^;\s]+)")
_SEPARATED = re.compile(r"[,;\s]+")


def _without_scheme(value: str) -> str:
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
            "" if password or not _is_credible(user) else user,
        ]
        values += (value for name, value in parse_qsl(parts.query) if _is_query_secret(name, f"={value}"))
    except ValueError:  # not a URL after all
        return ()
    return tuple(value for value in values if value and _is_searchable(value, "url"))


@lru_cache(maxsize=4096)
def _as_written(secret: str) -> frozenset[str]:
    """A secret as it stands in plain text, in a URL and in JSON."""
    quoted = {quote(secret, safe=""), quote(secret)}
    in_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    lower = {_PERCENT.sub(lambda found: found[0].lower(), each) for each in quoted}
    return frozenset({secret, secret.replace("/", "\\/"), *quoted, *lower, *in_json})


_PERCENT = re.compile("%[0-9A-F]{2}")


_OFTEN_WORDS = frozenset({"auth", "credential", "credentials", "key", "keys", "pat", "tokens"})
# A name such as customer_id or gpt-4o-mini, or a number.
_WORDLIKE = re.compile(r"(?=.{1,19}\Z)(?:(?:[a-z]+|[0-9]+|[a-z0-9]{1,7})(?:[-_.]|\Z))+")


def _secrets_of(name: str, value: str) -> Iterable[str]:
    """The secrets that an environment variable holds.

    A ``*_KEY`` may be a database's or a dictionary's, an ``*_AUTH`` the name of a method: where the name says no
    more, a word is none.
    """
    if not _is_secret_variable(name):
        return _secrets_in_url(value)
    words = _variable_words(name)
    if words[-2:] == ["connection", "string"]:
        parts = (part for part_name, part in _parts(name, value) if _is_searchable(part, part_name))
        found = (*_secrets_in_url(value), *parts)
        return found if found or "://" in value else _secrets_in(name, value)
    is_named = is_secret_name("_".join(words)) or words[-1] not in _OFTEN_WORDS
    return () if not is_named and _WORDLIKE.fullmatch(value.strip()) else _secrets_in(name, value)


def _is_told(name: str | bytes, value: str | bytes) -> bool:
    """Whether a variable may hold a secret."""
    return _is_secret_variable(os.fsdecode(name)) or "://" in os.fsdecode(value)


class _Environment:
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
            changed = seen is None or any(_is_told(*pair) for pair in now.items() ^ seen.items())
            seen = now
            if changed:
                present = frozenset(
                    (name, value)
                    for name in list(environ)
                    if (value := environ.get(name)) and _is_told(name, value)
                )
                variables = variables if present == variables else present
            self._last = (seen, variables)
        return variables


class _Part(Enum):
    """What a value is part of, which says what a secret's name means there."""

    ANSWER = auto()
    ARGUMENTS = auto()
    HEADERS = auto()
    CONTENT = auto()  # what a model reads or writes, also for a tool: names say nothing there, values do


# Within arguments and answers. What JSON schemas have users' names and values under is listed, "parameters" are not:
# those of Azure's data sources hold credentials.
_CONTENT = _set(
    "$defs arguments args chat_template_kwargs content contents default definitions documents examples function "
    "functions guided_json input input_examples instructions messages prompt properties query response_format system"
)


def _is_content(name: str) -> bool:
    """Whether a model reads or writes what stands under this name: never a source of secrets to look for."""
    return name in _CONTENT or name.lower().endswith(("schema", "instruction"))


@lru_cache(maxsize=4096)
def _is_address_name(name: str) -> bool:
    """Whether an argument of this name says where a call goes to."""
    return bool(_ADDRESSES.intersection(_words(name)[-1:]))


_ADDRESSES = _set("base dsn endpoint host server uri url")
# Attributes of the module litellm that users set a provider's key on; the alphabetically first names a value.
_MODULE_KEYS = tuple(
    sorted(
        _set(
            "ai21_key aleph_alpha_key amazon_nova_api_key anthropic_key api_key azure_key baseten_key bytez_key "
            "clarifai_key cloudflare_api_key cohere_key cometapi_key databricks_key datarobot_key gdc_key gigachat_key "
            "gradient_ai_api_key groq_key heroku_key huggingface_key inception_key infinity_key lemonade_key "
            "llama_api_key maritalk_key nebius_key nlp_cloud_key novita_api_key ollama_key openai_key "
            "openai_like_key openrouter_key ovhcloud_key predibase_key replicate_key sap_service_key snowflake_key "
            "togetherai_api_key token vercel_ai_gateway_key wandb_key xai_key"
        )
    )
)


def _cut_off(text: str, secret: str) -> int | None:
    """Where a secret begins that a text breaks off in, half of it at least, as the answer that was cut."""
    at = text.find(secret[:_CUT_START], max(0, len(text) - len(secret)))
    left = text[at:]
    # A word of letters alone may be one of the language.
    is_cut = at >= 0 and len(left) >= len(secret) // 2 and not left.isalpha() and secret.startswith(left)
    return at if is_cut else None


def _applied(function: Callable[[str], str], text: str) -> str:
    """What a user's function makes of a text."""
    try:
        own = function(text)
    except Exception as error:  # noqa: BLE001 - whatever it is; its message may hold what the function was given
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise SettingsError(
            f"the function that redacts, {function!r}, raised {type(error).__name__} at "
            f"{at.filename}:{at.lineno}; mend it, or take it out"
        ) from None
    if not isinstance(own, str):
        raise SettingsError(
            f"the function that redacts, {function!r}, has to return a text, got {type(own).__name__}"
        )
    return own


@lru_cache(maxsize=8)
def _cleaned(_known: _Known, _patterns: tuple[re.Pattern[str], ...]) -> dict[str, str]:
    """The texts that were looked at by the same rules, and what became of them: names and phrases that come again."""
    return {}


class Redactor:
    """Takes secrets out of plain data; calling it again on what it gave changes nothing.

    ``patterns`` are regular expressions that add to the built-in rules; of one with a group ``secret`` only
    that group is taken out, and none should match just what follows a placeholder. ``functions`` are called in
    turn on every text (keys of mappings too) after all other rules; they have to be idempotent. ``environ`` is
    ``os.environ`` unless given, read again whenever it changed; a value seen once is looked for ever after.
    Raises SettingsError for a pattern that is none, and for a function that raises or returns no text.
    """

    __slots__ = (
        *("_clean", "_environment", "_functions", "_known", "_learnt", "_lock", "_module", "_patterns"),
        *("_present", "_variables"),
    )

    def __init__(
        self,
        patterns: Iterable[str | re.Pattern[str]] = (),
        functions: Iterable[Callable[[str], str]] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._functions = tuple(functions)
        for function in self._functions:
            if not callable(function):
                raise SettingsError(
                    f"a function that redacts has to be callable, got {type(function).__name__}"
                )
        self._patterns = tuple(map(_compiled, [patterns] if isinstance(patterns, str) else patterns))
        self._environment = _Environment(os.environ if environ is None else environ)
        self._forget()

    def fresh(self) -> Redactor:
        """Return one with the same rules that knows nothing yet of what was passed or set in other tests."""
        new = object.__new__(Redactor)
        new._patterns, new._functions, new._environment = self._patterns, self._functions, self._environment
        new._forget()
        return new

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._present: frozenset[tuple[str, str]] = frozenset()
        self._variables = self._present
        self._learnt: dict[str, str] = {}
        self._module: tuple[Any, ...] = ()
        self._know(())

    def _know(self, known: _Known) -> None:
        # In this order: what is found by the rules so far is never remembered for the new ones.
        self._known = known
        self._clean = _cleaned(known, self._patterns)

    def learn(self, arguments: Mapping[str, Any]) -> None:
        """Remember the secrets among a call's raw arguments, so that their echo is taken out anywhere later.

        Looks into texts, mappings, lists and tuples, at a client's key and at those set on the module
        ``litellm``, and never raises.
        """
        found: dict[str, str] = {}
        self._learn_module(found)
        for name, value in arguments.items():
            with suppress(
                Exception
            ):  # a caller's odd mapping must not stop the call, nor hide what else is given
                if name != "tools" and not _is_content(name):
                    self._learn_value(name, value, found, _DEEPEST)
                if value is not None and name.endswith("client"):
                    self._learn_value("api_key", getattr(value, "api_key", None), found, 0)
        new = {secret: name for secret, name in found.items() if self._learnt.get(secret, "\uffff") > name}
        if new:
            with self._lock:
                self._learnt |= new
                self._rebuild()

    def known_secrets(self) -> list[list[tuple[str, str]]]:
        """The variables and the arguments that hold secrets, as pairs of a name and a value."""
        self._look_at_environment()
        return [sorted(self._variables), sorted((name, secret) for secret, name in self._learnt.items())]

    def learn_secrets(
        self, variables: Iterable[tuple[str, str]], arguments: Iterable[tuple[str, str]]
    ) -> None:
        """Take out from now on what another process knows: what its `known_secrets` gave."""
        with self._lock:
            more = frozenset((name, value) for name, value in variables) - self._variables
            new = {secret: name for name, secret in arguments if self._learnt.get(secret, "\uffff") > name}
            if more or new:
                self._variables |= more
                self._learnt |= new
                self._rebuild()

    def _learn_module(self, found: dict[str, str]) -> None:
        module = sys.modules.get("litellm")
        if module is None:
            return
        headers = vars(module).get("headers")
        headers = dict(headers) if isinstance(headers, Mapping) else None
        values = (headers, *map(vars(module).get, _MODULE_KEYS))
        if values != self._module:
            self._module = values
            self._learn_value("headers", headers, found, _DEEPEST)
            for name, value in zip(_MODULE_KEYS, values[1:], strict=True):
                if isinstance(value, str):
                    found.update((secret, name) for secret in _secrets_in(name, value) if secret not in found)

    def _learn_value(self, name: str, value: Any, found: dict[str, str], depth: int) -> None:
        if isinstance(value, str):
            secrets: Iterable[str] = ()
            credible = (is_secret_name(name) or _may_be_secret(name)) and _is_credible(_without_scheme(value))
            # Deeper down, the name of a password may be that of something else.
            if credible or (is_secret_name(name) if depth == _DEEPEST else _is_credential_name(name)):
                secrets = _secrets_in(name, value)
            elif "://" in value and _is_address_name(name):
                secrets = _secrets_in_url(value)
            for secret in secrets:
                found[secret] = min(name.lower(), found.get(secret, "\uffff"))
        elif depth and isinstance(value, Mapping):
            for inner, part in value.items():
                if isinstance(inner, str) and _is_content(inner):
                    continue
                told = _told_by(value) if inner == "key" else inner
                inner_depth = depth if name.endswith("headers") else depth - 1
                self._learn_value(told if isinstance(told, str) else "", part, found, inner_depth)
        elif depth and isinstance(value, list | tuple):
            for part in value:
                self._learn_value(name, part, found, depth - 1)

    def __call__(self, value: Any) -> Any:
        """Return plain data without its secrets: the same object where there are none, else a new one.

        Texts, lists and dicts are looked into, tuples become lists, everything else is left as it is.
        """
        self._look_at_environment()
        return self._data(value)

    def request(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The same of a call's arguments, where an empty secret is one too: another machine may have none."""
        self._look_at_environment()
        return self._mapping(arguments, _Part.ARGUMENTS)

    def stream(self, chunks: list[Any]) -> list[Any]:
        """Return a stream's chunks without their secrets, also those that are cut in pieces.

        The pieces of one text are those under the same names in successive chunks. A placeholder stands
        where the secret began; what the following chunks held of it is gone, the chunks stay. Chunks of bytes
        are read as one text of server-sent events; one that changed is wholly in the chunk where it began.
        """
        pieces = [_bytes(chunk) for chunk in chunks]
        if chunks and None not in pieces:
            clean = self._wire([piece for piece in pieces if piece is not None])
            return [
                chunk if new == old else _bytes_chunk(new)
                for chunk, old, new in zip(chunks, pieces, clean, strict=True)
            ]
        return self._chunks(chunks)

    def _wire(self, pieces: list[bytes]) -> list[bytes]:
        """Chunks of server-sent events: of what stands between the events' JSON only the frame stays unseen."""
        wire = b"".join(pieces)
        events: list[tuple[int, int, str, dict[str, Any]]] = []
        for found in _EVENT_DATA.finditer(wire):
            text = found[1].decode(errors="surrogateescape")
            try:
                events.append((*found.span(1), text, json.loads(text)))
            except (ValueError, RecursionError):
                continue  # cut off in the middle, or no JSON: text
        edits: list[tuple[int, int, bytes]] = []
        done = 0
        clean = self._chunks([event for *_, event in events])
        for (start, end, text, event), new in zip(events, clean, strict=True):
            edits += self._between(wire, done, start)
            if new is not event and new != event:
                edits.append((start, end, _rewritten(text, new).encode(errors="surrogateescape")))
            done = end
        return list(_edited(pieces, [*edits, *self._between(wire, done, len(wire))]))

    def _between(self, wire: bytes, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        if not _EVENT_FRAME.fullmatch(wire, start, end):
            text = wire[start:end].decode(errors="surrogateescape")
            if (clean := self._text(text)) != text:
                yield start, end, clean.encode(errors="surrogateescape")

    def _chunks(self, chunks: list[Any]) -> list[Any]:
        self._look_at_environment()
        # As they came: a chunk cleaned by itself would hide where what is left of a secret in the next one began.
        clean = self._cleaned_chunks(self._joined(chunks))
        is_same = all(new is old for new, old in zip(clean, chunks, strict=True))
        return clean if is_same else self._joined(clean)

    def _cleaned_chunks(self, chunks: list[Any]) -> list[Any]:
        """Chunks without the secrets that each holds by itself."""
        clean: list[Any] = []
        first: Any = None  # what the chunks from here on may be like, where it has no secrets
        for chunk in chunks:
            if type(chunk) is Again and chunk.first is first and self._text(chunk.text) == chunk.text:
                clean.append(chunk)
            else:
                clean.append(self._data(chunk))
                first = chunk if clean[-1] is chunk else None
        return clean

    def _joined(self, chunks: list[Any]) -> list[Any]:
        """Chunks without the secrets that are in the texts that they are pieces of."""
        chunks = self._joined_by(chunks, _whole)
        has_parts = any(part is not None for chunk in chunks for part in _part(chunk))
        return self._joined_by(chunks, _part) if has_parts else chunks

    def _joined_by(self, chunks: list[Any], part_of: Callable[[Any], _Path]) -> list[Any]:
        runs: list[_Run] = []
        first: Any = None
        for number, chunk in enumerate(chunks):
            if type(chunk) is Again and chunk.first is first:
                runs[-1].said.append(chunk.text)
            else:
                runs.append(_Run(number, list(_leaves(chunk, part_of(chunk))), []))
                first = chunk
        changed: dict[int, dict[_Path, str]] = {}
        for found in _in_pieces(runs):
            for (number, place, old), new in zip(
                found, self._pieces([piece for *_, piece in found]), strict=True
            ):
                if new != old:
                    changed.setdefault(number, {})[place] = new
        return [
            _with_leaves(chunk, changed[number]) if number in changed else chunk
            for number, chunk in enumerate(chunks)
        ]

    def _pieces(self, pieces: list[str]) -> list[str]:
        for _ in range(_ROUNDS):
            text = "".join(pieces)
            edits = _edits_of(text, self._spans(text))
            if not edits:
                break
            pieces = list(_edited(pieces, edits))
        text = "".join(pieces)
        if self._functions and text:
            clean, whole = list(map(self._text, pieces)), self._text(text)
            pieces = clean if "".join(clean) == whole else list(_edited(pieces, _edits(text, whole)))
        return pieces

    def _data(self, value: Any, part: _Part = _Part.ANSWER) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return self._mapping(value, part)
        if isinstance(value, list | tuple):
            return self._sequence(value, part)
        return value

    def _mapping(self, value: dict[Any, Any], part: _Part) -> dict[Any, Any]:
        new: dict[Any, Any] | None = None
        if _is_spelled(value):
            value = self._spelled(value)
        for number, (key, item) in enumerate(value.items()):
            name = self._text(key) if isinstance(key, str) else key
            told = _told_by(value) if key == "key" else name
            clean = self._named(told, item, part) if isinstance(key, str) else self._data(item, part)
            if new is None and (clean is not item or name is not key):
                new = dict(list(value.items())[:number])
            if new is not None:
                new[_free(name, new) if isinstance(name, str) else name] = clean
        return value if new is None else new

    def _spelled(self, value: dict[Any, Any]) -> dict[Any, Any]:
        """The logprobs of a text completion, whose tokens spell a text."""
        tokens = self._pieces(value["tokens"])
        return value if tokens == value["tokens"] else {**value, "tokens": tokens, "top_logprobs": None}

    def _named(self, name: str, item: Any, part: _Part) -> Any:
        kind = _name_kind(name)
        if item is None or isinstance(item, str):
            if kind is _Name.OTHER:
                is_address = item and part is _Part.ARGUMENTS and "://" in item and _is_address_name(name)
                return self._text(_address(item) if is_address else item) if item else item
            return self._text_named(name, kind, item, part)
        if kind is not _Name.OTHER and isinstance(item, list | tuple):
            named = [self._named(name, each, part) for each in item]
            return item if named == item else named
        if part is not _Part.CONTENT:
            if _is_content(name):
                part = _Part.CONTENT
            elif name.lower().endswith("headers"):
                part = _Part.HEADERS
            elif name == "extra_query" and isinstance(item, dict):
                return {key: self._parameter(key, text) for key, text in item.items()}
        return self._data(item, part)

    def _text_named(self, name: str, kind: _Name, item: str | None, part: _Part) -> str | None:
        if part is _Part.HEADERS or (part is _Part.ARGUMENTS and kind is _Name.CREDENTIAL):
            mark = _placeholder(name.lower())
            return item if item == mark else mark
        if item is None:
            return None
        clean = self._text(item)
        if _PLACEHOLDER.fullmatch(item):
            return clean
        # Of the cleaned text too, or a second pass could find a credential where the first saw a sentence.
        seen = [_without_scheme(_PLACEHOLDER.sub("", text)) for text in (item, clean)]
        is_secret = any(map(_is_credible, seen))
        if part is _Part.ARGUMENTS and kind is _Name.SECRET:
            is_secret = is_secret or any(_is_password(text, name) for text in seen)
        return self._marked(name, item) if is_secret else clean

    def _marked(self, name: str, secret: str) -> str:
        """The placeholder of a secret that is known by its name."""
        known = [span for span in self._spans(secret) if span.rank >= _KNOWN_RANK]
        return _placeholder(name.lower(), _unknown(secret, _Span(0, len(secret), 0, name), known))

    def _parameter(self, name: Any, value: Any) -> Any:
        """One of an address's parameters, as LiteLLM's ``extra_query`` has them."""
        if not (isinstance(name, str) and isinstance(value, str)):
            return self._data(value)
        before = f"?{name}={value}"
        after = _PARAMETER.sub(_own_parameter, before)
        return self._text(value) if after == before else _placeholder(name.lower())

    def _sequence(self, value: list[Any] | tuple[Any, ...], part: _Part) -> list[Any]:
        if _is_logprobs(value):
            return self._logprobs(value)
        new: list[Any] | None = list(value) if isinstance(value, tuple) else None
        for number, item in enumerate(value):
            clean = self._data(item, part)
            if clean is not item:
                if new is None:
                    new = list(value)
                new[number] = clean
        return value if new is None else new  # type: ignore[return-value]

    def _logprobs(self, items: list[Any] | tuple[Any, ...]) -> list[Any]:
        new = []
        for item, token in zip(items, self._pieces([item["token"] for item in items]), strict=True):
            told = item if token == item["token"] else _retold(item, token)
            clean = self._data(told)
            new.append(clean if clean.get("token") == told["token"] else _retold(clean, clean.get("token")))
        same = isinstance(items, list) and all(clean is item for clean, item in zip(new, items, strict=True))
        return items if same else new  # type: ignore[return-value]

    def _text(self, text: str) -> str:
        clean = self._ruled(text)
        for function in self._functions:
            own = _applied(function, clean)
            clean = clean if own == clean else self._ruled(own)
        return clean

    def _ruled(self, text: str) -> str:
        known = self._clean
        found = known.get(text)
        if found is not None:
            return text if found == text else found
        clean = self._without_secrets(text)
        if len(text) <= _SHORT_TEXT and len(known) < _TEXTS:
            known[text] = clean
        return clean

    def _without_secrets(self, text: str) -> str:
        # Taking one secret out can uncover the edge of another, so look until there is nothing more.
        for _ in range(_ROUNDS):
            spans = self._spans(text)
            clean = _replace(text, spans) if spans else text
            if clean == text:
                break
            text = clean
        return text

    def _spans(self, text: str) -> list[_Span]:
        if len(text) < _SHORTEST and not self._patterns:
            return []
        spans = list(_built_in(text, self._known)) if len(text) >= _SHORTEST else []
        for secret, name in self._known:
            if secret in text:
                spans += (
                    _Span(*found.span(), _KNOWN_RANK, name) for found in re.finditer(re.escape(secret), text)
                )
            elif (at := _cut_off(text, secret)) is not None:
                spans.append(_Span(at, len(text), _KNOWN_RANK, name))
        for pattern in self._patterns:
            group = "secret" if "secret" in pattern.groupindex else 0
            with time_limit("redact (lm_redact)", pattern.pattern):
                places = [found.span(group) for found in pattern.finditer(text)]
            spans += (_Span(start, end, _OWN_RANK, "pattern") for start, end in places if start < end)
        return spans

    def _look_at_environment(self) -> None:
        present = self._environment.variables()
        if present is not self._present:
            with self._lock:
                self._present = present
                if not present <= self._variables:
                    self._variables |= present
                    self._rebuild()

    def _rebuild(self) -> None:
        """Make the table of secrets to look for: longest first, the environment's name before an argument's."""
        table: dict[str, str] = {}
        for name, value in sorted(self._variables):
            for secret in _secrets_of(name, value):
                for written in _as_written(secret):
                    table.setdefault(written, name)
        for secret, name in sorted(self._learnt.items(), key=lambda item: item[1]):
            for written in _as_written(secret):
                table.setdefault(written, name)
        self._know(tuple(sorted(table.items(), key=lambda item: (-len(item[0]), item))))


_Path: TypeAlias = tuple[Any, ...]
_Leaf: TypeAlias = tuple[_Path, _Path, str]


class _Run(NamedTuple):
    """Chunks that are like the first of them: its number, its texts, and the pieces of text of the others."""

    number: int
    leaves: list[_Leaf]
    said: list[str]


def _in_pieces(runs: list[_Run]) -> Iterator[list[tuple[int, _Path, str]]]:
    """The texts that come in pieces: of each the pieces, with the number of the chunk and the place there."""
    texts: dict[_Path, set[str]] = {}
    for run in runs:
        for path, place, text in run.leaves:
            texts.setdefault(path, set()).update((text, *run.said) if _is_said(place) else (text,))
    found: dict[_Path, list[tuple[int, _Path, str]]] = {
        path: [] for path, pieces in texts.items() if len(pieces) > 1
    }
    for run in runs:
        for path, place, text in run.leaves:
            if path in found:
                said = run.said if _is_said(place) else [text] * len(run.said)
                found[path] += (
                    (number, place, piece) for number, piece in enumerate([text, *said], run.number)
                )
    yield from found.values()


def _is_said(place: _Path) -> bool:
    """Whether a text of a chat's chunk is its piece of text."""
    return place[:1] + place[2:] == ("choices", "delta", "content")


def _whole(_chunk: Any) -> _Path:
    """The one text of a stream."""
    return ()


def _part(chunk: Any) -> _Path:
    """Which of a stream's texts an event is of: those of several items may come in turn."""
    found = map(chunk.get, _PARTS) if isinstance(chunk, dict) else ()
    return tuple(part if isinstance(part, str | int) else None for part in found)


_PARTS = ("type", "item_id", "output_index", "content_index", "summary_index", "index")


def _leaves(value: Any, path: _Path = (), place: _Path = ()) -> Iterator[_Leaf]:
    """The texts of a chunk: what each continues in other chunks, where it is, and itself.

    An item of a list is at its own ``index`` if it has one; the tokens of logprobs are pieces of one text.
    """
    if isinstance(value, str):
        yield path, place, value
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "tokens" and _is_spelled(value):
                for at, token in enumerate(item):
                    yield (*path, name), (*place, name, at), token
            else:
                yield from _leaves(item, (*path, name), (*place, name))
    elif _is_logprobs(value):
        for at, item in _places(value):
            yield (*path, "token"), (*place, at, "token"), item["token"]
    elif isinstance(value, list):
        for at, item in _places(value):
            yield from _leaves(item, (*path, at), (*place, at))


def _with_leaves(value: Any, texts: dict[tuple[Any, ...], str], place: tuple[Any, ...] = ()) -> Any:
    if isinstance(value, str):
        return texts.get(place, value)
    if isinstance(value, dict):
        if "top_logprobs" in value and (token := texts.get((*place, "token"))) is not None:
            return _retold(value, token)
        if _is_spelled(value):
            tokens = [texts.get((*place, "tokens", at), old) for at, old in enumerate(value["tokens"])]
            return value if tokens == value["tokens"] else {**value, "tokens": tokens, "top_logprobs": None}
        return {name: _with_leaves(item, texts, (*place, name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_leaves(item, texts, (*place, at)) for at, item in _places(value)]
    return value


def _is_logprobs(value: Any) -> bool:
    """Whether data is a list of tokens with their probabilities, which spell a text."""
    return (
        bool(value)
        and isinstance(value, list | tuple)
        and all(
            isinstance(item, dict) and "top_logprobs" in item and isinstance(item.get("token"), str)
            for item in value
        )
    )


def _is_spelled(value: dict[Any, Any]) -> bool:
    """Whether data is the logprobs of a text completion."""
    tokens = value.get("tokens") if "token_logprobs" in value else None
    return isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)


def _told_by(value: Mapping[Any, Any]) -> str:
    """What stands under ``key`` is named by the ``type`` beside it, as in Azure's ``{"type": "api_key", "key": …}``."""
    kind = value.get("type")
    return kind if isinstance(kind, str) and _NAME.fullmatch(kind) and is_secret_name(kind) else "key"


_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")


def _retold(item: dict[str, Any], token: Any) -> dict[str, Any]:
    """A token of logprobs with another text: its bytes and what it might have been told the old one."""
    return {**item, "token": token, "top_logprobs": []} | ({"bytes": None} if "bytes" in item else {})


def _places(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    indexes = [item.get("index") if isinstance(item, dict) else None for item in items]
    known = all(isinstance(index, int) for index in indexes) and len(set(indexes)) == len(indexes)
    for place, item in enumerate(items):
        yield (("index", indexes[place]) if known else place), item


def _edits(old: str, new: str) -> list[tuple[int, int, str]]:
    """What makes one text of another: all from their first difference to their last, at once."""
    if old == new:
        return []
    start = min(_in_common(old, new), len(old) - 1)
    end = _in_common(old[start:][::-1], new[start:][::-1])
    return [(start, len(old) - end, new[start : len(new) - end])]


def _in_common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    differ = (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    return next(differ, min(len(one), len(other)))


_EVENT_DATA = re.compile(rb"(?:\A|(?<=[\r\n]))data:[ ]?(\{[^\r\n]*)")
_EVENT_FRAME = re.compile(rb"(?:event:[ ]?[a-z_.]*|data:[ ]?|[\r\n])*")
_JSON_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _bytes(chunk: Any) -> bytes | None:
    """What a chunk of bytes holds, None for another."""
    if not isinstance(chunk, dict) or len(chunk) != 1:
        return None
    text, raw = chunk.get("bytes"), chunk.get("raw")
    if isinstance(text, str):
        return text.encode(errors="surrogatepass")
    return raw if isinstance(raw, bytes) else None


def _bytes_chunk(piece: bytes) -> dict[str, Any]:
    try:
        return {"bytes": piece.decode()}
    except UnicodeDecodeError:
        return {"raw": piece}


def _rewritten(text: str, data: Any) -> str:
    """The JSON text with the data's texts in the place of its own; all else as it was written, where possible."""
    ascii_only = text.isascii() or "\\ud" in text.lower()  # a lone surrogate must stay an escape
    plain = json.dumps(data, ensure_ascii=ascii_only, separators=(",", ":"))
    texts = iter(_JSON_TEXT.findall(plain))

    def text_of(found: re.Match[str]) -> str:
        new = next(texts, "")
        return found[0] if new and json.loads(found[0]) == json.loads(new) else new

    same_form = _JSON_TEXT.sub(text_of, text)
    try:
        return same_form if json.loads(same_form) == data else plain
    except ValueError:
        return plain


def _edited(pieces: list[AnyStr], edits: list[tuple[int, int, AnyStr]]) -> Iterator[AnyStr]:
    """The pieces with each edit in that piece where it begins; edits are in order and do not overlap."""
    start = at = 0
    for piece in pieces:
        end, done = start + len(piece), start
        new: list[AnyStr] = []
        while at < len(edits) and edits[at][0] < end:
            first, last, text = edits[at]
            new.append(piece[done - start : max(first - start, 0)])
            if first >= start:
                new.append(text)
            done = min(last, end)
            if last > end:
                break
            at += 1
        new.append(piece[done - start :])
        yield piece[:0].join(new)
        start = end


def _free(name: str, taken: dict[Any, Any]) -> str:
    """A key that is not taken, where redaction made two keys alike."""
    free, number = name, 2
    while free in taken:
        free = f"{name[:-1]}-{number}>" if name.endswith(">") else f"{name}-{number}"
        number += 1
    return free


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise SettingsError(f"{pattern!r} is no regular expression to redact by: {error}") from error
    if not isinstance(compiled.pattern, str):
        raise SettingsError(f"{pattern!r} is a pattern of bytes; redaction works on text, leave out the b")
    return compiled
