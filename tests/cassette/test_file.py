"""The cassette file: what is in it is found by its key, what is broken is told and never touched."""

import errno
import json
import os
import re
import stat
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
import yaml
from helpers import (
    EXACT,
    GOLDEN,
    WHEN,
    call,
    contents,
    fields_of,
    interaction,
    record,
    reply,
    stream,
    tagged,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_lmcache.cassette import document, file, yaml_reader
from pytest_lmcache.cassette.document import entry_of
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.cassette.merge import CallToSave
from pytest_lmcache.cassette.names import own_cassette
from pytest_lmcache.errors import CassetteError
from pytest_lmcache.interaction import Answer, Call, Interaction, Kind
from pytest_lmcache.keys.strategies import strategy


@pytest.fixture
def path(tmp_path):
    return tmp_path / "test_x.yaml"


@pytest.fixture
def three(path):
    record(path, interaction("a", "A"), interaction("b", "B"), interaction("c", "C"))
    return path


# ---- what is in it, and finding it ---------------------------------------------------------------------


def test_a_cassette_reads_as_one_document_per_interaction(path):
    """A reviewer sees the question, the answer, when and how long, in this order and nothing else."""
    record(
        path, interaction(call("Who?\nOne line."), Answer(Kind.RESPONSE, {"id": "x"}, seconds=3.84, usd=1e-5))
    )
    key = EXACT.key(call("Who?\nOne line."))
    assert path.read_text() == (
        "# a comment\n"
        "lmcache: 1\n"
        "key: exact/1\n"
        "--- # 1\n"
        f"key: {key}\n"
        "call: completion\n"
        "request:\n"
        "  model: openai/m\n"
        "  messages:\n"
        "  - role: user\n"
        "    content: |-\n"
        "      Who?\n"
        "      One line.\n"
        "response:\n"
        "  id: x\n"
        "recorded: 2026-11-23T09:12:44Z\n"
        "usd: 1.0e-05\n"
        "seconds: 3.840\n"
    )


def test_an_answer_is_found_by_the_key_of_its_call(three):
    """Each call gets its own answer, and a call that was never recorded gets none."""
    cassette = Cassette(three, EXACT)
    for asked, answer in (("a", "A"), ("b", "B"), ("c", "C")):
        (found,) = cassette.answers(EXACT.key(call(asked)))
        assert found.answer() == reply(answer)
        assert found.interaction() == interaction(asked, answer)
        assert found.call() == call(asked)
    assert not cassette.answers(EXACT.key(call("d")))


def test_answers_of_one_key_stay_in_order(path):
    """The n-th identical call gets the n-th answer."""
    record(path, *(interaction("same", f"answer {number}") for number in range(5)))
    found = Cassette(path, EXACT).answers(EXACT.key(call("same")))
    assert [entry.answer() for entry in found] == [reply(f"answer {number}") for number in range(5)]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(Kind.RESPONSE, {"id": "x", "embedding": [0.1] * 20}, hidden={"usage": {"n": 1}}, usd=0.25),
        stream("He", "llo"),
        stream("He", complete=False),
        stream(),
        stream(complete=False),
        stream("He", error={"class": "litellm.APIError", "message": "--- gone"}),
        stream(error={"class": "litellm.APIError", "message": "at once"}),
        Answer(Kind.STREAM, [{"same": 1}, {"same": 1}]),
        Answer(Kind.STREAM, [{"zero": 0.0}, {"zero": -0.0}]),
        Answer(Kind.STREAM, [{"bytes": "event: x\ndata: {}\n\n"}, {"raw": b"\xff"}, {"bytes": "\n"}]),
        Answer(Kind.STREAM, [{"text": "\ud800"}, "chunks:\nresponse:\n"]),
        Answer(Kind.ERROR, {"class": "litellm.BadRequestError", "message": "no", "status_code": 400}),
        Answer(Kind.RESPONSE, {}),
    ],
)
def test_every_kind_of_answer_comes_back_as_it_was(path, answer):
    """Responses, streams (empty, left early, broken, of bytes) and errors survive the file."""
    record(path, interaction("before", "B"), interaction("it", answer), interaction("after", "A"))
    found = Cassette(path, EXACT).entries[1]
    assert repr(found.answer()) == repr(answer)
    assert repr(found.interaction()) == repr(interaction("it", answer))
    assert Cassette(path, EXACT).entries[2].answer() == reply("A")


NASTY = [
    "--- ",
    "\n--- # 9\nkey: x\n",
    "\nresponse:\n",
    "\nchunks:\n- {}\n",
    "\nseconds: 1\n",
    "<<<<<<< ",
    "key: y",
]
NASTY += [
    "\n<<<<<<< HEAD\n",
    "\r\n",
    "\x00",
    "\ud800",
    "\u2028",
    "\ufeff",
    " ",
    "\n",
    "x",
    "=======\n",
    "\n...\n",
]
nasty = st.lists(st.sampled_from(NASTY), max_size=6).map("".join) | st.text(max_size=8)
plain = st.recursive(
    nasty | st.integers() | st.floats() | st.booleans() | st.none() | st.binary(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(nasty, inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(nasty, plain, max_size=3)
answers = (
    st.tuples(mappings, st.none() | mappings.filter(bool)).map(
        lambda given: Answer(Kind.RESPONSE, given[0], hidden=given[1])
    )
    | st.tuples(st.lists(mappings, max_size=4), st.none() | mappings, st.booleans()).map(
        lambda given: Answer(Kind.STREAM, given[0], error=given[1], complete=given[2])
    )
    | mappings.map(lambda data: Answer(Kind.ERROR, data))
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(mappings, answers), min_size=1, max_size=4))
def test_whatever_was_asked_and_answered_is_found_again(path, pairs):
    """No text, number or nesting in a call or an answer can confuse the file's structure."""
    path.unlink(missing_ok=True)
    calls = [Call("completion", {**request, "number": number}) for number, (request, _) in enumerate(pairs)]
    keys = [f"k{number}" for number in range(len(pairs))]
    made = [
        Interaction(key, asked, answer, WHEN)
        for key, asked, (_, answer) in zip(keys, calls, pairs, strict=True)
    ]
    record(path, *made)
    cassette = Cassette(path, EXACT)
    assert [entry.key for entry in cassette.entries] == keys
    for each in made:
        (found,) = cassette.answers(each.key)
        assert repr(_sorted(found.interaction())) == repr(_sorted(each))


def _sorted(each):
    def plain_of(value):
        if isinstance(value, dict):
            return sorted(((repr(name), plain_of(item)) for name, item in value.items()), key=repr)
        return [plain_of(item) for item in value] if isinstance(value, list) else value

    answer = each.answer
    parts = (answer.data, answer.error, answer.hidden, each.call.request)
    return each.key, answer.kind, answer.complete, answer.seconds, *map(plain_of, parts)


def test_one_answer_is_read_without_parsing_the_others(path, monkeypatch):
    """A cassette of 500 answers costs a test that asks one of them one document's parsing."""
    record(path, *(interaction(f"question {number}", f"answer {number}") for number in range(500)))
    parsed = []
    load = yaml_reader.load
    monkeypatch.setattr(yaml_reader, "load", lambda text: parsed.append(text) or load(text))
    cassette = Cassette(path, EXACT)
    header = sum(map(len, parsed))
    (found,) = cassette.answers(EXACT.key(call("question 250")))
    assert found.answer() == reply("answer 250")
    assert header < 50
    assert sum(map(len, parsed)) - header < 400
    assert not any(b"question" in text for text in parsed)


# ---- for ever -------------------------------------------------------------------------------------------


# As 0.1.0 wrote them; the folders hold the same interactions in format 1 as it was written last, and in format 2.
@pytest.mark.parametrize("folder", ["", "format1", "format2"])
@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.stem)
def test_cassettes_of_all_formats_stay_readable(golden, folder):
    """What was recorded once reads the same for ever: the files in golden never change."""
    known = json.loads(golden.with_suffix(".json").read_text())
    entries = Cassette(golden.parent / folder / golden.name, EXACT).entries
    assert [tagged(fields_of(entry.interaction())) for entry in entries] == known
    assert [EXACT.key(entry.call()) for entry in entries] == [entry.stored_key() for entry in entries]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.stem)
