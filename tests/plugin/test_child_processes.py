"""Processes that a test starts: their calls are the test's, whatever starts them."""

import pytest

pytestmark = pytest.mark.slow

# What children run; `python app_main.py TEXT...` prints an answer, or what it raises, for each text.
MAIN = """
import os, sys
from app import ask

def answer(text):
    try:
        return ask(text)
    except Exception as error:
        return type(error).__name__

if __name__ == "__main__":
    print(*map(answer, sys.argv[1:]), sep="|")
"""
RECORD = """
@pytest.mark.lm_cache(cassette="shared")
def test_recorded():
    assert ask("hello")
"""
FORK = """
import concurrent.futures, multiprocessing, os
from app_main import answer

FORK = multiprocessing.get_context("fork")
marked = pytest.mark.lm_cache(cassette="shared")
litellm.in_memory_llm_clients_cache.flush_cache()  # connections of the parent are no child's

@marked
def test_pool():
    with FORK.Pool(2) as pool:
        assert len(pool.map(ask, ["hello", "second"])) == 2

@marked
def test_executor():
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=FORK) as pool:
        assert pool.submit(ask, "hello").result(60)

def ask_in_a_fork(text):
    with FORK.Pool(1) as pool:
        return pool.map(ask, [text])[0]

@marked
def test_grandchild():
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=FORK) as pool:
        assert pool.submit(ask_in_a_fork, "second").result(60)

@marked
def test_os_fork():
    reader, writer = os.pipe()
    if not os.fork():
        try:
            chunks = litellm.completion(messages=said("hello"), stream=True, **SETTINGS)
            os.write(writer, "".join(chunk.choices[0].delta.content or "" for chunk in chunks).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.wait()
    assert os.read(reader, 1000)
"""


@pytest.fixture
def suite(suite):
    suite.file("app_main.py", MAIN)
    return suite


@pytest.fixture
def apart(suite):
    """Runs the suite in a process of its own: a fork takes none of the locks that this run's threads hold."""

    def run(*args):
        return suite.pytester.runpytest_subprocess(*suite.options, *args, timeout=120)

    return run


def test_forked_children_are_recorded_and_replayed(suite, apart):
    """What forked processes ask, streams too, is recorded in the test's cassette, and replayed from it."""
    suite.test(FORK)
    apart("--lm-record").stdout.fnmatch_lines(["*3 recorded*"])
    assert suite.asked() == 3
    result = apart()
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["5 replayed"])
    assert suite.asked() == 0


def test_a_miss_of_a_forked_child_fails_the_test(suite, apart):
    """A pool hands a child's miss to its caller; one that the child swallows fails the test all the same."""
    suite.test(
        FORK + "\n@marked\ndef test_swallowed():\n    with FORK.Pool(1) as pool:\n"
        "        assert pool.map(answer, ['never']) == ['MissInChild']\n"
    )
    result = apart("-vv")
    result.assert_outcomes(failed=5)
    result.stdout.fnmatch_lines(
        [
            "E*MissInChild: No recording answers this call of completion(): *",
            "E*Asked by   process *, ForkPoolWorker-*",
            'E*Record it:  pytest --lm-record "test_it.py::test_pool"',
            "Asked by   process *, made by os.fork()",
            "No recording answers this call of completion(): *never",
            "Asked by   process *, ForkPoolWorker-*",
            "never recorded, * in 5 tests",
        ]
    )
    assert suite.asked() == 0


STARTED = """
import asyncio, concurrent.futures, multiprocessing, os, subprocess, sys
from app_main import answer

marked = pytest.mark.lm_cache(cassette="shared")
HERE = os.path.dirname(__file__)
QUESTIONS = ["hello", "never"]

def answers_of(*command, **more):
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=HERE, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|")

def in_a_pool(method):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return list(pool.map(answer, QUESTIONS))

@marked
def test_run():
    assert answers_of("app_main.py", *QUESTIONS)[1] == "MissInChild"

@marked
def test_spawn():
    assert in_a_pool("spawn")[1] == "MissInChild"

@marked
def test_forkserver():
    assert in_a_pool("forkserver")[1] == "MissInChild"
"""


def test_started_interpreters_replay_and_miss(suite):
    """A script, spawn and forkserver replay from the test's cassette; a miss in them names the process."""
    suite.test(RECORD)
    suite.record()
    assert suite.asked() == 1
    suite.test(STARTED)
    result = suite.run("-vv")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines_random(
        [
            "3 replayed, 3 missed",
            "Asked by   process *, *python* app_main.py hello never",
            "Asked by   process *, SpawnProcess-*",
            "Asked by   process *, ForkServerProcess-*",
        ]
    )
    assert suite.asked() == 0


