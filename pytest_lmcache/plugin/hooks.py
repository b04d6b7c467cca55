"""The plugin's hooks and fixtures, and a run of pytest with its shared fixtures."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Generator, Sequence
from contextlib import nullcontext
from inspect import iscoroutinefunction
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache import origins, places
from pytest_lmcache.errors import (
    TOLD,
    CassetteMiss,
    DoorError,
    LMCacheError,
    LMCacheWarning,
    SettingsError,
    UnsupportedCall,
    still_running,
)
from pytest_lmcache.libraries.import_hook import ImportWatch
from pytest_lmcache.origins import Late, Origin
from pytest_lmcache.places import Place
from pytest_lmcache.plugin import import_warnings
from pytest_lmcache.plugin.cassette_names import cassette_by_folder, fixture_place, test_place, typed_nodeid
from pytest_lmcache.plugin.commands import test_commands
from pytest_lmcache.plugin.items import (
    BACKEND,
    backend_key,
    has_own_backend,
    is_marked,
    is_nearly_ours,
    missed_key,
    passed_key,
    raise_fault,
    recorder_key,
    stopped_itself,
)
from pytest_lmcache.plugin.options import (
    MARKER,
    check_names,
    check_settings,
    configured,
    forced_mode,
    ini_layers,
    ini_settings,
    read_ini,
)
from pytest_lmcache.plugin.tracebacks import calling_file, miss_behind, users_part
from pytest_lmcache.settings import CacheSettings, Mode, Settings

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder
    from pytest_lmcache.session import Session
    from pytest_lmcache.summary import Tally

PATIENCE = 10.0  # seconds that a test may go on after a miss without a word
LEFT_RUNNING = 10.0  # seconds to wait for the threads that tests have left running, as Python does for ever
OUTSIDE = "outside of the tests, such as while a module is imported: use_cassette records them"
# DSPy has an engine of its own, and may be there without LiteLLM.
LIBRARIES = ("litellm", "dspy")
ENGINE = "pytest_lmcache.session"
STARTS = "pytest_lmcache.children.starts"


run_key: pytest.StashKey[Run] = pytest.StashKey()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Keep off the warnings of LiteLLM's own import; under ``lm_auto`` see what a conftest calls when imported."""
    import_warnings.keep_off()  # pytest has warning filters of its own for each of its phases
    if read_ini(early_config, "lm_auto", "true or false"):
        early_config.stash[run_key] = run = _run(early_config, early_config.known_args_namespace)
        early_config.add_cleanup(run.stop)  # where the run ends before it is configured
    try:
        return (yield)
    except UnsupportedCall as error:
        raise pytest.UsageError(str(error)) from None


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings and register the marker and the run's hooks."""
    boot: Any = sys.modules.get("pytest_lmcache.children.boot")
    if boot is not None:  # a run of its own, also where a test has started it
        boot.start("")
    config.addinivalue_line("markers", MARKER)
    run = config.stash.get(run_key, None) or _run(config, config.option)
    config.stash[run_key] = run
    config.pluginmanager.register(run, "lmcache-run")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing of ours in LiteLLM, and no warning filter."""
    import_warnings.let_through()
    run = config.stash.get(run_key, None)
    if run is not None:
        run.stop()


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Show a miss by the user's own lines, not by those of the libraries between them and the miss."""
    # Not a wrapper: pytest gives the exception of a unittest.TestCase to the call only in its own hook.
    excinfo = call.excinfo
    if excinfo is not None and (miss := miss_behind(item, excinfo)) is not None:
        if not isinstance(excinfo.value, BaseExceptionGroup):  # which holds the miss itself
            miss.__cause__ = excinfo.value.with_traceback(users_part(excinfo.tb))
        excinfo = call.excinfo = pytest.ExceptionInfo.from_exception(miss)
    if excinfo is None or not isinstance(excinfo.value, CassetteMiss | LMCacheError):
        return
    if not item.config.getoption("fulltrace", default=False):
        # What was being handled, by LiteLLM or by our own code, says no more than the message.
        excinfo.value.__suppress_context__ = True
        if type(excinfo.value.__cause__).__module__.startswith("pytest_lmcache."):
            excinfo.value.__cause__ = None
        call.excinfo = pytest.ExceptionInfo.from_exception(
            excinfo.value.with_traceback(users_part(excinfo.tb))
        )


