"""Normalizers: mask what changes from run to run, such as ids, dates and folders, before a key is made."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.time_limit import time_limit


class Folders(NamedTuple):
    """Absolute paths of folders that lie elsewhere on another machine or in the next run."""

    rootdir: str = ""
    temporary: tuple[str, ...] = ()


def folders_here() -> Folders:
    """The current folder and the system's temporary folder."""
    try:
        current = str(Path.cwd())
    except OSError:  # it has been deleted
        current = ""
    return Folders(current, (tempfile.gettempdir(),))


# ---- dates ---------------------------------------------------------------------------------------------

_YEAR = r"(?:19|20|21)\d\d"
_MONTH_NUMBER = "(?:0[1-9]|1[0-2])"
_DAY_NUMBER = r"(?:0[1-9]|[12]\d|3[01])"
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\b\.?"
)
_WEEKDAY = r"(?:Mon(?:day)?|Tue(?:s(?:day)?)?|Wed(?:nesday)?|Thu(?:rs?(?:day)?)?|Fri(?:day)?|Sat(?:urday)?|Sun(?:day)?)\b\.?,?"
_DAY = r"(?:the\s)?(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?\b"
_CLOCK = r"(?:(?:[01]?\d|2[0-4]):[0-5]\d(?::[0-6]\d(?:[.,]\d+)?)?(?:\s?[AP]\.?M\b\.?)?|(?:0?[1-9]|1[0-2])\s?[AP]\.?M\b\.?)"
_ZONE = (
    r"(?-i:(?:\s?(?:Z\b|[+-](?:[01]\d|2[0-3]):?[0-5]\d\b)|\s(?:(?i:UTC|GMT)|[A-Z]{1,4}T)\b(?:[+-]\d{1,2}(?::?\d\d)?\b)?)"
    r"(?:\s\([A-Z][A-Za-z ]*\))?)"
)
_TIMES = (
    # With seconds, AM or PM; anything else may be a score or a ratio.
    rf"(?<![\d:])(?:[01]?\d|2[0-4]):[0-5]\d(?::[0-6]\d(?:[.,]\d+)?(?:\s?[AP]\.?M\b\.?)?|\s?[AP]\.?M\b\.?)(?:{_ZONE})?"
    r"(?![\d:])"
)
_DATES = (
    rf"(?<!\d){_YEAR}(?:-{_MONTH_NUMBER}-|/{_MONTH_NUMBER}/){_DAY_NUMBER}",
    r"(?<![\w./-])(?:0?[1-9]|[12]\d|3[01])(?P<dash>[/.-])(?:0?[1-9]|[12]\d|3[01])(?P=dash)"
    + _YEAR
    + r"(?![./-]\d)",
    rf"(?<!\w)(?:{_WEEKDAY}\s)?(?<!\d){_DAY}(?:\sof)?(?:\s{{1,2}}|[/-]){_MONTH}(?:,?\s|[/-]){_YEAR}",
    rf"(?<!\w){_WEEKDAY}\s\d\d-{_MONTH}-\d\d(?!\d)",
    rf"(?<!\w)(?:{_WEEKDAY}\s)?{_MONTH}\s{{1,2}}{_DAY},?\s{_YEAR}",
    # As ctime and `date` write: the year comes last.
    rf"(?<!\w){_WEEKDAY}\s{_MONTH}\s{{1,2}}{_DAY}\s{_CLOCK}(?:{_ZONE})?\s{_YEAR}",
    rf"(?<!\w){_WEEKDAY}\s(?:{_MONTH}\s{{1,2}}{_DAY}|{_DAY}(?:\sof)?\s{_MONTH})",
)
_DATE = (
    # Every date and time begins with a digit or one of these letters: the pattern skips most of a text quickly.
    rf"(?i:(?=\d|\b[adfjmnostw])(?:(?:(?<![\d:.]){_CLOCK}(?:{_ZONE})?(?:,|\son)?\s)?(?:{'|'.join(_DATES)})"
    rf"(?:(?:T|:|,?\s(?:at\s)?){_CLOCK}(?:{_ZONE})?|[_-][0-2]\d-?[0-5]\d-?[0-6]\d)?(?!\d)"
    rf"|(?<!\d){_YEAR}{_MONTH_NUMBER}{_DAY_NUMBER}[T_-]?[0-2]\d[0-5]\d[0-6]\d(?:\.\d+)?(?:{_ZONE})?(?!\d)"
    rf"|{_TIMES}))"
)

# ---- folders -------------------------------------------------------------------------------------------

_SLASH = r"(?:/+|\\+)"
_TAIL = r"(?P<tail>(?:[/\\]+[\w.@~+-]+)*)"
_PYTEST_FOLDER = r"pytest-of-[^/\\\s]+[/\\]+pytest-(?:\d+|current)"
# Made by tempfile.
_TEMPFILE_FOLDER = rf"(?:{_SLASH}tmp[a-z0-9_]{{8}}(?![a-z0-9_]))?"
_WINDOWS_SLASHES = re.compile(r"\\+")
_WORKER_FOLDER = re.compile(r"[/\\]popen-gw\d+$")


