"""The summary: what counts as what, that workers' facts add up to those of one run, and its lines."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_lmcache.cassette.merge import Changes
from pytest_lmcache.commands import Commands
from pytest_lmcache.not_recorded import HEADINGS, NotRecorded, Reason
from pytest_lmcache.settings import Mode
from pytest_lmcache.summary import Facts, Summary

TIMED_OUT = NotRecorded(Reason.PROVIDER_ERROR, "completion() failed with Timeout")


@dataclass
class Call:
    """A call as the summary sees it."""

    source: str
    is_new: bool = False
    tokens: tuple[int, int] = (10, 5)
    usd: float | None = 0.25
    seconds: float = 1.0
    left_early: bool = False
    failure: None = None
    model: str = "gpt"
    is_cached: bool = False
    asked_twice: bool = False
    cached: tuple[int, int] = (0, 0)
    cached_usd: float = 0.0
    asked_by: str = ""
    asked_at: str = ""


@dataclass
class Recorder:
    """A test's recorder as the summary sees it."""

    calls: list[Call] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    not_recorded: list[NotRecorded] = field(default_factory=list)
    caches_in_the_way: set[str] = field(default_factory=set)
    spare: int = 0
    mode: Mode = Mode.REPLAY
    shown_path: str = ""
    path: Path = Path(__file__)
    commands: Commands = field(default_factory=Commands)
    is_shared: bool = False
    old: int = 0
    changes: Changes = field(default_factory=lambda: Changes(1, 2, 0))
    moved_models: list[str] = field(default_factory=list)
    values: list[Call] = field(default_factory=list)
    past_calls: dict[str, int] = field(default_factory=dict)
    verification: None = None

    def unused(self):
        return self.spare


REPLAYED, NEW, LIVE = Call("cassette"), Call("provider", is_new=True), Call("provider")
FACTS = [
    ("a", Recorder([REPLAYED, REPLAYED], spare=2), True, False),
    ("b", Recorder([NEW, NEW, Call("cassette", usd=None)]), True, True),
    ("c", Recorder([LIVE, Call("")], faults=["miss"], spare=5), False, False),
    ("d", Recorder([LIVE], not_recorded=[TIMED_OUT]), True, False),
    ("e", Recorder([Call("provider", is_new=True, left_early=True)]), True, True),
    ("f", Recorder([NEW]), False, False),
    (
        "h",
        Recorder([Call("disk", is_new=True), Call("disk"), Call("redis", model="claude")], old=3),
        True,
        True,
    ),
    ("j", Recorder([REPLAYED], caches_in_the_way={"one cache", "another"}), True, False),
    (
        "i",
        Recorder([Call("provider", is_cached=True, asked_twice=True, cached=(4, 2), cached_usd=0.125)]),
        True,
        False,
    ),
]
STATS = {"memory": SimpleNamespace(hits=1, misses=2, puts=3)}


def summary(facts):
    """One process's facts."""
    total = Summary()
    for test, recorder, passed, written in facts:
        recorder.shown_path = recorder.shown_path or f"cassettes/{test}.yaml"
        total.add_recorder(test, recorder, passed=passed, written=written)
    return total


def test_what_counts_as_what():
    """Recorded is what a passing test kept; the provider's other answers are live; unused counts where it passed."""
    total = summary(FACTS)
    calls = {name: total.by_model([name])["gpt"].calls for name in ("replayed", "recorded", "live")}
    assert calls == {"replayed": 4, "recorded": 3, "live": 3}
    assert {test: facts.missed for test, facts in total.tests.items() if facts.missed} == {"c": 1}
    assert (
        "2 unused recordings (pytest --lm-rewrite removes recordings that no call asks for):"
        in total.render(durations=0)
    )
    assert total.tests["d"].not_recorded == {"provider error": ["completion() failed with Timeout"]}
    replayed = total.by_model(["replayed"])["gpt"]
    assert (replayed.tokens, replayed.usd, replayed.unpriced) == (60, 0.75, 1)


def test_workers_add_up():
    """However the tests are spread over processes, and sent as JSON, the sum is that of one process."""
    alone = summary(FACTS)
    alone.add("g", Facts(unmarked=3))
    alone.unseen = ["cannot be seen"]
    alone.add_layers(STATS)
    for cut in range(len(FACTS) + 1):
        merged = Summary()
        for part in (FACTS[:cut], FACTS[cut:]):
            one = summary(part)
            if part and part[-1] is FACTS[-1]:
                one.add("g", Facts(unmarked=3))
                one.unseen = ["cannot be seen"]
                one.add_layers(STATS)
            merged += Summary.from_plain(json.loads(json.dumps(one.to_plain())))
        assert merged.to_plain() == alone.to_plain()
        assert list(merged.render(durations=0)) == list(alone.render(durations=0))


def test_a_test_of_several_workers():
    """What several workers tell of the same place, such as a shared fixture, adds up; what none used is counted once."""
    merged = Summary()
    for _ in range(2):
        merged += summary([("fixture", Recorder([REPLAYED], spare=1), True, False)])
    assert merged.unused == {"fixture": 1}
    assert merged.tests["fixture"].total.tokens == 30


