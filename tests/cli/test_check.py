"""The command check: it reads every cassette and names what is broken."""

import re
from pathlib import Path

import pytest
from cli_helpers import write

from pytest_lmcache.cli.main import main


def test_counts_what_is_sound(tmp_path, capsys):
    """Sound cassettes are counted: files, interactions, bytes; the exit code is 0."""
    one, two = write(tmp_path / "a/one.yaml", "x"), write(tmp_path / "two.yaml", "x", "y")
    (tmp_path / "notes.txt").write_text("not a cassette")
    (tmp_path / "vcr.yaml").write_text("interactions:\n- request: {}\n")
    assert main(["check", str(tmp_path)]) == 0
    size = one.stat().st_size + two.stat().st_size
    assert capsys.readouterr() == (f"2 cassettes, 3 interactions, {size:,} bytes\n", "")


def test_a_folder_without_cassettes_of_ours_is_told(tmp_path, capsys):
    """Who names the wrong folder, or has vcrpy's cassettes only, does not read that all is well."""
    assert main(["check", str(tmp_path)]) == 1
    assert capsys.readouterr() == ("", f"{tmp_path} has no cassette of pytest-lmcache.\n")
    for number in range(7):
        (tmp_path / f"{number}.yaml").write_text("interactions:\n- request: {}\n")
    assert main(["check", str(tmp_path)]) == 1
    told = (
        f"{tmp_path} has no cassette of pytest-lmcache; it has 7 files of vcrpy, such as {tmp_path}/0.yaml.\n"
    )
    assert capsys.readouterr() == ("", told)


GOLDEN = Path(__file__).parents[1] / "cassette" / "golden"


