"""A call, its answer, and the two together as plain, frozen data."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple, Self

from pytest_lmcache.stream_chunks import whole

LARGEST_COUNT = 10**12  # of tokens: Python refuses to print a number of very many digits


class Kind(StrEnum):
    """What came back from a call."""

    RESPONSE = "response"
    STREAM = "stream"
    ERROR = "error"
    UNANSWERED = "unanswered"


ANSWERING_MODEL = "provider_response_model"
"""What the model that answered is called in `Answer.hidden`, if the answer itself has the one that was asked for."""

VALUES = ("remember ", "function ")
"""How the names of calls begin that ask no model: what a test remembers, and the functions that it records."""

CANCELLED = "cancelled"
"""What `Answer.ended` is if the caller cancelled the call."""


class Call(NamedTuple):
    """One call of a language model, or of a function that is recorded beside it.

    ``name`` is LiteLLM's entry point without the ``a`` of its async form, such as ``completion``, or ``dspy``; or one
    of ``VALUES`` with the name of a value or a function. ``request`` has the call's arguments as plain data,
    normalized and redacted.
    """

    name: str
    request: dict[str, Any]

    @property
    def is_value(self) -> bool:
        """Whether it asks no model, but for a value that is recorded beside the calls of models."""
        return self.name.startswith(VALUES)


class Answer(NamedTuple):
    """What came back from a call, as plain data.

    - ``data``: a response or an error as a mapping, a stream as its stored chunks (see `stream_chunks`), None for a
      call that got no answer
    - ``error``: the error that broke off a stream
    - ``complete``: False for a stream that its caller stopped reading before the end
    - ``hidden``: the part of LiteLLM's ``_hidden_params`` that is safe to store
    - ``seconds``: how long the provider took
    - ``usd``: what the call cost in USD, None if LiteLLM knows no price
    - ``pace``: the milliseconds before each chunk of a stream, empty if they are not known; the first is counted from
      when the stream was opened
    - ``ended``: what cut off a call or a stream: ``cancelled``, or the name of an exception that cannot be raised
      again
    """

    kind: Kind
    data: Any
    error: dict[str, Any] | None = None
    complete: bool = True
    hidden: dict[str, Any] | None = None
    seconds: float = 0.0
    usd: float | None = None
    ended: str | None = None
    pace: tuple[int, ...] = ()

    @property
    def is_answered(self) -> bool:
        """Whether the provider answered without an error."""
        return self.kind in {Kind.RESPONSE, Kind.STREAM} and self.error is None and self.ended is None

    @property
    def hidden_model(self) -> str:
        """The name of the model that answered, if the answer itself has the name that was asked for; else empty."""
        name = (self.hidden or {}).get(ANSWERING_MODEL)
        return name if isinstance(name, str) else ""

    @property
    def usage(self) -> dict[str, Any]:
        """The token usage as the provider gave it, empty if it gave none."""
        usage: Any = (self.hidden or {}).get("usage")
        if usage is None and self.kind is Kind.RESPONSE:
            usage = self.data.get("usage")
        elif usage is None and self.kind is Kind.STREAM:
            chunks = (chunk for chunk in reversed(self.data) if isinstance(chunk, dict))
            usage = next((found for chunk in chunks if (found := _usage(chunk))), None)
        return usage if isinstance(usage, dict) else {}

    @property
    def tokens(self) -> tuple[int, int]:
        """Input and output tokens as the provider counted them, zeros if it did not."""
        usage = self.usage
        inputs = usage.get("prompt_tokens", usage.get("input_tokens"))
        outputs = usage.get("completion_tokens", usage.get("output_tokens"))
        return (_count(inputs), _count(outputs))

    @property
    def cached(self) -> tuple[int, int]:
        """Input tokens that the provider read from its own prompt cache, and those that it wrote there.

        From Anthropic's fields, from OpenAI's details of the input, which LiteLLM has for other providers too, and
        from DSPy's fields.
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
    """A provider's number of tokens; 0 if the value is not a number."""
    return int(tokens) if isinstance(tokens, int | float) and abs(tokens) < LARGEST_COUNT else 0


def copied(value: Any) -> Any:
    """A copy of plain data that shares no mapping and no list with the original."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value
