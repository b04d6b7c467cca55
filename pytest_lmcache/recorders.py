"""Makes recorders; key strategies, redactors and caches are made once for equal settings."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.commands import Commands
from pytest_lmcache.errors import CassetteMiss, SettingsError
from pytest_lmcache.keys.normalizers import Folders, folders_here
from pytest_lmcache.keys.strategies import KeyStrategy, strategy
from pytest_lmcache.layers.caches import Caches
from pytest_lmcache.layers.stack import Cache
from pytest_lmcache.recorder import NO_COMMANDS, Recorder
from pytest_lmcache.redact import Redactor
from pytest_lmcache.settings import Mode, Settings


class Recorders:
    """Makes the recorders of a session.

    ``on_miss`` is called with each miss. ``folders`` gives those that the normalizers replace,
    ``settings_file`` is the name of the file that has the settings of all tests.
    """

    def __init__(self, caches: Caches) -> None:
        self.on_miss: Callable[[CassetteMiss], None] = lambda _: None
        self.folders: Callable[[], Folders] = folders_here
        self.settings_file = "pyproject.toml"
        self._caches = caches
        self._redactors: dict[Any, Redactor] = {}
        self._strategies: dict[Any, KeyStrategy] = {}
        self._cassettes: dict[Path, tuple[Any, Cassette]] = {}

    def make(
        self,
        settings: Settings,
        path: Path | None,
        *,
        is_shared: bool = False,
        label: str = "",
        commands: Commands = NO_COMMANDS,
        created_this_run: bool = False,
        backend: Callable[[], Any] | None = None,
        identity: str = "",
        asker: str = "",
        where: Callable[[], Sequence[str]] | None = None,
    ) -> Recorder:
        """A recorder with a cassette file, which is read when the first call needs it. Raises SettingsError.

        ``path`` None: no cassette. ``created_this_run``: the file was not there when the run began. ``backend``
        returns the test's cache if its settings name none, or None for that of all tests. ``identity`` names the
        cassette in the layers, on every machine; ``asker`` is who asks, if ``label`` does not say. ``where`` returns
        lines for a miss about a cassette that is not there.
        """
        self._strategy(settings.key or "exact", settings.normalize)

        def cache() -> Any:
            return self._caches.find(settings, backend)

        def keys() -> KeyStrategy:
            key = settings.key
            if key is None:  # without opening the layers: on replay they may be unusable
                users = self._caches.users(settings, backend)
                key = "exact" if users is None else _key_of(users)
            return self._strategy(key, settings.normalize)

        def cassette() -> Cassette:
            rewrites = recorder.mode is Mode.REWRITE
            return self._cassette(cast("Path", path), recorder.strategy, shared=is_shared, rewrites=rewrites)

        recorder = Recorder(
            settings,
            cassette,
            path,
            keys,
            # Its own: the key that one test passes is no secret of another's.
            self._redactor(settings).fresh(),
            open_cache=cache,
            label=label,
            commands=commands,
            is_shared=is_shared,
            created_this_run=created_this_run,
            on_miss=self.on_miss,
            shown_path="" if path is None else _shown(path),
            identity=identity,
            asker=asker,
            where=where,
            configuration=self.settings_file,
        )
        return recorder

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
        """The cassette of a path; one that tests share is read again only if its file has changed."""
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


def _key_of(cache: Any) -> Any:
    """The key strategy of a user's cache: its own ``cache_key``, else the default."""
    own = getattr(type(cache), "cache_key", None)
    return "exact" if own is Cache.cache_key else cache.cache_key


def _identity(function: Any) -> Any:
    """A function's identity, since it need not be hashable; a name as it is."""
    if hasattr(function, "__func__"):  # each access to a method makes a new object
        return id(function.__self__), id(function.__func__)
    return function if function is None or isinstance(function, str) else id(function)


def _function(path: str) -> Callable[[str], str]:
    try:
        found: Callable[[str], str] = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as problem:
        raise SettingsError(
            f"redact_with: {path!r} cannot be imported ({type(problem).__name__}: {problem}). "
            "Write it as package.module:function, with the folder of the package on the path (pythonpath = ...)."
        ) from problem
    return found


def _shown(path: Path) -> str:
    """A path relative to the current folder, if it can be."""
    try:
        return os.path.relpath(path)
    except (ValueError, OSError):  # on another drive, or the current folder is gone
        return str(path)
