"""What makes two calls the same question: request -> key, by strategy and declared normalizers."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import cache
from os import PathLike
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from pytest_lmcache.errors import SettingsError, UnkeyableCallError
from pytest_lmcache.normalizers import Folders, normalized, rules_of
from pytest_lmcache.redact import HASHLESS, is_secret_name

if TYPE_CHECKING:
    from pytest_lmcache.interaction import Call


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ---- what is not the question --------------------------------------------------------------------------

DROPPED: frozenset[str] = _words(
    """
    api_base api_key api_type api_version base_url bucket_name client client_id
    organization provider_affinity_header region_name secret_fields tenant_id use_client use_xai_oauth
    default_headers extra_headers headers provider_specific_header
    http_client shared_session ssl_verify use_in_pass_through use_litellm_proxy rust self model_config

    completion_call_id id metadata proxy_server_request tags tag_regex user_api_key_dict
    callbacks logger_fn no-log turn_off_message_logging verbose log_client_error_tracebacks
    arize_space_id weave_project_id

    client_side_timeout force_timeout keepalive_seconds allow_client_keepalive_override request_timeout
    stream_timeout stream_timeout_by_service_tier timeout timeout_by_service_tier
    max_retries num_retries retry_policy retry_strategy
    attempted_targets context_window_fallback_dict fallback_depth fallbacks max_fallbacks

    allowed_model_region cooldown_time default_api_key_rpm_limit default_api_key_tpm_limit
    budget_duration max_budget max_parallel_requests itpm otpm rpm tpm order weight
    enable_tag_filtering fastest_response model_info model_list routing_strategy silent_model
    specific_deployment

    cache cache_key caching caching_groups preset_cache_key ttl enable_prompt_caching
    cache_control_injection_points
    base_model bedrock_tags data_residency output_vector_size tiered_pricing
    configurable_clientside_auth_params enable_json_schema_validation

    chatgpt_auth_file github_copilot_auth_type github_copilot_host github_copilot_user_session
    token_exchange_audience token_exchange_endpoint token_exchange_profile token_exchange_scope
    kubernetes_pod_discovery switchyard_router_config daily_reset_time rpd tpd fedramp_uplift_multiplier

    acompletion aembedding aimg_generation allm_passthrough_route arerank aresponses aspeech async_call
    atext_completion atranscription
    """
)
"""Arguments of LiteLLM's functions that are not the question: who pays, where to, how often, who is told.

Read off what reaches LiteLLM's functions, plain and through a Router, and ``all_litellm_params`` of 1.83
to 1.110. ``is_dropped`` adds the names that follow a pattern.
"""

_DROPPED_SHAPES = re.compile(
    r"_.*"
    r"|litellm_.*"
    r"|(?:arize|aws|azure|dd|gcs|langfuse|langsmith|newrelic|posthog|s3|signoz|valkey|vertex|watsonx)_.*"
    r"|anthropic_(?:disable_workload|federation|identity|issuer|keycloak|organization|service_account)_.*"
    r"|openai_(?:identity|service_account)_.*"
    r"|.*_(?:api_key|api_base|access_key|access_key_id|credentials|password|secret|secret_key)"
    r"|(?:.*_)?cost_per_.*|.*_token_cost(?:_.*)?|regional_.*_uplift_multiplier.*"
    r"|(?:adaptive|auto|complexity|quality)_router_.*"
    r"|.*_fallbacks|.*_callbacks?"
    r"|prompt_cache_.*"
)
_KEPT = frozenset({"litellm_system_prompt"})
_FALSE_IS_NOT_GIVEN = frozenset({"stream", "merge_reasoning_content_in_choices"})


@cache
def is_dropped(argument: str) -> bool:
    """Whether an argument of this name is left out of requests; ``mock_…`` never is, the door sees to it."""
    if argument in DROPPED:
        return True
    if argument in _KEPT or argument.startswith("mock_"):
        return False
    if _DROPPED_SHAPES.fullmatch(argument) is not None:
        return True
    # Not a word of the model's, such as stop_token.
    return argument.endswith("_token") and is_secret_name(argument)


# ---- plain data ----------------------------------------------------------------------------------------

_ATOMS = frozenset({str, int, float, bool, type(None)})
_MAX_DEPTH = 200
_MAX_PATH = 120
# Where a None is the caller's own data and not a field that was left empty.
_OPAQUE = frozenset({"arguments", "input"})
_FIRST = ("model", "instructions", "system", "messages", "input", "prompt")
_MESSAGE_LISTS = frozenset({"messages", "input"})
_TOOL_LISTS = frozenset({"tools", "functions"})


class _UnplainError(Exception):
    """A value that is no plain data; the containers around it put their part of the path in front."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice
        self.path = ""


