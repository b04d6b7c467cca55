"""A miss as plain data: its cause, what changed, how to fix it and what that costs. Made from a recorder's faults."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self, TypeGuard

from pytest_lmcache.clock import seconds_since
from pytest_lmcache.errors import (
    BudgetExceeded,
    CassetteError,
    CassetteMiss,
    MissCause,
    UnsupportedCall,
    shorten,
)

if TYPE_CHECKING:
    from pytest_lmcache.cassette.document import Entry
    from pytest_lmcache.miss import MissDetails
    from pytest_lmcache.nearest import Difference
    from pytest_lmcache.recorder import Recorder


class Cause(StrEnum):
    """What made a call miss, or one of several things that did."""

    MESSAGE = "message"
    TOOL = "tool"
    MODEL = "model"
    PARAMETER = "parameter"
    RESPONSE_FORMAT = "response format"
    FUNCTION = "function"  # another one is called
    MORE_CALLS = "more calls"
    FEWER_CALLS = "fewer calls"
    NEVER_RECORDED = "never recorded"
    ELSEWHERE = "recorded elsewhere"
    VOLATILE = "volatile"
    USED_UP = "used up"
    READ_ON = "read on"
    CUT_OFF = "cut off"
    EXPIRED = "expired"
    KEY = "key"  # only the key differs
    UNKNOWN = "unknown"


class Mend(StrEnum):
    """How to fix a miss."""

    RECORD = "record"
    REWRITE = "rewrite"
    NORMALIZE = "normalize"
    MOVE = "move"


class Action(StrEnum):
    """What happened to a part of a call."""

    CHANGED = "changed"
    NEW = "new"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Change:
    """One place in which a call differs from its nearest recording.

    ``within`` is the role of the message, or the name of the tool. ``lines`` are the changed lines as the pieces of a
    word diff, ``number`` is that of the first of them if the text has several. ``before`` and ``after`` are the values
    if both are short.
    """

    cause: Cause
    action: Action
    path: str
    within: str = ""
    lines: tuple[tuple[tuple[str, str], ...], ...] = ()
    number: int = 0
    before: str = ""
    after: str = ""

    @property
    def place(self) -> str:
        """The path and what it is in: ``messages[0].content (system)``."""
        return f"{self.path} ({self.within})" if self.within else self.path

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two calls have in common if they changed in the same way: equal texts and list indexes do not count."""
        pieces = tuple(part for line in self.lines for part in line if part[0] != "same")
        return self.kind, pieces, self.before, self.after

    @property
    def kind(self) -> tuple[str, ...]:
        """What two calls have in common if they changed in the same place."""
        return self.cause, self.action, re.sub(r"\[\d+\]", "[]", self.path), self.within

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Self:
        """Return the change that another process sent."""
        lines = tuple(tuple((tag, text) for tag, text in line) for line in data["lines"])
        return cls(
            Cause(data["cause"]),
            Action(data["action"]),
            **_rest(data, "cause", "action", "lines"),
            lines=lines,
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of recording calls again, by the recordings that this replaces.

    ``usd`` is that of the calls with a known price, ``unpriced`` counts the others. ``unknown`` counts calls that have
    no recording: there are at least as many. ``stopped`` counts tests that a fixture's miss kept from running.
    """

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    unpriced: int = 0
    unknown: int = 0
    stopped: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Add two costs."""
        return Cost(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """A miss as plain data.

    ``test`` is its test, ``problem`` the first line of its message. ``normalizers`` are to be set in ``configuration``,
    ``cost`` is what recording it takes. ``options`` and ``target`` are what pytest is given to record the test; ``block`` is the cassette of a
    ``use_cassette`` as source code, if the call was made in one. ``nearest`` is the place of the nearest recording in
    the cassette, from 1; 0 if there is none. ``old`` and ``new`` are ids of a renamed test.
    """

    test: str
    cause: Cause
    mend: Mend
    problem: str
    changes: tuple[Change, ...] = ()
    normalizers: tuple[str, ...] = ()
    configuration: str = ""
    options: str = ""
    target: str = ""
    block: str = ""
    cassette: str = ""
    nearest: int = 0
    old: str = ""
    new: str = ""
    cost: Cost = field(default_factory=Cost)

    @property
    def digest(self) -> str:
        """Identifies the miss, in other processes too. Misses that differ only in their test have the same digest."""
        same = replace(self, test="", target="", options="", old="", new="", cost=Cost())
        return hashlib.blake2b(json.dumps(same.to_plain()).encode(), digest_size=12).hexdigest()

    def to_plain(self) -> dict[str, Any]:
        """Return the miss as dicts, lists, numbers and strings, to send to another process."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Self:
        """Return the miss that another process sent."""
        return cls(
            cause=Cause(data["cause"]),
            mend=Mend(data["mend"]),
            changes=tuple(map(Change.from_plain, data["changes"])),
            normalizers=tuple(data["normalizers"]),
            cost=Cost(**data["cost"]),
            **_rest(data, "cause", "mend", "changes", "normalizers", "cost"),
        )


def _rest(data: Mapping[str, Any], *without: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in without}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    # A text may hold what cannot be sent to another process.
    return str(value).encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


# ---- made from a recorder ------------------------------------------------------------------------------


def is_miss(fault: BaseException | None) -> TypeGuard[CassetteMiss]:
    """Whether a fault is a call that a recording would answer."""
    return isinstance(fault, CassetteMiss) and not isinstance(fault, UnsupportedCall | BudgetExceeded)


def misses_of(recorder: Recorder, test: str, *, counted_by_test: bool = False) -> list[Miss]:
    """Return the misses of a test, or of a block in it, as data.

    Each is the recorder's whose call missed: a test has its blocks' misses among its faults too. With
    ``counted_by_test`` the test has those of which only the text is known, such as of a child process.
    """
    found = []
    for fault in recorder.faults:
        if is_miss(fault):
            details: MissDetails | None = fault.details
            if details is None:
                if not counted_by_test:
                    found.append(miss_of(fault, test, recorder.commands.target, recorder.commands.options))
            elif details.commands.block == recorder.commands.block:
                found.append(miss_of(fault, test))
    return list(_with_costs(found, recorder)) if found else []


def miss_of(fault: CassetteMiss, test: str, target: str = "", options: str = "") -> Miss:
    """Return a miss as data. ``target`` and ``options`` are for one of which only the text is known."""
    details: MissDetails | None = fault.details
    if details is None:
        problem = shorten(str(fault).partition("\n")[0])
        return Miss(
            test=test, cause=Cause.UNKNOWN, mend=Mend.RECORD, problem=problem, target=target, options=options
        )
    changes = tuple(_changes(details.differences))
    cause = _cause(details, changes)
    mend = {Cause.VOLATILE: Mend.NORMALIZE, Cause.ELSEWHERE: Mend.MOVE}.get(cause, Mend.RECORD)
    if details.cause is MissCause.CUT_OFF:
        mend = Mend.REWRITE
    commands, elsewhere = details.commands, details.elsewhere
    return Miss(
        test=test,
        cause=cause,
        mend=mend,
        problem=details.problem,
        changes=changes,
        normalizers=details.normalizers or details.folder_normalizers,
        configuration=details.configuration,
        options=commands.options,
        target=commands.target,
        block=commands.block,
        cassette=details.cassette or "",
        nearest=details.nearest or 0,
        old="" if elsewhere is None else elsewhere.test,
        new="" if elsewhere is None else commands.test,
        cost=_cost_of(details),
    )


def _cause(details: MissDetails, changes: tuple[Change, ...]) -> Cause:
    if details.cause is MissCause.CHANGED:
        return _cause_of_changes(changes, details)
    if details.cause is MissCause.CUT_OFF and details.reads_on:
        return Cause.READ_ON
    if details.elsewhere is not None:
        return Cause.ELSEWHERE
    return _CAUSES[details.cause] if details.is_compared else Cause.UNKNOWN


_CAUSES = {
    MissCause.NO_CASSETTE: Cause.NEVER_RECORDED,
    MissCause.NOT_RECORDED: Cause.NEVER_RECORDED,
    MissCause.NOT_NORMALIZED: Cause.VOLATILE,
    MissCause.USED_UP: Cause.USED_UP,
    MissCause.CUT_OFF: Cause.CUT_OFF,
    MissCause.EXPIRED: Cause.EXPIRED,
}


def _cause_of_changes(changes: tuple[Change, ...], details: MissDetails) -> Cause:
    if details.is_extra:
        return Cause.MORE_CALLS
    if not changes:
        return Cause.KEY
    turns = [change.action for change in changes if _is_turn(change)]
    if turns and all(change.cause is Cause.MESSAGE and change.action is turns[0] for change in changes):
        # Else the answers are part of the prompt, such as an example.
        if turns[0] is Action.NEW and len(turns) <= details.used:
            return Cause.MORE_CALLS
        if turns[0] is Action.GONE and len(turns) <= details.unused:
            return Cause.FEWER_CALLS
    return changes[0].cause


def _is_turn(change: Change) -> bool:
    """Whether a message that only one side has is a model's answer: a call was made for it."""
    return (
        change.cause is Cause.MESSAGE and change.action is not Action.CHANGED and change.within == "assistant"
    )


_QUESTION = frozenset(
    {"messages", "input", "prompt", "system", "instructions", "query", "documents", "contents"}
)
_CAUSES_BY_PATH = {
    "entry point": Cause.FUNCTION,
    "model": Cause.MODEL,
    "tools": Cause.TOOL,
    "functions": Cause.TOOL,
    "response_format": Cause.RESPONSE_FORMAT,
    "text_format": Cause.RESPONSE_FORMAT,
    "text": Cause.RESPONSE_FORMAT,  # of the Responses API
    **dict.fromkeys(_QUESTION, Cause.MESSAGE),
}
_SHORT = 60  # characters of a value that is shown as a whole
_MOST_LINES = 8
_MOST_CHANGES = 20


def _changes(differences: Iterable[Difference]) -> Iterator[Change]:
    for difference, _ in zip(differences, range(_MOST_CHANGES), strict=False):
        yield _change(difference)


def _change(difference: Difference) -> Change:
    from pytest_lmcache.nearest import ABSENT, as_json
    from pytest_lmcache.word_diff import changed_lines, printable, words

    path, before, after = printable(difference.path), difference.before, difference.after
    name = re.split(r"[.\[]", path, maxsplit=1)[0]
    cause = _CAUSES_BY_PATH.get(path if path == "entry point" else name, Cause.PARAMETER)
    is_text = all(value is ABSENT or isinstance(value, str) for value in (before, after))
    within = printable(difference.within) or ("system" if name in {"system", "instructions"} else "")
    action = Action.NEW if before is ABSENT else Action.GONE if after is ABSENT else Action.CHANGED
    old, new = ("" if each is ABSENT else each if is_text else as_json(each) for each in (before, after))
    is_one_line = max(len(old), len(new)) <= _SHORT and "\n" not in old + new
    if cause is Cause.MESSAGE and path.endswith(".role"):
        within = ""  # one of the two roles
    elif cause is Cause.MESSAGE:
        is_one_line = False
    if is_one_line:
        return Change(cause, action, path, within, before=printable(old), after=printable(new))
    found = changed_lines(words(old, new))
    lines = tuple(tuple(parts) for _, parts in found[:_MOST_LINES])
    if len(found) > _MOST_LINES:
        lines = (*lines, (("same", f"… {len(found) - _MOST_LINES} more lines"),))
    number = found[0][0] if found and "\n" in old + new else 0
    return Change(cause, action, path, within, lines=lines, number=number)


# ---- what recording again costs ------------------------------------------------------------------------


def _cost_of(details: MissDetails) -> Cost:
    """The cost of a miss by its nearest recording."""
    if not details.tokens and details.usd is None:
        return Cost(unknown=1)
    return Cost(1, details.tokens, details.usd or 0.0, unpriced=int(details.usd is None))


def _with_costs(misses: list[Miss], recorder: Recorder) -> Iterator[Miss]:
    """The misses with what their test costs. The first has the cost of the calls that the test did not come to."""
    if recorder.is_shared or misses[0].cause in {Cause.VOLATILE, Cause.USED_UP}:
        yield from misses
        return
    entries: Sequence[Entry] = recorder.open_cassette().entries
    if misses[0].cause is Cause.EXPIRED:
        entries = [
            entry for entry in entries if seconds_since(entry.recorded()) > (recorder.settings.max_age or 0)
        ]
    elif misses[0].mend is not Mend.REWRITE:
        entries = list(_not_asked(entries, recorder))
    costs = [cost for entry in entries if (cost := _cost_of_entry(entry)) is not None]
    cost = sum(costs, start=Cost())
    unknown = max(0, len(misses) - len(costs))
    yield replace(misses[0], cost=cost + Cost(unknown=unknown))
    for miss in misses[1:]:
        yield replace(miss, cost=Cost())


def _not_asked(entries: Iterable[Entry], recorder: Recorder) -> Iterator[Entry]:
    """The recordings that answered none of the recorder's calls."""
    used = {(call.key, call.nth) for call in recorder.everything if call.source == "cassette"}
    numbers: Counter[str] = Counter()
    for entry in entries:
        if (entry.key, numbers[entry.key]) not in used:
            yield entry
        numbers[entry.key] += 1


def _cost_of_entry(entry: Entry) -> Cost | None:
    """The cost of a recording, None for a value that is no call of a model."""
    try:
        if entry.call().is_value:
            return None
        answer = entry.answer()
    except CassetteError:
        return Cost(unknown=1)
    return Cost(1, sum(answer.tokens), answer.usd or 0.0, unpriced=int(answer.usd is None))
