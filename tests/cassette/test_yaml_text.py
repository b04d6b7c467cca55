"""Plain data as YAML text: everything comes back exactly, and a person can review what is written."""

import base64
import enum
import math
import random
import re
import struct
import sys

import pytest
import yaml
from helpers import WORDS, documents, exactly, items, quick
from hypothesis import example, given

from pytest_lmcache.cassette import yaml_reader
from pytest_lmcache.cassette.yaml_reader import load, load_items
from pytest_lmcache.cassette.yaml_writer import Lines, dump


def assert_survives(data):
    text = dump(data)
    assert exactly(load(text)) == exactly(data)
    assert exactly(load(text.encode())) == exactly(data)
    return text


INTERACTION = {
    "key": "3f9a1c0e5d21b7aa",
    "call": "completion",
    "request": {
        "model": "openai/gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Be brief: one line. Don't guess."},
            {"role": "user", "content": "Who is the GOAT? 🐐\n\n  --- One line, please.  \nresponse: yes"},
            {"role": "user", "content": "Who is it?\n\n  --- One line."},
            {"role": "user", "content": [{"type": "text", "text": "\tint main() {\n\t}\n"}]},
        ],
        "temperature": 0.7,
        "seed": None,
        "logit_bias": {"50256": -100, "on": 1e-05},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "find",
                    "parameters": {"type": "object", "properties": {}, "required": []},
                },
            }
        ],
        "stop": ["\n", "END", "---"],
    },
    "response": {
        "id": "chatcmpl-9x",
        "created": 1700000000,
        "choices": [
            {
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "call_1", "arguments": '{"city": "Köln"}'}],
                },
            }
        ],
        "bounds": [[1, 2], [0.5, -0.0]],
        "embedding": [0.5] * 16,
        "audio": b"RIFF\x00",
    },
    "chunks": Lines(
        [
            {"choices": [{"delta": {"content": 'Hel"'}, "finish_reason": None}]},
            {"choices": [{"delta": {"content": "lo\n\u2028ü"}, "logprob": -1e-06}]},
            {"choices": [{"delta": {"content": "\ud83d"}}]},
        ]
    ),
    "recorded": "2026-11-23T09:12:44Z",
    "seconds": 3.84,
}
GOLDEN = r"""key: 3f9a1c0e5d21b7aa
call: completion
request:
  model: openai/gpt-4o-mini
  messages:
  - role: system
    content: "Be brief: one line. Don't guess."
  - role: user
    content: "Who is the GOAT? 🐐\n\
      \n\
      \  --- One line, please.  \n\
      response: yes"
  - role: user
    content: |-
      Who is it?

        --- One line.
  - role: user
    content:
    - type: text
      text: "\tint main() {\n\
        \t}\n"
  temperature: 0.7
  seed: null
  logit_bias:
    '50256': -100
    'on': 1.0e-05
  tools:
  - type: function
    function:
      name: find
      parameters:
        type: object
        properties: {}
        required: []
  stop:
  - "\n"
  - END
  - '---'
response:
  id: chatcmpl-9x
  created: 1700000000
  choices:
  - finish_reason: tool_calls
    message:
      role: assistant
      content: null
      tool_calls:
      - id: call_1
        arguments: '{"city": "Köln"}'
  bounds:
  - - 1
    - 2
  - - 0.5
    - -0.0
  embedding: !f32 AAAAPwAAAD8AAAA/AAAAPwAAAD8AAAA/AAAAPwAAAD8AAAA/AAAAPwAAAD8AAAA/AAAAPwAAAD8AAAA/AAAAPw==
  audio: !bytes UklGRgA=
chunks:
- {"choices": [{"delta": {"content": "Hel\""}, "finish_reason": null}]}
- {"choices": [{"delta": {"content": "lo\n\u2028ü"}, "logprob": -1.0e-06}]}
- choices:
  - delta:
      content: !text '\ud83d'
recorded: 2026-11-23T09:12:44Z
seconds: 3.84
"""


def test_the_text_of_an_interaction_stays_as_it_is():
    """Committed cassettes do not change with a new version of this package, and read well in a review."""
    assert dump(INTERACTION) == GOLDEN
    assert exactly(load(GOLDEN)) == exactly(INTERACTION)


