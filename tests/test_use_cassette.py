"""`use_cassette` around real LiteLLM calls, in threads, tasks, loops and as a decorator."""

import asyncio
import contextlib
import contextvars
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import litellm
import pytest
from provider import Reply

import pytest_lmcache
from pytest_lmcache import CassetteError, CassetteMiss, SettingsError, UnkeyableCallError, use_cassette
from pytest_lmcache.environment import PROVIDER_KEYS
from pytest_lmcache.observer import Observer
from pytest_lmcache.redact import DUMMY_KEY
from pytest_lmcache.session import session

GONE = "http://127.0.0.1:9/v1"
pytestmark = pytest.mark.usefixtures("nobody_records")


def request(text, url, **more):
    messages = [{"role": "user", "content": text}]
    return {
        "model": "openai/gpt-4o-mini",
        "messages": messages,
        "api_base": url,
        "api_key": "sk-local",
        **more,
    }


def ask(text, url=GONE, **more):
    return litellm.completion(**request(text, url, max_retries=0, **more)).choices[0].message.content


async def aask(text, url=GONE, **more):
    answer = await litellm.acompletion(**request(text, url, max_retries=0, **more))
    return answer.choices[0].message.content


def record(path, provider, *texts):
    with use_cassette(path, mode="record"):
        for text in texts:
            ask(text, provider.url)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "x.yaml"


# ---- the block -----------------------------------------------------------------------------------------


def test_a_block_records_once_and_replays_for_ever(path, provider):
    """Record with the provider there, replay with it gone; the tape tells which was which."""
    with use_cassette(path, mode="record") as tape:
        first = ask("hello", provider.url)
    assert (tape.recorded, tape.replayed) == (1, 0)
    asked = provider.count
    for mode in ("replay", "once", "record"):
        with use_cassette(path, mode=mode) as tape:
            assert ask("hello") == first
        assert (tape.recorded, tape.replayed) == (0, 1)
    assert provider.count == asked


def test_an_async_block_does_the_same(path, provider):
    """`async with` records and replays calls under gather, in the order in which they started."""

    async def go(url, mode):
        async with use_cassette(path, mode=mode):
            return await asyncio.gather(*(aask(f"question {number}", url) for number in range(4)))

    provider.script(Reply(text="late", delay=0.2))
    first = asyncio.run(go(provider.url, "record"))
    assert asyncio.run(go(GONE, "replay")) == first
    asked = [line.split()[-1] for line in path.read_text().splitlines() if "content: question" in line]
    assert asked == ["0", "1", "2", "3"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, asyncio.CancelledError])
def test_a_block_that_fails_writes_nothing(path, provider, error):
    """Whatever ends a block but its end leaves no cassette, and LiteLLM as it was."""
    with pytest.raises(error), use_cassette(path, mode="record"):
        ask("hello", provider.url)
        raise error
    assert not path.exists()
    assert not session.scopes


def test_a_swallowed_miss_is_raised_at_the_end(path):
    """Code that catches everything does not hide that a call missed."""
    with (
        pytest.raises(CassetteMiss, match=r"x\.yaml: there is no such file yet") as missed,
        use_cassette("x.yaml"),
    ):
        try:
            ask("hello")
        except BaseException:
            swallowed = True
    assert swallowed
    assert str(missed.value).endswith('Record it:  use_cassette("x.yaml", mode="record")')


def test_a_miss_outside_of_pytest_ends_in_a_paragraph(path, provider, monkeypatch):
    """In a script there is no summary: the error itself says why, what records it, and what that costs."""
    with use_cassette(path, mode="record"):
        ask("one word", provider.url)
    monkeypatch.setattr(session, "observer", Observer())
    with pytest.raises(CassetteMiss) as missed, use_cassette(path):
        ask("one sentence", provider.url)
    [note] = missed.value.__notes__
    assert note.startswith(
        "\nWhy: messages[0].content (user) changed (one [-word-]{+sentence+}). Record it with use_cass"
    )
    assert re.search(
        r'mode="record"\) \(1 call, \d+ tokens, \$[\d.]+: the cost of the recording that this replaces\)\.$',
        note,
    )
    assert "\n" not in note.strip()
    with pytest.raises(CassetteMiss) as swallowed, use_cassette(path), contextlib.suppress(BaseException):
        ask("another", provider.url)
    assert len(swallowed.value.__notes__) == 1


