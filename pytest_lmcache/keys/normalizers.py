"""What changes from run to run and is no part of the question: ids, dates, folders, declared by name or pattern."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from pytest_lmcache.errors import SettingsError
from pytest_lmcache.time_limit import time_limit


class Folders(NamedTuple):
    """Absolute paths of folders that another machine, or the next run, has elsewhere."""

    rootdir: str = ""
    temporary: tuple[str, ...] = ()


def folders_here() -> Folders:
    """The current folder, and where temporary files are made."""
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
    # With seconds, or with AM or PM; anything else may be a score or a ratio.
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
    # What ctime and `date` write: the year comes last.
    rf"(?<!\w){_WEEKDAY}\s{_MONTH}\s{{1,2}}{_DAY}\s{_CLOCK}(?:{_ZONE})?\s{_YEAR}",
    rf"(?<!\w){_WEEKDAY}\s(?:{_MONTH}\s{{1,2}}{_DAY}|{_DAY}(?:\sof)?\s{_MONTH})",
)
_DATE = (
    # Every date and time begins with a digit or with one of these letters; most of a text is passed over quickly.
    rf"(?i:(?=\d|\b[adfjmnostw])(?:(?:(?<![\d:.]){_CLOCK}(?:{_ZONE})?(?:,|\son)?\s)?(?:{'|'.join(_DATES)})"
    rf"(?:(?:T|:|,?\s(?:at\s)?){_CLOCK}(?:{_ZONE})?|[_-][0-2]\d-?[0-5]\d-?[0-6]\d)?(?!\d)"
    rf"|(?<!\d){_YEAR}{_MONTH_NUMBER}{_DAY_NUMBER}[T_-]?[0-2]\d[0-5]\d[0-6]\d(?:\.\d+)?(?:{_ZONE})?(?!\d)"
    rf"|{_TIMES}))"
)

# ---- folders -------------------------------------------------------------------------------------------

_SLASH = r"(?:/+|\\+)"
_TAIL = r"(?P<tail>(?:[/\\]+[\w.@~+-]+)*)"
_OF_PYTEST = r"pytest-of-[^/\\\s]+[/\\]+pytest-(?:\d+|current)"
# By tempfile.
_MADE = rf"(?:{_SLASH}tmp[a-z0-9_]{{8}}(?![a-z0-9_]))?"
_WINDOWS_SLASHES = re.compile(r"\\+")
_WORKERS = re.compile(r"[/\\]popen-gw\d+$")


def _folders(paths: Sequence[str]) -> str:
    """A pattern for these folders, the longest first, however their slashes are written."""
    parts = [[part for part in re.split(r"[/\\]+", _WORKERS.sub("", path)) if part] for path in paths]
    written = {
        ("" if found[0].endswith(":") else _SLASH) + _SLASH.join(map(re.escape, found))
        for found in parts
        if found
    }
    return "|".join(sorted(written, key=lambda each: (-len(each), each)))


def _tmp_path(folders: Folders) -> str:
    known = _folders(folders.temporary)
    # pytest's own folder lies in the system's temporary one, and is masked as a whole.
    known = (
        rf"(?<![\w.~-])(?:{known})(?![\w-]|{_SLASH}{_OF_PYTEST})(?:{_SLASH}popen-gw\d+)?{_MADE}|"
        if known
        else ""
    )
    return (
        # The folder alone: what lies in it, the tail, keeps its name.
        rf"(?:{known}"
        # From the beginning of a path only: a path of n parts is read once, and not n times.
        r"(?<![\w.@~+/\\-])(?:[A-Za-z]:)?[\w.@~+-]*+(?:[/\\]+[\w.@~+-]+)*?"
        rf"[/\\]+{_OF_PYTEST}(?:{_SLASH}popen-gw\d+)?"
        rf"|(?:(?<![\w.~-])(?:/private)?(?:/tmp|/var/tmp|/var/folders/[^/\s]+/[^/\s]+/[TC0])"
        rf"|\b[A-Za-z]:{_SLASH}Users{_SLASH}[^/\\\n\"']+{_SLASH}AppData{_SLASH}Local{_SLASH}Temp"
        rf"|\b[A-Za-z]:{_SLASH}(?:Windows{_SLASH})?Temp)(?![\w-]){_MADE})" + _TAIL
    )


def _rootdir(folders: Folders) -> str:
    known = _folders([folders.rootdir])
    # `(?!)` matches nothing.
    return rf"(?<![\w.~-])(?:{known})(?![\w-]|\.\w){_TAIL}" if known else "(?!)" + _TAIL


# ---- the named ones ------------------------------------------------------------------------------------

_HEX = "[0-9a-fA-F]"
_PATTERNS: Mapping[str, Callable[[Folders], str]] = {
    # With dashes; without, only version 4, which a checksum of the same length is once in 64 times.
    "uuid": lambda _: (
        rf"(?<![0-9A-Za-z])(?:{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}"
        rf"|{_HEX}{{12}}4{_HEX}{{3}}[89abAB]{_HEX}{{15}})(?![0-9A-Za-z])"
    ),
    "date": lambda _: _DATE,
    "epoch": lambda _: r"(?<![\w.-])\d{10}(?:\d{3})?(?:\.\d+)?(?!\w|\.\d)",
    "tmp_path": _tmp_path,
    "rootdir": _rootdir,
    "tool_call_id": lambda _: (
        r"\b(?:call_|toolu_(?:bdrk_|vrtx_)?|chatcmpl-tool-|tooluse_)"
        rf"(?:{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}|(?=[A-Za-z]*\d)[0-9A-Za-z]{{16,}})(?![0-9A-Za-z])"
    ),
}
# Those that match more than they did at first: keys that a cassette has by an older one are made anew.
_VERSIONS = {"date": 2, "tmp_path": 2, "tool_call_id": 2}
NORMALIZERS: tuple[str, ...] = tuple(_PATTERNS)
"""The declared normalizers, in the order in which they act."""

_EPOCH_SECONDS = range(978_307_200, 4_102_444_800)  # 2001 up to 2100
_TOOL_CALL_FIELDS = frozenset({"tool_call_id", "tool_use_id", "call_id"})
_TOOL_CALL_TYPES = (
    *("function", "function_call", "custom_tool_call", "tool_use", "server_tool_use", "mcp_tool_use"),
    *("tool_call", "tool_result"),  # DSPy's
)
_WORD = re.compile(r"[\w-]+")
_WORDS = re.compile(r"[\w-]+(?:[.:|][\w-]+)*")
# A shorter id, or one without a digit, may be any word of a text.
_SHORTEST_ID = 6


class Rule(NamedTuple):
    """One normalizer: its name, by itself and in the header of a cassette, and what it matches."""

    name: str
    versioned: str
    pattern: re.Pattern[str]


def rules_of(normalizers: Sequence[str | re.Pattern[str]], folders: Folders) -> tuple[Rule, ...]:
    """Own rules as given, then the named ones in their order; each once. Raises SettingsError."""
    if isinstance(normalizers, str):
        raise SettingsError(f"Normalizers are a list; got the text {normalizers!r}.")
    own: dict[str, Rule] = {}
    named: set[str] = set()
    for normalizer in normalizers:
        if isinstance(normalizer, str) and normalizer in _PATTERNS:
            named.add(normalizer)
        else:
            rule = _own_rule(normalizer)
            own[rule.name] = rule
    return (*own.values(), *(_named_rule(name, folders) for name in _PATTERNS if name in named))


def _named_rule(name: str, folders: Folders) -> Rule:
    versioned = f"{name}/{_VERSIONS[name]}" if name in _VERSIONS else name
    return Rule(name, versioned, re.compile(_PATTERNS[name](folders)))


def _own_rule(normalizer: Any) -> Rule:
    pattern = normalizer
    if isinstance(normalizer, str) and normalizer.startswith("re:"):
        try:
            pattern = re.compile(normalizer.removeprefix("re:"))
        # Beside its own error: numbers and nesting that are too large, and warnings that are errors in the run.
        except (re.error, OverflowError, RecursionError, Warning) as error:
            raise SettingsError(
                f"The normalizer {normalizer!r} is no regular expression: {error}."
            ) from error
    if not isinstance(pattern, re.Pattern) or not isinstance(pattern.pattern, str):
        raise SettingsError(
            f"There is no normalizer {normalizer!r}. Valid are {', '.join(NORMALIZERS)} and re:<pattern>."
        )
    text = f"{pattern.pattern}\0{pattern.flags}".encode("utf-8", "surrogatepass")
    name = f"re:{hashlib.blake2b(text, digest_size=4).hexdigest()}"
    return Rule(name, name, pattern)


def normalized(question: Any, rules: Sequence[Rule], request: Any) -> Any:
    """A question with placeholders for what the rules match, numbered as they appear; equal matches get the same.

    ``request`` is all that was asked: ids that stand in its fields are found in the question's texts too.
    """
    return _Walk(rules, request).of(question) if rules else question


class _Walk:
    """One walk through one question."""

    def __init__(self, rules: Sequence[Rule], request: Any) -> None:
        self._rules = rules
        self._names = {rule.name for rule in rules}
        self._seen: dict[str, dict[str, str]] = {rule.name: {} for rule in rules}
        ids = _tool_call_ids(request) if "tool_call_id" in self._names else ()
        self._ids = frozenset(filter(_may_be_id, ids))

    def of(self, question: Any) -> Any:
        if isinstance(question, dict):
            # A dated model and a seed like a moment are the question.
            return {
                key: value if key in {"model", "seed"} else self._value(value)
                for key, value in sorted(question.items())
            }
        return self._value(question)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, dict):
            is_known = "tool_call_id" in self._names
            return {
                key: self._placeholder("tool_call_id", item)
                if is_known and _is_tool_call_id(key, item, value)
                else self._value(item)
                for key, item in sorted(value.items())
            }
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if "epoch" in self._names and type(value) in {int, float} and _is_epoch(value):
            return self._placeholder("epoch", repr(value))
        return value

    def _string(self, text: str) -> str:
        for rule in self._rules:
            is_own = rule.name not in _PATTERNS
            with time_limit("normalize (lm_normalize)", rule.pattern.pattern) if is_own else nullcontext():
                text = rule.pattern.sub(lambda match, rule=rule: self._match(rule.name, match), text)  # type: ignore[misc]
        return _WORDS.sub(self._repeated_id, text) if self._ids else text

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

    def _repeated_id(self, match: re.Match[str]) -> str:
        """An id of a field that a text repeats, as a whole word or as words that a dot, colon or bar joins."""
        if match[0] in self._ids:
            return self._placeholder("tool_call_id", match[0])
        return _WORD.sub(
            lambda word: self._placeholder("tool_call_id", word[0]) if word[0] in self._ids else word[0],
            match[0],
        )

    def _placeholder(self, name: str, found: str) -> str:
        seen = self._seen[name]
        return seen.setdefault(found, f"<{name}-{len(seen) + 1}>")


def _tool_call_ids(value: Any) -> Iterator[str]:
    """What stands in the fields that hold ids of tool calls."""
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
    if not isinstance(item, str):
        return False
    return key in _TOOL_CALL_FIELDS or (
        key == "id" and (around.get("type") in _TOOL_CALL_TYPES or "function" in around)
    )


def _may_be_id(text: str) -> bool:
    return len(text) >= _SHORTEST_ID and any(map(str.isdigit, text))


def _is_epoch(number: float) -> bool:
    """Whether a number of 10 digits counts seconds, or one of 13 milliseconds, since 1970."""
    whole = int(number) if number == number and abs(number) < 1e13 else 0  # noqa: PLR0124, PLR2004
    if whole < 10**9:
        return False
    return whole in _EPOCH_SECONDS or (whole >= 10**12 and whole // 1000 in _EPOCH_SECONDS)
