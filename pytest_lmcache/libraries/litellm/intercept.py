"""The door to LiteLLM: puts the interception under every function of its public face, and takes it off."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from pytest_lmcache import errors
from pytest_lmcache.errors import DoorError
from pytest_lmcache.interaction import Kind
from pytest_lmcache.libraries.litellm import code_swap, fast_path, streams
from pytest_lmcache.libraries.litellm.call import LiteLLMCall, inside, inside_call
from pytest_lmcache.libraries.recorded_call import POLL_INTERVAL
from pytest_lmcache.recorder import Recorder

RECORDED = ("completion", "text_completion", "embedding", "responses", "anthropic_messages")
# Entry points that LiteLLM does not build with its decorator `client`, and that ask a provider.
# moderation and OCR, assistants, and the plain halves of batches, files and fine-tuning (LiteLLM 1.106 to 1.110).
UNDECORATED = (
    "moderation",
    "ocr",
    "aocr",
    "acount_tokens",
    "get_assistants",
    "create_assistants",
    "delete_assistant",
    "create_thread",
    "get_thread",
    "add_message",
    "get_messages",
    "run_thread",
    "aget_assistants",
    "acreate_assistants",
    "adelete_assistant",
    "acreate_thread",
    "aget_thread",
    "a_add_message",
    "aget_messages",
    "arun_thread",
    "cancel_batch",
    "acancel_batch",
    "list_fine_tuning_jobs",
    "alist_fine_tuning_jobs",
    "file_content_streaming",
    "realtime_health_check",
)
# Others that ask, away from LiteLLM's public face: where they are, and how users know what asks (1.83 to 1.110).
ELSEWHERE = {
    "utils._get_valid_models_from_provider_api": "get_valid_models",
    "realtime_api.main._realtime_health_check": "ahealth_check",
    "a2a_protocol.main.asend_message_streaming": "a2a_protocol.asend_message_streaming",
    "a2a_protocol.main.create_a2a_client": "a2a_protocol.create_a2a_client",
    "a2a_protocol.main.aget_agent_card": "a2a_protocol.aget_agent_card",
    "guardrails.apply": "guardrails.apply",
}
PLACES = {**{name: name for name in UNDECORATED}, **ELSEWHERE}
MOCKS = ("mock_response", "mock_tool_calls", "mock_timeout")


class Entry(NamedTuple):
    """One of LiteLLM's decorated functions: its cell, what was in it, and what we put there."""

    cell: CellType
    original: Callable[..., Any]
    replacement: Callable[..., Any]


