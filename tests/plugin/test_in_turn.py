"""``in_turn``: the identical calls of one test take its samples in turn."""

IN_TURN = """
    @pytest.mark.lm_cache(samples=3, in_turn=True)
    def test_one(lm_cache):
        answers = [ask("again") for _ in range({calls})]
        assert answers == [f"answer {{n}}" for n in {expected}]
        assert lm_cache.sample is None
"""


def test_in_turn(numbered):
    """One run takes the samples in turn: so many are asked for, and then the first comes again."""
    numbered.test(IN_TURN.format(calls=7, expected=[1, 2, 3, 1, 2, 3, 1]))
    result = numbered.record()
    result.assert_outcomes(passed=1)
    assert numbered.asked() == 3
    written = (numbered.folder / "cassettes/test_it/test_one.yaml").read_text()
    assert written.count("\n--- #") == 3
    for calls, expected in ((7, [1, 2, 3, 1, 2, 3, 1]), (4, [1, 2, 3, 1])):
        numbered.test(IN_TURN.format(calls=calls, expected=expected))
        numbered.run().assert_outcomes(passed=1)
    numbered.test(IN_TURN.format(calls=4, expected=[4, 5, 6, 4]))
    numbered.run("--lm-rewrite").assert_outcomes(passed=1)
    numbered.run().assert_outcomes(passed=1)
    assert numbered.asked() == 3


def test_in_turn_in_a_block(numbered):
    """use_cassette takes samples in turn, and refuses those that need several runs."""
    numbered.test(
        """
        from pytest_lmcache import use_cassette

        def test_block():
            with use_cassette("block.yaml", mode="once", samples=2, in_turn=True):
                assert [ask("again") for _ in range(3)] == ["answer 1", "answer 2", "answer 1"]

        def test_refused():
            with pytest.raises(ValueError, match="add in_turn=True"):
                use_cassette("block.yaml", samples=2)
        """
    )
    for _ in range(2):
        numbered.run().assert_outcomes(passed=2)
    assert numbered.asked() == 2
