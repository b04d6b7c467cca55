"""The command diff: two recordings of the same tests, as a reviewer reads what changed."""

import json
from pathlib import Path

import pytest
from cli_helpers import git, record, user, write

from pytest_lmcache.cassette.document import entry_of
from pytest_lmcache.cli.main import main
from pytest_lmcache.interaction import Answer, Call, Interaction, Kind


def answered(*calls, text=None, tokens=(10, 5), ident="x"):
    """An answer with tool calls, as a provider gives it."""
    tools = [
        {
            "id": f"call_{ident}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for name, arguments in calls
    ]
    message = {"role": "assistant", "content": text, **({"tool_calls": tools} if tools else {})}
    choice = {"finish_reason": "tool_calls" if tools else "stop", "message": message}
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return Answer(Kind.RESPONSE, {"id": ident, "model": "m", "choices": [choice], "usage": usage}, seconds=0.5, usd=tokens[1] / 1000)  # fmt: skip


def asked(*texts, **more):
    return {"model": "m", "messages": [user(text) for text in texts], **more}


def system(text):
    return [{"role": "system", "content": text}, user("What is the capital of France?")]


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Writes two recordings of a test and returns the command's arguments."""
    monkeypatch.chdir(tmp_path)

    def write_both(before, after):
        record(tmp_path / "a.yaml", *before, test="test_it.py::test_one")
        record(tmp_path / "b.yaml", *after, test="test_it.py::test_one")
        return "diff", "a.yaml", "b.yaml"

    return write_both


def said(capsys, *arguments, code=0):
    assert main([*arguments]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_an_edited_prompt(pair, capsys):
    """The changed words of the question and the answer stand in their lines, with tokens and cost, and a total."""
    before = [(system("You are a geographer.\nBe brief."), "Paris."), ([user("Bye")], "Bye.")]
    after = [(system("You are a historian.\nBe brief."), "Paris, of course."), ([user("Bye")], "Bye.")]
    assert said(capsys, *pair(before, after)) == (
        "test_it.py::test_one (changed, b.yaml)\n"
        "  call 1, gpt-4o: What is the capital of France?\n"
        "    asked: system\n"
        "        You are a [-geographer-]{+historian+}.\n"
        "    answered\n"
        "        Paris{+, of course+}.\n"
        "    2,005 tokens, $0.50\n"
        "  1 call unchanged\n"
        "\n"
        "1 cassette changed: 1 question and 1 answer changed; 4,010 tokens, $1.00\n"
    )


def test_the_same_answers_again(pair, capsys):
    """Ids, times and the ids of tool calls are of each run: a test that was recorded again says the same."""
    one, two = (
        [
            (asked("x"), answered(("find", {"q": "a"}), ident=ident)),
            (asked("y"), answered(text="z", ident=ident)),
        ]
        for ident in ("abc123", "def456")
    )
    assert said(capsys, *pair(one, two), "--exit-code") == "no difference in 1 cassette\n"


def test_tool_calls_are_data(pair, capsys):
    """An argument that changed is a line with its path; a tool that is called or not any more is told as a whole."""
    before = [(asked("x"), answered(("find", {"query": {"city": "Paris", "days": 3}}), ("pay", {"eur": 5})))]
    after = [
        (asked("x"), answered(("find", {"query": {"city": "Rome", "days": 4}}), ("ask", {}), tokens=(10, 7)))
    ]
    out = said(capsys, *pair(before, after))
    assert "    answered, tool call find\n" in out
    assert "query.city: [-Paris-]{+Rome+}\n" in out
    assert "query.days: [-3-]{+4+}\n" in out
    assert "    answered, tool call ask, added\n      + ask({})\n" in out
    assert '    answered, tool call pay, removed\n      - pay({"eur": 5})\n' in out
    assert "    15 → 17 tokens (+2), $0.005 → $0.007\n" in out
    assert out.splitlines()[-1].startswith(
        "1 cassette changed: 1 answer changed, 1 answer with other tool calls; 15 → 17 tokens (+2)"
    )


def test_parameters_tools_and_models(pair, capsys):
    """What else was asked is told by its path."""
    tool = {"type": "function", "function": {"name": "find", "parameters": {"required": ["a"]}}}
    other = {"type": "function", "function": {"name": "find", "parameters": {"required": ["b"]}}}
    before = [(asked("x y z", temperature=0.5, tools=[tool]), answered(text="z"))]
    after = [({**asked("x y z", seed=1, tools=[other]), "model": "n"}, answered(text="z"))]
    out = said(capsys, *pair(before, after))
    assert "    model\n" in out
    assert "temperature: [-0.5-]\n" in out
    assert "seed: {+1+}\n" in out
    assert "    tool find\n" in out
    assert "function.parameters.required[0]: " in out


def test_a_remembered_value(pair, capsys):
    """What a test remembered is compared as a value under its name."""
    arguments = pair([], [])
    for name, value in (("a", 1), ("b", 2)):
        interaction = Interaction("k1", Call("remember run", {}), Answer(Kind.RESPONSE, {"value": value}), "2026-11-10T09:12:44Z")  # fmt: skip
        text = entry_of(interaction, Path()).text.decode()
        Path(f"{name}.yaml").write_text(f"lmcache: 1\nkey: exact/1\n--- # 1\n{text}")
    out = said(capsys, *arguments)
    assert "  call 1, remember run\n" in out
    assert "1 cassette changed: 1 answer changed" in out


def test_calls_are_paired(pair, capsys):
    """Equal calls stand for each other wherever they are, changed ones by their words; others are added or removed."""
    before = [
        ([user(text)], "a") for text in ("one two three four", "the same", "gone with all of its words")
    ]
    after = [
        ([user(text)], "a") for text in ("the same", "one two three five", "quite something else entirely")
    ]
    out = said(capsys, *pair(before, after), "--json")
    calls = json.loads(out)["cassettes"][0]["calls"]
    assert [(each["before"], each["after"]) for each in calls] == [(1, 2), (3, None), (None, 3)]
    assert calls[0]["changes"] == [
        {
            "side": "question",
            "what": "asked: user",
            "lines": [[["same", "one two three "], ["removed", "four"], ["added", "five"]]],
        }
    ]
    assert json.loads(out)["cassettes"][0]["unchanged"] == 1


def test_exit_code(pair, capsys):
    """Only with --exit-code a difference is an exit code of 1."""
    arguments = pair([([user("x")], "a")], [([user("x")], "b")])
    assert main([*arguments]) == 0
    assert main([*arguments, "--exit-code"]) == 1


def test_markdown(pair, capsys):
    """The text of a pull request: nothing in a prompt acts as Markdown or HTML, and a fence is longer than those in it."""
    before = [([user("Say <b>hi</b> | `x`")], "```\nold\n```")]
    after = [([user("Say <b>hi</b> | `y`")], "```\nnew\n```")]
    out = said(capsys, *pair(before, after), "--markdown")
    lines = out.splitlines()
    assert lines[0].startswith("**Recordings**: 1 cassette changed: 1 question and 1 answer changed; ")
    assert lines[2:5] == [
        "| test | what changed | tokens and cost |",
        "|---|---|---|",
        "| <code>test_it.py::test_one</code> | 1 question and 1 answer changed | 1,005 tokens, \\$0.50 |",
    ]
    assert "**call 1, gpt-4o: Say \\<b\\>hi\\</b\\> \\| \\`y\\`**" in lines
    assert "```diff\n- Say <b>hi</b> | `x`\n+ Say <b>hi</b> | `y`\n```" in out
    assert "- old\n+ new" in out
    out = said(capsys, *pair([([user("x")], "```old\ny")], [([user("x")], "```new\ny")]), "--markdown")
    assert "````diff\n- ```old\n+ ```new\n````\n" in out


def test_markdown_of_a_word_that_was_added(pair, capsys):
    """A line that only has a word more stands there as it was and as it is: it is no new line."""
    out = said(capsys, *pair([([user("Be brief.")], "y")], [([user("Be very brief.")], "y")]), "--markdown")
    assert "```diff\n- Be brief.\n+ Be very brief.\n```" in out


def test_a_long_markdown_is_cut(pair, capsys):
    """GitHub refuses a text of more than 65,536 characters: it says what is left out."""
    before, after = (
        [([user(f"{n}")], "".join(f"line {n}.{line} {text}\n" for line in range(40))) for n in range(60)]
        for text in ("old", "new")
    )
    out = said(capsys, *pair(before, after), "--markdown")
    assert len(out) < 65_536
    assert "… and the changes of 1 more test" in out


def test_a_change_that_many_tests_share_is_shown_once(tmp_path, capsys, monkeypatch):
    """An edited system prompt of 60 tests is one change with its number of calls; what else a test changed stands below."""
    monkeypatch.chdir(tmp_path)
    for folder, role in (("a", "geographer"), ("b", "historian")):
        for n in range(60):
            messages = [{"role": "system", "content": f"You are a {role}."}, user(f"question {n}")]
            said_then = "other" if n == 7 and folder == "b" else "same"
            record(tmp_path / f"{folder}/{n}.yaml", (messages, said_then), test=f"t.py::test_{n}")
    lines = said(capsys, "diff", "a", "b").splitlines()
    assert lines[:3] == [
        "the same in 60 calls of 60 cassettes (t.py::test_0, t.py::test_1, t.py::test_10 and 57 more)",
        "    asked: system",
        "        You are a [-geographer-]{+historian+}.",
    ]
    assert lines[4:8] == [
        "t.py::test_7 (changed, b/7.yaml)",
        "  call 1, gpt-4o: question 7",
        "    answered",
        "      - same",
    ]
    assert lines[-2:] == [
        "59 cassettes with nothing else changed",
        "60 cassettes changed: 60 questions and 1 answer changed; 60,300 tokens, $30.00",
    ]
    assert len(lines) < 15
    text = said(capsys, "diff", "a", "b", "--markdown")
    assert text.count("historian") == 1
    assert text.count("<details>") == 1
    shared = json.loads(said(capsys, "diff", "a", "b", "--json"))["shared"]
    assert [(each["what"], each["calls"], len(each["tests"])) for each in shared] == [
        ("asked: system", 60, 60)
    ]


# ---- git -----------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with three cassettes, one commit."""
    root = tmp_path / "repo"
    (root / "sub").mkdir(parents=True)
    git(root, "init")
    (root / "pytest.ini").write_text("[pytest]\n")
    for name in ("one", "two", "three"):
        record(
            root / f"cassettes/test_it/test_{name}.yaml",
            ([user(f"the question of {name}")], f"{name}"),
            test=f"test_it.py::test_{name}",
        )
    git(root, "add", ".")
    git(root, "commit", "-m", "first")
    monkeypatch.chdir(root)
    return root


def change(root):
    """One is recorded again, two is renamed, three is deleted, four is new."""
    folder = root / "cassettes/test_it"
    record(folder / "test_one.yaml", ([user("the question of one")], "uno"), test="test_it.py::test_one")
    (folder / "test_two.yaml").rename(folder / "test_zwei.yaml")
    (folder / "test_three.yaml").unlink()
    record(folder / "test_four.yaml", ([user("another")], "four"), test="test_it.py::test_four")


def kinds(out):
    return {each["test"]: (each["kind"], each["old_path"]) for each in json.loads(out)["cassettes"]}


def test_with_a_commit(repository, capsys, monkeypatch):
    """The working tree is compared with a commit from any folder: changed, renamed, deleted and untracked files."""
    assert said(capsys, "diff", "--git", "HEAD", "--exit-code") == "no difference\n"
    change(repository)
    monkeypatch.chdir(repository / "sub")
    assert set(kinds(said(capsys, "diff", "--git", "HEAD", "--json")).values()) == {
        ("changed", ""),
        ("renamed", str(repository / "cassettes/test_it/test_two.yaml")),
        ("removed", ""),
        ("added", ""),
    }


def test_a_file_that_was_moved_and_recorded_again(repository, capsys):
    """Without a key in common its cassettes are still those of the same tests, by their names."""
    folder = repository / "cassettes/test_it"
    for path in folder.iterdir():
        path.unlink()
    for name in ("one", "two", "three"):
        record(repository / f"cassettes/test_new/test_{name}.yaml", ([user(f"the riddle of {name}")], name), test=f"test_new.py::test_{name}")  # fmt: skip
    found = kinds(said(capsys, "diff", "--git", "HEAD", "--json"))
    assert found == {
        f"test_new.py::test_{name}": ("renamed", f"cassettes/test_it/test_{name}.yaml")
        for name in ("one", "two", "three")
    }


@pytest.mark.parametrize(
    ("target", "tests"),
    [
        ("cassettes/test_it/test_one.yaml", {"test_it.py::test_one"}),
        ("cassettes/test_it/test_three.yaml", {"test_it.py::test_three"}),
        ("test_it.py::test_one", {"test_it.py::test_one"}),
        ("cassettes", {"test_it.py::test_one", "test_it.py::test_two", "test_it.py::test_three", "test_it.py::test_four"}),
    ],
)  # fmt: skip
def test_targets(repository, capsys, target, tests):
    """Files, deleted ones too, folders and node ids say what is compared."""
    (repository / "test_it.py").write_text("def test_one(): pass\n")
    change(repository)
    assert set(kinds(said(capsys, "diff", "--git", "HEAD", target, "--json"))) == tests


def test_two_commits(repository, capsys):
    """A..B compares two commits whatever is in the working tree; A...B what B changed since it left A."""
    git(repository, "checkout", "-b", "branch")
    change(repository)
    git(repository, "add", ".")
    git(repository, "commit", "-m", "second")
    git(repository, "checkout", "main")
    other = record(
        repository / "cassettes/test_it/test_five.yaml", ([user("five")], "5"), test="x.py::test_five"
    )
    git(repository, "add", ".")
    git(repository, "commit", "-m", "third")
    two = kinds(said(capsys, "diff", "--git", "main..branch", "--json"))
    three = kinds(said(capsys, "diff", "--git", "main...branch", "--json"))
    assert set(two) - set(three) == {"x.py::test_five"}
    assert set(three) == {f"test_it.py::test_{name}" for name in ("one", "two", "three", "four")}
    assert other.exists()


def test_crlf(repository, capsys):
    """Line ends that git writes for another system are no difference."""
    path = repository / "cassettes/test_it/test_one.yaml"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert said(capsys, "diff", "--git", "HEAD") == "no difference in 1 cassette\n"


# ---- wrong usage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("one.yaml",), "diff takes two cassettes or folders, or --git REV."),
        (
            ("one.yaml", "none.yaml"),
            "there is no none.yaml. To compare with git: pytest-lmcache diff --git main",
        ),
        (("one.yaml", "."), "one.yaml and . are a file and a folder"),
        (
            ("--git", "HEAD"),
            "is in no git repository. To compare two files or folders: pytest-lmcache diff A B",
        ),
        (("one.yaml", "one.yaml", "--json", "--markdown"), "--markdown and --json exclude each other."),
    ],
)
def test_wrong_usage(tmp_path, capsys, monkeypatch, arguments, wanted):
    """Each says what was wrong and what to type."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    write(tmp_path / "one.yaml", "x")
    assert main(["diff", *arguments]) == 2
    assert wanted in capsys.readouterr().err


def test_an_unknown_commit(repository, capsys):
    """A branch that is not there is told, and no option of git's gets through."""
    for revision in ("nothing", "--output=x", "main..nothing"):
        assert main(["diff", f"--git={revision}"]) == 2
        assert "git knows no commit " in capsys.readouterr().err
    assert not (repository / "x").exists()


def test_a_broken_cassette(repository, capsys):
    """A broken file is named, and the others are compared."""
    change(repository)
    path = repository / "cassettes/test_it/test_one.yaml"
    path.write_text(path.read_text().replace("request:", "request: ["))
    assert main(["diff", "--git", "HEAD"]) == 1
    out, err = capsys.readouterr()
    assert "cassettes/test_it/test_one.yaml:" in err
    assert "test_it.py::test_four (added" in out


def test_folders(tmp_path, capsys, monkeypatch):
    """Two folders are compared file by file, and renamed files are found."""
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "a/x/one.yaml", ([user("one")], "a"), test="t.py::one")
    record(tmp_path / "b/x/one.yaml", ([user("one")], "b"), test="t.py::one")
    record(tmp_path / "a/two.yaml", ([user("two")], "a"), test="t.py::two")
    record(tmp_path / "b/three.yaml", ([user("two")], "a"), test="t.py::three")
    found = kinds(said(capsys, "diff", "a", "b", "--json"))
    assert found == {"t.py::one": ("changed", ""), "t.py::three": ("renamed", "a/two.yaml")}
