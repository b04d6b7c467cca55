"""DSPy's own requests, responses, events and errors <-> plain data, each of their kinds."""

import copy
import json
import pickle
from dataclasses import replace

import pytest

pytest.importorskip("dspy.lm15")
from dspy import lm15 as theirs
from dspy._vendor.lm15.result import response_to_events
from dspy._vendor.lm15.types import ContinuationDelta, StreamDeltaEvent, TextDelta, TopLogprob
from dspy.clients.engines import LM15Engine

from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.libraries.dspy import answers

STATE = theirs.ContinuationState(provider="openai", kind="item", data={"id": "x", "none": None})
LONG = "a text that the provider's raw answer repeats"
PARTS = [
    theirs.TextPart(LONG),
    theirs.TextPart("short", continuation=(STATE,)),
    theirs.ThinkingPart("", continuation=(STATE,)),
    theirs.RefusalPart("no"),
    theirs.CitationPart(url="https://example.org", title="A title"),
    theirs.ToolCallPart(id="call_1", name="add", input={"a": None, "b": [1, 2.5]}),
    theirs.ImagePart(data="aGVsbG8=", detail="low"),
    theirs.DataPart(
        value=None, probabilities={"sure": {"yes": 0.75, "no": 0.25}}, method="provider_classification"
    ),
]


def response(*parts, **more):
    message = theirs.Message(role="assistant", parts=parts or (theirs.TextPart(LONG),))
    usage = theirs.Usage(input_tokens=9, output_tokens=3, total_tokens=12, cache_read_tokens=0)
    return theirs.Response(
        id="r1", model="gpt-4o-mini", message=message, finish_reason="stop", usage=usage, **more
    )


def as_file(value):
    """What a file makes of plain data."""
    return json.loads(json.dumps(value))


# ---- responses and events --------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS, ids=range(len(PARTS)))
def test_each_kind_of_part(part):
    """A response with a part of any kind comes back equal, field by field."""
    whole = response(part, theirs.TextPart("end"))
    assert answers.response_from_plain(as_file(answers.response_to_plain(whole))) == whole


def test_the_rest_of_a_response():
    """Logprobs, what the engine adapted, and what the provider sent come back equal, each None of it too."""
    token = theirs.TokenLogprob(token="a", logprob=-0.5, bytes=(97,), top=(TopLogprob("b", -1.5),))
    adapted = theirs.Adaptation(field="config.seed", action="dropped", asked=7, reason="It has none.")
    raw = {"content": LONG, "again": [{"text": LONG}], "refusal": None, "empty": [], "tier": "default"}
    whole = response(logprobs=(token,), logprobs_complete=False, adaptations=(adapted,), provider_data=raw)
    stored = as_file(answers.response_to_plain(whole))
    assert answers.response_from_plain(stored) == whole
    assert json.dumps(stored).count(LONG) == 1


@pytest.mark.parametrize("part", PARTS, ids=range(len(PARTS)))
def test_a_mark(part):
    """A response that is marked is the same in all that it says and to all that use it, and its copies are marked."""
    plain = response(part, logprobs_complete=False, provider_data={"a": [1]})
    marked = answers.mark_hit(plain)
    copies = [copy.copy(marked), copy.deepcopy(marked), pickle.loads(pickle.dumps(marked)), replace(marked)]
    for each in (marked, *copies):
        assert isinstance(each, theirs.Response)
        assert each == plain
        assert plain == each
        assert each == marked
        assert repr(each) == repr(plain)
        assert each.cache_hit is each._hidden_params["cache_hit"] is True
        assert answers.response_to_plain(each) == answers.response_to_plain(plain)
    assert marked != replace(plain, id="r2")
    assert replace(plain, id="r2") != marked
    assert marked != "marked"
    assert not hasattr(plain, "cache_hit")
    assert hash(answers.mark_hit(response())) == hash(response())


def test_a_short_text_is_told_again():
    """A short text is repeated where the provider repeats it: that reads better than a reference."""
    stored = answers.response_to_plain(
        response(theirs.TextPart("stop"), provider_data={"why": "stop", "said": "stop"})
    )
    assert stored["provider_data"] == {"why": "stop", "said": "stop"}


def test_events():
    """The events of a stream come back equal, also a piece of what belongs to no part."""
    events = [
        *response_to_events(response(*PARTS[:2], *PARTS[4:6])),
        StreamDeltaEvent(TextDelta("x", part_index=3)),
        StreamDeltaEvent(ContinuationDelta(provider="openai", kind="item", data={"id": None}, part_index=0)),
        StreamDeltaEvent(ContinuationDelta(provider="openai", kind="item", data={}, part_index=None)),
    ]
    stored = [as_file(answers.event_to_plain(event)) for event in events]
    assert [answers.event_from_plain(data) for data in stored] == events
    assert stored[1] == {"type": "delta", "delta": {"type": "text", "text": LONG}}


