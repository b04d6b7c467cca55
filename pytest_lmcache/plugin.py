"""The pytest plugin: every hook, option, ini key, marker and fixture; the only file that imports pytest."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache.doors.imports import ImportWatch
from pytest_lmcache.errors import LMCacheError, SettingsError
from pytest_lmcache.settings import Mode, Settings

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder
    from pytest_lmcache.report import Tally
    from pytest_lmcache.session import Session

MARKER = (
    "lm_cache(cassette, mode, key, normalise, repeat, record_errors, redact, redact_with, cassette_dir): "
    "record and replay the test's language-model calls"
)
INI = {
    "lm_mode": ("string", "replay (default), once, record, rewrite or live"),
    "lm_cassette_dir": ("string", "folder of the cassettes under rootdir (default: cassettes)"),
    "lm_key": ("string", "key strategy: exact (default), messages, content, or a function's dotted path"),
    "lm_normalise": (
        "linelist",
        "normalisers that act on keys: uuid, date, epoch, tmp_path, tool_call_id, re:…",
    ),
    "lm_repeat": ("string", "an identical call after the last recording: last (default), cycle or error"),
    "lm_record_errors": ("string", "which errors of the provider are recorded: lasting (default) or all"),
    "lm_redact": ("linelist", "regular expressions of own secrets, beside the built-in ones"),
    "lm_redact_with": ("string", "dotted path of a function str -> str that takes own secrets out"),
}
OWN_PACKAGES = ("pytest_lmcache", "litellm")

run_key = pytest.StashKey["Run"]()
recorder_key = pytest.StashKey["Recorder"]()
passed_key = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and ini keys."""
    group = parser.getgroup("lmcache", "language-model calls")
    group.addoption(
        "--lm-record", action="store_true", help="replay recorded language-model calls, record missing ones"
    )
    group.addoption(
        "--lm-rewrite",
        action="store_true",
        help="record all calls of the selected tests again when they pass",
    )
    group.addoption("--lm-mode", metavar="MODE", help="replay, once, record, rewrite or live")
    group.addoption(
        "--lm-durations",
        type=int,
        metavar="N",
        help="show the N tests that are slowest to record, with tokens and USD (0 for all)",
    )
    parser.addini("lm_auto", "record and replay every test, marked or not", type="bool", default=False)
    for name, (kind, text) in INI.items():
        parser.addini(name, text, type=kind, default=None)  # type: ignore[arg-type]


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Before any conftest can import LiteLLM: have it read its own price map, not fetch one."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings and register the marker and the run's hooks."""
    config.addinivalue_line("markers", MARKER)
    try:
        run = Run(config)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[run_key] = run
    config.pluginmanager.register(run, "lmcache-run")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Watch for LiteLLM no more."""
    run = config.stash.get(run_key, None)
    if run is not None:
        run.watch.stop()


@pytest.fixture
def lm_cache(request: pytest.FixtureRequest) -> Recorder:
    """Record and replay this test's language-model calls; hands out the record of its calls."""
    return request.config.stash[run_key].recorder_of(request.node)


