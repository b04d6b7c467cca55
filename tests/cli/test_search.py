"""The command search: a text in prompts and answers."""

import json

import pytest
from cli_helpers import record, run, user

from pytest_lmcache.interaction import Answer, Kind

CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Troms\\u00f8"}'},
}
PIECES = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "The gera"}}]},
    "nium is ",
    "red.",
]
ASSISTANT = {"role": "assistant", "content": None, "reasoning_content": "geranium?", "tool_calls": [CALL]}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    system = {
        "role": "system",
        "content": "Talk of flowers.\nA geranium is a flower; a Geranium too.\nNo more.",
    }
    tool = {"type": "function", "function": {"name": "weather", "description": "for a geranium"}}
    error = {"class": "X", "message": "no geranium"}
    record(
        tmp_path / "cassettes/test_a/test_one.yaml",
        ([system, user("Which?")], "A rose."),
        ([system, user("Which?"), {"role": "assistant", "content": "A rose."}, user("Really?")], "Yes."),
        test="test_a.py::test_one",
    )
    record(
        tmp_path / "cassettes/test_a/test_two.yaml",
        ({"model": "other", "messages": [user("Which?")], "stream": True}, Answer(Kind.STREAM, PIECES)),
        (
            {
                "model": "other",
                "messages": [ASSISTANT, {"role": "tool", "tool_call_id": "call_1", "content": "geranium"}],
                "tools": [tool],
                "stop": "geranium",
            },
            Answer(Kind.ERROR, error),
        ),
    )
    return tmp_path  # fmt: skip


ONE, TWO = (f"cassettes/test_a/test_{name}.yaml" for name in ("one", "two"))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["geranium"], [
            f"{ONE} #1 system: A geranium is a flower; a Geranium too.",
            f"{TWO} #1 assistant: The geranium is red.",
            f"{TWO} #2 assistant reasoning: geranium?",
            f"{TWO} #2 tool: geranium",
            f"{TWO} #2 tools: " + '{"type": "function", "function": {"name": "weather", "description": "for a geranium"}}',
            f"{TWO} #2 parameters: " + '{"stop": "geranium"}',
            f"{TWO} #2 error: X: no geranium",
        ]),
        (["GERANIUM"], []),
        (["GERANIUM", "-i", "--role=system"], [f"{ONE} #1 system: A geranium is a flower; a Geranium too."] * 2),
        (["ger[a-z]+m is", "--regex", "--role=assistant"], [f"{TWO} #1 assistant: The geranium is red."]),
        (["ger[a-z]+m is", "--role=assistant"], []),
        (["geranium is red", "--model=oth"], [f"{TWO} #1 assistant: The geranium is red."]),
        (["geranium", "--model=gpt"], [f"{ONE} #1 system: A geranium is a flower; a Geranium too."]),
        (["Tromsø"], [f"{TWO} #2 assistant tool call: " + 'weather({"city": "Tromsø"})']),
        (["flowers.\nA"], [f"{ONE} #1 system: Talk of flowers. A geranium is a flower; a Geranium too."]),
        (["rose"], [f"{ONE} #1 assistant: A rose."]),
        (["geranium", "test_a.py::test_two", "--role=tool"], [f"{TWO} #2 tool: geranium"]),
    ],
)  # fmt: skip
def test_matches(project, capsys, arguments, found):
    """A match is found in every part, also in the pieces of a stream; a repeated message counts once."""
    assert run(capsys, "search", *arguments) == ("".join(f"{line}\n" for line in found), "", 0)


def test_exit_code(project, capsys):
    """Finding nothing and finding something are both fine; with --exit-code a match is 1."""
    assert run(capsys, "search", "geranium")[2] == 0
    assert run(capsys, "search", "geranium", "--exit-code")[2] == 1
    assert run(capsys, "search", "tulip", "--exit-code")[2] == 0


def test_a_pattern_that_is_none(project, capsys):
    """The error says what is wrong with it."""
    _, err, code = run(capsys, "search", "--regex", "(")
    assert code == 2
    assert "'(' is not a regular expression: missing )" in err


def test_a_long_line(tmp_path, monkeypatch, capsys):
    """Only the part around the match is shown."""
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "cassettes/a.yaml", ([user("x" * 200 + " here " + "y" * 200)], "z"))
    out, _, _ = run(capsys, "search", "here")
    assert out == f"cassettes/a.yaml #1 user: …{'x' * 79} here {'y' * 79}…\n"


def test_json(project, capsys):
    """The fields are those that the page documents."""
    out, _, code = run(capsys, "search", "is red", "--json")
    assert code == 0
    assert json.loads(out) == {
        "matches": [
            {
                "file": TWO,
                "test": "",
                "call": 1,
                "name": "completion",
                "model": "other",
                "role": "assistant",
                "part": "text",
                "line": "The geranium is red.",
                "start": 13,
                "end": 19,
            }
        ],
        "broken": [],
    }


def test_no_text(project, capsys):
    """An empty text is wrong usage, and a pattern that matches nothing at all between two characters finds words."""
    out, err, code = run(capsys, "search", "")
    assert (out, code) == ("", 2)
    assert "search takes the TEXT to look for, and it is empty." in err
    out, _, code = run(capsys, "search", "-e", "(?:Which)*", "--role=user")
    assert code == 0
    assert len(out.splitlines()) == 2
