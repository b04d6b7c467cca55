"""Calls that are no chats as a person reads them, over answers that were recorded."""

import litellm
import pytest
from helpers import quick, values
from hypothesis import given
from hypothesis import strategies as st
from litellm.google_genai.main import generate_content, generate_content_stream

from pytest_lmcache import use_cassette
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.conversation import conversation
from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.keys.strategies import strategy
from pytest_lmcache.libraries.litellm.entry_points import ENTRY_POINTS


def other_calls(base):
    """A call of each entry point that is no chat, in the order of `SAID`."""
    openai = {"api_base": f"{base}/v1", "api_key": "sk-local"}
    gemini = {"model": "gemini/gemini-2.5-flash", "api_base": base, "api_key": "sk"}
    contents = [
        {"role": "user", "parts": [{"text": "hi"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}
    ]
    litellm.rerank(
        model="cohere/rerank-v3.5",
        query="goat",
        documents=["a", "b"],
        api_base=f"{base}/v2/rerank",
        api_key="sk",
    )
    litellm.moderation(input="hate", **openai)
    litellm.image_generation(model="openai/gpt-image-1", prompt="goat", **openai)
    litellm.speech(model="openai/tts-1", input="hello", voice="alloy", **openai)
    litellm.transcription(model="openai/whisper-1", file=("voice.mp3", b"ID3"), **openai)
    litellm.search(query="goat", search_provider="tavily", api_base=base, api_key="tvly-x")
    generate_content(contents=contents, **gemini)
    [*generate_content_stream(contents=contents, **gemini)]
    litellm.file_retrieve(file_id="file-1", **openai)


SAID = [
    ("goat\n[0] a\n[1] b", "[1] 0.625\n[0] 0.5"),
    ("hate", "flagged: hate"),
    ("goat", "image/png, 72 bytes"),
    ("hello", "audio/mpeg, 268 bytes"),
    ("voice.mp3, 3 bytes", "3 bytes of sound"),
    ("goat", "GOAT\nhttps://example.com/goat\ngoat"),
    ("hi image/png, 3 bytes", "You said: hi"),
    ("hi image/png, 3 bytes", "You said: hi again"),
    ("", '{"id": "file-1", "bytes": 12'),
]


def test_calls_that_are_no_chats(provider, tmp_path):
    """Images, sound, rerank, moderation, search and Gemini's form: who says what, and the sound and the images."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        other_calls(provider.base)
    entries = Cassette(tmp_path / "x.yaml", strategy("exact")).entries
    found = [conversation(each.call, each.answer) for each in (entry.interaction() for entry in entries)]
    for read, (asked, answered) in zip(found, SAID, strict=True):
        for messages, text in ((read.asked, asked), (read.answered, answered)):
            said = " ".join(
                filter(
                    None,
                    [
                        part
                        for one in messages
                        for part in (one.text, *(each.name for each in one.attachments))
                    ],
                )
            )
            assert said.startswith(text)
    assert found[0].parameters == {}
    assert found[2].answered[0].attachments[0].url.startswith("data:image/png;base64,")


NAMES = st.sampled_from([entry.name for entry in ENTRY_POINTS])
FIELDS = [
    "contents",
    "query",
    "documents",
    "file",
    "image",
    "candidates",
    "results",
    "data",
    "content",
    "parts",
    "text",
]


@pytest.mark.slow
@quick
@given(
    NAMES,
    st.dictionaries(st.sampled_from(FIELDS), values),
    st.dictionaries(st.sampled_from(FIELDS), values),
)
def test_whatever_a_cassette_holds_is_read(name, request, response):
    """An edited file breaks no page."""
    assert conversation(Call(name, request), Answer(Kind.RESPONSE, response)).error == ""
