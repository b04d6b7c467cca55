"""The faults and replies that a test sets up: what each one does, and which calls get it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol, TypeAlias

from pytest_lmcache.conversation import ToolCall
from pytest_lmcache.errors import SettingsError, shorten
from pytest_lmcache.interaction import Answer, Call

Source: TypeAlias = Literal["fault", "reply"]
FAULT: Source = "fault"
REPLY: Source = "reply"
STAGED = frozenset({FAULT, REPLY})
"""The sources of calls that a test has answered by itself."""

Condition: TypeAlias = Callable[[dict[str, Any]], bool]
Usage: TypeAlias = Mapping[str, int]


# ---------------------------------------------------------------- what happens to a call


@dataclass(frozen=True, slots=True)
class Fail:
    """The call raises an error: an exception, or a class from which the provider's error is built.

    ``retry_after`` is in seconds, and becomes a response header.
    """

    error: BaseException | type[BaseException]
    message: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that the test gives in place of the provider.

    - ``text``: the text, or its pieces, which a streamed call gets one by one
    - ``tool_calls``: the tools to call; arguments that are a text are given as they are
    - ``reasoning``: the reasoning before the text
    - ``embedding``: a vector for each input, or one vector for all of them
    - ``finish_reason``: OpenAI's word for why the answer ends; ``stop`` or ``tool_calls`` if None
    - ``usage``: ``prompt_tokens`` and ``completion_tokens``; zeros if None
    """

    text: str | Sequence[str] = ""
    tool_calls: Sequence[ToolCall] = ()
    reasoning: str | None = None
    embedding: Sequence[float] | Sequence[Sequence[float]] | None = None
    finish_reason: str | None = None
    usage: Usage | None = None

    @property
    def pieces(self) -> list[str]:
        """The text in the pieces in which it is streamed."""
        return [self.text] if isinstance(self.text, str) else [*self.text]

    @property
    def whole_text(self) -> str:
        """The text in one piece."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Malformed:
    """The call gets a tool call whose arguments are not JSON; ``name`` None: of the first tool that the request offers."""

    name: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class Cut:
    """The recorded stream ends after some chunks, with an error unless ``error`` is None."""

    after: int
    error: BaseException | type[BaseException] | None


@dataclass(frozen=True, slots=True)
class Slow:
    """The call takes some seconds longer, by the real clock or by the clock that the code under test sees."""

    seconds: float
    waits: bool


Answering: TypeAlias = Fail | Reply | Malformed | Callable[[dict[str, Any]], Any]
Outcome: TypeAlias = Answering | Cut | Slow


class AnswerBuilder(Protocol):
    """Builds the library's own objects for one call."""

    timeout: float | None
    """The seconds after which the call gives up, None if that is not known."""

    def error(self, fault: Fail) -> Answer:
        """The answer that raises an error. Raises SettingsError for a class that cannot be built."""

    def timed_out(self) -> Answer:
        """The answer that raises the library's error for a call that took too long."""

    def reply(self, reply: Reply, number: int) -> Answer:
        """The answer that the test gives, ``number`` of its replies. Raises SettingsError if the call cannot get it."""

    def cut(self, stream: Answer, cut: Cut) -> Answer:
        """A recorded stream that breaks."""


def reply_of(given: Any, shown: str) -> Reply | Fail:
    """A reply as the test gives it: a text, its pieces, data that becomes JSON, a `Reply`, or an error.

    ``shown`` names the method in an error. Raises SettingsError for anything else.
    """
    is_error_class = isinstance(given, type) and issubclass(given, BaseException)
    items = [*given] if isinstance(given, list | tuple) else [given]
    if isinstance(given, Reply | Fail):
        return given
    if isinstance(given, BaseException) or is_error_class:
        return Fail(given)
    if isinstance(given, Mapping) or hasattr(given, "model_dump_json"):
        return Reply(json.dumps(dict(given)) if isinstance(given, Mapping) else given.model_dump_json())
    if items and all(isinstance(item, ToolCall) for item in items):
        return Reply(tool_calls=items)
    if items and all(isinstance(item, str) for item in items):
        return Reply(given)
    raise SettingsError(
        f"lm_cache.{shown} takes a text, a list of texts (the pieces of a stream), a mapping or a pydantic model "
        f"(which becomes JSON), ToolCall, Reply, an error, or a function of the request; not {shorten(given)}."
    )


# ---------------------------------------------------------------- which call it happens to