def test_this_format_is_written_as_ever(golden, path):
    """The same interactions give the same bytes: a new release leaves nobody's `git diff` full."""
    entries = Cassette(golden, EXACT).entries
    comment = [line[2:] for line in golden.read_text().splitlines() if line.startswith("# ")][:2]
    record(path, *(entry.interaction() for entry in entries), comment=[each for each in comment if each])
    assert path.read_bytes() == golden.with_name("format2").joinpath(golden.name).read_bytes()


def test_golden_cassettes_are_there():
    """Calls of every kind and values of every kind are kept."""
    assert {golden.stem: len(Cassette(golden, EXACT).entries) for golden in GOLDEN} == {
        "calls": 15,
        "values": 5,
    }


# ---- keys ----------------------------------------------------------------------------------------------


def test_another_strategy_needs_no_new_recording(three):
    """A cassette recorded under one strategy answers under any other: keys are taken from the stored calls."""
    content = strategy("content")
    other = call("b", temperature=0.5)
    assert not Cassette(three, EXACT).answers(EXACT.key(other))
    (found,) = Cassette(three, content).answers(content.key(other))
    assert found.answer() == reply("B")


def test_keys_of_the_headers_strategy_are_trusted_and_others_are_not(three):
    """`key:` is an index: valid for the header's strategy and version, taken anew for every other."""
    key = EXACT.key(call("b"))
    three.write_text(three.read_text().replace(key, "kwrong"))
    assert Cassette(three, EXACT).answers("kwrong")
    assert not Cassette(three, EXACT).answers(key)
    three.write_text(three.read_text().replace("key: exact/1", "key: exact/0"))
    assert Cassette(three, EXACT).answers(key)
    three.write_text(three.read_text().replace("key: exact/0\n", ""))
    assert Cassette(three, EXACT).answers(key)


def test_an_own_functions_keys_are_always_taken_anew(path):
    """An own key function may have changed since: what it gives today decides."""
    version = ["1"]

    def own(request):
        return version[0] + request["messages"][0]["content"]

    keys = strategy(own)
    record(path, interaction("a", "A", keys), keys=keys)
    version[0] = "2"
    assert Cassette(path, keys).answers(keys.key(call("a")))


def test_saving_under_another_strategy_brings_every_key_up_to_date(three):
    """After recording more under a new strategy, the file's keys are that strategy's, and need no parsing."""
    keys = strategy("messages")
    assert record(three, interaction("d", "D", keys), keys=keys, keep_unused=True)
    assert f"key: {keys.name}\n" in three.read_text()
    assert [entry.stored_key() for entry in Cassette(three, keys).entries] == [
        keys.key(call(text)) for text in "abcd"
    ]


@pytest.mark.parametrize("written", ["{}", "{}  ", "'{}'", '"{}" # seen', "{} # seen", " {}"])
def test_a_key_may_be_written_in_any_way_yaml_allows(three, written):
    """A key that an editor quoted or commented is still the key."""
    key = EXACT.key(call("b"))
    three.write_text(three.read_text().replace(f"key: {key}", f"key: {written.format(key)}"))
    assert Cassette(three, EXACT).answers(key)


# ---- files that are not as they should be --------------------------------------------------------------


def refuses(path, line, *words):
    """The file is refused by name and line, by reading and by writing, and stays as it is."""
    before = path.read_bytes()
    for attempt in (
        lambda: Cassette(path, EXACT),
        lambda: record(path, interaction("new", "N"), rewrite=True),
    ):
        with pytest.raises(CassetteError) as refused:
            attempt()
        message = str(refused.value)
        assert message.startswith(f"{path}:{line}: "), message
        assert all(word in message for word in words), message
        assert "pytest --lm-record" in message or "pip install" in message
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_no_file_is_an_empty_cassette(path):
    """Before the first recording there is no file, and reading makes none."""
    cassette = Cassette(path, EXACT)
    assert not cassette.exists
    assert not cassette.entries
    assert not path.exists()


def test_every_truncation_is_seen(path):
    """A file cut off at any byte holds whole interactions only, or is refused; it never counts as empty."""
    record(path, interaction("a\n\nb", stream("x", "--- y")), interaction("c", "C\nD"), interaction("e", "E"))
    whole = path.read_bytes()
    answers = [entry.answer() for entry in Cassette(path, EXACT).entries]
    read = 0
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        try:
            cassette = Cassette(path, EXACT)
        except CassetteError as refused:
            assert str(path) in str(refused)
        else:
            read += 1
            assert whole[end:].removeprefix(b"\n").startswith(b"--- # ") or whole[end:] == b"\n"
            assert [entry.answer() for entry in cassette.entries] == answers[: len(cassette.entries)]
            assert cassette.entries
    assert read == 5, "of each interaction, with the last line's end and without; of the last one without"


