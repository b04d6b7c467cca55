"""A miss cannot be lost: whatever stands between it and the test, one FAILED and a command that mends it."""

import re
import shlex
from textwrap import dedent

import pytest

SWALLOWERS = {
    "except Exception": """
        def swallow():
            try:
                ask()
            except Exception:
                pass
    """,
    "bare except": """
        def swallow():
            try:
                ask()
            except:
                pass
    """,
    "num_retries": """
        def swallow():
            try:
                ask(num_retries=3)
            except Exception:
                pass
    """,
    "router retries": """
        def swallow():
            router = litellm.Router([{"model_name": "m", "litellm_params": SETTINGS}], num_retries=3)
            try:
                router.completion("m", said("hello"))
            except Exception:
                pass
    """,
    "router fallbacks": """
        def swallow():
            router = litellm.Router(
                [{"model_name": name, "litellm_params": SETTINGS} for name in ("m", "n")],
                fallbacks=[{"m": ["n"]}],
            )
            async def go():
                try:
                    await router.acompletion("m", said("hello"))
                except Exception:
                    pass
            asyncio.run(go())
    """,
    "tenacity": """
        import tenacity

        @tenacity.retry(stop=tenacity.stop_after_attempt(3), retry_error_callback=lambda state: None)
        def swallow():
            try:
                ask()
            except Exception:
                return None
    """,
    "gather": """
        def swallow():
            async def go():
                return await asyncio.gather(aask(), return_exceptions=True)
            asyncio.run(go())
    """,
    "thread pool": """
        from concurrent.futures import ThreadPoolExecutor, wait

        def swallow():
            with ThreadPoolExecutor(1) as pool:
                wait([pool.submit(ask)])
    """,
    "thread": """
        import threading

        def swallow():
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
    """,
    "callback": """
        def swallow():
            def callback(kwargs):
                # LiteLLM also calls it for what an earlier test left running.
                if kwargs["messages"] == said("x"):
                    ask()
            litellm.input_callback.append(callback)
            litellm.utils.callback_list = []  # else LiteLLM minds only the kinds that it met first
            try:
                litellm.completion(messages=said("x"), mock_response="made up", **SETTINGS)
            finally:
                litellm.input_callback.remove(callback)
    """,
}
SYNC = """
@pytest.mark.lm_cache
def test_one():
    ask()
"""


@pytest.mark.parametrize("swallower", SWALLOWERS.values(), ids=SWALLOWERS)
def test_swallowed_miss_fails_the_test(suite, swallower):
    """A test that passed although a call missed is failed, once, and told the miss."""
    suite.test(dedent(swallower) + "\n@pytest.mark.lm_cache\ndef test_one():\n    swallow()\n")
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*CassetteMiss: No recording answers this call of completion()*",
            "E*Record it:  pytest --lm-record*",
        ]
    )
    assert suite.asked() == 0


def test_message(suite):
    """A miss says what was asked, where it was looked for, in which mode, and last the command."""
    suite.test(SYNC)
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*CassetteMiss: No recording answers this call of completion(): model openai/gpt-4o-mini, 1 message, hello",
            "E*Looked in  cassettes/test_it/test_one.yaml: there is no such file yet.",
            "E*Mode       replay: records nothing; key exact/1",
            'E*Record it:  pytest --lm-record "test_it.py::test_one"',
        ]
    )
    told = [line for line in result.outlines if line.startswith("E")]
    assert told[-1].endswith('pytest --lm-record "test_it.py::test_one"')


def test_a_stub_below_litellm_is_named_where_there_is_no_cassette(suite):
    """Under ``lm_auto`` a test that stubs the provider's client misses; the miss says how it stays as it is."""
    stubbed = """
        from unittest.mock import patch

        {mark}
        def test_one():
            with patch("httpx.Client.send", side_effect=LookupError) as send, pytest.raises(litellm.InternalServerError):
                ask()
            assert send.called
    """
    suite.file("pytest.ini", "[pytest]\nlm_auto = true\n")
    suite.test(stubbed.format(mark=""))
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(['E*stubs the provider*mode="live"*patch litellm.completion itself.'])
    suite.test(stubbed.format(mark='@pytest.mark.lm_cache(mode="live")'))
    suite.run().assert_outcomes(passed=1)


