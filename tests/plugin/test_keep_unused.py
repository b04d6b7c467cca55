"""``keep_unused``, ``lm_keep_unused``: which recordings go when a test passes and records something new."""

import pytest
from helpers import configure, summary_lines
from provider import Reply

TEST = """
@pytest.mark.lm_cache
def test_one():
    ask("A")
    ask("B")
"""
# Each of them asks for what is new, and not for B.
LOSE_NOTHING = {
    "xfailed": """
        @pytest.mark.xfail
        @pytest.mark.lm_cache
        def test_one():
            ask("A")
            assert ask("new") == "B"
            ask("B")
    """,
    "skipped": """
        @pytest.mark.lm_cache
        def test_one():
            ask("A")
            ask("new")
            pytest.skip("not here")
    """,
    "failed": """
        @pytest.mark.lm_cache
        def test_one():
            ask("A")
            assert ask("new") == "B"
            ask("B")
    """,
    "interrupted": """
        @pytest.mark.lm_cache
        def test_one():
            ask("A")
            ask("new")
            raise KeyboardInterrupt
    """,
    "a subtest failed": """
        @pytest.mark.lm_cache
        def test_one(subtests):
            ask("A")
            with subtests.test("first"):
                assert ask("new") == "B"
    """,
    "a subtest was skipped": """
        @pytest.mark.lm_cache
        def test_one(subtests):
            ask("A")
            ask("new")
            with subtests.test("first"):
                pytest.skip("not here")
                ask("B")
    """,
    "a fixture failed": """
        @pytest.fixture
        def broken():
            yield
            raise RuntimeError

        @pytest.mark.lm_cache
        def test_one(broken):
            ask("A")
            ask("new")
    """,
    "a call got no answer": """
        @pytest.mark.lm_cache
        def test_one():
            ask("A")
            ask("new")
            try:
                ask("down", api_base="http://127.0.0.1:9/v1")
            except Exception:
                pass
    """,
    "nothing new": """
        @pytest.mark.lm_cache
        def test_one():
            ask("A")
    """,
}


def questions(suite, name="test_it/test_one.yaml"):
    """The questions of a cassette, in its order."""
    lines = (suite.folder / "cassettes" / name).read_text().splitlines()
    return [
        line.partition("content: ")[2] for at, line in enumerate(lines) if lines[at - 1] == "  - role: user"
    ]


def test_what_a_test_no_longer_asks_goes(suite):
    """After an edited prompt is recorded, the cassette holds what the test asks now, in the old place."""
    suite.test(TEST)
    suite.record()
    assert questions(suite) == ["A", "B"]
    suite.test(TEST.replace('"A"', '"new"'))
    lines = summary_lines(suite.record())
    assert lines[-2:] == ["1 cassette written: review and commit it", "recordings: 1 replaced"]
    assert questions(suite) == ["new", "B"]
    suite.test(TEST.replace('"A"', '"newer"').replace('    ask("B")', '    ask("B")\n    ask("C")'))
    assert summary_lines(suite.record())[-1] == "recordings: 1 replaced, 1 added"
    suite.test(TEST.replace('    ask("A")\n', "").replace('"B"', '"other"'))
    assert summary_lines(suite.record())[-1] == "recordings: 1 replaced, 2 removed"
    assert questions(suite) == ["other"]


@pytest.mark.parametrize("why", LOSE_NOTHING)
def test_what_loses_nothing(suite, why):
    """Only a test that passed, ran whole and recorded something new drops what it did not ask."""
    suite.test(TEST)
    suite.record()
    suite.test(LOSE_NOTHING[why])
    suite.run("--lm-record")
    assert {"A", "B"} <= {*questions(suite)}


