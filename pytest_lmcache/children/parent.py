"""A process whose tests start others: whose the calls of those are."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable
from contextvars import Context
from itertools import count
from typing import TYPE_CHECKING

from pytest_lmcache import origins
from pytest_lmcache.children.starts import VARIABLE, Forks, Membership, starts
from pytest_lmcache.environment import ALL_PROVIDER_KEYS, DUMMY_KEY
from pytest_lmcache.errors import UnsupportedCall
from pytest_lmcache.origins import Late, Origin
from pytest_lmcache.recorder import Recorder

if TYPE_CHECKING:
    from pytest_lmcache.children.server import Server


class Parent:
    """Has the calls of a process belong to what a call would that is made where the process was started.

    ``current`` is the recorder of a call made now, ``here`` the same of what may be late, ``context`` makes a context
    in which calls are those of a recorder and of what has this origin.
    """

    def __init__(
        self,
        current: Callable[[], Recorder | None],
        here: Callable[[], Recorder | None],
        context: Callable[[Recorder | None, Origin | None], Context],
        forks: Forks,
    ) -> None:
        self._forks = forks
        self._current = current
        self._here = here
        self._context = context
        self._server: Server | None = None
        self._shown: dict[Recorder, str] = {}
        self._contexts: dict[str, Context] = {}
        self._scopes: dict[tuple[Origin | None, Recorder | None], str] = {}
        self._count = count()
        self._at_fork: dict[Recorder, str] = {}
        self._before: str | None = None
        self._is_watching = False

    def admit(self, recorder: Recorder) -> None:
        """What is started from now on may belong to this recorder."""
        if not self._shown:
            self._before = os.environ.get(VARIABLE)
        if not self._is_watching:
            self._is_watching = True
            starts.watch(self.membership, self._forks)
        self._shown[recorder] = self._variable(recorder)
        self._show()

    def dismiss(self, recorder: Recorder) -> None:
        """The recorder's test has ended: what it has started is late from now on."""
        if self._shown.pop(recorder, None) is None:
            return
        self._show()
        for key in [key for key in self._scopes if key[1] is recorder]:
            scope = self._scopes.pop(key)
            if self._server is not None:
                with self._server.lock:  # what is being answered is answered first
                    self._contexts[scope] = self._context(None, key[0])

    def close(self) -> None:
        """Answer nobody any more, where no test is under way."""
        if self._shown:
            return
        if self._is_watching:
            self._is_watching = False
            starts.stop()
        if self._server is not None:
            self._server.close()
            self._server = None

    def before_fork(self, recorders: Iterable[Recorder]) -> None:
        """Only the threads of the tests are there when a process is copied."""
        self._at_fork = {recorder: self._variable(recorder) for recorder in recorders if not recorder.watched}
        if self._server is not None:
            self._server.pause()

    def after_fork(self) -> None:
        """Go on in the process that was copied."""
        if self._server is not None:
            self._server.resume()

    def forked(self) -> dict[Recorder, str]:
        """Go on in the copy: the variables of the recorders, which stay with the other process."""
        found, self._at_fork, self._scopes = self._at_fork, {}, {}
        self._shown = {recorder: shown for recorder, shown in self._shown.items() if recorder not in found}
        if self._server is not None:
            self._server.forget()
            self._server = None
        if any(recorder.is_offline for recorder in found):
            os.environ.update(dict.fromkeys(ALL_PROVIDER_KEYS.intersection(os.environ), DUMMY_KEY))
        return found

    def _variable(self, recorder: Recorder | None) -> str:
        own: str | None = getattr(recorder, "variable", None)
        if own is not None:  # this process is a child itself
            return own
        server = self._serving()
        key = origins.current(), recorder
        if key not in self._scopes:
            self._scopes[key] = scope = str(next(self._count))
            self._contexts[scope] = self._context(recorder, key[0])
        mode = "live" if recorder is None else recorder.mode
        return server.variable(self._scopes[key], mode, is_offline=_is_offline(recorder, key[0]))

    def _serving(self) -> Server:
        if self._server is None:
            from pytest_lmcache.children.server import Server

            self._server = Server(self._find)
            atexit.register(self.close)
        return self._server

    def _find(self, scope: str, who: str) -> Recorder | None:
        """The recorder of a call of a process. Raises CassetteMiss where that is late, and refused."""
        context = self._contexts.get(scope)
        if context is None:
            raise UnsupportedCall(f"The test that started {who} is not known to this run of pytest.")
        return context.run(self._current_of, who)

    def _current_of(self, who: str) -> Recorder | None:
        with origins.of_process(who):
            return self._current()

    def membership(self) -> Membership | None:
        """Whose the calls of a process are that is started here and now; None for nobody's."""
        recorder, origin = self._here(), origins.current()
        if recorder is not None and recorder.watched:
            recorder = None
        if recorder is None and (origin is None or not origin.is_late(Late.REFUSED, Late.NOT_RECORDED)):
            return None
        return Membership(self._variable(recorder), _is_offline(recorder, origin))

    def _show(self) -> None:
        """For what is started in a way that `Starts` does not know: the variable of the innermost recorder."""
        variable = next(reversed(self._shown.values()), self._before)
        if variable is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = variable


def _is_offline(recorder: Recorder | None, origin: Origin | None) -> bool:
    is_refused = origin is not None and origin.is_late(Late.REFUSED)
    return is_refused or (recorder is not None and recorder.is_offline)
