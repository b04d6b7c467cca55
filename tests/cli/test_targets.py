"""The targets of a command: which cassettes files, folders, test files and node ids stand for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import write
from click.testing import CliRunner

from pytest_lmcache.cassette.names import own_cassette
from pytest_lmcache.cli.frame import Misuse
from pytest_lmcache.cli.main import group
from pytest_lmcache.cli.project import Project
from pytest_lmcache.cli.targets import NodeId, select

LONG = "test_long[" + "x" * 150 + "]"
TESTS = {
    "tests/test_a.py": [
        "test_one", "test_one[a/b]", "test_one[c::d]", "test_oneself", "TestA.test_two", "TestA.TestIn.test_three",
        "TestAb.test_four", "@module.shared", LONG,
    ],
    "tests/sub/test_b.py": ["test_one"],
}  # fmt: skip


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A project with tests that have cassettes; gives the names of those that targets select."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for file, names in TESTS.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        parts = Path(file).with_suffix("").parts
        for name in names:
            cassette = write(own_cassette(parts, name, tmp_path / "cassettes"), "x")
            node_id = f"{file}::{name.replace('.', '::')}"
            cassette.write_text(f"# pytest-lmcache cassette of {node_id}\n{cassette.read_text()}")
    poems = write(tmp_path / "cassettes/poems.yaml", "x")
    poems.write_text(f"# pytest-lmcache cassette of tests/sub/test_c.py::test_poem[1]\n{poems.read_text()}")
    (tmp_path / "cassettes/vcr.yaml").write_text("interactions:\n- {}\n")

    def selected(*targets):
        paths = select(Project.find(), targets).paths
        return [path.relative_to(tmp_path / "cassettes").as_posix() for path in paths]

    return selected


def test_all(suite):
    """Without a target they are all cassettes of the project, but not those of vcrpy."""
    assert len(suite()) == 11
    assert suite() == sorted(suite("."), key=suite().index)
    assert suite("cassettes") == suite()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("tests/test_a.py::test_one[a/b]", ["tests/test_a/test_one[a%2Fb].yaml"]),
        ("tests/test_a.py::test_one[c::d]", ["tests/test_a/test_one[c%3A%3Ad].yaml"]),
        ("tests/test_a.py::test_one", ["tests/test_a/test_one.yaml", "tests/test_a/test_one[a%2Fb].yaml", "tests/test_a/test_one[c%3A%3Ad].yaml"]),
        ("tests/test_a.py::TestA", ["tests/test_a/TestA.TestIn.test_three.yaml", "tests/test_a/TestA.test_two.yaml"]),
        ("tests/test_a.py::TestA::TestIn::test_three", ["tests/test_a/TestA.TestIn.test_three.yaml"]),
        ("tests/sub/test_b.py", ["tests/sub/test_b/test_one.yaml"]),
        ("./tests/sub", ["tests/sub/test_b/test_one.yaml"]),
        ("cassettes/tests/sub", ["tests/sub/test_b/test_one.yaml"]),
        ("cassettes/poems.yaml", ["poems.yaml"]),
        ("tests/sub/test_c.py", ["poems.yaml"]),
        ("tests/sub/test_c.py::test_poem", ["poems.yaml"]),
        ("cassettes/vcr.yaml", ["vcr.yaml"]),
    ],
)  # fmt: skip
def test_one_target(suite, target, expected):
    """A test, a class, a file, a folder of tests or of cassettes; a shared cassette by the test that it names."""
    assert suite(target) == expected


def test_a_long_name(suite):
    """A test whose cassette has a shortened name is found by its whole id."""
    [found] = suite(f"tests/test_a.py::{LONG}")
    assert found.startswith("tests/test_a/test_long[x")


def test_several_targets(suite):
    """Each cassette counts once, whatever names it."""
    assert suite(
        "tests/sub", "cassettes/tests/sub/test_b/test_one.yaml", "tests/sub/test_b.py::test_one"
    ) == ["tests/sub/test_b/test_one.yaml"]


def test_from_a_folder_below(suite, monkeypatch):
    """Node ids are relative to the current folder, as for pytest, and to rootdir, as pytest prints them."""
    monkeypatch.chdir("tests/sub")
    assert suite("test_b.py::test_one") == suite("tests/sub/test_b.py::test_one") == ["tests/sub/test_b/test_one.yaml"]  # fmt: skip
    assert len(suite()) == 11


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("tests/test_a.py::test_none", "tests/test_a.py::test_none has no cassette. Looked in cassettes/tests/test_a, tests/cassettes/test_a, for its name in the first lines of 12 cassettes"),
        ("tests/test_a.py::test_none", "pytest collects no test of that name. To see the names: pytest --collect-only -q tests/test_a.py"),
        ("tests/none.py::test_none", "There is no file tests/none.py either."),
        ("none.yaml", "there is no cassette none.yaml"),
        ("tests/test_a.py::test_o", "has no cassette"),
    ],
)  # fmt: skip
def test_what_has_no_cassette(suite, target, said):
    """The error says where it was looked for, and what records it."""
    with pytest.raises(Misuse) as error:
        suite(target)
    assert said in str(error.value)


@pytest.mark.slow
def test_a_cassette_that_a_marker_names(suite, tmp_path):
    """A file that several tests share is found by each of them, since pytest says what their markers name."""
    text = "import pytest\n\n@pytest.mark.lm_cache(cassette='odes')\ndef test_ode():\n    pass\n"
    (tmp_path / "tests/test_odes.py").write_text(text)
    odes = write(tmp_path / "cassettes/odes.yaml", "x")
    odes.write_text(f"# pytest-lmcache cassette of several tests\n{odes.read_text()}")
    assert suite("tests/test_odes.py::test_ode") == suite("tests/test_odes.py") == ["odes.yaml"]


def test_beside_the_tests(tmp_path, monkeypatch):
    """With {test_dir} in lm_cassette_dir the cassettes of each test folder are found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nlm_cassette_dir = {test_dir}/rec\n")
    path = write(tmp_path / "tests/rec/test_a/test_one.yaml", "x")
    other = write(tmp_path / "more/rec/test_b/test_one.yaml", "x")
    (tmp_path / "tests/test_a.py").write_text("")
    project = Project.find()
    assert select(project, []).paths == sorted([path, other])
    for target in ("tests/test_a.py::test_one", "tests/test_a.py", "tests", "tests/rec"):
        assert select(project, [target]).paths == [path], target
    (tmp_path / "pytest.ini").write_text("[pytest]\nlm_cassette_dir = {test_dir}\n")
    (tmp_path / "tests/config.yaml").write_text("a: 1\n")
    own = write(tmp_path / "tests/test_a/test_two.yaml", "x")
    assert select(Project.find(), []).paths == sorted([path, other, own])
    assert select(Project.find(), ["tests/test_a.py"]).paths == [own]


