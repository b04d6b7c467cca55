"""A red run says why, once: its misses by cause, what mends them, and what that costs."""

import re
import shlex
import textwrap
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from helpers import ALONE, summary_lines

PROMPT = """
SYSTEM = "You are a geographer.\\n{line}\\nBe kind."

def tell(question, **more):
    messages = [{{"role": "system", "content": SYSTEM}}, *said(question)]
    return litellm.completion(messages=messages, **SETTINGS, **more).choices[0].message.content
"""
SIXTY = """
from prompt import tell

@pytest.mark.lm_cache
@pytest.mark.parametrize("number", range(20))
def test_{name}(number):
    assert tell(f"Question {{number}} of {name}?")
"""
CAUSE = "messages[0].content (system) changed, 60 calls in 60 tests"
CHANGE = "  line 2: Answer in one [-word-]{+short sentence+}."
WITH_CACHE = tuple(each for each in ALONE if each != "no:cacheprovider")


def prompt(suite, line):
    suite.test(PROMPT.format(line=line), name="prompt.py")


@pytest.fixture
def sixty(suite):
    """Sixty recorded tests in three files, whose system prompt was edited since."""
    suite.file("pytest.ini", "[pytest]\n")
    prompt(suite, "Answer in one word.")
    for name in ("hills", "rivers", "towns"):
        suite.test(SIXTY.format(name=name), name=f"test_{name}.py")
    suite.record()
    prompt(suite, "Answer in one short sentence.")
    return suite


def with_cacheprovider(options):
    """The options of a suite, without those that switch pytest's cache off."""
    pairs = list(zip(options[::2], options[1::2], strict=True))
    return [word for pair in pairs if pair[1] != "no:cacheprovider" for word in pair]


# ---- sixty tests that share a prompt -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "with xdist"])
def test_sixty_tests_that_share_an_edited_prompt(sixty, workers):
    """The run says what changed once, in at most 150 lines, and its command mends it at the cost that it foretold."""
    options = with_cacheprovider(sixty.options)
    result = sixty.spawn(*workers, alone=options)
    lines = result.stdout.splitlines()
    assert len(lines) <= 150
    assert "60 failed" in lines[-1]
    assert lines.count(CAUSE) == lines.count(CHANGE) == 1
    start = lines.index(CAUSE)
    first, second, third, rest, files, command, cost = lines[start + 2 : start + 9]
    assert len({first, second, third}) == 3
    assert all(re.fullmatch(r"  test_\w+\.py::test_\w+\[\d+\]", line) for line in (first, second, third))
    assert rest == "  … and 57 more tests"
    assert sorted(files.removeprefix("  in ").split(", ")) == [
        "test_hills.py (20)",
        "test_rivers.py (20)",
        "test_towns.py (20)",
    ]
    assert command == "Record:     pytest --lf --lm-record"
    foretold = re.fullmatch(
        r"  60 calls, ([\d,]+ tokens, \$[\d.]+): the cost of the recordings that this replaces", cost
    )
    assert foretold
    assert sum(line.startswith("FAILED ") for line in lines) == 60
    sixty.asked()
    mended = sixty.spawn(*shlex.split(command.partition("pytest ")[2]), *workers, alone=options)
    assert mended.returncode == 0
    assert sixty.asked() == 60
    assert f"spent {foretold[1]}" in mended.stdout
    assert sixty.spawn(*workers, alone=options).returncode == 0
    assert sixty.asked() == 0


@pytest.mark.slow
def test_later_failures_are_two_lines_that_name_the_first(sixty):
    """FAILURES has the first failure in full, a few later ones in two lines each, and how many more there are."""
    lines = sixty.run("test_hills.py").outlines
    headings = [place for place, line in enumerate(lines) if re.match(r"_+ test_hills\[\d+\] _+$", line)]
    assert len(headings) == 1 + 5
    later = [lines[begin:end] for begin, end in pairwise(headings[1:])]
    told = "CassetteMiss: messages[0].content (system) changed, as in test_hills.py::test_hills[0]"
    assert [block[1:] for block in later] == [[told]] * 4
    assert lines[headings[-1] + 2] == "… and 14 more failures of this cause (-vv shows all)"
    # The short summary names each, with the cause.
    short = [line for line in lines if line.startswith("FAILED")]
    assert len(short) == 20
    assert all("CassetteMiss: messages[0].content (" in line for line in short)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "with xdist"])
