"""Fixtures that outlive a test: what they ask has a cassette of its own, the same for every selection of tests."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache import origins
from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.origins import Origin
from pytest_lmcache.plugin.cassette_names import fixture_place
from pytest_lmcache.plugin.items import recorder_key
from pytest_lmcache.plugin.run import Run

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder


def set_up_shared(
    run: Run, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Calls of a fixture that outlives the test are recorded in a cassette of the fixture's own."""
    shared = SharedFixture(run, fixturedef, request)
    origin = origins.replace(None)  # what it starts serves whichever test runs
    is_recorded = run.current is not None and recorder_key in run.current.stash
    before = run.engine().current() if run.is_watching else None
    is_blind = run.observer.has_counted and run.summary.unseen
    if is_recorded or (fixturedef in run.marked_fixtures and not is_blind):
        shared.open()
    run.set_ups.append(shared.open)
    request.addfinalizer(shared.close)
    try:
        result = yield
        shared.is_set_up = True
    finally:
        origins.replace(origin)
        run.set_ups.remove(shared.open)
        shared.pause()
        _be_innermost(run, before)
    # The last finalizer to be added is the first to run.
    request.addfinalizer(shared.tear_down)
    return result


def _be_innermost(run: Run, before: Recorder | None) -> None:
    """A block that a shared fixture leaves open stands around the test, as it does for the next one.

    ``before`` is what calls belonged to before the fixture was set up.
    """
    if run.set_ups:  # another one, which needed this, is still being set up
        return
    recorder = run.current.stash.get(recorder_key, None) if run.current is not None else None
    if recorder is not None and run.engine().current() not in {before, recorder}:
        run.engine().close(recorder)
        run.engine().open(recorder)


class SharedFixture:
    """A fixture that outlives a test: what it asks has a cassette of its own, the same for every selection."""

    def __init__(self, run: Run, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
        self.run = run
        self.fixturedef = fixturedef
        self.request = request
        self.is_set_up = False
        self._recorder: Recorder | None = None
        self._is_open = False
        self._origin: Origin | None = None

    def open(self) -> None:
        """From here on the calls are the fixture's."""
        if self._recorder is not None:
            return
        node, nodeid = self.request.node, self.request.node.nodeid or self.fixturedef.baseid or "."
        label = f"the {self.fixturedef.scope} fixture {self.fixturedef.argname} of {nodeid}"
        self._recorder = self.run.recorder(node, fixture_place(self.fixturedef, self.request), label, nodeid)
        self.resume()

    def pause(self) -> None:
        """Set up, or failed to: the calls are the test's again. Raises a miss that the fixture swallowed."""
        if self._recorder is None:
            return
        self._leave()
        if self.is_set_up and self._recorder.faults:
            self.is_set_up = False
            raise self._recorder.faults[0]
        if self.is_set_up:
            self.run.recorders.shared_places.add(self._recorder.path)

    def resume(self) -> None:
        """The calls are the fixture's again."""
        if self._recorder is not None:
            self.run.engine().open(self._recorder)
            self._is_open = True

    def tear_down(self) -> None:
        """The fixture's own teardown begins."""
        self._origin = origins.replace(None)
        self.resume()

    def close(self) -> None:
        """The fixture's end: write its cassette if it was set up. Raises a miss that its teardown swallowed."""
        if self.is_set_up:
            origins.replace(self._origin)
        if self._recorder is None:
            return
        self._leave()
        try:
            self.run.end(self._recorder.label, self._recorder, passed=self.is_set_up)
        except LMCacheError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        if self.is_set_up and self._recorder.faults:
            raise self._recorder.faults[0]

    def _leave(self) -> None:
        if self._is_open and self._recorder is not None:
            self._is_open = False
            self.run.engine().close(self._recorder)
