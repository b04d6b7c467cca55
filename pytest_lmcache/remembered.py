"""Values and function results that are recorded beside model calls: `remember`, `record` and `recorded`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

from pytest_lmcache.errors import LMCacheError, SettingsError, UnrecordableError, shorten
from pytest_lmcache.frozen_time import real_time
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.keys.plain import to_plain
from pytest_lmcache.libraries.recorded_call import RecordedCall
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.session import session
from pytest_lmcache.settings import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

P = ParamSpec("P")
R = TypeVar("R")

_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
# Whether a recorded function runs here: replay does not call it, so what it calls itself is not recorded.
_is_inside: ContextVar[bool] = ContextVar("pytest_lmcache_is_inside", default=False)


class Conversion(TypedDict, total=False):
    """How a value of another type is stored: ``dump`` converts it to plain data, ``load`` converts it back."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


class Options(Conversion, total=False):
    """How a function is recorded.

    ``name`` is recorded in place of its own, such as ``weather.lookup``. The arguments named in ``ignore`` do not
    count.
    """

    name: str
    ignore: Collection[str]


@dataclass(slots=True)
class Value:
    """A value that is recorded, or the call of a function: a `LibraryCall`.

    ``name`` is that in the cassette, such as ``function weather.lookup``; ``title`` is that in messages.
    """

    name: str
    title: str
    advice: str
    arguments: Mapping[str, Any]
    dump: Callable[[Any], Any] | None = None
    load: Callable[[Any], Any] | None = None
    answer: Answer | None = None
    model: str = ""
    library: ClassVar[str] = "pytest-lmcache"

    def request(self, recorder: Recorder) -> dict[str, Any]:
        """The arguments as plain data."""
        recorder.redact.learn(self.arguments)
        return cast("dict[str, Any]", to_plain(self.arguments))

    def address(self) -> str:
        """No address: a function is called here."""
        return "function"

    def stream_codec(self, _result: Any, _keep_headers: Sequence[str]) -> None:
        """No streams."""

    def to_answer(self, result: Any, _keep_headers: Sequence[str]) -> Answer:
        """The result as plain data. Raises UnrecordableError if it is not plain data and there is no ``dump``."""
        if self.answer is not None:
            return self.answer
        value = result if self.dump is None else self.dump(result)
        if (fault := _fault(value)) is not None:
            if inspect.iscoroutine(value):
                value.close()  # else Python warns that it was never awaited
            by = "returned" if self.dump is None else "dump() returned"
            raise UnrecordableError(f"{self.title}: {by} {fault}, which cannot be recorded.\n{self.advice}")
        return Answer(Kind.RESPONSE, {"value": value})

    def prepare_replay(self, _answer: Answer, _recorded: RecordedCall) -> None:
        """Nobody listens."""

    def from_answer(self, answer: Answer, _recorded: RecordedCall) -> Any:
        """The recorded result. Raises ValueError if the recording has none."""
        if "value" not in answer.data:
            raise ValueError("`response:` has no `value:`")
        value = answer.data["value"]
        return value if self.load is None else self.load(value)

    def without_usage(self, answer: Answer) -> Answer:
        """The same: it has no tokens."""
        return answer

    def error_to_plain(
        self, error: Exception, _keep_headers: Sequence[str]
    ) -> tuple[dict[str, Any] | None, bool]:
        """An exception as its class and arguments. Raises UnrecordableError if these do not rebuild it."""
        if isinstance(error, LMCacheError):
            return None, False
        kind = type(error)
        name = f"{kind.__module__}.{kind.__qualname__}"
        plain = {"class": name, "message": str(error), "args": list(error.args)}
        if (fault := _fault(plain["args"])) is not None:
            why = f"its arguments contain {fault}"
        else:
            try:
                again = self.error_from_plain(plain)
                why = (
                    ""
                    if type(again) is kind and again.args == error.args
                    else "its class makes another of them"
                )
            except Exception as problem:  # noqa: BLE001 - a user's class may raise anything
                why = f"it cannot be made again of them ({type(problem).__name__}: {shorten(str(problem))})"
        if why:
            raise UnrecordableError(
                f"{self.title} raised {name}, which cannot be recorded: an exception is stored as its class and "
                f"arguments, and {why}.\n"
                "Record a function that catches it and raises an exception of plain arguments, such as "
                "RuntimeError(str(error))."
            ) from error
        return plain, True

    def error_from_plain(self, data: dict[str, Any]) -> Exception:
        """The exception of a class and its arguments. Raises TypeError if the class is not an exception."""
        module, parts = data["class"], list[str]()
        while True:
            module, _, part = module.rpartition(".")
            parts.insert(0, part)
            try:
                found = functools.reduce(getattr, parts, import_module(module))
                break
            except ModuleNotFoundError:
                if "." not in module:
                    raise
        if not (isinstance(found, type) and issubclass(found, Exception)):
            raise TypeError(f"{data['class']} is no class of exceptions")
        return found(*data.get("args", [data.get("message", "")]))

    def saved_by_prompt_cache(self, _cached: tuple[int, int]) -> float:
        """Nothing."""
        return 0.0

    @property
    def asked_with(self) -> tuple[Any, ...]:
        """Nothing: the function has its arguments."""
        return ()

    def again(self, _model: str) -> Value:
        """The same: mode verify does not run functions."""
        return self

    to_model = again

    def builder(self, _call: Call) -> None:
        """Nothing: faults and replies are for the calls of models."""


