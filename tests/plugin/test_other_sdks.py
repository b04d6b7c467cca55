"""Other packages that ask language models beside LiteLLM: told in the summary, refused under ``lm_block_network``."""

import pytest

OPENAI = """
import openai

def asked(**more):
    return dict(model="gpt-4o-mini", messages=said("hello"), **more)

def client(kind=openai.OpenAI, url=SETTINGS["api_base"]):
    return kind(base_url=url, api_key="sk-local-123456", max_retries=0)

async def aclient():
    async with client(openai.AsyncOpenAI) as own:
        await own.chat.completions.create(**asked())
"""
TOLD = "{} of the {} package went past LiteLLM and cannot be recorded:"


@pytest.mark.parametrize("options", [("--lm-rewrite",), ()], ids=["rewrite", "replay"])
def test_the_openai_package(suite, options):
    """Its calls are counted by test, sync, async and streamed; those that LiteLLM makes with it are not."""
    suite.test(
        OPENAI
        + """
@pytest.mark.lm_cache
def test_a():
    with client() as own:
        own.chat.completions.create(**asked())
        list(own.chat.completions.create(**asked(stream=True)))
    asyncio.run(aclient())
    ask()
    asyncio.run(aask())
    list(litellm.completion(**SETTINGS, messages=said("stream"), stream=True))

@pytest.mark.lm_cache
def test_b():
    ask("b")
"""
    )
    suite.record()
    result = suite.run(*options)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([TOLD.format("3 calls", "openai"), "  test_it.py::test_a (3)"])
    result.stdout.no_fnmatch_line("*of the httpx package*")
    result.stdout.no_fnmatch_line("  test_it.py::test_b *")


@pytest.mark.parametrize(
    ("package", "code"),
    [
        (
            "anthropic",
            (
                "anthropic.Anthropic(base_url=URL, api_key='k', max_retries=0).messages.create("
                "model='claude', max_tokens=1, messages=said('hello'))"
            ),
        ),
        (
            "google-genai",
            (
                "genai.Client(api_key='k', http_options={'base_url': URL}).models.generate_content("
                "model='gemini', contents='hello')"
            ),
        ),
        ("httpx", "httpx.get('https://api.openai.com/v1/models')"),
        ("httpx", "asyncio.run(httpx.AsyncClient().get('https://api.openai.com/v1/models'))"),
        ("requests", "requests.get('https://api.anthropic.com/v1/models')"),
    ],
)
def test_other_packages(suite, package, code):
    """Each is told by name, whether its call succeeds or not; plain clients by the hosts that they ask."""
    pytest.importorskip({"google-genai": "google.genai"}.get(package, package))
    what = {"google-genai": "from google import genai"}.get(package, f"import {package}")
    suite.test(f"""
{what}
URL = "http://127.0.0.1:9"

@pytest.mark.filterwarnings("ignore")
@pytest.mark.lm_cache(block_network=True)
def test_a():
    try:
        {code}
    except BaseException:
        pass
""")
    result = suite.run()
    result.stdout.fnmatch_lines([TOLD.format("1 call", package), "  test_it.py::test_a (1)"])


def test_other_hosts_are_not_told(suite):
    """A plain client that asks something else is nothing of ours."""
    suite.test(f"""
import httpx, requests

@pytest.mark.lm_cache
def test_a():
    httpx.get("{suite.provider.url}/models")
    requests.get("{suite.provider.url}/models")
""")
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*went past LiteLLM*")


@pytest.mark.parametrize("mark", ["", "@pytest.mark.lm_cache(mode='live')"])
def test_tests_that_record_nothing(suite, mark):
    """Tests without a mark and live ones are not told of."""
    suite.test(OPENAI + f"\n{mark}\ndef test_a():\n    client().chat.completions.create(**asked())\n")
    result = suite.run("-W", "ignore")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*went past LiteLLM*")


def test_refused_under_block_network(suite):
    """The call of another package to another machine fails its test with the host."""
    suite.test(
        OPENAI
        + """
@pytest.mark.lm_cache
def test_a():
    client(url="https://api.example.test/v1").chat.completions.create(**asked())
"""
    )
    result = suite.run("--lm-block-network", "-W", "ignore")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*test_a connects to api.example.test:443*",
            TOLD.format("1 call", "openai"),
            "  test_it.py::test_a (1)",
        ]
    )


def test_nothing_is_left(suite):
    """After the last recorded test the packages' methods are their own again."""
    suite.test(
        OPENAI
        + """
import httpx
from openai._base_client import SyncAPIClient
BEFORE = SyncAPIClient.request, httpx.Client.send

@pytest.mark.lm_cache
def test_a():
    assert SyncAPIClient.request is not BEFORE[0]

def test_b():
    assert (SyncAPIClient.request, httpx.Client.send) == BEFORE
"""
    )
    suite.run().assert_outcomes(passed=2)
