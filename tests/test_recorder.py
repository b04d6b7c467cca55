"""One call's way: what each mode does with it, what is recorded, what a miss says, what a test may look at."""

import re
import sys
import threading

import pytest

from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.commands import Commands
from pytest_lmcache.errors import CassetteError, CassetteMiss, UnsupportedCall
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.layers.stack import Cache
from pytest_lmcache.miss import MAX_COMPARED, message
from pytest_lmcache.not_recorded import NotRecorded, Reason
from pytest_lmcache.session import Session
from pytest_lmcache.settings import CacheSettings, Mode, RecordErrors, Settings

ENGINE = Session()
ENGINE.caches.layers = CacheSettings(enable_memory_cache=False, enable_disk_cache=False)


def call(text, **more):
    return Call("completion", {"model": "openai/m", "messages": [{"role": "user", "content": text}], **more})


def reply(text, **more):
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return Answer(Kind.RESPONSE, {"id": "x", "text": text, "usage": usage, **more}, usd=0.25)


def commands_of(test):
    return Commands(f'pytest --lm-record "{test}"', f'pytest --lm-rewrite "{test}"')


def recorder(path, mode="replay", **more):
    how = {name: more.pop(name) for name in ("is_shared", "label", "commands") if name in more}
    how = {"label": "test_x.py::test_x", "commands": commands_of("test_x.py::test_x"), **how}
    return ENGINE.recorders.make(Settings().updated({"mode": mode, **more}, "test"), path, **how)


class Provider:
    """Answers each call by its text and how often it was asked; remembers what reached it."""

    def __init__(self):
        self.asked = []

    def answer(self, asked):
        text = asked.request["messages"][0]["content"]
        self.asked.append(text)
        return reply(f"{text} #{self.asked.count(text)}")


def ask(tape, text, provider=None):
    """One call, as an interception makes it; without a provider, whatever reaches it fails the test."""
    asked = call(text)
    record, answer = tape.begin(tape.number(), asked)
    if answer is None:
        assert provider is not None, "a call reached the provider"
        answer = provider.answer(asked)
        tape.finish(record, asked, answer)
    return answer.data["text"]


def recorded(path, *texts, **more):
    """A test that passes under `--lm-record`."""
    tape, provider = recorder(path, "record", **more), Provider()
    said = [ask(tape, text, provider) for text in texts]
    tape.close(passed=True)
    return said


def miss(tape, text):
    with pytest.raises(CassetteMiss) as missed:
        ask(tape, text)
    assert tape.faults[-1] is missed.value
    return str(missed.value)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cassettes" / "test_x.yaml"


# ---- deciding ------------------------------------------------------------------------------------------

REPLAY, ASK, PASS, MISS = "replayed", "asked and recorded", "asked", "missed"


@pytest.mark.parametrize(
    ("mode", "no_file", "found", "not_found"),
    [
        (Mode.REPLAY, MISS, REPLAY, MISS),
        (Mode.ONCE, ASK, REPLAY, MISS),
        (Mode.RECORD, ASK, REPLAY, ASK),
        (Mode.REWRITE, ASK, ASK, ASK),
        (Mode.LIVE, PASS, PASS, PASS),
        (Mode.VERIFY, MISS, REPLAY, MISS),
    ],
)
def test_each_mode_decides_as_its_table_says(path, mode, no_file, found, not_found):
    """The table of modes in the documentation, row by row."""
    assert _happens(recorder(path, mode), "a") is no_file
    recorded(path, "a")
    assert _happens(recorder(path, mode), "a") is found
    assert _happens(recorder(path, mode), "b") is not_found


def _happens(tape, text):
    provider = Provider()
    try:
        ask(tape, text, provider)
    except CassetteMiss:
        return MISS
    if not provider.asked:
        return REPLAY
    return ASK if tape.recorded else PASS


def test_every_mode_is_in_the_table():
    """A new mode has to say what it does."""
    assert set(Mode) == {Mode.REPLAY, Mode.ONCE, Mode.RECORD, Mode.REWRITE, Mode.LIVE, Mode.VERIFY}


