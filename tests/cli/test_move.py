"""The command move: cassettes follow their tests to new names, and are never overwritten."""

import json

import pytest
from cli_helpers import labelled, lazily, with_cache_folder

from pytest_lmcache.cli.main import main

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A suite that is renamed; returns what writes its one test file, without importing a model's library."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:randomly\n")

    def tests(name, *definitions):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["import pytest", "pytestmark = pytest.mark.lm_cache", *definitions, ""]))

    tests.folder = tmp_path
    return tests


def cassettes(project):
    root = project.folder / "cassettes"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_a_renamed_test(project, capsys):
    """The file moves, its comments name the new test, and its interactions stay byte for byte."""
    project("tests/test_a.py", "def test_new(): pass")
    old = labelled(
        project.folder / "cassettes/tests/test_a/test_old.yaml", "tests/test_a.py::test_old", "x", "y"
    )
    before = old.read_text()
    assert main(["move", "tests/test_a.py::test_old", "tests/test_a.py::test_new"]) == 0
    out, err = capsys.readouterr()
    assert out == "moved tests/test_a.py::test_old\n   to tests/test_a.py::test_new\n1 cassette moved\n"
    assert err == ""
    assert cassettes(project) == ["tests/test_a/test_new.yaml"]
    assert old.with_name("test_new.yaml").read_text() == before.replace("::test_old", "::test_new")


@pytest.mark.parametrize("how", ["names", "found"])
def test_a_moved_file(project, capsys, monkeypatch, how):
    """All cassettes of a file follow it, with those of classes, parameters and shared fixtures, from any folder."""
    project(
        "tests/test_new.py",
        "@pytest.fixture(scope='module')\ndef plan(): pass",
        "class TestIt:\n    @pytest.mark.parametrize('n', ['a', 'b/c'])\n    def test_one(self, n, plan): pass",
    )
    folder = project.folder / "cassettes/tests/test_old"
    for parameter, name in (("a", "a"), ("b/c", "b%2Fc")):
        labelled(
            folder / f"TestIt.test_one[{name}].yaml", f"tests/test_old.py::TestIt::test_one[{parameter}]"
        )
    if how == "names":
        labelled(folder / "@module.plan.yaml", "the module fixture plan of tests/test_old.py")
        monkeypatch.chdir(project.folder / "tests")
        assert main(["move", "test_old.py", "test_new.py"]) == 0
        fixture = ["tests/test_new/@module.plan.yaml"]
    else:
        assert main(["move"]) == 1
        assert "would move tests/test_old.py::TestIt::test_one[a]\n" in capsys.readouterr().out
        assert main(["move", "--yes"]) == 0
        assert "(same test in another file)" in capsys.readouterr().out
        fixture = []
    assert cassettes(project) == [
        *fixture,
        "tests/test_new/TestIt.test_one[a].yaml",
        "tests/test_new/TestIt.test_one[b%2Fc].yaml",
    ]
    assert main(["check"]) == 0


@pytest.mark.parametrize("existing", ["cassette", "no test"])
def test_nothing_is_overwritten(project, capsys, existing):
    """If a target exists, or a test of the new name does not, nothing is moved, and it is told what to do."""
    project("test_a.py", "def test_b1(): pass", "def test_b2(): pass" if existing == "cassette" else "")
    for name in ("test_a1", "test_a2"):
        labelled(project.folder / f"cassettes/test_a/{name}.yaml", f"test_a.py::{name}")
    if existing == "cassette":
        labelled(project.folder / "cassettes/test_a/test_b1.yaml", "test_a.py::test_b1")
        wanted = "cassettes/test_a/test_b1.yaml exists already; nothing was moved.\n"
    else:
        wanted = "there is no test test_a.py::test_c; nothing was moved.\n"
    before = cassettes(project)
    new = "test_b1" if existing == "cassette" else "test_c"
    assert main(["move", "test_a.py::test_a1", f"test_a.py::{new}"]) == 2
    assert wanted in capsys.readouterr().err
    assert cassettes(project) == before


def test_wrong_names(project, capsys):
    """One name is too few; a name that no cassette has is told."""
    project("test_a.py", "def test_b(): pass")
    labelled(project.folder / "cassettes/test_a/test_a.yaml", "test_a.py::test_a")
    assert main(["move", "test_a.py"]) == 2
    assert "move takes OLD and NEW, or neither of them." in capsys.readouterr().err
    assert main(["move", "test_a.py::test_", "test_a.py::test_b"]) == 2
    assert "no cassette has test_a.py::test_ in the comment" in capsys.readouterr().err


