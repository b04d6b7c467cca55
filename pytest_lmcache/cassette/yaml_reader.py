"""Reads the YAML text of a document: plain data, exact to the bit as `yaml_writer` was given it."""

from __future__ import annotations

import math
import re
import struct
from functools import cache
from itertools import groupby
from json import JSONDecoder
from typing import TYPE_CHECKING, Any

from pytest_lmcache.cassette.yaml_writer import UNPRINTABLE
from pytest_lmcache.tags import READERS

if TYPE_CHECKING:
    from collections.abc import Callable

_STR, _INT, _FLOAT, _BOOL, _NULL, _MAP, _SEQ = (
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")
)
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")
# Characters to JSON and an error to YAML.
_ONLY_JSON = re.compile(r"\\u[dD][89a-fA-F]|\x7f")
_YAML_FLOAT = re.compile(r"-?[0-9]+\.[0-9]+(?:[eE][-+][0-9]+)?")
# An anchor's beginning, which `R&D` and the `&b=` of an address do not have.
_ANCHOR = re.compile(rb"(?:\A|\W)&[\w-]")


def load(text: str | bytes) -> Any:
    """The plain data of one document. Raises yaml.YAMLError if the text is anything else, or has anchors."""
    import yaml

    try:
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        if b"<<" in data or (b"&" in data and _ANCHOR.search(data)):
            _refuse_references(text)
        loader = loader_class()(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _build(node, loader)
        finally:
            loader.dispose()
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error


def load_items(text: str | bytes) -> list[Any]:
    """The items of a list whose dashes are at column 0: the same as `load`, but faster, since JSON is read as JSON.

    Raises yaml.YAMLError as `load` does, and if the text is no list.
    """
    import yaml

    try:
        return _load_by_line(text if isinstance(text, str) else text.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError, yaml.YAMLError):
        items = load(text)
    if not isinstance(items, list):
        raise yaml.YAMLError(f"expected lines that begin with a dash, found {type(items).__name__}")
    return items


@cache
def loader_class() -> Any:
    """PyYAML's safe loader, with libyaml if PyYAML has it, without dates and merge keys."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    patterns = {
        first: [found for found in resolvers if found[0] in (_INT, _FLOAT, _BOOL, _NULL)]
        for first, resolvers in base.yaml_implicit_resolvers.items()
    }
    return type("Loader", (base,), {"yaml_implicit_resolvers": patterns})


def _refuse_references(text: str | bytes) -> None:
    """Raise YAMLError for an anchor, which a few lines can multiply beyond any memory, or a merge key."""
    import yaml

    for event in yaml.parse(text, Loader=loader_class()):
        if getattr(event, "anchor", None) is not None:
            raise _fault_at(event, "anchors and aliases (&, *) are not read: write out what they stand for")
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            raise _fault_at(event, "merge keys (<<) are not read: write out what they stand for")


def _build(node: Any, loader: Any) -> Any:
    """A parsed node as plain data. PyYAML's constructor, which allows cycles, takes three times as long."""
    tag, value, kind = node.tag, node.value, node.id
    if kind == "scalar":
        if tag == _STR:
            return value
        try:
            return _READERS[tag](node, loader)
        except (ValueError, LookupError, struct.error) as error:
            raise _fault_at(node, f"cannot read {value[:40]!r} as {tag}") from error
    if kind == "mapping" and tag == _MAP:
        mapping = {}
        for key_node, item in value:
            if key_node.id != "scalar":
                raise _fault_at(key_node, f"a {key_node.id} cannot be a key")
            mapping[_build(key_node, loader)] = _build(item, loader)
        if len(mapping) < len(value):
            raise _repeated(value)
        return mapping
    if kind == "sequence" and tag == _SEQ:
        items = []
        for item in value:  # one frame for each level, so that whatever was written can be read
            items.append(_build(item, loader))  # noqa: PERF401
        return items
    raise _fault_at(node, f"cannot read a {kind} as {tag}")


def _repeated(pairs: list[tuple[Any, Any]]) -> Exception:
    """The error for a mapping that has a key twice, as after a merge."""
    first = {key.value: key for key, _ in reversed(pairs)}
    key = next((key for key, _ in pairs if first[key.value] is not key), pairs[0][0])
    return _fault_at(key, f"the key {key.value[:40]!r} is here twice")


def _fault_at(node: Any, problem: str) -> Exception:
    from yaml.constructor import ConstructorError

    return ConstructorError(None, None, problem, node.start_mark)


def _read_int(node: Any, loader: Any) -> Any:
    text: str = node.value
    return int(text) if text.isdecimal() and text[0] != "0" else loader.construct_yaml_int(node)


def _read_float(node: Any, loader: Any) -> Any:
    return math.nan if node.value.lower() == ".nan" else loader.construct_yaml_float(node)


def _reader(read: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
    return lambda node, _loader: read(node.value)


_READERS: dict[str, Callable[[Any, Any], Any]] = {
    _NULL: lambda _node, _loader: None,
    _BOOL: lambda node, loader: loader.bool_values[node.value.lower()],
    _INT: _read_int,
    _FLOAT: _read_float,
    # JSON would make one character of two surrogates side by side.
    "!text": lambda node, _loader: _ESCAPE.sub(lambda found: chr(int(found[1], 16)), node.value),
    **{f"!{tag}": _reader(read) for tag, read in READERS.items()},
}


def _load_by_line(text: str) -> list[Any]:
    """The items of lines of JSON, `- {...}`, and of the lines between them. Raises an error if YAML must decide."""
    if _ONLY_JSON.search(text) or (not text.isascii() and UNPRINTABLE.search(text)):
        raise ValueError
    items: list[Any] = []
    for is_json, group in groupby(text.splitlines(keepends=True), lambda line: line.startswith("- {")):
        lines = [*group]
        found = [_decode_json(line[2:]) for line in lines] if is_json else load("".join(lines))
        if not isinstance(found, list | None):
            raise ValueError  # noqa: TRY004 - see above
        items += found or ()
    if not items:
        raise ValueError
    return items


def _parse_float(text: str) -> float:
    """A float that YAML 1.1 knows too: it has a dot, and a sign before its exponent; not NaN or Infinity."""
    if _YAML_FLOAT.fullmatch(text) is None:
        raise ValueError(text)
    return float(text)


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object that has no key twice; for one that has, YAML gives the line."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError
    return mapping


_decode_json = JSONDecoder(
    object_pairs_hook=_mapping, parse_float=_parse_float, parse_constant=_parse_float
).decode
