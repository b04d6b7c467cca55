"""Which test or block started the code that runs here and now: by its context, or by who started its thread."""

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

ATTRIBUTE = "_lmcache_origin"  # of a thread


class Late(Enum):
    """What happens to a call that is made after the test or block that started it has ended."""

    ALLOWED = auto()  # the test was live, or not marked
    REFUSED = auto()
    NOT_RECORDED = auto()


@dataclass(eq=False, slots=True)
class Origin:
    """A test, or a block within ``parent``; ``late`` is None until it has ended."""

    name: str
    is_test: bool = True
    parent: Origin | None = None
    late: Late | None = None

    def is_late(self, *policies: Late) -> bool:
        """Whether it has ended, and one of these policies holds for it or for its parent."""
        if self.late is None:
            return False
        return self.late in policies or (self.parent is not None and self.parent.is_late(*policies))


_origin: ContextVar[Origin | None] = ContextVar("pytest_lmcache_origin")
_process: ContextVar[str] = ContextVar("pytest_lmcache_process", default="")


def current() -> Origin | None:
    """The test or block that started what runs here; None if no test did, such as for a shared fixture."""
    try:
        return _origin.get()
    except LookupError:  # a new thread has an empty context
        origin: Origin | None = vars(threading.current_thread()).get(ATTRIBUTE)
        return origin


def replace(origin: Origin | None) -> Origin | None:
    """Have this context belong to another origin. Returns the one before."""
    before = current()
    _origin.set(origin)
    return before


@contextmanager
def _within(origin: Origin | None) -> Iterator[None]:
    token = _origin.set(origin)
    try:
        yield
    finally:
        _origin.reset(token)


def coroutine_of(origin: Origin, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a coroutine function to belong to an origin, in whichever task it runs."""

    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        with _within(origin):
            return await function(*args, **kwargs)

    return run


@contextmanager
def of_process(name: str) -> Iterator[None]:
    """Have ``runner`` name a child process within, for which this process acts."""
    token = _process.set(name)
    try:
        yield
    finally:
        _process.reset(token)


def runner() -> str:
    """What messages call the thread, task or process that runs here."""
    thread = threading.current_thread()
    if process := _process.get():
        return process
    is_main = thread is threading.main_thread()
    return "a task, a callback or a copied context" if is_main else f"the thread {thread.name}"


class Threads:
    """Wraps the functions that start threads and submit work to executors, so that each knows its origin."""

    def __init__(self) -> None:
        self._followers = 0
        self._lock = threading.Lock()
        self._wrapped: list[tuple[Any, str, Any, Any]] = []

    def follow(self) -> None:
        """Wrap the functions until ``unfollow`` has been called as often."""
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            self._followers += 1
            if self._followers == 1:
                self._wrap(threading.Thread, "start", _starting)
                self._wrap(ThreadPoolExecutor, "submit", _submitting)
                self._wrap(_thread, "start_new_thread", _starting_raw)

    def unfollow(self) -> None:
        """Restore ``threading`` and ``concurrent.futures``."""
        with self._lock:
            self._followers -= 1
            while not self._followers and self._wrapped:
                kind, name, original, wrapped = self._wrapped.pop()
                if vars(kind)[name] is wrapped:  # else another tool has wrapped it since
                    setattr(kind, name, original)

    def wait(self, seconds: float) -> None:
        """Wait for the threads of ended tests that Python itself waits for when it ends."""
        pause = 0.01
        for _ in range(int(seconds / pause)):
            if all(is_daemon for is_daemon in _left(Late.REFUSED, Late.NOT_RECORDED)):
                return
            time.sleep(pause)

    def has_left(self) -> bool:
        """Whether a thread still runs that a replaying test has started which has ended."""
        return any(True for _ in _left(Late.REFUSED))

    def _wrap(self, kind: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        original = vars(kind)[name]
        wrapped = wrap(getattr(kind, name))  # not the original, which may be a descriptor, such as wrapt's
        self._wrapped.append((kind, name, original, wrapped))
        setattr(kind, name, wrapped)


THREADS = Threads()


class _Work:
    """A function that runs in another thread and belongs to an origin; pickled, it is the function only."""

    def __init__(self, origin: Origin, function: Callable[..., Any], *, is_daemon: bool = False) -> None:
        self.origin = origin
        self.function = function
        self.is_daemon = is_daemon

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _running.add(self)
        with _within(self.origin):
            try:
                return self.function(*args, **kwargs)
            finally:
                _running.discard(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (self.function,)


_running: set[_Work] = set()


def _left(*policies: Late) -> Iterator[bool]:
    """For each thread and work item of an ended test with one of these policies: whether Python ends without it."""
    running: list[tuple[Origin | None, bool]] = [
        (vars(thread).get(ATTRIBUTE), thread.daemon) for thread in threading.enumerate()
    ]
    running += [(work.origin, work.is_daemon) for work in tuple(_running)]
    return (is_daemon for origin, is_daemon in running if origin is not None and origin.is_late(*policies))


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
        return original(function if origin is None else _Work(origin, function, is_daemon=True), *args)

    return start_new_thread


def _submitting(original: Any) -> Any:
    @functools.wraps(original)
    def submit(pool: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        origin = current()
        if origin is None:
            return original(pool, function, *args, **kwargs)
        with _within(None):  # a worker thread that starts here serves later tests too
            work = _Work(origin, function)
            future = original(pool, work, *args, **kwargs)
            _running.add(work)
            future.add_done_callback(lambda _: _running.discard(work))
            return future

    return submit
