"""The suite: its settings, its tests and the cassette of each, as a pytest in another process lists them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pytest_lmcache.errors import LMCacheError

_PLUGINS = ("-p", "lmcache", "-p", "pytest_lmcache.plugin.listing")
# One file that cannot be collected does not hide the others.
_COLLECT = ("--collect-only", "-qq", "--maxfail=0")
_VARIABLE = "PYTEST_LMCACHE_LISTING"
UNNAMED = "<function>"
"""In place of the dotted path of a function that has none, such as a lambda."""
_SHOWN = 15  # lines of what pytest says if it fails


@dataclass(frozen=True, slots=True)
class SuiteSettings:
    """The settings of some tests, as far as they say what is right of a cassette.

    Functions are dotted paths, `UNNAMED` if they have none. ``key`` is None for the default. ``max_age`` is in seconds.
    """

    key: str | None = None
    normalize: tuple[str, ...] = ()
    max_age: float | None = None
    redact: tuple[str, ...] = ()
    redact_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListedTest:
    """One test. ``file`` and ``cassette`` are paths, the latter None if the test has no cassette.

    ``sharers`` names the tests that may use the cassette too, as its first line does; empty if it is the test's own.
    ``is_marked``: it is recorded.
    """

    nodeid: str
    file: Path
    cassette: Path | None
    sharers: str
    is_marked: bool
    settings: SuiteSettings


# A folder with one of these is the rootdir of a suite of its own, if the text is in the file.
_CONFIGURATIONS = {
    "pytest.ini": "",
    ".pytest.ini": "",
    "pytest.toml": "",
    ".pytest.toml": "",
    "pyproject.toml": "[tool.pytest",
    "tox.ini": "[pytest]",
    "setup.cfg": "[tool:pytest]",
}


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite: its folders, its configured settings and, if they were collected, its tests.

    ``cache_dir`` is pytest's cache folder. ``options`` make pytest take this rootdir and configuration. ``fixtures`` are the cassettes that shared fixtures of the tests may have; those that a test asks for by name at run
    time are missing. ``skipped`` are the files that skip themselves as a whole, ``failed`` those that cannot be
    collected, each with the reason: their tests are not known.
    """

    rootdir: Path
    cache_dir: Path
    settings: SuiteSettings
    options: tuple[str, ...] = ()
    is_collected: bool = False
    tests: tuple[ListedTest, ...] = ()
    fixtures: frozenset[Path] = frozenset()
    skipped: frozenset[str] = frozenset()
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def by_cassette(self) -> dict[Path, list[ListedTest]]:
        """The tests by the path of their cassette."""
        found: dict[Path, list[ListedTest]] = {}
        for test in self.tests:
            if test.cassette is not None:
                found.setdefault(test.cassette, []).append(test)
        return found

    def with_tests_of(self, other: Suite) -> Suite:
        """Add the tests of another collection of the same suite."""
        known = {test.nodeid for test in self.tests}
        more = tuple(test for test in other.tests if test.nodeid not in known)
        return replace(
            self,
            tests=self.tests + more,
            fixtures=self.fixtures | other.fixtures,
            skipped=self.skipped | other.skipped,
            failed={**self.failed, **other.failed},
        )

    def is_unknown(self, file: Path) -> bool:
        """Whether the tests of a file are not known, because it was not collected as a whole."""
        ids = {nodeid.partition("::")[0] for nodeid in (*self.skipped, *self.failed)}
        name = os.path.relpath(file, self.rootdir).replace(os.sep, "/")
        return any(each in {"", ".", name} or name.startswith(f"{each}/") for each in ids)

    def is_elsewhere(self, path: Path) -> bool:
        """Whether a file is outside of rootdir, or in a folder below it that is the rootdir of another suite."""
        if not path.is_relative_to(self.rootdir):
            return True
        inner = path.relative_to(self.rootdir).parents[:-1]
        return any(_is_rootdir(self.rootdir / folder) for folder in inner)


@lru_cache(maxsize=4096)
def _is_rootdir(folder: Path) -> bool:
    for name, section in _CONFIGURATIONS.items():
        file = folder / name
        if file.is_file() and section in file.read_text(encoding="utf-8", errors="replace"):
            return True
    return False


def collect(suite: Suite, arguments: Sequence[str] = ()) -> Suite:
    """The suite with its tests, or with those in some files. Raises LMCacheError if pytest fails as a whole."""
    with tempfile.TemporaryDirectory(prefix="pytest-lmcache-") as temporary:
        path = Path(temporary) / "listing.json"
        command = [sys.executable, "-m", "pytest", *_PLUGINS, *_COLLECT, *suite.options, *arguments]
        done = subprocess.run(  # noqa: S603 - pytest, which the user runs anyway
            command,
            cwd=suite.rootdir,
            env={**os.environ, _VARIABLE: str(path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if path.exists():
            return _with_tests(suite, json.loads(path.read_text(encoding="utf-8")))
    said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_SHOWN:])
    raise LMCacheError(
        f"pytest could not collect the tests in {suite.rootdir}. It said:\n{said}\n"
        "To see it all, run: pytest --collect-only"
    )


def _with_tests(suite: Suite, data: Mapping[str, Any]) -> Suite:
    rootdir = suite.rootdir
    settings = [_settings(each) for each in data["settings"]]
    tests = [
        ListedTest(
            each["nodeid"],
            _path(rootdir, each["file"]),
            None if each["cassette"] is None else _path(rootdir, each["cassette"]),
            each["sharers"],
            each["is_marked"],
            suite.settings if each["settings"] is None else settings[each["settings"]],
        )
        for each in data["tests"]
    ]
    return replace(
        suite,
        is_collected=True,
        tests=tuple(tests),
        fixtures=frozenset(_path(rootdir, each) for each in data["fixtures"]),
        skipped=frozenset(data["skipped"]),
        failed=data["failed"],
    )


def _settings(data: Mapping[str, Any]) -> SuiteSettings:
    functions = tuple(each for each in data["redact_with"] if each != UNNAMED)
    return SuiteSettings(
        data["key"], tuple(data["normalize"]), data["max_age"], tuple(data["redact"]), functions
    )


def _path(rootdir: Path, name: str) -> Path:
    return Path(os.path.normpath(rootdir / name))
