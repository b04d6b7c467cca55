"""The door to DSPy's own engine, which calls providers without LiteLLM (DSPy 3.4); also tells where DSPy calls."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from importlib import import_module
from itertools import islice
from types import ModuleType
from typing import Any

from pytest_lmcache import errors
from pytest_lmcache.errors import DoorError
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.keys.plain import request_of
from pytest_lmcache.libraries import recorded_call
from pytest_lmcache.libraries.cancellation import wait_to_be_cancelled_in_thread
from pytest_lmcache.libraries.dspy import answers
from pytest_lmcache.libraries.recorded_call import POLL_INTERVAL, StreamRecording, outer_call
from pytest_lmcache.libraries.stream_recording import record_stream
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.settings import Usage
from pytest_lmcache.stream_chunks import Chunk, packer, whole

NAME = "dspy"
ENGINES = "dspy.clients.engines.lm15_engine"
# A client of its own for one provider, which asks neither an engine nor LiteLLM.
REFUSED = ("dspy.clients.typesafe", "TypeSafe")
EXECUTION, MODELS = "dspy.clients.execution", "dspy.clients.base_lm"
MODULES = ("dspy", ENGINES, EXECUTION, MODELS, REFUSED[0])

Find = Callable[[], Recorder | None]


class Interception:
    """Puts the interception on with the first ``open`` and takes it off with the last ``close``.

    ``find`` gives the recorder that a call belongs to, None if there is none; ``live_call`` is told the name of a
    call that has none.
    """

    def __init__(self, find: Find, live_call: Callable[[str], None]) -> None:
        self._find = find
        self._live_call = live_call
        self._users = 0
        self._lock = threading.RLock()  # a look may import more of DSPy, which is looked at in turn
        self._originals: list[tuple[type, str, Any]] = []
        self._module: ModuleType | None = None

    def open(self) -> None:
        """Put the interception on. Raises DoorError where this DSPy's engine is built otherwise."""
        with self._lock:
            if not self._users:
                self._put_on()
            self._users += 1

    def rescan(self) -> None:
        """See DSPy where it has been imported anew."""
        with self._lock:
            if sys.modules.get("dspy", self._module) is not self._module:
                self._put_on()

    def module_executed(self, module: ModuleType) -> None:
        """See a module of DSPy's that has just been executed: imported anew, or reloaded."""
        is_whole = getattr(sys.modules.get("dspy"), "__version__", None) is not None
        if self._users and module.__name__ in MODULES and is_whole:
            with self._lock:
                self._put_on()

    def close(self) -> None:
        """Take the interception off: every class of DSPy's is what it was before."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._take_off()

    def _put_on(self) -> None:
        engines = _engines()
        self._module = sys.modules["dspy"]
        for engine, method, replacement in engines:
            self._replace(engine, method, functools.partial(replacement, self._recorder))
        self._refuse()
        model = getattr(sys.modules.get(MODELS), "BaseLM", None)
        if model is not None:
            self._replace(model, "__call__", _calling_sync)
            self._replace(model, "acall", _calling_async)

    def _recorder(self, name: str = NAME) -> Recorder | None:
        """The recorder of a call; reports one that has none."""
        __tracebackhide__ = True
        recorder = self._find()
        if recorder is None:
            self._live_call(name)
        return recorder

    def _take_off(self) -> None:
        while self._originals:
            kind, name, original = self._originals.pop()
            setattr(kind, name, original)

    def _replace(self, kind: type, name: str, replacement: Callable[[Any], Any]) -> None:
        original = vars(kind).get(name)
        is_known = any(known is kind and method == name for known, method, _ in self._originals)
        if original is not None and not is_known:
            self._originals.append((kind, name, original))
            setattr(kind, name, functools.wraps(original)(replacement(getattr(kind, name))))

    def _refuse(self) -> None:
        module, name = REFUSED
        try:
            # DSPy imports it when it is asked for, which may be in the middle of a test.
            kind = getattr(import_module(module), name)
        except (ImportError, AttributeError):
            return  # before DSPy 3.4

        def replacement(original: Any) -> Any:
            def refused(*args: Any, **kwargs: Any) -> Any:
                __tracebackhide__ = True
                recorder = self._recorder(f"dspy.{name}")
                if recorder is not None:
                    recorder.refuse(f"dspy.{name}")
                return original(*args, **kwargs)

            return refused

        for method in ("__call__", "acall"):
            self._replace(kind, method, replacement)


class EngineCall(recorded_call.RecordedCall):
    """One call of an engine of DSPy's."""

    __slots__ = ("engine", "request")
    library = "DSPy"

    def __init__(self, recorder: Recorder, engine: Any, request: Any, *, stream: bool = False) -> None:
        __tracebackhide__ = True
        self.engine = engine
        self.request = request

        def ask() -> dict[str, Any]:
            given = {"api_key": engine.config.api_keys, "base_url": engine.config.base_urls}
            for name, by_provider in given.items():
                recorder.redact.learn(
                    {f"{each}_{name}": value for each, value in (by_provider or {}).items()}
                )
            return request_of((), (), answers.question(request, engine.model_type, stream=stream), NAME)

        super().__init__(recorder, NAME, request.model, ask)

    def address(self) -> str:
        """Where the engine sends the request."""
        return answers.address(self.request, self.engine)

    def store_error(self, error: Exception) -> tuple[dict[str, Any] | None, bool]:
        """An error as plain data, None for one that is not the engine's, and whether it will come again."""
        return answers.store_error(error), answers.is_lasting(error)

    def saved_by_prompt_cache(self) -> float:
        """What the provider's own prompt cache saved on this call, in USD."""
        return answers.saved_by_prompt_cache(self.record.cached, self.request, self.engine)

    def replay(self, stored: Answer) -> Any:
        """The stored answer as the engine would have given it, a stream as an iterator; an error is raised."""
        __tracebackhide__ = True
        if stored.kind is Kind.ERROR:
            raise self.revived(answers.revive_error, stored.data)
        if stored.kind is Kind.UNANSWERED:
            self.cut_off(stored)
        if self.recorder.settings.usage is Usage.EMPTY:
            stored = self.revived(answers.without_usage, stored)
        if stored.kind is Kind.STREAM:
            return self._events(stored)
        return answers.mark_hit(self.revived(answers.revive_response, stored.data))

    def taken(self, response: Any) -> Any:
        """Take down an answer."""
        usd = answers.price(response, self.request, self.engine)
        self.finish(Answer(Kind.RESPONSE, answers.store_response(response), usd=usd))
        return response

    def tape(self) -> StreamRecording:
        """What takes the stream down."""

        def answer_of(events: list[Chunk]) -> Answer:
            return Answer(Kind.STREAM, events, usd=answers.price_of_stream(events, self.request, self.engine))

        pack = packer()
        return StreamRecording(self, lambda event: pack(answers.store_event(event)), answer_of)

    def _events(self, stored: Answer) -> Iterator[Any]:
        __tracebackhide__ = True
        for data in whole(stored.data):
            yield self.revived(answers.revive_event, data)
        if stored.error is not None:
            raise self.revived(answers.revive_error, stored.error)
        if not stored.complete:
            wait_to_be_cancelled_in_thread(stored)
            self.cut_off(stored)


