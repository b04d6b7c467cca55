"""Which of a provider's response headers are recorded, and what a replayed answer has of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import litellm
import pytest
from provider import Provider, Reply

from pytest_lmcache import use_cassette
from pytest_lmcache.libraries.litellm.headers import kept_headers, without_prefix

GONE = "http://127.0.0.1:9/v1"
SENT = {
    "x-ratelimit-remaining-requests": "41",
    "x-request-id": "req_1",
    "openai-version": "2020-10-01",
    "set-cookie": "session=secret",
    "date": "Mon, 23 Nov 2026 09:12:44 GMT",
}


def chat(url: str, **more: Any) -> Any:
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
def test_names_and_patterns(keep: tuple[str, ...], kept: set[str]) -> None:
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
def test_headers_that_change_with_every_call_are_not_recorded(
    stream: bool, provider: Provider, tmp_path: Path
) -> None:
    """A cassette has none of a response's headers."""
    provider.script(Reply(headers=SENT))
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        live = chat(provider.url, stream=stream)
        _ = list(live) if stream else live
    text = (tmp_path / "x.yaml").read_text()
    assert not [name for name in SENT if f"{name}:" in text]
    assert "additional_headers" not in text
