"""The arguments of a call as plain data, without those that are not the question, and its canonical text."""

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
from functools import cache
from os import PathLike
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pytest_lmcache.errors import UnkeyableCallError
from pytest_lmcache.redact import is_secret_name


def words(text: str) -> frozenset[str]:
    """The words of a text, each once."""
    return frozenset(text.split())


# ---- what is not the question --------------------------------------------------------------------------

DROPPED: frozenset[str] = words(
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
            f"it is {an_object_of(kind)}, which can be read only once", "Make a list of it before the call."
        )
    if isinstance(value, Collection):
        return _list(list(value), depth, prune=prune)
    if callable(value):
        raise _UnplainError(
            f"it is {an_object_of(kind)}, which has no content to compare", "Pass data, or a class."
        )
    raise _UnplainError(
        f"it is {an_object_of(kind)}, which is no plain data",
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
    raise _UnplainError(
        f"this key is {an_object_of(type(key))}, which JSON does not have", "Use strings as keys."
    )


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
            f"it is {an_object_of(type(value))} that cannot be dumped ({type(error).__name__})",
            "Pass a dict instead.",
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
            f"it is {an_object_of(type(file))} that cannot be read twice ({error})",
            "Pass its content as bytes.",
        ) from error
    if not isinstance(data, (bytes, str)):
        raise _UnplainError(
            f"it is {an_object_of(type(file))} that reads no bytes", "Pass its content as bytes."
        )
    return _digest(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)


def an_object_of(kind: type) -> str:
    """A value of a type, as an error calls it."""
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