def _recorder(find: Find, request: Any) -> Recorder | None:
    """None where nobody records, and where something is asked that is no request: the engine itself says so."""
    from dspy.lm15 import Request

    return find() if isinstance(request, Request) else None


def _complete(find: Find, original: Any) -> Any:
    def answered(engine: Any, request: Any) -> Any:
        __tracebackhide__ = True
        recorder = _recorder(find, request)
        if recorder is None:
            return original(engine, request)
        call = EngineCall(recorder, engine, request)
        for _ in call.wait_for_other_process(blocks=True):
            time.sleep(POLL_INTERVAL)
        if call.stored is not None:
            return call.replay(call.stored)
        with call.asking():
            response = original(engine, request)
        return call.answered(response)

    return answered


def _stream(find: Find, original: Any) -> Any:
    def events(engine: Any, request: Any) -> Iterator[Any]:
        __tracebackhide__ = True
        recorder = _recorder(find, request)
        call = EngineCall(recorder, engine, request, stream=True) if recorder is not None else None
        for _ in call.wait_for_other_process(blocks=True) if call is not None else ():
            time.sleep(POLL_INTERVAL)
        if call is not None and call.stored is not None:
            yield from call.replay(call.stored)
            return
        with closing(original(engine, request)) as source:
            yield from source if call is None else record_stream(source, call.tape())

    return events