def test_all_in_full_on_request(sixty, workers):
    """``-vv`` shows each failure with its own message."""
    lines = sixty.spawn("-vv", "test_hills.py", *workers).stdout.splitlines()
    assert sum(line.startswith("E       Record it:  pytest --lm-record") for line in lines) == 20
    assert not [line for line in lines if "as in test_hills" in line]


@pytest.mark.slow
def test_other_reports_have_each_failure_in_full(sixty):
    """junit xml has each test's own message and command; ``--tb=line`` is one line a test, with the cause."""
    result = sixty.run("test_hills.py", "--junitxml=junit.xml", "--tb=line")
    failures = ET.parse(sixty.folder / "junit.xml").getroot().iter("failure")
    texts = [failure.text for failure in failures]
    assert len(texts) == 20
    assert all(f'pytest --lm-record "test_hills.py::test_hills[{n}]"' in text for n, text in enumerate(texts))
    told = [line for line in result.outlines if re.match(r"\S*prompt\.py:\d+: ", line)]
    assert len(told) == 20
    assert all(line.endswith(": CassetteMiss: messages[0].content (system) changed") for line in told)
    assert len(result.outlines) < 70


def test_a_failure_of_another_cause_is_shown_in_full(suite):
    """Only what was said before is shortened: another change, and another error, are not."""
    suite.test("""
        pytestmark = pytest.mark.lm_cache
        MORE = {}

        @pytest.mark.parametrize("n", range(2))
        def test_temperature(n):
            ask(f"number {n}", temperature=0.2, **MORE)

        def test_model():
            ask(model="openai/gpt-4o", **MORE)

        def test_own_error():
            ask()
    """)
    suite.record()
    text = (
        (suite.folder / "test_it.py")
        .read_text()
        .replace("0.2", "0.7")
        .replace("openai/gpt-4o", "openai/gpt-5")
    )
    (suite.folder / "test_it.py").write_text(text + "    assert ask() == 'another'\n")
    result = suite.run()
    told = "\n".join(result.outlines)
    assert told.count("temperature: recorded 0.2, asked 0.7") == 1
    assert told.count('model: recorded "openai/gpt-4o", asked "openai/gpt-5"') == 1
    assert "CassetteMiss: temperature changed: 0.2 → 0.7, as in test_it.py::test_temperature[0]" in told
    assert "assert 'You said: hello' == 'another'" in told


def test_words_are_coloured_on_a_terminal(sixty):
    """Removed words are red, added words green, without brackets."""
    lines = sixty.run("test_hills.py", "--color=yes").outlines
    [line] = [line for line in lines if line.startswith("  line 2: ")]
    assert "\x1b[31mword\x1b[0m\x1b[32mshort sentence\x1b[0m" in line


# ---- causes --------------------------------------------------------------------------------------------

