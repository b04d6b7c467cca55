"""What a user relies on when a call missed: the nearest recording, and only what differs from it."""

import copy
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmcache.interaction import Call
from pytest_lmcache.nearest import ABSENT, Difference, explain, nearest

SYSTEM = "\n".join(
    f"{number}. Rule number {number} of this assistant says what to do." for number in range(1, 201)
)
REQUEST = {
    "model": "openai/gpt-4o-mini",
    "messages": [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "My parcel has not arrived. What now?"},
    ],
    "temperature": 0.2,
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "track",
                "parameters": {"type": "object", "properties": {"id": {"type": "string"}}},
            },
        }
    ],
}


def call(name="completion", **changes):
    return Call(name, {**copy.deepcopy(REQUEST), **changes})


def says(*turns):
    return [{"role": "user", "content": turn} for turn in turns]


def told(asked, *recorded):
    return explain(nearest(asked, recorded).differences)


def told_of(recorded, asked):
    return told(Call("completion", {"prompt": asked}), Call("completion", {"prompt": recorded}))


# ---- finding -------------------------------------------------------------------------------------------


def test_nothing_recorded_has_no_nearest():
    """An empty cassette is no special case for the caller."""
    assert nearest(call(), []) is None


def test_the_same_question_is_nearest_and_does_not_differ():
    """A recording whose text was edited and whose key was not is told from a changed prompt: no differences."""
    found = nearest(call(), iter([call(messages=says("?")), call(), call()]))
    assert (found.index, found.differences) == (1, ())
    assert explain(found.differences)[0].startswith(
        "Nothing differs but the key. If you edited the recording by hand, delete it"
    )


def test_the_nearest_is_the_one_with_the_fewest_changed_words():
    """Of many similar prompts the message shows the one that was edited."""
    recorded = [call(messages=says(f"Tell me about city {city} in {city} words.")) for city in range(300)]
    found = nearest(call(messages=says("Tell me about city 42 in 43 words.")), recorded)
    assert found.index == 42
    assert found.call is recorded[42]


def test_a_changed_model_is_nearer_than_another_prompt():
    """A call that only changed its model is compared with its own recording."""
    other = call(messages=says("Something else entirely"))
    found = nearest(call(model="openai/gpt-5"), [other, call(), other])
    assert found.index == 1
    assert found.differences == (Difference("model", "openai/gpt-4o-mini", "openai/gpt-5"),)
    assert 'key = "messages"' in explain(found.differences)[0]


def test_the_same_short_question_to_another_model_is_nearer_than_one_of_another_word():
    """Of a group of models the one that the run picked is what differs, not one of two words."""
    recorded = [call(model=model, messages=says(f"hello {number}")) for number, model in enumerate("aabba")]
    found = nearest(call(model="b", messages=says("hello 0")), recorded)
    assert [difference.path for difference in found.differences] == ["model"]


def test_the_same_entry_point_comes_first():
    """An embedding is compared with embeddings while there are any."""
    recorded = [Call("completion", {"input": ["x"]}), Call("embedding", {"input": ["y"]})]
    asked = Call("embedding", {"input": ["x"]})
    assert nearest(asked, recorded).index == 1
    assert told(asked, recorded[0]) == ['entry point: recorded "completion", asked "embedding"']


def test_what_the_first_look_does_not_read_still_counts():
    """Of long prompts with the same beginning and end, the one with the same middle is nearest."""
    edges = "word " * 1000
    recorded = [call(messages=says(f"{edges}{middle} {edges}")) for middle in ("one thing", "another matter")]
    assert nearest(call(messages=says(f"{edges}yet another matter {edges}")), recorded).index == 1


@pytest.mark.slow
def test_the_nearest_of_ten_thousand():
    """In a large cassette the recording that shares most words is found."""
    recorded = [
        call(messages=[REQUEST["messages"][0], *says(f"Question {n} of {n * 7}?")]) for n in range(10_000)
    ]
    found = nearest(call(messages=[REQUEST["messages"][0], *says("Question 7321 of 1?")]), recorded)
    assert found.index == 7321