def test_the_line_of_a_cut_is_told(three):
    """The message of a truncated file names the document that is cut off."""
    text = three.read_text()
    three.write_text(text[: text.index("recorded:", text.index("# 3"))])
    refuses(three, text[: text.index("# 3")].count("\n") + 2, "cut off", "seconds")


def test_one_broken_document_spoils_no_other(three):
    """The other interactions of the file still answer; the broken one names its file and line."""
    lines = three.read_text().split("\n")
    place = next(number for number, line in enumerate(lines) if line.endswith("chatcmpl-B-1"))
    lines[place] = "  id: [not closed"
    three.write_text("\n".join(lines))
    cassette = Cassette(three, EXACT)
    assert cassette.answers(EXACT.key(call("a")))[0].answer() == reply("A")
    assert cassette.answers(EXACT.key(call("c")))[0].answer() == reply("C")
    with pytest.raises(CassetteError, match="not readable YAML") as broken:
        cassette.answers(EXACT.key(call("b")))[0].answer()
    told = int(str(broken.value).removeprefix(f"{three}:").partition(":")[0])
    assert told - (place + 1) in {0, 1}  # libyaml sees it where the next line begins


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("recorded: ", "written: ", "recorded"),
        ("seconds: 1.500", "seconds: soon", "seconds"),
        ("seconds: 1.500", "seconds: true", "seconds"),
        ("response:", "respond:", "response"),
        ("response:", "error: 5\nresponse2:", "error"),
        ("response:", "response: 5\nrest:", "response"),
        ("response:", "chunks: 5\nrest:", "chunks"),
        ("response:", "chunks:\n- 5\nrest:", "chunks"),
        ("response:", "shared: 5\nchunks:\n- {}\nrest:", "shared"),
        ("response:", "chunks: []\nresponse:", "one of"),
        ("recorded: ", "usd: cheap\nrecorded: ", "usd"),
        ("  created: 1700000001", "  created: 1\n  created: 2", "twice"),
        ("recorded: ", "response: {}\nrecorded: ", "twice"),
    ],
)
def test_an_answer_that_lacks_a_field_or_has_a_wrong_one_says_so(path, old, new, problem):
    """A hand-made or badly merged interaction is an error that names the field, never half an answer."""
    record(path, interaction("a", "A"))
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(CassetteError, match=problem) as broken:
        Cassette(path, EXACT).entries[0].answer()
    assert str(broken.value).startswith(f"{path}:")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("call: completion", "name: completion", "call"),
        ("call: completion", "call: 5", "call"),
        ("request:", "asked:", "request"),
        ("request:", "request: 5\nrest:", "request"),
        ("request:", "request: {}\nrequest:", "twice"),
    ],
)
def test_a_question_that_lacks_a_field_says_so_when_it_is_needed(path, old, new, problem):
    """Another strategy needs the stored question: one that is not there is an error, not another key."""
    record(path, interaction("a", "A"))
    text = path.read_text()
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(CassetteError, match=problem):
        Cassette(path, strategy("content"))
    with pytest.raises(CassetteError, match=problem):
        Cassette(path, EXACT).entries[0].interaction()


@pytest.mark.parametrize("key", ["key:", "key: 5", "key: []", "key: [", "nokey: x"])
def test_an_interaction_without_a_key_is_refused(three, key):
    """Without its key nobody knows which call an interaction answers."""
    text = three.read_text()
    line = f"key: {EXACT.key(call('b'))}"
    three.write_text(text.replace(line, key))
    found = text[: text.index(line)].count("\n") + 1
    with pytest.raises(CassetteError) as refused:
        Cassette(three, EXACT)
    assert int(str(refused.value).removeprefix(f"{three}:").partition(":")[0]) in {found, found + 1}


@pytest.mark.parametrize("where", ["# a comment", "--- # 2", "call: ", "  model: ", "seconds: "])
@pytest.mark.parametrize(
    "marks", [("<<<<<<< HEAD", "=======", ">>>>>>> x"), ("<<<<<<< HEAD", "||||||| o", "=======")]
)
def test_a_merge_conflict_is_told_by_its_line(three, where, marks):
    """Git's marks anywhere in the file are named for what they are."""
    text = three.read_text()
    at = text.index(where)
    three.write_text(text[:at] + "\n".join(marks) + "\n" + text[at:])
    refuses(three, text[:at].count("\n") + 1, "merge conflict")


def test_a_mark_that_a_merge_left_behind_is_told(three):
    """A lone `=======` that somebody forgot to delete is a conflict too, where its document is read."""
    three.write_text(three.read_text().replace("response:", "=======\nresponse:", 1))
    entry = Cassette(three, EXACT).entries[0]
    with pytest.raises(CassetteError, match="merge conflict"):
        entry.interaction()


@pytest.mark.parametrize("version", ["3", "10 # new"])
def test_a_newer_format_asks_for_a_newer_package(path, version):
    """A cassette of a later release is told so, whatever else has changed in it."""
    path.write_text(f"# made later\nlmcache: {version}\n{{{{ all is new\n")
    refuses(path, 2, f"format {int(version[:2])}", "pip install -U pytest-lmcache")


@pytest.mark.parametrize("version", ["0", "one", "1.5", "-1", "true", "[1]", "'1'", ""])
def test_a_format_that_never_was_is_refused(three, version):
    """A header that somebody garbled does not count as this format."""
    three.write_text(three.read_text().replace("lmcache: 1", f"lmcache: {version}"))
    refuses(three, 1, "format")


@pytest.mark.parametrize(
    "content",
    [
        b"interactions:\n- request:\n    uri: http://x\nversion: 1\n",
        b"just text\n",
        b"[1, 2]\n",
        b'{"a": 1}',
        b"\x00\x01\x02",
        b"\xff\xfe\x00",
        b"key: exact/1\n--- # 1\nkey: k1\nseconds: 1\n",
        b" lmcache : 2\n",
        b"\n",
    ],
)
def test_a_file_of_another_program_is_refused(path, content):
    """Only a cassette is read as one: a vcr file, a text, anything else is left alone."""
    path.write_bytes(content)
    refuses(path, 1, "not a pytest-lmcache cassette" if content != b" lmcache : 2\n" else "format")


def test_an_empty_file_is_refused(path):
    """A file of 0 bytes is a fault of a disk or a merge, not a cassette without answers."""
    path.write_bytes(b"")
    refuses(path, 1, "empty")