@pytest.mark.parametrize("mode", ["record", "rewrite", "once"])
def test_only_a_test_that_passed_is_written(path, mode):
    """A failed test leaves no cassette, and never a half-made one."""
    tape = recorder(path, mode)
    ask(tape, "a", Provider())
    assert not tape.close(passed=False)
    assert not path.parent.exists()
    tape = recorder(path, mode)
    ask(tape, "a", Provider())
    assert tape.close(passed=True)
    assert path.exists()


@pytest.mark.parametrize("mode", ["replay", "once", "record"])
def test_an_interrupted_replay_writes_nothing(path, monkeypatch, mode):
    """A test that swallows an interrupt while an answer is read leaves its cassette as it was."""
    recorded(path, "a", "b")
    before, tape = path.read_bytes(), recorder(path, mode)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Entry, "answer", interrupted)
        ask(tape, "a")
    ask(tape, "b")
    assert tape.recorded == 0
    assert tape.close(passed=True) is False
    assert path.read_bytes() == before


def test_live_reads_and_writes_nothing(path):
    """Mode live does not even look at the cassette, though it may be broken."""
    recorded(path, "a")
    path.write_text("broken")
    tape = recorder(path, "live")
    assert ask(tape, "a", Provider()) == "a #1"
    assert not tape.close(passed=True)
    assert path.read_text() == "broken"
    assert tape.unused() == 0


@pytest.mark.parametrize("mode", ["replay", "once", "record", "rewrite"])
def test_a_broken_cassette_stops_the_first_call(path, mode):
    """Before anything is paid, in every mode that would read or write the file; the file stays."""
    recorded(path, "a")
    path.write_text("broken")
    with pytest.raises(CassetteError, match=r"test_x\.yaml:1"):
        ask(recorder(path, mode), "a")
    assert path.read_text() == "broken"


# ---- identical calls -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repeat", "said"),
    [
        ("last", ["same #1", "same #2", "same #3", "same #3", "same #3", "same #3", "same #3"]),
        ("cycle", ["same #1", "same #2", "same #3", "same #1", "same #2", "same #3", "same #1"]),
    ],
)
def test_the_nth_identical_call_gets_the_nth_answer(path, repeat, said):
    """Agents retry and samplers sample: each gets its own answer, then `repeat` decides."""
    recorded(path, "same", "other", "same", "same")
    tape = recorder(path, repeat=repeat)
    assert [ask(tape, "same") for _ in said] == said
    assert ask(tape, "other") == "other #1"


def test_repeat_error_allows_each_answer_once(path):
    """One call too many is a miss that says so."""
    recorded(path, "same", "same")
    tape = recorder(path, repeat="error")
    assert [ask(tape, "same") for _ in range(2)] == ["same #1", "same #2"]
    assert "used up" in miss(tape, "same")


def test_recording_asks_for_the_answers_that_are_not_there_yet(path):
    """A loop that now runs three times replays what it has and records the third answer."""
    recorded(path, "same", "same")
    tape, provider = recorder(path, "record"), Provider()
    assert [ask(tape, "same", provider) for _ in range(3)] == ["same #1", "same #2", "same #1"]
    tape.close(passed=True)
    tape = recorder(path)
    assert [ask(tape, "same") for _ in range(4)] == ["same #1", "same #2", "same #1", "same #1"]


def test_each_replay_hands_out_its_own_answer(path):
    """Changing an answer changes no other."""
    recorded(path, "a")
    tape = recorder(path)
    _, first = tape.begin(0, call("a"))
    assert first is not None
    first.data["text"] = "changed"
    assert ask(tape, "a") == "a #1"


FAILED = NotRecorded(Reason.PROVIDER_ERROR, "completion() failed")
LIMIT = Answer(Kind.ERROR, {"class": "litellm.RateLimitError", "message": "no"})

# ---- what is not stored --------------------------------------------------------------------------------


def test_the_next_identical_call_takes_the_place_of_one_that_is_not_stored(path):
    """A rate limit between two answers leaves no gap: on replay the second call gets the second answer."""
    tape, provider = recorder(path, "record"), Provider()
    assert ask(tape, "same", provider) == "same #1"
    failed, answer = tape.begin(tape.number(), call("same"))
    assert answer is None
    dropped = NotRecorded(Reason.PROVIDER_ERROR, "completion() failed with RateLimitError")
    tape.discard(failed, call("same"), LIMIT, dropped)
    assert ask(tape, "same", provider) == "same #2"
    assert tape.close(passed=True)
    assert tape.recorded == 2
    assert tape.not_recorded == [dropped]
    assert [(record.nth, record.is_new) for record in tape.calls] == [(0, True), (1, False), (1, True)]
    tape = recorder(path)
    assert [ask(tape, "same") for _ in range(2)] == ["same #1", "same #2"]


