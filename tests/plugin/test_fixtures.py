"""Fixtures that outlive a test: what they ask has a cassette of their own, whichever tests are selected."""

import pytest

pytestmark = pytest.mark.slow


def module_fixture(scope="module", body="return ask('from fixture')"):
    return f"""
@pytest.fixture(scope={scope!r})
def helper():
    {body}
"""


TESTS = """
@pytest.mark.lm_cache
def test_a(helper):
    ask("a")

@pytest.mark.lm_cache
def test_b(helper):
    ask("b")
"""


@pytest.mark.parametrize(
    ("scope", "cassette"),
    [
        ("class", "sub/test_it/TestIt.@class.helper from sub%2Ftest_it.yaml"),
        ("module", "sub/test_it/@module.helper.yaml"),
        ("package", "sub/test_it/@package.helper.yaml"),
        ("session", "sub/test_it/@session.helper.yaml"),
    ],
)
def test_own_cassette_for_every_scope(suite, scope, cassette):
    """One recording serves every selection and order of the tests that use the fixture."""
    suite.file("pytest.ini", "[pytest]\npythonpath = .\n")
    suite.file("sub/__init__.py", "")
    text = module_fixture(scope) + "\n@pytest.mark.lm_cache\nclass TestIt:\n"
    text += (
        "    def test_a(self, helper):\n        ask('a')\n    def test_b(self, helper):\n        ask('b')\n"
    )
    suite.test(text, name="sub/test_it.py")
    suite.record()
    assert suite.asked() == 3
    test_cassettes = ["sub/test_it/TestIt.test_a.yaml", "sub/test_it/TestIt.test_b.yaml"]
    assert suite.cassettes() == sorted([cassette, *test_cassettes])
    for args in ((), ("-k", "test_b"), ("-k", "test_a"), ("-p", "randomly", "-p", "no:lastfailed")):
        result = suite.run(*args)
        assert result.ret == 0, args
        result.stdout.no_fnmatch_line("*unused*")
    assert suite.asked() == 0


def test_recorded_with_one_test_only(suite):
    """A fixture recorded while one of its tests was selected serves the others."""
    suite.test(module_fixture() + TESTS)
    suite.record("-k", "test_a")
    suite.record("-k", "test_b")
    assert suite.asked() == 3


def test_conftest_fixture_of_two_modules(suite):
    """A module fixture defined for several modules has a cassette for each; a rewrite of one keeps the other's."""
    suite.file(
        "conftest.py",
        "import pytest\nfrom app import ask\n"
        "@pytest.fixture(scope='module')\ndef helper(request):\n    return ask(request.module.__name__)\n",
    )
    for name in ("test_one.py", "test_two.py"):
        suite.test("@pytest.mark.lm_cache\ndef test_a(helper):\n    pass\n", name=name)
    suite.record()
    assert suite.cassettes() == [
        "test_one/@module.helper from rootdir.yaml",
        "test_two/@module.helper from rootdir.yaml",
    ]
    suite.run("--lm-rewrite").assert_outcomes(passed=2)
    suite.asked()
    suite.run().assert_outcomes(passed=2)
    assert suite.asked() == 0


def test_fixture_that_overrides_another(suite):
    """A fixture and the one of the same name that it extends do not share a cassette."""
    suite.file(
        "conftest.py",
        "import pytest\nfrom app import ask\n"
        "@pytest.fixture(scope='module')\ndef helper():\n    return ask('base')\n",
    )
    suite.test("""
        @pytest.fixture(scope="module")
        def helper(helper):
            return helper + ask("extended")

        @pytest.mark.lm_cache
        def test_a(helper):
            assert helper == "You said: baseYou said: extended"
    """)
    suite.run("--lm-rewrite").assert_outcomes(passed=1)
    assert len(suite.cassettes()) == 2
    suite.asked()
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 0


def test_parameters(suite):
    """Each parameter of a fixture has a cassette; reordering the parameters changes none."""
    text = """
        @pytest.fixture(scope="module", params=PARAMS)
        def helper(request):
            return ask(str(request.param))

        @pytest.mark.lm_cache
        def test_a(helper):
            pass
    """
    suite.test(text.replace("PARAMS", "['x', 'y']"))
    suite.record()
    suite.test(text.replace("PARAMS", "['y', 'x']"))
    suite.asked()
    suite.run().assert_outcomes(passed=2)
    assert suite.asked() == 0


