"""The interception of DSPy's own engine, which asks providers without LiteLLM, and of its language models' calls."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, aclosing, closing
from types import ModuleType
from typing import Any

from pytest_lmcache.errors import DoorError
from pytest_lmcache.libraries.dspy import compat
from pytest_lmcache.libraries.dspy.call import EQUIVALENCE, NAME, EngineCall
from pytest_lmcache.libraries.recorded_call import RecordedCall
from pytest_lmcache.libraries.waits import Waits
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.recordings import EQUIVALENCES

ENGINES, EXECUTION = "dspy.clients.engines.lm15_engine", "dspy.clients.execution"
MODELS, TYPESAFE = "dspy.clients.base_lm", "dspy.clients.typesafe"
RETRY_DELAY = "_delay"  # of `EXECUTION`: how long DSPy waits before a retry
MODULES = ("dspy", ENGINES, EXECUTION, MODELS, TYPESAFE)

# Begins a call of an engine with a request; gives None if nobody records it.
Begin = Callable[..., RecordedCall | None]


class Interception:
    """Intercepts from ``open`` to ``close``.

    ``find`` gives the recorder that a call belongs to. ``live_call`` is called with the name of a call that has none.
    ``waits`` says which waits between two attempts are skipped.
    """

    def __init__(
        self,
        find: Callable[[], Recorder | None],
        live_call: Callable[[str], None],
        waits: Waits | None = None,
    ) -> None:
        self._find = find
        self._live_call = live_call
        self._waits = waits or Waits()
        self._is_open = False
        self._lock = threading.RLock()  # reentrant: installing may import more of DSPy
        self._originals: list[tuple[Any, str, Any]] = []
        self._module: ModuleType | None = None

    def open(self) -> None:
        """Install the interception. Raises DoorError if this DSPy's engine is not as expected."""
        with self._lock:
            self._install()
            self._is_open = True

    def rescan(self) -> None:
        """Install it in a DSPy that has been imported anew."""
        with self._lock:
            if sys.modules.get("dspy", self._module) is not self._module:
                self._install()

    def module_executed(self, module: ModuleType) -> None:
        """Install it in a module of DSPy's that has been imported anew or reloaded."""
        is_whole = getattr(sys.modules.get("dspy"), "__version__", None) is not None
        if self._is_open and module.__name__ in MODULES and is_whole:
            with self._lock:
                self._install()

    def close(self) -> None:
        """Restore every class of DSPy's."""
        with self._lock:
            self._is_open = False
            while self._originals:
                kind, name, original = self._originals.pop()
                setattr(kind, name, original)
            if EQUIVALENCE in EQUIVALENCES:
                EQUIVALENCES.remove(EQUIVALENCE)

    def begin(self, engine: Any, request: Any, *, is_stream: bool, is_async: bool) -> RecordedCall | None:
        """Begin a call; None if nobody records it, or if ``request`` is none, which the engine itself refuses."""
        __tracebackhide__ = True
        from dspy.lm15 import Request

        if not isinstance(request, Request):
            return None
        recorder = self._find()
        if recorder is None:
            self._live_call(NAME)
            return None
        self._waits.calls += 1
        return RecordedCall(recorder, EngineCall(engine, request, is_stream=is_stream, is_async=is_async))

    def _install(self) -> None:
        engines = _engine_methods()
        self._module = sys.modules["dspy"]
        if engines and EQUIVALENCE not in EQUIVALENCES:
            EQUIVALENCES.append(EQUIVALENCE)
        for kind, name, replacement in engines:
            self._replace(kind, name, functools.partial(replacement, self.begin))
        if (refused := compat.refused_client()) is not None:
            for name in ("__call__", "acall"):
                self._replace(refused, name, functools.partial(self._refusing, refused))
        if (model := getattr(sys.modules.get(MODELS), "BaseLM", None)) is not None:
            self._replace(model, "__call__", compat.calling)
            self._replace(model, "acall", compat.acalling)
        if (execution := sys.modules.get(EXECUTION)) is not None and hasattr(execution, RETRY_DELAY):
            self._replace(execution, RETRY_DELAY, self._waiting)

    def _replace(self, kind: Any, name: str, replacement: Callable[[Any], Any]) -> None:
        original = vars(kind).get(name)
        is_known = any(known is kind and method == name for known, method, _ in self._originals)
        if original is not None and not is_known:
            self._originals.append((kind, name, original))
            setattr(kind, name, functools.wraps(original)(replacement(getattr(kind, name))))

    def _waiting(self, original: Callable[..., float]) -> Callable[..., float]:
        def delay(*args: Any, **kwargs: Any) -> float:
            seconds = original(*args, **kwargs)
            return 0 if self._waits.is_skipped(seconds) else seconds

        return delay

    def _refusing(self, kind: type, original: Any) -> Any:
        def refused(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            name, recorder = f"dspy.{kind.__name__}", self._find()
            if recorder is None:
                self._live_call(name)
            else:
                recorder.refuse(name)
            return original(*args, **kwargs)

        return refused


def _complete(begin: Begin, original: Any) -> Any:
    def complete(engine: Any, request: Any) -> Any:
        __tracebackhide__ = True
        call = begin(engine, request, is_stream=False, is_async=False)
        return original(engine, request) if call is None else call.run(original)

    return complete


def _acomplete(begin: Begin, original: Any) -> Any:
    async def complete(engine: Any, request: Any) -> Any:
        __tracebackhide__ = True
        call = begin(engine, request, is_stream=False, is_async=True)
        return await (original(engine, request) if call is None else call.arun(original))

    return complete


def _stream(begin: Begin, original: Any) -> Any:
    def stream(engine: Any, request: Any) -> Iterator[Any]:
        __tracebackhide__ = True
        call = begin(engine, request, is_stream=True, is_async=False)
        with ExitStack() as stack:

            def ask(engine: Any, request: Any) -> Any:
                return stack.enter_context(closing(original(engine, request)))

            yield from ask(engine, request) if call is None else call.run(ask)

    return stream


def _astream(begin: Begin, original: Any) -> Any:
    async def stream(engine: Any, request: Any) -> AsyncIterator[Any]:
        __tracebackhide__ = True
        call = begin(engine, request, is_stream=True, is_async=True)
        async with AsyncExitStack() as stack:

            async def ask(engine: Any, request: Any) -> Any:
                return await stack.enter_async_context(aclosing(original(engine, request)))

            events = await (ask(engine, request) if call is None else call.arun(ask))
            await stack.enter_async_context(aclosing(events))
            async for event in events:
                yield event

    return stream


# Each engine's methods: the kind of function that one has to be, and what makes its replacement of that kind.
METHODS: dict[tuple[str, str], tuple[Callable[[Any], bool], Callable[[Begin, Any], Any]]] = {
    ("LM15Engine", "complete"): (inspect.isfunction, _complete),
    ("LM15Engine", "stream"): (inspect.isgeneratorfunction, _stream),
    ("AsyncLM15Engine", "complete"): (inspect.iscoroutinefunction, _acomplete),
    ("AsyncLM15Engine", "stream"): (inspect.isasyncgenfunction, _astream),
}


def _engine_methods() -> list[tuple[type, str, Callable[[Begin, Any], Any]]]:
    """The methods of DSPy's engines and their replacements; none if every call goes through LiteLLM."""
    if not compat.has_own_engine():
        return []
    # EXECUTION calls the engines, and is imported by the first call. After a reload it holds the classes of before.
    holders = [sys.modules.get(ENGINES), *filter(None, [sys.modules.get(EXECUTION)])]
    found, wrong = [], []
    for (name, attribute), (is_kind, replacement) in METHODS.items():
        for holder in holders:
            kind = getattr(holder, name, object)
            if is_kind(vars(kind).get(attribute)):
                found.append((kind, attribute, replacement))
            else:
                wrong.append(f"{name}.{attribute}")
    if wrong:
        version = getattr(sys.modules["dspy"], "__version__", "of unknown version")
        raise DoorError(
            f"pytest-lmcache cannot see the calls of this DSPy ({version}): {', '.join(dict.fromkeys(wrong))} of "
            "dspy.clients.engines is not built as expected, so calls would go unrecorded.\n"
            "Upgrade with `pip install -U pytest-lmcache`, install a DSPy that its README names and use "
            'dspy.LM(..., engine="litellm"), or run without the plugin: `pytest -p no:lmcache`.'
        )
    return found
