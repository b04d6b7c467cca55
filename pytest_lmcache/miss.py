"""A call that no recording answers: its details as data, and the message made of them."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_lmcache.call_record import described, question
from pytest_lmcache.cassette.file import Cassette, NoCassette
from pytest_lmcache.commands import quoted
from pytest_lmcache.errors import CassetteError, CassetteMiss, MissCause
from pytest_lmcache.interaction import CANCELLED, Answer, Call, Kind
from pytest_lmcache.settings import Mode, Settings

if TYPE_CHECKING:
    from collections.abc import Collection

    from pytest_lmcache.cassette.document import Entry
    from pytest_lmcache.commands import Commands
    from pytest_lmcache.keys.strategies import KeyStrategy
    from pytest_lmcache.nearest import Difference

# So many misses of a test are compared with all recordings: a program that goes on after a miss may have many more.
MAX_COMPARED = 10
_MAX_UNREADABLE = 3  # recordings that the message names
_GONE = "           which no longer exists. It has this call."
_MODES = {
    Mode.REPLAY: "records nothing",
    Mode.ONCE: "records only if there is no cassette yet",
    Mode.RECORD: "records what is missing",
    Mode.REWRITE: "records everything again",
    Mode.VERIFY: "records nothing; asks the recorded questions again",
    Mode.LIVE: "sends every call to the provider",
}


class Elsewhere(NamedTuple):
    """The recording of a call in the cassette of a test that no longer exists: the file, and that test."""

    cassette: str
    test: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MissDetails:
    """The details of a miss; `message` uses nothing else.

    ``problem`` is the message's first line. ``cassette`` is the path as messages show it, None if only the cache
    layers may answer. ``searched`` says what was found there, line by line, and ``strategy`` is the key strategy's
    name. ``nearest`` is the place of the nearest recording in the cassette, from 1, None if there is none;
    ``differences`` are those from it; ``tokens`` (input and output) and ``usd`` are what it cost (None: unknown).
    ``normalizers`` are all that have to be set for it to answer; ``folder_normalizers`` those that have to be set
    before the call is recorded, since it names a folder of this machine. ``is_compared``: False for a later miss
    of a test with many. ``is_extra``: every recording of the cassette had answered another call by then;
    ``used`` counts the recordings that had, ``unused`` the others without the nearest. ``reads_on``:
    a stream is read further than it was recorded. ``call`` is what was asked, None if a recording had answered it
    before it was cut off.
    """

    cause: MissCause
    problem: str
    cassette: str | None
    mode: Mode
    commands: Commands
    configuration: str
    searched: tuple[str, ...] = ()
    strategy: str = ""
    nearest: int | None = None
    differences: tuple[Difference, ...] = ()
    tokens: int = 0
    usd: float | None = None
    normalizers: tuple[str, ...] = ()
    folder_normalizers: tuple[str, ...] = ()
    is_compared: bool = True
    is_extra: bool = False
    used: int = 0
    unused: int = 0
    reads_on: bool = False
    elsewhere: Elsewhere | None = None
    call: Call | None = None


class Misses:
    """Makes the misses of one test, or of one ``use_cassette`` block.

    ``shown_path`` is the cassette's path as messages show it, ``hints`` says what else is known of a cassette that
    does not exist, and ``configuration`` is the name of the run's configuration file. ``find_elsewhere`` looks for
    a key in the cassettes of tests that no longer exist.
    """

    def __init__(
        self,
        settings: Settings,
        mode: Mode,
        *,
        commands: Commands,
        shown_path: str,
        hints: Callable[[], Sequence[str]],
        configuration: str,
        find_elsewhere: Callable[[str], Elsewhere | None],
    ) -> None:
        self._settings = settings
        self._details = partial(MissDetails, mode=mode, commands=commands, configuration=configuration)
        self._shown_path = shown_path
        self._hints = hints
        self._find_elsewhere = find_elsewhere
        self._lock = threading.Lock()
        self._compared = 0
        self._recorded: list[tuple[int, Entry, Call]] | None = None
        self._unreadable: list[str] = []

    def cut_off(self, name: str, answer: Answer, waited: float) -> CassetteMiss:
        """Return the miss of a call that goes on where its recording was cut off, after ``waited`` seconds."""
        return _miss(
            self._details(
                cause=MissCause.CUT_OFF,
                problem=_cut_off(name, answer, waited),
                cassette=self._shown_path,
                tokens=sum(answer.tokens),
                usd=answer.usd,
                reads_on=answer.kind is Kind.STREAM and answer.ended is None,
            )
        )

    def expired(self, call: Call, strategy: KeyStrategy, recorded: str) -> CassetteMiss:
        """Return the miss of a call whose recording is older than ``max_age``; ``recorded`` is when it was made."""
        details = partial(self._details, call=call, cassette=self._shown_path, strategy=strategy.name)
        problem = f"The recording of this call of {call.name}() is too old: {described(call.request)}"
        searched = f"{self._shown_path}: recorded {recorded}, and lm_on_expired = fail refuses it."
        return _miss(details(cause=MissCause.EXPIRED, problem=problem, searched=(searched,)))

    def not_recorded(
        self,
        call: Call,
        key: str,
        cassette: Cassette | NoCassette,
        strategy: KeyStrategy,
        used: Collection[tuple[str, int]],
    ) -> CassetteMiss:
        """Return the miss of a call without a recording, or whose recordings are used up.

        ``used`` has the recordings that have answered other calls: the key of each, and its number among its equals.
        """
        path = None if isinstance(cassette, NoCassette) else self._shown_path
        details = partial(
            self._details,
            call=call,
            problem=f"No recording answers this call of {question(call)}",
            cassette=path,
            strategy=strategy.name,
        )
        if isinstance(cassette, NoCassette):
            layers = "the cache layers; there is no cassette."
            return _miss(details(cause=MissCause.NO_CASSETTE, searched=(layers,)))
        if not cassette.exists:
            missing, elsewhere = f"{path}: there is no such file yet.", self._find_elsewhere(key)
            searched = (missing, *self._hints())
            if elsewhere is not None:
                searched += (f"Found      {elsewhere.cassette}, the cassette of {elsewhere.test},", _GONE)
            return _miss(details(cause=MissCause.NO_CASSETTE, searched=searched, elsewhere=elsewhere))
        if answers := cassette.answers(key):
            searched = (
                f"{path}: its recordings of this call are used up, and repeat = error replays each once.",
            )
            return _miss(details(cause=MissCause.USED_UP, searched=searched, **_cost(answers[-1])))
        size = len(cassette.entries)
        searched = (f"{path}: {size} recording{'s' if size != 1 else ''}, none with this key.",)
        self._compared += 1
        if self._compared > MAX_COMPARED:
            return _miss(details(cause=MissCause.NOT_RECORDED, searched=searched, is_compared=False))
        return _miss(self._compare(partial(details, searched=searched), call, cassette, strategy, used))

    def _compare(
        self,
        details: partial[MissDetails],
        call: Call,
        cassette: Cassette,
        strategy: KeyStrategy,
        used: Collection[tuple[str, int]],
    ) -> MissDetails:
        """What is known of a miss by comparing the call with all recordings."""
        from pytest_lmcache.nearest import nearest
        from pytest_lmcache.volatile_values import folder_normalizers, has_same_key, missing_normalizers

        recorded = self._readable(cassette)
        numbers: Counter[str] = Counter()
        used_places = set()
        for index, (_, entry, _) in enumerate(recorded):
            if (entry.key, numbers[entry.key]) in used:
                used_places.add(index)
            numbers[entry.key] += 1
        searched = (*details.keywords["searched"], *self._unreadable[:_MAX_UNREADABLE])
        if (more := len(self._unreadable) - _MAX_UNREADABLE) > 0:
            searched = (*searched, f"{more} more recordings cannot be read: pytest-lmcache check")
        calls = [each for *_, each in recorded]
        found = nearest(call, calls, partial(has_same_key, strategy, call), used_places)
        if found is None:
            return details(cause=MissCause.NOT_RECORDED, searched=searched)
        place, entry, _ = recorded[found.index]
        details = partial(
            details, searched=searched, nearest=place, differences=found.differences, **_cost(entry)
        )
        more_set = missing_normalizers(strategy, call, found.call, found.differences)
        if found.differences and more_set:
            return details(cause=MissCause.NOT_NORMALIZED, normalizers=self._with_set(more_set))
        folders = folder_normalizers(strategy, call, found.call)
        return details(
            cause=MissCause.CHANGED,
            folder_normalizers=self._with_set(folders) if folders else (),
            is_extra=len(used_places) == len(cassette.entries),
            used=len(used_places),
            unused=len(cassette.entries) - len(used_places | {found.index}),
        )

    def _with_set(self, normalizers: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self._settings.normalize, *normalizers)))

    def _readable(self, cassette: Cassette) -> list[tuple[int, Entry, Call]]:
        """The recordings that can be read, with their places and calls; the others' faults go to the message."""
        with self._lock:
            if self._recorded is None:
                self._recorded = []
                for place, entry in enumerate(cassette.entries, 1):
                    try:
                        self._recorded.append((place, entry, entry.call()))
                    except CassetteError as fault:
                        self._unreadable.append(str(fault))
            return self._recorded


