"""LiteLLM's errors for the faults of a test, built as LiteLLM builds them for the provider of the call."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.libraries.litellm.exceptions import PLACEHOLDER_URL, error_to_plain
from pytest_lmcache.libraries.plain_data import LiveError
from pytest_lmcache.libraries.provider_errors import ERRORS, OTHER
from pytest_lmcache.staged_answers import Fail


class Asked(NamedTuple):
    """Who is asked: the entry point, the model as LiteLLM names it in this call's errors, and its provider."""

    entry: str
    model: str
    provider: str


def build(fault: Fail, asked: Asked) -> Exception:
    """The exception that the call raises. Raises SettingsError for a class of errors that cannot be built."""
    error = fault.error
    if isinstance(error, type):
        return _provider_error(error, fault, asked) if _is_litellm(error) else _plain_error(error, fault)
    return error.with_traceback(None)  # type: ignore[return-value]


def live(error: Exception) -> LiveError:
    """An exception with its plain data."""
    stored = error_to_plain(error, ["*"])
    kind = type(error)
    return LiveError(
        error, stored or {"class": f"{kind.__module__}.{kind.__qualname__}", "message": str(error)}
    )


def _is_litellm(kind: type[BaseException]) -> bool:
    return kind.__module__.startswith("litellm.")


def _plain_error(kind: type[BaseException], fault: Fail) -> Exception:
    """An exception of any other class, made of its message."""
    try:
        return kind() if fault.message is None else kind(fault.message)  # type: ignore[return-value]
    except TypeError as problem:
        raise cannot_build(kind, problem) from None


def cannot_build(kind: type[BaseException], problem: Exception) -> SettingsError:
    """The error for a class whose arguments only its user knows."""
    return SettingsError(
        f"lm_cache.fail({kind.__name__}): an exception of this class cannot be made without its own arguments "
        f"({problem}). Give an instance: lm_cache.fail({kind.__name__}(…))."
    )


def _provider_error(kind: type[BaseException], fault: Fail, asked: Asked) -> Exception:
    """An error of LiteLLM's, as LiteLLM makes it of the provider's response."""
    found = next((base.__name__ for base in kind.__mro__ if base.__name__ in ERRORS), "")
    wire = ERRORS.get(kind.__name__) or (ERRORS[found] if found else OTHER)
    message = fault.message or wire.message.format(model=asked.model.rpartition("/")[2])
    headers = wire.headers(fault.retry_after)
    received = _received(wire.body(asked.provider, message), wire.status, headers)
    with suppress(Exception):  # an older LiteLLM may know the provider's errors in another way
        mapped = _mapped(_original(received, message, asked), asked)
        if type(mapped) is kind:
            return mapped
    return _constructed(kind, message, received, asked)


def _received(body: Mapping[str, Any], status: int, headers: Mapping[str, str]) -> Any:
    """The HTTP response with the error, None if there was none."""
    import httpx

    if not status:
        return None
    request = httpx.Request("POST", PLACEHOLDER_URL)
    return httpx.Response(status, headers=headers, content=json.dumps(body), request=request)


def _original(received: Any, message: str, asked: Asked) -> Exception:
    """The exception that LiteLLM's code for the provider raises before LiteLLM maps it to a class of its own."""
    import httpx
    import litellm
    import openai
    from litellm.llms.openai.common_utils import OpenAIError
    from litellm.types.utils import LlmProviders

    if received is None:
        request: Any = httpx.Request("POST", PLACEHOLDER_URL)
        return (
            openai.APITimeoutError(request)
            if "timed out" in message
            else openai.APIConnectionError(message=message, request=request)
        )
    status, headers, text = received.status_code, dict(received.headers), received.text
    if asked.provider not in {"openai", "text-completion-openai"}:
        config = litellm.utils.ProviderConfigManager.get_provider_chat_config(
            model=asked.model, provider=LlmProviders(asked.provider)
        )
        error: Exception = config.get_error_class(error_message=text, status_code=status, headers=headers)
        return error
    body = json.loads(text)
    more = {"body": body["error"]} if asked.entry == "completion" else {}
    if asked.entry != "responses":
        text, more["response"] = f"Error code: {status} - {body}", received
    failed: Exception = OpenAIError(status_code=status, message=text, headers=headers, **more)
    return failed


def _mapped(original: Exception, asked: Asked) -> Exception:
    """The exception that LiteLLM makes of one of a provider's."""
    import litellm

    before, litellm.suppress_debug_info = litellm.suppress_debug_info, True  # or it prints an advertisement
    try:
        litellm.exception_type(
            model=asked.model, original_exception=original, custom_llm_provider=asked.provider
        )
    except Exception as mapped:  # noqa: BLE001 - that is how LiteLLM gives it
        if "litellm_debug_info" in vars(
            mapped
        ):  # addresses and prompts, which replayed errors do not have either
            vars(mapped)["litellm_debug_info"] = None
        return mapped.with_traceback(None)
    finally:
        litellm.suppress_debug_info = before
    return original


def _constructed(kind: type[BaseException], message: str, received: Any, asked: Asked) -> Exception:
    """An error of a class that LiteLLM does not raise for the provider, by the constructor of the class."""
    name = asked.provider.capitalize() if asked.provider != "openai" else "OpenAI"
    given = {
        "message": f"{name}Exception - {message}",
        "model": asked.model,
        "llm_provider": asked.provider,
        "status_code": getattr(received, "status_code", 500),
        "response": received,
    }
    taken = inspect.signature(kind).parameters
    try:
        error: Exception = kind(**{name: value for name, value in given.items() if name in taken})  # type: ignore[assignment]
    except TypeError as problem:
        raise cannot_build(kind, problem) from None
    if received is not None:
        vars(error)["litellm_response_headers"] = received.headers
    return error
