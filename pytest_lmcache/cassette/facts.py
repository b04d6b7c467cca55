"""Facts about the calls of a cassette, read without parsing its YAML: model, tokens, price, age. It is fast for thousands."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pytest_lmcache.cassette import reader
from pytest_lmcache.cassette.document import ANSWER, Entry
from pytest_lmcache.interaction import VALUES, Answer, Kind

NAMED = re.compile(rb"\A(?:\xef\xbb\xbf)?# pytest-lmcache cassette of ([^\r\n]*)")
# As `yaml_writer` and formatters write them; anything else is parsed.
CALL = re.compile(rb"^call: ([A-Za-z][\w.-]*)$", re.MULTILINE)
MODEL = re.compile(rb"^request:\n +model: ([\w./:@+-]*[A-Za-z][\w./@+-]*)$", re.MULTILINE)
STREAMED = re.compile(rb"^chunks:", re.MULTILINE)
RESPONSE = re.compile(rb"^response:\n", re.MULTILINE)
FAILED = re.compile(rb"^error:", re.MULTILINE)
HIDDEN = re.compile(rb"^hidden:\n((?: .*\n)*)", re.MULTILINE)
USAGE = re.compile(rb"^  usage:\n((?:    .*\n)+)", re.MULTILINE)
ANY_USAGE = re.compile(rb"^ +usage:|[\"']usage[\"']: *\{|[{,] *usage:", re.MULTILINE)
COUNT = re.compile(rb"^    (prompt|input|completion|output)_tokens: (.*)$", re.MULTILINE)
MOST_DIGITS = 12  # of two numbers of tokens
USD = re.compile(rb"^usd: ([0-9.e+-]+)$", re.MULTILINE)
SECONDS = re.compile(rb"^seconds: ([0-9.]+)$", re.MULTILINE)


class CallFacts(NamedTuple):
    """One interaction of a cassette.

    ``kind`` is what came back; a stream that broke off is a stream. ``tokens`` are input and output tokens. ``usd`` is
    None if the price is not known. ``recorded`` is ISO 8601, UTC. ``entry`` is its document, to be parsed.
    """

    name: str
    model: str
    kind: Kind
    tokens: tuple[int, int]
    usd: float | None
    seconds: float
    recorded: str
    entry: Entry

    @property
    def is_value(self) -> bool:
        """Whether it asks no model: what a test remembered, or a recorded function returned."""
        return self.name.startswith(VALUES)

    @property
    def is_unpriced(self) -> bool:
        """Whether it is an answer of a model whose price is not known."""
        return self.usd is None and self.kind in {Kind.RESPONSE, Kind.STREAM} and not self.is_value


@dataclass(frozen=True, slots=True)
class CassetteFacts:
    """One cassette. ``test`` is the test or fixture that its first line names, ``key`` the name of its strategy."""

    path: Path
    test: str
    format: int
    key: str
    size: int
    calls: tuple[CallFacts, ...]

    @property
    def model_calls(self) -> tuple[CallFacts, ...]:
        """The calls that ask a model."""
        return tuple(call for call in self.calls if not call.is_value)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that were asked, each once."""
        return tuple(dict.fromkeys(call.model for call in self.model_calls))

    @property
    def tokens(self) -> tuple[int, int]:
        """Input and output tokens of all calls."""
        return sum(call.tokens[0] for call in self.calls), sum(call.tokens[1] for call in self.calls)

    @property
    def usd(self) -> float:
        """What all calls cost, as far as prices are known."""
        return sum(call.usd or 0 for call in self.calls)

    @property
    def unpriced(self) -> int:
        """The number of answers whose price is not known."""
        return sum(call.is_unpriced for call in self.calls)

    @property
    def oldest(self) -> str:
        """When the oldest recording was made."""
        return min((call.recorded for call in self.calls), default="")

    @property
    def newest(self) -> str:
        """When the newest recording was made."""
        return max((call.recorded for call in self.calls), default="")


def facts_of(path: Path) -> CassetteFacts:
    """Read the facts of a cassette. Raises CassetteError if it is broken."""
    data = reader.read_bytes(path)
    if data is None:
        raise Entry("", b"", 0, 0, path).broken("there is no such file")
    version, key = reader.read_header(path, data)
    calls = tuple(map(_call_facts, reader.read_documents(path, data)))
    return CassetteFacts(path, named_owner(data), version, key, len(data), calls)


def named_owner(data: bytes) -> str:
    """The test or shared fixture that the beginning of a cassette names; empty if it names none, or several."""
    found = NAMED.match(data)
    label = found[1].decode(errors="replace").strip() if found is not None else ""
    is_named = "::" in label or " fixture " in label or label.startswith("the tests of ")
    return label if is_named else ""


def _call_facts(entry: Entry) -> CallFacts:
    entry.key = entry.key or entry.stored_key()
    answer_at = ANSWER.search(entry.data, entry.start, entry.end)
    start = entry.end if answer_at is None else answer_at.start() + 1
    question, answer = entry.data[entry.start : start], entry.data[start : entry.end]
    name, model = CALL.search(question), MODEL.search(question)
    if answer_at is None or name is None or model is None:
        call = entry.call()
        names = call.name, str(call.request.get("model") or "")
    else:
        names = name[1].decode(), model[1].decode()
    kind = (
        Kind.STREAM if STREAMED.search(answer) is not None
        else Kind.RESPONSE if RESPONSE.search(answer) is not None
        else Kind.ERROR if FAILED.search(answer) is not None
        else Kind.UNANSWERED
    )  # fmt: skip
    usd, seconds = USD.search(answer), SECONDS.search(answer)
    return CallFacts(
        *names,
        kind,
        _tokens(entry, answer, kind),
        None if usd is None else float(usd[1]),
        0.0 if seconds is None else float(seconds[1]),
        entry.recorded(),
        entry,
    )


def _tokens(entry: Entry, answer: bytes, kind: Kind) -> tuple[int, int]:
    """Those of `Answer.tokens`, without parsing if the usage is written as we write it."""
    if b"usage" not in answer or ANY_USAGE.search(answer) is None:
        return 0, 0
    hidden = HIDDEN.search(answer)
    usage = USAGE.search(hidden[1]) if hidden is not None else None
    if usage is None and (hidden is None or b"usage" not in hidden[1]):
        if kind is Kind.STREAM and (tokens := _tokens_of_chunks(answer)) is not None:
            return tokens
        if kind is Kind.RESPONSE:
            usage = USAGE.search(answer)
    counts = {each[1]: each[2] for each in COUNT.finditer(usage[1])} if usage is not None else {}
    inputs, outputs = (
        counts.get(b"prompt", counts.get(b"input", b"0")),
        counts.get(b"completion", counts.get(b"output", b"0")),
    )
    if usage is None or not (inputs + outputs).isdigit() or len(inputs + outputs) > MOST_DIGITS:
        return entry.answer().tokens
    return int(inputs), int(outputs)


def _tokens_of_chunks(answer: bytes) -> tuple[int, int] | None:
    """Those of the last chunk that has a usage; None if it has none where it should."""
    end = answer.rfind(b'"usage": {')
    start = answer.rfind(b"\n", 0, max(end, 0)) + 1
    line = answer[start : answer.find(b"\n", start)]
    if end < 0 or not line.startswith(b"- {"):
        return None
    try:
        tokens = Answer(Kind.STREAM, [json.loads(line[2:])]).tokens
    except ValueError:
        return None
    return tokens if any(tokens) else None
