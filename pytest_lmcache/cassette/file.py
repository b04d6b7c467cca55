"""The cassette file: finds an answer by its key, and writes what a test recorded."""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import EACCES
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any

from pytest_lmcache.cassette import reader
from pytest_lmcache.cassette.document import CONFLICT, Entry, entry_of, scalar
from pytest_lmcache.cassette.merge import CallToSave, Changes, merge, places
from pytest_lmcache.errors import CassetteError, shorten
from pytest_lmcache.interaction import Interaction
from pytest_lmcache.keys.strategies import KeyStrategy
from pytest_lmcache.locks import HeldTooLongError, exclusive_writing


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

    def save(self, *_: Any, **__: Any) -> None:
        """Write nothing."""


class Cassette:
    """One cassette file as it is on disk: its interactions in the file's order, and an index by key.

    ``exists`` is False if there is no file yet: an empty cassette, to be written. With ``replaces`` a file in
    which git left a merge conflict counts as none. Raises CassetteError if the file is broken.
    """

    def __init__(self, path: Path, strategy: KeyStrategy, *, replaces: bool = False) -> None:
        self.path = path
        self.strategy = strategy
        self.entries: list[Entry] = []
        self._replaces = replaces
        self._index: dict[str, list[Entry]] = defaultdict(list)
        data = reader.read_bytes(path)
        if data is not None and replaces and CONFLICT.search(data) is not None:
            data = None
        self.exists = data is not None
        self._data = data or b""
        self._format = reader.OLDEST_FORMAT
        self._frozen_at = reader.frozen_at(self._data)
        if data is None:
            return
        self._format, key_name = reader.read_header(path, data)
        is_current = strategy.is_builtin and key_name == strategy.name
        for entry in reader.read_documents(path, data):
            entry.key = entry.key or entry.stored_key()
            key = entry.key if is_current else strategy.key(entry.call())
            self.entries.append(entry if key == entry.key else entry.rekeyed(key))
            self._index[key].append(self.entries[-1])

    def answers(self, key: str) -> Sequence[Entry]:
        """Return the recorded interactions of a key, in the order in which they were asked for."""
        return self._index.get(key, ())

    def entry_of(self, interaction: Interaction) -> Entry:
        """Return the document of an interaction of this cassette, as `save` takes it."""
        return entry_of(interaction, self.path)

    def save(
        self,
        calls: Sequence[CallToSave],
        *,
        keep_unused: bool,
        rewrite: bool,
        comment: Sequence[str] = (),
        frozen_at: str = "",
    ) -> Changes | None:
        """Merge the calls of a test into the file; returns what changed, None if nothing did.

        Without ``keep_unused``, the interactions that were there when the file was opened and that no call has
        asked for go, and the file with the last of them. The file is read anew under a lock, since other
        processes may have written to it. ``frozen_at`` is when the test ran, if its clock was stopped; a file keeps
        the moment that it has, except in a rewrite. Raises CassetteError if it is broken or cannot be written.
        """
        if not any(call.new for call in calls) and not (rewrite and self.exists):
            return None
        asked = {(call.key, call.nth) for call in calls}
        unused = set() if keep_unused else places(self.entries).keys() - asked

        def merged() -> tuple[bytes, Changes] | None:
            on_disk = Cassette(self.path, self.strategy, replaces=self._replaces)
            if frozen_at and (rewrite or on_disk._frozen_at is None):
                on_disk._frozen_at = frozen_at.encode()
            entries, changes = merge(on_disk.entries, calls, unused=unused, rewrite=rewrite)
            return (
                None if entries == on_disk.entries else (b"".join(on_disk._file(entries, comment)), changes)
            )

        if rewrite and merged() is None:
            return None  # without a lock, so that the folder may be read-only
        with self._writing():
            written = merged()
            if written is None:
                return None
            self._replace(written[0])
        return written[1]

    def fragile(self) -> Sequence[CassetteError]:
        """Return an error for each interaction with a text that formatters would change; see ``make_robust``."""
        documents = reader.read_documents(self.path, self._data)
        return [problem for entry in documents if (problem := entry.fragile()) is not None]

    def make_robust(self) -> None:
        """Write those interactions anew, and nothing else of the file. Raises CassetteError, as ``save`` does."""
        self._rewrite(lambda entry: entry.fragile() is not None)

    def upgrade(self) -> bool:
        """Write streams of format 1 anew, and nothing else of the file; returns whether it changed.

        Raises CassetteError, as ``save`` does.
        """
        return self._rewrite(lambda entry: b"\nchunks:" in entry.text)

    def edit(self, change: Callable[[bytes, list[Entry]], tuple[bytes, list[Entry]]]) -> bool:
        """Write the file anew with the header and the interactions that ``change`` makes of those on disk.

        The interactions have the keys that the file has. Without any, the file is removed. Returns whether the file
        changed. Raises CassetteError, as ``save`` does.
        """
        with self._writing():
            data = reader.read_bytes(self.path) or b""
            reader.read_header(self.path, data)
            old = reader.read_documents(self.path, data)
            for entry in old:
                entry.key = entry.key or entry.stored_key()
            before = data[: data.find(b"\n---") + 1]
            head, new = change(before, old)
            if head == before and new == old:
                return False
            pieces = [b"--- # %d\n%b" % (number, entry.text) for number, entry in enumerate(new, 1)]
            self._replace(head + b"".join(pieces) if new else b"")
        return True

    def _rewrite(self, is_outdated: Callable[[Entry], bool]) -> bool:
        with self._writing():
            data = reader.read_bytes(self.path) or b""
            reader.read_header(self.path, data)
            old = reader.read_documents(self.path, data)
            new = [entry.rewritten() if is_outdated(entry) else entry for entry in old]
            pieces, end = list[bytes](), 0
            for before, after in zip(old, new, strict=True):
                pieces += [data[end : before.start], after.text]
                end = before.end
            if b"".join(pieces) == data:
                return False
            header = b"lmcache: %d" % self._format_of(new)
            self._replace(
                re.sub(rb"^lmcache: *[0-9]+", header, b"".join(pieces), count=1, flags=re.MULTILINE)
            )
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock of the file; an OSError becomes a CassetteError."""
        path = self.path.resolve()
        again = "and record again: pytest --lm-record\nAnswers that the cache on disk has cost nothing then."
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with exclusive_writing(path):
                yield
        except HeldTooLongError as problem:
            raise CassetteError(
                f"{self.path} cannot be written: {problem}.\n"
                f"It has held the lock for ten seconds. If it hangs, end it, {again}"
            ) from None
        except OSError as problem:
            raise CassetteError(
                f"{self.path} cannot be written: {problem.strerror or problem}.\n"
                f"Make the file and its folder writable, or set lm_cassette_dir, {again}"
            ) from None

    def _replace(self, data: bytes) -> None:
        """Write the file aside and rename it; remove it if nothing is left. A link stays a link."""
        path = self.path.resolve()
        if self.exists and not os.access(path, os.W_OK):
            raise PermissionError(EACCES, os.strerror(EACCES), str(path))
        if not data:
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
        """Yield the file as it is to be with these interactions; nothing if there are none."""
        if not entries:
            return
        ours = [f"# {shorten(line, 1000)}\n".encode("utf-8", "backslashreplace") for line in comment]
        yield from ours
        for line in self._data[: self._data.find(b"\nlmcache:") + 1].splitlines(keepends=True):
            # Keep what a person wrote above the header; a formatter writes the `---`.
            if line not in ours and not line.startswith(
                (b"# pytest-lmcache cassette", b"# record again: ", b"---")
            ):
                yield line
        yield f"lmcache: {self._format_of(entries)}\nkey: {scalar(self.strategy.name)}\n".encode()
        if self._frozen_at is not None:
            yield b"frozen_at: %s\n" % self._frozen_at
        for number, entry in zip(count(1), entries):
            yield b"--- # %d\n" % number
            yield entry.text

    def _format_of(self, entries: Iterable[Entry]) -> int:
        """Return the oldest format that can hold the interactions, but none older than the file's."""
        return max([self._format, *(entry.needs_format for entry in entries)])
