"""Moves the cassettes of renamed tests and classes, moved files, and changed parameters."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_lmcache.cassette import reader
from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.errors import CassetteError
from pytest_lmcache.keys.strategies import strategy
from pytest_lmcache.maintenance.header import COMMAND, LABEL, read_header, read_scope
from pytest_lmcache.maintenance.suite import ListedTest, Suite
from pytest_lmcache.maintenance.usage import Orphan, find_usage
from pytest_lmcache.run_record import last_run

_LEAST_ALIKE = 0.6  # of two names of tests in one file
_PREFIX = re.compile(r"(?:(?<=::)|\A)[Tt]est_?")  # which all names have
_BY_HAND = "cassettes that tests share are moved by their names only"
_REST = re.compile(r"\[.*\]\Z", re.DOTALL)  # the parameters in a node id


@dataclass(frozen=True, slots=True)
class Move:
    """A cassette and the place where it belongs now. ``old`` and ``new`` name the owner in its header."""

    path: Path
    target: Path
    old: str
    new: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The moves that are certain enough, the orphans without one, each with the reason, and what is not known."""

    moves: tuple[Move, ...]
    undecided: tuple[tuple[Orphan, str], ...]
    notes: tuple[str, ...] = ()


# ---- by name -------------------------------------------------------------------------------------------


def moves_between(old: str, new: str, cassettes: Iterable[Path], suite: Suite) -> Candidates:
    """The moves that a test, a class, a file or a folder with a new name needs. Both are given as node ids.

    Cassettes of tests that the new place does not have are undecided. Raises CassetteError if no cassette has the old
    name, or if none of the tests has the new one.
    """
    by_id = {test.nodeid: test.cassette for test in suite.tests if not test.sharers}
    by_id |= {test.sharers: test.cassette for test in suite.tests if read_scope(test.sharers)}
    moves = []
    missing = []
    for path in cassettes:
        label = read_header(path).label
        renamed = _renamed(label, old, new)
        if renamed is None:
            continue
        target = by_id.get(renamed) or _of_fixture(renamed, path, suite.rootdir, _as_path(old), _as_path(new))
        if target is None:
            missing.append((Orphan(path, label, ""), _why_missing(renamed, suite)))
        elif (path, label) != (target, renamed):
            moves.append(Move(path, target, label, renamed))
    if not moves and not missing:
        raise CassetteError(
            f"no cassette has {old} in the comment that names its test; nothing was moved.\n"
            "To see the names: pytest-lmcache list. To find renamed tests: pytest-lmcache move"
        )
    if not moves:
        raise CassetteError(
            f"{missing[0][1]}; nothing was moved.\n"
            f"To see the tests that there are: pytest --collect-only -q {shlex.quote(new.partition('::')[0])}"
        )
    return Candidates(tuple(moves), tuple(missing))


def _why_missing(nodeid: str, suite: Suite) -> str:
    """Why a cassette cannot become that of a test."""
    for test in suite.tests:
        if test.nodeid == nodeid:
            return f"{nodeid} {'shares its cassette with other tests' if test.sharers else 'has no cassette (cassette=None)'}"
    return f"there is no test {nodeid}"


def _renamed(label: str, old: str, new: str) -> str | None:
    """The label with the new name, None if it is not of the old one."""
    prefix, nodeid = "", label
    if label.startswith("the ") and " of " in label:
        before, _, nodeid = label.rpartition(" of ")
        prefix = f"{before} of "
    rest = nodeid.removeprefix(old)
    if not nodeid.startswith(old) or (rest and rest[0] not in ":[/"):
        return None
    return f"{prefix}{new}{rest}"


def _of_fixture(label: str, path: Path, rootdir: Path, old: str, new: str) -> Path | None:
    """The cassette of a shared fixture in a file or a folder with a new name, None if the label is not a fixture's.

    Not only fixtures that the tests name have a cassette, so it need not be listed.
    """
    is_fixture = label.startswith("the ") and not read_scope(label)
    if not is_fixture or not path.is_relative_to(rootdir):
        return None
    # Only below rootdir: a folder above it may have the same name.
    inside = f"/{path.relative_to(rootdir).as_posix()}"
    return rootdir / inside.replace(f"{old}/", f"{new}/", 1).lstrip("/")