def test_without_usage():
    """An answer that took no tokens says none, as a response and as a stream, and all else as it was."""
    call = theirs.ToolCallPart(id="call_1", name="count", input={"usage": 120})
    bare = answers.without_usage(Answer(Kind.RESPONSE, answers.response_to_plain(response(call)), usd=1.5))
    assert answers.response_from_plain(bare.data).usage == theirs.Usage()
    assert answers.response_from_plain(bare.data).message == response(call).message
    assert bare.usd == 0
    events = [answers.event_to_plain(event) for event in response_to_events(response())]
    bare = answers.without_usage(Answer(Kind.STREAM, events))
    assert answers.event_from_plain(bare.data[-1]).usage is None
    assert bare.tokens == (0, 0)


# ---- requests --------------------------------------------------------------------------------------------


def request(*messages, **more):
    return theirs.Request(
        model="openai/gpt-4o-mini", messages=messages or (theirs.Message.user("hello"),), **more
    )


def test_a_message_of_several_parts():
    """What is not one text stays a list of parts, and what belongs to a message stays with it."""
    said = theirs.Message(role="user", parts=(theirs.TextPart("look"), PARTS[6]), continuation=(STATE,))
    [message] = answers.question(request(said), "chat", stream=False)["messages"]
    assert message["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image", "media_type": "image/png", "data": "aGVsbG8=", "detail": "low"},
    ]
    assert message["continuation"][0]["kind"] == "item"


def test_a_text_with_state_stays_a_part():
    """A text that carries state of the provider's is not shortened to its text."""
    said = theirs.Message(role="assistant", parts=(PARTS[1],))
    [_, message] = answers.question(request(theirs.Message.user("hello"), said), "chat", stream=False)[
        "messages"
    ]
    assert message["content"][0]["continuation"][0]["data"] == {"id": "x", "none": None}


@pytest.mark.parametrize("system", ["Be brief.", (theirs.TextPart("Be brief."),)], ids=["text", "parts"])
def test_system_is_the_first_message(system):
    """What DSPy keeps apart as system stands where it is said: first."""
    asked = answers.question(request(system=system), "chat", stream=False)
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "system" not in asked


def test_what_tells_questions_apart():
    """Parameters, tools, the kind of API, a stored prefix and streaming are part of the question."""
    tool = theirs.BuiltinTool(name="web_search")
    reasoning = theirs.Reasoning(effort="low")
    config = theirs.Config(
        seed=0, reasoning=reasoning, cache=theirs.CacheConfig(resource="cache/1"), extensions={"x": 1}
    )
    asked = answers.question(request(config=config, tools=(tool,)), "responses", stream=True)
    del asked["messages"]
    assert asked == {
        "model": "openai/gpt-4o-mini",
        "seed": 0,
        "reasoning": {"effort": "low"},
        "extensions": {"x": 1},
        "cached_content": "cache/1",
        "tools": [{"type": "builtin", "name": "web_search"}],
        "model_type": "responses",
        "stream": True,
    }


# ---- errors ----------------------------------------------------------------------------------------------

