"""The open tests and blocks of this process, and what is switched on while there are any; without pytest."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import Context
from pathlib import Path
from typing import Any, NamedTuple, cast

from pytest_lmcache import origins
from pytest_lmcache.blocked_connections import BlockedConnections
from pytest_lmcache.children.parent import Parent
from pytest_lmcache.children.remote import RemoteRecorder  # here: a copy by fork had better import nothing
from pytest_lmcache.children.starts import Forks
from pytest_lmcache.environment import DummyKeys, without_rust_client
from pytest_lmcache.keys.normalizers import Folders, folders_here
from pytest_lmcache.layers.caches import Caches
from pytest_lmcache.libraries.bypassed_caches import CacheBypass
from pytest_lmcache.libraries.interceptions import Interceptions
from pytest_lmcache.libraries.other_sdks import OtherSDKs
from pytest_lmcache.libraries.waits import Waits
from pytest_lmcache.observer import Observer
from pytest_lmcache.origins import Late, Origin
from pytest_lmcache.recorder import Recorder
from pytest_lmcache.recorders import Recorders
from pytest_lmcache.scopes import Kind, Scope, Scopes, enter_context, late_origin, late_policy, refusal
from pytest_lmcache.settings import CacheSettings, Mode, Settings
from pytest_lmcache.spending import Spending


class Place(NamedTuple):
    """The folder that the path of a block's cassette starts in, the cassette, and hints for a miss without it."""

    folder: Path
    path: Path
    hints: Callable[[], Sequence[str]] = tuple


def from_current_folder(path: Path) -> Place:
    """The place of a block's cassette whose path starts in the current folder."""
    here = Path.cwd()
    # No link is resolved: the file may be one.
    return Place(here, Path(os.path.abspath(here / path)))  # noqa: PTH100


class Configuration(NamedTuple):
    """What holds for all tests and blocks of a run.

    ``block_settings`` are the defaults of a block, ``layers`` those of the cache. ``locate`` finds a block's
    cassette, ``folders`` returns those that the normalizers replace. ``settings_file`` is the name of the file
    with the settings of all tests. ``spending`` counts what calls cost, None for a new count.
    """

    block_settings: Settings = Settings()
    layers: CacheSettings = CacheSettings()
    locate: Callable[[Path], Place] = from_current_folder
    folders: Callable[[], Folders] = folders_here
    settings_file: str = "pyproject.toml"
    spending: Spending | None = None