RECORDED = """
import asyncio, os, sys
from app import SETTINGS, said

STREAM = '''
import litellm
from app import SETTINGS, ask, said
chunks = litellm.completion(messages=said("streamed"), stream=True, **SETTINGS)
print(ask("hello"), "".join(chunk.choices[0].delta.content or "" for chunk in chunks))
'''

@pytest.mark.lm_cache
def test_asyncio():
    async def answers():
        env = {**os.environ, "PATH": "", "PYTEST_LMCACHE_PARENT": ""}
        del env["PYTEST_LMCACHE_PARENT"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", STREAM, stdout=asyncio.subprocess.PIPE, env=env, cwd=os.path.dirname(__file__)
        )
        out, _ = await process.communicate()
        return process.returncode, out

    code, out = asyncio.run(answers())
    assert code == 0 and out
"""


def test_what_a_child_records_is_the_tests(suite):
    """While recording, a child asks the provider; its answers and streams are in the test's cassette."""
    suite.test(RECORDED)
    suite.record().stdout.fnmatch_lines(["*2 recorded*"])
    assert suite.asked() == 2
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 0


KEYS = """
import os, subprocess, sys

SHOW = "import os; print(os.environ.get('OPENAI_API_KEY'), os.environ.get('GROQ_API_KEY'))"

def shown(*more, **given):
    return subprocess.run([sys.executable, *more, "-c", SHOW], capture_output=True, text=True, **given).stdout

def dummies():
    env = {**os.environ, "GROQ_API_KEY": "gsk-real-1234567890"}
    return [shown(), shown("-I", "-S"), shown("-I", "-S", env=env), os.popen(f'{sys.executable} -I -S -c "{SHOW}"').read()]

@pytest.mark.lm_cache
def test_keys(monkeypatch):
    assert dummies() == ["lmcache-dummy-key lmcache-dummy-key\\n"] * 4
    assert os.environ["OPENAI_API_KEY"] == "sk-real-1234567890"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other-1234567890")
    assert shown("-I", "-S").startswith("lmcache-dummy-key ")
    os.system(f"{sys.executable} -I -S -c 'import os; open(\\"out\\", \\"w\\").write(os.environ[\\"OPENAI_API_KEY\\"])'")
    assert open("out").read() == "lmcache-dummy-key"
    assert os.environ["OPENAI_API_KEY"] == "sk-other-1234567890"

@pytest.mark.lm_cache
def test_exec():
    show = SHOW + "; print('PYTEST_LMCACHE_PARENT' in os.environ)"
    file = open("out", "w+")
    saved = os.dup(1)
    os.dup2(file.fileno(), 1)
    os.spawnve(os.P_WAIT, sys.executable, [sys.executable, "-I", "-S", "-c", show], {"OPENAI_API_KEY": "sk-real-1234567890"})
    os.dup2(saved, 1)
    assert open("out").read() == "lmcache-dummy-key None\\nTrue\\n"

@pytest.mark.lm_cache(mode="record")
def test_recording():
    assert shown().startswith("sk-real-1234567890 ")

def test_unmarked():
    assert shown("-I", "-S") == "sk-real-1234567890 None\\n"
"""


def test_processes_that_cannot_be_seen_get_dummy_keys(suite, monkeypatch):
    """While a test replays, what it starts has no real key, seen or not; the test itself and others keep theirs."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real-1234567890")
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    suite.test(KEYS)
    suite.run().assert_outcomes(passed=4)


LATE = """
import multiprocessing, os, subprocess, sys, threading
from app_main import answer

FORK = multiprocessing.get_context("fork")

def answer_when(event, answers):
    event.wait(60)
    answers.put(answer("hello"))

started = {}

@pytest.mark.lm_cache
def test_marked():
    started["event"], started["answers"] = FORK.Event(), FORK.Queue()
    FORK.Process(target=answer_when, args=[started["event"], started["answers"]], daemon=True).start()

def test_unmarked():
    started["event"].set()
    assert started["answers"].get(timeout=60) == "UnsupportedInChild"

def start_when(event):
    event.wait(60)
    command = [sys.executable, "app_main.py", "hello"]
    started["out"] = subprocess.run(command, capture_output=True, text=True, cwd=os.path.dirname(__file__)).stdout

@pytest.mark.lm_cache
def test_marked_thread():
    started["event"] = threading.Event()
    started["thread"] = threading.Thread(target=start_when, args=[started["event"]])
    started["thread"].start()

def test_unmarked_again():
    started["event"].set()
    started["thread"].join(60)
    assert started["out"] == "UnsupportedInChild\\n"
"""


def test_a_child_that_outlives_its_test_is_refused(suite):
    """Its call reaches no provider, nor that of a child that a thread starts then; the run fails and names the tests."""
    suite.test(LATE)
    result = suite.run()
    result.assert_outcomes(passed=4)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "2 calls refused because the test had ended*",
            "*test_it.py::test_marked (1)",
            "*test_it.py::test_marked_thread (1)",
        ]
    )
    assert suite.asked() == 0


SHARED = """
import multiprocessing
from app_main import answer

FORK = multiprocessing.get_context("fork")
litellm.in_memory_llm_clients_cache.flush_cache()  # connections of the parent are no child's

def serve(questions, answers):
    for text in iter(questions.get, None):
        answers.put(answer(text))

