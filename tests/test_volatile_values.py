"""What a user is told to normalize: values that differ in each run, and no edit of the question."""

import pytest

from pytest_lmcache.interaction import Call
from pytest_lmcache.keys.strategies import strategy
from pytest_lmcache.nearest import nearest
from pytest_lmcache.volatile_values import missing_normalizers, run_id_patterns

EXACT = strategy("exact")


def call(text):
    return Call("completion", {"messages": [{"role": "user", "content": text}]})


def needed(before, after):
    found = nearest(call(after), [call(before)])
    return missing_normalizers(EXACT, call(after), found.call, found.differences)


@pytest.mark.parametrize(
    ("before", "after", "normalizers"),
    [
        ("run-17 of 20", "run-18 of 20", ["re:run-[0-9]+"]),
        ("Job 17 is done", "Job 9321 is done", ["re:Job [0-9]+"]),
        ("request_id=8f3a", "request_id=77fc", ["re:request_id=(?=[A-Za-z]*[0-9])[0-9a-f]+"]),
        ("see req_abc123def4", "see req_zzz923dex1", ["re:req_(?=[A-Za-z]*[0-9])[0-9a-z]+"]),
        (
            "id 8f3a2c91b.",
            "id 19ab3cc1d.",
            ["re:(?<![0-9A-Za-z])(?=[A-Za-z]*[0-9])[0-9a-f]{9}(?![0-9A-Za-z])"],
        ),
        ("run-17 on 2026-01-02", "run-18 on 2026-02-03", ["re:run-[0-9]+", "date"]),
        ("at 1767312000", "at 1767319999", ["epoch"]),
    ],
)
def test_what_differs_in_each_run_has_a_normalizer(before, after, normalizers):
    """An id, a date or a time is named by the fewest normalizers with which the recording answers."""
    assert list(needed(before, after)) == normalizers
    normalizing = strategy("exact", normalizers)
    assert normalizing.key(call(before)) == normalizing.key(call(after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Answer in 10 words.", "Answer in 20 words."),
        ("Use gpt-4o.", "Use gpt-5."),
        ("Session 3 of 8", "Session 4 of 8"),
        ("release 20240101999", "release 20250102888"),
        ("hello there", "hello worlds"),
        ("run-17 is good", "run-18 is bad"),
        ("run fast", "run slow"),
        ("a job offer", "a job interview"),
        ("run-17", "run-17 again"),
        (" ".join(f"run-{n}" for n in range(9)), " ".join(f"run-{n}" for n in range(10, 19))),
    ],
)
def test_an_edit_has_no_normalizer(before, after):
    """A number that somebody changed is a change of the question."""
    assert needed(before, after) == ()


def test_other_values_are_no_ids():
    """A changed parameter is not taken for an id."""
    found = nearest(Call("completion", {"n": 1234}), [Call("completion", {"n": 1300})])
    assert run_id_patterns(found.differences) == ()
