"""Redaction: what has to go, what has to stay, and that doing it twice changes nothing.

Every key here is made up and put together at run time, so that no secret scanner takes it for a real one.
"""

import base64
import json
import random
import re
import sys
from types import MappingProxyType, SimpleNamespace

import litellm
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_lmcache import redact
from pytest_lmcache.errors import SettingsError
from pytest_lmcache.redact import DUMMY_KEY, formats, is_secret_name, known_values, scan
from pytest_lmcache.stream_chunks import whole


class Redactor(redact.Redactor):
    """Returns every chunk of a stream as a mapping, which is easier to compare."""

    def stream(self, chunks):
        return [*whole(super().stream(chunks))]


def words(text):
    """A list of words, a line of which is easier to read than a column."""
    return text.split()


ALNUM = "aB3dE5gH7jK9mN1pQ2sT4vW6yZ8bC0dF3hJ5kL7nP9rS1tV3xY5zA7cD9eF1gH3"
HEX = "3f9a1c0e5d21b7aa4c6e8f01325476980badcafe1234567890abcdef98765432"
UPPER = "Q7R2S5T9U3V6W8X4"
MISTRAL = "k" + ALNUM[:31]
AZURE_OLD = HEX[:32]
AWS_SECRET = "wJ" + "alr/XUtnFEMI8K7MDENGbPxRfiCYzz" + "1" * 8
PEM_BODY = "\n".join([base64.b64encode(HEX.encode()).decode()[:64]] * 3)


def pem(kind="", newline="\n"):
    """A private key of three lines."""
    name = f"{kind}PRIVATE" + " KEY"
    return f"-----BEGIN {name}-----\n{PEM_BODY}\n-----END {name}-----".replace("\n", newline)


def jwt():
    """A token of three parts."""
    parts = ('{"alg":"HS256","typ":"JWT"}', '{"sub":"1234567890"}', ALNUM[:32])
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


FORMATS = {
    "openai legacy": ("openai-key", "sk-" + ALNUM[:20] + "T3Blbk" + "FJ" + ALNUM[20:40]),
    "openai project": (
        "openai-key",
        "sk-" + "proj-" + ALNUM[:30] + "_-" + ALNUM[:60] + "T3Blbk" + "FJ" + ALNUM[:60],
    ),
    "openai service account": ("openai-key", "sk-" + "svcacct-" + ALNUM),
    "openai admin": ("openai-key", "sk-" + "admin-" + ALNUM),
    "openai-like, 32 hex": ("openai-key", "sk-" + HEX[:32]),
    "litellm virtual": ("openai-key", "sk-" + "A1b2-C3d4_E5f6G7h8I9jk"),
    "openai masked": ("openai-key", "sk-" + "abc***********wxyz"),
    "openai project masked": ("openai-key", "sk-" + "proj-********************21sA"),
    "openai masked by dots": ("openai-key", "sk-" + "...x7Zq"),
    "anthropic": ("anthropic-key", "sk-" + "ant-api03-" + ALNUM + "-" + ALNUM[:20] + "AA"),
    "anthropic oauth": ("anthropic-key", "sk-" + "ant-oat01-" + ALNUM),
    "anthropic masked": ("anthropic-key", "sk-" + "ant-api03-****abcd"),
    "openrouter": ("openrouter-key", "sk-" + "or-v1-" + HEX),
    "langfuse": ("langfuse-key", "sk-" + "lf-12345678-90ab-cdef-1234-567890abcdef"),
    "google": ("google-key", "AI" + "zaSy" + ALNUM[:16] + "-_" + ALNUM[:15]),
    "google, new": ("google-key", "AQ" + ".Ab8" + ALNUM[:48]),
    "google oauth": ("google-token", "ya" + "29." + ALNUM + "-_." + ALNUM[:20]),
    "google client secret": ("google-secret", "GOC" + "SPX-" + ALNUM[:28]),
    "aws id": ("aws-key-id", "AK" + "IA" + UPPER),
    "aws temporary id": ("aws-key-id", "AS" + "IA" + UPPER),
    "aws session": ("aws-session-token", "IQoJb3JpZ2lu" + "X2Vj" + ALNUM + "/+" + ALNUM + "=="),
    "aws bedrock": ("aws-bedrock-key", "AB" + "SK" + base64.b64encode(HEX.encode() * 2).decode()),
    "azure": ("azure-key", ALNUM[:52] + "JQQJ" + "99BAACYeBjFXJ3w3AAABACOGq1zX"[:28]),
    "azure client secret": ("azure-secret", "abc" + "8Q" + "~" + ALNUM[:34]),
    "hugging face": ("huggingface-token", "hf" + "_" + ALNUM[:34]),
    "groq": ("groq-key", "gsk" + "_" + ALNUM[:52]),
    "xai": ("xai-key", "xai" + "-" + ALNUM + ALNUM[:16]),
    "perplexity": ("perplexity-key", "pplx" + "-" + ALNUM[:48]),
    "nvidia": ("nvidia-key", "nvapi" + "-" + ALNUM),
    "cerebras": ("cerebras-key", "csk" + "-" + HEX[:48]),
    "fireworks": ("fireworks-key", "fw" + "_" + ALNUM[:24]),
    "replicate": ("replicate-token", "r8" + "_" + ALNUM[:37]),
    "together": ("together-key", "tgp" + "_v1_" + ALNUM[:43]),
    "tavily": ("tavily-key", "tvly" + "-dev-" + ALNUM[:32]),
    "langsmith": ("langsmith-key", "lsv2" + "_pt_" + HEX[:32] + "_" + HEX[:10]),
    "github": ("github-token", "gh" + "p_" + ALNUM[:36]),
    "github oauth": ("github-token", "gh" + "o_" + ALNUM[:36]),
    "github user": ("github-token", "gh" + "u_" + ALNUM[:36]),
    "github app": ("github-token", "gh" + "s_" + ALNUM[:36]),
    "github app, stateless": ("github-token", "gh" + "s_" + jwt()),
    "github refresh": ("github-token", "gh" + "r_" + ALNUM),
    "github, cut": ("github-token", "gh" + "p_" + ALNUM[:16]),
    "github app, cut": ("github-token", "gh" + "s_" + ALNUM[:16]),
    "github fine-grained, cut": ("github-token", "github" + "_pat_" + "11ABCDEFG"),
    "github fine-grained, cut in its secret": (
        "github-token",
        "github" + "_pat_" + ALNUM[:22] + "_" + ALNUM[:3],
    ),
    "github fine-grained": ("github-token", "github" + "_pat_" + ALNUM[:22] + "_" + ALNUM[:59]),
    "gitlab": ("gitlab-token", "glpat" + "-" + ALNUM[:20]),
    "slack bot": ("slack-token", "xox" + "b-123456789012-1234567890123-" + ALNUM[:24]),
    "slack user": ("slack-token", "xox" + "p-123456789012-" + HEX[:32]),
    "slack configuration": ("slack-token", "xox" + "e.xox" + "p-1-" + ALNUM),
    "slack app": ("slack-token", "xapp" + "-1-A012345-123456-" + HEX),
    "stripe": ("stripe-key", "sk" + "_live_" + ALNUM[:24]),
    "npm": ("npm-token", "npm" + "_" + ALNUM[:36]),
    "pypi": ("pypi-token", "pypi" + "-AgEI" + "cHlwaS5vcmcC" + ALNUM + "_-" + ALNUM[:20]),
    "sendgrid": ("sendgrid-key", "SG" + "." + ALNUM[:22] + "." + ALNUM[:43]),
    "databricks": ("databricks-token", "dapi" + HEX[:32]),
    "databricks, numbered": ("databricks-token", "dapi" + HEX[:32] + "-2"),
    "discord": ("discord-token", "MTIz" + ALNUM[:22] + "." + "G1a2b3" + "." + ALNUM[:38]),
    "telegram": ("telegram-token", "123456789" + ":AA" + ALNUM[:33]),
    "telegram, new": ("telegram-token", "7123456789" + ":AAH" + ALNUM[:16] + "-" + ALNUM[:15]),
    "firebase": ("firebase-key", "AAAA" + ALNUM[:7] + ":" + "APA91b" + ALNUM + "-_" + ALNUM[:66]),
    "supabase, letters": ("supabase-token", "sbp" + "_" + ALNUM[:40].lower()),
    "supabase": ("supabase-token", "sbp" + "_" + HEX[:40]),
    "vault": ("vault-token", "hvs" + "." + ALNUM[:24]),
    "vault batch": ("vault-token", "hvb" + "." + ALNUM),
    "digitalocean": ("digitalocean-token", "dop" + "_v1_" + HEX),
    "shopify": ("shopify-token", "shpat" + "_" + HEX[:32]),
    "shopify theme": ("shopify-token", "shptka" + "_" + HEX[:32]),
    "shopify partner": ("shopify-token", "prtapi" + "_" + HEX[:32]),
    "shopify app": ("shopify-token", "shpss" + "_" + HEX[:32]),
    **{
        f"gitlab {kind}": ("gitlab-token", f"gl{kind}" + "-" + ALNUM[:20])
        for kind in ["dt", "rt", "rtr", "ptt", "cbt", "ft", "soat", "imt", "agent", "oas", "ffct"]
    },
    "gitlab runner": ("gitlab-token", "GR13" + "48941" + ALNUM[:20]),
    "stripe webhook": ("stripe-secret", "whsec" + "_" + ALNUM[:32]),
    "pinecone": ("pinecone-key", "pcsk" + "_" + ALNUM[:5] + "_" + ALNUM[:62]),
    "jina": ("jina-key", "jina" + "_" + HEX[:32] + ALNUM[:28]),
    "elevenlabs": ("elevenlabs-key", "sk" + "_" + HEX[:48]),
    "twilio": ("twilio-key", "S" + "K" + HEX[:32]),
    "twilio, capitals": ("twilio-key", "S" + "K" + HEX[:32].upper()),
    "xai, with lines": ("xai-key", "xai" + "-" + ALNUM[:12] + "_" + ALNUM[:50] + "_" + ALNUM[:16]),
    "replicate, with lines": (
        "replicate-token",
        "r8" + "_" + ALNUM[:8] + "-" + ALNUM[:14] + "_" + ALNUM[:13],
    ),
    "voyage": ("voyage-key", "pa" + "-" + ALNUM[:20] + "_" + ALNUM[:22]),
    "azure storage": ("azure-key", (ALNUM + ALNUM)[:50] + "+/" + ALNUM[:34] + "=="),
    "jwt": ("jwt", jwt()),
    "pem": ("private-key", pem()),
    "pem of a kind": ("private-key", pem("RSA ")),
    "pem in json": ("private-key", pem(newline="\\n")),
}
CASES = pytest.mark.parametrize(("kind", "secret"), FORMATS.values(), ids=FORMATS)


