"""The command list: tests, calls, models, tokens, USD, age and size of each cassette."""

import json
import re

import pytest
from cli_helpers import on_terminal, record, run, user


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Three tests with recordings: an old one, an expensive one, and one of a model without a price."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "pytest_lmcache.cli.list_.seconds_since", lambda recorded: 86400 * (30 - int(recorded[8:10]))
    )
    local = {"model": "local", "messages": [user("c")]}
    record(tmp_path / "cassettes/test_a/test_old.yaml", ([user("a")], "A"), test="test_a.py::test_old")
    record(
        tmp_path / "cassettes/test_a/test_two.yaml",
        ([user("a")], "A"),
        ([user("b")], "B" * 500),
        (local, "C"),
        test="test_a.py::test_two",
    )
    record(tmp_path / "cassettes/test_b/test_local.yaml", (local, "C"))
    return tmp_path  # fmt: skip


def test_rows(project, capsys):
    """Each cassette is a row, named by its test or else by its file, and the last row is the sum."""
    out, err, code = run(capsys, "list")
    assert (err, code) == ("", 0)
    assert [line.split("  ") for line in ("  ".join(filter(None, map(str.strip, row.split("  ")))) for row in out.splitlines())] == [
        ["test", "calls", "models", "tokens", "usd", "age", "size"],
        ["test_a.py::test_old", "1", "gpt-4o", "1,005", "$0.50", "20 days", "422 B"],
        ["test_a.py::test_two", "3", "gpt-4o, local", "9,015", "$1.00+", "20 days", "1.6 kB"],
        ["cassettes/test_b/test_local.yaml", "1", "local", "1,005", "-", "20 days", "362 B"],
        ["3 cassettes", "5", "11,025", "$1.50+", "20 days", "2.4 kB"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ([], "test_old"),
        (["-r"], "test_local"),
        (["--sort=calls"], "test_two"),
        (["--sort=usd"], "test_two"),
        (["--sort=tokens"], "test_two"),
        (["--sort=size"], "test_two"),
        (["--sort=size", "--reverse"], "test_local"),
        (["--sort=models", "-r"], "test_local"),
        (["--sort=age", "cassettes/test_b", "test_a.py"], "test_old"),
    ],
)
def test_order(project, capsys, options, first):
    """The largest comes first, unless it is turned round."""
    out, _, code = run(capsys, "list", *options)
    assert code == 0
    assert first in out.splitlines()[1]


def test_an_order_that_does_not_exist(project, capsys):
    """The error names the orders."""
    _, err, code = run(capsys, "list", "--sort=price")
    assert code == 2
    assert "'usd'" in err


def test_json(project, capsys):
    """The fields are those that the page documents."""
    out, err, code = run(capsys, "list", "--json", "test_a.py::test_two")
    assert (err, code) == ("", 0)
    assert json.loads(out) == {
        "cassettes": [
            {
                "file": "cassettes/test_a/test_two.yaml",
                "test": "test_a.py::test_two",
                "calls": 3,
                "values": 0,
                "models": ["gpt-4o", "local"],
                "input_tokens": 9000,
                "output_tokens": 15,
                "usd": 1.0,
                "unpriced": 1,
                "oldest": "2026-11-10T09:12:44Z",
                "newest": "2026-11-12T09:12:44Z",
                "bytes": (project / "cassettes/test_a/test_two.yaml").stat().st_size,
                "key": "exact/1",
                "format": 2,
            }
        ],
        "broken": [],
    }


@pytest.mark.parametrize("command", ["list", "show", "stats", "search x"])
def test_an_empty_folder(tmp_path, monkeypatch, capsys, command):
    """Each command that reads says that there is no cassette; that is no fault."""
    monkeypatch.chdir(tmp_path)
    assert run(capsys, *command.split()) == ("", "cassettes has no cassette of pytest-lmcache.\n", 0)
    out, err, code = run(capsys, *command.split(), "--json")
    assert (err, code) == ("cassettes has no cassette of pytest-lmcache.\n", 0)
    assert isinstance(json.loads(out), dict)


@pytest.mark.parametrize("command", ["list", "show", "stats", "search A"])
def test_a_broken_file(project, capsys, command):
    """Each command that reads names the file, still shows the others, and exits with 1."""
    broken = project / "cassettes/test_a/test_broken.yaml"
    broken.write_text("lmcache: 1\nkey: exact/1\n---\nkey: [\n")
    out, err, code = run(capsys, *command.split())
    assert code == 1
    assert "test_two" in out
    assert err.startswith(f"{broken}:4: this interaction is cut off")
    found = json.loads(run(capsys, *command.split(), "--json")[0])
    [problem] = found["broken"]
    assert problem["file"] == "cassettes/test_a/test_broken.yaml"
    assert problem["problem"].startswith(f"{broken}:4: ")


def test_values_are_no_calls(tmp_path, monkeypatch, capsys):
    """What a test remembered is counted apart from calls of models, and shown as a value."""
    from pytest_lmcache import use_cassette

    monkeypatch.chdir(tmp_path)
    with use_cassette("cassettes/a.yaml", mode="record") as tape:
        tape.remember("run id", lambda: "abc")
    out, _, _ = run(capsys, "list", "--json")
    [found] = json.loads(out)["cassettes"]
    assert (found["calls"], found["values"], found["models"], found["unpriced"]) == (0, 1, [], 0)
    assert "\n   value\n     abc\n" in run(capsys, "show")[0]
    assert "1 cassette, 0 calls, 1 remembered value, " in run(capsys, "stats")[0]
    assert run(capsys, "search", "abc", "--role=value")[0].endswith("value: abc\n")
    assert "remember run id" in run(capsys, "explain")[0]


@pytest.mark.slow
def test_a_terminal(project):
    """A terminal gets headings in bold within its width, without colours if NO_COLOR is set."""
    wide, code = on_terminal(project, "list", columns=200)
    assert code == 0
    assert "\x1b[1m" in wide
    narrow, _ = on_terminal(project, "list", columns=60, NO_COLOR="1")
    assert "\x1b[3" not in narrow
    assert max(len(re.sub(r"\x1b\[\d*m", "", line)) for line in narrow.splitlines()) == 60
    assert "9,015" in narrow