@pytest.mark.parametrize(
    ("record_errors", "lasting", "kept"),
    [("lasting", True, True), ("lasting", False, False), ("all", True, True), ("all", False, True)],
)
def test_transient_errors_are_kept_only_where_all_are(path, record_errors, lasting, kept):
    """`lm_record_errors` decides on the errors that asking again may not give."""
    assert Settings(record_errors=RecordErrors(record_errors)).record_errors.includes(lasting=lasting) is kept


def failed(tape, text, answer=LIMIT):
    """Make a call that fails."""
    record, found = tape.begin(tape.number(), call(text))
    assert found is None
    tape.discard(record, call(text), answer, FAILED)


def test_a_failure_that_cannot_be_recorded_keeps_nobody_waiting(path):
    """The user's own redaction raises: the call's lock is released, and its place is free."""

    def broken(text):
        raise ValueError(text)

    settings = {"redact_with": broken, "cache": Cache(disk_cache_dir=path.parent / "cache")}
    tape = recorder(path, "record", **settings)
    record, _ = tape.begin(tape.number(), call("a"))
    assert tape.claim(record, call("a"), waited=False, can_wait=True) == (True, None)
    with pytest.raises(ValueError, match="no"):
        tape.discard(record, call("a"), LIMIT, FAILED)
    record, _ = tape.begin(tape.number(), call("a"))
    assert tape.claim(record, call("a"), waited=False, can_wait=True) == (True, None)
    assert record.nth == 0


def test_an_error_that_nothing_made_up_for_keeps_its_place(path):
    """Of three identical calls the last fails for good; one that was made before the failure makes up for nothing."""
    tape, provider = recorder(path, "record"), Provider()
    early, _ = tape.begin(tape.number(), call("other"))
    slow, _ = tape.begin(tape.number(), call("other"))
    tape.discard(early, call("other"), LIMIT, FAILED)
    tape.finish(slow, call("other"), provider.answer(call("other")))
    ask(tape, "same", provider)
    failed(tape, "same")
    failed(tape, "same")
    tape.close(passed=True)
    assert (tape.recorded, tape.not_recorded) == (5, [])
    tape = recorder(path)
    answers = [
        tape.begin(tape.number(), call(text))[1]
        for text in ("other", "other", "same", "same", "same", "same")
    ]
    kinds = [answer.kind for answer in answers if answer is not None]
    assert kinds == ["error", "response", "response", "error", "error", "error"]


@pytest.mark.parametrize("mode", ["record", "rewrite"])
def test_errors_of_a_test_that_failed_are_only_told(path, mode):
    """They are no part of how the test goes."""
    recorded(path, "a")
    before = path.read_bytes()
    tape = recorder(path, mode)
    ask(tape, "b", Provider())
    failed(tape, "a" if mode == "rewrite" else "c")
    tape.close(passed=False)
    assert tape.not_recorded == [FAILED]
    assert path.read_bytes() == before


def test_a_rewrite_replaces_an_answer_by_an_error_only_if_the_provider_is_there(path):
    """Where nothing is answered, the provider is down: what was recorded stays."""
    for others, is_replaced in (([], False), (["b"], True)):
        recorded(path, "a", "b")
        tape = recorder(path, "rewrite")
        failed(tape, "a")
        for text in others:
            ask(tape, text, Provider())
        tape.close(passed=True)
        tape = recorder(path)
        answer = tape.begin(tape.number(), call("a"))[1]
        assert answer is not None
        assert (answer.kind is Kind.ERROR) is is_replaced


