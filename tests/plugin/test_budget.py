"""``--lm-budget``: no call is sent once so many USD are spent, whoever sends it."""

import re

import dspy
import pytest
from helpers import configure, summary_lines

from pytest_lmcache.plugin.budget import BUDGET_SPENT

# Each call costs a dollar: the provider counts one output token for each word.
PRICES = """
import litellm, pytest

litellm.register_model({
    "openai/dear": {
        "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 1.0,
    },
})
"""
TESTS = """
from app import SETTINGS
SETTINGS["model"] = "openai/dear"
pytestmark = pytest.mark.lm_cache

@pytest.mark.parametrize("n", range(4))
def test_one(n):
    ask(f"{n}")
"""
OVER = "*not recorded, because the budget was spent (go on: pytest --lm-record --lm-budget=2.5 --lf):"
native = pytest.mark.skipif(not hasattr(dspy, "lm15"), reason="this DSPy calls LiteLLM only")


@pytest.fixture
def dear(suite):
    """A suite whose model costs a dollar a call."""
    suite.file("conftest.py", PRICES)
    usual, suite.provider.answer = suite.provider.answer, lambda _: "yes"
    yield suite
    suite.provider.answer = usual


def refused(result):
    """The tests that the summary names, and the line above them."""
    lines = summary_lines(result)
    start = next(at for at, line in enumerate(lines) if "because the budget was spent" in line)
    return [line.split()[0] for line in lines[start + 1 :]]


def test_no_call_is_sent_once_the_budget_is_spent(dear):
    """The call that exceeds the budget is the last one; what is paid for is kept, the rest is named and goes on."""
    dear.test(TESTS)
    result = dear.run("--lm-record", "--lm-budget=2.50")
    assert dear.asked() == 3
    assert result.ret == BUDGET_SPENT
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "The budget of this run is spent, so completion() was not sent: model openai/dear, 1 message, 3",
            "Budget     $2.50: spent $3.00.",
            'Go on:  pytest --lm-record --lm-budget=2.5 "test_it.py::test_one[[]3]"',
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    lines = summary_lines(result)
    assert lines[0] == "0 replayed, 3 recorded, 1 not sent for lack of budget"
    assert "budget: $3.00 of $2.50 spent" in lines
    assert refused(result) == ["test_it.py::test_one[3]"]
    assert len(dear.cassettes()) == 3
    result = dear.run("--lm-record", "--lm-budget=2.50")
    assert (result.ret, dear.asked()) == (0, 1)
    assert "budget: $1.00 of $2.50 spent" in summary_lines(result)


def test_replaying_costs_nothing(dear):
    """A budget of 0 sends nothing, and a recorded suite passes under it, without a word."""
    dear.test(TESTS)
    dear.record()
    result = dear.run("--lm-budget=0")
    assert result.ret == 0
    assert not [line for line in summary_lines(result) if "budget" in line]
    dear.test(TESTS.replace("{n}", "new {n}"))
    dear.asked()
    assert dear.run("--lm-budget=0", "--lm-record").ret == BUDGET_SPENT
    assert dear.asked() == 0


@pytest.mark.parametrize("mode", ["rewrite", "live", "once"])
def test_every_mode_that_asks(dear, mode):
    """The budget holds in each mode that calls a provider, and the command goes on in that mode."""
    dear.test(TESTS)
    result = dear.run(f"--lm-mode={mode}", "--lm-budget=2.50")
    assert (result.ret, dear.asked()) == (BUDGET_SPENT, 3)
    flag = "--lm-rewrite" if mode == "rewrite" else f"--lm-mode={mode}"
    result.stdout.fnmatch_lines([f'Go on:  pytest {flag} --lm-budget=2.5 "test_it.py::test_one[[]3]"'])


