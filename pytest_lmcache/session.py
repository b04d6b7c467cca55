"""One per process: opens cassettes, hands out recorders, knows which one a call belongs to; without pytest."""

from __future__ import annotations

import functools
import inspect
import os
import pkgutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, ContextVar
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

from pytest_lmcache import answer_sources, origins
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.cassette.names import cassette_path
from pytest_lmcache.children.parent import Parent
from pytest_lmcache.children.remote import RemoteRecorder  # here: a copy by fork had better import nothing
from pytest_lmcache.children.starts import Forks, Membership
from pytest_lmcache.commands import Commands, block_commands
from pytest_lmcache.environment import DUMMY_KEY, PROVIDER_KEYS
from pytest_lmcache.errors import (
    TOLD,
    CassetteMiss,
    SettingsError,
    no_function,
    no_path,
    no_place,
    not_a_function,
    outside,
)
from pytest_lmcache.keys.normalizers import Folders, folders_here
from pytest_lmcache.keys.strategies import KeyStrategy, strategy
from pytest_lmcache.late_calls import LateCalls
from pytest_lmcache.layers.stack import Cache, Stats, Store
from pytest_lmcache.libraries.bypassed_caches import WATCHED, CacheBypass
from pytest_lmcache.libraries.import_hook import ExecutionWatch, ImportWatch
from pytest_lmcache.origins import Late, Origin
from pytest_lmcache.recorder import NO_COMMANDS, Recorder
from pytest_lmcache.redact import Redactor, shown_in_a_name
from pytest_lmcache.settings import CacheSettings, Mode, Settings

PACKAGE = "pytest_lmcache"
LIBRARIES = ("litellm", "dspy")  # which have a door
COST_MAP = "LITELLM_LOCAL_MODEL_COST_MAP"
# LiteLLM's Rust client goes past its Python functions (1.106 to 1.110): off while anything is recorded or replayed.
RUST_SWITCH = "LITELLM_RUST"

P = ParamSpec("P")
R = TypeVar("R")

_current: ContextVar[Recorder | None] = ContextVar("pytest_lmcache_current", default=None)


def prefer_local_prices() -> None:
    """Have LiteLLM read its own price map when it is imported, instead of fetching one (litellm 1.83 to 1.110)."""
    os.environ.setdefault(COST_MAP, "True")


class Place(NamedTuple):
    """Where the cassette of a ``use_cassette`` lies, the folder that its path begins in, and hints if it is not there."""

    folder: Path
    path: Path
    hints: Callable[[], Sequence[str]] | None = None


def _from_current_folder(path: Path) -> Place:
    here = Path.cwd()
    # No link is resolved: the file may be one.
    return Place(here, Path(os.path.abspath(here / path)))  # noqa: PTH100


