"""``scope=`` of a mark: tests of a class, a module or a session that share one cassette."""

import json

import pytest
from cli_helpers import lazily

from pytest_lmcache.cli.main import main

TESTS = """
    pytestmark = pytest.mark.lm_cache(scope="{scope}")
    def test_a():
        ask("a")
        ask("both")
    class TestIt:
        def test_b(self):
            ask("b")
            ask("both")
        class TestInner:
            def test_c(self):
                ask("c")
        def test_d(self):
            ask("d")
"""


@pytest.mark.parametrize(
    ("scope", "cassettes", "asked"),
    [
        (
            "function",
            ["TestIt.TestInner.test_c", "TestIt.test_b", "TestIt.test_d", "test_a"],
            6,
        ),
        ("class", ["TestIt.@class", "TestIt.TestInner.@class", "test_a"], 6),
        ("module", ["@module"], 5),
    ],
)
def test_tests_share_a_cassette(suite, scope, cassettes, asked):
    """The tests of a scope have one file, from which each replays alone; one outside of classes has its own."""
    suite.test(TESTS.format(scope=scope))
    suite.record()
    assert suite.cassettes() == [f"test_it/{name}.yaml" for name in cassettes]
    assert suite.asked() == asked
    for args in ((), ("-k", "test_d"), ("test_it.py::TestIt::TestInner", "test_it.py::test_a")):
        result = suite.run(*args)
        assert result.ret == 0
        result.stdout.no_fnmatch_line("*unused*")
    assert suite.asked() == 0


def test_the_session_shares_a_cassette(suite):
    """Scope session is one file for all test files, as the configuration says it, and a mark may say otherwise."""
    suite.file("pytest.ini", "[pytest]\npythonpath = .\nlm_scope = session\nlm_auto = true\n")
    suite.test("def test_a(): ask()", "one/test_a.py")
    suite.test(
        "def test_b(): ask()\n@pytest.mark.lm_cache(scope='function')\ndef test_c(): ask('c')\n",
        "two/test_b.py",
    )
    suite.record()
    assert suite.cassettes() == ["@session.yaml", "two/test_b/test_c.yaml"]
    assert suite.asked() == 2
    suite.run("two").assert_outcomes(passed=2)


def test_the_session_beside_the_tests(suite):
    """With {test_dir} the cassette of the session is the one of rootdir."""
    suite.file(
        "pytest.ini", "[pytest]\npythonpath = .\nlm_scope = session\nlm_cassette_dir = {test_dir}/cassettes\n"
    )
    suite.test("def test_a(lm_cache): ask()", "one/test_a.py")
    suite.record()
    assert suite.cassettes() == ["@session.yaml"]
    assert suite.run().ret == 0


def test_the_session_of_a_nearer_rootdir(suite):
    """A cassette that was recorded in a part of a monorepo is found from above."""
    suite.file("part/pytest.ini", "[pytest]\npythonpath = ..\n")
    suite.test("@pytest.mark.lm_cache(scope='session')\ndef test_a(): ask()", "part/tests/test_a.py")
    suite.record("-c", "part/pytest.ini", "--rootdir=part", "part")
    assert (suite.folder / "part/cassettes/@session.yaml").is_file()
    assert suite.asked() == 1
    assert suite.run("--rootdir=.", "part").ret == 0
    assert suite.asked() == 0


def test_identical_calls_are_counted_per_test(numbered):
    """The second identical call of a test gets the second answer, whichever tests have asked before."""
    numbered.test("""
        pytestmark = pytest.mark.lm_cache(scope="module")
        def test_a():
            assert ask() == "answer 1"
        def test_b():
            assert [ask(), ask()] == ["answer 1", "answer 2"]
        def test_c():
            assert ask() == "answer 1"
    """)
    numbered.record()
    assert numbered.asked() == 2
    for args in ((), ("-k", "test_b"), ("test_it.py::test_c", "test_it.py::test_b", "test_it.py::test_a")):
        assert numbered.run(*args).ret == 0