def test_a_header_alone_is_refused(three):
    """A cassette without any interaction is never written, so it is a cut-off one."""
    three.write_text(three.read_text().partition("--- ")[0])
    refuses(three, 1, "cut off")


def test_a_folder_in_the_files_place_is_told(path):
    """What cannot be read as a file is an error of its own."""
    path.mkdir()
    with pytest.raises(CassetteError, match=r"is a folder; a cassette is a file"):
        Cassette(path, EXACT)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    """Where no file can be written the test is told which, and why."""
    (tmp_path / "cassettes").write_text("a file")
    path = tmp_path / "cassettes" / "test_x.yaml"
    assert not Cassette(path, EXACT).exists
    with pytest.raises(CassetteError, match=r"test_x.yaml cannot be written"):
        record(path, interaction("a", "A"))


@pytest.mark.parametrize("change", ["crlf", "bom", "both"])
def test_other_line_ends_and_a_byte_order_mark_change_nothing(three, change):
    """A cassette that git or an editor on another system has converted answers as before."""
    before = [entry.interaction() for entry in Cassette(three, EXACT).entries]
    data = three.read_bytes().removeprefix(b"# a comment\n")
    data = data.replace(b"\n", b"\r\n") if change != "bom" else data
    three.write_bytes(b"\xef\xbb\xbf" + data if change != "crlf" else data)
    assert [entry.interaction() for entry in Cassette(three, EXACT).entries] == before


def test_bare_separators_and_comments_are_taken(three):
    """A formatter or a person may write `---` alone, comments and empty lines."""
    text = three.read_text().replace("--- # 2", "---").replace("--- # 3", "--- # 3\n# the last\n")
    three.write_text(text + "\n# end\n")
    assert contents(three) == ["A", "B", "C"]
    assert Cassette(three, EXACT).answers(EXACT.key(call("c")))


SEPARATORS = [
    "--- # 1", "---  # 1", "---\t# 1", "--- \t# 1", "--- #1", "---", "--- ", "---\t", "---# 1", "---1", "----",
    "--- {}", "--- {key: x}", "--- key: x", "--- |", "--- >", "--- 'x'", "--- !!map", "--- &a", "--- ?", "--- x",
    "...", "...\n--- # 1", "... # 1\n--- # 1", "...\n---", "...\n%YAML 1.2\n--- # 1", "...\n%TAG ! x\n---",
    "...\n# 1", "%YAML 1.2\n---", "\ufeff--- # 1", "--- # 1\n\ufeff", " --- # 1", "\t--- # 1", "-- # 1", "— # 1", "",
    "--- # 1\x85a: b", "--- # 1\u2028a: b", "--- # 1 \u2029a: b", "--- # é §\u2014\ufeff 漢字", "--- # 1\n# 1", "--- # 1\n# 2\n# 3",
    "---\n# 1", "--- # 1\n\n", "# c\n--- # 1", "--- # 1\n---", "---\n--- # 1", "--- # 1\n--- # 2", "a: b\n--- # 1",
    "--- # 1\na: b\n--- # 2", "--- # 1\nkey: x", "--- # 1\nlmcache: 1", "---\x0b# 1", "---\x0c", "---\xa0# 1", "---\u3000",
]  # fmt: skip


def read_by_yaml(path):
    """What PyYAML finds in a file beside its header, None where that is not YAML."""
    try:
        return list(yaml.safe_load_all(path.read_bytes()))[1:]
    except yaml.YAMLError:
        return None


def assert_nothing_is_unread(path):
    """Either all that YAML finds in the file is found, or the file is refused by name and line."""
    try:
        found = [entry.interaction() for entry in Cassette(path, EXACT).entries]
    except CassetteError as refused:
        assert re.match(re.escape(f"{path}:") + "[1-9]", str(refused))
        return False
    there = read_by_yaml(path)
    if there is None:  # libyaml takes no tab after `---`
        assert [each.answer for each in found] == [reply("A"), reply("B"), reply("C")]
        return True
    assert [(each.key, each.call.request, each.answer.data) for each in found] == [
        (each["key"], each["request"], each["response"]) for each in there
    ]
    return True


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_no_spelling_of_a_separator_hides_an_interaction(three, number, ends):
    """Nothing between the header and the end of the file is left unread, however it is set apart."""
    text = three.read_text()
    read = set()
    for separator in SEPARATORS:
        changed = text.replace(f"--- # {number}", separator).replace("\n", ends)
        three.write_bytes(changed.encode())
        if assert_nothing_is_unread(three):
            read.add(separator)
    assert read >= {"--- # 1", "---\t# 1", "---  # 1", "--- #1", "---", "--- ", "---\n# 1", "# c\n--- # 1"}


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from([*SEPARATORS, *" -.#%&*:\n"])), max_size=3))
def test_nothing_that_is_put_into_a_cassette_goes_unread(path, added):
    """Whatever somebody puts between two lines is read, or the file is refused."""
    path.unlink(missing_ok=True)
    record(path, interaction("a", "A"), interaction("b\n\nb", "B"), interaction("c", "C"))
    lines = path.read_text().split("\n")
    for at, what in added:
        lines.insert(at % len(lines), what)
    path.write_bytes("\n".join(lines).encode())
    assert_nothing_is_unread(path)


def test_a_key_of_a_stream_that_stands_twice_is_refused(path):
    """Of two lists of chunks neither is left out in silence."""
    record(path, interaction(call("a"), Answer(Kind.STREAM, [{"n": 1, "a": "x"}, {"n": 2, "a": "y"}])))
    text = path.read_text()
    chunks = text[text.index("chunks:\n") : text.index("recorded:")]
    path.write_text(text.replace("recorded:", f"left_early: false\n{chunks}recorded:"))
    with pytest.raises(CassetteError, match="is here twice"):
        Cassette(path, EXACT).entries[0].answer()


def test_a_miss_among_very_many_broken_interactions_takes_no_longer_than_reading_them(path):
    """The lines of a file are counted once, not once for each interaction that is broken."""
    record(path, *(interaction(f"q{number}", "A") for number in range(200)))
    path.write_bytes(path.read_bytes().replace(b"call: completion", b"call: ["))
    before = document.line_ends.cache_info().misses
    for entry in Cassette(path, EXACT).entries:
        with pytest.raises(CassetteError):
            entry.call()
    assert document.line_ends.cache_info().misses == before + 1


