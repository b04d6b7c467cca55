"""What outlives its test: its calls are refused on replay, counted while recording, and never another test's."""

import pytest

pytestmark = pytest.mark.slow

HEAD = """
import _thread, concurrent.futures, multiprocessing.pool, contextlib, contextvars, threading

TEST_MAY_END, HAS_CALLED = threading.Event(), threading.Event()

def late(call=ask):
    TEST_MAY_END.wait(10)
    try:
        return call()
    finally:
        HAS_CALLED.set()
"""
# Each leaves something running in its own way, that calls when it is let.
LEFT = {
    "thread": "threading.Thread(target=late).start()",
    "daemon": "threading.Thread(target=late, daemon=True).start()",
    "thread of a thread": """
    def inner():
        thread = threading.Thread(target=late)
        thread.start()
    thread = threading.Thread(target=inner)
    thread.start()
    thread.join()
    """,
    "timer": "threading.Timer(0.01, late).start()",
    "raw thread": "_thread.start_new_thread(late, ())",
    "pool of multiprocessing": "pool = multiprocessing.pool.ThreadPool(1); pool.apply_async(late); pool.close()",
    "pool": "POOL.submit(late)",
    "new pool": "concurrent.futures.ThreadPoolExecutor().submit(late)",
    "map": "concurrent.futures.ThreadPoolExecutor().map(late, [ask])",
    "copied context": "LEFT.append(contextvars.copy_context())",
    "task": "LEFT.append(LOOP.create_task(later()))",
}
SUITE = (
    HEAD
    + """
POOL = concurrent.futures.ThreadPoolExecutor(1)
LOOP = asyncio.new_event_loop()
LEFT = []
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

async def later():
    try:
        await aask()
    finally:
        HAS_CALLED.set()

def let_it_call():
    TEST_MAY_END.set()
    for left in LEFT:
        with pytest.raises(BaseException) if REFUSED else contextlib.nullcontext():
            left.run(late) if isinstance(left, contextvars.Context) else LOOP.run_until_complete(left)
    LOOP.close()
    assert HAS_CALLED.wait(10)

@pytest.mark.lm_cache
def test_first():
    LEAVE

MARK
def test_second():
    let_it_call()
"""
)


def leaving(suite, how, *, mark="", refused=True):
    """A suite whose first test leaves something running, which calls in the second one."""
    text = SUITE.replace("LEAVE", LEFT[how].strip()).replace("MARK", mark)
    suite.test(text.replace("REFUSED", str(refused)))


@pytest.mark.parametrize("how", LEFT)
def test_a_call_that_outlives_its_test_is_refused(suite, how):
    """Nobody is asked, the summary names the test that left it running, and the run fails though all tests passed."""
    leaving(suite, how)
    result = suite.run()
    result.assert_outcomes(passed=2)
    assert suite.asked() == 0
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["1 call refused because the test had ended; *", "  test_it.py::test_first (1)"]
    )


@pytest.mark.parametrize("how", ["thread", "task", "pool"])
def test_a_recorded_test_that_runs_meanwhile_fails(suite, how):
    """The message says whose call it was and what to do; it is nothing that a recording mends."""
    leaving(suite, how, mark="@pytest.mark.lm_cache")
    result = suite.run()
    result.assert_outcomes(passed=1, failed=1)
    assert suite.asked() == 0
    result.stdout.fnmatch_lines(
        [
            "E  *UnsupportedCall: test_it.py::test_first has ended, and *",
            "FAILED test_it.py::test_second*",
        ]
    )
    result.stdout.no_fnmatch_line("*missed in*")


@pytest.mark.parametrize("how", ["thread", "task", "pool"])
@pytest.mark.parametrize("mark", ["", "@pytest.mark.lm_cache"], ids=["unmarked", "marked"])
def test_while_recording_it_passes_and_is_counted(suite, how, mark):
    """It reaches the provider, is in no cassette, least of all in that of the test that runs, and the summary says so."""
    leaving(suite, how, mark=mark, refused=False)
    result = suite.run("--lm-record")
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    assert suite.asked() == 1
    assert suite.cassettes() == []
    result.stdout.fnmatch_lines(
        ["not recorded, called after the test had ended; *", "  test_it.py::test_first (completion()*"]
    )
    result.stdout.no_fnmatch_line("*tests that are not marked*")


