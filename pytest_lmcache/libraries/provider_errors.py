"""How providers word the errors that a test can set up: status, names and message, by LiteLLM's class of the error."""

from __future__ import annotations

from typing import Any, NamedTuple

REQUEST_ID = "req_fault"


class ProviderError(NamedTuple):
    """An error as providers send it. ``status`` 0: nothing was received."""

    status: int
    message: str
    openai_type: str = "invalid_request_error"
    code: str | None = None
    anthropic_type: str = "invalid_request_error"
    google_status: str = "INVALID_ARGUMENT"

    def body(self, provider: str, message: str) -> dict[str, Any]:
        """The body of the HTTP response; an error of OpenAI's if the provider has no form of its own here."""
        if provider == "anthropic":
            error = {"type": self.anthropic_type, "message": message}
            return {"type": "error", "error": error, "request_id": REQUEST_ID}
        if provider in {"gemini", "vertex_ai", "vertex_ai_beta"}:
            return {"error": {"code": self.status, "message": message, "status": self.google_status}}
        return {
            "error": {"message": message, "type": self.openai_type, "param": None, "code": self.code},
        }

    def headers(self, retry_after: float | None) -> dict[str, str]:
        """The headers of the HTTP response; ``retry_after`` is in seconds."""
        headers = {"content-type": "application/json", "x-request-id": REQUEST_ID}
        return headers if retry_after is None else {**headers, "retry-after": f"{retry_after:g}"}


SERVER = ("server_error", None, "api_error", "INTERNAL")
ERRORS = {
    "RateLimitError": ProviderError(
        429,
        "Rate limit reached for {model}. Please try again later.",
        "requests",
        "rate_limit_exceeded",
        "rate_limit_error",
        "RESOURCE_EXHAUSTED",
    ),
    "AuthenticationError": ProviderError(
        401,
        "Incorrect API key provided.",
        code="invalid_api_key",
        anthropic_type="authentication_error",
        google_status="UNAUTHENTICATED",
    ),
    "PermissionDeniedError": ProviderError(
        403,
        "You may not use this model.",
        "permission_error",
        None,
        "permission_error",
        "PERMISSION_DENIED",
    ),
    "NotFoundError": ProviderError(
        404,
        "The model `{model}` does not exist.",
        code="model_not_found",
        anthropic_type="not_found_error",
        google_status="NOT_FOUND",
    ),
    "BadRequestError": ProviderError(400, "The request is invalid."),
    "ContextWindowExceededError": ProviderError(
        400,
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 200000 tokens.",
        code="context_length_exceeded",
    ),
    "ContentPolicyViolationError": ProviderError(
        400,
        "Your request was rejected as a result of our safety system.",
        code="content_policy_violation",
    ),
    "UnprocessableEntityError": ProviderError(422, "The request cannot be processed."),
    "InternalServerError": ProviderError(
        500, "The server had an error while processing your request.", *SERVER
    ),
    "APIError": ProviderError(500, "The server had an error while processing your request.", *SERVER),
    "BadGatewayError": ProviderError(502, "Bad gateway.", *SERVER),
    "ServiceUnavailableError": ProviderError(
        503, "The server is overloaded.", "server_error", None, "overloaded_error", "UNAVAILABLE"
    ),
    "Timeout": ProviderError(0, "Request timed out."),
    "APIConnectionError": ProviderError(0, "Connection error."),
}
OTHER = ProviderError(500, "The provider failed.", *SERVER)
"""For the classes of errors that no row is about."""
