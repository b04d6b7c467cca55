"""``--lm-rewrite``: what it replaces and what it leaves."""

import pytest

MARKED = """
@pytest.mark.lm_cache
def test_one():
    assert ask("one") == "You said: one"
"""


TWO = """
@pytest.mark.lm_cache
def test_one():
    assert [ask("one"), ask("two")] == ["You said: one", "You said: two"]
"""


def test_rewrite_replaces_what_changed(suite, loopback):
    """``--lm-rewrite`` asks again, replaces the recordings, and drops those that no call asks for."""
    suite.test(TWO)
    suite.record()
    suite.test(MARKED)
    suite.run("--lm-rewrite").assert_outcomes(passed=1)
    text = (suite.folder / "cassettes/test_it/test_one.yaml").read_text()
    assert "one" in text
    assert "two" not in text


@pytest.mark.parametrize(
    "how", ["skip", "xfail_not_run", "setup_only", "broken_fixture", "deselected", "xfails"]
)
def test_rewrite_leaves_what_did_not_run(suite, how):
    """A test that does not get to its calls keeps its recordings, also under ``--lm-rewrite``."""
    suite.test(MARKED)
    suite.record()
    path = suite.folder / "cassettes/test_it/test_one.yaml"
    before = path.read_bytes()
    marks = {
        "skip": "@pytest.mark.skip",
        "xfail_not_run": "@pytest.mark.xfail(run=False)",
        "broken_fixture": "@pytest.mark.usefixtures('missing')",
    }
    xfails = """
        @pytest.mark.lm_cache
        def test_one():
            pytest.xfail("not here")
            ask("one")
    """
    suite.test(xfails if how == "xfails" else marks.get(how, "") + MARKED)
    args = {"setup_only": ["--setup-only"], "deselected": ["-k", "nothing"]}
    suite.run("--lm-rewrite", *args.get(how, []))
    assert path.read_bytes() == before
    assert suite.asked() == 1


def test_a_rewrite_of_an_expected_failure_keeps_nothing_old(suite):
    """A test that fails after its calls, as expected, is rewritten like any other."""
    for prompt in ("old", "new"):
        suite.test(f"""
            @pytest.mark.xfail
            @pytest.mark.lm_cache
            def test_one():
                assert ask("{prompt}") == ""
        """)
        suite.run("--lm-rewrite").assert_outcomes(xfailed=1)
    text = (suite.folder / "cassettes/test_it/test_one.yaml").read_text()
    assert "said: new" in text
    assert "said: old" not in text


@pytest.mark.parametrize("mode", ["--lm-rewrite", "--lm-record"])
def test_a_plan_touches_nothing(suite, mode):
    """``--setup-plan`` runs no fixture, so it knows of no recording that is not used."""
    suite.test("""
        @pytest.fixture(scope="module")
        def answer():
            return ask()

        @pytest.mark.lm_cache
        def test_one(answer):
            pass
    """)
    suite.record()
    before = suite.cassettes()
    assert before
    suite.run("--setup-plan", mode).stdout.no_fnmatch_line("*unused*")
    assert suite.cassettes() == before


def test_a_removed_cassette_is_told(suite):
    """A rewrite in which a test asks nothing removes its file, and says so."""
    suite.test(MARKED)
    suite.record()
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    pass\n")
    suite.run("--lm-rewrite").stdout.fnmatch_lines(
        ["0 replayed", "1 cassette removed because its test made no calls:", "  cassettes*test_one.yaml"]
    )
    assert suite.cassettes() == []


def test_rewrite_in_vain_keeps_the_recording(suite):
    """A rewrite while the provider is down takes away nothing that was recorded."""
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    ask()\n")
    suite.record()
    before = (suite.folder / "cassettes/test_it/test_one.yaml").read_bytes()
    suite.test(
        """
        @pytest.mark.lm_cache
        def test_one():
            try:
                ask(api_base="http://127.0.0.1:9/v1")
            except Exception:
                pass
        """
    )
    suite.run("--lm-rewrite").assert_outcomes(passed=1)
    assert (suite.folder / "cassettes/test_it/test_one.yaml").read_bytes() == before


def test_a_skipped_subtest_keeps_nothing_from_being_rewritten(suite):
    """The rest of the test has fresh answers afterwards, and what the subtest asks its old ones."""
    text = """
        @pytest.mark.lm_cache
        def test_it(subtests):
            with subtests.test("one"):
                SKIP
                ask("one")
            ask("two", seed=1)
    """
    suite.test(text.replace("SKIP", ""))
    suite.record()
    path = suite.folder / "cassettes/test_it/test_it.yaml"
    path.write_text(path.read_text().replace("said: one", "said: ONE").replace("said: two", "said: TWO"))
    suite.test(text.replace("SKIP", "pytest.skip()"))
    assert suite.run("--lm-rewrite").ret == 0
    assert "said: ONE" in path.read_text()
    assert "said: two" in path.read_text()