@pytest.fixture
def lm_cache(request: pytest.FixtureRequest, lm_cache_backend: Any) -> Recorder:
    """Record and replay this test's language-model calls; hands out the record of its calls."""
    request.node.stash[backend_key] = lm_cache_backend
    return request.config.stash[run_key].recorder_of(request.node)


@pytest.fixture(scope="session")
def lm_cache_backend() -> Any:
    """The cache behind the cassettes, a ``pytest_lmcache.Cache``; override it in a conftest. None: the configured."""
    return None


class Run:
    """One run of pytest: which test's calls go where, and what is told at the end."""

    def __init__(self, config: pytest.Config, options: argparse.Namespace) -> None:
        self.config = config
        self.settings = configured(Settings(), ini_settings(config))
        self.forced = forced_mode(options)
        self.layers = configured(CacheSettings(), ini_layers(config))
        self.is_auto = bool(read_ini(config, "lm_auto", "true or false"))
        check_names(self.settings)
        self._check_folder(self.settings, config.rootpath, "ini: lm_cassette_dir")
        self.current: pytest.Item | None = None
        self._origin: Origin | None = None  # of the test that runs
        self._origin_before: Origin | None = None
        self._follows = False
        self._watches_processes = False
        self.shared: list[SharedFixture] = []
        self.new: set[Path | None] = set()  # shared cassettes that this run is the first to write
        self.there: dict[Path, bool] = {}  # which named cassettes were there when the tests were collected
        self._marked_fixtures: set[Any] = set()  # their definitions
        self.shared_places: set[Path | None] = set()  # the cassettes of shared fixtures that were set up
        self._tally: Tally | None = None
        self._alarm: Timer | None = None
        self._watcher: Recorder | None = None
        self._before: Any = None
        self._watched = 0
        self._outer: tuple[Any, ...] | None = None  # what the engine had before this run
        self._watches = [ImportWatch(name, self._library_is_there) for name in LIBRARIES]
        self._watches.append(ImportWatch(ENGINE, self._engine_is_there))

    def stop(self) -> None:
        """Watch for LiteLLM and DSPy, and over their calls, no more; but while a replaying test's threads go on, do."""
        is_last = self._watcher is None or self.session.is_alone(self._watcher)
        if self._follows and is_last and origins.THREADS.has_left():
            return
        for watch in self._watches:
            watch.stop()
        if self._outer is not None:
            session = sys.modules[ENGINE].session
            session.rules, session.place, session.folders, session.configuration = self._outer
            self._outer = None
        if self._follows:
            self._follows = False
            origins.THREADS.unfollow()
        if self._watcher is not None:
            engine = self.session
            engine.ended, engine.missed, engine.layers, engine.late, engine.outside = self._before
            self.session.leave(self._watcher)
            self.session.close_caches()
            self._watcher = None
        if self._watches_processes:
            sys.modules[STARTS].starts.stop()
        if ENGINE in sys.modules:
            sys.modules[ENGINE].session.end_children()

    @property
    def _mode(self) -> Mode:
        return self.forced or self.settings.mode or Mode.REPLAY

    # What the run says.

    def pytest_report_header(self) -> str | None:
        """Say the mode where it is not the default."""
        return None if self._mode is Mode.REPLAY else f"lmcache: mode {self._mode}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell what the run's calls were, saved and spent."""
        if self._tally is None or self._tally.is_empty:
            return
        terminalreporter.write_sep("=", "language-model calls")
        durations, verbose = self.config.getoption("--lm-durations"), self.config.get_verbosity() > 0
        for line in self._tally.lines(durations=durations, verbose=verbose):
            terminalreporter.write_line(line)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """End what an interrupt left open, fail for refused calls, hand a worker's tally to its controller."""
        if self.current is not None:
            self._end(self.current, passed=False)
        if self._follows and session.exitstatus != pytest.ExitCode.INTERRUPTED:
            origins.THREADS.wait(LEFT_RUNNING)
        self._count_watched(OUTSIDE)
        if self._watcher is not None:
            self._count_late()
        is_refused = self._tally is not None and (self._tally.late or self._tally.outside)
        if is_refused and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._tally is not None and self._watcher is not None:
            self.tally.count_layers(self.session.stats())
        output = getattr(self.config, "workeroutput", None)
        if output is not None and self._tally is not None:
            output["lmcache"] = self._tally.plain()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over a worker's tally."""
        data = getattr(node, "workeroutput", {}).get("lmcache")
        if data is not None:
            self.tally.merge(data)

    # One test.

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Keep off the warnings of LiteLLM's own import, if a test file imports it."""
        import_warnings.keep_off()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Refuse markers that cannot be, before any test runs; warn of marks that are nearly ours."""
        self._warn_of_near_marks(session.items)
        checked: list[Settings] = []  # a key may be any callable, hashable or not
        for item in session.items:
            if is_marked(item):
                for found in getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {}).values():
                    self._marked_fixtures.update(found)
            elif not self.is_auto:
                continue
            names = getattr(item, "fixturenames", None)
            if names is not None and BACKEND not in names and has_own_backend(item):
                # First of all: other fixtures may call.
                names.insert(0, BACKEND)
            try:
                settings = self.settings_of(item)
                self._check_layers(item, settings)
                if settings not in checked:
                    checked.append(settings)
                    check_settings(settings, item.nodeid)
                    place = Place(places.below_rootdir(item.path, self.config.rootpath), "")
                    self._check_folder(settings, place.file, item.nodeid)
                    if settings.cassette:
                        _, path = self._cassette(place, settings, item.nodeid)
                        self.there[path] = path.exists()
            except SettingsError as error:
                # A worker must not end its run: the test itself tells.
                if not hasattr(self.config, "workerinput"):
                    raise pytest.UsageError(str(error)) from None

    def _check_layers(self, item: pytest.Item, settings: Settings) -> None:
        """Raises SettingsError where a test is about to ask layers that need what is not installed."""
        url = dict(settings.layers).get("url", self.layers.url)
        if url is None or settings.cache is not None or settings.mode is Mode.LIVE or has_own_backend(item):
            return
        asks = settings.cassette is None or settings.mode in {Mode.RECORD, Mode.REWRITE}
        if settings.mode is Mode.ONCE and settings.cassette is not None:
            asks = not self._cassette(test_place(item), settings, item.nodeid)[1].exists()
        if asks:
            from pytest_lmcache.layers.redis import check_installed

            check_installed()

    def _warn_of_near_marks(self, items: Sequence[pytest.Item]) -> None:
        """A misspelt mark leaves its test live and green. One that the project or a plugin registers is theirs."""
        seen = {"lm_cache"}
        known: set[str] | None = None
        for item in items:
            for name in [mark.name for mark in item.iter_markers() if mark.name not in seen]:
                seen.add(name)
                if known is None:
                    lines = self.config.getini("markers")
                    known = {re.split("[:(]", line, maxsplit=1)[0].strip() for line in lines}
                if name not in known and is_nearly_ours(name):
                    warning = LMCacheWarning(
                        f"{item.nodeid}: @pytest.mark.{name} does nothing: its calls are neither recorded nor "
                        "replayed. The mark is @pytest.mark.lm_cache. If it is another tool's, register it: "
                        "markers in the configuration."
                    )
                    try:
                        item.warn(warning)
                    except LMCacheWarning as error:  # where warnings are errors
                        item.stash[missed_key] = error

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """What a recorded test starts has to be known as its own."""
        if self.is_auto or any(map(is_marked, session.items)):
            self._follow()
        if self.is_auto:
            from pytest_lmcache.children.starts import starts

            self._watches_processes = True
            starts.watch(self._process_starts)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """From here on the calls are this test's."""
        import_warnings.keep_off()
        self._count_watched(OUTSIDE)
        self.current = item
        self._origin = Origin(item.nodeid)
        self._origin_before = origins.replace(self._origin)
        item.stash[passed_key] = None
        if is_marked(item):
            self.recorder_of(item)
        elif any(name in sys.modules for name in LIBRARIES) or (self.is_auto and ENGINE in sys.modules):
            self._library_is_there()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """A miss that the test, or a fixture before it, swallowed fails it all the same."""
        if is_marked(item):
            self.recorder_of(item)  # where a fixture has marked it
        # Where a plugin runs once more what failed: a call that is not recorded fails its test for good.
        if (missed := item.stash.get(missed_key, None)) is not None:
            raise missed.with_traceback(None)
        raise_fault(item)
        result = yield
        raise_fault(item)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Let tests that anyio runs in one task, whose context is nobody's, have what they start as their own."""
        inner = getattr(pyfuncitem.obj, "hypothesis", None)
        place, name = (pyfuncitem, "obj") if inner is None else (inner, "inner_test")
        function = getattr(place, name)
        if self._origin is None or not self._follows or not iscoroutinefunction(function):
            return (yield)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, name, origins.coroutine_of(self._origin, function))
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """After the last of its fixtures, write the test's cassette if all of it passed."""
        passed = False
        try:
            result = yield
            if item.stash.get(passed_key, None):
                raise_fault(item)
            passed = item.stash.get(passed_key, None) is True
            return result
        finally:
            self._end(item, passed=passed)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Calls of a fixture that outlives the test are recorded in a cassette of the fixture's own."""
        try:
            is_planned = self.config.getoption("setupplan", default=False)  # nothing runs
            if fixturedef.scope == "function" or self.current is None or is_planned:
                return (yield)
            return (yield from self._set_up_shared(fixturedef, request))
        except (CassetteMiss, LMCacheError, LMCacheWarning) as fault:
            # pytest itself notes what a fixture failed with only where that is an Exception, and of its own.
            if isinstance(fault, CassetteMiss) and self.current is not None:
                self.current.stash[missed_key] = fault
            key = fixturedef.cache_key(request)  # type: ignore[arg-type]
            failed_with: Any = (fault, fault.__traceback__) if pytest.version_tuple >= (8, 3) else fault
            fixturedef.cached_result = (None, key, failed_with)
            raise

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note whether the test has failed; tell the misses of one that failed in another way."""
        report = yield
        recorder = item.stash.get(recorder_key, None)
        # What a test asked before it was skipped is recorded.
        is_skip = report.skipped and recorder is not None
        if call.when == "call":
            # An expected failure is how the test goes. Of subtests, each has a report before the test's own.
            passed = report.passed or hasattr(report, "wasxfail") or is_skip
            if recorder is not None and stopped_itself(call):
                recorder.is_cut_short = True
            item.stash[passed_key] = passed and item.stash.get(passed_key, None) is not False
        elif call.when == "setup" and report.skipped and recorder is not None:
            recorder.is_cut_short = item.stash[passed_key] = True
        failure = call.excinfo.value if report.failed and call.excinfo is not None else None
        if isinstance(failure, CassetteMiss | LMCacheError):
            setattr(failure, TOLD, True)
        faults = list(recorder.faults) if recorder is not None else []
        if (missed := item.stash.get(missed_key, None)) is not None and not faults:
            faults = [missed]
        if faults and hasattr(report, "wasxfail"):
            # What was expected to fail was not the recording.
            item.stash[passed_key] = False
            del report.wasxfail
            report.outcome, report.longrepr = "failed", str(faults[0])
        if (
            failure is not None
            and recorder is not None
            and recorder.mode is not Mode.LIVE
            and recorder.not_recorded
        ):
            from pytest_lmcache.not_recorded import advice

            is_rewrite = recorder.mode is Mode.REWRITE
            command = recorder.commands.rewrite if is_rewrite else recorder.commands.record
            _put_first(report, advice(failure, recorder.not_recorded, command))
        if failure is not None and recorder is not None and (told := recorder.advice_on_failure()):
            report.sections.append(("language-model calls of this failure", told))
        # What a child process raised is another exception with the same text.
        if report.failed and faults and str(failure) not in map(str, faults):
            report.sections.append(("language-model calls that missed", "\n\n".join(map(str, faults))))
        return report

    def recorder_of(self, item: pytest.Item) -> Recorder:
        """The recorder of a test, opened on first need."""
        recorder = item.stash.get(recorder_key, None)
        if recorder is None:
            try:
                nodeid = typed_nodeid(item)
                recorder = self.recorder(item, test_place(item), nodeid, nodeid)
                self._follow()
                self.session.enter(recorder)
            except LMCacheError as error:
                raise pytest.fail.Exception(str(error), pytrace=False) from None
            item.stash[recorder_key] = recorder
        return recorder

    def recorder(
        self, node: pytest.Item | pytest.Collector, place: Place, label: str, record: str
    ) -> Recorder:
        """A recorder with the settings of a node, on the cassette that they name, or else on the place's own.

        ``record`` is what pytest is told to run to record it. Raises SettingsError.
        """
        from pytest_lmcache.session import identity_of

        settings = self.settings_of(node)
        root, path = self.config.rootpath, None
        if settings.cassette is not None:
            root, path = self._cassette(place, settings, node.nodeid)
        if path is not None and (self.forced or settings.mode) not in {None, Mode.REPLAY, Mode.LIVE}:
            self._check_links(
                path, places.folder_in(root, settings.cassette_dir, place.file), root, settings, node.nodeid
            )
        # xdist's workers have all collected before one of them makes the first file.
        if path is not None and not self.there.get(path, path.exists()):
            self.new.add(path)
        folder = Path(settings.cassette_dir)
        # A fixture may be set up more than once, with other parameters each time.
        is_shared = bool(settings.cassette) or path in self.shared_places
        return self.session.recorder(
            settings,
            path,
            is_shared=is_shared,
            label="several tests" if settings.cassette else label,
            asker=label,
            identity="" if path is None else identity_of(path, folder if folder.is_absolute() else root),
            commands=test_commands(self.config, record, node.path),
            created_this_run=path in self.new,
            backend=self._backend,
            where=lambda: self._hints(place, settings),
        )

    def _cassette(self, place: Place, settings: Settings, source: str) -> tuple[Path, Path]:
        """The folder that has the cassette folder, and the cassette of a place, or the one that the settings name.

        Raises SettingsError for one that cannot be.
        """
        self._check_folder(settings, place.file, source)
        try:
            return places.locate(cassette_by_folder(place, settings), place.file, self.config.rootpath)
        except SettingsError as error:
            raise SettingsError(f"{source}: {error}") from None

    def _hints(self, place: Place, settings: Settings) -> list[str]:
        """What a miss says of a cassette that is not there."""
        config = self.config
        return places.hints(cassette_by_folder(place, settings), place.file, config.rootpath, config.inipath)

    def _check_folder(self, settings: Settings, file: Path, source: str) -> None:
        """Raise SettingsError for a cassette folder outside rootdir that the command line does not name."""
        root = places.top(file, self.config.rootpath)
        folder = os.path.abspath(places.folder_in(root, settings.cassette_dir, file))  # noqa: PTH100 - links are another question
        if not Path(folder).is_relative_to(root) and not self._is_given(settings.cassette_dir):
            raise SettingsError(
                f"{source}: the cassette folder {settings.cassette_dir!r} lies outside rootdir, {root}. Name one inside "
                f"it, or give the absolute path on the command line: -o lm_cassette_dir={shlex.quote(folder)}"
            )

    def _is_given(self, folder: str) -> bool:
        """Whether the command line names a folder, by its absolute path."""
        given = self.config.getoption("override_ini") or ()
        return Path(folder).is_absolute() and f"lm_cassette_dir={folder}" in given

    def _check_links(self, path: Path, folder: Path, root: Path, settings: Settings, source: str) -> None:
        """Raise SettingsError for a cassette to be written that a link leads out of its folder, or of rootdir."""
        folder, real = folder.resolve(), path.resolve()
        is_inside = folder.is_relative_to(root.resolve()) or self._is_given(settings.cassette_dir)
        if not is_inside or not real.is_relative_to(folder):
            raise SettingsError(
                f"{source}: nothing is recorded into {path}: a link leads from there to {real}, outside of the cassette "
                f"folder. Put a file in the link's place, or give the folder's absolute path on the command line: "
                f"-o lm_cassette_dir={shlex.quote(str(real.parent))}"
            )

    def end(self, test: str, recorder: Recorder, *, passed: bool) -> None:
        """Write a recorder's cassette, where all passed, and count what it did. Raises CassetteError."""
        passed = passed and not recorder.faults
        is_kept = written = False
        try:
            written = recorder.close(passed=passed)
            is_kept = passed
        finally:
            self.tally.add(test, recorder, passed=is_kept, written=written)

    def _backend(self) -> Any:
        """What the fixture ``lm_cache_backend`` gave the test that runs, None where nobody overrides it."""
        item = self.current
        given = item.stash.get(backend_key, None) if item is not None else None
        return (getattr(item, "funcargs", None) or {}).get(BACKEND) if given is None else given

    def _set_up_shared(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        shared = SharedFixture(self, fixturedef, request)
        origin = origins.replace(None)  # what it starts serves whichever test runs
        is_recorded = self.current is not None and recorder_key in self.current.stash
        before = self.session.current() if self._watcher is not None else None
        is_blind = self._tally is not None and self._tally.unseen
        if is_recorded or (fixturedef in self._marked_fixtures and not is_blind):
            shared.open()
        self.shared.append(shared)
        request.addfinalizer(shared.close)
        try:
            result = yield
            shared.is_set_up = True
        finally:
            origins.replace(origin)
            self.shared.remove(shared)
            shared.pause()
            self._be_innermost(before)
        # The last finalizer to be added is the first to run.
        request.addfinalizer(shared.tear_down)
        return result

    def _be_innermost(self, before: Recorder | None) -> None:
        """A block that a shared fixture leaves open stands around the test, as it does for the next one.

        ``before`` is what calls belonged to before the fixture was set up.
        """
        if self.shared:  # another one, which needed this, is still being set up
            return
        recorder = self.current.stash.get(recorder_key, None) if self.current is not None else None
        if recorder is not None and self.session.current() not in {before, recorder}:
            self.session.leave(recorder)
            self.session.enter(recorder)

    def _missed(self, miss: CassetteMiss) -> None:
        """Tell of a miss before its test has ended, if that does not come to pass."""
        if self.current is not None and self._alarm is None:
            self._alarm = Timer(PATIENCE, self._tell_of_hang, [self.current.nodeid, miss])
            self._alarm.daemon = True
            self._alarm.start()

    def _tell_of_hang(self, test: str, miss: CassetteMiss) -> None:
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
            sys.stderr.write(still_running(test, PATIENCE, str(miss)))
            sys.stderr.flush()

    def _end(self, item: pytest.Item, *, passed: bool) -> None:
        self.current = None
        if self._origin is not None:
            self._origin.late = self._late(item)
            self._origin = None
            origins.replace(self._origin_before)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._count_watched(item.nodeid)
        recorder = item.stash.get(recorder_key, None)
        if recorder is None:
            return
        del item.stash[recorder_key]
        for fault in recorder.faults:
            if isinstance(fault, CassetteMiss):
                item.stash[missed_key] = fault
        self.session.leave(recorder)
        try:
            self.end(item.nodeid, recorder, passed=passed)
        except LMCacheError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None

    def _library_is_there(self) -> None:
        """LiteLLM or DSPy has been imported: watch over it, and under ``lm_auto`` record the test."""
        if self._watcher is None:
            try:
                self.session  # noqa: B018 - watches
            except DoorError as error:
                # What is not marked runs as it does without this plugin; what is marked fails with this error.
                if not self.is_auto or self.current is None:
                    self.tally.unseen = str(error)
                    return
        if self.is_auto and self.current is not None:
            self.recorder_of(self.current)
            for shared in self.shared:
                shared.open()

    def _process_starts(self) -> Any:
        """Under ``lm_auto`` a process may call what its test has not imported; gives whose its calls are."""
        self._library_is_there()
        return self.session.membership()

    def _outside(self, found: Recorder | None) -> Recorder | None:
        """Under ``lm_auto``, refuse the call of a module that is imported, or of a hook, unless a block records it."""
        origin = origins.current()
        is_late = origin is not None and origin.late is not None
        is_ours = self.is_auto and self.current is None and not is_late
        is_recorded = found is not None and not found.watched
        if not is_ours or is_recorded or self._mode not in {Mode.REPLAY, Mode.ONCE}:
            return found
        file, is_import = calling_file()
        where = places.relative(Path(file), self.config.rootpath) if file else "a thread"
        self.tally.refuse_outside(where)
        when = "while it is imported" if is_import else "outside of the tests"
        raise UnsupportedCall(
            f"{where} calls a language model {when}. Under lm_auto, mode {self._mode} lets nothing reach a provider "
            "unrecorded, and this call belongs to no test.\n"
            "Make it in a test or a fixture, or record it where it is: "
            'with pytest_lmcache.use_cassette("cassettes/name.yaml"): ...'
        )

    def _engine_is_there(self) -> None:
        """``use_cassette`` redacts what the configuration redacts in tests, and finds its files from rootdir too."""
        from pytest_lmcache.keys.normalizers import Folders

        session = sys.modules[ENGINE].session
        self._outer = session.rules, session.place, session.folders, session.configuration
        session.rules = Settings(redact=self.settings.redact, redact_with=self.settings.redact_with)
        session.place = self._place_of_block
        if self.config.inipath is not None:
            session.configuration = self.config.inipath.name
        folders = Folders(str(self.config.rootpath), _temporary_folders(self.config))
        session.folders = lambda: folders
        self._follow()  # what a block in a test without a mark starts is known as the block's

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
            from pytest_lmcache.session import late

            return late(recorder)
        if not self.is_auto:
            return Late.AS_ANY
        # A thread that outlives its test may be what imports LiteLLM.
        try:
            mode = self.settings_of(item).mode or Mode.REPLAY
        except SettingsError:  # its test says so
            mode = Mode.REPLAY
        if mode is Mode.LIVE:
            return Late.AS_ANY
        return Late.REFUSED if mode in {Mode.REPLAY, Mode.ONCE} else Late.NOT_RECORDED

    def _follow(self) -> None:
        """From here on threads and work items know which test started them."""
        if not self._follows:
            self._follows = True
            origins.THREADS.follow()

    def _count_late(self) -> None:
        late = self.session.late
        self.tally.count_late(late.refused, late.passed())

    def _count_watched(self, where: str) -> None:
        """Count the calls since the last count that belong to no recorder."""
        if self._watcher is None:
            return
        calls = len(self._watcher.calls)
        if calls > self._watched:
            self.tally.watched(where, calls - self._watched)
            self._watched = calls

    def _block_ended(self, recorder: Recorder, passed: bool, written: bool, is_told: bool) -> None:
        """Count what a ``use_cassette`` did; ``is_told``: what it stands in counts its misses."""
        test = self.current.nodeid if self.current is not None else OUTSIDE
        self.tally.add(test, recorder, passed=passed, written=written, is_told=is_told)

    @property
    def session(self) -> Session:
        """The engine, imported on first need; from then on calls that belong to no test are watched."""
        from pytest_lmcache.session import session

        if self._watcher is None:
            # Below all others: the innermost recorder gets a call.
            watcher = session.watcher()
            session.enter(watcher)
            self._before = session.ended, session.missed, session.layers, session.late, session.outside
            session.ended, session.missed, session.layers = self._block_ended, self._missed, self.layers
            session.late, session.outside = session.new_late_calls(), self._outside
            self._watcher = watcher
        return session

    @property
    def tally(self) -> Tally:
        """The run's tally, made when there is something to count."""
        if self._tally is None:
            from pytest_lmcache.summary import Tally

            self._tally = Tally()
        return self._tally

    def settings_of(self, node: pytest.Item | pytest.Collector) -> Settings:
        """The settings of a test, or of what holds tests: command line, then markers near to far, then ini."""
        settings = self.settings
        for marker in reversed(list(node.iter_markers("lm_cache"))):
            if marker.args:
                raise SettingsError(
                    f"{node.nodeid}: @pytest.mark.lm_cache takes its settings by name, such as "
                    f"cassette={marker.args[0]!r}."
                )
            settings = settings.updated(marker.kwargs, f"{node.nodeid}: @pytest.mark.lm_cache")
        return settings._replace(mode=self.forced) if self.forced else settings


class SharedFixture:
    """A fixture that outlives a test: what it asks has a cassette of its own, the same for every selection."""

    def __init__(self, run: Run, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
        self.run = run
        self.fixturedef = fixturedef
        self.request = request
        self.is_set_up = False
        self._recorder: Recorder | None = None
        self._is_open = False
        self._origin: Origin | None = None

    def open(self) -> None:
        """From here on the calls are the fixture's."""
        if self._recorder is not None:
            return
        node, nodeid = self.request.node, self.request.node.nodeid or self.fixturedef.baseid or "."
        label = f"the {self.fixturedef.scope} fixture {self.fixturedef.argname} of {nodeid}"
        self._recorder = self.run.recorder(node, fixture_place(self.fixturedef, self.request), label, nodeid)
        self.resume()

    def pause(self) -> None:
        """Set up, or failed to: the calls are the test's again. Raises a miss that the fixture swallowed."""
        if self._recorder is None:
            return
        self._leave()
        if self.is_set_up and self._recorder.faults:
            self.is_set_up = False
            raise self._recorder.faults[0]
        if self.is_set_up:
            self.run.shared_places.add(self._recorder.path)

    def resume(self) -> None:
        """The calls are the fixture's again."""
        if self._recorder is not None:
            self.run.session.enter(self._recorder)
            self._is_open = True

    def tear_down(self) -> None:
        """The fixture's own teardown begins."""
        self._origin = origins.replace(None)
        self.resume()

    def close(self) -> None:
        """The fixture's end: write its cassette if it was set up. Raises a miss that its teardown swallowed."""
        if self.is_set_up:
            origins.replace(self._origin)
        if self._recorder is None:
            return
        self._leave()
        try:
            self.run.end(self._recorder.label, self._recorder, passed=self.is_set_up)
        except LMCacheError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        if self.is_set_up and self._recorder.faults:
            raise self._recorder.faults[0]

    def _leave(self) -> None:
        if self._is_open and self._recorder is not None:
            self._is_open = False
            self.run.session.leave(self._recorder)


def _temporary_folders(config: pytest.Config) -> tuple[str, ...]:
    import tempfile

    base = config.getoption("basetemp", default=None)
    given = () if base is None else (os.path.abspath(base),)  # noqa: PTH100 - as pytest does
    return (*given, tempfile.gettempdir())


def _run(config: pytest.Config, options: argparse.Namespace) -> Run:
    try:
        return Run(config, options)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None


def _put_first(report: pytest.TestReport, line: str | None) -> None:
    """Show a line above the traceback of a failed test."""
    chain = getattr(report.longrepr, "chain", None)  # which --tb=native has not
    if line is None:
        return
    if chain:
        chain.insert(0, (type(chain[0][0])([], None, "long"), None, line))
    else:
        report.sections.append(("language-model calls", line))
