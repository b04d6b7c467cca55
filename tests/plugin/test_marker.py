"""The marker and the fixture: on whatever pytest can mark, merged from near to far."""

import pytest

KINDS = {
    "function": ("@M\ndef test_one():\n    ask()\n", "test_one"),
    "method": ("class TestIt:\n    @M\n    def test_one(self):\n        ask()\n", "TestIt.test_one"),
    "class": ("@M\nclass TestIt:\n    def test_one(self):\n        ask()\n", "TestIt.test_one"),
    "inner class": (
        "@M\nclass TestIt:\n    class TestIn:\n        def test_one(self):\n            ask()\n",
        "TestIt.TestIn.test_one",
    ),
    "module": ("pytestmark = M\ndef test_one():\n    ask()\n", "test_one"),
    "parameter": (
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=M)])\ndef test_one(x):\n    ask()\n",
        "test_one[1]",
    ),
    "fixture": ("def test_one(lm_cache):\n    ask()\n", "test_one"),
    "dynamic fixture": (
        "def test_one(request):\n    request.getfixturevalue('lm_cache')\n    ask()\n",
        "test_one",
    ),
    "usefixtures": ("@pytest.mark.usefixtures('lm_cache')\ndef test_one():\n    ask()\n", "test_one"),
    "asyncio": ("@M\n@pytest.mark.asyncio\nasync def test_one():\n    await aask()\n", "test_one"),
    "anyio": (
        (
            "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
            "@M\n@pytest.mark.anyio\nasync def test_one():\n    await aask()\n"
        ),
        "test_one",
    ),
    "unittest": (
        "import unittest\nclass TestIt(unittest.TestCase):\n    @M\n    def test_one(self):\n        ask()\n",
        "TestIt.test_one",
    ),
    "unittest class": (
        (
            "import unittest\n@M\nclass TestIt(unittest.TestCase):\n    def setUp(self):\n        ask()\n"
            "    def test_one(self):\n        pass\n"
        ),
        "TestIt.test_one",
    ),
    "async unittest": (
        (
            "import unittest\n@M\nclass TestIt(unittest.IsolatedAsyncioTestCase):\n"
            "    async def asyncSetUp(self):\n        await aask()\n    async def test_one(self):\n        pass\n"
        ),
        "TestIt.test_one",
    ),
    "its fixture": (
        "@pytest.fixture\ndef f():\n    yield\n    ask()\n@M\ndef test_one(f):\n    pass\n",
        "test_one",
    ),
    "its async fixture": (
        (
            "import pytest_asyncio\n@pytest_asyncio.fixture\nasync def f():\n    return await aask()\n"
            "@M\n@pytest.mark.asyncio\nasync def test_one(f):\n    pass\n"
        ),
        "test_one",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("text", "name"), KINDS.values(), ids=KINDS)
def test_what_can_be_marked(suite, text, name):
    """The one call is recorded in the cassette of the test, replayed without the provider, and missed by name."""
    suite.test("M = pytest.mark.lm_cache\n" + text)
    missed = suite.run().parseoutcomes()
    assert missed.get("failed", 0) + missed.get("errors", 0) == 1
    assert suite.asked() == 0
    suite.record()
    assert suite.cassettes() == [f"test_it/{name}.yaml"]
    assert suite.asked() == 1
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 replayed"])
    assert suite.asked() == 0


def test_asyncio_auto_mode(suite):
    """In pytest-asyncio's auto mode an async test needs no mark of asyncio's."""
    suite.file("pytest.ini", "[pytest]\nasyncio_mode = auto\nlm_auto = true\n")
    suite.test("""
        @pytest.fixture
        async def early():
            return await aask("early")

        async def test_one(early):
            assert [early, await aask("late")] == ["You said: early", "You said: late"]
    """)
    suite.record()
    suite.asked()
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 0


