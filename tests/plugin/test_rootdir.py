"""Another rootdir than the one that a test was recorded with: its recording is found, or named, and never made twice."""

import shlex
import textwrap

import pytest

TEST = """
import sys; sys.path.insert(0, {folder!r})
import pytest
from app import ask

@pytest.fixture(scope="module")
def shared():
    return ask("shared")

@pytest.mark.lm_cache
def test_one(shared):
    ask("one")
"""
PACKAGE = "[tool.pytest.ini_options]\n"


@pytest.fixture
def monorepo(suite):
    """Two packages with a configuration each, and one at the root."""
    suite.file("pyproject.toml", PACKAGE)
    for name in ("one", "two"):
        suite.file(f"packages/{name}/pyproject.toml", PACKAGE)
        suite.file(f"packages/{name}/tests/test_{name}.py", TEST.format(folder=str(suite.folder)))
    return suite


def files(suite):
    """Where all cassettes of a suite lie."""
    return sorted(path.relative_to(suite.folder).as_posix() for path in suite.folder.rglob("*.yaml"))


@pytest.mark.slow
def test_each_package_has_its_own(monorepo, monkeypatch):
    """What packages record for themselves replays from the root, and is added to from there."""
    for name in ("one", "two"):
        monkeypatch.chdir(monorepo.folder / "packages" / name)
        monorepo.record()
    recorded = files(monorepo)
    assert recorded == [
        "packages/one/cassettes/tests/test_one/@module.shared.yaml",
        "packages/one/cassettes/tests/test_one/test_one.yaml",
        "packages/two/cassettes/tests/test_two/@module.shared.yaml",
        "packages/two/cassettes/tests/test_two/test_one.yaml",
    ]
    monorepo.asked()
    monkeypatch.chdir(monorepo.folder)
    monorepo.run().assert_outcomes(passed=2)
    monorepo.run("packages/one", "packages/two").assert_outcomes(passed=2)
    (monorepo.folder / "pyproject.toml").unlink()
    monorepo.run("packages/one", "packages/two").assert_outcomes(passed=2)
    monorepo.run("packages").assert_outcomes(passed=2)
    assert monorepo.asked() == 0
    monorepo.run("--lm-rewrite", "packages").assert_outcomes(passed=2)
    assert files(monorepo) == recorded


def test_the_command_of_a_miss_mends_the_full_run(monorepo):
    """It records with the rootdir of the run that missed, so that the same run passes next."""
    text = monorepo.run("-vv").stdout.str()
    assert f"rootdir    {monorepo.folder}, from pyproject.toml" in text
    commands = {
        line.partition("Record it:  pytest ")[2] for line in text.splitlines() if "Record it:" in line
    }
    assert len(commands) == 2
    assert all("-c pyproject.toml" in command for command in commands)
    for command in commands:
        monorepo.run(*shlex.split(command)).assert_outcomes(passed=1)
    monorepo.run().assert_outcomes(passed=2)
    assert all(name.startswith("cassettes/packages/") for name in files(monorepo))


def test_a_recording_above_rootdir_is_named(monorepo, monkeypatch):
    """From within a package, the miss says with which rootdir the test was recorded; that replays it."""
    monorepo.record()
    monkeypatch.chdir(monorepo.folder / "packages/one")
    monorepo.asked()
    text = monorepo.run().stdout.str()
    assert f"rootdir    {monorepo.folder / 'packages/one'}, from pyproject.toml" in text
    assert f"Replay it with --rootdir={monorepo.folder}" in text
    monorepo.run(f"--rootdir={monorepo.folder}", "tests").assert_outcomes(passed=1)
    assert monorepo.asked() == 0


def test_configuration_elsewhere(suite):
    """With ``-c ci/pytest.ini`` a test keeps the cassette that it has without, and the command names the file."""
    suite.file("ci/pytest.ini", "[pytest]\n")
    suite.file("tests/test_it.py", TEST.format(folder=str(suite.folder)))
    text = suite.run("-c", "ci/pytest.ini", "tests").stdout.str()
    assert 'Record it:  pytest --lm-record -c ci/pytest.ini "tests/test_it.py' in text
    suite.record("-c", "ci/pytest.ini", "tests")
    assert files(suite) == [
        "cassettes/tests/test_it/@module.shared.yaml",
        "cassettes/tests/test_it/test_one.yaml",
    ]
    suite.asked()
    suite.run().assert_outcomes(passed=1)
    suite.run("-c", "ci/pytest.ini", "tests").assert_outcomes(passed=1)
    assert suite.asked() == 0


