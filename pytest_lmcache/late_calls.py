"""Calls made after the test or block that started them has ended: refused on replay, else reported."""

from __future__ import annotations

from pytest_lmcache import origins
from pytest_lmcache.errors import UnsupportedCall
from pytest_lmcache.origins import Late, Origin
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.settings import Mode


def late_policy(recorder: Recorder) -> Late:
    """What happens to the calls that come after a recorder's test or block has ended."""
    if recorder.mode is Mode.LIVE:
        return Late.ALLOWED
    # In mode once, a test that has just recorded was not replaying.
    return Late.REFUSED if recorder.is_offline and not recorder.recorded else Late.NOT_RECORDED


def late_origin(*, is_inside: bool) -> Origin | None:
    """The ended test or block whose call is made here and now, None if the call is not late.

    ``is_inside``: a test or block is open that the call belongs to, unless another test started it.
    """
    origin = origins.current()
    while origin is not None and origin.late is not None:
        # What a block has started may still belong to its test, or to another block.
        if origin.late is not Late.ALLOWED and (origin.is_test or not is_inside):
            return origin
        origin = origin.parent
    return None


def refusal(origin: Origin) -> UnsupportedCall:
    """The error of a late call that is refused."""
    return UnsupportedCall(
        f"{origin.name} has ended, and {origins.runner()} that it started calls a language model now. A run that "
        "replays lets nothing reach a provider unrecorded, and the call belongs to no test any more.\n"
        "End what a test starts with the test: join the thread, await or cancel the task, wait for the process. "
        "Start what serves several tests in a fixture of scope module or session."
    )