def test_a_block_with_a_miss_writes_nothing(path, provider):
    """In mode once, what was recorded beside a refused call is not kept."""
    with pytest.raises(CassetteMiss), use_cassette(path, mode="once"):
        ask("hello", provider.url)
        with contextlib.suppress(CassetteMiss):
            litellm.get_assistants(custom_llm_provider="openai", api_key="k", api_base=GONE)
    assert not path.exists()


def test_the_blocks_own_error_is_not_replaced_by_a_miss(path):
    """An error that came out of the block stays the one that is seen."""
    with pytest.raises(ZeroDivisionError), use_cassette(path):
        try:
            ask("hello")
        except CassetteMiss:
            _ = 1 / 0


def test_the_header_says_how_to_record_again(path, provider):
    """The command in the file is this function's, with the path as it was given."""
    with use_cassette("x.yaml", mode="record"):
        ask("hello", provider.url)
    assert path.read_text().startswith(
        '# pytest-lmcache cassette of x.yaml\n# record again: use_cassette("x.yaml", mode="rewrite")\nlmcache: 1\n'
    )


def test_a_block_that_changes_folder_keeps_its_file(path, provider, tmp_path):
    """A relative path is meant from where the block begins."""
    (tmp_path / "sub").mkdir()
    with use_cassette("x.yaml", mode="record"):
        os.chdir(tmp_path / "sub")
        ask("hello", provider.url)
    assert path.exists()


def test_a_cassette_that_cannot_be_written_is_an_error(path, provider):
    """The block that recorded it says so; LiteLLM is as it was."""
    path.write_text("")
    with pytest.raises(CassetteError, match="empty"), use_cassette(path, mode="record"):
        ask("hello", provider.url)
    assert path.read_text() == ""
    assert not session.scopes


@pytest.mark.parametrize(
    "setting", [{"modus": "replay"}, {"mode": "sometimes"}, {"cassette": "y"}, {"cassette_dir": "y"}]
)
def test_settings_that_cannot_be_are_refused_at_once(setting):
    """A wrong name or value is an error where it is written, also one that has no meaning here."""
    with pytest.raises(SettingsError, match=next(iter(setting))):
        use_cassette("x.yaml", **setting)


def test_two_blocks_rewrite_one_file_together(path, provider):
    """A rewrite drops what is no longer asked, but not what another block of the same run asked."""
    record(path.with_name("y.yaml"), provider, "old", "kept")
    path.with_name("y.yaml").rename(path)
    for text in ("kept", "new", "newer"):
        with use_cassette(path, mode="rewrite"):
            ask(text, provider.url)
    with use_cassette(path) as tape:
        assert [ask(text) for text in ("kept", "new", "newer")]
    assert (tape.replayed, path.read_text().count("\n--- #")) == (3, 3)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        ("rate_limit", litellm.RateLimitError),
        ("server", litellm.InternalServerError),
        ("overloaded", litellm.ServiceUnavailableError),
        ("authentication", litellm.AuthenticationError),
    ],
)
def test_transient_errors_leave_no_trace(path, provider, failure, error):
    """A call that succeeded after a retry is replayed as one that succeeded."""
    provider.script(Reply(failure=failure))
    with use_cassette(path, mode="record") as tape:
        with pytest.raises(error):
            ask("hello", provider.url)
        said = ask("hello", provider.url)
    assert tape.recorded == 1
    assert "error:" not in path.read_text()
    with use_cassette(path) as tape:
        assert ask("hello") == said
    assert len(tape.calls) == 1


