"""docs/command.md: its examples of output are what the command prints, and its fields of JSON are those that it gives."""

import json
import re
import shlex
from pathlib import Path

import pytest
from cli_helpers import run

from pytest_lmcache.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/command.md").read_text(encoding="utf-8")
SESSIONS = re.findall(
    r"^```console\n\$ pytest-lmcache ((?:list|show|search|stats|explain)\b[^\n]*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
)  # fmt: skip
AGE = re.compile(r"\b[\d.,]+ (?:s|min|h|days?|years)\b")


def without_ages(text):
    """A text without ages, which grow, and without the spaces that align them."""
    return re.sub(r" +", " ", AGE.sub("AGE", text))


@pytest.mark.parametrize(("line", "printed"), SESSIONS, ids=[line for line, _ in SESSIONS])
def test_examples(line, printed, capsys, monkeypatch):
    """What the page shows is what the command prints for the recordings of this repository."""
    monkeypatch.chdir(ROOT)
    out, err, code = run(capsys, *shlex.split(line))
    assert (err, code) == ("", 0)
    assert without_ages(out.rstrip("\n")) == without_ages(printed.rstrip("\n"))


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_section(name):
    """No command is missing from the page."""
    assert re.search(rf"^## .*`{name}`", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", ["list", "show", "search e", "stats", "explain"])
def test_fields_of_json(name, capsys, monkeypatch):
    """Each field that the command gives is in its section."""
    monkeypatch.chdir(ROOT)
    found = json.loads(run(capsys, *name.split(), "--json", "examples/test_assistant.py::TestOrders")[0])
    section = PAGE[PAGE.index(f"## `{name.split()[0]}`") :].partition("\n## ")[0]
    others = PAGE[PAGE.index("## `list`") :].partition("\n## ")[0]  # says what `broken` is

    def fields(value):
        if isinstance(value, dict):
            for key, item in value.items():
                yield key
                if key not in {"question", "parameters", "tools", "arguments"}:
                    yield from fields(item)
        elif isinstance(value, list):
            for item in value:
                yield from fields(item)

    for field in {*fields(found)} - {"broken"}:
        assert f"`{field}`" in section, field
    assert "`broken`" in others
