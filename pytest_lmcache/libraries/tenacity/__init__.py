"""Tenacity, by which LiteLLM and its users retry calls."""
