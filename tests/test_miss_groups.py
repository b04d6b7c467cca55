"""Misses by cause: what is one cause, what is said of it, and what a worker process sends."""

import json

import pytest

from pytest_lmcache.commands import Commands
from pytest_lmcache.errors import CassetteMiss
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.layers.stack import Cache
from pytest_lmcache.miss_causes import Action, Cause, Change, Cost, Mend, Miss, misses_of
from pytest_lmcache.miss_groups import cost_lines, grouped, lines, mends, paragraph, renaming
from pytest_lmcache.session import Session
from pytest_lmcache.settings import CacheSettings, Settings

ENGINE = Session()
ENGINE.caches.layers = CacheSettings(enable_memory_cache=False, enable_disk_cache=False)


def changed(path="messages[0].content", within="system", removed="a", added="b", cause=Cause.MESSAGE):
    line = (("same", "Be "), ("removed", removed), ("added", added))
    return Change(cause, Action.CHANGED, path, within, lines=(line,))


def miss(test, *changes, cause=None, mend=Mend.RECORD, **more):
    cause = cause or (changes[0].cause if changes else Cause.NEVER_RECORDED)
    return Miss(test=test, cause=cause, mend=mend, problem="No recording", changes=changes, **more)


def titles(*misses):
    return [f"{group.title}: {len(group.tests)}" for group in grouped(misses)]


# ---- grouping ------------------------------------------------------------------------------------------


def test_the_same_edit_in_other_texts_is_one_cause():
    """Texts that differ elsewhere, and messages at other places, changed in the same way."""
    same = changed()
    other = Change(
        Cause.MESSAGE,
        Action.CHANGED,
        "messages[3].content",
        "system",
        lines=((*same.lines[0], ("same", "!")),),
    )
    assert titles(miss("a.py::1", same), miss("a.py::2", other)) == [
        "messages[…].content (system) changed: 2"
    ]
    assert titles(miss("a.py::1", same), miss("a.py::2", changed(within="user"))) == [
        "messages[0].content (system) changed: 1",
        "messages[0].content (user) changed: 1",
    ]


def test_the_cause_with_the_most_tests_comes_first():
    """A call with several changes belongs to the one that most tests have."""
    edit, model = changed(), Change(Cause.MODEL, Action.CHANGED, "model", before="a", after="b")
    assert titles(
        miss("a.py::1", model), miss("a.py::2", model, edit), miss("a.py::3", edit), miss("a.py::4", edit)
    ) == ["messages[0].content (system) changed: 3", "model changed: a → b: 1"]


def test_a_test_with_several_misses_counts_once():
    """Calls and tests are counted apart."""
    [line, *_] = lines(
        grouped([miss("a.py::1", changed()), miss("a.py::1", changed()), miss("a.py::2", changed())])
    )
    assert line == "messages[0].content (system) changed, 3 calls in 2 tests"


def test_what_recording_does_not_mend_is_apart():
    """The same change is another group if it has to be normalized."""
    edit = changed()
    volatile = miss("a.py::2", edit, cause=Cause.VOLATILE, mend=Mend.NORMALIZE, normalizers=("uuid",))
    assert titles(miss("a.py::1", edit), volatile) == [
        "messages[0].content (system) changed: 1",
        "a UUID in messages[0].content (system) differs from run to run: 1",
    ]


def test_files_are_listed_with_their_counts():
    """Three tests are named, then the number of the rest, then the files, most tests first."""
    misses = [
        miss(f"{file}.py::test_{n}", changed()) for file, size in (("a", 2), ("b", 5)) for n in range(size)
    ]
    assert list(lines(grouped(misses))) == [
        "messages[0].content (system) changed, 7 calls in 7 tests",
        "  Be [-a-]{+b+}",
        "  a.py::test_0",
        "  a.py::test_1",
        "  b.py::test_0",
        "  … and 4 more tests",
        "  in b.py (5), a.py (2)",
    ]


def test_words_are_marked_by_the_caller():
    """A terminal marks words by colours, a page by tags."""
    [_, line, *_] = lines(
        grouped([miss("a", changed())]), lambda tag, text: text if tag == "same" else f"<{tag}>{text}"
    )
    assert line == "  Be <removed>a<added>b"


# ---- renamed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "shortest"),
    [
        ("a.py::test_x[1]", "b.py::test_x[1]", ("a.py", "b.py")),
        ("a.py::TestA::test_x", "a.py::TestB::test_x", ("a.py::TestA", "a.py::TestB")),
        ("a.py::test_x[1]", "a.py::test_y[1]", ("a.py::test_x", "a.py::test_y")),
        ("a.py::test_x[1]", "a.py::test_x[2]", ("a.py::test_x[1]", "a.py::test_x[2]")),
        ("a.py::test_x", "a.py::test_x[2]", ("a.py::test_x", "a.py::test_x[2]")),
        ("a.py::test_x", "b.py::test_y", ("a.py::test_x", "b.py::test_y")),
        ("a.py::test_x", "a.py::TestB::test_x", ("a.py::test_x", "a.py::TestB::test_x")),
        ("a.py::test_x[a::b]", "b.py::test_x[a::b]", ("a.py", "b.py")),
    ],
)
def test_the_shortest_ids_of_what_was_renamed(old, new, shortest):
    """A file, a class or a function that was renamed is one move, whatever tests it has."""
    assert renaming(old, new) == shortest


# ---- what mends ----------------------------------------------------------------------------------------


