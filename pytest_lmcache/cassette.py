"""The cassette file: read and index it, find an answer by its key, merge what a test recorded, write it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import string
from array import array
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import EACCES
from functools import lru_cache
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple, TypeAlias, TypeGuard

from pytest_lmcache import document
from pytest_lmcache.errors import (
    CassetteError,
    a_folder,
    broken_cassette,
    conflicted_cassette,
    foreign_cassette,
    newer_cassette,
    same_file,
    shorten,
    unwritable_cassette,
)
from pytest_lmcache.interaction import CANCELLED, Again, Answer, Call, Interaction, Kind
from pytest_lmcache.keys import KeyStrategy
from pytest_lmcache.locks import HeldTooLongError, writing

FORMAT = 1
# The patterns of the hot path begin with a newline, which is looked for ten times faster than a line's start.
# A line that begins a document, the number that a formatter moved to the next one, and the key where it is
# written as we write it; the last group is what must not be there. YAML ends a comment at three more characters.
DOCUMENT = re.compile(
    rb"\n---(?:(?:[ \t]+#(?:[^\n\xc2\xe2]|\xc2[^\x85]|\xe2(?!\x80[\xa8\xa9]))*|[ \t]*)(?=\n|\Z)"
    rb"(?:\n# [0-9]+(?=\n))?(?:\nkey: ([A-Za-z]\w*)(?=\n))?|(?P<more>.))"
)
END_MARK = re.compile(rb"\n\.\.\.(?=\s|\Z)")
ANSWER = re.compile(rb"\n(?:response|shared|chunks|error|cancelled|ended_with):")
NO_ANSWER = (b"\nerror:", b"\ncancelled:", b"\nended_with:")
CHUNKS = re.compile(rb"\nchunks:\n((?:(?:[- #].*)?\n)*)")
KEY_LINE = re.compile(rb"^key:.*$", re.MULTILINE)
# Nothing that a shell would take for more than the options and the name of a test.
REWRITE = re.compile(
    rb"""^# record again: (pytest --lm-rewrite (?:(?:-c |--rootdir=)[\w./-]+ )*"[^"$`\\!\r\n]+")\r?$""",
    re.MULTILINE,
)
VERSION = re.compile(rb"^lmcache: *([0-9]{1,9}) *(?:#.*)?$", re.MULTILINE)
CONFLICT = re.compile(rb"^(?:<{7}|\|{7}|={7}|>{7})(?: |\r?$)", re.MULTILINE)
RECORDED = re.compile(rb"\nrecorded: *([^\n]*)")
LARGEST_NUMBER = 1e12
LAST_FIELD = b"\nseconds:"
COMPLETE = re.compile(rb"\nseconds: [0-9]+\.[0-9]{3}\Z")
# A file of this many bytes is indexed when it is needed; how many keys are looked up without; and which.
LARGE = 1 << 18
LOOK_UPS = 8
LONG_KEY = re.compile(r"[A-Za-z]\w{15,}", re.ASCII)
# How 0.1.0 wrote texts that formatters change; see `document`.
FRAGILE = re.compile(rb"[ \t]\n|\t|\|[2+]|\n\n\n|\xc2\xa0\n|\xe3\x80\x80\n")
FILE_NAME_BYTES = frozenset(b"-_.,=+@[]() " + string.ascii_letters.encode() + string.digits.encode())
# What a provider gives anew to the very same answer.
VOLATILE = frozenset(
    {"created", "created_at", "completed_at", "system_fingerprint", "obfuscation", "timings", "_response_ms"}
    | {"queue_time", "prompt_time", "completion_time", "total_time"}
    | {"total_duration", "load_duration", "prompt_eval_duration", "eval_duration"}
)
# What an answer's data is, by its kind.
DATA: dict[Kind, type] = {
    Kind.RESPONSE: dict,
    Kind.STREAM: list,
    Kind.ERROR: dict,
    Kind.UNANSWERED: type(None),
}
# What a model says to a tool: every name in there is the model's own.
SAID = frozenset({"input", "arguments"})


def _rewrite_command(data: bytes) -> str:
    """The command that records a cassette anew, as its first lines say it; that for all tests if they do not."""
    found = REWRITE.search(data, 0, 8192)
    return found[1].decode(errors="replace") if found is not None else "pytest --lm-rewrite"


