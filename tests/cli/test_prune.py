"""The command prune: it removes what no test uses, and only if a full run, or the list of tests, says so."""

import json
import os

import pytest
from cli_helpers import labelled, lazily, with_cache_folder

from pytest_lmcache.cli.main import main

pytestmark = pytest.mark.slow


@pytest.fixture
def project(suite, monkeypatch):
    """A recorded suite in which a call, a test and a test's mark have gone since."""
    lazily(
        with_cache_folder(suite),
        """
        def test_one(lm_cache): ask("one"), ask("two"), ask("three")
        def test_two(lm_cache): ask("two")
        def test_three(lm_cache): ask("three")
        """,
    )
    suite.record()
    lazily(
        suite,
        """
        def test_one(lm_cache): ask("one"), ask("three")
        def test_two(): pass
        """,
    )
    monkeypatch.chdir(suite.folder)
    return suite


def texts(suite, name="test_one"):
    return (suite.folder / f"cassettes/test_it/{name}.yaml").read_text()


def test_a_dry_run_removes_nothing(project, capsys):
    """It says what it would remove, file by file with the reason, and exits with 1."""
    project.run()
    before = {name: texts(project, name) for name in ("test_one", "test_two", "test_three")}
    capsys.readouterr()
    assert main(["prune"]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert (
        lines[0] == "would remove cassettes/test_it/test_three.yaml: there is no test test_it.py::test_three"
    )
    assert lines[1].startswith(
        "would remove 1 recording of cassettes/test_it/test_one.yaml: 1 recording that no test asked for in the run of "
    )
    assert (
        lines[2]
        == "would remove cassettes/test_it/test_two.yaml: test_it.py::test_two is not marked with lm_cache"
    )
    assert lines[3:] == [
        "2 cassettes and 1 recording of others",
        "To remove them: pytest-lmcache prune --yes",
    ]
    assert err == ""
    assert before == {name: texts(project, name) for name in before}


def test_yes_removes(project, capsys):
    """Files and recordings go, what is left replays, and a second time there is nothing to remove."""
    project.run()
    capsys.readouterr()
    assert main(["prune", "--yes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["removed"] is True
    assert [each["path"] for each in found["orphans"]] == ["cassettes/test_it/test_three.yaml"]
    assert [each["whole"] for each in found["unused"]] == [False, True]
    assert project.cassettes() == ["test_it/test_one.yaml"]
    left = texts(project)
    assert "content: two" not in left
    assert left.count("\n--- # ") == 2
    assert "\n--- # 2\n" in left
    project.run().assert_outcomes(passed=2)
    capsys.readouterr()
    assert main(["prune"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_a_partial_run_proves_nothing(project, capsys):
    """What only a partial run did not use stays, with the command that makes a full run; orphans go."""
    import shutil

    shutil.rmtree(project.folder / ".pytest_cache")
    project.run("-k", "one")
    capsys.readouterr()
    assert main(["prune", "--yes"]) == 1
    out, err = capsys.readouterr()
    assert "removed cassettes/test_it/test_three.yaml" in out
    assert "not removed: 1 recording of cassettes/test_it/test_one.yaml" in err
    assert "refused: the last run was partial (1 test was deselected), so other tests may use them. " in err
    assert err.rstrip().endswith("Run: pytest")
    assert "content: two" in texts(project)
    assert project.cassettes() == ["test_it/test_one.yaml", "test_it/test_two.yaml"]


def test_the_command_of_a_full_run(project, capsys):
    """If the configuration itself leaves tests out, the command that makes a full run sets that aside."""
    project.file("pytest.ini", "[pytest]\naddopts = --deselect test_it.py::test_two\n")
    project.run()
    capsys.readouterr()
    assert main(["prune"]) == 1
    assert "1 test was deselected (by addopts)), so" in (err := capsys.readouterr().err)
    assert err.rstrip().endswith('Run: pytest -o "addopts="')


def test_targets(project, capsys):
    """Only the cassettes that are named are removed."""
    project.run()
    other = labelled(project.folder / "cassettes/other/test_x.yaml", "other.py::test_x")
    capsys.readouterr()
    assert main(["prune", "--yes", "cassettes/test_it"]) == 0
    assert other.exists()
    assert main(["prune", "--yes", str(other)]) == 0
    assert not other.parent.exists()


def test_a_failed_run_keeps_recordings(project, capsys):
    """A test that failed may not have come to its other calls, in a full run too."""
    test = project.folder / "test_it.py"
    test.write_text(test.read_text().replace('ask("one"), ask("three")', 'ask("one"); assert 0'))
    project.run()
    capsys.readouterr()
    main(["prune", "--yes"])
    assert texts(project).count("\n--- # ") == 3


def test_a_folder_without_tests(tmp_path, capsys, monkeypatch):
    """Where pytest finds no test, as in a wrong folder, no cassette is taken for an orphan."""
    monkeypatch.chdir(tmp_path)
    path = labelled(tmp_path / "cassettes/test_a/test_a.yaml", "test_a.py::test_a")
    assert main(["prune", "--yes"]) == 0
    out, err = capsys.readouterr()
    assert out == "nothing to remove\n"
    assert f"note: pytest finds no test in {tmp_path}: whether cassettes have a test is not known" in err
    assert path.exists()


def test_files_of_others_stay(project, capsys):
    """A YAML file that is no cassette of ours is not removed, whatever a full run did not open."""
    folder = project.folder / "cassettes"
    other = folder / "prices.yaml"
    other.write_text("prices: [1, 2]\n")
    of_vcrpy = folder / "vcr.yaml"
    of_vcrpy.write_text("interactions:\n- request: {}\nversion: 1\n")
    (folder / "nowhere.yaml").symlink_to("missing")
    for path in (other, of_vcrpy):
        os.utime(path, (0, 0))
    project.run()
    capsys.readouterr()
    assert main(["prune", "--yes"]) == 0
    assert main(["prune", "--yes", str(other), str(of_vcrpy)]) == 0
    out, err = capsys.readouterr()
    assert other.exists()
    assert of_vcrpy.exists()
    assert "prices" not in out + err


def test_the_command_that_removes_names_the_targets(project, capsys):
    """What a dry run advises removes what it has listed, and nothing of other folders."""
    project.run()
    capsys.readouterr()
    assert main(["prune", "test_it.py::test_two", "-o", "lm_key=exact"]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "1 cassette",
        "To remove them: pytest-lmcache prune --yes test_it.py::test_two --override-ini=lm_key=exact",
    ]
