"""Whose answers a recording takes from the layers: its own cassette's, or with ``share`` those of all tests."""

import shutil
import socket

import pytest

pytestmark = pytest.mark.usefixtures("default_layers")

SERVE = """
from contextlib import contextmanager
from provider import Provider

@pytest.fixture
def serve():
    running = []

    def serving(text):
        running.append(Provider())
        running[-1].answer = lambda _: text
        return running[-1].url

    yield serving
    for server in running:
        server.stop()
"""
THREE = """
pytestmark = pytest.mark.lm_cache

def test_a_stand_in(serve):
    assert ask(api_base=serve("a fake server")) == "a fake server"

def test_b_provider(serve):
    assert ask(api_base=serve("the provider")) == "the provider"

def test_c_both(serve):
    assert [ask(api_base=serve("one")), ask(api_base=serve("two"))] == ["one", "two"]
"""


@pytest.fixture
def public(monkeypatch):
    """Names of servers that are not on this machine, which lead to it all the same."""
    real = socket.getaddrinfo

    def lookup(host, *args, **kwargs):
        host = host.decode() if isinstance(host, bytes) else host
        return real("127.0.0.1" if str(host).endswith(".test") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


def forget(suite):
    """Remove the cassettes; the layers stay."""
    shutil.rmtree(suite.folder / "cassettes", ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("share", ["false", "true"])
def test_no_other_tests_answer(suite, share):
    """A loopback server's answer is no other test's, in this run and the next, and with ``lm_share`` neither."""
    suite.file("pytest.ini", f"[pytest]\nlm_share = {share}\n")
    suite.test(SERVE + THREE)
    for _ in range(2):
        suite.record().assert_outcomes(passed=3)
        suite.run().assert_outcomes(passed=3)
        forget(suite)


def test_no_stubs_answer(suite):
    """What a stub below LiteLLM's functions answers in one test is not recorded as another test's answer."""
    suite.test("""
        from litellm.llms.openai.openai import OpenAIChatCompletion

        pytestmark = pytest.mark.lm_cache

        def test_a_stub(monkeypatch):
            def stub(*args, model_response, **kwargs):
                model_response.choices[0].message.content = "a stub"
                return model_response

            monkeypatch.setattr(OpenAIChatCompletion, "completion", stub)
            assert ask() == "a stub"

        def test_b_provider():
            assert ask() == "You said: hello"
    """)
    for _ in range(2):
        suite.record().assert_outcomes(passed=2)
        forget(suite)
    suite.record("-k", "provider").assert_outcomes(passed=1)


def test_no_other_tests_response_id(suite):
    """A ``resp_…`` id of one test does not go on as another test's ``previous_response_id``."""
    suite.test("""
        pytestmark = pytest.mark.lm_cache

        @pytest.mark.parametrize("number", range(2))
        def test_it(number, tmp_path_factory):
            asked = {**SETTINGS, "input": "hello"}
            first = litellm.responses(**asked)
            litellm.responses(previous_response_id=first.id, **asked)
            SEEN.append(first.id)
            assert len(set(SEEN)) == len(SEEN)

        SEEN = []
    """)
    suite.record().assert_outcomes(passed=2)
    assert suite.asked() == 4


FAILING = """
    @pytest.mark.lm_cache
    def test_it():
        assert [ask("again"), ask("again"), ask("once")] == ["x"]
"""


@pytest.mark.parametrize("mode", ["record", "once"])
def test_a_failing_test_finds_its_own_answers(suite, mode):
    """What a failing test has paid for, its next recording has."""
    suite.test(FAILING)
    suite.run(f"--lm-mode={mode}").assert_outcomes(failed=1)
    assert suite.asked() == 3
    suite.test(FAILING.replace('== ["x"]', ""))
    result = suite.run(f"--lm-mode={mode}")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "0 replayed, 3 from disk",
            "  test_it.py::test_it (3 from disk, first asked by test_it.py::test_it at *)",
        ]
    )
    assert suite.asked() == 0


@pytest.mark.slow
def test_another_checkout_finds_its_answers(suite, tmp_path):
    """The layers know a cassette by its path in rootdir: another checkout, in another process, has its answers."""
    suite.file("pytest.ini", f"[pytest]\nlm_disk_dir = {tmp_path / 'answers'}\n")
    suite.test(FAILING)
    suite.run("--lm-record").assert_outcomes(failed=1)
    assert suite.asked() == 3
    suite.test(FAILING.replace('== ["x"]', ""))
    suite.folder = shutil.copytree(suite.folder, tmp_path / "another/checkout")
    recorded = suite.spawn("--lm-record")
    assert "0 replayed, 3 from disk" in recorded.stdout
    assert "1 passed" in recorded.stdout
    assert suite.asked() == 0


def test_share_by_the_providers_address(suite, public):
    """With ``lm_share`` a test gets what another asked at the same address, and the n-th call counts per address."""
    suite.file("pytest.ini", "[pytest]\nlm_share = true\n")
    suite.test("""
        pytestmark = pytest.mark.lm_cache
        PORT = SETTINGS["api_base"].rpartition(":")[2]
        ONE, TWO = (f"http://{name}.test:{PORT}" for name in ("one", "two"))

        def sources(lm_cache, *addresses):
            for address in addresses:
                assert ask(api_base=address) == "You said: hello"
            return [call.source for call in lm_cache.calls]

        def test_a(lm_cache):
            assert sources(lm_cache, ONE, TWO, TWO) == ["provider"] * 3

        def test_b(lm_cache):
            assert sources(lm_cache, TWO, ONE, TWO, ONE) == ["memory"] * 3 + ["provider"]

        @pytest.mark.lm_cache(share=False)
        def test_c(lm_cache):
            assert sources(lm_cache, ONE, TWO) == ["provider"] * 2
    """)
    result = suite.record()
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["  test_it.py::test_b (3 from memory, first asked by test_it.py::test_a at *)"]
    )


def test_a_value_of_share_that_cannot_be(suite):
    """Something else than a flag is refused before any test runs."""
    suite.test("""
        @pytest.mark.lm_cache(share="all")
        def test_it(): pass
    """)
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*share cannot be 'all'; it takes True or False."])


def test_the_record_loop(suite):
    """Beside a test that fails while recording stands where its answers came from, and what asks the provider again."""
    suite.provider.script("a bad answer")
    suite.test("""
        @pytest.mark.lm_cache
        def test_it():
            assert ask() != "a bad answer"
    """)
    first = suite.run("--lm-record")
    first.assert_outcomes(failed=1)
    first.stdout.fnmatch_lines(["*1 from the provider, asked just now"])
    second = suite.run("--lm-record")
    second.stdout.fnmatch_lines(
        [
            "This test failed while its model calls were recorded. Its answers:",
            "  1 from disk, first asked by test_it.py::test_it at 20*Z",
            "*ask the provider again:",
            '  pytest --lm-rewrite "test_it.py::test_it"',
        ]
    )
    suite.run("--lm-rewrite", "test_it.py::test_it").assert_outcomes(passed=1)
    suite.test("""
        @pytest.mark.lm_cache
        def test_it():
            assert ask() == "another"
    """)
    suite.run("--lm-record").stdout.no_fnmatch_line("*while its model calls were recorded*")
