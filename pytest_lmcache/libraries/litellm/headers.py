"""Which of a provider's response headers are recorded.

Most change with every call (dates, request and trace ids, rate limits left), or belong to an account (cookies,
organization), so none is recorded unless it is named here or in the setting ``keep_headers``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

PREFIX = "llm_provider-"  # of LiteLLM's, before the names of headers that are not OpenAI's
ALWAYS_KEPT = ("retry-after", "retry-after-ms")  # retries wait for as long
# Not even if the setting is "*".
NEVER_KEPT = ("*cookie*", "*authoriz*", "*authenticat*", "*api-key*", "*apikey*", "*secret*", "*-token")


def kept_headers(headers: Any, keep: Sequence[str]) -> dict[str, Any]:
    """The headers to record, with their names as they are.

    ``keep`` has names, or patterns such as ``x-ratelimit-*``. Case and LiteLLM's prefix make no difference.
    """
    patterns = [_bare(pattern) for pattern in (*ALWAYS_KEPT, *keep)]
    return {
        name: value
        for name, value in dict(headers or {}).items()
        if isinstance(value, str | list) and _matches(name, patterns) and not _matches(name, NEVER_KEPT)
    }


def without_prefix(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers by the provider's own names, in lower case."""
    return {_bare(name): value for name, value in headers.items()}


def _bare(name: str) -> str:
    return name.lower().removeprefix(PREFIX)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(_bare(name), pattern) for pattern in patterns)
