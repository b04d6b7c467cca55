"""The redactor: rules, known secrets and the data that both are applied to."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum, auto
from functools import lru_cache
from typing import Any

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.redact import known_values, names, own_rules, scan, stream_texts
from pytest_lmcache.stream_chunks import pack, text_path, whole
from pytest_lmcache.time_limit import time_limit

_ROUNDS = 20  # more than any text needs that was not made to need them
_SHORT_TEXT = 500  # characters: of such texts it is remembered what is left of them
_TEXTS = 5_000  # so many are, for each of the last few sets of rules


class _Part(Enum):
    """What a value is part of, which says what a secret's name means there."""

    ANSWER = auto()
    ARGUMENTS = auto()
    HEADERS = auto()
    CONTENT = auto()  # what a model reads or writes, also for a tool: names say nothing there, values do


@lru_cache(maxsize=8)
def _cleaned(_known: scan.Known, _patterns: tuple[re.Pattern[str], ...]) -> dict[str, str]:
    """The texts that were looked at by the same rules, and what became of them: names and phrases that come again."""
    return {}


class Redactor:
    """Takes secrets out of plain data; calling it again on what it gave changes nothing.

    ``patterns`` are regular expressions that add to the built-in rules; of one with a group ``secret`` only
    that group is taken out, and none should match just what follows a placeholder. ``functions`` are called in
    turn on every text (keys of mappings too) after all other rules; they have to be idempotent. ``environ`` is
    ``os.environ`` unless given, read again whenever it changed; a value seen once is looked for ever after.
    Raises SettingsError for a pattern that is none, and for a function that raises or returns no text.
    """

    __slots__ = (
        *("_clean", "_environment", "_functions", "_known", "_learnt", "_lock", "_module", "_patterns"),
        *("_present", "_variables"),
    )

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
                    f"a function that redacts has to be callable, got {type(function).__name__}"
                )
        self._patterns = tuple(
            map(own_rules.compiled_pattern, [patterns] if isinstance(patterns, str) else patterns)
        )
        self._environment = known_values.Environment(os.environ if environ is None else environ)
        self._forget()

    def fresh(self) -> Redactor:
        """Return one with the same rules that knows nothing yet of what was passed or set in other tests."""
        new = object.__new__(Redactor)
        new._patterns, new._functions, new._environment = self._patterns, self._functions, self._environment
        new._forget()
        return new

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._present: frozenset[tuple[str, str]] = frozenset()
        self._variables = self._present
        self._learnt: dict[str, str] = {}
        self._module: tuple[Any, ...] = ()
        self._know(())

    def _know(self, known: scan.Known) -> None:
        # In this order: what is found by the rules so far is never remembered for the new ones.
        self._known = known
        self._clean = _cleaned(known, self._patterns)

    def learn(self, arguments: Mapping[str, Any]) -> None:
        """Remember the secrets among a call's raw arguments, so that their echo is taken out anywhere later.

        Looks into texts, mappings, lists and tuples, at a client's key and at those set on the module
        ``litellm``, and never raises.
        """
        found: dict[str, str] = {}
        self._learn_module(found)
        for name, value in arguments.items():
            with suppress(
                Exception
            ):  # a caller's odd mapping must not stop the call, nor hide what else is given
                if name != "tools" and not names.is_content(name):
                    known_values.learn_value(name, value, found)
                if value is not None and name.endswith("client"):
                    known_values.learn_value("api_key", getattr(value, "api_key", None), found, 0)
        new = {secret: name for secret, name in found.items() if self._learnt.get(secret, "\uffff") > name}
        if new:
            with self._lock:
                self._learnt |= new
                self._rebuild()

    def known_secrets(self) -> list[list[tuple[str, str]]]:
        """The variables and the arguments that hold secrets, as pairs of a name and a value."""
        self._look_at_environment()
        return [sorted(self._variables), sorted((name, secret) for secret, name in self._learnt.items())]

    def learn_secrets(
        self, variables: Iterable[tuple[str, str]], arguments: Iterable[tuple[str, str]]
    ) -> None:
        """Take out from now on what another process knows: what its `known_secrets` gave."""
        with self._lock:
            more = frozenset((name, value) for name, value in variables) - self._variables
            new = {secret: name for name, secret in arguments if self._learnt.get(secret, "\uffff") > name}
            if more or new:
                self._variables |= more
                self._learnt |= new
                self._rebuild()

    def _learn_module(self, found: dict[str, str]) -> None:
        module = sys.modules.get("litellm")
        if module is None:
            return
        headers = vars(module).get("headers")
        headers = dict(headers) if isinstance(headers, Mapping) else None
        values = (headers, *map(vars(module).get, known_values.MODULE_KEYS))
        if values != self._module:
            self._module = values
            known_values.learn_value("headers", headers, found)
            for name, value in zip(known_values.MODULE_KEYS, values[1:], strict=True):
                if isinstance(value, str):
                    found.update(
                        (secret, name)
                        for secret in known_values.secrets_in(name, value)
                        if secret not in found
                    )

    def __call__(self, value: Any) -> Any:
        """Return plain data without its secrets: the same object where there are none, else a new one.

        Texts, lists and dicts are looked into, tuples become lists, everything else is left as it is.
        """
        self._look_at_environment()
        return self._data(value)

    def request(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The same of a call's arguments, where an empty secret is one too: another machine may have none."""
        self._look_at_environment()
        return self._mapping(arguments, _Part.ARGUMENTS)

    def stream(self, chunks: list[Any]) -> list[Any]:
        """Return a stream's chunks without their secrets, also those that are cut in pieces.

        The pieces of one text are those under the same names in successive chunks. A placeholder stands
        where the secret began; what the following chunks held of it is gone, the chunks stay. Chunks of bytes
        are read as one text of server-sent events; one that changed is wholly in the chunk where it began.
        """
        pieces = [stream_texts.bytes_of(chunk) for chunk in chunks]
        if chunks and None not in pieces:
            clean = self._wire([piece for piece in pieces if piece is not None])
            return [
                chunk if new == old else stream_texts.bytes_chunk(new)
                for chunk, old, new in zip(chunks, pieces, clean, strict=True)
            ]
        return self._chunks(chunks)

    def _wire(self, pieces: list[bytes]) -> list[bytes]:
        """Chunks of server-sent events: of what stands between the events' JSON only the frame stays unseen."""
        wire = b"".join(pieces)
        events: list[tuple[int, int, str, dict[str, Any]]] = []
        for found in stream_texts.EVENT_DATA.finditer(wire):
            text = found[1].decode(errors="surrogateescape")
            try:
                events.append((*found.span(1), text, json.loads(text)))
            except (ValueError, RecursionError):
                continue  # cut off in the middle, or no JSON: text
        edits: list[tuple[int, int, bytes]] = []
        done = 0
        clean = whole(self._chunks([event for *_, event in events]))
        for (start, end, text, event), new in zip(events, clean, strict=True):
            edits += self._between(wire, done, start)
            if new is not event and new != event:
                edits.append((start, end, stream_texts.rewritten(text, new).encode(errors="surrogateescape")))
            done = end
        return list(stream_texts.edited(pieces, [*edits, *self._between(wire, done, len(wire))]))

    def _between(self, wire: bytes, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        if not stream_texts.EVENT_FRAME.fullmatch(wire, start, end):
            text = wire[start:end].decode(errors="surrogateescape")
            if (clean := self._text(text)) != text:
                yield start, end, clean.encode(errors="surrogateescape")

    def _chunks(self, chunks: list[Any]) -> list[Any]:
        self._look_at_environment()
        # As they came: a chunk cleaned by itself would hide where what is left of a secret in the next one began.
        clean = self._cleaned_chunks(self._joined(chunks))
        is_same = all(new is old for new, old in zip(clean, chunks, strict=True))
        return clean if is_same else self._joined(clean)

    def _cleaned_chunks(self, chunks: list[Any]) -> list[Any]:
        """Chunks without the secrets that each holds by itself."""
        is_clean = all(
            new is chunk or new == chunk for chunk in chunks if (new := self._data(chunk)) is not None
        )
        return chunks if is_clean else pack(map(self._data, whole(chunks)))

    def _joined(self, chunks: list[Any]) -> list[Any]:
        """Chunks without the secrets that are in the texts that they are pieces of."""
        chunks = self._joined_by(chunks, stream_texts.whole_of)
        has_parts = any(part is not None for chunk in chunks for part in stream_texts.part_of(chunk))
        return self._joined_by(chunks, stream_texts.part_of) if has_parts else chunks

    def _joined_by(self, chunks: list[Any], part_of: Callable[[Any], stream_texts.TextPath]) -> list[Any]:
        runs: list[stream_texts.Run] = []
        for number, chunk in enumerate(chunks):
            if isinstance(chunk, str):
                runs[-1].pieces.append(chunk)
            else:
                leaves = list(stream_texts.leaves_of(chunk, part_of(chunk)))
                runs.append(stream_texts.Run(number, leaves, text_path(chunk), []))
        changed: dict[int, dict[stream_texts.TextPath, str]] = {}
        for found in stream_texts.in_pieces(runs):
            for (number, place, old), new in zip(
                found, self._pieces([piece for *_, piece in found]), strict=True
            ):
                if new != old:
                    changed.setdefault(number, {})[place] = new
        if not changed:
            return chunks
        return pack(
            stream_texts.with_leaves(chunk, changed[number]) if number in changed else chunk
            for number, chunk in enumerate(whole(chunks))
        )

    def _pieces(self, pieces: list[str]) -> list[str]:
        for _ in range(_ROUNDS):
            text = "".join(pieces)
            edits = scan.edits_of(text, self._spans(text))
            if not edits:
                break
            pieces = list(stream_texts.edited(pieces, edits))
        text = "".join(pieces)
        if self._functions and text:
            clean, whole = list(map(self._text, pieces)), self._text(text)
            pieces = (
                clean
                if "".join(clean) == whole
                else list(stream_texts.edited(pieces, stream_texts.edits_between(text, whole)))
            )
        return pieces

    def _data(self, value: Any, part: _Part = _Part.ANSWER) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return self._mapping(value, part)
        if isinstance(value, list | tuple):
            return self._sequence(value, part)
        return value

    def _mapping(self, value: dict[Any, Any], part: _Part) -> dict[Any, Any]:
        new: dict[Any, Any] | None = None
        if stream_texts.is_spelled(value):
            value = self._spelled(value)
        for number, (key, item) in enumerate(value.items()):
            name = self._text(key) if isinstance(key, str) else key
            told = names.told_by(value) if key == "key" else name
            clean = self._named(told, item, part) if isinstance(key, str) else self._data(item, part)
            if new is None and (clean is not item or name is not key):
                new = dict(list(value.items())[:number])
            if new is not None:
                new[_free(name, new) if isinstance(name, str) else name] = clean
        return value if new is None else new

    def _spelled(self, value: dict[Any, Any]) -> dict[Any, Any]:
        """The logprobs of a text completion, whose tokens spell a text."""
        tokens = self._pieces(value["tokens"])
        return value if tokens == value["tokens"] else {**value, "tokens": tokens, "top_logprobs": None}

    def _named(self, name: str, item: Any, part: _Part) -> Any:
        kind = names.name_kind(name)
        if item is None or isinstance(item, str):
            if kind is names.NameKind.OTHER:
                is_address = (
                    item and part is _Part.ARGUMENTS and "://" in item and names.is_address_name(name)
                )
                return self._text(scan.bare_address(item) if is_address else item) if item else item
            return self._text_named(name, kind, item, part)
        if kind is not names.NameKind.OTHER and isinstance(item, list | tuple):
            named = [self._named(name, each, part) for each in item]
            return item if named == item else named
        if part is not _Part.CONTENT:
            if names.is_content(name):
                part = _Part.CONTENT
            elif name.lower().endswith("headers"):
                part = _Part.HEADERS
            elif name == "extra_query" and isinstance(item, dict):
                return {key: self._parameter(key, text) for key, text in item.items()}
        return self._data(item, part)

    def _text_named(self, name: str, kind: names.NameKind, item: str | None, part: _Part) -> str | None:
        if part is _Part.HEADERS or (part is _Part.ARGUMENTS and kind is names.NameKind.CREDENTIAL):
            mark = names.placeholder_of(name.lower())
            return item if item == mark else mark
        if item is None:
            return None
        clean = self._text(item)
        if names.PLACEHOLDER.fullmatch(item):
            return clean
        # Of the cleaned text too, or a second pass could find a credential where the first saw a sentence.
        seen = [known_values.without_scheme(names.PLACEHOLDER.sub("", text)) for text in (item, clean)]
        is_secret = any(map(names.is_credible, seen))
        if part is _Part.ARGUMENTS and kind is names.NameKind.SECRET:
            is_secret = is_secret or any(names.is_password(text, name) for text in seen)
        return self._marked(name, item) if is_secret else clean

    def _marked(self, name: str, secret: str) -> str:
        """The placeholder of a secret that is known by its name."""
        known = [span for span in self._spans(secret) if span.rank >= scan.KNOWN_RANK]
        return names.placeholder_of(
            name.lower(), scan.unknown_part(secret, scan.Span(0, len(secret), 0, name), known)
        )

    def _parameter(self, name: Any, value: Any) -> Any:
        """One of an address's parameters, as LiteLLM's ``extra_query`` has them."""
        if not (isinstance(name, str) and isinstance(value, str)):
            return self._data(value)
        before = f"?{name}={value}"
        after = scan.PARAMETER.sub(scan.own_parameter, before)
        return self._text(value) if after == before else names.placeholder_of(name.lower())

    def _sequence(self, value: list[Any] | tuple[Any, ...], part: _Part) -> list[Any]:
        if stream_texts.is_logprobs(value):
            return self._logprobs(value)
        new: list[Any] | None = list(value) if isinstance(value, tuple) else None
        for number, item in enumerate(value):
            clean = self._data(item, part)
            if clean is not item:
                if new is None:
                    new = list(value)
                new[number] = clean
        return value if new is None else new  # type: ignore[return-value]

    def _logprobs(self, items: list[Any] | tuple[Any, ...]) -> list[Any]:
        new = []
        for item, token in zip(items, self._pieces([item["token"] for item in items]), strict=True):
            told = item if token == item["token"] else stream_texts.retold(item, token)
            clean = self._data(told)
            new.append(
                clean
                if clean.get("token") == told["token"]
                else stream_texts.retold(clean, clean.get("token"))
            )
        same = isinstance(items, list) and all(clean is item for clean, item in zip(new, items, strict=True))
        return items if same else new  # type: ignore[return-value]

    def _text(self, text: str) -> str:
        clean = self._ruled(text)
        for function in self._functions:
            own = own_rules.applied(function, clean)
            clean = clean if own == clean else self._ruled(own)
        return clean

    def _ruled(self, text: str) -> str:
        known = self._clean
        found = known.get(text)
        if found is not None:
            return text if found == text else found
        clean = self._without_secrets(text)
        if len(text) <= _SHORT_TEXT and len(known) < _TEXTS:
            known[text] = clean
        return clean

    def _without_secrets(self, text: str) -> str:
        # Taking one secret out can uncover the edge of another, so look until there is nothing more.
        for _ in range(_ROUNDS):
            spans = self._spans(text)
            clean = scan.replaced(text, spans) if spans else text
            if clean == text:
                break
            text = clean
        return text

    def _spans(self, text: str) -> list[scan.Span]:
        if len(text) < names.SHORTEST and not self._patterns:
            return []
        spans = list(scan.built_in(text, self._known)) if len(text) >= names.SHORTEST else []
        for secret, name in self._known:
            if secret in text:
                spans += (
                    scan.Span(*found.span(), scan.KNOWN_RANK, name)
                    for found in re.finditer(re.escape(secret), text)
                )
            elif (at := known_values.cut_off(text, secret)) is not None:
                spans.append(scan.Span(at, len(text), scan.KNOWN_RANK, name))
        for pattern in self._patterns:
            group = "secret" if "secret" in pattern.groupindex else 0
            with time_limit("redact (lm_redact)", pattern.pattern):
                places = [found.span(group) for found in pattern.finditer(text)]
            spans += (scan.Span(start, end, scan.OWN_RANK, "pattern") for start, end in places if start < end)
        return spans

    def _look_at_environment(self) -> None:
        present = self._environment.variables()
        if present is not self._present:
            with self._lock:
                self._present = present
                if not present <= self._variables:
                    self._variables |= present
                    self._rebuild()

    def _rebuild(self) -> None:
        """Make the table of secrets to look for: longest first, the environment's name before an argument's."""
        table: dict[str, str] = {}
        for name, value in sorted(self._variables):
            for secret in known_values.secrets_of(name, value):
                for written in known_values.as_written(secret):
                    table.setdefault(written, name)
        for secret, name in sorted(self._learnt.items(), key=lambda item: item[1]):
            for written in known_values.as_written(secret):
                table.setdefault(written, name)
        self._know(tuple(sorted(table.items(), key=lambda item: (-len(item[0]), item))))


def _free(name: str, taken: dict[Any, Any]) -> str:
    """A key that is not taken, where redaction made two keys alike."""
    free, number = name, 2
    while free in taken:
        free = f"{name[:-1]}-{number}>" if name.endswith(">") else f"{name}-{number}"
        number += 1
    return free
