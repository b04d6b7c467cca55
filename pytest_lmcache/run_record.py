"""What the last run of pytest did, as a small file in pytest's cache folder: `check`, `prune` and `report` read it.

A full run writes ``full.json``, a partial one ``partial.json``: after a partial run it is still known what the last
full one did.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Self

from pytest_lmcache.errors import LMCacheError

FOLDER = "lmcache-run"
"""The folder's name for ``config.cache.mkdir``, which is in ``d`` of pytest's cache folder."""
VERSION = 1
_FULL, _PARTIAL = "full.json", "partial.json"


@dataclass(frozen=True, slots=True)
class RanTest:
    """One test of a run.

    ``outcome`` is ``passed``, ``failed``, ``error`` (in set-up or teardown), ``skipped``, ``xfailed`` or ``xpassed``.
    ``seconds`` is how long it took, with its fixtures. ``cassettes`` are relative to rootdir. ``missed`` are the keys of
    its calls that no recording answered.
    """

    outcome: str
    seconds: float
    cassettes: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UsedCassette:
    """One cassette of a run.

    ``users`` are the ids of the tests, and the labels of the shared fixtures, that opened it. ``unused`` are the
    recordings that none of them asked for, as pairs of a key and the number of its answer (from 0); None if that is
    not known, because one of them failed. ``digest`` is `digest_of` the file at the end of the run if some are
    unused, else empty.
    """

    users: tuple[str, ...]
    unused: tuple[tuple[str, int], ...] | None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of pytest in which calls were recorded or replayed.

    - ``ended``: when it ended, ISO 8601, UTC
    - ``rootdir``: the absolute path
    - ``mode``: the mode that the run's settings name
    - ``partial``: why it was not a full run, a reason a text; empty for a full run
    - ``tests``: by node id, with the files that skipped themselves as a whole
    - ``cassettes``: by path, relative to rootdir; absolute if it is on another drive
    """

    ended: str
    rootdir: str
    mode: str
    partial: tuple[str, ...]
    tests: Mapping[str, RanTest]
    cassettes: Mapping[str, UsedCassette]

    @property
    def is_full(self) -> bool:
        """Whether all tests of the suite were collected and run."""
        return not self.partial

    def write(self, folder: Path) -> None:
        """Write the record aside and rename it. Raises OSError."""
        name = _FULL if self.is_full else _PARTIAL
        aside = folder / f".{token_hex(8)}.tmp"
        try:
            aside.write_text(json.dumps({"version": VERSION, **asdict(self)}), encoding="utf-8")
            aside.replace(folder / name)
        finally:
            aside.unlink(missing_ok=True)
        if self.is_full:
            (folder / _PARTIAL).unlink(missing_ok=True)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Self:
        """The record that was written. Raises KeyError, TypeError or ValueError if the data is not a record."""
        tests = {
            test: RanTest(**{**each, "cassettes": tuple(each["cassettes"]), "missed": tuple(each["missed"])})
            for test, each in data["tests"].items()
        }
        cassettes = {}
        for path, each in data["cassettes"].items():
            unused = each["unused"]
            pairs = None if unused is None else tuple((str(key), int(nth)) for key, nth in unused)
            cassettes[path] = UsedCassette(tuple(each["users"]), pairs, each["digest"])
        return cls(
            str(data["ended"]),
            str(data["rootdir"]),
            str(data["mode"]),
            tuple(data["partial"]),
            tests,
            cassettes,
        )


def last_run(cache_dir: Path) -> RunRecord | None:
    """The last run, full or not; None if there is none. ``cache_dir`` is pytest's. Raises LMCacheError."""
    return _read(cache_dir, _PARTIAL) or last_full_run(cache_dir)


def last_full_run(cache_dir: Path) -> RunRecord | None:
    """The last full run, None if there is none. ``cache_dir`` is pytest's. Raises LMCacheError."""
    return _read(cache_dir, _FULL)


def digest_of(path: Path) -> str:
    """A digest of a file's content. Raises OSError."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def path_from(rootdir: Path, path: Path) -> str:
    """A cassette's path as a record has it: relative to rootdir, with slashes."""
    try:
        return os.path.relpath(path, rootdir).replace(os.sep, "/")
    except ValueError:  # another drive
        return str(path)


def _read(cache_dir: Path, name: str) -> RunRecord | None:
    """Read a record; None if there is none, or if another version of this package wrote it."""
    path = cache_dir / "d" / FOLDER / name
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            return None
        return RunRecord.from_plain(data)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        raise LMCacheError(
            f"{path} cannot be read: {problem.strerror}. It says what the last run did."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise LMCacheError(
            f"{path} is broken ({type(problem).__name__}: {problem}). It says what the last run did.\n"
            "Delete it, and run: pytest"
        ) from None