TOOLS = """
def tool(name, **properties):
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}

pytestmark = pytest.mark.lm_cache(**MARK)
"""
TURNS = "[*said('go'), {'role': 'assistant', 'content': 'went'}, *said('and now?')]"
CAUSES = {
    "message": (
        "ask('hello there')",
        "ask('hello you')",
        ["messages[0].content (user) changed, 1 call in 1 test"],
    ),
    "message is new": (
        "litellm.completion(messages=said('a'), **SETTINGS)",
        "litellm.completion(messages=[*said('a'), {'role': 'system', 'content': 'Be brief.'}], **SETTINGS)",
        ["messages[1] (system) is new, 1 call in 1 test", '  + {"role": "system", "content": "Be brief."}'],
    ),
    "tool's schema": (
        "ask(tools=[tool('weather', city={'type': 'string'})])",
        "ask(tools=[tool('weather', city={'type': 'integer'})])",
        [
            (
                "tool weather (tools[0].function.parameters.properties.city.type) changed: string → integer, "
                "1 call in 1 test"
            )
        ],
    ),
    "tools": (
        "ask(tools=[tool('a')])",
        "ask(tools=[tool('a'), tool('b')])",
        ["tool b is new, 1 call in 1 test"],
    ),
    "model": (
        "ask()",
        "ask(model='openai/gpt-5')",
        ["model changed: openai/gpt-4o-mini → openai/gpt-5, 1 call in 1 test"],
    ),
    "parameter": (
        "ask(temperature=0.2)",
        "ask(temperature=0.7)",
        ["temperature changed: 0.2 → 0.7, 1 call in 1 test"],
    ),
    "parameter is new": ("ask()", "ask(seed=7)", ["seed is new: 7, 1 call in 1 test"]),
    "response format": (
        "ask(response_format={'type': 'json_object'})",
        "ask(response_format={'type': 'text'})",
        ["response format (response_format.type) changed: json_object → text, 1 call in 1 test"],
    ),
    "one call more": (
        "ask('one')",
        "ask('one'); ask('another')",
        [
            "one call more than recorded, 1 call in 1 test",
            "  for example: model openai/gpt-4o-mini, 1 message, another",
        ],
    ),
    "one turn more": (
        "ask('first'); litellm.completion(messages=said('and now?'), **SETTINGS)",
        f"ask('first'); litellm.completion(messages={TURNS}, **SETTINGS)",
        [
            (
                "1 call more than recorded before this one: messages[0], messages[1] only in the conversation, "
                "1 call in 1 test"
            )
        ],
    ),
    "one turn fewer": (
        f"litellm.text_completion(prompt='first', **SETTINGS); litellm.completion(messages={TURNS}, **SETTINGS)",
        "litellm.completion(messages=said('and now?'), **SETTINGS)",
        [
            (
                "1 call fewer than recorded before this one: messages[0], messages[1] only in the recorded conversation, "
                "1 call in 1 test"
            )
        ],
    ),
    "example is new": (
        "litellm.completion(messages=said('and now?'), **SETTINGS)",
        f"litellm.completion(messages={TURNS}, **SETTINGS)",
        ["messages[0] (user) is new, 1 call in 1 test", "  also: messages[1] (assistant) is new"],
    ),
    "example is gone": (
        f"litellm.completion(messages={TURNS}, **SETTINGS)",
        "litellm.completion(messages=said('and now?'), **SETTINGS)",
        ["messages[0] (user) is gone, 1 call in 1 test", "  also: messages[1] (assistant) is gone"],
    ),
    "role": (
        "litellm.completion(messages=[{'role': 'system', 'content': 'a'}], **SETTINGS)",
        "litellm.completion(messages=[{'role': 'developer', 'content': 'a'}], **SETTINGS)",
        ["messages[0].role changed: system → developer, 1 call in 1 test"],
    ),
    "all tools": (
        "ask()",
        "ask(tools=[tool('weather', city={'type': 'string'})])",
        ["tools are new, 1 call in 1 test"],
    ),
    "a response format": (
        "ask()",
        "ask(response_format={'type': 'json_object'})",
        ['response format is new: {"type": "json_object"}, 1 call in 1 test'],
    ),
    "used up": (
        "MARK: {'repeat': 'error'}; ask()",
        "MARK: {'repeat': 'error'}; ask(); ask()",
        ["the recorded answers are used up (repeat = error), 1 call in 1 test"],
    ),
    "function": (
        "ask('hello')",
        "litellm.text_completion(prompt='hello', **SETTINGS)",
        ["another function is called: completion → text_completion, 1 call in 1 test"],
    ),
    "stream": (
        "next(iter(litellm.completion(messages=said('a'), stream=True, **SETTINGS)))",
        "list(litellm.completion(messages=said('a'), stream=True, **SETTINGS))",
        [
            "a stream is read further than it was recorded, 1 call in 1 test",
            'Rewrite:    pytest --lm-rewrite "test_it.py::test_one"',
        ],
    ),
    "date": (
        "ask('Today is 2026-01-02.')",
        "ask('Today is 2026-02-03.')",
        [
            "a date or a time in messages[0].content (user) differs from run to run, 1 call in 1 test",
            'Normalize:  lm_normalize = ["date"]  # pyproject.toml',
        ],
    ),
    "time": (
        "ask('It is 10:11:12 now.')",
        "ask('It is 11:12:13 now.')",
        ['Normalize:  lm_normalize = ["date"]  # pyproject.toml'],
    ),
    "uuid": (
        "ask('5b3f5b6e-8b7a-4c43-9d68-1d1ad9e3a0f1')",
        "ask('0c7f0f0e-1b9a-4f0e-8a0c-5d0a6f0b7c11')",
        [
            "a UUID in messages[0].content (user) differs from run to run, 1 call in 1 test",
            'Normalize:  lm_normalize = ["uuid"]  # pyproject.toml',
        ],
    ),
    "epoch": (
        "ask('at 1767312000')",
        "ask('at 1767319999')",
        ['Normalize:  lm_normalize = ["epoch"]  # pyproject.toml'],
    ),
    "temporary path": (
        "ask('in /tmp/pytest-of-me/pytest-3/test_x0/f')",
        "ask('in /tmp/pytest-of-me/pytest-7/test_x0/f')",
        ['Normalize:  lm_normalize = ["tmp_path"]  # pyproject.toml'],
    ),
    "run id": (
        "ask('This is run-1234 of 9.')",
        "ask('This is run-1300 of 9.')",
        [
            "the id of a run in messages[0].content (user) differs from run to run, 1 call in 1 test",
            'Normalize:  lm_normalize = ["re:run-[0-9]+"]  # pyproject.toml',
        ],
    ),
}


