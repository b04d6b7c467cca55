"""Reads a cassette file: its header, and its interactions as documents. What it cannot read, it refuses."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from pytest_lmcache.cassette.document import RECORDED, Entry, conflict_error
from pytest_lmcache.errors import CassetteError, shorten

OLDEST_FORMAT, NEWEST_FORMAT = 1, 2
# The pattern begins with a newline, which is found ten times faster than the start of a line. It matches the line
# that begins a document, the number that a formatter moved to the next line, and the key, if it is written as we
# write it. The last group is what must not follow `---`: YAML ends a comment at three more characters.
DOCUMENT = re.compile(
    rb"\n---(?:(?:[ \t]+#(?:[^\n\xc2\xe2]|\xc2[^\x85]|\xe2(?!\x80[\xa8\xa9]))*|[ \t]*)(?=\n|\Z)"
    rb"(?:\n# [0-9]+(?=\n))?(?:\nkey: ([A-Za-z]\w*)(?=\n))?|(?P<more>.))"
)
END_MARK = re.compile(rb"\n\.\.\.(?=\s|\Z)")
VERSION = re.compile(rb"^lmcache: *([0-9]{1,9}) *(?:#.*)?$", re.MULTILINE)
FROZEN_AT = re.compile(rb"^frozen_at: *([^\n]*)$", re.MULTILINE)
COMPLETE = re.compile(rb"\nseconds: [0-9]+\.[0-9]{3}\Z")


def read_bytes(path: Path) -> bytes | None:
    """Return a file's content with line ends and the last newline as we write them; None if there is no file."""
    try:
        data = path.read_bytes()
        other = _other_case(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        raise CassetteError(
            f"{path} is a folder; a cassette is a file. Name one in it, such as {path}/x.yaml."
        ) from None
    except OSError as problem:
        raise _broken(path, b"", f"cannot be read: {problem.strerror or problem}") from None
    if other is not None:
        raise CassetteError(
            f"{path}:1: on this file system it is the same file as {other}, another test's cassette: the names differ "
            "only in upper and lower case.\n"
            "Rename one of the tests, or give it a cassette of its own: @pytest.mark.lm_cache(cassette=...)"
        )
    data = data.removeprefix(b"\xef\xbb\xbf")
    data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data
    return data + b"\n" if COMPLETE.search(data, len(data) - 30) else data


def read_header(path: Path, data: bytes) -> tuple[int, str]:
    """Return a cassette's format and the name of its key strategy. Raises CassetteError if it is not a readable cassette."""
    mark = b"<<<<<<< "
    # Searched from the end, since that is several times faster; so is a single byte.
    if b"<" in data and (data.startswith(mark) or data.rfind(b"\n" + mark) >= 0):
        raise conflict_error(path, data, data[: data.find(mark)].count(b"\n") + 1)
    end = data.find(b"\n---") + 1
    head = Entry("", data, 0, end or len(data), path)
    version = VERSION.search(head.text)
    if version is not None and int(version[1]) > NEWEST_FORMAT:
        line = head.text.count(b"\n", 0, version.start()) + 1
        raise CassetteError(
            f"{path}:{line}: this cassette has format {int(version[1])}; this pytest-lmcache reads formats up "
            f"to {NEWEST_FORMAT}.\nInstall a newer one: pip install -U pytest-lmcache"
        )
    if not data:
        raise head.broken("this file is empty")
    try:
        fields = head.load(head.text, 0)
    except CassetteError:
        if version is not None:
            raise
        fields = {}
    if "lmcache" not in fields:
        raise CassetteError(
            f"{path}:1: this is not a pytest-lmcache cassette: its first document has no `lmcache:`.\n"
            "The file was not changed. Move it away, or give the test another cassette, and run: "
            "pytest --lm-record"
        )
    if version is None or fields["lmcache"] not in range(OLDEST_FORMAT, NEWEST_FORMAT + 1):
        raise head.broken(f"there is no cassette format {fields['lmcache']!r}")
    return fields["lmcache"], str(fields.get("key"))


def frozen_at(data: bytes) -> bytes | None:
    """Return when the test of a cassette ran, as the header has it; None if it does not say."""
    found = FROZEN_AT.search(data, 0, data.find(b"\n---") + 1)
    return None if found is None else found[1]


def read_frozen_at(path: Path) -> str:
    """Return when the test of a cassette ran, in ISO 8601; empty if there is no such file.

    If the clock was not stopped then, it is when the first call was answered. Raises CassetteError if it is no time.
    """
    data = read_bytes(path) or b""
    text = frozen_at(data)
    if text is None:
        text = found[1] if (found := RECORDED.search(data)) is not None else b""
    shown = text.decode("ascii", "replace").strip("\"' ")
    try:
        if shown:
            datetime.fromisoformat(shown)
    except ValueError:
        problem = f"{shorten(shown)} is no time, such as 2026-11-23T09:12:44Z"
        raise _broken(path, data, problem, data.find(text)) from None
    return shown


def read_documents(path: Path, data: bytes) -> list[Entry]:
    """Return the interactions of a cassette in the file's order; without a key if it is not written as we write it.

    Raises CassetteError if something would be left unread, or if the last interaction is cut off.
    """
    entries: list[Entry] = []
    for found in DOCUMENT.finditer(data):
        if found.lastgroup == "more":
            problem = "only a comment, as in `--- # 1`, may follow the `---` that begins an interaction"
            raise _broken(path, data, problem, found.start() + 1)
        key = found[1]
        start = min(found.end() + 1, len(data)) if key is None else found.start(1) - len(b"key: ")
        if entries:
            entries[-1].end = found.start() + 1
        entries.append(Entry("" if key is None else key.decode(), data, start, len(data), path))
    if not entries:
        raise _broken(path, data, "this cassette is cut off: it has a header and no interaction")
    if data.rfind(b"\n...") >= 0 and (mark := END_MARK.search(data)) is not None:
        problem = "remove this `...`: it ends an interaction too early"
        raise _broken(path, data, problem, mark.start() + 1)
    last = entries[-1]
    if data.find(b"\nseconds:", last.start - 1) < 0 or not data.endswith(b"\n"):
        raise last.broken("this interaction is cut off: its last field, `seconds:`, is missing")
    return entries


def _broken(path: Path, data: bytes, problem: str, at: int = 0) -> CassetteError:
    return Entry("", data, at, at, path).broken(problem)


def _other_case(path: Path) -> str | None:
    """Return the file's own name if a file system that ignores case took it for ``path``."""
    if not path.with_name(path.name.swapcase()).exists():
        return None
    names = [found.name for found in path.parent.iterdir()]
    if path.name in names:
        return None
    return next((name for name in names if name.casefold() == path.name.casefold()), None)
