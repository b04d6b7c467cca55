"""The layers behind the cassettes, as a suite sets, replaces and sees them."""

from textwrap import dedent

import pytest
from provider import Reply

pytestmark = pytest.mark.usefixtures("default_layers")


def test_summary_of_the_layers(suite):
    """The summary tells what came from which layer; with -v what each layer was asked."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            ask("one")

        @pytest.mark.lm_cache(cassette=None)
        def test_two():
            ask("two")

        @pytest.mark.lm_cache(cassette=None)
        def test_three():
            ask("two")
    """)
    suite.record().stdout.fnmatch_lines(
        [
            "0 replayed, 1 from memory, 1 recorded, 1 asked and only cached",
            "saved 1? tokens, $0.00000*",
            "spent 2? tokens, $0.00000*",
            "answers taken from the cache, with the test that first asked for them:",
            "  test_it.py::test_three (1 from memory, first asked by test_it.py::test_two at 20??-??-??T??:??:??Z)",
        ]
    )
    for path in (suite.folder / "cassettes").rglob("*.yaml"):
        path.unlink()
    suite.record("-v").stdout.fnmatch_lines(
        [
            "0 replayed, 2 from disk, 1 from memory",
            "  openai/gpt-4o-mini: *",
            "layer memory: 1 hits, 2 misses, 0 stored",
            "layer disk: 2 hits, 0 misses, 0 stored",
            "  test_it.py::test_one (1 from disk, first asked by test_it.py::test_one at *)",
        ]
    )
    assert suite.asked() == 2
    result = suite.run("-v", "-k", "one")
    result.stdout.fnmatch_lines(["1 replayed"])
    result.stdout.no_fnmatch_line("layer *")


@pytest.mark.slow
def test_workers_ask_together(suite):
    """Workers that record one cassette at once ask each distinct call once: the others wait for its answer."""
    suite.test("""
        pytestmark = pytest.mark.lm_cache(cassette="together")

        @pytest.mark.parametrize("number", range(12))
        def test_one(number):
            assert ask(f"shared {number // 6}") == f"You said: shared {number // 6}"

        @pytest.mark.parametrize("number", range(6))
        def test_async(number):
            assert asyncio.run(aask(f"async {number // 3}")) == f"You said: async {number // 3}"
    """)
    recorded = suite.spawn("--lm-record", "-n", "2", "--dist=load", "--maxschedchunk=1")
    assert recorded.returncode == 0, recorded.stdout
    assert suite.asked() == 4
    assert suite.cassettes() == ["together.yaml"]
    suite.run().assert_outcomes(passed=18)
    assert suite.asked() == 0


BACKEND = """
import pytest
from pytest_lmcache import Cache

class Content(Cache):
    asked = []

    def cache_key(self, request):
        return request["messages"][-1]["content"]

    def get(self, key):
        self.asked.append(key)
        return super().get(key)

@pytest.fixture(scope="session")
def lm_cache_backend():
    return Content(enable_disk_cache=False)
"""


def test_backend_fixture(suite):
    """A conftest's ``lm_cache_backend`` stands behind every recorded test, also for calls of its fixtures."""
    suite.file("conftest.py", BACKEND)
    suite.test("""
        from conftest import Content

        @pytest.fixture
        def early():
            return ask("early")

        @pytest.mark.lm_cache
        @pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "openai/gpt-4o"])
        def test_models(early, lm_cache, model):
            assert ask(model=model) == "You said: hello"
            assert len(Content.asked) == (0 if lm_cache.replayed else 2 if model.endswith("mini") else 4)

        def test_unmarked():
            pass
    """)
    result = suite.record()
    result.stdout.fnmatch_lines(["0 replayed, 4 recorded"])
    suite.run().assert_outcomes(passed=3)


def test_backend_in_a_test_file_and_for_shared_fixtures(suite):
    """A test file may have its own backend; it serves the calls of fixtures that outlive a test too."""
    suite.test(
        BACKEND
        + """
@pytest.fixture(scope="module")
def shared():
    return ask("shared")

@pytest.mark.lm_cache
def test_one(shared):
    assert ask("shared") == shared
    assert [key.partition("\\x1f")[0] for key in Content.asked] == ["shared"] * 2
"""
    )
    suite.record().stdout.fnmatch_lines(["0 replayed, 2 recorded"])