def test_all_errors_are_recorded_where_that_is_asked_for(path, provider):
    """With `record_errors="all"` a rate limit comes back in its place, as the same class."""
    provider.script(Reply(failure="rate_limit"))
    for mode, url in (("record", provider.url), ("replay", GONE)):
        with use_cassette(path, mode=mode, record_errors="all"):
            with pytest.raises(litellm.RateLimitError):
                ask("hello", url)
            assert "hello" in ask("hello", url)


# ---- as a decorator ------------------------------------------------------------------------------------


def test_a_decorated_function_has_a_cassette_for_each_call(path, provider):
    """Each call of the function is a block of its own: the n-th answer is counted anew."""
    url = [provider.url]

    @use_cassette(path, mode="once")
    def twice(text):
        """Ask twice."""
        return [ask(text, url[0]), ask(text, url[0])]

    provider.script("one", "two")
    assert twice("hello") == ["one", "two"]
    url[0] = GONE
    assert twice("hello") == ["one", "two"]
    assert (twice.__name__, twice.__doc__) == ("twice", "Ask twice.")


def test_a_decorated_async_function_runs_inside_its_cassette(path, provider):
    """The block lasts until the coroutine has ended, and several may run at once."""

    @use_cassette(path, mode="record")
    async def one(text, url):
        await asyncio.sleep(0.01)
        return await aask(text, url)

    async def several(url):
        return await asyncio.gather(*(one(f"question {number}", url) for number in range(5)))

    first = asyncio.run(several(provider.url))
    assert len(set(first)) == 5
    assert asyncio.run(several(GONE)) == first


def test_a_decorated_method_is_a_method(path, provider):
    """`self` and arguments go through."""

    class Agent:
        url = provider.url

        @use_cassette(path, mode="record")
        def say(self, text, *, loud=False):
            said = ask(text, self.url)
            return said.upper() if loud else said

    assert "HELLO" in Agent().say("hello", loud=True)


def test_a_decorated_function_that_fails_writes_nothing(path, provider):
    """As with a block: only what ended well is kept."""

    @use_cassette(path, mode="record")
    def fails():
        ask("hello", provider.url)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert not path.exists()


def generator():
    yield 1


async def async_generator():
    yield 1


@pytest.mark.parametrize("thing", [generator, async_generator, Path])
def test_what_makes_its_calls_later_is_refused(thing):
    """The body of a generator runs when the block is over: better an error than calls that slip by."""
    with pytest.raises(SettingsError, match=thing.__qualname__):
        use_cassette("x.yaml")(thing)


# ---- whose call it is ----------------------------------------------------------------------------------


def test_one_object_serves_many_blocks(path, provider):
    """One `use_cassette` may be entered again, inside itself and at the same time in several threads."""
    again = use_cassette(path, mode="record")
    with again as outer:
        with again as inner:
            ask("inner", provider.url)
        ask("outer", provider.url)
    assert (len(inner.calls), len(outer.calls)) == (1, 1)
    together = threading.Barrier(4)

    def block(number):
        with again as tape:
            together.wait()
            ask(f"thread {number}", provider.url)
            together.wait()
            if number % 2:
                threading.Event().wait(0.05)
        return len(tape.calls), f"thread {number}" in str(tape.calls[0].request)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(block, range(4))) == [(1, True)] * 4
    with use_cassette(path) as tape:
        for text in ("inner", "outer", *(f"thread {number}" for number in range(4))):
            ask(text)
    assert tape.replayed == 6


def test_blocks_of_one_object_end_in_any_order(path, provider):
    """A block that ends closes itself, not the one that began last."""
    again = use_cassette(path, mode="record")
    entered, ended = threading.Event(), threading.Event()

    def longer():
        with again as tape:
            entered.set()
            ended.wait()
            ask("longer", provider.url)
        return len(tape.calls)

    with ThreadPoolExecutor(1) as pool:
        with again as tape:
            job = pool.submit(longer)
            entered.wait()
        ended.set()
        assert job.result() == 1
    assert not tape.calls