def test_doctests(suite):
    """Under ``lm_auto`` the examples of a docstring and of a text file are recorded as any test."""
    suite.file("pytest.ini", "[pytest]\nlm_auto = true\naddopts = --doctest-modules --doctest-glob=*.md\n")
    example = ">>> from app import ask\n{0}>>> ask()\n{0}'You said: hello'\n"
    suite.file("words.py", 'def greet():\n    """Greets.\n\n    ' + example.format("    ") + '    """\n')
    suite.file("docs/words.md", "# Words\n\n" + example.format(""))
    suite.record()
    assert suite.cassettes() == [
        "docs/words.md/DoctestItem words.md.yaml",
        "words/DoctestItem words.greet.yaml",
    ]
    suite.asked()
    suite.run().assert_outcomes(passed=2)
    assert suite.asked() == 0


def test_near_beats_far_setting_by_setting(suite):
    """Settings of the test's own mark win over its class's, those over the module's; the others stay."""
    suite.file("pytest.ini", "[pytest]\nlm_repeat = cycle\nlm_key = messages\nlm_redact = from-ini\n")
    suite.test("""
        pytestmark = pytest.mark.lm_cache(mode="live", key="content", redact="from-module")

        @pytest.mark.lm_cache(mode="record", cassette="of-class")
        class TestIt:
            @pytest.mark.lm_cache(mode="once", cassette="own", redact=["from-test"])
            def test_one(self, lm_cache):
                s = lm_cache.settings
                assert (s.mode, s.cassette, s.key, s.repeat) == ("once", "own", "content", "cycle")
                # Secrets add up: what the suite names as one stays one.
                assert s.redact == ("from-ini", "from-module", "from-test")
    """)
    suite.run().assert_outcomes(passed=1)


BAD = {
    "cassete='x'": "*there is no setting 'cassete'. Did you mean 'cassette'? *",
    "'x.yaml'": "*takes its settings by name, such as cassette='x.yaml'.",
    "mode='reply'": "*mode cannot be 'reply'; it takes one of: replay, once, record, rewrite, live, verify.",
    "key='exakt'": "*There is no key strategy 'exakt'. Use exact, messages, content, *",
    "key=3": "*key cannot be 3; it takes *",
    "redact='('": "*regular expression*",
    "cassette=''": "*cassette cannot be ''; it takes the path of a file, or None for no cassette.",
}


@pytest.mark.parametrize(("arguments", "said"), BAD.items(), ids=BAD)
def test_bad_marker(suite, arguments, said):
    """A mark that cannot be ends the run before any test, and names its test and the valid values."""
    suite.test(f"@pytest.mark.lm_cache({arguments})\ndef test_one():\n    ask()\n")
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert suite.asked() == 0


@pytest.mark.slow
def test_bad_marker_on_a_worker(suite):
    """A worker cannot end the run: there the test itself fails, and tells the same."""
    suite.file(
        "test_it.py", "import pytest\n@pytest.mark.lm_cache(mode='reply')\ndef test_one():\n    pass\n"
    )
    result = suite.run("-n1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([BAD["mode='reply'"]])


def test_fixture_shows_the_calls(suite):
    """``lm_cache`` hands the test what it asked, what came of it, and the tokens."""
    suite.test("""
        def test_one(lm_cache):
            ask("one")
            ask("two")
            first, second = lm_cache.calls
            assert first.name == "completion"
            assert first.request["messages"] == said("one")
            assert second.answer.data["choices"][0]["message"]["content"] == "You said: two"
            assert lm_cache.replayed + lm_cache.recorded == 2
            assert lm_cache.usage["total_tokens"] == sum(first.tokens) + sum(second.tokens) > 0
            assert (lm_cache.replayed, lm_cache.recorded) == EXPECTED
    """)
    suite.file("conftest.py", "import builtins\nbuiltins.EXPECTED = (0, 2)\n")
    suite.record()
    suite.file("conftest.py", "import builtins\nbuiltins.EXPECTED = (2, 0)\n")
    suite.run().assert_outcomes(passed=1)


def test_marker_is_registered(suite):
    """``--strict-markers`` knows the mark, and ``--markers`` explains it."""
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    pass\n")
    suite.run("--strict-markers").assert_outcomes(passed=1)
    suite.run("--markers").stdout.fnmatch_lines(["@pytest.mark.lm_cache(mode, cassette, *"])
