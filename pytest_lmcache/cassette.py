"""The cassette file: read and index it, find an answer by its key, merge what a test recorded, write it."""

from __future__ import annotations

import hashlib
import os
import re
import string
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from pytest_lmcache import document
from pytest_lmcache.errors import (
    CassetteError,
    broken_cassette,
    conflicted_cassette,
    foreign_cassette,
    newer_cassette,
    shorten,
)
from pytest_lmcache.interaction import Answer, Call, Interaction, Kind
from pytest_lmcache.keys import KeyStrategy

FORMAT = 1
SEPARATOR = b"\n--- "
KEY_LINE = re.compile(rb"^key: *(\S.*?) *$", re.MULTILINE)
ANSWER = re.compile(rb"^(?:response|shared|chunks|error):", re.MULTILINE)
CHUNKS = re.compile(rb"^chunks:\n((?:(?:[- ].*)?\n)*)", re.MULTILINE)
LAST_FIELD = b"\nseconds:"
CONFLICT = re.compile(rb"^(?:<{7}|={7}|>{7})(?: |$)", re.MULTILINE)
FILE_NAME_BYTES = frozenset(b"-_.,=+@[]() " + string.ascii_letters.encode() + string.digits.encode())
PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# What a provider gives anew to the very same answer.
VOLATILE = frozenset(
    {"created", "created_at", "completed_at", "system_fingerprint", "timings", "_response_ms"}
)


