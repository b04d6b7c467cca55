"""The cassette file: read and index it, find an answer by its key, write what a test recorded."""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import EACCES
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any

from pytest_lmcache.cassette.document import CONFLICT, Entry, entry_of, rewrite_command, scalar
from pytest_lmcache.cassette.merge import CallToSave, merge
from pytest_lmcache.errors import (
    CassetteError,
    a_folder,
    conflicted_cassette,
    foreign_cassette,
    newer_cassette,
    same_file,
    shorten,
    unwritable_cassette,
)
from pytest_lmcache.interaction import Interaction
from pytest_lmcache.keys.strategies import KeyStrategy
from pytest_lmcache.locks import HeldTooLongError, exclusive_writing

OLDEST_FORMAT, NEWEST_FORMAT = 1, 2
# The patterns of the hot path begin with a newline, which is looked for ten times faster than a line's start.
# A line that begins a document, the number that a formatter moved to the next one, and the key where it is
# written as we write it; the last group is what must not be there. YAML ends a comment at three more characters.
DOCUMENT = re.compile(
    rb"\n---(?:(?:[ \t]+#(?:[^\n\xc2\xe2]|\xc2[^\x85]|\xe2(?!\x80[\xa8\xa9]))*|[ \t]*)(?=\n|\Z)"
    rb"(?:\n# [0-9]+(?=\n))?(?:\nkey: ([A-Za-z]\w*)(?=\n))?|(?P<more>.))"
)
END_MARK = re.compile(rb"\n\.\.\.(?=\s|\Z)")
VERSION = re.compile(rb"^lmcache: *([0-9]{1,9}) *(?:#.*)?$", re.MULTILINE)
LAST_FIELD = b"\nseconds:"
COMPLETE = re.compile(rb"\nseconds: [0-9]+\.[0-9]{3}\Z")
# A file of this many bytes is indexed when it is needed; how many keys are looked up without; and which.
LARGE = 1 << 18
LOOK_UPS = 8
LONG_KEY = re.compile(r"[A-Za-z]\w{15,}", re.ASCII)


class NoCassette:
    """In place of a cassette where a test or block has none: finds nothing, and saves nothing."""

    path = None
    exists = False
    entries: Sequence[Entry] = ()

    def answers(self, _key: str) -> Sequence[Entry]:
        """Return no recordings."""
        return ()

    def entry_of(self, _interaction: Interaction) -> None:
        """Return no document."""

    def save(self, *_: Any, **__: Any) -> bool:
        """Write nothing."""
        return False


