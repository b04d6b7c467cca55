"""Calls while modules are imported, under ``lm_auto``: refused where the run replays, unless a block records them."""

import pytest

AUTO = ("-o", "lm_auto=true", "-p", "no:randomly")
CALLING = "import litellm\nfrom app import ask\nANSWER = ask()\n"
TEST = "\ndef test_it():\n    pass\n"
FILES = {
    "module": ("test_it.py", CALLING + TEST),
    "helper": ("helper.py", CALLING),
    "folder": ("sub/conftest.py", CALLING),
}


def suite_with(suite, name, text):
    """A suite in which one file calls while it is imported, and whose tests call nothing."""
    suite.file("pytest.ini", "[pytest]\npythonpath = .\n")
    if name == "helper.py":
        suite.test("import helper\n" + TEST)
    if name == "sub/conftest.py":
        suite.file("sub/test_it.py", TEST)
    suite.file(name, text)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["replay", "once"])
@pytest.mark.parametrize("where", FILES)
def test_refused_with_the_files_name(suite, where, mode):
    """It is a collection error that names the file and what to do; nobody is asked."""
    name, text = FILES[where]
    suite_with(suite, name, text)
    result = suite.run(*AUTO, f"--lm-mode={mode}")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert suite.asked() == 0
    result.stdout.fnmatch_lines(
        [
            f"*{name} calls a language model while it is imported. *under lm_auto mode {mode} refuses *",
            "*use_cassette(*",
        ]
    )


def test_refused_in_the_first_conftest(suite):
    """A conftest that is imported before the run begins ends it with the same message."""
    suite.file("pytest.ini", "[pytest]\npythonpath = .\nlm_auto = true\n")
    suite.file("conftest.py", CALLING)
    suite.test(TEST)
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert suite.asked() == 0
    result.stderr.fnmatch_lines(["ERROR: conftest.py calls a language model while it is imported.*"])


def test_a_conftest_that_swallows_it_fails_the_run(suite):
    """The tests pass, the run does not, and the summary names the file."""
    suite.file("pytest.ini", "[pytest]\npythonpath = .\nlm_auto = true\n")
    suite.file(
        "conftest.py", CALLING.replace("ANSWER = ask()", "try:\n    ask()\nexcept BaseException:\n    pass\n")
    )
    suite.test(TEST)
    result = suite.run()
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert suite.asked() == 0
    result.stdout.fnmatch_lines(["1 call refused outside of tests (lm_auto); *", "  conftest.py (1)"])


def test_refused_in_a_hook(suite):
    """A hook that asks a model before or after the tests is outside of them too."""
    suite.file("pytest.ini", "[pytest]\npythonpath = .\n")
    suite.file(
        "conftest.py",
        "from app import ask\ndef pytest_sessionfinish():\n    try:\n        ask()\n    except BaseException:\n        pass\n",
    )
    suite.test(TEST)
    result = suite.run(*AUTO)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert suite.asked() == 0
    result.stdout.fnmatch_lines(["1 call refused outside of tests (lm_auto); *", "  conftest.py (1)"])


@pytest.mark.parametrize("name", ["test_it.py", "conftest.py"])
def test_a_block_records_and_replays_it(suite, name):
    """``use_cassette`` works there as it does anywhere."""
    block = "import litellm\nfrom app import ask\nfrom pytest_lmcache import use_cassette\n"
    block += 'with use_cassette("early.yaml", mode=MODE):\n    ANSWER = ask()\n'
    suite.file("pytest.ini", "[pytest]\npythonpath = .\nlm_auto = true\n")
    for mode, asked in (("record", 1), ("replay", 0)):
        suite.test(TEST)
        suite.file(name, block.replace("MODE", repr(mode)) + (TEST if name == "test_it.py" else ""))
        suite.run("-p", "no:randomly").assert_outcomes(passed=1)
        assert suite.asked() == asked


@pytest.mark.parametrize("options", [["--lm-record"], ["--lm-mode=live"]])
def test_it_passes_while_recording_and_is_counted(suite, options):
    """The summary says that it was live, and what would record it."""
    suite_with(suite, *FILES["module"])
    result = suite.run(*AUTO, *options)
    result.assert_outcomes(passed=1)
    assert suite.asked() == 1
    result.stdout.fnmatch_lines(["*outside of the tests, such as while a module is imported: use_cassette *"])


def test_without_auto_nothing_changes(suite):
    """Where marks say what is recorded, a module may call."""
    suite_with(suite, *FILES["module"])
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 1