def test_changed_prompt_shows_what_changed(suite):
    """After an edit of the prompt, the miss shows the changed words against the recorded ones."""
    suite.test(SYNC)
    suite.record()
    suite.test(SYNC.replace("ask()", "ask('hello, you')"))
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E*1 recording, none with this key.", 'E*messages?0?.content: recorded "hello", asked "hello, you"']
    )


ODD_TESTS = {
    "parameter": '@pytest.mark.parametrize("x", ["a b", "q\\"uo$te", "`ls`", "ü/../x", "back\\\\slash!", "[x::y]"])\n'
    "def test_one(x):\n    ask(x)\n",
    "class": "class TestIt:\n    class TestInner:\n        def test_one(self):\n            ask()\n",
    "unittest": "import unittest\nclass TestIt(unittest.TestCase):\n    def test_one(self):\n        ask()\n",
    "module fixture": "@pytest.fixture(scope='module')\ndef f():\n    return ask()\ndef test_one(f):\n    pass\n",
    "session fixture": "@pytest.fixture(scope='session')\ndef f():\n    return ask()\ndef test_one(f):\n    pass\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("below", [False, True], ids=["at rootdir", "below rootdir"])
@pytest.mark.parametrize("text", ODD_TESTS.values(), ids=ODD_TESTS)
def test_command_mends(suite, monkeypatch, text, below):
    """The command that a miss ends in, typed where pytest was started, mends exactly that miss."""
    suite.file("pytest.ini", "[pytest]\npythonpath = .\n")
    suite.test("pytestmark = pytest.mark.lm_cache\n" + text, name="sub/test_it.py")
    if below:
        monkeypatch.chdir(suite.folder / "sub")
    else:
        monkeypatch.chdir(suite.folder)
    result = suite.run("-vv")  # every failure in full
    missed = sum(result.parseoutcomes().get(name, 0) for name in ("failed", "errors"))
    commands = re.findall(r"Record it:  (pytest .*)", result.stdout.str())
    assert missed == len(set(commands)) == (6 if "parametrize" in text else 1)
    for command in dict.fromkeys(commands):
        program, *args = shlex.split(command)
        assert program == "pytest"
        suite.run(*args).assert_outcomes(passed=1)
    suite.asked()
    suite.run().assert_outcomes(passed=missed)
    assert suite.asked() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        "def test_one():\n    helper()\n",
        "def test_one():\n    asyncio.run(ahelper())\n",
        "@pytest.mark.asyncio\nasync def test_one():\n    await asyncio.gather(ahelper(), ahelper())\n",
        "def test_one():\n    litellm.Router([{'model_name': 'm', 'litellm_params': SETTINGS}]).completion('m', said('x'))\n",
        "def test_one():\n    with ThreadPoolExecutor() as pool:\n        list(pool.map(ask, 'ab'))\n",
        "import unittest\nclass TestIt(unittest.TestCase):\n    def test_one(self):\n        helper()\n",
        (
            "import unittest\nclass TestIt(unittest.IsolatedAsyncioTestCase):\n"
            "    async def test_one(self):\n        await ahelper()\n"
        ),
    ],
    ids=["sync", "async", "gather", "router", "thread", "unittest", "async unittest"],
)
def test_traceback_is_short(suite, body):
    """A miss is shown by the user's own lines, without those of LiteLLM, asyncio and this package."""
    suite.test(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "pytestmark = pytest.mark.lm_cache\n"
        "def helper():\n    return ask()\n"
        "async def ahelper():\n    return await aask()\n" + body
    )
    result = suite.run(
        "--disable-warnings"
    )  # such as pydantic's, where nobody has imported all of LiteLLM before
    result.assert_outcomes(failed=1)
    # The last line of each entry of a traceback: file:line: what.
    entries = re.findall(r"^(\S+\.py):\d+: ", result.stdout.str(), re.MULTILINE)
    assert set(entries) <= {"test_it.py", "app.py"}, result.stdout.str()
    assert "test_it.py" in entries
    assert len(result.outlines) < 60