class Session:
    """The recorders that are open in this process, the innermost last, and the doors they need."""

    def __init__(self) -> None:
        self._open: tuple[Recorder, ...] = ()
        self._own: set[Recorder] = set()
        self._apart: set[Recorder] = set()
        self._around: dict[Recorder, Recorder | None] = {}
        self._origins: dict[Recorder, Origin] = {}
        self._lock = threading.RLock()
        self._interceptions: dict[str, Any] = {}
        self._installed: list[str] = []
        self._watches: list[ExecutionWatch] = []
        self._cache_bypass = CacheBypass(self._is_bypassed, self._note_cache_in_the_way)
        self._rust: str | None = None
        self._dummies: set[str] = set()
        self._redactors: dict[Any, Redactor] = {}
        self._strategies: dict[Any, KeyStrategy] = {}
        self._uses: Counter[Path] = Counter()
        self.ended: Callable[[Recorder, bool, bool, bool], None] | None = None
        self.missed: Callable[[CassetteMiss], None] | None = None
        self.rules = Settings()
        self.place: Callable[[Path], Place] | None = None  # None: paths begin in the current folder
        self.folders: Callable[[], Folders] = folders_here
        self.configuration = "pyproject.toml"  # the file that has the settings of all tests
        self._cassettes: dict[Path, tuple[Any, Cassette]] = {}
        self.layers = CacheSettings()
        self.configured: dict[str, Any] = {}
        self._caches: dict[CacheSettings, Cache] = {}
        self._failed_stores: set[Store] = set()
        self._used: dict[int, Cache] = {}
        self._parent: Parent | None = None
        # In a process made by fork: what reaches the recorders of the other process.
        self._in_parent: dict[Recorder | None, Recorder] = {}
        self.late = self.new_late_calls()
        self.outside: Callable[[Recorder | None], Recorder | None] | None = None

    def new_late_calls(self) -> LateCalls:
        """A count of late calls that begins anew."""
        return LateCalls(self.watcher)

    def watcher(self) -> Recorder:
        """A recorder that lets every call pass, and counts it."""
        return self.recorder(Settings(mode=Mode.LIVE), Path(), watched=True)

    def current(self) -> Recorder | None:
        """The recorder of a call made here and now: the innermost one that its context is in.

        A ``use_cassette`` is for its own context, a test for every context. A thread without a context, or
        with one left over from an earlier test, belongs to the innermost of all, but for what such a thread
        itself has opened within a test. Raises where it comes from a test or block that has ended, and that
        replays.
        """
        opened, own = self._open, _current.get()
        found: Recorder | None
        if own in opened:
            found = next(found for found in reversed(opened) if found is own or found not in self._own)
        else:
            found = self.late.recorder(self._innermost(), self._tests())
            found = found if self.outside is None else self.outside(found)
        return self._in_parent.get(found, found) if self._in_parent else found

    def _innermost(self) -> Recorder | None:
        return next((found for found in reversed(self._open) if found not in self._apart), None)

    def _tests(self) -> list[Recorder]:
        return [found for found in self._open if found not in self._own and not found.watched]

    def recorder(
        self,
        settings: Settings,
        path: Path | None,
        *,
        is_shared: bool = False,
        label: str = "",
        commands: Commands = NO_COMMANDS,
        watched: bool = False,
        created_this_run: bool = False,
        backend: Callable[[], Any] | None = None,
        identity: str = "",
        asker: str = "",
        where: Callable[[], Sequence[str]] | None = None,
    ) -> Recorder:
        """A recorder on a cassette file, which is read when the first call needs it. Raises SettingsError.

        ``path`` None: no cassette. ``created_this_run``: it was not there when the run began. ``backend`` gives the cache
        of a test where its settings name none, None for the one of all. ``identity`` is what the layers know the
        cassette by, on every machine; ``asker`` is who asks, where ``label`` does not say. ``where`` gives lines for
        a miss about a cassette that is not there.
        """
        self._strategy(settings.key or "exact", settings.normalize)

        def cache() -> Any:
            return self._cache(settings, backend)

        def keys() -> KeyStrategy:
            key = settings.key
            if key is None:  # not by way of the layers: on replay they may be unusable
                own = self._own_cache(settings, backend)
                key = "exact" if own is None else _own_key(own)
            return self._strategy(key, settings.normalize)

        def cassette() -> Cassette:
            rewrites = recorder.mode is Mode.REWRITE
            return self._cassette(cast("Path", path), recorder.strategy, shared=is_shared, rewrites=rewrites)

        recorder = Recorder(
            settings,
            cassette,
            path,
            keys,
            # Its own: what one test passes as a key is no secret of another's.
            self._redactor(settings).fresh(),
            open_cache=cache,
            label=label,
            commands=commands,
            is_shared=is_shared,
            watched=watched,
            created_this_run=created_this_run,
            on_miss=self._tell_of_miss,
            shown_path="" if path is None else _shown(path),
            identity=identity,
            asker=asker,
            where=where,
            configuration=self.configuration,
        )
        return recorder

    def _tell_of_miss(self, miss: CassetteMiss) -> None:
        if self.missed is not None:
            self.missed(miss)

    def enter(self, recorder: Recorder, *, own_context: bool = False) -> None:
        """From now on calls belong to this recorder; with ``own_context`` only those of this context.

        Raises DoorError where LiteLLM or DSPy hides its functions.
        """
        with self._lock:
            if not recorder.watched:
                for name in self._installed:
                    self._interceptions[name].rescan()
            if own_context:
                self._own.add(recorder)
                is_test = any(not other.watched and other not in self._own for other in self._open)
                if is_test and _current.get() not in self._open:
                    self._apart.add(recorder)
                origin = Origin(recorder.commands.block_with(), is_test=False, parent=origins.current())
                origins.replace(origin)
                self._origins[recorder] = origin
            self._open = (*self._open, recorder)
            if not recorder.watched:
                self._around[recorder] = _current.get()
                _current.set(recorder)
            if len(self._open) == 1:
                prefer_local_prices()
                self._open_interceptions(recorder)
            if not recorder.watched and all(other.watched for other in self._open[:-1]):
                self._rust = os.environ.get(RUST_SWITCH)
                os.environ[RUST_SWITCH] = "0"
            self._guard(recorder)
            if recorder.is_offline:
                missing = [name for name in PROVIDER_KEYS if name not in os.environ]
                os.environ.update(dict.fromkeys(missing, DUMMY_KEY))
                self._dummies.update(missing)
            if not recorder.watched:
                recorder.caches_in_the_way.update(self._cache_bypass.caches_in_the_way())
                self._children.admit(recorder)

    def is_alone(self, recorder: Recorder) -> bool:
        """Whether it is the last one that keeps the interception on."""
        return self._open == (recorder,)

    def leave(self, recorder: Recorder) -> None:
        """Calls belong to this recorder no more; after the last, nothing of ours is left in LiteLLM or DSPy."""
        if self._parent is not None:
            self._parent.dismiss(recorder)
        with self._lock:
            if not recorder.watched:
                recorder.caches_in_the_way.update(self._cache_bypass.caches_in_the_way())
            around = self._around.get(recorder)
            self._forget(recorder)
            if _current.get() is recorder:
                _current.set(around)
            if not recorder.watched and all(other.watched for other in self._open):
                self._cache_bypass.remove()
                os.environ.pop(RUST_SWITCH, None)
                if self._rust is not None:
                    os.environ[RUST_SWITCH] = self._rust
            if not any(recorder.is_offline for recorder in self._open):
                for name in self._dummies:
                    if os.environ.get(name) == DUMMY_KEY:
                        del os.environ[name]
                self._dummies.clear()
            if not self._open:
                self._close_interceptions()

    @property
    def _children(self) -> Parent:
        if self._parent is None:
            forks = Forks(self._before_fork, self._after_fork, self._forked)
            self._parent = Parent(self.current, self._recorder_here, self._context, forks)
        return self._parent

    def _recorder_here(self) -> Recorder | None:
        """The recorder of what runs here and now, also where that is late."""
        own = _current.get()
        found = own if own in self._open else self._innermost()
        return self._in_parent.get(found, found)

    def _context(self, recorder: Recorder | None, origin: Origin | None) -> Context:
        context = Context()
        context.run(_current.set, recorder)
        context.run(origins.replace, origin)
        return context

    def _before_fork(self) -> None:
        own = [recorder for recorder in self._open if recorder not in self._in_parent]
        self._children.before_fork(own)
        self._lock.acquire()  # nobody is in the middle of something

    def _after_fork(self) -> None:
        self._lock.release()
        self._children.after_fork()

    def _forked(self) -> None:
        """Go on in a process made by fork: calls still belong to the recorders of the process that it is a copy of."""
        self._lock = threading.RLock()
        for recorder, variable in self._children.forked().items():
            remote = cast("Recorder", RemoteRecorder(variable, is_fork=True))
            self._in_parent[recorder] = remote
            self._children.admit(remote)

    def membership(self) -> Membership | None:
        """Whose the calls of a process are that is started here and now."""
        return self._children.membership()

    def end_children(self) -> None:
        """Answer no processes any more, where no test is under way."""
        if self._parent is not None:
            self._parent.close()

    def tell(self, recorder: Recorder, *, passed: bool, written: bool) -> None:
        """A ``use_cassette`` has ended: its misses are those of what it stands in too, and whoever counts is told.

        ``ended`` is told the recorder, whether all passed, whether the file changed, and whether it stands in a
        test that counts its misses.
        """
        own, faults = _current.get(), [*recorder.faults, *recorder.inner_faults]
        tests = self._tests()
        if own in self._own:
            own.inner_faults.extend(faults)
        elif tests:
            tests[-1].faults.extend(faults)
        if self.ended is not None:
            self.ended(recorder, passed, written, bool(tests))

    def uses(self, path: Path) -> int:
        """How often a ``use_cassette`` of this process has used a file, counting this use."""
        with self._lock:
            self._uses[path] += 1
            return self._uses[path]

    def _forget(self, recorder: Recorder) -> None:
        self._open = tuple(opened for opened in self._open if opened is not recorder)
        self._own.discard(recorder)
        self._apart.discard(recorder)
        if (origin := self._origins.pop(recorder, None)) is not None:
            origin.late = late(recorder)
            if origins.current() is origin:
                origins.replace(origin.parent)
        around = self._around.pop(recorder, None)
        for other, its in self._around.items():  # which may end after the one that it began in
            if its is recorder:
                self._around[other] = around

    def _open_interceptions(self, recorder: Recorder) -> None:
        try:
            for name in WATCHED:
                self._watches.append(ImportWatch(name, partial(self._imported, name)))
            self._watches.append(ExecutionWatch(LIBRARIES, self._executed))
        except BaseException:
            self._forget(recorder)
            self._close_interceptions()
            raise

    def _imported(self, name: str) -> None:
        """A library is there: open its door, and put aside what it has in front of it."""
        if name in self._installed or not self._open:
            return
        # What a run without DSPy does not need is not imported.
        if name == "litellm" and name not in self._interceptions:
            from pytest_lmcache.libraries.litellm import intercept as litellm

            self._interceptions[name] = litellm.Interception(self.current)
        if name == "dspy" and name not in self._interceptions:
            from pytest_lmcache.libraries.dspy import intercept as dspy

            self._interceptions[name] = dspy.Interception(self.current)
        if name in self._interceptions:
            self._interceptions[name].open()
            self._installed.append(name)
        self._guard(*self._open)  # DSPy up to 3.3 makes its cache when it is imported

    def _executed(self, module: ModuleType) -> None:
        """A module of a library has been reloaded, or imported anew: its functions are new ones."""
        name = module.__name__.partition(".")[0]
        if name in self._installed:
            self._interceptions[name].module_executed(module)

    def _close_interceptions(self) -> None:
        while self._watches:
            self._watches.pop().stop()
        while self._installed:
            self._interceptions[self._installed.pop()].close()

    def _guard(self, *recorders: Recorder) -> None:
        """Have the caches that libraries have now answer no call of these recorders."""
        for recorder in recorders:
            if recorder.mode is not Mode.LIVE:
                self._cache_bypass.install()
                recorder.bypassed_caches += self._cache_bypass.active_caches()

    def _is_bypassed(self, cache: Any) -> bool:
        """Whether a library's cache was there before what records the calls made here and now."""
        recorder = self.current()
        if recorder is None or recorder.mode is Mode.LIVE:
            return False
        return any(cache is known for known in recorder.bypassed_caches)

    def _note_cache_in_the_way(self, name: str) -> None:
        """A cache that cannot be put aside stands in front of the calls made here and now."""
        own = _current.get()
        recorder = own if own in self._open else self._innermost()
        if recorder is not None:
            recorder.caches_in_the_way.add(name)

    def stats(self) -> Mapping[str, Stats]:
        """What the layers of the caches that stood behind cassettes were asked, by the layer's name."""
        total: dict[str, Stats] = {}
        for cache in self._used.values():
            by_layer = Cache.stats(cache)  # a subclass may have something else under this name
            if any(stats != Stats() for stats in by_layer.values()):
                total |= {name: total.get(name, Stats()) + stats for name, stats in by_layer.items()}
        return total

    def close_caches(self) -> None:
        """Close the layers that were opened here; the next call opens them again."""
        for cache in self._caches.values():
            cache.close()
        self._caches.clear()
        self._used.clear()
        self.forget_troubles()

    def forget_troubles(self) -> None:
        """Caches that are opened from now on try every folder and server again."""
        self._failed_stores = set()

    def cache(self, **layers: Any) -> Cache:
        """The cache of the configuration, of ``configure_cache`` and of these settings; each is there once."""
        wanted = self.layers.updated(self.configured | layers, "the cache")
        with self._lock:
            if wanted not in self._caches:
                self._caches[wanted] = cache = Cache(**asdict(wanted))
                # One warning and one time-out for a server or folder, however many settings lead there.
                cache.share_failures(self._failed_stores)
            return self._caches[wanted]

    def _cache(self, settings: Settings, backend: Callable[[], Any] | None) -> Any:
        cache = self._own_cache(settings, backend)
        if cache is None:
            cache = self.cache(**dict(settings.layers))
        if isinstance(cache, Cache):
            self._used[id(cache)] = cache
        return cache

    def _own_cache(self, settings: Settings, backend: Callable[[], Any] | None) -> Any:
        """The cache that a user made: the test's own, its fixture's, the module's; None for one by settings."""
        if settings.cache is not None or settings.layers:
            return settings.cache
        found, source = backend() if backend is not None else None, "the fixture lm_cache_backend"
        if found is None:
            found, source = vars(sys.modules[PACKAGE]).get("cache"), "pytest_lmcache.cache"
        return None if found is None else Settings().updated({"cache": found}, source).cache

    def _strategy(self, key: Any, normalize: Sequence[str]) -> KeyStrategy:
        folders = self.folders()
        wanted = (_identity(key), normalize, folders)
        if wanted not in self._strategies:
            self._strategies[wanted] = strategy(key, normalize, folders)
        return self._strategies[wanted]

    def _redactor(self, settings: Settings) -> Redactor:
        wanted = (settings.redact, tuple(map(_identity, settings.redact_with)))
        if wanted not in self._redactors:
            functions = (_function(one) if isinstance(one, str) else one for one in settings.redact_with)
            self._redactors[wanted] = Redactor(settings.redact, functions)
        return self._redactors[wanted]

    def _cassette(self, path: Path, keys: KeyStrategy, *, shared: bool, rewrites: bool) -> Cassette:
        """The cassette of a path; one that tests share is kept while its file does not change."""
        if rewrites or not shared:
            return Cassette(path, keys, replaces=rewrites)
        try:
            status = path.stat()
            stamp: Any = (status.st_mtime_ns, status.st_size, status.st_ino, keys.name)
        except OSError:
            stamp = None
        known = self._cassettes.get(path)
        if known is not None and stamp is not None and known[0] == stamp and keys.is_builtin:
            return known[1]
        cassette = Cassette(path, keys)
        if stamp is not None:
            self._cassettes[path] = (stamp, cassette)
        return cassette


