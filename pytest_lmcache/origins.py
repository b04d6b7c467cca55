"""Which test started the code that runs here and now: by its context, or by who started its thread."""

from __future__ import annotations

import _thread
import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

ATTRIBUTE = "_lmcache_origin"


class Late(Enum):
    """What happens to a call that comes after the test or block that started it."""

    AS_ANY = auto()  # the test was live, or not marked
    REFUSED = auto()
    NOT_RECORDED = auto()


@dataclass(eq=False, slots=True)
class Origin:
    """A test, or a block of it; ``late`` is None until it has ended."""

    name: str
    is_test: bool = True
    parent: Origin | None = None
    late: Late | None = None

    def is_late(self, *ways: Late) -> bool:
        """Whether it has ended, or what it stands in, so that its calls are treated in one of these ways."""
        return self.late is not None and (
            self.late in ways or (self.parent is not None and self.parent.is_late(*ways))
        )


_origin: ContextVar[Origin | None] = ContextVar("pytest_lmcache_origin")
_process: ContextVar[str] = ContextVar("pytest_lmcache_process", default="")


def current() -> Origin | None:
    """The test or block that started what runs here; None for what belongs to no test, such as a shared fixture."""
    try:
        return _origin.get()
    except LookupError:  # a thread's context is its own
        origin: Origin | None = vars(threading.current_thread()).get(ATTRIBUTE)
        return origin


def replace(origin: Origin | None) -> Origin | None:
    """From here on this context belongs to another origin; gives the one before."""
    before = current()
    _origin.set(origin)
    return before


def coroutine_of(origin: Origin, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same coroutine function, which belongs to an origin also in a task that does not."""

    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        token = _origin.set(origin)
        try:
            return await function(*args, **kwargs)
        finally:
            _origin.reset(token)

    return run


@contextmanager
def of_process(name: str) -> Iterator[None]:
    """Around what is done here for another process."""
    token = _process.set(name)
    try:
        yield
    finally:
        _process.reset(token)


def runner() -> str:
    """What a message calls that which runs here and now."""
    thread = threading.current_thread()
    if process := _process.get():
        return process
    is_main = thread is threading.main_thread()
    return "a task, a callback or a copied context" if is_main else f"the thread {thread.name}"


class Threads:
    """Has threads, and what executors run, know who started them, while anybody wants that."""

    def __init__(self) -> None:
        self._followers = 0
        self._lock = threading.Lock()
        self._wrapped: list[tuple[Any, str, Any, Any]] = []

    def follow(self) -> None:
        """From here on, until ``unfollow`` was called as often."""
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            self._followers += 1
            if self._followers == 1:
                self._wrap(threading.Thread, "start", _starting)
                self._wrap(ThreadPoolExecutor, "submit", _submitting)
                self._wrap(_thread, "start_new_thread", _starting_raw)

    def unfollow(self) -> None:
        """Leave ``threading`` and ``concurrent.futures`` as they were."""
        with self._lock:
            self._followers -= 1
            while not self._followers and self._wrapped:
                kind, name, original, wrapped = self._wrapped.pop()
                if vars(kind)[name] is wrapped:  # else another tool has wrapped it since
                    setattr(kind, name, original)

    def wait(self, seconds: float) -> None:
        """Wait for what ended tests have left running, where Python itself waits for it when it ends."""
        pause = 0.01
        for _ in range(int(seconds / pause)):
            left = _left(Late.REFUSED, Late.NOT_RECORDED)
            if all(is_daemon for is_daemon in left):
                return
            time.sleep(pause)

    def has_left(self) -> bool:
        """Whether anything is still running that an ended, replaying test has started."""
        return any(True for _ in _left(Late.REFUSED))

    def _wrap(self, kind: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        original = vars(kind)[name]
        wrapped = wrap(getattr(kind, name))  # not the original, which may be a descriptor, such as wrapt's
        self._wrapped.append((kind, name, original, wrapped))
        setattr(kind, name, wrapped)


THREADS = Threads()


class _Submitted:
    """A work item that runs as its submitter's; pickled, as for another interpreter, it is the function alone."""

    def __init__(self, origin: Origin, function: Callable[..., Any], *, is_daemon: bool = False) -> None:
        self.origin = origin
        self.function = function
        self.is_daemon = is_daemon

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _submitted.add(self)
        token = _origin.set(self.origin)
        try:
            return self.function(*args, **kwargs)
        finally:
            _submitted.discard(self)
            _origin.reset(token)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (self.function,)


_submitted: set[_Submitted] = set()  # those that have not ended


def _left(*ways: Late) -> Iterator[bool]:
    """Of each thread and work item that is treated in one of these ways: whether Python ends without it."""
    running: list[tuple[Origin | None, bool]] = [
        (vars(thread).get(ATTRIBUTE), thread.daemon) for thread in threading.enumerate()
    ]
    running += [(work.origin, work.is_daemon) for work in tuple(_submitted)]
    return (is_daemon for origin, is_daemon in running if origin is not None and origin.is_late(*ways))


def _starting(original: Any) -> Any:
    @functools.wraps(original)
    def start(thread: threading.Thread) -> None:
        vars(thread)[ATTRIBUTE] = current()
        original(thread)

    return start


def _starting_raw(original: Any) -> Any:
    @functools.wraps(original)
    def start_new_thread(function: Callable[..., Any], /, *args: Any) -> Any:
        origin = current()
        return original(function if origin is None else _Submitted(origin, function, is_daemon=True), *args)

    return start_new_thread


def _submitting(original: Any) -> Any:
    @functools.wraps(original)
    def submit(pool: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        origin = current()
        if origin is None:
            return original(pool, function, *args, **kwargs)
        with _nobodys():  # a worker thread that starts here serves later tests too
            work = _Submitted(origin, function)
            future = original(pool, work, *args, **kwargs)
            _submitted.add(work)
            future.add_done_callback(lambda _: _submitted.discard(work))
            return future

    return submit


@contextmanager
def _nobodys() -> Iterator[None]:
    token = _origin.set(None)
    try:
        yield
    finally:
        _origin.reset(token)
