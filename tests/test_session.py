"""The session behind tests and blocks: whose call it is, what an observer learns, and what is switched on."""

import contextvars
import os
from concurrent.futures import ThreadPoolExecutor

import litellm
import pytest

import pytest_lmcache
from pytest_lmcache import UnsupportedCall, use_cassette
from pytest_lmcache.libraries import interceptions
from pytest_lmcache.observer import Observer
from pytest_lmcache.redact import DUMMY_KEY
from pytest_lmcache.session import Configuration, Session, session
from pytest_lmcache.settings import CacheSettings, Mode, Settings

pytestmark = pytest.mark.usefixtures("nobody_records")


def ask(text, url):
    messages = [{"role": "user", "content": text}]
    model, key = "openai/gpt-4o-mini", "sk-local"
    answer = litellm.completion(model=model, messages=messages, api_base=url, api_key=key, max_retries=0)
    return answer.choices[0].message.content


def record(path, provider, *texts):
    with use_cassette(path, mode="record"):
        for text in texts:
            ask(text, provider.url)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "x.yaml"


class Reports(Observer):
    """Keeps what is reported; ``refuses`` live calls."""

    def __init__(self, *, refuses=False):
        self.refuses = refuses
        self.all = []

    def block_ended(self, recorder, *, passed, written, in_test):
        self.all.append(("block", recorder.recorded, passed, written, in_test))

    def live_call(self, name):
        self.all.append(("live", name))
        if self.refuses:
            raise UnsupportedCall("not now")

    def late_call(self, test, name="", *, refused):
        self.all.append(("late", test, name, refused))


@pytest.fixture
def reports():
    observer = Reports()
    with session.configured(session.configuration, observer):
        yield observer


# ---- what an observer learns ---------------------------------------------------------------------------


def test_a_live_call_is_reported_once(reports, provider):
    """What LiteLLM calls to answer it is a part of it; nothing is reported while nobody watches."""
    with session.watched():
        ask("hello", provider.url)
        litellm.text_completion(
            model="openai/gpt-4o-mini", prompt="hello", api_base=provider.url, api_key="sk-local"
        )
    ask("hello", provider.url)
    assert reports.all == [("live", "completion"), ("live", "text_completion")]


def test_an_observer_may_refuse_a_live_call(reports, provider):
    """What it raises is raised to the caller, and nothing reaches the provider."""
    reports.refuses, before = True, provider.count
    with session.watched(), pytest.raises(UnsupportedCall, match="not now"):
        ask("hello", provider.url)
    assert provider.count == before


def test_a_block_and_its_late_call_are_reported(reports, path, provider):
    """A call that comes after its block is live if the block recorded, and refused if it replayed."""
    for mode in ("record", "replay"):
        with session.watched(), use_cassette(path, mode=mode):
            ask("hello", provider.url)
            left = contextvars.copy_context()
        with session.watched():
            if mode == "record":
                left.run(ask, "late", provider.url)
            else:
                with pytest.raises(UnsupportedCall, match="has ended"):
                    left.run(ask, "late", provider.url)
    name = f'use_cassette("{path}")'
    assert reports.all == [
        ("block", 1, True, True, False),
        ("late", name, "completion", False),
        ("block", 0, True, False, False),
        ("late", name, "", True),
    ]


def test_configurations_nest():
    """A run within a run has its own, and gives the outer one back."""
    engine, observer = Session(), Reports()
    outer, layers = engine.observer, CacheSettings(enable_memory_cache=False)
    with engine.configured(Configuration(layers=layers, settings_file="tox.ini"), observer):
        assert engine.observer is observer
        assert engine.caches.layers == layers
        with engine.configured(Configuration()):
            assert engine.observer is observer
            assert engine.caches.layers == CacheSettings()
        assert engine.configuration.settings_file == "tox.ini"
    assert engine.observer is outer
    assert engine.configuration == Configuration()


def test_suspended_closes_all_and_opens_it_again(path, provider):
    """Within, calls reach the provider unseen; afterwards they belong to what was open before."""
    with use_cassette(path, mode="record") as tape:
        with session.suspended():
            assert not session.scopes
            ask("unseen", provider.url)
        ask("seen", provider.url)
    assert len(tape.calls) == 1


