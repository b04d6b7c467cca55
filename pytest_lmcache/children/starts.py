"""Has each process that is started here know which test it belongs to, whatever starts it."""

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
    """Which test a process belongs to: the text of its variable, and whether nothing may reach a provider."""

    variable: str
    is_offline: bool


class Forks(NamedTuple):
    """What is done around a fork: before it, after it in the same process, and in the copy."""

    before: Callable[[], None]
    after: Callable[[], None]
    in_copy: Callable[[], None]


class Starts:
    """Gives processes their membership in their environment; ``find`` says which one is that of a process started now.

    Functions are wrapped from the first ``watch`` on until ``stop``. A process made by fork gets no environment:
    there ``forks`` see to it.
    """

    def __init__(self) -> None:
        self._find: Callable[[], Membership | None] = _none
        self._forks: Forks | None = None
        self._forking: Forks | None = None
        self._has_hooks = False
        self._watches: list[ImportWatch] = []
        self._originals: list[tuple[Any, str, Any, Any]] = []

    def watch(self, find: Callable[[], Membership | None], forks: Forks | None = None) -> None:
        """Wrap what starts processes, now or when it is imported."""
        self._find, self._forks = find, forks
        if hasattr(os, "register_at_fork") and not self._has_hooks:
            self._has_hooks = True  # for ever: there is no way to take them back
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
        """Take the wrappers off, where nobody has put others on top of them."""
        self._find, self._forks = _none, None
        while self._watches:
            self._watches.pop().stop()
        while self._originals:
            place, name, wrapper, original = self._originals.pop()
            if vars(place).get(name) is wrapper:
                setattr(place, name, original)

    def environment(self, given: Any = None) -> Any:
        """What a process gets as its environment in the place of ``given``, None for that of this process."""
        found = self._find()
        if found is None or not (given is None or isinstance(given, Mapping)):
            return given
        env: dict[Any, Any] = {**(os.environ if given is None else given), PARENT_VARIABLE: found.variable}
        if found.is_offline:
            env.update(dict.fromkeys(filter(_is_key, env), DUMMY_KEY))
        return env

    def _before_fork(self) -> None:
        self._find()  # who looks only now sets the forks
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
        import inspect  # a process that starts no other needs it not

        signature = inspect.signature(original)

        def started(*args: Any, **kwargs: Any) -> None:
            try:
                given = signature.bind(*args, **kwargs)
            except TypeError:
                original(*args, **kwargs)  # says what is wrong
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
        """A process by spawn or forkserver has the environment of this one, or of another one that forks for it."""

        def prepared(name: Any) -> dict[str, Any]:
            data: dict[str, Any] = original(name)
            return {**data, "pytest_lmcache": _Luggage(self._find())}

        return prepared


class _Luggage:
    """Tells a process by spawn or forkserver its membership, when it reads what it is to do."""

    def __init__(self, membership: Membership | None) -> None:
        self._membership = membership

    def __reduce__(self) -> tuple[Any, ...]:
        return _begin, (self._membership.variable if self._membership is not None else "",)


def _begin(variable: str) -> None:
    """In the process that was started: begin as `boot` does, which knows the engine."""
    import_module("pytest_lmcache.children.boot").start(variable)


@contextmanager
def _changed(env: Mapping[str, str] | None) -> Iterator[None]:
    """The environment of this process changed for a moment."""
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
    """Nobody records."""


starts = Starts()
