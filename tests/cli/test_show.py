"""The command show: recordings as conversations."""

import json
import re
import textwrap

import pytest
from cli_helpers import on_terminal, record, run, user

from pytest_lmcache.interaction import Answer, Kind

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
ASKED = [{"role": "system", "content": "Be brief."}, user("Weather in Oslo?\nOne line.")]
ASSISTANT = {"role": "assistant", "content": None, "tool_calls": [CALL]}
PIECES = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": "It "}}]}, "rains."]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("show", "list_", "stats"):
        monkeypatch.setattr(f"pytest_lmcache.cli.{name}.seconds_since", lambda _: 7200)
    choices = [
        {
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "tool_calls": [CALL],
                "reasoning_content": "I need\nthe weather.",
            },
        }
    ]
    first = Answer(
        Kind.RESPONSE,
        {"model": "gpt-4o-2", "choices": choices, "usage": {"prompt_tokens": 1200, "completion_tokens": 9}},
        seconds=1.234,
        usd=0.0123,
    )
    image = {
        "role": "user",
        "content": [
            {"type": "text", "text": "What?"},
            {"type": "image_url", "image_url": {"url": "https://x.org/a.png"}},
        ],
    }
    error = Answer(
        Kind.ERROR,
        {"class": "litellm.BadRequestError", "message": "litellm.BadRequestError: no"},
        seconds=0.1,
    )
    record(
        tmp_path / "cassettes/test_a/test_agent.yaml",
        ({"model": "openai/gpt-4o", "messages": ASKED, "tools": [TOOL], "temperature": 0}, first),
        (
            {
                "model": "openai/gpt-4o",
                "messages": [
                    *ASKED,
                    ASSISTANT,
                    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
                ],
                "stream": True,
            },
            Answer(Kind.STREAM, PIECES),
        ),
        ({"model": "openai/gpt-4o", "messages": [image]}, error),
        test="test_a.py::test_agent",
    )
    return tmp_path  # fmt: skip


SHOWN = """\
test_a.py::test_agent
cassettes/test_a/test_agent.yaml

#1 completion  openai/gpt-4o (answered: gpt-4o-2)
   1,200 + 9 tokens, $0.012, 1.23 s, 2 h ago
   temperature=0
   tools: weather
   system
     Be brief.
   user
     Weather in Oslo?
     One line.
   assistant
     reasoning:
       I need
       the weather.
     → weather(city="Oslo")  call_1
   finished: tool_calls

#2 completion  openai/gpt-4o
   0.00 s, streamed, 2 h ago
   … 2 messages as in #1
   assistant
     → weather(city="Oslo")  call_1
   tool call_1
     rain
   assistant
     It rains.

#3 completion  openai/gpt-4o
   0.10 s, 2 h ago
   user
     What?
     [image: https://x.org/a.png]
   error
     litellm.BadRequestError: no
"""


def test_a_conversation(project, capsys):
    """Roles, texts, tool calls and results, reasoning, a joined stream, an image and an error read as one would say it."""
    assert run(capsys, "show") == (SHOWN + "\n", "", 0)


def test_one_call_and_all_messages(project, capsys):
    """--call shows one call, --full repeats what an earlier call has."""
    out, _, _ = run(capsys, "show", "test_a.py::test_agent", "--call=2")
    assert "#1" not in out
    assert "Be brief." in out
    assert run(capsys, "show", "--full")[0].count("Be brief.") == 2
    assert "there is no call 9: the cassette has 3 calls" in run(capsys, "show", "--call=9")[0]


def test_a_broken_call(project, capsys):
    """The call is named, and those beside it are shown."""
    path = project / "cassettes/test_a/test_agent.yaml"
    path.write_text(path.read_text().replace("reasoning_content: |-", "reasoning_content: ]"))
    out, err, code = run(capsys, "show")
    assert code == 1
    assert "#1 is broken, see below" in out
    assert "It rains." in out
    assert f"{path}:" in err