def test_several_recordings_of_one_test(suite):
    """Where it is not clear which recording is the test's, all are named and none is used."""
    suite.file("pytest.ini", "[pytest]\n")
    suite.file(
        "a/b/test_it.py", "import sys\nsys.path.insert(0, '.')\n" + TEST.format(folder=str(suite.folder))
    )
    for folder in ("a", "a/b"):
        suite.record(f"--rootdir={suite.folder / folder}", "-c", "pytest.ini", "a/b/test_it.py")
    suite.asked()
    result = suite.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*several cassettes could belong to this test*"])
    assert suite.asked() == 0


def test_another_recorders_file_is_not_taken(suite):
    """A cassette of pytest-recording beside the test file, of the same name, is left alone."""
    suite.file("pytest.ini", "[pytest]\n")
    suite.file("tests/test_it.py", TEST.format(folder=str(suite.folder)))
    other = suite.file("tests/cassettes/test_it/test_one.yaml", "interactions: []\nversion: 1\n")
    suite.record()
    assert other.read_text() == "interactions: []\nversion: 1\n"
    assert "cassettes/tests/test_it/test_one.yaml" in files(suite)


def test_an_installed_package(suite, tmp_path_factory, monkeypatch):
    """The tests of an installed package have their cassettes below rootdir, by the package's name."""
    site = tmp_path_factory.mktemp("venv") / "lib/site-packages"
    (site / "known_pkg").mkdir(parents=True)
    (site / "known_pkg/__init__.py").touch()
    (site / "known_pkg/test_it.py").write_text(TEST.format(folder=str(suite.folder)))
    monkeypatch.syspath_prepend(str(site))
    suite.file("pytest.ini", "[pytest]\n")
    suite.record("--pyargs", "known_pkg")
    assert files(suite) == [
        "cassettes/known_pkg/test_it/@module.shared.yaml",
        "cassettes/known_pkg/test_it/test_one.yaml",
    ]


def test_blocks_have_one_cassette_too(suite, monkeypatch):
    """What ``use_cassette`` recorded for a package, or without ``-c``, replays with another rootdir."""
    suite.file("ci/pytest.ini", "[pytest]\n")
    suite.file("pyproject.toml", PACKAGE)
    suite.file("pkg/pyproject.toml", PACKAGE)
    text = f"""
        import sys; sys.path.insert(0, {str(suite.folder)!r})
        from app import ask
        from pytest_lmcache import use_cassette

        def test_one():
            with use_cassette("cassettes/one.yaml", mode="MODE"):
                ask()
    """
    suite.file("pkg/tests/test_it.py", textwrap.dedent(text).replace("MODE", "once"))
    monkeypatch.chdir(suite.folder / "pkg")
    suite.run().assert_outcomes(passed=1)
    assert files(suite) == ["pkg/cassettes/one.yaml"]
    suite.asked()
    monkeypatch.chdir(suite.folder)
    for arguments in ([], ["-c", "ci/pytest.ini", "pkg"]):
        suite.run(*arguments).assert_outcomes(passed=1)
    (suite.folder / "pkg/cassettes/one.yaml").rename(suite.folder / "one.yaml")
    (suite.folder / "cassettes").mkdir()
    (suite.folder / "one.yaml").rename(suite.folder / "cassettes/one.yaml")
    suite.run("-c", "ci/pytest.ini", "pkg").assert_outcomes(passed=1)
    assert suite.asked() == 0
    suite.file("pkg/tests/test_it.py", textwrap.dedent(text).replace("MODE", "replay"))
    monkeypatch.chdir(suite.folder / "pkg")
    result = suite.run()
    result.stdout.fnmatch_lines(
        [
            f"*rootdir    {suite.folder}/pkg, from pyproject.toml",
            f"*Found      {suite.folder}/cassettes/one.yaml: recorded with another rootdir.*",
            '*set lm_cassette_dir = "{test_dir}/cassettes" and record again.*',
            'Record:     use_cassette("cassettes/one.yaml", mode="record")',
        ]
    )
