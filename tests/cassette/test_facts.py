"""What is read of a cassette without parsing it is what parsing gives."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_lmcache.cassette.document import Entry
from pytest_lmcache.cassette.facts import facts_of, named_owner
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.errors import CassetteError
from pytest_lmcache.interaction import Answer, Call, Interaction, Kind
from pytest_lmcache.keys.strategies import strategy

ROOT = Path(__file__).parents[2]
FILES = [*sorted(ROOT.glob("tests/cassette/golden/**/*.yaml")), *sorted(ROOT.glob("cassettes/**/*.yaml"))]
YAMLFMT = Path(sys.executable).with_name("yamlfmt")
MESSAGES = [{"role": "user", "content": "usage:\n  usage:\n    prompt_tokens: 7\n"}]


def read_both_ways(path):
    """The facts of each call, read quickly and parsed."""
    quick, parsed = [], []
    for call in facts_of(path).calls:
        quick.append(call[:-1])
        interaction = call.entry.interaction()
        asked, answer = interaction.call, interaction.answer
        whole = (asked.name, str(asked.request.get("model") or ""), answer.kind, answer.tokens, answer.usd)
        parsed.append((*whole, answer.seconds, interaction.recorded))
    return quick, parsed


@pytest.mark.parametrize("name", [str(path.relative_to(ROOT)) for path in FILES])
def test_the_same_as_parsed(name, monkeypatch):
    """All facts of released formats and of real recordings are right; hardly an answer is parsed for them."""
    answers = []
    monkeypatch.setattr(Entry, "answer", lambda self, read=Entry.answer: answers.append(1) or read(self))
    facts_of(ROOT / name)
    assert len(answers) <= 1
    quick, parsed = read_both_ways(ROOT / name)
    assert quick == parsed
    assert quick


@pytest.mark.slow
@pytest.mark.parametrize("name", ["calls.yaml", "values.yaml"])
def test_the_same_after_a_formatter(tmp_path, name):
    """A cassette that a formatter indented in another way has the same facts."""
    path = Path(shutil.copy(ROOT / "tests/cassette/golden/format2" / name, tmp_path))
    before = [call[:-1] for call in facts_of(path).calls]
    subprocess.run([YAMLFMT, "-formatter", "indent=4", path], check=True)
    assert [call[:-1] for call in facts_of(path).calls] == before


ANSWERS = {
    "response": Answer(Kind.RESPONSE, {"id": "x", "usage": {"prompt_tokens": 5, "completion_tokens": 2}}, usd=1e-06),
    "no usage": Answer(Kind.RESPONSE, {"choices": [{"message": {"content": MESSAGES[0]["content"]}}]}),
    "usage in a text": Answer(Kind.RESPONSE, {"text": {"usage": {"prompt_tokens": 9}}}),
    "hidden usage": Answer(Kind.RESPONSE, {"usage": {"prompt_tokens": 1}}, hidden={"usage": {"input_tokens": 3, "output_tokens": 4}}),
    "hidden, but no usage": Answer(Kind.RESPONSE, {"usage": {"input_tokens": 8}}, hidden={"model_id": "m"}),
    "usage that is null": Answer(Kind.RESPONSE, {"usage": {"prompt_tokens": None, "input_tokens": 3}}),
    "stream": Answer(Kind.STREAM, [{"choices": [], "usage": {"prompt_tokens": 6, "completion_tokens": 1}}, {"choices": []}]),
    "stream of events": Answer(Kind.STREAM, [{"response": {"usage": {"input_tokens": 2, "output_tokens": 2}}}]),
    "two usages": Answer(Kind.STREAM, [{"type": "end", "usage": {"input_tokens": 2}, "data": {"usage": {"input_tokens": 9}}}]),
    "usage elsewhere": Answer(Kind.STREAM, [{"usage": {"input_tokens": 2}}, {"usage": None, "data": {"usage": {"input_tokens": 9}}}]),
    "hidden usage of a stream": Answer(Kind.STREAM, [{"a": 1}], hidden={"usage": {"prompt_tokens": 3}}),
    "broken stream": Answer(Kind.STREAM, [{"a": 1}], error={"class": "X", "message": "usage: {"}),
    "error": Answer(Kind.ERROR, {"class": "X", "message": "y"}),
    "unanswered": Answer(Kind.UNANSWERED, None, ended="cancelled"),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("model", ["openai/gpt-4o", "yes", "a: b", "12", "m #x", "ü", "", None])
def test_every_kind_of_answer(tmp_path, name, model):
    """Whatever the answer and the model's name are, the facts are right."""
    request = {"model": model, "messages": MESSAGES} if model is not None else {"messages": MESSAGES}
    path = tmp_path / "x.yaml"
    interaction = Interaction("k1", Call("completion", request), ANSWERS[name], "2026-11-23T09:12:44Z")
    text = Cassette(path, strategy("exact")).entry_of(interaction).text
    path.write_bytes(b"lmcache: 1\nkey: exact/1\n---\n" + text)
    quick, parsed = read_both_ways(path)
    assert quick == parsed


