"""Reports that a module has been imported, without importing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

_NOTHING = nullcontext()


class ExecutionWatch:
    """Calls ``then`` with each module of some packages that has been executed: imported or reloaded.

    Is in ``sys.meta_path`` until ``stop`` removes it.
    """

    def __init__(self, packages: Collection[str], then: Callable[[ModuleType], None]) -> None:
        self.then = then
        self._packages = packages
        sys.meta_path.insert(0, self)

    def stop(self) -> None:
        """Report no more modules."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def is_watched(self, name: str) -> bool:
        """Whether the execution of a module is reported."""
        return name.partition(".")[0] in self._packages

    def executing(self, module: ModuleType) -> AbstractContextManager[None]:  # noqa: ARG002 - for subclasses
        """What is around the execution of a module."""
        return _NOTHING

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module by the other finders, and wrap its loader. Part of the import protocol."""
        if not self.is_watched(fullname):
            return None
        finders = list(sys.meta_path)
        others = finders[finders.index(self) + 1 :] if self in finders else finders
        for finder in others:
            find = getattr(finder, "find_spec", None)
            spec = find(fullname, path, target) if find is not None else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = cast("Loader", _Loader(spec.loader, self))
                return cast("ModuleSpec", spec)
        return None


class ImportWatch(ExecutionWatch):
    """Calls ``then`` once the module ``name`` has been imported; at once if it already is.

    Is in ``sys.meta_path`` only until then, or until ``stop`` removes it.
    """

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self.name = name
        self._imported = then
        if name in sys.modules:
            then()
        else:
            super().__init__((), self._executed)

    def _executed(self, _module: ModuleType) -> None:
        self.stop()
        self._imported()

    def is_watched(self, name: str) -> bool:
        """Whether a module is the one that is waited for."""
        return name == self.name


class _Loader:
    """A module's loader, which reports the module's execution to a watch."""

    def __init__(self, loader: Any, watch: ExecutionWatch) -> None:
        self._loader = loader
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its loader does."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module as its loader does, and report it."""
        spec = module.__spec__
        if spec is not None:
            spec.loader = self._loader
        module.__loader__ = self._loader
        with self._watch.executing(module):
            self._loader.exec_module(module)
        self._watch.then(module)
