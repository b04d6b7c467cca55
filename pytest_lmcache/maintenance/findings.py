"""What `check` finds in one cassette: broken parts, wrong keys, age, size, secrets; and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pytest_lmcache.cassette import reader
from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.clock import seconds_since
from pytest_lmcache.errors import CassetteError, LMCacheError, SettingsError
from pytest_lmcache.keys.normalizers import NORMALIZERS
from pytest_lmcache.keys.strategies import KeyStrategy, strategy
from pytest_lmcache.maintenance.secrets import secrets_in
from pytest_lmcache.redact import Redactor

_HERE = frozenset({"tmp_path", "rootdir"})  # normalizers whose keys depend on the machine that recorded
_BUILT_IN = ("exact", "messages", "content")
_DAY = 86_400


class Kind(StrEnum):
    """What can be wrong with a cassette."""

    BROKEN = "broken"
    KEY = "key"
    FORMATTING = "formatting"
    SECRET = "secret"  # noqa: S105 - not a secret
    SIZE = "size"
    OLD = "old"
    ORPHAN = "orphan"
    UNUSED = "unused"
    SUITE = "suite"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: the file, the line from 1 (0 for the whole file), what it is, and what to do."""

    kind: Kind
    path: str
    line: int
    what: str
    fix: str

    @property
    def line_of_text(self) -> str:
        """The finding in one line, without what to do."""
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.what}"

    def to_plain(self) -> dict[str, Any]:
        """The finding as JSON data."""
        return {**asdict(self), "kind": self.kind.value}


@dataclass(frozen=True, slots=True)
class Rules:
    """What is right: the redaction, the strategies by the name in a header, and limits; None for no limit.

    ``max_age`` is in seconds, ``max_size`` in bytes.
    """

    redact: Redactor
    strategies: Mapping[str, KeyStrategy]
    max_age: float | None = None
    max_size: float | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """One cassette that was checked: its findings, its sound interactions, and whether its keys could be checked."""

    findings: tuple[Finding, ...]
    interactions: int
    size: int
    keys_known: bool = True


def strategies(given: Iterable[tuple[str | None, tuple[str, ...]]]) -> dict[str, KeyStrategy]:
    """The strategies of pairs of ``key`` and ``normalize`` by the names that headers have.

    Those are left out whose keys another machine makes in another way: functions, and normalizers of folders.
    """
    found = {}
    for key, normalize in given:
        if (key or "exact") in _BUILT_IN and not _HERE & {*normalize}:
            each = strategy(key or "exact", normalize)
            found[each.name] = each
    return found


def check_file(path: Path, shown: str, rules: Rules) -> Checked:
    """Check one cassette. ``shown`` is its path in findings."""
    try:
        data = reader.read_bytes(path)
        if data is None:
            raise Entry("", b"", 0, 0, path).broken("there is no such file")
        size = path.stat().st_size
        name = reader.read_header(path, data)[1]
        keys = _strategy(name, rules.strategies)
        cassette = Cassette(path, keys or strategy("exact"))
    except (LMCacheError, OSError) as problem:
        return Checked((_broken(shown, problem), *_secrets(path, shown, rules.redact)), 0, 0)
    findings = []
    sound = 0
    for entry in cassette.entries:
        try:
            interaction = entry.interaction()
        except LMCacheError as problem:
            findings.append(_broken(shown, problem))
            continue
        # If the file has keys of a strategy that is not known here, they were computed anew, and fit.
        if keys is not None and keys.key(interaction.call) != entry.key:
            findings.append(_edited(entry, shown))
            continue
        sound += 1
    if not findings:
        findings += [_fragile(shown, problem) for problem in cassette.fragile()]
    findings += _secrets(path, shown, rules.redact)
    findings += _limits(cassette.entries, shown, size, rules)
    return Checked(tuple(findings), sound, size, keys_known=keys is not None)


def _strategy(name: str, known: Mapping[str, KeyStrategy]) -> KeyStrategy | None:
    """The strategy that a header names; None if its keys cannot be computed here."""
    if name in known:
        return known[name]
    spec, *rules = name.split("+")
    names = [rule.partition("/")[0] for rule in rules]
    if not {*names} <= {*NORMALIZERS} - _HERE or spec.partition("/")[0] not in _BUILT_IN:
        return None
    try:
        found = strategy(spec.partition("/")[0], names)
    except SettingsError:
        return None
    return found if found.name == name else None  # of another version


def _edited(entry: Entry, shown: str) -> Finding:
    what = "`key:` belongs to another request: was the request edited by hand?"
    line = int(str(entry.broken("")).partition(": ")[0].rpartition(":")[2])
    return Finding(
        Kind.KEY,
        shown,
        line,
        what,
        "Restore it (git checkout), or delete it and record again: pytest --lm-record",
    )


def _broken(shown: str, problem: Exception) -> Finding:
    return _of_error(Kind.BROKEN, shown, problem)


def _fragile(shown: str, problem: CassetteError) -> Finding:
    return _of_error(Kind.FORMATTING, shown, problem)


def _of_error(kind: Kind, shown: str, problem: Exception) -> Finding:
    """The finding of an error whose first line begins with the file and, as a rule, a line."""
    first, _, fix = str(problem).partition("\n")
    place, separator, what = first.partition(": ")
    number = place.rpartition(":")[2]
    if separator and number.isdigit():
        return Finding(kind, shown, int(number), what, fix)
    return Finding(kind, shown, 0, first, fix)


def _secrets(path: Path, shown: str, redact: Redactor) -> list[Finding]:
    try:
        found = secrets_in(path, redact)
    except CassetteError:
        return []  # it cannot be read, which is a finding of its own
    return [
        Finding(
            Kind.SECRET,
            shown,
            secret.line,
            f"a secret: {secret.kind}",
            "Revoke it if it is real, and record again: pytest --lm-rewrite. If it has been committed, see SECURITY.md "
            "of pytest-lmcache.",
        )
        for secret in found
    ]


def _limits(entries: Iterable[Entry], shown: str, size: int, rules: Rules) -> list[Finding]:
    findings = []
    if rules.max_size is not None and size > rules.max_size:
        what = f"{size:,} bytes, more than --max-size {rules.max_size:,.0f}"
        fix = "Shorten what the test asks, or its files and images, and record again; or raise --max-size."
        findings.append(Finding(Kind.SIZE, shown, 0, what, fix))
    if rules.max_age is not None:
        ages = [seconds_since(entry.recorded()) for entry in entries]
        old = [age for age in ages if age > rules.max_age]
        if old:
            recordings = f"{len(old)} recording{'s' if len(old) > 1 else ''}"
            what = f"{recordings} older than lm_max_age, the oldest of {max(old) / _DAY:,.0f} days"
            findings.append(Finding(Kind.OLD, shown, 0, what, "Record again: pytest --lm-record"))
    return findings
