"""What answers cost in USD, by LiteLLM's price map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SIGNIFICANT_DIGITS = 12  # of a price: enough for any, too few to show how floats are added


def rounded(usd: float) -> float:
    """A price as a person would write it: 7.25e-05, not 7.250000000000001e-05."""
    return float(f"{usd:.{SIGNIFICANT_DIGITS}g}")


def price(response: Any, model: str, provider: str | None) -> float | None:
    """What an answer cost, in USD; None if LiteLLM knows no price."""
    import litellm

    try:
        usd = litellm.completion_cost(completion_response=response, model=model, custom_llm_provider=provider)
    except Exception:  # noqa: BLE001 - LiteLLM raises a bare Exception for a model without a price
        return None
    return rounded(usd)


def price_of_usage(usage: dict[str, Any] | None, model: str, provider: str | None) -> float | None:
    """What the tokens of a stream cost, in USD; None if LiteLLM knows no price."""
    if not usage:
        return None
    cost: Any = usage.get("cost")
    if type(cost) in {int, float} and math.isfinite(cost) and cost > 0:
        return rounded(cost)  # of the provider, or calculated by LiteLLM
    if "input_tokens" in usage:
        return price({"model": model, "usage": usage}, model, provider)
    from litellm.types.utils import ModelResponse

    return price(ModelResponse(model=model, usage=usage), model, provider)


def saved_by_prompt_cache(cached: tuple[int, int], model: str, provider: str | None) -> float:
    """What the provider's own prompt cache saved, in USD; 0 if LiteLLM knows no prices.

    ``cached`` is the number of tokens read from it, which cost less than others, and of those written to it,
    which often cost more.
    """
    import litellm

    try:
        prices = litellm.get_model_info(model=model, custom_llm_provider=provider)
    except Exception:  # noqa: BLE001 - LiteLLM raises a bare Exception for a model that it does not know
        return 0.0
    return saved_at(prices, cached)


def saved_at(prices: Mapping[str, Any], cached: tuple[int, int]) -> float:
    """What a prompt cache saved, in USD, at the prices of one model per token; see `saved_by_prompt_cache`."""
    usual = prices.get("input_cost_per_token") or 0.0
    kinds = ("cache_read_input_token_cost", "cache_creation_input_token_cost")
    saved = (
        tokens * (usual - (usual if (cost := prices.get(kind)) is None else cost))
        for tokens, kind in zip(cached, kinds, strict=True)
    )
    return rounded(sum(saved))