def test_what_cannot_be_replayed_misses_and_says_why(path):
    """An exception that is not the provider's, or no answer at the end: told, and told again by the miss."""
    tape = recorder(path, "record")
    ask(tape, "a", Provider())
    failed(tape, "a", Answer(Kind.UNANSWERED, None, ended="KeyError"))
    tape.begin(tape.number(), call("b"))
    tape.close(passed=True)
    assert tape.not_recorded == [
        (Reason.NO_ANSWER, "completion() failed"),
        (Reason.NO_ANSWER, "completion() had no answer yet when the test ended"),
    ]
    tape = recorder(path)
    assert ask(tape, "a") == "a #1"
    for text, ended in (("a", "KeyError"), ("b", "the test, still unanswered")):
        record, answer = tape.begin(tape.number(), call(text))
        assert answer is not None
        with pytest.raises(CassetteMiss, match=f"this call of completion\\(\\) ended with {ended}. Replay"):
            tape.cut_off(record, answer)


def test_a_stream_that_is_still_open_is_closed_where_it_was_left(path):
    """What a test read of a stream before it ended is recorded, and marked as left."""

    class Tape:
        def left(self):
            tape.finish(record, asked, Answer(Kind.STREAM, [{"text": "He"}], complete=False))

    tape, asked = recorder(path, "record"), call("a", stream=True)
    record, _ = tape.begin(tape.number(), asked)
    record.open_stream = Tape()
    assert tape.close(passed=True)
    assert record.left_early
    tape = recorder(path)
    record, answer = tape.begin(tape.number(), asked)
    assert answer is not None
    assert not answer.complete
    with pytest.raises(CassetteMiss, match="ends after 1 chunk:") as missed:
        tape.cut_off(record, answer)
    assert str(missed.value).endswith('Record it:  pytest --lm-rewrite "test_x.py::test_x"')
    assert tape.faults == [missed.value]


@pytest.mark.parametrize("mode", list(Mode))
def test_an_entry_point_that_is_not_recorded_is_refused_where_nothing_may_be_asked(path, mode):
    """Nothing goes to a provider unnoticed: refused on replay, counted elsewhere."""
    tape = recorder(path, mode)
    if mode in {Mode.REPLAY, Mode.ONCE, Mode.VERIFY}:
        with pytest.raises(UnsupportedCall, match="image_generation") as refused:
            tape.refuse("image_generation")
        assert tape.faults == [refused.value]
    else:
        tape.refuse("image_generation")
        assert [record.source for record in tape.calls] == ["provider"]
        assert tape.not_recorded == [(Reason.UNSUPPORTED, "image_generation()")]


def test_a_test_without_recorded_calls_reads_no_cassette(path):
    """A call that passes by leaves a broken cassette unread, as a test without any call does."""
    recorded(path, "a")
    path.write_text("broken")
    tape = recorder(path, "record")
    tape.refuse("image_generation")
    assert tape.close(passed=True) is False


# ---- order and threads ---------------------------------------------------------------------------------


def test_the_file_has_the_order_in_which_the_calls_started(path):
    """Answers that come in any order, as under gather or in threads, are written in the order of their calls."""
    tape, provider = recorder(path, "record"), Provider()
    orders = [tape.number() for _ in range(4)]
    texts = ["a", "same", "b", "same"]
    begun = {order: tape.begin(order, call(texts[order])) for order in reversed(orders)}
    for order in (2, 3, 0, 1):
        tape.finish(begun[order][0], call(texts[order]), provider.answer(call(f"{texts[order]} of {order}")))
    assert [record.order for record in tape.calls] == orders
    tape.close(passed=True)
    tape = recorder(path)
    assert [ask(tape, text) for text in texts] == ["a of 0 #1", "same of 1 #1", "b of 2 #1", "same of 3 #1"]
    assert [line for line in path.read_text().splitlines() if "text:" in line] == [
        "  text: 'a of 0 #1'",
        "  text: 'same of 1 #1'",
        "  text: 'b of 2 #1'",
        "  text: 'same of 3 #1'",
    ]