def test_nothing_of_another_test_is_dropped(suite):
    """A test that asks something new, or is rewritten, leaves the recordings of the others."""
    text = """
        pytestmark = pytest.mark.lm_cache(scope="class")
        class TestIt:
            def test_a(self):
                ask("{}")
            def test_b(self):
                ask("b")
    """
    suite.test(text.format("a"))
    suite.record()
    suite.test(text.format("new"))
    for option in ("--lm-record", "--lm-rewrite"):
        suite.run(option, "-k", "test_a").assert_outcomes(passed=1)
    suite.asked()
    suite.run().assert_outcomes(passed=2)
    cassette = (suite.folder / "cassettes/test_it/TestIt.@class.yaml").read_text()
    assert cassette.startswith("# pytest-lmcache cassette of the tests of test_it.py::TestIt\nlmcache: ")
    assert "content: a\n" in cassette


def test_mode_once_records_all_tests_of_a_new_cassette(suite):
    """In mode once the first test makes the file, and the others still record into it; the next run records none."""
    suite.test(TESTS.format(scope="module"))
    suite.run("--lm-mode=once").assert_outcomes(passed=4)
    assert suite.asked() == 5
    suite.test(TESTS.format(scope="module").replace('ask("d")', 'ask("new")'))
    suite.run("--lm-mode=once").assert_outcomes(passed=3, failed=1)
    assert suite.asked() == 0


def test_mode_once_while_another_worker_makes_the_file(suite):
    """A cassette that appears after the tests were collected, as another worker of pytest-xdist makes it, is new."""
    suite.test("@pytest.mark.lm_cache(scope='module')\ndef test_b(): ask('first')\n")
    suite.record()
    (suite.folder / "cassettes/test_it/@module.yaml").rename(suite.folder / "made.yaml")
    suite.test("""
        from pathlib import Path
        def test_a():
            Path("made.yaml").rename("cassettes/test_it/@module.yaml")
        @pytest.mark.lm_cache(scope="module")
        def test_b():
            ask("second")
    """)
    suite.run("--lm-mode=once").assert_outcomes(passed=2)
    text = (suite.folder / "cassettes/test_it/@module.yaml").read_text()
    assert "content: first\n" in text
    assert "content: second\n" in text


def test_a_miss_names_the_file_and_records_the_one_test(suite):
    """The message has the shared file, and the command for the test alone, which then replays."""
    suite.test(TESTS.format(scope="class"))
    suite.record()
    suite.test(TESTS.format(scope="class").replace('ask("d")', 'ask("new")'))
    result = suite.run()
    result.stdout.fnmatch_lines(
        [
            "*Looked in  cassettes/test_it/TestIt.@class.yaml: 3 recordings, none with this key.",
            '*Record it: * pytest --lm-record "test_it.py::TestIt::test_d"',
        ]
    )
    suite.record("test_it.py::TestIt::test_d")
    assert suite.run().ret == 0


def test_cassettes_of_their_own_are_not_taken_for_renamed_tests(suite):
    """Tests that begin to share a cassette are not told that their old files belong to tests that are gone."""
    suite.test(TESTS.format(scope="function"))
    suite.record()
    suite.test(TESTS.format(scope="module"))
    result = suite.run()
    result.assert_outcomes(failed=4)
    result.stdout.no_fnmatch_line("*pytest-lmcache move*")


