"""What a user relies on in keys: the same question has the same key, any other question another one."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import types
import typing
import unittest.mock
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PureWindowsPath

import attrs
import pydantic
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_lmcache import keys
from pytest_lmcache.errors import SettingsError, UnkeyableCallError
from pytest_lmcache.interaction import Call
from pytest_lmcache.keys import plain, strategies
from pytest_lmcache.keys.normalizers import NORMALIZERS

CHAT = ("model", "messages", "timeout", "temperature")
USER = {"role": "user", "content": "Who is the GOAT?"}
EXACT = strategies.strategy("exact")


def request(*args, **kwargs):
    return plain.request_of(CHAT, args, kwargs, "completion")


def key(*args, by=EXACT, name="completion", **kwargs):
    return by.key(Call(name, request(*args, **kwargs)))


TEXT = st.text(st.sampled_from('ab1é"\\ -\n\x00\u2028\ud83d\ude00\U0001f600'), max_size=6)
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
PLAIN = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["model", "messages", "input", "prompt", "tools", "seed", "n", "extra_body", "stop"]),
    PLAIN,
    max_size=6,
)


# ---- properties ----------------------------------------------------------------------------------------


@pytest.mark.slow
@given(ARGUMENTS, st.randoms())
def test_the_order_of_arguments_and_of_dict_keys_never_changes_a_key(arguments, random):
    """A refactoring that writes the same arguments in another order still replays."""

    def shuffled(value):
        if isinstance(value, dict):
            items = list(value.items())
            random.shuffle(items)
            return {name: shuffled(item) for name, item in items}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    assert key(**shuffled(arguments)) == key(**arguments)
    everything = strategies.strategy("exact", NORMALIZERS)
    assert key(**shuffled(arguments), by=everything) == key(**arguments, by=everything)


@given(PLAIN)
def test_plain_data_is_normal_already(value):
    """What a cassette holds is what was keyed: normalizing it again changes nothing."""
    once = plain.to_plain(value)
    assert plain.canonical(once) == plain.canonical(value)
    assert plain.canonical(plain.to_plain(once)) == plain.canonical(once)


@given(ARGUMENTS)
def test_a_stored_request_keys_to_the_key_it_was_stored_under(arguments):
    """A key can be computed again from the cassette, through JSON as well."""
    stored = request(**arguments)
    assert key(**stored) == key(**arguments)
    assert EXACT.key(Call("completion", plain.to_plain(stored))) == key(**arguments)
    assert EXACT.key(Call("completion", json.loads(json.dumps(stored, ensure_ascii=False)))) == key(
        **arguments
    )


def leaves(value, path=()):
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, value


@given(PLAIN, ATOMS, st.data())
def test_another_leaf_gives_another_key(value, leaf, data):
    """No changed word, number or type anywhere in a prompt is ever answered by an old recording."""
    value = [value]
    path, old = data.draw(st.sampled_from(list(leaves(value)) or [((0,), None)]))
    assume(plain.canonical(old) != plain.canonical(leaf))
    changed = plain.to_plain(value)
    around = changed
    for step in path[:-1]:
        around = around[step]
    around[path[-1]] = leaf
    assert key(extra_body=changed) != key(extra_body=value)


@given(ARGUMENTS)
def test_what_the_caller_does_afterwards_changes_nothing(arguments):
    """An agent that appends to its messages after the call does not change what was recorded."""
    taken = request(**arguments)
    before = plain.canonical(taken)

    def spoil(value):
        for item in list(value.values() if isinstance(value, dict) else value):
            if isinstance(item, (dict, list)):
                spoil(item)
        value.clear()

    spoil(arguments)
    assert plain.canonical(taken) == before


@given(ARGUMENTS)
def test_a_key_is_always_a_plain_yaml_scalar(arguments):
    """A key needs no quotes in a cassette: it never looks like a number."""
    assert re.fullmatch(r"k[0-9a-f]{24}", key(**arguments))


# ---- the same question ---------------------------------------------------------------------------------


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 2


@attrs.define
class Slot:
    role: str
    name: str | None = None


class Where:
    def __fspath__(self):
        return "a/b"


class Dumps:
    """Has a model_dump of its own and is no pydantic model."""

    def __init__(self, dumped):
        self.dumped = dumped

    def model_dump(self):
        if self.dumped is None:
            raise RuntimeError
        return self.dumped


class City(pydantic.BaseModel):
    """A city."""

    name: str
    people: int | None = None


class Turn(pydantic.BaseModel):
    role: str
    content: typing.Any = None
    name: str | None = None


@dataclasses.dataclass
class Note:
    role: str
    content: str
    name: str | None = None


class FakeArray:
    """Stands for numpy, which is not installed."""

    def __init__(self, values):
        self.values = values

    def tolist(self):
        return self.values


ID = uuid.UUID("0b7c1d5e-3f43-4f4e-9a57-1e6a5d1c2b3a")
SAME = {
    "positional and named": (((("m", [USER]), {})), ((), {"messages": [USER], "model": "m"})),
    "None is not given": (((), {"temperature": None, "stop": None}), ((), {})),
    "not streamed": (((), {"stream": False}), ((), {})),
    "what is not the question": (
        (
            (),
            {
                "timeout": 3,
                "api_key": "sk-1",
                "metadata": {"run": object()},
                "num_retries": 4,
                "fallbacks": ["x"],
                "litellm_call_id": "1",
                "aws_region_name": "eu",
                "my_api_key": "k",
                "_internal": 1,
                "input_cost_per_token": 0.1,
                "cache_control_injection_points": [{"location": "message", "role": "system"}],
                "prompt_cache_key": "tenant-7",
                "github_copilot_user_session": "s",
                "rpd": 5,
                "extra_headers": {"x": "y"},
                "client": object(),
            },
        ),
        ((), {}),
    ),
    "tuple and list": (((), {"stop": ("a", "b")}), ((), {"stop": ["a", "b"]})),
    "a set in any order": (((), {"stop": {"a", "b", "c"}}), ((), {"stop": frozenset("cba")})),
    "a deque": (((), {"stop": collections.deque("ab")}), ((), {"stop": ["a", "b"]})),
    "a mapping": (((), {"extra_body": types.MappingProxyType({"a": 1})}), ((), {"extra_body": {"a": 1}})),
    "number keys are JSON's": (((), {"logit_bias": {50256: -100}}), ((), {"logit_bias": {"50256": -100}})),
    "an enum": (((), {"reasoning_effort": Colour.RED}), ((), {"reasoning_effort": "red"})),
    "subclasses of numbers": (
        ((), {"extra_body": [Level.HIGH, type("F", (float,), {})(0.5), type("I", (int,), {})(7)]}),
        ((), {"extra_body": [2, 0.5, 7]}),
    ),
    "odd keys": (
        ((), {"extra_body": {Colour.RED: 1, type("S", (str,), {})("s"): 2, None: 3, True: 4, 0.5: 5}}),
        ((), {"extra_body": {"red": 1, "s": 2, "null": 3, "true": 4, "0.5": 5}}),
    ),
    "an attrs object": (((), {"messages": [Slot("user")]}), ((), {"messages": [{"role": "user"}]})),
    "a path-like": (((), {"file": Where()}), ((), {"file": "a/b"})),
    "an own model_dump": (((), {"messages": [Dumps({"a": None})]}), ((), {"messages": [{}]})),
    "a subclass of str": (((), {"model": type("S", (str,), {})("m")}), ((), {"model": "m"})),
    "a date": (((), {"extra_body": {"d": date(2026, 11, 23)}}), ((), {"extra_body": {"d": "2026-11-23"}})),
    "a moment": (
        ((), {"extra_body": {"d": datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=1)))}}),
        ((), {"extra_body": {"d": "2026-01-02T03:00:00+01:00"}}),
    ),
    "a uuid": (((), {"user": ID}), ((), {"user": str(ID)})),
    "a decimal": (((), {"extra_body": {"price": Decimal("1.50")}}), ((), {"extra_body": {"price": "1.50"}})),
    "a path of any system": (
        ((), {"extra_body": {"p": PureWindowsPath("a\\b")}}),
        ((), {"extra_body": {"p": Path("a/b")}}),
    ),
    "an array": (((), {"input": FakeArray([[1.5, 2.0]])}), ((), {"input": [[1.5, 2.0]]})),
    "the standard library's array": (((), {"input": array.array("i", [1, 2])}), ((), {"input": [1, 2]})),
    "bytes of any kind": (((), {"file": b"abc"}), ((), {"file": memoryview(bytearray(b"abc"))})),
    "bytes and a file of them": (((), {"file": b"abc"}), ((), {"file": io.BytesIO(b"abc")})),
    "a file of text": (((), {"file": "é".encode()}), ((), {"file": io.StringIO("é")})),
    "a dataclass": (
        ((), {"messages": [Note("user", "x")]}),
        ((), {"messages": [{"role": "user", "content": "x"}]}),
    ),
    "a pydantic message": (
        ((), {"messages": [Turn(role="user", content="x")]}),
        ((), {"messages": [{"role": "user", "content": "x"}]}),
    ),
    "a message with empty fields": (
        (
            (),
            {
                "messages": [
                    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "index": None}]}
                ]
            },
        ),
        ((), {"messages": ({"role": "assistant", "tool_calls": [{"id": "1"}]},)}),
    ),
    "functions as tools are not sent": (
        ((), {"tools": [{"type": "x"}, print]}),
        ((), {"tools": [{"type": "x"}]}),
    ),
    "a provider that the model names": (
        ((), {"model": "openai/m", "custom_llm_provider": "openai"}),
        ((), {"model": "openai/m"}),
    ),
    "cache marks": (
        (
            (),
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
                    }
                ],
                "tools": [{"name": "f", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
                "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            },
        ),
        ((), {"messages": [{"role": "user", "content": "x"}], "tools": [{"name": "f"}], "system": "s"}),
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same_question_has_the_same_key(case):
    """However a caller writes it down, one question is recorded once."""
    (args, kwargs), (other_args, other_kwargs) = SAME[case]
    assert key(*args, **kwargs) == key(*other_args, **other_kwargs)


@pytest.mark.slow
def test_a_message_object_of_litellm_is_its_plain_dict():
    """A history that holds an answer's message replays like one that holds the dict of it."""
    from litellm import Message
    from litellm.types.utils import ChatCompletionMessageToolCall, Function

    call = ChatCompletionMessageToolCall(
        id="call_1", type="function", function=Function(name="f", arguments="{}")
    )
    message = Message(role="assistant", content=None, tool_calls=[call])
    with_nones = message.model_dump()
    without = message.model_dump(exclude_none=True)
    assert None in with_nones.values()
    assert key(messages=[message]) == key(messages=[with_nones]) == key(messages=[without])


