"""A regular expression of the user's that hangs is stopped and named, and nobody's signals are disturbed."""

import signal
import threading

import pytest

from pytest_lmcache import time_limit
from pytest_lmcache.errors import SettingsError
from pytest_lmcache.interaction import Call
from pytest_lmcache.keys.strategies import strategy
from pytest_lmcache.redact import Redactor

HANGS = "(a+)+!"
TEXT = "a" * 60
pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no timers")


def redacted():
    return Redactor([HANGS], environ={})({"content": TEXT})


def keyed():
    request = {"messages": [{"role": "user", "content": TEXT}]}
    return strategy("exact", [f"re:{HANGS}"]).key(Call("completion", request))


@pytest.fixture
def soon(monkeypatch):
    """Ten seconds are too long for a test."""
    monkeypatch.setattr(time_limit, "SECONDS", 0.1)


@pytest.fixture
def alarms():
    """A handler for SIGALRM with a timer that runs, as pytest-timeout has them: the alarms that it got."""
    seen = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 100)
    yield seen
    assert signal.setitimer(signal.ITIMER_REAL, 0)[0] > 0, "the timer still ran"
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("use", "option"), [(redacted, "lm_redact"), (keyed, "lm_normalize")])
def test_a_hanging_pattern_is_stopped_and_named(use, option):
    """The error says which pattern of which option it was; the timer and its signal are free again."""
    with pytest.raises(SettingsError, match=rf"'\(a\+\)\+!' of .*{option}"):
        use()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


@pytest.mark.usefixtures("soon")
def test_an_alarm_of_the_user_is_left_alone(alarms):
    """Where somebody has the alarm, the timer of processor time stops the pattern."""
    with pytest.raises(SettingsError, match="lm_redact"):
        redacted()
    assert alarms == []
    assert signal.getsignal(signal.SIGVTALRM) is signal.SIG_DFL


def test_patterns_in_another_thread():
    """A thread, which gets no signals, matches without a limit."""
    found = []
    thread = threading.Thread(target=lambda: found.append(Redactor(["b+"], environ={})("abba")))
    thread.start()
    thread.join()
    assert found == ["a<redacted:pattern>a"]