def test_candidates(project, capsys):
    """Without names similar names and other parameters are found; what fits several tests, or none, is left."""
    project(
        "test_a.py",
        "def test_plans_the_trip(): pass",
        "@pytest.mark.parametrize('n', ['new'])\ndef test_n(n): pass",
        "def test_pay_by_card(): pass",
        "def test_pay_by_cash(): pass",
    )
    for name in ("test_plans_a_trip", "test_n[old]", "test_pay_by_ca", "zzz[a]"):
        labelled(project.folder / f"cassettes/test_a/{name}.yaml", f"test_a.py::{name}")
    assert main(["move", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(each["old"], each["new"], each["why"]) for each in found["moves"]] == [
        ("test_a.py::test_n[old]", "test_a.py::test_n[new]", "same test with other parameters"),
        ("test_a.py::test_plans_a_trip", "test_a.py::test_plans_the_trip", "similar name in the same file"),
    ]
    assert {each["test"]: each["why"] for each in found["undecided"]} == {
        "test_a.py::test_pay_by_ca": "several tests without a cassette are like it: "
        "test_a.py::test_pay_by_card, test_a.py::test_pay_by_cash",
        "test_a.py::zzz[a]": "no test without a cassette is like it",
    }


def test_the_only_ones_left(project, capsys):
    """The only cassette of a file without a test, and its only test without a cassette, fit whatever their names."""
    project("test_a.py", "def test_a(): pass", "def test_quite_other(): pass")
    for name in ("test_a", "test_zzz"):
        labelled(project.folder / f"cassettes/test_a/{name}.yaml", f"test_a.py::{name}")
    assert main(["move"]) == 1
    out = capsys.readouterr().out
    assert (
        "would move test_a.py::test_zzz\n   to test_a.py::test_quite_other (the only test left in the file)"
        in out
    )


def test_a_moved_file_in_which_a_test_is_gone(project, capsys):
    """The other cassettes of the file move; that of the test that is not there any more is told, in few lines."""
    project("test_b.py", *(f"def test_{n}(): pass" for n in range(9)))
    for n in range(10):
        labelled(project.folder / f"cassettes/test_a/test_{n}.yaml", f"test_a.py::test_{n}")
    assert main(["move", "test_a.py", "test_b.py"]) == 1
    assert capsys.readouterr().out.splitlines()[:4] == [
        "moved 9 cassettes of test_a.py",
        "   to test_b.py",
        "not moved: test_a.py::test_9: there is no test test_b.py::test_9",
        "9 cassettes moved",
    ]
    assert cassettes(project) == ["test_a/test_9.yaml", *(f"test_b/test_{n}.yaml" for n in range(9))]


def test_keys_find_a_test_of_any_name(suite, capsys, monkeypatch):
    """The calls that a test missed in the last run find its cassette, whatever its new name and file; then it replays."""
    lazily(
        with_cache_folder(suite), "def test_one(lm_cache): ask('one')\ndef test_two(lm_cache): ask('two')\n"
    )
    suite.record()
    monkeypatch.chdir(suite.folder)
    (suite.folder / "test_it.py").unlink()
    lazily(
        suite, "def test_alpha(lm_cache): ask('two')\ndef test_beta(lm_cache): ask('one')\n", "test_other.py"
    )
    suite.run().assert_outcomes(failed=2)
    capsys.readouterr()
    assert main(["move", "--yes"]) == 0
    assert (
        "test_it.py::test_one\n   to test_other.py::test_beta (it has the calls that"
        in capsys.readouterr().out
    )
    suite.run().assert_outcomes(passed=2)


def test_nothing_to_move(project, capsys):
    """A suite in order has nothing to move."""
    project("test_a.py", "def test_a(): pass")
    labelled(project.folder / "cassettes/test_a/test_a.yaml", "test_a.py::test_a")
    assert main(["move"]) == 0
    assert capsys.readouterr().out == "nothing to move\n"


def test_a_folder_above_has_the_same_name(tmp_path, monkeypatch, capsys):
    """The cassette of a shared fixture stays in the project, although a folder above rootdir has the old name."""
    root = tmp_path / "tests/project"
    (root / "checks").mkdir(parents=True)
    (root / "pytest.ini").write_text("[pytest]\naddopts = -p no:randomly\n")
    (root / "checks/test_a.py").write_text(
        "import pytest\npytestmark = pytest.mark.lm_cache\n"
        "@pytest.fixture(scope='module')\ndef plan(): pass\ndef test_a(plan): pass\n"
    )
    monkeypatch.chdir(root)
    folder = root / "cassettes/tests/test_a"
    labelled(folder / "test_a.yaml", "tests/test_a.py::test_a")
    labelled(folder / "@module.plan.yaml", "the module fixture plan of tests/test_a.py")
    assert main(["move", "tests", "checks"]) == 0
    capsys.readouterr()
    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.yaml"))
    assert found == ["cassettes/checks/test_a/@module.plan.yaml", "cassettes/checks/test_a/test_a.yaml"]


def test_a_test_that_shares_its_cassette(project, capsys):
    """A test that names a shared cassette is not said to be missing."""
    project("test_a.py", "@pytest.mark.lm_cache(cassette='all')\ndef test_new(): pass")
    labelled(project.folder / "cassettes/test_a/test_old.yaml", "test_a.py::test_old")
    assert main(["move", "test_a.py::test_old", "test_a.py::test_new"]) == 2
    assert (
        "test_a.py::test_new shares its cassette with other tests; nothing was moved."
        in capsys.readouterr().err
    )


def test_a_test_without_a_cassette(project, capsys):
    """A test that is set to have no cassette is not said to be missing."""
    project("test_a.py", "@pytest.mark.lm_cache(cassette=None)\ndef test_new(): pass")
    labelled(project.folder / "cassettes/test_a/test_old.yaml", "test_a.py::test_old")
    assert main(["move", "test_a.py::test_old", "test_a.py::test_new"]) == 2
    assert (
        "test_a.py::test_new has no cassette (cassette=None); nothing was moved." in capsys.readouterr().err
    )
