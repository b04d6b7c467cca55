"""What makes two calls the same question: request -> key, by strategy and declared normalizers."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_lmcache.errors import SettingsError, UnkeyableCallError
from pytest_lmcache.keys.normalizers import Folders, normalized, rules_of
from pytest_lmcache.keys.plain import an_object_of, canonical, normalize, words
from pytest_lmcache.redact import HASHLESS

if TYPE_CHECKING:
    from pytest_lmcache.interaction import Call


def exact(request: Mapping[str, Any]) -> str:
    """Everything that was asked."""
    return _text(_all_of(request))


def messages(request: Mapping[str, Any]) -> str:
    """Everything but the model."""
    return _text(_but_the_model(request))


def content(request: Mapping[str, Any]) -> str:
    """Only what the messages say, so that one recording serves several models and settings.

    The texts of ``instructions``, ``system``, ``messages``, ``input``, ``prompt``, ``query`` and
    ``documents``, in this order and in their own. Images, audio and files count, in a message as they were
    given. Roles, names, ids, tools, tool calls, thinking and every parameter do not. A call that says nothing
    in any of these is told apart by everything.
    """
    return _text(_contents(request))


def _all_of(request: Mapping[str, Any]) -> Any:
    return request


def _but_the_model(request: Mapping[str, Any]) -> Any:
    return {key: value for key, value in request.items() if key not in {"model", "custom_llm_provider"}}


_CONTENT = (
    *("instructions", "system", "messages", "input", "prompt", "query", "documents"),
    *("file", "image", "mask"),
)
_NOT_SAID = words(
    """
    tool_use server_tool_use mcp_tool_use tool_call function_call custom_tool_call computer_call file_search_call
    web_search_call code_interpreter_call mcp_call item_reference
    thinking redacted_thinking reasoning
    """
)


def _contents(request: Mapping[str, Any]) -> Any:
    return [piece for key in _CONTENT if key in request for piece in _said(request[key])] or request


def _said(value: Any) -> Iterator[Any]:
    """The pieces of a message, a part of it, or a list of such."""
    if isinstance(value, list):
        for item in value:
            yield from _said(item)
    elif not isinstance(value, dict):
        if value is not None:
            yield value
    elif _type(value) in _NOT_SAID:
        return
    elif isinstance(value.get("text"), str):
        yield value["text"]
    elif "content" in value:
        yield from _said(value["content"])
    elif "output" in value:  # a tool's result in the Responses API
        yield from _said(value["output"])
    elif value.keys().isdisjoint({"role", "tool_use_id", "call_id"}):
        yield value


def _type(part: Mapping[str, Any]) -> str:
    """What a part of a message says it is; a JSON schema may have a list there."""
    kind = part.get("type")
    return kind if isinstance(kind, str) else ""


def _text(question: Any) -> str:
    """The canonical text, blind to a provider's prompt cache being switched on."""
    text = canonical(question)
    if '"cache_control":' in text or '"type":"text"' in text:
        return canonical(_without_caching(question))
    return text


def _without_caching(value: Any) -> Any:
    """Without ``cache_control`` marks; a sole text part is the text, since a mark needs a part to stand in."""
    if isinstance(value, list):
        return [_without_caching(item) for item in value]
    if not isinstance(value, dict):
        return value
    bare = {key: _without_caching(item) for key, item in value.items() if not _is_mark(key, item)}
    for key in ("content", "system"):
        parts = bare.get(key)
        if isinstance(parts, list) and len(parts) == 1 and _is_text(parts[0]):
            bare[key] = parts[0]["text"]
    return bare


def _is_mark(key: str, value: Any) -> bool:
    return key == "cache_control" and isinstance(value, dict) and value.get("type") == "ephemeral"


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text"


class KeyStrategy(NamedTuple):
    """One way to tell calls apart.

    ``name`` is what a cassette's header says. ``stable`` is True where a key stored under the same name may
    be trusted; it is False for own functions, whose body may have changed since. ``also`` gives the same strategy
    with more normalizers.
    """

    name: str
    stable: bool
    family: str
    text_of: Callable[[Call], str]
    also: Callable[[Sequence[str]], KeyStrategy]

    def text(self, call: Call) -> str:
        """What of a call makes it the same as another. Raises UnkeyableCallError."""
        return self.text_of(call)

    def key(self, call: Call, text: str | None = None) -> str:
        """``k`` and 24 hex digits, always a plain YAML scalar; ``text`` is the call's, where it is known.

        ``OWN_SECRETS`` takes the place of the ``k`` if the text has a placeholder without a hash.
        Raises UnkeyableCallError.
        """
        streamed = "stream" if call.request.get("stream") else ""
        text = self.text_of(call) if text is None else text
        identity = f"{self.family}\0{call.name}\0{streamed}\0{text}"
        digest = hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=12)
        has_own = "<redacted:" in text and HASHLESS.search(text) is not None
        return f"{OWN_SECRETS if has_own else 'k'}{digest.hexdigest()}"


