"""The record of the last run, which `check`, `prune` and `report` read: written once, and honest about what was left out."""

import json

import pytest

from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.run_record import digest_of, last_full_run, last_run


@pytest.fixture
def recorded(suite):
    """A suite of two recorded tests that share nothing."""
    at = suite.options.index("no:cacheprovider")
    suite.options = (*suite.options[: at - 1], *suite.options[at + 1 :])
    suite.test(
        """
        import pytest_lmcache
        pytestmark = pytest.mark.lm_cache
        def test_one(): ask("one")
        def test_two(): ask("two")
        @pytest.mark.lm_cache(cassette="shared")
        @pytest.mark.parametrize("name", ["a", "b"])
        def test_shared(name): ask(name)
        @pytest.fixture(scope="module")
        def plan(): return ask("plan")
        def test_plan(plan): pass
        def test_block():
            with pytest_lmcache.use_cassette("cassettes/block.yaml", mode="record"): ask("block")
        """
    )
    suite.record()
    return suite


def full(suite):
    return last_full_run(suite.folder / ".pytest_cache")


def last(suite):
    return last_run(suite.folder / ".pytest_cache")


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_full_run(recorded, more):
    """Each test has its outcome and its cassettes, each cassette those that opened it, also over xdist."""
    run = recorded.run if not more else recorded.spawn
    run(*more)
    found = full(recorded)
    assert found == last(recorded)
    assert (found.mode, found.partial, found.is_full) == ("replay", (), True)
    assert {test: each.outcome for test, each in found.tests.items()} == {
        f"test_it.py::{name}": "passed"
        for name in ("test_one", "test_two", "test_shared[a]", "test_shared[b]", "test_plan", "test_block")
    }
    assert found.tests["test_it.py::test_one"].cassettes == ("cassettes/test_it/test_one.yaml",)
    assert set(found.tests["test_it.py::test_block"].cassettes) == {
        "cassettes/test_it/test_block.yaml",
        "cassettes/block.yaml",
    }
    assert set(found.cassettes["cassettes/shared.yaml"].users) == {
        "test_it.py::test_shared[a]",
        "test_it.py::test_shared[b]",
    }
    assert found.cassettes["cassettes/test_it/@module.plan.yaml"].users == (
        "the module fixture plan of test_it.py",
    )
    assert {each.unused for each in found.cassettes.values()} == {()}


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_unused_recordings(recorded, more):
    """What no test asked for is named by key and number; of a shared cassette what none of its tests asked for."""
    test = recorded.folder / "test_it.py"
    test.write_text(test.read_text().replace('ask("two")', "pass").replace('["a", "b"]', '["b"]'))
    run = recorded.run if not more else recorded.spawn
    run(*more)
    found = full(recorded)
    unused = {path: each for path, each in found.cassettes.items() if each.unused}
    assert set(unused) == {"cassettes/test_it/test_two.yaml", "cassettes/shared.yaml"}
    for path, each in unused.items():
        [(key, nth)] = each.unused
        assert f"\nkey: {key}\n" in (recorded.folder / path).read_text()
        assert nth == 0
        assert each.digest == digest_of(recorded.folder / path)


def test_missed_calls_have_their_keys(recorded):
    """The key of a call that was not recorded under the test's name tells which recording it was, after a renaming."""
    test = recorded.folder / "test_it.py"
    test.write_text(test.read_text().replace("def test_two", "def test_second"))
    recorded.run()
    found = full(recorded).tests
    [key] = found["test_it.py::test_second"].missed
    assert f"\nkey: {key}\n" in (recorded.folder / "cassettes/test_it/test_two.yaml").read_text()
    assert found["test_it.py::test_one"].missed == ()


def test_a_failed_test_says_nothing_of_its_recordings(recorded):
    """It may not have come to all of its calls."""
    test = recorded.folder / "test_it.py"
    test.write_text(test.read_text().replace('ask("two")', "assert 0"))
    recorded.run()
    assert full(recorded).tests["test_it.py::test_two"].outcome == "failed"
    assert full(recorded).cassettes["cassettes/test_it/test_two.yaml"].unused is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("test_it.py",), "only test_it.py was run"),
        (("test_it.py::test_one",), "only test_it.py::test_one was run"),
        (("-k", "one"), "6 tests were deselected"),
        (("--deselect", "test_it.py::test_one"), "1 test was deselected"),
        (("--lf",), "--last-failed was given"),
        (("--ignore", "other"), "--ignore was given"),
        (("--lm-mode=live",), "mode live asks for no recording"),
    ],
    ids=["file", "node", "keyword", "deselect", "lf", "ignore", "live"],
)
def test_partial_runs(recorded, options, reason):
    """A run that leaves tests out says so, and the last full run is still known."""
    before = full(recorded)
    assert before.is_full
    recorded.test("def test_other(): pass", "test_other.py")
    recorded.run(*options)
    assert last(recorded).partial[0] == reason
    assert full(recorded) == before
    recorded.run()
    assert last(recorded).is_full


