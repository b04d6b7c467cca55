"""``lm_redact`` and ``lm_redact_with``: the suite's own secrets."""


def test_the_configurations_rules_hold_in_blocks(suite):
    """``lm_redact`` and ``lm_redact_with`` are for what a block records too, and add to its own."""
    suite.file(
        "pytest.ini",
        "[pytest]\nlm_redact = customer-[0-9]+\nlm_redact_with = rules:without_names\npythonpath = .\n",
    )
    suite.file("rules.py", "def without_names(text):\n    return text.replace('Ada Lovelace', '<name>')\n")
    suite.test(
        """
        from pytest_lmcache import use_cassette

        def test_alone():
            with use_cassette("alone.yaml", mode="record", redact=["order-[0-9]+"]):
                ask("customer-12345678 Ada Lovelace order-12345678")

        def test_functions():
            with use_cassette("functions.yaml", mode="record", redact_with=lambda text: text.replace("Rome", "X")):
                ask("customer-12345678 Ada Lovelace in Rome")

        @pytest.mark.lm_cache
        def test_inside():
            with use_cassette("inside.yaml", mode="record"):
                ask("customer-12345678 Ada Lovelace")
        """
    )
    suite.run().assert_outcomes(passed=3)
    for name in ("alone.yaml", "inside.yaml", "functions.yaml"):
        text = (suite.folder / name).read_text()
        assert "Rome" not in text
        assert "<redacted:pattern> <name>" in text
        assert "12345678" not in text
    suite.run().assert_outcomes(passed=3)
    suite.asked()