@pytest.mark.parametrize("name", ["calls.yaml", "values.yaml"])
def test_texts_that_formatters_would_change_are_told_and_fixed(tmp_path, capsys, name):
    """A cassette that 0.1.0 wrote says where a formatter would change it, and is written anew on demand."""
    path = tmp_path / name
    path.write_bytes((GOLDEN / name).read_bytes())
    assert main(["check", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out.rstrip().endswith(" that formatters would change")
    assert f"pytest-lmcache check --fix {path}" in err
    lines = path.read_text().splitlines()
    for told in err.splitlines()[::2]:
        line = lines[int(told.removeprefix(f"{path}:").partition(":")[0]) - 1]
        assert re.search(r"\t|\s$|\|[2+]|^$", line)
    assert main(["check", "--fix", str(tmp_path)]) == 0
    assert main(["check", str(tmp_path)]) == 0
    assert main(["upgrade", str(tmp_path)]) == 0
    assert path.read_bytes() == (GOLDEN / "format2" / name).read_bytes()


def test_a_fix_changes_nothing_else(tmp_path):
    """Remarks, keys of an own strategy and interactions that need no fix stay as they are."""
    path = write(tmp_path / "one.yaml", "x", "y\n\nz", "w")
    text = "# a remark\n" + path.read_text().replace("\nkey: exact/1\n", "\nkey: own:nowhere.to_be_found\n")
    text = text.replace("choices: []", "choices:   []  ", 1)
    path.write_text(text)
    assert main(["check", "--fix", str(path)]) == 0
    assert path.read_text() == text.replace("choices:   []  ", "choices: []")


@pytest.mark.parametrize(
    ("head", "command"),
    [
        ('pytest --lm-rewrite "tests/test_a.py::test_b[c d]"', 'pytest --lm-rewrite "tests/test_a.py::test_b[c d]"'),
        ('pytest --lm-rewrite -c ci/pytest.ini "test_a.py::test_b"', 'pytest --lm-rewrite -c ci/pytest.ini "test_a.py::test_b"'),
        ('pytest --lm-rewrite "test_a.py"; rm -r "$HOME"', "pytest --lm-rewrite"),
        ('pytest --lm-rewrite "$(rm x)"', "pytest --lm-rewrite"),
        ("", "pytest --lm-rewrite"),
    ],
)  # fmt: skip
def test_the_commands_for_a_conflict(tmp_path, capsys, head, command):
    """They are those of the test that the cassette names, if it names nothing else, and both ways out are given."""
    path = write(tmp_path / "conflict.yaml", "x")
    conflicted = path.read_text().replace("recorded:", "<<<<<<< HEAD\nrecorded:")
    path.write_text(f"# record again: {head}\n{conflicted}")
    assert main(["check", str(path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert f'  git checkout --ours "{path}"  # or --theirs' in lines
    assert f"  {command.replace('--lm-rewrite', '--lm-record')}" in lines
    assert f"  {command}" in lines


def test_names_each_broken_place(tmp_path, capsys):
    """Every broken cassette is named with file and line, the sound rest is counted; the exit code is 1."""
    write(tmp_path / "sound.yaml", "x")
    conflict = write(tmp_path / "conflict.yaml", "x")
    conflict.write_text(conflict.read_text().replace("--- # 1", "<<<<<<< ours\n--- # 1"))
    half = write(tmp_path / "half.yaml", "x", "why", "z")
    half.write_text(half.read_text().replace("content: why", "content: 'why"))
    foreign = tmp_path / "foreign.yaml"
    foreign.write_text("some: thing\n")
    assert main(["check", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert f"{conflict}:3: git left a merge conflict here." in err
    assert f"{half}:" in err
    assert f"{foreign}:1: this is not a pytest-lmcache cassette" in err
    assert out.startswith("4 cassettes, 3 interactions, ")
    assert out.endswith(" bytes, 3 broken\n")


def test_every_part_is_read(tmp_path):
    """An answer that cannot be read is found, though a run that does not ask for it would not."""
    path = write(tmp_path / "one.yaml", "x")
    path.write_text(path.read_text().replace("response:", "response: ]\n#"))
    assert main(["check", str(tmp_path)]) == 1


@pytest.mark.parametrize("where", ["header", "request", "answer"])
def test_a_bomb_of_aliases_is_told(tmp_path, capsys, where):
    """A few hundred bytes that stand for more data than a machine holds are named, wherever they are."""
    bomb = "a0: &a0 x\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
    path = write(tmp_path / "one.yaml", "x")
    old, indent = {
        "header": ("key: exact/1\n", ""),
        "request": ("request:\n", "  "),
        "answer": ("response:\n", "  "),
    }[where]
    lines = "".join(f"{indent}{line}\n" for line in bomb.splitlines())
    text = path.read_text().replace(old, old + lines)
    path.write_text(text)
    assert main(["check", str(path)]) == 1
    line = text[: text.index("a0:")].count("\n") + 1
    assert (
        f"{path}:{line}: this is not readable YAML: anchors and aliases (&, *) are not read"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "content: why",
            "content: who",
            ":4: `key:` belongs to another request: was the request edited by hand?",
        ),
        ("choices: []", "choices: []\nerror: {}", "needs one of `response:`"),
        ("response:\n  id: x\n  choices: []", "response: [1]", "needs one of `response:`"),
    ],
)
def test_what_was_edited_by_hand_is_told(tmp_path, capsys, old, new, said):
    """A question whose key is another's, and an answer that can be none, are found though both can be parsed."""
    path = write(tmp_path / "one.yaml", "why")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert main(["check", str(path)]) == 1
    assert said in capsys.readouterr().err


def test_cassette_of_an_own_strategy(tmp_path, capsys):
    """A cassette whose keys are an own function's is read without that function."""
    path = write(tmp_path / "one.yaml", "x")
    path.write_text(path.read_text().replace("\nkey: exact/1\n", "\nkey: own:nowhere.to_be_found\n"))
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out.startswith("1 cassette, 1 interaction, ")


def test_default_folder(tmp_path, capsys, monkeypatch):
    """Without a target it is ``cassettes``, and that there is none is told."""
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 1
    assert capsys.readouterr().err == "cassettes has no cassette of pytest-lmcache.\n"
    write(tmp_path / "cassettes/one.yaml", "x")
    assert main(["check"]) == 0


def test_a_file_that_is_named_is_read_whatever_its_suffix(tmp_path, capsys):
    """Nobody is told that a file is sound which was not looked at."""
    path = tmp_path / "x.txt"
    path.write_text("x = 1\n")
    assert main(["check", str(path)]) == 1
    assert "this is not a pytest-lmcache cassette" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys, monkeypatch):
    """One file without permission is a line of the report, not its end."""
    path = write(tmp_path / "one.yaml", "x")

    def refused(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refused)  # root may read all
    monkeypatch.setattr(Path, "read_bytes", refused)
    assert main(["check", str(tmp_path)]) == 1
    assert f"{path}:1: " in capsys.readouterr().err
