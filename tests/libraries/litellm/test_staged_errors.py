"""The errors of `lm_cache.fail`: LiteLLM's own, as those of a provider that fails."""

import asyncio
import re

import litellm
import pytest
from provider import FAILURES, Provider, Reply

from pytest_lmcache import use_cassette

ASKED = [{"role": "user", "content": "Who is the GOAT?"}]
KEY = {"api_key": "sk-local-0123456789", "max_retries": 0}
# What the errors of two connections to one provider never share.
OF_CONNECTION = frozenset(
    {"request", "response", "litellm_response_headers", "request_id", "litellm_debug_info"}
)
CLASSES = {
    "rate_limit": litellm.RateLimitError,
    "authentication": litellm.AuthenticationError,
    "not_found": litellm.NotFoundError,
    "invalid_request": litellm.BadRequestError,
    "context_length_exceeded": litellm.ContextWindowExceededError,
    "content_policy_violation": litellm.ContentPolicyViolationError,
    "server": litellm.InternalServerError,
    "overloaded": litellm.ServiceUnavailableError,
}
NEVER_OF_ANTHROPIC = {"context_length_exceeded", "content_policy_violation", "overloaded"}
ALIKE = {"authentication", "not_found", "context_length_exceeded", "content_policy_violation", "overloaded"}


@pytest.fixture(scope="module")
def provider():
    with Provider() as running:
        yield running


def chat(provider):
    return litellm.completion(model="openai/gpt-4o-mini", messages=ASKED, api_base=provider.url, **KEY)


def achat(provider):
    call = litellm.acompletion(model="openai/gpt-4o-mini", messages=ASKED, api_base=provider.url, **KEY)
    return asyncio.run(call)


def claude(provider):
    model = "anthropic/claude-haiku-4-5"
    return litellm.completion(model=model, messages=ASKED, api_base=provider.base, **KEY)


def groq(provider):
    return litellm.completion(model="groq/llama-3", messages=ASKED, api_base=provider.url, **KEY)


def embedding(provider):
    model = "openai/text-embedding-3-small"
    return litellm.embedding(model=model, input=["a"], api_base=provider.url, **KEY)


def text(provider):
    model = "openai/gpt-3.5-turbo-instruct"
    return litellm.text_completion(model=model, prompt="a", api_base=provider.url, **KEY)


def responses(provider):
    return litellm.responses(model="openai/gpt-4o-mini", input="a", api_base=provider.url, **KEY)


def messages(provider):
    call = litellm.anthropic_messages(
        model="anthropic/claude-haiku-4-5", messages=ASKED, max_tokens=9, api_base=provider.base, **KEY
    )
    return asyncio.run(call)


def error_of(function, provider):
    with pytest.raises(Exception) as caught:
        function(provider)
    return caught.value


def texts(error):
    shown = (str(error), repr(error), *map(str, error.args))
    return [re.sub("req_(fault|[0-9a-f]{32})", "<id>", text) for text in shown]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "failure"),
    [
        (function, failure)
        for function in (chat, achat, claude, groq, embedding, text, responses, messages)
        for failure in CLASSES
        if not (function in {claude, messages} and failure in NEVER_OF_ANTHROPIC)
        and (function in {chat, claude} or failure not in ALIKE)
    ],
)
def test_an_error_is_that_of_the_provider(provider, function, failure):
    """Class, text, attributes, status, headers and body of a fault are those of an error that the provider sends."""
    kind, wire = CLASSES[failure], FAILURES[failure]
    provider.answer = lambda _: Reply(failure=failure, headers={"retry-after": "7"})
    live = error_of(function, provider)
    if function is messages and not hasattr(live, "model"):
        pytest.skip("this LiteLLM does not map the errors of Anthropic's messages")
    model = live.model.rpartition("/")[2]
    message = wire.message.format(model=model, key="sk-local****6789")
    asked = provider.count
    with use_cassette(None) as tape:
        tape.fail(kind, message=message, retry_after=7)
        fault = error_of(function, provider)
    assert provider.count == asked
    assert type(fault) is type(live)
    assert texts(fault) == texts(live)
    names = vars(live).keys() - OF_CONNECTION - {"message", "detail"}
    assert {name: vars(fault).get(name) for name in names} == {name: vars(live)[name] for name in names}
    assert fault.response.status_code == live.response.status_code
    assert fault.response.text or not live.response.text  # older versions of LiteLLM drop some bodies
    assert (
        fault.litellm_response_headers["retry-after"] == live.litellm_response_headers["retry-after"] == "7"
    )