def _any_of(paths: Sequence[str]) -> str:
    """A pattern for these folders, the longest first, with any kind and number of slashes."""
    patterns = set()
    for path in paths:
        if parts := re.findall(r"[^/\\]+", _WORKER_FOLDER.sub("", path)):
            start = "" if parts[0].endswith(":") else _SLASH
            patterns.add(start + _SLASH.join(map(re.escape, parts)))
    return "|".join(sorted(patterns, key=lambda each: (-len(each), each)))


def _tmp_path(folders: Folders) -> str:
    known = _any_of(folders.temporary)
    # pytest's folder lies in the system's temporary one. It is masked as a whole.
    known = (
        rf"(?<![\w.~-])(?:{known})(?![\w-]|{_SLASH}{_PYTEST_FOLDER})(?:{_SLASH}popen-gw\d+)?{_TEMPFILE_FOLDER}|"
        if known
        else ""
    )
    return (
        # Only the folder: what lies in it, the tail, keeps its name.
        rf"(?:{known}"
        # Only from the beginning of a path, so that a path of n parts is read once and not n times.
        r"(?<![\w.@~+/\\-])(?:[A-Za-z]:)?[\w.@~+-]*+(?:[/\\]+[\w.@~+-]+)*?"
        rf"[/\\]+{_PYTEST_FOLDER}(?:{_SLASH}popen-gw\d+)?"
        rf"|(?:(?<![\w.~-])(?:/private)?(?:/tmp|/var/tmp|/var/folders/[^/\s]+/[^/\s]+/[TC0])"
        rf"|\b[A-Za-z]:{_SLASH}Users{_SLASH}[^/\\\n\"']+{_SLASH}AppData{_SLASH}Local{_SLASH}Temp"
        rf"|\b[A-Za-z]:{_SLASH}(?:Windows{_SLASH})?Temp)(?![\w-]){_TEMPFILE_FOLDER})" + _TAIL
    )


def _rootdir(folders: Folders) -> str:
    known = _any_of([folders.rootdir])
    # `(?!)` matches nothing.
    return rf"(?<![\w.~-])(?:{known})(?![\w-]|\.\w){_TAIL}" if known else "(?!)" + _TAIL


# ---- named normalizers ---------------------------------------------------------------------------------

_HEX = "[0-9a-fA-F]"
_DASHED_UUID = rf"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}"
# Each pattern with its version. A pattern that matches more than before needs a new version: the keys of cassettes
# that name an older one are made anew.
_NAMED: Mapping[str, tuple[int, Callable[[Folders], str]]] = {
    # Without dashes only version 4: a checksum of the same length looks like one once in 64 times.
    "uuid": (
        1,
        lambda _: (
            rf"(?<![0-9A-Za-z])(?:{_DASHED_UUID}|{_HEX}{{12}}4{_HEX}{{3}}[89abAB]{_HEX}{{15}})(?![0-9A-Za-z])"
        ),
    ),
    "date": (2, lambda _: _DATE),
    "epoch": (1, lambda _: r"(?<![\w.-])\d{10}(?:\d{3})?(?:\.\d+)?(?!\w|\.\d)"),
    "tmp_path": (2, _tmp_path),
    "rootdir": (1, _rootdir),
    "tool_call_id": (
        2,
        lambda _: (
            r"\b(?:call_|toolu_(?:bdrk_|vrtx_)?|chatcmpl-tool-|tooluse_)"
            rf"(?:{_DASHED_UUID}|(?=[A-Za-z]*\d)[0-9A-Za-z]{{16,}})(?![0-9A-Za-z])"
        ),
    ),
}
NORMALIZERS: tuple[str, ...] = tuple(_NAMED)
"""The names of the normalizers, in the order in which they act."""


class Rule(NamedTuple):
    """One normalizer: its name, the name with its version for a cassette's header, and what it matches."""

    name: str
    versioned_name: str
    pattern: re.Pattern[str]


def rules_of(normalizers: Sequence[str | re.Pattern[str]], folders: Folders) -> tuple[Rule, ...]:
    """Return patterns as given, then the named normalizers in their order, each once. Raises SettingsError."""
    if isinstance(normalizers, str):
        raise SettingsError(f"normalize takes a list, not the text {normalizers!r}.")
    custom = [_custom_rule(each) for each in normalizers if not (isinstance(each, str) and each in _NAMED)]
    rules = {rule.name: rule for rule in custom}
    for name, (version, pattern) in _NAMED.items():
        if name in normalizers:
            versioned_name = name if version == 1 else f"{name}/{version}"
            rules[name] = Rule(name, versioned_name, re.compile(pattern(folders)))
    return tuple(rules.values())