HASH = re.compile(r"(?<=[A-Za-z0-9_.-]):[0-9a-f]{6}(?=>)")


def bare(value):
    """Data with its placeholders without their hashes; the same object where there are none."""
    if isinstance(value, str):
        return HASH.sub("", value) if HASH.search(value) else value
    if isinstance(value, dict):
        new = {bare(name): bare(item) for name, item in value.items()}
        return value if len(new) == len(value) and same(new, value) else new
    if isinstance(value, list):
        new = [bare(item) for item in value]
        return value if same(new, value) else new
    return value


class Bare(Redactor):
    """A redactor whose placeholders have no hashes: they show which rule took what out."""

    def __call__(self, value):
        return bare(super().__call__(value))

    def request(self, arguments):
        return bare(super().request(arguments))

    def stream(self, chunks):
        return bare(super().stream(chunks))


@pytest.fixture
def clean():
    """A redactor on a machine without any key."""
    return Bare(environ={})


# --- well-known formats ----------------------------------------------------------------------------------

EXAMPLES = [
    pytest.param(each.kind, start, each.example, id=f"{each.kind} {start}")
    for each in formats.FORMATS
    for start in each.starts
]


@pytest.mark.parametrize(("kind", "start", "example"), EXAMPLES)
def test_the_example_of_a_format_is_taken_out(clean, kind, start, example):
    """Every row of the table, with each of its beginnings, is found and named."""
    secret = example.replace("{}", start) if "{}" in example else start + example
    found = clean(f"it is {secret}, keep it")
    assert found.endswith(f"<redacted:{kind}>, keep it")
    assert example.rpartition("{}")[2] not in found


SURROUNDINGS = [
    "{}",
    "my key is {}, keep it",
    '"{}"',
    "({})",
    "key={}",
    "`{}`\n",
    "密钥{}是",
    "https://x.io/?a=1&b={}#c",
    "<{}>",
]


@pytest.mark.slow
@CASES
@pytest.mark.parametrize("around", SURROUNDINGS)
def test_key_formats(clean, kind, secret, around):
    """A key of a well-known format is taken out wherever it stands, with nothing of it left."""
    assert clean(around.format(secret)) == around.format(f"<redacted:{kind}>")


@CASES
def test_key_formats_wherever_a_call_has_them(kind, secret):
    """A key in a prompt, in what a tool is called with and in a provider's error leaves its kind and the same hash."""
    redactor = Redactor(environ={})
    mark = redactor(secret)
    assert re.fullmatch(rf"<redacted:{kind}:[0-9a-f]{{6}}>", mark)
    prompt = {"messages": [{"role": "user", "content": f"use {secret}, please"}]}
    assert redactor.request(prompt)["messages"][0]["content"] == f"use {mark}, please"
    written = json.dumps({"path": secret, "n": 1})
    message = {
        "tool_calls": [{"function": {"name": "save", "arguments": written}}],
        "input": {"path": secret},
    }
    found = redactor(message)
    assert json.loads(found["tool_calls"][0]["function"]["arguments"]) == {"path": mark, "n": 1}
    assert found["input"] == {"path": mark}
    assert redactor.request({"messages": [message]})["messages"] == [found], (
        "the next question repeats the answer"
    )
    error = {"class": "AuthenticationError", "message": f"Incorrect key provided: {secret}."}
    assert secret not in redactor(error)["message"]
    assert f"<redacted:{kind}:" in redactor(error)["message"]


@pytest.mark.slow
@CASES
@pytest.mark.parametrize("escape", ["\\n", "\\t", "\\u003e", "%3D", "\\\\n"])
def test_key_after_an_escape(clean, kind, secret, escape):
    """A key right after an escape that ends in a letter or digit is seen, as in JSON inside a string."""
    assert clean(f"a{escape}{secret} b") == f"a{escape}<redacted:{kind}> b"


@pytest.mark.parametrize("kind", ["openai project", "anthropic", "openrouter", "hugging face"])
@pytest.mark.parametrize("around", ["_{}_", "my_{}."])
def test_key_in_italics(clean, kind, around):
    """Markdown and names put an underscore before a key."""
    name, secret = FORMATS[kind]
    found = clean(around.format(secret)).rstrip("_.")  # which some formats take for a part of the key
    assert found == around.format(f"<redacted:{name}>").rstrip("_.")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_bearer_token(clean, scheme):
    """A bearer token of no known format goes; the word before it stays."""
    assert clean(f"curl -H 'X: {scheme} {MISTRAL}.'") == f"curl -H 'X: {scheme} <redacted:bearer-token>.'"


@pytest.mark.parametrize("base", ["discord.com/api", "discordapp.com/api/v6", "canary.discord.com/api/v10"])
def test_discord_webhook(clean, base):
    """So is that of Discord's."""
    url = f"https://{base}/" + "webhooks/123456789012345678/" + ALNUM + "_-ab"
    assert clean(f"post to {url} now") == f"post to https://{base}/webhooks/<redacted:discord-webhook> now"


def test_telegrams_address(clean):
    """A bot's token goes from the address of Telegram's interface."""
    url = "https://api.telegram.org/bot{}/getMe"
    assert clean(url.format("123456789" + ":AA" + ALNUM[:33])) == url.format("<redacted:telegram-token>")


def test_slack_webhook(clean):
    """The address of a webhook is its secret."""
    url = "https://hooks.slack.com/" + "services/T0123456/B0123456/" + ALNUM[:24]
    assert clean(f"post to {url} now") == "post to https://hooks.slack.com/<redacted:slack-webhook> now"


def test_service_account(clean):
    """A service account's JSON loses its key, as data and as text."""
    account = {"type": "service_account", "private_key": pem(), "client_email": "a@b.iam.example"}
    assert clean(account) == {**account, "private_key": "<redacted:private-key>"}
    assert clean.request({"extra_body": account})["extra_body"]["private_key"] == "<redacted:private_key>"
    text = clean(json.dumps(account))
    assert json.loads(text) == {**account, "private_key": "<redacted:private-key>"}


def test_truncated_private_key(clean):
    """A private key goes also where its end was cut off."""
    assert PEM_BODY[:20] not in clean(pem()[:120] + "…")


def test_401_of_openai(clean):
    """The half masked key of a 401 goes, whatever was given as key."""
    text = "Incorrect API key provided: {}. You can find your API key at https://platform.openai.com."
    for echo, mark in [
        ("sk-" + "proj-****************abcd", "openai-key"),
        ("https://" + "*" * 30 + "lETQ", "api_key"),
        (MISTRAL[:4] + "*" * 20 + MISTRAL[-4:], "api_key"),
        ("*" * 24 + MISTRAL[-4:], "api_key"),
    ]:
        assert clean(text.format(echo)) == text.format(f"<redacted:{mark}>")


HARMLESS = [
    "",
    "You are a helpful assistant. Answer in one line, please; the risk-averse task-sk-oriented reader thanks you.",
    "sk-test",
    "sk-...",
    "sk-your-key",
    "use sk-proj-... or sk-ant-... here",
    "the Slovak voice sk-SK-Chirp3-HD-Achernar",
    "from_hf_AutoModelForSequenceClassification and desk-sk-ant-colony-optimization",
    "https://example.com/search?key=how+to+make+bread+at+home",
    "private_key = /etc/letsencrypt/live/example1234567890.com/privkey.pem",
    "sklearn draws sk-toggleable__label-arrow and sk-estimator-doc-link in its sk-container-id-1 boxes",
    "task-sk-" + ALNUM[:30],
    "123e4567-e89b-12d3-a456-426614174000",
    "the token: 123e4567-e89b-12d3-a456-426614174000",
    HEX,
    "sha256:" + HEX,
    "fp_" + HEX[:10],
    "chatcmpl-" + ALNUM[:29],
    "call_" + ALNUM[:24],
    "toolu_" + "01" + ALNUM[:22],
    "msg_" + "01" + ALNUM[:22],
    "resp_" + HEX[:50],
    "rs_" + HEX[:50],
    "gen-" + "1234567890-" + ALNUM[:20],
    "asst_" + ALNUM[:24],
    "xai-explainable-ai-methods-survey-of-2024",
    "hf_hub_download and HF_HOME, groq's gsk_ prefix",
    "A bearer of bad news. Bearer authentication-required-for-this-endpoint",
    "eyJ is how base64 of a JSON object begins, as in eyJhbGciOiJIUzI1NiJ9",
    "-----BEGIN CERTIFICATE-----\n" + PEM_BODY + "\n-----END CERTIFICATE-----",
    "a line\n-----------\nBEGIN PRIVATE KEY",
    "max_tokens=4096, completion_tokens: 1234567890123456",
    "api_key=os.environ['OPENAI_API_KEY'], api_key=config.openai_api_key",
    "The secret of success: perseverance-and-hard-work-2024",
    "password: please choose one",
    "Password: ",
    "https://example.org/a/b?page=2&sort=key#top",
    "git clone ssh://git@example.org/a.git",
    "mail me at someone@example.org: thanks",
    "http://localhost:8080/v1?model=x",
    "if (a && token == b) return key;",
    "**bold** and ***both*** and ****",
    "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 40).decode(),
    base64.b64encode(bytes(reversed(range(256))) * 40).decode(),
    "a-hf_" + ALNUM + "-fw_" + ALNUM + "_r8_" + ALNUM + "-sk-" + ALNUM + "_eyJ" + ALNUM,
    '{"name": "login", "arguments": "{\\"password\\": \\"hunter2\\"}"}',
    "ghp_ and github_pat_ begin GitHub's, ghp_deploymenttoken names one, github_pat_for_integration_tests too",
    "AKIA is how an access key id begins, AIza how a Google key does",
    "Explain: secret_key=generateSecretKey12() and secret_key=generateSecretKey99",
    "https://shop.example/?key=summer-sale-2025-shoes&token=2025-11-30T10:11:12.123456",
    "Bearer authentication-scheme-v10",
    "token: USDC4998400510945WETH",
    "@include sk-Transition-Duration-Long-Running-Animation-0",
    "password: ****34",
    "ftp://anonymous:guest@ftp.example/pub, https://user:password@example.org, amqp://me:$PASSWORD@h",
    "postgres://user:{password}@localhost/db, postgres://app:changeme@localhost",
    "sk-Button_primary__olCNB sk-NavigationBar_item__a1B2c sk-Card_root__x9Y8z7W6",
    "password=get_password(12), password=settings.db2_password, password=$PASSWORD_1, password=password123",
    "password=None, password = os.environ['PW1'], PWD=/home/ann2/project, if password == x1y2z3w4: pass",
    "api_key=load_api_key_v2(), api_key = settings.production.API_KEY_2025, secret: 2025-11-30T10:11:12.123456Z",
    "SECRET_KEY=https://docs.example.org/howto/generate/a1b2c3d4e5f6a7b8",
    "npm_config_registry pypi-AgE SG.1 dapi hvs.example pa-rt of jina_embeddings_v3_base_en SKU12345 sk_test",
    "sha512-" + (ALNUM + ALNUM)[:86] + "==",
    DUMMY_KEY,
    f"Bearer {DUMMY_KEY}",
    f"api_key={DUMMY_KEY}",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_innocent_text_stays(clean, text):
    """Prose, ids, hashes, uuids, images, short stand-ins and talk about keys stay as they are."""
    assert clean(text) is text


# --- labels and URLs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("MISTRAL_API_KEY={}", "api_key"),
        ("cohere api key: {}", "api_key"),
        ("export CO_API_KEY='{}'", "api_key"),
        ('{{"api_key": "{}"}}', "api_key"),
        ('{{\\"apiKey\\": \\"{}\\"}}', "api_key"),
        ("x-api-key: {}", "api_key"),
        ("aws_secret_access_key = {}", "aws_secret_access_key"),
        ("AccountName=x;AccountKey={};Endpoint=y", "accountkey"),
        ("client_secret: {}", "client_secret"),
        ("DD-APPLICATION-KEY: {}", "application_key"),
        ("token: {}", "token"),
        ("Authorization: Basic {}", "authorization"),
        ("Authorization: Token {}", "authorization"),
    ],
)
@pytest.mark.parametrize(
    "secret",
    [MISTRAL, AZURE_OLD, AWS_SECRET, "aB3/" * 10],
    ids=["alnum", "hex", "base64", "base64 of short runs"],
)
def test_labelled_keys(clean, text, name, secret):
    """A key without a format of its own goes where a label says what it is."""
    name = "secret_access_key" if name.startswith("aws") else name
    found = clean(text.format(secret))
    assert re.sub(r"<redacted:[a-z_]+>", "{}", found) == text.format("{}")
    assert name in found