def test_after_an_inner_block_the_outer_one_has_its_context_again(path, provider):
    """A block that another thread opened meanwhile gets nothing of it."""
    entered, ended = threading.Event(), threading.Event()

    def foreign():
        with use_cassette(path.with_name("foreign.yaml"), mode="record") as tape:
            entered.set()
            ended.wait()
        return len(tape.calls)

    with ThreadPoolExecutor(1) as pool, use_cassette(path, mode="record") as outer:
        with use_cassette(path.with_name("inner.yaml"), mode="record"):
            job = pool.submit(foreign)
            entered.wait()
        ask("outer", provider.url)
        ended.set()
        assert job.result() == 0
    assert len(outer.calls) == 1


def test_nested_blocks_each_get_their_own_calls(path, provider):
    """The innermost block gets the call; when it ends, the outer one does again."""
    inner_path = path.with_name("inner.yaml")
    with use_cassette(path, mode="record") as outer:
        ask("before", provider.url)
        with use_cassette(inner_path, mode="record") as inner:
            ask("inside", provider.url)
        ask("after", provider.url)
    assert [len(outer.calls), len(inner.calls)] == [2, 1]
    with use_cassette(inner_path):
        assert "inside" in ask("inside")


def test_two_threads_and_two_loops_have_each_their_own_cassette(path, provider):
    """Blocks that run at the same time never get each other's calls, in threads or in event loops."""
    together = threading.Barrier(4)

    def plainly(number, url, mode):
        with use_cassette(path.with_name(f"{number}.yaml"), mode=mode):
            together.wait()
            return [ask(f"{number}: {place}", url) for place in range(3)]

    def in_a_loop(number, url, mode):
        async def go():
            async with use_cassette(path.with_name(f"{number}.yaml"), mode=mode):
                together.wait()
                return await asyncio.gather(*(aask(f"{number}: {place}", url) for place in range(3)))

        return asyncio.run(go())

    def all_at_once(url, mode):
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(in_a_loop if number % 2 else plainly, number, url, mode) for number in range(4)
            ]
            return [job.result() for job in jobs]

    first = all_at_once(provider.url, "record")
    for number in range(4):
        text = path.with_name(f"{number}.yaml").read_text()
        assert text.count("--- # ") == text.count(f"content: '{number}: ") == 3
    assert all_at_once(GONE, "replay") == first


def test_tasks_of_one_loop_have_each_their_own_cassette(path, provider):
    """A task that opened a block keeps it, whatever other tasks open meanwhile."""

    async def one(number, url, mode):
        async with use_cassette(path.with_name(f"{number}.yaml"), mode=mode):
            await asyncio.sleep(0.01 * (3 - number))
            return await aask(f"task {number}", url)

    async def several(url, mode):
        return await asyncio.gather(*(one(number, url, mode) for number in range(3)))

    first = asyncio.run(several(provider.url, "record"))
    assert asyncio.run(several(GONE, "replay")) == first
    assert [path.with_name(f"{number}.yaml").read_text().count("--- #") for number in range(3)] == [1, 1, 1]


def test_a_context_of_an_earlier_block_belongs_to_the_open_one(path, provider):
    """A pool's thread or a loop that remembers a closed block does not take calls out of the open one."""
    with use_cassette(path.with_name("old.yaml"), mode="record"):
        stale = contextvars.copy_context()
    with use_cassette(path, mode="record") as tape:
        stale.run(ask, "hello", provider.url)
    assert tape.recorded == 1


def test_a_thread_without_a_context_belongs_to_the_open_block(path, provider):
    """ThreadPoolExecutor and threading.Thread know nothing of contexts: their calls are recorded all the same."""
    with use_cassette(path, mode="record") as tape, ThreadPoolExecutor(3) as pool:
        first = list(pool.map(lambda number: ask(f"question {number}", provider.url), range(6)))
    assert tape.recorded == 6
    with use_cassette(path), ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda number: ask(f"question {number}"), range(6))) == first


