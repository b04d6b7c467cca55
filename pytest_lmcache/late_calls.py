"""Calls that come after the test or block that started them has ended: refused on replay, counted while recording."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from pytest_lmcache import origins
from pytest_lmcache.errors import UnsupportedCall
from pytest_lmcache.not_recorded import NotRecorded, Reason
from pytest_lmcache.origins import Late
from pytest_lmcache.recorder import Recorder


class LateCalls:
    """The late calls of a run; ``refused`` counts those by the name of what started them.

    ``live`` makes a recorder that lets calls pass, and counts them.
    """

    def __init__(self, live: Callable[[], Recorder]) -> None:
        self.refused: Counter[str] = Counter()
        self._live = live
        self._passed: dict[str, Recorder] = {}
        self._lock = threading.Lock()

    def recorder(self, found: Recorder | None, running: Sequence[Recorder]) -> Recorder | None:
        """The recorder of a call made here and now, ``found`` if it is not late; raises where it is refused.

        ``running`` are the recorders of tests that have not ended: the last of them fails with what is refused.
        """
        origin = origins.current()
        while origin is not None and origin.late is not None:
            # What a block started may still be its test's, or that of another block.
            is_free = origin.is_test or found is None or found.watched
            if origin.late is Late.REFUSED and is_free:
                self._refuse(origin.name, running)
            if origin.late is Late.NOT_RECORDED and is_free:
                with self._lock:
                    return self._passed.setdefault(origin.name, self._live())
            origin = origin.parent
        return found

    def _refuse(self, name: str, running: Sequence[Recorder]) -> NoReturn:
        miss = UnsupportedCall(
            f"{name} has ended, and {origins.runner()} that it started calls a language model now. A run that replays lets "
            "nothing reach a provider unrecorded, and the call belongs to no test any more.\n"
            "End what a test starts with the test: join the thread, await or cancel the task, wait for the process. What serves several "
            "tests is started by a fixture of scope module or session."
        )
        with self._lock:
            self.refused[name] += 1
        if running:
            running[-1].faults.append(miss)
        raise miss

    def passed(self) -> Iterator[tuple[str, list[NotRecorded]]]:
        """The calls that were let pass while recording, by the name of what started them."""
        for name, recorder in self._passed.items():
            calls = [f"{call.name}() was called after it had ended" for call in recorder.calls]
            yield name, [NotRecorded(Reason.LATE, call) for call in calls]
