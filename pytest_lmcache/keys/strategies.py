"""Key strategies: which calls are the same question, and the key that a cassette finds them by."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_lmcache.errors import SettingsError, UnkeyableCallError
from pytest_lmcache.keys.normalizers import Folders, masked, rules_of
from pytest_lmcache.keys.plain import canonical, describe_type, to_plain
from pytest_lmcache.redact import HASHLESS_PLACEHOLDER

if TYPE_CHECKING:
    from pytest_lmcache.interaction import Call

# ---- built-in strategies -------------------------------------------------------------------------------


def exact(request: Mapping[str, Any]) -> str:
    """Compare the whole request."""
    return _text(request)


def messages(request: Mapping[str, Any]) -> str:
    """Compare everything but the model."""
    return _text(_without_model(request))


def content(request: Mapping[str, Any]) -> str:
    """Compare only what the messages say, so that one recording serves several models and settings.

    These arguments count, in this order: ``instructions``, ``system``, ``messages``, ``input``, ``prompt``,
    ``query`` and ``documents``, with their images, audio and files. Roles, names, ids, tools, tool calls,
    thinking and all parameters are ignored. If a request has none of these arguments, all of it counts.
    """
    return _text(_content(request))


def _whole(request: Mapping[str, Any]) -> Any:
    return request


def _without_model(request: Mapping[str, Any]) -> Any:
    return {name: value for name, value in request.items() if name not in {"model", "custom_llm_provider"}}


_CONTENT_ARGUMENTS = "instructions system messages input prompt query documents file image mask".split()
_IGNORED_PARTS = (
    "tool_use server_tool_use mcp_tool_use tool_call function_call custom_tool_call computer_call "
    "file_search_call web_search_call code_interpreter_call mcp_call item_reference "
    "thinking redacted_thinking reasoning"
).split()


def _content(request: Mapping[str, Any]) -> Any:
    pieces = [piece for name in _CONTENT_ARGUMENTS if name in request for piece in _pieces(request[name])]
    return pieces or request


def _pieces(value: Any) -> Iterator[Any]:
    """The texts and files of a message, of a part of one, or of a list of these."""
    if isinstance(value, list):
        for item in value:
            yield from _pieces(item)
    elif not isinstance(value, dict):
        if value is not None:
            yield value
    elif value.get("type") in _IGNORED_PARTS:
        return
    elif isinstance(value.get("text"), str):
        yield value["text"]
    elif "content" in value:
        yield from _pieces(value["content"])
    elif "output" in value:  # a tool's result in the Responses API
        yield from _pieces(value["output"])
    elif value.keys().isdisjoint({"role", "tool_use_id", "call_id"}):
        yield value


def _text(question: Any) -> str:
    """The canonical text, the same whether or not the provider's prompt cache is used."""
    text = canonical(question)
    if '"cache_control":' in text or '"type":"text"' in text:
        return canonical(_without_caching(question))
    return text


def _without_caching(value: Any) -> Any:
    """Drop ``cache_control`` marks. A mark needs a text part to stand in, so a single text part becomes its text."""
    if isinstance(value, list):
        return [_without_caching(item) for item in value]
    if not isinstance(value, dict):
        return value
    bare = {key: _without_caching(item) for key, item in value.items() if not _is_cache_mark(key, item)}
    for key in ("content", "system"):
        match bare.get(key):
            case [{"type": "text", "text": text, **rest}] if not rest:
                bare[key] = text
    return bare


def _is_cache_mark(key: str, value: Any) -> bool:
    return key == "cache_control" and isinstance(value, dict) and value.get("type") == "ephemeral"


_BUILT_IN: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "exact": _whole,
    "messages": _without_model,
    "content": _content,
}
_VERSION = 1  # of the built-in strategies; a change that gives other keys needs a new one

# ---- keys ----------------------------------------------------------------------------------------------

MACHINE_SECRET = "h"  # noqa: S105 - not a secret
"""The first letter of a key whose question holds a secret of the machine that recorded it, instead of ``k``.

Recordings made before placeholders had hashes begin with ``k`` too, whatever secret they hold.
"""