# ---- telling -------------------------------------------------------------------------------------------


def test_one_changed_word_in_a_long_prompt_shows_that_line():
    """A system prompt of 200 lines with one edit is one line with the changed word, not two walls of text."""
    asked = call()
    asked.request["messages"][0]["content"] = SYSTEM.replace("number 100 of", "number 100 in")
    assert told(asked, call()) == [
        "messages[0].content, line 100:",
        "    100. Rule number 100 [-of-]{+in+} this assistant says what to do.",
    ]


def test_added_and_removed_lines_are_told_apart():
    """An inserted paragraph does not make the rest of the prompt look changed."""
    assert told_of("a\nb\nc\nd\ne\nf", "a\nb\nnew\n\nc\nd\ne") == [
        "prompt, line 3:",
        "  + new",
        r"  + \n",
        "  …",
        "  - f",
    ]


def test_a_long_line_is_cut_around_its_change():
    """The change is in view also in a one-line prompt of thousands of characters."""
    before, after = "left " * 300, "right " * 300
    heading, line = told_of(f"{before}cat {after}", f"{before}dog {after}")
    assert heading == "prompt:"
    assert line.startswith("    …")
    assert "left [-cat-]{+dog+} right" in line
    assert line.endswith("…")
    assert len(line) < 120


def test_short_values_stand_in_one_line():
    """A changed parameter is read at a glance."""
    lines = told(call(temperature=0.7, model="m"), call())
    assert lines == [
        'model: recorded "openai/gpt-4o-mini", asked "m"',
        "temperature: recorded 0.2, asked 0.7",
    ]


def test_paths_lead_into_tools_and_odd_names():
    """A difference deep in a JSON schema is named by its whole path."""
    asked = call()
    asked.request["tools"][0]["function"]["parameters"]["properties"]["parcel id"] = {"type": "integer"}
    assert told(asked, call()) == [
        'tools[0].function.parameters.properties["parcel id"]: only in the call: {"type": "integer"}'
    ]


def test_a_parameter_of_one_side_says_which():
    """What was added to the call and what was taken away are told apart."""
    assert told(call(seed=1), call(top_p=0.5)) == [
        "seed: only in the call: 1",
        "top_p: only in the recording: 0.5",
    ]


@pytest.mark.parametrize("turns", [1, 2, 5])
def test_inserted_messages_leave_the_others_paired(turns):
    """A longer history shows the new turns, not every later one as changed."""
    old = says("one", "two", "three", "four")
    new = [*old[:2], *says(*(f"new {turn}" for turn in range(turns))), *old[2:]]
    asked, recorded = call(messages=new), call(messages=old)
    lines = [
        f'messages[{2 + turn}]: only in the call: {{"role": "user", "content": "new {turn}"}}'
        for turn in range(turns)
    ]
    assert told(asked, recorded) == lines
    assert told(recorded, asked) == [line.replace("in the call", "in the recording") for line in lines]


def test_an_inserted_message_beside_a_changed_one_is_still_told_apart():
    """Two edits next to each other: the changed message is compared with its old form."""
    old = says("What is the capital of France today?")
    new = [{"role": "system", "content": "Be brief."}, *says("What is the capital of Spain today?")]
    first, second = told(call(messages=new), call(messages=old))
    assert first == 'messages[0]: only in the call: {"role": "system", "content": "Be brief."}'
    assert second.startswith('messages[1].content: recorded "What is the capital of France today?", asked "')


def test_a_very_long_list_is_compared_place_by_place():
    """A batch of a thousand inputs costs no alignment, and its one change is still found."""
    texts = [f"text {place}" for place in range(1000)]
    asked = Call("embedding", {"input": [*texts[:700], "changed", *texts[701:], "more"]})
    assert told(asked, Call("embedding", {"input": texts})) == [
        'input[700]: recorded "text 700", asked "changed"',
        'input[1000]: only in the call: "more"',
    ]


