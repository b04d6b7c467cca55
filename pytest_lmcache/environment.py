"""The environment variables of providers and of LiteLLM, and their values while calls are replayed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

DUMMY_KEY = "lmcache-dummy-key"
"""The value that SDKs which insist on a key get on replay; it is no secret."""

# The keys that providers' SDKs, and the frameworks on LiteLLM, insist on although replay sends nothing.
PROVIDER_KEYS = tuple(
    f"{name}_API_KEY"
    for name in (
        "ANTHROPIC AZURE COHERE DEEPSEEK GEMINI GOOGLE GROQ MISTRAL OPENAI OPENROUTER TOGETHERAI VOYAGE XAI"
    ).split()
)
# Those, and others that a child process must not have on replay, since this package may not see its calls.
ALL_PROVIDER_KEYS = frozenset(PROVIDER_KEYS) | {
    f"{name}_API_KEY"
    for name in (
        "AI21 AZURE_AI AZURE_OPENAI CEREBRAS CO DASHSCOPE DATABRICKS DEEPINFRA FIREWORKS FIREWORKS_AI HUGGINGFACE "
        "JINA_AI MOONSHOT NVIDIA_NIM PERPLEXITY PERPLEXITYAI REPLICATE SAMBANOVA TOGETHER WATSONX ZAI"
    ).split()
}

PARENT_VARIABLE = "PYTEST_LMCACHE_PARENT"  # which test a child process belongs to; the .pth file reads it too
LOCAL_PRICES = "LITELLM_LOCAL_MODEL_COST_MAP"
RUST_CLIENT = "LITELLM_RUST"


def prefer_local_prices() -> None:
    """Have LiteLLM read the prices that it ships with, instead of fetching a list while it is imported."""
    os.environ.setdefault(LOCAL_PRICES, "True")


def replace_keys() -> None:
    """Replace the providers' keys of this process by the dummy key, for good."""
    os.environ.update(dict.fromkeys(ALL_PROVIDER_KEYS.intersection(os.environ), DUMMY_KEY))


@contextmanager
def without_rust_client() -> Iterator[None]:
    """Switch off LiteLLM's Rust client, which bypasses the Python functions that are intercepted."""
    before = os.environ.get(RUST_CLIENT)
    os.environ[RUST_CLIENT] = "0"
    try:
        yield
    finally:
        os.environ.pop(RUST_CLIENT, None)
        if before is not None:
            os.environ[RUST_CLIENT] = before


class DummyKeys:
    """Dummy keys in the place of those that are missing."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def add(self) -> None:
        """Set each key that is missing."""
        missing = [name for name in PROVIDER_KEYS if name not in os.environ]
        os.environ.update(dict.fromkeys(missing, DUMMY_KEY))
        self._names.update(missing)

    def remove(self) -> None:
        """Remove the dummy keys, but no key that has been set since."""
        for name in self._names:
            if os.environ.get(name) == DUMMY_KEY:
                del os.environ[name]
        self._names.clear()