def test_a_file_without_the_end_of_its_last_line_is_whole(three):
    """Some editors take the last newline away; with one digit less the file would be cut off."""
    three.write_bytes(three.read_bytes().removesuffix(b"\n"))
    assert contents(three) == ["A", "B", "C"]
    assert record(three, interaction("d", "D"), rewrite=True, keep_unused=True)
    assert contents(three) == ["A", "B", "C", "D"]
    three.write_bytes(three.read_bytes()[:-2])
    with pytest.raises(CassetteError, match="cut off"):
        Cassette(three, EXACT)


def test_a_remark_in_front_of_the_chunks_is_taken(path):
    """A stream reads as it did where a person wrote a comment among its chunks."""
    record(path, interaction(call("a"), Answer(Kind.STREAM, [{"n": 1, "a": "x"}, {"n": 2, "a": "y"}])))
    before = Cassette(path, EXACT).entries[0].answer()
    text = path.read_text().replace("chunks:\n", "chunks:\n# as it came\n")
    path.write_text(text.replace("\nrecorded:", "\n# no more\nrecorded:"))
    assert Cassette(path, EXACT).entries[0].answer() == before


# ---- writing -------------------------------------------------------------------------------------------


def test_remarks_above_the_header_stay(three):
    """What a person wrote there is kept, and our own comment not doubled."""
    three.write_text("# seen by Ann\n" + three.read_text())
    for name in "de":
        record(three, interaction(name, name), comment=["pytest-lmcache cassette of x", "record again: x"])
    assert three.read_text().splitlines()[:5] == [
        "# pytest-lmcache cassette of x",
        "# record again: x",
        "# seen by Ann",
        "# a comment",
        "lmcache: 1",
    ]


def test_a_file_keeps_its_permissions(three):
    """A file that only its owner may read is one afterwards."""
    three.chmod(0o600)
    assert record(three, interaction("d", "D"))
    assert three.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_read_only_is_left_alone(three, monkeypatch):
    """It was made so on purpose: an error, not a new file in its place."""
    before = three.read_bytes()
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != three)  # root may write all
    for rewritten in ([interaction("d", "D")], []):
        with pytest.raises(CassetteError, match="cannot be written: Permission denied"):
            record(three, *rewritten, rewrite=True)
    assert three.read_bytes() == before
    assert [path.name for path in three.parent.iterdir()] == [three.name]


def test_recording_never_replaces_what_is_there(three):
    """Where another process recorded the same call meanwhile, the file's answer stays."""
    before = three.read_bytes()
    assert not record(three, interaction("b", "another B"), keep_unused=True)
    assert three.read_bytes() == before


def test_a_rewrite_replaces_what_changed_and_drops_what_is_no_longer_asked(three):
    """After `--lm-rewrite` the file holds what the test asks now, each answer in the place of an old one."""
    assert record(
        three, interaction("c", "C"), interaction("new", "N"), interaction("b", "changed"), rewrite=True
    )
    assert contents(three) == ["N", "changed", "C"]


def test_a_rewrite_that_asks_nothing_leaves_no_file(three):
    """A test that makes no calls any more has no cassette; the next replay then says so if it does."""
    assert record(three, rewrite=True)
    assert list(three.parent.iterdir()) == []
    assert not record(three, rewrite=True)


def test_a_rewrite_of_a_shared_file_touches_only_what_the_test_asked(three):
    """Several tests share the file: one of them never drops or moves the others' answers."""
    assert record(three, interaction("new", "N"), interaction("b", "changed"), rewrite=True, keep_unused=True)
    assert contents(three) == ["A", "N", "changed", "C"]


@pytest.mark.parametrize("keep_unused", [True, False])
def test_a_rewrite_with_the_same_answers_leaves_the_file_alone(three, keep_unused):
    """New ids, times and fingerprints alone are no change: not a byte, not even the file's time."""
    before = three.read_bytes()
    os.utime(three, (1, 1))
    again = [interaction(text, reply(text.upper(), run=2)) for text in "cab"]
    assert not record(three, *again, rewrite=True, keep_unused=keep_unused)
    assert three.read_bytes() == before
    assert three.stat().st_mtime == 1


def test_a_rewrite_with_the_same_answers_needs_no_writable_folder(three, monkeypatch):
    """Nothing is to be written, so no lock is needed; what changed still is an error that says why."""
    really = os.open

    def read_only(path, flags, *args, **kwargs):
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return really(path, flags, *args, **kwargs)

    monkeypatch.setattr("os.open", read_only)  # root may write all
    again = [interaction(text, reply(text.upper(), run=2)) for text in "abc"]
    assert not record(three, *again, rewrite=True)
    with pytest.raises(CassetteError, match="cannot be written: Permission denied"):
        record(three, interaction("a", "changed"), rewrite=True)


def test_a_rewrite_changes_only_the_answers_that_changed(three):
    """A reviewer's diff shows the one answer that is new, not every id."""
    before = three.read_text().split("--- ")
    record(
        three,
        interaction("a", reply("A", run=2)),
        interaction("b", reply("changed", run=2)),
        interaction("c", reply("C", run=2)),
        rewrite=True,
    )
    after = three.read_text().split("--- ")
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, False, True]


def test_server_sent_events_in_other_pieces_are_the_same_answer(path):
    """The network cuts an Anthropic stream anew each time: that alone rewrites nothing."""

    def events(run, cut, text="hi"):
        whole = (
            f'event: message_start\ndata: {{"message": {{"id": "msg_{run}"}}}}\n\n'
            f'event: delta\ndata: {{"text": "{text}"}}\n\n'
        )
        return Answer(Kind.STREAM, [{"bytes": whole[:cut]}, {"bytes": whole[cut:]}])

    record(path, interaction("a", events(1, 40)))
    before = path.read_bytes()
    assert not record(path, interaction("a", events(2, 50)), rewrite=True)
    assert path.read_bytes() == before
    assert record(path, interaction("a", events(2, 50, "ho")), rewrite=True)


def test_a_stream_that_is_now_read_to_its_end_is_another_answer(path):
    """The same chunks without the mark that the test left there replace those with it."""
    record(path, interaction("a", stream("He", "llo", complete=False)))
    assert record(path, interaction("a", stream("He", "llo")), rewrite=True)
    assert Cassette(path, EXACT).entries[0].answer().complete