def body(code):
    mark, code = code.removeprefix("MARK: ").split("; ", 1) if code.startswith("MARK: ") else ("{}", code)
    return TOOLS.replace("**MARK", f"**{mark}") + f"\ndef test_one():\n    {code}\n"


@pytest.mark.parametrize(("before", "after", "told"), CAUSES.values(), ids=CAUSES)
def test_each_cause_is_told_from_the_others(suite, before, after, told):
    """The summary names the cause, and what mends it: a command, or the line to paste, which does."""
    suite.test(body(before))
    suite.record()
    suite.test(body(after))
    result = suite.run()
    result.assert_outcomes(failed=1)
    lines = summary_lines(result)
    assert set(told) <= set(lines), lines
    [mend] = [line for line in lines if re.match(r"(Record|Rewrite|Normalize): ", line)]
    what = mend.partition(":")[2].strip()
    suite.asked()
    if what.startswith("pytest "):
        suite.run(*shlex.split(what)[1:]).assert_outcomes(passed=1)
        assert suite.asked()
    else:
        suite.file("pyproject.toml", f"[tool.pytest]\n{what}\n")
    suite.run().assert_outcomes(passed=1)
    assert suite.asked() == 0


def test_never_recorded(suite):
    """What was never recorded cannot be estimated, and the summary says so."""
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    ask()\n")
    assert summary_lines(suite.run())[1:] == [
        "never recorded, 1 call in 1 test",
        "  test_it.py::test_one",
        'Record:     pytest --lm-record "test_it.py::test_one"',
        "  not estimated: 1 call without a recording, and what follows from it",
    ]


