"""Tells each process that is started here which test it belongs to, however it is started."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

from pytest_lmcache.environment import ALL_PROVIDER_KEYS, DUMMY_KEY, PARENT_VARIABLE
from pytest_lmcache.libraries.import_hook import ImportWatch

OFFLINE = "-offline"  # behind the mode in that variable


class Membership(NamedTuple):
    """Which test a process belongs to, and how it reaches the server of the tests; as text, an environment variable.

    ``is_offline``: nothing may reach a provider.
    """

    scope: str
    token: str
    mode: str
    is_offline: bool
    address: str

    @classmethod
    def parse(cls, text: str) -> Membership:
        """Read the variable. Raises ValueError."""
        scope, token, mode, address = text.split(" ", 3)
        return cls(scope, token, mode.removesuffix(OFFLINE), mode.endswith(OFFLINE), address)

    def __str__(self) -> str:
        return f"{self.scope} {self.token} {self.mode}{OFFLINE * self.is_offline} {self.address}"


class Forks(NamedTuple):
    """What to call before a fork, and after it in the same process and in the copy."""

    before: Callable[[], None]
    after: Callable[[], None]
    in_copy: Callable[[], None]


class Starts:
    """Puts the membership of a process into its environment: wraps the functions that start processes."""

    def __init__(self) -> None:
        self._find: Callable[[], Membership | None] = _none
        self._forks: Forks | None = None
        self._forking: Forks | None = None
        self._has_hooks = False
        self._watches: list[ImportWatch] = []
        self._originals: list[tuple[Any, str, Any, Any]] = []

    def watch(self, find: Callable[[], Membership | None], forks: Forks | None = None) -> None:
        """Wrap the functions, those of a module that is not imported yet when it is.

        ``find`` returns the membership of a process that is started here and now, None if it has none. A process
        made by fork has no environment of its own: ``forks`` are called instead.
        """
        self._find, self._forks = find, forks
        if hasattr(os, "register_at_fork") and not self._has_hooks:
            self._has_hooks = True  # for good: they cannot be removed
            os.register_at_fork(
                before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._in_copy
            )
        if self._watches or self._originals:
            return
        for name in ("posix_spawn", "posix_spawnp", "execve"):
            if hasattr(os, name):
                self._replace(os, name, self._with_environment)
        self._replace(os, "system", self._system)
        self._watches = [
            ImportWatch("subprocess", self._subprocess_is_there),
            ImportWatch("multiprocessing.spawn", self._multiprocessing_is_there),
        ]

    def stop(self) -> None:
        """Remove the wrappers, except where another tool has wrapped them since."""
        self._find, self._forks = _none, None
        while self._watches:
            self._watches.pop().stop()
        while self._originals:
            place, name, wrapper, original = self._originals.pop()
            if vars(place).get(name) is wrapper:
                setattr(place, name, original)

    def environment(self, given: Any = None) -> Any:
        """The environment of a process that is given this one; None is that of this process."""
        found = self._find()
        if found is None or not (given is None or isinstance(given, Mapping)):
            return given
        env: dict[Any, Any] = {**(os.environ if given is None else given), PARENT_VARIABLE: str(found)}
        if found.is_offline:
            env.update(dict.fromkeys(filter(_is_key, env), DUMMY_KEY))
        return env

    def _before_fork(self) -> None:
        self._find()  # this may open the recorder, which sets the forks
        self._forking = self._forks
        if self._forking is not None:
            self._forking.before()

    def _after_fork(self) -> None:
        if self._forking is not None:
            self._forking.after()

    def _in_copy(self) -> None:
        if self._forking is not None:
            self._forking.in_copy()

    def _replace(self, place: Any, name: str, wrapped: Callable[[Any], Any]) -> None:
        original = vars(place)[name]
        wrapper = functools.wraps(original)(wrapped(getattr(place, name)))  # the original may be a descriptor
        self._originals.append((place, name, wrapper, original))
        setattr(place, name, wrapper)

    def _subprocess_is_there(self) -> None:
        import subprocess

        self._replace(subprocess.Popen, "__init__", self._popen)

    def _multiprocessing_is_there(self) -> None:
        from multiprocessing import spawn

        self._replace(spawn, "get_preparation_data", self._preparation)

    def _popen(self, original: Any) -> Any:
        import inspect  # here, since most child processes start no other

        signature = inspect.signature(original)

        def started(*args: Any, **kwargs: Any) -> None:
            try:
                given = signature.bind(*args, **kwargs)
            except TypeError:
                original(*args, **kwargs)  # which raises its own TypeError
                return
            env = given.arguments.get("env")
            if (own := self.environment(env)) is not env:
                given.arguments["env"] = own
            original(*given.args, **given.kwargs)

        return started

    def _with_environment(self, original: Any) -> Any:
        def started(path: Any, argv: Any, env: Any, **kwargs: Any) -> Any:
            return original(path, argv, self.environment(env), **kwargs)

        return started

    def _system(self, original: Any) -> Any:
        def started(command: Any) -> Any:
            with _changed(self.environment()):
                return original(command)

        return started

    def _preparation(self, original: Any) -> Any:
        """For a process by spawn or forkserver, whose environment may be that of the fork server."""

        def prepared(name: Any) -> dict[str, Any]:
            data: dict[str, Any] = original(name)
            return {**data, "pytest_lmcache": _Begin(self._find())}

        return prepared


class _Begin:
    """Begins in a process by spawn or forkserver as `boot` does, when multiprocessing unpickles it there."""

    def __init__(self, membership: Membership | None) -> None:
        self._membership = membership

    def __reduce__(self) -> tuple[Any, ...]:
        return _begin, (str(self._membership or ""),)


def _begin(variable: str) -> None:
    # By name: `boot` imports the engine, which imports this module.
    import_module("pytest_lmcache.children.boot").start(variable)


@contextmanager
def _changed(env: Mapping[str, str] | None) -> Iterator[None]:
    """Change the environment of this process within."""
    old = {name: os.environ.get(name) for name, value in (env or {}).items() if os.environ.get(name) != value}
    os.environ.update({name: (env or {})[name] for name in old})
    try:
        yield
    finally:
        for name, value in old.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _is_key(name: str | bytes) -> bool:
    return os.fsdecode(name) in ALL_PROVIDER_KEYS


def _none() -> None:
    """No membership."""


starts = Starts()
