"""``lm_redact_with``: a function of the suite's own removes its secrets."""


def test_a_function_of_the_suite(suite):
    """Its result is what the cassette has, and the test replays with it."""
    suite.file("rules.py", "def without_names(text):\n    return text.replace('Ann', 'NAME')\n")
    suite.file("pytest.ini", "[pytest]\nlm_redact_with = rules:without_names\npythonpath = .\n")
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            ask("Dear Ann")
    """)
    suite.record()
    text = (suite.folder / "cassettes/test_it/test_one.yaml").read_text()
    assert "Dear NAME" in text
    assert "Ann" not in text
    suite.asked()
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 0
