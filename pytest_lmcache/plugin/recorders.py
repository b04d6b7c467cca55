"""The recorder of a test or a shared fixture: its settings, and where its cassette lies."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmcache import places
from pytest_lmcache.errors import SettingsError
from pytest_lmcache.places import Place
from pytest_lmcache.plugin.cassette_names import cassette_by_folder
from pytest_lmcache.plugin.commands import test_commands
from pytest_lmcache.settings import Mode, Settings

if TYPE_CHECKING:
    from pytest_lmcache.recorder import Recorder
    from pytest_lmcache.session import Session


class Recorders:
    """Makes the recorders of one run of pytest."""

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
        self.backend = backend  # gives the cache of the test that runs, None for the one of all
        self.new: set[Path | None] = set()  # shared cassettes that this run is the first to write
        self.there: dict[Path, bool] = {}  # which named cassettes were there when the tests were collected
        self.shared_places: set[Path | None] = set()  # the cassettes of shared fixtures that were set up

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
        return settings.with_values(self.command_line)

    def recorder(
        self,
        session: Session,
        node: pytest.Item | pytest.Collector,
        place: Place,
        label: str,
        record: str,
    ) -> Recorder:
        """A recorder with the settings of a node, on the cassette that they name, or else on the place's own.

        ``record`` is what pytest is told to run to record it. Raises SettingsError.
        """
        from pytest_lmcache.cassette.names import identity_of

        settings = self.settings_of(node)
        root, path = self.config.rootpath, None
        if settings.cassette is not None:
            root, path = self.cassette(place, settings, node.nodeid)
        if path is not None and settings.mode not in {None, Mode.REPLAY, Mode.LIVE}:
            self._check_links(
                path, places.folder_in(root, settings.cassette_dir, place.file), root, settings, node.nodeid
            )
        # xdist's workers have all collected before one of them makes the first file.
        if path is not None and not self.there.get(path, path.exists()):
            self.new.add(path)
        folder = Path(settings.cassette_dir)
        # A fixture may be set up more than once, with other parameters each time.
        is_shared = bool(settings.cassette) or path in self.shared_places
        return session.recorders.make(
            settings,
            path,
            is_shared=is_shared,
            label="several tests" if settings.cassette else label,
            asker=label,
            identity="" if path is None else identity_of(path, folder if folder.is_absolute() else root),
            commands=test_commands(self.config, record, node.path),
            created_this_run=path in self.new,
            backend=self.backend,
            where=lambda: self._hints(place, settings),
        )

    def cassette(self, place: Place, settings: Settings, source: str) -> tuple[Path, Path]:
        """The folder that has the cassette folder, and the cassette of a place, or the one that the settings name.

        Raises SettingsError for one that cannot be.
        """
        self.check_folder(settings, place.file, source)
        try:
            return places.locate(cassette_by_folder(place, settings), place.file, self.config.rootpath)
        except SettingsError as error:
            raise SettingsError(f"{source}: {error}") from None

    def _hints(self, place: Place, settings: Settings) -> list[str]:
        """What a miss says of a cassette that is not there."""
        config = self.config
        return places.hints(cassette_by_folder(place, settings), place.file, config.rootpath, config.inipath)

    def check_folder(self, settings: Settings, file: Path, source: str) -> None:
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


def check_names(settings: Settings) -> None:
    """Reject names that do not exist, as far as that is possible without importing the user's modules."""
    is_path = isinstance(settings.key, str) and bool({".", ":"} & set(settings.key))
    check_settings(replace(settings, key=None if is_path else settings.key, redact_with=()), "ini")


def check_settings(settings: Settings, source: str) -> None:
    """Reject names and patterns that only the engine can check; ``source`` has them. Raises SettingsError."""
    if settings.key or settings.normalize or settings.redact or settings.redact_with:
        from pytest_lmcache.session import session

        try:
            session.recorders.make(settings, Path())
        except SettingsError as error:
            raise SettingsError(f"{source}: {error}") from None