@pytest.mark.parametrize("alphabet", ["base62", "base36", "base32", "hex"])
@pytest.mark.parametrize("length", [20, 32, 40])
def test_random_values_behind_a_label_are_no_words(clean, alphabet, length):
    """Hardly a random key reads like words and numbers, whatever letters it is made of."""
    letters = {
        "base62": "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
        "base36": "abcdefghijklmnopqrstuvwxyz0123456789",
        "base32": "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
        "hex": "0123456789abcdef",
    }[alphabet]
    rng = random.Random(length)
    keys = ["".join(rng.choices(letters, k=length)) for _ in range(500)]
    found = [key for key in keys if clean(f"api_key={key}") == "api_key=<redacted:api_key>"]
    assert len(found) > 470


@pytest.mark.parametrize(
    "text",
    [
        "TELEGRAM_BOT_TOKEN=123456789" + ":AB" + ALNUM[:33],
        "SESSION_COOKIE=sessionid=" + HEX[:32],
        "api_key: id=" + ALNUM[:12] + ":" + HEX[:20],
        "MAPBOX_TOKEN=" + MISTRAL,
        "X-Auth: " + MISTRAL,
        *("password=hunter2", "DB_PASSWORD=S3cr3t!pw", "password = 'Summer2024!'", 'pwd="p@ssw0rd-1"'),
        *(
            "Server=db;Password=Gr8%pass;Database=x",
            "PGPASSWORD=xK9#mL2p psql",
            "https://h/?password=hunter2",
        ),
        *("https://ann:hunter2@h", "--password=hunter2 --user=ann"),
    ],
)
def test_more_labelled_secrets(clean, text):
    """Colons and equals signs belong to a labelled value, and so do passwords that a person chose."""
    found = clean(text)
    assert re.search("<redacted:[a-z_-]+>", found)
    assert not re.search(r"hunter2|S3cr|Summer|w0rd|Gr8|xK9|sessionid|[A-Za-z0-9]{20}", found)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://u:{}@host/v1", "https://<redacted:url-credentials>@host/v1"),
        ("redis://:{}@host:6379/0", "redis://<redacted:url-credentials>@host:6379/0"),
        ("postgres://u:p@{}@host/db", "postgres://<redacted:url-credentials>@host/db"),
        ("https://{}@o1.example/2", "https://<redacted:url-credentials>@o1.example/2"),
        ("https://h/?key={}&alt=sse", "https://h/?key=<redacted:key>&alt=sse"),
        ("https://h/?a=1&api_key={}", "https://h/?a=1&api_key=<redacted:api_key>"),
        ("https://h/?api-key={}#x", "https://h/?api-key=<redacted:api-key>#x"),
        ("https://h/?token={}", "https://h/?token=<redacted:token>"),
        ("https://h/?access_token={}.", "https://h/?access_token=<redacted:access_token>"),
        ("https://h/?sv=1&amp;sig={}", "https://h/?sv=1&amp;sig=<redacted:sig>"),
        ('https://h/?sv=1\\u0026sig={}"', 'https://h/?sv=1\\u0026sig=<redacted:sig>"'),
        (
            "h/x?X-Amz-Signature={}&X-Amz-Date=1",
            "h/x?X-Amz-Signature=<redacted:x-amz-signature>&X-Amz-Date=1",
        ),
        ("h/x?X-Amz-Credential={}", "h/x?X-Amz-Credential=<redacted:x-amz-credential>"),
        ("h/x?X-Amz-Security-Token={}", "h/x?X-Amz-Security-Token=<redacted:x-amz-security-token>"),
        ("h/x?X-Goog-Signature={}", "h/x?X-Goog-Signature=<redacted:x-goog-signature>"),
        ("h/x?subscription-key={}", "h/x?subscription-key=<redacted:subscription-key>"),
    ],
)
@pytest.mark.parametrize("secret", [MISTRAL, AZURE_OLD], ids=["alnum", "hex"])
def test_urls(clean, url, expected, secret):
    """Credentials in a URL go; host, path and the other parameters stay."""
    assert clean(url.format(secret)) == expected


@pytest.mark.parametrize(
    "value", ["abc%2Fdef0%3D", FORMATS["google"][1], DUMMY_KEY, "dXNlcjpwYXNz", "kqwertzuiopasdfghjkl"]
)
def test_url_parameters_that_may_be_keys(clean, value):
    """A URL's key looks the same whatever its format is, so machines with different keys agree."""
    assert clean(f"GET /v1?key={value}") == "GET /v1?key=<redacted:key>"


@pytest.mark.parametrize("url", ["h/browse?key=PROJ-123", "h/x?code=404", "h/?a=b&token=end", "h?auth=none"])
def test_url_parameters_that_are_a_question(clean, url):
    """A short value under a name that is often innocent is what was asked: another one is another prompt."""
    assert clean(f"What does https://{url} say?") == f"What does https://{url} say?"


# --- names -----------------------------------------------------------------------------------------------

SECRET_NAMES = words("""
    api_key API_KEY apiKey apikey x-api-key X-Api-Key x-goog-api-key api-key api_keys openai_api_key OPENAI_API_KEY_2
    ocp-apim-subscription-key master_key secret_key langfuse_secret_key dd_api_key private_key private-key
    access_token accessToken auth_token azure_ad_token id_token refresh_token aws_session_token hf_token
    watsonx_token aws_web_identity_token x-amz-security-token x-auth-token
    secret client_secret clientSecret azure_client_secret secret_id aws_secret_access_key aws_access_key_id
    password passwd pwd passphrase redis_password azurePassword
    vertex_credentials vertex_ai_credentials gcp_credentials
    authorization Authorization proxy-authorization cookie Cookie set-cookie
""")
OTHER_NAMES = words("""
    token tokens max_tokens max_token max_completion_tokens prompt_tokens completion_tokens total_tokens
    completion_tokens_details cached_tokens input_cost_per_token output_cost_per_token bos_token eos_token pad_token
    stop_token next_page_token pageToken time_to_first_token tokenizer custom_tokenizer logprobs top_logprobs
    tool tools tool_choice tool_call_id key keys cache_key prompt_cache_key public_key primary_key sort_key
    model messages role content name user seed stop n id signature thought_signature encrypted_content
    secret_name secret_manager author authors authorized credentials credential auth passage passed
    api_base api_version organization metadata aws_region_name aws_profile_name top_k
""")


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_secret_names(name, clean):
    """A text under a credential's name goes from a call's arguments, whatever it is, and from headers."""
    assert is_secret_name(name)
    mark = f"<redacted:{name.lower()}>"
    assert clean({"response_headers": {name: "x; y=z"}}) == {"response_headers": {name: mark}}
    asked = {"extra_body": [{name: ["x", "y"]}]}
    if re.search("(?i)passw|passphrase|pwd|cookie|^secret", name) and "key" not in name:
        assert clean.request(asked) is asked, "which may name something else than a credential"
    else:
        assert clean.request(asked) == {"extra_body": [{name: [mark, mark]}]}
    for other in ({"type": "string"}, 5, None, True, "", []):
        data = {"properties": {name: other}}
        assert clean(data) is data


@pytest.mark.parametrize("name", [*OTHER_NAMES, "", "-", "1"])
def test_other_names(name, clean):
    """Counts, pieces of text, cache keys and the like are no secrets."""
    assert not is_secret_name(name)
    data = {name: "hello", "x": [{name: " internationalization"}]}
    assert clean(data) is data


@pytest.mark.parametrize("name", ["token", "auth", "credential", "credentials", "jwt"])
def test_names_that_may_mean_a_secret(name, clean):
    """Under a word such as token the value decides: a long random one goes, a piece of text stays."""
    assert clean({name: MISTRAL}) == {name: f"<redacted:{name}>"}
    data = {name: "hello world, this is a long sentence with 12 digits"}
    assert clean(data) is data


def test_named_secret_does_not_depend_on_its_value(clean):
    """What stands under a name is named by it, so a machine with a dummy key writes the same text."""
    values = (FORMATS["openai project"][1], DUMMY_KEY, "<redacted:openai-key>", "Bearer x", "", None)
    found = {json.dumps(Redactor(environ={}).request({"api_key": value})) for value in values}
    assert found == {'{"api_key": "<redacted:api_key>"}'}