# ---- whose call it is ----------------------------------------------------------------------------------


def test_blocks_that_do_not_end_in_the_order_of_their_begin(path):
    """After each end the calls belong to what is still open around it."""
    engine = Session()
    outer, first, second, stranger = (engine.recorders.make(Settings(mode=Mode.LIVE), path) for _ in range(4))

    def blocks():
        for block in (outer, first, second):
            engine.open(block, is_block=True)
        contextvars.Context().run(engine.open, stranger, is_block=True)
        found = []
        for block in (first, second, outer):
            engine.close(block)
            found.append(engine.current())
        engine.close(stranger)
        return found

    assert contextvars.Context().run(blocks)[:2] == [second, outer]


def test_a_block_of_a_thread_without_a_context_is_its_own(path):
    """Within a test it takes what its own thread asks; what another thread asks is the test's."""
    engine = Session()
    test, block = (engine.recorders.make(Settings(mode=Mode.LIVE), path) for _ in range(2))

    def in_a_thread():
        engine.open(block, is_block=True)
        with ThreadPoolExecutor(1) as other:
            found = engine.current(), other.submit(engine.current).result()
        engine.close(block)
        return *found, engine.current()

    def within_a_test():
        engine.open(test)
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(in_a_thread).result()
        engine.close(test)
        return found

    assert contextvars.copy_context().run(within_a_test) == (block, test, test)


def test_a_test_inside_a_longer_block_gets_its_calls(path):
    """A session fixture may hold a block open: a marked test within still has its own cassette."""
    engine = Session()
    long, test, inner = (engine.recorders.make(Settings(mode=Mode.LIVE), path) for _ in range(3))
    contextvars.copy_context().run(_whose_calls, engine, long, test, inner)


def _whose_calls(engine, long, test, inner):
    def in_a_thread():
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(engine.current).result()

    assert engine.current() is None
    engine.open(long, is_block=True)
    assert engine.current() is in_a_thread() is long
    engine.open(test)
    assert engine.current() is in_a_thread() is test
    engine.open(inner, is_block=True)
    assert engine.current() is in_a_thread() is inner
    assert contextvars.Context().run(engine.current) is inner
    engine.close(inner)
    assert engine.current() is in_a_thread() is test
    engine.close(test)
    engine.close(long)
    assert engine.current() is None


# ---- what is switched on ---------------------------------------------------------------------------------


def test_dummy_keys_stay_while_any_block_replays(path, monkeypatch):
    """Blocks may end in any order: the first to end takes nothing away from the others."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    engine = Session()
    one, other = (engine.recorders.make(Settings(), path) for _ in range(2))
    engine.open(one)
    engine.open(other)
    engine.close(one)
    assert os.environ["OPENAI_API_KEY"] == DUMMY_KEY
    engine.close(other)
    assert "OPENAI_API_KEY" not in os.environ


def test_a_session_that_cannot_intercept_holds_nothing(path, monkeypatch):
    """Where LiteLLM hides its functions the error comes at once, and the next block starts afresh."""
    engine = Session()

    def hidden(name, _):
        raise pytest_lmcache.DoorError(f"hidden {name}")

    monkeypatch.setattr(interceptions, "ImportWatch", hidden)
    with pytest.raises(pytest_lmcache.DoorError):
        engine.open(engine.recorders.make(Settings(), path))
    assert not engine.scopes
    assert engine.current() is None


def test_a_shared_cassette_is_read_again_only_when_it_changed(path, provider):
    """Hundreds of tests on one cassette read it once; what one of them recorded, the next one finds."""
    record(path, provider, "a")
    engine = Session()
    first, second = (
        engine.recorders.make(Settings(), path, is_shared=True).open_cassette() for _ in range(2)
    )
    assert first is second
    record(path, provider, "a", "b")
    assert len(engine.recorders.make(Settings(), path, is_shared=True).open_cassette().entries) == 2
    other = Settings().updated({"key": "content"}, "test")
    assert engine.recorders.make(other, path, is_shared=True).open_cassette().strategy.name == "content/1"
    assert engine.recorders.make(Settings(), path, is_shared=True).open_cassette().strategy.name == "exact/1"
