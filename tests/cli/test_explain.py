"""The command explain: what the keys of recordings are made of."""

import json

import pytest
from cli_helpers import record, run, user

from pytest_lmcache import use_cassette
from pytest_lmcache.interaction import Call
from pytest_lmcache.keys.strategies import strategy
from pytest_lmcache.redact.formats import FORMATS

OPENAI_KEY = "sk-proj-" + next(each.example for each in FORMATS if each.kind == "openai-key")
UUID = "550e8400-e29b-41d4-a716-446655440000"
SYSTEM = {"role": "system", "content": [{"type": "text", "text": "Today is 2026-11-30.", "cache_control": {"type": "ephemeral"}}]}  # fmt: skip
USER = user(f"run-77 of {UUID}, run-77, <redacted:openai-key:3f9a1c> and <redacted:MY_KEY>")
REQUEST = {"model": "openai/gpt-4o", "messages": [SYSTEM, USER], "temperature": 0}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one recording; gives a function that names its strategy as a recording would."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_key.py").write_text("def first(request): return request['messages'][1]['content'][:6]\n")
    monkeypatch.setattr("sys.path", [*__import__("sys").path])

    def written(key, name="a", request=REQUEST, normalize=()):
        path = record(tmp_path / f"cassettes/{name}.yaml", (request, "yes sir"), test="test_a.py::test_one")
        text = path.read_text()
        if not key.startswith("own"):
            keys = strategy(key, normalize)
            exact, own = (each.key(Call("completion", request)) for each in (strategy("exact"), keys))
            key, text = keys.name, text.replace(exact, own)
        path.write_text(text.replace("\nkey: exact/1\n", f"\nkey: {key}\n"))
        return path

    return written


def test_normalized_redacted_and_dropped(project, tmp_path, capsys):
    """Each piece that a normalizer masks, each placeholder, and each mark that does not count has its line."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nlm_normalize =\n  re:run-[0-9]+\n")
    project("exact", normalize=["uuid", "date", "re:run-[0-9]+"])
    out, err, code = run(capsys, "explain")
    assert (err, code) == ("", 0)
    key = next(line for line in out.splitlines() if line.startswith("#1 "))[3:]
    assert (
        out
        == f"""\
test_a.py::test_one
cassettes/a.yaml
exact/1+re:72b473d9+uuid+date/2: the whole request counts

#1 {key}
   made of
     call         completion
     model        "openai/gpt-4o"
     messages[0]  system: "Today is <date-1>."
     messages[1]  user: "<re:72b473d9-1> of <uuid-1>, <re:72b473d9-1>, <redacted:openai-key:3f9a1c> and <redacted:MY_…
     temperature  0
   dropped
     messages[0].content[0].cache_control
   redacted
     messages[1].content  <redacted:openai-key:3f9a1c> (its hash counts)
     messages[1].content  <redacted:MY_KEY> (the same for every secret)
   normalized
     messages[0].content  "2026-11-30" counts as <date-1>
     messages[1].content  "run-77" counts as <re:72b473d9-1>
     messages[1].content  "{UUID}" counts as <uuid-1>