def test_request(clean):
    """A request keeps everything that is asked and loses every credential in it."""
    key = FORMATS["openai project"][1]
    request = {
        "model": "openai/gpt-4o-mini",
        "messages": ({"role": "user", "content": f"Is {key} valid?"}, {"role": "assistant", "content": None}),
        "max_tokens": 12,
        "extra_headers": {"X-Api-Key": MISTRAL, "User-Agent": "x"},
        "headers": {"Authorization": f"Bearer {MISTRAL}", "Cookie": "a=b"},
        "extra_body": {"provider": {"api_key": "short"}},
        "tools": [
            {"function": {"parameters": {"properties": {"password": {"type": "string"}, "token": {}}}}}
        ],
        "api_base": f"https://me:{MISTRAL}@proxy.example/v1",
    }
    assert clean.request(request) == {
        "model": "openai/gpt-4o-mini",
        "messages": [
            {"role": "user", "content": "Is <redacted:openai-key> valid?"},
            {"role": "assistant", "content": None},
        ],
        "max_tokens": 12,
        "extra_headers": {"X-Api-Key": "<redacted:x-api-key>", "User-Agent": "x"},
        "headers": {"Authorization": "<redacted:authorization>", "Cookie": "<redacted:cookie>"},
        "extra_body": {"provider": {"api_key": "<redacted:api_key>"}},
        "tools": request["tools"],
        "api_base": "https://<redacted:url-credentials>@proxy.example/v1",
    }
    assert MISTRAL in str(request), "the caller's request is not changed"


def test_tool_call_arguments(clean):
    """In a tool call's JSON a long key beside its name goes and stays valid JSON; an ordinary word stays."""
    arguments = json.dumps({"api_key": MISTRAL, "password": "hunter2", "n": 1})
    found = clean({"function": {"name": "login", "arguments": arguments}})["function"]["arguments"]
    assert json.loads(found) == {"api_key": "<redacted:api_key>", "password": "hunter2", "n": 1}


@pytest.mark.parametrize("name", ["input", "arguments"])
def test_tool_call_arguments_that_are_a_mapping(clean, name):
    """The same holds for a tool call whose arguments are a mapping; there the names around it do not count."""
    inner = {"password": "hunter2", "headers": {"Authorization": f"Bearer {MISTRAL}"}}
    call = {
        "type": "tool_use",
        name: {"user": "ann", "password": "hunter2", "api_key": MISTRAL, "l": [inner]},
    }
    found = clean({"content": [call], "password": "hunter2"})
    kept = {"password": "hunter2", "headers": {"Authorization": "<redacted:authorization>"}}
    assert found["content"][0][name] == {
        "user": "ann",
        "password": "hunter2",
        "api_key": "<redacted:api_key>",
        "l": [kept],
    }
    assert clean(found) is found
    assert clean.request(call)[name] == found["content"][0][name]


def test_same_object_where_nothing_changed(clean):
    """Data without secrets comes back as it is, and untouched parts of other data are shared, not copied."""
    innocent = {"messages": [{"role": "user", "content": "hi"}], "f": [0.5, b"x", None], 7: object()}
    assert clean(innocent) is innocent
    mixed = {"a": innocent, "b": [innocent, FORMATS["groq"][1]]}
    found = clean(mixed)
    assert found["a"] is innocent
    assert found["b"] == [innocent, "<redacted:groq-key>"]
    assert found["b"][0] is innocent
    assert list(found) == ["a", "b"]


@pytest.mark.parametrize("key", [MISTRAL, "dummy", "", None])
def test_a_call_without_a_secret_is_the_same(clean, key):
    """What was recorded with a key replays on a machine that has another one, or none."""
    url = f"https://mcp.example/?exaApiKey={key or ''}&v=1&apikey={key or ''}"
    tool = {"type": "mcp", "server_url": url, "authorization": key}
    asked = {"tools": [{**tool, "headers": {"X-API-Key": key}}], "extra_body": {"search_api_key": key}}
    login = {"authentication": {"type": "api_key", "key": key}}
    sources = [{"type": "azure_search", **login, "parameters": login}]
    found = clean.request({**asked, "data_sources": sources})
    same_login = {"authentication": {"type": "api_key", "key": "<redacted:api_key>"}}
    assert found == {
        "tools": [
            {
                "type": "mcp",
                "server_url": "https://mcp.example/?exaApiKey=<redacted:exaapikey>&v=1&apikey=<redacted:apikey>",
                "authorization": "<redacted:authorization>",
                "headers": {"X-API-Key": "<redacted:x-api-key>"},
            }
        ],
        "extra_body": {"search_api_key": "<redacted:search_api_key>"},
        "data_sources": [{"type": "azure_search", **same_login, "parameters": same_login}],
    }
    assert clean.request(found) is found


def test_a_prompt_keeps_what_is_empty(clean):
    """An address within a text is what was asked, as it was asked."""
    asked = {
        "messages": [{"role": "user", "content": "What is wrong with https://x.example/?api_key=&v=1 here?"}]
    }
    assert clean.request(asked) is asked


def test_an_answer_keeps_what_is_empty(clean):
    """What a provider sent as null or empty stays: nothing is compared with it."""
    told = {"tools": [{"type": "mcp", "authorization": None, "password": ""}]}
    assert clean(told) is told


def test_nothing_of_a_secret_is_in_a_placeholders_name(clean):
    """A text that happens to end as a secret's name does names nothing."""
    said = {"type": f"Peter says {MISTRAL} password", "key": "of the house"}
    assert clean(said)["key"] == "of the house"


def test_secret_as_a_key_of_a_mapping():
    """Names in data are texts too; two that look alike without their secrets both stay."""
    one = FORMATS["groq"][1]
    clean = Redactor(environ={"A_TOKEN": one})
    expected = {"<redacted:groq-key>": "a", "<redacted:groq-key-2>": "c"}
    found = clean({one: "a", "<redacted:groq-key>": "c"})
    assert found == expected
    assert clean(found) is found


# --- the environment -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    words(
        "MISTRAL_API_KEY HF_TOKEN AZURE_CLIENT_SECRET DB_PASSWORD PGPASSWORD AWS_SECRET_ACCESS_KEY SUPABASE_KEY "
        "GIGACHAT_CREDENTIALS WATSONX_APIKEY WATSONX_ZENAPIKEY SNOWFLAKE_JWT LITELLM_MASTER_KEY GITHUB_PAT "
        "SMTP_PASS AWS_BEARER_TOKEN_BEDROCK TOKEN API_KEY_2 AZURE_CREDENTIAL AZURE_API_KEY_EU OPENAI_API_KEY_DEV "
        "API_KEY_V2 MISTRAL_TOKEN_PROD AZURE_API_KEY_US_EAST_1 API_TOKENS"
    ),
)
def test_values_of_the_environment(name):
    """The value of a variable that holds a key goes wherever it appears, inside of words too."""
    redactor = Redactor(environ={name: MISTRAL})
    mark = f"<redacted:{name}>"
    assert redactor({"a": [f"x{MISTRAL}y and {MISTRAL}"]}) == {"a": [f"x{mark}y and {mark}"]}


@pytest.mark.slow
@pytest.mark.parametrize("length", [16, 20, 32, 40])
def test_random_keys_are_no_stand_ins(length):
    """A key of hexadecimal digits is looked for, however few of its letters stand together."""
    rng = random.Random(length)
    keys = ["".join(rng.choices("0123456789abcdef", k=length)) for _ in range(2_000)]
    keys = [key for key in keys if not key.isdigit()] + ["c180f6e95f9954b0849e2e7766e0b1c1"]
    for key in keys:
        assert Redactor(environ={"AZURE_API_KEY": key})(f"it is {key}") == "it is <redacted:AZURE_API_KEY>"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AZURE_API_KEYS", f"{ALNUM},{MISTRAL}"),
        ("AZURE_API_KEYS", f"{ALNUM}; {MISTRAL}"),
        ("AZURE_API_KEYS", json.dumps([ALNUM, MISTRAL])),
        ("PROVIDER_CREDENTIALS", json.dumps({"azure": [{"api_key": MISTRAL, "name": "an account of ours"}]})),
        ("PROVIDER_CREDENTIALS", json.dumps({"azure": {"token": MISTRAL, "region": "west-europe-1"}})),
        (
            "AZURE_STORAGE_CONNECTION_STRING",
            f"DefaultEndpointsProtocol=https;AccountName=ours;AccountKey={MISTRAL}",
        ),
        ("DB_CONNECTION_STRING", f"Server=db; Password = {MISTRAL} ;Database=x"),
        ("DB_CONNECTION_STRING", f"postgres://app:{MISTRAL}@db.example/x"),
        ("PG_CONNECTION_STRING", f"host=db user=app password={MISTRAL} dbname=x"),
    ],
)
def test_several_secrets_in_a_variable(name, value):
    """Each key of a list, of JSON and of a connection string is looked for by itself."""
    redactor = Redactor(environ={name: value})
    assert redactor(f"bad {MISTRAL}, an account of ours in west-europe-1") == (
        f"bad <redacted:{name}>, an account of ours in west-europe-1"
    )


def test_a_secret_that_a_text_breaks_off_in():
    """An answer that ends in the middle of a key does not show what it has of it, unless that is little."""
    redactor = Redactor(environ={"ACME_API_KEY": MISTRAL})
    assert redactor(f"the key: {MISTRAL[:-1]}") == "the key: <redacted:ACME_API_KEY>"
    assert redactor(f"the key: {MISTRAL[:12]}") == f"the key: {MISTRAL[:12]}"
    assert redactor(f"{MISTRAL[:-1]} is the key") == f"{MISTRAL[:-1]} is the key"
    long = "-".join([ALNUM] * 20)
    assert Redactor(environ={"A_SECRET": long})(f"it is {long[:1000]}") == "it is <redacted:A_SECRET>"
    ident = "5b0c7d1e-3f43-4f4e-9a57-1e6a5d1c2b3a"
    assert Redactor(environ={"A_KEY": ident})(f"it is {ident[:30]}") == "it is <redacted:A_KEY>"
    text = "Write to the administrator"
    assert Redactor(environ={"ADMIN_PASSWORD": "administrator123"})(text) is text