ALONE = """
import atexit, sys, threading, time

def late(seconds):
    time.sleep(seconds)
    try:
        ask()
    except BaseException as error:
        print("REFUSED", seconds, type(error).__name__, file=sys.__stderr__)

@pytest.mark.lm_cache
def test_marked():
    threading.Thread(target=late, args=[0.2]).start()
    threading.Thread(target=late, args=[0.4], daemon=True).start()
    daemon = threading.Thread(target=late, args=[4], daemon=True)
    daemon.start()
    atexit.register(daemon.join)
"""


def test_a_call_after_the_last_test_is_refused(suite):
    """Threads that Python waits for are waited for, and counted; what goes on longer is refused all the same."""
    suite.test(ALONE)
    result = suite.spawn("-s")
    assert suite.asked() == 0
    assert result.returncode == 1
    assert "1 passed" in result.stdout
    assert "  test_it.py::test_marked (" in result.stdout
    assert result.stderr.count("REFUSED") == 3, result.stdout + result.stderr


ONE_LOOP = """
LEFT = []
FREE = []

@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"

@pytest.fixture(scope="module")
async def shared(anyio_backend):
    yield

async def later():
    await FREE[0].wait()
    return await aask()

@pytest.mark.lm_cache
MARK
async def test_marked(FIXTURE):
    FREE.append(asyncio.Event())
    LEFT.append(asyncio.get_running_loop().create_task(later()))

MARK
async def test_unmarked(FIXTURE):
    FREE[0].set()
    with pytest.raises(BaseException, match="test_marked has ended"):
        await LEFT[0]
"""
PLUGINS = {
    "anyio": ("@pytest.mark.anyio", "shared"),
    "pytest-asyncio": ('@pytest.mark.asyncio(loop_scope="module")', ""),
}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_task_on_a_loop_that_several_tests_share(suite, plugin):
    """It belongs to the test that started it, whichever task the plugin runs the tests in."""
    mark, fixture = PLUGINS[plugin]
    suite.test(ONE_LOOP.replace("MARK", mark).replace("FIXTURE", fixture))
    result = suite.run()
    result.assert_outcomes(passed=2)
    assert suite.asked() == 0
    result.stdout.fnmatch_lines(["  test_it.py::test_marked (1)"])


def test_a_worker_of_xdist_hands_over_what_it_refused(suite):
    """The summary names the test, and the exit status is that of a failed run."""
    suite.test(ALONE.partition("    threading.Thread(target=late, args=[0.4]")[0])
    result = suite.spawn("-n1")
    assert suite.asked() == 0
    assert result.returncode == 1, result.stdout + result.stderr
    assert "  test_it.py::test_marked (1)" in result.stdout


BLOCK = """
import threading, time
from pytest_lmcache import use_cassette

def test_unmarked():
    with use_cassette("x.yaml"):
        threading.Thread(target=lambda: (time.sleep(0.3), ask())).start()
"""


def test_what_a_block_in_a_test_without_a_mark_leaves_running(suite):
    """Its call is refused too, where no test of the run has a mark; the summary names the block."""
    suite.test(BLOCK)
    result = suite.spawn()
    assert suite.asked() == 0
    assert result.returncode == 1, result.stdout + result.stderr
    assert '  use_cassette("x.yaml") (1)' in result.stdout


def test_mode_once_is_not_refused_where_it_has_just_recorded(suite):
    """A run that records lets late calls pass and says so; the next one, which replays, refuses them."""
    leaving(suite, "thread", refused=False)
    suite.test(
        (suite.folder / "test_it.py")
        .read_text()
        .replace("def test_first():", "def test_first():\n    ask('recorded')")
    )
    result = suite.run("--lm-mode=once")
    assert (result.ret, suite.asked()) == (0, 2)
    result.stdout.fnmatch_lines(["not recorded, called after the test had ended; *"])
    result = suite.run("--lm-mode=once")
    assert (result.ret, suite.asked()) == (1, 0)
    result.stdout.fnmatch_lines(["  test_it.py::test_first (1)"])
