"""The file of a cassette: where a test, a marker or a block has it, with escaped names that no two ids share."""

from __future__ import annotations

import hashlib
import os
import string
from collections.abc import Sequence
from pathlib import Path

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.redact import redact_file_name

FILE_NAME_BYTES = frozenset(b"-_.,=+@[]() " + string.ascii_letters.encode() + string.digits.encode())


def named_cassette(name: str, folder: Path) -> Path:
    """Return the file that a marker's ``cassette=`` names. Raises SettingsError if it is outside the folder."""
    path = folder / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    inside = os.path.abspath(path), os.path.abspath(folder)  # noqa: PTH100 - a cassette may be a link
    if not Path(inside[0]).is_relative_to(inside[1]):
        raise SettingsError(
            f"The cassette {name!r} would be outside the cassette folder {folder}. "
            "Name a file inside it, or set lm_cassette_dir."
        )
    return path


def own_cassette(file: Sequence[str], test: str, folder: Path) -> Path:
    """Return the file of a test under the cassette folder: the path of its test file, then its own name.

    Each part is escaped reversibly, so that no two ids share a file. A part with a secret ends in a hash.
    """
    escaped = [_file_name(part, redact_file_name(part)) for part in (*file, test)]
    return folder.joinpath(*escaped[:-1], f"{escaped[-1]}.yaml")


def identity_of(path: Path, folder: Path) -> str:
    """Return the name of a cassette on every machine: its path in a folder, absolute only if it is elsewhere."""
    absolute = Path(os.path.normpath(folder / path))
    return absolute.relative_to(folder).as_posix() if absolute.is_relative_to(folder) else str(absolute)


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
