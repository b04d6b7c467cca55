"""The formats of well-known keys and tokens."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from pytest_lmcache.redact.names import word_set


class Format(NamedTuple):
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
FORMATS = (
    Format("anthropic-key", ("sk-ant-",), _NUMBERED),
    Format("openrouter-key", ("sk-or-",), r"(?:v\d+-)?" + _LONG),
    Format("langfuse-key", ("sk-lf-",), _DASHED),
    Format("openai-key", ("sk-proj-", "sk-svcacct-", "sk-admin-", "sk-None-"), _NUMBERED),
    Format("openai-key", ("sk-",), _NO_CLASS + _MIXED, _RUN, random=True),
    Format("google-key", ("AIza",), _RUN + "{30,}"),
    Format("google-key", ("AQ.A",), _RUN + "{30,}"),
    Format("google-token", ("ya29.",), r"[A-Za-z0-9_.-]{20,}(?<!\.)"),
    Format("google-secret", ("GOCSPX-",), _DASHED),
    Format("aws-key-id", ("AKIA", "ASIA", "ABIA", "ACCA"), r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    Format("aws-session-token", ("IQoJb3JpZ2luX2Vj", "FwoGZXIvYXdzE"), r"[A-Za-z0-9+/]{60,}={0,2}"),
    Format("aws-bedrock-key", ("ABSK", "bedrock-api-key-"), r"[A-Za-z0-9+/]{60,}={0,2}"),
    Format("azure-key", ("JQQJ9",), r"[A-Za-z0-9]{57,}(?:==)?", back=(52,)),
    Format("azure-secret", ("7Q~", "8Q~"), r"[A-Za-z0-9_.~-]{37,}", "[A-Za-z0-9_.~-]", back=(3,)),
    Format("huggingface-token", ("hf_", "api_org_"), _NO_NAME + _LONG, "[A-Za-z0-9-]"),
    Format("groq-key", ("gsk_",), _LONG),
    Format("xai-key", ("xai-",), r"[A-Za-z0-9_]{20,}"),
    Format("perplexity-key", ("pplx-",), _LONG),
    Format("nvidia-key", ("nvapi-",), _DASHED),
    Format("cerebras-key", ("csk-",), _LONG),
    Format("fireworks-key", ("fw_",), _LONG, _RUN),
    Format("replicate-token", ("r8_",), rf"(?={_RUN}{{0,99}}[0-9]){_DASHED}", _RUN),
    Format("together-key", ("tgp_v1_",), _DASHED),
    Format("tavily-key", ("tvly-",), _DASHED),
    Format("langsmith-key", ("lsv2_pt_", "lsv2_sk_"), r"[a-f0-9_]{20,}"),
    Format("github-token", ("ghp_", "gho_", "ghu_", "ghr_"), rf"(?:{_LONG}|{_CUT})"),
    Format("github-token", ("ghs_",), rf"(?:{_DASHED}|{_CUT})(?:\.{_RUN}+)*"),
    Format("github-token", ("github_pat_",), rf"(?:{_CUT}|11[A-Z0-9]{{7,}})[A-Za-z0-9_]*"),
    Format(
        "gitlab-token",
        tuple(f"gl{kind}-" for kind in word_set("agent cbt dt ffct ft imt oas pat ptt rt rtr soat wt")),
        r"[A-Za-z0-9_.-]{20,}(?<!\.)",
    ),
    Format("gitlab-token", ("GR1348941",), _DASHED),
    Format("slack-token", tuple(f"xox{kind}-" for kind in "abcdeoprs"), r"[A-Za-z0-9-]{10,}"),
    Format("slack-token", ("xoxe.xox",), r"[a-z]-[A-Za-z0-9-]{10,}"),
    Format("slack-token", ("xapp-",), r"[A-Za-z0-9-]{10,}"),
    Format(
        "slack-webhook",
        ("hooks.slack.com/",),
        r"(?:services|workflows|triggers)/[A-Za-z0-9/_-]{16,}",
        keep=True,
    ),
    Format("npm-token", ("npm_",), r"[A-Za-z0-9]{30,}"),
    Format("pypi-token", ("pypi-AgE",), _RUN + "{16,}"),
    Format("sendgrid-key", ("SG.",), rf"{_RUN}{{16,}}\.{_RUN}{{30,}}"),
    Format("databricks-token", ("dapi",), r"[a-f0-9]{32}(?:-[0-9]+)?"),
    # It begins with a number in base64.
    Format(
        "discord-token",
        (".",),
        rf"(?:M[Tjz]|N[DTjz]|O[DT]){_RUN}{{21,26}}\.{_RUN}{{6}}\.{_RUN}{{27,}}",
        _RUN,
        back=tuple(range(23, 29)),
        ahead=rf"{_RUN}{{6}}\.",
    ),
    Format(
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
    Format(
        "telegram-token",
        (":AA",),
        rf"[0-9]{{8,10}}:AA{_RUN}{{30,}}",
        "[A-Za-z0-9](?<!/bot)",
        back=(8, 9, 10),
    ),
    Format(
        "firebase-key", (":",), rf"AAAA{_RUN}{{7}}:{_RUN}{{100,}}", _RUN, back=(11,), ahead=f"{_RUN}{{60}}"
    ),
    Format("supabase-token", ("sbp_",), r"(?:oauth_|v[0-9]_)?(?=[a-z]*[0-9])[a-z0-9]{32,}"),
    Format("vault-token", ("hvs.", "hvb.", "hvr."), _DASHED),
    Format("digitalocean-token", ("dop_v1_", "doo_v1_", "dor_v1_"), r"[a-f0-9]{32,}"),
    Format(
        "shopify-token",
        ("shpat_", "shpca_", "shppa_", "shpss_", "shptka_", "shpua_", "prtapi_"),
        r"[A-Fa-f0-9]{32,}",
    ),
    Format("stripe-secret", ("whsec_",), r"[A-Za-z0-9+/]{24,}={0,2}"),
    Format("pinecone-key", ("pcsk_",), r"[A-Za-z0-9]{2,8}_[A-Za-z0-9]{30,}"),
    Format("jina-key", ("jina_",), rf"[A-Za-z0-9]{{20,}}{_RUN}*"),
    Format("elevenlabs-key", ("sk_",), r"[a-f0-9]{48}(?![A-Za-z0-9])"),
    Format("twilio-key", ("SK",), r"[A-Fa-f0-9]{32}(?![A-Za-z0-9])", ahead="[A-Fa-f0-9]{32}"),
    Format("voyage-key", ("pa-",), _RUN + "{40,}", _RUN, random=True),
    Format("stripe-key", ("sk_live_", "sk_test_", "rk_live_", "rk_test_"), _LONG),
    Format("jwt", ("eyJ",), rf"{_RUN}{{8,}}+\.{_RUN}{{8,}}+(?:\.{_RUN}*+){{0,3}}", _RUN),
    Format("private-key", ("-----BEGIN ",), _PEM, "--"),
    Format(
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
ESCAPES = (r"\\[nrtbf]", r"\\u[0-9A-Fa-f]{4}", "%[0-9A-Fa-f]{2}")
AFTER_ESCAPE = "|".join(f"(?<={escape})" for escape in ESCAPES)


@cache
def matcher(form: Format, start: str) -> re.Pattern[str]:
    """What finds a format's keys by one of their beginnings."""
    left = rf"(?:(?<!{form.left})|{AFTER_ESCAPE})"
    if any(form.back):
        return re.compile(left + rf"(?P<span>{form.rest})", re.ASCII)
    literal = re.escape(start)
    if form.keep:
        return re.compile(left + rf"{literal}(?P<span>{form.rest})", re.ASCII)
    return re.compile(left + rf"(?P<span>{literal}(?:{form.rest}|{_STARS}|{_DOTS}))", re.ASCII)
