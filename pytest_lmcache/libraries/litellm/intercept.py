"""The interception of LiteLLM: sees the calls of every entry point, by whatever name the caller holds it.

LiteLLM builds its public functions with the decorator `client`, whose wrappers keep the function in a closure cell: its
content is replaced. The wrappers' own code is swapped for the fast path, that of undecorated functions to refuse them.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import CellType, FunctionType, ModuleType
from typing import Any, NamedTuple

from pytest_lmcache.errors import DoorError
from pytest_lmcache.libraries import code_swap
from pytest_lmcache.libraries.litellm import compat, fast_path, streams
from pytest_lmcache.libraries.litellm.call import Function, LiteLLMCall
from pytest_lmcache.libraries.litellm.callbacks import inside, silence_unless_heard, within_call
from pytest_lmcache.libraries.litellm.entry_points import BY_FUNCTION, ENTRY_POINTS, UNDECORATED, EntryPoint
from pytest_lmcache.libraries.litellm.retry_waits import wait_replacements
from pytest_lmcache.libraries.recorded_call import RecordedCall
from pytest_lmcache.libraries.waits import Waits
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.settings import Mode


class Replacement(NamedTuple):
    """The content of a closure cell, the code of a function or another attribute, before and while the interception is on."""

    owner: Any
    attribute: str
    original: Any
    replacement: Any


class Interception:
    """Intercepts from ``open`` to ``close``; any thread may call these methods.

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
        self._lock = threading.RLock()  # reentrant: a scan may import more of LiteLLM
        self._replacements: list[Replacement] = []
        self._scanned = self._modules = self._litellm = 0

    def open(self) -> None:
        """Install the interception. Raises DoorError if this LiteLLM's functions are not as expected."""
        with self._lock:
            self._is_open = True
            try:
                self._scan()
            except BaseException:
                self._is_open = False
                self._scanned = self._modules = self._litellm = 0
                self._replacements.clear()
                raise
            self._install()

    def rescan(self) -> None:
        """Install it in what has been imported since, even if LiteLLM has been imported anew."""
        with self._lock:
            self._install_after(self._scan)

    def module_executed(self, module: ModuleType) -> None:
        """Install it in a module of LiteLLM's that has been imported or reloaded."""
        streams.forget_classes()
        with self._lock:
            if self._is_open:
                self._install_after(lambda: self._find_functions([module.__name__]))

    def close(self) -> None:
        """Restore every function of LiteLLM's."""
        with self._lock:
            self._is_open = False
            for owner, attribute, original, _ in self._replacements:
                setattr(owner, attribute, original)

    def _install_after(self, scan: Callable[[], object]) -> None:
        known = len(self._replacements)
        try:
            scan()
        finally:
            self._install(known)

    def _install(self, first: int = 0) -> None:
        for owner, attribute, _, replacement in self._replacements[first:]:
            setattr(owner, attribute, replacement)

    def _known(self) -> set[int]:
        return {id(known.owner) for known in self._replacements}

    # ---- finding LiteLLM's functions

    def _scan(self) -> None:
        """Find LiteLLM's functions, if more of it has been imported since the last time."""
        litellm = id(sys.modules.get("litellm"))
        is_there = "litellm" in sys.modules  # a test may have removed it
        if not is_there or (len(sys.modules), litellm) == (self._modules, self._litellm):
            return
        self._modules = len(sys.modules)
        modules = [name for name in [*sys.modules] if name == "litellm" or name.startswith("litellm.")]
        if len(modules) == self._scanned and litellm == self._litellm:
            return
        self._find_functions(modules)
        if litellm != self._litellm:  # only once: later a test may stub its functions
            self._check_entry_points()
        self._scanned, self._litellm = len(modules), litellm

    def _find_functions(self, modules: Sequence[str]) -> None:
        """Add the functions of some modules; those found before stay, since somebody may hold them."""
        known = self._known()
        for wrapper, cell in wrappers(modules):
            if id(cell) in known:
                continue
            known.add(id(cell))
            original = cell.cell_contents
            function = function_of(original)
            if function is None:
                replacement = self._refusing(original, _public_name(original))
            else:
                replacement = self._recording(original, function)
                if function.entry.has_fast_path and compat.is_known_wrapper(wrapper):
                    self._swap(wrapper, self._fast_path(wrapper, original, function))
            replacement = functools.wraps(original)(replacement)
            self._replacements.append(Replacement(cell, "cell_contents", original, replacement))
        self._find_undecorated(modules)
        known = self._known()
        for owner, attribute, replacement in wait_replacements(modules, self._waits):
            if id(owner) not in known:
                original = vars(owner)[attribute]
                self._replacements.append(Replacement(owner, attribute, original, replacement))

    def _find_undecorated(self, modules: Sequence[str]) -> None:
        known = self._known()
        for place, name in UNDECORATED.items():
            home, _, attribute = f"litellm.{place}".rpartition(".")
            if (public := getattr(sys.modules.get(home), attribute, None)) is None:
                continue
            # After a reload, the module that defines it has another one than the package `litellm`.
            for function in (public, *(vars(sys.modules[module]).get(attribute) for module in modules)):
                if (
                    isinstance(function, FunctionType)
                    and not function.__code__.co_freevars
                    and function.__module__ == public.__module__
                    and id(function) not in known
                ):
                    known.add(id(function))
                    self._swap(function, self._instead_of(code_swap.copy_of(function), name))

    def _instead_of(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        function = function_of(original)
        if function is None:
            return self._refusing(original, name)
        return self._recording(original, function)

    def _swap(self, function: FunctionType, callee: Callable[..., Any]) -> None:
        code = code_swap.calling(function, callee)
        self._replacements.append(Replacement(function, "__code__", function.__code__, code))

    def _check_entry_points(self) -> None:
        litellm = sys.modules["litellm"]
        cells = self._known()
        functions = {name: getattr(litellm, name, None) for name in BY_FUNCTION}
        hidden = [
            name
            for name, function in functions.items()
            if function is not None
            and id(function) not in cells
            and not any(id(cell) in cells for _, cell in wrapper_chain(function))
        ]
        missing = [entry.name for entry in ENTRY_POINTS if entry.is_own and functions[entry.name] is None]
        if hidden or missing:
            version = getattr(sys.modules.get("litellm._version"), "version", "of unknown version")
            raise DoorError(
                f"pytest-lmcache cannot see the calls of this LiteLLM ({version}): {', '.join(hidden + missing)} "
                "are not built as expected, so calls would go unrecorded.\n"
                "Upgrade with `pip install -U pytest-lmcache`, install a LiteLLM that its README names, or run without "
                "the plugin: `pytest -p no:lmcache`."
            )

    # ---- what runs in their place

    def _begin(
        self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> RecordedCall | None:
        __tracebackhide__ = True
        recorder = self._find()
        if recorder is None:
            self._live_call(function.entry.name)
            return None
        self._waits.calls += 1
        return RecordedCall(recorder, LiteLLMCall(function, args, kwargs))

    def _recording(self, original: Callable[..., Any], function: Function) -> Callable[..., Any]:
        """A function that records or replays the calls of one, or passes on those that are a part of another call."""
        entry = function.entry

        if inspect.iscoroutinefunction(original):

            async def areplacement(*args: Any, **kwargs: Any) -> Any:
                __tracebackhide__ = True
                if inside.get() or _is_unrecorded(entry, kwargs):
                    return await original(*args, **kwargs)
                call = self._begin(function, args, kwargs)

                async def ask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                    with within_call(kwargs):
                        result = await original(*args, **kwargs)
                    return _quiet(call, kwargs, result)

                return await (ask(args, kwargs) if call is None else call.arun(ask))

            return areplacement

        def replacement(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            if inside.get() or _is_unrecorded(entry, kwargs):
                return original(*args, **kwargs)
            call = self._begin(function, args, kwargs)

            def ask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                with within_call(kwargs):
                    result = original(*args, **kwargs)
                return _quiet(call, kwargs, result)

            return ask(args, kwargs) if call is None else call.run(ask)

        return replacement

    def _refusing(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        """A function that refuses the call of one that is not recorded, or lets it pass."""

        # Not async if the original is: what calls it awaits its result.
        def refusing(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            if not inside.get():
                recorder = self._find()
                if recorder is None:
                    self._live_call(name)
                else:
                    recorder.refuse(name, _reason(name) if recorder.mode.replays else "")
            return original(*args, **kwargs)

        return refusing

    def _fast_path(
        self, wrapper: FunctionType, original: Callable[..., Any], function: Function
    ) -> Callable[..., Any]:
        """A function that replays the calls of a wrapper, or calls it."""
        passing = code_swap.copy_of(wrapper)

        def replay(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            __tracebackhide__ = True
            recorder = None if inside.get() else self._find()
            self._waits.calls += recorder is not None
            return fast_path.replay(recorder, function, args, kwargs)

        if inspect.iscoroutinefunction(original):

            async def afront(*args: Any, **kwargs: Any) -> Any:
                __tracebackhide__ = True
                result = replay(args, kwargs)
                return result if result is not None else await passing(*args, **kwargs)

            return afront

        def front(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            result = replay(args, kwargs)
            return result if result is not None else passing(*args, **kwargs)

        return front


def _is_unrecorded(entry: EntryPoint, kwargs: dict[str, Any]) -> bool:
    """Whether a call asks no provider, or is a part of an async call."""
    return kwargs.get(entry.async_flag) is True or entry.is_mocked(kwargs)


def _reason(name: str) -> str:
    """Why a function is refused."""
    from pytest_lmcache.libraries.litellm.public_face import REASONS

    return REASONS.get(name, "")


def _quiet(call: RecordedCall | None, kwargs: dict[str, Any], result: Any) -> Any:
    """An answer about to be recorded, of which LiteLLM prepares no report that nobody hears."""
    logging_obj = kwargs.get("litellm_logging_obj")
    if call is not None and logging_obj is not None and call.recorder.mode is not Mode.LIVE:
        silence_unless_heard(logging_obj)
    return result


def wrappers(modules: Sequence[str]) -> Iterator[tuple[FunctionType, CellType]]:
    """LiteLLM's wrappers in some modules, each with its closure cell ``original_function``."""
    for name in modules:
        for value in list(vars(sys.modules[name]).values()):
            if type(value) is FunctionType and (value.__closure__ or hasattr(value, "__wrapped__")):
                yield from wrapper_chain(value)


def wrapper_chain(function: Any) -> Iterator[tuple[FunctionType, CellType]]:
    """The same for a function and all that it wraps."""
    while isinstance(function, FunctionType):
        free = function.__code__.co_freevars
        if "original_function" in free and function.__closure__ and function.__module__.startswith("litellm"):
            cell = function.__closure__[free.index("original_function")]
            if callable(cell.cell_contents):
                yield function, cell
        function = getattr(function, "__wrapped__", None)


def _public_name(original: Callable[..., Any]) -> str:
    """The name under which users know a function: that of ``litellm.rerank`` is ``rerank``."""
    import litellm

    name = original.__name__
    module = original.__module__.removeprefix("litellm.").removesuffix(".main")
    return name if hasattr(litellm, name) else f"{module}.{name}"


def function_of(original: Callable[..., Any]) -> Function | None:
    """What is known of a function of LiteLLM's; None if it is not recorded."""
    name = original.__name__
    home = original.__module__.removeprefix("litellm.").removesuffix(".main")
    entry = BY_FUNCTION.get(f"{home}.{name}") or BY_FUNCTION.get(name)
    return None if entry is None else Function(entry, name, _parameters(original, entry))


def _parameters(original: Callable[..., Any], entry: EntryPoint) -> Sequence[str]:
    """The names of an entry point's positional parameters; those of the sync form if the async one names none."""
    sync = getattr(sys.modules[original.__module__], entry.functions[0], None)
    return _positional(original) or ([] if sync is None else _positional(sync))


def _positional(function: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind in kinds
    ]
