"""The command check: it reads every cassette and names what is broken."""

import json
import re
from pathlib import Path

import pytest
from cli_helpers import labelled, lazily, with_cache_folder, write

from pytest_lmcache.cli.main import main
from pytest_lmcache.keys.strategies import strategy


def check(*arguments):
    """The command on the files alone."""
    return main(["check", "--files-only", *arguments])


def test_counts_what_is_sound(tmp_path, capsys):
    """Sound cassettes are counted: files, interactions, bytes; the exit code is 0."""
    one, two = write(tmp_path / "a/one.yaml", "x"), write(tmp_path / "two.yaml", "x", "y")
    (tmp_path / "notes.txt").write_text("not a cassette")
    (tmp_path / "vcr.yaml").write_text("interactions:\n- request: {}\n")
    assert check(str(tmp_path)) == 0
    size = one.stat().st_size + two.stat().st_size
    assert capsys.readouterr() == (f"2 cassettes, 3 interactions, {size:,} bytes\n", "")


def test_a_folder_without_cassettes_of_ours_is_told(tmp_path, capsys):
    """Who names the wrong folder, or has vcrpy's cassettes only, does not read that all is well."""
    assert check(str(tmp_path)) == 1
    assert capsys.readouterr() == ("", f"{tmp_path} has no cassette of pytest-lmcache.\n")
    for number in range(7):
        (tmp_path / f"{number}.yaml").write_text("interactions:\n- request: {}\n")
    assert check(str(tmp_path)) == 1
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
    assert check(str(tmp_path)) == 1
    out = capsys.readouterr().out.splitlines()
    number = len(out) - 2
    assert out[-1].endswith(f" {number} fragile text{'s' if number > 1 else ''}")
    assert f"To write it in a form that they leave alone, run: pytest-lmcache check --fix {path}" in out
    lines = path.read_text().splitlines()
    for told in out[:-2]:
        line = lines[int(told.removeprefix(f"{path}:").partition(":")[0]) - 1]
        assert re.search(r"\t|\s$|\|[2+]|^$", line)
    assert check("--fix", str(tmp_path)) == 0
    assert check(str(tmp_path)) == 0
    assert main(["upgrade", str(tmp_path)]) == 0
    assert path.read_bytes() == (GOLDEN / "format2" / name).read_bytes()


def test_a_fix_changes_nothing_else(tmp_path):
    """Remarks, keys of an own strategy and interactions that need no fix stay as they are."""
    path = write(tmp_path / "one.yaml", "x", "y\n\nz", "w")
    text = "# a remark\n" + path.read_text().replace("\nkey: exact/1\n", "\nkey: own:nowhere.to_be_found\n")
    text = text.replace("choices: []", "choices:   []  ", 1)
    path.write_text(text)
    assert check("--fix", str(path)) == 0
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
    assert check(str(path)) == 1
    lines = capsys.readouterr().out.splitlines()
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
    assert check(str(tmp_path)) == 1
    out = capsys.readouterr().out
    assert f"{conflict}:3: git left a merge conflict here." in out
    assert f"{half}:" in out
    assert f"{foreign}:1: this is not a pytest-lmcache cassette" in out
    assert out.splitlines()[-1].startswith("4 cassettes, 3 interactions, ")
    assert out.endswith(" bytes, 3 broken\n")


