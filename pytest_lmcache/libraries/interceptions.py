"""The interception of LiteLLM and DSPy: on from when the library is imported, while anybody needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from pytest_lmcache.environment import prefer_local_prices
from pytest_lmcache.libraries import LIBRARIES
from pytest_lmcache.libraries.bypassed_caches import WATCHED
from pytest_lmcache.libraries.import_hook import ExecutionWatch, ImportWatch
from pytest_lmcache.libraries.waits import Waits
from pytest_lmcache.recorder import Recorder

RETRYING = "tenacity"
"""The package whose waits are intercepted."""


class Interceptions:
    """Intercepts between the first ``open`` and the last ``close``.

    ``find`` returns the recorder of a call made here and now, ``live_call`` gets the name of a call that has
    none, ``imported`` is called when a library has been imported, ``waits`` says which waits are skipped.
    """

    def __init__(
        self,
        find: Callable[[], Recorder | None],
        live_call: Callable[[str], None],
        imported: Callable[[], None],
        waits: Waits,
    ) -> None:
        self._find = find
        self._live_call = live_call
        self._imported = imported
        self._waits = waits
        self._made: dict[str, Any] = {}
        self._installed: list[str] = []
        self._watches: list[ExecutionWatch] = []
        self.users = 0

    def open(self) -> None:
        """Begin. Raises DoorError if LiteLLM or DSPy hides its functions; so does a later import of it."""
        self.users += 1
        if self.users == 1:
            try:
                self._install()
            except BaseException:
                self.users = 0
                self._remove()
                raise

    def close(self) -> None:
        """End, if nobody else has begun."""
        self.users -= 1
        if not self.users:
            self._remove()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Intercept nothing within, whoever has begun."""
        users, self.users = self.users, 0
        self._remove()
        try:
            yield
        finally:
            self.users = users
            if users:
                self._install()

    def rescan(self) -> None:
        """Intercept what has been imported since, also if a library has been imported anew."""
        for name in self._installed:
            self._made[name].rescan()

    def _install(self) -> None:
        prefer_local_prices()
        for name in (*WATCHED, RETRYING):
            self._watches.append(ImportWatch(name, partial(self._library_imported, name)))
        self._watches.append(ExecutionWatch(LIBRARIES, self._module_executed))

    def _remove(self) -> None:
        while self._watches:
            self._watches.pop().stop()
        while self._installed:
            self._made[self._installed.pop()].close()

    def _library_imported(self, name: str) -> None:
        if not self.users or name in self._installed:
            return
        if name in {*LIBRARIES, RETRYING}:
            if name not in self._made:
                # A run without DSPy does not import what only that needs.
                module = import_module(f"pytest_lmcache.libraries.{name}.intercept")
                self._made[name] = (
                    module.Interception(self._waits)
                    if name == RETRYING
                    else module.Interception(self._find, self._live_call, self._waits)
                )
            self._made[name].open()
            self._installed.append(name)
        self._imported()

    def _module_executed(self, module: ModuleType) -> None:
        """A module has been imported or reloaded: its functions are new."""
        name = module.__name__.partition(".")[0]
        if name in self._installed:
            self._made[name].module_executed(module)