@pytest.mark.slow
def test_full_trace_on_request(suite):
    """``--full-trace`` shows everything, as it does for any error."""
    suite.test(SYNC)
    result = suite.run("--full-trace")
    result.stdout.fnmatch_lines(["*recorder.py:*: CassetteMiss"])


def test_miss_beside_another_failure(suite):
    """Where a swallowed miss made the test fail in another way, the miss is told beside that failure."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            answers = asyncio.run(gather())
            assert answers == ["You said: hello"]

        async def gather():
            return await asyncio.gather(aask(), return_exceptions=True)
    """)
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*assert ?CassetteMiss*",
            "*language-model calls that missed*",
            'Record it:  pytest --lm-record "test_it.py::test_one"',
        ]
    )


def test_miss_in_a_task_group(suite):
    """A task group wraps the miss, which is the failure's headline all the same."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            asyncio.run(group())

        async def group():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(aask())
    """)
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*CassetteMiss: No recording*", "FAILED *CassetteMiss: never recorded*"])


WEB = """
    import httpx
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    app, behind = FastAPI(), FastAPI()

    @app.get("/")
    @behind.get("/")
    async def endpoint():
        return await aask()

    @behind.middleware("http")
    async def pass_on(request, call_next):
        return await call_next(request)

    async def get():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get("/")
"""
WAYS = ["TestClient(app).get('/')", "TestClient(behind).get('/')", "asyncio.run(get())"]


@pytest.mark.parametrize("way", WAYS)
def test_miss_in_an_endpoint(suite, way):
    """A web framework cancels, or groups, what waits for its endpoint: the failure's headline is the miss."""
    suite.test(f"{dedent(WEB)}\n@pytest.mark.lm_cache\ndef test_one():\n    {way}\n")
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["test_it.py:*: *", "E*CassetteMiss: No recording answers*", "FAILED *CassetteMiss: never recorded*"]
    )
    lines = result.stdout.lines
    assert len([line for line in lines if line.startswith("E") and "No recording answers" in line]) == 1


@pytest.mark.parametrize("where", ["setup", "teardown"])
def test_miss_swallowed_by_a_fixture(suite, where):
    """A fixture that swallows a miss does not leave its test green."""
    call = "try:\n            ask()\n        except BaseException:\n            pass"
    suite.test(
        f"""
    @pytest.fixture
    def helper():
        {call if where == "setup" else "pass"}
        yield
        {call if where == "teardown" else "pass"}

    @pytest.mark.lm_cache
    def test_one(helper):
        pass
    """.replace("\n    ", "\n")
    )
    outcomes = {"setup": {"failed": 1}, "teardown": {"passed": 1, "errors": 1}}
    suite.run().assert_outcomes(**outcomes[where])


def test_miss_leaves_the_event_loop_of_anyio_alone(suite):
    """Tests that share anyio's runner with one whose call missed run on."""
    suite.test("""
        @pytest.fixture(scope="module")
        def anyio_backend():
            return "asyncio"

        @pytest.fixture(scope="module")
        async def helper():
            yield "up"

        @pytest.mark.lm_cache
        @pytest.mark.anyio
        async def test_one(helper):
            await aask()

        @pytest.mark.anyio
        async def test_two(helper):
            assert helper == "up"
    """)
    suite.run().assert_outcomes(failed=1, passed=1)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["test", "block"])