class Entry:
    """One recorded interaction, kept as the bytes of its YAML document; parsed only where it is asked for.

    ``key`` is the key under the strategy in use; ``start`` and ``end`` are the document's place in ``data``.
    """

    __slots__ = ("data", "end", "key", "path", "start")

    def __init__(self, key: str, data: bytes, start: int, end: int, path: Path) -> None:
        self.key = key
        self.data = data
        self.start = start
        self.end = end
        self.path = path

    @property
    def text(self) -> bytes:
        """The document's text, without the line that separates it from the one before."""
        return self.data[self.start : self.end]

    @property
    def place(self) -> str:
        """The file and the line in which the document begins."""
        return f"{self.path}:{self._line(0)}"

    @property
    def question(self) -> bytes:
        """What was asked, as it stands in the file: the document's part before the answer, without the key."""
        return KEY_LINE.sub(b"", self.text[: self._answer_at() + 1], count=1)

    @property
    def is_answered(self) -> bool:
        """Whether there is an answer that came to its end, or was left: no error, nothing that was cut off."""
        return all(self.data.find(field, self.start, self.end) < 0 for field in NO_ANSWER)

    def answer(self) -> Answer:
        """The answer alone: the request, the longer part as a rule, is not parsed.

        Raises CassetteError where the document is broken.
        """
        at = self._answer_at()
        tail = self.text[at:]
        found = CHUNKS.search(tail)
        if found is None:
            return self._answer(self._load(tail, at), None)
        chunks = self._load_lines(found[1], at + found.start(1))
        # Empty lines in their place, so that an error in what follows tells its line.
        rest = b"".join((tail[: found.start()], b"\n" * found[0].count(b"\n"), tail[found.end() :]))
        fields = self._load(rest, at)
        if "chunks" in fields:
            raise self.broken("the key 'chunks' stands here twice", at)
        return self._answer(fields, chunks)

    def interaction(self) -> Interaction:
        """The whole interaction. Raises CassetteError where the document is broken or lacks a field."""
        fields = self._load(self.text, 0)
        return Interaction(self.key, self._call(fields), self.answer(), str(fields["recorded"]))

    def call(self) -> Call:
        """The call alone. Raises CassetteError where the document is broken or lacks a field."""
        return self._call(self._load(self.text[: self._answer_at() + 1], 0))

    def stored_key(self) -> str:
        """The key as the document has it. Raises CassetteError where it has none."""
        line = KEY_LINE.search(self.data, self.start, self.end)
        key = self._load(line[0], line.start() - self.start).get("key") if line is not None else None
        if not isinstance(key, str) or not key:
            raise self.broken("this interaction has no `key:`, a text")
        return key

    def recorded(self) -> str:
        """When the provider answered, as the document has it; empty where it does not say."""
        line = RECORDED.search(self.data, self.start, self.end)
        return line[1].decode("ascii", "replace").strip("\"' ") if line is not None else ""

    def rekeyed(self, key: str) -> Entry:
        """The same interaction with another key in its key line."""
        line = b"key: " + _scalar(key).encode()
        text = KEY_LINE.sub(lambda _: line, self.text, count=1)
        return Entry(key, text, 0, len(text), self.path)

    def fragile(self) -> CassetteError | None:
        """What is to be said of a text that formatters would change, None where there is none.

        Raises CassetteError where the document is broken.
        """
        found = FRAGILE.search(self.data, self.start, self.end)
        if found is None or self.robust() == self.text:
            return None
        line = self._line(found.start() - self.start)
        return CassetteError(
            f"{self.path}:{line}: formatters and editors would change this text.\n"
            f"Write it as pytest-lmcache does now: pytest-lmcache check --fix {self.path}"
        )

    def robust(self) -> bytes:
        """The document as it is written now. Raises CassetteError where it is broken."""
        return entry_of(self.interaction()._replace(key=self.stored_key()), self.path).text

    def broken(self, problem: str, offset: int = 0) -> CassetteError:
        """The error that names this document's file and line."""
        return CassetteError(broken_cassette(str(self.path), self._line(offset), problem))

    def _line(self, offset: int) -> int:
        return bisect_left(_line_ends(self.data), self.start + offset) + 1

    def _answer_at(self) -> int:
        found = ANSWER.search(self.data, self.start, self.end)
        if found is None:
            raise self.broken(
                "this interaction has neither `response:`, `chunks:`, `error:` nor `cancelled:`"
            )
        return found.start() - self.start

    def _call(self, fields: dict[str, Any]) -> Call:
        name, request = fields.get("call"), fields.get("request")
        if not isinstance(name, str) or not isinstance(request, dict):
            raise self.broken("this interaction needs `call:`, a name, and `request:`, a mapping")
        return Call(name, request)

    def _answer(self, fields: dict[str, Any], chunks: list[Any] | None) -> Answer:
        kind, data, error = Kind.RESPONSE, fields.get("response"), fields.get("error")
        chunks = fields.get("chunks") if chunks is None else chunks
        ended = CANCELLED if fields.get("cancelled") else fields.get("ended_with")
        if chunks is not None:
            shared = fields.get("shared", {})
            is_list = isinstance(chunks, list) and all(isinstance(chunk, dict) for chunk in chunks)
            if not is_list or not isinstance(shared, dict):
                raise self.broken("`shared:` must be a mapping and `chunks:` a list of mappings")
            # A chunk that gives a shared field itself is whole as it stands.
            whole = [chunk if shared.keys() & chunk.keys() else {**shared, **chunk} for chunk in chunks]
            kind, data = Kind.STREAM, whole
        elif "response" not in fields and "error" not in fields and ended:
            kind = Kind.UNANSWERED
        elif "response" not in fields:
            kind, data, error = Kind.ERROR, error, None
        is_one = "response" not in fields or (kind is Kind.RESPONSE and error is None)
        if not is_one or not isinstance(data, DATA[kind]):
            raise self.broken(
                "this interaction needs one of `response:`, a mapping, `chunks:` or `error:`, with content"
            )
        seconds, usd = fields.get("seconds"), fields.get("usd")
        if "recorded" not in fields or not _is_number(seconds):
            raise self.broken("this interaction lacks `recorded:` or `seconds:`, a number, which ends each")
        if not isinstance(error, dict | None) or not (usd is None or _is_number(usd)):
            raise self.broken("`error:` must be a mapping and `usd:` a number")
        if not isinstance(hidden := fields.get("hidden"), dict | None):
            raise self.broken("`hidden:` must be a mapping")
        if not isinstance(ended, str | None):
            raise self.broken("`ended_with:` must be the name of an exception")
        return Answer(
            kind,
            data,
            error=error,
            complete=not fields.get("left_early", ended is not None),
            hidden=hidden,
            seconds=float(seconds),
            usd=usd,
            ended=ended,
        )

    def _load(self, text: bytes, offset: int) -> dict[str, Any]:
        import yaml

        try:
            fields = document.load(text)
        except (yaml.YAMLError, ValueError) as problem:
            raise self._unreadable(problem, offset) from None
        if not isinstance(fields, dict):
            raise self.broken("this interaction is not a mapping", offset)
        return fields

    def _load_lines(self, text: bytes, offset: int) -> list[Any]:
        import yaml

        try:
            chunks = document.load_lines(text)
        except (yaml.YAMLError, ValueError) as problem:
            raise self._unreadable(problem, offset) from None
        return chunks

    def _unreadable(self, problem: Exception, offset: int) -> CassetteError:
        conflict = CONFLICT.search(self.data, self.start, self.end)
        if conflict is not None:
            line = self._line(conflict.start() - self.start)
            return CassetteError(conflicted_cassette(str(self.path), line, _rewrite_command(self.data)))
        mark = getattr(problem, "problem_mark", None)
        line = self._line(offset) + (mark.line if mark is not None else 0)
        what = getattr(problem, "problem", None) or str(problem)
        return CassetteError(broken_cassette(str(self.path), line, f"this is not readable YAML: {what}"))


