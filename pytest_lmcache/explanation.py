"""What a recorded call's key is made of, and what is dropped, redacted and normalized."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.interaction import Call
from pytest_lmcache.keys.normalizers import NORMALIZERS, Folders, rules_of
from pytest_lmcache.keys.strategies import KeyStrategy, strategy
from pytest_lmcache.redact.placeholders import HASHLESS_PLACEHOLDER, PLACEHOLDER

MASK = re.compile(rf"(<(?:{'|'.join(NORMALIZERS)}|re:[0-9a-f]{{8}})-[0-9]+>)")
MESSAGES = ("messages", "input")


@dataclass(frozen=True, slots=True)
class Redacted:
    """A secret that was replaced. ``counts``: its hash is in the placeholder, so two secrets have two keys."""

    path: str
    placeholder: str
    counts: bool


@dataclass(frozen=True, slots=True)
class Normalized:
    """A piece of the question that a normalizer masks, and the mask that counts in its place."""

    path: str
    value: str
    mask: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the key of a call is made of.

    - ``key``: the key by this strategy
    - ``question``: what counts, with masks; the text that a function returned, if that is no JSON
    - ``streamed``: a streamed call has a key of its own
    - ``dropped``: the paths of arguments that are recorded and do not count, such as ``messages[*].role``
    """

    key: str
    question: Any
    streamed: bool
    dropped: tuple[str, ...]
    redacted: tuple[Redacted, ...]
    normalized: tuple[Normalized, ...]


def explain(call: Call, keys: KeyStrategy, bare: KeyStrategy) -> Explanation:
    """Explain a call's key; ``bare`` is the same strategy without normalizers. Raises UnkeyableCallError."""
    text = keys.text(call)
    question, unmasked = _data(text), _data(bare.text(call))
    if isinstance(question, dict):
        order = [*call.request, *question]
        question = {name: question[name] for name in order if name in question}
    return Explanation(
        keys.key(call, text),
        question,
        bool(call.request.get("stream")),
        tuple(_dropped(call, bare)),
        tuple(_redacted(call.request)),
        tuple(_normalized(unmasked, question, "")),
    )


def strategies_named(
    name: str, normalize: Sequence[str], folders: Folders
) -> tuple[KeyStrategy, KeyStrategy, list[str]]:
    """The strategy that a cassette's header names, the same without normalizers, and notes on what is not as it was.

    ``normalize`` are the normalizers of the configuration, among which its patterns are looked for. Raises
    SettingsError if its function cannot be imported.
    """
    scope, *rules = name.split("+")
    bare = strategy(scope.removeprefix("own:") if scope.startswith("own:") else scope.partition("/")[0])
    patterns = {rules_of([each], folders)[0].name: each for each in normalize if each.startswith("re:")}
    notes, known = [], []
    if bare.scope != scope:
        notes.append(f"{scope} is an older version: a run makes keys by {bare.scope}")
    for rule in rules:
        own = patterns.get(rule) if rule.startswith("re:") else rule.partition("/")[0]
        if own is None or (not own.startswith("re:") and own not in NORMALIZERS):
            notes.append(f"{rule} is the pattern of a marker: what it masks is not known here")
            continue
        known.append(own)
        versioned = rules_of([own], folders)[0].versioned_name
        if versioned != rule:
            notes.append(f"{rule} is an older version: a run normalizes by {versioned}")
    return strategy(_spec_of(bare, scope), known, folders), bare, notes


def _spec_of(bare: KeyStrategy, scope: str) -> str:
    return scope.partition("/")[0] if bare.is_builtin else scope.removeprefix("own:")


def _data(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # of a function of the user's


def _dropped(call: Call, bare: KeyStrategy) -> Iterator[str]:
    """What the key is the same without, among the arguments, and among the fields of all messages."""
    text = bare.text(call)

    def counts(request: dict[str, Any]) -> bool:
        try:
            return bare.text(call._replace(request=request)) != text
        except LMCacheError:
            return True  # a function of the user's needs it

    for name, value in call.request.items():
        if name != "stream" and not counts({key: item for key, item in call.request.items() if key != name}):
            yield name
        elif name in MESSAGES and isinstance(value, list):
            fields = dict.fromkeys(field for each in value if isinstance(each, dict) for field in each)
            for field in fields:
                without = [
                    {key: item for key, item in each.items() if key != field}
                    if isinstance(each, dict)
                    else each
                    for each in value
                ]
                if not counts({**call.request, name: without}):
                    yield f"{name}[*].{field}"
    if bare.is_builtin:
        yield from (
            path
            for path, value in _walk(call.request)
            if path.endswith(".cache_control") and isinstance(value, dict)
        )


def _redacted(request: Mapping[str, Any]) -> Iterator[Redacted]:
    for path, value in _walk(request):
        if isinstance(value, str) and "<redacted:" in value:
            for found in dict.fromkeys(PLACEHOLDER.findall(value)):
                yield Redacted(path, found, HASHLESS_PLACEHOLDER.fullmatch(found) is None)


def _normalized(before: Any, after: Any, path: str) -> Iterator[Normalized]:
    """The leaves that differ, piece by piece."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            yield from _normalized(value, after.get(name), f"{path}.{name}" if path else name)
    elif isinstance(before, list) and isinstance(after, list):
        for index, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from _normalized(one, other, f"{path}[{index}]")
    elif before != after:
        text = before if isinstance(before, str) else json.dumps(before)
        for value, mask in dict.fromkeys(_pieces(text, str(after))):
            yield Normalized(path, value, mask)


def _pieces(before: str, after: str) -> list[tuple[str, str]]:
    """What each mask stands for, found by the texts between them."""
    texts = MASK.split(after)
    found, at = [], len(texts[0])
    for mask, following in zip(texts[1::2], texts[2::2], strict=True):
        end = before.find(following, at) if following else len(before)
        if end < 0 or not before.startswith(texts[0]):
            return [(before, after)]
        found.append((before[at:end], mask))
        at = end + len(following)
    return found or [(before, after)]


def _walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All parts of plain data with their paths."""
    if path:
        yield path, value
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _walk(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}[{index}]")