@quick
@given(documents)
@example({"a": Lines([])})
@example({"a": Lines([{}, {"b": Lines([{}])}])})
def test_all_plain_data_comes_back_with_its_types_order_and_bits(data):
    """Whatever a provider answers, a replay answers."""
    text = assert_survives(data)
    assert dump(load(text)) == dump(json_free(data))


def json_free(value):
    """The same data without the wish for lines, which the text does not keep."""
    if isinstance(value, dict):
        return {key: json_free(item) for key, item in value.items()}
    return [json_free(item) for item in value] if isinstance(value, list) else value


@quick
@given(items)
def test_lines_are_the_same_by_json_and_by_yaml(chunks):
    """A stream replays the same whether it is read the fast way or as the YAML that it is."""
    text = dump({"chunks": Lines(chunks)})
    body = text.removeprefix("chunks:\n")
    assert exactly(load(text)["chunks"]) == exactly(load_items(body)) == exactly(chunks)


@quick
@given(documents)
def test_nothing_but_keys_and_dashes_stands_at_column_0(data):
    """A reader can cut a cassette at its `---` lines and a document at its keys without parsing it."""
    text = dump(data)
    heads = [line for line in text.split("\n")[:-1] if line and not line.startswith((" ", "- "))]
    expected = 0 if not data else len(data)
    explicit = sum(line.startswith("? ") for line in heads)
    assert len(heads) - explicit == expected or text == "{}\n"
    assert not re.search(r"^(---|\.\.\.|%|<<<<<<<)", text, re.MULTILINE)
    assert not any(line[-1:].isspace() for line in text.split("\n"))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]", text)


def test_a_prompt_cannot_look_like_a_document_or_a_key():
    """A prompt with `---` or `response:` at a line's start cannot break the cassette it is in."""
    prompt = "--- # 2\nkey: 0\n...\n%YAML\n- x\nresponse: no\n<<<<<<< HEAD\n---"
    data = {
        "a": prompt,
        "b": [prompt, [prompt]],
        "---": prompt,
        "c": Lines([{prompt: prompt}, {"x": b"", "y": prompt}]),
    }
    lines = assert_survives(data).split("\n")
    assert {line.split(" ")[0] for line in lines if line[:1] not in ("", " ")} == {
        "a:",
        "b:",
        "-",
        "'---':",
        "c:",
    }