@lru_cache(maxsize=1)
def _line_ends(data: bytes) -> array[int]:
    """Where each line of a file ends: kept, as a file may be broken in very many places."""
    return array("Q", (found.start() for found in re.finditer(b"\n", data)))


Place: TypeAlias = tuple[str, int]
"""A key, and which of its answers, from 0."""


class Asked(NamedTuple):
    """One call of a test, in the order of start: its key, which of the key's answers (from 0), what is new.

    ``renews``: the new answer takes the place of one that was too old.
    """

    key: str
    nth: int
    new: Entry | None
    renews: bool = False


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

    def save(
        self, asked: Sequence[Asked], *, owned: bool, rewrite: bool, comment: Sequence[str] = ()
    ) -> bool:
        """Merge what a test asked into the file, aside and then renamed; say whether the file changed.

        ``owned``: one test alone uses the file, so its order is that test's, and a rewrite drops what was
        not asked, and the file where nothing is left. The file is read anew under a lock: other processes may
        have written meanwhile.
        Raises CassetteError where the file is broken or cannot be written.
        """
        if not any(call.new for call in asked) and not (rewrite and self.exists):
            return False

        def text() -> bytes | None:
            return self._merged(asked, owned=owned, rewrite=rewrite, comment=comment)

        if rewrite and text() is None:
            return False  # it needs no lock, so the folder may be read-only
        with self._writing():
            merged = text()
            if merged is None:
                return False
            self._replace(merged or None)
        return True

    def _merged(
        self, asked: Sequence[Asked], *, owned: bool, rewrite: bool, comment: Sequence[str]
    ) -> bytes | None:
        """The file as it is to be after a test, empty for no file; None where nothing changes."""
        on_disk = Cassette(self.path, self.strategy, replaces=self._replaces)
        entries = merge(on_disk.entries, asked, owned=owned, rewrite=rewrite)
        if entries == on_disk.entries:
            return None
        return b"".join(on_disk._file(entries, comment)) if entries else b""

    def fragile(self) -> Sequence[CassetteError]:
        """One for each interaction with a text that formatters would change; see ``make_robust``."""
        return [problem for entry in self._documents() if (problem := entry.fragile()) is not None]

    def make_robust(self) -> None:
        """Write those interactions anew, and nothing else of the file. Raises CassetteError, as ``save`` does."""
        with self._writing():
            on_disk = Cassette(self.path, self.strategy)
            data, pieces, end = on_disk._data, [], 0
            for entry in on_disk._documents():
                text = entry.text if entry.fragile() is None else entry.robust()
                pieces += [data[end : entry.start], text]
                end = entry.end
            self._replace(b"".join(pieces))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Around what changes the file; an error of the system's becomes a CassetteError."""
        path = self.path.resolve()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with writing(path):
                yield
        except HeldTooLongError as problem:
            raise CassetteError(
                f"{self.path} cannot be written: {problem}.\n"
                "It has not let go for ten seconds. If it hangs, end it, and record again: pytest --lm-record\n"
                "What the provider answered comes from the cache on disk then, where that is on."
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

    def _file(self, entries: Iterable[Entry], comment: Sequence[str]) -> Iterator[bytes]:
        ours = [f"# {shorten(line, 1000)}\n".encode("utf-8", "backslashreplace") for line in comment]
        yield from ours
        yield from (line for line in self._remarks() if line not in ours)
        yield f"lmcache: {FORMAT}\nkey: {_scalar(self.strategy.name)}\n".encode()
        for number, entry in zip(count(1), entries):
            yield b"--- # %d\n" % number
            yield entry.text

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
        self._is_trusted = self.strategy.stable and header.get("key") == self.strategy.name
        if not self._is_trusted or len(self._data) < LARGE:
            self._indexed()

    def _is_conflicted(self) -> bool:
        # A single byte is found ten times faster than several, and these twice as fast from the end.
        data, mark = self._data, b"<<<<<<< "
        return b"<" in data and (data.startswith(mark) or data.rfind(b"\n" + mark) >= 0)

    def _header(self, end: int) -> dict[str, Any]:
        if self._is_conflicted():
            line = self._data[: self._data.find(b"<<<<<<< ")].count(b"\n") + 1
            raise CassetteError(conflicted_cassette(str(self.path), line, _rewrite_command(self._data)))
        head = Entry("", self._data, 0, end, self.path)
        version = VERSION.search(head.text)
        if version is not None and int(version[1]) > FORMAT:
            line = head.text.count(b"\n", 0, version.start()) + 1
            raise CassetteError(newer_cassette(str(self.path), line, int(version[1]), FORMAT))
        if not self._data:
            raise self._broken("this file is empty")
        try:
            fields = head._load(head.text, 0)  # noqa: SLF001 - the header is a document as any other
        except CassetteError:
            if version is not None:
                raise
            fields = {}
        if "lmcache" not in fields:
            raise CassetteError(foreign_cassette(str(self.path)))
        if fields["lmcache"] != FORMAT or version is None:
            raise self._broken(f"there is no cassette format {fields['lmcache']!r}")
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


def entry_of(interaction: Interaction, path: Path) -> Entry:
    """The document of an interaction, ready to be written."""
    answer = interaction.answer
    fields: dict[str, Any] = {
        "key": interaction.key,
        "call": interaction.call.name,
        "request": interaction.call.request,
    }
    if answer.kind is Kind.STREAM:
        shared = _shared(answer.data)
        if shared:
            fields["shared"] = shared
        chunks = list(_rests(answer.data, shared))
        # Server-sent events are text of several lines, all others read best as on the wire: one line each.
        fields["chunks"] = chunks if any("bytes" in chunk for chunk in chunks) else document.Lines(chunks)
        if answer.error is not None:
            fields["error"] = answer.error
        if not answer.complete and answer.ended is None:
            fields["left_early"] = True
    elif answer.kind is not Kind.UNANSWERED:
        fields["response" if answer.kind is Kind.RESPONSE else "error"] = answer.data
    if answer.ended is not None:
        fields |= {"cancelled": True} if answer.ended == CANCELLED else {"ended_with": answer.ended}
    if answer.hidden:
        fields["hidden"] = answer.hidden
    text = document.dump(fields) + f"recorded: {interaction.recorded}\n"
    if answer.usd is not None:
        text += document.dump({"usd": answer.usd})
    text += f"seconds: {answer.seconds:.3f}\n"
    data = text.encode()
    return Entry(interaction.key, data, 0, len(data), path)


def merge(old: Sequence[Entry], asked: Sequence[Asked], *, owned: bool, rewrite: bool) -> list[Entry]:
    """The file's interactions after a test: in the order in which the calls started.

    What did not change keeps its text, and a rewrite with the same calls keeps the order, so that recording
    again touches nothing else. Where several tests share the file, each keeps its place and new ones come last.
    """
    before = dict(zip(_places(old), old, strict=True))
    fresh = {(call.key, call.nth): call.new for call in asked if call.new is not None}
    in_order = dict.fromkeys(_in_order(asked))
    known = in_order.keys() <= before.keys()
    if rewrite and not known and _is_same_run(before, [*in_order], fresh, whole=owned):
        return list(old)
    if rewrite:
        chosen = before | fresh | {place: before[place] for place in _unchanged(before, fresh, known=known)}
    else:
        renewed = {(call.key, call.nth): call.new for call in asked if call.new is not None and call.renews}
        chosen = fresh | before | renewed
    if not owned or (known and not rewrite):
        order = [*before, *in_order]
    elif rewrite:
        order = [place for place in before if place in in_order] if known else [*in_order]
    else:
        order = [*in_order, *before]
    return [chosen[place] for place in dict.fromkeys(order) if place in chosen]


def _unchanged(before: dict[Place, Entry], fresh: dict[Place, Entry], *, known: bool) -> set[Place]:
    """Which places of the file were answered the same again; identifiers aside where that is consistent.

    An identifier may have gone on into a later question. Where one question reads otherwise than it did,
    identifiers are left aside only if no answer changed, so that all of the file is of one run.
    """
    pairs = {place: (before[place], new) for place, new in fresh.items() if place in before}
    same = {place for place, pair in pairs.items() if same_answer(*pair, ids=known)}
    if known and len(same) < len(pairs) and any(one.question != new.question for one, new in pairs.values()):
        return {place for place in same if same_answer(*pairs[place], ids=False)}
    return same


def _is_same_run(
    before: dict[Place, Entry], in_order: list[Place], fresh: dict[Place, Entry], *, whole: bool
) -> bool:
    """Whether the file holds all that a test asked and was answered, but for identifiers that providers made up.

    An identifier that goes on into a later question, as that of a tool call, makes a new key. The file still
    replays if each of the new run stands for one of the file's, wherever they stand. ``whole``: the file must
    hold nothing else.
    """
    if fresh.keys() != set(in_order) or (whole and len(in_order) != len(before)):
        return False
    others = {place: entry for place, entry in before.items() if place not in fresh}
    ids = _Ids({}, {})
    for place in in_order:
        # Of identical questions each has its own number, before and now.
        choice = [place] if place in before else [other for other in others if other[1] == place[1]]
        found = next(((one, then) for one in choice if (then := ids.of(before[one], fresh[place]))), None)
        if found is None:
            return False
        ids = found[1]
        others.pop(found[0], None)
    return True


SHORTEST_ID = 2  # characters
WORD = re.compile(r"[A-Za-z0-9_-]+")


class _Ids(NamedTuple):
    """Which identifier of one run is which of another's, there and back."""

    forth: dict[str, str]
    back: dict[str, str]

    def of(self, one: Entry, other: Entry) -> _Ids | None:
        """These and those that two interactions add; None where these are not the same otherwise."""
        if one.question.count(b"\n") != other.question.count(b"\n"):
            return None  # an identifier is a word: nothing is read in vain
        try:
            asked, now = one.call(), other.call()
            if asked.name != now.name or not self._fits(asked.request, now.request):
                return None
            said, new = one.answer(), other.answer()
        except CassetteError:
            return None  # somebody else's, in a file that tests share: it is nothing to stop for
        ids = _Ids({**self.forth}, {**self.back})
        is_same = (
            said.kind is new.kind
            and (said.complete, said.ended) == (new.complete, new.ended)
            and ids._learn(_settled(_events(said.data), False), _settled(_events(new.data), False))
            and ids._learn(_settled(said.error, False), _settled(new.error, False))
        )
        return ids if is_same else None

    def _learn(self, one: Any, other: Any) -> bool:
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(
                self._pair(item, other[name])
                if _is_id(name) and isinstance(item, str) and isinstance(other[name], str)
                else item == other[name]
                if name in SAID
                else self._learn(item, other[name])
                for name, item in one.items()
            )
        return _alike(one, other, self._learn)

    def _fits(self, one: Any, other: Any) -> bool:
        if isinstance(one, str) and isinstance(other, str):
            if one == other or one in self.forth or other in self.back:
                return self.forth.get(one, one) == other and self.back.get(other, other) == one
            return _exchanged(one, self.forth) == other and _exchanged(other, self.back) == one
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(self._fits(one[name], other[name]) for name in one)
        return _alike(one, other, self._fits)

    def _pair(self, one: str, other: str) -> bool:
        if one != other and min(len(one), len(other)) < SHORTEST_ID:
            return False  # it may be a word of a prompt too
        return self.forth.setdefault(one, other) == other and self.back.setdefault(other, one) == one


def _exchanged(text: str, ids: dict[str, str]) -> str:
    """A text with the identifiers of the other run, as of a tool call that an agent tells the model of."""
    return WORD.sub(lambda found: ids.get(found[0], found[0]), text)


def _alike(one: Any, other: Any, are: Callable[[Any, Any], bool]) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(are, one, other))
    return bool(one == other)