def test_a_file_that_several_use():
    """What one test did not ask of a file that others use, in this process or another, is not called unused."""
    facts = [
        ("a", Recorder([REPLAYED], spare=1, shown_path="x.yaml"), True, False),
        ("b", Recorder([REPLAYED], is_shared=True, shown_path="x.yaml"), True, False),
    ]
    assert not any("unused" in line for line in summary(facts).render(durations=0))
    merged = Summary()
    for fact in (facts[0], ("b", Recorder([REPLAYED], spare=1, shown_path="x.yaml"), True, False)):
        merged += summary([fact])
    assert not any("unused" in line for line in merged.render(durations=0))


def test_several_files_of_one_test():
    """What a test did not ask of each of its files adds up."""
    facts = [
        ("a", Recorder([REPLAYED], spare=number, shown_path=f"{number}.yaml"), True, False)
        for number in (2, 3)
    ]
    assert any("5 unused recordings" in line for line in summary(facts).render(durations=0))


def test_empty():
    """Without calls, misses and unused recordings there is nothing to tell."""
    assert Summary().is_empty
    assert summary([("a", Recorder(), True, False)]).is_empty
    assert not summary([("a", Recorder(spare=1), True, False)]).is_empty
    assert not summary([("a", Recorder(faults=["miss"]), False, False)]).is_empty
    assert not summary([("a", Recorder(caches_in_the_way={"a cache"}), True, False)]).is_empty
    watched = Summary()
    watched.add("a", Facts(unmarked=1))
    assert not watched.is_empty


def test_lines():
    """The summary reads as a sentence each: counts, saved, spent, files, lists that end in what to do."""
    total = summary(FACTS)
    total.add("g", Facts(unmarked=1))
    assert list(total.render(misses=["a change, 1 call in 1 test"], durations=2)) == [
        (
            "4 replayed, 2 from disk, 1 from redis, 3 recorded, 1 asked and only cached, "
            "3 live and not recorded, 1 missed"
        ),
        "saved 105 tokens, $1.50 (the price of 1 call is not known)",
        "  claude: 15 tokens, $0.25",
        "  gpt: 90 tokens, $1.25 (the price of 1 call is not known)",
        "spent 105 tokens, $1.75",
        "the providers' prompt caches: 4 tokens read, 2 written, saved $0.12",
        "1 call was sent by more than one process (streams, and calls of more than a minute, are not de-duplicated)",
        "3 cassettes written: review and commit them",
        "recordings: 3 replaced, 6 added",
        "a change, 1 call in 1 test",
        "2 unused recordings (pytest --lm-rewrite removes recordings that no call asks for):",
        "  a (2)",
        "3 recordings older than lm_max_age (pytest --lm-record asks again):",
        "  h (3)",
        "streams recorded only as far as the test read them:",
        "  e (1)",
        "caches that answer before a call can be recorded; switch them off in tests:",
        "  j (another, one cache)",
        "1 live call in unmarked tests (add @pytest.mark.lm_cache, or set lm_auto = true):",
        "  g (1)",
        "not recorded, may miss on replay (lm_record_errors = all keeps a provider's errors):",
        "  d (completion() failed with Timeout)",
        "slowest to record:",
        "      3.00 s        45 tokens       $0.75  h",
        "      3.00 s        45 tokens       $0.50  b",
    ]


def test_verbose():
    """With -v the summary tells each model, and what each layer was asked."""
    total = summary(FACTS[:1])
    total.add_layers(STATS)
    total.add_layers(STATS)
    assert list(total.render(verbose=True))[1:4] == [
        "saved 30 tokens, $0.50",
        "  gpt: 30 tokens, $0.50",
        "layer memory: 2 hits, 4 misses, 6 stored",
    ]


def test_each_reason_for_no_recording_has_its_own_lines():
    """What mends a missing key is not what mends a rate limit; workers' lists are merged by reason."""
    facts = [
        (reason.name, Recorder([LIVE], not_recorded=[NotRecorded(reason, "call()")]), True, False)
        for reason in Reason
    ]
    total, other = summary(facts), summary(facts)
    total += Summary.from_plain(json.loads(json.dumps(other.to_plain())))
    lines = list(total.render())
    for reason in Reason:
        assert lines[lines.index(f"{HEADINGS[reason]}:") + 1] == f"  {reason.name} (call())"


def test_live_mode_expects_nothing_to_be_kept():
    """In mode live an answer that was not recorded is no news."""
    total = summary([("a", Recorder([LIVE], not_recorded=[TIMED_OUT], mode=Mode.LIVE), True, False)])
    assert total.tests["a"].not_recorded == {}


@pytest.mark.parametrize(
    ("usd", "said"),
    [
        (2.1e-05, "saved 15 tokens, $0.000021"),
        (3.96e-06, "saved 15 tokens, $0.000004"),
        (0.1, "saved 15 tokens, $0.10"),
        (0.012, "saved 15 tokens, $0.012"),
        (1234.5, "saved 15 tokens, $1,234.50"),
        (0.0, "saved 15 tokens"),
        (None, "saved 15 tokens"),
    ],
)
def test_money(usd, said):
    """A sum has digits enough to say something; without a known price there is none."""
    lines = list(summary([("a", Recorder([Call("cassette", usd=usd)]), True, False)]).render(durations=0))
    assert said in lines
    price = said.partition(", ")[2]
    assert lines[-1] == f"      1.00 s        15 tokens  {price:>10}  a"