def has_no_tag(value):
    if isinstance(value, str):
        return not re.search("[\ud800-\udfff]", value) and not re.fullmatch(
            r"\d{4}-\d\d-\d\dT[\d:]{8}Z", value
        )
    if isinstance(value, dict):
        return all(has_no_tag(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return (len(value) < 16 or {*map(type, value)} != {float}) and all(map(has_no_tag, value))
    return not isinstance(value, bytes) and value == value  # noqa: PLR0124


@pytest.mark.slow
@quick
@given(documents.filter(has_no_tag))
def test_any_yaml_reader_sees_the_same(data):
    """Other tools read a cassette as this package does, vectors, bytes and times aside."""
    assert exactly(yaml.safe_load(dump(data))) == exactly(data)


@pytest.mark.slow
@quick
@given(documents)
def test_pyyaml_without_libyaml_reads_the_same(data):
    """A PyYAML that was built without libyaml is slower, nothing else."""
    text = dump(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(yaml, "CSafeLoader", raising=False)
        yaml_reader.loader_class.cache_clear()
        loader = yaml_reader.loader_class()
        assert issubclass(loader, yaml.SafeLoader)
        try:
            assert exactly(load(text)) == exactly(data)
        finally:
            yaml_reader.loader_class.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("half of \ud83d an emoji", id="lone surrogate"),
        pytest.param("\ud83d\ude00", id="two surrogates side by side"),
        pytest.param("\\ud83d \\n \ud83d \n\t\x00 'x' 🐐\\", id="surrogate beside escapes and controls"),
        pytest.param("a\x00b", id="NUL"),
        pytest.param("".join(map(chr, range(0xA1))), id="every control character"),
        pytest.param("a\nb\x1b[0m\n", id="escape sequence in many lines"),
        pytest.param("a\u2028b\u2029c\x85d", id="unicode line breaks"),
        pytest.param("\ufeffa\n\ufeffb", id="byte order marks"),
        pytest.param("a\ufffe\uffff\ufffd", id="non-characters"),
        pytest.param("a\r\nb\rc", id="carriage returns"),
        pytest.param("--- \na\n--- # 1\n...\n", id="document marks"),
        pytest.param("trailing  \n \n  \nspaces  ", id="trailing spaces"),
        pytest.param("\n\n  a\n b\n\n\n", id="empty first lines"),
        pytest.param("\ta\n  b\n", id="tab first"),
        pytest.param("  \n   \na", id="blank first line"),
        pytest.param("a\n   ", id="blank last line"),
        pytest.param("a\n\t\n   \n", id="blank last lines"),
        pytest.param(" \n \t\n", id="nothing but blanks"),
        pytest.param("🐐👩\u200d🚀\n漢字 \u202eabc\xa0\xad\n", id="unicode"),
        pytest.param("x" * 2**20, id="1 MB line"),
        pytest.param(" #: '" * 2**18, id="1 MB line in quotes"),
        pytest.param("\n" + "x y: " * 2**18 + "\n", id="1 MB line of several"),
        pytest.param("\x00\\\n" * 2**18, id="1 MB to escape"),
    ],
)
def test_text_that_yaml_handles_badly_survives(text):
    """No prompt and no answer is changed by being stored, wherever it stands."""
    assert_survives({"a": text, "b": [text, [text], {text: text, "c": text}], text: {"d": [text]}})
    lines = [{"a": text, "b": [text]}]
    assert exactly(load_items(dump({"a": Lines(lines)}).removeprefix("a:\n"))) == exactly(lines)


def test_text_of_several_lines_is_a_block_as_it_was_written():
    """A person sees the prompt itself in a review: no escapes, no other line breaks."""
    text = 'Say "hi",\n    then: \\n #1 🐐\n\n' + "long " * 100 + ".\n  end"
    block = dump({"request": {"content": text}}).split("|-\n")[1]
    assert [line[4:] for line in block.split("\n")[:-1]] == text.split("\n")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("hard  \nbreak\n", ["hard  ", "break"]),
        ("\tif x:\n\t\tgo()", [r"\tif x:", r"\t\tgo()"]),
        ("a\n\n", ["a", ""]),
        ("a\n\n\nb", ["a", "", "", "b"]),
        ("\na\n", ["", "a"]),
        ("  a\nb\n", [r"\  a", "b"]),
        ("a:\n  b\n c \n", ["a:", r"\  b", r"\ c "]),
        ("a\r\nb\r\n", [r"a\r", r"b\r"]),
        ("a\n\u3000b\xa0\n", ["a", "\\u3000b\xa0"]),
        ('say "a\\b" \nc\n', [r"say \"a\\b\" ", "c"]),
        ("a\n\x1b[0mb\x85\n", ["a", r"\u001b[0mb\u0085"]),
    ],
)
def test_text_that_formatters_would_change_is_quoted_line_by_line(text, written):
    """A hard line break or a tab is safe from formatters, and the text is read line by line in a review."""
    lines = "\\n\\\n    ".join(written) + ("\\n" if text.endswith("\n") else "")
    assert dump({"request": {"content": text}}) == f'request:\n  content: "{lines}"\n'
    assert load(dump({"a": text})) == yaml.safe_load(dump({"a": text})) == {"a": text}


