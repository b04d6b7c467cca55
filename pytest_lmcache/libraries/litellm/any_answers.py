"""Whatever an entry point of LiteLLM's may return <-> plain data: models, binary content, lists, dicts and texts."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from pytest_lmcache.errors import UnrecordableError
from pytest_lmcache.interaction import copied
from pytest_lmcache.libraries.litellm import compat
from pytest_lmcache.libraries.litellm.answers import class_named
from pytest_lmcache.libraries.litellm.chunks import ChunkCodec, bytes_from_plain, bytes_to_plain

OF_CLASS = "of_class"
"""The field of stored data that names a class, as ``module:name``, or one of the kinds below."""
VALUE, DICT, TUPLE = "value", "dict", "tuple"
WHOLE = "="
"""Before the name of a class: the object has these fields and no others, whatever its class would make of them."""
# The packages whose classes are built by name. A cassette is a file that anybody can write: it names no other code.
_PATH = r"(?:litellm|openai|google\.genai\.types)(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
OF_LITELLM = re.compile(rf"({_PATH})(?:\[({_PATH})\])?")
_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})


class _UnknownError(Exception):
    """A value that has no plain form. The containers around it add their part of the path."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.path = ""


@dataclass(frozen=True, slots=True)
class AnyAnswerCodec:
    """The answers of an entry point <-> plain data, whatever their class.

    ``usual`` is the path of the class that they have as a rule, ``module:name``: its name is not stored.
    """

    usual: str = ""

    def to_plain(self, answer: Any) -> dict[str, Any]:
        """Convert an answer to a mapping. Raises UnrecordableError if it would not come back equal."""
        try:
            for encode in (_dumped, _mended, _encoded):
                stored = self._stored(answer, encode)
                if _comes_back(self, stored, answer):
                    return stored
        except _UnknownError as problem:
            where = f"`{problem.path.lstrip('.')}` of it" if problem.path else "it"
            raise UnrecordableError(f"{where} is {problem}, which has no form in a cassette") from None
        raise UnrecordableError(f"its class {_path_of(type(answer))} does not build an equal one of its data")

    def from_plain(self, data: dict[str, Any]) -> Any:
        """Build an answer of its stored data. Raises ValueError for data that name a class of another package."""
        if OF_CLASS not in data and self.usual:
            data = {OF_CLASS: self.usual, **data}
        return _decoded(data)

    def _stored(self, answer: Any, encode: Callable[[Any], Any]) -> dict[str, Any]:
        stored = encode(answer)
        if type(stored) is not dict:
            return {OF_CLASS: VALUE, VALUE: stored}
        if OF_CLASS not in stored:
            return {OF_CLASS: DICT, VALUE: stored} if self.usual else stored
        if stored[OF_CLASS] == self.usual:
            del stored[OF_CLASS]
        return stored


class AnyChunkCodec(ChunkCodec):
    """The chunks of any stream <-> plain data."""

    __slots__ = ()

    def to_plain(self, chunk: Any) -> dict[str, Any]:
        """Convert a chunk. Raises UnrecordableError if it would not come back equal."""
        return _chunk_to_plain(chunk)


def _chunk_to_plain(chunk: Any) -> dict[str, Any]:
    if isinstance(chunk, bytes | bytearray):
        return bytes_to_plain(chunk)
    if isinstance(chunk, str):
        return {"text": chunk}
    if type(chunk) is dict and _is_plain(chunk):
        return {"event": copied(chunk)}
    stored = AnyAnswerCodec().to_plain(chunk)
    return stored if OF_CLASS in stored else {OF_CLASS: DICT, VALUE: stored}


def chunk_from_plain(data: dict[str, Any]) -> Any:
    """Build a chunk of any stream of its stored data. Raises ValueError as `AnyAnswerCodec.from_plain` does."""
    return _decoded(data) if OF_CLASS in data else bytes_from_plain(data)


def _is_plain(value: Any) -> bool:
    if type(value) is dict:
        return all(type(name) is str and _is_plain(item) for name, item in value.items())
    return all(map(_is_plain, value)) if type(value) is list else type(value) in _ATOMS


def _comes_back(codec: AnyAnswerCodec, stored: dict[str, Any], answer: Any) -> bool:
    try:
        return _same(codec.from_plain(copied(stored)), answer)
    except Exception:  # noqa: BLE001 - a library's class may raise anything for data that are not its own
        return False


