"""The ``use_cassette`` block and decorator: records and replays without pytest."""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from pytest_lmcache import answer_sources
from pytest_lmcache.cassette.names import identity_of
from pytest_lmcache.commands import Commands
from pytest_lmcache.errors import REPORTED, SettingsError
from pytest_lmcache.fixture import LMCacheFixture
from pytest_lmcache.frozen_time import freeze
from pytest_lmcache.random_seed import seeded
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.session import session
from pytest_lmcache.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

_uses: Counter[Path] = Counter()
_lock = threading.Lock()


class use_cassette:  # noqa: N801 - it reads as a verb, also as a decorator
    """Record and replay the calls of a block, or of a function, without pytest.

    ``with use_cassette("x.yaml", mode="record") as tape:``, ``async with``, or ``@use_cassette("x.yaml")`` on
    a sync or async function. A relative path starts in the current folder, under pytest in its rootdir. With
    ``None`` there is no cassette: the cache answers, and a call that it does not have goes to the provider.
    The other settings are those of the marker. The cassette is written if the block ends without an exception.
    Recordings that the block does not ask for stay, unless its mode is rewrite or it has ``keep_unused=False``.
    Raises SettingsError for an invalid setting.
    """

    def __init__(self, path: str | Path | None, **settings: Any) -> None:
        for name in ("cassette", "cassette_dir", "scope"):
            if name in settings:
                raise SettingsError(
                    f"use_cassette() does not take {name}: its first argument is the path of the cassette."
                )
        if settings.get("samples") is not None and not settings.get("in_turn"):
            raise SettingsError(
                "use_cassette() runs its block once, so it takes samples only in turn: add in_turn=True."
            )
        self._path = None if path is None else Path(_checked(path))
        self._given = settings
        Settings().updated(settings, "use_cassette()")
        self._open: list[Recorder] = []

    def __enter__(self) -> LMCacheFixture:
        configuration = session.configuration
        place = None if self._path is None else configuration.locate(self._path)
        block = Commands(block="None" if self._path is None else f'"{self._path}"')
        recorder = session.recorders.make(
            configuration.block_settings.updated(self._given, "use_cassette()"),
            None if place is None else place.path,
            label="" if self._path is None else str(self._path),
            identity="" if place is None else identity_of(place.path, place.folder),
            commands=Commands(
                block.block_with('mode="record"'), block.block_with('mode="rewrite"'), block.block
            ),
            where=tuple if place is None else place.hints,
        )
        # A program may ask for the rest in its next run.
        recorder.keeps_unused |= "keep_unused" not in self._given
        freeze(recorder)
        if (seed := seeded(recorder)) is not None:
            seed.begin()
        try:
            session.open(recorder, is_block=True)
        except BaseException:
            recorder.at_end.close()
            raise
        self._open.append(recorder)
        return LMCacheFixture(recorder)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        recorder = self._ended()
        session.close(recorder)
        # What it did not ask may go, unless another block of this run uses the file too.
        if recorder.path is not None:
            with _lock:
                _uses[recorder.path] += 1
                recorder.is_shared = _uses[recorder.path] > 1
        if kind is None:
            recorder.check_staged()
        faults = [*recorder.faults, *recorder.inner_faults]
        unraised = [fault for fault in faults if not getattr(fault, REPORTED, False)]
        passed = kind is None and not recorder.faults and not unraised
        is_kept = written = False
        try:
            written = recorder.close(passed=passed)
            is_kept = passed
        finally:
            session.report_block(recorder, passed=is_kept, written=written)
        raised = unraised[0] if kind is None and unraised else error
        if raised is not None and recorder.faults and not session.observer.has_summary:
            _add_causes(raised, recorder)
        if kind is None and unraised:
            raise unraised[0]
        if isinstance(error, Exception) and (advice := answer_sources.advice(recorder)):
            error.add_note(advice)

    def _ended(self) -> Recorder:
        """The recorder of the block that ends here: this context's, or from another context the last one opened."""
        scope = session.scopes.of_context()
        own = None if scope is None else scope.recorder
        recorder = next((recorder for recorder in self._open if recorder is own), self._open[-1])
        self._open.remove(recorder)
        return recorder

    async def __aenter__(self) -> LMCacheFixture:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        self.__exit__(kind, error, _)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Run each call of a function in such a block. Raises SettingsError for a generator or a class."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise _not_decorable(function, "generator function")
        if isinstance(function, type):
            raise _not_decorable(function, "class")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", awaited)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                result = function(*args, **kwargs)
                if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
                    if inspect.iscoroutine(result):
                        result.close()  # else Python warns that it was never awaited
                    raise _not_decorable(function, f"function that returns a {type(result).__name__}")
                return result

        return called


def _add_causes(error: BaseException, recorder: Recorder) -> None:
    """Have an error say, in a paragraph below it, why the block's calls missed and what recording them costs."""
    from pytest_lmcache.miss_causes import misses_of
    from pytest_lmcache.miss_groups import paragraph

    if misses := misses_of(recorder, recorder.label):
        error.add_note(f"\n{paragraph(misses, recorder.commands.record, recorder.commands.rewrite)}")


def _not_decorable(function: Any, kind: str) -> SettingsError:
    return SettingsError(
        f"use_cassette() cannot decorate the {kind} {_name(function)}, because its calls are made after the cassette "
        "has been closed.\n"
        "Put `with use_cassette(...):` around the code that makes them, or decorate the function that does, below "
        "its other decorators."
    )


def _name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", thing))


def _checked(path: Any) -> str:
    """The path that ``use_cassette`` was given. Raises SettingsError if it is not the path of a file."""
    if callable(path):
        raise SettingsError(
            f'use_cassette decorates {_name(path)} without a cassette: write @use_cassette("x.yaml").'
        )
    given = os.fspath(path) if isinstance(path, os.PathLike) else path
    return str(Settings().updated({"cassette": given}, "use_cassette()").cassette)
