"""The arguments of a call as plain data, and plain data as canonical text."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from os import PathLike
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from pytest_lmcache.errors import UnkeyableCallError, shorten
from pytest_lmcache.keys.ignored_arguments import is_ignored

_PLAIN_TYPES = frozenset({str, int, float, bool, type(None)})
_MAX_DEPTH = 200
_MAX_PATH = 120  # characters of a path in a message
# In these, None is the caller's own data and not a field without a value.
_CALLERS_DATA = frozenset({"arguments", "input"})
_FIRST_ARGUMENTS = ("model", "instructions", "system", "messages", "input", "prompt")
_FILES = frozenset({"file", "image", "mask"})  # these are uploaded
_FALSE_IS_DEFAULT = frozenset({"stream", "merge_reasoning_content_in_choices"})


class _NotPlainError(Exception):
    """A value that is not plain data. The containers around it add their part of the path."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem, advice)
        self.path = ""

    def message(self, subject: str) -> str:
        """What is wrong with ``subject``, and what to pass instead."""
        problem, advice = self.args
        return f"{subject} cannot be part of a key: {problem}.\n{advice}"


def request_of(
    parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """Return what a call asks as plain data, which shares nothing mutable with the caller's objects.

    ``parameters`` are the names of the function's positional parameters, ``name`` is the entry point, for
    messages. Ignored arguments are left out, and so is None. The order is fixed: the model, then what is asked,
    then the rest by name. Raises UnkeyableCallError.
    """
    given = dict(zip(parameters, args, strict=False))
    given.update((f"args[{index}]", args[index]) for index in range(len(parameters), len(args)))
    given.update(kwargs)
    counted = {
        key: value
        for key, value in given.items()
        if value is not None and not is_ignored(key) and not (value is False and key in _FALSE_IS_DEFAULT)
    }
    request: dict[str, Any] = {}
    key = ""
    try:
        for key in [
            *filter(counted.__contains__, _FIRST_ARGUMENTS),
            *sorted(counted.keys() - _FIRST_ARGUMENTS),
        ]:
            value = counted[key]
            if key in {"tools", "functions"} and isinstance(value, (list, tuple)):
                request[key] = _list(value, 1, leave_out=_is_function)
            elif key in _FILES:
                request[key] = _uploaded(value)
            else:
                request[key] = _plain(value, 1, skip_none=key in {"messages", "input"})
    except _NotPlainError as error:
        raise UnkeyableCallError(
            f"{name}(): " + error.message(f"the argument `{key}{shorten(error.path, _MAX_PATH)}`")
        ) from error
    _resolve_model(request)
    return request


def to_plain(value: Any) -> Any:
    """Return a value as plain data: dicts with str keys, lists, str, int, float, bool and None; nothing shared.

    Its own output stays as it is. Raises UnkeyableCallError.
    """
    try:
        return _plain(value, 1)
    except _NotPlainError as error:
        path = error.path.lstrip(".")
        raise UnkeyableCallError(
            error.message(f"`{shorten(path, _MAX_PATH)}`" if path else "the value")
        ) from error


def _resolve_model(request: dict[str, Any]) -> None:
    """Name the model as LiteLLM does, and drop a provider that the name implies: a Router adds it."""
    model = request.get("model")
    if not isinstance(model, str):
        return
    litellm = sys.modules.get("litellm")
    model = request["model"] = (getattr(litellm, "model_alias_map", None) or {}).get(model, model)
    provider = request.get("custom_llm_provider")
    if isinstance(provider, str):
        prices = getattr(litellm, "model_cost", None) or {}
        if model.startswith(f"{provider}/") or prices.get(model, {}).get("litellm_provider") == provider:
            del request["custom_llm_provider"]


def _plain(value: Any, depth: int, *, skip_none: bool = False) -> Any:  # noqa: C901, PLR0911, PLR0912
    """One value as plain data; ``skip_none`` leaves out fields that are None, as a dumped message has them."""
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return value
    if depth > _MAX_DEPTH:
        raise _NotPlainError(
            f"it is nested more than {_MAX_DEPTH} deep, or contains itself", "Pass data without cycles."
        )
    if kind is dict:
        return _dict(value, depth, skip_none=skip_none)
    if kind is list or kind is tuple:
        return _list(value, depth, skip_none=skip_none)
    if any(base.__module__ == "unittest.mock" for base in kind.__mro__):
        raise _NotPlainError("it is a mock, which has no content to compare", "Pass real data.")
    if isinstance(value, Enum):
        return _plain(value.value, depth + 1, skip_none=skip_none)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__pos__(value)
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, type):
        return {"name": value.__name__, "schema": _plain(_schema(value), depth + 1)}
    if isinstance(value, Mapping):
        return _dict(value, depth, skip_none=skip_none)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _digest(bytes(value))
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, PathLike):
        return _plain(value.__fspath__(), depth + 1)
    if hasattr(value, "read"):
        return _file_digest(value)
    if hasattr(value, "model_dump"):
        return _plain(_dump(value), depth + 1, skip_none=True)
    if dataclasses.is_dataclass(value) or hasattr(kind, "__attrs_attrs__"):
        fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else kind.__attrs_attrs__
        return _dict({field.name: getattr(value, field.name) for field in fields}, depth, skip_none=True)
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), depth + 1)
    if isinstance(value, AbstractSet):
        return sorted(_list(list(value), depth, skip_none=skip_none), key=canonical)
    what = f"it is {describe_type(kind)}"
    if isinstance(value, Iterator):
        raise _NotPlainError(f"{what}, which can be read only once", "Pass a list of its items.")
    if isinstance(value, Collection):
        return _list(list(value), depth, skip_none=skip_none)
    if callable(value):
        raise _NotPlainError(f"{what}, which has no content to compare", "Pass data, or a class.")
    raise _NotPlainError(
        f"{what}, which is not plain data",
        "Pass what the provider gets: dicts, lists, strings, numbers, pydantic objects or dataclasses.",
    )