session = Session()


def configure_cache(**given: Any) -> None:
    """Choose the layers of the cache that stands behind all cassettes which name no other.

    ``enable_memory_cache``, ``enable_disk_cache``, ``disk_cache_dir``, ``disk_size_limit_bytes``,
    ``memory_max_entries``, ``ttl`` (seconds) and ``url`` (of a Redis); what is not given is as in the
    configuration of pytest. Raises SettingsError for what does not exist or cannot be.
    """
    CacheSettings().updated(given, "configure_cache()")
    session.forget_troubles()
    session.configured = given
    vars(sys.modules[PACKAGE]).pop("cache", None)


def named_cassette(name: str, folder: Path) -> Path:
    """The file that a marker's ``cassette=`` names, inside the cassette folder. Raises SettingsError."""
    path = folder / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    inside = os.path.abspath(path), os.path.abspath(folder)  # noqa: PTH100 - a cassette may be a link
    if not Path(inside[0]).is_relative_to(inside[1]):
        raise SettingsError(outside(name, str(folder)))
    return path


def own_cassette(file: Sequence[str], test: str, folder: Path) -> Path:
    """The file of a test under the cassette folder: the path of its test file, then its own name."""
    return cassette_path(folder, [*file, test], shown_in_a_name)


def identity_of(path: Path, folder: Path) -> str:
    """A cassette's name on every machine: its path in a folder, absolute only if it lies elsewhere."""
    absolute = Path(os.path.normpath(folder / path))
    return absolute.relative_to(folder).as_posix() if absolute.is_relative_to(folder) else str(absolute)


