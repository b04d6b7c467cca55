"""What the run says: nothing without calls, and after calls what they were, saved and spent."""

import re
from fnmatch import fnmatch

import pytest
from helpers import summary_lines

from pytest_lmcache.not_recorded import HEADINGS, Reason, reason_of

TITLE = re.compile("_+ test_one _+$")
MARKED = """
@pytest.mark.lm_cache
def test_one():
    ask("one")

@pytest.mark.lm_cache
def test_two():
    ask("two")
    ask("two")
"""


def test_nothing_without_calls(suite):
    """A run without language-model calls looks as it does without the plugin."""
    suite.test("def test_one():\n    pass\n\n@pytest.mark.lm_cache\ndef test_two():\n    pass\n")
    result = suite.run()
    result.assert_outcomes(passed=2)
    for text in ("*lmcache: mode*", "*language-model*", "*replayed*"):
        result.stdout.no_fnmatch_line(text)


def test_header_only_when_not_the_default(suite):
    """The header names a mode that is not the default, from the command line or from ini."""
    suite.test("def test_one():\n    pass\n")
    suite.run("--lm-rewrite").stdout.fnmatch_lines(["lmcache: mode rewrite"])
    suite.run("--lm-mode=replay").stdout.no_fnmatch_line("lmcache: mode*")
    suite.file("pytest.ini", "[pytest]\nlm_mode = once\n")
    suite.run().stdout.fnmatch_lines(["lmcache: mode once"])


def test_recorded_and_replayed(suite):
    """Recording tells what was spent, replaying what was saved: the same tokens and USD."""
    suite.test(MARKED)
    lines = summary_lines(suite.record())
    assert lines[0] == "0 replayed, 3 recorded"
    spent = re.fullmatch(r"spent (\d+ tokens, \$0\.0000\d+)", lines[1])
    assert spent
    assert lines[2:] == ["2 cassettes written: review and commit them", "recordings: 3 added"]
    assert summary_lines(suite.run()) == ["3 replayed", f"saved {spent[1]}"]


def test_missed(suite):
    """Misses are counted, and listed by cause; what records them comes last."""
    suite.test(MARKED)
    assert summary_lines(suite.run()) == [
        "0 replayed, 2 missed",
        "never recorded, 2 calls in 2 tests",
        "  test_it.py::test_one",
        "  test_it.py::test_two",
        'Record:     pytest --lm-record "test_it.py::test_one" "test_it.py::test_two"',
        "  not estimated: 2 calls without a recording, and what follows from them",
    ]


def test_refused(suite):
    """A call that no recording can answer is listed apart from the misses, that recording mends."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            ask(extra_body={"odd": pytest})

        @pytest.mark.lm_cache
        def test_two():
            litellm.get_assistants(custom_llm_provider="openai")
    """)
    assert summary_lines(suite.run()) == [
        "0 replayed, 2 refused",
        "2 tests failed for reasons that recording cannot fix; see their messages:",
        "  test_it.py::test_one (1)",
        "  test_it.py::test_two (1)",
    ]


def test_unused(suite):
    """Recordings that a passing test asked for no more are listed; those of a failing or unselected one are not."""
    suite.test(MARKED)
    suite.record()
    suite.test(
        MARKED.replace('    ask("two")\n    ask("two")', '    ask("two")').replace('ask("one")', "pass")
    )
    lines = summary_lines(suite.run())
    assert lines[2:] == [
        "2 unused recordings (pytest --lm-rewrite removes recordings that no call asks for):",
        "  test_it.py::test_one (1)",
        "  test_it.py::test_two (1)",
    ]
    suite.test(MARKED.replace('ask("one")', "assert 0"))
    assert not [line for line in summary_lines(suite.run()) if "unused" in line]
    assert not [line for line in summary_lines(suite.run("-k", "two")) if "unused" in line]


def test_live_calls_of_unmarked_tests(suite):
    """Calls of tests that are not marked, and calls outside of tests, pass, and are told."""
    suite.test("""
        ask("while importing")

        def test_one():
            ask()

        def test_two():
            pass

        class TestIt:
            @pytest.fixture(autouse=True)
            def helper(self):
                yield
                ask()
                ask()

            def test_one(self):
                pass
    """)
    result = suite.run()
    result.assert_outcomes(passed=3)
    assert suite.asked() == 4
    assert summary_lines(result)[1:] == [
        "4 live calls in unmarked tests (add @pytest.mark.lm_cache, or set lm_auto = true):",
        "  outside of the tests, such as while a module is imported: use_cassette records them (1)",
        "  test_it.py::TestIt::test_one (2)",
        "  test_it.py::test_one (1)",
    ]


