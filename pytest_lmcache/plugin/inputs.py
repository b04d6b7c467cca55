"""The clock and the random numbers of tests that set them, from the first fixture of the test to the last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_lmcache.random_seed import RandomSeed
    from pytest_lmcache.recorder import Recorder

_seed_key: pytest.StashKey[RandomSeed | None] = pytest.StashKey()
_frozen_key: pytest.StashKey[bool] = pytest.StashKey()


def begin(item: pytest.Item, recorder: Recorder) -> None:
    """Stop the clock of a test, if its settings say so. Raises CassetteError if they do and it cannot be read."""
    item.stash[_seed_key] = None
    item.stash[_frozen_key] = recorder.settings.freeze_time
    if recorder.settings.freeze_time:
        from pytest_lmcache.frozen_time import freeze

        freeze(recorder)
    if recorder.settings.seed is not None:
        from pytest_lmcache.random_seed import seeded

        item.stash[_seed_key] = seeded(recorder)


def fixture_begins(item: pytest.Item) -> None:
    """Seed a test before its first own fixture; pytest-randomly has seeded it before."""
    if (seed := item.stash.get(_seed_key, None)) is not None:
        seed.begin()


@contextmanager
def test_runs(item: pytest.Item) -> Iterator[None]:
    """Continue with the random state that the test's fixtures have left, whatever other plugins seed before the test."""
    if (seed := item.stash.get(_seed_key, None)) is None:
        yield
        return
    seed.pause()
    runtest = item.runtest

    def seeded_runtest() -> None:
        seed.begin()
        runtest()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item, "runtest", seeded_runtest)
        yield


@contextmanager
def left_out(item: pytest.Item | None) -> Iterator[None]:
    """Let a fixture that outlives the test see the real clock, and other random numbers."""
    seed = None if item is None else item.stash.get(_seed_key, None)
    with ExitStack() as stack:
        if seed is not None:
            stack.enter_context(seed.left_out())
        if item is not None and item.stash.get(_frozen_key, False):
            from pytest_lmcache.frozen_time import clock

            stack.enter_context(clock.going())
        yield