def test_parse():
    """What follows a bracket is one parameter, whatever it holds."""
    assert NodeId.parse("a/../t.py::A::b[c::d]", Path("/x")) == (Path("/x/t.py"), ("A", "b[c::d]"))


def completed(words, **more):
    """What bash's completion gets for a command line whose last word is to be completed."""
    environment = {"_PYTEST_LMCACHE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}  # fmt: skip
    return CliRunner().invoke(group, env=environment, prog_name="pytest-lmcache").output.splitlines()


def test_completion(suite):
    """Commands are completed, files by the shell, and node ids by the cassettes that there are."""
    assert "plain,check" in completed("pytest-lmcache che")
    assert completed("pytest-lmcache check tests/te") == ["file,tests/te"]
    assert completed("pytest-lmcache check tests/test_a.py::TestA:") == [
        "plain,tests/test_a.py::TestA::TestIn::test_three",
        "plain,tests/test_a.py::TestA::test_two",
    ]
    assert completed("pytest-lmcache check none.py::test") == [""]


@pytest.mark.slow
def test_completion_in_bash(suite, tmp_path):
    """With the lines that docs/command.md names, bash itself completes a node id."""
    script = f"""
    PATH={Path(sys.executable).parent}:$PATH
    COMP_WORDBREAKS=${{COMP_WORDBREAKS//:}}
    eval "$(_PYTEST_LMCACHE_COMPLETE=bash_source pytest-lmcache)"
    COMP_WORDS=(pytest-lmcache check tests/test_a.py::TestAb) COMP_CWORD=2
    _pytest_lmcache_completion pytest-lmcache
    echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path, env={**os.environ}
    )
    assert done.stdout == "tests/test_a.py::TestAb::test_four\n"