WAYS = {
    "another name": """
        @pytest.fixture(scope="session", name="lm_cache_backend")
        def named():
            return OWN

        @pytest.mark.lm_cache
        def test_it():
            ask()
    """,
    "an outer class": """
        class TestOuter:
            @pytest.fixture
            def lm_cache_backend(self):
                return OWN

            class TestInner:
                @pytest.mark.lm_cache
                def test_it(self):
                    ask()
    """,
    "a fixture asked for late": """
        @pytest.fixture
        def lm_cache_backend():
            return OWN

        def test_it(request):
            request.getfixturevalue("lm_cache")
            ask()
    """,
    "unittest": """
        import unittest

        @pytest.fixture
        def lm_cache_backend():
            return OWN

        @pytest.mark.lm_cache
        class TestIt(unittest.TestCase):
            def test_it(self):
                ask()
    """,
}


@pytest.mark.parametrize("way", WAYS)
def test_backend_in_any_way(suite, way):
    """However a suite overrides the fixture, what it gives stands behind the test."""
    own = "from pytest_lmcache import Cache\nOWN = Cache(enable_disk_cache=False)\n"
    check = "def test_last():\n    assert OWN.stats()['memory'].puts == 1\n"
    suite.test(own + dedent(WAYS[way]) + check)
    suite.record().assert_outcomes(passed=2)


def test_backend_of_doctests(suite):
    """A doctest under ``lm_auto`` has the backend of its conftest."""
    suite.file("conftest.py", BACKEND)
    suite.file("pytest.ini", "[pytest]\nlm_auto = true\naddopts = --doctest-modules\n")
    suite.file("shop.py", '"""\n>>> from app import ask\n>>> ask()\n\'You said: hello\'\n"""\n')
    suite.test("""
        from conftest import Content

        def test_last():
            assert len(Content.asked) == 1
    """)
    suite.record("shop.py", "test_it.py").assert_outcomes(passed=2)


def test_configured_in_a_conftest(suite):
    """``configure_cache`` in a conftest adds to the configuration: the layers lie where pytest's cache does."""
    suite.file("conftest.py", "import pytest_lmcache\npytest_lmcache.configure_cache(ttl=60)\n")
    suite.file("pytest.ini", "[pytest]\nlm_memory_max_entries = 7\n")
    suite.test(
        """
        import pytest_lmcache

        @pytest.mark.lm_cache
        def test_it():
            ask()
            settings = pytest_lmcache.cache._settings
            assert (settings.ttl, settings.memory_max_entries) == (60, 7)
            assert str(settings.disk_cache_dir).endswith(".pytest_cache/d/lmcache")
        """,
        "sub/test_it.py",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(suite.folder / "sub")
        suite.pytester.syspathinsert(suite.folder)
        suite.record().assert_outcomes(passed=1)
    assert (suite.folder / ".pytest_cache/d/lmcache").is_dir()
    assert not (suite.folder / "sub/.pytest_cache").exists()


def test_own_name_for_statistics(suite):
    """A cache whose author keeps something else under ``stats`` ends no run."""
    suite.test("""
        from pytest_lmcache import Cache

        class Counting(Cache):
            def __init__(self):
                super().__init__(enable_disk_cache=False)
                self.stats = {"hits": 0}

        @pytest.mark.lm_cache(cache=Counting())
        def test_it():
            ask()
    """)
    suite.record("-v").assert_outcomes(passed=1)


@pytest.mark.slow
def test_streams_that_raced_are_told(suite):
    """Streams do not wait for each other: where two processes asked the same at once, the summary says so."""
    suite.provider.script(Reply(delay=0.5), Reply(delay=1.0))  # both asked before one is answered
    suite.test("""
        @pytest.mark.lm_cache(cassette="raced")
        @pytest.mark.parametrize("number", range(2))
        def test_it(number):
            list(litellm.completion(messages=said("raced"), stream=True, **SETTINGS))
    """)
    result = suite.spawn("--lm-record", "-n", "2", "--dist=load")
    assert result.returncode == 0, result.stdout
    assert ("sent by more than one process" in result.stdout) == (suite.asked() > 1)


def test_no_backend_no_trace(suite):
    """Where nobody overrides it, the fixture is set up for no test."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one(request):
            ask()
            assert "lm_cache_backend" not in request.fixturenames
    """)
    suite.record("--setup-show").stdout.no_fnmatch_line("*lm_cache_backend*")


def test_backend_that_is_none(suite):
    """A backend of the wrong kind is told; None is the configured cache."""
    suite.file("conftest.py", BACKEND.replace("Content(enable_disk_cache=False)", "None"))
    suite.test("""
        @pytest.mark.lm_cache
        def test_one(lm_cache):
            ask()
    """)
    suite.record().assert_outcomes(passed=1)
