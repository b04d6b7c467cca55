"""How a process that a test has started begins: run by the `.pth` file of this package, so it has to be light."""

from __future__ import annotations

import os
from typing import Any

from pytest_lmcache.children.starts import OFFLINE, Membership, starts
from pytest_lmcache.environment import PARENT_VARIABLE, prefer_local_prices, replace_keys
from pytest_lmcache.libraries import LIBRARIES
from pytest_lmcache.libraries.import_hook import ImportWatch


class Child:
    """What this process is as one that a test has started."""

    def __init__(self) -> None:
        self.variable = ""
        self._watches: list[ImportWatch] = []
        self._remote: Any = None

    def start(self, variable: str) -> None:
        """Belong to the test of ``variable`` from here on; empty: to none."""
        self.stop()
        if not variable:
            return
        self.variable = os.environ[PARENT_VARIABLE] = variable
        prefer_local_prices()
        if self._membership().is_offline:
            replace_keys()
        starts.watch(self._membership)
        self._watches = [ImportWatch(name, self._library_is_there) for name in LIBRARIES]

    def stop(self) -> None:
        """Belong to no test any more."""
        if not self.variable:
            return
        self.variable = ""
        os.environ.pop(PARENT_VARIABLE, None)
        starts.stop()
        while self._watches:
            self._watches.pop().stop()
        if self._remote is not None:
            from pytest_lmcache.session import session

            session.close(self._remote)
            self._remote = None

    def _membership(self) -> Membership:
        return Membership(self.variable, self.variable.split(" ")[2].endswith(OFFLINE))

    def _library_is_there(self) -> None:
        """LiteLLM or DSPy has been imported: from here on its calls are the test's."""
        if self._remote is not None:
            return
        from pytest_lmcache.children.remote import RemoteRecorder
        from pytest_lmcache.session import session

        self._remote = RemoteRecorder(self.variable)
        session.open(self._remote)


child = Child()


def start(variable: str | None = None) -> None:
    """Begin as a child of the test that a variable of the environment names, or of that of ``variable``."""
    given = os.environ.get(PARENT_VARIABLE, "") if variable is None else variable
    if given != child.variable:
        child.start(given)