Credentials, headers, addresses, timeouts, retries, callbacks and metadata are not recorded and are part of no key.
"""
    )
    assert "<redacted:MY_KEY>" in run(capsys, "explain", "--full")[0].partition("dropped")[0]


def explained(capsys):
    """The explanation of the only call."""
    found = json.loads(run(capsys, "explain", "--json")[0])
    [cassette] = found["cassettes"]
    [call] = cassette["calls"]
    return call, cassette["notes"]


def test_messages(project, capsys):
    """The strategy `messages` drops the model."""
    project("messages", request={**REQUEST, "custom_llm_provider": "x"})
    call, _ = explained(capsys)
    assert call["recorded_key"] == call["key"]
    assert call["dropped"] == ["model", "custom_llm_provider", "messages[0].content[0].cache_control"]
    assert [*call["question"]] == ["messages", "temperature"]


def test_content(project, capsys):
    """The strategy `content` drops parameters, and roles and names in messages; what is left is a list of texts."""
    named = {**USER, "name": "Ada"}
    project("content", request={**REQUEST, "messages": [SYSTEM, named], "stream": True})
    call, _ = explained(capsys)
    assert call["recorded_key"] == call["key"]
    assert call["streamed"]
    assert {"model", "temperature", "messages[*].role", "messages[*].name"} <= {*call["dropped"]}
    assert "messages[*].content" not in call["dropped"]
    assert call["question"] == ["Today is 2026-11-30.", USER["content"]]


def test_a_function_of_the_project(project, capsys):
    """It is imported from the project, and what the key is the same without is dropped."""
    project("own:own_key.first")
    call, notes = explained(capsys)
    assert notes == []
    assert call["question"] == "run-77"
    assert {"model", "temperature", "messages[*].role"} <= {*call["dropped"]}
    assert "what the function returns counts" in run(capsys, "explain")[0]


def test_a_function_that_is_gone(project, capsys):
    """The cassette is named with the function, and the others are explained."""
    project("own:gone.nowhere")
    project("exact", name="b")
    out, err, code = run(capsys, "explain")
    assert code == 1
    assert "cassettes/b.yaml" in out
    assert (
        "cassettes/a.yaml: its keys cannot be explained. The key strategy 'gone.nowhere' cannot be imported"
        in err
    )


def test_what_is_not_as_it_was(project, capsys):
    """An older normalizer, and a pattern that only a marker knows, are told; the key is then not compared."""
    path = project("exact", normalize=["date", "re:run-[0-9]+"])
    path.write_text(path.read_text().replace("date/2", "date"))
    assert explained(capsys)[1] == [
        "re:72b473d9 is the pattern of a marker: what it masks is not known here",
        "date is an older version: a run normalizes by date/2",
    ]
    assert "has another key" not in run(capsys, "explain")[0]
    path.write_text(path.read_text().replace("key: exact/1+re:72b473d9+date", "key: exact/0"))
    assert explained(capsys)[1] == ["exact/0 is an older version: a run makes keys by exact/1"]


def test_an_edited_request(project, capsys):
    """A request whose key would be another one is told."""
    path = project("exact")
    path.write_text(path.read_text().replace("temperature: 0", "temperature: 1"))
    assert "this request has another key, h" in run(capsys, "explain")[0]


def test_a_broken_call(project, capsys):
    """It is named, and the command goes on."""
    path = project("exact")
    path.write_text(path.read_text().replace("temperature: 0", "temperature: ]"))
    out, err, code = run(capsys, "explain")
    assert code == 1
    assert "exact/1: the whole request counts" in out
    assert f"{path}:" in err


@pytest.mark.slow
def test_a_recording(tmp_path, monkeypatch, capsys, provider):
    """What a real recording redacts and drops is what the command says, and its key is the recorded one."""
    import litellm

    monkeypatch.chdir(tmp_path)
    with use_cassette("cassettes/a.yaml", mode="record", key="messages", normalize=["tool_call_id", "epoch"]):
        litellm.completion(
            "openai/gpt-4o-mini",
            [user(f"My key is {OPENAI_KEY} since 1795449845.")],
            api_base=provider.url,
            api_key="sk-local",
            seed=1795449845,
        )
    call, notes = explained(capsys)
    assert (notes, call["recorded_key"]) == ([], call["key"])
    assert call["dropped"] == ["model"]
    [redacted] = call["redacted"]
    assert redacted["path"] == "messages[0].content"
    assert redacted["placeholder"].startswith("<redacted:openai-key:")
    assert redacted["counts"]
    assert call["normalized"] == [{"path": "messages[0].content", "value": "1795449845", "mask": "<epoch-1>"}]
    assert OPENAI_KEY not in run(capsys, "explain", "--full")[0]