def same_answer(one: Entry, other: Entry, *, ids: bool) -> bool:
    """Whether two answers say the same, times and fingerprints aside, with ``ids`` also identifiers aside."""
    first, second = one.answer(), other.answer()
    return (
        first.kind is second.kind
        and (first.complete, first.ended) == (second.complete, second.ended)
        and _settled(_events(first.data), ids) == _settled(_events(second.data), ids)
        and _settled(first.error, ids) == _settled(second.error, ids)
    )


def cassette_path(folder: Path, parts: Iterable[str], shown: Callable[[str], str] = str) -> Path:
    """The file of a test under ``folder``: each part escaped reversibly, so that no two ids share a file.

    ``shown`` is what of a part may be read in the name: a part of which it leaves less ends in a hash.
    """
    escaped = [_file_name(part, shown(part)) for part in parts]
    return folder.joinpath(*escaped[:-1], f"{escaped[-1]}.yaml")


def _file_name(part: str, shown: str, longest: int = 120) -> str:
    raw, readable = (text.encode("utf-8", "surrogatepass") for text in (part, shown))
    name = "".join(chr(byte) if byte in FILE_NAME_BYTES else f"%{byte:02X}" for byte in readable)
    if name != name.strip(" .") or not name:
        name = f"%{ord(name[0]):02X}{name[1:]}" if name and name[0] in " ." else name
        name = f"{name[:-1]}%{ord(name[-1]):02X}" if name and name[-1] in " ." else name or "%"
    if name.split(".")[0].upper() in RESERVED:
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if len(name) > longest or shown != part:
        # No escape is `%-`: a short name cannot come out the same.
        name = f"{name[: longest - 18]}%-{hashlib.blake2b(raw, digest_size=8).hexdigest()}"
    return name