def _own_key(cache: Any) -> Any:
    """The key strategy of a cache that has one of its own, else the default."""
    own = getattr(type(cache), "cache_key", None)
    return "exact" if own is Cache.cache_key else cache.cache_key


def _identity(function: Any) -> Any:
    """A name as it is, for a function what tells it from all others: it need not be hashable."""
    if hasattr(function, "__func__"):  # a method is made anew each time it is asked for
        return id(function.__self__), id(function.__func__)
    return function if function is None or isinstance(function, str) else id(function)


def _function(path: str) -> Callable[[str], str]:
    try:
        found: Callable[[str], str] = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as problem:
        raise SettingsError(no_function("redact_with", path, problem)) from problem
    return found


def _shown(path: Path) -> str:
    """A path from here, where there is a way from here."""
    try:
        return os.path.relpath(path)
    except (ValueError, OSError):  # another drive, or a folder that is gone
        return str(path)


def late(recorder: Recorder) -> Late:
    """What happens to the calls that come after a recorder's test or block."""
    if recorder.mode is Mode.LIVE:
        return Late.AS_ANY
    # In mode once, what has just recorded was not replaying.
    return Late.REFUSED if recorder.is_offline and not recorder.recorded else Late.NOT_RECORDED


def _checked(path: Any) -> str:
    """The path that ``use_cassette`` was given."""
    if callable(path):
        raise SettingsError(no_path(path))
    given = os.fspath(path) if isinstance(path, os.PathLike) else path
    return str(Settings().updated({"cassette": given}, "use_cassette()").cassette)


