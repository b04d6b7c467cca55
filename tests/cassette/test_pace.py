"""The time before each chunk of a stream, as cassettes and layers keep it."""

import litellm
import pytest
from provider import Provider

from pytest_lmcache import CassetteError, use_cassette
from pytest_lmcache.interaction import Answer, Kind
from pytest_lmcache.layers.values import revive, store

QUESTION = {
    "model": "openai/gpt-4o-mini",
    "messages": [{"role": "user", "content": "Write a haiku."}],
    "stream": True,
    "max_retries": 0,
}


def read(provider, most=None):
    """Read a stream, or its first chunks."""
    stream = litellm.completion(**QUESTION, api_base=provider.url, api_key="sk-local")
    return [chunk for _, chunk in zip(range(most or 1000), stream, strict=False)]


@pytest.fixture
def slow():
    """A provider that pauses for 20 milliseconds after each event."""
    with Provider(pause=0.02) as provider:
        yield provider


@pytest.mark.parametrize("most", [None, 3], ids=["whole", "left early"])
def test_a_recording_has_the_time_before_each_chunk(tmp_path, slow, most):
    """A recorded stream has as many times as chunks, most of them as long as the provider paused."""
    path = tmp_path / "x.yaml"
    read(slow)  # LiteLLM's first stream waits for LiteLLM
    with use_cassette(path, mode="record"):
        chunks = read(slow, most)
    with use_cassette(path) as tape:
        assert len(read(slow, most)) == len(chunks)
    answer = tape.calls[0].answer
    assert len(answer.pace) == len(answer.data) == len(chunks)
    assert sum(pause >= 15 for pause in answer.pace) >= len(chunks) - 2
    assert sum(answer.pace) <= 1000 * answer.seconds + 1


def test_other_times_leave_the_file_as_it_is(tmp_path, slow):
    """A stream that is recorded again with the same chunks, at another pace, changes nothing in the file."""
    path = tmp_path / "x.yaml"
    with use_cassette(path, mode="rewrite"):
        read(slow)
    first = path.read_bytes()
    slow.pause = 0.0
    with use_cassette(path, mode="rewrite"):
        read(slow)
    assert path.read_bytes() == first


def test_layers_keep_it():
    """A value of the cache has the times."""
    answer = Answer(Kind.STREAM, [{"bytes": "a"}, {"bytes": "b"}], pace=(12, 0))
    assert revive(store(answer, "2026-11-23T09:12:44Z"))[0] == answer


@pytest.mark.parametrize("pace", ["12", "[a]", "[-1]", "[true]", "[1.5]"])
def test_an_invalid_pace_is_an_error(tmp_path, slow, pace):
    """A pace that somebody has edited to something else is an error with the file and the line."""
    path = tmp_path / "x.yaml"
    with use_cassette(path, mode="record"):
        read(slow)
    lines = [f"pace: {pace}" if line.startswith("pace:") else line for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    with (
        pytest.raises(CassetteError, match=r"x\.yaml:\d+: `pace:` must be a list of milliseconds"),
        use_cassette(path),
    ):
        read(slow)