class Cassette:
    """One cassette file as it is on disk: its interactions in order, and an index by key.

    ``exists`` is False where there is no file yet: an empty cassette, to be written. With ``replaces`` a file in
    which git left a merge conflict counts as none.
    """

    def __init__(self, path: Path, strategy: KeyStrategy, *, replaces: bool = False) -> None:
        self.path = path
        self.strategy = strategy
        self._replaces = replaces
        self.exists = False
        self._data = b""
        self._is_trusted = False
        self._format: int = OLDEST_FORMAT
        self._found: dict[str, list[Entry]] = {}
        self._index: tuple[list[Entry], dict[str, list[Entry]]] | None = None
        self._read()

    @property
    def entries(self) -> list[Entry]:
        """All interactions, in the file's order. Raises CassetteError for one without a key."""
        return self._indexed()[0]

    def answers(self, key: str) -> Sequence[Entry]:
        """The recorded interactions of a key, in the order in which they were asked for.

        Of a large file the first few keys are looked up by their text, without an index of all the others.
        Raises CassetteError where the index is needed and an interaction has no key.
        """
        if self._index is None:
            found = self._found.get(key) or self._look_up(key)
            if found:
                return found
        return self._indexed()[1].get(key, ())

    def entry_of(self, interaction: Interaction) -> Entry:
        """Return the document of an interaction of this cassette, as `save` takes it."""
        return entry_of(interaction, self.path)

    def save(
        self, asked: Sequence[CallToSave], *, is_shared: bool, rewrite: bool, comment: Sequence[str] = ()
    ) -> bool:
        """Merge what a test asked into the file, aside and then renamed; say whether the file changed.

        ``is_shared``: other tests use the file too. Otherwise its order is that of this test's calls, and a rewrite
        drops what was not asked, and the file if nothing is left. The file is read anew under a lock: other processes may
        have written meanwhile.
        Raises CassetteError where the file is broken or cannot be written.
        """
        if not any(call.new for call in asked) and not (rewrite and self.exists):
            return False

        def text() -> bytes | None:
            return self._merged(asked, is_shared=is_shared, rewrite=rewrite, comment=comment)

        if rewrite and text() is None:
            return False  # it needs no lock, so the folder may be read-only
        with self._writing():
            merged = text()
            if merged is None:
                return False
            self._replace(merged or None)
        return True

    def _merged(
        self, asked: Sequence[CallToSave], *, is_shared: bool, rewrite: bool, comment: Sequence[str]
    ) -> bytes | None:
        """The file as it is to be after a test, empty for no file; None where nothing changes."""
        on_disk = Cassette(self.path, self.strategy, replaces=self._replaces)
        entries = merge(on_disk.entries, asked, is_shared=is_shared, rewrite=rewrite)
        if entries == on_disk.entries:
            return None
        return b"".join(on_disk._file(entries, comment)) if entries else b""

    def fragile(self) -> Sequence[CassetteError]:
        """One for each interaction with a text that formatters would change; see ``make_robust``."""
        return [problem for entry in self._documents() if (problem := entry.fragile()) is not None]

    def make_robust(self) -> None:
        """Write those interactions anew, and nothing else of the file. Raises CassetteError, as ``save`` does."""
        self._rewrite(lambda entry: entry.fragile() is not None)

    def upgrade(self) -> bool:
        """Write streams of format 1 anew, and nothing else of the file; say whether it changed.

        Raises CassetteError, as ``save`` does.
        """
        return self._rewrite(lambda entry: entry.is_stream)

    def _rewrite(self, is_outdated: Callable[[Entry], bool]) -> bool:
        with self._writing():
            on_disk = Cassette(self.path, self.strategy)
            old = on_disk._documents()
            new = [entry.rewritten() if is_outdated(entry) else entry for entry in old]
            data, pieces, end = on_disk._data, list[bytes](), 0
            for before, after in zip(old, new, strict=True):
                pieces += [data[end : before.start], after.text]
                end = before.end
            if b"".join(pieces) == data:
                return False
            header = b"lmcache: %d" % on_disk._format_of(new)
            self._replace(
                re.sub(rb"^lmcache: *[0-9]+", header, b"".join(pieces), count=1, flags=re.MULTILINE)
            )
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Around what changes the file; an error of the system's becomes a CassetteError."""
        path = self.path.resolve()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with exclusive_writing(path):
                yield
        except HeldTooLongError as problem:
            raise CassetteError(
                f"{self.path} cannot be written: {problem}.\n"
                "It has not let go for ten seconds. If it hangs, end it, and record again: pytest --lm-record\n"
                "Answers that the cache on disk has cost nothing then."
            ) from None
        except OSError as problem:
            reason = problem.strerror or str(problem)
            raise CassetteError(unwritable_cassette(str(self.path), reason)) from None

    def _replace(self, data: bytes | None) -> None:
        """Write the file aside and rename it; None removes it. What a link leads to is the file."""
        path = self.path.resolve()
        if self.exists and not os.access(path, os.W_OK):
            raise PermissionError(EACCES, os.strerror(EACCES), str(path))
        if data is None:
            path.unlink()
            return
        aside = path.with_name(f".{token_hex(8)}.tmp")
        try:
            aside.write_bytes(data)
            if path.exists():
                shutil.copymode(path, aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def _file(self, entries: Sequence[Entry], comment: Sequence[str]) -> Iterator[bytes]:
        ours = [f"# {shorten(line, 1000)}\n".encode("utf-8", "backslashreplace") for line in comment]
        yield from ours
        yield from (line for line in self._remarks() if line not in ours)
        yield f"lmcache: {self._format_of(entries)}\nkey: {scalar(self.strategy.name)}\n".encode()
        for number, entry in zip(count(1), entries):
            yield b"--- # %d\n" % number
            yield entry.text

    def _format_of(self, entries: Iterable[Entry]) -> int:
        """The oldest format that can hold the interactions, and not an older one than the file has."""
        return max([self._format, *(entry.needs_format for entry in entries)])

    def _remarks(self) -> Iterator[bytes]:
        """What somebody wrote above the header, the comment of ours aside, and what a formatter did."""
        for line in self._data[: self._data.find(b"\nlmcache:") + 1].splitlines(keepends=True):
            if not line.startswith((b"# pytest-lmcache cassette", b"# record again: ", b"---")):
                yield line

    def _read(self) -> None:
        try:
            data = self.path.read_bytes()
            other = _other_case(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except IsADirectoryError:
            raise CassetteError(a_folder(str(self.path))) from None
        except OSError as problem:
            raise self._broken(f"cannot be read: {problem.strerror or problem}") from None
        if other is not None:
            raise CassetteError(same_file(str(self.path), other))
        if self._replaces and CONFLICT.search(data) is not None:
            return
        self.exists = True
        # An editor or git on another system may have put a mark in front or other line ends.
        data = data.removeprefix(b"\xef\xbb\xbf")
        self._data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data
        if COMPLETE.search(self._data, len(self._data) - 30):  # an editor has taken the last line's end away
            self._data += b"\n"
        first = self._document_after(0)
        header = self._header(len(self._data) if first is None else first.start() + 1)
        self._test_end()
        self._is_trusted = self.strategy.is_builtin and header.get("key") == self.strategy.name
        if not self._is_trusted or len(self._data) < LARGE:
            self._indexed()

    def _is_conflicted(self) -> bool:
        # A single byte is found ten times faster than several, and these twice as fast from the end.
        data, mark = self._data, b"<<<<<<< "
        return b"<" in data and (data.startswith(mark) or data.rfind(b"\n" + mark) >= 0)

    def _header(self, end: int) -> dict[str, Any]:
        if self._is_conflicted():
            line = self._data[: self._data.find(b"<<<<<<< ")].count(b"\n") + 1
            raise CassetteError(conflicted_cassette(str(self.path), line, rewrite_command(self._data)))
        head = Entry("", self._data, 0, end, self.path)
        version = VERSION.search(head.text)
        if version is not None and int(version[1]) > NEWEST_FORMAT:
            line = head.text.count(b"\n", 0, version.start()) + 1
            raise CassetteError(newer_cassette(str(self.path), line, int(version[1]), NEWEST_FORMAT))
        if not self._data:
            raise self._broken("this file is empty")
        try:
            fields = head.load(head.text, 0)
        except CassetteError:
            if version is not None:
                raise
            fields = {}
        if "lmcache" not in fields:
            raise CassetteError(foreign_cassette(str(self.path)))
        self._format = fields["lmcache"]
        if self._format not in range(OLDEST_FORMAT, NEWEST_FORMAT + 1) or version is None:
            raise self._broken(f"there is no cassette format {self._format!r}")
        return fields

    def _document_after(self, start: int) -> re.Match[bytes] | None:
        """Where the next document begins. Raises CassetteError where that line says something more."""
        found = DOCUMENT.search(self._data, start)
        if found is not None and found.lastgroup == "more":
            raise self._broken(
                "only a comment, as in `--- # 1`, may follow the `---` that begins an interaction",
                found.start() + 1,
            )
        return found

    def _test_end(self) -> None:
        """Raises CassetteError where the last document is cut off, or there is none."""
        data, start = self._data, self._data.rfind(b"\n---")
        if start < 0:
            raise self._broken("this cassette is cut off: it has a header and no interaction")
        self._document_after(start)
        if data.rfind(LAST_FIELD, start + 1) < 0 or not data.endswith(b"\n"):
            last = Entry("", data, data.find(b"\n", start + 1) + 1 or len(data), len(data), self.path)
            raise last.broken("this interaction is cut off: its last field, `seconds:`, is missing")

    def _look_up(self, key: str) -> list[Entry]:
        """The interactions of a key without an index of all; none where that is not certain."""
        if len(self._found) >= LOOK_UPS or not LONG_KEY.fullmatch(key):
            return []
        data, text, found = self._data, key.encode(), deque[Entry]()
        at = len(data)
        while (at := data.rfind(text, 0, at)) >= 0:
            line = data.rfind(b"\n", 0, max(at - len(b"\nkey: "), 0))
            document = DOCUMENT.match(data, line) if line >= 0 else None
            if document is None or document.span(1) != (at, at + len(text)):
                return []  # it stands elsewhere too: as a word of a prompt, or as a key in another spelling
            end = self._document_after(document.end())
            start = at - len(b"key: ")
            found.appendleft(
                Entry(key, data, start, len(data) if end is None else end.start() + 1, self.path)
            )
        self._found[key] = list(found)
        return self._found[key]

    def _indexed(self) -> tuple[list[Entry], dict[str, list[Entry]]]:
        if self._index is None:
            self._index = self._index_documents() if self.exists else ([], {})
        return self._index

    def _index_documents(self) -> tuple[list[Entry], dict[str, list[Entry]]]:
        strategy, entries = self.strategy, self._documents()
        index: dict[str, list[Entry]] = defaultdict(list)
        for place, entry in enumerate(entries):
            entry.key = entry.key or entry.stored_key()
            key = entry.key if self._is_trusted else strategy.key(entry.call())
            if key != entry.key:
                entries[place] = entry.rekeyed(key)
            index[key].append(entries[place])
        return entries, index

    def _documents(self) -> list[Entry]:
        """The interactions as they stand in the file, without a key where that is not written as we write it."""
        data, end = self._data, len(self._data)
        entries: list[Entry] = []
        for found in DOCUMENT.finditer(data):
            if found.lastgroup == "more":
                self._document_after(found.start())
            key = found[1]
            start = min(found.end() + 1, end) if key is None else found.start(1) - len(b"key: ")
            if entries:
                entries[-1].end = found.start() + 1
            entries.append(Entry("" if key is None else key.decode(), data, start, end, self.path))
        end_mark = END_MARK.search(data) if data.rfind(b"\n...") >= 0 else None
        if end_mark is not None:
            raise self._broken(
                "take out this `...`: it ends an interaction in its middle", end_mark.start() + 1
            )
        return entries

    def _broken(self, problem: str, at: int = 0) -> CassetteError:
        return Entry("", self._data, at, at, self.path).broken(problem)


def _other_case(path: Path) -> str | None:
    """The file's own name where a file system that minds no case took it for ``path``; None where it is that."""
    if not path.with_name(path.name.swapcase()).exists():
        return None
    names = [found.name for found in path.parent.iterdir()]
    if path.name in names:
        return None
    return next((name for name in names if name.casefold() == path.name.casefold()), None)