@pytest.mark.parametrize("word", WORDS)
def test_text_that_looks_like_something_else_stays_text(word):
    """Keys and values such as `on`, `1e5` or `null` come back as the text they were, to PyYAML as to us."""
    data = {word: [word, {word: word}], "a": word}
    text = assert_survives(data)
    if word != "2026-11-23T09:12:44Z":
        assert yaml.safe_load(text) == data
    assert load_items(dump({"a": Lines([data])}).removeprefix("a:\n")) == [data]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Who is the GOAT?", "Who is the GOAT?"),
        ("openai/gpt-4o-mini", "openai/gpt-4o-mini"),
        ("https://x.y/z?q=1", "https://x.y/z?q=1"),
        ("2026-11-23T09:12:44Z", "2026-11-23T09:12:44Z"),
        ("2026-11-23", "'2026-11-23'"),
        ("a: b", "'a: b'"),
        ("Don't: stop", '"Don\'t: stop"'),
        ("Grüße 🐐", "'Grüße 🐐'"),
        ('{"a": "it\'s"}', """'{"a": "it''s"}'"""),
        ("a\tb", r'"a\tb"'),
        ("\n", r'"\n"'),
        ("a\x7f\u2028\x00", r'"a\u007f\u2028\u0000"'),
    ],
)
def test_text_of_one_line_is_written_as_simply_as_is_safe(text, written):
    """A review is not made harder by quotes and escapes that nobody needs."""
    assert dump({"a": text}) == f"a: {written}\n"


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (1e-05, "1.0e-05"),
        (1e16, "1.0e+16"),
        (1.5e300, "1.5e+300"),
        (-0.0, "-0.0"),
        (math.inf, ".inf"),
        (-math.inf, "-.inf"),
        (math.nan, ".nan"),
        (-math.nan, "!nan 'fff8000000000000'"),
        (0.1, "0.1"),
        (10**20, "1" + "0" * 20),
        pytest.param(-(10**5000), hex(-(10**5000)), id="5000 digits"),
        (True, "true"),
        (None, "null"),
        ([], "[]"),
        ({}, "{}"),
        (b"", "!bytes ''"),
        (b"\xff\x00", "!bytes /wA="),
    ],
)
def test_values_are_written_for_any_yaml_reader(number, written):
    """NaN, infinities, large and small numbers survive, in the form that YAML 1.1 and 1.2 both know."""
    assert assert_survives({"a": number}) == f"a: {written}\n"
    assert_survives({"a": [number, [number], {"b": number}]})
    lines = [{"a": number, "b": [number]}]
    assert exactly(load_items(dump({"a": Lines(lines)}).removeprefix("a:\n"))) == exactly(lines)


def test_large_integers_do_not_depend_on_the_interpreters_limit():
    """A cassette written where Python converts long decimals is read where it refuses to."""
    limit = sys.get_int_max_str_digits()
    data = {"a": [10**600, -(10**639), 10**640, 10**5000], "b": {10**5000: 1}}
    text = dump(data)
    try:
        sys.set_int_max_str_digits(640)
        assert dump(data) == text
        assert load(text) == data
    finally:
        sys.set_int_max_str_digits(limit)


def test_keys_keep_their_types():
    """The key 1 is not the key "1", and neither is the key true."""
    data = {
        1: 1,
        "1": "1",
        True and "true": 2,
        False: 3,
        None: 4,
        "null": 5,
        1.5: 6,
        "1.5": 7,
        "": 8,
        -7: 9,
        math.inf: 1,
    }
    assert_survives({"a": data})
    assert exactly(yaml.safe_load(dump({"a": data}))) == exactly({"a": data})


@pytest.mark.parametrize("length", [895, 900, 905, 1020, 1024, 1030, 5000])
@pytest.mark.parametrize("unit", ["k", "ü", "\n", "\ud800", "'"])
def test_long_keys_survive(length, unit):
    """YAML's limit of 1024 characters for a plain key is none for ours."""
    key = unit * length
    data = {
        key: 1,
        "a": {key: {"b": 1}},
        "c": [{key: [1, {key: "x\ny"}], "d": 2}, [{key: [[1]]}]],
        key + "2": {},
    }
    assert_survives(data)
    assert load_items(dump({"a": Lines([{key: 1}])}).removeprefix("a:\n")) == [{key: 1}]


def test_vectors_are_packed_exactly():
    """Embeddings take a fraction of the room and come back to the bit; anything else stays readable."""
    singles = array_of_singles(1536)
    doubles = [random.Random(1).uniform(-1, 1) for _ in range(1536)]
    assert assert_survives({"a": singles}).startswith("a: !f32 ")
    assert assert_survives({"a": doubles}).startswith("a: !f64 ")
    assert assert_survives({"a": [singles, {"b": doubles}]}).startswith("a:\n- !f32 ")
    assert "!f32" in assert_survives({"a": [0.0, -0.0, math.inf, -math.inf, math.nan] * 4})
    assert "!f64" in assert_survives({"a": [1e300, 5e-324, 0.1, -math.inf] * 4})
    signalling = struct.unpack(">d", bytes.fromhex("7ff0000000000001"))[0]
    assert "!f64" in assert_survives({"a": [signalling] * 16})
    assert dump({"a": [1.0] * 15}) == "a:\n" + "- 1.0\n" * 15
    for mixed in ([1.0] * 15 + [1], [True] + [1.0] * 16, [1.0] * 16 + [None]):
        assert "!f" not in assert_survives({"a": mixed})


