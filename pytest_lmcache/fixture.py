"""The value of the fixture ``lm_cache`` and of a ``use_cassette`` block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from pytest_lmcache.call_assertions import assert_called
from pytest_lmcache.call_record import CallRecord
from pytest_lmcache.faults import Faults
from pytest_lmcache.not_recorded import NotRecorded
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.remembered import Conversion, Options, record, remember
from pytest_lmcache.settings import Mode, Settings

if TYPE_CHECKING:
    from pytest_lmcache.verify import Comparison

T = TypeVar("T")


class LMCacheFixture(Faults):
    """The calls of one test, or of one ``use_cassette`` block, with the faults and replies that it sets up."""

    def __init__(self, recorder: Recorder, *, sample: int | None = None) -> None:
        self._recorder = recorder
        self.sample = sample
        """The number of the sample that the test runs with, from 1; None without ``samples``."""

    def __repr__(self) -> str:
        return repr(self._recorder)

    @property
    def calls(self) -> Sequence[CallRecord]:
        """The calls so far, in the order in which they started."""
        return self._recorder.calls

    @property
    def comparisons(self) -> Sequence[Comparison]:
        """The comparisons of mode verify, and of mode live with another model, once the test or block has ended."""
        verification = self._recorder.verification
        return () if verification is None else [*verification.comparisons.values()]

    @property
    def replayed(self) -> int:
        """The number of calls that the cassette answered."""
        return self._recorder.replayed

    @property
    def recorded(self) -> int:
        """The number of new answers, which are written to the cassette if the test passes."""
        return self._recorder.recorded

    def assert_called(
        self, times: int | None = None, *, model: str | None = None, containing: str | None = None
    ) -> list[CallRecord]:
        """Fail unless a model was called (exactly ``times`` times, if given). Returns the calls.

        Only calls of ``model``, and calls whose prompt contains the text ``containing``, count. Raises AssertionError,
        with a list of all calls.
        """
        __tracebackhide__ = True
        return assert_called(self.calls, times, model=model, containing=containing)

    def assert_not_called(self, *, model: str | None = None, containing: str | None = None) -> None:
        """Fail if a model was called; ``model`` and ``containing`` are those of `assert_called`."""
        __tracebackhide__ = True
        assert_called(self.calls, 0, model=model, containing=containing)

    @property
    def values(self) -> Sequence[CallRecord]:
        """The remembered values and the results of recorded functions so far, in the order in which they started."""
        return self._recorder.values

    def remember(self, name: str, function: Callable[[], T], /, **conversion: Unpack[Conversion]) -> T:
        """Return the result of a function, recorded in the cassette under a name. Replay does not call the function.

        An async function gives an awaitable. The n-th value of a name is replayed for the n-th call. ``dump`` makes
        plain data of the value, ``load`` the value of that data. Raises CassetteMiss if nothing is recorded, and
        UnrecordableError for a value that is neither JSON data nor bytes.
        """
        return remember(self._recorder, name, function, **conversion)

    def record(self, target: Any, name: str, /, **options: Unpack[Options]) -> None:
        """Replace a function of a module, a class or an object by one that records and replays its results.

        Until the test or block ends. Results are found by the function's name and arguments; replay does not call
        it. The options are those of `recorded`. Raises SettingsError for what is not a function, and for generators.
        """
        self._recorder.at_end.callback(record(target, name, **options))

    @property
    def usage(self) -> dict[str, int]:
        """The tokens of all calls so far, as the provider counted them.

        A mapping with ``prompt_tokens``, ``completion_tokens`` and ``total_tokens``.
        """
        return self._recorder.usage

    @property
    def old(self) -> int:
        """How many replayed recordings are older than ``max_age``."""
        return self._recorder.old

    def unused(self) -> int:
        """Return how many recordings no call has asked for so far; 0 if others may ask for them."""
        return self._recorder.unused()

    @property
    def not_recorded(self) -> list[NotRecorded]:
        """The calls so far that are not recorded, or cannot be replayed, each with the reason."""
        return self._recorder.not_recorded

    @property
    def faults(self) -> list[BaseException]:
        """The misses, refused calls and broken recordings so far, which fail the test."""
        return self._recorder.faults

    @property
    def caches_in_the_way(self) -> set[str]:
        """The names of other tools' caches that may have answered first, so that calls are not recorded."""
        return self._recorder.caches_in_the_way

    @property
    def mode(self) -> Mode:
        """Whether calls are replayed, recorded or sent."""
        return self._recorder.mode

    @property
    def path(self) -> Path | None:
        """The cassette, None if there is none."""
        return self._recorder.path

    @property
    def settings(self) -> Settings:
        """The settings of the test or block, after precedence."""
        return self._recorder.settings
