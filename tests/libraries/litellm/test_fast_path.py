"""A replayed call that nobody hears of is answered before LiteLLM's wrapper: nobody can tell, but by the clock."""

import asyncio
import logging
import re

import litellm
import pytest
from litellm.integrations.custom_logger import CustomLogger
from provider import Provider, Reply

from pytest_lmcache import CassetteMiss, use_cassette
from pytest_lmcache.libraries.litellm import fast_path

pytestmark = pytest.mark.usefixtures("nobody_records")

ASKED = [{"role": "user", "content": "hello there"}]
CHAT = {
    "model": "openai/gpt-4o-mini",
    "messages": ASKED,
    "api_key": "sk-local",
    "max_retries": 0,
}
VECTOR = {"model": "openai/text-embedding-3-small", "input": ["a"], "api_key": "sk-local"}
# The key leaves metadata aside, the wrapper looks at it.
LONG_WAY = {"metadata": {"run": 1}}

SHAPES = {
    "chat": lambda **more: litellm.completion(**CHAT, **more),
    "async chat": lambda **more: asyncio.run(litellm.acompletion(**CHAT, **more)),
    "positional": lambda **more: litellm.completion(CHAT["model"], ASKED, api_key="sk-local", **more),
    "stream": lambda **more: litellm.completion(**CHAT, stream=True, **more),
    "async stream": lambda **more: asyncio.run(litellm.acompletion(**CHAT, stream=True, **more)),
    "positional stream": lambda **more: litellm.completion(
        CHAT["model"], ASKED, stream=True, api_key="sk-local", **more
    ),
    "vectors": lambda **more: litellm.embedding(**VECTOR, **more),
    "async vectors": lambda **more: asyncio.run(litellm.aembedding(**VECTOR, **more)),
}


@pytest.fixture(scope="module")
def provider():
    with Provider() as running:
        yield running


LISTENERS = (
    "callbacks",
    *(f"{way}{on}_callback" for on in ("input", "success", "failure") for way in ("", "_async_")),
)


@pytest.fixture(autouse=True)
def ways(monkeypatch):
    """Which calls were answered in front of the wrapper, by their entry point; at first nobody listens."""
    for name in LISTENERS:
        monkeypatch.setattr(litellm, name, [])
    monkeypatch.setattr(litellm.utils, "callback_list", [])
    answered = []
    replay = fast_path.replay

    def noted(recorder, function, *call):
        result = replay(recorder, function, *call)
        if result is not None:
            answered.append(function.name)
        return result

    monkeypatch.setattr(fast_path, "replay", noted)
    return answered


@pytest.fixture
def cassette(provider, tmp_path):
    """Every shape, recorded."""
    path = tmp_path / "x.yaml"
    with use_cassette(path, mode="record"):
        for shape in SHAPES:
            # An async stream is read in a loop, and has the key of a sync one.
            read(SHAPES[shape.replace("async stream", "stream")](api_base=provider.url))
    return path


def read(answer):
    return list(answer) if isinstance(answer, litellm.CustomStreamWrapper) else [answer]


def seen(answer):
    """All that LiteLLM tells of an answer, but for times, and ids that it makes up."""
    hidden = dict(answer._hidden_params)
    assert isinstance(hidden.pop("_response_ms"), float)
    assert len(hidden.pop("litellm_call_id")) == 36
    hidden.pop("callback_duration_ms")
    others = sorted(name for name in vars(answer) if name == "_response_ms" or not name.startswith("_"))
    if isinstance(answer, litellm.CustomStreamWrapper):
        told = answer.logging_obj
        assert told.litellm_call_id == answer._hidden_params["litellm_call_id"]
        others = [
            told.call_type,
            told.model,
            told.messages,
            told.optional_params,
            answer.model,
            answer.messages,
        ]
    chunks = [(each.model_dump(), each._hidden_params.get("usage")) for each in read(answer)]
    return [type(answer).__name__, hidden, others, chunks]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "base", [{}, {"api_base": "http://127.0.0.1:9/v1"}, {"base_url": "http://127.0.0.1:9/v1"}]
)
def test_an_answer_is_the_same_as_through_the_wrapper(shape, base, cassette, ways):
    """Types, hidden parameters, prices and chunks are those that LiteLLM's wrapper gives."""
    ask = SHAPES[shape]
    with use_cassette(cassette):
        told = seen(ask(**base))
        assert len(ways) == 1
    with use_cassette(cassette):
        assert told == seen(ask(**base, **LONG_WAY))
        assert len(ways) == 1


def test_usage_left_empty_costs_nothing(cassette, ways):
    """`usage="empty"` holds on the short way too."""
    with use_cassette(cassette, usage="empty"):
        answer = SHAPES["chat"]()
    assert ways
    assert answer.usage.total_tokens == answer._hidden_params["response_cost"] == 0


class Listener(CustomLogger):  # type: ignore[misc]
    def log_success_event(self, *_): ...


def refuses(*_, **__):
    return False


