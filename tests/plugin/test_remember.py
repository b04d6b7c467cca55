"""``lm_cache.remember``: what a test takes from elsewhere and puts into its prompts replays with them."""

import asyncio
import math
from dataclasses import dataclass
from itertools import count

import pytest
from helpers import summary_lines

from pytest_lmcache import CassetteError, CassetteMiss, SettingsError, UnrecordableError, use_cassette

RUN_ID = """
    from uuid import uuid4

    def test_report(lm_cache):
        run = lm_cache.remember("run id", lambda: uuid4().hex)
        assert run in ask(f"Summarise run {run}.")
        assert len(run) == 32
        assert [len(lm_cache.calls), lm_cache.replayed + lm_cache.recorded, len(lm_cache.values)] == [1, 1, 1]
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.yaml"


def test_a_remembered_value_replays_with_the_prompt_that_has_it(suite):
    """A new uuid in each run's prompt replays, in the cassette's order, and counts apart from model calls."""
    suite.test(RUN_ID)
    assert summary_lines(suite.record())[:2] == [
        "0 replayed, 1 recorded",
        "values: 1 recorded",
    ]
    text = (suite.folder / "cassettes/test_it/test_report.yaml").read_text()
    assert text.index("call: remember run id") < text.index("call: completion")
    assert "lmcache: 1\n" in text
    result = suite.run()
    result.assert_outcomes(passed=1)
    assert summary_lines(result)[:2] == ["1 replayed", "values: 1 replayed"]


def test_a_failing_test_keeps_what_it_remembered(suite, default_layers):
    """After a failure the next recording remembers the same, so that the paid answers to the prompts with it are found."""
    suite.test(RUN_ID + "        assert False\n")
    assert suite.run("--lm-record").ret == 1
    assert suite.asked() == 1
    suite.test(RUN_ID)
    suite.record()
    assert suite.asked() == 0


@pytest.mark.parametrize(
    "value", ["text", b"\0\xff", {"a": [1, 2.5, None, True]}, [], "", None, math.inf, 10**30]
)
def test_values_come_back_as_they_were(path, value):
    """JSON data and bytes replay with the types that they had."""
    with use_cassette(path, mode="record") as tape:
        assert tape.remember("it", lambda: value) is value
    with use_cassette(path) as tape:
        again = tape.remember("it", lambda: 1 / 0)
    assert (type(again), again) == (type(value), value)


def test_values_cost_nothing(suite):
    """A value counts against no budget, and is recorded after the budget is spent."""
    suite.test(
        """
        def test_report(lm_cache):
            assert lm_cache.remember("a", lambda: 1) == 1
            ask("hello", model="openai/of-no-known-price")
            assert lm_cache.remember("b", lambda: 2) == 2
        """
    )
    suite.record("--lm-budget=10", "-o", "lm_unknown_price=10").assert_outcomes(passed=1)
    assert suite.asked() == 1


def test_each_call_gets_its_own_value(path):
    """The n-th value of a name is the n-th recorded one; then ``repeat`` decides; names are apart."""
    numbers = count()
    with use_cassette(path, mode="record") as tape:
        assert [tape.remember(name, lambda: next(numbers)) for name in ("a", "b", "a")] == [0, 1, 2]
    with use_cassette(path) as tape:
        assert [tape.remember(name, list) for name in ("a", "a", "a", "b")] == [0, 2, 2, 1]
    with use_cassette(path, repeat="cycle") as tape:
        assert [tape.remember("a", list) for _ in range(3)] == [0, 2, 0]


@pytest.mark.parametrize(
    ("mode", "second"), [("replay", 0), ("record", 0), ("once", 0), ("rewrite", 1), ("live", 1)]
)
def test_modes(path, mode, second):
    """A remembered value follows the mode as a model's answer does."""
    numbers = count()
    with use_cassette(path, mode="record") as tape:
        tape.remember("it", lambda: next(numbers))
    with use_cassette(path, mode=mode) as tape:
        assert tape.remember("it", lambda: next(numbers)) == second
    with use_cassette(path) as tape:
        assert tape.remember("it", list) == (1 if mode == "rewrite" else 0)