def tool_run(run, last="sunny", keys=None):
    """Two calls of an agent: the first answer's tool call id goes on into the second question."""
    keys = keys or strategy("exact", ["tool_call_id"])
    called = {"id": f"call_{run:024d}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    second = call("weather?")
    second.request["messages"].append({"role": "tool", "tool_call_id": called["id"], "content": "20"})
    return [
        interaction("weather?", reply("", run=run, tool_calls=[called]), keys),
        interaction(second, reply(last, run=run), keys),
    ]


def test_ids_that_went_on_into_a_question_stay_of_one_run(path):
    """A file never holds the tool call id of one run beside a question with that of another."""
    keys = strategy("exact", ["tool_call_id"])
    record(path, *tool_run(1), keys=keys)
    before = path.read_bytes()
    assert not record(path, *tool_run(2), keys=keys, rewrite=True)
    assert path.read_bytes() == before
    assert record(path, *tool_run(3, last="rain"), keys=keys, rewrite=True)
    text = path.read_text()
    assert text.count(f"call_{3:024d}") == 2
    assert f"call_{1:024d}" not in text


def test_ids_that_change_a_key_change_nothing_else(path):
    """Under `exact` a new tool call id is a new question: where all else is the same, the file is left alone."""
    record(path, *tool_run(1, keys=EXACT))
    before = path.read_bytes()
    assert not record(path, *tool_run(2, keys=EXACT), rewrite=True)
    assert path.read_bytes() == before


def test_ids_that_change_a_key_are_of_the_new_run(path):
    """Where an answer changed, the answer that made the new tool call id is replaced with it."""
    record(path, *tool_run(1, keys=EXACT))
    assert record(path, *tool_run(2, last="rain", keys=EXACT), rewrite=True)
    text = path.read_text()
    assert text.count(f"call_{2:024d}") == 2
    assert f"call_{1:024d}" not in text


def parallel_run(first, second, *results, other=""):
    """An answer that calls two tools, and the question that gives their results back, in its own order."""
    tools = [
        {"id": ident, "function": {"name": name, "arguments": "{}"}}
        for ident, name in zip((first, second), "fg", strict=True)
    ]
    asked = call("both?")
    asked.request["messages"] += [
        {"role": "tool", "tool_call_id": ident, "content": content} for ident, content in results
    ]
    said = [interaction("both?", reply("", run=ord(first[0]), tool_calls=tools)), interaction(asked, "done")]
    return [*said, interaction(call(other), "noted")] if other else said


OLD = parallel_run("a1", "a2", ("a1", "20"), ("a2", "30"))


@pytest.mark.parametrize(
    ("new", "kept"),
    [
        (parallel_run("b1", "b2", ("b1", "20"), ("b2", "30")), True),
        (parallel_run("a2", "a1", ("a2", "20"), ("a1", "30")), True),  # the same ids, dealt the other way
        (parallel_run("b1", "b2", ("b2", "20"), ("b1", "30")), False),  # a result of the other tool
        (parallel_run("b1", "b1", ("b1", "20"), ("b1", "30")), False),  # two ids have become one
        (parallel_run("b1", "b2", ("b1", "20"), ("x", "30")), False),  # an id that no answer gave
        (
            parallel_run("b1", "b2", ("a1", "20"), ("a2", "30")),
            True,
        ),  # ids of the test's own: the questions are as they were
        (parallel_run("b1", "b2", ("b1", "20"), ("b2", "31")), False),  # the tool said something else
        (parallel_run("b1", "b2", ("b1", "20"), ("b2", "30"), other="b1"), False),  # one call more
        (OLD[:1], False),  # one less
    ],
)
def test_ids_stand_for_one_another_all_over_a_file(path, new, kept):
    """A file is kept only if each new identifier is one of the file's, wherever both stand."""
    record(path, *OLD)
    before = path.read_bytes()
    assert record(path, *new, rewrite=True) is not kept
    assert (path.read_bytes() == before) is kept
    if not kept:
        assert [entry.key for entry in Cassette(path, EXACT).entries] == [each.key for each in new]


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        (
            lambda ident: {"output": [{"type": "function_call", "id": f"fc{ident}", "call_id": ident}]},
            lambda ident: {"type": "function_call_output", "call_id": ident, "output": "20"},
        ),
        (
            lambda ident: {"content": [{"type": "tool_use", "id": ident, "input": {"customer_id": "C-1"}}]},
            lambda ident: {"role": "user", "content": [{"type": "tool_result", "tool_use_id": ident}]},
        ),
        (
            lambda ident: {"tool_calls": [{"id": ident, "function": {"name": "f", "arguments": "{}"}}]},
            lambda ident: {"role": "assistant", "content": f"Calling tools:\n[{{'id': '{ident}', 'n': 1}}]"},
        ),
    ],
    ids=["responses", "messages", "within a text"],
)
def test_ids_of_other_apis_stand_for_one_another(path, said, answered):
    """The ids of `responses` and of Anthropic's messages go on under other names, those of agents within texts."""

    def run(ident):
        asked = call("go")
        asked.request["messages"].append(answered(ident))
        return [interaction("go", reply("", **said(ident))), interaction(asked, "done")]

    record(path, *run("one"))
    assert not record(path, *run("two"), rewrite=True)
    assert "two" not in path.read_text()


def test_agents_at_once_may_take_turns_in_another_order(path):
    """Two agents that run at once are the same run again, whichever of them asks its second question first."""

    def agent(name, ident):
        called = {"id": ident, "function": {"name": name, "arguments": "{}"}}
        asked = call(name)
        asked.request["messages"].append({"role": "tool", "tool_call_id": ident, "content": "20"})
        return [
            interaction(name, reply("", run=ord(ident[-1]), tool_calls=[called])),
            interaction(asked, f"{name} done"),
        ]

    (one, other), (then, last) = zip(agent("one", "call_a"), agent("two", "call_b"), strict=True)
    record(path, one, other, then, last)
    (one, other), (then, last) = zip(agent("one", "call_c"), agent("two", "call_d"), strict=True)
    assert not record(path, other, one, last, then, rewrite=True)
    assert not record(path, other, one, then, last, rewrite=True)


def test_a_shared_file_does_not_grow_by_new_ids(path):
    """In a file that tests share, one of them finds its own run again among the others'."""
    record(path, interaction("a", "A"), *OLD, interaction("c", "C"))
    before = path.read_bytes()
    again = parallel_run("d1", "d2", ("d1", "20"), ("d2", "30"))
    assert not record(path, *again, rewrite=True, keep_unused=True)
    assert path.read_bytes() == before
    assert record(path, *again, again[1], rewrite=True, keep_unused=True)  # asked once more: one answer more


