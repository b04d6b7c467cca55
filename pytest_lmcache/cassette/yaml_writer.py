"""Writes plain data as the YAML text of a document; `yaml_reader` reads the same data, exact to the bit."""

from __future__ import annotations

import math
import re
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from pytest_lmcache.tags import LARGEST_INT_BITS, as_base, has_surrogate, is_vector, tagged, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LONGEST_KEY = 900  # YAML wants `? ` before a key of more than 1024 characters
PIECE = 500  # of these on each line, without which prettier takes the `? ` away

# What YAML's readers refuse, or read as a line break or a byte order mark; tabs and newlines are not among them.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_ESCAPED = re.compile(UNPRINTABLE.pattern[:-1] + r"\t\n\\]")
_INDENTED = re.compile(r"\A\s")
# ASCII text in which no reader of YAML 1.1 or 1.2 finds an indicator, a comment or a key.
_PLAIN = re.compile(r'[0-9A-Za-z_/(](?:[ !"$-9;-~]++|:(?=[0-9A-Za-z/]))*+(?<! )')
# Numbers, dates and times of any YAML version, and a little more.
_NUMBER_LIKE = re.compile(r"0[xXoObB].*|[0-9_][0-9_.,:+\-eEtTzZ ]*")
_WORDS = frozenset(("true", "false", "yes", "no", "on", "off", "y", "n", "null", "none", "nan", "inf"))
# Plain nevertheless, since it reads better: to YAML 1.2 and `load` it is a text, to YAML 1.1 a time.
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_, _NAN = tagged(math.nan)
_ONLY_YAML = ("!", ".", "-.", "0x", "-0x")  # tags, infinities, NaN, long integers


class Lines(list[Any]):
    """A list of mappings and texts, to be written with one line for each; `load` gives a list.

    A mapping is written in JSON, which is YAML too, unless the two would read it differently.
    """


_KINDS = frozenset((str, int, float, bool, type(None), bytes, list, dict, Lines))


def dump(data: Mapping[str, Any]) -> str:
    """The YAML text of a mapping: in block style, its keys in their order at column 0, with a newline at the end.

    Takes str, int, float, bool, None, bytes, list, tuple and dict. A tuple is written as a list, an instance of a
    subclass as its base. Raises TypeError for anything else, with the path to it and its type.
    """
    if not data:
        return "{}\n"
    out: list[str] = []
    try:
        _write_mapping(data, "", "", out)
    except TypeError as problem:
        raise TypeError(next(_faults(data, ""), str(problem))) from None
    out.append("")
    return "\n".join(out)


def _write_mapping(data: Mapping[Any, Any], lead: str, pad: str, out: list[str]) -> None:
    """Append a mapping whose keys begin at the end of `pad`, the first one after `lead`."""
    for key, value in data.items():
        name = _one_line(key) if type(key) is str else _other_key(key)
        if len(name) <= LONGEST_KEY:
            _write(value, f"{lead}{name}:", pad, out)
        else:
            if type(key) is str and not has_surrogate(key):
                pieces = [key[start : start + PIECE] for start in range(0, len(key), PIECE)]
                name = _quoted_lines(pieces, pad + "  ", "")
            out.append(f"{lead}? {name}")
            _write(value, pad + ":", pad, out)
        lead = pad


def _write(value: Any, head: str, pad: str, out: list[str]) -> None:
    """Append a value after `head`, its `key:` or dash, which begins at the end of `pad`."""
    if type(value) not in _KINDS:
        value = as_base(value)
    kind = type(value)
    if kind is str:
        out.append(f"{head} {_text(value, pad + '  ')}")
    elif kind is dict and value:
        inner = lead = pad + "  "
        if head[-1] == "-":
            lead = head + " "
        else:
            out.append(head)
        _write_mapping(value, lead, inner, out)
    elif (kind is list or kind is Lines) and value and not is_vector(value):
        if head[-1] == "-":
            pad, dash = pad + "  ", head + " -"
        else:
            out.append(head)
            dash = pad + "-"
        for item in value:
            line = _item_line(item) if kind is Lines else None
            if line is None:
                _write(item, dash, pad, out)
            else:
                out.append(f"{dash} {line}")
            dash = pad + "-"
    else:
        out.append(f"{head} {_SCALARS[kind](value)}")


def _other_key(key: Any) -> str:
    key = as_base(key) if type(key) not in _KINDS else key
    if isinstance(key, str):
        return _one_line(key)
    if key is None or isinstance(key, int | float):
        return _SCALARS[type(key)](key)
    raise TypeError(f"a key is of type {type_name(key)}")


