"""What a person at a terminal sees while calls are recorded."""

import re

import pytest

pytest.importorskip("pty", reason="Windows has no such terminals")

from helpers import ALONE
from provider import Provider
from terminal import Terminal

pytestmark = pytest.mark.slow

TESTS = """
pytestmark = pytest.mark.lm_cache

def test_short():
    ask("one")

def test_long():
    print("a line of the test")
    for n in range(3):
        ask(f"{n}")

def test_none():
    pass
"""
STATUS = re.compile(r" \d calls? in flight, (?:\d s, )?\$0(?:\.0000\d+)? spent$")
FIGURES = re.compile(r"\(\d calls?, \d\.\d s, \$0\.0000\d+\)")


@pytest.fixture
def slow_suite(suite):
    """A suite whose provider takes a second for an answer."""
    with Provider(delay=0.7) as provider:
        suite.file("app.py", (suite.folder / "app.py").read_text().replace(suite.provider.url, provider.url))
        suite.test(TESTS)
        yield suite


@pytest.fixture
def shown(slow_suite):
    """Gives the screens and the last one, of a run in a terminal of so many columns."""

    def run(*args, columns=100):
        terminal = Terminal(columns).pytest(slow_suite.folder, *ALONE, "--lm-record", *args)
        assert terminal.status == 0, terminal.text()
        return [line for frame in terminal.frames for line in frame.splitlines()], terminal.text()

    return run


@pytest.mark.parametrize("args", [[], ["-q"], ["-n", "2"]], ids=" ".join)
def test_what_goes_on_in_a_long_test(shown, args):
    """The calls in flight and what was spent stand behind pytest's dots, and nothing of it stays."""
    lines, last = shown(*args)
    assert [line for line in lines if STATUS.search(line)]
    assert "in flight" not in last
    [dots] = [line for line in last.splitlines() if line.endswith("[100%]")]
    assert re.fullmatch(r"(test_it\.py )?\.\.\. +\[100%\]", dots)
    assert len(dots) == 99  # pytest leaves the last column
    assert not FIGURES.search(last)


@pytest.mark.parametrize("args", [[], ["-n", "2"]], ids=" ".join)
def test_figures_of_each_test(shown, args):
    """``-v`` has calls, seconds and USD in each test's line, with pytest's own progress, and the summary none."""
    lines, last = shown("-v", "-rA", *args)
    assert [line for line in lines if STATUS.search(line)]
    tests, summary = last.split("short test summary info")
    assert "in flight" not in last
    assert len(FIGURES.findall(tests)) == 2
    assert not FIGURES.search(summary)
    assert "PASSED test_it.py::test_long" in summary
    ours = [line for line in tests.splitlines() if re.search(r"\[ *\d+%\]", line)]
    assert len(ours) == 3
    for line in ours:
        assert ("test_none" in line) != bool(FIGURES.search(line))
        assert args or len(line) == 99
    assert re.search(
        r"test_long PASSED \(3 calls, 2\.\d s|PASSED \(3 calls, 2\.\d s, \S+\) test_it.py::test_long", tests
    )


def test_a_narrow_terminal(shown):
    """Where a line has no room for them, the figures stand below it."""
    lines, last = shown("-v", columns=52)
    assert "test_it.py::test_long  1 call in flight, 1 s" in lines
    assert max(map(len, lines)) <= 52
    at = next(number for number, line in enumerate(last.splitlines()) if "::test_long PASSED" in line)
    line, below, following = last.splitlines()[at : at + 3]
    assert line.endswith("[ 66%]")
    assert re.fullmatch(r"    3 calls, \d\.\d s, \$0\.0000\d+", below)
    assert following.startswith("test_it.py::test_none PASSED")


def test_uncaptured_output(shown):
    """With ``-s`` a test may write to the terminal itself: only the figures are shown."""
    lines, last = shown("-v", "-s")
    assert not [line for line in lines if "in flight" in line]
    assert "test_it.py::test_long a line of the test\nPASSED (3 calls, " in last


def test_live_logs(shown):
    """What pytest writes while a test runs stands where it would stand without us."""
    lines, last = shown("-q", "--log-cli-level=INFO", "-k", "long")
    assert [line for line in lines if STATUS.search(line)]
    assert "in flight" not in last
    assert last.count("\nINFO     LiteLLM") >= 3


def test_no_terminal(slow_suite):
    """A file or a pipe gets none of it, nor does a run that only replays."""
    result = slow_suite.spawn("--lm-record", "-v")
    assert result.returncode == 0
    assert "in flight" not in result.stdout
    assert "\b" not in result.stdout
    assert not FIGURES.search(result.stdout)
    terminal = Terminal().pytest(slow_suite.folder, *ALONE, "-v")
    assert terminal.status == 0
    assert "3 replayed" not in terminal.text() or not FIGURES.search(terminal.text())
    assert not FIGURES.search(terminal.text())
    assert not [frame for frame in terminal.frames if "in flight" in frame]
