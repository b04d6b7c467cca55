"""Marks whose name is nearly ``lm_cache``: their tests would be live and green."""

import pytest

NEAR = ["lmcache", "lm_cashe", "lm_cached", "lmcaches", "LM_CACHE", "lm_cahce", "llm_cache", "lmCache"]
OTHERS = ["cache", "slow", "lm", "lru_cache", "lm_eval", "llm"]


def marked(suite, *names):
    """A suite with one passing test for each mark, which pytest itself does not know either."""
    tests = [f"@pytest.mark.{name}\ndef test_{name}():\n    pass\n" for name in names]
    suite.test("".join(tests))
    return "-W", "ignore::pytest.PytestUnknownMarkWarning"


@pytest.mark.parametrize("name", NEAR)
def test_a_near_name_warns_at_collection(suite, name):
    """The warning names the test, the mark and the right name, also where no test is run."""
    result = suite.run(*marked(suite, name), "--collect-only")
    assert result.ret == 0
    said = f"*LMCacheWarning: test_it.py::test_{name}: @pytest.mark.{name} does nothing*"
    result.stdout.fnmatch_lines([f"{said}The marker is @pytest.mark.lm_cache.*"])


def test_other_names_do_not_warn(suite):
    """Marks that only share a word with ours are no slip of the pen, nor is ours."""
    result = suite.run(*marked(suite, *OTHERS, "lm_cache"))
    result.assert_outcomes(passed=len(OTHERS) + 1)
    result.stdout.no_fnmatch_line("*LMCacheWarning*")


@pytest.mark.parametrize("where", ["ini", "plugin"])
def test_a_registered_name_is_somebody_elses(suite, where):
    """A mark that the project or another plugin registers does not warn."""
    if where == "ini":
        suite.file("pytest.ini", "[pytest]\nmarkers = lmcache(size): LMCache's own\n")
    else:
        suite.file(
            "conftest.py",
            """
            def pytest_configure(config):
                config.addinivalue_line("markers", "lmcache: LMCache's own")
            """,
        )
    result = suite.run(*marked(suite, "lmcache"))
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*LMCacheWarning*")


def test_each_name_warns_once(suite):
    """A name on many tests, or on a module, is warned of at the first of them."""
    suite.test("pytestmark = pytest.mark.lmcache\ndef test_a():\n    pass\ndef test_b():\n    pass\n")
    result = suite.run("-W", "ignore::pytest.PytestUnknownMarkWarning")
    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(["*LMCacheWarning: test_it.py::test_a: *"])


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_a_near_name_where_warnings_are_errors(suite, options):
    """Then the test fails with it."""
    result = suite.run(
        "-W", "error::pytest_lmcache.errors.LMCacheWarning", *marked(suite, "lmcache"), *options
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*LMCacheWarning: test_it.py::test_lmcache: @pytest.mark.lmcache does nothing*"]
    )