def _text(text: str, pad: str) -> str:
    """A text as a value: in one line, or in a literal block, each line after `pad`, if that is safe."""
    if "\n" not in text:
        return text if _TIMESTAMP.fullmatch(text) else _one_line(text)
    if text.isspace() or has_surrogate(text):
        return _one_line(text)
    lines = text.split("\n")
    if _is_fragile(text, lines):
        return _quoted_lines(lines, pad)
    chomping = "" if text[-1] == "\n" else "-"
    if not chomping:
        lines.pop()
    body = "\n".join([pad + line if line else "" for line in lines])
    return f"|{chomping}\n{body}"


def _is_fragile(text: str, lines: list[str]) -> bool:
    """Whether formatters and editors would change a text in a literal block, or readers refuse it.

    They strip the ends of lines and turn tabs into spaces. yamlfmt drops empty lines at the end or beside each
    other. prettier gets the indentation wrong of a block whose first line is indented.
    """
    return (
        text[0].isspace()
        or text.endswith("\n\n")
        or "\n\n\n" in text
        or "\t" in text
        or any(line[-1:].isspace() for line in lines)
        or UNPRINTABLE.search(text) is not None
    )


def _quoted_lines(lines: list[str], pad: str, end: str = r"\n") -> str:
    r"""Lines in double quotes, each on a line of its own that ends in `\n\`; whitespace at its start is escaped."""
    quoted = [_INDENTED.sub(_as_first, _double_quoted(line)[1:-1]) for line in lines]
    last = quoted.pop()
    body = f"{end}\\\n{pad}".join([*quoted, last] if last else quoted) + ("" if last else end)
    return f'"{body}"'


def _as_first(character: re.Match[str]) -> str:
    return "\\ " if character[0] == " " else _as_escape(character)


def _one_line(text: str) -> str:
    """A text in one line: plain if no reader takes it for anything else, or in the quotes that need least escaping."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS and not _NUMBER_LIKE.fullmatch(text):
        return text
    if has_surrogate(text):
        return "!text " + _single_quoted(_ESCAPED.sub(_as_escape, text))
    if "\n" in text or "\t" in text or UNPRINTABLE.search(text):
        return _double_quoted(text)
    if "'" in text and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return _single_quoted(text)


def _single_quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _double_quoted(text: str) -> str:
    """A text in double quotes, with escapes that JSON and YAML share."""
    quoted = encode_basestring(text)
    if quoted.isascii() and "\x7f" not in quoted:
        return quoted
    return UNPRINTABLE.sub(_as_escape, quoted)


def _as_escape(character: re.Match[str]) -> str:
    return f"\\u{ord(character[0]):04x}"


def _float(value: float) -> str:
    if math.isfinite(value):
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    tag, text = tagged(value)
    return ".nan" if text == _NAN else f"!{tag} '{text}'"


def _tagged(value: Any) -> str:
    tag, text = tagged(value)
    return "!" + tag + " " + (text or "''")


_SCALARS: dict[type, Callable[[Any], str]] = {
    type(None): lambda _none: "null",
    bool: lambda value: "true" if value else "false",
    int: lambda value: str(value) if value.bit_length() <= LARGEST_INT_BITS else hex(value),
    float: _float,
    bytes: _tagged,
    list: lambda value: _tagged(value) if value else "[]",
    Lines: lambda _empty: "[]",
    dict: lambda _empty: "{}",
}


def _item_line(item: Any) -> str | None:
    """A text, or a mapping that JSON and `load` read the same, in one line; None for anything else."""
    if isinstance(item, str):
        return _one_line(item)
    try:
        return _json(item) if isinstance(item, dict) else None
    except ValueError:
        return None


def _json(value: Any) -> str:
    """Raises ValueError for what JSON and YAML would not read the same, or what has a better form than one line."""
    if type(value) not in _KINDS:
        value = as_base(value)
    kind = type(value)
    if kind is dict:
        return "{" + ", ".join([f"{_json_key(key)}: {_json(item)}" for key, item in value.items()]) + "}"
    if (kind is list or kind is Lines) and not is_vector(value):
        return "[" + ", ".join([_json(item) for item in value]) + "]"
    if kind is str and not has_surrogate(value):
        return _double_quoted(value)
    text = "!text" if kind is str else _SCALARS[kind](value)
    if text.startswith(_ONLY_YAML):
        raise ValueError
    return text


def _json_key(key: Any) -> str:
    text = _json(key) if isinstance(key, str) else None
    if text is None or len(text) > LONGEST_KEY:
        raise ValueError
    return text


def _faults(value: Any, path: str) -> Iterator[str]:
    """What cannot be written of a value, each with its path, such as ``response.choices[0].x``."""
    if isinstance(value, dict) or not path:
        for key, item in value.items():
            if key is None or isinstance(key, str | int | float):
                yield from _faults(item, f"{path}.{key}" if path else str(key))
            else:
                yield f"a key of {path or 'the document'} is not plain data: it is of type {type_name(key)}"
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _faults(item, f"{path}[{index}]")
    elif value is not None and not isinstance(value, str | int | float | bytes):
        yield f"{path} is not plain data: it is of type {type_name(value)}"
