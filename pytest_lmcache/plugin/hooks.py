"""The plugin's hooks, its fixtures and its marker."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Generator, Sequence
from contextlib import suppress
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache.environment import PARENT_VARIABLE
from pytest_lmcache.errors import CassetteMiss, LMCacheError, LMCacheWarning, SettingsError, UnsupportedCall
from pytest_lmcache.libraries import LIBRARIES
from pytest_lmcache.origins import coroutine_of
from pytest_lmcache.plugin import call_limits, import_warnings, inputs, samples
from pytest_lmcache.plugin.cassette_paths import test_owner
from pytest_lmcache.plugin.comparisons import ComparisonHooks
from pytest_lmcache.plugin.node_recorders import (
    BACKEND,
    backend_key,
    check_settings,
    has_own_backend,
    is_marked,
    missed_key,
    passed_key,
    raise_fault,
    raise_unmet,
)
from pytest_lmcache.plugin.options import MARKER, ini_values
from pytest_lmcache.plugin.progress import Progress
from pytest_lmcache.plugin.reports import complete_report, shorten_traceback
from pytest_lmcache.plugin.run import Run
from pytest_lmcache.plugin.shared_fixtures import set_up_shared
from pytest_lmcache.settings import CassetteScope, Mode, RunSettings, Settings

if TYPE_CHECKING:
    from pytest_lmcache.fixture import LMCacheFixture

MISSPELT = 0.84  # similarity of a mark's name to ours: "lm_cashe" has 0.86, "cache" 0.83
run_key: pytest.StashKey[Run] = pytest.StashKey()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Ignore warnings of LiteLLM's import; under ``lm_auto``, see the calls that a conftest makes when imported."""
    import_warnings.ignore()  # again and again: each phase of pytest has warning filters of its own
    try:
        for_run = ini_values(early_config, RunSettings)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None
    if for_run.get("fast_import"):
        from pytest_lmcache.libraries.import_gc import RestingCollector

        early_config.add_cleanup(RestingCollector(LIBRARIES).stop)
    if for_run.get("auto"):
        early_config.stash[run_key] = run = _run(early_config, early_config.known_args_namespace)
        early_config.add_cleanup(run.stop)  # in case the run ends before it is configured
    try:
        return (yield)
    except UnsupportedCall as error:
        raise pytest.UsageError(str(error)) from None


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings and register the marker and the run's hooks."""
    # A test has started this process, but its run has cassettes of its own.
    if os.environ.get(PARENT_VARIABLE):
        from pytest_lmcache.children import boot

        boot.start("")
    config.addinivalue_line("markers", MARKER)
    config.addinivalue_line("markers", call_limits.MARKER)
    run = config.stash.get(run_key, None) or _run(config, config.option)
    config.stash[run_key] = run
    config.pluginmanager.register(RunHooks(run), "lmcache-run")
    config.pluginmanager.register(ComparisonHooks(run), "lmcache-comparisons")
    config.pluginmanager.register(run.notes, "lmcache-notes")
    config.pluginmanager.register(run.misses, "lmcache-misses")
    config.pluginmanager.register(run.recorders.renamed, "lmcache-renamed")
    if run.observer.page is not None:
        config.pluginmanager.register(run.observer.page, "lmcache-report")
    config.pluginmanager.register(run.budget, "lmcache-budget")
    if run.mode is not Mode.REPLAY:
        config.pluginmanager.register(Progress(config, run.budget), "lmcache-progress")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take the interception and the warning filter out."""
    import_warnings.stop_ignoring()
    run = config.stash.get(run_key, None)
    if run is not None:
        run.stop()


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize a test over its samples, after its own parameters."""
    if metafunc.definition.get_closest_marker("lm_cache") is not None:
        with suppress(SettingsError):  # `check_collected` raises it
            samples.parametrize(
                metafunc, metafunc.config.stash[run_key].recorders.settings_of(metafunc.definition)
            )


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Show a miss with a traceback of the user's own lines."""
    # Not a wrapper: pytest gives the exception of a unittest.TestCase to the call only in its own hook.
    shorten_traceback(item, call)


