"""Processes that a test starts: their calls are the test's, whatever starts them."""

from __future__ import annotations

import pytest

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

@marked
def test_pool():
    with FORK.Pool(2) as pool:
        assert len(pool.map(ask, ["hello", "second"])) == 2

@marked
def test_executor():
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=FORK) as pool:
        assert pool.submit(ask, "hello").result(60)

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


def test_forked_children_are_recorded_and_replayed(suite):
    """What forked processes ask, streams too, is recorded in the test's cassette, and replayed from it."""
    suite.test(FORK)
    suite.record().stdout.fnmatch_lines(["*3 recorded*"])
    assert suite.asked() == 3
    result = suite.run()
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["4 replayed"])
    assert suite.asked() == 0


def test_a_miss_of_a_forked_child_fails_the_test(suite):
    """A pool hands a child's miss to its caller; one that the child swallows fails the test all the same."""
    suite.test(
        FORK + "\n@marked\ndef test_swallowed():\n    with FORK.Pool(1) as pool:\n"
        "        assert pool.map(answer, ['never']) == ['MissInChild']\n"
    )
    result = suite.run()
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(
        [
            "E*MissInChild: No recording answers this call of completion(): *",
            "E*Asked by   process *, ForkPoolWorker-*",
            'E*Record it:  pytest --lm-record "test_it.py::test_pool"',
            "Asked by   process *, made by os.fork()",
            "No recording answers this call of completion(): *never",
            "Asked by   process *, ForkPoolWorker-*",
            "missed in 4 tests*",
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
    result = suite.run()
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
    suite.run().assert_outcomes(passed=3)
