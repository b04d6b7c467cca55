"""The door to DSPy's own engine, which calls providers without LiteLLM (DSPy 3.4); also knows DSPy's calls."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing, contextmanager
from contextvars import ContextVar
from typing import Any

from pytest_lmcache import errors, lm15, streams
from pytest_lmcache.doors.visit import StreamTape, Visit
from pytest_lmcache.errors import DoorError
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.keys import request_of
from pytest_lmcache.recorder import Recorder

NAME = "dspy"
ENGINES = "dspy.clients.engines.lm15_engine"
# Each engine's method, and what kind of function it has to be for its stand-in to be one too.
METHODS: dict[tuple[str, str], Callable[[Any], bool]] = {
    ("LM15Engine", "complete"): inspect.isfunction,
    ("LM15Engine", "stream"): inspect.isgeneratorfunction,
    ("AsyncLM15Engine", "complete"): inspect.iscoroutinefunction,
    ("AsyncLM15Engine", "stream"): inspect.isasyncgenfunction,
}
# A client of its own for one provider, which asks neither an engine nor LiteLLM.
REFUSED = ("dspy.clients.typesafe", "TypeSafe")

_calling: ContextVar[bool] = ContextVar("pytest_lmcache_dspy", default=False)


def is_calling() -> bool:
    """Whether a call made here and now is part of a call of a language model of DSPy's.

    DSPy counts no usage for an answer that says ``cache_hit``: a replayed one must not say it then.
    """
    return _calling.get()


class Door:
    """Puts the interception on with the first ``open`` and takes it off with the last ``close``.

    ``find`` gives the recorder that a call belongs to, None where nobody records.
    """

    def __init__(self, find: Callable[[], Recorder | None]) -> None:
        self._find = find
        self._users = 0
        self._lock = threading.Lock()
        self._originals: list[tuple[type, str, Any]] = []

    def open(self) -> None:
        """Put the interception on. Raises DoorError where this DSPy's engine is built otherwise."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            try:
                engines = _engines()
            except DoorError:
                self._users = 0
                raise
            for (name, method), stand_in in zip(METHODS, self._stand_ins(), strict=True):
                if engines:
                    self._replace(engines[name], method, stand_in)
            self._refuse()
            model = getattr(sys.modules.get("dspy.clients.base_lm"), "BaseLM", None)
            if model is not None:
                self._replace(model, "__call__", _calling_sync)
                self._replace(model, "acall", _calling_async)

    def close(self) -> None:
        """Take the interception off: every class of DSPy's is what it was before."""
        with self._lock:
            self._users -= 1
            while not self._users and self._originals:
                kind, name, original = self._originals.pop()
                setattr(kind, name, original)

    def look_again(self) -> None:
        """Nothing of DSPy's comes later than DSPy itself."""

    def _replace(self, kind: type, name: str, stand_in: Callable[[Any], Any]) -> None:
        original = vars(kind).get(name)
        if original is not None:
            self._originals.append((kind, name, original))
            setattr(kind, name, functools.wraps(original)(stand_in(original)))

    def _refuse(self) -> None:
        module, name = REFUSED
        kind = getattr(sys.modules.get(module), name, None)
        if kind is None:
            return

        def stand_in(original: Any) -> Any:
            def refused(*args: Any, **kwargs: Any) -> Any:
                __tracebackhide__ = True
                recorder = self._find()
                if recorder is not None:
                    recorder.refuse(f"dspy.{name}")
                return original(*args, **kwargs)

            return refused

        for method in ("__call__", "acall"):
            self._replace(kind, method, stand_in)

    def _stand_ins(self) -> Iterator[Callable[[Any], Any]]:
        """In the order of METHODS."""
        find = self._find

        def complete(original: Any) -> Any:
            def answered(engine: Any, request: Any) -> Any:
                __tracebackhide__ = True
                recorder = find()
                if recorder is None:
                    return original(engine, request)
                visit = _visit(recorder, engine, request)
                if visit.stored is not None:
                    return _replayed(visit, visit.stored)
                with _failures(visit):
                    response = original(engine, request)
                return _recorded(visit, engine, request, response)

            return answered

        def stream(original: Any) -> Any:
            def events(engine: Any, request: Any) -> Iterator[Any]:
                __tracebackhide__ = True
                recorder = find()
                visit = _visit(recorder, engine, request, stream=True) if recorder is not None else None
                if visit is not None and visit.stored is not None:
                    yield from _replayed(visit, visit.stored)
                    return
                with closing(original(engine, request)) as source:
                    if visit is None:
                        yield from source
                    else:
                        yield from streams.record_stream(source, _tape(visit, engine, request))

            return events

        def acomplete(original: Any) -> Any:
            async def answered(engine: Any, request: Any) -> Any:
                __tracebackhide__ = True
                recorder = find()
                if recorder is None:
                    return await original(engine, request)
                visit = _visit(recorder, engine, request)
                if visit.stored is not None:
                    return _replayed(visit, visit.stored)
                with _failures(visit):
                    response = await original(engine, request)
                return _recorded(visit, engine, request, response)

            return answered

        def astream(original: Any) -> Any:
            async def events(engine: Any, request: Any) -> AsyncIterator[Any]:
                __tracebackhide__ = True
                recorder = find()
                visit = _visit(recorder, engine, request, stream=True) if recorder is not None else None
                if visit is not None and visit.stored is not None:
                    for event in _replayed(visit, visit.stored):
                        yield event
                    return
                async with aclosing(original(engine, request)) as source:
                    if visit is None:
                        async for event in source:
                            yield event
                        return
                    recorded = streams.record_stream(source, _tape(visit, engine, request))
                    async with aclosing(recorded):
                        async for event in recorded:
                            yield event

            return events

        yield from (complete, stream, acomplete, astream)