@pytest.fixture
def lm_cache(request: pytest.FixtureRequest, lm_cache_backend: Any) -> LMCacheFixture:
    """Record and replay this test's language-model calls; gives access to them."""
    request.node.stash[backend_key] = lm_cache_backend
    recorder = request.config.stash[run_key].recorder_of(request.node)
    from pytest_lmcache.fixture import LMCacheFixture

    return LMCacheFixture(recorder, sample=samples.sample_of(request.node))


@pytest.fixture(scope="session")
def lm_cache_backend() -> Any:
    """The cache behind the cassettes: a ``pytest_lmcache.Cache``, or None for the configured one. Override it."""
    return None


class RunHooks:
    """The hooks of one run of pytest, from its configuration on."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.config = run.config

    def pytest_report_header(self) -> str | None:
        """Name the mode if it is not the default."""
        return None if self.run.mode is Mode.REPLAY else f"lmcache: mode {self.run.mode}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the summary of the run's calls."""
        observer, misses = self.run.observer, self.run.misses
        misses.show_all(terminalreporter)
        if not observer.has_counted or observer.summary.is_empty:
            return
        terminalreporter.write_sep("=", "language-model calls")
        durations, verbose = self.run.durations, self.config.get_verbosity() > 0
        lines = observer.summary.render(
            misses=misses.lines(verbose=verbose), durations=durations, verbose=verbose
        )
        for line in [*lines, *misses.commands(terminalreporter)]:
            terminalreporter.write_line(line)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """End a test that was interrupted, fail for refused calls, send a worker's facts to its controller."""
        observer = self.run.observer
        if observer.current is not None:
            self.run.end_test(observer.current, passed=False)
        self.run.finish(is_interrupted=session.exitstatus == pytest.ExitCode.INTERRUPTED)
        self.run.notes.finish(session)
        if observer.page is not None:
            terminal = self.config.pluginmanager.get_plugin("terminalreporter")
            mends = () if terminal is None else self.run.misses.commands(terminal)
            observer.page.finish(self.run.notes.outcomes, self.run.misses.groups, mends)
        if not observer.has_counted:
            return
        is_refused = observer.summary.has_refused_outside_tests
        if is_refused and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output["lmcache"] = observer.summary.to_plain()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add the facts of a worker."""
        data = getattr(node, "workeroutput", {}).get("lmcache")
        if data is not None:
            self.run.observer.add_worker(data)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Ignore warnings of LiteLLM's import by a test file."""
        import_warnings.ignore()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Reject invalid markers, and warn of misspelt ones, before any test runs."""
        warn_of_misspelt_marks(self.config, session.items)
        check_collected(self.run, session.items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Follow the threads and processes that recorded tests start."""
        if self.run.is_auto or any(map(is_marked, session.items)):
            self.run.follow()
        if self.run.is_auto:
            self.run.watch_processes()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Calls belong to this test from here on."""
        import_warnings.ignore()
        item.stash[passed_key] = None
        self.run.begin_test(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Fail a test for a miss that it, or a fixture before it, has swallowed."""
        if is_marked(item):
            self.run.recorder_of(item)  # a fixture may have marked it
        # A plugin may run a failed test again: it fails again for a call that is not recorded.
        if (missed := item.stash.get(missed_key, None)) is not None:
            raise missed.with_traceback(None)
        raise_fault(item)
        with inputs.test_runs(item):
            result = yield
        raise_fault(item)
        call_limits.check_calls(item)
        raise_unmet(item)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Have a coroutine test own what it starts: anyio runs tests in a task whose context belongs to no test."""
        inner = getattr(pyfuncitem.obj, "hypothesis", None)
        place, name = (pyfuncitem, "obj") if inner is None else (inner, "inner_test")
        function = getattr(place, name)
        if (origin := self.run.followed_origin) is None or not iscoroutinefunction(function):
            return (yield)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, name, coroutine_of(origin, function))
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Write the test's cassette after the teardown of its last fixture, if the test passed."""
        passed = False
        try:
            result = yield
            if item.stash.get(passed_key, None):
                raise_fault(item)
            passed = item.stash.get(passed_key, None) is True
            return result
        finally:
            self.run.end_test(item, passed=passed)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Record the calls of a fixture that outlives the test in a cassette of its own."""
        test = self.run.observer.current
        try:
            is_plan = self.config.getoption("setupplan", default=False)  # fixtures are not executed
            if fixturedef.scope == "function" or test is None or is_plan:
                if test is not None:
                    inputs.fixture_begins(test)
                return (yield)
            return (yield from set_up_shared(self.run, fixturedef, request))
        except (CassetteMiss, LMCacheError, LMCacheWarning) as fault:
            # pytest itself remembers only an Exception that the fixture function raised.
            if isinstance(fault, CassetteMiss) and test is not None:
                test.stash[missed_key] = fault
            key = fixturedef.cache_key(request)  # type: ignore[arg-type]
            failed_with: Any = (fault, fault.__traceback__) if pytest.version_tuple >= (8, 3) else fault
            fixturedef.cached_result = (None, key, failed_with)
            raise

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note whether the test passed, and add its misses to its report."""
        report = yield
        complete_report(report, item, call)
        return report


