"""An answer becomes JSON data and comes back exactly; anything else is refused with what to do about it."""

import json
import math
import time
from pathlib import Path

import pytest
from freezegun import freeze_time
from helpers import exactly, floats, quick, texts, values
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.errors import CacheError, LMCacheError
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.keys.strategies import strategy
from pytest_lmcache.layers.values import asked_by, revive, store

RECORDED = "2026-11-23T09:12:44Z"
PAIR = "\ud83d" + "\ude00"
CHAT = {
    "id": "chatcmpl-9x",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Messi, or Pelé.", "tool_calls": None}}],
    "usage": {"prompt_tokens": 23, "completion_tokens": 5},
}  # fmt: skip
mappings = st.dictionaries(texts, values, max_size=3)
kinds_and_data = st.tuples(st.just(Kind.STREAM), st.lists(mappings, max_size=4)) | st.tuples(
    st.sampled_from([Kind.RESPONSE, Kind.ERROR]), values
)
answers = st.builds(
    lambda given, **more: Answer(*given, **more),
    kinds_and_data,
    error=st.none() | mappings,
    complete=st.booleans(),
    hidden=st.none() | mappings,
    seconds=floats,
    usd=st.none() | floats,
)


def fields(answer):
    """An answer's fields with types, order and bits."""
    return exactly(
        [
            str(answer.kind),
            answer.data,
            answer.error,
            answer.complete,
            answer.hidden,
            answer.seconds,
            answer.usd,
        ]
    )


def through_json(value):
    return json.loads(json.dumps(value))


@pytest.mark.slow
@quick
@given(answers)
@example(Answer(Kind.RESPONSE, {"a": PAIR, PAIR: {"b": "\ud800", "\udc80": 1}}))
@example(Answer(Kind.RESPONSE, {"$bytes": "AA==", "$dict": [], "": {"$text": 1}}))
@example(Answer(Kind.RESPONSE, {"$dict": [[{"$int": "0x1"}, {"$f32": ""}]]}))
@example(Answer(Kind.RESPONSE, [{1: 1.5, None: b"\x00", False: -0.0, 2.5: {}}, b"", -(10**700)]))
@example(Answer(Kind.ERROR, {"vector": [0.1] * 16, "halves": [0.5] * 16, "nan": [math.nan] * 16}))
def test_round_trip(answer):
    """An answer comes out of a layer to the bit as it went in, and when it was recorded too."""
    goes_round(answer)


def test_a_number_too_long_to_be_printed():
    """Python refuses decimal numbers of more than 4,300 digits."""
    goes_round(Answer(Kind.RESPONSE, {"number": 10**5000}))


def goes_round(answer):
    """It comes back as it was."""
    value = store(answer, RECORDED)
    assert through_json(value) == value
    for kept in (value, through_json(value)):
        revived, when = revive(kept)
        assert fields(revived) == fields(answer)
        assert type(revived.kind) is Kind
        assert when == RECORDED


def test_form():
    """A value says its form, when it was recorded and put away, by both clocks if a test moved one; chat stays legible."""
    began = time.time()
    value = store(Answer(Kind.RESPONSE, CHAT, seconds=1.5), RECORDED)
    with freeze_time("2026-11-25T00:00:00Z"):
        moved = store(Answer(Kind.RESPONSE, CHAT, seconds=1.5), RECORDED)
    assert began <= value["stored"] <= moved["real"] <= time.time()
    assert moved == value | {"stored": 1795564800.0, "real": moved["real"]}
    assert value == {
        "lmcache": 1,
        "recorded": RECORDED,
        "stored": value["stored"],
        "kind": "response",
        "data": CHAT,
        "seconds": 1.5,
    }


def test_vectors_are_packed():
    """An embedding takes the room of its bytes, half of it where that is exact."""
    assert store(Answer(Kind.RESPONSE, [0.5] * 300), "")["data"].keys() == {"$f32"}
    assert store(Answer(Kind.RESPONSE, [0.1] * 300), "")["data"].keys() == {"$f64"}
    assert len(json.dumps(store(Answer(Kind.RESPONSE, [0.1] * 1500), ""))) < 1500 * 11