# ---- to plain data -------------------------------------------------------------------------------------


def _dumped(value: Any) -> Any:
    """A value whose models are dumped whole: their own class builds what is within them."""
    return _plain(value, lambda model: _named(model, _checked(_set_fields(model))))


def _mended(value: Any) -> Any:
    """A dumped model, in which the fields that its class would build differently have the names of their classes."""
    stored = _dumped(value)
    if type(stored) is dict and not str(stored.get(OF_CLASS, WHOLE)).startswith(WHOLE):
        try:
            built = _decoded(copied(stored))
        except Exception:  # noqa: BLE001 - a library's class may raise anything for data that are not its own
            return stored
        for name, item in _own_fields(value).items():
            if not _same(getattr(built, name, None), item):
                encoded = _encoded(item)
                is_named = type(encoded) is dict and OF_CLASS in encoded
                stored[name] = encoded if is_named else {OF_CLASS: VALUE, VALUE: encoded}
    return stored


def _encoded(value: Any) -> Any:
    """A value in which every model has the name of its class."""
    return _plain(value, lambda model: _named(model, _items(_own_fields(model), _encoded), is_whole=True))


def _set_fields(model: Any) -> dict[str, Any]:
    data: dict[str, Any] = model.model_dump(exclude_unset=True, warnings=False)
    return data


def _own_fields(model: Any) -> dict[str, Any]:
    """The fields as they are, those included that no class declares; not the id of the request."""
    given = {**vars(model), **(getattr(model, "__pydantic_extra__", None) or {})}
    return {name: value for name, value in given.items() if not name.startswith("_")}


def _named(model: Any, data: dict[str, Any], *, is_whole: bool = False) -> dict[str, Any]:
    path = _path_of(type(model))
    if OF_CLASS in data or not _is_ours(path):
        raise _UnknownError(f"an object of {path}")
    return {OF_CLASS: WHOLE + path if is_whole else path, **data}


def _plain(value: Any, of_model: Callable[[Any], dict[str, Any]]) -> Any:
    def again(item: Any) -> Any:
        return _plain(item, of_model)

    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is dict:
        if OF_CLASS not in value and all(type(name) is str for name in value):
            return _items(value, again)
        return {OF_CLASS: DICT, "items": [[again(name), again(item)] for name, item in value.items()]}
    if kind is list:
        return _listed(value, again)
    if kind is tuple:
        return {OF_CLASS: TUPLE, VALUE: _listed(value, again)}
    return of_model(value) if hasattr(kind, "model_fields") else _object(value, again)


def _object(value: Any, convert: Callable[[Any], Any]) -> dict[str, Any]:
    """An object of LiteLLM's that is no model."""
    path = _path_of(type(value))
    if not _is_ours(path):
        raise _UnknownError(f"an object of {path}")
    if isinstance(value, Enum):
        return {OF_CLASS: path, VALUE: convert(value.value)}
    if _is_binary(type(value)):
        return {OF_CLASS: path, **_binary_to_plain(value)}
    if not is_dataclass(value):
        raise _UnknownError(f"an object of {path}")
    data = {field.name: getattr(value, field.name) for field in fields(value)}
    return {OF_CLASS: path, **_items(data, convert)}


def _checked(value: Any) -> Any:
    """Dumped data, whose enumerations become their values."""
    if isinstance(value, Enum):
        return _checked(value.value)
    if type(value) is dict:
        return _items(value, _checked)
    if type(value) is list or type(value) is tuple:
        return _listed(value, _checked)
    if type(value) in _ATOMS:
        return value
    return _plain(value, lambda model: _checked(_set_fields(model)))


