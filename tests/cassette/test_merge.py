"""Where the recordings of a test go in its file, and which of the old ones stay."""

import difflib

import pytest
from helpers import EXACT, asked_for, call, contents, entry_of, interaction, record, reply

from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.cassette.merge import MOST_PAIRS, CallToSave


@pytest.fixture
def path(tmp_path):
    return tmp_path / "it.yaml"


def conversation(system, *said):
    """A question with a system prompt of several lines, as it is edited."""
    asked = call(said[0])
    asked.request["messages"] = [
        {"role": "system", "content": f"You are a geographer.\n{system}\nBe polite."},
        *({"role": "user", "content": text} for text in said),
    ]
    return asked


def run(system, *questions):
    """A test's calls with this system prompt, each answered by its last message in capitals."""
    return [interaction(conversation(system, *said), reply(said[-1].upper())) for said in questions]


def save(path, *interactions, old=(), **how):
    """Record interactions beside calls of the file's, each given by its question, in their order."""
    new = asked_for(*interactions)
    calls = [
        CallToSave(EXACT.key(call(each)), 0, None) if isinstance(each, str) else new.pop(0) for each in old
    ]
    return Cassette(path, EXACT).save([*calls, *new], **{"keep_unused": False, "rewrite": False, **how})


NEW = object()  # in the place of the next new interaction


def test_a_changed_question_stands_where_the_old_one_did(path):
    """The diff of an edited prompt has the prompt's line and the answer's, and no document that moved."""
    questions = [("Paris?",), ("Rome?",), ("Rome?", "And now?")]
    record(path, *run("One word.", *questions))
    before = path.read_text().splitlines()
    changed = run("Two words.", *questions)
    assert record(path, *changed) == (3, 0, 0)
    difference = list(difflib.unified_diff(before, path.read_text().splitlines(), n=0, lineterm=""))
    lines = [line for line in difference if line[:1] in "+-" and line[:3] not in {"+++", "---"}]
    assert {line[1:].split(":")[0].strip() for line in lines} == {"One word.", "Two words.", "key"}
    assert len(lines) == 12


def test_calls_at_once_that_start_in_another_order_keep_their_places(path):
    """The question that is most like an old one takes its place, whichever was asked first."""
    names = ["one", "two", "three"]
    record(path, *run("Old.", *([name] for name in names)))
    record(path, *run("New.", *([name] for name in ("three", "one", "two"))))
    assert contents(path) == ["ONE", "TWO", "THREE"]


@pytest.mark.parametrize(
    ("asked", "expected", "changes"),
    [
        (["a", NEW, "c"], "A1C", (1, 0, 0)),
        (["c", "a", NEW], "A1C", (1, 0, 0)),
        ([NEW, "b", "c"], "1BC", (1, 0, 0)),
        (["a", "b", "c", NEW], "ABC1", (0, 1, 0)),
        ([NEW, "a", "b", "c"], "1ABC", (0, 1, 0)),
        (["a", NEW, NEW, "b", "c"], "A12BC", (0, 2, 0)),
        (["a", NEW, NEW, "c"], "A12C", (1, 1, 0)),
        ([NEW, "c"], "1C", (1, 0, 1)),
        ([NEW], "1", (1, 0, 2)),
        ([NEW, NEW, NEW, NEW], "1234", (3, 1, 0)),
    ],
)
def test_what_is_replaced_added_and_removed(path, asked, expected, changes):
    """New recordings go into the places of those that go; more of them stand behind the call before them."""
    record(path, *(interaction(text, text.upper()) for text in "abc"))
    new = [interaction(f"new {number}", str(number)) for number in range(1, asked.count(NEW) + 1)]
    assert save(path, *new, old=asked) == changes
    assert "".join(contents(path)) == expected


def test_what_is_kept_keeps_its_place(path):
    """With ``keep_unused`` nothing goes and nothing moves: a new recording stands behind the call before it."""
    record(path, *(interaction(text, text.upper()) for text in "abc"))
    assert save(path, interaction("new", "N"), old=["a", NEW, "c"], keep_unused=True) == (0, 1, 0)
    assert contents(path) == ["A", "N", "B", "C"]
    assert save(path, interaction("last", "L"), keep_unused=True) == (0, 1, 0)
    assert contents(path) == ["A", "N", "B", "C", "L"]


@pytest.mark.parametrize("rewrite", [True, False])
def test_what_another_process_recorded_meanwhile_stays(path, rewrite):
    """A test drops what was in the file when it began, not what came while it ran."""
    record(path, interaction("a", "A"))
    slow = Cassette(path, EXACT)
    record(path, interaction("b", "B"), keep_unused=True)
    assert slow.save(asked_for(interaction("c", "C")), keep_unused=False, rewrite=rewrite) == (1, 0, 0)
    assert contents(path) == ["C", "B"]


def test_an_answer_less_of_the_same_question_goes(path):
    """A question that is asked twice instead of three times loses its last answer, as soon as anything is new."""
    record(path, *(interaction("same", text) for text in "123"))
    key = EXACT.key(call("same"))
    new = entry_of(interaction("new", "N"), path)
    asked = [CallToSave(key, 0, None), CallToSave(key, 1, None), CallToSave(new.key, 0, new)]
    assert Cassette(path, EXACT).save(asked, keep_unused=False, rewrite=False) == (1, 0, 0)
    assert contents(path) == ["1", "2", "N"]


def test_nothing_new_drops_nothing(path):
    """A recording run that only replays leaves the file as it is: an old branch may need the rest."""
    record(path, interaction("a", "A"), interaction("b", "B"))
    before = path.read_bytes()
    assert save(path, old=["a"]) is None
    assert path.read_bytes() == before


def test_a_rewrite_counts_answers_that_changed(path):
    """An answer that the provider gave anew is replaced; the same one again is no change."""
    record(path, interaction("a", "A"), interaction("b", "B"))
    again = [interaction("a", reply("A", run=2)), interaction("b", "another")]
    assert record(path, *again, rewrite=True) == (1, 0, 0)
    assert contents(path) == ["A", "another"]


def test_very_many_new_questions_are_not_compared(path):
    """A file in which thousands of questions change is merged in seconds, in the order of the calls."""
    size = int(MOST_PAIRS**0.5) + 1
    record(path, *run("Old.", *([str(number)] for number in range(size))))
    assert record(path, *run("New.", *([str(number)] for number in range(size)))) == (size, 0, 0)
    assert contents(path) == [str(number) for number in range(size)]
