"""Streams as they are stored: chunks that repeat another one are texts, and mean the same as if each were whole."""

from pathlib import Path

import pytest
from helpers import exactly
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pytest_lmcache import redact
from pytest_lmcache.cassette.document import entry_of
from pytest_lmcache.interaction import Answer, Call, Interaction, Kind, copied
from pytest_lmcache.layers import values
from pytest_lmcache.libraries.litellm.entry_points import CHAT_STREAM
from pytest_lmcache.stream_chunks import is_stored, pack, text_path, whole, with_text

CHAT_CHUNKS = CHAT_STREAM.chunks

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
chunks = st.fixed_dictionaries(
    {"id": st.sampled_from(["c1", "c2"]), "choices": st.lists(choices, min_size=1, max_size=2)},
    optional={"usage": st.sampled_from([*FLAGS, *ODD]), "content": st.sampled_from(PIECES)},
)
runs = st.lists(st.tuples(chunks, st.lists(texts, max_size=4)), min_size=1, max_size=4)
many = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def chunk(text, **more):
    return {"id": "c1", "created": 1, "choices": [{"index": 0, "delta": {"content": text}, **more}]}


def stream(given_runs):
    """Chunks, each followed by those that repeat it."""
    return [each for first, texts in given_runs for each in (first, *(texts if text_path(first) else ()))]


@pytest.mark.slow
@many
@given(runs)
@example([(chunk("a"), ["\ud800", "b"])])
def test_a_layer_gives_each_chunk_back(given_runs):
    """To the bit, and each its own."""
    data = stream(given_runs)
    revived, _ = values.revive(values.store(Answer(Kind.STREAM, data), WHEN))
    assert exactly(revived.data) == exactly(data)
    revived.data[0]["choices"].clear()
    assert exactly(revived.data[1:]) == exactly(data[1:])


@pytest.mark.slow
@many
@given(runs)
def test_a_file_gives_each_chunk_back(given_runs):
    """To the bit, whatever else of a chunk says the same as its piece of text."""
    data = stream(given_runs)
    asked = Interaction("k1", Call("completion", {}), Answer(Kind.STREAM, data), WHEN)
    read = entry_of(asked, Path("x.yaml")).answer()
    assert [*whole(read.data)] == [*whole(data)]


@pytest.mark.slow
@many
@given(runs)
@example([(chunk("a", role=KEY), ["b"])])
@example([(chunk("a"), ["b", KEY, "c", "d"])])
@example([(chunk(KEY[:9]), [KEY[9:], "c"]), (chunk("a", finish_reason="stop"), ["b"])])
def test_secrets_go_as_if_each_chunk_were_alone(given_runs):
    """Also those in pieces; and what is left is written as it would be alone."""
    data = stream(given_runs)
    clean = redact.Redactor(environ={}).stream(data)
    alone = redact.Redactor(environ={}).stream([*whole(copied(data))])
    assert exactly([*whole(clean)]) == exactly([*whole(alone)])
    revived, _ = values.revive(values.store(Answer(Kind.STREAM, clean), WHEN))
    assert exactly([*whole(revived.data)]) == exactly([*whole(alone)])