class KeyStrategy(NamedTuple):
    """A way to tell calls apart.

    ``name`` is written to the header of a cassette; it names the version and the normalizers. ``scope`` is the
    name without normalizers. ``is_builtin`` says that a stored key may be trusted if the header has the same
    name; the body of a custom function may have changed. ``text`` gives the part of a call that counts; it
    raises UnkeyableCallError. ``with_normalizers`` gives the same strategy with more normalizers.
    """

    name: str
    scope: str
    is_builtin: bool
    text: Callable[[Call], str]
    with_normalizers: Callable[[Sequence[str]], KeyStrategy]

    def key(self, call: Call, text: str | None = None) -> str:
        """``k`` or ``h`` and 24 hexadecimal digits: always a plain YAML scalar.

        ``text`` is the result of ``self.text(call)``, if the caller has it. Raises UnkeyableCallError.
        """
        text = self.text(call) if text is None else text
        streamed = "stream" if call.request.get("stream") else ""
        identity = f"{self.scope}\0{call.name}\0{streamed}\0{text}"
        digest = hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=12)
        has_secret = "<redacted:" in text and HASHLESS_PLACEHOLDER.search(text) is not None
        return f"{MACHINE_SECRET if has_secret else 'k'}{digest.hexdigest()}"


def strategy(
    spec: str | Callable[[dict[str, Any]], str],
    normalizers: Sequence[str | re.Pattern[str]] = (),
    folders: Folders = Folders(),  # noqa: B008 - it cannot change
) -> KeyStrategy:
    """Return the strategy with this name, this dotted path (``package.module:function``), or this function.

    A function takes a request and returns a text; requests with equal texts are the same question.
    ``normalizers`` are names of ``NORMALIZERS``, or patterns, compiled or as ``re:<pattern>``: what they match is
    masked. Patterns act first, in the order given, then the named ones in a fixed order. Calls of recorded functions
    are always compared by all of their arguments. ``folders`` are those
    that ``tmp_path`` and ``rootdir`` mask. Raises SettingsError.
    """
    rules = rules_of(normalizers, folders)
    pick = _BUILT_IN.get(spec) if isinstance(spec, str) else None
    if pick is not None:
        scope = f"{spec}/{_VERSION}"

        def text(call: Call) -> str:
            picked = call.request if call.is_value else pick(call.request)
            return _text(masked(picked, rules, call.request))

    else:
        function: Any = _imported(spec) if isinstance(spec, str) else spec
        if not callable(function):
            raise SettingsError(f"{spec!r} is not a key strategy. {_VALID}")
        scope = f"own:{_qualified_name(function)}"

        def text(call: Call) -> str:
            if call.is_value:
                return _text(masked(call.request, rules, call.request))
            request = to_plain(call.request)  # a copy, so that the function cannot change what is stored
            return _call_key_function(function, masked(request, rules, request), call.name)

    return KeyStrategy(
        scope + "".join(f"+{rule.versioned_name}" for rule in rules),
        scope,
        is_builtin=pick is not None,
        text=text,
        with_normalizers=lambda more: strategy(spec, [*normalizers, *more], folders),
    )


# ---- custom key functions ------------------------------------------------------------------------------

_VALID = f"Use {', '.join(_BUILT_IN)}, a function request -> str, or its dotted path, such as package.module:function."
_is_making_key: ContextVar[bool] = ContextVar("pytest_lmcache_is_making_key", default=False)


def _call_key_function(function: Callable[[dict[str, Any]], str], request: dict[str, Any], name: str) -> str:
    function_name = f"{name}(): the key function {_qualified_name(function)}"
    if _is_making_key.get():
        raise UnkeyableCallError(f"{function_name} calls a model. A key may depend on the request only.")
    token = _is_making_key.set(True)
    try:
        text: Any = function(request)
    except UnkeyableCallError:
        raise
    except Exception as error:
        raise UnkeyableCallError(f"{function_name} raised {type(error).__name__}: {error}") from error
    finally:
        _is_making_key.reset(token)
    if not isinstance(text, str):
        raise UnkeyableCallError(
            f"{function_name} returned {describe_type(type(text))}; it must return a str."
        )
    return text


def _imported(path: str) -> Any:
    """The function that a dotted path names. Raises SettingsError."""
    module, separator, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not (module and separator and name):
        raise SettingsError(f"There is no key strategy {path!r}. {_VALID}")
    try:
        found = attrgetter(name)(import_module(module))
    except Exception as error:
        raise SettingsError(
            f"The key strategy {path!r} cannot be imported: {type(error).__name__}: {error}. {_VALID}"
        ) from error
    if not callable(found):
        raise SettingsError(
            f"The key strategy {path!r} is {describe_type(type(found))}, not a function. {_VALID}"
        )
    return found


def _qualified_name(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