def _items(data: Mapping[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    converted = {}
    for name, item in data.items():
        with _within(f".{name}"):
            converted[name] = convert(item)
    return converted


def _listed(items: Sequence[Any], convert: Callable[[Any], Any]) -> list[Any]:
    converted = []
    for index, item in enumerate(items):
        with _within(f"[{index}]"):
            converted.append(convert(item))
    return converted


@contextmanager
def _within(step: str) -> Iterator[None]:
    try:
        yield
    except _UnknownError as problem:
        problem.path = step + problem.path
        raise


# ---- from plain data -----------------------------------------------------------------------------------


def _decoded(data: Any) -> Any:
    if type(data) is list:
        return [*map(_decoded, data)]
    if type(data) is not dict:
        return data
    if OF_CLASS not in data:
        return {name: _decoded(item) for name, item in data.items()}
    kind = data.pop(OF_CLASS)
    if kind in {VALUE, DICT, TUPLE}:
        if kind == DICT and "items" in data:
            return {_decoded(name): _decoded(item) for name, item in data["items"]}
        value = _decoded(data[VALUE])
        return tuple(value) if kind == TUPLE else value
    is_whole = isinstance(kind, str) and kind.startswith(WHOLE)
    return _built(_class_at(kind.removeprefix(WHOLE) if is_whole else kind), data, is_whole=is_whole)


def _built(kind: Any, data: dict[str, Any], *, is_whole: bool) -> Any:
    if _is_binary(kind):
        return _binary_from_plain(kind, data)
    if issubclass(kind, Enum):
        return kind(_decoded(data[VALUE]))
    if not hasattr(kind, "model_fields"):
        return kind(**{name: _decoded(item) for name, item in data.items()})
    named = data if is_whole else {name: item for name, item in data.items() if _is_named(item)}
    model = None if is_whole else kind(**{name: item for name, item in data.items() if name not in named})
    return _with_fields(kind, model, {name: _decoded(item) for name, item in named.items()})


def _is_named(value: Any) -> bool:
    return type(value) is dict and OF_CLASS in value


def _with_fields(kind: Any, model: Any, values: dict[str, Any]) -> Any:
    """A model with these fields, without what its class does when it is built or changed."""
    if model is None:
        # OpenAI's classes have another `model_construct`, which converts the fields.
        model = sys.modules["pydantic"].BaseModel.model_construct.__func__(kind)
        vars(model).clear()
    for name, value in values.items():
        is_declared = name in kind.model_fields or model.__pydantic_extra__ is None
        (vars(model) if is_declared else model.__pydantic_extra__)[name] = value
    model.__pydantic_fields_set__.update(values)
    return model


def _class_at(path: Any) -> Any:
    found = OF_LITELLM.fullmatch(path) if isinstance(path, str) else None
    if found is None:
        raise ValueError(f"`{OF_CLASS}: {path}` names no class of LiteLLM's or OpenAI's")
    kind = class_named(found[1])
    kind = kind if found[2] is None else kind[_class_at(found[2])]
    if not isinstance(kind, type) or _path_of(kind) != path or not _is_data(kind):
        raise ValueError(f"`{OF_CLASS}: {path}` names no class of answers")
    return kind


def _is_data(kind: Any) -> bool:
    return hasattr(kind, "model_fields") or issubclass(kind, Enum) or _is_binary(kind) or is_dataclass(kind)


def _path_of(kind: type) -> str:
    generic = getattr(kind, "__pydantic_generic_metadata__", {})
    if generic.get("origin") is not None:  # a page of one class of items
        return f"{_path_of(generic['origin'])}[{','.join(map(_path_of, generic['args']))}]"
    return f"{kind.__module__}:{kind.__qualname__}"


def _is_ours(path: str) -> bool:
    return OF_LITELLM.fullmatch(path) is not None


# ---- binary content: speech, the contents of files -----------------------------------------------------


def _is_binary(kind: type) -> bool:
    return any(base.__name__ == "HttpxBinaryResponseContent" for base in kind.__mro__)


def _binary_to_plain(answer: Any) -> dict[str, Any]:
    media = answer.response.headers.get("content-type")
    return {**({} if media is None else {"content_type": media}), "content": answer.read()}


def _binary_from_plain(kind: Any, data: Mapping[str, Any]) -> Any:
    headers = {"content-type": data["content_type"]} if "content_type" in data else {}
    return kind(compat.http_response(data["content"], headers))


# ---- comparison ----------------------------------------------------------------------------------------


def _same(one: Any, other: Any) -> bool:  # noqa: PLR0911 - one for each kind
    """Whether two values are equal in all that their user sees, the types of all parts included."""
    if type(one) is not type(other) and _path_of(type(one)) != _path_of(type(other)):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(item, other[name]) for name, item in one.items())
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if hasattr(type(one), "model_fields"):
        return _same(_own_fields(one), _own_fields(other))
    if _is_binary(type(one)):
        return _binary_to_plain(one) == _binary_to_plain(other)
    return bool(one == other)