class use_cassette:  # noqa: N801 - it reads as a verb, also as a decorator
    """Record and replay the calls of a block, or of a function, without pytest.

    ``with use_cassette("x.yaml", mode="record") as tape:``, ``async with``, or ``@use_cassette("x.yaml")`` on
    a sync or async function. A relative path begins in the current folder, under pytest in its rootdir. ``None``
    is no cassette: the cache layers alone answer, and what they do not have is asked. The other settings are
    those of the marker. The cassette is written when the block ends without an exception. Raises SettingsError
    for a setting that cannot be.
    """

    def __init__(self, path: str | Path | None, **settings: Any) -> None:
        for name in ("cassette", "cassette_dir"):
            if name in settings:
                raise SettingsError(no_place(name))
        self._path = None if path is None else Path(_checked(path))
        self._given = settings
        self._updated(Settings())
        self._open: list[Recorder] = []

    def _updated(self, settings: Settings) -> Settings:
        return settings.updated(self._given, "use_cassette()")

    def __enter__(self) -> Recorder:
        place = None if self._path is None else (session.place or _from_current_folder)(self._path)
        recorder = session.recorder(
            self._updated(session.rules),
            None if place is None else place.path,
            label="" if self._path is None else str(self._path),
            identity="" if place is None else identity_of(place.path, place.folder),
            commands=block_commands(self._path),
            where=None if place is None else place.hints,
        )
        session.enter(recorder, own_context=True)
        self._open.append(recorder)
        return recorder

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        recorder = self._closed()
        session.leave(recorder)
        # A rewrite drops what it did not ask: not where another block of this run uses the file too.
        recorder.is_shared = recorder.path is not None and session.uses(recorder.path) > 1
        faults = [*recorder.faults, *recorder.inner_faults]
        untold = [fault for fault in faults if not getattr(fault, TOLD, False)]
        passed = kind is None and not recorder.faults and not untold
        is_kept = written = False
        try:
            written = recorder.close(passed=passed)
            is_kept = passed
        finally:
            session.tell(recorder, passed=is_kept, written=written)
        if kind is None and untold:
            raise untold[0]
        if isinstance(error, Exception) and (told := answer_sources.advice(recorder)):
            error.add_note(told)

    def _closed(self) -> Recorder:
        """The block that ends here: this context's own, or, ended from another context, the last one begun."""
        own = _current.get()
        block = next((block for block in self._open if block is own), self._open[-1])
        self._open.remove(block)
        return block

    async def __aenter__(self) -> Recorder:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        self.__exit__(kind, error, _)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Have each call of a function be such a block. Raises SettingsError for a generator or a class."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise SettingsError(not_a_function(function, "generator function"))
        if isinstance(function, type):
            raise SettingsError(not_a_function(function, "class"))
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
                        result.close()  # it is not forgotten, it is refused
                    raise SettingsError(
                        not_a_function(function, f"function that returns a {type(result).__name__}")
                    )
                return result

        return called
