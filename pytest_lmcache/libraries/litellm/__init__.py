"""LiteLLM: interception, and its own responses, streams and exceptions as plain data."""