def _custom_rule(normalizer: Any) -> Rule:
    pattern = normalizer
    if isinstance(normalizer, str) and normalizer.startswith("re:"):
        try:
            pattern = re.compile(normalizer.removeprefix("re:"))
        # Beside its own error: for large numbers, deep nesting, and warnings that the run makes errors.
        except (re.error, OverflowError, RecursionError, Warning) as error:
            raise SettingsError(
                f"The normalizer {normalizer!r} is not a regular expression: {error}."
            ) from error
    if not isinstance(pattern, re.Pattern) or not isinstance(pattern.pattern, str):
        raise SettingsError(
            f"There is no normalizer {normalizer!r}. Use {', '.join(NORMALIZERS)} or re:<pattern>."
        )
    text = f"{pattern.pattern}\0{pattern.flags}".encode("utf-8", "surrogatepass")
    name = f"re:{hashlib.blake2b(text, digest_size=4).hexdigest()}"
    return Rule(name, name, pattern)


# ---- masking -------------------------------------------------------------------------------------------

_EPOCH_SECONDS = range(10**9, 4_102_444_800)  # from September 2001 up to 2100
_TOOL_CALL_FIELDS = ("tool_call_id", "tool_use_id", "call_id")
_TOOL_CALL_TYPES = (
    *("function", "function_call", "custom_tool_call", "tool_use", "server_tool_use", "mcp_tool_use"),
    *("tool_call", "tool_result"),  # DSPy's
)
_WORD = re.compile(r"[\w-]+")
_WORDS = re.compile(r"[\w-]+(?:[.:|][\w-]+)*")
# A shorter id, or one without a digit, may be any word of a text.
_SHORTEST_ID = 6


def masked(question: Any, rules: Sequence[Rule], request: Any) -> Any:
    """Return a question with numbered placeholders for what the rules match; equal matches get the same one.

    ``question`` is the part of ``request`` that counts. The ids of tool calls in the fields of the whole request
    are masked in the question's texts too.
    """
    return _Mask(rules, request).question(question) if rules else question


class _Mask:
    """The placeholders of one question."""

    def __init__(self, rules: Sequence[Rule], request: Any) -> None:
        self._rules = rules
        self._placeholders: dict[str, dict[str, str]] = {rule.name: {} for rule in rules}
        self._has_ids = "tool_call_id" in self._placeholders
        ids = _tool_call_ids(request) if self._has_ids else ()
        self._ids = {each for each in ids if len(each) >= _SHORTEST_ID and any(map(str.isdigit, each))}

    def question(self, question: Any) -> Any:
        if isinstance(question, dict):
            # A date in a model's name and a seed that looks like a timestamp are part of the question.
            return {
                key: value if key in {"model", "seed"} else self._value(value)
                for key, value in sorted(question.items())
            }
        return self._value(question)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, dict):
            return {
                key: self._placeholder("tool_call_id", item)
                if self._has_ids and _is_tool_call_id(key, item, value)
                else self._value(item)
                for key, item in sorted(value.items())
            }
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if "epoch" in self._placeholders and type(value) in {int, float} and _is_epoch(value):
            return self._placeholder("epoch", repr(value))
        return value

    def _string(self, text: str) -> str:
        for rule in self._rules:
            is_custom = rule.name not in _NAMED
            with time_limit("normalize (lm_normalize)", rule.pattern.pattern) if is_custom else nullcontext():
                text = rule.pattern.sub(partial(self._match, rule.name), text)
        return _WORDS.sub(self._repeated_ids, text) if self._ids else text

    def _match(self, name: str, match: re.Match[str]) -> str:
        found = match[0]
        if not found or (name == "epoch" and not _is_epoch(float(found))):
            return found
        if name in {"tmp_path", "rootdir"}:
            folder, tail = found.removesuffix(match["tail"]), match["tail"]
            if "\\" in folder:
                tail = _WINDOWS_SLASHES.sub("/", tail)
            return self._placeholder(name, folder) + tail
        return self._placeholder(name, found.lower() if name == "uuid" else found)

    def _repeated_ids(self, words: re.Match[str]) -> str:
        """Mask an id from a field where a text repeats it: a whole word, or words joined by ``.``, ``:`` or ``|``."""
        if words[0] in self._ids:
            return self._placeholder("tool_call_id", words[0])
        return _WORD.sub(
            lambda word: self._placeholder("tool_call_id", word[0]) if word[0] in self._ids else word[0],
            words[0],
        )

    def _placeholder(self, name: str, found: str) -> str:
        placeholders = self._placeholders[name]
        return placeholders.setdefault(found, f"<{name}-{len(placeholders) + 1}>")


def _tool_call_ids(value: Any) -> Iterator[str]:
    """The values of the fields that hold ids of tool calls."""
    if isinstance(value, list):
        for item in value:
            yield from _tool_call_ids(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if _is_tool_call_id(key, item, value):
                yield item
            else:
                yield from _tool_call_ids(item)


def _is_tool_call_id(key: str, item: Any, around: Mapping[str, Any]) -> bool:
    return isinstance(item, str) and (
        key in _TOOL_CALL_FIELDS
        or (key == "id" and (around.get("type") in _TOOL_CALL_TYPES or "function" in around))
    )


def _is_epoch(number: float) -> bool:
    """Whether a number of 10 digits counts seconds, or one of 13 milliseconds, since 1970."""
    whole = int(number) if abs(number) < 1e13 else 0  # noqa: PLR2004
    return whole in _EPOCH_SECONDS or whole // 1000 in _EPOCH_SECONDS
