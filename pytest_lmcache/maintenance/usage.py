"""Which cassettes and recordings no test uses any more: by the tests that there are, and by the last full run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pytest_lmcache.cassette import reader
from pytest_lmcache.cassette_folders import is_cassette
from pytest_lmcache.errors import CassetteError
from pytest_lmcache.maintenance.header import Header, Owner, read_header
from pytest_lmcache.maintenance.suite import Suite, collect
from pytest_lmcache.run_record import RunRecord, UsedCassette, digest_of, last_full_run, last_run, path_from

# Outcomes of tests that have made all of their calls.
_WHOLE = frozenset({"passed", "xpassed"})


@dataclass(frozen=True, slots=True)
class Orphan:
    """A cassette that no test has. ``label`` names the test that had it, as the file says."""

    path: Path
    label: str
    why: str


@dataclass(frozen=True, slots=True)
class Unused:
    """Recordings that no test asks for, as pairs of key and number; ``is_whole``: all of the cassette's."""

    path: Path
    recordings: tuple[tuple[str, int], ...]
    is_whole: bool
    why: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What is known of the use of some cassettes.

    ``orphan_notes`` and ``unused_notes`` say what could not be known, and what to do about it.
    """

    orphans: tuple[Orphan, ...] = ()
    unused: tuple[Unused, ...] = ()
    orphan_notes: tuple[str, ...] = ()
    unused_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """All that could not be known."""
        return self.orphan_notes + self.unused_notes


def collect_all(configured: Suite, cassettes: Iterable[Path]) -> Suite:
    """Collect the tests of a suite, and those that it leaves out but that have cassettes. Raises LMCacheError."""
    suite = collect(configured)
    known = {test.file for test in suite.tests}
    expected = {*suite.by_cassette, *suite.fixtures}
    missing = set()
    for path in cassettes:
        if path in expected:
            continue
        file = suite.rootdir / _header(path).test_file
        if file.is_file() and file not in known and not suite.is_unknown(file):
            missing.add(file)
    return suite.with_tests_of(collect(configured, sorted(map(str, missing)))) if missing else suite


def find_usage(cassettes: Sequence[Path], suite: Suite) -> Usage:
    """Find the cassettes and recordings that no test uses. Raises LMCacheError."""
    run = last_full_run(suite.cache_dir)
    finder = _Finder(suite, run)
    orphans, unused = [], []
    has_tests = suite.is_collected and bool(suite.tests)
    for path in cassettes:
        if has_tests and (orphan := finder.orphan(path)) is not None:
            orphans.append(orphan)
        elif (found := finder.unused(path)) is not None:
            unused.append(found)
    notes = [*finder.notes()]
    if suite.is_collected and not suite.tests and cassettes:
        # The folder may be the wrong one, or its tests may need what is not installed: prune must not remove all.
        notes.append(f"pytest finds no test in {suite.rootdir}: whether cassettes have a test is not known")
    return Usage(
        tuple(orphans), tuple(unused), tuple(notes), () if run is not None else (_no_full_run(suite),)
    )


def unused_by_partial_run(cassettes: Sequence[Path], suite: Suite) -> tuple[RunRecord, list[Unused]] | None:
    """The last run, if it was partial, and what it did not ask for. Raises LMCacheError."""
    run = last_run(suite.cache_dir)
    if run is None or run.is_full:
        return None
    finder = _Finder(suite, run)
    return run, [found for path in cassettes if (found := finder.unused(path)) is not None]


def full_run_command(suite: Suite, run: RunRecord | None = None) -> str:
    """The command that runs the whole suite, also if the configuration leaves tests out."""
    leaves_out = run is not None and any("(by addopts)" in why for why in run.partial)
    command = 'pytest -o "addopts="' if leaves_out else "pytest"
    here = Path.cwd()
    return (
        command if here == suite.rootdir else f"cd {shlex.quote(os.path.relpath(suite.rootdir))} && {command}"
    )


def _no_full_run(suite: Suite) -> str:
    run = last_run(suite.cache_dir)
    if run is None:
        why = f"{path_from(suite.rootdir, suite.cache_dir)} has no record of a run"
    else:
        why = f"the last run was partial ({'; '.join(run.partial)})"
    return f"which recordings are unused is not known: {why}. Run: {full_run_command(suite, run)}"


class _Finder:
    """Decides for one cassette after the other, and collects what is not known."""

    def __init__(self, suite: Suite, run: RunRecord | None) -> None:
        self.suite = suite
        self.run = run
        self._expected = {*suite.by_cassette, *suite.fixtures}
        self._by_cassette = suite.by_cassette
        self._cassette_of = {test.nodeid: test.cassette for test in suite.tests}
        self._elsewhere: list[Path] = []  # cassettes of other suites
        self._unknown: list[Path] = []  # cassettes whose tests could not be collected
        self._undecided: list[Path] = []  # those of blocks and fixtures, without a run that tells
        self._doubtful = run is None or any(test.outcome not in _WHOLE for test in run.tests.values())

    def orphan(self, path: Path) -> Orphan | None:
        """The orphan that a cassette is, None if a test has it or may have it."""
        if path in self._expected or not is_cassette(path):
            return None  # the file of another program is not ours to judge
        header = _header(path)
        file = self.suite.rootdir / header.test_file if header.test_file else None
        if self.suite.is_elsewhere(path):
            self._elsewhere.append(path)
        elif file is not None and self.suite.is_unknown(file):
            self._unknown.append(path)
        elif header.owner is Owner.SCOPE:
            return Orphan(path, header.label, f"{header.label} do not share it any more, or there are none")
        elif header.owner is Owner.TEST:
            return Orphan(path, header.label, self._why_of_test(path, header.label))
        elif self._uses(path) is None:
            # A test may name it at run time, or use it only when it is not skipped.
            if not (self._doubtful or self.suite.skipped or self.suite.failed or self._is_newer(path)):
                return Orphan(path, header.label, _why_unopened(header))
            self._undecided.append(path)
        return None

    def _why_of_test(self, path: Path, nodeid: str) -> str:
        other = self._cassette_of.get(nodeid, path)
        if other is None:
            return f"{nodeid} has no cassette any more (cassette=None)"
        if other != path:
            return f"{nodeid} has another cassette: {self._shown(other)}"
        return f"there is no test {nodeid}"

    def unused(self, path: Path) -> Unused | None:
        """The recordings of a cassette that the run did not ask for, None if there are none, or if that is not known."""
        uses, tests = self._uses(path), self._by_cassette.get(path, [])
        if uses is None:
            return self._of_unmarked(path)
        if not uses.unused or not self._is_same(path, uses.digest):
            return None
        outcomes = {test.nodeid: self._outcome(test.nodeid) for test in tests}
        if tests and any(outcome not in _WHOLE for outcome in outcomes.values()):
            return None  # a test that was skipped, or failed, may ask for them
        if not tests and len(uses.users) > 1 and self._doubtful:
            return None
        keys = _keys(path)
        recordings = tuple(each for each in uses.unused if each in keys)
        if not recordings:
            return None
        why = f"{_number(len(recordings), 'recording')} that no test asked for in the run of {self._ended}"
        return Unused(path, recordings, len(recordings) == len(keys), why)

    def notes(self) -> Iterator[str]:
        """What could not be known."""
        for nodeid, why in self.suite.failed.items():
            yield f"{nodeid} cannot be collected, so its cassettes are not checked: {why}"
        if self._elsewhere:
            yield (
                f"{_number(len(self._elsewhere), 'cassette')} of another suite, such as "
                f"{self._shown(self._elsewhere[0])}: whether their tests exist is not known. Run the command in the "
                "folder of that suite's configuration"
            )
        if self._unknown:
            yield (
                f"{_number(len(self._unknown), 'cassette')} of test files that were skipped or could not be collected: "
                f"whether their tests exist is not known, such as {self._shown(self._unknown[0])}"
            )
        if self._undecided:
            yield (
                f"{_number(len(self._undecided), 'cassette')} of use_cassette blocks, fixtures or several tests: whether "
                f"they are used is not known, such as {self._shown(self._undecided[0])}. To find out, run all tests; none "
                f"may fail or be skipped: {full_run_command(self.suite, self.run)}"
            )

    def _of_unmarked(self, path: Path) -> Unused | None:
        """The cassette of a test that passed without recording or replaying."""
        tests = self._by_cassette.get(path, [])
        if not tests or any(test.is_marked for test in tests) or self.run is None or self._is_newer(path):
            return None
        if any(self._outcome(test.nodeid) not in _WHOLE for test in tests):
            return None
        return Unused(path, tuple(_keys(path)), True, f"{tests[0].nodeid} is not marked with lm_cache")

    @property
    def _ended(self) -> str:
        return "" if self.run is None else self.run.ended

    def _uses(self, path: Path) -> UsedCassette | None:
        return None if self.run is None else self.run.cassettes.get(path_from(Path(self.run.rootdir), path))

    def _outcome(self, nodeid: str) -> str:
        """The outcome of a test, also of one that pytest-repeat and pytest-xdist name in another way."""
        tests = {} if self.run is None else self.run.tests
        if nodeid in tests:
            return tests[nodeid].outcome
        found = {ran.outcome for name, ran in tests.items() if name.startswith((f"{nodeid}[", f"{nodeid}@"))}
        return found.pop() if len(found) == 1 else "unknown"

    def _is_newer(self, path: Path) -> bool:
        """Whether a file has changed after the run; so it may if it cannot be read."""
        if self.run is None:
            return True
        try:
            changed = path.stat().st_mtime
        except OSError:
            return True
        return changed > datetime.fromisoformat(self.run.ended).timestamp() + 1

    def _is_same(self, path: Path, digest: str) -> bool:
        """Whether a file is as it was at the end of the run."""
        try:
            return digest_of(path) == digest
        except OSError:
            return False

    def _shown(self, path: Path) -> str:
        return path_from(self.suite.rootdir, path)


def _why_unopened(header: Header) -> str:
    if header.owner is Owner.SEVERAL:
        return "no test names it, and the last full run did not open it"
    whose = f" of {header.label}" if header.label else ""
    return f"the last full run did not open this cassette{whose}"


def _header(path: Path) -> Header:
    try:
        return read_header(path)
    except OSError:
        return Header(Owner.UNKNOWN)  # whoever reads the file reports the error


def _keys(path: Path) -> set[tuple[str, int]]:
    """The recordings of a cassette as pairs of key and number; none if it is broken, which is a finding of its own."""
    counts: dict[str, int] = {}
    found = set()
    try:
        for entry in reader.read_documents(path, reader.read_bytes(path) or b""):
            key = entry.key or entry.stored_key()
            found.add((key, counts.get(key, 0)))
            counts[key] = counts.get(key, 0) + 1
    except CassetteError:
        return set()
    return found


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
