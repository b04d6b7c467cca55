"""What a layer of the cache is, and what layers share: the age of values, keys, JSON text, the folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pytest_lmcache.clock import age
from pytest_lmcache.errors import CacheError, unstorable

LONGEST_KEY = 200

_write = json.JSONEncoder(separators=(",", ":")).encode


class Layer(Protocol):
    """A store of values, as `values` makes them; other mappings of JSON data will do.

    What a layer gives and what it was given are not what it keeps: changing them changes nothing in it.
    Whatever ails the store itself is a LayerError.
    """

    name: str

    def get(self, key: str) -> dict[str, Any] | None:
        """The value of a key; None if there is none, or if it is too old or not a value."""

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a value under a key, in place of what was there."""

    def close(self) -> None:
        """Let go of files and connections; the next `get` or `put` takes them up again."""


def is_fresh(value: Mapping[str, Any], ttl: float | None) -> bool:
    """Whether a value was stored less than ``ttl`` seconds ago; never, if it does not say when."""
    return ttl is None or seconds_left(value, ttl) > 0


def seconds_left(value: Mapping[str, Any], ttl: float) -> float:
    """How long a value stays usable; what does not say when it was stored is not."""
    return ttl - age(value)


def plain_key(key: str) -> str:
    """A key that any store takes: short and ASCII; another one is replaced by its hash."""
    if len(key) <= LONGEST_KEY and key.isascii():
        return key
    return "#" + hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def to_text(value: Mapping[str, Any]) -> str:
    """A value as JSON text of ASCII characters. Raises CacheError for what is not JSON data."""
    try:
        return _write(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise CacheError(unstorable(str(error))) from None


def from_text(text: str) -> dict[str, Any] | None:
    """The value that a text holds; None if it holds none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def make_folder(folder: Path) -> None:
    """Make the folder of a cache if there is none, for its owner alone; a new one is kept out of git and of backups.

    So is pytest's own where that is new: pytest marks only what it has made itself.
    """
    new = [parent for parent in folder.parents if parent.name == ".pytest_cache" and not parent.exists()]
    try:
        folder.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        return
    for each in (folder, *new):
        _keep_out(each)
    for path in folder.iterdir():
        path.chmod(0o600)


def _keep_out(folder: Path) -> None:
    (folder / ".gitignore").write_text("# Created by pytest-lmcache.\n*\n", encoding="utf-8")
    (folder / "CACHEDIR.TAG").write_text(
        "Signature: 8a477f597d28d172789f06886806bc55\n"
        "# This file is a cache directory tag created by pytest-lmcache.\n"
        "# For information about cache directory tags, see https://bford.info/cachedir/\n",
        encoding="utf-8",
    )
