"""Finds the recording of a call in the cassettes of tests that no longer exist: renamed, moved or re-parametrized."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_lmcache.cassette_folders import TEST_DIR, base_folder, cassette_folder, relative
from pytest_lmcache.errors import SettingsError
from pytest_lmcache.plugin.cassette_paths import Owner

if TYPE_CHECKING:
    import pytest

    from pytest_lmcache.miss import Elsewhere
    from pytest_lmcache.settings import Settings

MOST_FILES = 10_000  # cassettes that are searched
LARGEST = 50_000_000  # bytes of a cassette that are searched
_START = 4096  # bytes that have the label
LABEL = re.compile(
    rb"^# pytest-lmcache cassette of (?!the (?:tests|\w+ fixture \S+) of )(.+::.+)$", re.MULTILINE
)
KEY = re.compile(rb"^key: (\w+)$", re.MULTILINE)
SKIPPED = frozenset({"node_modules", "build", "dist", "__pycache__", "site-packages"})


class RenamedTests:
    """The cassettes that no collected test owns, by the keys of their recordings; read when a call first misses.

    ``cassette_of`` gives the path of a test's cassette.
    """

    def __init__(self, config: pytest.Config, cassette_of: Callable[[pytest.Item], Path]) -> None:
        self.config = config
        self.cassette_of = cassette_of
        self.collected: list[pytest.Item] = []  # the deselected too
        self._texts: dict[str, str] = {}  # of test files
        self._by_key: dict[Path, dict[str, list[Elsewhere]]] = {}

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note tests that do not run, but are there."""
        self.collected += items

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the tests of this run."""
        self.collected += session.items

    def finder(self, owner: Owner, settings: Settings) -> Callable[[str], Elsewhere | None]:
        """Return a function that finds a key of a test that has no cassette yet."""
        base = base_folder(owner.file, self.config.rootpath)
        folder = cassette_folder(base, settings.cassette_dir, owner.file)
        root = base if TEST_DIR in settings.cassette_dir else folder
        has_own = settings.cassette is not None and not owner.sharers(settings)

        def find(key: str) -> Elsewhere | None:
            return self._find(key, root, folder.name, owner.nodeid) if has_own else None

        return find

    def _find(self, key: str, root: Path, folder: str, test: str) -> Elsewhere | None:
        if root not in self._by_key:
            found: dict[str, list[Elsewhere]] = {}
            for each, keys in self._without_tests(root, folder):
                for other in keys:
                    found.setdefault(other, []).append(each)
            self._by_key[root] = found
        candidates = self._by_key[root].get(key, [])
        if len(candidates) < 2:  # noqa: PLR2004
            return candidates[0] if candidates else None
        from difflib import SequenceMatcher

        return max(
            candidates, key=lambda each: SequenceMatcher(None, each.test, test, autojunk=False).ratio()
        )

    def _without_tests(self, root: Path, folder: str) -> Iterator[tuple[Elsewhere, set[str]]]:
        """The cassettes whose tests no longer exist, with their keys."""
        from pytest_lmcache.miss import Elsewhere

        for path in self._files(root, folder):
            try:
                with path.open("rb") as file:
                    start = file.read(_START)
                    label = LABEL.search(start)
                    test = "" if label is None else label[1].decode("utf-8", "replace").strip()
                    if not test or self._exists(test):
                        continue
                    keys = {key.decode() for key in KEY.findall(start + file.read(LARGEST))}
            except OSError:  # it has just gone, or this user may not read it
                continue
            yield Elsewhere(relative(path, self.config.invocation_params.dir), test), keys

    def _files(self, root: Path, folder: str) -> Iterator[Path]:
        """The files below a cassette folder, or in all folders of its name, that no collected test owns."""
        left = MOST_FILES
        for parent, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("."))
            if root.name != folder and folder not in Path(parent).relative_to(root).parts:
                continue
            for name in sorted(files):
                path = Path(parent, name)
                if name.endswith(".yaml") and path not in self._owned:
                    left -= 1
                    if left < 0:
                        return
                    yield path

    @cached_property
    def _owned(self) -> set[Path]:
        """The cassettes of the tests that were collected."""
        owned = set()
        for item in self.collected:
            try:
                owned.add(self.cassette_of(item))
            except SettingsError:  # the test fails with it
                continue
        return owned

    @cached_property
    def _collected_functions(self) -> set[str]:
        return {item.nodeid.partition("[")[0] for item in self.collected}

    def _exists(self, test: str) -> bool:
        """Whether a test exists that was not collected, as far as its file says."""
        function = test.partition("[")[0]
        if function in self._collected_functions:
            return False  # with other parameters
        file, *classes, name = function.split("::")
        if file not in self._texts:
            try:
                self._texts[file] = (self.config.rootpath / file).read_text(
                    encoding="utf-8", errors="replace"
                )
            except OSError:
                self._texts[file] = ""
        text = self._texts[file]
        is_there = re.search(rf"\bdef {re.escape(name)}\b", text) is not None
        return is_there and all(re.search(rf"\bclass {re.escape(each)}\b", text) for each in classes)
