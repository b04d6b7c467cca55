"""Chunks that are like the one before but for their piece of text: taken together, as if each were taken alone."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_document import exactly

from pytest_lmcache import answers, document, interaction, redact, values
from pytest_lmcache.cassette import entry_of
from pytest_lmcache.interaction import Answer, Call, Interaction, Kind, framed, saying

KEY = "sk-proj-" + "a1B2c3D4" * 5
PIECES = ["", "Hi", " there", KEY, KEY[:9], KEY[9:], '", "content": "', "\ud800", "\u2028", "one\ntwo"]
FLAGS = [None, 0, False, 0.0, -0.0, 1, True, "", "stop", [], {}, ["x"], {"content": "Hi"}]

deltas = st.fixed_dictionaries(
    {"content": st.sampled_from([*PIECES, None, 1])},
    optional={"role": st.sampled_from(["assistant", None]), "refusal": st.sampled_from(FLAGS)},
)
choices = st.fixed_dictionaries(
    {"index": st.sampled_from([0, 1, False]), "delta": deltas},
    optional={"finish_reason": st.sampled_from(FLAGS), "logprobs": st.sampled_from(FLAGS)},
)
chunks = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from(["c1", "c2"]), "choices": st.lists(choices, min_size=1, max_size=2)},
        optional={"usage": st.sampled_from(FLAGS), "content": st.sampled_from(PIECES)},
    ),
    min_size=1,
    max_size=8,
)
many = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def chunk(text: str, **more: Any) -> dict[str, Any]:
    return {"id": "c1", "created": 1, "choices": [{"index": 0, "delta": {"content": text}, **more}]}


@many
@given(chunks)
@example([chunk("a", finish_reason=0), chunk("b", finish_reason=False), chunk("c", finish_reason=-0.0)])
def test_a_layer_gives_each_chunk_back(given_chunks: list[Any]) -> None:
    """To the bit, and each its own."""
    kept = values.store(Answer(Kind.STREAM, deepcopy(given_chunks)), "2026-11-25T09:00:00Z")
    revived, _ = values.revive(kept)
    assert exactly(revived.data) == exactly(given_chunks)
    revived.data[0]["choices"].clear()
    assert exactly(revived.data[1:]) == exactly(given_chunks[1:])


@many
@given(chunks)
@example([chunk("a", finish_reason=0), chunk("b", finish_reason=False), chunk("c", finish_reason=-0.0)])
def test_a_file_says_the_same_of_each_chunk(given_chunks: list[Any]) -> None:
    """Whatever else of a chunk says the same as its piece of text."""
    asked = Interaction(
        "k1", Call("completion", {}), Answer(Kind.STREAM, given_chunks), "2026-11-25T09:00:00Z"
    )
    text = entry_of(asked, Path("x.yaml")).text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "framed", lambda _: (None, ""))
        assert text == entry_of(asked, Path("x.yaml")).text


@many
@given(chunks)
def test_secrets_go_as_if_each_chunk_were_alone(given_chunks: list[Any]) -> None:
    """Also those in pieces."""
    clean = redact.Redactor(environ={}).stream(deepcopy(given_chunks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redact, "framed", lambda _: (None, ""))
        assert exactly(clean) == exactly(redact.Redactor(environ={}).stream(deepcopy(given_chunks)))


pieces = st.lists(
    st.tuples(
        st.sampled_from(PIECES[:7]), st.sampled_from([{}, {"finish_reason": "stop"}, {"logprobs": None}])
    ),
    min_size=1,
    max_size=8,
)


@many
@given(pieces)
def test_litellm_s_objects_are_as_if_each_were_made_alone(said: list[tuple[str, Any]]) -> None:
    """Read from a recording, and stored again from the objects."""
    stored = [chunk(text, **more) for text, more in said]
    alone = [answers.revive_chunk("completion", deepcopy(each)) for each in stored]
    revive = answers.chunk_reviver("completion")
    together = [revive(deepcopy(each)) for each in stored]
    assert [each.model_dump() for each in together] == [each.model_dump() for each in alone]
    assert [each.model_fields_set for each in together] == [each.model_fields_set for each in alone]
    store = answers.chunk_storer("completion")
    assert exactly([store(each) for each in together]) == exactly(
        [answers.store_chunk("completion", each) for each in alone]
    )


def test_a_chunk_that_its_reader_changes_changes_no_other() -> None:
    """Each object is its reader's own, down to what LiteLLM hides in it."""
    revive = answers.chunk_reviver("completion")
    one, other, last = [revive(chunk(text)) for text in "abc"]
    one.choices[0].delta.content = other.choices[0].delta.content = "changed"
    other._hidden_params["mine"] = True
    other.choices[0].finish_reason = "mine"
    assert last.model_dump() == answers.revive_chunk("completion", chunk("c")).model_dump()
    assert last._hidden_params == {}


def test_a_layer_keeps_the_text_alone() -> None:
    """What is said again takes no place."""
    kept = values.store(Answer(Kind.STREAM, [chunk("a"), chunk("b"), chunk("\ud800"), chunk("c")]), "now")
    assert [type(item) for item in kept["data"]] == [dict, str, dict, str]


def test_a_frame_is_of_what_is_equal_to_itself_alone() -> None:
    """1, True and 1.0 are equal to Python, and not the same in a file."""
    assert framed(chunk("a"))[0] == framed(chunk("b"))[0]
    for flag in (True, 0.0, [], {}):
        assert framed(chunk("a", x=flag)) == (None, "")
    assert saying(chunk("a"), "b") == chunk("b")
    assert interaction.framed(b"data: {}") == (None, "")
