"""What a run of pytest learns of calls that no test of its own has made, and of misses before a test has ended."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache import origins, places
from pytest_lmcache.errors import CassetteMiss, UnsupportedCall, still_running
from pytest_lmcache.plugin.tracebacks import calling_file
from pytest_lmcache.settings import Mode

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder
    from pytest_lmcache.summary import Summary

PATIENCE = 10.0  # seconds that a test may go on after a miss without a word
OUTSIDE = "outside of the tests, such as while a module is imported: use_cassette records them"


class Observer:
    """Counts what happens to the calls of one run of pytest; ``current`` is the test that runs."""

    def __init__(self, config: pytest.Config, mode: Mode, *, refuses_outside: bool) -> None:
        self.config = config
        self.mode = mode
        self.refuses_outside = refuses_outside  # calls that belong to no test
        self.current: pytest.Item | None = None
        self._summary: Summary | None = None
        self._alarm: Timer | None = None

    @property
    def summary(self) -> Summary:
        """The facts of this process and of the workers that have ended."""
        if self._summary is None:
            from pytest_lmcache.summary import Summary

            self._summary = Summary()
        return self._summary

    @property
    def has_counted(self) -> bool:
        """Whether anything was counted."""
        return self._summary is not None

    def add_worker(self, data: dict[str, Any]) -> None:
        """Add the facts that a worker process sent."""
        self._summary = self.summary + type(self.summary).from_plain(data)

    def missed(self, miss: CassetteMiss) -> None:
        """Tell of a miss before its test has ended, if that does not come to pass."""
        if self.current is not None and self._alarm is None:
            self._alarm = Timer(PATIENCE, self._tell_of_hang, [self.current.nodeid, miss])
            self._alarm.daemon = True
            self._alarm.start()

    def test_has_ended(self) -> None:
        """No test runs."""
        self.current = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _tell_of_hang(self, test: str, miss: CassetteMiss) -> None:
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
            sys.stderr.write(still_running(test, PATIENCE, str(miss)))
            sys.stderr.flush()

    def block_ended(self, recorder: Recorder, passed: bool, written: bool, is_told: bool) -> None:
        """Count what a ``use_cassette`` did; ``is_told``: what it stands in counts its misses."""
        test = self.current.nodeid if self.current is not None else OUTSIDE
        self.summary.add_recorder(test, recorder, passed=passed, written=written, counted_by_test=is_told)

    def outside(self, found: Recorder | None) -> Recorder | None:
        """Under ``lm_auto``, refuse the call of a module that is imported, or of a hook, unless a block records it."""
        origin = origins.current()
        is_late = origin is not None and origin.late is not None
        is_ours = self.refuses_outside and self.current is None and not is_late
        is_recorded = found is not None and not found.watched
        if not is_ours or is_recorded:
            return found
        file, is_import = calling_file()
        where = places.relative(Path(file), self.config.rootpath) if file else "a thread"
        self.summary.add_refused_outside(where)
        when = "while it is imported" if is_import else "outside of the tests"
        raise UnsupportedCall(
            f"{where} calls a language model {when}. Under lm_auto, mode {self.mode} lets nothing reach a provider "
            "unrecorded, and this call belongs to no test.\n"
            "Make it in a test or a fixture, or record it where it is: "
            'with pytest_lmcache.use_cassette("cassettes/name.yaml"): ...'
        )