def _engines() -> dict[str, Any]:
    """DSPy's engine classes by name; none where it has no engine of its own. Raises DoorError."""
    dspy = sys.modules["dspy"]
    if not hasattr(dspy, "lm15"):
        return {}  # before DSPy 3.4 every call goes through LiteLLM
    module = sys.modules.get(ENGINES)
    found = {name: getattr(module, name, None) for name, _ in METHODS}
    wrong = [
        f"{name}.{method}"
        for (name, method), is_kind in METHODS.items()
        if not is_kind(vars(found[name] or object).get(method))
    ]
    # It calls them, and is imported by the first call.
    if (execution := sys.modules.get("dspy.clients.execution")) is not None:
        wrong += [name for name in found if getattr(execution, name, None) is not found[name]]
    if wrong:
        raise DoorError(errors.hidden_engine(str(getattr(dspy, "__version__", "of unknown version")), wrong))
    return found


def _visit(recorder: Recorder, engine: Any, request: Any, *, stream: bool = False) -> Visit:
    __tracebackhide__ = True

    def ask() -> dict[str, Any]:
        config = engine.config
        keys, urls = dict(config.api_keys or {}), dict(config.base_urls or {})
        secrets = {f"{provider}_api_key": key for provider, key in keys.items()}
        recorder.redact.learn({**secrets, **{f"{provider}_base_url": url for provider, url in urls.items()}})
        return request_of((), (), lm15.question(request, engine.model_type, stream=stream), NAME)

    return Visit("DSPy", recorder, NAME, ask)


def _replayed(visit: Visit, stored: Answer) -> Any:
    """The stored answer as the engine would have given it; a stored error is raised."""
    __tracebackhide__ = True
    if stored.kind is Kind.STREAM:
        return visit.chunks(stored, lm15.revive_event, lm15.revive_error)
    if stored.kind is Kind.ERROR:
        raise visit.revived(lm15.revive_error, stored.data)
    return visit.revived(lm15.revive_response, stored.data)


def _recorded(visit: Visit, engine: Any, request: Any, response: Any) -> Any:
    usd = lm15.price(response, request, engine)
    visit.finish(Answer(Kind.RESPONSE, lm15.store_response(response), usd=usd))
    return response


@contextmanager
def _failures(visit: Visit) -> Iterator[None]:
    __tracebackhide__ = True
    try:
        yield
    except Exception as error:
        stored, lasting = _stored_error(error)
        visit.failed(error, stored, lasting=lasting)
        raise


def _stored_error(error: Exception) -> tuple[dict[str, Any] | None, bool]:
    return lm15.store_error(error), lm15.is_lasting(error)


def _tape(visit: Visit, engine: Any, request: Any) -> StreamTape:
    def answer(chunks: list[dict[str, Any]]) -> Answer:
        usd = lm15.price_of_stream(chunks, request, engine)
        return Answer(Kind.STREAM, chunks, usd=usd)

    return StreamTape(visit, lm15.store_event, _stored_error, answer)


def _calling_sync(original: Any) -> Any:
    def called(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        token = _calling.set(True)
        try:
            return original(*args, **kwargs)
        finally:
            _calling.reset(token)

    return called


def _calling_async(original: Any) -> Any:
    async def called(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        token = _calling.set(True)
        try:
            return await original(*args, **kwargs)
        finally:
            _calling.reset(token)

    return called
