"""Seeds the random numbers of a test or a block, and restores their state afterwards."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder


def seeded(recorder: Recorder) -> RandomSeed | None:
    """What seeds a recorder's test or block until it ends; None if its settings do not say so."""
    if recorder.settings.seed is None:
        return None
    seed = RandomSeed(recorder.settings.seed)
    recorder.at_end.callback(seed.end)
    return seed


class RandomSeed:
    """The random numbers of one test or block, of Python's ``random`` and of numpy if it has been imported."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._before: Any = None  # the state that is not the test's
        self._own: Any = None

    def begin(self) -> None:
        """Seed, the first time; afterwards go on where the test was, whatever others have seeded since."""
        if self._before is None:
            self._before = _state()
            random.seed(self._seed)
            if (numpy := sys.modules.get("numpy.random")) is not None:
                numpy.seed(self._seed)
        elif self._own is not None:
            _restore(self._own)
        self._own = None

    def pause(self) -> None:
        """Remember where the test is."""
        if self._before is not None and self._own is None:
            self._own = _state()

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Have what runs within draw other numbers, so that the test gets its own with it and without it."""
        if self._before is None:
            yield
            return
        own = _state()
        _restore(self._before)
        try:
            yield
        finally:
            self._before = _state()
            _restore(own)

    def end(self) -> None:
        """Restore the state from before."""
        if self._before is not None:
            _restore(self._before)


def _state() -> tuple[Any, Any]:
    numpy = sys.modules.get("numpy.random")
    return random.getstate(), None if numpy is None else numpy.get_state()


def _restore(state: tuple[Any, Any]) -> None:
    random.setstate(state[0])
    if state[1] is not None:
        sys.modules["numpy.random"].set_state(state[1])