def test_a_models_alias_is_keyed_as_the_model_it_stands_for(monkeypatch):
    """Renaming an alias in litellm.model_alias_map keeps recordings, pointing it elsewhere does not."""
    import litellm

    monkeypatch.setattr(litellm, "model_alias_map", {"fast": "openai/m"})
    assert request("fast")["model"] == "openai/m"
    assert key("fast") == key("openai/m")


def test_a_provider_that_the_price_map_names_is_no_second_question(monkeypatch):
    """Router's responses() name the provider of gpt-4o-mini, a direct call does not: one recording."""
    import litellm

    monkeypatch.setattr(litellm, "model_cost", {"gpt-4o-mini": {"litellm_provider": "openai"}})
    assert key("gpt-4o-mini", custom_llm_provider="openai") == key("gpt-4o-mini")
    assert key("gpt-4o-mini", custom_llm_provider="azure") != key("gpt-4o-mini")


# ---- another question ----------------------------------------------------------------------------------

EXTRA = "extra_body"
OTHER = {
    "1 and 1.0": ({EXTRA: 1}, {EXTRA: 1.0}),
    "1 and true": ({EXTRA: 1}, {EXTRA: True}),
    "1 and '1'": ({EXTRA: 1}, {EXTRA: "1"}),
    "zero and minus zero": ({EXTRA: 0.0}, {EXTRA: -0.0}),
    "NaN and 'NaN'": ({EXTRA: math.nan}, {EXTRA: "NaN"}),
    "infinities": ({EXTRA: math.inf}, {EXTRA: -math.inf}),
    "very large integers": ({EXTRA: 10**5000}, {EXTRA: 10**5000 + 1}),
    "a character and its two surrogates": ({EXTRA: "\U0001f600"}, {EXTRA: "\ud83d\ude00"}),
    "an empty list and an empty dict": ({EXTRA: []}, {EXTRA: {}}),
    "nested None is data": ({EXTRA: {"a": None}}, {EXTRA: {}}),
    "None in a tool's schema": ({"tools": [{"default": None}]}, {"tools": [{}]}),
    "None in a tool's input": (
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {"city": None}}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {}}]}]},
    ),
    "streamed": ({"stream": True}, {}),
    "max_tokens": ({"max_tokens": 1}, {"max_tokens": 2}),
    "tokens of a prompt template": ({"bos_token": "<s>"}, {}),
    "a provider's own token": ({"stop_token": "A"}, {"stop_token": "B"}),
    "an unknown argument": ({"brand_new": 1}, {}),
    "a provider for a bare model": ({"model": "m", "custom_llm_provider": "groq"}, {"model": "m"}),
    "bytes": ({"file": b"a"}, {"file": b"b"}),
    "a file's name": ({"file": ("a.wav", b"x")}, {"file": ("a.mp3", b"x")}),
    "a schema property called cache_control": (
        {"tools": [{"properties": {"cache_control": {"type": "string"}}}]},
        {"tools": [{"properties": {}}]},
    ),
    "an answer made up by LiteLLM": ({"mock_response": "x"}, {}),
    "a fallback made up by LiteLLM": ({"mock_testing_fallbacks": True}, {}),
    "a seed": ({"seed": 1700000000}, {"seed": 1700000001}),
}


