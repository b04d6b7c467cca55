"""Comparing a recorded answer with a new one: what counts as the same, and what is said of the rest."""

import base64
import json
import struct

import pytest

from pytest_lmcache.answer_comparison import Cause, Difference, cosine, differences, similarity
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.stream_chunks import pack

CALL = Call("completion", {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]})


def chat(text="Paris.", *calls, reason="stop", more=None, **fields):
    """A chat's response; ``calls`` are pairs of a tool and its arguments."""
    message = {"role": "assistant", "content": text, **(more or {})}
    if calls:
        message["tool_calls"] = [
            {
                "id": f"call_{object()}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(given)},
            }
            for name, given in calls
        ]
    choice = {"finish_reason": reason, "index": 0, "message": message}
    return Answer(Kind.RESPONSE, {"id": str(object()), "created": 1, "choices": [choice], **fields})


def chunks(*texts, reason="stop", **more):
    """A chat's stream."""
    parts = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    return Answer(
        Kind.STREAM, pack([*parts, {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}]), **more
    )


def failed(name, status=None):
    """An error that LiteLLM raised."""
    return Answer(
        Kind.ERROR, {"class": f"litellm.exceptions.{name}", "message": str(object()), "status_code": status}
    )


def found(one, other, *args, call=CALL):
    return [tuple(each) for each in differences(call, one, other, *args)]


def test_same_but_for_ids():
    """Ids, times, usage and other names of the model make no difference."""
    assert (
        found(
            chat(usage={"total_tokens": 3}),
            chat(usage={"total_tokens": 4}, model="other", system_fingerprint="x"),
        )
        == []
    )


def test_text():
    """Texts have to be equal; the difference holds both."""
    assert found(chat("Paris."), chat("It is Paris.")) == [(Cause.TEXT, "", "Paris.", "It is Paris.")]


def test_streams_are_joined():
    """The same text in other chunks is no difference, also beside a whole answer."""
    assert found(chunks("Par", "is."), chunks("P", "ari", "s.")) == []
    assert found(chunks("Par", "is."), chat()) == []
    assert found(chunks("Par", "is."), chunks("Rome.")) == [(Cause.TEXT, "", "Paris.", "Rome.")]


def test_stream_that_was_left():
    """Of a stream that the test left early, only what it read is compared."""
    left = chunks("Par", reason=None, complete=False)
    assert found(left, chunks("P", "aris")) == []
    assert found(left, chunks("Rome")) == [(Cause.TEXT, "", "Par", "Rom")]


def test_finish_reason():
    """A text that was cut off at the token limit is named as such."""
    assert found(chat(), chat(reason="length")) == [(Cause.FINISH_REASON, "", "stop", "length")]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"city": "Paris", "days": 3}, {"days": 3, "city": "Paris"}, []),
        ({"city": "Paris"}, {"city": "Rome"}, [("weather.city", "Paris", "Rome")]),
        ({"days": 3}, {"days": "3"}, [("weather.days", "number", "string")]),
        ({"days": 3}, {}, [("weather.days", "number", "missing")]),
        ({"at": [1, 2]}, {"at": [1, 2, 3]}, [("weather.at[]", "2 items", "3 items")]),
        ({"at": [{"x": 1.0}]}, {"at": [{"x": 2}]}, [("weather.at[0].x", "1.0", "2")]),
        ({"x": 1.0}, {"x": 1}, []),
        ({"x": True}, {"x": 1}, [("weather.x", "boolean", "number")]),
    ],
)
def test_arguments_of_tools_are_data(before, after, expected):
    """The arguments of a tool are compared as data; the path names the tool and the argument."""
    got = found(chat(None, ("weather", before)), chat(None, ("weather", after)))
    assert got == [(Cause.TOOL_CALLS, *each) for each in expected]


def test_tools_in_parallel_have_no_order():
    """The same calls in another order are the same; another tool is a difference."""
    calls = ("weather", {"city": "Rome"}), ("time", {})
    assert found(chat(None, *calls), chat(None, *reversed(calls))) == []
    assert found(chat(None, *calls), chat(None, calls[0])) == [
        (Cause.TOOL_CALLS, "", "time, weather", "weather")
    ]
    assert found(chat(None, calls[0], reason="tool_calls"), chat("Sunny.")) == [
        (Cause.FINISH_REASON, "", "tool_calls", "stop"),
        (Cause.TOOL_CALLS, "", "weather", "none"),
        (Cause.TEXT, "", "", "Sunny."),
    ]


def test_json_texts_are_data():
    """A text that is JSON is compared as data: what it has is structure, its values are text."""
    before = chat('{"city": "Paris", "size": 2, "near": []}')
    assert found(before, chat('{"size":2,"near":[],"city":"Paris"}')) == []
    assert found(before, chat('{"city": "Rome", "size": "2"}')) == [
        (Cause.TEXT, "text.city", "Paris", "Rome"),
        (Cause.STRUCTURE, "text.size", "number", "string"),
        (Cause.STRUCTURE, "text.near", "array", "missing"),
    ]
    assert found(before, chat("Paris")) == [
        (Cause.TEXT, "", '{"city": "Paris", "size": 2, "near": []}', "Paris")
    ]


def test_texts_by_a_rule():
    """A rule decides on texts, not on the structure of JSON, and not on a text that is missing."""
    lenient = lambda one, other: True  # noqa: E731
    assert found(chat("Paris"), chat("Rome"), lenient) == []
    assert found(chat('{"a": 1}'), chat('{"a": 2}'), lenient) == []
    assert found(chat('{"a": 1}'), chat('{"b": 1}'), lenient) == [
        (Cause.STRUCTURE, "text.a", "number", "missing"),
        (Cause.STRUCTURE, "text.b", "missing", "number"),
    ]
    assert found(chat("Paris"), chat(""), lenient) == [(Cause.TEXT, "", "Paris", "")]
    assert found(chat("a"), chat("b"), lambda one, other: (one, other) != ("a", "b")) == [
        (Cause.TEXT, "", "a", "b")
    ]


