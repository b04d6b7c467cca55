"""The formats of a cassette: which one a file says, and that files of format 1 stay readable and untouched."""

import re

import pytest
from helpers import EXACT, interaction, record, stream

from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.errors import CassetteError
from pytest_lmcache.interaction import Answer, Kind

FORMAT_1_STREAM = """# pytest-lmcache cassette of test_x.py::test_x
lmcache: 1
key: exact/1
--- # 1
key: k6e7e08a4ee0ac1b0ed1fd9e5
call: completion
request:
  model: openai/m
  messages:
  - role: user
    content: stream
shared:
  id: c-1
  created: 1
chunks:
- {"n": 0, "text": "He"}
- {"n": 0, "text": "llo"}
- {"created": 1, "n": 1}
recorded: 2026-11-23T09:12:44Z
seconds: 1.500
"""


@pytest.fixture
def path(tmp_path):
    """Where the test's cassette is."""
    return tmp_path / "test_x.yaml"


@pytest.fixture
def format_1(path):
    """A cassette of format 1 with a stream."""
    path.write_text(FORMAT_1_STREAM)
    return path


def test_shared_fields_of_a_stream_of_format_1_are_read(format_1):
    """A chunk has them unless it has one of them itself."""
    (entry,) = Cassette(format_1, EXACT).entries
    said = [{"id": "c-1", "created": 1, "n": 0, "text": text} for text in ("He", "llo")]
    assert entry.answer().with_whole_chunks().data == [*said, {"created": 1, "n": 1}]


def test_a_stream_of_format_1_stays_as_it_is(format_1):
    """An unrelated recording, and the same answer again, leave it and the header untouched."""
    said = entry_of_only(format_1).interaction()
    assert not record(format_1, said, rewrite=True)
    assert record(format_1, said, interaction("another", "A"))
    assert format_1.read_text().startswith(FORMAT_1_STREAM.partition("test_x\n")[2], len("# a comment\n"))


def entry_of_only(path):
    (entry,) = Cassette(path, EXACT).entries
    return entry


def test_a_file_says_format_2_once_it_holds_a_stream_of_texts(format_1):
    """Older versions of the plugin read every other file; the documents of format 1 in it stay."""
    old = FORMAT_1_STREAM.partition("--- # 1\n")[2]
    said = entry_of_only(format_1).interaction()
    assert record(format_1, said, interaction("another stream", stream("He", "llo", " all\n")))
    header, first, second = format_1.read_text().split("--- # ")
    assert header.endswith("lmcache: 2\nkey: exact/1\n")
    assert first == f"1\n{old}"
    assert (
        """chunks:
- {"id": "c-1", "created": 1, "n": 0, "text": "He"}
- llo
- " all\\n"
recorded:"""
        in second
    )
    assert record(format_1, interaction("another", "A"), rewrite=True, keep_unused=True)
    assert "lmcache: 2\n" in format_1.read_text()


@pytest.mark.parametrize(
    "answer", ["A", stream("He"), stream(), Answer(Kind.STREAM, [{"event": 1}, {"event": 2}])]
)
def test_a_file_without_repeated_chunks_says_format_1(path, answer):
    """It holds nothing that an older version of the plugin could not read."""
    record(path, interaction("it", answer))
    assert "\nlmcache: 1\n" in path.read_text()


@pytest.mark.parametrize(
    "chunks",
    [
        "chunks:\n- is\n",
        "chunks:\n- {}\n- is\n",
        'chunks:\n- {"text": "a"}\n- {"n": 1}\n- is\n',
        'chunks:\n- {"text": "a"}\n- 123\n',
        'chunks:\n- {"text": "a"}\n-\n',
        'chunks: {"text": "a"}\n',
        "chunks: is\n",
    ],
)
def test_a_text_that_repeats_no_chunk_is_refused(format_1, chunks):
    """The error says where, and what a stream may hold."""
    text = re.sub(r"(?s)shared:.*(?=recorded:)", lambda _: chunks, FORMAT_1_STREAM)
    format_1.write_text(text)
    with pytest.raises(
        CassetteError, match=rf"(?s){format_1}:\d+: .*a list of mappings and texts, each text after"
    ):
        entry_of_only(format_1).answer()


@pytest.mark.parametrize(
    "chunks",
    [
        '- {"text": He, id: c}\n- "llo"\n- {n: 1}\n',
        "- text: He\n  id: c\n- llo\n- n: 1\n",
        "- id: c\n  text: He\n- 'llo'\n- {n: 1}\n",
        "- # edited\n  text: He\n  id: c\n\n# here\n- llo # too\n- n: 1\n",
        '- {"text": "He", "id": "c"}\n- llo\n- {"n": 1}\n',
        '- {"text": "He", "id": "c"}\n- >-\n  llo\n- {"n": 1}\n',
        '- {"text": "He", "id": "c"}\n- {"text": "llo", "id": "c"}\n- {"n": 1}\n',
        '  - {"text": "He", "id": "c"}\n  - "l\\\n    lo"\n  - {"n": 1}\n',
    ],
)
def test_an_edited_stream_is_read_as_yaml(format_1, chunks):
    """However a person or another tool writes it."""
    format_1.write_text(
        re.sub(r"(?s)shared:.*(?=recorded:)", lambda _: "chunks:\n" + chunks, FORMAT_1_STREAM)
    )
    whole = entry_of_only(format_1).answer().with_whole_chunks().data
    assert whole == [{"text": "He", "id": "c"}, {"text": "llo", "id": "c"}, {"n": 1}]


def test_an_upgrade_writes_streams_in_the_newest_format_and_nothing_else(format_1):
    """Answers, times, comments and other interactions stay."""
    record(format_1, entry_of_only(format_1).interaction(), interaction("another", "A"))
    before = "# mine\n" + format_1.read_text().replace(
        "    content: another\n", "    content: another # edited\n"
    )
    format_1.write_text(before)
    interactions = [entry.interaction() for entry in Cassette(format_1, EXACT).entries]
    cassette = Cassette(format_1, EXACT)
    assert cassette.upgrade()
    assert not cassette.upgrade()
    old = re.search(r"(?s)shared:.*?(?=recorded:)", before)
    assert old is not None
    new = 'chunks:\n- {"id": "c-1", "created": 1, "n": 0, "text": "He"}\n- llo\n- {"created": 1, "n": 1}\n'
    after = before.replace(old[0], new).replace("lmcache: 1", "lmcache: 2")
    assert format_1.read_text() == after
    assert [entry.interaction() for entry in Cassette(format_1, EXACT).entries] == interactions


def test_a_fix_for_formatters_says_the_format_that_it_writes(format_1):
    """A stream in the same document is written in format 2."""
    format_1.write_text(
        FORMAT_1_STREAM.replace("content: stream", "content: |-\n      a\n      b  \n      c")
    )
    cassette = Cassette(format_1, EXACT)
    assert cassette.fragile()
    cassette.make_robust()
    assert not Cassette(format_1, EXACT).fragile()
    assert "lmcache: 2\n" in format_1.read_text()
    assert "- llo\n" in format_1.read_text()