@pytest.mark.parametrize("capture", ["fd", "sys", "no"])
def test_a_test_that_hangs_after_a_miss_says_so(suite, monkeypatch, capture, where):
    """Whoever waits for a thread that a miss has ended may wait for ever: what missed is told meanwhile."""
    monkeypatch.setattr("pytest_lmcache.plugin.observer.HANG_WARNING_AFTER", 0.3)
    text = """
        import threading
        from concurrent.futures import Future

        def answer(future):
            try:
                future.set_result(ask())
            except Exception as error:
                future.set_exception(error)

        def waits():
            future = Future()
            threading.Thread(target=answer, args=[future]).start()
            try:
                future.result(TIMEOUT)
            except TimeoutError:
                pass

        pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    """
    text += {
        "test": """
        @pytest.mark.lm_cache
        def test_one():
            waits()
        """,
        "block": """
        def test_one():
            from pytest_lmcache import use_cassette
            with use_cassette("cassettes/block.yaml"):
                waits()
        """,
    }[where]
    suite.test(text.replace("TIMEOUT", "1"))
    result = suite.run(f"--capture={capture}")
    result.assert_outcomes(failed=1)
    result.stderr.fnmatch_lines(
        [
            "test_it.py::test_one has not ended 0 seconds after this miss. *",
            "No recording answers this call of completion()*",
            {"test": 'Record it:  pytest --lm-record "test_it.py::test_one"', "block": "Record it:*"}[where],
        ]
    )
    suite.test(text.replace("TIMEOUT", "0.1"))
    assert "has not ended" not in suite.run(f"--capture={capture}").stderr.str()


def test_litellm_that_hides_its_functions(suite, monkeypatch):
    """Where calls cannot be seen, a marked test fails and says so; others run, and the summary says so."""
    from pytest_lmcache.errors import DoorError
    from pytest_lmcache.session import session

    def opened():
        raise DoorError("calls cannot be seen")

    monkeypatch.setattr(session.interceptions, "open", opened)
    suite.test(SYNC + "\ndef test_two():\n    pass\n")
    result = suite.run()
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "calls cannot be seen",
            "live calls in unmarked tests were not counted: calls cannot be seen",
        ]
    )


def test_litellm_that_hides_its_functions_under_auto(suite, monkeypatch):
    """Where every test is recorded none runs unseen: nothing goes out that nobody asked for."""
    from pytest_lmcache.errors import DoorError
    from pytest_lmcache.session import session

    def opened():
        raise DoorError("calls cannot be seen")

    suite.file("pytest.ini", "[pytest]\nlm_auto = true\n")
    suite.test("def test_one():\n    ask()\n")
    monkeypatch.setattr(session.interceptions, "open", opened)
    suite.run().assert_outcomes(errors=1)
    assert suite.asked() == 0


def test_broken_cassette_fails_its_test(suite):
    """A cassette that cannot be read is named with its line, fails its own test, and is left as it is."""
    suite.test(SYNC)
    suite.record()
    path = suite.folder / "cassettes/test_it/test_one.yaml"
    path.write_text(path.read_text().replace("\n--- # 1", "\n<<<<<<< ours\n--- # 1"))
    for args in ([], ["--lm-record"]):
        before = path.read_bytes()
        result = suite.run(*args)
        assert result.parseoutcomes().keys() & {"failed", "errors"}
        result.stdout.fnmatch_lines(["*test_one.yaml:5: git left a merge conflict here.*"])
        assert path.read_bytes() == before
    path.write_text("lmcache: 1\n--- # 1\n")
    assert suite.run("--lm-rewrite").parseoutcomes().keys() & {"failed", "errors"}
    assert path.read_text() == "lmcache: 1\n--- # 1\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, "shared"])