def test_each_its_own_way(suite):
    """Changes of one place that differ from test to test are one group, and each failure is shown in full."""
    text = """
        @pytest.mark.lm_cache
        @pytest.mark.parametrize("n", range(4))
        def test_one(n):
            ask(f"Tell me about city {n} of this country.")
    """
    suite.test(text)
    suite.record()
    suite.test(text.replace("city {n}", "town {n + 10}"))
    result = suite.run()
    lines = summary_lines(result)
    assert "messages[0].content (user) changed in a different way in each test, 4 calls in 4 tests" in lines
    assert "  for example in test_one[0]: Tell me about [-city 0-]{+town 10+} of this country." in lines
    assert sum("Record it:  " in line for line in result.outlines) == 4


def test_what_else_changed_is_said(suite):
    """Of two edits at once, the one that most tests share is the cause, and the other is named below it."""
    text = """
        @pytest.mark.lm_cache
        @pytest.mark.parametrize("n", range(3))
        def test_one(n):
            ask("hello", seed=1, **({"temperature": 0.5} if n else {}))
    """
    suite.test(text)
    suite.record()
    suite.test(text.replace("seed=1", "seed=2").replace("0.5", "0.6"))
    lines = summary_lines(suite.run())
    assert "seed changed: 1 → 2, 3 calls in 3 tests" in lines
    assert "  also in 2 tests: temperature changed: 0.5 → 0.6" in lines


def test_many_causes_are_not_all_listed(suite):
    """Ten causes are listed, those with the most tests first; ``-v`` lists all."""
    text = "".join(f"def test_{n}():\n    ask(p{n}=0)\n" for n in range(12))
    suite.test(f"pytestmark = pytest.mark.lm_cache\n{text}def test_more():\n    ask(p11=0)\n")
    suite.record()
    file = suite.folder / "test_it.py"
    file.write_text(file.read_text().replace("=0", "=1"))
    lines = summary_lines(suite.run())
    causes = [line for line in lines if "changed: 0 → 1" in line]
    assert causes[0] == "p11 changed: 0 → 1, 2 calls in 2 tests"
    assert len(causes) == 10
    assert "… and 2 more causes in 2 tests (-v shows all)" in lines
    assert len([line for line in summary_lines(suite.run("-v")) if "changed: 0 → 1" in line]) == 12


# ---- what mends ----------------------------------------------------------------------------------------

AGENT = """
@pytest.mark.lm_cache
def test_agent():
    for step in range(3):
        ask(f"{PROMPT} Step {step}.")

@pytest.mark.lm_cache
def test_other():
    ask("other")
"""


def test_the_cost_counts_the_calls_that_the_test_did_not_come_to(suite):
    """A test stops at its first miss; recording it asks its other calls too, which are counted."""
    suite.test("PROMPT = 'Be brief.'" + AGENT)
    spent = summary_lines(suite.record("-k", "agent"))[1].removeprefix("spent ")
    suite.record()
    suite.test("PROMPT = 'Be kind.'" + AGENT)
    lines = summary_lines(suite.run())
    assert lines[-2:] == [
        'Record:     pytest --lm-record "test_it.py::test_agent"',
        f"  3 calls, {spent}: the cost of the recordings that this replaces",
    ]
    suite.asked()
    suite.record("test_it.py::test_agent")
    assert suite.asked() == 3


THREE = """
pytestmark = pytest.mark.lm_cache

def test_one():
    ask("one")

def test_date():
    ask("2026-01-02")

def test_own():
    assert TRUE
"""


def test_last_failed_is_named_only_if_it_is_right(suite):
    """``--lf`` would also run what failed in another run, or what is not to be recorded: then the tests are named."""
    suite.options = with_cacheprovider(suite.options)
    suite.test("TRUE = True" + THREE)
    suite.record()
    suite.test("TRUE = False" + THREE.replace('"one"', '"1"'))
    # The other failure calls no model.
    assert "Record:     pytest --lf --lm-record" in summary_lines(suite.run())
    named = 'Record:     pytest --lm-record "test_it.py::test_one"'
    assert named in summary_lines(suite.run("-k", "one"))  # test_own has failed before
    suite.test("TRUE = True" + THREE.replace('"one"', '"1"').replace("2026-01-02", "2026-02-03"))
    assert named in summary_lines(suite.run())
    suite.test("TRUE = True" + THREE.replace('"one"', '"1"'))
    assert "Record:     pytest --lf --lm-record" in summary_lines(suite.run())
    suite.file("pytest.ini", "[pytest]\ntestpaths = tests\n")
    assert named.replace('"test_it', '"test_it') in summary_lines(suite.run("test_it.py"))