def test_normalizers_are_one_line_to_paste():
    """Causes with other normalizers are mended by one setting, in the form of the configuration file."""
    misses = [
        miss(
            "a",
            changed(),
            cause=Cause.VOLATILE,
            mend=Mend.NORMALIZE,
            normalizers=(name,),
            configuration="{file}",
        )
        for name in ("date", "uuid")
    ]
    toml = [Miss.from_plain({**each.to_plain(), "configuration": "pytest.toml"}) for each in misses]
    assert list(mends(grouped(toml))) == ['Normalize:  lm_normalize = ["date", "uuid"]  # pytest.toml']
    ini = [Miss.from_plain({**each.to_plain(), "configuration": "pytest.ini"}) for each in misses]
    assert list(mends(grouped(ini))) == ["Normalize:  in pytest.ini:", "lm_normalize =", "  date", "  uuid"]


def test_costs():
    """What recording costs is said as far as it is known, and what is not known."""
    assert list(cost_lines(Cost(2, 1200, 0.5) + Cost(1, 34, 0.25, unpriced=1, unknown=2))) == [
        "3 calls, 1,234 tokens, $0.75: the cost of the recordings that this replaces",
        "not estimated: 2 calls without a recording, and what follows from them; the price of 1 call",
    ]
    assert list(cost_lines(Cost(unknown=1))) == [
        "not estimated: 1 call without a recording, and what follows from it"
    ]


# ---- from a recorder -----------------------------------------------------------------------------------


def call(text, **more):
    return Call("completion", {"model": "openai/m", "messages": [{"role": "user", "content": text}], **more})


def reply(text, usd=0.25):
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return Answer(Kind.RESPONSE, {"id": "x", "text": text, "usage": usage}, usd=usd)


def recorder(path, mode="replay", **more):
    commands = Commands("pytest --lm-record x", "pytest --lm-rewrite x", target="a.py::x", test="a.py::x")
    settings = Settings().updated({"mode": mode, **more}, "test")
    return ENGINE.recorders.make(settings, path, label="a.py::x", commands=commands)


def record(path, *texts, **more):
    made = recorder(path, "record", cache=Cache(enable_memory_cache=False, enable_disk_cache=False))
    for text in texts:
        asked = call(text, **more)
        taken, _ = made.begin(made.number(), asked)
        made.finish(taken, asked, reply(text))
    made.close(passed=True)


def missed(path, *texts, **more):
    made = recorder(path)
    for text in texts:
        try:
            made.begin(made.number(), call(text, **more))
        except CassetteMiss:
            continue
    return misses_of(made, "a.py::x")


def test_a_miss_is_plain_data(tmp_path):
    """What a worker sends is JSON that UTF-8 has, whatever the prompt holds, and comes back the same."""
    record(tmp_path / "x.yaml", "a\ud800 line\nand one more")
    [found] = missed(tmp_path / "x.yaml", "another\ud801 line\nand \x1b one more", seed=10**50)
    plain = found.to_plain()
    assert json.loads(json.dumps(plain)) == plain
    json.dumps(plain, ensure_ascii=False).encode("utf-8")
    back = Miss.from_plain(plain)
    assert back == found
    assert back.digest == found.digest
    assert [change.path for change in back.changes] == ["messages[0].content", "seed"]


def test_costs_are_those_of_all_calls_that_the_test_did_not_come_to(tmp_path):
    """A test stops at its first miss: the recordings that nothing has asked for by then are those to be replaced."""
    record(tmp_path / "x.yaml", "one", "two", "three")
    [found] = missed(tmp_path / "x.yaml", "one", "zwei")
    assert found.cost == Cost(2, 10, 0.5)
    [first, second] = missed(tmp_path / "x.yaml", "eins", "zwei")
    assert (first.cost, second.cost) == (Cost(3, 15, 0.75), Cost())
    [extra] = missed(tmp_path / "x.yaml", "one", "two", "three", "four")
    assert (extra.cause, extra.cost) == (Cause.MORE_CALLS, Cost(unknown=1))


def test_recordings_that_have_answered_are_not_the_ones_that_changed(tmp_path):
    """Of similar questions, a call is compared with the one that nothing has asked for."""
    record(tmp_path / "x.yaml", "What is the capital of France?", "What is the capital of Spain?")
    [found] = missed(
        tmp_path / "x.yaml", "What is the capital of France?", "What is the largest capital of France?"
    )
    [change] = found.changes
    assert ("removed", "Spain") in change.lines[0]


def test_a_paragraph_says_all_of_a_block():
    """Outside of pytest a block's error ends in one paragraph: causes, what mends them, what that costs."""
    edit = changed()
    told = paragraph(
        [
            miss("x", edit, cost=Cost(1, 20, 0.5), block='"x.yaml"'),
            miss(
                "x", edit, cause=Cause.VOLATILE, mend=Mend.NORMALIZE, normalizers=("uuid",), block='"x.yaml"'
            ),
        ],
        'use_cassette("x.yaml", mode="record")',
        'use_cassette("x.yaml", mode="rewrite")',
    )
    assert told == (
        "Why: messages[0].content (system) changed, 1 call (Be [-a-]{+b+}); a UUID in messages[0].content (system) "
        "differs from run to run, 1 call (Be [-a-]{+b+}). If the value does not matter: "
        'use_cassette("x.yaml", normalize=["uuid"]). Record it with use_cassette("x.yaml", mode="record") '
        "(1 call, 20 tokens, $0.50: the cost of the recording that this replaces)."
    )