HEARD = {
    "callbacks": ("callbacks", [Listener()]),
    "success": ("success_callback", [refuses]),
    "failure": ("failure_callback", [refuses]),
    "before": ("pre_call_rules", [refuses]),
    "after": ("post_call_rules", [refuses]),
    "budget": ("max_budget", 1.0),
    "limit": ("num_retries_per_request", 3),
    "changes": ("modify_params", True),
    "schema": ("enable_json_schema_validation", True),
    "verbose": ("set_verbose", True),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", HEARD)
def test_who_listens_gets_the_wrapper(what, cassette, ways, monkeypatch):
    """A setting of LiteLLM's that hears of calls, or looks at them, has the wrapper run."""
    name, value = HEARD[what]
    monkeypatch.setattr(litellm, name, value)
    with use_cassette(cassette):
        if "rules" in name:
            with pytest.raises(litellm.APIResponseValidationError):
                SHAPES["chat"]()
        else:
            SHAPES["chat"]()
    assert ways == []


def test_a_spent_budget_is_told(cassette, monkeypatch):
    """LiteLLM's budget ends a test on replay as it does live."""
    monkeypatch.setattr(litellm, "max_budget", 1.0)
    monkeypatch.setattr(litellm, "_current_cost", 2.0)
    with use_cassette(cassette), pytest.raises(litellm.BudgetExceededError):
        SHAPES["chat"]()


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_a_log_shows_what_litellm_does(level, cassette, ways, caplog):
    """With LiteLLM's logger on DEBUG or INFO its lines are there."""
    with use_cassette(cassette), caplog.at_level(level, logger="LiteLLM"):
        SHAPES["chat"]()
    assert ways == []


def test_sentry_gets_its_breadcrumbs(cassette, monkeypatch):
    """LiteLLM leaves them as long as a process lives, whoever is registered now."""
    left = []
    monkeypatch.setattr(litellm.utils, "add_breadcrumb", lambda **crumb: left.append(crumb["category"]))
    with use_cassette(cassette):
        SHAPES["chat"]()
    assert left == ["litellm.llm_call"]


@pytest.mark.parametrize("tier", [{}, {"service_tier": "flex"}])
def test_a_recording_without_a_price_is_priced_by_what_was_asked(tier, provider, tmp_path, ways):
    """As by the wrapper: a tier of service has prices of its own."""
    path, asked = tmp_path / "x.yaml", {**CHAT, "model": "openai/gpt-5-mini", **tier}
    with use_cassette(path, mode="record"):
        litellm.completion(**asked, api_base=provider.url)
    path.write_text(re.sub(r"\nusd: .*", "", path.read_text()))
    with use_cassette(path):
        short = litellm.completion(**asked)
    assert len(ways) == 1
    with use_cassette(path):
        long = litellm.completion(**asked, **LONG_WAY)
    assert short._hidden_params["response_cost"] == long._hidden_params["response_cost"] > 0


def test_what_litellm_would_have_told_of_a_stream_is_of_when_it_was_asked(cassette, monkeypatch):
    """An agent goes on with its list of messages; rules that come later judge later calls."""
    messages = [*ASKED]
    with use_cassette(cassette):
        stream = litellm.completion(**{**CHAT, "messages": messages}, stream=True)
        messages.append({"role": "assistant", "content": "hi"})
        monkeypatch.setattr(litellm, "pre_call_rules", [refuses])
        assert stream.logging_obj.messages == ASKED


@pytest.mark.parametrize(
    "argument",
    [
        {"callbacks": []},
        {"caching": False},
        {"fallbacks": None},
        {"num_retries": 0},
        {"mock_response": None},
        {"logger_fn": refuses},
        {"enable_json_schema_validation": True},
        {"response_format": {"type": "json_object", "response_schema": {}, "enforce_validation": False}},
        {"an_argument_of_tomorrow": None},
    ],
    ids=lambda argument: next(iter(argument)),
)
def test_any_other_argument_gets_the_wrapper(argument, provider, tmp_path, ways):
    """What the wrapper may look at goes there, what LiteLLM will know tomorrow included."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        SHAPES["chat"](api_base=provider.url, **argument)
    with use_cassette(tmp_path / "x.yaml") as tape:
        SHAPES["chat"](**argument)
    assert ways == []
    assert tape.replayed == 1


def test_recording_goes_through_the_wrapper(cassette, ways):
    """Only replaying modes have the short way."""
    with use_cassette(cassette, mode="record"):
        SHAPES["chat"]()
    assert ways == []


@pytest.mark.parametrize("is_async", [False, True])
def test_a_recorded_error_and_the_answer_after_it(is_async, provider, tmp_path, ways):
    """An error goes through the wrapper, where retries are; identical calls keep their order."""
    ask = SHAPES["async chat" if is_async else "chat"]
    provider.script(Reply(failure="not_found"))
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        with pytest.raises(litellm.NotFoundError):
            ask(api_base=provider.url)
        first = ask(api_base=provider.url)
    with use_cassette(tmp_path / "x.yaml") as tape:
        with pytest.raises(litellm.NotFoundError):
            ask()
        assert ways == []
        assert ask().model_dump() == first.model_dump()
        assert ways
        assert [record.nth for record in tape.calls] == [0, 1]


def test_a_miss_is_told_once(cassette, ways):
    """What is not recorded is a miss of one call."""
    with pytest.raises(CassetteMiss), use_cassette(cassette) as tape:
        litellm.completion(**{**CHAT, "messages": [{"role": "user", "content": "other"}]})
    assert (ways, len(tape.faults), len(tape.calls)) == ([], 1, 1)


def test_frames_of_the_wrapper_can_be_looked_into(cassette):
    """A debugger, and `pytest --showlocals`, read the variables of every frame."""
    with pytest.raises(CassetteMiss) as raised, use_cassette(cassette):
        litellm.completion(**{**CHAT, "messages": [{"role": "user", "content": "other"}]})
    variables = [dict(entry.frame.f_locals) for entry in raised.traceback]
    assert any("original_function" in each for each in variables)


def test_a_stream_that_nobody_reads(cassette, capsys):
    """Dropping one is no error, before and after somebody looked at it."""
    with use_cassette(cassette):
        stream = SHAPES["stream"]()
        del stream
        stream = SHAPES["stream"]()
        assert stream.logging_obj is stream.logging_obj
        del stream
    assert capsys.readouterr().err == ""