def test_json(project, capsys):
    """The fields are those that the page documents."""
    out, _, code = run(capsys, "show", "--json", "--call=1")
    assert code == 0
    [cassette] = json.loads(out)["cassettes"]
    [call] = cassette.pop("calls")
    assert cassette == {"file": "cassettes/test_a/test_agent.yaml", "test": "test_a.py::test_agent"}
    assert call.pop("key").startswith("k")
    empty = {"reasoning": "", "tool_calls": [], "attachments": [], "tool_call_id": ""}
    assert call == {
        "number": 1,
        "name": "completion",
        "kind": "response",
        "input_tokens": 1200,
        "output_tokens": 9,
        "usd": 0.0123,
        "seconds": 1.234,
        "recorded": "2026-11-10T09:12:44Z",
        "model": "openai/gpt-4o",
        "answered_model": "gpt-4o-2",
        "asked": [
            {"role": "system", "text": "Be brief.", **empty},
            {"role": "user", "text": "Weather in Oslo?\nOne line.", **empty},
        ],
        "answered": [
            {
                **empty,
                "role": "assistant",
                "text": "",
                "reasoning": "I need\nthe weather.",
                "tool_calls": [{"name": "weather", "arguments": {"city": "Oslo"}, "id": "call_1"}],
            }
        ],
        "tools": [TOOL],
        "parameters": {"temperature": 0},
        "finish_reason": "tool_calls",
        "error": "",
    }


def test_data_is_not_repeated_in_json(tmp_path, monkeypatch, capsys):
    """An image that the cassette holds is named, and its address is given if it has one."""
    monkeypatch.chdir(tmp_path)
    urls = ["data:image/png;base64,AAAA", "https://x.org/a.png"]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    record(tmp_path / "cassettes/a.yaml", ([{"role": "user", "content": parts}], "x"))
    [cassette] = json.loads(run(capsys, "show", "--json")[0])["cassettes"]
    assert cassette["calls"][0]["asked"][0]["attachments"] == [
        {"kind": "image", "name": "image/png, 3 bytes, 31d88a"},
        {"kind": "image", "name": "https://x.org/a.png", "url": "https://x.org/a.png"},
    ]


@pytest.mark.slow
def test_control_characters(tmp_path, monkeypatch, capsys):
    """What a model wrote cannot move the cursor, clear the screen or set a title; markup is text."""
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "cassettes/a.yaml", ([user("x")], "said"))
    path = tmp_path / "cassettes/a.yaml"
    path.write_text(
        path.read_text().replace(
            "content: said", 'content: "\\e]0;title\\a\\e[2J\\x9b31m [bold]no[/bold] :smile:"'
        )
    )
    out, _, _ = run(capsys, "show")
    assert r"\x1b]0;title\x07\x1b[2J\x9b31m [bold]no[/bold] :smile:" in out
    text, _ = on_terminal(tmp_path, "show", columns=200)
    assert r"\x1b]0;title\x07\x1b[2J\x9b31m [bold]no[/bold] :smile:" in text
    assert "\x1b]0" not in text


@pytest.mark.slow
def test_a_terminal(project):
    """A terminal gets colours, and long lines are wrapped below their beginning."""
    long = "word " * 40
    path = project / "cassettes/test_a/test_agent.yaml"
    path.write_text(path.read_text().replace("Be brief.", long.strip()))
    text, code = on_terminal(project, "show", "--call=1", columns=60)
    assert code == 0
    assert "\x1b[" in text
    plain, _ = on_terminal(project, "show", "--call=1", columns=60, NO_COLOR="1")
    assert "\x1b[3" not in plain
    wrapped = [
        line.rstrip()
        for line in re.sub(r"\x1b\[\d*m", "", plain).splitlines()
        if line.startswith("     word")
    ]
    assert wrapped == textwrap.wrap(long, 60, initial_indent="     ", subsequent_indent="     ")
