"""Which recorder a call made here and now belongs to, by the open tests and blocks and the calling context."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import Context, ContextVar
from dataclasses import dataclass
from enum import Enum, auto

from pytest_lmcache import origins
from pytest_lmcache.errors import UnsupportedCall
from pytest_lmcache.origins import Late, Origin
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.settings import Mode


class Kind(Enum):
    """For whom a scope is."""

    TEST = auto()  # every context
    BLOCK = auto()  # its own context, and every thread without a context
    THREAD_BLOCK = auto()  # its own context only: a thread without a context opened it within a test


@dataclass(eq=False, slots=True)
class Scope:
    """A test, a shared fixture or a ``use_cassette`` block that is open.

    ``outer`` is the recorder that its context belonged to before. In a process made by fork, ``remote`` reaches
    the recorder, which has stayed in the other process.
    """

    recorder: Recorder
    kind: Kind
    outer: Recorder | None = None
    origin: Origin | None = None
    remote: Recorder | None = None

    @property
    def target(self) -> Recorder:
        """The recorder that decides on the scope's calls."""
        return self.remote or self.recorder


_recorder: ContextVar[Recorder | None] = ContextVar("pytest_lmcache_recorder", default=None)


def enter_context(context: Context, recorder: Recorder | None) -> None:
    """Have a context belong to a recorder."""
    context.run(_recorder.set, recorder)


class Scopes:
    """The open scopes, the innermost last. They close in any order, since fixtures and tests interleave."""

    def __init__(self) -> None:
        self._open: tuple[Scope, ...] = ()

    def __iter__(self) -> Iterator[Scope]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def push(self, recorder: Recorder, *, is_block: bool) -> Scope:
        """Open a scope, and have this context belong to it."""
        kind = Kind.TEST
        if is_block:
            is_strange = bool(self.tests()) and self.of_context() is None
            kind = Kind.THREAD_BLOCK if is_strange else Kind.BLOCK
        scope = Scope(recorder, kind, _recorder.get())
        self._open = (*self._open, scope)
        _recorder.set(recorder)
        return scope

    def remove(self, recorder: Recorder) -> Scope:
        """Close a recorder's scope; its context belongs to the outer one again."""
        scope = next(scope for scope in self._open if scope.recorder is recorder)
        self._open = tuple(other for other in self._open if other is not scope)
        for other in self._open:
            if other.outer is recorder:
                other.outer = scope.outer
        if _recorder.get() is recorder:
            _recorder.set(scope.outer)
        return scope

    def of_context(self) -> Scope | None:
        """The scope that this context belongs to, None if that has ended or the context never had one."""
        own = _recorder.get()
        return next((scope for scope in self._open if scope.recorder is own), None)

    def current(self) -> Scope | None:
        """The scope of a call that is made in this context; None if the context belongs to no open scope.

        A block is for its own context, a test for every context.
        """
        own, found = _recorder.get(), None
        for scope in reversed(self._open):
            if found is None and (scope.recorder is own or scope.kind is Kind.TEST):
                found = scope
            if scope.recorder is own:
                return found
        return None

    def innermost(self) -> Scope | None:
        """The scope of a call that is made in a context which belongs to none."""
        return next((scope for scope in reversed(self._open) if scope.kind is not Kind.THREAD_BLOCK), None)

    def tests(self) -> list[Recorder]:
        """The recorders of the tests and shared fixtures that are open, the innermost last."""
        return [scope.recorder for scope in self._open if scope.kind is Kind.TEST]


# Calls made after the test or block that started them has ended: refused on replay, else reported.


def late_policy(recorder: Recorder) -> Late:
    """What happens to the calls that come after a recorder's test or block has ended."""
    if recorder.mode is Mode.LIVE:
        return Late.ALLOWED
    # In mode once, a test that has just recorded was not replaying.
    return Late.REFUSED if recorder.is_offline and not recorder.has_new else Late.NOT_RECORDED


def late_origin(*, is_inside: bool) -> Origin | None:
    """The ended test or block whose call is made here and now, None if the call is not late.

    ``is_inside``: a test or block is open that the call belongs to, unless another test started it.
    """
    origin = origins.current()
    while origin is not None and origin.late is not None:
        # What a block has started may still belong to its test, or to another block.
        if origin.late is not Late.ALLOWED and (origin.is_test or not is_inside):
            return origin
        origin = origin.parent
    return None


def refusal(origin: Origin) -> UnsupportedCall:
    """The error of a late call that is refused."""
    return UnsupportedCall(
        f"{origin.name} has ended, and {origins.runner()} that it started calls a language model now. The "
        "call belongs to no test any more, and a replaying run refuses such calls.\n"
        "Before the test ends, join the thread, await or cancel the task, or wait for the process. If it serves "
        "several tests, start it in a fixture of scope module or session."
    )
