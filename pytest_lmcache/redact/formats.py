"""The formats of well-known keys and tokens. To redact another provider's keys, add a row to ``FORMATS``."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple


class Format(NamedTuple):
    """A kind of key: how it begins, what follows, and an example.

    ``kind`` names the placeholder. ``starts`` are literals, one of which the key has to contain; ``rest`` is a
    pattern for what follows. ``example`` is a made-up key without its beginning, which stands at ``{}`` or in front.
    The beginning must not follow ``not_after``: short literals turn up in URL-safe base64. ``offsets`` are the
    possible numbers of characters of the key before the literal; if there are any, ``rest`` matches the whole key.
    ``followed_by`` must follow a literal that turns up often. ``keeps_start`` leaves the beginning in the text.
    ``is_random`` excludes what reads like words.
    """

    kind: str
    starts: tuple[str, ...]
    rest: str
    example: str
    not_after: str = "[A-Za-z0-9]"
    offsets: tuple[int, ...] = (0,)
    followed_by: str = ""
    keeps_start: bool = False
    is_random: bool = False


_CHAR = "[A-Za-z0-9_-]"
_ALNUM = r"[A-Za-z0-9]{20,}"
_DASHED = _CHAR + "{20,}"
_WITH_DIGIT = rf"(?={_CHAR}{{0,99}}[0-9]){_CHAR}{{16,}}"
# A name such as from_hf_AutoModel has no digit.
_NO_NAME = r"(?:(?<!_hf_)(?<!_api_org_)|(?=[A-Za-z]*[0-9]))"
# Nothing else begins like GitHub's tokens: a token that a log has cut counts too, unless it is a word.
_CUT = r"(?=[A-Za-z]*[0-9])[A-Za-z0-9]{16,}"
# CSS classes and package names begin with "sk-" too: ask for digits and capitals, or for one long run.
_MIXED = rf"(?!SK-)(?=(?={_CHAR}*[0-9])(?:{_CHAR}*[A-Z]|{_CHAR}*?[a-z0-9]{{20}})|(?:{_CHAR}*?[A-Z]){{3}}){_CHAR}{{20,}}"
# Not a word between dashes, as in the CSS class sk-Button_primary__a1B2c.
_NO_CLASS = rf"(?!(?:{_CHAR}*[-_])?(?!(?:demo|live|prod|test|user)[-_])[A-Z]?[a-z]{{3,}}(?:[-_]|(?!{_CHAR})))"
# From BEGIN to END, whatever stands before each line: a quote's mark, a diff's, a string's. A key that is cut goes as
# far as it reads like one. It holds no two hyphens, so that a text full of BEGIN lines is read once.
_PEM_CHAR = "(?:[^-]|-(?!----(?:BEGIN|END) ))"
_PEM_KIND = "(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
_PEM = (
    rf"{_PEM_KIND}(?:"
    rf"(?={_PEM_CHAR}{{0,400}}?(?:[A-Za-z0-9+/]{{32}}|,ENCRYPTED)){_PEM_CHAR}*+-----END {_PEM_KIND}"
    r"|(?=[^-]{0,200}?[A-Za-z0-9+/]{32}|[^\"']{0,200}?,ENCRYPTED)(?:[A-Za-z0-9+/=\s\\:,.]|-(?!-))*+"
    r")"
)

# For the examples, which no secret scanner should take for keys.
_A = "aB3dE5gH7jK9mN1pQ2sT4vW6yZ8bC0dF3hJ5kL7nP9rS1tV3xY5zA7cD9eF1gH3"
_0 = "3f9a1c0e5d21b7aa4c6e8f01325476980badcafe1234567890abcdef98765432"

# Sources of lengths and alphabets: the providers' documentation and the rules of public secret scanners, with lower
# bounds relaxed, since formats grow. If several formats match, the first names the placeholder.
FORMATS = (
    Format("anthropic-key", ("sk-ant-",), _WITH_DIGIT, "api03-" + _A),
    Format("openrouter-key", ("sk-or-",), r"(?:v\d+-)?" + _ALNUM, "v1-" + _0),
    Format("langfuse-key", ("sk-lf-",), _DASHED, "12345678-90ab-cdef-1234-567890abcdef"),
    Format("openai-key", ("sk-proj-", "sk-svcacct-", "sk-admin-", "sk-None-"), _WITH_DIGIT, _A),
    Format("openai-key", ("sk-",), _NO_CLASS + _MIXED, _A, _CHAR, is_random=True),
    Format("google-key", ("AIza", "AQ.A"), _CHAR + "{30,}", "Sy" + _A[:33]),
    Format("google-token", ("ya29.",), r"[A-Za-z0-9_.-]{20,}(?<!\.)", _A),
    Format("google-secret", ("GOCSPX-",), _DASHED, _A[:28]),
    Format("aws-key-id", ("AKIA", "ASIA", "ABIA", "ACCA"), r"[A-Z0-9]{16}(?![A-Za-z0-9])", _A[:16].upper()),
    Format(
        "aws-session-token", ("IQoJb3JpZ2luX2Vj", "FwoGZXIvYXdzE"), r"[A-Za-z0-9+/]{60,}={0,2}", _A + "=="
    ),
    Format("aws-bedrock-key", ("ABSK", "bedrock-api-key-"), r"[A-Za-z0-9+/]{60,}={0,2}", _A + _0),
    Format("azure-key", ("JQQJ9",), r"[A-Za-z0-9]{57,}(?:==)?", _A[:52] + "{}" + _A[:27], offsets=(52,)),
    Format(
        "azure-secret",
        ("7Q~", "8Q~"),
        r"[A-Za-z0-9_.~-]{37,}",
        "abc{}" + _A[:34],
        "[A-Za-z0-9_.~-]",
        offsets=(3,),
    ),
    Format("huggingface-token", ("hf_", "api_org_"), _NO_NAME + _ALNUM, _A[:34], "[A-Za-z0-9-]"),
    Format("groq-key", ("gsk_",), _ALNUM, _A[:52]),
    Format("xai-key", ("xai-",), r"[A-Za-z0-9_]{20,}", _A),
    Format("perplexity-key", ("pplx-",), _ALNUM, _A[:48]),
    Format("nvidia-key", ("nvapi-",), _DASHED, _A),
    Format("cerebras-key", ("csk-",), _ALNUM, _0[:48]),
    Format("fireworks-key", ("fw_",), _ALNUM, _A[:24], _CHAR),
    Format("replicate-token", ("r8_",), rf"(?={_CHAR}{{0,99}}[0-9]){_DASHED}", _A[:37], _CHAR),
    Format("together-key", ("tgp_v1_",), _DASHED, _A[:43]),
    Format("tavily-key", ("tvly-",), _DASHED, "dev-" + _A[:32]),
    Format("langsmith-key", ("lsv2_pt_", "lsv2_sk_"), r"[a-f0-9_]{20,}", _0[:32] + "_" + _0[:10]),
    Format("github-token", ("ghp_", "gho_", "ghu_", "ghr_"), rf"(?:{_ALNUM}|{_CUT})", _A[:36]),
    Format("github-token", ("ghs_",), rf"(?:{_DASHED}|{_CUT})(?:\.{_CHAR}+)*", _A[:36]),
    Format(
        "github-token",
        ("github_pat_",),
        rf"(?:{_CUT}|11[A-Z0-9]{{7,}})[A-Za-z0-9_]*",
        _A[:22] + "_" + _A[:59],
    ),
    Format(
        "gitlab-token",
        tuple(f"gl{kind}-" for kind in "agent cbt dt ffct ft imt oas pat ptt rt rtr soat wt".split()),
        r"[A-Za-z0-9_.-]{20,}(?<!\.)",
        _A[:20],
    ),
    Format("gitlab-token", ("GR1348941",), _DASHED, _A[:20]),
    Format(
        "slack-token",
        ("xapp-", *(f"xox{kind}-" for kind in "abcdeoprs")),
        "[A-Za-z0-9-]{10,}",
        "1-" + _A[:24],
    ),
    Format("slack-token", ("xoxe.xox",), r"[a-z]-[A-Za-z0-9-]{10,}", "p-1-" + _A),
    Format(
        "slack-webhook",
        ("hooks.slack.com/",),
        r"(?:services|workflows|triggers)/[A-Za-z0-9/_-]{16,}",
        "services/" + _A[:24],
        keeps_start=True,
    ),
    Format("npm-token", ("npm_",), r"[A-Za-z0-9]{30,}", _A[:36]),
    Format("pypi-token", ("pypi-AgE",), _CHAR + "{16,}", _A),
    Format("sendgrid-key", ("SG.",), rf"{_CHAR}{{16,}}\.{_CHAR}{{30,}}", _A[:22] + "." + _A[:43]),
    Format("databricks-token", ("dapi",), r"[a-f0-9]{32}(?:-[0-9]+)?", _0[:32]),
    Format(  # it begins with a number in base64
        "discord-token",
        (".",),
        rf"(?:M[Tjz]|N[DTjz]|O[DT]){_CHAR}{{21,26}}\.{_CHAR}{{6}}\.{_CHAR}{{27,}}",
        "MTIz" + _A[:22] + "{}G1a2b3." + _A[:38],
        _CHAR,
        offsets=tuple(range(23, 29)),
        followed_by=rf"{_CHAR}{{6}}\.",
    ),
    Format(
        "discord-webhook",
        tuple(
            f"{host}.com/api/{version}webhooks/"
            for host in ("discord", "discordapp")
            for version in ("", "v6/", "v7/", "v8/", "v9/", "v10/")
        ),
        rf"[0-9]{{16,20}}/{_CHAR}{{30,}}",
        "123456789012345678/" + _A,
        keeps_start=True,
    ),
    Format(  # it follows "bot" in the address of the API
        "telegram-token",
        (":AA",),
        rf"[0-9]{{8,10}}:AA{_CHAR}{{30,}}",
        "123456789{}" + _A[:33],
        "[A-Za-z0-9](?<!/bot)",
        offsets=(8, 9, 10),
    ),
    Format(
        "firebase-key",
        (":",),
        rf"AAAA{_CHAR}{{7}}:{_CHAR}{{100,}}",
        "AAAA" + _A[:7] + "{}APA91b" + _A + _0,
        _CHAR,
        offsets=(11,),
        followed_by=f"{_CHAR}{{60}}",
    ),
    Format("supabase-token", ("sbp_",), r"(?:oauth_|v[0-9]_)?(?=[a-z]*[0-9])[a-z0-9]{32,}", _0[:40]),
    Format("vault-token", ("hvs.", "hvb.", "hvr."), _DASHED, _A[:24]),
    Format("digitalocean-token", ("dop_v1_", "doo_v1_", "dor_v1_"), r"[a-f0-9]{32,}", _0),
    Format(
        "shopify-token",
        ("shpat_", "shpca_", "shppa_", "shpss_", "shptka_", "shpua_", "prtapi_"),
        r"[A-Fa-f0-9]{32,}",
        _0[:32],
    ),
    Format("stripe-secret", ("whsec_",), r"[A-Za-z0-9+/]{24,}={0,2}", _A[:32]),
    Format("pinecone-key", ("pcsk_",), r"[A-Za-z0-9]{2,8}_[A-Za-z0-9]{30,}", _A[:5] + "_" + _A[:62]),
    Format("jina-key", ("jina_",), rf"[A-Za-z0-9]{{20,}}{_CHAR}*", _0[:32] + _A[:28]),
    Format("elevenlabs-key", ("sk_",), r"[a-f0-9]{48}(?![A-Za-z0-9])", _0[:48]),
    Format("twilio-key", ("SK",), r"[A-Fa-f0-9]{32}(?![A-Za-z0-9])", _0[:32], followed_by="[A-Fa-f0-9]{32}"),
    Format("voyage-key", ("pa-",), _CHAR + "{40,}", _A[:43], _CHAR, is_random=True),
    Format("stripe-key", ("sk_live_", "sk_test_", "rk_live_", "rk_test_"), _ALNUM, _A[:24]),
    Format(
        "jwt",
        ("eyJ",),
        rf"{_CHAR}{{8,}}+\.{_CHAR}{{8,}}+(?:\.{_CHAR}*+){{0,3}}",
        f"{_A[:20]}.{_A[:20]}.{_A[:20]}",
        _CHAR,
    ),
    Format("private-key", ("-----BEGIN ",), _PEM, f"PRIVATE KEY-----\n{_A}\n-----END PRIVATE KEY-----", "--"),
    Format(
        "bearer-token",
        ("Bearer ", "bearer "),
        r"(?=\S*[0-9])[A-Za-z0-9._~+/-]{16,}=*(?<!\.)",
        _A,
        keeps_start=True,
        is_random=True,
    ),
)
# A key that a provider echoes with its middle masked.
_STARS = rf"{_CHAR}{{0,60}}[*•]{{3,}}{_CHAR}{{0,60}}"
_DOTS = rf"{_CHAR}{{0,60}}(?:\.\.\.|…)(?=[a-z]{{0,3}}[A-Z0-9]){_CHAR}{{4,12}}(?!{_CHAR})"
# A beginning may follow an escape that ends in a letter or digit: \n in JSON, \u003c, %3D.
ESCAPES = (r"\\[nrtbf]", r"\\u[0-9A-Fa-f]{4}", "%[0-9A-Fa-f]{2}")
AFTER_ESCAPE = "|".join(f"(?<={escape})" for escape in ESCAPES)


@cache
def matcher(form: Format, start: str) -> re.Pattern[str]:
    """The pattern of a format's keys with one of their beginnings; its group ``span`` is what is taken out."""
    left = rf"(?:(?<!{form.not_after})|{AFTER_ESCAPE})"
    literal = re.escape(start)
    if any(form.offsets):
        pattern = f"(?P<span>{form.rest})"
    elif form.keeps_start:
        pattern = f"{literal}(?P<span>{form.rest})"
    else:
        pattern = f"(?P<span>{literal}(?:{form.rest}|{_STARS}|{_DOTS}))"
    return re.compile(left + pattern, re.ASCII)
