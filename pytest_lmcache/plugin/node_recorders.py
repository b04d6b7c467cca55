"""Makes the recorder of a test or a shared fixture, from its settings and the place of its cassette."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache.cassette_folders import base_folder, cassette_folder, folders_between, relative
from pytest_lmcache.commands import Commands, quoted
from pytest_lmcache.errors import SettingsError
from pytest_lmcache.plugin.cassette_paths import Owner, find_cassette, hints, test_owner
from pytest_lmcache.plugin.renamed_tests import RenamedTests
from pytest_lmcache.settings import Mode, Settings

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder
    from pytest_lmcache.session import Session

BACKEND = "lm_cache_backend"
recorder_key: pytest.StashKey[Recorder] = pytest.StashKey()
missed_key: pytest.StashKey[BaseException] = pytest.StashKey()
backend_key: pytest.StashKey[Any] = pytest.StashKey()
passed_key: pytest.StashKey[bool | None] = pytest.StashKey()
# pytest takes the folder of such a file for rootdir, for some of them only if they have a section of pytest's.
CONFIGURATIONS = (
    *("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"),
    "setup.py",
)


def is_marked(item: pytest.Item) -> bool:
    """Whether a test is recorded: it has the mark or uses the fixture ``lm_cache``."""
    return item.get_closest_marker("lm_cache") is not None or "lm_cache" in getattr(item, "fixturenames", ())


def has_own_backend(item: pytest.Item) -> bool:
    """Whether a conftest or the test's module overrides ``lm_cache_backend``."""
    fixtures = item.session._fixturemanager.getfixturedefs(BACKEND, item)
    return fixtures is not None and len(fixtures) > 1


def given_backend(item: pytest.Item | None) -> Any:
    """What the fixture ``lm_cache_backend`` returned for a test, None if it is not overridden."""
    given = item.stash.get(backend_key, None) if item is not None else None
    return (getattr(item, "funcargs", None) or {}).get(BACKEND) if given is None else given


def raise_fault(item: pytest.Item) -> None:
    """Raise the first fault of a test's recorder, or the call that a test without a recorder may not make."""
    __tracebackhide__ = True
    recorder = item.stash.get(recorder_key, None)
    if recorder is not None and recorder.faults:
        raise recorder.faults[0]
    if recorder is None and (refused := item.stash.get(missed_key, None)) is not None:
        raise refused


def raise_unmet(item: pytest.Item) -> None:
    """Fail a test for a fault or a reply that it has set up and that no call has met."""
    recorder = item.stash.get(recorder_key, None)
    if recorder is not None and (unmet := recorder.check_staged()) is not None:
        raise pytest.fail.Exception(str(unmet), pytrace=False)