def test_calls_of_its_teardown(suite):
    """What a fixture asks after its last test is its own too, not that test's."""
    suite.test(module_fixture(body="ask('first')\n    yield\n    ask('last')") + TESTS)
    suite.record()
    assert suite.asked() == 4
    for args in (("-k", "test_a"), ("-k", "test_b"), ()):
        suite.record(*args)
        assert suite.run(*args).ret == 0
    assert suite.asked() == 0
    text = (suite.folder / "cassettes/test_it/@module.helper.yaml").read_text()
    assert text.count("\n--- ") == 2


@pytest.mark.parametrize("kind", ["asyncio", "anyio"])
def test_async_fixture(suite, kind):
    """An async fixture that outlives its test is recorded alike, with pytest-asyncio and with anyio."""
    fixture = {
        "asyncio": "import pytest_asyncio\n@pytest_asyncio.fixture(scope='module', loop_scope='module')\n",
        "anyio": "@pytest.fixture(scope='module')\ndef anyio_backend():\n    return 'asyncio'\n@pytest.fixture(scope='module')\n",
    }[kind]
    mark = {"asyncio": "@pytest.mark.asyncio(loop_scope='module')", "anyio": "@pytest.mark.anyio"}[kind]
    suite.test(
        f"{fixture}async def helper(REQUEST):\n    yield await aask('up')\n    await aask('down')\n".replace(
            "REQUEST", "anyio_backend" if kind == "anyio" else ""
        )
        + f"@pytest.mark.lm_cache\n{mark}\nasync def test_a(helper):\n    assert helper == 'You said: up'\n"
    )
    suite.record()
    assert suite.asked() == 2
    assert suite.cassettes() == ["test_it/@module.helper.yaml"]
    assert suite.run().ret == 0
    assert suite.asked() == 0


def test_first_used_by_an_unmarked_test(suite):
    """A fixture that any marked test uses is recorded, also where an unmarked test sets it up."""
    suite.test(module_fixture() + "def test_0(helper):\n    pass\n" + TESTS)
    suite.record()
    suite.asked()
    result = suite.run()
    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("*not marked*")
    assert suite.asked() == 0


def test_auto_with_litellm_imported_by_the_fixture(suite):
    """Under ``lm_auto`` it makes no difference which test or fixture is the first to import LiteLLM."""
    suite.file("pytest.ini", "[pytest]\nlm_auto = true\n")
    suite.file(
        "test_it.py",
        """
        import pytest

        @pytest.fixture(scope="module")
        def helper():
            from app import ask
            return ask("from fixture")

        def test_a(helper):
            pass

        def test_b(helper):
            from app import ask
            ask("b")
        """,
    )
    result = suite.spawn("--lm-record", "-q")
    assert result.returncode == 0, result.stdout
    assert suite.cassettes() == ["test_it/@module.helper.yaml", "test_it/test_b.yaml"]
    suite.asked()
    assert suite.run("-k", "test_b").ret == 0
    assert suite.asked() == 0


@pytest.mark.parametrize("swallowed", [False, True])
def test_miss_fails_every_test_that_uses_it(suite, swallowed):
    """A fixture whose call misses fails all its tests, also where the fixture swallowed the miss."""
    body = "try:\n        ask()\n    except BaseException:\n        pass" if swallowed else "ask()"
    suite.test(module_fixture(body=body) + TESTS.replace('ask("a")', "pass").replace('ask("b")', "pass"))
    result = suite.run("-vv")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        [
            *["*ERROR at setup of test_a*", "E*Record it:  pytest --lm-record *test_it.py*"],
            *["*ERROR at setup of test_b*", "E*Record it:  pytest --lm-record *test_it.py*"],
            "0 replayed, 1 missed",
        ]
    )


def test_miss_in_a_fixture_of_each_test(suite):
    """A fixture made anew for each test misses anew for each."""
    suite.test(module_fixture("function") + TESTS)
    result = suite.run()
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["0 replayed, 2 missed"])