def test_an_async_function(path):
    """The value of an async function is awaited, recorded and replayed."""

    async def fetch():
        await asyncio.sleep(0)
        return {"city": "Paris"}

    async def run(mode):
        async with use_cassette(path, mode=mode) as tape:
            return await tape.remember("city", fetch)

    assert asyncio.run(run("record")) == asyncio.run(run("replay")) == {"city": "Paris"}


def test_a_value_that_was_never_recorded_is_a_miss(path):
    """The miss names the value and the command, and a changed name is compared with what is recorded."""
    with use_cassette(path, mode="record") as tape:
        tape.remember("run id", lambda: 1)
    with pytest.raises(CassetteMiss) as caught, use_cassette(path) as tape:
        tape.remember("the run id", lambda: 1)
    message = str(caught.value)
    assert message.startswith("No recording answers this call of remember('the run id')")
    assert 'mode="record"' in message


def test_a_value_does_not_age(path, provider):
    """``max_age`` renews models' answers, and not the values that other recordings were made with."""
    numbers = count()
    for _ in range(2):
        with use_cassette(path, mode="record", max_age=60) as tape:
            assert tape.remember("it", lambda: next(numbers)) == 0
        path.write_text(path.read_text().replace("recorded: 20", "recorded: 19"))


@dataclass
class Report:
    """No plain data."""

    city: str


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (Report("Paris"), "a value of type tests.plugin.test_remember.Report"),
        ({"a": [(1, 2)]}, "a value of type tuple at ['a'][0]"),
        ({1: 2}, "a dict with the key 1"),
    ],
    ids=["dataclass", "tuple", "key"],
)
def test_what_is_no_plain_data_is_refused(path, value, what):
    """While recording, a value that could not come back as it was is an error that says how to convert it."""
    with pytest.raises(UnrecordableError) as caught, use_cassette(path, mode="record") as tape:
        try:
            tape.remember("it", lambda: value)
        except Exception:
            pass
    assert what in str(caught.value)
    assert "dump=..., load=..." in str(caught.value)
    assert not path.exists()


def test_conversion(path):
    """With ``dump`` and ``load`` a value may be of any type."""
    for mode in ("record", "replay"):
        with use_cassette(path, mode=mode) as tape:
            found = tape.remember("it", lambda: Report("Paris"), dump=vars, load=lambda data: Report(**data))
        assert found == Report("Paris")


@pytest.mark.parametrize(
    ("name", "function", "what"),
    [
        ("run id", "abc", "takes a function that returns the value"),
        ("", list, "takes a name"),
        ("run id", (lambda: (yield)), "generator function"),
    ],
    ids=["value", "name", "generator"],
)
def test_misuse(path, name, function, what):
    """What cannot be remembered is refused, whatever the mode."""
    with use_cassette(path) as tape, pytest.raises(SettingsError, match=what):
        tape.remember(name, function)


def test_a_secret_is_replaced(path):
    """A secret in a value is not written; replay gives its placeholder, which prompts have too."""
    secret = "sk-proj-" + "aB3" * 14
    with use_cassette(path, mode="record") as tape:
        assert tape.remember("it", lambda: {"note": f"use {secret}"})["note"].endswith(secret)
    assert secret not in path.read_text()
    with use_cassette(path) as tape:
        assert tape.remember("it", list)["note"].startswith("use <redacted:openai-key")


def test_a_broken_value(path):
    """A recording without a value is an error with file and line."""
    with use_cassette(path, mode="record") as tape:
        tape.remember("it", lambda: 1)
    path.write_text(path.read_text().replace("value: 1", "valeu: 1"))
    with (
        pytest.raises(CassetteError, match=r"x\.yaml:.*`response:` has no `value:`"),
        use_cassette(path) as tape,
    ):
        tape.remember("it", lambda: 1)