def _fault(value: Any, place: str = "") -> str | None:
    """The first part of a value that is neither JSON data nor bytes, in words; None if there is none."""
    kind = type(value)
    if kind in _PLAIN:
        return None
    if kind is list:
        pairs = [(f"[{index}]", item) for index, item in enumerate(value)]
    elif kind is dict:
        if wrong := [key for key in value if type(key) is not str]:
            return f"a dict with the key {shorten(wrong[0])}, which is no text"
        pairs = [(f"[{key!r}]", item) for key, item in value.items()]
    else:
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        return f"a value of type {module}{kind.__qualname__}{f' at {shorten(place, 60)}' if place else ''}"
    return next((fault for part, item in pairs if (fault := _fault(item, place + part)) is not None), None)


@contextmanager
def _running(recorder: Recorder, value: Value) -> Iterator[Callable[[R], R]]:
    """Run a function and pass on its result. A result or exception that cannot be recorded is a fault of the recorder."""

    def checked(result: R) -> R:
        value.answer = value.to_answer(result, ())
        return result

    token = _is_inside.set(True)
    try:
        with real_time(is_seen=False):
            yield checked
    except Exception as error:
        try:
            if isinstance(error, UnrecordableError):
                raise
            value.error_to_plain(error, ())
        except UnrecordableError as fault:
            recorder.faults.append(fault)  # the code under test may catch it
            raise
        raise
    finally:
        _is_inside.reset(token)


def _run(recorder: Recorder, value: Value, ask: Callable[[], R]) -> R:
    __tracebackhide__ = True

    def run() -> R:
        with _running(recorder, value) as checked:
            return checked(ask())

    if recorder.mode is Mode.LIVE:
        return ask()
    return cast("R", RecordedCall(recorder, value).run(run))


async def _arun(recorder: Recorder, value: Value, ask: Callable[[], Awaitable[R]]) -> R:
    __tracebackhide__ = True

    async def run() -> R:
        with _running(recorder, value) as checked:
            return checked(await ask())

    if recorder.mode is Mode.LIVE:
        return await ask()
    return cast("R", await RecordedCall(recorder, value).arun(run))


def remember(
    recorder: Recorder, name: str, function: Callable[[], R], /, **conversion: Unpack[Conversion]
) -> R:
    """Return the result of a function, and record it under a name in the cassette of a recorder."""
    __tracebackhide__ = True
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        raise SettingsError(f"remember() takes a name, such as 'run id', and not {shorten(name)}.")
    title = f"remember({name!r})"
    if not callable(function):
        raise SettingsError(
            f"{title} takes a function that returns the value, such as lambda: uuid4().hex, not the value itself, "
            f"{shorten(function)}: on replay it comes from the cassette."
        )
    _check(function, title, takes_class=True)
    advice = (
        "Let it return JSON data (dict, list, str, int, float, bool, None) or bytes, or convert it:  "
        f"lm_cache.remember({name!r}, ..., dump=..., load=...)"
    )
    value = Value(f"remember {name}", title, advice, {}, **conversion)
    if inspect.iscoroutinefunction(function):
        return cast("R", _arun(recorder, value, function))
    return _run(recorder, value, function)