def test_values_in_other_spellings():
    """A key is found in a URL and in JSON too, where it is spelled otherwise."""
    secret = 'p"ss/w\\rd+' + MISTRAL[:6]
    redactor = Redactor(environ={"DB_PASSWORD": f" {secret}\n"})
    assert redactor(json.dumps([secret])) == '["<redacted:DB_PASSWORD>"]'
    assert redactor("q=p%22ss%2Fw%5Crd%2B" + MISTRAL[:6]) == "q=<redacted:DB_PASSWORD>"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin:/bin"),
        ("PWD", "/somewhere/else"),
        ("EDITOR", "some-editor"),
        ("TOKENIZERS_PARALLELISM", "disabled-here"),
        ("DEFAULT_MAX_TOKENS", "1234567890123456"),
        ("LANGFUSE_PUBLIC_KEY", "pk-lf-" + HEX[:20]),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/place/key.json"),
        ("AZURE_CREDENTIAL", sys.executable),
        ("OPENAI_API_KEY", DUMMY_KEY),
        ("OPENAI_API_KEY", "sk-test"),
        ("OPENAI_API_KEY", "sk-test-key-1234"),
        ("OPENAI_API_KEY", "your-openai-api-key-here"),
        ("ACME_API_KEY", "test-acme-key"),
        ("ACME_API_KEY", "xxxxxxxxxxxx"),
        ("API_TOKEN", "not-needed"),
        ("API_TOKEN", "12345678"),
        ("USE_TOKEN", "true"),
        ("USE_SECRET", "disabled"[:7]),
        ("POSTGRES_PASSWORD", "postgres"),
        ("DB_PASSWORD", "assistant"),
        ("OPENAI_API_KEY", "lm-studio"),
        ("EOS_TOKEN", "<|im_end|>"),
        ("STOP_TOKEN", "<|endoftext|>"),
        ("VAULT_AUTH", "kubernetes"),
        ("SEARCH_PAT", "regular-expressions"),
        ("VAULT_AUTH_PROD", "kubernetes"),
        ("SORT_KEY_DEFAULT", "created_at"),
        ("BUDGET_TOKENS", "unlimited"),
        ("DB_CONNECTION_STRING", "sqlite:///app.db"),
        ("LICENSE_KEY", "community-edition"),
        ("SENTRY_AUTH_TOKEN", "disabled-in-ci"),
        ("API_SECRET", "abcdefgh"),
        ("DB_PASSWORD", "abcdefgh"),
        ("DB_CONNECTION_STRING", "mongodb://localhost:27017/"),
    ],
)
def test_variables_that_hold_no_secret(name, value):
    """Paths, switches, numbers and stand-ins that a CI sets are not looked for in texts."""
    text = f"the value {value} stays"
    assert Redactor(environ={name: value})(text) is text


def test_password_of_a_url_in_the_environment():
    """The password of a database's address goes where it appears on its own."""
    redactor = Redactor(
        environ={"DATABASE_URL": f"postgres://me:{MISTRAL}@db.example/x", "OTHER_URL": "http://[x"}
    )
    assert redactor(f"login failed for {MISTRAL}") == "login failed for <redacted:DATABASE_URL>"


@pytest.mark.parametrize("password", ["postgres", "helpdesk"])
def test_word_as_the_password_of_a_url(password):
    """A database for development has a word that prompts may hold: they are the same where there is no database."""
    text = f"open a {password} ticket"
    assert Redactor(environ={"DATABASE_URL": f"postgres://postgres:{password}@localhost/x"})(text) is text


def test_service_account_in_the_environment():
    """Of credentials given as JSON the key alone is looked for as well."""
    key = pem()
    inner = key.split("\n")[1]
    redactor = Redactor(
        environ={"VERTEX_CREDENTIALS": json.dumps({"private_key": key, "client_secret": MISTRAL})}
    )
    assert redactor(f"bad key {MISTRAL}") == "bad key <redacted:VERTEX_CREDENTIALS>"
    assert inner not in redactor(json.dumps({"x": key}))


def test_environment_of_the_process(monkeypatch):
    """Without a mapping of its own a redactor follows os.environ, as tests set keys."""
    redactor = Redactor()
    text = f"I have {MISTRAL}"
    assert redactor(text) is text
    monkeypatch.setenv("ACME_API_KEY", MISTRAL)
    assert redactor(text) == "I have <redacted:ACME_API_KEY>"


def test_a_value_that_was_in_the_environment_is_not_forgotten():
    """A key that was set for some calls only, or replaced, is taken out of what is recorded after them too."""
    environ = {"ACME_API_KEY": MISTRAL}
    redactor = Redactor(environ=environ)
    redactor("the call")
    environ["ACME_API_KEY"] = AZURE_OLD
    assert redactor([MISTRAL, AZURE_OLD]) == ["<redacted:ACME_API_KEY>"] * 2
    environ.clear()
    assert redactor([MISTRAL, AZURE_OLD]) == ["<redacted:ACME_API_KEY>"] * 2


def test_a_text_that_was_clean_is_looked_at_again_once_a_secret_is_known():
    redactor, text = Redactor(environ={}), "they said h7Gq2LmZx9PwR4tK to me"
    assert redactor(text) == text
    redactor.learn({"api_key": "h7Gq2LmZx9PwR4tK"})
    assert redactor(text) == "they said <redacted:api_key> to me"
    assert Redactor(environ={})(text) == text


def test_fresh_redactor_knows_nothing_of_other_tests():
    """A fresh one has the same rules, but not what was passed or set in an earlier test, so keys do not hang on it."""
    environ = {"ACME_API_KEY": MISTRAL}
    redactor = Redactor([r"cust-\d+"], [str.strip], environ)
    redactor("the call")
    redactor.learn({"api_key": HEX})
    environ.clear()
    fresh = redactor.fresh()
    assert bare(fresh(f" cust-42 {MISTRAL} {HEX}")) == f"<redacted:pattern> {MISTRAL} {HEX}"
    environ["B_API_KEY"] = MISTRAL
    fresh.learn({"api_key": ALNUM})
    assert fresh([MISTRAL, ALNUM]) == ["<redacted:B_API_KEY>", "<redacted:api_key>"]
    assert redactor([HEX, ALNUM]) == ["<redacted:api_key>", ALNUM]


def test_environment_is_read_only_when_it_changed(monkeypatch):
    """A call costs no reading of the environment while that stays as it is."""
    reads = []

    class Environ(dict):
        def __iter__(self):
            reads.append(1)
            return super().__iter__()

    environ = Environ(ACME_API_KEY=MISTRAL)
    redactor = Redactor(environ=environ)
    for _ in range(3):
        redactor("some text")
    first = len(reads)
    assert first > 0
    environ["OTHER_API_KEY"] = AZURE_OLD
    assert redactor(AZURE_OLD) == "<redacted:OTHER_API_KEY>"
    assert len(reads) > first


def test_a_variable_that_another_thread_sets_meanwhile_is_seen(monkeypatch):
    """While it is looked what changed, another thread sets a key: the next call knows it."""
    environ = {"PATH": "/bin"}
    redactor = Redactor(environ=environ)
    redactor("some text")
    looks = known_values.may_hold_secret

    def meanwhile(*pair):
        environ.setdefault("ACME_API_KEY", MISTRAL)
        return looks(*pair)

    environ["PATH"] = "/usr/bin"
    with monkeypatch.context() as patched:
        patched.setattr(known_values, "may_hold_secret", meanwhile)
        redactor("some other text")
    assert redactor(MISTRAL) == "<redacted:ACME_API_KEY>"


def test_read_only_environment():
    """Any mapping serves as environment."""
    assert Redactor(environ=MappingProxyType({"A_TOKEN": MISTRAL}))(MISTRAL) == "<redacted:A_TOKEN>"


OF_ANY_MACHINE = [
    *(
        "key {}, ok",
        "https://h/?key={}",
        "MISTRAL_API_KEY={}",
        "Authorization: Basic {}",
        "https://a:{}@h",
        "{}",
    ),
    *("Bearer {}", '{{"token": "{}"}}', "https://h/?a=b&sig={}#c"),
]


@pytest.mark.slow
@pytest.mark.parametrize("text", OF_ANY_MACHINE)
@CASES
def test_machines_with_different_keys_ask_the_same(kind, secret, text):
    """A key of the environment leaves its kind and no hash, so that one with another key of its own finds the recording."""
    end = re.search(r"[A-Za-z0-9](?=[^A-Za-z0-9]*$)", secret)
    new = {"A": "B", "1": "2"}.get(end[0], "A" if end[0].isupper() else "1" if end[0].isdigit() else "b")
    other = secret[: end.start()] + new + secret[end.end() :]
    found = {
        json.dumps(Redactor(environ={"OPENAI_API_KEY": key})([text.format(key), {"token": key}]))
        for key in (secret, other)
    }
    assert len(found) == 1
    assert "@h" in text or not HASH.search(found.pop()), "but of the user's name"


@pytest.mark.parametrize("text", OF_ANY_MACHINE)
@pytest.mark.parametrize("name", ["api_key", "azure_ad_token"])
def test_machines_that_pass_different_keys_ask_the_same(text, name):
    """So does a key that is passed as an argument."""
    found = set()
    for key in (MISTRAL, AZURE_OLD):
        redactor = Redactor(environ={})
        redactor.learn({name: key})
        found.add(redactor(text.format(key)))
    assert len(found) == 1
    assert "@h" in text or not HASH.search(found.pop())


def test_nothing_is_left_of_a_key_that_a_format_sees_in_part():
    """Where only a part of a variable's value looks like a key, all of the value goes."""
    value = "tail§" + FORMATS["groq"][1] + "§and$more"
    assert Redactor(environ={"ACME_TOKEN": value})(f"<{value}>") == "<<redacted:groq-key>>"
    label = MISTRAL + "$%tail"
    assert Redactor(environ={"ACME_TOKEN": label})(f"api_key={label}") == "api_key=<redacted:api_key>"


def test_one_value_under_several_names():
    """A value that several variables hold gets the same name in whatever order they are set."""
    names = ["GEMINI_API_KEY", "GOOGLE_API_KEY", "A_TOKEN"]
    found = {Redactor(environ=dict.fromkeys(order, MISTRAL))(MISTRAL) for order in (names, names[::-1])}
    assert found == {"<redacted:A_TOKEN>"}


def test_value_inside_of_another():
    """A key that is the beginning of another does not leave the other's end."""
    redactor = Redactor(environ={"A_TOKEN": MISTRAL[:12], "B_TOKEN": MISTRAL})
    assert redactor(f"{MISTRAL} {MISTRAL[:12]}") == "<redacted:B_TOKEN> <redacted:A_TOKEN>"


def test_masked_value_of_the_environment():
    """An echo that shows only both ends of a known key goes; other stars stay."""
    redactor = Redactor(environ={"MISTRAL_API_KEY": MISTRAL})
    assert redactor(f"got {MISTRAL[:3]}*****{MISTRAL[-3:]}!") == "got <redacted:MISTRAL_API_KEY>!"
    text = "got qq*****zz and k*****w"
    assert redactor(text) is text


