"""What the command knows of a suite: the cassette of each test and of each shared fixture, as a run has them."""

import os

import pytest
from cli_helpers import lazily

from pytest_lmcache.cli.project import Project
from pytest_lmcache.cli.suite import suite_of
from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.maintenance.suite import collect

pytestmark = pytest.mark.slow
CONFTEST = """
import pytest

def ask(text):
    from app import ask
    return ask(text)

@pytest.fixture(scope="session")
def everywhere(): return ask("session")

@pytest.fixture(scope="session", params=["p", 2])
def each(request): return ask(f"each {request.param}")

@pytest.fixture(scope="package")
def parcel(): return ask("package")

@pytest.fixture(scope="module")
def plan(): return ask("plan of conftest")
"""
TESTS = '''
    import unittest

    def asks():
        """
        >>> ask("doctest") is not None
        True
        """

    @pytest.fixture(scope="module")
    def plan(plan): return ask(f"plan of the module, after {plan}")

    @pytest.fixture(scope="class")
    def of_class(everywhere): return ask("class")

    @pytest.mark.parametrize("name", ["a", "b/c", "ü [x]", 1.5])
    def test_parameters(name, plan): ask(f"one {name}")

    class TestOuter:
        class TestInner:
            def test_it(self, of_class, each, parcel): ask("inner")

    class TestOld(unittest.TestCase):
        def test_old(self): ask("old")

    @pytest.mark.lm_cache(cassette="shared/one")
    def test_named(): ask("named")

    @pytest.mark.skip
    def test_skipped(): ask("x")
'''


def listed(folder):
    """The cassettes that the suite may have, and the suite."""
    suite = collect(suite_of(Project.find([folder])))
    assert suite.is_collected
    return {*suite.by_cassette, *suite.fixtures}, suite


@pytest.mark.parametrize("directory", ["cassettes", "{test_dir}/cassettes"])
def test_every_cassette_of_a_run_is_listed(suite, monkeypatch, directory):
    """All that a run records is known before: parameters, classes, unittest, doctests, fixtures of every scope."""
    suite.file("conftest.py", CONFTEST)
    suite.file("pkg/__init__.py", "")
    suite.file(
        "pytest.ini",
        f"[pytest]\nlm_auto = true\nlm_cassette_dir = {directory}\naddopts = --doctest-modules -p no:randomly\n"
        "pythonpath = .\nconsider_namespace_packages = true\n",
    )
    lazily(suite, TESTS, "pkg/test_it.py")
    suite.record()
    monkeypatch.chdir(suite.folder)
    recorded = {path for path in suite.folder.rglob("*.yaml") if "cassettes" in path.parts}
    assert len(recorded) >= 15
    known, found = listed(suite.folder)
    assert recorded <= known
    assert found.failed == {}
    assert all(test.is_marked for test in found.tests)
    assert found.by_cassette[
        suite.folder / ("cassettes" if directory == "cassettes" else "pkg/cassettes") / "shared/one.yaml"
    ][0].sharers


def test_options_of_the_configuration(tmp_path, monkeypatch):
    """-n, -k, --maxfail and a random order in addopts hide no test, and each test has its mark's settings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = -n 2 -k nothing --maxfail=1\nlm_normalize = uuid\n"
    )
    (tmp_path / "test_a.py").write_text(
        "import pytest\n"
        "@pytest.mark.lm_cache(key='messages', max_age='2d', redact='x-[0-9]+')\n"
        "def test_a(): pass\n"
        "def test_b(lm_cache): pass\n"
        "def test_c(): pass\n"
    )
    _, suite = listed(tmp_path)
    a, b, c = sorted(suite.tests, key=lambda test: test.nodeid)
    assert (a.settings.key, a.settings.max_age, a.settings.redact) == ("messages", 172_800, ("x-[0-9]+",))
    assert a.settings.normalize == b.settings.normalize == ("uuid",)
    assert [test.is_marked for test in (a, b, c)] == [True, True, False]


def test_a_cassette_that_was_recorded_nearer(tmp_path, monkeypatch):
    """In a monorepo a package's cassettes, recorded with its own rootdir, are those of its tests."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/test_a.py").write_text("def test_a(lm_cache): pass\n")
    near = tmp_path / "pkg/cassettes/test_a/test_a.yaml"
    near.parent.mkdir(parents=True)
    near.write_text("lmcache: 1\nkey: exact/1\n")
    known, _ = listed(tmp_path)
    assert near in known


def test_pytest_that_fails(tmp_path, monkeypatch):
    """If pytest cannot start, its own words are shown, with the command that shows all of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    with pytest.raises(
        LMCacheError, match=r"(?s)unrecognized arguments: --no-such-option.*pytest --collect-only"
    ):
        listed(tmp_path)


def test_an_invalid_mark(tmp_path, monkeypatch):
    """The test of an invalid mark is told; the others are listed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_a.py").write_text(
        "import pytest\n@pytest.mark.lm_cache(mood='x')\ndef test_a(): pass\ndef test_b(lm_cache): pass\n"
    )
    _, suite = listed(tmp_path)
    assert "there is no setting 'mood'" in suite.failed["test_a.py::test_a"]
    assert {test.nodeid for test in suite.tests} == {"test_a.py::test_a", "test_a.py::test_b"}


def test_another_configuration(tmp_path, monkeypatch):
    """The options of the command name rootdir, the configuration and single values, as they do for pytest."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci/other.ini").write_text("[pytest]\nlm_cassette_dir = tapes\n")
    (tmp_path / "test_a.py").write_text("def test_a(lm_cache): pass\n")
    project = Project.find(config_file="ci/other.ini", rootdir=".", override_ini=["lm_key=content"])
    suite = collect(suite_of(project))
    [test] = suite.tests
    assert os.path.relpath(test.cassette) == "tapes/test_a/test_a.yaml"
    assert test.settings.key == "content"