def test_a_call_that_is_no_longer_asked_goes_with_its_ids(path):
    """A run that asks less than the file holds is no run of the file's, whatever the ids."""
    record(path, *OLD, interaction("c", "C"))
    assert record(path, *parallel_run("b1", "b2", ("b1", "20"), ("b2", "30")), rewrite=True)
    assert contents(path) == ["", "done"]


def test_an_id_in_what_a_model_says_to_a_tool_counts(path):
    """`customer_id` in a tool's input is the model's answer, not a provider's identifier."""
    first = reply("x", content=[{"type": "tool_use", "id": "t1", "input": {"customer_id": "C-1"}}])
    second = reply("x", run=2, content=[{"type": "tool_use", "id": "t2", "input": {"customer_id": "C-2"}}])
    record(path, interaction("a", first))
    assert record(path, interaction("a", second), rewrite=True)
    assert "C-2" in path.read_text()


def tool_loop(ident, *said, run, words="go"):
    """A question, answered by a tool call of this id, and the next one, which repeats the id and is asked each time."""
    calls = [{"id": ident, "function": {"name": "f", "arguments": "{}"}}]
    following = call(words)
    following.request["messages"].append({"role": "tool", "tool_call_id": ident, "content": "20"})
    answers = [interaction(following, reply(text, run=run + number)) for number, text in enumerate(said)]
    return [interaction(words, reply("", run=run, tool_calls=calls)), *answers]


def test_answers_of_a_tool_loop_that_changed_places_are_new(path):
    """The same question asked twice and answered the other way round is another run, whatever its ids."""
    record(path, *tool_loop("call_a", "yes", "no", run=1))
    assert not record(path, *tool_loop("call_b", "yes", "no", run=5), rewrite=True)
    assert record(path, *tool_loop("call_c", "no", "yes", run=9), rewrite=True)
    assert contents(path) == ["", "no", "yes"]


def test_an_id_as_short_as_a_word_is_no_id(path):
    """Where a provider counts 1, 2, 3 its id may be a word of the prompt, so the new run is kept."""
    record(path, *tool_loop("1", "fine", run=1))
    assert record(path, *tool_loop("2", "fine", run=5), rewrite=True)


@pytest.mark.parametrize(
    "broken", [("tool_call_id: call_z", "tool_call_id: [call_z"), ("content: theirs", "content: [theirs")]
)
def test_a_tool_loop_is_rewritten_beside_a_broken_interaction(path, broken):
    """In a file that tests share, what is broken of one stops no rewrite of another."""
    record(path, *tool_loop("call_z", "theirs", run=1, words="go"), *tool_loop("call_a", "ok", run=5))
    path.write_text(path.read_text().replace(*broken))
    assert record(path, *tool_loop("call_b", "other", run=9), rewrite=True, keep_unused=True)
    assert "other" in path.read_text()


