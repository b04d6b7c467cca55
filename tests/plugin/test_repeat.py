"""``lm_repeat``: what an identical call gets after the last recorded answer."""

import pytest


@pytest.mark.parametrize(("repeat", "third"), [("last", "two"), ("cycle", "one"), ("error", None)])
def test_a_call_more_than_recorded(suite, repeat, third):
    """After two recorded answers the third identical call gets the last, the first again, or a miss."""
    text = """
        @pytest.mark.lm_cache
        def test_one(lm_cache):
            assert [ask("again") for _ in range({})] == {}
    """
    recorded = ["You said: again"] * 2
    suite.test(text.format(2, recorded))
    suite.record()
    path = suite.folder / "cassettes/test_it/test_one.yaml"
    written = path.read_text()
    for answer in ("one", "two"):
        written = written.replace("You said: again", answer, 1)
    path.write_text(written)
    suite.file("pytest.ini", f"[pytest]\nlm_repeat = {repeat}\n")
    suite.test(text.format(3, ["one", "two", third]))
    result = suite.run()
    result.assert_outcomes(passed=int(third is not None), failed=int(third is None))
    if third is None:
        result.stdout.fnmatch_lines(["*CassetteMiss*"])