def _cost(entry: Entry) -> dict[str, Any]:
    """What a recording cost, as fields of MissDetails; nothing if it cannot be read."""
    try:
        answer = entry.answer()
    except CassetteError:
        return {}
    return {"tokens": sum(answer.tokens), "usd": answer.usd}


def _miss(details: MissDetails) -> CassetteMiss:
    miss = CassetteMiss(message(details))
    miss.cause, miss.normalizers, miss.details = details.cause, details.normalizers, details
    return miss


# ---- the message ---------------------------------------------------------------------------------------


def message(miss: MissDetails) -> str:
    """Return the message of a miss: the call, where it was searched for, what differs, and what to do."""
    searched = miss.searched or (f"{miss.cassette}",)
    lines = [miss.problem, "", f"Looked in  {searched[0]}", *searched[1:]]
    if miss.cause is not MissCause.CUT_OFF:
        lines.append(f"Mode       {miss.mode}: {_MODES[miss.mode]}; key {miss.strategy}")
    if miss.nearest is not None:
        from pytest_lmcache.nearest import explain

        lines += ["", *_extra(miss), *explain(miss.differences)]
    return "\n".join([*lines, "", *_advice(miss)])


def _extra(miss: MissDetails) -> list[str]:
    if not miss.is_extra:
        return []
    return [
        "All recordings have answered earlier calls: this is one call more than recorded. The nearest of them:"
    ]


