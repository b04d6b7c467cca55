"""Why a call is not recorded, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from socket import gaierror
from typing import NamedTuple


class Reason(StrEnum):
    """Why a call was not recorded."""

    CREDENTIALS = "credentials"
    CONNECTION = "connection"
    PROVIDER_ERROR = "provider error"
    OTHER_ERROR = "other error"
    NO_ANSWER = "no answer"
    UNSUPPORTED = "unsupported"
    LATE = "late"


class NotRecorded(NamedTuple):
    """A call that is not recorded: the reason, and what happened in words."""

    reason: Reason
    what: str


HEADINGS = {
    Reason.CREDENTIALS: "not recorded, a provider's key is missing or was refused; "
    "set it (such as OPENAI_API_KEY) and record again",
    Reason.CONNECTION: "not recorded, no provider could be reached; "
    "check the network, the proxy and the address (api_base), and record again",
    Reason.PROVIDER_ERROR: "not recorded, may miss on replay (lm_record_errors = all keeps a provider's errors)",
    Reason.OTHER_ERROR: "not recorded, failed before a provider answered; see the error",
    Reason.UNSUPPORTED: "not recorded, because pytest-lmcache does not record these functions; "
    "replace them in the test, or leave the test unmarked",
    Reason.LATE: "not recorded, called after the test had ended; join its threads and await its tasks, "
    "or start them in a fixture of scope module or session",
    Reason.NO_ANSWER: "not recorded, ended without an answer that can be replayed; the call will miss on replay",
}
REMEDIES = {
    Reason.CREDENTIALS: "the provider's key is missing or was refused. Set it (such as OPENAI_API_KEY)",
    Reason.CONNECTION: "the provider could not be reached. Check the network, the proxy and the address (api_base)",
}
CREDENTIALS_CLASS = re.compile("Authentication|Credential|PermissionDenied|AuthError")
CREDENTIALS_TEXT = re.compile(r"\b(?:missing|no)\b.{0,40}\b(?:credentials|api[ _]key)\b", re.IGNORECASE)
CONNECTION_CLASS = re.compile("Connect(?:ion)?(?:Error|Timeout|RefusedError)|ClientConnector")
# LiteLLM raises its own APIConnectionError for every error that it does not know.
VAGUE = "litellm.exceptions"


def advice(error: BaseException, calls: Sequence[NotRecorded], command: str) -> str | None:
    """Return a line for a test that failed while it recorded, None if neither a key nor a connection is at fault."""
    reason = reason_of(error, of_provider=True)
    failed = next((call.what for call in reversed(calls) if call.reason is reason), None)
    if failed is None or reason not in REMEDIES:
        return None
    return f"{failed}: {REMEDIES[reason]}, then record it:  {command}"


def reason_of(error: BaseException, *, of_provider: bool) -> Reason:
    """Return why a call that ended with an error is not recorded; ``of_provider``: it is an error of the provider."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if CREDENTIALS_CLASS.search(type(cause).__name__) or CREDENTIALS_TEXT.search(str(cause)):
            return Reason.CREDENTIALS
        if isinstance(cause, gaierror) or (
            CONNECTION_CLASS.match(type(cause).__name__) and type(cause).__module__ != VAGUE
        ):
            return Reason.CONNECTION
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return Reason.PROVIDER_ERROR if of_provider else Reason.OTHER_ERROR


def past_calls(by_test: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """The calls of packages other than LiteLLM and DSPy, by package and test."""
    found: dict[str, dict[str, int]] = {}
    for test, packages in by_test.items():
        for package, number in packages.items():
            found.setdefault(package, {})[test] = number
    return dict(sorted(found.items()))