def array_of_singles(length):
    generator = random.Random(2)
    return list(
        struct.unpack(f"<{length}f", struct.pack(f"<{length}f", *(generator.random() for _ in range(length))))
    )


def test_vectors_are_little_endian_on_every_machine(monkeypatch):
    """A cassette is read the same on a big-endian machine."""
    assert (
        dump({"a": [1.0] * 16}) == f"a: !f32 {base64.b64encode(struct.pack('<16f', *[1.0] * 16)).decode()}\n"
    )
    assert (
        dump({"a": [0.1] * 16}) == f"a: !f64 {base64.b64encode(struct.pack('<16d', *[0.1] * 16)).decode()}\n"
    )
    swapped = base64.b64encode(struct.pack(">16d", *[0.1] * 16)).decode()
    monkeypatch.setattr(sys, "byteorder", {"little": "big", "big": "little"}[sys.byteorder])
    assert dump({"a": [0.1] * 16}) == f"a: !f64 {swapped}\n"
    assert load(f"a: !f64 {swapped}") == {"a": [0.1] * 16}


class Colour(str, enum.Enum):  # noqa: UP042  # its str() is not its value
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Real(float):
    def __repr__(self):
        return "Real()"


def test_tuples_and_subclasses_become_their_base():
    """An enum, a named tuple or a numpy float in a request is stored as the value it is."""
    data = {"a": (1, (2.5,)), "b": Colour.RED, "c": Level.HIGH, "d": Real(1.5), Colour.RED: {Level.HIGH: ()}}
    plain = {"a": [1, [2.5]], "b": "red", "c": 3, "d": 1.5, "red": {3: []}}
    assert exactly(load(dump(data))) == exactly(plain)
    lines = dump({"a": Lines([{"b": (Colour.RED, Real(1.5))}])})
    assert lines == 'a:\n- {"b": ["red", 1.5]}\n'
    assert dump({"a": tuple([0.5] * 16)}) == dump({"a": [0.5] * 16})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"response": {"choices": [{"x": {1}}]}},
            "response.choices[0].x is not plain data: it is of type set",
        ),
        ({"a": [1, [object()]]}, "a[1][0] is not plain data: it is of type object"),
        ({"a": {"b": {(1, 2): 3}}}, "a key of a.b is not plain data: it is of type tuple"),
        ({b"k": 1}, "a key of the document is not plain data: it is of type bytes"),
        ({"a": Lines([{"b": Lines}])}, "a[0].b is not plain data: it is of type type"),
        ({"a": Lines([{"b": {(1,): 2}}])}, "a key of a[0].b is not plain data: it is of type tuple"),
        ({"a": {1: re.compile("")}}, "a.1 is not plain data: it is of type re.Pattern"),
    ],
)
def test_what_cannot_be_stored_is_named_by_its_path(data, message):
    """The error says which part of an answer cannot be written, instead of writing something like it."""
    with pytest.raises(TypeError) as error:
        dump(data)
    assert str(error.value) == message


def test_lines_look_like_the_wire():
    """A stream's chunks are one line of JSON each, in the order of their keys."""
    chunks = [{"choices": [{"delta": {"content": "Hel"}}]}, {"b": None, "a": [True, 1, 1e-7, "ü\n🐐"]}, {}]
    assert dump({"chunks": Lines(chunks), "more": Lines([])}) == (
        "chunks:\n"
        '- {"choices": [{"delta": {"content": "Hel"}}]}\n'
        '- {"b": null, "a": [true, 1, 1.0e-07, "ü\\n🐐"]}\n'
        "- {}\n"
        "more: []\n"
    )


