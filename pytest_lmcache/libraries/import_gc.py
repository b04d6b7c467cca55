"""The garbage collector while LiteLLM or DSPy is imported: it rests, and passes over what the import leaves."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_lmcache.libraries.import_hook import ExecutionWatch

if TYPE_CHECKING:
    from types import ModuleType


class RestingCollector(ExecutionWatch):
    """Has the garbage collector rest while one of some packages is imported, until ``stop``.

    Afterwards the objects that there are then are frozen: `gc.collect` does not look at them. If the collector was
    off before the import, or is switched on within, it is left alone.
    """

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._names = packages
        self._lock = threading.Lock()
        self._imports = 0  # that run now: one imports another, or threads import
        super().__init__(packages, lambda _module: None)

    def is_watched(self, name: str) -> bool:
        """Whether a module is one of the packages; what it imports belongs to its own import."""
        return name in self._names

    @contextmanager
    def executing(self, module: ModuleType) -> Iterator[None]:
        """Rest while a package is imported, not while it is reloaded."""
        rests = self._begin(module)
        try:
            yield
        finally:
            if rests:
                self._end()

    def _begin(self, module: ModuleType) -> bool:
        with self._lock:
            if self._imports == 0 and (not gc.isenabled() or sys.modules.get(module.__name__) is not module):
                return False
            self._imports += 1
            gc.disable()
            return True

    def _end(self) -> None:
        with self._lock:
            self._imports -= 1
            if self._imports == 0 and not gc.isenabled():
                gc.enable()
                gc.freeze()
