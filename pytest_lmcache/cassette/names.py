"""The file name of a test's cassette: each part of its id, escaped so that no two ids share a file."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Callable, Iterable
from pathlib import Path

FILE_NAME_BYTES = frozenset(b"-_.,=+@[]() " + string.ascii_letters.encode() + string.digits.encode())


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