def test_failed_fixture_writes_nothing(suite):
    """What a fixture asked before it failed is not recorded."""
    suite.test(module_fixture(body="ask('x')\n    raise RuntimeError('broken')") + TESTS)
    suite.run("--lm-record").assert_outcomes(errors=2)
    assert suite.cassettes() == []


def test_settings_are_those_of_its_module(suite):
    """The settings of a shared fixture are those of what it lives for, not of the test that comes first."""
    suite.test(
        "pytestmark = pytest.mark.lm_cache(cassette='all')\n"
        + module_fixture()
        + "@pytest.mark.lm_cache(cassette='own')\ndef test_a(helper):\n    ask('a')\n"
    )
    suite.record()
    assert suite.cassettes() == ["all.yaml", "own.yaml"]
    suite.asked()
    assert suite.run().ret == 0
    assert suite.asked() == 0


def test_setup_show_and_setup_plan(suite):
    """pytest's own views of fixtures work as ever."""
    suite.test(module_fixture() + TESTS)
    suite.record()
    suite.run("--setup-show").stdout.fnmatch_lines(["*SETUP    M helper*"])
    suite.run("--setup-plan").stdout.fnmatch_lines(["*SETUP    M helper*"])
    assert suite.asked() == 3


MARKED = "\n        pytestmark = pytest.mark.lm_cache\n"
SET_UP_TWICE = {
    "data": """
        @pytest.fixture(scope="module")
        def helper(request):
            return ask(request.param["as"])

        @pytest.mark.parametrize("helper", [{"as": "a cook"}], indirect=True)
        def test_a(helper):
            assert helper == "You said: a cook"

        @pytest.mark.parametrize("helper", [{"as": "a pilot"}], indirect=True)
        def test_b(helper):
            assert helper == "You said: a pilot"
    """,
    "numbers and texts": """
        @pytest.fixture(scope="module", params=[1, "1", None, "None", True, "True", 1.5, "1.5"])
        def helper(request):
            return ask(repr(request.param))

        def test_a(helper):
            pass
    """,
    "of another fixture": """
        @pytest.fixture(scope="module", params=["x", "y"])
        def language(request):
            return request.param

        @pytest.fixture(scope="module")
        def between(language):
            return language

        @pytest.fixture(scope="module")
        def helper(between):
            return ask(between)

        def test_a(helper):
            pass
    """,
    "of a test": """
        @pytest.fixture(scope="module")
        def helper(language):
            return ask(language)

        @pytest.mark.parametrize("language", ["x", "y"], scope="module")
        def test_a(helper, language):
            assert helper == f"You said: {language}"
    """,
    "objects": """
        class Cook:
            name = "a cook"

        class Pilot:
            name = "a pilot"

        @pytest.fixture(scope="module")
        def helper(request):
            return ask(request.param.name)

        @pytest.mark.parametrize("helper", [Cook()], indirect=True)
        def test_a(helper):
            assert helper == "You said: a cook"

        @pytest.mark.parametrize("helper", [Pilot()], indirect=True)
        def test_b(helper):
            assert helper == "You said: a pilot"
    """,
}


@pytest.mark.parametrize("text", SET_UP_TWICE.values(), ids=SET_UP_TWICE)
def test_fixture_that_is_set_up_more_than_once(suite, text):
    """With other parameters it asks something else: whichever way it is recorded, all of it is there."""
    suite.test(text + MARKED)
    for mode in ("--lm-record", "--lm-rewrite", "--lm-mode=once"):
        assert suite.run(mode).ret == 0
        suite.asked()
        result = suite.run()
        assert result.ret == 0, mode
        assert suite.asked() == 0
    for path in (suite.folder / "cassettes").rglob("*.yaml"):
        path.unlink()
    assert suite.run("--lm-mode=once").ret == 0
    assert suite.run().ret == 0


def test_parameters_that_differ_from_run_to_run(suite):
    """A path is another one on the next machine, an object holds what it likes: their number tells them apart."""
    suite.test("""
        import uuid
        from dataclasses import dataclass, field
        from pathlib import Path

        class Proxy:
            def __getattr__(self, name):
                raise AttributeError if name.startswith("__") else RuntimeError("outside of a context")

        @dataclass
        class Case:
            id: str = field(default_factory=lambda: str(uuid.uuid4()))

        @pytest.fixture(scope="module", params=[Path(__file__).parent / "a.md", Case(), Proxy()])
        def helper(request):
            return ask(type(request.param).__name__)

        @pytest.mark.lm_cache
        def test_a(helper):
            pass
    """)
    suite.record()
    assert suite.cassettes() == [f"test_it/@module.helper[{number}].yaml" for number in range(3)]