# --- learning --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"api_key": MISTRAL}, "api_key"),
        ({"azure_ad_token": MISTRAL}, "azure_ad_token"),
        ({"aws_secret_access_key": MISTRAL}, "aws_secret_access_key"),
        ({"headers": {"Authorization": f"Bearer {MISTRAL}"}}, "authorization"),
        ({"extra_headers": {"X-Api-Key": MISTRAL}}, "x-api-key"),
        ({"litellm_params": {"deep": [{"client_secret": MISTRAL}]}}, "client_secret"),
        ({"fallbacks": ({"model": "x", "api_key": MISTRAL},)}, "api_key"),
        ({"vertex_credentials": {"private_key": MISTRAL}}, "private_key"),
        ({"vertex_credentials": json.dumps({"private_key": MISTRAL})}, "vertex_credentials"),
        ({"api_base": f"https://u:{MISTRAL}@h/v1"}, "api_base"),
        ({"api_base": f"https://h/v1?api_key={MISTRAL}"}, "api_base"),
        ({"extra_body": {"token": MISTRAL}}, "token"),
        ({"extra_body": MappingProxyType({"api_key": MISTRAL})}, "api_key"),
        ({"api_key": MISTRAL, "azure_ad_token": MISTRAL}, "api_key"),
    ],
)
def test_echo_of_an_argument(clean, arguments, name):
    """A secret that was passed as an argument goes from the answer and from an exception's text."""
    answer = {"error": f"no such user: {MISTRAL}"}
    assert clean(answer) is answer
    clean.learn(arguments)
    assert clean(answer) == {"error": f"no such user: <redacted:{name}>"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"api_key": DUMMY_KEY},
        {"api_key": "sk-test"},
        {"api_key": "not-needed"},
        {"api_key": None},
        {"max_tokens": 1234567890},
        {"vertex_credentials": "/no/such/place/key.json"},
        {"messages": [{"content": "x", "password": "ordinary"}]},
        {"api_base": "http://[broken"},
        {"api_base": "http://127.0.0.1:8080/v1"},
        {"user": "somebody-else"},
    ],
)
def test_what_is_not_learnt(clean, arguments):
    """Dummies, paths, addresses and what was asked are not looked for later."""
    clean.learn(arguments)
    text = f"{DUMMY_KEY} sk-test not-needed /no/such/place/key.json ordinary http://127.0.0.1:8080/v1 somebody-else"
    assert clean(text) is text


def test_learning_never_raises(clean):
    """Odd objects among the arguments are passed over, what can be read beside them is kept."""

    class Odd(dict):
        def items(self):
            raise RuntimeError("no")

        __str__ = __repr__ = __eq__ = __hash__ = items

    loop = []
    loop.append(loop)
    clean.learn({3: loop, "odd": Odd(), "client": object(), "x": Odd, "api_key": MISTRAL})
    assert clean(MISTRAL) == "<redacted:api_key>"


@pytest.mark.parametrize("name", ["client", "http_client"])
def test_key_of_a_client(clean, name):
    """The key of a client that a call is given is taken out of its answer; a client without one does not matter."""
    clean.learn({name: SimpleNamespace(api_key=MISTRAL), "other_client": SimpleNamespace(api_key=None)})
    assert clean(f"no such user: {MISTRAL}") == "no such user: <redacted:api_key>"


def test_key_that_is_set_on_litellm(monkeypatch):
    """A key that is set on the module, as in litellm.openai_key = ..., leaves no hash, like one that is passed."""
    clean = Redactor(environ={})
    for name, value in {"openai_key": MISTRAL, "api_key": AZURE_OLD, "azure_key": AZURE_OLD}.items():
        monkeypatch.setattr(litellm, name, value)
    clean.learn({"model": "x"})
    monkeypatch.undo()
    clean.learn({"model": "x"})
    assert clean([MISTRAL, AZURE_OLD]) == ["<redacted:openai_key>", "<redacted:api_key>"]


def test_headers_that_are_set_on_litellm(monkeypatch):
    """Nor does one in ``litellm.headers``, which go with every call, however often they change."""
    clean = Redactor(environ={})
    monkeypatch.setattr(litellm, "headers", {"X-API-Key": MISTRAL})
    clean.learn({"model": "x"})
    litellm.headers["Authorization"] = f"Bearer {AZURE_OLD}"
    clean.learn({"model": "x"})
    assert clean([MISTRAL, AZURE_OLD]) == ["<redacted:x-api-key>", "<redacted:authorization>"]


def test_every_key_of_litellm_is_known():
    """LiteLLM has no attribute for a key that is not looked at."""
    names = {name for name, value in vars(litellm).items() if name.endswith("_key") and (value is None)}
    assert names <= set(known_values.MODULE_KEYS)


def test_environment_names_before_arguments():
    """A key that is in the environment and passed as well is named by the variable, whatever test ran first."""
    redactor = Redactor(environ={"ZZ_API_KEY": MISTRAL})
    before = redactor(MISTRAL)
    redactor.learn({"api_key": MISTRAL})
    assert before == redactor(MISTRAL) == "<redacted:ZZ_API_KEY>"


def test_learning_in_any_order():
    """A secret passed under two names has one placeholder, whichever was seen first."""
    calls = [{"api_key": MISTRAL}, {"azure_ad_token": MISTRAL}]
    found = set()
    for order in (calls, calls[::-1]):
        redactor = Redactor(environ={})
        for arguments in order:
            redactor.learn(arguments)
        found.add(redactor(MISTRAL))
    assert found == {"<redacted:api_key>"}


# --- own rules -------------------------------------------------------------------------------------------


def test_own_patterns_add_to_the_defaults():
    """Own patterns take out what they match, after the built-in rules, and are counted from one."""
    redactor = Bare([r"cust-\d+", re.compile(r"ACME-(?P<secret>\w+)-\w+")], environ={})
    text = f"cust-42 and ACME-hidden-shown, {FORMATS['groq'][1]}"
    assert redactor(text) == "<redacted:pattern> and ACME-<redacted:pattern>-shown, <redacted:groq-key>"


def test_own_pattern_as_a_single_text():
    """One pattern may be given without a list around it, and may match a short text."""
    assert Bare(r"\bBob\b", environ={})(["Bob", "Bobby"]) == ["<redacted:pattern>", "Bobby"]


@pytest.mark.parametrize(
    "pattern", [".*", r"\w+", r"(?s).", "redacted", "[<>]", "x*", "(?P<secret>a)?b", "e"]
)
def test_own_patterns_leave_placeholders(pattern):
    """No own pattern, however greedy, takes a placeholder apart."""
    redactor = Redactor([pattern], environ={})
    once = redactor(f"ab {FORMATS['groq'][1]} {MISTRAL}e")
    assert redactor(once) is once
    assert redactor("<redacted:groq-key>") == "<redacted:groq-key>"


@pytest.mark.parametrize("pattern", ["(", "a**", b"bytes", re.compile(b"compiled"), 5])
def test_bad_pattern(pattern):
    """A pattern that is none is refused by name."""
    with pytest.raises(SettingsError, match=re.escape(repr(pattern))):
        Redactor(["fine", pattern])  # type: ignore[list-item]


def test_own_function():
    """An own function sees every text after the built-in rules, keys of mappings too."""
    seen = []

    def hide(text):
        seen.append(text)
        return text.replace("Alice", "<name>")

    redactor = Bare(functions=[hide], environ={})
    found = redactor({"Alice": ["Alice", FORMATS["groq"][1], 3]})
    assert found == {"<name>": ["<name>", "<redacted:groq-key>", 3]}
    assert list(map(bare, seen)) == ["Alice", "Alice", "<redacted:groq-key>"]
    assert redactor(found) is found


def test_own_functions_add_to_each_other():
    """Each is called, in turn, on what the one before has left."""
    functions = [lambda text: text.replace("Ada", "A."), lambda text: text.replace("A. King", "<name>")]
    assert Redactor(functions=functions, environ={})("Ada King") == "<name>"


def test_own_patterns_may_change_places():
    """A recording does not hang on how many patterns there are, nor on their order."""
    assert Redactor(["Bob", "Eve"], environ={})("Eve") == Redactor(["Eve"], environ={})("Eve")


def test_own_function_cannot_bring_a_secret_back():
    """What an own function returns is looked at once more."""
    assert Bare(functions=[lambda text: FORMATS["groq"][1]], environ={})("x") == "<redacted:groq-key>"


def test_own_function_that_gives_no_text():
    """A function that returns something else than a text is refused, and so is what is no function."""
    with pytest.raises(SettingsError, match=r"returned NoneType\. It has to return a str\."):
        Redactor(functions=[lambda text: None], environ={})("x")  # type: ignore[arg-type,return-value]
    with pytest.raises(SettingsError, match="callable, got str"):
        Redactor(functions="x")  # type: ignore[arg-type]


# --- streams ---------------------------------------------------------------------------------------------


def chunk(text, index=0):
    """A chunk as LiteLLM dumps it."""
    return {"id": "chatcmpl-1", "choices": [{"index": index, "delta": {"content": text}}]}


def text_of(chunks, index=0):
    """The pieces of one choice."""
    choices = [choice for part in chunks for choice in part["choices"]]  # type: ignore[attr-defined]
    return [choice["delta"]["content"] for choice in choices if choice["index"] == index]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 7, 20, 30, 41, 500])
@CASES
def test_secret_in_pieces(clean, kind, secret, size):
    """A key that a stream delivers in pieces goes as a whole; all chunks stay, and so does the text around."""
    text = f"it is {secret}, keep it"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    chunks = [*map(chunk, pieces), chunk(None), {"choices": []}]
    found = clean.stream(chunks)
    assert len(found) == len(chunks)
    assert "".join(text_of(found)[:-1]) == f"it is <redacted:{kind}>, keep it"
    assert clean.stream(found) == found
    assert text_of(chunks)[:-1] == pieces, "the caller's chunks are not changed"


def test_secret_in_pieces_of_two_choices(clean):
    """Choices that arrive in turn are read one by one."""
    secret = FORMATS["groq"][1]
    chunks = [chunk(secret[at : at + 5], index) for at in range(0, len(secret), 5) for index in (0, 1)]
    found = clean.stream(chunks)
    assert "".join(text_of(found, 0)) == "".join(text_of(found, 1)) == "<redacted:groq-key>"


def test_several_secrets_in_pieces():
    """Secrets that begin and end within one piece each are told apart, also those known by value only."""
    redactor = Redactor(environ={"A_TOKEN": MISTRAL})
    pieces = ["a " + MISTRAL[:9], MISTRAL[9:] + " b " + MISTRAL[:5], MISTRAL[5:10], MISTRAL[10:] + " c"]
    found = text_of(redactor.stream([chunk(piece) for piece in pieces]))
    assert found == ["a <redacted:A_TOKEN>", " b <redacted:A_TOKEN>", "", " c"]


def test_events_that_each_have_an_item(clean):
    """Where every event names another item they are still the pieces of one text."""
    secret, kind = FORMATS["groq"][1], "response.output_text.delta"
    events = [
        {"type": kind, "item_id": f"i{at}", "delta": secret[at : at + 5]} for at in range(0, len(secret), 5)
    ]
    assert "".join(event["delta"] for event in clean.stream(events)) == "<redacted:groq-key>"


