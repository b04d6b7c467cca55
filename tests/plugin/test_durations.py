"""``--lm-durations``: the tests that take longest to record."""

import re

from helpers import summary_lines

MARKED = """
@pytest.mark.lm_cache
def test_one():
    ask("one")

@pytest.mark.lm_cache
def test_two():
    ask("two")
    ask("two")
"""


def test_durations_on_request(suite):
    """``--lm-durations=N`` lists the tests that take longest to record; on replay too, from the cassettes."""
    suite.test(MARKED)
    suite.record()
    assert not [line for line in summary_lines(suite.run()) if "slowest" in line]
    lines = summary_lines(suite.run("--lm-durations=0"))
    assert "slowest to record:" in lines
    rows = lines[lines.index("slowest to record:") + 1 :]
    assert {row.split()[-1] for row in rows} == {"test_it.py::test_one", "test_it.py::test_two"}
    assert all(re.fullmatch(r" +\d\.\d\d s +\d+ tokens +\$0\.0000\d+  \S+", row) for row in rows)
    assert len(summary_lines(suite.run("--lm-durations=1"))) == len(lines) - 1