def test_parameter_of_a_fixture_that_overrides(suite):
    """A fixture's cassette is named by what it sees, not by the parameter of a nearer one that extends it."""
    fixture = "import pytest\nfrom app import ask\n@pytest.fixture(scope='session')\n"
    suite.file("conftest.py", fixture + "def helper():\n    return ask('base')\n")
    suite.test("""
        @pytest.fixture
        def helper(helper, case):
            return helper + case

        @pytest.mark.lm_cache
        @pytest.mark.parametrize("case", ["one", "two"])
        def test_a(helper, case):
            assert helper == f"You said: base{case}"
    """)
    suite.record()
    assert suite.cassettes() == ["@session.helper.yaml"]


def test_fixtures_that_override_each_other_crosswise(suite):
    """A fixture may ask for the one that it overrides by way of another."""
    fixture = "@pytest.fixture(scope='module')\n"
    suite.file(
        "conftest.py", f"import pytest\nfrom app import ask\n{fixture}def one():\n    return ask('base')\n"
    )
    suite.test(f"""
        {fixture.strip()}
        def two(one):
            return one + ask('two')

        {fixture.strip()}
        def one(two):
            return two + ask('one')

        @pytest.mark.lm_cache
        @pytest.mark.parametrize("number", [1, 2])
        def test_a(one, number):
            assert one == "You said: baseYou said: twoYou said: one"
    """)
    suite.record()
    suite.asked()
    assert suite.run("-k", "2").ret == 0
    assert suite.asked() == 0


def test_fixture_that_is_tried_again(suite):
    """A set-up that failed is none: the next one's rewrite drops what is no longer asked."""
    text = """
        tries = []

        @pytest.fixture(scope="module")
        def helper():
            tries.append(1)
            assert len(tries) > FAIL
            return ask("PROMPT")

        @pytest.mark.flaky(reruns=2)
        @pytest.mark.lm_cache
        def test_a(helper):
            pass
    """
    suite.test(text.replace("FAIL", "0").replace("PROMPT", "old"))
    suite.record()
    suite.test(text.replace("FAIL", "1").replace("PROMPT", "new"))
    assert suite.run("--lm-rewrite").ret == 0
    assert "old" not in (suite.folder / "cassettes/test_it/@module.helper.yaml").read_text()


def test_block_around_the_set_up_of_a_fixture(suite):
    """A fixture that is set up within a test's block takes its own calls and no other."""
    suite.test("""
        from pytest_lmcache import use_cassette

        @pytest.fixture(scope="module")
        def helper():
            return ask("from fixture")

        @pytest.mark.lm_cache
        def test_a(request):
            with use_cassette("cassettes/block.yaml", mode="record") as block:
                ask("one")
                request.getfixturevalue("helper")
                ask("two")
            assert [call.request["messages"] for call in block.calls] == [said("one"), said("two")]
    """)
    suite.record()
    assert suite.cassettes() == ["block.yaml", "test_it/@module.helper.yaml"]


def test_parameters_of_data_are_told_apart_in_every_selection(suite):
    """A rewrite of one test keeps what the same fixture asked for another, and nothing is called unused."""
    suite.test(SET_UP_TWICE["data"] + MARKED)
    suite.record()
    assert suite.run("--lm-rewrite", "-k", "test_b").ret == 0
    result = suite.run()
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*record anew*")


def test_class_within_a_class(suite):
    """Whether the outer class or the inner one sets a class's fixture up depends on the selection."""
    suite.test("""
        pytestmark = pytest.mark.lm_cache

        @pytest.fixture(scope="class")
        def helper():
            return ask("from fixture")

        class TestOuter:
            def test_a(self, helper):
                pass

            class TestInner:
                def test_b(self, helper):
                    pass
    """)
    suite.record()
    for args in ((), ("-k", "test_b"), ("-k", "test_a")):
        assert suite.run(*args).ret == 0, args
    assert suite.cassettes() == ["test_it/TestOuter.@class.helper from test_it.yaml"]


