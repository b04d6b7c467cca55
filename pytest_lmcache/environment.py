"""Which environment variables hold the keys of providers, and what stands in their place while nothing is asked."""

from __future__ import annotations

DUMMY_KEY = "lmcache-dummy-key"
"""What SDKs that insist on a key are given on replay; never learnt or looked for."""

# Keys that providers' SDKs and the frameworks on LiteLLM insist on, though nothing is sent on replay.
PROVIDER_KEYS = (
    "ANTHROPIC_API_KEY",
    "AZURE_API_KEY",
    "COHERE_API_KEY",
    "DEEPSEEK_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "GROQ_API_KEY",
    "MISTRAL_API_KEY",
    "OPENAI_API_KEY",
    "OPENROUTER_API_KEY",
    "TOGETHERAI_API_KEY",
    "VOYAGE_API_KEY",
    "XAI_API_KEY",
)
# Those, and others that a process which this package cannot see is not to have on replay.
ALL_PROVIDER_KEYS = frozenset(PROVIDER_KEYS) | {
    f"{name}_API_KEY"
    for name in (
        *("AI21", "AZURE_AI", "AZURE_OPENAI", "CEREBRAS", "CO", "DASHSCOPE", "DATABRICKS", "DEEPINFRA"),
        *("FIREWORKS", "FIREWORKS_AI", "HUGGINGFACE", "JINA_AI", "MOONSHOT", "NVIDIA_NIM", "PERPLEXITY"),
        *("PERPLEXITYAI", "REPLICATE", "SAMBANOVA", "TOGETHER", "WATSONX", "ZAI"),
    )
}
