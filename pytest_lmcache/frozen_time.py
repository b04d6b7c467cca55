"""Runs a test or a block at the time of its recording: stops the clock with freezegun while it is open."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_lmcache.cassette.reader import read_frozen_at
from pytest_lmcache.clock import RealTime
from pytest_lmcache.settings import Mode

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder

# What measures how long something takes goes on: time-outs, sleeping event loops, durations of reports.
_GOES_ON = ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
_PYTEST = ("_pytest.", "xdist.")
# freezegun gives these the real time, and so whatever a thread calls itself: but prompts are made in threads too.
_NOT_IGNORED = {"threading", "multiprocessing", "queue"}
_sees_real_time: ContextVar[bool] = ContextVar("pytest_lmcache_sees_real_time", default=False)


def freeze(recorder: Recorder) -> None:
    """Stop the clock for a recorder's test or block until it ends, if its settings say so.

    The frozen time is the one that the cassette names, or the current time if there is none. Raises CassetteError if
    the cassette cannot be read.
    """
    if not recorder.settings.freeze_time:
        return
    path, text = recorder.path, ""
    if path is not None and recorder.mode not in {Mode.REWRITE, Mode.LIVE}:
        text = read_frozen_at(path)
    if not text and path is not None and recorder.is_shared:
        text = _moments.setdefault(path, _now())  # so that tests which record one file do it at one moment
    recorder.frozen_at = text or _now()
    moment = datetime.fromisoformat(recorder.frozen_at)
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    recorder.at_end.callback(clock.stop_at(moment))


_moments: dict[Path, str] = {}
"""When the tests of this process record the cassettes that they share, if the files do not say."""


def _now() -> str:
    return RealTime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def real_time(*, is_seen: bool = True) -> Iterator[None]:
    """Use the real time in this context, since providers refuse requests with old dates."""
    token = _sees_real_time.set(is_seen)
    try:
        yield
    finally:
        _sees_real_time.reset(token)


class Clock:
    """The clock of this process. If it is stopped several times, the last one decides on the time."""

    def __init__(self) -> None:
        self._moments: list[tuple[object, datetime]] = []
        self._undo: Callable[[], None] | None = None
        self._factory: Any = None
        self._lock = threading.RLock()

    def stop_at(self, moment: datetime) -> Callable[[], None]:
        """Stop the clock at a time, in UTC without a time zone. Returns a function that starts it again."""
        entry = (object(), moment)
        with self._lock:
            self._moments.append(entry)
            self._set()

        def go_on() -> None:
            with self._lock:
                self._moments.remove(entry)
                self._set()

        return go_on

    @contextmanager
    def going(self) -> Iterator[None]:
        """Start the clock again within the context, for example for a fixture that outlives the test."""
        with self._lock:
            moments, self._moments = self._moments, []
            self._set()
        try:
            yield
        finally:
            with self._lock:
                self._moments = moments + self._moments
                self._set()

    def _set(self) -> None:
        if not self._moments:
            if self._undo is not None:
                undo, self._undo = self._undo, None
                undo()
            return
        if self._undo is None:
            self._factory, self._undo = _start()
        self._factory.time_to_freeze = self._moments[-1][1]


clock = Clock()


def _start() -> tuple[Any, Callable[[], None]]:
    """Start freezegun; returns the object that has the moment, and what stops it."""
    import freezegun
    from freezegun import api

    class Factory(api.FrozenDateTimeFactory):
        def __call__(self) -> datetime:
            return RealTime.now(UTC).replace(tzinfo=None) if _sees_real_time.get() else self.time_to_freeze

    fakes: list[tuple[Any, type]] = [(api.FakeDatetime, api.real_datetime), (api.FakeDate, api.real_date)]
    for fake, true in fakes:
        # The SDKs of providers let pydantic build models at their first call, and pydantic knows the true types only.
        fake.__get_pydantic_core_schema__ = classmethod(_schema_of(true))
    freezer = freezegun.freeze_time(RealTime.now(UTC))
    with _quick_scan(vars(api)):
        freezer.start()
    factory = api.freeze_factories[-1] = Factory(datetime(2000, 1, 1))  # noqa: DTZ001 - as freezegun wants it
    api.ignore_lists[-1] = tuple(name for name in freezer.ignore if name not in _NOT_IGNORED)
    # If the suite has stopped the clock before, all is as it wants it.
    if len(api.freeze_factories) == 1:
        real = {name: getattr(api, f"real_{name}") for name in _GOES_ON}
        for name, function in real.items():
            setattr(time, name, function)
        for module, name, original in freezer.undo_changes:
            if original in real.values() or module.__name__.startswith(_PYTEST):
                setattr(module, name, original)
    zone = os.environ.get("TZ")
    _set_zone("UTC")

    def stop() -> None:
        _set_zone(zone)
        freezer.stop()

    return factory, stop


@contextmanager
def _quick_scan(freezegun: dict[str, Any]) -> Iterator[None]:
    """Let freezegun only count a module's names to see whether it has to read the module again.

    Otherwise it sorts all names of all modules, which takes 20 milliseconds after LiteLLM has been imported.
    """
    name = "_get_module_attributes_hash"
    stamp = freezegun.get(name)
    if stamp is None:
        yield
        return
    freezegun[name] = lambda module: f"{id(module)}-{len(getattr(module, '__dict__', ()))}"
    try:
        yield
    finally:
        freezegun[name] = stamp


def _schema_of(true: type) -> Callable[..., Any]:
    return lambda _cls, _source, handler: handler(true)


def _set_zone(name: str | None) -> None:
    """Set the local time zone, so that a date does not depend on the machine. Windows has no such setting."""
    if not hasattr(time, "tzset"):
        return
    if name is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = name
    time.tzset()
