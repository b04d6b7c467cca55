"""Processes that tests start: their language-model calls are answered by the process of the test."""