def test_structure():
    """Data that is new, gone or of another type is named once, by its path; null and empty count as missing."""
    cited = [{"type": "url_citation", "url_citation": {"url": "https://a.example", "start": 1}}]
    one = chat(more={"annotations": [], "vendor": {"queue": 1, "nothing": None}})
    other = chat(more={"annotations": cited, "vendor": {"queue": "1"}})
    assert found(one, other) == [
        (Cause.STRUCTURE, "choices[].message.vendor.queue", "number", "string"),
        (Cause.STRUCTURE, "choices[].message.annotations", "missing", "array"),
    ]
    assert found(chat(), chat(more={"reasoning_content": "Hm."})) == [
        (Cause.STRUCTURE, "reasoning", "missing", "there")
    ]
    assert found(chat(more={"reasoning_content": "Ah."}), chat(more={"reasoning_content": "Hm."})) == []


def test_number_of_choices():
    """Fewer choices than recorded are a difference; with several, the path names the choice."""
    one, other = (chat().data["choices"][0] for _ in range(2))
    both = Answer(Kind.RESPONSE, {"choices": [one, other]})
    assert found(both, chat()) == [(Cause.STRUCTURE, "number of answers", "2", "1")]
    changed = Answer(Kind.RESPONSE, {"choices": [one, chat("Rome.").data["choices"][0]]})
    assert found(both, changed) == [(Cause.TEXT, "choices[1]", "Paris.", "Rome.")]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (failed("NotFoundError", 404), failed("NotFoundError", 404), []),
        (
            failed("NotFoundError", 404),
            failed("BadRequestError", 400),
            [("NotFoundError (404)", "BadRequestError (400)")],
        ),
        (failed("NotFoundError", 404), chat(), [("NotFoundError (404)", "an answer")]),
        (chat(), failed("Timeout"), [("an answer", "Timeout")]),
        (
            chunks("Par", error={"class": "x.APIError", "status_code": 500}),
            chunks("Paris"),
            [("APIError (500)", "an answer")],
        ),
    ],
)
def test_errors(one, other, expected):
    """Errors are compared by class and status; an error in the place of an answer, and the reverse, is a difference."""
    assert found(one, other) == [(Cause.ERROR, "", *each) for each in expected]


def test_vectors():
    """Vectors are compared by their cosine, in base64 too."""
    call = Call("embedding", {"model": "openai/e", "input": ["a"]})

    def answer(*vectors):
        return Answer(Kind.RESPONSE, {"data": [{"embedding": vector, "index": 0} for vector in vectors]})

    packed = base64.b64encode(struct.pack("<2f", 1.0, 0.0)).decode()
    assert found(answer([1.0, 0.0]), answer([1.0, 0.001]), call=call) == []
    assert found(answer([1.0, 0.0]), answer(packed), call=call) == []
    assert found(answer([1.0, 0.0]), answer([1.0, 1.0]), call=call) == [
        (Cause.VECTORS, "", "cosine 1", "cosine 0.7071")
    ]
    assert found(answer([1.0, 0.0]), answer([1.0]), call=call) == [
        (Cause.STRUCTURE, "length of vectors", "2", "1")
    ]
    assert found(answer([1.0], [2.0]), answer([1.0]), call=call) == [
        (Cause.STRUCTURE, "number of vectors", "2", "1")
    ]


def test_similarity():
    """The similarity is the share of words that two texts have in common, and quick for long ones."""
    assert similarity("The capital is Paris.", "The capital is Paris.") == 1
    assert similarity("The capital is Paris.", "The capital is Rome.") == pytest.approx(0.8)
    assert similarity("Paris", "Rome") == 0
    assert similarity("word " * 3000, "word " * 2999 + "end") > 0.9


def test_cosine():
    """Vectors of other lengths have nothing in common."""
    assert cosine([1, 2], [2, 4]) == pytest.approx(1)
    assert cosine([1, 2], [1]) == cosine([0, 0], [1, 1]) == 0


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        (
            "responses",
            {
                "status": "completed",
                "output": [{"type": "message", "content": [{"type": "output_text", "text": "{}"}]}],
            },
            {
                "status": "completed",
                "output": [{"type": "message", "content": [{"type": "output_text", "text": "{}!"}]}],
            },
        ),
        (
            "anthropic_messages",
            {"stop_reason": "end_turn", "content": [{"type": "text", "text": "{}"}]},
            {"stop_reason": "end_turn", "content": [{"type": "text", "text": "{}!"}]},
        ),
        (
            "dspy",
            {
                "finish_reason": "stop",
                "message": {"role": "assistant", "parts": [{"type": "text", "text": "{}"}]},
            },
            {
                "finish_reason": "stop",
                "message": {"role": "assistant", "parts": [{"type": "text", "text": "{}!"}]},
            },
        ),
    ],
)
def test_other_entry_points(name, one, other):
    """Answers of responses(), of Anthropic's messages and of DSPy's own engine are compared in the same way."""
    call = Call(name, {"model": "m"})
    pair = [Answer(Kind.RESPONSE, data) for data in (one, other)]
    assert found(pair[0], pair[0], call=call) == []
    assert found(*pair, call=call) == [Difference(Cause.TEXT, "", "{}", "{}!")]