@pytest.mark.parametrize("options", [(".",), ("test_it.py", "test_other.py"), ("--ff",)])
def test_naming_the_whole_suite_is_a_full_run(recorded, options):
    """``testpaths`` on the command line are the whole suite, and so is rootdir; an order selects nothing."""
    recorded.test("def test_other(): pass", "test_other.py")
    recorded.file("pytest.ini", "[pytest]\ntestpaths = test_*.py\n")
    recorded.run(*options)
    assert last(recorded).partial == ()


@pytest.mark.parametrize("how", ["-x", "interrupt", "broken file"])
def test_stopped_runs(recorded, how):
    """What was stopped, or could not be collected, is no full run."""
    text = {"-x": "assert 0", "interrupt": "raise KeyboardInterrupt", "broken file": "pass"}[how]
    recorded.test(f"def test_other(): {text}", "test_zz.py")
    if how == "broken file":
        recorded.test("1 / 0", "test_zz.py")
    recorded.run(*([how] if how == "-x" else ["--continue-on-collection-errors"]))
    expected = "test_zz.py could not be collected" if how == "broken file" else "the run was stopped"
    assert last(recorded).partial == (expected,)


def test_a_live_test_in_a_full_run(recorded):
    """A test that its mark makes live keeps a run full; what it would ask for of its cassette is not known."""
    test = recorded.folder / "test_it.py"
    test.write_text(
        test.read_text().replace("def test_two", "@pytest.mark.lm_cache(mode='live')\ndef test_two")
    )
    recorded.run()
    assert full(recorded).is_full
    assert full(recorded).cassettes["cassettes/test_it/test_two.yaml"].unused is None


def test_tests_that_a_plugin_does_not_run(recorded):
    """A test for which nothing is reported has not run, whatever kept it."""
    recorded.file(
        "conftest.py",
        """
        def pytest_runtest_protocol(item, nextitem):
            return True if item.name == "test_two" else None
        """,
    )
    recorded.run()
    assert last(recorded).partial == ("1 test was not run",)


def test_two_blocks_of_one_file(recorded):
    """What the second block of a test asks for is not unused because the first one did not ask for it."""
    text = """
        from pytest_lmcache import use_cassette
        def test_blocks():
            for name in ("a", "b"):
                with use_cassette("cassettes/both.yaml", mode=MODE): ask(name)
        """
    recorded.test(text.replace("MODE", '"record"'), "test_blocks.py")
    recorded.run()
    recorded.test(text.replace("MODE", '"replay"'), "test_blocks.py")
    recorded.run()
    assert full(recorded).cassettes["cassettes/both.yaml"].unused == ()


def test_files_that_skip_themselves_are_known(recorded):
    """Nobody takes the cassettes of a file that is skipped as a whole for unused ones."""
    recorded.test("pytest.skip('not here', allow_module_level=True)", "test_zz.py")
    recorded.run()
    assert last(recorded).tests["test_zz.py"].outcome == "skipped"


@pytest.mark.parametrize("how", [("-p", "no:cacheprovider"), ("--collect-only",), ("-k", "nothing")])
def test_nothing_is_written(recorded, how):
    """Without pytest's cache folder, or without a call that was recorded or replayed, there is no record."""
    import shutil

    shutil.rmtree(recorded.folder / ".pytest_cache")
    recorded.run(*how)
    assert last(recorded) is None
    assert not list(recorded.folder.glob(".pytest_cache/d/*"))


def test_a_record_that_cannot_be_written(recorded, monkeypatch):
    """The run goes on, and one line says what failed."""
    monkeypatch.setattr("pytest_lmcache.run_record.token_hex", lambda _: "no/folder")
    result = recorded.run()
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["pytest-lmcache: the record of this run could not be written: *"])


def test_a_broken_record(tmp_path):
    """A broken record is an error that names the file; one of another version is none."""
    path = tmp_path / "d" / "lmcache-run" / "full.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(LMCacheError, match=r"full.json is broken .*\n.*run: pytest"):
        last_run(tmp_path)
    path.write_text(json.dumps({"version": 2}))
    assert last_run(tmp_path) is None
