"""Makes the page of the data, as one HTML file that loads nothing and runs nothing but its own script."""

from __future__ import annotations

import base64
import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from pytest_lmcache import __version__
from pytest_lmcache.report.data import MISSED, SAVED, UNUSED, VALUE, Json, Part
from pytest_lmcache.summary import BY_TEST, CACHED, LIVE, RECORDED, REPLAYED, SPENT, Usage, price_of

# In this order; the first ones are shown even if there are none.
LABELS: Final = {
    REPLAYED: "replayed",
    RECORDED: "recorded",
    MISSED: "missed",
    UNUSED: "unused",
    CACHED: "asked and only cached",
    LIVE: "live and not recorded",
    **BY_TEST,
    VALUE: "remembered values",
}
ALWAYS: Final = (REPLAYED, RECORDED, MISSED, UNUSED)
SCRIPTS: Final = ("dom", "data", "state", "overview", "conversation", "list", "misses", "main")
# Nothing is loaded from anywhere; images are those in the data.
POLICY: Final = "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a page shows.

    - ``project``: the name at its top
    - ``about``: what was run and when, in one line
    - ``parts``: the calls, by test
    - ``outcomes``: the outcome of each test that was run
    - ``misses``: groups of misses, most tests first, and ``mends``: the lines that say what mends them
    - ``is_run``: whether it is about a run of pytest; if not, about cassettes
    """

    project: str
    about: str
    parts: Sequence[Part]
    outcomes: Mapping[str, str] = field(default_factory=dict)
    misses: Sequence[Json] = ()
    mends: Sequence[str] = ()
    is_run: bool = True


def project_name(rootdir: Path) -> str:
    """Return the name that a project's pyproject.toml gives it, or that of its folder."""
    try:
        given = tomllib.loads((rootdir / "pyproject.toml").read_text(encoding="utf-8"))
        name = given.get("project", {}).get("name")
    except (OSError, ValueError, AttributeError):  # none, or one that is not pytest's to judge
        name = None
    return name if isinstance(name, str) and name else rootdir.name


def write(report: Report, path: Path) -> None:
    """Write the page aside and rename it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{token_hex(8)}.tmp")
    try:
        aside.write_text(html(report), encoding="utf-8", newline="\n")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def html(report: Report) -> str:
    """Return the page."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    style = _file("page.css")
    script = "".join(_file(f"{name}.js") for name in SCRIPTS)
    data = _data(report)
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(_file("page.html.j2")).render(
        glance=_glance(report, data["calls"]),
        policy=POLICY.format(script=_digest(script), style=_digest(style)),
        style=Markup(style),  # noqa: S704 - these are files of this package
        script=Markup(script),  # noqa: S704
        data=Markup(_embedded(data)),  # noqa: S704 - no character in it is markup
    )


def _file(name: str) -> str:
    return (files("pytest_lmcache.report") / "page" / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _digest(text: str) -> str:
    """What the policy calls a script or a style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _embedded(data: Any) -> str:
    """JSON that can stand in a script element: it has no ``<``, ``>`` or ``&``, so it cannot end the element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


# ---- the data ------------------------------------------------------------------------------------------


class _Pool:
    """Keeps equal things once: calls of one test repeat their messages."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._numbers: dict[str, int] = {}

    def numbers(self, items: Iterable[Any]) -> list[int]:
        """Return the number of each item."""
        return [self._number(item) for item in items]

    def _number(self, item: Any) -> int:
        text = json.dumps(item)
        if text not in self._numbers:
            self._numbers[text] = len(self.items)
            self.items.append(item)
        return self._numbers[text]


def _data(report: Report) -> Json:
    messages, tools = _Pool(), _Pool()
    tests: dict[str, int] = {}
    rows: list[Json] = []
    numbers: Counter[str] = Counter()
    calls = []
    for part in report.parts:
        test = part["test"]
        if test not in tests:
            tests[test] = len(rows)
            rows.append({"id": test, "outcome": report.outcomes.get(test, ""), "cassette": part["cassette"]})
        for call in part["calls"]:
            numbers[test] += 1
            pooled = {
                "id": f"{test}/{numbers[test]}",
                "test": tests[test],
                "asked": messages.numbers(call["asked"]),
                "answered": messages.numbers(call["answered"]),
                "tools": tools.numbers(call["tools"]),
            }
            calls.append(call | pooled)
    return {
        "calls": calls,
        "messages": messages.items,
        "tests": rows,
        "tools": tools.items,
        "misses": [*report.misses],
        "mends": [*report.mends],
    }


# ---- the figures at the top, which need no script ------------------------------------------------------


def _glance(report: Report, calls: Sequence[Json]) -> Json:
    counts = Counter(call["outcome"] for call in calls)
    labels = {**LABELS, **{name: f"from {name}" for name in counts if name not in {*LABELS, SAVED}}}
    always: Sequence[str] = ALWAYS
    if not report.is_run:
        labels = {SAVED: "recordings", UNUSED: "unused in the last run", VALUE: LABELS[VALUE]}
        always = (SAVED,)
    shown = [name for name in labels if counts[name] or name in always]
    kinds = {call["comparison"]["kind"] for call in calls if "comparison" in call}
    return {
        "project": report.project,
        "about": report.about,
        "version": __version__,
        "misses": counts[MISSED],
        "conversations": len(calls),
        "compared": sum("comparison" in call for call in calls),
        "compared_as": "Asked again" if "asked again" in kinds else "Re-recorded",
        "figures": [{"outcome": name, "calls": counts[name], "label": labels[name]} for name in shown],
        "lines": [*_costs(calls)],
    }


def _costs(calls: Sequence[Json]) -> Iterable[str]:
    """What replaying saved, and what asking cost."""
    totals = {"saved": Usage(), "spent": Usage(), "recorded for": Usage()}
    for call in calls:
        outcome = call["outcome"]
        if outcome in {MISSED, UNUSED, VALUE, *BY_TEST}:
            continue
        verb = "recorded for" if outcome == SAVED else "spent" if outcome in SPENT else "saved"
        totals[verb] += _usage(call)
        comparison = call.get("comparison")
        if comparison is not None and comparison["kind"] == "asked again" and outcome == REPLAYED:
            totals["spent"] += _usage(comparison["after"])
    return [f"{verb} {price_of(total)}" for verb, total in totals.items() if total.tokens or total.usd]


def _usage(call: Json) -> Usage:
    """What a call took, or one side of a comparison."""
    inputs, outputs = call["tokens"]
    return Usage(1, inputs, outputs, call["usd"] or 0.0, int(call["usd"] is None and inputs + outputs > 0))
