"""The redactor: takes secrets out of plain data, requests and streams."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from typing import Any

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.redact.known_values import KnownSecrets, without_scheme
from pytest_lmcache.redact.names import (
    NameKind,
    is_address_name,
    is_content_name,
    is_credential,
    is_password,
    name_from_type,
    name_kind,
)
from pytest_lmcache.redact.placeholders import PLACEHOLDER, placeholder_for
from pytest_lmcache.redact.scan import redact_address, redact_parameters
from pytest_lmcache.redact.streams import (
    StreamRedactor,
    is_completion_logprobs,
    is_logprobs,
    with_token,
    with_tokens,
)
from pytest_lmcache.redact.text import TextRedactor, compiled_patterns


class _Part(Enum):
    """What a value is part of: that decides what a secret's name means there."""

    ANSWER = auto()
    ARGUMENTS = auto()
    HEADERS = auto()
    CONTENT = auto()  # what a model reads or writes, for a tool too: only values count there, not names


class Redactor:
    """Takes secrets out of plain data. Calling it again on its own result changes nothing.

    ``patterns`` are regular expressions that add to the built-in rules. If one has a group ``secret``, only that
    group is taken out; none should match just what follows a placeholder. ``functions`` take and return a text.
    They are called in turn on every text (keys of mappings too) after all other rules, and have to be idempotent.
    ``environ`` is ``os.environ`` unless given. It is read again whenever it changed, and a value seen once is
    searched for ever after. Raises SettingsError for a bad pattern, and for a function that raises or returns no str.
    """

    __slots__ = ("_environ", "_functions", "_patterns", "_secrets", "_text")

    def __init__(
        self,
        patterns: Iterable[str | re.Pattern[str]] = (),
        functions: Iterable[Callable[[str], str]] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._functions = tuple(functions)
        for function in self._functions:
            if not callable(function):
                raise SettingsError(
                    f"A function that redacts has to be callable, got {type(function).__name__}."
                )
        self._patterns = compiled_patterns(patterns)
        self._environ = os.environ if environ is None else environ
        self._secrets = KnownSecrets(self._environ)
        self._text = TextRedactor(self._patterns, self._functions, self._secrets)

    def fresh(self) -> Redactor:
        """Return a redactor with the same rules that knows nothing yet of other tests' arguments and variables."""
        return Redactor(self._patterns, self._functions, self._environ)

    def learn(self, arguments: Mapping[str, Any]) -> None:
        """Remember the secrets among a call's raw arguments, so that they are taken out wherever they come later.

        Looks into texts, mappings, lists and tuples, at a client's key, and at the keys that are set on the module
        ``litellm``. Never raises.
        """
        self._secrets.learn(arguments)

    def known_secrets(self) -> list[list[tuple[str, str]]]:
        """Return the variables and the arguments that hold secrets, as pairs of a name and a value."""
        self._secrets.read_environment()
        return self._secrets.pairs()

    def learn_secrets(
        self, variables: Iterable[tuple[str, str]], arguments: Iterable[tuple[str, str]]
    ) -> None:
        """Remember what another process's `known_secrets` returned."""
        self._secrets.add(
            [(name, value) for name, value in variables], {value: name for name, value in arguments}
        )

    def __call__(self, value: Any) -> Any:
        """Return plain data without its secrets: the same object if there are none, else a new one.

        Texts, lists and dicts are looked into, tuples become lists, everything else stays as it is.
        """
        self._secrets.read_environment()
        return self._data(value)

    def request(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return a call's arguments without their secrets.

        An empty secret becomes a placeholder too: another machine may have none.
        """
        self._secrets.read_environment()
        return self._mapping(arguments, _Part.ARGUMENTS)

    def stream(self, chunks: list[Any]) -> list[Any]:
        """Return a stored stream without its secrets, also those that are cut in pieces.

        The pieces of one text are those under the same names in successive chunks. A placeholder stands where the
        secret began; the other pieces lose what they held of it, and no chunk is dropped. Chunks of bytes are read
        as one text of server-sent events; an event that changed is wholly in the chunk where it began.
        """
        self._secrets.read_environment()
        return StreamRedactor(self._text, self._data)(chunks)

    def _data(self, value: Any, part: _Part = _Part.ANSWER) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return self._mapping(value, part)
        if not isinstance(value, list | tuple):
            return value
        if is_logprobs(value):
            return self._logprobs(value)
        return self._sequence(value, [self._data(item, part) for item in value])

    def _sequence(self, old: list[Any] | tuple[Any, ...], new: list[Any]) -> list[Any]:
        is_same = isinstance(old, list) and all(one is other for one, other in zip(old, new, strict=True))
        return old if is_same else new  # type: ignore[return-value]

    def _mapping(self, value: dict[Any, Any], part: _Part) -> dict[Any, Any]:
        if is_completion_logprobs(value):
            value = with_tokens(value, self._text.pieces(value["tokens"]))
        new: dict[Any, Any] = {}
        is_same = True
        for key, item in value.items():
            if isinstance(key, str):
                clean_key = self._text(key)
                name = name_from_type(value) if key == "key" else clean_key
                clean = self._named(name, item, part)
                is_same = is_same and clean is item and clean_key is key
                new[_unused(clean_key, new) if clean_key in new else clean_key] = clean
            else:
                new[key] = clean = self._data(item, part)
                is_same = is_same and clean is item
        return value if is_same else new

    def _named(self, name: str, item: Any, part: _Part) -> Any:
        kind = name_kind(name)
        if item is None or isinstance(item, str):
            if kind is not NameKind.OTHER:
                return self._text_named(name, kind, item, part)
            if item and part is _Part.ARGUMENTS and "://" in item and is_address_name(name):
                item = redact_address(item)
            return self._text(item) if item else item
        if kind is not NameKind.OTHER and isinstance(item, list | tuple):
            named = [self._named(name, each, part) for each in item]
            return item if named == item else named
        if part is not _Part.CONTENT:
            if is_content_name(name):
                part = _Part.CONTENT
            elif name.lower().endswith("headers"):
                part = _Part.HEADERS
            elif name == "extra_query" and isinstance(item, dict):
                return {key: self._parameter(key, text) for key, text in item.items()}
        return self._data(item, part)

    def _text_named(self, name: str, kind: NameKind, item: str | None, part: _Part) -> str | None:
        """The text, or None, under a name that is or may be a secret's."""
        if part is _Part.HEADERS or (part is _Part.ARGUMENTS and kind is NameKind.CREDENTIAL):
            placeholder = placeholder_for(name.lower())
            return item if item == placeholder else placeholder
        if item is None:
            return None
        clean = self._text(item)
        if PLACEHOLDER.fullmatch(item):
            return clean
        # The clean text counts too, or a second pass could find a credential where the first saw a sentence.
        texts = [without_scheme(PLACEHOLDER.sub("", text)) for text in (item, clean)]
        is_secret = any(map(is_credential, texts))
        if part is _Part.ARGUMENTS and kind is NameKind.SECRET:
            is_secret = is_secret or any(is_password(text, name) for text in texts)
        return self._text.placeholder(name, item) if is_secret else clean

    def _parameter(self, name: Any, value: Any) -> Any:
        """One parameter of a call's address, as LiteLLM's ``extra_query`` has them."""
        if isinstance(name, str) and isinstance(value, str):
            query = f"?{name}={value}"
            if redact_parameters(query) != query:
                return placeholder_for(name.lower())
        return self._data(value)

    def _logprobs(self, items: list[Any] | tuple[Any, ...]) -> list[Any]:
        new = []
        for item, token in zip(items, self._text.pieces([item["token"] for item in items]), strict=True):
            clean = self._data(item if token == item["token"] else with_token(item, token))
            new.append(clean if clean.get("token") == token else with_token(clean, clean.get("token")))
        return self._sequence(items, new)


def _unused(name: str, taken: dict[Any, Any]) -> str:
    """A key that is not taken yet, if redaction made two keys alike."""
    unused, number = name, 2
    while unused in taken:
        unused = f"{name[:-1]}-{number}>" if name.endswith(">") else f"{name}-{number}"
        number += 1
    return unused
