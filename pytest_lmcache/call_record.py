"""The calls of a test, as it sees them: `lm_cache.calls`, `.usage` and the like."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.conversation import Conversation, Message, ToolCall, conversation
from pytest_lmcache.errors import StagedAnswerError, shorten
from pytest_lmcache.interaction import VALUES, Answer, Call, Interaction, copied
from pytest_lmcache.locks import NO_LOCK, Lock
from pytest_lmcache.not_recorded import NotRecorded, Reason
from pytest_lmcache.wording import counted

if TYPE_CHECKING:
    from pytest_lmcache.staged_answers import AnswerBuilder, Cut, Rule
    from pytest_lmcache.staged_delay import Delay

# What a call's record says of its answer.
OF_ANSWER = (
    *("entry", "interaction", "source", "seconds", "tokens", "cached", "cached_usd", "usd", "is_answered"),
    *("is_cached", "replaces", "asked_by", "asked_at", "asked_twice", "left_early"),
)
SYSTEM_ROLES = frozenset({"system", "developer"})
UNIT = "\x1f"  # ASCII's unit separator, which no prompt holds


class CallNumbers:
    """Counts identical calls: which of several calls with the same key comes next, from 0."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        self._free: dict[str, list[int]] = {}

    def take(self, key: str) -> int:
        """Return the number of the next call; numbers that were given back come first, the lowest of them first."""
        if free := self._free.get(key):
            return heappop(free)
        self._taken[key] += 1
        return self._taken[key] - 1

    def give_back(self, key: str, number: int) -> None:
        """Let the next call have a number."""
        heappush(self._free.setdefault(key, []), number)


class OpenStream(Protocol):
    """A stream that is still being recorded."""

    def left(self) -> None:
        """End the recording: the stream is read no further."""


class Staged(Protocol):
    """The faults and replies that a test has set up; see `StagedCalls`."""

    def add(self, rule: Rule) -> None:
        """Set up a fault or a reply."""

    def begin(
        self,
        order: int,
        call: Call,
        builder: AnswerBuilder,
        *,
        fast_path: bool = False,
        address: str = "",
    ) -> tuple[CallRecord, Answer | None]:
        """Begin a call in the place of the recorder."""

    def cut_recorded(self, record: CallRecord, call: Call, builder: AnswerBuilder) -> Answer | None:
        """Cut the stream that the provider gave just now."""

    def close(self) -> None:
        """End."""

    def unmet(self) -> StagedAnswerError | None:
        """The error for a fault or a reply that no call got."""


class Failure(NamedTuple):
    """Why a call got no answer, and the recording of that, if there is a cassette.

    ``at`` is when it failed: the number of a call that had started then. ``replays`` says whether replay can
    repeat it.
    """

    why: NotRecorded
    entry: Entry | None
    at: int
    replays: bool