@pytest.fixture(scope="module")
def server():
    questions, answers = FORK.Queue(), FORK.Queue()
    process = FORK.Process(target=serve, args=[questions, answers])
    process.start()
    yield lambda text: (questions.put(text), answers.get(timeout=60))[1]
    questions.put(None)
    process.join(60)

@pytest.mark.lm_cache
def test_first(server):
    assert server("one") == "You said: one"

@pytest.mark.lm_cache
def test_second(server):
    assert server("two") == "You said: two"
"""


def test_what_a_shared_fixture_starts_serves_the_test_that_runs(suite):
    """The calls of a server that a module's fixture starts are in the cassette of each test that uses it."""
    suite.test(SHARED)
    suite.record()
    assert suite.cassettes() == ["test_it/test_first.yaml", "test_it/test_second.yaml"]
    suite.run().assert_outcomes(passed=2)
    assert suite.asked() == 2


AUTO = """
import os, subprocess, sys

def test_grandchild():
    code = "import subprocess, sys; subprocess.run([sys.executable, 'app_main.py', 'hello'], check=True)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": os.environ.get("PYTHONPATH", "")})
    assert done.stdout == "MissInChild\\n", done.stderr
"""


def test_under_lm_auto_children_of_tests_that_import_nothing_are_seen(suite):
    """A test that never imports LiteLLM starts a process whose own process does: the call is the test's."""
    suite.file("test_it.py", AUTO)
    result = suite.spawn("-o", "lm_auto=true")
    assert "Asked by   process" in result.stdout, result.stdout
    assert "1 failed" in result.stdout
    assert suite.asked() == 0


NESTED = """
import os, subprocess, sys

@pytest.mark.lm_cache
def test_outer(tmp_path):
    path = tmp_path / "test_inner.py"
    path.write_text("import os\\n\\ndef test_inner():\\n    assert 'PYTEST_LMCACHE_PARENT' not in os.environ\\n")
    subprocess.run([sys.executable, "-m", "pytest", "-p", "no:recording", path], check=True, cwd=tmp_path)
"""


def test_a_run_of_pytest_within_a_test_is_a_run_of_its_own(suite):
    """Its tests are no children of the test that started it."""
    suite.test(NESTED)
    suite.run().assert_outcomes(passed=1)


ODD = """
import multiprocessing, os

FORK = multiprocessing.get_context("fork")
litellm.in_memory_llm_clients_cache.flush_cache()  # connections of the parent are no child's

def leave_early():
    chunks = litellm.completion(messages=said("stream"), stream=True, **SETTINGS)
    next(iter(chunks))

def start(target):
    process = FORK.Process(target=target)
    process.start()
    process.join(60)
    assert process.exitcode == 0

@pytest.mark.lm_cache
def test_left_early():
    start(leave_early)

@pytest.mark.lm_cache
def test_block():
    from pytest_lmcache import use_cassette

    with use_cassette("cassettes/block.yaml", mode="record" if os.environ.get("RECORDS") else "replay"):
        start(ask)
"""


def test_streams_that_a_child_leaves_and_blocks(suite, apart, monkeypatch):
    """A stream that ends with its child is recorded up to there; a block's child is the block's."""
    suite.test(ODD)
    monkeypatch.setenv("RECORDS", "1")
    apart("--lm-record")
    assert suite.cassettes() == ["block.yaml", "test_it/test_left_early.yaml"]
    monkeypatch.delenv("RECORDS")
    apart("--disable-socket").assert_outcomes(passed=2)
    assert suite.asked() == 2


def test_without_unix_sockets(suite, apart, monkeypatch, tmp_path):
    """Where a socket's path is too long, as where there are no such sockets, children use the loopback address."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    suite.test(FORK)
    apart("--lm-record")
    apart("--disable-socket").assert_outcomes(passed=4)
    assert suite.asked() == 3
    assert not [path for path in folder.iterdir() if path.name.startswith("lmcache-")]


def test_a_child_whose_pytest_has_gone_is_refused(tmp_path):
    """It gets an error that says why; nothing reaches a provider."""
    from pytest_lmcache.children.remote import RemoteRecorder
    from pytest_lmcache.children.starts import Membership
    from pytest_lmcache.errors import MissInChild

    recorder = RemoteRecorder(Membership.parse(f"1 token replay-offline unix:{tmp_path / 'gone'}"))
    with pytest.raises(MissInChild, match="pytest process cannot be reached any more"):
        recorder.number()


def test_a_miss_of_a_child_can_be_pickled():
    """It passes through pools, and is a miss and an ordinary exception on the other side."""
    import pickle

    from pytest_lmcache import CassetteMiss, UnsupportedCall
    from pytest_lmcache.errors import MissInChild, UnsupportedInChild

    for kind in (MissInChild, UnsupportedInChild):
        miss = pickle.loads(pickle.dumps(kind("what was asked")))
        assert str(miss) == "what was asked"
        assert isinstance(miss, Exception)
        assert isinstance(miss, CassetteMiss)
    assert isinstance(miss, UnsupportedCall)