def test_every_part_is_read(tmp_path):
    """An answer that cannot be read is found, though a run that does not ask for it would not."""
    path = write(tmp_path / "one.yaml", "x")
    path.write_text(path.read_text().replace("response:", "response: ]\n#"))
    assert check(str(tmp_path)) == 1


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
    assert check(str(path)) == 1
    line = text[: text.index("a0:")].count("\n") + 1
    assert (
        f"{path}:{line}: this is not readable YAML: anchors and aliases (&, *) are not read"
        in capsys.readouterr().out
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
    assert check(str(path)) == 1
    assert said in capsys.readouterr().out


def test_cassette_of_an_own_strategy(tmp_path, capsys):
    """A cassette whose keys are an own function's is read without that function."""
    path = write(tmp_path / "one.yaml", "x")
    path.write_text(path.read_text().replace("\nkey: exact/1\n", "\nkey: own:nowhere.to_be_found\n"))
    assert check(str(path)) == 0
    assert capsys.readouterr().out.startswith("1 cassette, 1 interaction, ")


def test_default_folder(tmp_path, capsys, monkeypatch):
    """Without a target it is ``cassettes``, and that there is none is told."""
    monkeypatch.chdir(tmp_path)
    assert check() == 1
    assert capsys.readouterr().err == "cassettes has no cassette of pytest-lmcache.\n"
    write(tmp_path / "cassettes/one.yaml", "x")
    assert check() == 0


def test_a_file_that_is_named_is_read_whatever_its_suffix(tmp_path, capsys):
    """Nobody is told that a file is sound which was not looked at."""
    path = tmp_path / "x.txt"
    path.write_text("x = 1\n")
    assert check(str(path)) == 1
    assert "this is not a pytest-lmcache cassette" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys, monkeypatch):
    """One file without permission is a line of the report, not its end."""
    path = write(tmp_path / "one.yaml", "x")

    def refused(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refused)  # root may read all
    monkeypatch.setattr(Path, "read_bytes", refused)
    assert check(str(tmp_path)) == 1
    assert f"{path}:1: cannot be read: Permission denied" in capsys.readouterr().out


# ---- with the tests of the suite -----------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A suite with one cassette for each way to have one; its tests need no model to be collected."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:randomly -m 'not slow'\n")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.lm_cache\n"
        "@pytest.fixture(scope='module', params=['x'])\n"
        "def plan(request): pass\n"
        "@pytest.mark.parametrize('n', ['a', 'b'])\n"
        "def test_one(n): pass\n"
        "@pytest.mark.slow\n"
        "@pytest.mark.lm_cache(cassette='shared')\n"
        "class TestTwo:\n"
        "    def test_two(self, plan): pass\n"
    )
    for name, label in {
        "test_it/test_one[a]": "test_it.py::test_one[a]",
        "test_it/test_one[b]": "test_it.py::test_one[b]",
        "test_it/@module.plan[x]": "the module fixture plan of test_it.py",
        "shared": "several tests",
        "block": "cassettes/block.yaml",
    }.items():
        labelled(tmp_path / f"cassettes/{name}.yaml", label)
    return tmp_path


def findings(capsys, *arguments):
    """What the command finds, by kind, path and text, and its notes."""
    capsys.readouterr()
    code = main(["check", "--json", *arguments])
    found = json.loads(capsys.readouterr().out)
    assert code == (1 if found["findings"] else 0)
    return [(each["kind"], each["path"], each["what"]) for each in found["findings"]], found["notes"]


@pytest.mark.slow
def test_every_cassette_of_a_test_is_known(project, capsys):
    """Parameters, shared cassettes, fixtures and tests that the configuration deselects are no orphans; a block's may be."""
    found, notes = findings(capsys)
    assert found == []
    undecided, no_run = notes
    assert undecided.startswith(
        "1 cassette of use_cassette blocks, fixtures or several tests: whether they are used"
    )
    assert "such as cassettes/block.yaml" in undecided
    assert (
        no_run
        == "which recordings are unused is not known: .pytest_cache has no record of a run. Run: pytest"
    )