KINDS = [
    kind
    for kind in vars(theirs).values()
    if isinstance(kind, type)
    and issubclass(kind, theirs.LM15Error)
    and kind is not theirs.CollectionLimitError
]
DETAILS = {
    "provider": "openai-chat",
    "provider_code": "some_code",
    "status": 418,
    "request_id": "req_1",
    "retry_after": 1.5,
    "rate_limit_headers": {"x-ratelimit-limit-requests": ("10", "20")},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("details", [DETAILS, {}], ids=["details", "bare"])
def test_each_class_of_error(kind, details):
    """An error of any class comes back as that class, with message, text and every attribute."""
    error = kind("It did not work.", **details)
    revived = answers.error_from_plain(as_file(answers.error_to_plain(error, ["x-ratelimit-*"])))
    assert type(revived) is kind
    assert (str(revived), revived.args) == (str(error), error.args)
    assert vars(revived) == vars(error)


def test_what_a_class_adds():
    """What an error of one class says beyond others comes back too: advice, features, candidates, a part of the answer."""
    errors = [
        theirs.AuthError("no", provider="openai-chat", env_keys=("A_KEY", "B_KEY")),
        theirs.NotConfiguredError("no", credential_hint="log in"),
        theirs.UnsupportedFeatureError("no", feature="config.top_k"),
        theirs.AmbiguousModelError("no", model="m", providers=("a", "b")),
        theirs.StreamAssemblyError("no", partial=response(), part_index=2),
    ]
    for error in errors:
        revived = answers.error_from_plain(as_file(answers.error_to_plain(error)))
        assert vars(revived) == vars(error)
        assert revived.args == error.args


def test_a_default_is_not_stored():
    """A stored error tells what it is and no more, also where somebody has noted more on it."""
    error = theirs.ServerError("Overloaded", status=503)
    error.cleanup_errors = (OSError("closed"),)
    assert answers.error_to_plain(error) == {
        "class": "dspy.lm15.ServerError",
        "message": "Overloaded",
        "status": 503,
    }


def test_other_errors():
    """A subclass of the user's is stored as DSPy's class, a wrong argument as it is, anything else not at all."""

    class Own(theirs.RateLimitError):
        pass

    assert answers.error_to_plain(Own("wait"))["class"] == "dspy.lm15.RateLimitError"
    for error in (TypeError("wrong"), ValueError("wrong")):
        revived = answers.error_from_plain(as_file(answers.error_to_plain(error)))
        assert (type(revived), revived.args) == (type(error), error.args)
    assert answers.error_to_plain(KeyError("x")) is None


@pytest.mark.parametrize(
    ("error", "lasting"),
    [
        (theirs.InvalidRequestError("no", status=400), True),
        (theirs.UnsupportedModelError("no", status=404), True),
        (theirs.InvalidRequestError("no", status=409), False),
        (theirs.ContextLengthError("no"), True),
        (theirs.UnsupportedFeatureError("no"), True),
        (theirs.UnknownModelError("no"), True),
        (theirs.AmbiguousModelError("no"), True),
        (TypeError("no"), True),
        (ValueError("no"), True),
        (theirs.AuthError("no", status=401), False),
        (theirs.BillingError("no", status=402), False),
        (theirs.RateLimitError("no", status=429), False),
        (theirs.ServerError("no", status=500), False),
        (theirs.TransportError("no"), False),
        (theirs.NotConfiguredError("no"), False),
        (theirs.StreamAssemblyError("no"), False),
        (KeyError("no"), False),
    ],
    ids=lambda value: f"{type(value).__name__} {value}",
)
def test_what_lasts(error, lasting):
    """What the request is to blame for lasts; what the moment, the account or the line is to blame for passes."""
    assert answers.is_lasting(error) is lasting


# ---- prices ----------------------------------------------------------------------------------------------


def engine(*providers):
    return LM15Engine(theirs.RouterConfig(providers=providers))


def test_a_price():
    """A known model's answer has a price, as a response and as the events of a stream; a broken stream has none."""
    asked = request()
    usd = answers.price(response(), asked, engine())
    assert usd == pytest.approx(9 * 0.15e-6 + 3 * 0.6e-6)
    events = [answers.event_to_plain(event) for event in response_to_events(response())]
    assert answers.price_of_stream(events, asked, engine()) == usd
    assert answers.price_of_stream(events[:-1], asked, engine()) is None
    assert answers.price(response(), asked, None) is None


@pytest.mark.parametrize("namespaces", [("openai",), ()], ids=["priced", "unpriced"])
def test_a_declared_provider(namespaces):
    """A provider that the user declared has the prices of the namespaces that were declared with it, and no others."""
    own = theirs.ProviderDefinition.chat(
        theirs.AccessPolicy(provider="own-one", base_url="http://127.0.0.1:9/v1", env_keys=("OWN_KEY",)),
        compat=theirs.OpenAIChatCompat(),
    )
    theirs.register_provider(own, metadata_namespaces=namespaces)
    try:
        asked = theirs.Request(model="own-one/gpt-4o-mini", messages=(theirs.Message.user("hello"),))
        usd = answers.price(response(), asked, engine(own))
        saved = answers.saved_by_prompt_cache((1000, 0), asked, engine(own))
        assert (usd is not None, saved > 0) == (bool(namespaces), bool(namespaces))
    finally:
        theirs.unregister_provider("own-one")


def test_what_the_prompt_cache_saved():
    """Tokens read from the provider's cache save the difference to those that are not; nothing without a price."""
    asked = request()
    assert answers.saved_by_prompt_cache((1000, 0), asked, engine()) == pytest.approx(1000 * 0.075e-6)
    assert answers.saved_by_prompt_cache((1000, 0), asked, None) == 0.0
