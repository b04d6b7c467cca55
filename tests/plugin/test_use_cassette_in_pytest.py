"""``use_cassette`` in a run of pytest: whose misses are whose, what the configuration says to a block, what is counted."""

import pytest


def test_a_miss_belongs_to_its_own_test(suite):
    """A miss of one test's block is no other's, though a block of a wider fixture is open meanwhile; it is told once."""
    suite.test(
        """
        from pytest_lmcache import use_cassette

        @pytest.fixture(scope="module")
        def tape():
            with use_cassette("wide.yaml", mode="record") as tape:
                yield tape

        def test_1(tape):
            ask("one")

        def test_2():
            with use_cassette("other.yaml"):
                ask("two")

        def test_3():
            pass
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*1 recorded, 1 missed*",
            "never recorded, 1 call in 1 test",
            "  test_it.py::test_2",
            'Record:     use_cassette("other.yaml", mode="record")',
        ]
    )
    result.stdout.no_fnmatch_line("*test_3*")
    assert (suite.folder / "wide.yaml").exists()


def test_a_miss_in_a_fixtures_block_is_told_once(suite):
    """A test that failed with a miss does not fail again where the block of its fixture ends."""
    suite.test(
        """
        from pytest_lmcache import use_cassette

        @pytest.fixture
        def tape():
            with use_cassette("x.yaml") as tape:
                yield tape

        def test_it(tape):
            ask()

        def test_swallowed(tape):
            with pytest.raises(BaseException):
                ask()
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_swallowed*", "*2 missed*"])


def test_nested_blocks_count_a_miss_once(suite):
    """A miss in a block within a block is one miss, in a marked test and in another; it fails both blocks."""
    suite.test(
        """
        from pytest_lmcache import use_cassette

        def nested():
            with use_cassette("outer.yaml", mode="record"):
                ask("outer")
                with pytest.raises(BaseException):
                    with use_cassette("inner.yaml"):
                        ask("inner")

        def test_plain():
            nested()

        @pytest.mark.lm_cache
        def test_marked():
            nested()
        """
    )
    result = suite.run()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["* 2 missed*"])
    assert not (suite.folder / "outer.yaml").exists()


def test_a_file_of_several_blocks_has_nothing_unused(suite):
    """What one test's block did not ask of a file is not called unused where another test's block asks it."""
    suite.test(
        """
        from pytest_lmcache import use_cassette

        @pytest.fixture
        def tape():
            with use_cassette("x.yaml", mode="record") as tape:
                yield tape

        def test_1(tape):
            ask("one")

        def test_2(tape):
            ask("two")
        """
    )
    for _ in range(2):
        result = suite.run()
        result.assert_outcomes(passed=2)
        result.stdout.no_fnmatch_line("*unused recording*")


@pytest.mark.parametrize(
    "made",
    [
        "@plain\n        async def function():\n            return await aask()",
        "def function():\n            return aask()",
        "def function():\n            return (ask() for _ in range(1))",
    ],
    ids=["wrapped", "coroutine", "generator"],
)
def test_a_function_whose_calls_come_later(suite, made):
    """A decorated function that returns what has yet to be awaited or iterated is refused, and nobody is asked."""
    suite.test(
        f"""
        import functools
        from pytest_lmcache import SettingsError, use_cassette

        def plain(function):
            @functools.wraps(function)
            def wrapped(*args):
                return function(*args)
            return wrapped

        @use_cassette("none.yaml")
        {made}

        def test_it():
            with pytest.raises(SettingsError, match="after the cassette has been closed"):
                function()
        """
    )
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 0


def test_a_mark_that_a_fixture_adds(suite):
    """A test that a fixture marks is recorded and replayed as any other."""
    suite.test("""
        @pytest.fixture
        def recorded(request):
            request.node.add_marker(pytest.mark.lm_cache)

        def test_it(recorded):
            ask()
    """)
    suite.record()
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 1


def test_command_for_a_test_that_lies_elsewhere(suite):
    """The command that records a test outside of the root folder names the file where it is."""
    suite.file("conf/pytest.ini", "[pytest]\npythonpath = ..\n")
    suite.test("@pytest.mark.lm_cache\ndef test_it():\n    ask()\n", "tests/test_it.py")
    result = suite.run("-c", "conf/pytest.ini", "tests/test_it.py")
    result.stdout.fnmatch_lines(['*pytest --lm-record -c conf/pytest.ini "tests/test_it.py::test_it"*'])


def test_an_expected_failure_tells_no_miss(suite):
    """A miss under xfail has told nobody: the block around the test fails where it ends."""
    suite.test(
        """
        from pytest_lmcache import use_cassette

        @pytest.fixture(scope="module")
        def tape():
            with use_cassette("x.yaml"):
                yield

        @pytest.mark.xfail
        def test_one(tape):
            ask()

        def test_two(tape):
            pass
        """
    )
    suite.run().assert_outcomes(passed=1, xfailed=1, errors=1)


def test_relative_paths_are_from_rootdir(suite, monkeypatch):
    """A block finds its file wherever pytest starts and wherever the test goes, as the mark does."""
    suite.file("pytest.ini", "[pytest]\npythonpath = .\n")
    suite.test(
        """
        from pytest_lmcache import use_cassette

        def test_one(monkeypatch, tmp_path):
            monkeypatch.chdir(tmp_path)
            with use_cassette("cassettes/x.yaml", mode="once"):
                ask()
        """,
        name="sub/test_it.py",
    )
    suite.run().assert_outcomes(passed=1)
    assert suite.cassettes() == ["x.yaml"]
    suite.asked()
    monkeypatch.chdir(suite.folder / "sub")
    suite.run("-c", "../pytest.ini", "test_it.py").assert_outcomes(passed=1)
    assert suite.asked() == 0
    assert not (suite.folder / "sub/cassettes").exists()