@dataclass(slots=True, eq=False, repr=False)
class CallRecord:
    """One call of a test, as ``lm_cache.calls`` shows it.

    - ``name``: the entry point, such as ``completion``, without the ``a`` of its async form
    - ``model``: the model that the call names
    - ``source``: where the answer came from: ``cassette``, ``memory``, ``disk``, ``redis``, ``cache`` (the
      user's own), ``provider``, ``fault`` or ``reply`` (of the test), or empty for a miss
    - ``key``, ``nth``: the call's key, and which of the key's answers it got, from 0
    - ``seconds``: how long the provider took, now or when the answer was recorded
    - ``tokens``: input and output tokens, as the provider counted them
    - ``cached``: input tokens that the provider read from its prompt cache, and that it wrote to it
    - ``usd``: the price in USD, None if LiteLLM knows none
    - ``is_old``: whether the recording is older than ``max_age``
    - ``is_asked_again``: whether mode verify asks the provider too, to compare the answers
    """

    order: int
    name: str
    key: str
    nth: int
    source: str = ""
    seconds: float = 0.0
    model: str = ""
    tokens: tuple[int, int] = (0, 0)
    cached: tuple[int, int] = (0, 0)
    cached_usd: float = 0.0
    is_cached: bool = False
    usd: float | None = None
    left_early: bool = False
    replaces: bool = False
    may_be_asked_twice: bool = False
    asked_twice: bool = False
    lock: Lock = NO_LOCK
    is_old: bool = False
    is_asked_again: bool = False
    started: float = 0.0
    streamed: bool = False
    custom_key: str | None = None
    owner: str = ""
    nth_in_layers: int = 0
    asked_by: str = ""
    asked_at: str = ""
    entry: Entry | None = None
    interaction: Interaction | None = None
    live_request: dict[str, Any] = field(default_factory=dict)
    open_stream: OpenStream | None = None
    is_answered: bool = False
    failure: Failure | None = None
    delay: Delay | None = None
    cut: Cut | None = None

    def cache_key(self, nth: int | None = None) -> str:
        """Return the key of this answer in the cache, or of the n-th one (from 0) to an identical call.

        If the cache has a ``cache_key`` of its own, the key begins with its result; what tells kinds of calls,
        owners and numbers apart follows.
        """
        nth = self.nth_in_layers if nth is None else nth
        number = f"#{nth + 1}" if nth else ""
        if self.custom_key is None:
            return f"{self.key}{self.owner}{number}"
        kind = f"{self.name} stream" if self.streamed else self.name
        is_bare = kind == "completion" and UNIT not in self.custom_key
        return UNIT.join((self.custom_key, *filter(None, ("" if is_bare else kind, self.owner, number))))

    def copy_usage(self, answer: Answer) -> None:
        """Copy the tokens and the price of an answer."""
        self.tokens, self.cached, self.usd = answer.tokens, answer.cached, answer.usd
        self.is_answered = answer.is_answered

    @property
    def request(self) -> dict[str, Any]:
        """The request as it is recorded, normalized and without secrets; empty for a miss."""
        if self.interaction is not None:
            return self.interaction.call.request
        return self.entry.call().request if self.entry is not None else self.live_request

    @property
    def answer(self) -> Answer | None:
        """The answer as plain data, None for a miss. Raises CassetteError if the recording is broken."""
        if self.interaction is not None:
            return self.interaction.answer.with_whole_chunks()
        return self.entry.answer().with_whole_chunks() if self.entry is not None else None

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the model was sent, the system prompt first; in the same form for every entry point."""
        return self._conversation.asked

    @property
    def system(self) -> str:
        """The text of the system prompt; several system messages are joined by empty lines."""
        return "\n\n".join(each.text for each in self.messages if each.role in SYSTEM_ROLES)

    @property
    def prompt_text(self) -> str:
        """Everything that the model was sent, as text: each message under its role, such as ``[user]``."""
        return "\n\n".join(map(_as_text, self.messages))

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """The tools that the model may call, as the request has them."""
        return self._conversation.tools

    @property
    def parameters(self) -> dict[str, Any]:
        """The other arguments of the call, such as ``temperature`` or ``response_format``."""
        return self._conversation.parameters

    @property
    def text(self) -> str:
        """The text of the answer, of its first choice if there are several; empty if there is none."""
        return "".join(each.text for each in self._conversation.answered[:1])

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that the answer calls, in its first choice; ``arguments`` is the parsed JSON."""
        return next((each.tool_calls for each in self._conversation.answered), ())

    @property
    def usage(self) -> dict[str, Any]:
        """The token usage as the provider gave it; empty if it gave none."""
        return answer.usage if (answer := self.answer) is not None else {}

    @property
    def _conversation(self) -> Conversation:
        return conversation(Call(self.name, self.request), self.answer)

    def __repr__(self) -> str:
        request = self.request
        what = described(request) if request else f"model {self.model}"
        came_from = f"from {self.source}" if self.source else "missed"
        if self.is_value:
            return f"<{self.name} {came_from}: {_values(request)}>"
        return f"<{self.name}() {came_from}: {what}>"

    @property
    def is_value(self) -> bool:
        """Whether it is no model's call, but a value that the test remembers or that a recorded function returned."""
        return self.name.startswith(VALUES)

    @property
    def is_new(self) -> bool:
        """Whether the answer is new: it is written to the cassette if the test passes."""
        return self.source != "cassette" and self.entry is not None


def _as_text(message: Message) -> str:
    """A message under its role: its text, the names of its attachments, and the tools that it calls."""
    lines = [message.text] if message.text else []
    lines += [f"<{each.kind}: {each.name}>" for each in message.attachments]
    lines += [f"{each.name}({_arguments(each.arguments)})" for each in message.tool_calls]
    return "\n".join([f"[{message.role}]", *lines])


