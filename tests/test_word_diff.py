"""What a user sees of a changed text: the words that were removed and added, and nothing else."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmcache.word_diff import LONGEST, LONGEST_LINE, changed_lines, shortened, shown, visible, words


def lines(before, after):
    return [shown(parts) for _, parts in changed_lines(words(before, after))]


TEXTS = st.text(st.sampled_from("abc  \n\r.,\x1b\ud800\xa0é"), max_size=30)


@given(TEXTS, TEXTS)
def test_the_pieces_are_both_texts(before, after):
    """Nothing of either text is lost, and equal texts have no change."""
    parts = words(before, after)
    assert "".join(text for tag, text in parts if tag != "added") == before
    assert "".join(text for tag, text in parts if tag != "removed") == after
    assert (parts in ([], [("same", before)])) is (before == after)
    assert all(text for _, text in parts)
    assert bool(lines(before, after)) is (before != after)
    assert all(line.isprintable() for line in lines(before, after))


def test_changed_words_are_marked_within_their_line():
    """Of a prompt only the edited line is shown, and in it only the edited words are marked."""
    before = "You are a geographer.\nAnswer in one word.\nBe kind."
    assert words(before, before.replace("one word", "two words")) == [
        ("same", "You are a geographer.\nAnswer in "),
        ("removed", "one word"),
        ("added", "two words"),
        ("same", ".\nBe kind."),
    ]
    assert changed_lines(words(before, before.replace("one", "1")))[0][0] == 2
    assert lines(before, before.replace("one", "1")) == ["  Answer in [-one-]{+1+} word."]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("a\nc", "a\nb\nc", ["+ b"]),
        ("a\nb", "a", ["- b"]),
        ("a", "a\n\nb", [r"+ \n", "+ b"]),
        ("a\n", "a", [r"  a[-\n-]"]),
        ("", "a b", ["+ a b"]),
        (
            "What is it?",
            "How tall is Everest, and who climbed it?",
            ["- What is it?", "+ How tall is Everest, and who climbed it?"],
        ),
        ("b", "b  ", [r"  b{+\x20\x20+}"]),
        ("a b", "a\xa0b", [r"  a[-\x20-]{+\xa0+}b"]),
        ("caf\xe9 au lait", "cafe\u0301 au lait", [r"  [-caf\xe9-]{+cafe\u0301+} au lait"]),
        ("a b", "a\nb", [r"  a[-\x20-]{+\n+}"]),
        ("x y\x1b[31m", "x y\ud800", [r"  x y[-\x1b[31m-]{+\ud800+}"]),
    ],
)
def test_each_kind_of_change_is_seen(before, after, told):
    """Added, removed and rewritten lines, and changes that a terminal would not show."""
    assert lines(before, after) == told


def test_long_equal_stretches_are_shortened():
    """The change is in view also in a line of thousands of characters."""
    before = "left " * 300 + "cat" + " right" * 300
    assert shortened(words(before, before.replace("cat", "dog")), context=10) == [
        ("same", "…left left "),
        ("removed", "cat"),
        ("added", "dog"),
        ("same", " right rig…"),
    ]
    assert shortened([("added", "x" * 500)]) == [("added", "x" * (LONGEST - 1) + "…")]
    everywhere = " ".join(f"word{number} and" for number in range(500))
    [line] = lines(everywhere, everywhere.replace("and", "or"))
    assert line.endswith("…")
    assert len(line) < 2 * LONGEST_LINE


def test_lines_are_painted_by_the_caller():
    """On a terminal a colour takes the place of the brackets."""

    def paint(tag, text):
        return {"same": text, "removed": text.lower(), "added": text.upper()}[tag]

    [(_, parts)] = changed_lines(words("Answer in One word.", "Answer in Two words."))
    assert shown(parts, paint) == "  Answer in one wordTWO WORDS."
    assert [shown(parts, paint) for _, parts in changed_lines(words("A\nX", "A\nY y"))] == ["- x", "+ Y Y"]


def test_texts_that_look_the_same_are_escaped():
    """Two values beside each other are seen to differ."""
    assert (visible("a b", "a\xa0b"), visible("a\xa0b", "a b")) == ("a b", r"a\xa0b")
    assert visible("end ", "end") == r"end\x20"


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        " ".join(f"word{number % 977}" for number in range(40_000)),
        "\n".join(f"{number}. a line" for number in range(20_000)),
        "[" + ", ".join(str(number % 7) for number in range(30_000)) + "]",
        "right " * 40_000,
    ],
)
def test_large_texts_take_less_than_a_few_seconds(text):
    """A prompt with a whole document does not stop the run."""
    start = time.perf_counter()
    middle = len(text) // 2
    changed = f"new start {text[:middle]} new middle {text[middle + 10 :]} new end"
    assert lines(text, changed)
    assert time.perf_counter() - start < 5