pieces = st.lists(
    st.tuples(st.sampled_from(PIECES), st.sampled_from([{}, {"finish_reason": "stop"}, {"logprobs": None}])),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@many
@given(pieces)
def test_litellm_s_objects_are_as_if_each_were_made_alone(said):
    """Read from a recording, and stored again from the objects."""
    stored = [chunk(text, **more) for text, more in said]
    alone = [CHAT_CHUNKS.from_plain(copied(each)) for each in stored]
    revive = CHAT_CHUNKS.unpacker()
    together = [revive(each) for each in pack(copied(stored))]
    assert [each.model_dump() for each in together] == [each.model_dump() for each in alone]
    assert [each.model_fields_set for each in together] == [each.model_fields_set for each in alone]
    store = CHAT_CHUNKS.packer()
    assert exactly([store(each) for each in together]) == exactly(
        pack(CHAT_CHUNKS.to_plain(each) for each in alone)
    )


def test_a_chunk_that_its_reader_changes_changes_no_other():
    """Each object is its reader's own, down to what LiteLLM hides in it."""
    revive = CHAT_CHUNKS.unpacker()
    one, other, last = [revive(each) for each in (chunk("a"), "b", "c")]
    one.choices[0].delta.content = other.choices[0].delta.content = "changed"
    other._hidden_params["mine"] = True
    other.choices[0].finish_reason = one.system_fingerprint = "mine"
    alone = CHAT_CHUNKS.from_plain(chunk("c"))
    assert revive(chunk("d")).model_fields_set == alone.model_fields_set
    assert last.model_dump(exclude_unset=True) == alone.model_dump(exclude_unset=True)
    assert last._hidden_params == {}


def test_a_chunk_that_its_reader_has_changed_is_like_no_other():
    """What a program writes into a chunk is not stored of the next."""
    store = CHAT_CHUNKS.packer()
    first, second = (CHAT_CHUNKS.from_plain(chunk(text)) for text in "ab")
    store(first)
    first.choices[0].finish_reason = second.choices[0].finish_reason = "stop"
    assert store(second)["choices"][0]["finish_reason"] == "stop"
    third = CHAT_CHUNKS.from_plain(chunk("c", finish_reason="stop"))
    second.system_fingerprint = third.system_fingerprint = None
    assert "system_fingerprint" in store(third)


def test_what_repeats_a_chunk_is_found_while_a_stream_is_recorded():
    """And a layer keeps only its text."""
    store = CHAT_CHUNKS.packer()
    stored = [store(CHAT_CHUNKS.from_plain(chunk(text))) for text in ("a", "b", "\ud800", "c")]
    assert stored[1:] == ["b", "\ud800", "c"]
    kept = values.store(Answer(Kind.STREAM, stored), WHEN)
    assert [type(item) for item in kept["data"]] == [dict, str, dict, str]


@pytest.mark.slow
@many
@given(st.lists(chunks, max_size=6))
@example([{"delta": {"content": "a", "text": None}}, {"delta": {"content": None, "text": "b"}}])
@example([{"delta": {"text": "a"}}, {"delta": [{"text": "b"}]}])
@example([{"delta": {"x": 1, "text": "a"}}, {"delta": {"text": "a"}, "x": 1}])
@example(
    [{"text": ""}, {"text": "", "content": ""}, {"content": "", "text": "a"}, {"content": "", "text": ""}]
)
def test_any_stream_comes_back_whole(given_chunks):
    """Packing loses nothing, whatever the chunks are; each stays in its place."""
    stored = pack(copied(given_chunks))
    assert is_stored(stored)
    assert len(stored) == len(given_chunks)
    assert exactly([*whole(stored)]) == exactly(given_chunks)


def tool_call(arguments):
    function = {"arguments": arguments, "name": None}
    return {
        "choices": [
            {"index": 0, "delta": {"content": None, "tool_calls": [{"index": 0, "function": function}]}}
        ]
    }


@pytest.mark.parametrize(
    ("first", "path"),
    [
        (chunk("a"), ("choices", "delta", "content")),
        ({"choices": [{"text": "a", "index": 0}], "id": "c1"}, ("choices", "text")),
        ({"type": "delta", "delta": {"type": "text", "text": "a"}}, ("delta", "text")),
        (tool_call("a"), ("choices", "delta", "tool_calls", "function", "arguments")),
        ({"choices": [{"delta": {"reasoning_content": "a"}}]}, ("choices", "delta", "reasoning_content")),
        (
            {"choices": [{"delta": {"content": "", "reasoning_content": "a"}}]},
            ("choices", "delta", "reasoning_content"),
        ),
        ({"text": "a"}, ("text",)),
    ],
)
def test_a_piece_of_text_is_found_in_the_chunks_of_each_api(first, path):
    """Chats, their tool calls and their reasoning, text completions, and DSPy's own engine."""
    assert text_path(first) == path
    assert pack([first, with_text(first, path, "b"), with_text(first, path, "c")]) == [first, "b", "c"]


@pytest.mark.parametrize(
    "data", [["a"], [{}, "a"], [chunk("a"), None], [chunk("a"), {}, "b"], {}, None, "ab"]
)
def test_what_is_no_stored_stream_is_known(data):
    """A text needs a chunk to repeat."""
    assert not is_stored(data)
    if isinstance(data, list) and None not in data:
        with pytest.raises(ValueError, match="not enough values"):
            list(whole(data))


@pytest.mark.parametrize("flag", ODD)
def test_only_what_is_the_same_in_a_file_repeats_a_chunk(flag):
    """1, True and 1.0 are equal to Python, and not the same in a file."""
    assert pack([chunk("a", x=1), chunk("b", x=1)]) == [chunk("a", x=1), "b"]
    for one, other in ((flag, flag), (flag, 1), (1, flag)):
        assert pack([chunk("a", x=one), chunk("b", x=other)]) == [chunk("a", x=one), chunk("b", x=other)]