def record(target: Any, name: str, /, **options: Unpack[Options]) -> Callable[[], None]:
    """Record a function of a module, a class or an object. Returns a function that restores the original."""
    function, static = getattr(target, name), inspect.getattr_static(target, name)
    owner = target if isinstance(target, type | ModuleType) else type(target)
    place = owner.__name__ if isinstance(owner, ModuleType) else f"{owner.__module__}.{owner.__qualname__}"
    is_method = isinstance(target, type) and inspect.isfunction(static)
    options = {"name": f"{place}.{name}", **options}
    inner = _Recorded(function, is_method=is_method, **options)
    replacement: Any = inner.wrapper()
    installed = staticmethod(replacement) if isinstance(target, type) and not is_method else replacement
    is_own, before = name in vars(target), vars(target).get(name)
    setattr(target, name, installed)

    def undo() -> None:
        inner.is_on = False  # in case something keeps it
        if vars(target).get(name) is not installed:
            return  # another patch is on top of it, or has been undone below it
        if is_own:
            setattr(target, name, before)
        else:
            delattr(target, name)

    return undo


@overload
def recorded(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def recorded(**options: Unpack[Options]) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def recorded(function: Any = None, /, **options: Unpack[Options]) -> Any:
    """Decorate a function so that its results are recorded and replayed in tests and blocks; elsewhere it runs as usual.

    For sync and async functions: ``@recorded`` or ``@recorded(name=..., ignore=..., dump=..., load=...)``. Results are
    found by the function's name and arguments, without ``self`` or ``cls``. Raises SettingsError for a class and for
    generators.
    """
    if function is None:
        return functools.partial(recorded, **options)
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    parameters = _parameters(function)
    is_method = "." in name.rpartition("<locals>.")[2] and next(iter(parameters), "") in {"self", "cls"}
    options = {"name": f"{module}.{name}".replace("<locals>.", ""), **options}
    return _Recorded(function, is_method=is_method, **options).wrapper()


class _Recorded:
    """A function that records and replays; ``is_method``: its first argument is the object, which does not count."""

    def __init__(self, function: Callable[..., Any], *, is_method: bool, **options: Unpack[Options]) -> None:
        self.is_on = True
        self._function = function
        self._name = options["name"]
        self._title = f"{self._name}()"
        _check(function, self._title)
        self._is_method = is_method
        self._ignored = frozenset(options.get("ignore", ()))
        self._dump, self._load = options.get("dump"), options.get("load")
        self._signature = (
            inspect.Signature([*_parameters(function).values()]) if _parameters(function) else None
        )
        for name in self._ignored - _parameters(function).keys():
            raise SettingsError(f"{self._title} has no argument {name!r} that could be ignored.")

    def wrapper(self) -> Callable[..., Any]:
        """The function that replaces it."""
        function = self._function
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                __tracebackhide__ = True
                if (begun := self._begin(args, kwargs)) is None:
                    return await function(*args, **kwargs)
                return await _arun(*begun, lambda: function(*args, **kwargs))

            return awaited

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            if (begun := self._begin(args, kwargs)) is None:
                return function(*args, **kwargs)
            return _run(*begun, lambda: function(*args, **kwargs))

        return called

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Recorder, Value] | None:
        """The recorder of the current call, and the call as a value; None if the function runs as usual."""
        recorder = session.current() if self.is_on and not _is_inside.get() else None
        if recorder is None or (arguments := self._arguments(args, kwargs)) is None:
            return None
        advice = (
            "Let it return JSON data (dict, list, str, int, float, bool, None) or bytes, or convert it: give record() "
            "or @recorded(...) a function dump=..., which makes such data of the result, and load=..., which makes "
            "the result of that."
        )
        return recorder, Value(
            f"function {self._name}", self._title, advice, arguments, self._dump, self._load
        )

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """The arguments of the key, by name; None if the function does not accept them: calling it raises the TypeError."""
        if self._signature is None:
            return {**{f"args[{index}]": item for index, item in enumerate(args)}, **kwargs}
        try:
            given = self._signature.bind(*args, **kwargs).arguments
        except TypeError:
            return None
        if self._is_method and given:
            del given[next(iter(given))]
        for name, parameter in self._signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
        return {name: item for name, item in given.items() if name not in self._ignored}


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # some of C's have none
        return {}


def _check(function: Any, title: str, *, takes_class: bool = False) -> None:
    """Raise SettingsError if a function cannot be recorded."""
    kind = ""
    if isinstance(function, type) and not takes_class:
        kind = "a class"
    elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        kind = "a generator function"
    elif not callable(function):
        kind = f"a {type(function).__name__}"
    if kind:
        raise SettingsError(
            f"{title} cannot be recorded: it is {kind}, and only functions are, sync and async.\n"
            "Record a function that returns the result as plain data, such as a list of what the generator gives."
        )
