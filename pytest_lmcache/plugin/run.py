"""One run of pytest: its settings, the test that runs, and what is switched on for it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache import origins, places
from pytest_lmcache.errors import CassetteMiss, DoorError, LMCacheError, SettingsError
from pytest_lmcache.libraries import LIBRARIES
from pytest_lmcache.libraries.import_hook import ImportWatch
from pytest_lmcache.origins import Late, Origin
from pytest_lmcache.places import Place
from pytest_lmcache.plugin.cassette_names import test_place, typed_nodeid
from pytest_lmcache.plugin.items import BACKEND, backend_key, is_marked, missed_key, recorder_key
from pytest_lmcache.plugin.observer import RunObserver
from pytest_lmcache.plugin.options import (
    cache_settings,
    ini_values,
    option_values,
)
from pytest_lmcache.plugin.recorders import Recorders, check_names
from pytest_lmcache.settings import Mode, RunSettings, Settings

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder
    from pytest_lmcache.session import Session
    from pytest_lmcache.summary import Summary

LEFT_RUNNING = 10.0  # seconds to wait for the threads that tests have left running, as Python does for ever
ENGINE = "pytest_lmcache.session"


class Run:
    """One run of pytest: which test's calls go where."""

    def __init__(self, config: pytest.Config, options: argparse.Namespace) -> None:
        self.config = config
        self.settings = Settings().with_values(ini_values(config, Settings))
        command_line = option_values(options, Settings)
        self.layers = cache_settings(config, options)
        for_run = RunSettings(**ini_values(config, RunSettings) | option_values(options, RunSettings))
        self.is_auto, self.durations = for_run.auto, for_run.durations
        self.mode = command_line.get("mode") or self.settings.mode or Mode.REPLAY
        check_names(self.settings)
        self.recorders = Recorders(config, self.settings, command_line, self._backend)
        self.recorders.check_folder(self.settings, config.rootpath, "ini: lm_cassette_dir")
        refuses = self.is_auto and self.mode in {Mode.REPLAY, Mode.ONCE}
        self.observer = RunObserver(config, self.mode, refuses_outside=refuses)
        self._origin: Origin | None = None  # of the test that runs
        self._origin_before: Origin | None = None
        self._follows = False
        # What opens the recorders of shared fixtures that are being set up.
        self.set_ups: list[Callable[[], None]] = []
        self._engine = ExitStack()  # what the engine has of this run
        self._is_watching = False
        self.marked_fixtures: set[Any] = set()  # the definitions of fixtures that marked tests ask for
        self._watches = [ImportWatch(name, self._library_is_there) for name in LIBRARIES]
        self._watches.append(ImportWatch(ENGINE, self._engine_is_there))

    @property
    def current(self) -> pytest.Item | None:
        """The test that runs."""
        return self.observer.current

    @property
    def summary(self) -> Summary:
        """The facts of this process and of the workers that have ended."""
        return self.observer.summary

    @property
    def is_watching(self) -> bool:
        """Whether the interception is on, and calls that belong to no test are watched."""
        return self._is_watching

    def engine(self) -> Session:
        """The engine, imported on first need; from here on live calls are counted.

        Raises DoorError if LiteLLM or DSPy hides its functions.
        """
        from pytest_lmcache.session import session

        if not self._is_watching:
            self._engine.enter_context(session.watched())
            self._is_watching = True
        return session

    def stop(self) -> None:
        """Watch for LiteLLM and DSPy, and over their calls, no more; but while a replaying test's threads go on, do."""
        is_last = not self._is_watching or self.engine().interceptions.users == 1
        if self._follows and is_last and origins.THREADS.has_left():
            return
        for watch in self._watches:
            watch.stop()
        if self._follows:
            self._follows = False
            origins.THREADS.unfollow()
        self._engine.close()
        self._is_watching = False

    def finish(self, *, is_interrupted: bool) -> None:
        """Count what tests have left running, and what no test asked."""
        if self._follows and not is_interrupted:
            origins.THREADS.wait(LEFT_RUNNING)
        if self._is_watching:
            self.summary.add_layers(self.engine().caches.stats())

    def watch_processes(self) -> None:
        """Have the processes that tests start be recorded with them."""
        from pytest_lmcache.children.starts import starts

        starts.watch(self._process_starts)
        self._engine.callback(starts.stop)

    @property
    def followed_origin(self) -> Origin | None:
        """The origin of the test that runs, None if nothing follows what tests start."""
        return self._origin if self._follows else None

    def begin_test(self, item: pytest.Item) -> None:
        """From here on the calls are this test's."""
        self.observer.current = item
        self._origin = Origin(item.nodeid)
        self._origin_before = origins.replace(self._origin)
        if is_marked(item):
            self.recorder_of(item)
        elif any(name in sys.modules for name in LIBRARIES) or (self.is_auto and ENGINE in sys.modules):
            self._library_is_there()

    def _library_is_there(self) -> None:
        """LiteLLM or DSPy has been imported: watch over it, and under ``lm_auto`` record the test."""
        try:
            self.engine()
        except DoorError as error:
            # What is not marked runs as it does without this plugin; what is marked fails with this error.
            if not self.is_auto or self.current is None:
                self.summary.unseen = [str(error)]
                return
        if self.is_auto and self.current is not None:
            self.recorder_of(self.current)
            for open_recorder in self.set_ups:
                open_recorder()

    def _process_starts(self) -> Any:
        """Under ``lm_auto`` a process may call what its test has not imported; gives whose its calls are."""
        self._library_is_there()
        return self.engine().children.membership()

    def _engine_is_there(self) -> None:
        """``use_cassette`` redacts what the configuration redacts in tests, and finds its files from rootdir too."""
        from pytest_lmcache.keys.normalizers import Folders
        from pytest_lmcache.session import Configuration, session

        folders = Folders(str(self.config.rootpath), _temporary_folders(self.config))
        configuration = Configuration(
            block_settings=Settings(redact=self.settings.redact, redact_with=self.settings.redact_with),
            layers=self.layers,
            locate=self._place_of_block,
            folders=lambda: folders,
            settings_file="pyproject.toml" if self.config.inipath is None else self.config.inipath.name,
        )
        self._engine.enter_context(session.configured(configuration, self.observer))
        self._engine.callback(session.children.close)
        self._engine.callback(session.caches.close)
        self.follow()  # what a block in a test without a mark starts is known as the block's

    def _place_of_block(self, path: Path) -> Any:
        """Where the cassette of a ``use_cassette`` lies: a relative path begins where that of the test's mark would."""
        from pytest_lmcache.session import Place as PlaceOfBlock

        rootdir = self.config.rootpath
        file = rootdir if self.current is None else places.below_rootdir(self.current.path, rootdir)

        def cassette_in(folder: Path) -> Path:
            return Path(os.path.abspath(folder / path))  # noqa: PTH100 - no link is resolved: the file may be one

        return PlaceOfBlock(
            *places.locate(cassette_in, file, rootdir),
            lambda: places.hints(cassette_in, file, rootdir, self.config.inipath),
        )

    def _late(self, item: pytest.Item) -> Late:
        """What happens to the calls that a test leaves running."""
        recorder = item.stash.get(recorder_key, None)
        if recorder is not None:
            from pytest_lmcache.late_calls import late_policy

            return late_policy(recorder)
        if not self.is_auto:
            return Late.AS_ANY
        # A thread that outlives its test may be what imports LiteLLM.
        try:
            mode = self.recorders.settings_of(item).mode or Mode.REPLAY
        except SettingsError:  # its test says so
            mode = Mode.REPLAY
        if mode is Mode.LIVE:
            return Late.AS_ANY
        return Late.REFUSED if mode in {Mode.REPLAY, Mode.ONCE} else Late.NOT_RECORDED

    def follow(self) -> None:
        """From here on threads and work items know which test started them."""
        if not self._follows:
            self._follows = True
            origins.THREADS.follow()

    def recorder_of(self, item: pytest.Item) -> Recorder:
        """The recorder of a test, opened on first need."""
        recorder = item.stash.get(recorder_key, None)
        if recorder is None:
            try:
                nodeid = typed_nodeid(item)
                recorder = self.recorder(item, test_place(item), nodeid, nodeid)
                self.follow()
                self.engine().open(recorder)
            except LMCacheError as error:
                raise pytest.fail.Exception(str(error), pytrace=False) from None
            item.stash[recorder_key] = recorder
        return recorder

    def recorder(
        self, node: pytest.Item | pytest.Collector, place: Place, label: str, record: str
    ) -> Recorder:
        """A recorder with the settings of a node, as `Recorders.recorder` makes it."""
        return self.recorders.recorder(self.engine(), node, place, label, record)

    def end(self, test: str, recorder: Recorder, *, passed: bool) -> None:
        """Write a recorder's cassette, where all passed, and count what it did. Raises CassetteError."""
        passed = passed and not recorder.faults
        is_kept = written = False
        try:
            written = recorder.close(passed=passed)
            is_kept = passed
        finally:
            self.summary.add_recorder(test, recorder, passed=is_kept, written=written)

    def _backend(self) -> Any:
        """What the fixture ``lm_cache_backend`` gave the test that runs, None where nobody overrides it."""
        item = self.current
        given = item.stash.get(backend_key, None) if item is not None else None
        return (getattr(item, "funcargs", None) or {}).get(BACKEND) if given is None else given

    def end_test(self, item: pytest.Item, *, passed: bool) -> None:
        """The calls are this test's no more; write its cassette if all of it passed."""
        self.observer.test_has_ended()
        if self._origin is not None:
            self._origin.late = self._late(item)
            self._origin = None
            origins.replace(self._origin_before)
        recorder = item.stash.get(recorder_key, None)
        if recorder is None:
            return
        del item.stash[recorder_key]
        for fault in recorder.faults:
            if isinstance(fault, CassetteMiss):
                item.stash[missed_key] = fault
        self.engine().close(recorder)
        try:
            self.end(item.nodeid, recorder, passed=passed)
        except LMCacheError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None


def _temporary_folders(config: pytest.Config) -> tuple[str, ...]:
    import tempfile

    base = config.getoption("basetemp", default=None)
    given = () if base is None else (os.path.abspath(base),)  # noqa: PTH100 - as pytest does
    return (*given, tempfile.gettempdir())
