"""The test suites that every contestant runs, written into a folder: the same text but for the decorator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from contestants import Contestant

CONFTEST = """
import clock
began = clock.now()
import litellm
clock.imported(began)
"""

CALLS = '''
import asyncio
import os
import litellm
import pytest

SYSTEM = """You are a support assistant of a shop for bicycles.
Answer in one short paragraph, politely, and only from the notes that you are given.
If the notes do not hold the answer, say so and offer to ask a colleague."""

def request(question, **more):
    return {
        "model": "openai/gpt-4o-mini",
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": question},
        ],
        "temperature": 0.0,
        "api_base": os.environ["BENCH_URL"],
        "api_key": "sk-local",
        "max_retries": 0,
        **more,
    }

def question(number):
    return f"Question {number}: my order {number * 7919} has not come yet, it was promised for last week. Where is it, and can I still change the colour?"

def sync(number):
    answer = litellm.completion(**request(question(number)))
    assert answer.choices[0].message.content == f"You said: {question(number)}"

def in_a_loop(number):
    answer = asyncio.run(litellm.acompletion(**request(question(number), seed=1)))
    assert answer.choices[0].message.content == f"You said: {question(number)}"

def streamed(number):
    chunks = litellm.completion(**request(question(number), stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == f"You said: {question(number)}"
'''

EMPTY = "def test_nothing(): pass\n"


def many(marker: str, tests: int) -> str:
    """So many tests of three calls: sync, async, streamed; each test has its own cassette."""
    return f"""{CALLS}
@pytest.mark.parametrize("number", range({tests}))
{marker}
def test_three_calls(number):
    sync(number)
    in_a_loop(number)
    streamed(number)
"""


def long(marker: str, calls: int) -> str:
    """One test of so many calls, after a test of one that warms LiteLLM up."""
    return f"""{CALLS}
{marker}
def test_a_warm_up():
    sync(0)

{marker}
def test_long():
    for number in range({calls}):
        sync(number)
"""


def vectors(marker: str, texts: int) -> str:
    """One test that asks for so many vectors of 1,536 numbers, ten a call."""
    return f"""{CALLS}
{marker}
def test_vectors():
    to = {{"api_base": os.environ["BENCH_URL"], "api_key": "sk-local", "max_retries": 0}}
    for number in range(0, {texts}, 10):
        texts = [f"text {{number + i}}" for i in range(10)]
        answer = litellm.embedding(model="openai/text-embedding-3-small", input=texts, **to)
        assert len(answer.data[9]["embedding"]) == 1536
"""


def write(folder: Path, contestant: Contestant, name: str, text: str) -> Path:
    """Put a suite for one contestant into a folder of its own."""
    folder = folder / contestant.name.replace(", ", "-").replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (folder / "conftest.py").write_text(CONFTEST + contestant.conftest, encoding="utf-8")
    (folder / f"test_{name}.py").write_text(text, encoding="utf-8")
    return folder