@pytest.mark.parametrize(
    "item", [{"a": "\ud800"}, {"\ud800": 1}, {"a": math.nan}, {"a": -math.inf}, {"a": b"x"}, {"a": [0.5] * 16}, {1: 2}, {"a": 2**2048}, {"k" * 901: 1}, 1, None, [1], [{"a": 1}]]
)  # fmt: skip
def test_an_item_that_json_reads_otherwise_is_written_as_a_block(item):
    """Where JSON and YAML would differ, or a vector would be spelled out, the chunk is ordinary YAML."""
    body = dump({"a": Lines([{"b": 1}, item])}).removeprefix("a:\n")
    first, second = body.split("\n")[:2]
    assert (first, second[:3]) == ('- {"b": 1}', second[:3])
    assert not second.startswith("- {")
    assert exactly(load_items(body)) == exactly([{"b": 1}, item])


@pytest.mark.parametrize(
    "line",
    [
        '- {"a": 1e5}',
        '- {"a": 1.5e5}',
        '- {"a": NaN}',
        '- {"a": -Infinity}',
        '- {"a": 1} # seen twice',
        "- {a: 1}",
        "- {'a': 1}",
        '-  {"a": 1}',
        "- a: 1",
        '- {"a": "x\x85y"}',
        '- {"a": "x\u2028y"}',
        '- {"a": "x\n   y"}',
        '- {"a": [1,\n  2]}',
        '- {"a": 1}\n\n- {"a": 2}',
        '- {"a": 1}\n# more\n- {"a": 2}',
        '  - {"a": 1}\n  - {"b": 2}',
        '- {"a":1,"b":[true,null,-0,0.5,1.0e+5,"\\/ \\u00e9"]}',
        '- {"a": 1}\r\n- {"b": 2}\r',
        '- {"a": 1}\n- plain\n- [1, 2]',
        '- {"a": yes}',
        "[]",
    ],
)
def test_edited_lines_mean_what_they_mean_in_yaml(line):
    """A chunk that a person changed by hand replays as the YAML that it is."""
    for text in (line, line + "\n"):
        assert exactly(load_items(text)) == exactly(load(text)) == exactly(load_items(text.encode()))


@pytest.mark.parametrize(
    "text", ['- {"a": 1, "a": 2}', "a: 1\na: 2", '- {"a": "\\ud83d\\ude00"}', '- {"a": "\\uD800"}', '- {"a": 1}, {"b": 2}', '- {"a": 1', "", "a: 1", '- {"a": "\x7f"}', '- {"a": 1}\n  {"b": 1}', 'a: {"b": 1}', b'- {"a": "\xff"}', '- {"a": 1}\n{}', "- {}\n''", '- {"a": 1}\n--- {"b": 1}']
)  # fmt: skip
def test_broken_lines_are_an_error(text):
    """Lines that are no YAML list are never read as something else."""
    with pytest.raises(yaml.YAMLError):
        load_items(text)


def test_lines_of_json_are_read_as_json(monkeypatch):
    """A stream of many mappings does not wait for the YAML parser."""
    chunks = [
        {"choices": [{"delta": {"content": f"ü🐐\x00\u2028 {i}"}, "p": i / 7, "q": 1e-9}]} for i in range(50)
    ]
    chunks[25:25] = [" a", "b\n"]
    body = dump({"chunks": Lines(chunks)}).removeprefix("chunks:\n")
    parsed = []
    monkeypatch.setattr(yaml_reader, "load", lambda text: parsed.append(text) or load(text))
    assert load_items(body) == chunks
    assert parsed == ["- ' a'\n- \"b\\n\"\n"]


@pytest.mark.parametrize("text", ["", "\n", "is", " is", "123", "1.5", "true", "null", "~", "- x", "x: y", "#", "'", '"', "---", "...", "!", "&a", "*a", "{", "[x]", "?", "|", ">", "%", "@", "`", "\t", "a\nb", " \n ", "🐐", "\u2028", "\x00", "\x7f", "\ud83d", "2026-11-23", "0x1F", "1_000", "1:30", "=", "<<"])  # fmt: skip
def test_a_piece_of_text_stands_in_one_line_and_stays_text(text):
    """Whatever a model writes, any YAML loader reads it as that text, and no line ends in whitespace."""
    body = dump({"a": Lines([{"b": 1}, text, text])}).removeprefix("a:\n")
    assert body.count("\n") == 3
    assert not any(line[-1:].isspace() for line in body.split("\n"))
    assert load_items(body) == [{"b": 1}, text, text]
    if text != "\ud83d":  # which has a tag
        assert yaml.safe_load(body) == [{"b": 1}, text, text]


