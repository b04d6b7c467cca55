"""Asks an embedding model to compare texts. The call belongs to no test and is not recorded."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_lmcache.libraries.litellm.callbacks import inside


def vectors(model: str, texts: Sequence[str]) -> list[list[float]]:
    """Return a vector for each text. Raises what LiteLLM raises."""
    import litellm

    token = inside.set(True)
    try:
        response = litellm.embedding(model=model, input=[*texts], encoding_format="float")
    finally:
        inside.reset(token)
    return [item["embedding"] for item in sorted(response.data, key=lambda item: int(item["index"]))]