def request_of(
    parameters: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """The question that a call asks, as plain data that shares nothing mutable with the caller's objects.

    ``parameters`` are the names of the function's positional parameters, ``name`` is the entry point, for
    messages. Arguments that are not the question are dropped, and None counts as not given. The order is
    fixed: model, then what is asked, then the rest by name. Raises UnkeyableCallError.
    """
    given = dict(zip(parameters, args, strict=False))
    given.update((f"args[{index}]", args[index]) for index in range(len(parameters), len(args)))
    given.update(kwargs)
    kept = {key: value for key, value in given.items() if value is not None and not is_dropped(key)}
    for key in _FALSE_IS_NOT_GIVEN:
        if kept.get(key) is False:
            del kept[key]
    request: dict[str, Any] = {}
    key = ""
    try:
        for key in [*filter(kept.__contains__, _FIRST), *sorted(kept.keys() - _FIRST)]:
            value = kept[key]
            if key in _TOOL_LISTS and isinstance(value, (list, tuple)):
                request[key] = _list(value, 1, leave_out=_is_function)
            else:
                request[key] = _plain(value, 1, prune=key in _MESSAGE_LISTS)
    except _UnplainError as error:
        raise UnkeyableCallError(
            f"{name}(): the argument `{key}{_cut(error.path)}` cannot be part of a key: {error.what}.\n{error.advice}"
        ) from error
    _settle_model(request)
    return request


def normalize(value: Any) -> Any:
    """A value as plain data: dicts with str keys, lists, str, int, float, bool, None; nothing shared.

    Does nothing to its own output. Raises UnkeyableCallError.
    """
    try:
        return _plain(value, 1)
    except _UnplainError as error:
        where = f"`{_cut(error.path.lstrip('.'))}`" if error.path else "the value"
        raise UnkeyableCallError(f"{where} cannot be part of a key: {error.what}.\n{error.advice}") from error


def _cut(path: str) -> str:
    return path if len(path) <= _MAX_PATH else f"{path[:_MAX_PATH]}…"


def _settle_model(request: dict[str, Any]) -> None:
    """Name the model as LiteLLM will, and drop a provider that the name already says (Router adds it)."""
    model = request.get("model")
    if not isinstance(model, str):
        return
    litellm = sys.modules.get("litellm")
    model = (getattr(litellm, "model_alias_map", None) or {}).get(model, model)
    request["model"] = model
    provider = request.get("custom_llm_provider")
    if isinstance(provider, str):
        prices = getattr(litellm, "model_cost", None) or {}
        if model.startswith(f"{provider}/") or prices.get(model, {}).get("litellm_provider") == provider:
            del request["custom_llm_provider"]


def _plain(value: Any, depth: int, *, prune: bool = False) -> Any:  # noqa: C901, PLR0911, PLR0912
    """One value as plain data; ``prune`` leaves out None fields, as a message's dump has them."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if depth > _MAX_DEPTH:
        raise _UnplainError(
            f"it is nested more than {_MAX_DEPTH} deep, or contains itself", "Pass data that ends."
        )
    if kind is dict:
        return _dict(value, depth, prune=prune)
    if kind is list or kind is tuple:
        return _list(value, depth, prune=prune)
    if any(base.__module__ == "unittest.mock" for base in kind.__mro__):
        raise _UnplainError("it is a mock, which has no content to compare", "Pass real data.")
    if isinstance(value, Enum):
        return _plain(value.value, depth + 1, prune=prune)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__pos__(value)
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, type):
        return _class(value, depth)
    if isinstance(value, Mapping):
        return _dict(value, depth, prune=prune)
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
        return _file(value)
    if hasattr(value, "model_dump"):
        return _plain(_dump(value), depth + 1, prune=True)
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _dict(fields, depth, prune=True)
    if hasattr(kind, "__attrs_attrs__"):
        fields = {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
        return _dict(fields, depth, prune=True)
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), depth + 1)
    if isinstance(value, AbstractSet):
        return sorted(_list(list(value), depth, prune=prune), key=canonical)
    if isinstance(value, Iterator):
        raise _UnplainError(
            f"it is {_a(kind)}, which can be read only once", "Make a list of it before the call."
        )
    if isinstance(value, Collection):
        return _list(list(value), depth, prune=prune)
    if callable(value):
        raise _UnplainError(f"it is {_a(kind)}, which has no content to compare", "Pass data, or a class.")
    raise _UnplainError(
        f"it is {_a(kind)}, which is no plain data",
        "Pass what the provider gets: dicts, lists, strings, numbers, pydantic objects or dataclasses.",
    )


def _dict(value: Mapping[Any, Any], depth: int, *, prune: bool) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    key: Any = None
    try:
        for key, item in value.items():
            if prune and item is None:
                continue
            name = key if type(key) is str else _name(key)
            if name in plain:
                raise _UnplainError("two keys of this dict are the same in JSON", "Rename one of them.")  # noqa: TRY301
            plain[name] = (
                item if type(item) in _ATOMS else _plain(item, depth + 1, prune=prune and key not in _OPAQUE)
            )
    except _UnplainError as error:
        error.path = f".{key}{error.path}" if type(key) is str else f"[{type(key).__name__}]{error.path}"
        raise
    return plain


def _list(
    value: Sequence[Any], depth: int, *, prune: bool = False, leave_out: Callable[[Any], bool] | None = None
) -> list[Any]:
    plain: list[Any] = []
    index = 0
    try:
        for index, item in enumerate(value):  # noqa: B007
            if leave_out is None or not leave_out(item):
                plain.append(item if type(item) in _ATOMS else _plain(item, depth + 1, prune=prune))
    except _UnplainError as error:
        error.path = f"[{index}]{error.path}"
        raise
    return plain


def _name(key: Any) -> str:
    """A dict's key as JSON would write it."""
    if isinstance(key, Enum):
        return _name(key.value)
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, (int, float)):
        return canonical(key).strip('"')
    raise _UnplainError(f"this key is {_a(type(key))}, which JSON does not have", "Use strings as keys.")