def _advice(miss: MissDetails) -> list[str]:
    """What to do about a miss; the last line is what to run or to paste."""
    commands = miss.commands
    if miss.cause is MissCause.CUT_OFF:
        return [f"Record it:  {commands.rewrite}"]
    if miss.normalizers:
        return _normalizer_advice(miss)
    if miss.elsewhere is not None:
        move = f"pytest-lmcache move {quoted(miss.elsewhere.test)} {quoted(commands.test)}"
        return [
            f"Record it:  {commands.record}",
            "or, if the test was renamed or moved, keep its recordings:",
            f"Move them:  {move}",
        ]
    lines = []
    if miss.cause is MissCause.NO_CASSETTE and miss.cassette is not None:
        lines.append(
            'If the test stubs the provider (respx, a fake client), give it mode="live", or patch litellm.completion '
            "itself."
        )
    if miss.folder_normalizers:
        names = json.dumps(miss.folder_normalizers, ensure_ascii=False)
        setting = f"normalize={names}" if commands.block else f"lm_normalize = {names}"
        lines.append(f"The call names a folder of this machine. Before you record it, set {setting}.")
    return [*lines, f"Record it:  {commands.record}"]


def _normalizer_advice(miss: MissDetails) -> list[str]:
    names = json.dumps(miss.normalizers, ensure_ascii=False)  # TOML and Python read it too
    lines = [
        f"If the difference is part of the question, record it:  {miss.commands.record}",
        "If it changes from run to run, normalize it. Nothing needs to be recorded again:",
    ]
    if miss.commands.block:
        return [*lines, f"  {miss.commands.block_with(f'normalize={names}')}"]
    lines.append(f"  this test   @pytest.mark.lm_cache(normalize={names})")
    if miss.configuration.endswith(".toml"):
        return [*lines, f"  all tests   lm_normalize = {names}  # {miss.configuration}"]
    setting = ["lm_normalize =", *(f"  {name}" for name in miss.normalizers)]
    return [*lines, f"  all tests   in {miss.configuration}:", *setting]


def _cut_off(name: str, answer: Answer, waited: float) -> str:
    """What ended a call, or a stream, when it was recorded, and why replay cannot repeat it."""
    what, after = f"call of {name}()", ""
    if answer.kind is Kind.STREAM:
        size = len(answer.data)
        what, after = f"stream of {name}()", f" after {size} chunk{'' if size == 1 else 's'}"
    if answer.ended is None:
        return f"The recorded {what} ends{after}: the test stopped reading there. Now it reads on."
    if answer.ended != CANCELLED:
        return (
            f"When it was recorded, this {what} ended with {answer.ended}{after}. Replay cannot repeat that."
        )
    now = (
        f"Now it has waited {waited:.0f} seconds, and nothing has cancelled it."
        if waited
        else "Now the call is sync, and nothing can cancel it."
    )
    return f"When it was recorded, this {what} was cancelled{after}. {now}"