@dataclass(frozen=True, slots=True)
class Choice:
    """Which calls get a fault or a reply.

    - ``model``: a model, or a pattern such as ``openai/*``; the provider before the slash may be left out
    - ``call``: the numbers, from 1, of those calls that ``model`` and ``when`` choose; None for all
    - ``when``: a function of the request
    - ``times``: how many of these calls it is for, None for any number
    - ``optional``: whether it is no error if no call meets it
    """

    model: str | None = None
    call: int | Collection[int] | None = None
    when: Condition | None = None
    times: int | None = None
    optional: bool = False

    def chooses(self, call: Call) -> bool:
        """Whether the model and the request of a call match."""
        model = str(call.request.get("model", ""))
        if self.model is not None and not (
            fnmatchcase(model, self.model) or fnmatchcase(model.partition("/")[2], self.model)
        ):
            return False
        return self.when is None or bool(self.when(call.request))

    @property
    def numbers(self) -> frozenset[int] | None:
        """The numbers of the calls, None for all."""
        if self.call is None:
            return None
        return frozenset([self.call] if isinstance(self.call, int) else self.call)


@dataclass(slots=True, eq=False)
class Rule:
    """A fault or a reply, with the calls that it is for. ``shown`` is how the test has set it up.

    ``outcomes`` are for one call after the other; if there is one only, it is for each call.
    """

    shown: str
    source: Source
    outcomes: Sequence[Outcome]
    choice: Choice
    seen: int = 0
    met: int = 0

    def __post_init__(self) -> None:
        numbers, times = self.choice.numbers, self.choice.times
        if numbers is not None and (not numbers or min(numbers) < 1):
            raise SettingsError(f"{self.shown}: call counts from 1, so it cannot be {self.choice.call!r}.")
        if times is not None and times < 1:
            raise SettingsError(f"{self.shown}: times is 1 or more, or None for any number of calls.")
        if numbers is not None and times is not None:
            raise SettingsError(f"{self.shown}: give the numbers of the calls or how many times, not both.")

    @property
    def wanted(self) -> int | None:
        """How many calls get it, None for any number."""
        if self.choice.numbers is not None:
            return len(self.choice.numbers)
        return len(self.outcomes) if len(self.outcomes) > 1 else self.choice.times

    def is_for(self, call: Call) -> bool:
        """Whether the rule is for a call, which is counted."""
        if not (_can_happen(self.outcomes[0], call) and self.choice.chooses(call)):
            return False
        self.seen += 1
        numbers = self.choice.numbers
        return self.met != self.wanted and (numbers is None or self.seen in numbers)

    def meet(self) -> Outcome:
        """What happens to the next call that the rule is for, which counts as met."""
        self.met += 1
        return self.outcomes[(self.met - 1) % len(self.outcomes)]

    @property
    def unmet(self) -> str:
        """Say which calls were not made; empty if all were."""
        wanted = self.wanted
        if self.choice.optional or self.met == wanted or (wanted is None and self.met):
            return ""
        if not self.met:
            return f"{self.shown} met no call."
        return f"{self.shown} met {self.met} of {wanted} calls."


def _can_happen(outcome: Outcome, call: Call) -> bool:
    if isinstance(outcome, Cut):
        return bool(call.request.get("stream"))
    if isinstance(outcome, Malformed) and outcome.name is None:
        return bool(call.request.get("tools"))
    return True


class Rules:
    """The rules of one test, in the order in which they were set up. Any thread may ask."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.RLock()  # a condition may call a model itself

    def add(self, rule: Rule) -> None:
        """Add a rule."""
        with self._lock:
            self._rules.append(rule)

    def choose(self, call: Call) -> tuple[Source, Answering | None, list[Cut | Slow]]:
        """Return what answers a call, if anything does, and what changes its answer. Faults take precedence over replies."""
        found: list[Cut | Slow] = []
        source, answering = FAULT, None
        with self._lock:
            for rule in sorted(self._rules, key=lambda rule: rule.source):  # "fault" < "reply"
                is_change = isinstance(rule.outcomes[0], Cut | Slow)
                if not rule.is_for(call) or (answering is not None and not is_change):
                    continue
                outcome = rule.meet()
                if isinstance(outcome, Cut | Slow):
                    found.append(outcome)
                else:
                    source, answering = rule.source, outcome
        return source, answering, found

    def unmet(self) -> list[str]:
        """Say for each rule that still waits for calls how many got it."""
        with self._lock:
            return [text for rule in self._rules if (text := rule.unmet)]