def test_names_and_none_win(suite):
    """A test whose settings name a cassette, or none, has that one in every scope; shared fixtures have theirs."""
    suite.test("""
        pytestmark = pytest.mark.lm_cache(scope="module")
        @pytest.fixture(scope="module")
        def plan():
            ask("plan")
        @pytest.mark.lm_cache(cassette="poems")
        def test_a(plan):
            ask("a")
        @pytest.mark.lm_cache(cassette=None)
        def test_b():
            ask("b")
        def test_c():
            ask("c")
    """)
    suite.record()
    assert suite.cassettes() == ["poems.yaml", "test_it/@module.plan.yaml", "test_it/@module.yaml"]


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (
            "scope='package'",
            "*scope cannot be 'package'; it takes one of: function, class, module, session.",
        ),
        ("scope='class', samples=2", "*cannot be combined with scope='class'. Add scope='function', or *"),
    ],
)
def test_wrong_scopes(suite, mark, said):
    """What cannot be is an error before any test runs."""
    suite.test(f"@pytest.mark.lm_cache({mark})\ndef test_a(): ask()\n")
    result = suite.run("--lm-record")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert suite.asked() == 0


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["module", "session"])
def test_workers_record_into_one_file(suite, scope):
    """Two workers of pytest-xdist lose nothing of what their tests record into one file at once."""
    suite.test(f"""
        @pytest.mark.lm_cache(scope="{scope}")
        @pytest.mark.parametrize("number", range(20))
        def test_a(number):
            ask(f"question {{number}}")
            ask("both")
            ask("both")
    """)
    done = suite.spawn("--lm-record", "-n", "2")
    assert done.returncode == 0, done.stdout
    name = {"module": "test_it/@module.yaml", "session": "@session.yaml"}[scope]
    assert suite.cassettes() == [name]
    assert (suite.folder / "cassettes" / name).read_text().count("\n--- # ") == 22
    suite.asked()
    assert suite.run().ret == 0
    assert suite.asked() == 0


@pytest.fixture
def shared(tmp_path, monkeypatch, suite):
    """A recorded suite whose tests share cassettes of each scope."""
    monkeypatch.chdir(suite.folder)
    suite.file("pytest.ini", "[pytest]\npythonpath = .\naddopts = -p no:randomly\n")
    for scope in ("class", "module", "session"):
        lazily(
            suite,
            f"""
            pytestmark = pytest.mark.lm_cache(scope="{scope}")
            class TestIt:
                def test_a(self): ask("a")
                def test_b(self): ask("b")
            """,
            f"tests/test_{scope}.py",
        )
    suite.record()
    assert suite.cassettes() == [
        "@session.yaml",
        "tests/test_class/TestIt.@class.yaml",
        "tests/test_module/@module.yaml",
    ]
    return suite


@pytest.mark.slow
def test_check_and_list_know_shared_cassettes(shared, capsys):
    """They are no orphans while a test has them; they are when no test shares them any more."""
    assert main(["check", "--json"]) == 0
    assert main(["list", "tests/test_class.py::TestIt", "tests/test_module.py::TestIt::test_a"]) == 0
    out = capsys.readouterr().out
    assert "the tests of tests/test_class.py::TestIt" in out
    assert "the tests of tests/test_module.py" in out
    for scope in ("class", "module", "session"):
        path = shared.folder / f"tests/test_{scope}.py"
        path.write_text(path.read_text().replace(f'scope="{scope}"', 'scope="function"'))
    assert main(["check", "--json"]) == 1
    orphans = [
        each["path"] for each in json.loads(capsys.readouterr().out)["findings"] if each["kind"] == "orphan"
    ]
    assert orphans == [f"cassettes/{name}" for name in shared.cassettes()]
    assert main(["prune", "--yes"]) == 0
    assert shared.cassettes() == []


@pytest.mark.slow
def test_move_takes_shared_cassettes_along(shared, capsys):
    """The cassette of a file or class with a new name goes to its new place, and replays there."""
    for scope in ("class", "module"):
        old, new = (shared.folder / f"tests/{name}_{scope}.py" for name in ("test", "test_new"))
        old.rename(new)
        assert main(["move", f"tests/test_{scope}.py", f"tests/test_new_{scope}.py"]) == 0
    path = shared.folder / "tests/test_new_class.py"
    path.write_text(path.read_text().replace("class TestIt", "class TestNew"))
    assert main(["move"]) == 1
    assert "not moved: the tests of tests/test_new_class.py::TestIt: " in capsys.readouterr().out
    assert main(["move", "tests/test_new_class.py::TestIt", "tests/test_new_class.py::TestNew"]) == 0
    assert shared.cassettes() == [
        "@session.yaml",
        "tests/test_new_class/TestNew.@class.yaml",
        "tests/test_new_module/@module.yaml",
    ]
    assert main(["check"]) == 0
    assert shared.run().ret == 0