def test_fixture_of_a_plugin_that_the_conftest_extends(suite):
    """Both stand at rootdir: a rewrite of one does not drop what the other asked."""
    suite.file("pytest.ini", "[pytest]\naddopts = -p helper_plugin\npythonpath = .\n")
    fixture = "import pytest\nfrom app import ask\n@pytest.fixture(scope='session')\n"
    suite.file("helper_plugin.py", fixture + "def helper():\n    return ask('of the plugin')\n")
    suite.file("conftest.py", fixture + "def helper(helper):\n    return helper + ask('of the conftest')\n")
    suite.test("@pytest.mark.lm_cache\ndef test_a(helper):\n    pass\n")
    for mode in ("--lm-record", "--lm-rewrite"):
        assert suite.run(mode).ret == 0
        assert suite.run().ret == 0
    assert suite.cassettes() == ["@session.helper from helper_plugin.yaml", "@session.helper.yaml"]


def test_fixture_of_the_same_name_elsewhere(suite):
    """A fixture of a file without marks is live, though a marked test of another file has one of that name."""
    suite.test(module_fixture() + TESTS, name="test_marked.py")
    suite.test(module_fixture() + "def test_0(helper):\n    pass\n", name="test_other.py")
    suite.record()
    suite.asked()
    suite.run().assert_outcomes(passed=3)
    assert suite.asked() == 1


def test_error_that_a_fixture_swallows_fails_all_its_tests(suite):
    """A broken cassette of a fixture's is not forgotten after the first test."""
    body = "try:\n        ask('x')\n    except Exception:\n        pass"
    suite.test(module_fixture(body=body) + "def test_0(helper):\n    pass\n" + TESTS)
    suite.record("-k", "not test_0")
    suite.file("cassettes/test_it/@module.helper.yaml", "not: ours\n")
    suite.run().assert_outcomes(errors=3)


def test_block_that_a_fixture_leaves_open(suite):
    """It takes what the fixture asks, and the calls of no test, the first as little as the second."""
    suite.test("""
        from pytest_lmcache import use_cassette

        @pytest.fixture(scope="session", autouse=True)
        def helper():
            with use_cassette("cassettes/block.yaml", mode="once"):
                ask("from fixture")
                yield

        @pytest.mark.lm_cache
        def test_a():
            ask("a")

        @pytest.mark.lm_cache
        def test_b():
            ask("b")
    """)
    suite.record()
    suite.asked()
    for test in "ab":
        assert suite.run("-k", f"test_{test}").ret == 0
    assert suite.asked() == 0
    assert suite.cassettes() == ["block.yaml", "test_it/test_a.yaml", "test_it/test_b.yaml"]


def test_block_that_a_fixture_leaves_open_after_it_imports_litellm(suite):
    """Under ``lm_auto`` the test has no recorder before: its calls are its own all the same."""
    suite.file("pytest.ini", "[pytest]\nlm_auto = true\n")
    suite.file(
        "test_it.py",
        """
        import pytest

        @pytest.fixture(scope="session", autouse=True)
        def helper():
            from app import ask
            from pytest_lmcache import use_cassette
            with use_cassette("cassettes/block.yaml", mode="once"):
                ask("from fixture")
                yield

        def test_a():
            from app import ask
            ask("a")
        """,
    )
    result = suite.spawn("--lm-record", "-q")
    assert result.returncode == 0, result.stdout
    assert suite.cassettes() == ["block.yaml", "test_it/test_a.yaml"]


@pytest.mark.parametrize("mode", ["--lm-mode=replay", "--lm-rewrite"])
def test_a_run_that_is_stopped_ends_as_it_would_without(suite, mode):
    """What a fixture asks in its teardown then finds no test, and the run still tells what was asked."""
    suite.test(module_fixture(body="yield\n    ask('last')") + TESTS)
    suite.record()
    suite.test(module_fixture(body="yield\n    ask('last')") + TESTS + "\n    pytest.exit('enough')\n")
    result = suite.run(mode)
    result.stdout.fnmatch_lines(["*language-model calls*", "*Exit: enough*"])
    result.stdout.no_fnmatch_line("*AttributeError*")
    assert "AttributeError" not in result.stderr.str()