class Entry:
    """One recorded interaction, kept as the bytes of its YAML document; parsed only where it is asked for.

    ``key`` is the key under the strategy in use; ``line`` is the document's first line in its file.
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

    def answer(self) -> Answer:
        """The answer alone: the request, the longer part as a rule, is not parsed.

        Raises CassetteError where the document is broken.
        """
        text = self.text
        found = ANSWER.search(text)
        if found is None:
            raise self.broken("this interaction has neither `response:`, `chunks:` nor `error:`")
        tail = text[found.start() :]
        chunks = CHUNKS.search(tail)
        if chunks is None:
            return self._answer(self._load(tail, found.start()), None)
        lines = self._load_lines(chunks.group(1), found.start() + chunks.start(1))
        rest = tail[: chunks.start()] + tail[chunks.end() :]
        return self._answer(self._load(rest, found.start()), lines)

    def interaction(self) -> Interaction:
        """The whole interaction. Raises CassetteError where the document is broken or lacks a field."""
        fields = self._load(self.text, 0)
        missing = [name for name in ("key", "call", "request", "recorded", "seconds") if name not in fields]
        if missing:
            raise self.broken(f"this interaction has no `{missing[0]}:`")
        if not isinstance(fields["request"], dict) or not isinstance(fields["call"], str):
            raise self.broken("`request:` must be a mapping and `call:` a name")
        return Interaction(
            key=self.key,
            call=Call(fields["call"], fields["request"]),
            answer=self.answer(),
            recorded=str(fields["recorded"]),
        )

    def call(self) -> Call:
        """The call alone. Raises CassetteError where the document is broken or lacks a field."""
        text = self.text
        found = ANSWER.search(text)
        fields = self._load(text[: found.start()] if found else text, 0)
        if not isinstance(fields.get("request"), dict) or not isinstance(fields.get("call"), str):
            raise self.broken("this interaction needs `call:`, a name, and `request:`, a mapping")
        return Call(fields["call"], fields["request"])

    def rekeyed(self, key: str) -> Entry:
        """The same interaction with another key in its key line."""
        text = KEY_LINE.sub(b"key: " + _scalar(key).encode(), self.text, count=1)
        return Entry(key, text, 0, len(text), self.path)

    def broken(self, problem: str, offset: int = 0) -> CassetteError:
        """The error that names this document's file and line."""
        line = self.data.count(b"\n", 0, self.start + offset) + 1
        return CassetteError(broken_cassette(str(self.path), line, problem))

    def _answer(self, fields: dict[str, Any], chunks: list[Any] | None) -> Answer:
        kind, data, error = Kind.RESPONSE, fields.get("response"), fields.get("error")
        if chunks is not None:
            shared = fields.get("shared") or {}
            kind, data = Kind.STREAM, [{**shared, **chunk} for chunk in chunks]
        elif "response" not in fields:
            kind, data, error = Kind.ERROR, error, None
        if not isinstance(data, dict | list):
            raise self.broken(f"`{kind}:` must be a mapping")
        return Answer(
            kind,
            data,
            error=error,
            complete=not fields.get("left_early", False),
            hidden=fields.get("hidden"),
            seconds=float(fields.get("seconds", 0)),
            usd=fields.get("usd"),
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
        if not all(isinstance(chunk, dict) for chunk in chunks):
            raise self.broken("`chunks:` must be a list of mappings", offset)
        return chunks

    def _unreadable(self, problem: Exception, offset: int) -> CassetteError:
        mark = getattr(problem, "problem_mark", None)
        line = self.data.count(b"\n", 0, self.start + offset) + 1 + (mark.line if mark is not None else 0)
        what = getattr(problem, "problem", None) or str(problem)
        return CassetteError(broken_cassette(str(self.path), line, f"this is not readable YAML: {what}"))


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of a test, in the order of start: its key, which of the key's answers (from 0), what is new."""

    key: str
    nth: int
    new: Entry | None


class Cassette:
    """One cassette file as it is on disk: its interactions in order, and an index by key.

    ``exists`` is False where there is no file yet: an empty cassette, to be written.
    """

    def __init__(self, path: Path, strategy: KeyStrategy) -> None:
        self.path = path
        self.strategy = strategy
        self.exists = False
        self.entries: list[Entry] = []
        self._data = b""
        self._index: dict[str, list[Entry]] = defaultdict(list)
        self._read()

    def answers(self, key: str) -> Sequence[Entry]:
        """The recorded interactions of a key, in the order in which they were asked for."""
        return self._index.get(key, ())

    def save(
        self, asked: Sequence[Asked], *, owned: bool, rewrite: bool, comment: Sequence[str] = ()
    ) -> bool:
        """Merge what a test asked into the file, aside and then renamed; say whether the file changed.

        ``owned``: one test alone uses the file, so its order is that test's, and a rewrite drops what was
        not asked. The file is read anew under a lock: other processes may have written meanwhile.
        Raises CassetteError where the file is broken or cannot be written.
        """
        if not rewrite and not any(call.new for call in asked):
            return False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _lock(self.path):
                on_disk = Cassette(self.path, self.strategy)
                entries = merge(on_disk.entries, asked, owned=owned, rewrite=rewrite)
                if entries == on_disk.entries:
                    return False
                _replace(self.path, b"".join(self._file(entries, comment)))
        except OSError as problem:
            text = f"cannot be written: {problem.strerror or problem}"
            raise CassetteError(broken_cassette(str(self.path), 1, text)) from None
        return True

    def _file(self, entries: Iterable[Entry], comment: Sequence[str]) -> Iterator[bytes]:
        yield "".join(f"# {shorten(line, 1000)}\n" for line in comment).encode("utf-8", "backslashreplace")
        yield f"lmcache: {FORMAT}\nkey: {_scalar(self.strategy.name)}\n".encode()
        for number, entry in zip(count(1), entries):
            yield b"--- # %d\n" % number
            yield entry.text

    def _read(self) -> None:
        try:
            data = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as problem:
            text = f"cannot be read: {problem.strerror or problem}"
            raise CassetteError(broken_cassette(str(self.path), 1, text)) from None
        self.exists = True
        # An editor or git on another system may have put a mark in front or other line ends.
        data = data.removeprefix(b"\xef\xbb\xbf")
        self._data = data.replace(b"\r\n", b"\n") if b"\r\n" in data else data
        header = self._header()
        trusted = self.strategy.stable and header.get("key") == self.strategy.name
        for start, end in self._documents():
            entry = Entry("", self._data, start, end, self.path)
            key = self._key(entry)
            entry.key = key if trusted else self.strategy.key(entry.call())
            self.entries.append(entry if trusted or entry.key == key else entry.rekeyed(entry.key))
            self._index[entry.key].append(self.entries[-1])

    def _header(self) -> dict[str, Any]:
        conflict = CONFLICT.search(self._data)
        if conflict is not None:
            line = self._data.count(b"\n", 0, conflict.start()) + 1
            raise CassetteError(conflicted_cassette(str(self.path), line))
        end = self._data.find(SEPARATOR)
        head = Entry("", self._data, 0, len(self._data) if end < 0 else end + 1, self.path)
        try:
            fields = head._load(head.text, 0)  # noqa: SLF001 - the header is a document as any other
        except CassetteError:
            if KEY_LINE.search(head.text) and b"lmcache:" in head.text:
                raise
            fields = {}
        version = fields.get("lmcache")
        if version is None:
            raise CassetteError(foreign_cassette(str(self.path)))
        if version != FORMAT or isinstance(version, bool):
            line = self._data.count(b"\n", 0, max(self._data.find(b"lmcache:"), 0)) + 1
            raise CassetteError(newer_cassette(str(self.path), line, version, FORMAT))
        return fields

    def _documents(self) -> Iterator[tuple[int, int]]:
        data, at = self._data, self._data.find(SEPARATOR)
        while at >= 0:
            start = data.find(b"\n", at + 1) + 1 or len(data)
            at = data.find(SEPARATOR, start - 1)
            yield start, (len(data) if at < 0 else at + 1)

    def _key(self, entry: Entry) -> str:
        if self._data.rfind(LAST_FIELD, entry.start, entry.end) < 0 or not self._data.endswith(b"\n"):
            raise entry.broken("this interaction is cut off: its last field, `seconds:`, is missing")
        found = KEY_LINE.search(self._data, entry.start, entry.end)
        if found is None:
            raise entry.broken("this interaction has no `key:`")
        text = found.group(1).decode("utf-8", "replace")
        return text if PLAIN_KEY.fullmatch(text) else str(document.load(b"key: " + found.group(1))["key"])


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
        chunks = [
            {name: value for name, value in chunk.items() if name not in shared} for chunk in answer.data
        ]
        # Server-sent events are text of several lines, all others read best as on the wire: one line each.
        fields["chunks"] = chunks if any("bytes" in chunk for chunk in chunks) else document.Lines(chunks)
        if answer.error is not None:
            fields["error"] = answer.error
        if not answer.complete:
            fields["left_early"] = True
    else:
        fields["response" if answer.kind is Kind.RESPONSE else "error"] = answer.data
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
    by_key: dict[str, list[Entry]] = defaultdict(list)
    for entry in old:
        by_key[entry.key].append(entry)
    fresh = {(call.key, call.nth): call.new for call in asked}
    same_calls = Counter(key for key, _ in fresh) == Counter(entry.key for entry in old)

    def settled(key: str, nth: int) -> Entry | None:
        new, before = fresh.get((key, nth)), by_key[key][nth : nth + 1]
        if new is None or (before and same_answer(before[0], new, ids=same_calls)):
            return before[0] if before else None
        return new

    in_place = [(entry.key, nth) for entry, nth in zip(old, _numbered(old), strict=True)]
    in_order = list(dict.fromkeys((call.key, call.nth) for call in asked))
    if same_calls or not owned:
        order = in_place + [place for place in in_order if place not in set(in_place)]
    elif rewrite:
        order = in_order
    else:
        order = in_order + [place for place in in_place if place not in set(in_order)]
    return [entry for entry in (settled(*place) for place in order) if entry is not None]


def same_answer(one: Entry, other: Entry, *, ids: bool) -> bool:
    """Whether two answers say the same, times and fingerprints aside, with ``ids`` also identifiers aside."""
    first, second = one.answer(), other.answer()
    return (
        first.kind is second.kind
        and first.complete == second.complete
        and _settled(first.data, ids) == _settled(second.data, ids)
        and _settled(first.error, ids) == _settled(second.error, ids)
    )


def cassette_path(folder: Path, parts: Iterable[str]) -> Path:
    """The file of a test under ``folder``: each part escaped reversibly, so that no two ids share a file."""
    escaped = [_file_name(part) for part in parts]
    return folder.joinpath(*escaped[:-1], f"{escaped[-1]}.yaml")


def _file_name(part: str, longest: int = 120) -> str:
    raw = part.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if byte in FILE_NAME_BYTES else f"%{byte:02X}" for byte in raw)
    if name != name.strip(" .") or not name:
        name = f"%{ord(name[0]):02X}{name[1:]}" if name and name[0] in " ." else name
        name = f"{name[:-1]}%{ord(name[-1]):02X}" if name and name[-1] in " ." else name or "%"
    if name.split(".")[0].upper() in RESERVED:
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if len(name) > longest:
        name = f"{name[: longest - 17]}-{hashlib.blake2b(raw, digest_size=8).hexdigest()}"
    return name


