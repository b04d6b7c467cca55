"""The interception of LiteLLM: what it sees, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from operator import ne
from types import FunctionType, ModuleType
from typing import Any

import litellm
import openai
import pytest
from litellm import acompletion, completion, embedding
from provider import Provider

from pytest_lmcache import (
    CassetteError,
    CassetteMiss,
    DoorError,
    SettingsError,
    UnsupportedCall,
    use_cassette,
)
from pytest_lmcache.libraries.import_hook import ImportWatch
from pytest_lmcache.libraries.litellm import compat
from pytest_lmcache.libraries.litellm.entry_points import BY_FUNCTION, UNDECORATED
from pytest_lmcache.libraries.litellm.intercept import Interception, wrapper_chain
from pytest_lmcache.libraries.litellm.intercept import wrappers as wrappers_in
from pytest_lmcache.not_recorded import Reason

ASKED = [{"role": "user", "content": "hello"}]
KEY = {"api_key": "sk-local"}


pytestmark = pytest.mark.usefixtures("nobody_records")


@pytest.fixture(scope="module")
def provider():
    with Provider() as running:
        yield running


def default_argument(messages, call=completion, **more):
    return call(model="openai/gpt-4o-mini", messages=messages, **more)


def closure():
    kept = litellm.completion
    return lambda **more: kept(model="openai/gpt-4o-mini", messages=ASKED, **more)


class Holder:
    kept = staticmethod(completion)
    in_list: tuple[Any, ...] = (completion,)

    def __init__(self):
        self.own = completion


ROUTER_MODELS = [
    {"model_name": "small", "litellm_params": {"model": "openai/gpt-4o-mini", "api_key": "sk-local"}}
]
EARLY_CLOSURE, EARLY_HOLDER = closure(), Holder()
EARLY_PARTIAL = functools.partial(completion, "openai/gpt-4o-mini", ASKED)
EARLY_ROUTER = litellm.Router(model_list=ROUTER_MODELS, num_retries=0)  # type: ignore[arg-type]
MORE = {"model": "openai/gpt-4o-mini", "messages": ASKED}

EARLY = {
    "module attribute": lambda **more: litellm.completion(**MORE, **more),
    "from-import": lambda **more: completion(**MORE, **more),
    "from-import, async": lambda **more: asyncio.run(acompletion(**MORE, **more)),
    "inner module": lambda **more: litellm.main.completion(**MORE, **more),
    "default argument": lambda **more: default_argument(ASKED, **more),
    "closure": EARLY_CLOSURE,
    "class attribute": lambda **more: Holder.kept(**MORE, **more),
    "instance attribute": lambda **more: EARLY_HOLDER.own(**MORE, **more),
    "tuple": lambda **more: Holder.in_list[0](**MORE, **more),
    "partial": EARLY_PARTIAL,
    "thread": lambda **more: ThreadPoolExecutor(1).submit(completion, **MORE, **more).result(),
    "batch": lambda **more: litellm.batch_completion(model="openai/gpt-4o-mini", messages=[ASKED], **more)[0],
    "stream": lambda **more: list(completion(**MORE, stream=True, **more)),
    "text over chat": lambda **more: litellm.text_completion(
        model="openai/gpt-4o-mini", prompt="hello", **more
    ),
}


@pytest.mark.parametrize("shape", EARLY)
def test_every_early_bound_name_is_seen(shape, provider, tmp_path):
    """However the code under test got hold of LiteLLM's function, the call is seen once, recorded and replayed."""
    with use_cassette(tmp_path / "x.yaml", mode="record") as recording:
        EARLY[shape](api_base=provider.url, **KEY)
    with use_cassette(tmp_path / "x.yaml") as replaying:
        EARLY[shape](api_base="http://127.0.0.1:9/v1", **KEY)
    assert (recording.recorded, replaying.replayed) == (1, 1)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_router_built_before_is_seen(is_async, provider, tmp_path):
    """A Router that was made at import is seen, and shares its recordings with direct calls."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        completion(**MORE, api_base=provider.url, **KEY)
    with use_cassette(tmp_path / "x.yaml") as tape:
        if is_async:
            asyncio.run(EARLY_ROUTER.acompletion(model="small", messages=ASKED))  # type: ignore[arg-type]
        else:
            EARLY_ROUTER.completion(model="small", messages=ASKED)
    assert tape.replayed == 1


def state():
    """All that the interception may touch: the cells, the code of undecorated functions, the environment."""
    modules = [name for name in sys.modules if name.partition(".")[0] == "litellm"]
    wrappers = list(wrappers_in(modules))
    contents = [id(cell.cell_contents) for _, cell in wrappers]
    codes = [id(wrapper.__code__) for wrapper, _ in wrappers] + [
        id(getattr(litellm, name).__code__)
        for name in UNDECORATED
        if isinstance(getattr(litellm, name, None), FunctionType)
    ]
    import os

    return [contents, codes, dict(os.environ), list(sys.meta_path), sorted(vars(litellm))]


def test_nothing_is_left_behind(tmp_path):
    """After the last cassette closes, LiteLLM and the environment are what they were."""
    before = state()
    with use_cassette(tmp_path / "a.yaml"):
        during = state()
        with use_cassette(tmp_path / "b.yaml"):
            assert state()[:2] == during[:2]
        assert state()[:2] == during[:2]
    assert during[0] != before[0]
    assert during[1] != before[1]
    assert state() == before


def test_it_comes_off_after_an_exception(tmp_path):
    """An exception in the block takes the interception off all the same."""
    before = state()
    with pytest.raises(RuntimeError), use_cassette(tmp_path / "a.yaml"):
        raise RuntimeError
    assert state() == before


def test_the_innermost_cassette_gets_the_call(provider, tmp_path):
    """Cassettes nest: a call belongs to the one that was opened last."""
    with use_cassette(tmp_path / "outer.yaml", mode="record") as outer:
        with use_cassette(tmp_path / "inner.yaml", mode="record") as inner:
            completion(**MORE, api_base=provider.url, **KEY)
        litellm.completion(**{**MORE, "temperature": 1}, api_base=provider.url, **KEY)
    assert (outer.recorded, inner.recorded) == (1, 1)


def test_threads_without_a_context_belong_to_the_open_cassette(provider, tmp_path):
    """A bare thread's call is recorded, one call each."""
    with use_cassette(tmp_path / "x.yaml", mode="record") as tape:
        threads = [
            threading.Thread(
                target=completion, kwargs={**MORE, "seed": number, "api_base": provider.url, **KEY}
            )
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert tape.recorded == 8
    with use_cassette(tmp_path / "x.yaml") as tape, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: completion(**MORE, seed=number), range(8)))
    assert tape.replayed == 8