@pytest.mark.parametrize("case", OTHER)
def test_another_question_has_another_key(case):
    """A recording never answers a question that differs in a way a provider can see."""
    one, two = OTHER[case]
    assert key(**one) != key(**two)
    if case != "a seed":
        return
    everything = strategies.strategy("exact", NORMALIZERS)
    assert key(**one, by=everything) != key(**two, by=everything)


def test_entry_points_and_streams_have_keys_of_their_own():
    """An embedding never answers a completion, a stream never a whole response, under any strategy."""
    for by in (
        EXACT,
        strategies.strategy("messages"),
        strategies.strategy("content"),
        strategies.strategy(lambda _: "same"),
    ):
        assert key(messages=[USER], by=by) != key(messages=[USER], by=by, name="responses")
        assert key(messages=[USER], by=by) != key(messages=[USER], by=by, stream=True)


def test_a_mark_for_provider_caching_stays_in_what_is_stored():
    """Only the key is blind to cache marks; the cassette shows the request as it was."""
    part = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    assert request(messages=[{"role": "user", "content": [part]}])["messages"][0]["content"] == [part]


# ---- the request ---------------------------------------------------------------------------------------


def test_a_request_reads_model_first_then_the_prompt_then_the_rest_by_name():
    """A cassette is reviewed by people: the order of a request never depends on the caller."""
    taken = request(
        top_p=1, messages=[USER], n=1, stop=[], model="m", system="s", instructions="i", brand_new=1
    )
    assert list(taken) == ["model", "instructions", "system", "messages", "brand_new", "n", "stop", "top_p"]


