"""Chunks that are like another but for their piece of text: taken together, as if each were taken alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_yaml_text import exactly

from pytest_lmcache import redact
from pytest_lmcache.cassette.document import entry_of
from pytest_lmcache.interaction import Again, Answer, Call, Interaction, Kind, copied, framed
from pytest_lmcache.layers import values
from pytest_lmcache.libraries.litellm import chunks

KEY = "sk-proj-" + "a1B2c3D4" * 5
PIECES = ["", "Hi", " there", KEY, KEY[:9], KEY[9:], '", "content": "', "\u2028", "one\ntwo"]
FLAGS = [None, 0, 1, "", "stop", KEY, KEY[9:]]
ODD = [False, 0.0, -0.0, True, [], {}, ["x"], {"content": "Hi"}]
WHEN = "2026-11-25T09:00:00Z"

texts = st.sampled_from([*PIECES, "\ud800"])
deltas = st.fixed_dictionaries(
    {"content": texts},
    optional={"role": st.sampled_from(["assistant", None]), "refusal": st.sampled_from(FLAGS)},
)
choices = st.fixed_dictionaries(
    {"index": st.sampled_from([0, 1]), "delta": deltas},
    optional={"finish_reason": st.sampled_from(FLAGS), "logprobs": st.sampled_from([*FLAGS, *ODD])},
)
chunk_shapes = st.fixed_dictionaries(
    {"id": st.sampled_from(["c1", "c2"]), "choices": st.lists(choices, min_size=1, max_size=2)},
    optional={"usage": st.sampled_from([*FLAGS, *ODD]), "content": st.sampled_from(PIECES)},
)
runs = st.lists(st.tuples(chunk_shapes, st.lists(texts, max_size=4)), min_size=1, max_size=4)
many = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def chunk(text: str, **more: Any) -> dict[str, Any]:
    return {"id": "c1", "created": 1, "choices": [{"index": 0, "delta": {"content": text}, **more}]}


def stream(given_runs: list[tuple[dict[str, Any], list[str]]]) -> list[Any]:
    """Chunks, each followed by those that are like it."""
    return [
        each
        for first, said in given_runs
        for each in (first, *(Again(first, text) for text in said if framed(first)[0] is not None))
    ]


@many
@given(runs)
@example([(chunk("a"), ["\ud800", "b"])])
def test_a_layer_gives_each_chunk_back(given_runs: list[Any]) -> None:
    """To the bit, and each its own."""
    data = stream(given_runs)
    revived, _ = values.revive(values.store(Answer(Kind.STREAM, data), WHEN))
    assert exactly(revived.data) == exactly(data)
    revived.data[0]["choices"].clear()
    assert exactly(revived.data[1:]) == exactly(data[1:])


@many
@given(runs)
def test_a_file_says_the_same_of_each_chunk(given_runs: list[Any]) -> None:
    """Whatever else of a chunk says the same as its piece of text."""
    data = stream(given_runs)

    def text_of(chunks: list[Any]) -> bytes:
        asked = Interaction("k1", Call("completion", {}), Answer(Kind.STREAM, chunks), WHEN)
        return entry_of(asked, Path("x.yaml")).text

    assert text_of(data) == text_of(copied(data))


@many
@given(runs)
@example([(chunk("a", role=KEY), ["b"])])
@example([(chunk("a"), ["b", KEY, "c", "d"])])
@example([(chunk(KEY[:9]), [KEY[9:], "c"]), (chunk("a", finish_reason="stop"), ["b"])])
def test_secrets_go_as_if_each_chunk_were_alone(given_runs: list[Any]) -> None:
    """Also those in pieces; and what is left is written as it would be alone."""
    data = stream(given_runs)
    clean = redact.Redactor(environ={}).stream(data)
    alone = redact.Redactor(environ={}).stream(copied(data))
    assert exactly(clean) == exactly(alone)
    revived, _ = values.revive(values.store(Answer(Kind.STREAM, clean), WHEN))
    assert exactly(revived.data) == exactly(alone)
    asked = [
        Interaction("k1", Call("completion", {}), Answer(Kind.STREAM, each), WHEN) for each in (clean, alone)
    ]
    assert entry_of(asked[0], Path("x.yaml")).text == entry_of(asked[1], Path("x.yaml")).text


pieces = st.lists(
    st.tuples(st.sampled_from(PIECES), st.sampled_from([{}, {"finish_reason": "stop"}, {"logprobs": None}])),
    min_size=1,
    max_size=8,
)


@many
@given(pieces)
def test_litellm_s_objects_are_as_if_each_were_made_alone(said: list[tuple[str, Any]]) -> None:
    """Read from a recording, and stored again from the objects."""
    stored = [chunk(text, **more) for text, more in said]
    alone = [chunks.chunk_from_plain("completion", copied(each)) for each in stored]
    revive = chunks.chunk_reviver("completion")
    together = [revive(copied(each)) for each in stored]
    assert [each.model_dump() for each in together] == [each.model_dump() for each in alone]
    assert [each.model_fields_set for each in together] == [each.model_fields_set for each in alone]
    store = chunks.chunk_storer("completion")
    assert exactly([store(each) for each in together]) == exactly(
        [chunks.chunk_to_plain("completion", each) for each in alone]
    )


def test_a_chunk_that_its_reader_changes_changes_no_other() -> None:
    """Each object is its reader's own, down to what LiteLLM hides in it."""
    revive = chunks.chunk_reviver("completion")
    one, other, last = [revive(chunk(text)) for text in "abc"]
    one.choices[0].delta.content = other.choices[0].delta.content = "changed"
    other._hidden_params["mine"] = True
    other.choices[0].finish_reason = one.system_fingerprint = "mine"
    alone = chunks.chunk_from_plain("completion", chunk("c"))
    assert revive(chunk("d")).model_fields_set == alone.model_fields_set
    assert last.model_dump(exclude_unset=True) == alone.model_dump(exclude_unset=True)
    assert last._hidden_params == {}


def test_a_chunk_that_its_reader_has_changed_is_like_no_other() -> None:
    """What a program writes into a chunk is not stored of the next."""
    store = chunks.chunk_storer("completion")
    first, second = (chunks.chunk_from_plain("completion", chunk(text)) for text in "ab")
    store(first)
    first.choices[0].finish_reason = second.choices[0].finish_reason = "stop"
    assert store(second)["choices"][0]["finish_reason"] == "stop"
    third = chunks.chunk_from_plain("completion", chunk("c", finish_reason="stop"))
    second.system_fingerprint = third.system_fingerprint = None
    assert "system_fingerprint" in store(third)


def test_like_another_is_found_where_a_stream_is_recorded() -> None:
    """And a layer keeps of such a chunk the text alone."""
    store = chunks.chunk_storer("completion")
    stored = [store(chunks.chunk_from_plain("completion", chunk(text))) for text in ("a", "b", "\ud800", "c")]
    assert [type(each) for each in stored] == [dict, Again, Again, Again]
    kept = values.store(Answer(Kind.STREAM, stored), WHEN)
    assert [type(item) for item in kept["data"]] == [dict, str, dict, dict]


@pytest.mark.parametrize("flag", ODD)
def test_a_frame_is_of_what_is_equal_to_itself_alone(flag: Any) -> None:
    """1, True and 1.0 are equal to Python, and not the same in a file."""
    assert framed(chunk("a", x=1))[0] == framed(chunk("b", x=1))[0] is not None
    assert framed(chunk("a", x=flag)) == (None, "")