def test_a_key_that_asks_a_model_is_refused(path, provider):
    """It would ask for ever: the call within the key function says so at once, and reaches nobody."""

    def key(request):
        return ask(request["messages"][0]["content"], provider.url)

    before = provider.count
    with (
        pytest.raises(
            UnkeyableCallError, match=r"^completion\(\): the key function .*\.key calls a model\. "
        ),
        use_cassette(path, mode="record", key=key),
    ):
        ask("hello", provider.url)
    assert provider.count == before


def test_a_block_may_end_in_another_context(path, provider):
    """An async fixture's second half may run in another task than its first."""
    block = use_cassette(path, mode="record")

    async def go():
        tape = await asyncio.create_task(block.__aenter__())
        await aask("hello", provider.url)
        assert tape.recorded == 1
        await asyncio.create_task(block.__aexit__(None, None, None))

    asyncio.run(go())
    assert path.read_text().count("--- #") == 1
    assert not session.scopes


# ---- what is put on and taken off ----------------------------------------------------------------------


def test_dummy_keys_are_there_on_replay_only(path, provider, monkeypatch):
    """An SDK that insists on a key gets by on replay; recording sees the user's own environment."""
    for name in PROVIDER_KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GROQ_API_KEY", "own")
    before = dict(os.environ)
    for mode in ("record", "rewrite", "live", "once"):
        with use_cassette(path.with_name("none.yaml"), mode=mode):
            assert "OPENAI_API_KEY" not in os.environ
    record(path, provider, "hello")
    for mode in ("replay", "once"):
        with use_cassette(path, mode=mode):
            assert os.environ["OPENAI_API_KEY"] == DUMMY_KEY
            assert os.environ["GROQ_API_KEY"] == "own"
            assert "hello" in litellm.completion(
                model="openai/gpt-4o-mini", messages=[{"role": "user", "content": "hello"}]
            ).choices[0].message.content  # fmt: skip
        assert dict(os.environ) == before


def test_a_key_that_the_block_set_itself_stays(path, monkeypatch):
    """Only the placeholder is taken away again."""
    monkeypatch.setenv("OPENAI_API_KEY", "to be restored")
    monkeypatch.delenv("OPENAI_API_KEY")
    with use_cassette(path):
        os.environ["OPENAI_API_KEY"] = "own"
    assert os.environ["OPENAI_API_KEY"] == "own"


def test_the_price_map_is_local(path):
    """A script that imports LiteLLM inside its first block fetches nothing; a user's own setting stays."""
    code = (
        "import os, sys\n"
        "from pytest_lmcache import use_cassette\n"
        "assert 'litellm' not in sys.modules and 'yaml' not in sys.modules and 'pytest' not in sys.modules\n"
        f"with use_cassette({str(path)!r}):\n"
        "    print(os.environ['LITELLM_LOCAL_MODEL_COST_MAP'])\n"
    )
    for given, expected in ((None, "True"), ("False", "False")):
        environment = {name: value for name, value in os.environ.items() if "COST_MAP" not in name}
        environment |= {} if given is None else {"LITELLM_LOCAL_MODEL_COST_MAP": given}
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, "PYTHONPATH": str(Path(pytest_lmcache.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.stdout, ran.stderr) == (f"{expected}\n", "")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "cassette cannot be ''; it takes the path of a file"),
        ("folder/", "cassette cannot be 'folder/'; it takes the path of a file"),
        ("a\0b", "it takes the path of a file"),
        ("x" * 300, "it takes the path of a file"),
        (5, "cassette cannot be 5; it takes the path of a file"),
        (len, 'write @use_cassette("x.yaml")'),
    ],
    ids=["empty", "folder", "nul", "long", "number", "function"],
)
def test_a_path_that_cannot_be(path, message):
    """What is no file's path is told where it is given, by name and with what it takes."""
    with pytest.raises(SettingsError) as caught:
        use_cassette(path)
    assert message in str(caught.value)


def test_a_folder_in_the_place_of_a_cassette(tmp_path):
    """A folder is told as one; nobody is told to delete it."""
    with (
        pytest.raises(CassetteError, match="is a folder; a cassette is a file"),
        use_cassette(tmp_path),
    ):
        litellm.completion(model="openai/m", messages=[], api_key="k")
