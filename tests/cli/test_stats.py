"""The command stats: sums, what stands out, and duplicates."""

import json

import pytest
from cli_helpers import record, run, user

LOCAL = {"model": "local", "messages": [user("c")]}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "pytest_lmcache.cli.stats.seconds_since", lambda recorded: 86400 * (30 - int(recorded[8:10]))
    )
    record(tmp_path / "cassettes/a.yaml", ([user("a")], "A"), test="test_x.py::test_a")
    record(
        tmp_path / "cassettes/b.yaml",
        ([user("a")], "A"),
        ([user("b")], "B" * 500),
        (LOCAL, "C"),
        test="test_x.py::test_b",
    )
    record(tmp_path / "cassettes/c.yaml", (LOCAL, "C"), ([user("a")], "A"), ([user("a")], "A"))
    return tmp_path  # fmt: skip


SHOWN = """\
3 cassettes, 7 calls, {size}
recorded 20 days ago (2026-11-10) to 18 days ago (2026-11-12)

model   calls  input tokens  output tokens    usd  seconds
gpt-4o      5        13,000             25  $2.50      2.5
local       2         6,000             10      -      1.0
all         7        19,000             35  $2.50+      3.5
"""


def test_sums(project, capsys):
    """Size, age, tokens and USD are summed up, by model too."""
    out, err, code = run(capsys, "stats")
    assert (err, code) == ("", 0)
    head = [" ".join(line.split()) for line in out.split("\n\nbiggest")[0].splitlines()]
    total = sum(path.stat().st_size for path in project.rglob("*.yaml")) / 1000
    assert head == [" ".join(line.split()) for line in SHOWN.format(size=f"{total:.1f} kB").splitlines()]


def test_what_stands_out(project, capsys):
    """The biggest, oldest and most expensive cassettes are named, as many as are asked for."""
    out, _, _ = run(capsys, "stats", "--top=1")
    lists = {part.splitlines()[0]: part.splitlines()[1:] for part in out.split("\n\n")[2:]}
    assert [line.split()[-1] for line in lists["biggest"]] == ["test_x.py::test_b"]
    assert [line.split() for line in lists["oldest"]] == [["20", "days", "test_x.py::test_a"]]
    assert [line.split() for line in lists["most expensive"]] == [["$1.00+", "test_x.py::test_b"]]


def test_duplicates(project, capsys):
    """Questions of several cassettes are told with what their repetition costs; one asked twice by a test is none."""
    out, _, _ = run(capsys, "stats", "--top=2")
    duplicates = out[out.index("2 questions") :].splitlines()
    assert [" ".join(line.split()) for line in duplicates] == [
        "2 questions of several cassettes: 4 recordings too many, 12,020 tokens, $1.50",
        "3 cassettes model gpt-4o, 1 message, a",
        "test_x.py::test_a, test_x.py::test_b and 1 more",
        "2 cassettes model local, 1 message, c",
        "test_x.py::test_b, cassettes/c.yaml",
    ]


def test_json(project, capsys):
    """The fields are those that the page documents."""
    found = json.loads(run(capsys, "stats", "--json", "--top=1")[0])
    local = {"calls": 2, "input_tokens": 6000, "output_tokens": 10, "usd": 0, "unpriced": 2, "seconds": 1.0}
    gpt = {"calls": 5, "input_tokens": 13000, "output_tokens": 25, "usd": 2.5, "unpriced": 0, "seconds": 2.5}
    assert found["total"] == {name: local[name] + gpt[name] for name in local}
    assert found["models"] == [{"model": "gpt-4o", **gpt}, {"model": "local", **local}]
    assert (found["cassettes"], found["oldest"], found["newest"]) == (3, "2026-11-10T09:12:44Z", "2026-11-12T09:12:44Z")  # fmt: skip
    size = (project / "cassettes/b.yaml").stat().st_size
    assert found["most_expensive"] == [
        {"file": "cassettes/b.yaml", "test": "test_x.py::test_b", "bytes": size, "oldest": "2026-11-10T09:12:44Z", "usd": 1.0}
    ]  # fmt: skip
    assert found.keys() == {
        "cassettes", "values", "bytes", "oldest", "newest", "total", "models", "biggest", "most_expensive", "duplicates", "broken",
    } | {"oldest_cassettes"}  # fmt: skip
    [first, second] = found["duplicates"]
    assert (first["model"], first["recordings"], first["excess"]["calls"]) == ("gpt-4o", 4, 3)
    assert [each["file"] for each in second["cassettes"]] == ["cassettes/b.yaml", "cassettes/c.yaml"]


def test_numbers_are_aligned(tmp_path, monkeypatch, capsys):
    """The names of cassettes begin in the same column, also after a price of many digits."""
    from pytest_lmcache.interaction import Answer, Kind

    monkeypatch.chdir(tmp_path)
    for name, usd in (("a", 1.23e-05), ("b", 2.0)):
        answer = Answer(Kind.RESPONSE, {"choices": []}, seconds=0.5, usd=usd)
        record(tmp_path / f"cassettes/{name}.yaml", ([user("x")], answer), test=f"test.py::test_{name}")
    out, _, code = run(capsys, "stats")
    assert code == 0
    rows = out.partition("most expensive\n")[2].splitlines()[:2]
    assert len({row.index("test.py") for row in rows}) == 1