@pytest.fixture
def often_switched():
    """Threads that take turns as often as Python can have them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-7)
    yield
    sys.setswitchinterval(before)


def test_many_threads_share_one_recorder(path, often_switched):
    """No call is lost, none gets another's answer, and none is counted twice."""
    provider = Provider()

    def work(tape, who, said):
        said += [ask(tape, f"{who}-{number % 20}", provider) for number in range(60)]

    def together(tape):
        said = {who: [] for who in range(12)}
        threads = [threading.Thread(target=work, args=(tape, who, said[who])) for who in said]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return said

    tape = recorder(path, "record")
    first = together(tape)
    assert len(tape.calls) == tape.recorded == 12 * 60
    assert [record.order for record in tape.calls] == list(range(12 * 60))
    assert tape.close(passed=True)
    asked, tape = len(provider.asked), recorder(path)
    assert together(tape) == first
    assert len(provider.asked) == asked
    assert tape.replayed == 12 * 60
    assert tape.unused() == 0


def test_identical_calls_in_threads_get_each_answer_once(path, often_switched):
    """Eight threads that ask the same share out the recorded answers."""
    recorded(path, *["same"] * 64)
    tape = recorder(path, repeat="error")
    said = []
    threads = [
        threading.Thread(target=lambda: said.extend([ask(tape, "same") for _ in range(8)])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == sorted(f"same #{number}" for number in range(1, 65))


# ---- what a test may look at ---------------------------------------------------------------------------


def test_a_test_sees_its_calls(path):
    """`lm_cache.calls`, `.replayed`, `.recorded` and `.usage` tell what happened so far."""
    recorded(path, "a")
    tape = recorder(path, "record")
    ask(tape, "a")
    ask(tape, "b", Provider())
    assert (tape.replayed, tape.recorded) == (1, 1)
    assert tape.usage == {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}
    first, second = tape.calls
    assert (first.source, second.source) == ("cassette", "provider")
    assert (first.is_new, second.is_new) == (False, True)
    assert first.request == call("a").request
    assert second.request == call("b").request
    assert first.answer is not None
    assert first.answer.data["text"] == "a #1"
    assert (first.tokens, first.usd) == ((3, 2), 0.25)
    assert first.name == "completion"


def test_calls_are_numbered_by_the_answer_they_got(path):
    """`nth` is the recording that answered, also once they are used up."""
    recorded(path, "same", "same")
    tape = recorder(path, repeat="cycle")
    for _ in range(5):
        ask(tape, "same")
    assert [record.nth for record in tape.calls] == [0, 1, 0, 1, 0]


def test_a_missed_call_is_there_too(path):
    """A call that missed has neither source nor answer."""
    tape = recorder(path)
    miss(tape, "a")
    (record,) = tape.calls
    assert (record.source, record.answer, record.request) == ("", None, {})
    assert (tape.replayed, tape.recorded) == (0, 0)


@pytest.mark.parametrize("tokens", [None, "many", float("nan"), {}, [3]])
def test_odd_token_counts_count_as_none(path, tokens):
    """A provider's nonsense in `usage` breaks no replay."""
    tape = recorder(path, "record")
    record, _ = tape.begin(tape.number(), call("a"))
    tape.finish(record, call("a"), Answer(Kind.RESPONSE, {"text": "A", "usage": {"prompt_tokens": tokens}}))
    tape.close(passed=True)
    tape = recorder(path)
    assert ask(tape, "a") == "A"
    assert tape.usage["total_tokens"] == 0


def test_unused_recordings_are_counted(path):
    """Every recording that no call asked for is one, identical ones each for itself."""
    recorded(path, "a", "same", "same", "b")
    tape = recorder(path)
    assert tape.unused() == 4
    ask(tape, "same")
    ask(tape, "b")
    assert tape.unused() == 2
    assert recorder(path, is_shared=True).unused() == 0
    assert recorder(path.with_name("none.yaml")).unused() == 0


def test_what_was_recorded_now_is_not_unused(path):
    """Unused are recordings of earlier runs only, and those that are still there."""
    recorded(path, "a")
    for keep, unused in ((True, 1), (False, 0)):
        tape = recorder(path, "record")
        tape.keeps_unused = keep
        ask(tape, "c" if keep else "b", Provider())
        tape.close(passed=True)
        assert tape.unused() == unused


# ---- misses --------------------------------------------------------------------------------------------


def test_a_miss_without_a_cassette_says_so(path):
    """What was asked, where it was looked for, in which mode, and last the command that records it."""
    assert miss(recorder(path), "Who is the GOAT?\nOne line.") == (
        "No recording answers this call of completion(): model openai/m, 1 message, "
        "Who is the GOAT?\\nOne line.\n"
        "\n"
        "Looked in  cassettes/test_x.yaml: there is no such file yet.\n"
        "Mode       replay: records nothing; key exact/1\n"
        "\n"
        'If the test stubs the provider (respx, a fake client), give it mode="live", or patch litellm.completion itself.\n'
        'Record it:  pytest --lm-record "test_x.py::test_x"'
    )


def test_a_miss_shows_what_differs_from_the_nearest_recording(path):
    """A changed prompt shows its changed words, not two walls of JSON."""
    recorded(path, "Something else entirely", "Who is the best player of all time?")
    told = miss(recorder(path, "once"), "Who is the worst player of all time?")
    assert told == (
        "No recording answers this call of completion(): model openai/m, 1 message, "
        "Who is the worst player of all time?\n"
        "\n"
        "Looked in  cassettes/test_x.yaml: 2 recordings, none with this key.\n"
        "Mode       once: records only if there is no cassette yet; key exact/1\n"
        "\n"
        'messages[0].content: recorded "Who is the best player of all time?", '
        'asked "Who is the worst player of all time?"\n'
        "\n"
        'Record it:  pytest --lm-record "test_x.py::test_x"'
    )


def test_a_miss_is_known_as_data_too(path):
    """What the message says is there for a summary: the cause, the nearest recording, what differs, its cost."""
    recorded(path, "Something else entirely", "Who is the best player of all time?")
    tape = recorder(path)
    with pytest.raises(CassetteMiss) as missed:
        ask(tape, "Who is the worst player of all time?")
    details = missed.value.details
    assert (details.cause, details.nearest, details.cassette) == ("changed", 2, "cassettes/test_x.yaml")
    [difference] = details.differences
    assert difference.path == "messages[0].content"
    assert difference.before == "Who is the best player of all time?"
    assert difference.after == "Who is the worst player of all time?"
    assert details.tokens == sum(tape.open_cassette().entries[1].answer().tokens)
    assert message(details) == str(missed.value)


def test_a_used_up_recording_is_told_from_a_missing_one(path):
    """Under `repeat = error` the call is recorded, only not as often as it is made."""
    recorded(path, "a")
    tape = recorder(path, repeat="error")
    ask(tape, "a")
    assert miss(tape, "a") == (
        "No recording answers this call of completion(): model openai/m, 1 message, a\n"
        "\n"
        "Looked in  cassettes/test_x.yaml: its recordings of this call are used up, "
        "and repeat = error replays each once.\n"
        "Mode       replay: records nothing; key exact/1\n"
        "\n"
        'Record it:  pytest --lm-record "test_x.py::test_x"'
    )


def test_a_miss_beside_a_broken_recording_names_both(path):
    """A document that cannot be read hinders no message: it is named in it."""
    recorded(path, "first one", "second one")
    text = path.read_text()
    path.write_text(text.replace("    content: first one", "    content: [first one", 1))
    told = miss(recorder(path), "second two")
    assert "test_x.yaml:" in told
    assert "not readable YAML" in told
    assert 'recorded "second one", asked "second two"' in told
    assert told.endswith('Record it:  pytest --lm-record "test_x.py::test_x"')


def test_a_miss_beside_many_broken_recordings_names_a_few(path):
    """A miss stays readable where thousands of recordings are broken."""
    recorded(path, *map(str, range(20)))
    path.write_text(path.read_text().replace("call: completion", "call: ["))
    said = miss(recorder(path), "new")
    assert said.count("not readable YAML") == 3
    assert "17 more recordings cannot be read: pytest-lmcache check" in said


def test_many_misses_are_not_all_explained(path):
    """A program that goes on after its misses is not slowed down by comparing each with everything."""
    recorded(path, "nearly the same")
    tape = recorder(path)
    told = [miss(tape, f"nearly the same {number}") for number in range(MAX_COMPARED + 5)]
    assert ["recorded" in text.split("Looked in")[1].split("key exact/1")[1] for text in told] == (
        [True] * MAX_COMPARED + [False] * 5
    )
    assert len(tape.faults) == MAX_COMPARED + 5


def test_a_miss_is_no_ordinary_exception(path):
    """`except Exception` in the code under test does not swallow it."""
    assert not issubclass(CassetteMiss, Exception)
    tape = recorder(path)
    with pytest.raises(CassetteMiss):
        try:
            ask(tape, "a")
        except Exception:
            pytest.fail("swallowed")


# ---- secrets -------------------------------------------------------------------------------------------

SECRET = "sk-proj-" + "aB3" * 16


def test_no_secret_is_written_wherever_it_stands(path):
    """Answers, streams cut in pieces, errors, hidden parameters and the header's test id are redacted."""
    label = f"test_x.py::test_x[{SECRET}]"
    tape = recorder(path, "record", label=label, commands=commands_of(label))
    answers = [
        reply(f"the key is {SECRET}"),
        Answer(
            Kind.STREAM, [{"text": piece} for piece in ("my ", SECRET[:9], SECRET[9:30], SECRET[30:], " ok")]
        ),
        Answer(Kind.STREAM, [{"text": "x"}], error={"class": "litellm.APIError", "message": f"bad {SECRET}"}),
        Answer(Kind.ERROR, {"class": "litellm.APIError", "message": f"bad {SECRET}"}),
        Answer(Kind.RESPONSE, {"text": "x"}, hidden={"additional_headers": {"x-ratelimit-key": SECRET}}),
    ]
    for number, answer in enumerate(answers):
        record, _ = tape.begin(tape.number(), call(str(number)))
        tape.finish(record, call(str(number)), answer)
    tape.close(passed=True)
    text = path.read_text()
    assert SECRET not in text
    assert "aB3aB3" not in text
    assert text.count("<redacted:") >= 7
    tape = recorder(path)
    _, second = [tape.begin(tape.number(), call(str(number)))[1] for number in range(2)]
    assert second is not None
    told = "".join(chunk["text"] for chunk in second.with_whole_chunks().data)
    assert re.fullmatch("my <redacted:openai-key:[0-9a-f]{6}> ok", told)


def test_a_rewrite_that_asks_the_same_more_often(path):
    """Each of the identical calls keeps its own answer, though fewer were recorded before."""
    recorded(path, "a")
    for texts in (["2", "3", "4"], ["5", "6"]):
        tape = recorder(path, "rewrite")
        for text in texts:
            record, _ = tape.begin(tape.number(), call("a"))
            tape.finish(record, call("a"), reply(text))
        tape.close(passed=True)
        tape = recorder(path, "replay")
        answers = [tape.begin(tape.number(), call("a"))[1] for _ in texts]
        assert answers == [reply(text) for text in texts]
        assert tape.unused() == 0


def test_own_patterns_are_redacted_as_well(path):
    """`redact` and `redact_with` add to what is taken out of answers."""
    tape = recorder(
        path, "record", redact=[r"ACME-\d+"], redact_with=lambda text: text.replace("Miller", "M.")
    )
    record, _ = tape.begin(tape.number(), call("a"))
    tape.finish(record, call("a"), reply("Miller has ACME-1234"))
    tape.close(passed=True)
    assert "Miller" not in path.read_text()
    assert "ACME-1234" not in path.read_text()


def test_the_time_of_recording_is_the_real_one(path):
    """A test that stops the clock is recorded with the day on which it was."""
    from datetime import UTC, datetime

    from freezegun import freeze_time

    with freeze_time("1999-01-01"):
        recorded(path, "a")
    assert f"recorded: {datetime.now(UTC):%Y-%m-}" in path.read_text()


def test_the_header_names_the_test_and_the_command_that_records_it_again(path):
    """Whoever finds a cassette knows whose it is."""
    recorded(path, "a")
    assert path.read_text().startswith(
        "# pytest-lmcache cassette of test_x.py::test_x\n"
        '# record again: pytest --lm-rewrite "test_x.py::test_x"\n'
        "lmcache: 1\n"
        "key: exact/1\n"
        "--- # 1\n"
    )


def test_a_shared_cassettes_header_names_no_test(path):
    """What several tests recorded is not the last one's."""
    recorded(path, "a", is_shared=True, label="several tests")
    assert path.read_text().startswith("# pytest-lmcache cassette of several tests\nlmcache: 1\n")