def _acomplete(find: Find, original: Any) -> Any:
    async def answered(engine: Any, request: Any) -> Any:
        __tracebackhide__ = True
        recorder = _recorder(find, request)
        if recorder is None:
            return await original(engine, request)
        call = EngineCall(recorder, engine, request)
        if call.stored is None:
            with call.asking():
                for _ in call.wait_for_other_process(blocks=False):
                    await asyncio.sleep(POLL_INTERVAL)
                response = await original(engine, request) if call.stored is None else None
        if call.stored is None:
            return call.answered(response)
        if call.stored.kind is Kind.UNANSWERED:
            await call.wait(call.stored)
        return call.replay(call.stored)

    return answered


def _astream(find: Find, original: Any) -> Any:
    async def events(engine: Any, request: Any) -> AsyncIterator[Any]:
        __tracebackhide__ = True
        recorder = _recorder(find, request)
        call = EngineCall(recorder, engine, request, stream=True) if recorder is not None else None
        for _ in call.wait_for_other_process(blocks=False) if call is not None else ():
            await asyncio.sleep(POLL_INTERVAL)
        if call is not None and call.stored is not None:
            replayed = call.replay(call.stored)
            for event in islice(replayed, len(call.stored.data)):
                yield event
            if not call.stored.complete:
                await call.wait(call.stored)
            for event in replayed:
                yield event
            return
        async with aclosing(original(engine, request)) as source:
            recorded = source if call is None else record_stream(source, call.tape())
            async with aclosing(recorded):
                async for event in recorded:
                    yield event

    return events


# Each engine's method: what kind of function it has to be, for its stand-in to be one too, and the stand-in.
METHODS: dict[tuple[str, str], tuple[Callable[[Any], bool], Callable[[Find, Any], Any]]] = {
    ("LM15Engine", "complete"): (inspect.isfunction, _complete),
    ("LM15Engine", "stream"): (inspect.isgeneratorfunction, _stream),
    ("AsyncLM15Engine", "complete"): (inspect.iscoroutinefunction, _acomplete),
    ("AsyncLM15Engine", "stream"): (inspect.isasyncgenfunction, _astream),
}


def _engines() -> list[tuple[type, str, Callable[[Find, Any], Any]]]:
    """Each engine class of DSPy's with a method and its stand-in; none where DSPy has no engine of its own.

    Raises DoorError.
    """
    dspy = sys.modules["dspy"]
    if not hasattr(dspy, "lm15"):
        return []  # before DSPy 3.4 every call goes through LiteLLM
    # The second one calls them, and is imported by the first call. After a reload it has its own, from before.
    holders = [sys.modules.get(ENGINES), *filter(None, [sys.modules.get(EXECUTION)])]
    found, wrong = [], []
    for (name, method), (is_kind, replacement) in METHODS.items():
        for holder in holders:
            kind = getattr(holder, name, object)
            if is_kind(vars(kind).get(method)):
                found.append((kind, method, replacement))
            else:
                wrong.append(f"{name}.{method}")
    if wrong:
        raise DoorError(
            errors.hidden_engine(
                str(getattr(dspy, "__version__", "of unknown version")), [*dict.fromkeys(wrong)]
            )
        )
    return found


def _calling_sync(original: Any) -> Any:
    def called(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with outer_call():
            return original(*args, **kwargs)

    return called


def _calling_async(original: Any) -> Any:
    async def called(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with outer_call():
            return await original(*args, **kwargs)

    return called