def test_a_position_past_the_last_parameter_still_counts():
    """Nothing that was asked is lost, even where a function hides its parameters."""
    assert request("m", [USER], 5, 0.5, "more")["args[4]"] == "more"


def test_a_class_as_response_format_is_its_name_and_schema():
    """Structured output replays until the class changes in what it holds or is called."""
    stored = request(response_format=City)["response_format"]
    assert stored["name"] == "City"
    assert stored["schema"]["properties"]["people"]["default"] is None
    other = pydantic.create_model("City", name=(str, ...))
    renamed = type("Town", (City,), {})
    assert len({key(response_format=kind) for kind in (City, other, renamed)}) == 3


def test_a_dataclass_as_response_format_is_its_schema_too():
    """It counts what a class within it holds, not what that is called alone."""

    def of(kind):
        inner = pydantic.dataclasses.dataclass(dataclasses.make_dataclass("Inner", [("a", kind)]))
        return pydantic.dataclasses.dataclass(dataclasses.make_dataclass("Outer", [("inner", inner)]))

    assert key(response_format=of(int)) == key(response_format=of(int)) != key(response_format=of(str))
    assert plain.to_plain(Colour)["schema"]["enum"] == ["red"]


def test_reading_a_file_for_the_key_leaves_it_where_it_was():
    """The real call still uploads the whole file, and asking twice with one file gives one key."""
    file = io.BytesIO(b"sound")
    file.read(2)
    first = request(file=("a.wav", file, "audio/wav"))
    assert file.tell() == 2
    file.read()
    assert request(file=("a.wav", file, "audio/wav")) == first
    assert first["file"][0] == "a.wav"
    assert re.fullmatch(r"<bytes sha256:[0-9a-f]{64} 5 bytes>", first["file"][1])