@pytest.mark.parametrize("kind", ["hidden", "response"])
def test_a_usage_that_was_written_by_hand(tmp_path, kind):
    """In another form of YAML it is parsed, and the usage of the response does not take the place of a hidden one."""
    answer = ANSWERS["hidden usage"] if kind == "hidden" else ANSWERS["response"]
    interaction = Interaction("k1", Call("completion", {"model": "m"}), answer, "2026-11-23T09:12:44Z")
    text = Cassette(tmp_path / "x.yaml", strategy("exact")).entry_of(interaction).text.decode()
    edited = re.sub(r"  usage:\n    (\w+): 3\n    (\w+): 4", r"  usage: {\1: 3, \2: 4}", text)
    edited = re.sub(r"  usage:\n    (\w+): 5\n    (\w+): 2", r"  usage: {\1: 5, \2: 2}", edited)
    assert edited != text
    (tmp_path / "x.yaml").write_text(f"lmcache: 1\nkey: exact/1\n---\n{edited}")
    quick, parsed = read_both_ways(tmp_path / "x.yaml")
    assert quick == parsed
    assert quick[0][3] == answer.tokens


def test_sums(tmp_path):
    """A cassette's models, tokens, price and age are those of its calls; an error has no price to know."""
    path = tmp_path / "x.yaml"
    text = b"# pytest-lmcache cassette of tests/test_x.py::test_y\nlmcache: 1\nkey: exact/1\n"
    for number, name in enumerate(("response", "hidden usage", "error")):
        call = Call("completion", {"model": f"m{number % 2}"})
        interaction = Interaction("k1", call, ANSWERS[name], f"2026-11-2{number}T09:12:44Z")
        text += b"---\n" + Cassette(path, strategy("exact")).entry_of(interaction).text
    path.write_bytes(text)
    facts = facts_of(path)
    assert (facts.test, facts.key, facts.format) == ("tests/test_x.py::test_y", "exact/1", 1)
    assert (facts.models, facts.tokens, facts.usd, facts.unpriced) == (("m0", "m1"), (8, 6), 1e-06, 1)
    assert (facts.oldest, facts.newest) == ("2026-11-20T09:12:44Z", "2026-11-22T09:12:44Z")
    assert facts.size == path.stat().st_size


def test_what_cannot_be_read(tmp_path):
    """A broken file, and one that is not there, are errors with the file's name."""
    (tmp_path / "x.yaml").write_text("lmcache: 1\nkey: exact/1\n---\nkey: k1\nseconds: 1.000\n")
    for name in ("x.yaml", "none.yaml"):
        with pytest.raises(CassetteError, match=f"{name}:"):
            facts_of(tmp_path / name)
    assert named_owner(b"# another comment\n") == ""