def _is_function(tool: Any) -> bool:
    """A function given as a tool, which LiteLLM does not send at all."""
    return callable(tool) and not isinstance(tool, type) and not hasattr(tool, "model_dump")


def _dump(value: Any) -> Any:
    try:
        if hasattr(type(value), "__pydantic_serializer__"):
            return value.model_dump(warnings=False)
        return value.model_dump()
    except Exception as error:
        raise _UnplainError(
            f"it is {_a(type(value))} that cannot be dumped ({type(error).__name__})", "Pass a dict instead."
        ) from error


def _class(kind: type, depth: int) -> dict[str, Any]:
    """A class given as ``response_format``: its name and its JSON schema."""
    return {"name": kind.__name__, "schema": _plain(_schema(kind), depth + 1)}


def _schema(kind: Any) -> Any:
    try:
        if hasattr(kind, "model_json_schema"):
            return kind.model_json_schema()
        import pydantic  # which LiteLLM has imported

        return pydantic.TypeAdapter(kind).json_schema()
    except Exception as error:
        raise _UnplainError(
            f"it is the class {kind.__qualname__}, which has no JSON schema ({type(error).__name__})",
            "Pass a pydantic class or a JSON schema.",
        ) from error


def _digest(data: bytes) -> str:
    return f"<bytes sha256:{hashlib.sha256(data).hexdigest()} {len(data)} bytes>"


def _file(file: Any) -> str:
    """A file's whole content, as an upload sends it; its position is put back."""
    try:
        position = file.tell()
        file.seek(0)
        try:
            data = file.read()
        finally:
            file.seek(position)
    except (AttributeError, OSError, ValueError) as error:
        raise _UnplainError(
            f"it is {_a(type(file))} that cannot be read twice ({error})", "Pass its content as bytes."
        ) from error
    if not isinstance(data, (bytes, str)):
        raise _UnplainError(f"it is {_a(type(file))} that reads no bytes", "Pass its content as bytes.")
    return _digest(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)


def _a(kind: type) -> str:
    where = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"an object of type {where}{kind.__qualname__}"


# ---- canonical text ------------------------------------------------------------------------------------

# Not ASCII: escaped, two lone surrogates and the character they would make are the same text.
_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False
).encode


def canonical(plain: Any) -> str:
    """Plain data as text: the same for every order of keys, and for nothing else.

    Integers longer than Python prints (4300 digits) are written in hexadecimal.
    """
    try:
        return _encode(plain)
    except ValueError:
        return _encode(_hexed(plain))


def _hexed(plain: Any) -> Any:
    if type(plain) is int:
        try:
            str(plain)
        except ValueError:
            return f"<int {plain:#x}>"
        return plain
    if isinstance(plain, dict):
        return {key: _hexed(item) for key, item in plain.items()}
    if isinstance(plain, list):
        return [_hexed(item) for item in plain]
    return plain


# ---- strategies ----------------------------------------------------------------------------------------


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
_NOT_SAID = _words(
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
        request = _plain(call.request, 1)
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
            f"{name}(): the key strategy {where} returned {_a(type(text))}; it must return a str."
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
        raise SettingsError(f"The key strategy {path!r} is {_a(type(found))}, not a function. {valid}")
    return found


def _where(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)