def test_many_tests_of_a_file_are_named_by_it(suite):
    """Without pytest's cache the command names tests, or the file if it has many of them and none to be left out."""
    suite.test(SIXTY.format(name="one").replace("from prompt import tell", "tell = ask"))
    suite.test("@pytest.mark.lm_cache\ndef test_two():\n    ask()\n", name="test_two.py")
    command = next(line for line in summary_lines(suite.run()) if line.startswith("Record:"))
    assert command == 'Record:     pytest --lm-record "test_it.py" "test_two.py::test_two"'
    suite.run(*shlex.split(command.partition("pytest ")[2])).assert_outcomes(passed=21)


def test_calls_without_a_price_are_told(suite):
    """The price of a model that LiteLLM does not know is not estimated; its tokens are."""
    text = "@pytest.mark.lm_cache\ndef test_one():\n    ask('x', model='openai/our-own')\n"
    suite.test(text)
    suite.record()
    suite.test(text.replace("'x'", "'y'"))
    lines = summary_lines(suite.run())
    assert re.fullmatch(r"  1 call, \d+ tokens: the cost of the recording that this replaces", lines[-2])
    assert lines[-1] == "  not estimated: the price of 1 call"


def test_a_fixture_of_many_tests_is_one_cause(suite):
    """A shared fixture's miss is one call; its tests are errors, of which the first is shown in full."""
    text = """
        pytestmark = pytest.mark.lm_cache

        @pytest.fixture(scope="module")
        def capital():
            return ask("capital")

        @pytest.mark.parametrize("n", range(3))
        def test_one(capital, n):
            pass
    """
    suite.test(text)
    suite.record()
    suite.test(text.replace('ask("capital")', 'ask("the capital")'))
    result = suite.run()
    result.assert_outcomes(errors=3)
    lines = summary_lines(result)
    assert "messages[0].content (user) changed, 1 call in 1 test" in lines
    assert sum("Looked in" in line for line in result.outlines) == 1
    command = next(line for line in lines if line.startswith("Record:"))
    suite.run(*shlex.split(command.partition("pytest ")[2])).assert_outcomes(passed=3)
    suite.run().assert_outcomes(passed=3)


def test_calls_of_tests_behind_a_fixture_are_not_estimated(suite):
    """Tests that a shared fixture's miss kept from running have calls of their own, of which the cost says so."""
    text = """
        pytestmark = pytest.mark.lm_cache

        @pytest.fixture(scope="module")
        def capital():
            return ask(PROMPT)

        @pytest.mark.parametrize("n", range(3))
        def test_one(capital, n):
            ask(f"{PROMPT} {n}")
    """
    suite.test("PROMPT = 'Be brief.'" + textwrap.dedent(text))
    suite.record()
    suite.test("PROMPT = 'Be kind.'" + textwrap.dedent(text))
    lines = summary_lines(suite.run())
    assert lines[-2].endswith("the cost of the recording that this replaces")
    assert lines[-1] == "  not estimated: the calls of 3 tests that did not run because a fixture missed"


def test_an_expected_failure_says_why_it_missed(suite):
    """The short summary has the cause of a test that was expected to fail for another reason, FAILURES its traceback."""
    text = """
        @pytest.mark.lm_cache
        @pytest.mark.xfail
        def test_one():
            ask("one")
            assert False
    """
    suite.test(text)
    suite.record()
    suite.test(text.replace('"one"', '"two"'))
    result = suite.run("-rf")
    result.stdout.fnmatch_lines(["*def test_one():", "FAILED test_it.py::test_one - CassetteMiss: messages*"])
