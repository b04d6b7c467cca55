"""The whole message of a miss, and what it says as data: cause and normalizers."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from pytest_lmcache import errors, mends
from pytest_lmcache.call_record import described
from pytest_lmcache.cassette.file import Cassette, NoCassette
from pytest_lmcache.errors import CassetteError, CassetteMiss, MissCause
from pytest_lmcache.interaction import CANCELLED, Answer, Call, Kind
from pytest_lmcache.settings import Mode, Settings

if TYPE_CHECKING:
    from pytest_lmcache.commands import Commands
    from pytest_lmcache.keys.strategies import KeyStrategy

# How many misses of one test are compared with all recordings: a program that goes on after one may have many.
EXPLAINED = 10
FAULTS_SHOWN = 3  # of the recordings that cannot be read


STUBS = 'If the test stubs the provider (respx, a fake client), give it mode="live", or patch litellm.completion itself.'
MODE_SAYS = {
    Mode.REPLAY: "nothing is recorded unasked",
    Mode.ONCE: "records only where there is no cassette yet",
    Mode.RECORD: "records what is missing",
    Mode.REWRITE: "records everything again",
    Mode.LIVE: "everything goes to the provider",
}


class Misses:
    """Makes the misses of one test, or of one ``use_cassette``.

    ``commands`` record the test, ``where`` says what else is known of a cassette that is not there, and
    ``configuration`` is the name of the run's configuration file.
    """

    def __init__(
        self,
        settings: Settings,
        mode: Mode,
        *,
        commands: Commands,
        shown_path: str,
        where: Callable[[], Sequence[str]],
        configuration: str,
    ) -> None:
        self._settings = settings
        self._mode = mode
        self._commands = commands
        self._shown_path = shown_path
        self._where = where
        self._configuration = configuration
        self._lock = threading.Lock()
        self._recorded_calls: list[Call] | None = None
        self._unreadable: list[str] = []

    def cut_off(self, name: str, answer: Answer, waited: float) -> CassetteMiss:
        """The miss of a call that goes on where the recorded one was cut off."""
        told = errors.miss(
            asked=[_cut_off(name, answer, waited)],
            looked=[f"Looked in  {self._shown_path}"],
            nearest=[],
            mend=[f"Record it:  {self._commands.rewrite}"],
        )
        miss = CassetteMiss(told)
        miss.cause = MissCause.CUT_OFF
        return miss

    def explained(
        self,
        call: Call,
        cassette: Cassette | NoCassette,
        strategy: KeyStrategy,
        *,
        used_up: bool,
        compares: bool,
    ) -> CassetteMiss:
        """The miss of a call that nothing answers; ``compares``: with what was recorded instead."""
        asked = [f"No recording answers this call of {call.name}(): {described(call.request)}"]
        if isinstance(cassette, NoCassette):
            looked = ["Looked in  the cache layers; there is no cassette."]
            return self._told(strategy, MissCause.NO_CASSETTE, asked, looked)
        if not cassette.exists:
            looked = [f"Looked in  {self._shown_path}: there is no such file yet.", *self._where()]
            return self._told(strategy, MissCause.NO_CASSETTE, asked, looked, mend=[STUBS])
        size = len(cassette.entries)
        looked = [
            f"Looked in  {self._shown_path}: {size} recording{'s' if size != 1 else ''}, none with this key."
        ]
        if used_up:
            why = "its recordings of this call are used up, and repeat = error allows each once."
            return self._told(strategy, MissCause.USED_UP, asked, [f"Looked in  {self._shown_path}: {why}"])
        from pytest_lmcache.nearest import explain, nearest

        is_same = functools.partial(mends.is_same_normalized, strategy, call)
        closest = nearest(call, self._readable(cassette), is_same) if compares else None
        looked += self._unreadable[:FAULTS_SHOWN]
        if len(self._unreadable) > FAULTS_SHOWN:
            looked.append(
                f"{len(self._unreadable) - FAULTS_SHOWN} more recordings cannot be read: pytest-lmcache check"
            )
        if closest is None:
            return self._told(strategy, MissCause.NOT_RECORDED, asked, looked)
        near = explain(closest)
        more = mends.normalizers_for(strategy, call, closest.call) if closest.differences else ()
        if more:
            every = tuple(dict.fromkeys((*self._settings.normalize, *more)))
            return self._told(strategy, MissCause.NOT_NORMALIZED, asked, looked, near, normalizers=every)
        folders = mends.folders_in(strategy, call, closest.call)
        mend = mends.folder_lines([*self._settings.normalize, *folders], self._commands) if folders else ()
        return self._told(strategy, MissCause.CHANGED, asked, looked, near, mend=mend)

    def _told(
        self,
        strategy: KeyStrategy,
        cause: MissCause,
        asked: Sequence[str],
        looked: list[str],
        near: Sequence[str] = (),
        *,
        mend: Sequence[str] = (),
        normalizers: tuple[str, ...] = (),
    ) -> CassetteMiss:
        mode = self._mode
        looked.append(f"Mode       {mode}: {MODE_SAYS[mode]}; key {strategy.name}")
        mend = (
            mends.lines(normalizers, self._commands, self._configuration)
            if normalizers
            else [*mend, f"Record it:  {self._commands.record}"]
        )
        miss = CassetteMiss(errors.miss(asked=asked, looked=looked, nearest=near, mend=mend))
        miss.cause, miss.normalizers = cause, normalizers
        return miss

    def _readable(self, cassette: Cassette) -> Iterable[Call]:
        """What the recordings were asked; of those that cannot be read, what is wrong is kept for the message."""
        with self._lock:
            if self._recorded_calls is None:
                self._recorded_calls = []
                for entry in cassette.entries:
                    try:
                        self._recorded_calls.append(entry.call())
                    except CassetteError as fault:
                        self._unreadable.append(str(fault))
            return self._recorded_calls


def _cut_off(name: str, answer: Answer, waited: float) -> str:
    """What ended a call, or a stream, when it was recorded, and why replay cannot repeat it."""
    is_stream = answer.kind is Kind.STREAM
    size = len(answer.data) if is_stream else 0
    after = f" after {size} chunk{'' if size == 1 else 's'}" if is_stream else ""
    what = f"{'stream' if is_stream else 'call'} of {name}()"
    if answer.ended is None:
        return (
            f"The recorded {what} ends{after}: the test left it there when it was recorded, and reads on now."
        )
    if answer.ended != CANCELLED:
        return (
            f"When it was recorded, this {what} ended with {answer.ended}{after}. Replay cannot repeat that."
        )
    now = f"Now it has waited {waited:.0f} seconds, and nothing cancelled it."
    if not waited:
        now = "Now it is a sync one, which nothing can cancel."
    return f"When it was recorded, this {what} was cancelled{after}. {now}"
