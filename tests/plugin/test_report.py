"""``--lm-report``: the page of a run."""

import json
import re
import subprocess
import sys

import pytest

MARKED = """
pytestmark = pytest.mark.lm_cache

def test_one():
    ask("What is <b>one</b>?")

def test_two():
    ask("two")
    ask("three", temperature=0.5)
"""


def page_of(suite, name="report.html"):
    return (suite.folder / name).read_text(encoding="utf-8")


def data_of(suite, name="report.html"):
    """The data in a page."""
    text = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', page_of(suite, name), re.DOTALL
    )
    return json.loads(text[1])


def outcomes(data):
    """The outcome of each call, by its id."""
    return {call["id"]: call["outcome"] for call in data["calls"]}


def test_page_of_a_run(suite):
    """The page has every call of the run with its outcome, what was asked and answered, tokens, USD and test."""
    suite.test(MARKED)
    result = suite.run("--lm-record", "--lm-report=report.html")
    result.stdout.fnmatch_lines(["*language-model report: file:///*/report.html*"])
    one, two = "test_it.py::test_one/1", "test_it.py::test_two/1"
    assert outcomes(data_of(suite)) == {
        one: "recorded",
        two: "recorded",
        "test_it.py::test_two/2": "recorded",
    }
    suite.run("--lm-report", "report.html")
    data = data_of(suite)
    assert outcomes(data) == {one: "replayed", two: "replayed", "test_it.py::test_two/2": "replayed"}
    call = data["calls"][0]
    assert [data["messages"][at]["text"] for at in call["asked"]] == ["What is <b>one</b>?"]
    assert [data["messages"][at]["text"] for at in call["answered"]] == ["You said: What is <b>one</b>?"]
    assert min(call["tokens"]) > 0
    assert call["usd"] > 0
    assert data["calls"][2]["parameters"] == {"temperature": "0.5"}
    assert data["tests"][0]["outcome"] == "passed"
    assert data["tests"][0]["cassette"].endswith("test_one.yaml")
    assert "mode replay · 2 passed · " in page_of(suite)


def test_every_outcome(suite):
    """A call that missed, one that is live, and a recording that no call asked for are in the page too."""
    suite.test(MARKED)
    suite.record()
    changed = MARKED.replace('ask("three", temperature=0.5)', "").replace("What is", "What was")
    suite.test(
        changed
        + """
@pytest.mark.lm_cache(mode="live")
def test_live():
    ask("live")
"""
    )
    suite.run("--lm-report=report.html")
    data = data_of(suite)
    assert outcomes(data) == {
        "test_it.py::test_one/1": "missed",
        "test_it.py::test_two/1": "replayed",
        "test_it.py::test_two/2": "unused",
        "test_it.py::test_live/1": "live",
    }
    assert [test["outcome"] for test in data["tests"]] == ["failed", "passed", "passed"]


@pytest.mark.slow
def test_workers(suite):
    """With pytest-xdist the controller writes one page of all workers, whatever their prompts hold."""
    suite.test(MARKED.replace('"two"', r'"two \x00 \u2028 é"'))
    done = suite.spawn("-n2", "--lm-record", "--lm-report=out/report.html", "-p", "xdist")
    assert done.returncode == 0, done.stdout
    data = data_of(suite, "out/report.html")
    assert len(outcomes(data)) == 3
    assert set(outcomes(data).values()) == {"recorded"}
    assert {"role": "user", "text": "two \x00 \u2028 é"} in data["messages"]
    assert [test["outcome"] for test in data["tests"]] == ["passed"] * 2
    assert [path.name for path in (suite.folder / "out").iterdir()] == ["report.html"]


def test_blocks_and_shared_fixtures(suite):
    """Calls of use_cassette and of fixtures that outlive a test are in the page under their names."""
    suite.test("""
        from pytest_lmcache import use_cassette

        @pytest.fixture(scope="module")
        def shared():
            return ask("shared")

        @pytest.mark.lm_cache
        def test_one(shared):
            ask("one")

        def test_block():
            with use_cassette("cassettes/block.yaml", mode="once"):
                ask("block")
    """)
    suite.run("--lm-record", "--lm-report=report.html")
    data = data_of(suite)
    asked = {data["messages"][call["asked"][0]]["text"]: call["id"] for call in data["calls"]}
    assert asked.keys() == {"shared", "one", "block"}
    assert asked["one"] == "test_it.py::test_one/1"
    assert asked["block"] == "test_it.py::test_block/1"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (".", "it is a folder"),
        ("app.py/report.html", "app.py is no folder"),
        ("app.py/x/report.html", "app.py is no folder"),
    ],
)
def test_path_that_cannot_be(suite, path, problem):
    """A path that no file can be written to ends the run before any test runs."""
    suite.test(MARKED)
    result = suite.run("--lm-record", f"--lm-report={path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--lm-report: the page cannot be written to *: *{problem}*Name a file*"])
    assert suite.asked() == 0


def test_no_secret_in_the_page(suite):
    """The page has no secret that the cassette has not: keys of requests and in prompts are replaced."""
    key = "sk-proj-" + "a1B2c3D4" * 6
    suite.test(f"""
        @pytest.mark.lm_cache
        def test_one():
            ask("My key is {key}", api_key="{key}")

        @pytest.mark.lm_cache(mode="live")
        def test_live():
            ask("My key is {key}", api_key="{key}")

        @pytest.mark.lm_cache(mode="replay")
        def test_missed():
            ask("My key is {key}", api_key="{key}")
    """)
    for mode in ("--lm-mode=once", "--lm-mode=replay"):
        suite.run(mode, "--lm-report=report.html")
        assert "My key is" in page_of(suite)
        assert key not in page_of(suite)