def test_several_event_loops(provider, tmp_path):
    """Loops one after the other, and loops in threads at once, all replay."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        completion(**MORE, api_base=provider.url, **KEY)
    with use_cassette(tmp_path / "x.yaml") as tape:
        for _ in range(3):
            asyncio.run(acompletion(**MORE))
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: asyncio.run(acompletion(**MORE)), range(3)))
    assert tape.replayed == 6


def test_a_call_inside_a_call_counts_once(provider, tmp_path):
    """LiteLLM answers text_completion, responses and messages of other providers over chat: one recording."""
    with use_cassette(tmp_path / "x.yaml", mode="record") as tape:
        litellm.text_completion(model="openai/gpt-4o-mini", prompt="hello", api_base=provider.url, **KEY)
        litellm.responses(model="anthropic/claude-haiku-4-5", input="hello", api_base=provider.base, **KEY)
    assert [call.name for call in tape.calls] == ["text_completion", "responses"]


def test_messages_in_sync_form(provider, tmp_path):
    """LiteLLM has sync messages only over another API: that API's call is what is recorded."""

    def ask(url):
        return litellm.anthropic.messages.create(
            model="hosted_vllm/llama", max_tokens=64, messages=ASKED, api_base=url, **KEY
        )

    with use_cassette(tmp_path / "x.yaml", mode="record") as tape:
        live = ask(provider.url)
    assert [call.name for call in tape.calls] == ["completion"]
    with use_cassette(tmp_path / "x.yaml"):
        assert ask("http://127.0.0.1:9/v1")["content"] == live["content"]


