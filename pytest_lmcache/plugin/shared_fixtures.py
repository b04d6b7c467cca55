"""Calls of fixtures that outlive a test: they have a cassette of their own, whichever tests are selected."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache import origins
from pytest_lmcache.origins import Origin
from pytest_lmcache.plugin import inputs
from pytest_lmcache.plugin.cassette_paths import fixture_owner
from pytest_lmcache.plugin.node_recorders import recorder_key
from pytest_lmcache.plugin.run import Run

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder


def set_up_shared(
    run: Run, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Around the set-up of a shared fixture: record its calls if any recorded test needs it."""
    shared = SharedFixture(run, fixturedef, request)
    origin = origins.replace(None)  # what it starts serves any test
    test = run.observer.current
    is_recorded = test is not None and recorder_key in test.stash
    before = run.engine().current() if run.is_watching else None
    is_blind = run.observer.has_counted and run.observer.summary.unseen
    if is_recorded or (fixturedef in run.marked_fixtures and not is_blind):
        shared.open()
    run.set_ups.append(shared.open)
    request.addfinalizer(shared.close)
    try:
        with inputs.left_out(test):
            result = yield
        shared.is_set_up = True
    finally:
        origins.replace(origin)
        run.set_ups.remove(shared.open)
        shared.pause()
        _put_test_innermost(run, before)
    # The finalizer that was added last runs first.
    request.addfinalizer(shared.tear_down)
    return result


def _put_test_innermost(run: Run, before: Recorder | None) -> None:
    """Open the test's recorder again inside a block that a shared fixture leaves open, as it is for the next test.

    ``before`` is what calls belonged to before the fixture was set up.
    """
    if run.set_ups:  # the fixture that needed this one is still being set up
        return
    test = run.observer.current
    recorder = test.stash.get(recorder_key, None) if test is not None else None
    if recorder is not None and run.engine().current() not in {before, recorder}:
        run.engine().close(recorder)
        run.engine().open(recorder)


class SharedFixture:
    """The recorder of one shared fixture, from its set-up to its teardown."""

    def __init__(self, run: Run, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
        self.run = run
        self.fixturedef = fixturedef
        self.request = request
        self.is_set_up = False
        self._recorder: Recorder | None = None
        self._is_open = False
        self._origin: Origin | None = None
        self._left_out = ExitStack()

    def open(self) -> None:
        """Calls belong to the fixture from here on."""
        if self._recorder is None:
            owner = fixture_owner(self.fixturedef, self.request)
            self._recorder = self.run.recorders.make(self.run.engine(), self.request.node, owner)
            self._resume()

    def pause(self) -> None:
        """Calls belong to the test again, since the set-up has ended. Raises a miss that the fixture swallowed."""
        if self._recorder is None:
            return
        self._leave()
        if self.is_set_up and self._recorder.faults:
            self.is_set_up = False
            raise self._recorder.faults[0]
        if self.is_set_up:
            self.run.recorders.of_fixtures.add(self._recorder.path)

    def tear_down(self) -> None:
        """Calls belong to the fixture again, since its teardown begins."""
        self._origin = origins.replace(None)
        self._left_out.enter_context(inputs.left_out(self.run.observer.current))
        self._resume()

    def close(self) -> None:
        """Write the cassette if the fixture was set up. Raises a miss that its teardown swallowed."""
        self._left_out.close()
        if self.is_set_up:
            origins.replace(self._origin)
        if self._recorder is None:
            return
        self._leave()
        self.run.write(self._recorder.label, self._recorder, passed=self.is_set_up)
        if self.is_set_up and self._recorder.faults:
            raise self._recorder.faults[0]

    def _resume(self) -> None:
        if self._recorder is not None:
            self.run.engine().open(self._recorder)
            self._is_open = True

    def _leave(self) -> None:
        if self._is_open and self._recorder is not None:
            self._is_open = False
            self.run.engine().close(self._recorder)