def test_collect_only_writes_nothing(suite):
    """A run that only collects leaves the last page as it is."""
    suite.test(MARKED)
    suite.file("report.html", "old")
    suite.run("--collect-only", "--lm-report=report.html")
    assert page_of(suite) == "old"


@pytest.mark.slow
def test_nothing_is_imported_unless_asked_for(suite):
    """A run without the option imports neither jinja2 nor the report."""
    suite.test("def test_one():\n    pass\n")
    code = (
        "import sys, pytest\n"
        f"pytest.main({[*suite.options, '-q']!r})\n"
        "assert not [name for name in sys.modules if name.startswith(('jinja2', 'pytest_lmcache.report'))]\n"
    )
    suite.file("test_it.py", "def test_one():\n    pass\n")
    subprocess.run([sys.executable, "-c", code], cwd=suite.folder, check=True, timeout=60)


def changed(data):
    """The differences of questions and answers, by the id of the call."""
    return {
        call["id"]: (
            [each["words"] for each in call["comparison"]["question"]],
            call["comparison"]["answers"],
        )
        for call in data["calls"]
        if "comparison" in call
    }


def test_before_and_after_of_a_changed_prompt(suite):
    """A call whose prompt changed shows the recording whose place it took beside the new one, word by word."""
    suite.test(MARKED)
    suite.record()
    suite.test(MARKED.replace("What is <b>one</b>?", "What was <b>one</b>?"))
    suite.run("--lm-record", "--lm-report=report.html")
    data = data_of(suite)
    answer = [
        ["same", "You said: What "],
        ["removed", "is"],
        ["added", "was"],
        ["same", " <b>one</b>?"],
    ]
    question = [["same", "What "], *answer[1:]]
    assert changed(data) == {"test_it.py::test_one/1": ([question], [answer])}
    assert 'href="#/conversations?compared=yes"' in page_of(suite)
    path = next(call["comparison"]["question"][0]["path"] for call in data["calls"] if "comparison" in call)
    assert path == "messages[0].content (user)"


def test_before_and_after_of_a_rewrite(suite, loopback, monkeypatch):
    """A rewrite shows which answers changed; recording the same answer again shows nothing."""
    suite.test(MARKED)
    suite.record()
    monkeypatch.setattr(
        loopback, "answer", lambda request: f"You said: {request.prompt}{'!' * (request.prompt == 'two')}"
    )
    suite.run("--lm-rewrite", "--lm-report=report.html")
    assert changed(data_of(suite)) == {
        "test_it.py::test_two/1": ([], [[["same", "You said: two"], ["added", "!"]]])
    }


def test_values_are_told_from_calls(suite):
    """What a test remembers is in the page, and counts as no call of a model."""
    suite.test("""
        def test_one(lm_cache):
            ask(lm_cache.remember("city", lambda: "Paris"))
    """)
    for mode, outcome in {"record": "recorded", "replay": "replayed"}.items():
        suite.run(f"--lm-mode={mode}", "--lm-report=report.html")
        data = data_of(suite)
        assert outcomes(data) == {"test_it.py::test_one/1": "value", "test_it.py::test_one/2": outcome}
        assert data["calls"][0]["name"] == "remember city"
        assert re.search(rf"<b>1</b> <span>{outcome}</span>", page_of(suite))


def test_faults_and_replies_of_the_test(suite):
    """What a test gives its calls itself is in the page, told from recordings, and without secrets."""
    key = "sk-proj-" + "a1B2c3D4" * 6
    suite.test(f"""
        def test_one(lm_cache):
            lm_cache.fail(litellm.RateLimitError)
            with pytest.raises(litellm.RateLimitError):
                ask("one")
            ask("two")
            lm_cache.reply("The key is {key}")
            ask("three")
    """)
    suite.run("--lm-record", "--lm-report=report.html")
    data = data_of(suite)
    assert [call["outcome"] for call in data["calls"]] == ["fault", "recorded", "reply"]
    assert "RateLimitError" in data["calls"][0]["error"]
    assert "The key is <redacted:openai-key" in page_of(suite).replace("\\u003c", "<")
    assert key not in page_of(suite)
    assert "<b>1</b> <span>given a reply by the test</span>" in page_of(suite)
    assert not re.search(r"saved \d", page_of(suite))


def test_asking_again_shows_both_answers(suite, loopback, monkeypatch):
    """In mode verify the page has the recorded answer beside the new one, with what each of them cost."""
    suite.test(MARKED)
    suite.record()
    monkeypatch.setattr(loopback, "answer", lambda request: f"You said: {request.prompt}".replace("two", "2"))
    suite.run("--lm-mode=verify", "--lm-report=report.html")
    data = data_of(suite)
    found = {call["id"]: call["comparison"] for call in data["calls"]}
    assert [each["verdict"] for each in found.values()] == ["same", "different", "same"]
    different = found["test_it.py::test_two/1"]
    assert different["answers"] == [[["same", "You said: "], ["removed", "two"], ["added", "2"]]]
    assert different["after"]["usd"] > 0
    assert "Asked again" in page_of(suite)
    assert re.search(r"spent \d+ tokens", page_of(suite))


def test_answers_of_a_live_model(suite, loopback):
    """A live run on another model shows the recorded answer of each call beside the new one."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            ask("one")
    """)
    suite.record()
    loopback.script("Something else.")
    suite.run("--lm-mode=live", "--lm-model=openai/gpt-4o-mini=openai/gpt-4o", "--lm-report=report.html")
    [call] = data_of(suite)["calls"]
    found = call["comparison"]
    assert (found["kind"], found["verdict"]) == ("asked again", "different")
    assert (found["before"]["model"], found["after"]["model"]) == ("openai/gpt-4o-mini", "openai/gpt-4o")
    assert "Something else." in str(found["answers"])