RESERVED = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
)


def _numbered(entries: Iterable[Entry]) -> Iterator[int]:
    seen: Counter[str] = Counter()
    for entry in entries:
        yield seen[entry.key]
        seen[entry.key] += 1


def _shared(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(chunks) < 2:  # noqa: PLR2004 - nothing is shared by one
        return {}
    first, rest = chunks[0], chunks[1:]
    return {
        name: value
        for name, value in first.items()
        if isinstance(value, str | int | float | None)
        and all(name in chunk and type(chunk[name]) is type(value) and chunk[name] == value for chunk in rest)
    }


def _settled(value: Any, ids: bool) -> Any:
    if isinstance(value, dict):
        return {
            name: _settled(item, ids)
            for name, item in value.items()
            if name not in VOLATILE
            and not (ids and isinstance(name, str) and (name == "id" or name.endswith("_id")))
        }
    if isinstance(value, list):
        return [_settled(item, ids) for item in value]
    return value


def _scalar(text: str) -> str:
    return document.dump({"key": text})[len("key: ") :].rstrip("\n")


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name[:100]}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    from filelock import FileLock

    name = hashlib.blake2b(str(path.resolve()).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    folder = Path(tempfile.gettempdir(), f"pytest-lmcache-{os.getuid() if hasattr(os, 'getuid') else ''}")
    folder.mkdir(mode=0o700, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        yield