OWN_SECRETS = "h"
"""How the key of a question begins that held a secret of the machine which recorded it.

With ``k`` it was recorded before placeholders had hashes, and any secret may have stood there.
"""


_STRATEGIES: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "exact": _all_of,
    "messages": _but_the_model,
    "content": _contents,
}
_VERSION = 1


def strategy(
    spec: str | Callable[[dict[str, Any]], str],
    normalizers: Sequence[str | re.Pattern[str]] = (),
    folders: Folders = Folders(),  # noqa: B008 - it cannot change
) -> KeyStrategy:
    """The strategy of a name, a dotted path (``package.module:function``) or a function ``request -> str``.

    ``normalizers`` are names of ``NORMALIZERS`` or own regular expressions, compiled or as ``re:<pattern>``;
    what they match counts as the same everywhere but for which matches equal each other. Own ones act first,
    in the order given; then the named ones, in a fixed order. ``folders`` are those that two of them look for.
    Raises SettingsError.
    """
    rules = rules_of(normalizers, folders)
    suffix = "".join(f"+{rule.versioned}" for rule in rules)

    def also(more: Sequence[str]) -> KeyStrategy:
        return strategy(spec, [*normalizers, *more], folders)

    if isinstance(spec, str) and spec in _STRATEGIES:
        pick = _STRATEGIES[spec]
        family = f"{spec}/{_VERSION}"

        def text_of(call: Call) -> str:
            question = pick(call.request)
            return _text(normalized(question, rules, call.request))

        return KeyStrategy(family + suffix, stable=True, family=family, text_of=text_of, also=also)

    function = _imported(spec) if isinstance(spec, str) else spec
    if not callable(function):
        raise SettingsError(
            f"{spec!r} is no key strategy: give {_names(_STRATEGIES)}, or a function request -> str."
        )
    family = f"own:{_where(function)}"

    def own_text_of(call: Call) -> str:
        # A copy, so that the function cannot change what is stored.
        request = normalize(call.request)
        return _answer_of(function, normalized(request, rules, request), call.name)

    return KeyStrategy(family + suffix, stable=False, family=family, text_of=own_text_of, also=also)


_keying: ContextVar[bool] = ContextVar("pytest_lmcache_keying", default=False)


def _answer_of(function: Callable[[dict[str, Any]], str], request: dict[str, Any], name: str) -> str:
    where = _where(function)
    if _keying.get():
        raise UnkeyableCallError(
            f"{name}(): the key strategy {where} calls a model itself; a key is made of the request alone."
        )
    token = _keying.set(True)
    try:
        text: Any = function(request)
    except UnkeyableCallError:
        raise
    except Exception as error:
        raise UnkeyableCallError(
            f"{name}(): the key strategy {where} raised {type(error).__name__}: {error}"
        ) from error
    finally:
        _keying.reset(token)
    if not isinstance(text, str):
        raise UnkeyableCallError(
            f"{name}(): the key strategy {where} returned {an_object_of(type(text))}; it must return a str."
        )
    return text


def _imported(path: str) -> Any:
    """The function that a dotted path names."""
    module_name, colon, function_name = path.partition(":")
    if not colon:
        module_name, _, function_name = path.rpartition(".")
    valid = f"Valid are {_names(_STRATEGIES)}, or a function's dotted path such as package.module:function."
    if not module_name or not function_name:
        raise SettingsError(f"There is no key strategy {path!r}. {valid}")
    try:
        found: Any = importlib.import_module(module_name)
        for part in function_name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise SettingsError(
            f"The key strategy {path!r} cannot be imported: {type(error).__name__}: {error}. {valid}"
        ) from error
    if not callable(found):
        raise SettingsError(
            f"The key strategy {path!r} is {an_object_of(type(found))}, not a function. {valid}"
        )
    return found


def _where(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)