def test_shares_nothing():
    """Who changes a revived answer, or the one that was stored, changes no value."""
    data = {"list": [{"deep": [1]}], 1: [2]}
    value = store(Answer(Kind.RESPONSE, data, hidden={"a": [1]}, error={"b": [1]}), RECORDED)
    data["list"][0]["deep"].append(2)
    data[1].append(3)
    for _ in range(2):
        answer, _ = revive(value)
        assert answer == Answer(
            Kind.RESPONSE, {"list": [{"deep": [1]}], 1: [2]}, hidden={"a": [1]}, error={"b": [1]}
        )
        answer.data["list"][0]["deep"].append(2)
        answer.data[1].append(3)
        answer.hidden["a"].append(2)
        answer.error["b"].append(2)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda value: None, id="nothing"),
        pytest.param(lambda value: [value], id="a-list"),
        pytest.param(lambda value: "text", id="text"),
        pytest.param(lambda value: {}, id="empty"),
        *[
            pytest.param(lambda value, name=name: {k: v for k, v in value.items() if k != name}, id=f"no-{name}")
            for name in ("lmcache", "recorded", "kind", "data", "seconds")
        ],
        *[
            pytest.param(lambda value, part=part: value | part, id=str(part)[:40])
            for part in (
                {"lmcache": True},
                {"lmcache": "1"},
                {"lmcache": 0},
                {"kind": "reply"},
                {"kind": []},
                {"data": {"$new": 1}},
                {"data": {"$bytes": "no base64"}},
                {"data": {"$bytes": 1}},
                {"data": {"$text": "/w=="}},
                {"data": {"$int": "zz"}},
                {"data": {"$nan": "00"}},
                {"data": {"$f32": "AAA="}},
                {"data": {"$dict": [1]}},
                {"data": {"$dict": [[[], 1]]}},
            )
        ],
    ],
)  # fmt: skip
def test_not_a_value(damage):
    """What is no value of ours is told as such, with what a cache has to give back."""
    with pytest.raises(
        CacheError, match=r"not a value of the cache .*unchanged; pytest_lmcache.layers.values.store\(\)"
    ):
        revive(damage(store(Answer(Kind.RESPONSE, {}), RECORDED)))
    assert issubclass(CacheError, LMCacheError)


def test_too_deep():
    """Data nested beyond Python's depth is refused, not a crash, on either way."""
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CacheError, match="nested too deeply"):
        store(Answer(Kind.RESPONSE, deep), RECORDED)
    with pytest.raises(CacheError, match="not a value of the cache"):
        revive(store(Answer(Kind.RESPONSE, {}), RECORDED) | {"data": deep})


def test_newer():
    """A value of a later version says what to install."""
    with pytest.raises(CacheError, match=r"form 2; .* reads form 1\.\nInstall a newer one: pip install -U"):
        revive(store(Answer(Kind.RESPONSE, {}), RECORDED) | {"lmcache": 2})


@pytest.mark.parametrize(
    ("data", "said"),
    [({"a": [object()]}, "a part of it is of type object"), ({(1,): 2}, "a key of it is of type tuple")],
)
def test_not_plain_data(data, said):
    """What is no plain data is refused when it is stored, by its type."""
    with pytest.raises(CacheError, match=f"cannot store this answer: {said}"):
        store(Answer(Kind.RESPONSE, data), RECORDED)


GOLDEN = Path(__file__).parent / "golden"
CASSETTES = Path(__file__).parents[1] / "cassette" / "golden"


@pytest.mark.parametrize("name", ["calls", "values"])
def test_values_that_were_stored_before_stay_readable(name):
    """The answers of the golden cassettes, as a layer has kept them since there are layers; these files never change."""
    kept = json.loads((GOLDEN / f"{name}.json").read_text())
    entries = Cassette(CASSETTES / f"{name}.yaml", strategy("exact")).entries
    for value, entry in zip(kept, entries, strict=True):
        revived, recorded = revive(value)
        assert fields(revived.with_whole_chunks()) == fields(entry.answer().with_whole_chunks())
        assert recorded == entry.recorded()
        assert asked_by(value) == "tests/test_x.py::test_x"


@pytest.mark.parametrize("name", ["calls", "values"])
def test_values_are_stored_as_ever(name):
    """An older version of the plugin that shares a cache reads them too."""
    for value in json.loads((GOLDEN / f"{name}.json").read_text()):
        again = store(*revive(value), asked_by(value))
        assert again | {"stored": value["stored"]} == value