class Interception:
    """Puts the interception on with the first ``open`` and takes it off with the last ``close``.

    ``find`` gives the recorder that a call belongs to, None if there is none; ``live_call`` is told the name of a
    call that has none. Safe with threads.
    """

    def __init__(self, find: Callable[[], Recorder | None], live_call: Callable[[str], None]) -> None:
        self._find = find
        self._live_call = live_call
        self._users = 0
        self._lock = threading.RLock()  # a look may import more of LiteLLM, which is looked at in turn
        self._entries: list[Entry] = []
        self._codes: list[tuple[FunctionType, CodeType, CodeType]] = []
        self._scanned = self._modules = self._litellm = 0

    def open(self) -> None:
        """Put the interception on. Raises DoorError where this LiteLLM hides its functions."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            try:
                self._look()
            except BaseException:
                self._users = self._scanned = self._modules = self._litellm = 0
                self._entries.clear()
                raise
            for entry in self._entries:
                entry.cell.cell_contents = entry.replacement
            for function, _, guarded in self._codes:
                function.__code__ = guarded

    def rescan(self) -> None:
        """See what of LiteLLM has been imported since, also where it has been imported anew."""
        with self._lock:
            self._put_on_since(self._look)

    def module_executed(self, module: ModuleType) -> None:
        """See the functions of a module of LiteLLM's that has just been executed: imported, or reloaded."""
        streams.forget_classes()
        with self._lock:
            if self._users:
                self._put_on_since(lambda: self._find_functions([module.__name__]))

    def _put_on_since(self, look: Callable[[], object]) -> None:
        entries, codes = len(self._entries), len(self._codes)
        try:
            look()
        finally:
            for entry in self._entries[entries:]:
                entry.cell.cell_contents = entry.replacement
            for function, _, guarded in self._codes[codes:]:
                function.__code__ = guarded

    def close(self) -> None:
        """Take the interception off: every function of LiteLLM's is what it was before."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            for entry in self._entries:
                entry.cell.cell_contents = entry.original
            for function, original, _ in self._codes:
                function.__code__ = original

    def _look(self) -> None:
        """Find LiteLLM's functions, again only when more of it has been imported since."""
        litellm = id(sys.modules.get("litellm"))
        is_there = "litellm" in sys.modules  # a test may have thrown it out
        if not is_there or (len(sys.modules), litellm) == (self._modules, self._litellm):
            return
        self._modules = len(sys.modules)
        modules = [name for name in [*sys.modules] if name == "litellm" or name.startswith("litellm.")]
        if len(modules) == self._scanned and litellm == self._litellm:
            return
        self._find_functions(modules)
        if litellm != self._litellm:  # later it may be a stub of the suite's that stands there
            self._test()
        self._scanned, self._litellm = len(modules), litellm

    def _find_functions(self, modules: Sequence[str]) -> None:
        """Add the functions of these modules that are not known yet; those of before stay, whoever holds them."""
        known = {id(entry.cell) for entry in self._entries}
        for wrapper, cell in _wrappers(modules):
            if id(cell) not in known:
                known.add(id(cell))
                original = cell.cell_contents
                self._entries.append(Entry(cell, original, self._replacement(original)))
                if (name := _plain_name(original)) in fast_path.NAMES:
                    front = self._front(wrapper, original, name)
                    self._codes.append((wrapper, wrapper.__code__, code_swap.calling(wrapper, front)))
        self._guard(modules)

    def _test(self) -> None:
        litellm = sys.modules["litellm"]
        cells = {id(entry.cell) for entry in self._entries}
        public = [name for name in (*RECORDED, *(f"a{name}" for name in RECORDED)) if hasattr(litellm, name)]
        hidden = [
            name
            for name in public
            if not any(id(cell) in cells for _, cell in _chain(getattr(litellm, name)))
        ]
        missing = [name for name in RECORDED if name not in public]
        if hidden or missing:
            version = getattr(sys.modules.get("litellm._version"), "version", "of unknown version")
            raise DoorError(errors.hidden_functions(str(version), hidden + missing))

    def _guard(self, modules: Sequence[str]) -> None:
        known = {id(function) for function, _, _ in self._codes}
        for place, name in PLACES.items():
            home, _, attribute = f"litellm.{place}".rpartition(".")
            if (public := getattr(sys.modules.get(home), attribute, None)) is None:
                continue
            # After a reload, the module that defines it has another one than LiteLLM's public face.
            for function in (public, *(vars(sys.modules[module]).get(attribute) for module in modules)):
                if (
                    isinstance(function, FunctionType)
                    and not function.__code__.co_freevars
                    and function.__module__ == public.__module__
                    and id(function) not in known
                ):
                    known.add(id(function))
                    guarded = self._guarded(name, code_swap.copy_of(function))
                    self._codes.append((function, function.__code__, code_swap.calling(function, guarded)))

    def _guarded(self, name: str, passing: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            recorder = None if inside.get() else self._recorder(name)
            if recorder is not None:
                recorder.refuse(name)
            return passing(*args, **kwargs)

        return guarded

    def _replacement(self, original: Callable[..., Any]) -> Callable[..., Any]:
        name, is_async = _plain_name(original), inspect.iscoroutinefunction(original)
        if name not in RECORDED:
            return self._refusing(original, is_async=is_async)
        return (self._async if is_async else self._sync)(original, name, _parameters(original, name))

    def _front(self, wrapper: FunctionType, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        """What goes before LiteLLM's wrapper: it answers a call that the wrapper has nothing to do for."""
        passing, parameters = code_swap.copy_of(wrapper), _parameters(original, name)

        def answered(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            __tracebackhide__ = True
            recorder = None if inside.get() else self._find()
            if recorder is None or not recorder.mode.replays or not fast_path.has_no_listeners(kwargs):
                return None
            call = fast_path.FastCall(recorder, name, parameters, args, kwargs, entry=original.__name__)
            return call.replay(call.stored) if call.stored is not None else None

        if inspect.iscoroutinefunction(original):

            async def afront(*args: Any, **kwargs: Any) -> Any:
                __tracebackhide__ = True
                result = answered(args, kwargs)
                return result if result is not None else await passing(*args, **kwargs)

            return afront

        def front(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            result = answered(args, kwargs)
            return result if result is not None else passing(*args, **kwargs)

        return front

    def _refusing(self, original: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
        def refuse() -> None:
            recorder = None if inside.get() else self._recorder(_qualified(original))
            if recorder is not None:
                recorder.refuse(_qualified(original))

        if is_async:

            @functools.wraps(original)
            async def replacement(*args: Any, **kwargs: Any) -> Any:
                __tracebackhide__ = True
                refuse()
                return await original(*args, **kwargs)

        else:

            @functools.wraps(original)
            def replacement(*args: Any, **kwargs: Any) -> Any:
                __tracebackhide__ = True
                refuse()
                return original(*args, **kwargs)

        return replacement

    def _recorder(self, name: str) -> Recorder | None:
        """The recorder of a call; reports one that has none."""
        __tracebackhide__ = True
        recorder = self._find()
        if recorder is None:
            self._live_call(name)
        return recorder

    def _sync(self, original: Callable[..., Any], name: str, parameters: Sequence[str]) -> Callable[..., Any]:
        flag = f"a{name}"

        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            if inside.get() or kwargs.get(flag) is True or _is_mocked(name, kwargs):
                return original(*args, **kwargs)
            recorder = self._recorder(name)
            if recorder is None:
                with inside_call(kwargs):
                    return original(*args, **kwargs)
            call = LiteLLMCall(recorder, name, parameters, args, kwargs)
            for _ in call.wait_for_other_process(blocks=True):
                time.sleep(POLL_INTERVAL)
            if call.stored is not None:
                return call.replay(call.stored)
            with call.asking():
                result = original(*args, **kwargs)
            return call.answered(result)

        return replacement

    def _async(
        self, original: Callable[..., Any], name: str, parameters: Sequence[str]
    ) -> Callable[..., Any]:
        @functools.wraps(original)
        async def replacement(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            if inside.get() or _is_mocked(name, kwargs):
                return await original(*args, **kwargs)
            recorder = self._recorder(name)
            if recorder is None:
                with inside_call(kwargs):
                    return await original(*args, **kwargs)
            call = LiteLLMCall(recorder, name, parameters, args, kwargs)
            if call.stored is None:
                with call.asking():
                    for _ in call.wait_for_other_process(blocks=False):
                        await asyncio.sleep(POLL_INTERVAL)
                    result = await original(*args, **kwargs) if call.stored is None else None
            if call.stored is None:
                return call.answered(result)
            if call.stored.kind is Kind.UNANSWERED:
                await call.wait(call.stored)
            return call.replay(call.stored)

        return replacement


def _wrappers(modules: Sequence[str]) -> Iterator[tuple[FunctionType, CellType]]:
    for name in modules:
        for value in list(vars(sys.modules[name]).values()):
            if type(value) is FunctionType and (value.__closure__ or hasattr(value, "__wrapped__")):
                yield from _chain(value)


def _chain(function: Any) -> Iterator[tuple[FunctionType, CellType]]:
    """LiteLLM's wrappers in a function and all that it wraps, each with its cell named ``original_function``."""
    while isinstance(function, FunctionType):
        free = function.__code__.co_freevars
        if "original_function" in free and function.__closure__ and function.__module__.startswith("litellm"):
            cell = function.__closure__[free.index("original_function")]
            if callable(cell.cell_contents):
                yield function, cell
        function = getattr(function, "__wrapped__", None)


def _qualified(original: Callable[..., Any]) -> str:
    """The name under which users know a function: ``litellm.rerank`` is ``rerank``."""
    import litellm

    name = original.__name__
    module = original.__module__.removeprefix("litellm.").removesuffix(".main")
    return name if hasattr(litellm, name) else f"{module}.{name}"


def _plain_name(original: Callable[..., Any]) -> str:
    """An entry point's name without the ``a`` of its async form."""
    name = original.__name__.removeprefix("a")
    return name if inspect.iscoroutinefunction(original) and name in RECORDED else original.__name__


def _parameters(original: Callable[..., Any], name: str) -> Sequence[str]:
    """The names of an entry point's positional arguments."""
    # Some async forms take anything and hand it on: their sync twin names it.
    return _positional(original) or _positional(getattr(sys.modules[original.__module__], name))


def _positional(function: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind in kinds
    ]


def _is_mocked(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether LiteLLM itself makes the answer up, as the call asks: no provider is involved (LiteLLM 1.83 to 1.110)."""
    mock = kwargs.get("mock_response")
    if name in {"completion", "text_completion"}:
        return any(kwargs.get(each) for each in MOCKS)
    return mock is not None if name == "embedding" else isinstance(mock, str) and bool(mock)
