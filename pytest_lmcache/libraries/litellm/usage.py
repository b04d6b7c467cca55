"""The token usage of LiteLLM's answers: found in a stream, set to zero, priced in USD by LiteLLM's price map."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.libraries.litellm.answers import hidden_params
from pytest_lmcache.libraries.litellm.chunks import bytes_from_plain, bytes_to_plain
from pytest_lmcache.libraries.plain_data import to_plain
from pytest_lmcache.stream_chunks import Chunk, pack, whole

NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

SIGNIFICANT_DIGITS = 12  # of a price: enough for any, too few to show how floats are added


def hidden_usage(chunk: Any) -> dict[str, Any] | None:
    """The usage that LiteLLM hides in a stream's last chunk if its caller did not ask for it."""
    hidden = hidden_params(chunk)
    usage = hidden.get("usage") if isinstance(hidden, dict) else None
    return None if usage is None else to_plain(usage.model_dump(exclude_none=True, warnings=False))


def usage_in_events(chunks: list[Chunk]) -> dict[str, Any] | None:
    """The usage in the server-sent events of Anthropic's API: the first has the input, the last the output."""
    usage: dict[str, Any] = {}
    for line in "".join(chunk.get("bytes", "") for chunk in chunks if isinstance(chunk, dict)).splitlines():
        if line.startswith("data:") and '"usage"' in line:
            try:
                event = json.loads(line.removeprefix("data:"))
            except ValueError:
                continue  # no event of the API's
            found = event.get("usage") or event.get("message", {}).get("usage") or {}
            usage.update({name: value for name, value in found.items() if isinstance(value, int)})
    return usage or None


def without_usage(answer: Answer) -> Answer:
    """The same answer with zero tokens and a price of 0 USD."""
    data, hidden = answer.data, _zeroed(answer.hidden or {})
    if answer.kind is Kind.RESPONSE:
        data = _zeroed(data)
    elif answer.kind is Kind.STREAM:
        # LiteLLM counts the tokens itself if no chunk has a usage.
        data, hidden = _zeroed_chunks(data), {"usage": NO_USAGE, **hidden}
    return answer._replace(data=data, hidden=hidden, usd=0.0)


def _zeroed(data: dict[str, Any]) -> dict[str, Any]:
    """A response, a chunk or an event with zero tokens: elsewhere ``usage`` may be a word of the model's."""
    zeroed: dict[str, Any] = {"usage": _zeros(data["usage"])} if "usage" in data else {}
    # An event of responses() has a response, an event of Anthropic's a message.
    for name in ("response", "message"):
        inner = data.get(name)
        if isinstance(inner, dict) and "usage" in inner:
            zeroed[name] = {**inner, "usage": _zeros(inner["usage"])}
    return {**data, **zeroed}


def _zeroed_chunks(stored: list[Chunk]) -> list[Chunk]:
    chunks = [*whole(stored)]
    if not all("bytes" in chunk or "raw" in chunk for chunk in chunks):
        return pack(map(_zeroed_chunk, chunks))
    # A chunk may end within an event, or within a character: each event becomes a chunk.
    wire = b"".join(map(bytes_from_plain, chunks)).decode(errors="surrogateescape")
    events = re.split(r"(?<=\n\n)", _zeroed_lines(wire))
    return [bytes_to_plain(event.encode(errors="surrogateescape")) for event in events if event]


def _zeroed_chunk(chunk: dict[str, Any]) -> dict[str, Any]:
    if chunk.keys() == {"event"}:
        return {"event": _zeroed(chunk["event"])}
    return {"text": _zeroed_lines(chunk["text"])} if chunk.keys() == {"text"} else _zeroed(chunk)


def _zeroed_lines(events: str) -> str:
    return re.sub(r'^data:(.*"usage".*)$', _zeroed_line, events, flags=re.MULTILINE)


def _zeroed_line(line: re.Match[str]) -> str:
    try:
        event = json.loads(line[1])
    except ValueError:
        return line[0]  # no event of the API's
    zeroed = _zeroed(event) if isinstance(event, dict) else event
    return line[0] if zeroed == event else f"data: {json.dumps(zeroed)}"


def _zeros(usage: Any) -> Any:
    if isinstance(usage, dict):
        return {name: _zeros(value) for name, value in usage.items()}
    if isinstance(usage, list):
        return [_zeros(item) for item in usage]
    return type(usage)(0) if type(usage) in {int, float} else usage


# ---------------------------------------------------------------- prices


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
