"""``lm_compare``: when a new text counts as the same as the recorded one."""

import pytest
from provider import Reply

from pytest_lmcache.same_text import same_text


def same_vectors(answer):
    """All vectors of an answer are the first one."""
    for item in answer["data"]:
        item["embedding"] = answer["data"][0]["embedding"]


@pytest.fixture
def drift(loopback):
    """Has the provider answer otherwise, but for embeddings."""

    def set_to(text):
        loopback.answer = lambda request: Reply() if request.path.endswith("embeddings") else Reply(text=text)

    yield set_to
    loopback.answer = lambda _: Reply()


@pytest.fixture
def recorded(suite, drift):
    """A suite with one recording; gives a function that verifies it with a setting."""
    suite.test("""
        @pytest.mark.lm_cache
        def test_one():
            assert ask("one") == "The capital of France is Paris."
    """)
    drift("The capital of France is Paris.")
    suite.record()
    drift("The capital of France is Rome.")
    suite.asked()

    def verify(setting, *args):
        suite.file("pytest.ini", f"[pytest]\nlm_compare = {setting}\npythonpath = .\n")
        return suite.run("--lm-mode=verify", *args)

    return verify


@pytest.mark.parametrize(
    ("setting", "status"), [("similarity:0.8", 0), ("similarity:0.9", 1), ("similarity:1", 1)]
)
def test_similarity(recorded, setting, status):
    """Texts are the same from a share of equal words on."""
    result = recorded(setting)
    result.assert_outcomes(passed=1)
    assert result.ret == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("return True", 0),
        ("return False", 1),
        ("return 0.8", 0),
        ("return 0.79", 1),
        ("return recorded.endswith('Paris.') and new.endswith('Rome.')", 0),
    ],
)
def test_own_function(suite, recorded, body, status):
    """A function gets the recorded text and the new one, and gives a bool or a number, of which 0.8 is enough."""
    suite.file("judge.py", f"def same(recorded, new):\n    {body}\n")
    result = recorded("judge:same")
    result.assert_outcomes(passed=1)
    assert result.ret == status


def test_function_that_fails(suite, recorded):
    """A function that fails is told, and fails the run: nobody knows whether the answers are the same."""
    suite.file("judge.py", "def same(recorded, new):\n    raise ValueError('no judge')\n")
    result = recorded("judge:same")
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "not compared, 1 call in 1 test: the texts could not be compared: ValueError: no judge",
            "  test_it.py::test_one",
        ]
    )


def test_function_in_a_marker(suite, drift):
    """The marker takes the function itself."""
    suite.test("""
        @pytest.mark.lm_cache(compare=lambda recorded, new: len(new) > 3)
        def test_one():
            ask("one")
    """)
    suite.record()
    drift("long enough")
    assert suite.run("--lm-mode=verify").ret == 0
    drift("no")
    assert suite.run("--lm-mode=verify").ret == 1


def test_embedding_model(suite, recorded, drift, monkeypatch):
    """An embedding model is asked about texts that differ, and only those; the call is no call of the test's."""
    monkeypatch.setenv("OPENAI_API_BASE", suite.provider.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")

    def answer(request):
        embeds = request.path.endswith("embeddings")
        return Reply(edit=same_vectors) if embeds else Reply(text="The capital of France is Rome.")

    suite.provider.answer = answer
    assert recorded("embedding:openai/text-embedding-3-small:0.9").ret == 0
    assert suite.asked() == 2
    assert suite.provider.requests[-1].body["input"] == [
        "The capital of France is Paris.",
        "The capital of France is Rome.",
    ]
    drift("The capital of France is Rome.")
    result = recorded("embedding:openai/text-embedding-3-small:0.9")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["1 answer asked again: 1 different"])


def test_embedding_model_that_is_down(recorded, monkeypatch):
    """If the embedding model cannot be asked, the report says so, and the run fails."""
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    result = recorded("embedding:openai/text-embedding-3-small:0.9")
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["not compared, 1 call in 1 test: the texts could not be compared: *"])


@pytest.mark.parametrize(
    "value",
    [
        "similarity",
        "similarity:",
        "similarity:2",
        "similarity:x",
        "similarity:0.5:0.5",
        "embedding:0.9",
        "embedding:m",
    ],
)
def test_invalid_value(recorded, value):
    """A rule without a threshold from 0 to 1 is an error before any test runs."""
    result = recorded(value)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*lm_compare cannot be *; it takes similarity:0.8, embedding:MODEL:0.9*"])


def test_path_that_leads_nowhere(recorded):
    """A path without a function is an error that names it."""
    result = recorded("nowhere:same")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*compare: 'nowhere:same' cannot be imported*"])


def test_model_with_a_colon():
    """The name of an embedding model may have a colon, as Ollama's have."""
    assert callable(same_text("embedding:ollama/nomic-embed-text:latest:0.9"))