class Session:
    """The open tests and blocks. The first one switches the interception on, the last one switches it off."""

    def __init__(self) -> None:
        self.scopes = Scopes()
        self.caches = Caches()
        self.recorders = Recorders(self.caches)
        waits = Waits(self._recorder_here)
        self.interceptions = Interceptions(self.current, self.live_call, self._library_imported, waits)
        forks = Forks(self._before_fork, self._after_fork, self._forked)
        self.children = Parent(self.current, self.live_call, self._recorder_here, self._context, forks)
        self._bypass = CacheBypass(self._is_bypassed, self._note_cache_in_the_way)
        self._dummy_keys = DummyKeys()
        self._network = BlockedConnections(
            self.scopes,
            lambda miss: self.observer.call_missed(miss),  # noqa: PLW0108 - each run has its own observer
            lambda: self.caches.layers.url,
        )
        self._other_sdks = OtherSDKs(self.scopes)
        self._lock = threading.RLock()
        self._undo = ExitStack()  # what is undone after the last scope
        self._configure(Configuration(), Observer())

    @contextmanager
    def configured(self, configuration: Configuration, observer: Observer | None = None) -> Iterator[None]:
        """Use this configuration and observer within, and restore the previous ones afterwards, since runs nest."""
        before = self.configuration, self.observer
        self._configure(configuration, observer or self.observer)
        try:
            yield
        finally:
            self._configure(*before)

    def _configure(self, configuration: Configuration, observer: Observer) -> None:
        self.configuration, self.observer = configuration, observer
        self.caches.layers = configuration.layers
        self.recorders.on_miss = observer.call_missed
        self.recorders.folders = configuration.folders
        self.recorders.settings_file = configuration.settings_file
        self.recorders.spending = configuration.spending or Spending()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Report live calls to the observer, also while no test or block is open.

        Raises DoorError if LiteLLM or DSPy hides its functions.
        """
        with self._lock:
            self.interceptions.open()
        try:
            yield
        finally:
            with self._lock:
                self.interceptions.close()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Close all tests and blocks within, and watch nothing; for the tests of tools such as this one."""
        scopes = [*self.scopes]
        for scope in reversed(scopes):
            self.close(scope.recorder)
        with self.interceptions.suspended():
            yield
        for scope in scopes:
            self.open(scope.recorder, is_block=scope.kind is not Kind.TEST)

    def open(self, recorder: Recorder, *, is_block: bool = False) -> None:
        """Open a test, or a block: from here on its calls belong to this recorder.

        Raises DoorError if LiteLLM or DSPy hides its functions.
        """
        with self._lock:
            self.interceptions.rescan()
            if not self.scopes:
                with ExitStack() as stack:
                    self.interceptions.open()
                    stack.callback(self.interceptions.close)
                    stack.enter_context(without_rust_client())
                    stack.enter_context(self._other_sdks.watched())
                    stack.callback(self._bypass.remove)
                    self._undo = stack.pop_all()
            scope = self.scopes.push(recorder, is_block=is_block)
            if is_block:
                name = recorder.commands.block_with()
                scope.origin = Origin(name, is_test=False, parent=origins.current())
                origins.replace(scope.origin)
            self._bypass_caches(scope)
            if recorder.is_offline:
                self._dummy_keys.add()
            recorder.caches_in_the_way.update(self._bypass.caches_in_the_way())
            self.children.admit(recorder)
            self._network.scopes_changed()

    def close(self, recorder: Recorder) -> None:
        """Close a recorder's test or block; after the last one nothing of the plugin is left in LiteLLM or DSPy."""
        self.children.dismiss(recorder)
        with self._lock:
            recorder.caches_in_the_way.update(self._bypass.caches_in_the_way())
            scope = self.scopes.remove(recorder)
            if scope.origin is not None:
                scope.origin.late = late_policy(recorder)
                if origins.current() is scope.origin:
                    origins.replace(scope.origin.parent)
            self._network.scopes_changed()
            if not any(scope.recorder.is_offline for scope in self.scopes):
                self._dummy_keys.remove()
            if not self.scopes:
                self._undo.close()

    def current(self) -> Recorder | None:
        """The recorder of a call made here and now, None for a live call of no test or block.

        A call in a context of no open test or block belongs to the innermost one, unless its own test has ended.
        Then it raises UnsupportedCall if that test replayed, and is a live call otherwise.
        """
        scope = self.scopes.current()
        if scope is None:
            scope = self.scopes.innermost()
            origin = late_origin(is_inside=scope is not None)
            if origin is not None and origin.late is Late.REFUSED:
                self.observer.late_call(origin.name, refused=True)
                miss = refusal(origin)
                for recorder in self.scopes.tests()[-1:]:
                    recorder.faults.append(miss)
                raise miss
            if origin is not None:
                return None
        return None if scope is None else scope.target

    def live_call(self, name: str) -> None:
        """Report a call for which ``current`` gave None. Raises what the observer raises, to refuse it."""
        origin = late_origin(is_inside=self.scopes.innermost() is not None)
        if origin is not None:
            self.observer.late_call(origin.name, name, refused=False)
        else:
            self.observer.live_call(name)

    def report_block(self, recorder: Recorder, *, passed: bool, written: bool) -> None:
        """Report a block that has ended: what encloses it fails with its misses too.

        ``passed``: it recorded what it asked for; ``written``: its file changed.
        """
        scope, tests = self.scopes.current(), self.scopes.tests()
        faults = [*recorder.faults, *recorder.inner_faults]
        if scope is not None and scope.kind is not Kind.TEST:
            scope.recorder.inner_faults.extend(faults)
        elif tests:
            tests[-1].faults.extend(faults)
        self.observer.block_ended(recorder, passed=passed, written=written, in_test=bool(tests))

    # Processes that are started here.

    def _recorder_here(self) -> Recorder | None:
        """The recorder of what runs here and now, also if that is late."""
        scope = self.scopes.current() or self.scopes.innermost()
        return None if scope is None else scope.target

    def _context(self, recorder: Recorder | None, origin: Origin | None) -> Context:
        context = Context()
        enter_context(context, recorder)
        context.run(origins.replace, origin)
        return context

    def _before_fork(self) -> None:
        self.children.before_fork([scope.recorder for scope in self.scopes if scope.remote is None])
        self._lock.acquire()  # so that no other thread holds it in the copy

    def _after_fork(self) -> None:
        self._lock.release()
        self.children.after_fork()

    def _forked(self) -> None:
        """Go on in a process made by fork: its calls belong to the recorders of the process that it copies."""
        self._lock = threading.RLock()
        memberships = self.children.forked()
        for scope in self.scopes:
            if scope.recorder in memberships:
                scope.remote = cast("Recorder", RemoteRecorder(memberships[scope.recorder], is_fork=True))
                self.children.admit(scope.remote)

    # Caches of libraries that would answer first.

    def _library_imported(self) -> None:
        for scope in self.scopes:  # it may have made its cache when it was imported
            self._bypass_caches(scope)

    def _bypass_caches(self, scope: Scope) -> None:
        """Have the caches that libraries have now answer no call of a scope."""
        if scope.recorder.mode is not Mode.LIVE:
            self._bypass.install()
            scope.recorder.bypassed_caches += self._bypass.active_caches()

    def _is_bypassed(self, cache: Any) -> bool:
        """Whether a library's cache was there before the test or block of the calls made here and now."""
        recorder = self.current()
        if recorder is None or recorder.mode is Mode.LIVE:
            return False
        return any(cache is known for known in recorder.bypassed_caches)

    def _note_cache_in_the_way(self, name: str) -> None:
        """Note a cache that cannot be bypassed, for the test or block of the calls made here and now."""
        recorder = self._recorder_here()
        if recorder is not None:
            recorder.caches_in_the_way.add(name)


session = Session()


def configure_cache(**given: Any) -> None:
    """Choose the layers of the cache behind all cassettes that name no other.

    ``enable_memory_cache``, ``enable_disk_cache``, ``disk_cache_dir``, ``disk_size_limit_bytes`` (bytes),
    ``memory_max_entries``, ``ttl`` (seconds) and ``url`` (of a Redis server). All others are as in pytest's
    configuration. Raises SettingsError for an unknown setting or an invalid value.
    """
    session.caches.configure(**given)