@pytest.mark.slow
def test_orphans(project, capsys):
    """The cassette of a test that is gone is found, and why; one of a file that is not collected by default is none."""
    labelled(project / "cassettes/test_it/test_gone.yaml", "test_it.py::test_gone")
    labelled(project / "cassettes/old/test_one.yaml", "test_it.py::test_one[a]")
    labelled(project / "cassettes/other/test_x.yaml", "other.py::test_x")
    (project / "other.py").write_text("import pytest\n@pytest.mark.lm_cache\ndef test_x(): pass\n")
    found, _ = findings(capsys)
    assert found == [
        ("orphan", "cassettes/old/test_one.yaml", "test_it.py::test_one[a] has another cassette: cassettes/test_it/test_one[a].yaml"),
        ("orphan", "cassettes/test_it/test_gone.yaml", "there is no test test_it.py::test_gone"),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("how", ["broken", "skipped", "other rootdir"])
def test_tests_that_are_not_known_have_no_orphans(project, capsys, how):
    """A file that cannot be collected, or skips itself, or is another suite's, keeps its cassettes."""
    text = {"broken": "1 / 0\n", "skipped": "import pytest\npytest.skip('x', allow_module_level=True)\n"}
    if how == "other rootdir":
        (project / "sub").mkdir()
        (project / "sub/pytest.ini").write_text("[pytest]\n")
        labelled(project / "sub/cassettes/test_b/test_b.yaml", "test_b.py::test_b")
    else:
        (project / "test_b.py").write_text(text[how])
        labelled(project / "cassettes/test_b/test_b.yaml", "test_b.py::test_b")
    found, notes = findings(capsys)
    assert found == []
    assert any("test_b" in note for note in notes)


@pytest.mark.slow
def test_what_the_last_full_run_did_not_use(suite, capsys, monkeypatch):
    """Recordings that no test asked for are found after a full run, not after a partial one, nor if the file changed."""
    lazily(
        with_cache_folder(suite),
        "def test_one(lm_cache): ask('one'), ask('two')\ndef test_two(lm_cache): ask('three')\n",
    )
    suite.record()
    monkeypatch.chdir(suite.folder)
    test = suite.folder / "test_it.py"
    test.write_text(test.read_text().replace(", ask('two')", ""))
    suite.run("-k", "one")
    found, notes = findings(capsys)
    assert found == []
    suite.run()
    (found,), notes = findings(capsys)
    assert notes == []
    assert found[:2] == ("unused", "cassettes/test_it/test_one.yaml")
    assert found[2].startswith("1 recording that no test asked for in the run of 20")
    path = suite.folder / found[1]
    path.write_text(f"# edited\n{path.read_text()}")
    assert findings(capsys)[0] == []


@pytest.mark.slow
def test_a_skipped_test_may_ask_for_what_others_do_not(suite, capsys, monkeypatch):
    """A recording of a shared cassette stays if one of the tests that share it did not run."""
    text = """
        @pytest.mark.lm_cache(cassette="shared")
        @pytest.mark.parametrize("name", ["a", "b"])
        def test_one(name): ask(name)
        """
    lazily(with_cache_folder(suite), text)
    suite.record()
    monkeypatch.chdir(suite.folder)
    skipped = 'pytest.param("b", marks=pytest.mark.skip)'
    lazily(suite, text.replace('"b"', skipped))
    suite.run()
    assert findings(capsys)[0] == []
    lazily(suite, text.replace(', "b"', ""))
    suite.run()
    assert [kind for kind, _, _ in findings(capsys)[0]] == ["unused"]


def test_age_and_size(tmp_path, capsys, monkeypatch):
    """Recordings older than lm_max_age, and files over --max-size, are found; the size has units."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nlm_max_age = 30d\n")
    path = write(tmp_path / "cassettes/one.yaml", "x" * 600)
    path.write_text(path.read_text().replace("2026-11-23", "2020-11-23"))
    assert check("--max-size", "0.5kB") == 1
    out = capsys.readouterr().out
    assert re.search(r"cassettes/one.yaml: \d+ bytes, more than --max-size 500\n", out)
    assert re.search(
        r"cassettes/one.yaml: 1 recording older than lm_max_age, the oldest of [\d,]+ days\n", out
    )
    assert "pytest --lm-record" in out
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    assert check() == 0
    assert check("--max-size", "big") == 2
    assert "'big' is no size; it takes bytes, or a size such as 500kB or 5MB." in capsys.readouterr().err


def test_keys_of_other_strategies_are_checked(tmp_path, capsys):
    """Keys are checked by the strategy and the normalizers that the header names, if they are the same everywhere."""
    from pytest_lmcache.maintenance.rekey import rekey

    path = write(tmp_path / "one.yaml", "on 2026-11-23")
    rekey(path, strategy("messages", ["date"]), write=True)
    assert "key: messages/1+date" in path.read_text()
    assert check(str(path)) == 0
    path.write_text(path.read_text().replace("on 2026", "at 2026"))
    assert check(str(path)) == 1
    assert "belongs to another request" in capsys.readouterr().out


def test_vcrpy_beside_changed_files(tmp_path, capsys):
    """pre-commit names every changed file of the folder; those of vcrpy are passed over, and all else is read."""
    (tmp_path / "vcr.yaml").write_text("interactions:\n- request: {}\n")
    assert check(str(tmp_path / "vcr.yaml")) == 0
    assert check(str(tmp_path / "vcr.yaml"), str(write(tmp_path / "one.yaml", "x"))) == 0
    assert capsys.readouterr().out.startswith("1 cassette,")