@pytest.mark.usefixtures("default_layers")
def test_what_a_refused_test_has_paid_is_kept(dear):
    """A test that runs out of budget half-way takes its first answers from the cache in the next run."""
    dear.test(TESTS.replace('ask(f"{n}")', '[ask(f"{n} {k}") for k in range(2)]').replace("4", "2"))
    result = dear.run("--lm-record", "--lm-budget=3")
    result.assert_outcomes(passed=1, failed=1)
    dear.test(TESTS.replace('ask(f"{n}")', '[ask(f"{n} {k}") for k in range(3)]').replace("4", "2"))
    dear.asked()
    dear.run("--lm-record", "--lm-budget=1").assert_outcomes(passed=1, failed=1)
    assert dear.asked() == 1


def test_code_cannot_swallow_the_refusal(dear):
    """``except Exception``, retries and fallbacks let it pass, and a test that catches all fails all the same."""
    dear.test("""
        from app import SETTINGS
        SETTINGS["model"] = "openai/dear"
        pytestmark = pytest.mark.lm_cache

        def test_exception():
            try:
                ask("one", num_retries=3)
            except Exception:
                ask("another")

        def test_all():
            try:
                asyncio.run(aask("two"))
            except BaseException:
                pass
    """)
    result = dear.run("--lm-record", "--lm-budget=0")
    result.assert_outcomes(failed=2)
    assert (result.ret, dear.asked()) == (BUDGET_SPENT, 0)
    assert refused(result) == ["test_it.py::test_all", "test_it.py::test_exception"]
    lines = summary_lines(result)
    assert lines[0] == "0 replayed, 2 not sent for lack of budget"
    assert not [line for line in lines if line.startswith("not recorded")]


ASKS = {
    "stream": 'list(litellm.completion(messages=said(f"{n}"), stream=True, **SETTINGS))',
    "async stream": 'asyncio.run(read(f"{n}"))',
    "async": 'asyncio.run(aask(f"{n}"))',
    "block": """
    with use_cassette(f"b{n}.yaml", mode="record"):
        ask(f"{n}")""",
    "unmarked": 'ask(f"{n}")',
    "not recorded": """
    with pytest.raises(litellm.APIError):  # the provider has no such endpoint
        litellm.create_thread("openai", [], api_key="sk-local-123456", api_base=SETTINGS["api_base"])""",
}
EACH = """
from pytest_lmcache import use_cassette
SETTINGS["model"] = "openai/dear"

async def read(text):
    async for _ in await litellm.acompletion(messages=said(text), stream=True, **SETTINGS):
        pass

MARK
@pytest.mark.parametrize("n", range(4))
def test_one(n):
    ASK
"""


@pytest.mark.parametrize("how", ASKS)
def test_every_way_to_ask(dear, how):
    """Streams, async calls, blocks, and what is not recorded come to the same end."""
    configure(dear, "toml", lm_unknown_price=1.0)
    mark = "" if how in {"block", "unmarked"} else "@pytest.mark.lm_cache"
    dear.test(EACH.replace("ASK", ASKS[how]).replace("MARK", mark))
    result = dear.run("--lm-mode=record", "--lm-budget=2.50")
    assert (result.ret, dear.asked()) == (BUDGET_SPENT, 3), result.stdout.str()
    assert refused(result) == ["test_it.py::test_one[3]"]


@native
def test_dspys_engine(dear):
    """DSPy's own client is asked within the budget too."""
    dear.test("""
        import dspy

        @pytest.mark.lm_cache
        @pytest.mark.parametrize("n", range(4))
        def test_one(n):
            lm = dspy.LM("openai/gpt-4", api_base=SETTINGS["api_base"], api_key="sk-local-123456", num_retries=0)
            lm(f"{n}")
    """)
    budget = "--lm-budget=0.0000001"
    result = dear.run("--lm-record", budget)
    assert (result.ret, dear.asked()) == (BUDGET_SPENT, 1)
    result.assert_outcomes(passed=1, failed=3)


