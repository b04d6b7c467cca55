"""Makes recorders; key strategies, redactors and caches are made once for equal settings."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from pytest_lmcache.cassette.file import Cassette, NoCassette
from pytest_lmcache.errors import CassetteMiss, SettingsError
from pytest_lmcache.keys.normalizers import Folders, folders_here
from pytest_lmcache.keys.strategies import KeyStrategy, strategy
from pytest_lmcache.layers.caches import Caches
from pytest_lmcache.layers.stack import Cache
from pytest_lmcache.recorder import Recorder, Subject, redacted
from pytest_lmcache.recordings import Recordings
from pytest_lmcache.redact import Redactor
from pytest_lmcache.settings import Mode, Repeat, Settings
from pytest_lmcache.spending import Spending

if TYPE_CHECKING:
    from pytest_lmcache.verify import Verification


class Recorders:
    """Makes the recorders of a session.

    ``on_miss`` is called with each miss. ``folders`` gives those that the normalizers replace,
    ``settings_file`` is the name of the file that has the settings of all tests, ``spending`` counts what calls cost.
    """

    def __init__(self, caches: Caches) -> None:
        self.on_miss: Callable[[CassetteMiss], None] = lambda _: None
        self.folders: Callable[[], Folders] = folders_here
        self.settings_file = "pyproject.toml"
        self.spending = Spending()
        self._caches = caches
        self._redactors: dict[Any, Redactor] = {}
        self._strategies: dict[Any, KeyStrategy] = {}
        self._cassettes: dict[Path, tuple[Any, Cassette]] = {}

    def make(
        self,
        settings: Settings,
        path: Path | None,
        *,
        backend: Callable[[], Any] | None = None,
        **subject: Unpack[Subject],
    ) -> Recorder:
        """A recorder with a cassette file, which is read when the first call needs it. Raises SettingsError.

        ``path`` None: no cassette. ``backend`` returns the test's cache if its settings name none, or None for that
        of all tests.
        """
        self._strategy(settings.key or "exact", settings.normalize)

        def keys() -> KeyStrategy:
            key = settings.key
            if key is None:  # without opening the layers: on replay they may be unusable
                users = self._caches.users(settings, backend)
                # A user's cache has a strategy if it has a `cache_key` of its own.
                is_default = users is None or getattr(type(users), "cache_key", None) is Cache.cache_key
                key = "exact" if is_default else users.cache_key
            return self._strategy(key, settings.normalize)

        redactor = self._redactor(settings).fresh()
        recorder = Recorder(
            settings,
            lambda: self._cassette(recorder),
            path,
            keys,
            redactor,  # its own: the key that one test passes is no secret of another's
            open_cache=lambda: self._caches.find(settings, backend),
            on_miss=self.on_miss,
            configuration=self.settings_file,
            spending=self.spending,
            verification=self._verification(settings, path, keys, redactor),
            **subject,
        )
        return recorder

    def _verification(
        self, settings: Settings, path: Path | None, keys: Callable[[], KeyStrategy], redactor: Redactor
    ) -> Verification | None:
        """What compares the answers in mode verify, and in mode live if another model is asked. Raises SettingsError."""
        is_live = settings.mode is Mode.LIVE and bool(settings.model)
        if path is None or not (is_live or settings.mode is Mode.VERIFY):
            return None
        from pytest_lmcache.same_text import same_text
        from pytest_lmcache.verify import Verification

        def open_recordings() -> Recordings:
            return Recordings(Cassette(path, keys()), keys(), redactor, repeat=Repeat.ERROR, max_age=None)

        return Verification(
            same_text(settings.compare),
            clean=lambda answer: redacted(answer, redactor),
            redact=redactor,
            asked_model=settings.asked_model,
            spending=self.spending,
            open_recordings=open_recordings if is_live else None,
            key_text=lambda call: keys().text(call),
        )

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

    def _cassette(self, recorder: Recorder) -> Cassette | NoCassette:
        """The cassette of a recorder; one that tests share is read again only if its file has changed."""
        path, keys, rewrites = recorder.path, recorder.strategy, recorder.mode is Mode.REWRITE
        if path is None:
            return NoCassette()
        try:
            status = path.stat()
        except OSError:
            return Cassette(path, keys, replaces=rewrites)
        if rewrites or not recorder.is_shared or not keys.is_builtin:
            return Cassette(path, keys, replaces=rewrites)
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino, keys.name)
        if self._cassettes.get(path, (None,))[0] != stamp:
            self._cassettes[path] = stamp, Cassette(path, keys)
        return self._cassettes[path][1]


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
