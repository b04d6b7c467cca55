"""Prices: in USD, as a person would write them."""

import litellm
import pytest

from pytest_lmcache import use_cassette
from pytest_lmcache.libraries.litellm.usage import price_of_usage, rounded, saved_at


@pytest.mark.parametrize(
    ("usd", "written"),
    [(7.250000000000001e-05, "7.25e-05"), (0.1 + 0.2, "0.3"), (0, "0.0"), (1234.5, "1234.5")],
)
def test_rounded(usd, written):
    """A price shows nothing of how floats are added."""
    assert repr(rounded(usd)) == written


def test_each_price_is_rounded():
    """What the provider says, what the tokens cost, and what a prompt cache saved."""
    assert price_of_usage({"cost": 7.250000000000001e-05}, "gpt-4o-mini", "openai") == 7.25e-05
    rates = {"input_cost_per_token": 0.3, "cache_read_input_token_cost": 0.1}
    assert saved_at(rates, (1, 5)) == 0.2
    usage = {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}
    found = price_of_usage(usage, "gpt-4o-mini", "openai")
    assert found == float(f"{found:.12g}")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_recorded_price(stream, provider, tmp_path, monkeypatch):
    """The cassette, the record of the call and the replayed call have the same short figure."""
    costs = {"input_cost_per_token": 1.1e-6, "output_cost_per_token": 3.3e-6, "litellm_provider": "openai"}
    monkeypatch.setitem(litellm.model_cost, "gpt-4o-mini", litellm.model_cost["gpt-4o-mini"] | costs)

    def usd(url, mode):
        with use_cassette(tmp_path / "x.yaml", mode=mode) as tape:
            answer = litellm.completion(
                model="openai/gpt-4o-mini",
                messages=[{"role": "user", "content": "Hi"}],
                api_base=url,
                api_key="sk-x",
                stream=stream,
            )
            _ = list(answer) if stream else answer
        return tape.calls[0].usd

    recorded = usd(provider.url, "record")
    assert recorded
    assert len(repr(recorded)) <= len("1.23456e-05")
    assert f"\nusd: {recorded!r}\n" in (tmp_path / "x.yaml").read_text()
    assert usd("http://127.0.0.1:9/v1", "replay") == recorded
