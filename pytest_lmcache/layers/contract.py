"""The contract of a layer, and what layers share: JSON text, keys that any store takes, ages, the folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pytest_lmcache.clock import age
from pytest_lmcache.errors import CacheError

LONGEST_KEY = 200  # characters

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Layer(Protocol):
    """A store of values: dicts of JSON data, as ``layers.values.store`` makes them.

    A layer copies what it gets and gives. It raises LayerError if its store fails.
    """

    name: str

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the value of a key; None if there is none, if it is too old, or if it is not a value."""

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Store a value; it replaces an earlier value of the key. Raises CacheError for what is not JSON data."""

    def close(self) -> None:
        """Close files and connections; the next `get` or `put` opens them again."""


def is_fresh(value: Mapping[str, Any], ttl: float | None) -> bool:
    """Return whether a value was stored less than ``ttl`` seconds ago; None is no limit."""
    return ttl is None or age(value) < ttl


def plain_key(key: str) -> str:
    """Return a short ASCII key: the key itself, or else its hash."""
    if len(key) <= LONGEST_KEY and key.isascii():
        return key
    return "#" + hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def unstorable(problem: str) -> CacheError:
    """Return the error for an answer that the cache cannot store."""
    return CacheError(
        f"The cache cannot store this answer: {problem}. It stores plain data: what JSON holds, and bytes."
    )


def to_text(value: Mapping[str, Any]) -> str:
    """Return a value as JSON text in ASCII. Raises CacheError for what is not JSON data."""
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise unstorable(str(error)) from None


def from_text(text: str) -> dict[str, Any] | None:
    """Return the value in a text, None if there is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def make_folder(folder: Path) -> None:
    """Create the folder of a cache if it is missing, for its owner only, and keep it out of git and backups.

    A new ``.pytest_cache`` around it is kept out, too: pytest does so only for a folder that it creates itself.
    """
    new = [parent for parent in folder.parents if parent.name == ".pytest_cache" and not parent.exists()]
    try:
        folder.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        return
    for each in (folder, *new):
        (each / ".gitignore").write_text("# Created by pytest-lmcache.\n*\n", encoding="utf-8")
        (each / "CACHEDIR.TAG").write_text(
            "Signature: 8a477f597d28d172789f06886806bc55\n"
            "# This file is a cache directory tag created by pytest-lmcache.\n"
            "# For information about cache directory tags, see https://bford.info/cachedir/\n",
            encoding="utf-8",
        )
    for path in folder.iterdir():
        path.chmod(0o600)
