"""``lm_unmarked``: what happens to the calls of tests that have no mark."""

import pytest

LISTED = "* live call* in unmarked tests *"


@pytest.fixture
def unmarked(suite):
    """A suite that runs with a value of the setting."""

    def run(value, *args):
        return suite.run("-o", f"lm_unmarked={value}", *args)

    suite.test("def test_a():\n    ask()\n")
    return run


@pytest.mark.parametrize("options", [(), ("-o", "lm_unmarked=warn")], ids=["default", "warn"])
def test_warn_lists_them(suite, options):
    """The call is sent, counted and listed; that is the default."""
    suite.test("def test_a():\n    ask()\n    ask()\n")
    result = suite.run(*options)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["2 live calls in unmarked tests (*", "  test_it.py::test_a (2)"])
    assert suite.asked() == 2


def test_allow_says_nothing(suite, unmarked):
    """The call is sent and there is no summary."""
    result = unmarked("allow")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*language-model calls*")
    assert suite.asked() == 1


def test_error_refuses_them(suite, unmarked):
    """The call is not sent, and its test fails with what to add."""
    result = unmarked("error")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*test_it.py::test_a calls litellm.completion(), and has no mark.*",
            "*Add @pytest.mark.lm_cache to record and replay them*",
            "1 call refused in unmarked tests (lm_unmarked = error; add @pytest.mark.lm_cache):",
            "  test_it.py::test_a (1)",
        ]
    )
    result.stdout.no_fnmatch_line(LISTED)
    assert suite.asked() == 0


@pytest.mark.parametrize("swallow", ["Exception", "BaseException"])
@pytest.mark.parametrize("place", ["test", "teardown", "setup", "thread", "async"])
def test_a_refusal_cannot_be_swallowed(suite, unmarked, place, swallow):
    """Catching it does not help, wherever in the test the call is made."""
    code = f"try:\n        ask()\n    except {swallow}:\n        pass\n"
    head = "import threading\ndef call():\n    " + code
    fixture = {"setup": "call()\n    yield", "teardown": "yield\n    call()"}.get(place, "yield")
    body = {
        "test": "call()",
        "thread": "thread = threading.Thread(target=call)\n    thread.start()\n    thread.join()",
        "async": "asyncio.run(acall())",
    }.get(place, "pass")
    acall = "async def acall():\n    " + code.replace("ask()", "await aask()")
    fixture = f"@pytest.fixture\ndef given():\n    {fixture}\n"
    test = f'@pytest.mark.filterwarnings("ignore")\ndef test_a(given):\n    {body}\n'
    suite.test(f"{head}\n{acall}\n{fixture}\n{test}")
    result = unmarked("error")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*test_it.py::test_a calls litellm.*completion(), and has no mark.*"])
    assert suite.asked() == 0


@pytest.mark.parametrize("mode", ["replay", "record"])
def test_error_leaves_the_others_alone(suite, unmarked, mode):
    """Marked tests, blocks in unmarked ones, live tests and mocked calls are as without the setting."""
    suite.test("""
        from pytest_lmcache import use_cassette

        @pytest.mark.lm_cache
        def test_marked():
            ask()

        def test_block():
            with use_cassette("cassettes/block.yaml", mode="once"):
                ask()

        @pytest.mark.lm_cache(mode="live")
        def test_live():
            ask()

        def test_mocked():
            assert ask(mock_response="mocked") == "mocked"
    """)
    suite.record()
    suite.asked()
    unmarked("error", f"--lm-mode={mode}", "-k", "not live").assert_outcomes(passed=3, deselected=1)
    assert suite.asked() == 0
    unmarked("error", "-k", "live").assert_outcomes(passed=1, deselected=3)
    assert suite.asked() == 1


def test_error_lets_the_next_test_pass(suite, unmarked):
    """A refusal fails its own test only."""
    suite.test("def test_a():\n    ask()\ndef test_b():\n    pass\n")
    unmarked("error").assert_outcomes(passed=1, failed=1)


def test_a_call_at_import_belongs_to_no_test(suite, unmarked):
    """It is sent and listed, also under ``error``: no mark could cover it."""
    suite.test("ask()\ndef test_a():\n    pass\n")
    result = unmarked("error")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([LISTED, "  outside of the tests, *"])


def test_an_invalid_value_is_an_error(suite, unmarked):
    """It is told before any test runs."""
    result = unmarked("refuse")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*lm_unmarked cannot be 'refuse'; it takes one of: allow, warn, error.*"])