def test_what_is_recorded_beside_the_calls_costs_nothing(dear):
    """Remembered values and recorded functions are no calls: no budget holds for them."""
    dear.test("""
        @pytest.mark.lm_cache
        def test_one(lm_cache):
            assert lm_cache.remember("run id", lambda: 5) == 5
    """)
    result = dear.run("--lm-record", "--lm-budget=0")
    assert result.ret == 0
    assert not [line for line in result.outlines if "budget" in line and "lmcache" not in line]


def test_a_stream_that_a_test_cuts_is_paid_once(dear):
    """What the provider gave once, and a later call gets, counts once."""
    dear.test("""
        SETTINGS["model"] = "openai/dear"

        @pytest.mark.lm_cache
        def test_one(lm_cache):
            lm_cache.cut_stream(after=0)
            for _ in range(2):
                try:
                    list(litellm.completion(messages=said("x"), stream=True, **SETTINGS))
                except Exception:
                    pass
    """)
    result = dear.run("--lm-record", "--lm-budget=5")
    assert dear.asked() == 1
    assert "budget: $1.00 of $5.00 spent" in summary_lines(result)


def test_calls_in_flight_count_as_their_model_cost_before(dear):
    """Of calls that start at once, no more are sent than the budget is expected to pay for."""
    dear.test("""
        SETTINGS["model"] = "openai/dear"

        @pytest.mark.lm_cache
        def test_one():
            ask("first")

            async def many():
                return await asyncio.gather(*(aask(f"{n}") for n in range(10)), return_exceptions=True)

            asyncio.run(many())
    """)
    result = dear.run("--lm-record", "--lm-budget=4")
    assert (result.ret, dear.asked()) == (BUDGET_SPENT, 4)
    result.stdout.fnmatch_lines(["Budget     $4.00: spent $1.00, and $3.00 expected of 3 calls in flight."])


@pytest.mark.slow
def test_workers_share_a_budget(dear):
    """The workers of pytest-xdist spend one budget together, and the controller's summary and exit status say so."""
    dear.test(TESTS.replace("4", "12"))
    result = dear.spawn("--lm-record", "--lm-budget=4.5", "-n", "2")
    assert result.returncode == BUDGET_SPENT
    assert dear.asked() in {5, 6}  # two calls may start at once
    spent = re.search(r"budget: \$(\d)\.00 of \$4\.50 spent", result.stdout)
    assert int(spent[1]) == len(dear.cassettes())
    assert result.stdout.count("\n  test_it.py::test_one[") == 12 - int(spent[1])


@pytest.mark.slow
def test_child_processes(dear):
    """The processes that a test starts spend the run's budget."""
    dear.file(
        "child.py",
        """
        import sys, conftest
        from app import SETTINGS, ask
        SETTINGS["model"] = "openai/dear"
        ask(sys.argv[1])
        """,
    )
    for mode in ("record", "rewrite", "live"):
        dear.test("""
            import subprocess, sys

            @pytest.mark.lm_cache
            @pytest.mark.parametrize("n", range(3))
            def test_one(n):
                subprocess.run([sys.executable, "child.py", str(n)], capture_output=True)
        """)
        result = dear.run(f"--lm-mode={mode}", "--lm-budget=1.5")
        assert (result.ret, dear.asked()) == (BUDGET_SPENT, 2), mode
        result.stdout.fnmatch_lines(["The budget of this run is spent*", "Asked by   process*"])
        assert refused(result) == ["test_it.py::test_one[2]"]


@pytest.mark.parametrize("value", ["-1", "much", "nan", "inf", ""])
def test_a_budget_that_is_no_amount(suite, value):
    """A wrong value is told before any test runs."""
    suite.test("def test_one():\n    pass\n")
    result = suite.run(f"--lm-budget={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*--lm-budget cannot be *; it takes a number of USD, 0 or more, such as 2.50."]
    )


def test_a_budget_may_have_its_sign(dear):
    """``--lm-budget='$2'`` is 2 USD."""
    dear.test(TESTS)
    dear.run("--lm-record", "--lm-budget=$2")
    assert dear.asked() == 2