class Run:
    """One run of pytest: which test's calls go where, and what is told at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.settings = Settings().updated(self._ini(), "ini")
        self.forced = self._forced_mode()
        self.is_auto = bool(config.getini("lm_auto"))
        self.current: pytest.Item | None = None
        self._session: Session | None = None
        self._tally: Tally | None = None
        self.watch = ImportWatch("litellm", self._litellm_is_there)

    # What the run says.

    def pytest_report_header(self) -> str | None:
        """Say the mode where it is not the default."""
        mode = self.forced or self.settings.mode
        return None if mode is Mode.REPLAY else f"lmcache: mode {mode}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell what the run's calls were, saved and spent."""
        if self._tally is None or self._tally.is_empty:
            return
        terminalreporter.section("language-model calls")
        for line in self._tally.lines(durations=self.config.getoption("--lm-durations")):
            terminalreporter.write_line(line)

    def pytest_sessionfinish(self) -> None:
        """Hand a worker's tally to its controller."""
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

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuse markers that cannot be, before any test runs."""
        if hasattr(self.config, "workerinput"):
            return  # a worker must not end its run: the test itself tells
        for item in items:
            if item.get_closest_marker("lm_cache") is not None:
                try:
                    self._settings_of(item)
                except SettingsError as error:
                    raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """From here on the calls are this test's."""
        self.current = item
        item.stash[passed_key] = False
        if item.get_closest_marker("lm_cache") is not None or "lm_cache" in getattr(item, "fixturenames", ()):
            self.recorder_of(item)
        elif "litellm" in sys.modules:
            self._litellm_is_there()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """A miss that the test, or a fixture before it, swallowed fails it all the same."""
        _raise_fault(item)
        result = yield
        _raise_fault(item)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """After the last of its fixtures, write the test's cassette if all of it passed."""
        passed = False
        try:
            result = yield
            passed = item.stash.get(passed_key, False)
            return result
        finally:
            self.current = None
            recorder = item.stash.get(recorder_key, None)
            if recorder is not None:
                del item.stash[recorder_key]
                self._close(item.nodeid, recorder, passed=passed)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Calls of a fixture that outlives the test are recorded in a cassette of the fixture's own."""
        outer = self.current.stash.get(recorder_key, None) if self.current is not None else None
        if fixturedef.scope == "function" or outer is None or outer.watched:
            return (yield)
        recorder = self._fixture_recorder(fixturedef, request, outer.settings)
        self.session.enter(recorder)
        passed = False
        try:
            result = yield
            passed = not recorder.faults
            return result
        finally:
            outer.faults.extend(recorder.faults)
            self._close(recorder.label, recorder, passed=passed)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note whether the test passed; show a miss without the frames of LiteLLM and of this package."""
        recorder = item.stash.get(recorder_key, None)
        faults = recorder.faults if recorder is not None else []
        own = call.excinfo is not None and call.excinfo.value in faults
        if own and call.excinfo is not None:
            fault = call.excinfo.value
            call.excinfo = pytest.ExceptionInfo.from_exception(
                fault.with_traceback(_users_part(call.excinfo.tb) or call.excinfo.tb)
            )
        report = yield
        if call.when == "call":
            item.stash[passed_key] = report.passed
        if report.failed and faults and not own:
            report.sections.append(("language-model calls that missed", "\n\n".join(map(str, faults))))
        return report

    def recorder_of(self, item: pytest.Item) -> Recorder:
        """The recorder of a test, opened on first need."""
        recorder = item.stash.get(recorder_key, None)
        if recorder is not None and not recorder.watched:
            return recorder
        from pytest_lmcache.session import named_cassette, own_cassette

        try:
            settings = self._settings_of(item)
            folder = self.config.rootpath / settings.cassette_dir
            name = settings.cassette
            path = named_cassette(name, folder) if name else own_cassette(*_place(item, self.config), folder)
            if recorder is not None:
                self.session.leave(recorder)
            recorder = self.session.recorder(
                settings,
                path,
                owned=name is None,
                label=item.nodeid if name is None else "several tests",
                command=_command(self.config, item.nodeid),
            )
            self.session.enter(recorder)
        except LMCacheError as error:
            pytest.fail(str(error), pytrace=False)
        item.stash[recorder_key] = recorder
        return recorder

    def _litellm_is_there(self) -> None:
        """LiteLLM has been imported: record a test under ``lm_auto``, watch one that is not marked."""
        item = self.current
        if item is None or recorder_key in item.stash:
            return
        if self.is_auto:
            self.recorder_of(item)
            return
        watched = self.session.recorder(Settings(mode=Mode.LIVE), Path(), watched=True)
        self.session.enter(watched)
        item.stash[recorder_key] = watched

    def _fixture_recorder(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest, settings: Settings
    ) -> Recorder:
        from pytest_lmcache.session import own_cassette

        base = [part for part in fixturedef.baseid.removesuffix(".py").replace("::", "/").split("/") if part]
        parameter = f"[{getattr(request, 'param_index', 0)}]" if hasattr(request, "param") else ""
        name = f"@{fixturedef.scope}.{fixturedef.argname}{parameter}"
        path = own_cassette(base, name, self.config.rootpath / settings.cassette_dir)
        return self.session.recorder(
            settings,
            path,
            label=f"the {fixturedef.scope} fixture {fixturedef.argname}",
            command=_command(self.config, request.node.nodeid or "."),
        )

    def _close(self, test: str, recorder: Recorder, *, passed: bool) -> None:
        self.session.leave(recorder)
        passed = passed and not recorder.faults
        written = False
        try:
            written = recorder.close(passed=passed)
            self.tally.add(test, recorder, passed=passed, written=written)
        except LMCacheError as error:
            pytest.fail(str(error), pytrace=False)

    @property
    def session(self) -> Session:
        """The engine, imported when the first test needs it."""
        if self._session is None:
            from pytest_lmcache.session import session

            self._session = session
        return self._session

    @property
    def tally(self) -> Tally:
        """The run's tally, made when there is something to count."""
        if self._tally is None:
            from pytest_lmcache.report import Tally

            self._tally = Tally()
        return self._tally

    # Settings.

    def _ini(self) -> dict[str, Any]:
        given = {name.removeprefix("lm_"): self.config.getini(name) for name in INI}
        return {name: value for name, value in given.items() if value}

    def _forced_mode(self) -> Mode | None:
        option = self.config.getoption
        flags = [name for name in ("--lm-record", "--lm-rewrite", "--lm-mode") if option(name)]
        if len(flags) > 1:
            raise SettingsError(f"{' and '.join(flags)} exclude each other: give one of them.")
        if not flags:
            return None
        value = option("--lm-mode") or flags[0].removeprefix("--lm-")
        return Settings().updated({"mode": value}, "--lm-mode").mode

    def _settings_of(self, item: pytest.Item) -> Settings:
        given: dict[str, Any] = {}
        for marker in item.iter_markers("lm_cache"):
            if marker.args:
                raise SettingsError(
                    f"{item.nodeid}: @pytest.mark.lm_cache takes its settings by name, such as "
                    f"cassette={marker.args[0]!r}."
                )
            given = {**marker.kwargs, **given}
        settings = self.settings.updated(given, f"{item.nodeid}: @pytest.mark.lm_cache")
        return settings.updated({"mode": self.forced}, "--lm-mode") if self.forced else settings


def _raise_fault(item: pytest.Item) -> None:
    __tracebackhide__ = True
    recorder = item.stash.get(recorder_key, None)
    if recorder is not None and recorder.faults:
        raise recorder.faults[0]


def _users_part(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of LiteLLM and of this package."""
    if traceback is None:
        return None
    rest = _users_part(traceback.tb_next)
    if traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] in OWN_PACKAGES:
        return rest
    return TracebackType(rest, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno)


def _place(item: pytest.Item, config: pytest.Config) -> tuple[list[str], str]:
    """Where a test stands: the parts of its file's path from rootdir, and its name with its classes'."""
    file = os.path.relpath(item.path, config.rootpath).replace(os.sep, "/").removesuffix(".py")
    names = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
    return file.split("/"), ".".join([*names, item.name])


def _command(config: pytest.Config, nodeid: str) -> str:
    shown = str(config.cwd_relative_nodeid(nodeid))
    quoted = shlex.quote(shown) if any(sign in shown for sign in '"$`\\!') else f'"{shown}"'
    return f"pytest --lm-record {quoted}"