def _dict(value: Mapping[Any, Any], depth: int, *, skip_none: bool) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    key: Any = None
    try:
        for key, item in value.items():
            if skip_none and item is None:
                continue
            name = key if type(key) is str else _name(key)
            if name in plain:
                raise _NotPlainError("two keys of this dict are the same in JSON", "Rename one of them.")  # noqa: TRY301
            plain[name] = (
                item
                if type(item) in _PLAIN_TYPES
                else _plain(item, depth + 1, skip_none=skip_none and key not in _CALLERS_DATA)
            )
    except _NotPlainError as error:
        error.path = f".{key}{error.path}" if type(key) is str else f"[{type(key).__name__}]{error.path}"
        raise
    return plain


def _list(
    value: Sequence[Any],
    depth: int,
    *,
    skip_none: bool = False,
    leave_out: Callable[[Any], bool] = lambda _: False,
) -> list[Any]:
    plain: list[Any] = []
    index = 0
    try:
        for index, item in enumerate(value):  # noqa: B007
            if type(item) in _PLAIN_TYPES:
                plain.append(item)
            elif not leave_out(item):
                plain.append(_plain(item, depth + 1, skip_none=skip_none))
    except _NotPlainError as error:
        error.path = f"[{index}]{error.path}"
        raise
    return plain


def _name(key: Any) -> str:
    """A dict's key as JSON writes it."""
    if isinstance(key, Enum):
        return _name(key.value)
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, (int, float)):
        return canonical(key).strip('"')
    raise _NotPlainError(
        f"this key is {describe_type(type(key))}, which JSON does not have", "Use strings as keys."
    )


def _is_function(tool: Any) -> bool:
    """Whether a tool is a function, which LiteLLM does not send."""
    return callable(tool) and not isinstance(tool, type) and not hasattr(tool, "model_dump")


def _dump(value: Any) -> Any:
    try:
        # Only pydantic 2 has this argument.
        return value.model_dump(
            **{"warnings": False} if hasattr(type(value), "__pydantic_serializer__") else {}
        )
    except Exception as error:
        raise _NotPlainError(
            f"it is {describe_type(type(value))} that cannot be dumped ({type(error).__name__})",
            "Pass a dict instead.",
        ) from error


def _schema(kind: Any) -> Any:
    """The JSON schema of a class that is given as ``response_format``."""
    try:
        if hasattr(kind, "model_json_schema"):
            return kind.model_json_schema()
        import pydantic  # which LiteLLM has imported

        return pydantic.TypeAdapter(kind).json_schema()
    except Exception as error:
        raise _NotPlainError(
            f"it is the class {kind.__qualname__}, which has no JSON schema ({type(error).__name__})",
            "Pass a pydantic class or a JSON schema.",
        ) from error


def _digest(data: bytes) -> str:
    return f"<bytes sha256:{hashlib.sha256(data).hexdigest()} {len(data)} bytes>"


def _file_digest(file: Any) -> str:
    """The digest of a whole file, as an upload sends it; the file's position is restored."""
    try:
        position = file.tell()
        file.seek(0)
        try:
            data = file.read()
        finally:
            file.seek(position)
    except (AttributeError, OSError, ValueError) as error:
        raise _NotPlainError(
            f"it is {describe_type(type(file))} that cannot be read twice ({error})",
            "Pass its content as bytes.",
        ) from error
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    if not isinstance(data, bytes):
        raise _NotPlainError(
            f"it is {describe_type(type(file))} that reads no bytes", "Pass its content as bytes."
        )
    return _digest(data)


# ---- files ---------------------------------------------------------------------------------------------

_TEMPORARY = re.compile(r"tmp[a-z0-9_]{8}")  # as `tempfile` names files, each time anew


def _uploaded(value: Any) -> Any:
    """A file that is uploaded, by its name and a digest of its content; a list of files, or another value.

    Bytes have no name. A tuple is what HTTP clients take: name, content, type.
    """
    if isinstance(value, list):
        return [*map(_uploaded, value)]
    if isinstance(value, tuple):
        return [_plain(part, 1) if isinstance(part, str) else _uploaded(part) for part in value]
    if isinstance(value, PathLike) and Path(value).is_file():
        return _named(Path(value).name, _digest(Path(value).read_bytes()))
    if hasattr(value, "read"):
        return _named(getattr(value, "name", None), _file_digest(value))
    return _plain(value, 1)


def _named(path: Any, content: str) -> Any:
    name = _TEMPORARY.sub("", PurePath(path).name) if isinstance(path, str) else ""
    return {"name": name, "content": content} if name else content


def describe_type(kind: type) -> str:
    """A value of a type, as messages call it."""
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"an object of type {module}{kind.__qualname__}"


# ---- canonical text ------------------------------------------------------------------------------------

# Not ASCII: escaped, two lone surrogates and the character that they would make are the same text.
_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False
).encode


def canonical(plain: Any) -> str:
    """Return plain data as text, the same for every order of keys, and different for different data.

    Integers that are longer than Python prints (4300 digits) are written in hexadecimal.
    """
    try:
        return _encode(plain)
    except ValueError:
        return _encode(_with_long_integers_as_text(plain))


def _with_long_integers_as_text(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _with_long_integers_as_text(item) for key, item in plain.items()}
    if isinstance(plain, list):
        return [_with_long_integers_as_text(item) for item in plain]
    try:
        str(plain)
    except ValueError:
        return f"<int {plain:#x}>"
    return plain
