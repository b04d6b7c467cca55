"""What a child process of a test does first; light, since the `.pth` file of this package runs it."""

from __future__ import annotations

import os
from typing import Any

from pytest_lmcache.children.starts import Membership, starts
from pytest_lmcache.environment import PARENT_VARIABLE, prefer_local_prices, replace_keys
from pytest_lmcache.libraries import LIBRARIES
from pytest_lmcache.libraries.import_hook import ImportWatch


class Child:
    """The child of a test that this process is."""

    def __init__(self) -> None:
        self.variable = ""
        self._watches: list[ImportWatch] = []
        self._remote: Any = None

    def start(self, variable: str) -> None:
        """From here on, belong to the test of this variable; to none if it is empty."""
        self.stop()
        if not variable:
            return
        self.variable = os.environ[PARENT_VARIABLE] = variable
        prefer_local_prices()
        if self._membership().is_offline:
            replace_keys()
        starts.watch(self._membership)
        # The last one is imported by whoever decorates a function with `recorded`.
        names = (*LIBRARIES, "pytest_lmcache.remembered")
        self._watches = [ImportWatch(name, self._library_is_there) for name in names]

    def stop(self) -> None:
        """From here on, belong to no test."""
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
        return Membership.parse(self.variable)

    def _library_is_there(self) -> None:
        """From here on, the calls of LiteLLM and DSPy belong to the test."""
        if self._remote is not None:
            return
        from pytest_lmcache.children.remote import RemoteRecorder
        from pytest_lmcache.session import session

        self._remote = RemoteRecorder(self._membership())
        session.open(self._remote)


child = Child()


def start(variable: str | None = None) -> None:
    """Begin as the child of the test of this variable, by default that of the environment."""
    given = os.environ.get(PARENT_VARIABLE, "") if variable is None else variable
    if given != child.variable:
        child.start(given)