def test_a_call_that_got_its_answer_by_a_retry_has_an_answer(suite):
    """A failed attempt that was repeated with success keeps nothing old."""
    suite.test(TEST)
    suite.record()
    suite.provider.script(Reply(failure="server_error"))
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            try:
                ask("new")
            except litellm.InternalServerError:
                ask("new")
    """)
    suite.record()
    assert questions(suite) == ["new"]


@pytest.mark.parametrize("mode", ["--lm-record", "--lm-rewrite"])
def test_keep_unused(suite, mode):
    """``lm_keep_unused = true`` keeps what the test no longer asks for, and the summary does not count it."""
    configure(suite, "toml", lm_keep_unused=True)
    suite.test(TEST)
    suite.record()
    suite.test(TEST.replace('"A"', '"new"'))
    lines = summary_lines(suite.run(mode))
    assert lines[-1].startswith("recordings: ")
    assert "removed" not in lines[-1]
    assert {*questions(suite)} == {"A", "new", "B"}
    assert not [line for line in summary_lines(suite.run()) if "unused" in line]


def test_the_mark_wins_over_the_configuration(suite):
    """``keep_unused`` of a mark decides for its test."""
    suite.file("pytest.ini", "[pytest]\nlm_keep_unused = true\n")
    suite.test(TEST)
    suite.record()
    suite.test(TEST.replace("lm_cache", "lm_cache(keep_unused=False)").replace('"A"', '"new"'))
    suite.record()
    assert questions(suite) == ["new", "B"]


def test_a_shared_cassette_loses_nothing(suite):
    """Other tests may ask for what one of them no longer does."""
    text = TEST.replace("lm_cache", "lm_cache(cassette='both')")
    suite.test(text)
    suite.record()
    suite.test(text.replace('"A"', '"new"'))
    suite.record()
    assert {*questions(suite, "both.yaml")} == {"A", "B", "new"}


def test_a_test_that_runs_again_keeps_what_it_asked_before(suite):
    """A plugin may run a passing test more than once, each time with other questions; a failed run counts for nothing."""
    suite.test(TEST)
    suite.record()
    suite.file(
        "conftest.py",
        """
        import pytest
        from _pytest.runner import runtestprotocol

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_protocol(item, nextitem):
            for _ in range(3):
                reports = runtestprotocol(item, nextitem=nextitem, log=False)
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
            return True
        """,
    )
    suite.test("""
        runs = iter(["lost", "first", "second"])

        @pytest.mark.lm_cache
        def test_one():
            run = next(runs)
            ask(run)
            assert run != "lost"
    """)
    suite.record()
    assert {*questions(suite)} == {"first", "second"}


def test_parameters_and_workers(suite):
    """Each parameter has a cassette of its own, whichever worker of pytest-xdist runs it."""
    text = """
        @pytest.mark.lm_cache
        @pytest.mark.parametrize("n", range(4))
        def test_one(n):
            ask(f"old {n}")
    """
    suite.test(text)
    suite.record("-n", "2")
    suite.test(text.replace("old", "new"))
    assert summary_lines(suite.record("-n", "2"))[-1] == "recordings: 4 replaced"
    for n in range(4):
        assert questions(suite, f"test_it/test_one[{n}].yaml") == [f"new {n}"]


def test_a_shared_fixture_drops_what_it_no_longer_asks(suite):
    """A fixture's cassette is its own, as a test's is."""
    text = """
        @pytest.fixture(scope="module")
        def helper():
            return ask("A")

        @pytest.mark.lm_cache
        def test_one(helper):
            pass
    """
    suite.test(text)
    suite.record()
    suite.test(text.replace('"A"', '"new"'))
    suite.record()
    assert questions(suite, "test_it/@module.helper.yaml") == ["new"]


BLOCK = """
from pytest_lmcache import use_cassette

def test_one():
    with use_cassette("cassettes/b.yaml", mode="record"KEEP):
        ask("A")
"""


@pytest.mark.parametrize("keep", [None, True, False])
def test_a_block(suite, keep):
    """A block keeps the rest of its file, since a program may ask for it another time, unless it says otherwise."""
    text = BLOCK.replace("KEEP", "" if keep is None else f", keep_unused={keep}")
    suite.test(text)
    suite.record()
    suite.test(text.replace('"A"', '"new"'))
    assert suite.spawn().returncode == 0
    assert questions(suite, "b.yaml") == (["new"] if keep is False else ["A", "new"])


def test_a_second_block_keeps_what_the_first_one_asked(suite):
    """Of a file that a process uses more than once, only the first block drops anything."""
    suite.test(
        BLOCK.replace("KEEP", ", keep_unused=False")
        .replace("def test_one():", "@pytest.mark.parametrize('n', [1, 2])\ndef test_one(n):")
        .replace('"A"', "f'No {n}'")
    )
    suite.record()
    assert questions(suite, "b.yaml") == ["No 1", "No 2"]