@pytest.mark.slow
def test_unmarked_test_runs_as_without_the_plugin(suite):
    """What a test that is not marked asks is neither keyed nor refused."""
    suite.test("""
        def test_one():
            ask(extra_body={"odd": pytest})
    """)
    suite.run("--lm-record").stdout.fnmatch_lines(["E*Object of type module is not JSON serializable*"])
    suite.run("-o", "lm_auto=true").stdout.fnmatch_lines(["E*UnkeyableCallError*`extra_body.odd`*"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "heading", "mend"),
    [
        (
            {"api_key": None},
            Reason.CREDENTIALS,
            "key is missing or was refused. Set it *",
        ),
        (
            {"api_base": "http://127.0.0.1:9"},
            Reason.CONNECTION,
            "could not be reached. Check *",
        ),
    ],
    ids=["no-key", "no-provider"],
)
def test_no_key_or_no_provider(suite, monkeypatch, settings, heading, mend):
    """Without a key, or a provider, the first line of the failure says so, and so does the summary."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    suite.test(f"""
        @pytest.mark.lm_cache
        def test_one():
            litellm.completion(**(SETTINGS | {settings}), messages=said("Hello"))
    """)
    option = "--lm-record" if heading is Reason.CREDENTIALS else "--lm-rewrite"
    result = suite.run(option)
    result.assert_outcomes(failed=1)
    lines = result.stdout.lines
    first = next(line for line in lines[lines.index(next(filter(TITLE.match, lines))) + 1 :] if line)
    assert fnmatch(
        first,
        f"completion() failed with InternalServerError: the provider*{mend}, then record it:  pytest {option} *",
    )
    assert summary_lines(result)[-3:] == [
        "0 replayed, 1 live and not recorded",
        f"{HEADINGS[heading]}:",
        "  test_it.py::test_one (completion() failed with InternalServerError)",
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError("no"), Reason.OTHER_ERROR),
        (ConnectionRefusedError("no"), Reason.CONNECTION),
        (ValueError("Missing Gemini API key. Set the GEMINI_API_KEY"), Reason.CREDENTIALS),
        (
            type("APIConnectionError", (Exception,), {"__module__": "litellm.exceptions"})("?"),
            Reason.OTHER_ERROR,
        ),
    ],
)
def test_reason_of_an_error(error, reason):
    """An error's reason is told by its class, by those that led to it and by what they say."""
    assert reason_of(error, of_provider=False) is reason
    outer = RuntimeError("wrapped")
    outer.__cause__ = error
    assert reason_of(outer, of_provider=False) is reason


@pytest.mark.usefixtures("collected")
def test_stream_left_early(suite):
    """A stream that was left early is recorded as far as it came, and the run says so."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            next(iter(litellm.completion(messages=said("a long story"), stream=True, **SETTINGS)))
    """)
    assert summary_lines(suite.record())[-2:] == [
        "streams recorded only as far as the test read them:",
        "  test_it.py::test_one (1)",
    ]
    suite.run().assert_outcomes(passed=1)


def test_many_tests_are_not_all_listed(suite):
    """A list shows ten tests, and how many more there are."""
    suite.test("""
        @pytest.mark.parametrize("n", range(12))
        def test_one(n):
            ask()
    """)
    lines = summary_lines(suite.run())
    assert lines[0] == "0 replayed"
    assert len(lines) == 2 + 10 + 1
    assert lines[-1] == "  … and 2 more tests"


@pytest.mark.slow
def test_same_totals_over_workers(suite):
    """``-n 2`` records the same files and tells the same totals as one process."""
    text = (
        MARKED
        + """
@pytest.mark.lm_cache
@pytest.mark.parametrize("n", range(4))
def test_many(n):
    ask(str(n))
"""
    )
    suite.test(text)
    recorded = summary_lines(suite.record("-n", "2"))
    assert recorded[0] == "0 replayed, 7 recorded"
    assert recorded[-2:] == ["6 cassettes written: review and commit them", "recordings: 7 added"]
    assert suite.asked() == 7
    assert summary_lines(suite.run())[0] == "7 replayed"
    # One test asks for less than it did, one for something else, one is not marked.
    changed = text.replace('    ask("two")\n    ask("two")', '    ask("two")')
    changed = changed.replace("ask(str(n))", "ask(str(n) if n else 'changed')")
    suite.test(changed + "\ndef test_unmarked():\n    ask()\n")
    alone = summary_lines(suite.run("--tb=no"))
    assert alone[0] == "5 replayed, 1 missed"
    assert len(alone) == 12
    assert summary_lines(suite.run("-n", "2", "--tb=no")) == alone


def test_what_a_test_prints_of_its_calls(suite):
    """The fixture and each call show themselves in one line."""
    suite.test("""
        def test_one(lm_cache):
            ask()
            print(lm_cache)
            print(lm_cache.calls)
    """)
    suite.run("--lm-record", "-s").stdout.fnmatch_lines(
        [
            "*<lm_cache: 1 call, 0 replayed, 1 recorded; mode record, cassettes/test_it/test_one.yaml>",
            "[[]<completion() from provider: model openai/gpt-4o-mini, 1 message, hello>]",
        ]
    )
    suite.run("-s").stdout.fnmatch_lines(
        ["*<completion() from cassette: model openai/gpt-4o-mini, 1 message, hello>*"]
    )