@pytest.mark.parametrize("left", ["<<<<<<< HEAD\n", "=======\n", ">>>>>>> theirs\r\n"])
def test_a_rewrite_replaces_a_conflicted_cassette(suite, left, name):
    """Git's marks within a recording need no editing: the message names the command, and that mends the file."""
    mark = f"@pytest.mark.lm_cache(cassette={name!r})" if name else "@pytest.mark.lm_cache"
    suite.test(f"{mark}\ndef test_one():\n    assert ask('one') == ask('one', seed=1)\n")
    suite.record()
    path = suite.folder / (f"cassettes/{name}.yaml" if name else "cassettes/test_it/test_one.yaml")
    whole = path.read_text()
    path.write_bytes(whole.replace("recorded:", f"{left}recorded:", 1).encode())
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*git left a merge conflict here.*", "*pytest --lm-rewrite*"])
    suite.run("--lm-rewrite").assert_outcomes(passed=1)
    assert not {"<<<<<<<", "=======", ">>>>>>>"} & {line[:7] for line in path.read_text().splitlines()}
    suite.asked()
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 0


def test_cassette_that_cannot_be_written(suite):
    """What was recorded and cannot be written is an error, not silence."""
    suite.test(SYNC)
    suite.file("cassettes/test_it", "a file where the folder should be")
    result = suite.run("--lm-record")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*test_one.yaml cannot be written: *", "*1 live and not recorded*"])


def test_unsupported_call_is_refused(suite):
    """An entry point that is not recorded is refused by name where nothing may reach a provider."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            litellm.create_thread("openai", [], api_key="sk-local")
    """)
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*pytest-lmcache cannot record litellm.create_thread() yet*"])


def test_expected_failure_hides_no_miss(suite):
    """An xfail mark expects the test to fail, not its recording to be missing: one FAILED."""
    suite.test("@pytest.mark.xfail\n@pytest.mark.lm_cache\ndef test_one():\n    ask()\n")
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*No recording answers this call of completion()*"])


def test_miss_of_a_block_in_a_recorded_test_fails_it(suite):
    """A use_cassette whose miss the test gathers and forgets fails the test that is recorded itself."""
    suite.test(
        """
        from pytest_lmcache import use_cassette

        @use_cassette("nothing.yaml")
        async def agent(name):
            return await aask(name)

        @pytest.mark.lm_cache
        def test_one():
            async def go():
                await asyncio.gather(agent("a"), agent("b"), return_exceptions=True)
            asyncio.run(go())
        """
    )
    result = suite.run()
    result.assert_outcomes(failed=1)
    assert suite.asked() == 0


def test_blocks_are_counted(suite):
    """What a use_cassette in a test replays and records is in the run's summary."""
    suite.test(
        """
        from pytest_lmcache import use_cassette

        def test_one():
            with use_cassette("block.yaml", mode="once"):
                ask()
        """
    )
    suite.run().stdout.fnmatch_lines(["0 replayed, 1 recorded", "*1 cassette written*"])
    suite.run().stdout.fnmatch_lines(["1 replayed"])


def test_skip_by_another_hook(suite):
    """A test that another plugin's hook skips before ours has run is skipped, and no error follows."""
    suite.file(
        "sub/conftest.py",
        """
        import pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_setup(item):
            if "skipped" in item.name:
                pytest.skip("no")
        """,
    )
    suite.file("sub/test_it.py", "def test_one(): pass\ndef test_skipped(): pass\n")
    suite.run().assert_outcomes(passed=1, skipped=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["@pytest.mark.skipif(True, reason='no')", "@pytest.mark.xfail(run=False)", ""]
)
def test_recordings_of_a_skipped_test_are_not_unused(suite, how):
    """What a skipped test did not come to is needed on another machine: nobody is told to record it anew."""
    text = """
        @pytest.mark.lm_cache
        def test_it():
            ask("one")
            SKIP
            ask("two")
    """
    suite.test(text.replace("SKIP", ""))
    suite.record()
    suite.test(f"        {how}\n{text.replace('SKIP', '' if how else 'pytest.skip()')}")
    suite.run().stdout.no_fnmatch_line("*record anew*")