REFUSED = {
    "create_skill": lambda: litellm.create_skill(display_title="x", custom_llm_provider="anthropic", **KEY),
    "aingest": lambda: asyncio.run(litellm.aingest(ingest_options={}, **KEY)),
    "create_thread": lambda: litellm.create_thread(custom_llm_provider="openai", **KEY),
    "get_valid_models": lambda: litellm.get_valid_models(
        check_provider_endpoint=True, custom_llm_provider="openai", **KEY
    ),
    "(ahealth_check|realtime_health_check)": lambda: asyncio.run(
        litellm.ahealth_check({"model": "openai/gpt-realtime", **KEY}, mode="realtime")
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_entry_points_are_refused_by_name(name, tmp_path):
    """What is not recorded reaches no provider in mode replay, and the error names it."""
    with (
        pytest.raises(UnsupportedCall, match=rf"cannot record litellm\.{name}\(\) yet") as caught,
        use_cassette(tmp_path / "x.yaml"),
    ):
        REFUSED[name]()
    assert isinstance(caught.value, CassetteMiss)


def test_a_list_of_models_that_asks_nobody_is_given(tmp_path):
    """get_valid_models without check_provider_endpoint reads LiteLLM's own list: no provider, no refusal."""
    with use_cassette(tmp_path / "x.yaml"):
        assert litellm.get_valid_models(custom_llm_provider="openai")


@pytest.mark.parametrize("place", [place for place in UNDECORATED if "." in place])
def test_what_asks_away_from_the_public_face_is_refused(place, tmp_path, monkeypatch):
    """Wherever LiteLLM has it, and also in a module that is imported after the interception was first installed."""
    module, _, attribute = f"litellm.{place}".rpartition(".")

    async def ask(question):
        return question

    home = ModuleType(module)
    setattr(home, attribute, ask)
    with pytest.raises(UnsupportedCall, match=UNDECORATED[place]), use_cassette(tmp_path / "x.yaml"):
        monkeypatch.setitem(sys.modules, module, home)
        monkeypatch.setitem(sys.modules, f"{module}.new", home)
        with use_cassette(tmp_path / "y.yaml"):
            asyncio.run(ask("again"))
    assert asyncio.run(ask("again")) == "again"


def test_a_refused_call_cannot_be_swallowed(tmp_path):
    """Code that catches every exception does not hide a refused call."""
    with pytest.raises(UnsupportedCall), use_cassette(tmp_path / "x.yaml"):
        try:
            litellm.create_thread(custom_llm_provider="openai", **KEY)
        except BaseException:
            pass


def test_other_entry_points_pass_while_recording(provider, tmp_path):
    """While recording, a call that is not recorded goes through, and the run can say so."""
    with use_cassette(tmp_path / "x.yaml", mode="record") as tape, pytest.raises(openai.APIError):
        litellm.list_skills(custom_llm_provider="anthropic", api_base=provider.base, **KEY)
    assert tape.not_recorded == [(Reason.UNSUPPORTED, "list_skills()")]


@pytest.mark.parametrize("name", BY_FUNCTION)
def test_every_recorded_entry_point_is_found(name):
    """The self-test knows each recorded function of this LiteLLM."""
    assert list(wrappers_in(["litellm"]))
    home, _, function = name.rpartition(".")
    assert callable(getattr(import_module(f"litellm.{home}.main") if home else litellm, function))


def test_a_guarded_function_stays_of_its_kind(tmp_path):
    """What tells async functions from others sees no difference; Python 3.13 warns of code of another kind."""
    names = [name for name in UNDECORATED if hasattr(litellm, name)]
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)

    def seen():
        return {name: [is_kind(getattr(litellm, name)) for is_kind in kinds] for name in names}

    before = seen()
    with use_cassette(tmp_path / "x.yaml"):
        assert seen() == before
    assert any(map(any, before.values()))


def test_a_litellm_that_hides_its_functions_is_refused(monkeypatch):
    """A LiteLLM that builds its functions otherwise gives an error, instead of calls that slip by."""
    before = state()
    interception = Interception(lambda: None, lambda _: None)
    monkeypatch.setattr(litellm, "completion", lambda *_, **__: None)
    with pytest.raises(DoorError, match=r"cannot see the calls of this LiteLLM .* completion are not built"):
        interception.open()
    monkeypatch.undo()
    assert state() == before


def test_a_stub_of_the_suites_is_no_litellm_that_hides(monkeypatch):
    """What a test puts in the place of a function while we look stays there, and nothing of ours is left behind."""
    before = state()
    interception = Interception(lambda: None, lambda _: None)
    interception.open()
    monkeypatch.setattr(litellm, "completion", lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "litellm.imported_meanwhile", ModuleType("litellm.imported_meanwhile"))
    interception.rescan()
    interception.close()
    monkeypatch.undo()
    assert state() == before


@pytest.mark.parametrize("is_known", [True, False])
def test_the_fast_path_is_off_in_a_wrapper_that_is_not_known(is_known, monkeypatch):
    """What does something new before or after a call is not bypassed, however fast that would be."""
    if not is_known:
        monkeypatch.setattr(compat, "KNOWN_NAMES", compat.KNOWN_NAMES - {"function_setup"})
    functions = [
        wrapper
        for name in ("completion", "aembedding")
        for wrapper, _ in wrapper_chain(getattr(litellm, name))
    ]
    before = [function.__code__ for function in functions]
    interception = Interception(lambda: None, lambda _: None)
    interception.open()
    try:
        assert [function.__code__ is not code for function, code in zip(functions, before, strict=True)] == [
            is_known for _ in functions
        ]
    finally:
        interception.close()


def without_completion():
    """Another LiteLLM, one of whose functions cannot be found."""
    other = ModuleType("litellm")
    vars(other).update({name: value for name, value in vars(litellm).items() if name != "completion"})
    return other


def test_an_interception_that_failed_can_be_installed_later(monkeypatch):
    """A try that failed, since another LiteLLM was there, is not taken for a look: no call goes by unseen afterwards."""
    interception = Interception(lambda: None, lambda _: None)
    before = state()
    interception.open()
    changed = sum(map(ne, state(), before))
    interception.close()
    monkeypatch.setitem(sys.modules, "litellm", without_completion())
    with pytest.raises(DoorError):
        interception.open()
    monkeypatch.undo()
    interception.open()
    assert sum(map(ne, state(), before)) == changed
    interception.close()
    assert state() == before


def test_a_litellm_that_cannot_be_seen_any_more_leaves_nothing_behind(
    monkeypatch,
):
    """Where another LiteLLM has come meanwhile, and hides its functions, the first is put back as it was."""
    before = state()
    interception = Interception(lambda: None, lambda _: None)
    interception.open()
    monkeypatch.setitem(sys.modules, "litellm", without_completion())
    with pytest.raises(DoorError):
        interception.rescan()
    monkeypatch.undo()
    interception.close()
    assert state() == before


def test_litellm_is_not_imported_by_us(tmp_path):
    """The watch waits for the user's own import and then tells, once, without importing anything."""
    name = "a_module_of_the_user"
    (tmp_path / f"{name}.py").write_text("value = 1")
    sys.path.insert(0, str(tmp_path))
    told = []
    try:
        watch = ImportWatch(name, lambda: told.append(sys.modules[name].value))
        assert name not in sys.modules
        assert not told
        __import__(name)
        assert told == [1]
        assert watch not in sys.meta_path
        assert type(sys.modules[name].__spec__.loader).__name__ == "SourceFileLoader"  # type: ignore[union-attr]
        assert type(sys.modules[name].__loader__).__name__ == "SourceFileLoader"
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop(name, None)


def test_a_watch_that_stops_leaves_no_trace():
    """A watch for a module that never comes takes itself out again."""
    before = list(sys.meta_path)
    watch = ImportWatch("never_imported", lambda: None)
    assert sys.meta_path != before
    watch.stop()
    assert sys.meta_path == before


def test_litellm_s_rust_client_stays_off(tmp_path, monkeypatch):
    """LiteLLM's Rust client would go past its Python functions: off while a cassette is open, then as it was."""
    import os

    monkeypatch.setenv("LITELLM_RUST", "1")
    with use_cassette(tmp_path / "x.yaml"):
        assert os.environ["LITELLM_RUST"] == "0"
    assert os.environ["LITELLM_RUST"] == "1"


def test_unkeyable_arguments_are_named(tmp_path):
    """A call that cannot be keyed is an error that names the argument, also where it is swallowed."""
    with (
        pytest.raises(Exception, match=r"extra_body.*cannot be part of a key"),
        use_cassette(tmp_path / "x.yaml"),
    ):
        try:
            completion(**MORE, extra_body={"x": object()}, **KEY)
        except Exception:
            pass
    assert embedding.__name__ == "embedding"


@pytest.mark.parametrize(
    "call",
    [
        lambda url: litellm.responses(
            model="openai/m", input="x", mock_response={"a": 1}, api_base=url, **KEY
        ),
        lambda url: litellm.responses(model="openai/m", input="x", mock_timeout=True, api_base=url, **KEY),
        lambda url: litellm.embedding(model="openai/m", input=["x"], mock_timeout=True, api_base=url, **KEY),
        lambda url: litellm.embedding(
            model="openai/m", input=["x"], mock_tool_calls=[1], api_base=url, **KEY
        ),
    ],
    ids=["responses, a mapping", "responses, a timeout", "embedding, a timeout", "embedding, tool calls"],
)
def test_a_mock_that_litellm_ignores_is_no_way_out(call, provider, tmp_path):
    """Where LiteLLM would ask the provider in spite of a mock argument, mode replay does not."""
    before = provider.count
    with pytest.raises(CassetteMiss), use_cassette(tmp_path / "x.yaml"):
        call(provider.url)
    assert provider.count == before


def test_a_fault_of_ours_is_remembered(tmp_path):
    """A redaction function that breaks fails the block, also where the code under test swallows it."""
    settings = {"redact_with": lambda _: 1 / 0}
    with (
        pytest.raises(SettingsError, match="raised ZeroDivisionError"),
        use_cassette(tmp_path / "x.yaml", **settings),
    ):
        try:
            completion(**MORE, **KEY)
        except SettingsError:
            pass


@pytest.mark.parametrize("stream", [False, True], ids=["response", "stream"])
def test_an_answer_that_litellm_cannot_read_is_told(stream, provider, tmp_path):
    """A recording that somebody edited into nonsense is an error with file and line, and it is remembered."""
    more = {"stream": True} if stream else {}
    path = tmp_path / "x.yaml"
    with use_cassette(path, mode="record"):
        answer = completion(**MORE, **more, api_base=provider.url, **KEY)
        list(answer) if stream else answer
    text = path.read_text()
    old, new = (
        ('[{"finish_reason"', '[5, {"finish_reason"') if stream else ("  choices:\n", "  choices:\n  - 5\n")
    )
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(CassetteError, match=rf"{path.name}:\d+: LiteLLM cannot read"), use_cassette(path):
        try:
            answer = completion(**MORE, **more, **KEY)
            list(answer) if stream else answer
        except Exception:
            pass


@pytest.mark.slow
def test_litellm_imported_anew_is_seen(tmp_path):
    """A LiteLLM that a test throws out and imports again is intercepted in the next test."""
    script = """
import sys
import litellm
from pytest_lmcache import CassetteMiss, use_cassette
with use_cassette("a.yaml"):
    for name in [name for name in sys.modules if name.partition(".")[0] == "litellm"]:
        del sys.modules[name]
    import litellm
    with use_cassette("b.yaml"):
        try:
            litellm.completion(model="openai/m", messages=[], api_key="x", api_base="http://127.0.0.1:9/v1")
        except CassetteMiss as miss:
            print("missed")
            raise SystemExit(0)
"""
    import subprocess

    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "missed" in ran.stdout, ran.stderr[-2000:]


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: litellm.completion("openai/gpt-4o-mini", ASKED), "return call(*args, **kwargs)"),
        (lambda: litellm.moderation(input="x"), "return call(*args, **kwargs)"),
        (
            lambda: asyncio.run(litellm.acompletion("openai/gpt-4o-mini", ASKED)),
            "return await call(*args, **kwargs)",
        ),
    ],
    ids=["decorated", "undecorated", "coroutine"],
)
def test_tracebacks_show_the_lines_of_swapped_code(call, line, tmp_path):
    """In a traceback the code in the place of LiteLLM's own shows what it does, not a line of another file."""
    with pytest.raises(CassetteMiss) as missed, use_cassette(tmp_path / "x.yaml"):
        call()
    frames = traceback.extract_tb(missed.value.__traceback__)
    swapped = [frame.line for frame in frames if frame.filename.startswith("<pytest-lmcache")]
    assert swapped == [line]
    assert not [frame for frame in frames if frame.filename.endswith("code_swap.py")]
