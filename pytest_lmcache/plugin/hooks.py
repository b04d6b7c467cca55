"""The plugin's hooks, its fixtures and its marker."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache.errors import CassetteMiss, LMCacheError, LMCacheWarning, SettingsError, UnsupportedCall
from pytest_lmcache.origins import coroutine_of
from pytest_lmcache.plugin import import_warnings
from pytest_lmcache.plugin.collection import check_collected, warn_of_near_marks
from pytest_lmcache.plugin.items import backend_key, is_marked, missed_key, passed_key, raise_fault
from pytest_lmcache.plugin.options import MARKER, ini_values
from pytest_lmcache.plugin.reports import complete_report, show_users_lines
from pytest_lmcache.plugin.run import Run
from pytest_lmcache.plugin.shared_fixtures import set_up_shared
from pytest_lmcache.settings import Mode, RunSettings

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder

run_key: pytest.StashKey[Run] = pytest.StashKey()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Keep off the warnings of LiteLLM's own import; under ``lm_auto`` see what a conftest calls when imported."""
    import_warnings.keep_off()  # pytest has warning filters of its own for each of its phases
    if ini_values(early_config, RunSettings).get("auto"):
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
    config.pluginmanager.register(RunHooks(run), "lmcache-run")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing of ours in LiteLLM, and no warning filter."""
    import_warnings.let_through()
    run = config.stash.get(run_key, None)
    if run is not None:
        run.stop()


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Show a miss by the user's own lines, not by those of the libraries between them and the miss."""
    # Not a wrapper: pytest gives the exception of a unittest.TestCase to the call only in its own hook.
    show_users_lines(item, call)


@pytest.fixture
def lm_cache(request: pytest.FixtureRequest, lm_cache_backend: Any) -> Recorder:
    """Record and replay this test's language-model calls; hands out the record of its calls."""
    request.node.stash[backend_key] = lm_cache_backend
    return request.config.stash[run_key].recorder_of(request.node)


@pytest.fixture(scope="session")
def lm_cache_backend() -> Any:
    """The cache behind the cassettes, a ``pytest_lmcache.Cache``; override it in a conftest. None: the configured."""
    return None


class RunHooks:
    """The hooks of one run of pytest, once it is configured."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.config = run.config

    def pytest_report_header(self) -> str | None:
        """Say the mode where it is not the default."""
        return None if self.run.mode is Mode.REPLAY else f"lmcache: mode {self.run.mode}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell what the run's calls were, saved and spent."""
        if not self.run.observer.has_counted or self.run.summary.is_empty:
            return
        terminalreporter.write_sep("=", "language-model calls")
        durations, verbose = self.run.durations, self.config.get_verbosity() > 0
        for line in self.run.summary.render(durations=durations, verbose=verbose):
            terminalreporter.write_line(line)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """End what an interrupt left open, fail for refused calls, send a worker's facts to its controller."""
        if self.run.current is not None:
            self.run.end_test(self.run.current, passed=False)
        self.run.finish(is_interrupted=session.exitstatus == pytest.ExitCode.INTERRUPTED)
        if not self.run.observer.has_counted:
            return
        is_refused = self.run.summary.has_refused_outside_tests
        if is_refused and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output["lmcache"] = self.run.summary.to_plain()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add the facts of a worker."""
        data = getattr(node, "workeroutput", {}).get("lmcache")
        if data is not None:
            self.run.observer.add_worker(data)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Keep off the warnings of LiteLLM's own import, if a test file imports it."""
        import_warnings.keep_off()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Refuse markers that cannot be, before any test runs; warn of marks that are nearly ours."""
        warn_of_near_marks(self.config, session.items)
        check_collected(self.run, session.items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """What a recorded test starts has to be known as its own."""
        if self.run.is_auto or any(map(is_marked, session.items)):
            self.run.follow()
        if self.run.is_auto:
            self.run.watch_processes()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """From here on the calls are this test's."""
        import_warnings.keep_off()
        item.stash[passed_key] = None
        self.run.begin_test(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """A miss that the test, or a fixture before it, swallowed fails it all the same."""
        if is_marked(item):
            self.run.recorder_of(item)  # where a fixture has marked it
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
        if (origin := self.run.followed_origin) is None or not iscoroutinefunction(function):
            return (yield)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, name, coroutine_of(origin, function))
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
            self.run.end_test(item, passed=passed)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Calls of a fixture that outlives the test are recorded in a cassette of the fixture's own."""
        try:
            is_planned = self.config.getoption("setupplan", default=False)  # nothing runs
            if fixturedef.scope == "function" or self.run.current is None or is_planned:
                return (yield)
            return (yield from set_up_shared(self.run, fixturedef, request))
        except (CassetteMiss, LMCacheError, LMCacheWarning) as fault:
            # pytest itself notes what a fixture failed with only where that is an Exception, and of its own.
            if isinstance(fault, CassetteMiss) and self.run.current is not None:
                self.run.current.stash[missed_key] = fault
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
        complete_report(report, item, call)
        return report


def _run(config: pytest.Config, options: argparse.Namespace) -> Run:
    try:
        return Run(config, options)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None