def test_streamed_tokens_of_a_text_completion(clean):
    """Neither the tokens in a stream's chunks nor what they might have been spell a secret."""
    secret = FORMATS["groq"][1]
    pieces = [secret[at : at + 4] for at in range(0, len(secret), 4)]
    chunks = [
        {
            "choices": [
                {
                    "index": 0,
                    "text": "".join(pair),
                    "logprobs": {
                        "tokens": pair,
                        "token_logprobs": [-1.0, -1.0],
                        "top_logprobs": [{token: -0.1} for token in pair],
                    },
                }
            ]
        }
        for pair in zip(pieces[::2], pieces[1::2], strict=False)
    ]
    found = clean.stream(chunks)
    assert not any(piece in str(found) for piece in pieces if len(piece) == 4)


def test_the_tail_of_a_secret_in_another_piece(clean):
    """A piece that looks like a whole key by itself takes what follows of the key with it, wherever it was cut."""
    secret = FORMATS["anthropic"][1]
    for at in range(1, len(secret)):
        found = clean.stream([chunk(f"it is {secret[:at]}"), chunk(f"{secret[at:]}, keep it")])
        assert "".join(text_of(found)) == "it is <redacted:anthropic-key>, keep it"


def test_items_that_come_in_turn(clean):
    """The events of several items of a Responses stream are read item by item."""
    secret = FORMATS["groq"][1]
    kind = "response.output_text.delta"
    events = [
        {"type": kind, "item_id": item, "content_index": 0, "delta": secret[at : at + 5]}
        for at in range(0, len(secret), 5)
        for item in ("a", "b")
    ]
    found = clean.stream(events)
    assert "".join(event["delta"] for event in found) == "<redacted:groq-key>" * 2


@pytest.mark.parametrize(
    "pieces", [["from AC", "ME-", "4711!"], ["from ACME-4711!"], ["A", "C", "ME", "-4711"]]
)
def test_own_function_on_pieces(pieces):
    """An own function gets the text whole, also where a stream cut it; the chunks stay."""
    redactor = Redactor(functions=[lambda text: re.sub(r"ACME-[0-9]+", "<customer>", text)])
    found = redactor.stream([*map(chunk, pieces), chunk(" ok")])
    assert len(found) == len(pieces) + 1
    assert "".join(text_of(found)) == "".join(pieces).replace("ACME-4711", "<customer>") + " ok"
    assert redactor.stream(found) == found


def test_own_function_that_adds():
    """What an own function puts after a text, or in the place of all of it, stays."""
    redactor = Redactor(functions=[lambda text: "?" if text in {"a", "ab", "?"} else text])
    assert "".join(text_of(redactor.stream([chunk("a"), chunk("b")]))) == "?"
    redactor = Redactor(functions=[lambda text: text + "!" if text == "ab" else text])
    assert "".join(text_of(redactor.stream([chunk("a"), chunk("b")]))) == "ab!"


def test_stream_without_secrets(clean):
    """A stream without secrets comes back as it is."""
    chunks = [chunk("Hello"), chunk(", "), chunk("world")]
    assert clean.stream(chunks) is chunks or clean.stream(chunks) == chunks


def told(tokens):
    """Logprobs as OpenAI gives them."""
    return [
        {
            "token": token,
            "bytes": list(token.encode()),
            "logprob": -0.5,
            "top_logprobs": [{"token": token, "bytes": list(token.encode()), "logprob": -0.5}],
        }
        for token in tokens
    ]


LOGGED = ["it is ", MISTRAL[:9], MISTRAL[9:20], MISTRAL[20:], ", ok"]
UNTOLD = [
    {"token": token, "bytes": None, "logprob": -0.5, "top_logprobs": []}
    for token in ["<redacted:A_TOKEN>", "", ""]
]


def test_logprobs_of_an_answer():
    """A key that the logprobs spell token by token goes, with its bytes and alternatives; other tokens stay."""
    redactor = Redactor(environ={"A_TOKEN": MISTRAL})
    answer = {"choices": [{"logprobs": {"content": told(LOGGED), "refusal": None}}]}
    found = redactor(answer)
    content = told(LOGGED)
    assert found["choices"][0]["logprobs"] == {"content": [content[0], *UNTOLD, content[4]], "refusal": None}
    assert redactor(found) is found
    innocent = {"content": told(["a", "b"])}
    assert redactor(innocent) is innocent
    assert Redactor(["^z$"], environ={})(told(["a", "z"]))[1]["bytes"] is None


@pytest.mark.parametrize("size", [1, 2, 5])
def test_logprobs_of_a_stream(size):
    """The same for the chunks of a stream, with one token or several in each."""
    redactor = Redactor(environ={"A_TOKEN": MISTRAL})
    lists = [told(LOGGED[at : at + size]) for at in range(0, len(LOGGED), size)]
    chunks = [{"choices": [{"index": 0, "logprobs": {"content": items}}]} for items in lists]
    found = redactor.stream(chunks)
    lists = [part["choices"][0]["logprobs"]["content"] for part in found]
    content = told(LOGGED)
    assert [len(items) for items in lists] == [len(LOGGED[at : at + size]) for at in range(0, 5, size)]
    assert [item for items in lists for item in items] == [content[0], *UNTOLD, content[4]]
    assert redactor.stream(found) == found


def events(pieces, ascii_only=False):
    """A messages stream as Anthropic sends it, spaces before the closing brace included."""
    data = [{"type": "message_start", "message": {"id": "msg_1", "usage": {"n": 1}}}]
    data += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        for piece in pieces
    ]
    data.append({"type": "message_stop"})
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=ascii_only)[:-1]}   }}\n\n".encode()
        for event in data
    )


def wire_chunk(piece):
    """A chunk of bytes as it is stored."""
    try:
        return {"bytes": piece.decode()}
    except UnicodeDecodeError:
        return {"raw": piece}


def wire(chunks):
    """What the chunks hold together."""
    return b"".join(part["raw"] if "raw" in part else part["bytes"].encode() for part in chunks)  # type: ignore[attr-defined,misc]


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("size", [1, 7, 64, 150, 5000])
def test_secret_in_pieces_of_server_sent_events(size, ascii_only):
    """A key in several events goes, however the bytes are cut, also inside of a character; all else stays."""
    redactor = Redactor(environ={"A_TOKEN": MISTRAL})
    whole = events(["密钥: é " + MISTRAL[:9], MISTRAL[9:20], MISTRAL[20:] + "\n密", "ok 密"], ascii_only)
    chunks = [wire_chunk(whole[at : at + size]) for at in range(0, len(whole), size)]
    assert size != 7 or ascii_only or any("raw" in part for part in chunks)
    found = redactor.stream(chunks)
    assert len(found) == len(chunks)
    assert wire(found) == events(["密钥: é <redacted:A_TOKEN>", "", "\n密", "ok 密"], ascii_only)
    assert redactor.stream(found) == found


def test_events_that_hold_no_secret_stay_in_their_chunks():
    """Only the chunks of the events that changed are new."""
    redactor = Redactor(environ={"A_TOKEN": MISTRAL})
    whole = events(["hello", MISTRAL[:9], MISTRAL[9:], "bye"])
    chunks = [{"bytes": part.decode() + "\n\n"} for part in whole.split(b"\n\n")[:-1]]
    found = redactor.stream(chunks)
    assert [one is two for one, two in zip(found, chunks, strict=True)] == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert json.loads(found[2]["bytes"].partition("data: ")[2])["delta"]["text"] == "<redacted:A_TOKEN>"


@pytest.mark.parametrize(
    "text",
    ["", "data: [DONE] {}\n", 'data: {{"cut": "{}', ": {}\n\n", "{}", "event: error\r\ndata: {{'{}'}}\r\n"],
)
def test_bytes_that_are_no_events(text):
    """What is no JSON event, such as one that is cut off, is text; bytes that are no UTF-8 stay as they are."""
    redactor = Redactor(environ={"A_TOKEN": MISTRAL})
    before, after = text.format(MISTRAL).encode(), text.format("<redacted:A_TOKEN>").encode()
    whole = events(["a", "b"])
    chunks = [{"bytes": whole.decode()}, wire_chunk(before[:20]), wire_chunk(before[20:]), {"raw": b"\n\xff"}]
    found = redactor.stream(chunks)
    assert len(found) == 4
    assert wire(found) == whole + after + b"\n\xff"


def test_what_is_no_secret_in_an_event_stays_as_written():
    """Escapes, numbers and lone surrogates of an event that changed are not rewritten, nor are comments."""
    redactor = Redactor(environ={"A_TOKEN": MISTRAL})
    text = (
        ': {0}\n\ndata:{{"a" :"\\/\\u0026é", "b": 1.50, "c":"{0}"}}\n: {0}\n\ndata: {{"d": "\\ud800é {0}"}}\n'
    )
    [found] = redactor.stream([{"bytes": text.format(MISTRAL)}])
    first, last = found["bytes"].rsplit("data: ", 1)
    assert first == text.format("<redacted:A_TOKEN>").rsplit("data: ", 1)[0]
    assert json.loads(last) == {"d": "\ud800é <redacted:A_TOKEN>"}


def test_rewritten_event_of_an_odd_form():
    """An event whose names hold a secret or are doubled still is the JSON of its data without the secret."""
    redactor = Redactor(environ={"A_TOKEN": MISTRAL})
    text = (
        'data: {"a": 1, "a": "x", "b": "\\ud800 '
        + MISTRAL
        + '", "api_key": {"token": ["'
        + MISTRAL
        + '"]}}\n'
    )
    [found] = redactor.stream([{"bytes": text}])
    data = json.loads(found["bytes"].removeprefix("data: "))
    expected = {"a": "x", "b": "\ud800 <redacted:A_TOKEN>", "api_key": {"token": ["<redacted:token>"]}}
    assert data == expected


# --- properties ------------------------------------------------------------------------------------------

FRAGMENTS = st.sampled_from(
    [
        *(secret for _, secret in FORMATS.values()),
        *(secret[: len(secret) // 2] for _, secret in FORMATS.values()),
        *(
            "Bearer ",
            "api_key=",
            '"token": "',
            "://",
            "u:p@",
            "?sig=",
            "&key=",
            "<redacted:",
            "<redacted:x>",
            ">",
            "***",
        ),
        *(
            "\\n",
            "%3D",
            "-",
            "_",
            ".",
            " ",
            "x",
            "9",
            MISTRAL,
            MISTRAL[:10],
            AZURE_OLD,
            "token",
            "-----",
            "密",
        ),
    ]
)
TEXTS = st.one_of(st.lists(FRAGMENTS, max_size=6).map("".join), st.text(max_size=40))
DATA = st.recursive(
    st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(
            st.one_of(st.sampled_from(["api_key", "token", "content", "headers"]), TEXTS), inner, max_size=4
        ),
    ),
    max_leaves=12,
)
ENVIRON = st.dictionaries(
    st.sampled_from(["A_TOKEN", "B_API_KEY", "OPENAI_API_KEY", "X_URL"]),
    st.one_of(TEXTS, st.sampled_from([MISTRAL, AZURE_OLD])).map(lambda text: text.replace("\0", "")),
    max_size=3,
)
PATTERNS = st.lists(
    st.sampled_from([r"\w+", "x.", r"a.*z", r"-(?P<secret>\w*)", r"\d(?=\D)", "^."]), max_size=2
)


def same(one, two):
    """Equality of data in which NaN equals itself."""
    return repr(one) == repr(two)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(DATA, ENVIRON, PATTERNS)
@example(FORMATS["aws id"][1] + MISTRAL, {"A_TOKEN": MISTRAL}, [])
@example({"token": MISTRAL[:16] + " x"}, {}, [r"\s"])
def test_twice_is_once(data, environ, patterns):
    """Redacting what is redacted changes nothing, whatever rules apply."""
    redactor = Redactor(patterns, environ=environ)
    once = redactor(data)
    assert redactor(once) is once or same(redactor(once), once)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=5), ENVIRON)