def test_types_that_look_alike_are_differences():
    """What the key tells apart the message does too."""
    asked = Call("completion", {"extra_body": [1.0, True, "1", -0.0, math.nan, None]})
    recorded = Call("completion", {"extra_body": [1, 1, 1, 0.0, math.nan, False]})
    found = nearest(asked, [recorded])
    assert [difference.path for difference in found.differences] == [
        f"extra_body[{place}]" for place in (0, 1, 2, 3, 5)
    ]


def test_a_vector_is_one_value():
    """A changed embedding or token list is one line, not one for each number."""
    lines = told(
        Call("embedding", {"input": list(range(5000))}), Call("embedding", {"input": list(range(1, 5000))})
    )
    assert lines == ["input:", "    [{+0, +}1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1…"]
    changed = [*range(100), 7, *range(101, 300)]
    _, line = told(Call("embedding", {"input": list(range(300))}), Call("embedding", {"input": changed}))
    assert " 99, [-7-]{+100+}, 101, " in line


def test_what_a_terminal_does_not_show_is_escaped():
    """Escape sequences, surrogates and line separators in a prompt do not reach the terminal."""
    lines = [
        *told_of("a\x1b[31m\u2028b", "a\ud800\x00b"),
        *told_of("a\nx\x1b", "a\r\ny\ud800"),
        *told(Call("completion", {"p": ["\x07\ud800"], "\x1b": 1}), Call("completion", {})),
    ]
    assert all(line.isprintable() for line in lines)
    assert any("\\x1b[31m\\u2028" in line for line in lines)


def test_a_difference_that_is_not_seen_is_made_visible():
    """Spaces at the end, non-breaking spaces and composed letters explain themselves."""
    assert told_of("end", "end ") == [r'prompt: recorded "end", asked "end\x20"']
    assert told_of("a b", "a\xa0b") == [r'prompt: recorded "a b", asked "a\xa0b"']
    assert told_of("caf\xe9", "cafe\u0301") == [r'prompt: recorded "caf\xe9", asked "cafe\u0301"']
    assert told_of("a\nb", "a\nb  ")[-1] == r"    b{+\x20\x20+}"
    assert told_of("x" * 120, "")[-1].startswith("  - xxx")


def test_many_differences_end_in_their_number():
    """The message fits on a screen and says how much it left out."""
    asked = call(messages=says(*(f"asked {turn}\nx" for turn in range(30))))
    lines = told(asked, call(messages=says(*(f"recorded {turn}\ny" for turn in range(30)))))
    assert len(lines) <= 40
    assert lines[-1] == "… and 23 more differences"


def test_one_rewritten_text_does_not_fill_the_screen():
    """A prompt that changed everywhere leaves room for the other differences."""
    lines = told_of(SYSTEM, SYSTEM.replace("Rule", "Law"))
    assert len(lines) == 17
    assert lines[-1].endswith("more lines")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 3)
    | st.floats()
    | st.text(st.sampled_from("ab \n\x1b\ud800"), max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.slow
@given(PLAIN, PLAIN)
def test_any_two_requests_can_be_told_apart(one, other):
    """There is a difference exactly where the keys differ, and it can always be printed."""
    from pytest_lmcache.keys.plain import canonical

    found = nearest(Call("completion", {"x": one}), [Call("completion", {"x": other})])
    assert bool(found.differences) is (canonical(one) != canonical(other))
    lines = explain(found.differences)
    assert lines
    assert all(line.isprintable() and len(line) < 250 for line in lines)
    assert not any(difference.before is difference.after is ABSENT for difference in found.differences)


def test_very_large_integers_can_be_told():
    """A number that Python refuses to print does not hide the message."""
    lines = told(Call("completion", {"n": 10**5000}), Call("completion", {"n": 1}))
    assert lines[-1].startswith('  + "<int 0x')