def _run(config: pytest.Config, options: argparse.Namespace) -> Run:
    try:
        return Run(config, options)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None


def check_collected(run: Run, items: Sequence[pytest.Item]) -> None:
    """Reject invalid markers, and have ``lm_cache_backend`` set up before other fixtures. Raises UsageError."""
    checked: list[Settings] = []  # not a set: a key function need not be hashable
    for item in items:
        try:
            call_limits.check_marks(item, is_auto=run.is_auto)
            if run.is_auto or is_marked(item):
                _check_recorded(run, item, checked)
        except SettingsError as error:
            # In a worker of xdist the test fails instead: an error here would break the worker.
            if not hasattr(run.config, "workerinput"):
                raise pytest.UsageError(str(error)) from None


def _check_recorded(run: Run, item: pytest.Item, checked: list[Settings]) -> None:
    """Check the settings of a recorded test, unless they are ``checked``. Raises SettingsError."""
    if is_marked(item):
        for found in getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {}).values():
            run.marked_fixtures.update(found)
    names = getattr(item, "fixturenames", None)
    if names is not None and BACKEND not in names and has_own_backend(item):
        names.insert(0, BACKEND)  # first, since other fixtures may call a model
    settings = run.recorders.settings_of(item)
    samples.check(item, settings)
    _check_redis(run, item, settings)
    is_checked = settings in checked
    if is_checked and (settings.cassette or settings.scope is CassetteScope.FUNCTION):
        return
    owner = test_owner(item)
    if not is_checked:
        checked.append(settings)
        check_settings(settings, item.nodeid)
        run.recorders.check_folder(settings, owner.file, item.nodeid)
    if settings.cassette is not None and owner.sharers(settings):
        _, path = run.recorders.cassette(owner, settings, item.nodeid)
        run.recorders.existed.setdefault(path, path.exists())


def _check_redis(run: Run, item: pytest.Item, settings: Settings) -> None:
    """Raise SettingsError if a test is going to use the Redis layer and redis-py is not installed."""
    url = dict(settings.layers).get("url", run.layers.url)
    if url is None or settings.cache is not None or settings.mode is Mode.LIVE or has_own_backend(item):
        return
    uses_layers = settings.cassette is None or settings.mode in {Mode.RECORD, Mode.REWRITE}
    if settings.mode is Mode.ONCE and settings.cassette is not None:
        uses_layers = not run.recorders.cassette(test_owner(item), settings, item.nodeid)[1].exists()
    if uses_layers:
        from pytest_lmcache.layers.redis import check_installed

        check_installed()


def warn_of_misspelt_marks(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Warn of marks that are nearly ours and that nobody has registered: their tests would be live and green."""
    registered = {re.split("[:(]", line, maxsplit=1)[0].strip() for line in config.getini("markers")}
    for item in items:
        for name in [mark.name for mark in item.iter_markers() if mark.name not in registered]:
            registered.add(name)
            from difflib import get_close_matches

            if get_close_matches(name.lower().replace("_", ""), ["lmcache"], 1, MISSPELT):
                warning = LMCacheWarning(
                    f"{item.nodeid}: @pytest.mark.{name} does nothing: its calls are neither recorded nor "
                    "replayed. The marker is @pytest.mark.lm_cache. If it is another tool's, register it under "
                    "markers in the configuration."
                )
                try:
                    item.warn(warning)
                except LMCacheWarning as error:  # if warnings are errors
                    item.stash[missed_key] = error