def test_identical_calls_at_once_never_change_places(path):
    """Of two identical calls in threads either may be numbered first: the file keeps its order."""
    record(path, interaction("same", "first"), interaction("same", "second"))
    key = EXACT.key(call("same"))
    new = entry_of(interaction("new", "N"), path)
    Cassette(path, EXACT).save(
        [CallToSave(key, 1, None), CallToSave(key, 0, None), CallToSave(new.key, 0, new)],
        keep_unused=False,
        rewrite=False,
    )
    assert contents(path) == ["first", "second", "N"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(three, monkeypatch):
    """A full disk costs the new recording, never the old one, and leaves no litter."""
    before = three.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("write_bytes", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, full)
            with pytest.raises(CassetteError, match="cannot be written: No space left on device"):
                record(three, interaction("new", "N"))
        assert three.read_bytes() == before
        assert list(three.parent.iterdir()) == [three]
    assert record(three, interaction("new", "N"))


def test_the_file_is_never_seen_half_written(three, monkeypatch):
    """A reader beside the writer sees the old file or the new one."""
    before = three.read_bytes()
    seen = []
    write = Path.write_bytes

    def watched(self, data):
        written = write(self, data)
        seen.append(three.read_bytes())
        assert self.parent == three.parent
        return written

    monkeypatch.setattr(Path, "write_bytes", watched)
    record(three, interaction("new", "N"))
    assert seen == [before]


def test_the_files_mode_is_the_umasks(path):
    """Colleagues can read what was recorded: no private mode of a temporary file."""
    old = os.umask(0o027)
    try:
        record(path, interaction("a", "A"))
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_linked_cassette_stays_a_link(path, tmp_path):
    """A cassette that is a link is written where it leads."""
    target = tmp_path / "elsewhere" / "real.yaml"
    record(target, interaction("a", "A"))
    path.symlink_to(target)
    record(path, interaction("b", "B"), keep_unused=True)
    assert path.is_symlink()
    assert contents(target) == ["A", "B"]


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from helpers import *
path, who = Path(sys.argv[2]), sys.argv[3]
for number in range(15):
    record(path, interaction(f"{who} {number}", f"{who} {number}"), keep_unused=True)
"""


@pytest.mark.slow
def test_processes_that_write_at_once_lose_nothing(path, tmp_path_factory):
    """Processes may record into one shared cassette, whatever their temporary folder: all their answers are in it."""
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parents[1]), str(path)]
    writers = [
        subprocess.Popen([*command, who], env={**os.environ, "TMPDIR": str(tmp_path_factory.mktemp(who))})
        for who in ("x", "y", "z")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert sorted(contents(path)) == sorted(f"{who} {number}" for who in "xyz" for number in range(15))
    assert list(path.parent.iterdir()) == [path]


def test_threads_that_write_at_once_lose_nothing(path):
    """Two blocks in two threads may record into one file."""

    def write(who):
        for number in range(5):
            record(path, interaction(f"{who} {number}", f"{who} {number}"), keep_unused=True)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(contents(path)) == sorted(f"{who} {number}" for who in range(6) for number in range(5))


# ---- where it lies -------------------------------------------------------------------------------------

parts = st.text(
    st.characters(codec="utf-8") | st.sampled_from('./\\ %-:*?"<>|'), max_size=130
) | st.sampled_from(
    [
        "",
        ".",
        "..",
        " ",
        "a.",
        "con",
        "CON",
        "aux.x",
        "a/b",
        "../../x",
        "a" * 119,
        "a" * 120,
        "a" * 121,
        "%2E",
        "é" * 40,
    ]
)


@settings(deadline=None)
@given(parts, parts)
def test_two_names_never_share_a_file_and_none_leaves_the_folder(one, other):
    """Every test has its own file, inside the cassette folder, with a name that file systems take."""
    folder = Path("/cassettes")
    paths = [own_cassette(["tests"], part, folder) for part in (one, other)]
    assert (paths[0] == paths[1]) == (one == other)
    for path, part in zip(paths, (one, other), strict=True):
        assert Path(os.path.normpath(path)).parent == folder / "tests"
        assert path.name.isascii()
        assert len(path.name) <= 125
        assert not set(path.name) & set('/\\:*?"<>|')
        if "%-" not in path.name:
            assert unquote_to_bytes(path.name.removesuffix(".yaml").removesuffix("%")).decode() == part


def test_a_secret_in_a_parameter_is_in_no_file_name():
    """A well-known format is named by its kind; a hash keeps two tests apart. A name without one is untouched."""
    folder = Path("/cassettes")
    keys = [f"sk-proj-{letter}1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6" for letter in "ab"]
    paths = [own_cassette(["tests", "test_it"], f"test_key[{key}-x]", folder) for key in keys]
    assert paths[0] != paths[1]
    for path in paths:
        assert re.fullmatch(r"test_key\[redacted-openai-key-?x?\]%-[0-9a-f]{16}\.yaml", path.name)
    for plain in ("test_key[<redacted:openai-key>]", "TestPlan.test_ask[gpt-4o, 0.5]", "test_a[sk-1]"):
        assert "%-" not in own_cassette(["test_it"], plain, folder).name


def test_plain_names_stay_readable():
    """The names that tests have as a rule are those of their files."""
    found = own_cassette(["tests", "test_agent"], "TestPlan.test_ask[gpt-4o, 0.5]", Path("c"))
    assert found == Path("c/tests/test_agent/TestPlan.test_ask[gpt-4o, 0.5].yaml")


def test_names_that_differ_in_case_only_do_not_share_a_file(three, monkeypatch):
    """On a file system that minds no case, the second of test_x and test_X is told, and writes nothing."""
    # Two links stand in for such a file system: any case finds the file, the folder lists it once.
    upper = three.with_name("test_X.yaml")
    os.link(three, upper)
    os.link(three, upper.with_name(upper.name.swapcase()))
    monkeypatch.setattr(Path, "iterdir", lambda _: iter([three]))
    with pytest.raises(CassetteError, match=r"same file as test_x\.yaml") as refused:
        Cassette(upper, EXACT)
    assert "cassette=" in str(refused.value)
    os.link(three, three.with_name(three.name.swapcase()))
    assert Cassette(three, EXACT).entries


# ---- size ----------------------------------------------------------------------------------------------


def big(number):
    text = "Summarise what the customer wrote. " * 12
    return [
        interaction(f"{text}\n{place}", reply(f"answer {place} {text}", usage={"prompt_tokens": 9}))
        for place in range(number)
    ]


def test_replaying_everything_takes_less_than_five_times_the_file(path):
    """The memory of a large cassette is the file's and an index, not its parsed contents."""
    record(path, *big(2_000))
    size = path.stat().st_size
    assert size > 2_000_000
    tracemalloc.start()
    try:
        cassette = Cassette(path, EXACT)
        for entry in cassette.entries:
            entry.answer()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * size


def test_opening_a_cassette_parses_its_header_alone(path, monkeypatch):
    """Of thousands of answers one is found by its key line, without parsing the others."""
    record(path, *big(300))
    parsed = []
    load = yaml_reader.load
    monkeypatch.setattr(yaml_reader, "load", lambda text: parsed.append(len(text)) or load(text))
    cassette = Cassette(path, EXACT)
    assert len(cassette.entries) == 300
    assert len(parsed) == 1
    cassette.entries[150].answer()
    assert sum(parsed) < path.stat().st_size / 100


@pytest.mark.parametrize("where", ["prompt", "answer", "spelling", "comment", "nowhere"])
def test_a_key_that_stands_elsewhere_too_is_found_where_it_is_one(path, where):
    """A key in a text is no key, and one that an editor spelt otherwise is one: neither changes what is found."""
    key, quoted = EXACT.key(call("a")), f"--- # 9\nkey: {EXACT.key(call('a'))}\n"
    said = {"prompt": (quoted, "B"), "answer": ("b", quoted)}.get(where, ("b", "B"))
    record(path, interaction("a", "A"), interaction(*said), interaction("c", "C"))
    line = {"spelling": f'key: "{key}"', "comment": f"# once more\nkey: {key}"}.get(where, f"key: {key}")
    again = path.read_text().split("--- # 1\n")[1].split("--- # 2\n")[0].replace(f"key: {key}", line)
    path.write_text(f"{path.read_text()}--- # 4\n{again}")
    cassette = Cassette(path, EXACT)
    assert [each.answer() for each in cassette.answers(key)] == [reply("A")] * 2
    assert not cassette.answers(EXACT.key(call("never asked")))


@pytest.mark.parametrize("damage", ["conflict", "cut", "newer", "no key"])
def test_damage_among_many_interactions_is_told_when_the_file_is_opened(path, damage):
    """A call need not come to a broken place to be told of it."""
    record(path, *(interaction(f"q{number}", f"a{number}") for number in range(30)))
    text = path.read_text()
    line = f"key: {EXACT.key(call('q7'))}"
    path.write_text(
        {
            "conflict": text.replace(line, f"<<<<<<< HEAD\n{line}"),
            "cut": text[:-30],
            "newer": re.sub("lmcache: [0-9]", "lmcache: 3", text),
            "no key": text.replace(line, "nokey: x"),
        }[damage]
    )
    with pytest.raises(CassetteError):
        Cassette(path, EXACT)


def test_the_module_under_test_is_the_projects():
    """These tests read this checkout's code, not an installed copy."""
    assert Path(file.__file__).is_relative_to(Path(__file__).parents[2])


def test_the_moment_of_a_test(path):
    """A file keeps the moment at which its test ran when others are recorded into it; a rewrite sets its own."""
    record(path, interaction("one", "1"), frozen_at="2001-01-01T00:00:00Z")
    assert path.read_text().index("frozen_at: 2001-01-01T00:00:00Z\n") < path.read_text().index("--- # 1")
    record(path, interaction("two", "2"), keep_unused=True, frozen_at="2002-01-01T00:00:00Z")
    assert path.read_text().count("frozen_at: 2001") == 1
    record(path, interaction("two", "3"), rewrite=True, frozen_at="2003-01-01T00:00:00Z")
    assert path.read_text().count("frozen_at: 2003") == path.read_text().count("frozen_at") == 1
    record(path, interaction("three", "3"))
    assert path.read_text().count("frozen_at: 2003") == 1