def _as_path(nodeid: str) -> str:
    return f"/{nodeid.partition('::')[0].removesuffix('.py')}"


# ---- without names -------------------------------------------------------------------------------------


def candidates(cassettes: Sequence[Path], suite: Suite) -> Candidates:
    """Find the orphans among cassettes that fit tests without a cassette. Raises LMCacheError."""
    usage = find_usage(cassettes, suite)
    orphans = [each for each in usage.orphans if "::" in each.label and not read_scope(each.label)]
    without = [
        test
        for test in suite.tests
        if test.is_marked and not test.sharers and test.cassette is not None and not test.cassette.exists()
    ]
    ids = {test.nodeid: test for test in suite.tests}
    moves: list[Move] = []
    for orphan in orphans:  # the test has its cassette in another place
        test = ids.get(orphan.label)
        if test is not None and test in without and test.cassette is not None:
            moves.append(Move(orphan.path, test.cassette, orphan.label, test.nodeid, "same test"))
    finders = (_ByKeys(suite), _by_moved_file, _by_new_name, _by_new_parameters, _by_being_left)
    for find in finders:
        moves += _unique(find, *_left(orphans, without, moves))
    left, _ = _left(orphans, without, moves)
    undecided = (
        *((orphan, _why_not(orphan, without)) for orphan in left),
        *((each, _BY_HAND) for each in usage.orphans if read_scope(each.label)),
    )
    return Candidates(tuple(sorted(moves, key=lambda each: each.old)), undecided, usage.orphan_notes)


_Find = Callable[[Orphan, ListedTest], str]


def _left(
    orphans: Sequence[Orphan], tests: Sequence[ListedTest], moves: Sequence[Move]
) -> tuple[list[Orphan], list[ListedTest]]:
    done, taken = {move.path for move in moves}, {move.target for move in moves}
    return (
        [each for each in orphans if each.path not in done],
        [each for each in tests if each.cassette not in taken],
    )


def _unique(find: _Find, orphans: Sequence[Orphan], tests: Sequence[ListedTest]) -> list[Move]:
    """The pairs that fit each other and nothing else."""
    pairs = [(orphan, test, why) for orphan in orphans for test in tests if (why := find(orphan, test))]
    of_orphan = Counter(orphan.path for orphan, _, _ in pairs)
    of_test = Counter(test.nodeid for _, test, _ in pairs)
    return [
        Move(orphan.path, test.cassette, orphan.label, test.nodeid, why)
        for orphan, test, why in pairs
        if of_orphan[orphan.path] == 1 and of_test[test.nodeid] == 1 and test.cassette is not None
    ]


class _ByKeys:
    """Fits a cassette to the test whose calls in the last run were those that it has."""

    def __init__(self, suite: Suite) -> None:
        run = last_run(suite.cache_dir)
        self._keys: dict[Path, set[str]] = {}
        self._missed = {test: {*ran.missed} for test, ran in run.tests.items() if ran.missed} if run else {}

    def __call__(self, orphan: Orphan, test: ListedTest) -> str:
        missed = self._missed.get(test.nodeid)
        if not missed:
            return ""
        if orphan.path not in self._keys:
            self._keys[orphan.path] = _keys(orphan.path)
        return "it has the calls that the test missed" if missed <= self._keys[orphan.path] else ""


def _by_moved_file(orphan: Orphan, test: ListedTest) -> str:
    """Fits a test that has the same classes, name and parameters in another file."""
    return "same test in another file" if _names(orphan.label) == _names(test.nodeid) else ""


def _by_new_name(orphan: Orphan, test: ListedTest) -> str:
    """Fits a test of the same file that has a similar name and the same parameters."""
    from difflib import SequenceMatcher

    if _file(orphan.label) != _file(test.nodeid) or _parameters(orphan.label) != _parameters(test.nodeid):
        return ""
    old, new = (_PREFIX.sub("", _REST.sub("", _names(each))) for each in (orphan.label, test.nodeid))
    alike = SequenceMatcher(None, old, new, autojunk=False).ratio()
    return "similar name in the same file" if alike >= _LEAST_ALIKE else ""