def _arguments(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def question(call: Call) -> str:
    """Describe a call in one line: what is called, and with what."""
    kind, _, name = call.name.partition(" ")
    if not call.is_value:
        return f"{call.name}(): {described(call.request)}"
    return f"remember({name!r})" if kind == "remember" else f"function {name}({_values(call.request)})"


def _values(request: Mapping[str, Any]) -> str:
    return shorten(", ".join(f"{name}={shorten(repr(value), 60)}" for name, value in request.items()))


def described(request: Mapping[str, Any]) -> str:
    """Describe a request in one line."""
    text = [f"model {request.get('model', '?')}"]
    if request.get("stream"):
        text.append("streamed")
    for name in ("messages", "input", "prompt"):
        value = request.get(name)
        if isinstance(value, list):
            text.append(counted(len(value), name.rstrip("s")))
        if value:
            last = value[-1] if isinstance(value, list) else value
            text.append(shorten(_text_of(last.get("content") if isinstance(last, dict) else last), 60))
    return ", ".join(text)


def _text_of(content: Any) -> str:
    """The text of a message's content; a part without text is named by its type."""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content if isinstance(content, str) else str(content)
    texts = (part.get("text") or f"({part.get('type', 'content')})" for part in content)
    return " ".join(map(str, texts))


class CallLog:
    """The calls of one test or block, as the fixture ``lm_cache`` and ``use_cassette`` show them."""

    def __init__(self) -> None:
        self._calls: list[CallRecord] = []
        self._order = count()
        self._lock = threading.RLock()
        self._numbers = CallNumbers()
        self._unanswered: dict[CallRecord, Call] = {}
        self.faults: list[BaseException] = []
        self.staged: Staged | None = None  # the faults and replies that the test has set up
        self.past_calls: Counter[str] = (
            Counter()
        )  # by other packages than LiteLLM and DSPy, which nothing records

    def number(self) -> int:
        """Return the place of a call that starts now among all calls of the test."""
        return next(self._order)

    def check_staged(self) -> StagedAnswerError | None:
        """Return the error for faults and replies that no call got, and add it to ``faults``."""
        unmet = self.staged.unmet() if self.staged is not None and not self.faults else None
        if unmet is not None:
            self.faults.append(unmet)
        return unmet

    def add(self, record: CallRecord) -> None:
        """Add a call that began elsewhere."""
        self._calls.append(record)

    def take_over(self, record: CallRecord, other: CallRecord) -> None:
        """Give a call, which is to be asked, the new answer of an identical call that is not among the calls."""
        self._unanswered.pop(record, None)
        for name in OF_ANSWER:
            setattr(record, name, getattr(other, name))

    def earlier_answer(self, record: CallRecord, call: Call) -> Answer | None:
        """Return the new answer to an earlier identical call with the same number, None if there is none."""
        same = (record.key, record.nth)
        earlier = (each for each in self._calls if (each.key, each.nth) == same and each is not record)
        found = next((each for each in earlier if each.is_answered), None)
        if found is None:
            return None
        answer: Answer | None = found.entry.answer() if found.entry is not None else None
        if found.interaction is not None:
            answer = found.interaction.answer
        if answer is None:
            return None
        record.source, record.seconds = "cassette", answer.seconds
        record.interaction = Interaction(record.key, call, answer, "")
        record.copy_usage(answer)
        return answer._replace(data=copied(answer.data))

    def give_back(self, record: CallRecord) -> None:
        """Let the next identical call have the number of a call."""
        with self._lock:
            self._numbers.give_back(record.key, record.nth)

    @property
    def everything(self) -> Sequence[CallRecord]:
        """The calls and the values so far, in the order in which they started."""
        return sorted(self._calls, key=lambda record: record.order)

    @property
    def calls(self) -> Sequence[CallRecord]:
        """The calls of models so far, in the order in which they started."""
        return [record for record in self.everything if not record.is_value]

    @property
    def values(self) -> Sequence[CallRecord]:
        """The remembered values and the results of recorded functions so far, in the order in which they started."""
        return [record for record in self.everything if record.is_value]

    @property
    def replayed(self) -> int:
        """The number of calls of models that the cassette answered."""
        return sum(record.source == "cassette" for record in self._calls if not record.is_value)

    @property
    def recorded(self) -> int:
        """The number of models' new answers, which are written to the cassette if the test passes."""
        return sum(record.is_new for record in self._calls if not record.is_value)

    @property
    def has_new(self) -> bool:
        """Whether any answer or value is new."""
        return any(record.is_new for record in self._calls)

    @property
    def old(self) -> int:
        """How many replayed recordings are older than ``max_age``."""
        return sum(record.is_old for record in self._calls)

    @property
    def usage(self) -> dict[str, int]:
        """The tokens of all calls so far, as the provider counted them.

        A mapping with ``prompt_tokens``, ``completion_tokens`` and ``total_tokens``.
        """
        prompt, completion = (sum(record.tokens[at] for record in self._calls) for at in (0, 1))
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    @property
    def not_recorded(self) -> list[NotRecorded]:
        """The calls so far that are not recorded, or cannot be replayed, each with the reason."""
        return [
            failure.why if record.entry is None else failure.why._replace(reason=Reason.NO_ANSWER)
            for record in self.everything
            if (failure := record.failure) is not None and (record.entry is None or not failure.replays)
        ]