class NodeRecorders:
    """Makes the recorders of tests and shared fixtures in one run of pytest.

    ``settings`` and ``command_line`` are those of the run; ``backend`` gives the cache that the current test's fixture
    ``lm_cache_backend`` returned, None for the default.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        command_line: Mapping[str, Any],
        backend: Callable[[], Any],
    ) -> None:
        self.config = config
        self.settings = settings
        self.command_line = command_line
        self.backend = backend
        self.renamed = RenamedTests(config, self._cassette_of)
        self.created: set[Path | None] = set()  # cassettes that did not exist before this run
        self.existed: dict[Path, bool] = {}  # which shared cassettes existed when the tests were collected
        self.of_fixtures: set[Path | None] = set()  # cassettes of shared fixtures that were set up
        self.used: set[Path | None] = (
            set()
        )  # cassettes of tests that have passed: plugins may run a test again

    def settings_of(self, node: pytest.Item | pytest.Collector) -> Settings:
        """The settings of a test or a collector: command line, then markers from near to far, then ini keys."""
        settings = self.settings
        for marker in reversed(list(node.iter_markers("lm_cache"))):
            if marker.args:
                raise SettingsError(
                    f"{node.nodeid}: @pytest.mark.lm_cache takes its settings by name, such as "
                    f"cassette={marker.args[0]!r}."
                )
            settings = settings.updated(marker.kwargs, f"{node.nodeid}: @pytest.mark.lm_cache")
        settings = settings.with_values(self.command_line)
        # Another sample's answer would be no other answer.
        is_sampled = settings.samples is not None and not settings.in_turn
        return settings.with_values({"share": False}) if is_sampled and settings.share else settings

    def make(self, session: Session, node: pytest.Item | pytest.Collector, owner: Owner) -> Recorder:
        """A recorder with the settings of a node. Raises SettingsError."""
        from pytest_lmcache.cassette.names import identity_of

        settings = self.settings_of(node)
        base, path = self.config.rootpath, None
        if settings.cassette is not None:
            base, path = self.cassette(owner, settings, node.nodeid)
            if settings.mode not in {None, Mode.REPLAY, Mode.LIVE, Mode.VERIFY}:
                folder = owner.folder(settings, base)
                self._check_links(path, folder, base, settings.cassette_dir, node.nodeid)
            # Every worker of xdist has collected before one of them makes the first file.
            if not self.existed.get(path, path.exists()):
                self.created.add(path)
        folder = Path(settings.cassette_dir)
        sharers = owner.sharers(settings)
        recorder = session.recorders.make(
            settings,
            path,
            # A fixture may be set up more than once, each time with other parameters.
            is_shared=bool(sharers) or path in self.of_fixtures,
            label=sharers or owner.label,
            asker=owner.label,
            identity="" if path is None else identity_of(path, folder if folder.is_absolute() else base),
            commands=test_commands(self.config, owner.nodeid, node.path),
            created_this_run=path in self.created,
            backend=self.backend,
            elsewhere=self.renamed.finder(owner, settings),
            where=lambda: hints(
                owner.cassette_by_base(settings), owner.file, self.config.rootpath, self.config.inipath
            ),
        )
        recorder.keeps_unused |= path in self.used
        return recorder

    def _cassette_of(self, item: pytest.Item) -> Path:
        return self.cassette(test_owner(item), self.settings_of(item), item.nodeid)[1]

    def cassette(self, owner: Owner, settings: Settings, source: str) -> tuple[Path, Path]:
        """The base folder and the path of the owner's cassette, or of the one that the settings name.

        Raises SettingsError for one that no setting may name.
        """
        self.check_folder(settings, owner.file, source)
        try:
            return find_cassette(owner.cassette_by_base(settings), owner.file, self.config.rootpath)
        except SettingsError as error:
            raise SettingsError(f"{source}: {error}") from None

    def check_folder(self, settings: Settings, file: Path, source: str) -> None:
        """Raise SettingsError for a cassette folder outside rootdir, unless the command line names it."""
        base = base_folder(file, self.config.rootpath)
        folder = os.path.abspath(cassette_folder(base, settings.cassette_dir, file))  # noqa: PTH100 - links are checked later
        if not Path(folder).is_relative_to(base) and not self._is_on_command_line(settings.cassette_dir):
            raise SettingsError(
                f"{source}: the cassette folder {settings.cassette_dir!r} is outside rootdir, {base}. Name one inside "
                f"it, or give the absolute path on the command line: -o lm_cassette_dir={shlex.quote(folder)}"
            )

    def _check_links(self, path: Path, folder: Path, base: Path, cassette_dir: str, source: str) -> None:
        """Raise SettingsError if a link leads a cassette that may be written out of its folder, or out of rootdir."""
        folder, target = folder.resolve(), path.resolve()
        is_inside = folder.is_relative_to(base.resolve()) or self._is_on_command_line(cassette_dir)
        if not is_inside or not target.is_relative_to(folder):
            raise SettingsError(
                f"{source}: {path} is not recorded: a link leads from there to {target}, outside of the cassette folder. "
                "Replace the link by a file, or give the folder's absolute path on the command line: "
                f"-o lm_cassette_dir={shlex.quote(str(target.parent))}"
            )

    def _is_on_command_line(self, folder: str) -> bool:
        """Whether the command line names a cassette folder by its absolute path."""
        given = self.config.getoption("override_ini") or ()
        return Path(folder).is_absolute() and f"lm_cassette_dir={folder}" in given


def check_names(settings: Settings) -> None:
    """Reject names that do not exist, as far as that is possible without importing the user's modules."""
    is_path = isinstance(settings.key, str) and bool({".", ":"} & set(settings.key))
    key = None if is_path else settings.key
    check_settings(replace(settings, key=key, redact_with=(), compare=None), "ini")


def check_settings(settings: Settings, source: str) -> None:
    """Reject names and patterns that only the engine can check; ``source`` has them. Raises SettingsError."""
    named = (settings.key, settings.normalize, settings.redact, settings.redact_with, settings.compare)
    if any(named):
        from pytest_lmcache.session import session

        try:
            session.recorders.make(settings, Path())
        except SettingsError as error:
            raise SettingsError(f"{source}: {error}") from None


def test_commands(config: pytest.Config, nodeid: str, path: Path) -> Commands:
    """The commands that record a test, or all tests of a collector, again."""
    file, separator, names = nodeid.partition("::")
    # The id of a test outside of rootdir, such as one of --pyargs, is not its path.
    test = config.rootpath / file
    test = test if file and test.exists() else path
    shown = _relative(test, config) + separator + names
    options = _rootdir_options(test, config)
    arguments = f"{options}{quoted(shown)}"
    return Commands(
        f"pytest --lm-record {arguments}",
        f"pytest --lm-rewrite {arguments}",
        options=options,
        target=shown,
        test=nodeid,
    )


def _rootdir_options(test: Path, config: pytest.Config) -> str:
    """The options that make pytest take this run's rootdir and configuration for one file; empty if it does so anyway."""
    rootdir, inipath = config.rootpath, config.inipath
    is_given = config.getoption("inifilename") or config.getoption("rootdir")
    is_default = rootdir == (config.invocation_params.dir if inipath is None else inipath.parent)
    if is_default and not is_given and test.is_relative_to(rootdir):
        folders = folders_between(rootdir, test)
        if not any((folder / name).exists() for folder in folders for name in CONFIGURATIONS):
            return ""
    options = "" if inipath is None else f"-c {shlex.quote(_relative(inipath, config))} "
    if inipath is None or inipath.parent != rootdir:
        options += f"--rootdir={shlex.quote(_relative(rootdir, config))} "
    return options


def _relative(path: Path, config: pytest.Config) -> str:
    return relative(path, config.invocation_params.dir).replace(os.sep, "/")