RESERVED = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
)


def _places(entries: Iterable[Entry]) -> Iterator[Place]:
    seen: Counter[str] = Counter()
    for entry in entries:
        yield entry.key, seen[entry.key]
        seen[entry.key] += 1


def _in_order(asked: Sequence[Asked]) -> Iterator[Place]:
    """The places asked for, by the start of their calls.

    Of identical calls at once, the one that started last may have been answered first: their numbers stay
    in order, so that the answers of a key never change places.
    """
    numbers: dict[str, set[int]] = defaultdict(set)
    for call in asked:
        numbers[call.key].add(call.nth)
    ranked = {key: iter(sorted(found)) for key, found in numbers.items()}
    for key, _ in dict.fromkeys((call.key, call.nth) for call in asked):
        yield key, next(ranked[key])


def _shared(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the chunks of a stream have in common, the last aside where it has less."""
    shared = _common(chunks[:-1])
    return shared if len(shared) > 1 and shared.keys() & chunks[-1].keys() else _common(chunks)


def _common(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(chunks) < 2:  # noqa: PLR2004 - nothing is shared by one
        return {}
    # Those that are like another but for their text share what that one shares.
    first, *rest = (chunk for chunk in chunks if type(chunk) is not Again)
    return {
        name: value
        for name, value in first.items()
        if isinstance(value, str | int | None) and all(_has(chunk, name, value) for chunk in rest)
    }


def _has(chunk: dict[str, Any], name: str, value: Any) -> bool:
    return name in chunk and type(chunk[name]) is type(value) and bool(chunk[name] == value)


def _rests(chunks: Iterable[dict[str, Any]], shared: dict[str, Any]) -> Iterator[dict[str, Any]]:
    first, rest = None, {}
    for chunk in chunks:
        if type(chunk) is Again and chunk.first is first:
            yield Again(rest, chunk.text)
        else:
            first, rest = chunk, _rest(chunk, shared)
            yield rest


def _rest(chunk: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    if not all(_has(chunk, name, value) for name, value in shared.items()):
        return chunk
    return {name: value for name, value in chunk.items() if name not in shared}


def _events(data: Any) -> Any:
    """A stream's server-sent events as data: their bytes hold the same in other pieces each time."""
    if (
        not isinstance(data, list)
        or not data
        or not all(isinstance(chunk.get("bytes"), str) for chunk in data)
    ):
        return data
    lines = "".join(chunk["bytes"] for chunk in data).splitlines()
    return [_event(line) for line in lines if line]


def _event(line: str) -> Any:
    try:
        return json.loads(line.removeprefix("data:"))
    except ValueError:
        return line


def _settled(value: Any, ids: bool) -> Any:
    if isinstance(value, dict):
        return {
            name: item if name in SAID else _settled(item, ids)
            for name, item in value.items()
            if name not in VOLATILE and not (ids and _is_id(name))
        }
    if isinstance(value, list):
        return [_settled(item, ids) for item in value]
    return value


def _is_id(name: Any) -> bool:
    return isinstance(name, str) and (name == "id" or name.endswith("_id"))


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number of seconds or of USD; an integer may have more digits than a float has range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER


def _other_case(path: Path) -> str | None:
    """The file's own name where a file system that minds no case took it for ``path``; None where it is that."""
    if not path.with_name(path.name.swapcase()).exists():
        return None
    names = [found.name for found in path.parent.iterdir()]
    if path.name in names:
        return None
    return next((name for name in names if name.casefold() == path.name.casefold()), None)


def _scalar(text: str) -> str:
    return document.dump({"key": text})[len("key: ") :].rstrip("\n")
