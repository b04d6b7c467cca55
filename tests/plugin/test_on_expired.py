"""``lm_on_expired``: what happens to recordings that are older than ``lm_max_age``."""

import pytest

pytestmark = pytest.mark.usefixtures("default_layers")
OLD = "2020-01-01T00:00:00Z"


@pytest.fixture
def aged(suite):
    """A suite with one recording of 2020 and one of today; gives a function that runs it with a setting."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            try:
                ask()
            except Exception:
                pass
            ask("another")

        @pytest.mark.lm_cache
        def test_two():
            ask("two")
    """)
    suite.record()
    path = suite.folder / "cassettes/test_it/test_one.yaml"
    head, _, tail = path.read_text().partition("\nrecorded: ")
    path.write_text(f"{head}\nrecorded: {OLD}{tail[20:]}")
    suite.asked()

    def run(what, *args, **more):
        suite.file(
            "pytest.ini",
            f"[pytest]\nlm_max_age = 30d\nlm_on_expired = {what}\nlm_enable_disk_cache = false\n",
        )
        return suite.run(*args, **more)

    run.path = path
    return run


def test_warn_counts_old_recordings(aged, suite):
    """``warn``, the default: the test passes on the old recording, and the summary names it."""
    result = aged("warn")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["1 recording older than lm_max_age (pytest --lm-record asks again):"])
    assert suite.asked() == 0


@pytest.mark.parametrize("mode", ["replay", "once"])
def test_fail_fails_a_test_with_an_old_recording(aged, suite, mode):
    """``fail``: a replayed recording that is too old fails its test, also behind `except Exception`; others pass."""
    result = aged("fail", f"--lm-mode={mode}")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*The recording of this call of completion() is too old: model openai/gpt-4o-mini, 1 message, hello",
            f"E*cassettes/test_it/test_one.yaml: recorded {OLD}, and lm_on_expired = fail refuses it.",
            'E*Record it:  pytest --lm-record "test_it.py::test_one"',
        ]
    )
    assert suite.asked() == 0
    aged("fail", "--lm-record").assert_outcomes(passed=2)
    assert suite.asked() == 1
    aged("fail").assert_outcomes(passed=2)


def test_record_renews_in_mode_once(aged, suite):
    """``record``: mode once asks again what is too old, in the place of the old answer, and nothing else."""
    aged("record", "--lm-mode=once").assert_outcomes(passed=2)
    assert suite.asked() == 1
    text = aged.path.read_text()
    assert OLD not in text
    assert text.count("\nrecorded: ") == 2
    aged("record", "--lm-mode=once").assert_outcomes(passed=2)
    assert suite.asked() == 0


def test_record_asks_nobody_on_replay(aged, suite):
    """``record``: mode replay still asks no provider; the summary says how to renew."""
    result = aged("record")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["1 recording older than lm_max_age (pytest --lm-record asks again):"])
    assert suite.asked() == 0
    assert OLD in aged.path.read_text()


def test_once_without_record_renews_nothing(aged, suite):
    """Mode once replays old recordings unless ``record`` is set."""
    aged("warn", "--lm-mode=once").assert_outcomes(passed=2)
    assert suite.asked() == 0


def test_unknown_value(aged):
    """A value that does not exist is an error that names those that do."""
    result = aged("renew")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*lm_on_expired cannot be 'renew'; it takes one of: warn, fail, record.*"])
