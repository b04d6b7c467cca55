"""One run of pytest: which test's calls go where, and when the interception is on."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache import origins
from pytest_lmcache.cassette_folders import below_rootdir
from pytest_lmcache.errors import CassetteMiss, DoorError, LMCacheError, SettingsError
from pytest_lmcache.libraries import LIBRARIES
from pytest_lmcache.libraries.import_hook import ImportWatch
from pytest_lmcache.origins import Late, Origin
from pytest_lmcache.plugin import inputs
from pytest_lmcache.plugin.budget import Budget
from pytest_lmcache.plugin.cassette_paths import find_cassette, hints, test_owner
from pytest_lmcache.plugin.miss_reports import MissReports
from pytest_lmcache.plugin.node_recorders import (
    NodeRecorders,
    check_names,
    given_backend,
    is_marked,
    missed_key,
    recorder_key,
)
from pytest_lmcache.plugin.observer import RunObserver
from pytest_lmcache.plugin.options import cache_settings, ini_values, option_values
from pytest_lmcache.plugin.report_page import ReportPage
from pytest_lmcache.plugin.run_notes import RunNotes
from pytest_lmcache.settings import Mode, RunSettings, Settings

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder
    from pytest_lmcache.session import Place, Session

THREADS_GRACE = 10.0  # seconds to wait at the end for threads of tests; Python waits for ever


class Run:
    """One run of pytest: its settings, the test that runs, and what is on for it."""

    def __init__(self, config: pytest.Config, options: argparse.Namespace) -> None:
        self.config = config
        self.settings = Settings().with_values(ini_values(config, Settings))
        self.layers = cache_settings(config, options)
        for_run = RunSettings(**ini_values(config, RunSettings) | option_values(options, RunSettings))
        self.is_auto, self.durations = for_run.auto, for_run.durations
        command_line = option_values(options, Settings)
        self.mode = command_line.get("mode") or self.settings.mode or Mode.REPLAY
        self.models: tuple[str, ...] = command_line.get("model", ())
        if self.models and self.mode not in {Mode.VERIFY, Mode.LIVE}:
            raise SettingsError(
                f"--lm-model asks another model, and mode {self.mode} asks none. Give it with --lm-mode=verify, which "
                "compares its answers with the recorded ones, or with --lm-mode=live, in which the tests get them."
            )
        check_names(self.settings)
        self.notes = RunNotes(config, self.mode)
        self.observer = RunObserver(
            config,
            self.mode,
            self.notes,
            refuses_outside=self.is_auto and self.mode.replays,
            unmarked=for_run.unmarked,
        )
        if for_run.report is not None:
            self.observer.page = ReportPage(config, for_run.report, self.mode)
        self.budget = Budget(config, self.observer, for_run.budget, for_run.unknown_price)
        self.misses = MissReports(config, self.observer)
        self.recorders = NodeRecorders(
            config, self.settings, command_line, lambda: given_backend(self.observer.current)
        )
        self.recorders.check_folder(self.settings, config.rootpath, "ini: lm_cassette_dir")
        self.marked_fixtures: set[Any] = set()  # the definitions of fixtures that marked tests need
        # What opens the recorders of shared fixtures that are being set up.
        self.set_ups: list[Callable[[], None]] = []
        # Whether the interception is on, and calls outside of recorded tests are counted.
        self.is_watching = False
        self._has_engine = False
        self._undo = ExitStack()  # takes from the engine what it has of this run
        self._origin: Origin | None = None  # of the test that runs
        self._origin_before: Origin | None = None
        self._follows = False
        self._watches = [ImportWatch(name, self._library_is_imported) for name in LIBRARIES]
        self._watches.append(ImportWatch("pytest_lmcache.session", self._engine_is_imported))

    # The interception.

    def engine(self) -> Session:
        """Import the engine on first need and switch the interception on.

        Raises DoorError if LiteLLM or DSPy hides its functions.
        """
        from pytest_lmcache.session import session

        if not self.is_watching:
            self._undo.enter_context(session.watched())
            self.is_watching = True
        return session

    def _engine_is_imported(self) -> None:
        """Have ``use_cassette`` blocks redact as the configuration says, and find their files from rootdir."""
        from pytest_lmcache.keys.normalizers import Folders
        from pytest_lmcache.session import Configuration, session

        self._has_engine = True
        folders = Folders(str(self.config.rootpath), _temporary_folders(self.config))
        configuration = Configuration(
            block_settings=self._block_settings(),
            layers=self.layers,
            locate=self._locate_block,
            folders=lambda: folders,
            settings_file="pyproject.toml" if self.config.inipath is None else self.config.inipath.name,
            spending=self.budget.spending,
        )
        self.observer.send_unseen = self.budget.spending.let_pass
        self._undo.enter_context(session.configured(configuration, self.observer))
        self._undo.callback(session.children.close)
        self._undo.callback(session.caches.close)
        self.follow()  # what a block starts is known as the block's, in tests without a mark too

    def _block_settings(self) -> Settings:
        """The defaults of ``use_cassette`` blocks."""
        of_blocks = ("redact", "redact_with", "block_network", "allow_hosts")
        settings = Settings(**{name: getattr(self.settings, name) for name in of_blocks})
        given = self.recorders.command_line
        return settings.with_values({name: value for name, value in given.items() if name in of_blocks})

    def _locate_block(self, path: Path) -> Place:
        """Find the cassette of a ``use_cassette`` block, as that of the test that runs."""
        from pytest_lmcache.session import Place

        rootdir, test = self.config.rootpath, self.observer.current
        file = rootdir if test is None else below_rootdir(test.path, rootdir)

        def cassette_in(base: Path) -> Path:
            return Path(os.path.abspath(base / path))  # noqa: PTH100 - a cassette may be a link

        return Place(
            *find_cassette(cassette_in, file, rootdir),
            lambda: hints(cassette_in, file, rootdir, self.config.inipath),
        )

    def _library_is_imported(self) -> None:
        """Count the calls of LiteLLM or DSPy from here on; under ``lm_auto`` record the test."""
        try:
            self.engine()
        except DoorError as error:
            # Marked tests fail with this error; the others run as without this plugin.
            if not self.is_auto or self.observer.current is None:
                self.observer.summary.unseen = [str(error)]
                return
        if self.is_auto and self.observer.current is not None:
            self.recorder_of(self.observer.current)
            for open_recorder in self.set_ups:
                open_recorder()

    def watch_processes(self) -> None:
        """Have the processes that tests start belong to their tests: they may call what the test has not imported."""
        from pytest_lmcache.children.starts import starts

        starts.watch(self._process_starts)
        self._undo.callback(starts.stop)

    def _process_starts(self) -> Any:
        self._library_is_imported()
        return self.engine().children.membership()

    def follow(self) -> None:
        """Have threads and work items know from here on which test started them."""
        if not self._follows:
            self._follows = True
            origins.THREADS.follow()

    @property
    def followed_origin(self) -> Origin | None:
        """The origin of the test that runs, None while threads are not followed."""
        return self._origin if self._follows else None

    def finish(self, *, is_interrupted: bool) -> None:
        """Wait for threads that tests have left running, and count what the cache's layers did."""
        if self._follows and not is_interrupted:
            origins.THREADS.wait(THREADS_GRACE)
        if self.is_watching:
            self.observer.summary.add_layers(self.engine().caches.stats())

    def stop(self) -> None:
        """Switch everything off, unless this is the last run and threads of replaying tests go on."""
        is_last = not self.is_watching or self.engine().interceptions.users == 1
        if self._follows and is_last and origins.THREADS.has_left():
            return
        for watch in self._watches:
            watch.stop()
        if self._follows:
            self._follows = False
            origins.THREADS.unfollow()
        self._undo.close()
        self.is_watching = False

    # One test.

    def begin_test(self, item: pytest.Item) -> None:
        """Calls belong to this test from here on."""
        self.observer.current = item
        self._origin = Origin(item.nodeid)
        self._origin_before = origins.replace(self._origin)
        if is_marked(item) or (self.is_auto and self._has_inputs(item)):
            self.recorder_of(item)
        elif any(name in sys.modules for name in LIBRARIES) or (self.is_auto and self._has_engine):
            self._library_is_imported()

    def _has_inputs(self, item: pytest.Item) -> bool:
        """Whether the settings of a test set its clock or its random numbers, or forbid it the network."""
        try:
            settings = self.recorders.settings_of(item)
        except SettingsError:
            return True  # the recorder fails the test with it
        return settings.freeze_time or settings.seed is not None or settings.block_network

    def recorder_of(self, item: pytest.Item) -> Recorder:
        """The recorder of a test, opened on first need."""
        recorder = item.stash.get(recorder_key, None)
        if recorder is None:
            try:
                recorder = self.recorders.make(self.engine(), item, test_owner(item))
                self.follow()
                inputs.begin(item, recorder)
                try:
                    self.engine().open(recorder)
                except BaseException:
                    recorder.at_end.close()
                    raise
            except LMCacheError as error:
                raise pytest.fail.Exception(str(error), pytrace=False) from None
            item.stash[recorder_key] = recorder
        return recorder

    def end_test(self, item: pytest.Item, *, passed: bool) -> None:
        """Calls no longer belong to this test. Write its cassette if it passed."""
        self.observer.test_has_ended()
        if self._origin is not None:
            self._origin.late = self._late_policy(item)
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
        self.write(item.nodeid, recorder, passed=passed)
        if recorder.verification is not None:
            from pytest_lmcache.comparison_report import properties

            item.user_properties.extend(properties(recorder.verification.rows(recorder.calls)))

    def _late_policy(self, item: pytest.Item) -> Late:
        """What happens to the calls that a test leaves running."""
        recorder = item.stash.get(recorder_key, None)
        if recorder is not None:
            from pytest_lmcache.scopes import late_policy

            return late_policy(recorder)
        if not self.is_auto:
            return Late.ALLOWED
        # A thread that outlives its test may be the first to import LiteLLM.
        try:
            mode = self.recorders.settings_of(item).mode or Mode.REPLAY
        except SettingsError:  # the test has failed with it
            mode = Mode.REPLAY
        if mode is Mode.LIVE:
            return Late.ALLOWED
        return Late.REFUSED if mode.replays else Late.NOT_RECORDED

    def write(self, test: str, recorder: Recorder, *, passed: bool) -> None:
        """Write a recorder's cassette if all has passed, and count what the recorder did."""
        passed = passed and not recorder.faults
        is_kept = written = False
        try:
            written = recorder.close(passed=passed)
            is_kept = passed
            if passed:
                self.recorders.used.add(recorder.path)
        except LMCacheError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        finally:
            self.observer.recorder_ended(test, recorder, passed=is_kept, written=written)


def _temporary_folders(config: pytest.Config) -> tuple[str, ...]:
    import tempfile

    base = config.getoption("basetemp", default=None)
    given = () if base is None else (os.path.abspath(base),)  # noqa: PTH100 - as pytest does
    return (*given, tempfile.gettempdir())
