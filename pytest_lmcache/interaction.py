"""What travels through the engine: a call, its answer, and the two together; frozen, plain data."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple, Self

from pytest_lmcache.stream_chunks import whole

LARGEST_COUNT = 10**12  # of tokens; a number of hundreds of digits cannot even be printed


class Kind(StrEnum):
    """What came back from a call."""

    RESPONSE = "response"
    STREAM = "stream"
    ERROR = "error"
    UNANSWERED = "unanswered"


CANCELLED = "cancelled"
"""What a call ended with whose caller cancelled it."""


class Call(NamedTuple):
    """One question to a language model.

    ``name`` is LiteLLM's entry point without the ``a`` of its async form, such as ``completion``;
    ``request`` is the normalized, redacted request: str keys and plain values only.
    """

    name: str
    request: dict[str, Any]


class Answer(NamedTuple):
    """What a call got, as plain data.

    ``data`` is a response as a mapping, a stream as its stored chunks (see `stream_chunks`), an error as a mapping,
    or None for a call that got no answer. ``error`` is the error that ended a stream in its middle. ``complete`` is False for a
    stream that its caller left before the end. ``ended`` says what cut off a call, or a stream, that has no end
    of its own: ``cancelled``, or the name of an exception that cannot be raised again. ``hidden`` holds the safe
    part of LiteLLM's ``_hidden_params``. ``seconds`` is how long the provider took, ``usd`` what it charged
    (None: LiteLLM knows no price).
    """

    kind: Kind
    data: Any
    error: dict[str, Any] | None = None
    complete: bool = True
    hidden: dict[str, Any] | None = None
    seconds: float = 0.0
    usd: float | None = None
    ended: str | None = None

    @property
    def is_answered(self) -> bool:
        """Whether the provider answered: neither an error nor nothing at all."""
        return self.kind in {Kind.RESPONSE, Kind.STREAM} and self.error is None and self.ended is None

    @property
    def usage(self) -> dict[str, Any]:
        """The token usage as the provider gave it, empty where it gave none."""
        usage: Any = (self.hidden or {}).get("usage")
        if usage is None and self.kind is Kind.RESPONSE:
            usage = self.data.get("usage")
        elif usage is None and self.kind is Kind.STREAM:
            chunks = (chunk for chunk in reversed(self.data) if isinstance(chunk, dict))
            usage = next((found for chunk in chunks if (found := _usage(chunk))), None)
        return usage if isinstance(usage, dict) else {}

    @property
    def tokens(self) -> tuple[int, int]:
        """Input and output tokens, as the provider counted them; zeros where it did not."""
        usage = self.usage
        asked = usage.get("prompt_tokens", usage.get("input_tokens"))
        said = usage.get("completion_tokens", usage.get("output_tokens"))
        return (_count(asked), _count(said))

    @property
    def cached(self) -> tuple[int, int]:
        """Input tokens that the provider read from its own prompt cache, and that it wrote there.

        Anthropic's fields, OpenAI's details of the input, which LiteLLM fills for others too, and DSPy's own.
        """
        usage = self.usage
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        details = details if isinstance(details, dict) else {}
        read = usage.get("cache_read_input_tokens") or usage.get("cache_read_tokens")
        written = usage.get("cache_creation_input_tokens") or usage.get("cache_write_tokens")
        written = written or details.get("cache_write_tokens") or details.get("cache_creation_tokens")
        return (_count(read or details.get("cached_tokens")), _count(written))

    def with_whole_chunks(self) -> Self:
        """The same answer, with every chunk of a stream as a mapping. Raises ValueError for broken chunks."""
        return self._replace(data=[*whole(self.data)]) if self.kind is Kind.STREAM else self


class Interaction(NamedTuple):
    """A call, its key, its answer, and when it was recorded (ISO 8601, UTC)."""

    key: str
    call: Call
    answer: Answer
    recorded: str


def _usage(chunk: dict[str, Any]) -> Any:
    response = chunk.get("response")
    return response.get("usage") if isinstance(response, dict) else chunk.get("usage")


def _count(tokens: Any) -> int:
    """A count that a provider gave; what can be none counts as nothing."""
    return int(tokens) if isinstance(tokens, int | float) and abs(tokens) < LARGEST_COUNT else 0


def copied(value: Any) -> Any:
    """Plain data that shares no mapping and no list with the original."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value