def test_a_temporary_file_is_a_file():
    """tempfile's wrapper object uploads like any file."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"abc")
        file.flush()
        assert request(file=file) == request(file=b"abc")


CYCLE = []
CYCLE.append(CYCLE)
UNKEYABLE = {
    "a generator": ({"messages": (turn for turn in [USER])}, "messages", "generator"),
    "a generator inside": (
        {"messages": [{"role": "user", "content": iter("x")}]},
        "messages[0].content",
        "str_ascii_iterator|str_iterator",
    ),
    "an object": ({"tools": [{"function": object()}]}, "tools[0].function", "object"),
    "a mock": ({"messages": [unittest.mock.MagicMock()]}, "messages[0]", "mock"),
    "a function": ({"extra_body": {"hook": print}}, "extra_body.hook", "builtin_function_or_method"),
    "a cycle": ({"stop": CYCLE}, "stop[0][0]", "contains itself"),
    "a key that JSON does not have": ({"extra_body": {(1, 2): 3}}, "extra_body[tuple]", "tuple"),
    "two keys that are one in JSON": ({"logit_bias": {1: 2, "1": 3}}, "logit_bias.1", "same in JSON"),
    "an empty class": ({"response_format": type("Nothing", (), {})}, "response_format", "Nothing"),
    "a file that is closed": ({"file": open(os.devnull)}, "file", "read twice"),  # noqa: SIM115, PTH123
    "a complex number": ({"extra_body": 1j}, "extra_body", "complex"),
    "a dump that fails": ({"messages": [Dumps(None)]}, "messages[0]", "RuntimeError"),
    "a class without a schema": (
        {"response_format": pydantic.create_model("Bad", f=(typing.Callable, ...))},
        "response_format",
        "has no JSON schema",
    ),
    "a file of something else": (
        {"file": types.SimpleNamespace(read=dict, tell=int, seek=id)},
        "file",
        "reads no bytes",
    ),
    "after a function": ({"tools": [print, {"f": 1j}]}, "tools[1].f", "complex"),
}
UNKEYABLE["a file that is closed"][0]["file"].close()


@pytest.mark.parametrize("case", UNKEYABLE)
def test_what_cannot_be_keyed_is_an_error_that_says_where(case):
    """A call that cannot be keyed names entry point, argument and type instead of missing for ever."""
    arguments, where, what = UNKEYABLE[case]
    with pytest.raises(UnkeyableCallError) as caught:
        request(**arguments)
    text = str(caught.value)
    assert text.startswith("completion(): ")
    assert f"`{where}" in text
    assert re.search(what, text)
    assert len(text) < 500


def test_a_generator_is_not_consumed_by_the_refusal():
    """The call may still be made with it: nothing was read."""
    turns = (turn for turn in [USER])
    with pytest.raises(UnkeyableCallError):
        request(messages=turns)
    assert list(turns) == [USER]


def test_a_value_that_is_no_plain_data_is_refused_alone_too():
    """to_plain names the place inside the value."""
    with pytest.raises(UnkeyableCallError, match=r"^`a\[1\]` cannot"):
        plain.to_plain({"a": [1, object()]})
    with pytest.raises(UnkeyableCallError, match=r"^the value cannot"):
        plain.to_plain(object())


def test_the_bottom_of_deep_data_is_still_keyed():
    """Deep JSON schemas are no cycle."""
    deep = {}
    for _ in range(150):
        deep = {"a": deep}
    assert key(extra_body=deep) != key(extra_body=deep["a"])


# ---- strategies ----------------------------------------------------------------------------------------


def test_messages_tells_calls_apart_by_everything_but_the_model():
    """Changing the model keeps the recordings, changing a parameter does not."""
    by = strategies.strategy("messages")
    assert key("a", [USER], by=by) == key("b", [USER], custom_llm_provider="groq", by=by)
    assert key("a", [USER], by=by) != key("a", [USER], temperature=1, by=by)


def test_content_tells_calls_apart_by_the_text_alone():
    """One recording serves several models, parameters, roles and ways to write the same text."""
    by = strategies.strategy("content")
    system = {"role": "system", "content": "Be brief."}
    developer = {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}
    one = key("a", [system, USER], temperature=1, by=by)
    assert one == key("b", [developer, USER], tools=[{"type": "x"}], by=by)
    assert one == key("b", [USER], system="Be brief.", by=by)
    assert one != key("a", [USER, system], by=by)
    assert one != key("a", [{"role": "system", "content": "Be short."}, USER], by=by)
    image = {"type": "image_url", "image_url": {"url": "http://x/1.png"}}
    assert key(messages=[{"role": "user", "content": [image]}], by=by) != key(messages=[], by=by)


def test_content_reads_tool_results_and_passes_over_calls_and_thoughts():
    """Ids of tool calls do not matter to content, what the tools said does."""
    by = strategies.strategy("content")

    def chat(result, ident):
        return key(
            messages=[
                USER,
                {"role": "assistant", "tool_calls": [{"id": ident, "function": {"name": "f"}}]},
                {"role": "tool", "tool_call_id": ident, "content": result},
            ],
            by=by,
        )

    def claude(result, ident):
        use = [{"type": "thinking", "thinking": "?"}, {"type": "tool_use", "id": ident, "input": {}}]
        answer = [{"type": "tool_result", "tool_use_id": ident, "content": result}]
        return key(
            messages=[USER, {"role": "assistant", "content": use}, {"role": "user", "content": answer}], by=by
        )

    def responses(result, ident):
        return key(
            input=[
                USER,
                {"type": "function_call", "call_id": ident, "arguments": "{}"},
                {"type": "function_call_output", "call_id": ident, "output": result},
            ],
            by=by,
        )

    assert len({style("sunny", ident) for style in (chat, claude, responses) for ident in "12"}) == 1
    assert chat("sunny", "1") != chat("rain", "1")


def test_content_never_makes_calls_without_a_text_alike():
    """Two recordings to transcribe, or two questions without any text, are two questions."""
    by = strategies.strategy("content")
    assert key("a", file=b"one", by=by) == key("b", file=b"one", by=by)
    assert key(file=b"one", prompt="?", by=by) != key(file=b"two", prompt="?", by=by)
    assert key(response_id="1", by=by) != key(response_id="2", by=by)


def test_own_functions_can_build_on_the_named_ones():
    """Everything but the seed is one line: the strategies are plain functions."""
    taken = request("m", [USER], seed=1, temperature=1)
    assert keys.exact(taken) == keys.exact(dict(reversed(taken.items())))
    assert len({keys.exact(taken), keys.messages(taken), keys.content(taken)}) == 3
    by = strategies.strategy(lambda asked: keys.messages({**asked, "seed": None}))
    assert key("m", [USER], seed=1, by=by) == key("n", [USER], seed=2, by=by)


def last_message(taken):
    return taken["messages"][-1]["content"]


def says_x(_):
    return "x"


def test_an_own_function_decides_alone():
    """A function given in the marker or by dotted path says what counts."""
    for by in (
        strategies.strategy(last_message),
        strategies.strategy(f"{__name__}:last_message"),
        strategies.strategy(f"{__name__}.last_message"),
    ):
        assert by.name == f"own:{__name__}.last_message"
        assert not by.is_builtin
        assert key("a", [USER], by=by) == key("b", [{"role": "system", "content": "s"}, USER], by=by)
        assert key("a", [USER], by=by) != key("a", [{**USER, "content": "?"}], by=by)


def test_an_own_function_cannot_change_what_is_stored():
    """A strategy that edits its argument edits a copy."""

    def careless(taken):
        taken["messages"].clear()
        return ""

    taken = request(messages=[USER])
    strategies.strategy(careless).key(Call("completion", taken))
    assert taken == {"messages": [USER]}


def test_an_own_function_that_fails_is_named():
    """A broken strategy says so by name, with what went wrong."""
    with pytest.raises(UnkeyableCallError, match=r"last_message raised KeyError: 'messages'"):
        key("a", by=strategies.strategy(last_message))
    with pytest.raises(
        UnkeyableCallError, match=r"lambda.* returned an object of type dict; it must return a str"
    ):
        key("a", by=strategies.strategy(lambda taken: taken))


def test_own_functions_with_the_same_text_do_not_share_recordings():
    """Two strategies never answer for each other in a shared cache."""
    assert key("a", by=strategies.strategy(lambda _: "x")) != key("a", by=strategies.strategy(says_x))


@pytest.mark.parametrize(
    "spec",
    [
        "exakt",
        "",
        ".",
        "os:",
        "no_such_module_x.f",
        "os.no_such_function",
        "os:name",
        "no_such_module_x:f",
        None,
        3,
    ],
)
def test_a_strategy_that_is_none_names_the_valid_ones(spec):
    """A typo in ini is answered with the list of what is valid."""
    with pytest.raises(SettingsError, match="exact, messages, content"):
        strategies.strategy(spec)


def test_names_say_strategy_version_and_normalizers():
    """The header of a cassette says by what its keys were made."""
    assert (strategies.strategy("exact").name, strategies.strategy("exact").is_builtin) == ("exact/1", True)
    assert strategies.strategy("content", ["date", "uuid", "date"]).name == "content/1+uuid+date/2"
    assert re.fullmatch(
        r"exact/1\+re:[0-9a-f]{8}\+epoch", strategies.strategy("exact", ["epoch", "re:run-\\d+"]).name
    )
    assert strategies.strategy("exact", ["re:a"]).name == strategies.strategy("exact", [re.compile("a")]).name
    assert (
        strategies.strategy("exact", ["re:a"]).name
        != strategies.strategy("exact", [re.compile("a", re.IGNORECASE)]).name
    )


# ---- normalizers ---------------------------------------------------------------------------------------


def says(text):
    return [{"role": "user", "content": text}]


NORMALIZED = [
    ("uuid", "run 0b7c1d5e-3f43-4f4e-9a57-1e6a5d1c2b3a", "run 5a1c9a3e-8d2f-4a64-8f0b-3d2e9c7b6a51", True),
    ("uuid", "run 0b7c1d5e3f434f4e9a571e6a5d1c2b3a.", "run 5a1c9a3e8d2f4a648f0b3d2e9c7b6a51.", True),
    ("uuid", "sum d41d8cd98f00b204e9800998ecf8427e", "sum 0cc175b9c0f1b6a831c399e269772661", False),
    ("uuid", "run 1", "run 2", False),
    ("date", "Today is 2026-11-23.", "Today is 2027-01-02.", True),
    ("date", "at 2026-11-23T09:12:44.123Z go", "at 2027-01-02T00:00:00+01:00 go", True),
    ("date", "at 2026-11-23 09:12", "at 2027-01-02 10:00", True),
    ("date", "it is 09:12:44", "it is 23:59:59.5", True),
    ("date", "20261123T091244Z", "20270102T000000Z", True),
    ("date", "report-2026-11-23.csv", "report-2027-01-02.csv", True),
    ("date", "version 1.2.3", "version 1.2.4", False),
    ("date", "phone 2026-99-99", "phone 2026-98-99", False),
    ("epoch", "now=1763887964", "now=1763887965", True),
    ("epoch", "now 1763887964.25,", "now 1763887965.5,", True),
    ("epoch", '{"ts": 1763887964123}', '{"ts": 1763887964999}', True),
    ("epoch", "order 9999999999", "order 9999999998", False),
    ("epoch", "order 17638879641", "order 17638879642", False),
    ("tmp_path", "open /tmp/tmpab12cd_9/a.txt", "open /var/folders/x1/abc/T/tmpzzzzzzzz/a.txt", True),
    ("tmp_path", "open /tmp/tmpab12cd_9/a.txt", "open /tmp/tmpab12cd_9/b.txt", False),
    ("tmp_path", "open /tmp/input.csv", "open /tmp/output.csv", False),
    (
        "tmp_path",
        "in /tmp/pytest-of-ann/pytest-3/test_x0/a",
        "in /home/bob/t/pytest-of-bob/pytest-12/popen-gw1/test_x0/a",
        True,
    ),
    ("tmp_path", "in C:\\Users\\ann\\AppData\\Local\\Temp\\tmpab12cd_9", "in /tmp/tmpzzzzzzzz", True),
    (
        "tmp_path",
        '"C:\\\\Users\\\\ann\\\\AppData\\\\Local\\\\Temp\\\\pytest-of-ann\\\\pytest-0" is',
        '"/tmp/pytest-of-ann/pytest-0" is',
        True,
    ),
    (
        "tmp_path",
        "in C:\\Users\\ann\\AppData\\Local\\Temp\\pytest-of-ann\\pytest-3\\test_x0\\a.txt.",
        "in /tmp/pytest-of-bob/pytest-4/test_x0/a.txt.",
        True,
    ),
    ("tmp_path", "/tmp/a\\b", "/tmp/a/b", False),
    ("tmp_path", "in /srv/templates/a", "in /srv/templates/b", False),
    ("tool_call_id", "see call_Ab3dEfGhIjKlMnOpQrStUvWx", "see call_1b3dEfGhIjKlMnOpQrStUvWx", True),
    ("tool_call_id", "see toolu_01A09q90qw90lq917835lq9", "see toolu_01B09q90qw90lq917835lq9", True),
    ("tool_call_id", "use call_customer_service", "use call_somebody_else", False),
    (re.compile(r"run-\d+"), "run-1 of run-1", "run-77 of run-77", True),
    (r"re:run-\d+", "run-1 of run-1", "run-7 of run-8", False),
    ("re:x*", "abc", "abd", False),
]


@pytest.mark.parametrize(("normalizer", "one", "two", "same"), NORMALIZED)
def test_a_normalizer_makes_alike_what_it_names_and_nothing_else(normalizer, one, two, same):
    """A declared normalizer lets changing ids and times replay; any other change still misses."""
    by = strategies.strategy("exact", [normalizer])
    assert (key(messages=says(one), by=by) == key(messages=says(two), by=by)) is same
    assert key(messages=says(one)) != key(messages=says(two))


def test_a_normalizer_acts_on_the_key_only():
    """What is stored stays real."""
    by = strategies.strategy("exact", NORMALIZERS)
    taken = request(messages=says("it is 2026-11-23"))
    by.key(Call("completion", taken))
    assert taken == {"messages": says("it is 2026-11-23")}


def test_the_same_value_gets_the_same_number():
    """Which ids are equal still counts: swapping two of them is another question."""
    a, b = "0b7c1d5e-3f43-4f4e-9a57-1e6a5d1c2b3a", "5a1c9a3e-8d2f-4a64-8f0b-3d2e9c7b6a51"
    by = strategies.strategy("exact", ["uuid"])

    def asked(*ids):
        return key(messages=says("move {} to {}, then {}".format(*ids)), user=ids[0], by=by)

    assert asked(a, b, a) == asked(b, a, b)
    assert asked(a, b, a) == asked(a, b, a.upper())
    assert asked(a, b, a) != asked(a, b, b)


def test_numbers_do_not_depend_on_the_order_of_arguments():
    """Two ids in two arguments, or two fields, are numbered alike however the caller orders them."""
    a, b = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
    by = strategies.strategy("exact", ["uuid"])
    one = {"user": b, "prompt": f"{a} {b}", "extra_body": {"first": a, "second": b}}
    two = {"extra_body": {"second": b, "first": a}, "prompt": f"{a} {b}", "user": b}
    swapped = {"extra_body": {"second": a, "first": b}, "prompt": f"{a} {b}", "user": b}
    assert by.key(Call("completion", one)) == by.key(Call("completion", two))
    assert by.key(Call("completion", one)) != by.key(Call("completion", swapped))


def test_tool_call_ids_are_alike_wherever_they_stand():
    """An agent whose framework invents a new id for every tool call still replays."""
    by = strategies.strategy("exact", ["tool_call_id"])

    def turn(ident, other):
        return key(
            messages=[
                {"role": "assistant", "tool_calls": [{"id": ident, "function": {"name": "f"}}]},
                {"role": "tool", "tool_call_id": ident, "content": "1"},
                {"role": "user", "content": [{"type": "tool_use", "id": other}, {"tool_use_id": other}]},
                {"type": "function_call_output", "call_id": other, "output": "1"},
            ],
            by=by,
        )

    assert turn("1", "b") == turn("x", "y")
    assert turn("1", "b") != turn("1", "1")


def test_content_is_normalized_by_itself():
    """An id in a parameter does not shift the numbers of those in the text."""
    one, two = uuid.UUID(int=1 << 100), uuid.UUID(int=1 << 101)
    by = strategies.strategy("content", ["uuid"])
    assert key(messages=says(f"run {one}"), by=by) == key(
        messages=says(f"run {two}"), extra_body={"a": one}, by=by
    )


def test_numbers_are_moments_too():
    """A timestamp given as a number, in extra_body for instance, is normalized as in text."""
    by = strategies.strategy("exact", ["epoch"])
    assert key(extra_body={"now": 1763887964}, by=by) == key(extra_body={"now": 1763887965}, by=by)
    assert key(extra_body={"now": 1763887964.5}, by=by) == key(extra_body={"now": 1763887965.25}, by=by)
    assert key(extra_body={"now": True}, by=by) != key(extra_body={"now": 1763887965}, by=by)
    assert key(extra_body={"n": math.nan}, by=by) != key(extra_body={"n": 10**5000}, by=by)


def test_a_dated_model_is_not_a_date():
    """A newer snapshot of a model is another model under every normalizer."""
    by = strategies.strategy("exact", NORMALIZERS)
    assert key("gpt-4o-2024-08-06", by=by) != key("gpt-4o-2024-11-20", by=by)


def test_normalizers_act_before_own_functions():
    """An own strategy does not have to know about dates."""
    by = strategies.strategy(last_message, ["date"])
    assert by.name == f"own:{__name__}.last_message+date/2"
    assert key(messages=says("2026-11-23"), by=by) == key(messages=says("2026-11-24"), by=by)


def test_an_own_pattern_that_matches_nothing_at_all_changes_nothing():
    """A pattern with an empty match puts no placeholders between the letters."""
    seen = []
    by = strategies.strategy(lambda taken: seen.append(last_message(taken)) or "", ["re:x*"])
    key(messages=says("abxx"), by=by)
    assert re.fullmatch(r"ab<re:[0-9a-f]{8}-1>", seen[0])


@pytest.mark.parametrize(
    "normalizers",
    [
        ["uid"],
        ["re:("],
        ["re:a{99999999999999999999}"],
        ["re:" + "(" * 500],
        ["re:[[a]"],
        [re.compile(b"x")],
        [3],
        "uuid",
    ],
)
def test_a_normalizer_that_is_none_is_refused(normalizers):
    """A typo in ini is answered at once, and does not quietly normalize nothing."""
    with pytest.raises(SettingsError, match=r"uuid|regular expression"):
        strategies.strategy("exact", normalizers)


# ---- for ever ------------------------------------------------------------------------------------------

GOLDEN = {
    "chat": ({"model": "openai/gpt-4o-mini", "messages": [USER], "temperature": 0.5}, "exact", ()),
    "stream": ({"model": "openai/gpt-4o-mini", "messages": [USER], "stream": True}, "exact", ()),
    "numbers": ({EXTRA: [1, 1.0, True, -0.0, 1e22, 0.1, math.inf, 10**5000]}, "exact", ()),
    "text": ({"prompt": '\U0001f600\ud800\x00\u2028 é\n--- "\\'}, "exact", ()),
    "bytes": ({"file": b"abc"}, "exact", ()),
    "class": ({"response_format": City}, "exact", ()),
    "messages": ({"model": "m", "messages": [USER], "n": 2}, "messages", ()),
    "content": ({"model": "m", "messages": [USER], "n": 2}, "content", ()),
    "normalized": (
        {"messages": says("2026-11-23 1763887964 /tmp/x 0b7c1d5e-3f43-4f4e-9a57-1e6a5d1c2b3a")},
        "exact",
        NORMALIZERS,
    ),
}
GOLDEN_KEYS = {
    "chat": "kd21af1ef0539d010d05af884",
    "stream": "kb2061c6479f138243c3cd0d9",
    "numbers": "k5da6b759ab27c05a3c87fbaa",
    "text": "k1d0ef7b289e672d8dc1e1dd8",
    "bytes": "k83816e5a2aa3f4240ddce305",
    "class": "k18212724142070bebcaee95d",
    "messages": "kd62d8ac9a3268da7a3d40ce0",
    "content": "k4d2cc2cb8839e7c805e5f7a3",
    "normalized": "k55e5518552a7e0c442f0d35f",
}


@pytest.mark.parametrize("case", GOLDEN)
def test_the_keys_of_this_version_never_change(case):
    """Committed cassettes name keys: a changed algorithm needs a new version in the strategy's name."""
    arguments, spec, normalizers = GOLDEN[case]
    assert key(**arguments, by=strategies.strategy(spec, normalizers)) == GOLDEN_KEYS[case]


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_a_key_is_the_same_in_every_process(hash_seed):
    """Recorded on one machine, found on another: nothing depends on hash seeds."""
    program = """
        from pytest_lmcache.keys import plain, strategies
        from pytest_lmcache.interaction import Call
        asked = {"stop": {"a", "b", "c", 1, None}, "messages": [{"role": "user", "content": "2026-11-23"}], "n": 1}
        request = plain.request_of((), (), asked, "completion")
        print(strategies.strategy("exact", ["date"]).key(Call("completion", request)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=Path(keys.__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    asked = {"n": 1, "messages": says("2026-11-23"), "stop": {None, 1, "c", "b", "a"}}
    assert done.stdout.strip() == key(**asked, by=strategies.strategy("exact", ["date"]))


def test_the_keys_module_needs_none_of_the_heavy_libraries():
    """Keying costs no import of LiteLLM or pydantic."""
    program = "import sys, pytest_lmcache.keys; print([m for m in ('litellm', 'pydantic', 'yaml') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(keys.__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
