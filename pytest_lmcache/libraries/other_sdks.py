"""Counts the requests of other packages to language models, made in a recorded test and not by LiteLLM or DSPy."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pytest_lmcache.libraries import LIBRARIES
from pytest_lmcache.libraries.import_hook import ImportWatch
from pytest_lmcache.scopes import Scopes
from pytest_lmcache.settings import Mode

# Where each package makes its requests: the module, then the class and the method.
SDKS = {
    "openai": ("openai._base_client", ["SyncAPIClient.request", "AsyncAPIClient.request"]),
    "anthropic": ("anthropic._base_client", ["SyncAPIClient.request", "AsyncAPIClient.request"]),
    "google-genai": (
        "google.genai._api_client",
        [
            "BaseApiClient.request",
            "BaseApiClient.async_request",
            "BaseApiClient.request_streamed",
            "BaseApiClient.async_request_streamed",
        ],
    ),
}
# The same for packages that ask any host: their requests count if the host is a provider's.
CLIENTS = {
    "httpx": ("httpx._client", ["Client.send", "AsyncClient.send"]),
    "requests": ("requests.sessions", ["Session.send"]),
}
PROVIDERS = (
    *(
        "api.openai.com",
        "api.anthropic.com",
        "generativelanguage.googleapis.com",
        "aiplatform.googleapis.com",
    ),
    *(
        "openai.azure.com",
        "api.mistral.ai",
        "api.cohere.com",
        "api.cohere.ai",
        "api.groq.com",
        "api.deepseek.com",
    ),
    *(
        "openrouter.ai",
        "api.together.xyz",
        "api.x.ai",
        "api.perplexity.ai",
        "api.fireworks.ai",
        "api.voyageai.com",
    ),
    *("api.cerebras.ai", "integrate.api.nvidia.com", "router.huggingface.co", "api-inference.huggingface.co"),
)


class OtherSDKs:
    """Wraps the packages' methods within ``watched``, also those of a package that is imported meanwhile."""

    def __init__(self, scopes: Scopes) -> None:
        self._scopes = scopes
        self._is_inside: ContextVar[bool] = ContextVar("pytest_lmcache_other_sdk", default=False)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count requests within."""
        with ExitStack() as undo:
            for package, (module, places) in (SDKS | CLIENTS).items():
                watch = ImportWatch(module, partial(self._wrap, undo, package, module, places))
                undo.callback(watch.stop)
            yield

    def _wrap(self, undo: ExitStack, package: str, module: str, places: list[str]) -> None:
        for place in places:
            kind, _, name = place.partition(".")
            owner = getattr(sys.modules.get(module), kind, None)
            original = None if owner is None else vars(owner).get(name)
            if inspect.isfunction(original):
                wrapper = self._wrapper(package, original)
                setattr(owner, name, wrapper)
                undo.callback(_restore, owner, name, wrapper, original)

    def _wrapper(self, package: str, original: Callable[..., Any]) -> Callable[..., Any]:
        is_client = package in CLIENTS

        def counts(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self._is_inside.get() and (not is_client or _asks_provider(args, kwargs)):
                self._count(package)

        if inspect.iscoroutinefunction(original):

            @functools.wraps(original)
            async def arequest(*args: Any, **kwargs: Any) -> Any:
                counts(args, kwargs)
                token = self._is_inside.set(True)
                try:
                    return await original(*args, **kwargs)
                finally:
                    self._is_inside.reset(token)

            return arequest

        @functools.wraps(original)
        def request(*args: Any, **kwargs: Any) -> Any:
            counts(args, kwargs)
            token = self._is_inside.set(True)
            try:
                return original(*args, **kwargs)
            finally:
                self._is_inside.reset(token)

        return request

    def _count(self, package: str) -> None:
        scope = self._scopes.current() or self._scopes.innermost()
        if scope is None or scope.recorder.mode is Mode.LIVE or _is_of_library():
            return
        if (past := getattr(scope.recorder, "past_calls", None)) is not None:  # not in a child process
            past[package] += 1


def _restore(owner: Any, name: str, wrapper: Any, original: Any) -> None:
    if vars(owner).get(name) is wrapper:  # else a test's own replacement has taken its place
        setattr(owner, name, original)


def _asks_provider(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    request = args[1] if len(args) > 1 else kwargs.get("request")
    host = (urlsplit(str(getattr(request, "url", ""))).hostname or "").lower()
    return any(host == name or host.endswith((f".{name}", f"-{name}")) for name in PROVIDERS)


def _is_of_library() -> bool:
    """Whether LiteLLM or DSPy makes the request; the stack does not tell where it is made in another thread or task."""
    callbacks = sys.modules.get("pytest_lmcache.libraries.litellm.callbacks")
    if callbacks is not None and callbacks.inside.get():
        return True
    frame = sys._getframe(1)
    while (frame := frame.f_back) is not None:  # type: ignore[assignment]
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in LIBRARIES:
            return True
    return False