def test_stream_twice_is_once(pieces, environ):
    """Redacting a redacted stream changes nothing, and no piece gets lost."""
    redactor = Redactor(environ=environ)
    once = redactor.stream([chunk(piece) for piece in pieces])
    assert len(once) == len(pieces)
    assert redactor.stream(once) == once


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=4), ENVIRON, st.integers(1, 90))
def test_bytes_twice_is_once(pieces, environ, size):
    """The same for a stream of bytes, whatever it is cut into."""
    redactor = Redactor(environ=environ)
    whole = events(pieces, ascii_only=True)
    once = redactor.stream([wire_chunk(whole[at : at + size]) for at in range(0, len(whole), size)])
    assert redactor.stream(once) == once


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(TEXTS, ENVIRON, st.randoms(use_true_random=False))
def test_order_does_not_matter(text, environ, random):
    """Neither the environment's order nor that of earlier calls changes what is written."""
    items = list(environ.items())
    calls = [{"api_key": MISTRAL}, {"hf_token": MISTRAL}, {"client_secret": AZURE_OLD}]
    found = set()
    for _ in range(3):
        random.shuffle(items)
        random.shuffle(calls)
        redactor = Redactor(environ=dict(items))
        for arguments in calls:
            redactor.learn(arguments)
        found.add(redactor(text))
    assert len(found) == 1


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS)
def test_value_of_the_environment_never_survives(before, after):
    """Whatever stands around it, a key of the environment is not in the result."""
    assert MISTRAL not in Redactor(environ={"A_TOKEN": MISTRAL})(before + MISTRAL + after)


# --- effort ----------------------------------------------------------------------------------------------


@pytest.fixture
def steps():
    """Counts the closer looks that a text gives rise to."""
    count = {"looks": 0}

    def counting(look):
        def counted(*arguments):
            count["looks"] += 1
            return look(*arguments)

        return counted

    before = scan.FINDERS[:]
    scan.FINDERS[:] = [counting(look) for look in before]
    yield count
    scan.FINDERS[:] = before


def test_ordinary_text_is_scanned_once(clean, steps):
    """A request in plain words, code or base64 needs one scan and hardly any closer look."""
    prose = "You are a well-read assistant: sort this list, e.g. by its 'name' key; cost = 3 * n. " * 24
    blob = "data:application/pdf;base64," + base64.b64encode(bytes(range(256)) * 4000).decode()
    clean({"messages": [{"role": "user", "content": prose}, {"role": "user", "content": blob}]})
    assert steps["looks"] < 60


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        *(
            "sk-",
            "sk-a_",
            "-sk-",
            "\\nsk-aaaa",
            "%3Dsk-",
            "-AIza",
            "_hf_",
            "eyJ",
            "eyJa.",
            ".eyJaaaaaaaaa",
            "://a:",
            "://",
        ),
        *(
            "?key=",
            "&sig=a",
            "api_key=",
            "token: ",
            "key:",
            "*",
            "**** ",
            "a***",
            "JQQJ9",
            "8Q~",
            "ya29.",
            "Bearer ",
        ),
        *(
            "Bearer a",
            "-----BEGIN PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----" + "A" * 40,
            "-----",
            "-",
            "_",
            ".",
        ),
        *(
            "<redacted:",
            "<redacted:x>",
            "sk-...a",
            "sk-A",
            "xoxe.xoxb-",
            "gh" + "s_a.",
            "=",
            ":",
            '"',
            "\\",
            "A",
            "secret ",
        ),
    ],
)
def test_no_text_is_read_again_and_again(unit, steps):
    """Texts made to hurt are looked at no more often than they are long, and found in pieces that add up to that."""
    redactor = Redactor(environ={"A_TOKEN": MISTRAL})
    text = (unit * (200_000 // len(unit) + 1))[:200_000]
    spans = list(scan.find_secrets(text, ((MISTRAL, "A_TOKEN"),)))
    assert steps["looks"] <= len(text)
    assert sum(span.end - span.start for span in spans) <= 3 * len(text)
    assert redactor(text) is not None


# --- shapes that were missed once --------------------------------------------------------------------------

LINES = ["Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4zAb3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z"] * 3
PEM = ["-----BEGIN PRIVATE KEY-----", *LINES, "-----END PRIVATE KEY-----"]


@pytest.mark.parametrize(
    ("before", "after"),
    [("> ", "\n"), ("# ", "\n"), ("-", "\n"), ('    "', '\\n"\n'), ("", "%0A"), ("", "<br>"), ("", "\\n")],
    ids=["quote", "comment", "diff", "literals", "url", "html", "json"],
)
def test_private_key_in_another_text(clean, before, after):
    """A private key goes from its beginning to its end, whatever stands before and after each of its lines."""
    text = "see:\n" + "".join(f"{before}{line}{after}" for line in PEM) + "\nbye"
    assert LINES[0][:20] not in clean(text)
    assert clean(text).startswith("see:\n")
    assert clean(text).endswith("bye")
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BROKER_URL", "amqp://rabbitmq:rabbitmq@localhost"),
        ("SECRET_KEY", "development"),
        ("PARTITION_KEY", "customer_id"),
        ("MODEL_KEY", "gpt-4o-mini"),
        ("CHAT_KEY", "assistant"),
        ("DEVICE_KEY", "123456789012"),
    ],
)
def test_variables_that_hold_words(name, value):
    """An ordinary word or number in a variable is none of the secrets that are taken out of every text."""
    text = f"it says {value.rpartition('@')[0].rpartition(':')[2] or value}"
    assert Redactor(environ={name: value})(text) == text


@pytest.mark.parametrize(
    "value",
    [
        *(MISTRAL, "7a1f0c9e-5d2b-4c3a-9e8f-0123456789ab", MISTRAL + "\n", f"Bearer {MISTRAL}"),
        *("AB12-CD34-EF56-GH78-IJ90", "p@ss!W0rd-Xyzq-77", "kqwertzuiopasdfghjklyxcvbn"),
    ],
)
def test_variables_whose_value_tells(value):
    """Under a name that ends in KEY and tells no more, all but a word is a key."""
    secret = value.strip().removeprefix("Bearer ")
    assert Redactor(environ={"PINECONE_KEY": value})(f"it is {secret}.") == "it is <redacted:PINECONE_KEY>."


@pytest.mark.parametrize(
    "written", ["abc%2Bdef/GHI9jkl012", "abc%2bdef%2fGHI9jkl012", r"abc+def\/GHI9jkl012"]
)
def test_other_spellings_of_a_value(written):
    """A secret is found as URLs and JSON spell it, whichever of their spellings it is."""
    redactor = Redactor(environ={"A_TOKEN": "abc+def/GHI9jkl012"})
    assert redactor(f"see {written}") == "see <redacted:A_TOKEN>"
    assert redactor("see abc%2Bdef%2FGHI9jkl012") == "see <redacted:A_TOKEN>"


def test_a_type_names_its_key(clean):
    """Azure's way: what stands under ``key`` is what ``type`` says, and its echo is known."""
    redactor = Bare(environ={})
    data = {"authentication": {"type": "api_key", "key": MISTRAL}}
    assert redactor(data) == {"authentication": {"type": "api_key", "key": "<redacted:api_key>"}}
    redactor.learn({"extra_body": {"data_sources": [{"parameters": data}]}})
    assert MISTRAL not in redactor(f"refused: {MISTRAL}")
    assert clean({"type": "sort", "key": "name"}) == {"type": "sort", "key": "name"}


def test_parameters_of_a_query(clean):
    """LiteLLM's extra_query is a URL's: its parameters are redacted like those."""
    query = {"code": MISTRAL, "sig": "x", "page": "2", "key": "PROJ-1"}
    expected = {"code": "<redacted:code>", "sig": "<redacted:sig>", "page": "2", "key": "PROJ-1"}
    assert clean.request({"extra_query": query}) == {"extra_query": expected}


@pytest.mark.parametrize("name", ["X-Auth", "Helicone-Auth"])
def test_headers_that_end_in_auth(name):
    """A credential under such a header is taken out, and so is its echo."""
    redactor = Redactor(environ={})
    redactor.learn({"extra_headers": {name: f"Bearer {MISTRAL}"}})
    assert MISTRAL not in redactor(f"refused: {MISTRAL}")
    assert MISTRAL not in str(redactor({"headers": {name: MISTRAL}}))


@pytest.mark.parametrize("base", ["https://h/v1?code={}", "https://h/v1?sig={}", "https://{}@h/v1"])
def test_credentials_of_an_api_base(base):
    """What an api_base holds is known wherever it comes again."""
    redactor = Redactor(environ={})
    redactor.learn({"api_base": base.format(MISTRAL)})
    assert MISTRAL not in redactor(f"refused: {MISTRAL}")


def test_tokens_of_a_text_completion(clean):
    """The tokens of a text completion's logprobs do not spell what its text no longer says."""
    secret = FORMATS["groq"][1]
    tokens = [secret[at : at + 6] for at in range(0, len(secret), 6)]
    told = {"tokens": tokens, "token_logprobs": [-1.0] * len(tokens), "top_logprobs": [{secret[:6]: -1.0}]}
    found = clean({"text": secret, "logprobs": told})
    assert "".join(found["logprobs"]["tokens"]) == "<redacted:groq-key>"
    assert len(found["logprobs"]["tokens"]) == len(tokens)
    assert secret[:6] not in str(found)


def test_own_function_that_fails():
    """What an own function raises is told as its failure, without what it was given."""
    redactor = Redactor(functions=[lambda text: text + 1])  # type: ignore[operator]
    with pytest.raises(SettingsError, match=r"raised TypeError at .*test_redactor.py:\d+\. Correct it"):
        redactor("hello there")