def _by_new_parameters(orphan: Orphan, test: ListedTest) -> str:
    """Fits the same test with other parameters, if there is one only."""
    old, new = (_REST.sub("", each) for each in (orphan.label, test.nodeid))
    return "same test with other parameters" if old == new else ""


def _by_being_left(orphan: Orphan, test: ListedTest) -> str:
    """Fits the only cassette of a file to its only test without one."""
    is_same = (_file(orphan.label), _parameters(orphan.label)) == (
        _file(test.nodeid),
        _parameters(test.nodeid),
    )
    return "the only test left in the file" if is_same else ""


def _why_not(orphan: Orphan, tests: Sequence[ListedTest]) -> str:
    fits = [
        test.nodeid
        for test in tests
        if any(find(orphan, test) for find in (_by_moved_file, _by_new_name, _by_new_parameters))
    ]
    if len(fits) > 1:
        return f"several tests without a cassette are like it: {', '.join(fits[:3])}"
    if any(_parameters(orphan.label) == _parameters(test.nodeid) for test in tests):
        return "no test without a cassette is like it. Run pytest: the calls that its tests miss may tell"
    return "no test without a cassette is like it"


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def _names(nodeid: str) -> str:
    return nodeid.partition("::")[2]


def _parameters(nodeid: str) -> str:
    found = _REST.search(_names(nodeid))
    return found[0] if found else ""


def _keys(path: Path) -> set[str]:
    try:
        entries = reader.read_documents(path, reader.read_bytes(path) or b"")
        return {entry.key or entry.stored_key() for entry in entries}
    except CassetteError:
        return set()


# ---- moving --------------------------------------------------------------------------------------------


def move(moves: Sequence[Move], shown: Callable[[Path], str]) -> None:
    """Move cassettes, and write the new names into their comments. ``shown`` gives paths in messages.

    Nothing is moved if one of them cannot be. Raises CassetteError if a target exists, or if two are the same.
    """
    targets = Counter(each.target for each in moves)
    for each in moves:
        name = shown(each.target)
        if each.target != each.path and each.target.exists():
            raise CassetteError(
                f"{name} exists already; nothing was moved.\n"
                f"If it is the older one, delete it first: rm {shlex.quote(name)}"
            )
        if targets[each.target] > 1:
            raise CassetteError(f"several cassettes would become {name}; nothing was moved.")
        Cassette(each.path, strategy("exact"))  # a broken one is not moved
    for each in moves:
        _move(each)


def _move(each: Move) -> None:
    command = f"pytest --lm-rewrite {_quoted(each.new)}"

    def renamed(head: bytes, entries: list[Entry]) -> tuple[bytes, list[Entry]]:
        head = LABEL.sub(lambda _: b"# pytest-lmcache cassette of " + each.new.encode(), head, count=1)
        found = COMMAND.search(head)
        old, new = (_quoted(name) for name in (each.old, each.new))
        line = command
        if found is not None and old in (text := found[1].decode(errors="replace")):
            line = text.replace(old, new)  # it may have options
        return COMMAND.sub(lambda _: f"# record again: {line}".encode(), head, count=1), entries

    try:
        each.target.parent.mkdir(parents=True, exist_ok=True)
        if each.target != each.path:
            each.path.rename(each.target)
            if not any(each.path.parent.iterdir()):
                each.path.parent.rmdir()
    except OSError as problem:
        raise CassetteError(f"{each.path} cannot be moved: {problem.strerror or problem}.") from None
    Cassette(each.target, strategy("exact")).edit(renamed)


def _quoted(nodeid: str) -> str:
    """A node id as it is in the comment above a cassette."""
    return shlex.quote(nodeid) if any(sign in nodeid for sign in '"$`\\!') else f'"{nodeid}"'
