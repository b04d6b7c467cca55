"""Which of a provider's response headers are recorded, and what a replayed answer has of them."""

import litellm
import pytest
from provider import Reply

from pytest_lmcache import LMCacheError, use_cassette
from pytest_lmcache.libraries.litellm.headers import kept_headers, without_prefix

GONE = "http://127.0.0.1:9/v1"
SENT = {
    "x-ratelimit-remaining-requests": "41",
    "cf-ray": "ray_1",
    "openai-version": "2020-10-01",
    "set-cookie": "session=secret",
    "date": "Mon, 23 Nov 2026 09:12:44 GMT",
}


def chat(url, **more):
    asked = [{"role": "user", "content": "Hi"}]
    return litellm.completion(
        model="openai/gpt-4o-mini", messages=asked, api_base=url, api_key="sk-x", **more
    )


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ((), {"Retry-After"}),
        (("X-Request-ID",), {"Retry-After", "llm_provider-x-request-id"}),
        (("llm_provider-X-Ratelimit-*",), {"Retry-After", "x-ratelimit-limit-tokens"}),
        (("*",), {"Retry-After", "llm_provider-x-request-id", "x-ratelimit-limit-tokens"}),
        (("set-cookie", "authorization"), {"Retry-After"}),
    ],
)
def test_names_and_patterns(keep, kept):
    """A name or a pattern fits in any case and with or without LiteLLM's prefix; what holds a secret never does."""
    headers = {
        "Retry-After": "1",
        "llm_provider-x-request-id": "req_1",
        "x-ratelimit-limit-tokens": "100",
        "llm_provider-Set-Cookie": "session=secret",
        "Authorization": "Bearer secret",
        "x-amz-security-token": "secret",
    }
    found = kept_headers({**headers, "odd": None}, keep)
    assert found.keys() == kept
    assert without_prefix(found).keys() == {name.lower().removeprefix("llm_provider-") for name in kept}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_headers_that_change_with_every_call_are_not_recorded(stream, provider, tmp_path):
    """A cassette has none of a response's headers."""
    provider.script(Reply(headers=SENT))
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        live = chat(provider.url, stream=stream)
        _ = list(live) if stream else live
    text = (tmp_path / "x.yaml").read_text()
    assert not [name for name in SENT if f"{name}:" in text]
    assert "additional_headers" not in text


def headers_of(answer):
    params = answer._hidden_params
    return params["additional_headers"] if isinstance(params, dict) else params.additional_headers


def responses(url):
    return litellm.responses(model="openai/gpt-4o-mini", input="Hi", api_base=url, api_key="sk-x")


CALLS = {
    "whole": chat,
    "streamed": lambda url: chat(url, stream=True),
    "responses": responses,
}


@pytest.mark.parametrize("shape", CALLS)
def test_named_headers_are_on_a_replayed_answer(shape, provider, tmp_path):
    """Headers that ``keep_headers`` names are replayed under the names that LiteLLM gave them."""
    provider.script(Reply(headers=SENT))
    with use_cassette(tmp_path / "x.yaml", mode="record", keep_headers=["cf-ray", "X-RateLimit-*"]):
        live = CALLS[shape](provider.url)
        _ = list(live) if shape == "streamed" else live
    with use_cassette(tmp_path / "x.yaml"):
        stored = headers_of(CALLS[shape](GONE))
    names = [name for name in headers_of(live) if name.removeprefix("llm_provider-") in list(SENT)[:2]]
    assert len(names) > 1
    assert {name: stored.get(name) for name in names} == {name: headers_of(live)[name] for name in names}
    assert "2020-10-01" not in (tmp_path / "x.yaml").read_text()


def test_named_headers_of_an_error(provider, tmp_path):
    """A recorded error has ``retry-after`` and the headers that ``keep_headers`` names."""
    provider.script(Reply(failure="rate_limit", headers=SENT | {"retry-after": "1"}))
    settings = {"record_errors": "all", "keep_headers": "cf-ray"}
    with (
        use_cassette(tmp_path / "x.yaml", mode="record", **settings),
        pytest.raises(litellm.RateLimitError) as live,
    ):
        chat(provider.url, max_retries=0)
    with use_cassette(tmp_path / "x.yaml"), pytest.raises(litellm.RateLimitError) as replayed:
        chat(GONE, max_retries=0)
    # LiteLLM 1.83 makes the error a response of its own, without headers.
    given, kept = live.value.response.headers, replayed.value.response.headers
    assert all(kept.get(name) == given.get(name) for name in ("cf-ray", "retry-after"))
    assert "x-ratelimit-remaining-requests" not in kept


def test_recording_again_with_other_headers_changes_nothing(provider, tmp_path):
    """The same answer with another request id leaves the file as it was; a header that is newly named is added."""
    file = tmp_path / "x.yaml"

    def record(number, *keep):
        provider.script(Reply(headers=SENT | {"cf-ray": f"ray_{number}"}))
        with use_cassette(file, mode="rewrite", keep_headers=keep):
            chat(provider.url)
        return file.read_text()

    bare = record(1)
    assert record(2) == bare
    named = record(3, "cf-ray")
    assert "ray_3" in named
    assert record(4, "cf-ray") == named
    assert record(5) == named


def test_an_old_cassette_that_has_headers(provider, tmp_path):
    """Headers that an earlier version recorded are replayed, whatever the setting is; broken ones are an error."""
    file = tmp_path / "x.yaml"
    with use_cassette(file, mode="record"):
        chat(provider.url)
    text = file.read_text()
    old = "hidden:\n  additional_headers:\n    x-ratelimit-remaining-requests: '41'\nrecorded:"
    file.write_text(text.replace("recorded:", old, 1))
    with use_cassette(file):
        assert headers_of(chat(GONE))["x-ratelimit-remaining-requests"] == "41"
    file.write_text(text.replace("recorded:", "hidden: {additional_headers: 5}\nrecorded:", 1))
    with pytest.raises(LMCacheError, match="additional_headers"), use_cassette(file):
        chat(GONE)
