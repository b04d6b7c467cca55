"""``lm_key``: a function of the suite's own says which calls are the same."""

from helpers import configure


def test_own_key_function(suite):
    """``lm_key`` takes the dotted path of a function of the suite's own."""
    configure(suite, "toml", lm_key="app:last_word", pythonpath=["."])
    suite.file(
        "app.py",
        (suite.folder / "app.py").read_text()
        + "\ndef last_word(request):\n    return request['messages'][-1]['content'].split()[-1]\n",
    )
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    ask('say yes')\n")
    suite.record()
    suite.test(
        "@pytest.mark.lm_cache\ndef test_one():\n    assert ask('always answer yes') == 'You said: say yes'\n"
    )
    suite.run().assert_outcomes(passed=1)


def test_key_of_any_callable(suite):
    """A key function may be an object that cannot be hashed."""
    suite.test(
        """
        import dataclasses

        @dataclasses.dataclass
        class Last:
            place: int = -1
            def __call__(self, request):
                return request["messages"][self.place]["content"]

        @pytest.mark.lm_cache(key=Last())
        def test_one():
            ask()
        """
    )
    suite.record()
    suite.run().assert_outcomes(passed=1)