@pytest.mark.parametrize(
    "text",
    [
        "a: [1",
        "a: 1\n b: 2",
        "a: 1\n--- \nb: 2",
        "a: !f32 AAA=",
        "a: !f32 ABC",
        "a: !f64 AAAAAAA=",
        "a: !bytes 'AA%%AA'",
        "a: !f32 'AAAA%AA=='",
        "a: !nan 7ff8",
        "a: !nan xyz",
        "a: !bytes [1]",
        "a: !!int ''",
        "a: !!int x",
        "a: 0x_",
        "a: !!bool maybe",
        "a: !!str [1]",
        "a: !!map x",
        "a: !!seq {}",
        "a: !!python/name:os.system ''",
        "a: !unknown x",
        "? [1, 2]\n: 3",
        "? {a: 1}\n: 3",
        "a: " + "9" * 5000,
        "a: &x [*x]",
        "a: *x",
        "a: \ud800",
        "a: \x00",
        b"a: \xff",
        "[" * 5000,
    ],
)
def test_bad_text_is_a_yaml_error(text):
    """Whatever a damaged cassette holds, its reader gets one kind of error."""
    with pytest.raises(yaml.YAMLError):
        load(text)


def test_an_error_knows_its_line():
    """A damaged vector in a long cassette is found by its line."""
    with pytest.raises(yaml.MarkedYAMLError) as error:
        load("a: 1\nb:\n  c: !f32 AAA=\n")
    assert error.value.problem_mark.line == 2
    assert "!f32" in str(error.value)


def test_text_written_by_hand_is_read_as_yaml():
    """Comments and octal numbers in an edited cassette mean what YAML says; dates are text."""
    text = "# note\na: [010, 0x1F, 1_000, 1:30, .5, yes, ~, 2026-11-23]\n'<<': {c: 1}\n"
    expected = [8, 31, 1000, 90, 0.5, True, None, "2026-11-23"]
    assert load(text) == {"a": expected, "<<": {"c": 1}}
    assert load("") is None


BOMB = "a0: &a0 x\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (BOMB, 0),
        ("a: 1\nb: &x 1\nc: *x\n", 1),
        ("a: 1\nb:\n  - &x {c: d}\n", 2),
        ("a: 1\n? &x b\n: c\n", 1),
        ("a:\n- !!str &x b\n", 1),
        ('a: {"b":&x c}\n', 0),
        ("a: &é x\nb: &x y\n", 0),
        ("a: 1\nb: *x\n", 1),
        ("a: &x [*x]\n", 0),
        ("a: 1\n<<: {b: 2}\n", 1),
        ("a: 1\nb:\n  ? <<\n  : {c: d}\n", 2),
        ("a: {<<: {b: c}}\n", 0),
        ("&x a: 1\n", 0),
    ],
)
def test_anchors_aliases_and_merge_keys_are_refused(text, line):
    """A few hundred bytes cannot become more data than a machine holds, nor one place change another."""
    for form in (text, text.encode()):
        with pytest.raises(yaml.MarkedYAMLError) as refused:
            load(form)
        assert refused.value.problem_mark.line == line


@pytest.mark.parametrize(
    "text",
    [
        "a &b",
        "R&D",
        "Q & A",
        "*a*\n**b**\n &c\n<<<\n",
        "&amp; &lt;p&gt; <<: x",
        "<<",
        "&a",
        "*a",
        "cat <<EOF",
    ],
)
def test_texts_with_their_marks_are_texts(text):
    """Shell scripts, HTML and Markdown hold no anchors."""
    assert_survives({"a": text, text: [{"b": text + "\nx\n"}]})
    lines = [{"a": text}]
    assert load_items(dump({"a": Lines(lines)}).removeprefix("a:\n")) == lines


def test_writing_does_not_change_what_is_written():
    """The caller's data is the caller's: it is the same after it was stored."""
    before = repr(INTERACTION)
    assert dump(INTERACTION) == dump(INTERACTION)
    assert repr(INTERACTION) == before


def test_the_module_starts_without_yaml():
    """Starting pytest with the plugin does not pay for a YAML library."""
    import subprocess

    code = "import sys, pytest_lmcache.cassette.yaml_reader; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
