"""The side of the tests: which test the calls of the processes that they start belong to."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable
from contextvars import Context
from itertools import count
from typing import TYPE_CHECKING

from pytest_lmcache import origins
from pytest_lmcache.children.starts import Forks, Membership, starts
from pytest_lmcache.environment import PARENT_VARIABLE, replace_keys
from pytest_lmcache.errors import UnsupportedCall
from pytest_lmcache.origins import Late, Origin
from pytest_lmcache.recorder import Recorder

if TYPE_CHECKING:
    from pytest_lmcache.children.server import Server


class Parent:
    """Treats a call of a child process as a call made where the process was started.

    ``current`` returns the recorder of a call made now, ``live_call`` reports one that has none. ``here`` returns
    the recorder of what runs now even if it is late, ``context`` makes a context of a recorder and an origin.
    """

    def __init__(
        self,
        current: Callable[[], Recorder | None],
        live_call: Callable[[str], None],
        here: Callable[[], Recorder | None],
        context: Callable[[Recorder | None, Origin | None], Context],
        forks: Forks,
    ) -> None:
        self._current = current
        self._live_call = live_call
        self._here = here
        self._context = context
        self._forks = forks
        self._server: Server | None = None
        self._memberships: dict[Recorder, Membership] = {}
        self._contexts: dict[str, Context] = {}
        self._scopes: dict[tuple[Origin | None, Recorder | None], str] = {}
        self._count = count()
        self._at_fork: dict[Recorder, Membership] = {}
        self._variable_before: str | None = None
        self._is_watching = False

    def admit(self, recorder: Recorder) -> None:
        """From here on, child processes may belong to this recorder."""
        if not self._memberships:
            self._variable_before = os.environ.get(PARENT_VARIABLE)
        if not self._is_watching:
            self._is_watching = True
            starts.watch(self.membership, self._forks)
        self._memberships[recorder] = self._membership(recorder)
        self._set_variable()

    def dismiss(self, recorder: Recorder) -> None:
        """The recorder's test has ended: calls of its child processes are late from here on."""
        if self._memberships.pop(recorder, None) is None:
            return
        self._set_variable()
        for key in [key for key in self._scopes if key[1] is recorder]:
            scope = self._scopes.pop(key)
            if self._server is not None:
                with self._server.lock:  # after the answer that is being given
                    self._contexts[scope] = self._context(None, key[0])

    def close(self) -> None:
        """Stop the server, unless a test is open."""
        if self._memberships:
            return
        if self._is_watching:
            self._is_watching = False
            starts.stop()
        if self._server is not None:
            self._server.close()
            self._server = None

    def before_fork(self, recorders: Iterable[Recorder]) -> None:
        """Stop the server's thread, so that the copy has the threads of the tests only."""
        self._at_fork = {recorder: self._membership(recorder) for recorder in recorders}
        if self._server is not None:
            self._server.pause()

    def after_fork(self) -> None:
        """Go on in the process that was copied."""
        if self._server is not None:
            self._server.resume()

    def forked(self) -> dict[Recorder, Membership]:
        """Go on in the copy. Returns its memberships by recorder; the recorders stay in the other process."""
        found, self._at_fork, self._scopes = self._at_fork, {}, {}
        self._memberships = {key: its for key, its in self._memberships.items() if key not in found}
        if self._server is not None:
            self._server.forget()
            self._server = None
        if any(recorder.is_offline for recorder in found):
            replace_keys()
        return found

    def membership(self) -> Membership | None:
        """Whose the calls of a process that is started here and now are; None if they are nobody's."""
        recorder, origin = self._here(), origins.current()
        if recorder is None and (origin is None or not origin.is_late(Late.REFUSED, Late.NOT_RECORDED)):
            return None
        return self._membership(recorder)._replace(is_offline=_is_offline(recorder, origin))

    def _membership(self, recorder: Recorder | None) -> Membership:
        inherited: Membership | None = getattr(recorder, "membership", None)
        if inherited is not None:  # this process is a child itself
            return inherited
        server = self._running_server()
        key = origins.current(), recorder
        if key not in self._scopes:
            self._scopes[key] = scope = str(next(self._count))
            self._contexts[scope] = self._context(recorder, key[0])
        mode = "live" if recorder is None else recorder.mode
        return server.membership(self._scopes[key], mode, is_offline=_is_offline(recorder, key[0]))

    def _running_server(self) -> Server:
        if self._server is None:
            from pytest_lmcache.children.server import Server

            self._server = Server(self._find, self._report_live_call)
            atexit.register(self.close)
        return self._server

    def _find(self, scope: str, process: str) -> Recorder | None:
        """The recorder of a child's call. Raises UnsupportedCall for a late call that is refused."""
        return self._context_of(scope, process).run(_as_process, process, self._current)

    def _report_live_call(self, scope: str, process: str, name: str) -> None:
        self._context_of(scope, process).run(self._live_call, name)

    def _context_of(self, scope: str, process: str) -> Context:
        context = self._contexts.get(scope)
        if context is None:
            raise UnsupportedCall(f"The test that started {process} is not known to this run of pytest.")
        return context

    def _set_variable(self) -> None:
        """Set the variable of the innermost recorder, for processes that are started without `Starts`."""
        variable = next(map(str, reversed(self._memberships.values())), self._variable_before)
        if variable is None:
            os.environ.pop(PARENT_VARIABLE, None)
        else:
            os.environ[PARENT_VARIABLE] = variable


def _as_process(process: str, find: Callable[[], Recorder | None]) -> Recorder | None:
    with origins.of_process(process):
        return find()


def _is_offline(recorder: Recorder | None, origin: Origin | None) -> bool:
    is_refused = origin is not None and origin.is_late(Late.REFUSED)
    return is_refused or (recorder is not None and recorder.is_offline)
