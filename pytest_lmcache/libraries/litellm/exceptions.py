"""Exceptions of LiteLLM and OpenAI <-> plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_lmcache.errors import CassetteError
from pytest_lmcache.libraries.litellm.headers import kept_headers, without_prefix
from pytest_lmcache.libraries.plain_data import LiveError, is_plain, to_plain

# Attributes that hold whole prompts, keys or connections; never stored.
UNSAFE = frozenset(
    {"litellm_debug_info", "response", "request", "original_exception", "litellm_response_headers", "headers"}
)
LASTING_STATUS = frozenset({400, 404, 413, 422})
PLACEHOLDER_URL = "https://recorded.invalid/"


def error_to_plain(error: BaseException, keep_headers: Sequence[str] = ()) -> dict[str, Any] | None:
    """Convert an exception of LiteLLM's or OpenAI's to plain data; None for one of any other library.

    ``keep_headers`` names the response headers to store, see `headers`.
    """
    name = _qualified_name(type(error))
    if name is None:
        return None
    fields: dict[str, Any] = {"class": name, "message": str(getattr(error, "message", None) or error)}
    for attribute, value in vars(error).items():
        is_ours = attribute in UNSAFE or attribute == "message" or attribute.startswith("_")
        if not is_ours and is_plain(value):
            fields[attribute] = to_plain(value)
    args = list(error.args)
    if args != [fields["message"]] and all(isinstance(item, str) for item in args):
        fields["args"] = args
    response = getattr(error, "response", None)
    if kept := kept_headers(getattr(error, "litellm_response_headers", None), keep_headers):
        fields["headers"] = without_prefix(kept)
    kept = kept_headers(getattr(response, "headers", None), keep_headers)
    if kept or (response is not None and not _has_response(type(error))):
        fields["response_headers"] = without_prefix(kept)
    if (body := _body(response)) is not None:
        fields["response_body"] = body
    original = getattr(error, "original_exception", None)
    if isinstance(original, BaseException) and (stored := error_to_plain(original, keep_headers)) is not None:
        fields["original"] = stored
    return fields


def error_from_plain(data: Mapping[str, Any]) -> Exception:
    """Build the exception of a stored error, with its class, message and attributes.

    Raises CassetteError if the installed libraries have no such class.
    """
    import httpx

    if isinstance(data, LiveError):
        return data.error
    fields = dict(data)
    name = fields.pop("class")
    kind = _find_class(name)
    if kind is None:
        raise unknown_exception(name)
    headers, response_headers = fields.pop("headers", None), fields.pop("response_headers", None)
    body = fields.pop("response_body", "")
    original, args = fields.pop("original", None), fields.pop("args", [fields["message"]])
    # The constructors of LiteLLM's classes differ, and each adds to the message.
    error: Exception = kind.__new__(kind)
    error.args = tuple(args)
    if kind.__module__ == "builtins":
        return error
    request = httpx.Request("POST", PLACEHOLDER_URL)
    vars(error).update(fields, request=request, litellm_debug_info=None)
    if response_headers is not None or _has_response(kind):
        vars(error)["response"] = httpx.Response(
            fields["status_code"],
            headers=response_headers,
            content=body if isinstance(body, str) else json.dumps(body),
            request=request,
        )
    if headers is not None:
        vars(error)["litellm_response_headers"] = httpx.Headers(headers)
    if original is not None:
        vars(error)["original_exception"] = error_from_plain(original)
    # A field that str() or repr() needs and that is missing fails here, not in the code that catches the error.
    _ = str(error), repr(error)
    return error


def is_lasting(error: BaseException) -> bool:
    """Whether the same request would fail again: the request is at fault, not the moment.

    True for a bad request, a context window, a content policy and an unsupported parameter (status 400), and for
    404, 413 and 422. False for a rate limit, a server error, a time-out, a lost connection and a refused key.
    """
    original = getattr(error, "original_exception", None)
    status = getattr(original if original is not None else error, "status_code", None)
    return status in LASTING_STATUS if status is not None else isinstance(error, ValueError | TypeError)


def _body(response: Any) -> Any:
    """The body of an error response: JSON as data, else text; None if it was not read or is empty."""
    try:
        text = response.text
    except Exception:  # noqa: BLE001 - there is no response, or it is a stream that nobody read
        return None
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text if isinstance(text, str) and text else None


def _has_response(kind: type[BaseException]) -> bool:
    """Whether every exception of a class has a response; LiteLLM adds one to some others."""
    import openai

    return issubclass(kind, openai.APIStatusError)


def _qualified_name(kind: type[BaseException]) -> str | None:
    if kind in {ValueError, TypeError}:
        return f"builtins.{kind.__name__}"
    for base in kind.__mro__:
        name = f"{base.__module__.partition('.')[0]}.{base.__name__}"
        if name.startswith(("litellm.", "openai.")) and _find_class(name) is base:
            return name
    return None


def unknown_exception(name: str) -> CassetteError:
    """Return the error for a recorded exception whose class is not installed."""
    return CassetteError(
        f"A recorded error is of class {name}, which the installed LiteLLM does not have.\n"
        "Record the test again: pytest --lm-rewrite, or install the LiteLLM that it was recorded with."
    )


def _find_class(qualified_name: str) -> type[Exception] | None:
    import builtins

    import litellm.exceptions
    import openai

    library, _, name = qualified_name.partition(".")
    module = {"litellm": litellm.exceptions, "openai": openai, "builtins": builtins}.get(library)
    kind = getattr(module, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None
