"""Every entry point beside chats: recorded over real HTTP, replayed with the provider gone, equal in all that a user sees."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import io
from importlib import import_module

import litellm
import pytest
from provider import Provider

from pytest_lmcache import CassetteError, CassetteMiss, use_cassette
from pytest_lmcache.errors import UnrecordableError

pytestmark = pytest.mark.usefixtures("nobody_records")
GONE = "http://127.0.0.1:9"
SOUND = ("voice.mp3", b"ID3\xff\xfb" + bytes(300))
PICTURE = ("picture.png", b"\x89PNG" + bytes(60))


@pytest.fixture(scope="module")
def provider():
    with Provider() as running:
        yield running


def openai(base, **more):
    return {"api_base": f"{base}/v1", "api_key": "sk-local", **more}


def named_file(name, content):
    file = io.BytesIO(content)
    file.name = name
    return file


CALLS = {
    "rerank": lambda base: (
        "rerank",
        {
            "model": "cohere/rerank-v3.5",
            "query": "goat",
            "documents": ["a", "b"],
            "api_base": f"{base}/v2/rerank",
            "api_key": "sk",
        },
    ),
    "moderation": lambda base: ("moderation", openai(base, input="hate", model="omni-moderation-latest")),
    "image": lambda base: ("image_generation", openai(base, model="openai/dall-e-3", prompt="goat")),
    "image data": lambda base: (
        "image_generation",
        openai(base, model="openai/gpt-image-1", prompt="goat", n=2),
    ),
    "image edit": lambda base: (
        "image_edit",
        openai(base, model="openai/gpt-image-1", prompt="a hat", image=named_file(*PICTURE)),
    ),
    "image variation": lambda base: (
        "image_variation",
        openai(base, model="openai/dall-e-2", image=named_file(*PICTURE)),
    ),
    "speech": lambda base: ("speech", openai(base, model="openai/tts-1", input="hello", voice="alloy")),
    "transcription": lambda base: (
        "transcription",
        openai(base, model="openai/whisper-1", file=named_file(*SOUND)),
    ),
    "transcription, verbose": lambda base: (
        "transcription",
        openai(base, model="openai/whisper-1", file=SOUND, response_format="verbose_json"),
    ),
    "generate_content": lambda base: (
        "google_genai.generate_content",
        {
            "model": "gemini/gemini-2.5-flash",
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "api_base": base,
            "api_key": "sk",
        },
    ),
    "generate_content over chat": lambda base: (
        "google_genai.generate_content",
        openai(base, model="openai/gpt-4o-mini", contents=[{"role": "user", "parts": [{"text": "hi"}]}]),
    ),
    "generate_content_stream": lambda base: (
        "google_genai.generate_content_stream",
        {
            "model": "gemini/gemini-2.5-flash",
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "api_base": base,
            "api_key": "sk",
        },
    ),
    "generate_content_stream over chat": lambda base: (
        "google_genai.generate_content_stream",
        openai(base, model="openai/gpt-4o-mini", contents=[{"role": "user", "parts": [{"text": "hi"}]}]),
    ),
    "get_responses": lambda base: (
        "get_responses",
        openai(base, response_id="resp_1", custom_llm_provider="openai"),
    ),
    "delete_responses": lambda base: (
        "delete_responses",
        openai(base, response_id="resp_1", custom_llm_provider="openai"),
    ),
    "cancel_responses": lambda base: (
        "cancel_responses",
        openai(base, response_id="resp_1", custom_llm_provider="openai"),
    ),
    "list_input_items": lambda base: (
        "list_input_items",
        openai(base, response_id="resp_1", custom_llm_provider="openai"),
    ),
    "create_file": lambda base: (
        "create_file",
        openai(base, file=named_file("in.jsonl", b"{}"), purpose="batch", custom_llm_provider="openai"),
    ),
    "file_retrieve": lambda base: ("file_retrieve", openai(base, file_id="file-1")),
    "file_content": lambda base: (
        "file_content",
        openai(base, file_id="file-1", custom_llm_provider="openai"),
    ),
    "file_delete": lambda base: ("file_delete", openai(base, file_id="file-1")),
    "file_list": lambda base: ("file_list", openai(base, custom_llm_provider="openai")),
    "create_batch": lambda base: (
        "create_batch",
        openai(
            base,
            completion_window="24h",
            endpoint="/v1/chat/completions",
            input_file_id="file-1",
            custom_llm_provider="openai",
        ),
    ),
    "retrieve_batch": lambda base: ("retrieve_batch", openai(base, batch_id="batch_1")),
    "cancel_batch": lambda base: (
        "cancel_batch",
        openai(base, batch_id="batch_1", custom_llm_provider="openai"),
    ),
    "list_batches": lambda base: ("list_batches", openai(base, custom_llm_provider="openai")),
    "create_fine_tuning_job": lambda base: (
        "create_fine_tuning_job",
        openai(base, model="gpt-4o-mini", training_file="file-1", custom_llm_provider="openai"),
    ),
    "retrieve_fine_tuning_job": lambda base: (
        "retrieve_fine_tuning_job",
        openai(base, fine_tuning_job_id="ftjob-1", custom_llm_provider="openai"),
    ),
    "cancel_fine_tuning_job": lambda base: (
        "cancel_fine_tuning_job",
        openai(base, fine_tuning_job_id="ftjob-1", custom_llm_provider="openai"),
    ),
    "list_fine_tuning_jobs": lambda base: (
        "list_fine_tuning_jobs",
        openai(base, custom_llm_provider="openai"),
    ),
    **{
        f"vector_stores.{name}": lambda base, name=name, more=more: (
            f"vector_stores.{name}",
            openai(base, custom_llm_provider="openai", **more),
        )
        for name, more in {
            "create": {"name": "store"},
            "search": {"vector_store_id": "vs_1", "query": "goat"},
            "retrieve": {"vector_store_id": "vs_1"},
            "list": {},
            "update": {"vector_store_id": "vs_1", "name": "new"},
            "delete": {"vector_store_id": "vs_1"},
        }.items()
    },
    **{
        f"vector_store_files.{name}": lambda base, name=name, more=more: (
            f"vector_store_files.{name}",
            openai(base, custom_llm_provider="openai", vector_store_id="vs_1", **more),
        )
        for name, more in {
            "create": {"file_id": "file-1"},
            "list": {},
            "retrieve": {"file_id": "file-1"},
            "retrieve_content": {"file_id": "file-1"},
            "update": {"file_id": "file-1", "attributes": {"n": 1}},
            "delete": {"file_id": "file-1"},
        }.items()
    },
    "search": lambda base: (
        "search",
        {"query": "goat", "search_provider": "tavily", "api_base": base, "api_key": "tvly-x"},
    ),
}


def function(name, *, is_async):
    home, _, name = name.rpartition(".")
    module = import_module(f"litellm.{home}.main") if home else litellm
    return getattr(module, f"a{name}" if is_async else name)


def ask(shape, base, *, is_async):
    name, arguments = CALLS[shape](base)
    call = function(name, is_async=is_async)
    if not is_async:
        answer = call(**arguments)
        return [*answer] if hasattr(answer, "__next__") else answer

    async def read():
        answer = await call(**arguments)
        return [chunk async for chunk in answer] if hasattr(answer, "__anext__") else answer

    return asyncio.run(read())


def seen(answer):
    """All that a user sees of an answer."""
    if isinstance(answer, list):
        return [*map(seen, answer)]
    if hasattr(answer, "iter_bytes"):
        return (
            type(answer),
            answer.content,
            b"".join(answer.iter_bytes()),
            answer.response.headers["content-type"],
        )
    if hasattr(answer, "model_dump"):
        hidden = getattr(answer, "_hidden_params", None) or {}
        return type(answer), answer.model_dump(warnings=False), round(hidden.get("response_cost") or 0, 12)
    return type(answer), answer


# To a sync caller LiteLLM gives an async generator here, whose source is not async.
UNREADABLE = ("generate_content_stream over chat", False)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("shape", CALLS)
def test_a_replayed_answer_equals_the_recorded_one(shape, is_async, provider, tmp_path):
    """Recorded once, then replayed with the provider out of reach: the same type, the same data, the same price."""
    if (shape, is_async) == UNREADABLE:
        pytest.skip("LiteLLM gives a stream that nobody can read")
    before = provider.count
    with use_cassette(tmp_path / "x.yaml", mode="record") as recording:
        live = contextvars.copy_context().run(ask, shape, provider.base, is_async=is_async)
    assert (recording.recorded, provider.count - before) == (1, 1)
    with use_cassette(tmp_path / "x.yaml") as replaying:
        stored = contextvars.copy_context().run(ask, shape, GONE, is_async=is_async)
    assert (replaying.replayed, provider.count - before) == (1, 1)
    assert seen(stored) == seen(live)


def test_a_callback_does_not_change_the_price(provider, tmp_path, monkeypatch):
    """With a callback LiteLLM prices a replayed answer itself; one that it cannot price has its recorded price."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        live = ask("search", provider.base, is_async=False)
    monkeypatch.setattr(litellm, "success_callback", [lambda *_: None])
    with use_cassette(tmp_path / "x.yaml"):
        stored = ask("search", GONE, is_async=False)
    assert stored._hidden_params["response_cost"] == live._hidden_params["response_cost"] == 0.008


ROUTED = {
    "rerank": ("arerank", {"query": "goat", "documents": ["a", "b"]}),
    "image": ("aimage_generation", {"prompt": "goat"}),
    "speech": ("aspeech", {"input": "hello", "voice": "alloy"}),
    "transcription": ("atranscription", {"file": SOUND}),
    "moderation": ("amoderation", {"input": "hate"}),
}
DEPLOYMENTS = {
    "rerank": ("cohere/rerank-v3.5", "/v2/rerank"),
    "image": ("openai/dall-e-3", "/v1"),
    "speech": ("openai/tts-1", "/v1"),
    "transcription": ("openai/whisper-1", "/v1"),
    "moderation": ("openai/omni-moderation-latest", "/v1"),
}


def routed(kind, base):
    model, path = DEPLOYMENTS[kind]
    deployment = {"model": model, "api_base": base + path, "api_key": "sk-local"}
    router = litellm.Router(model_list=[{"model_name": kind, "litellm_params": deployment}], num_retries=0)
    name, arguments = ROUTED[kind]
    return asyncio.run(getattr(router, name)(model=kind, **arguments))


@pytest.mark.parametrize("kind", ROUTED)
def test_a_router_s_calls_replay(kind, provider, tmp_path):
    """Through a Router too, and a direct call finds what the Router recorded."""
    with use_cassette(tmp_path / "x.yaml", mode="record") as recording:
        live = routed(kind, provider.base)
    before = provider.count
    with use_cassette(tmp_path / "x.yaml") as replaying:
        stored = routed(kind, GONE)
        direct = asyncio.run(getattr(litellm, ROUTED[kind][0])(model=DEPLOYMENTS[kind][0], **ROUTED[kind][1]))
    assert (recording.recorded, replaying.replayed, provider.count) == (1, 2, before)
    assert seen(direct)[:2] == seen(live)[:2]
    assert seen(stored)[:2] == seen(live)[:2]


def test_a_batch_of_calls_replays(provider, tmp_path):
    """batch_completion and its relatives are calls of completion, each with a recording of its own."""
    asked = [[{"role": "user", "content": text}] for text in ("one", "two", "three")]
    models = ["openai/gpt-4o-mini", "openai/gpt-4o"]

    def ask(base):
        more = openai(base)
        many = litellm.batch_completion(model=models[0], messages=asked, **more)
        every = litellm.batch_completion_models_all_responses(models=models, messages=asked[0], **more)
        again = litellm.completion_with_retries(model=models[0], messages=asked[1], **more)
        return [*many, *sorted(every, key=lambda answer: answer.model), again]

    with use_cassette(tmp_path / "x.yaml", mode="record"):
        live = ask(provider.base)
    before = provider.count
    with use_cassette(tmp_path / "x.yaml") as replaying:
        stored = ask(GONE)
    assert (replaying.replayed, provider.count) == (6, before)
    assert [*map(seen, stored)] == [*map(seen, live)]


def test_tokens_that_a_provider_counts(provider, tmp_path):
    """acount_tokens asks the provider's own endpoint, and replays what it said."""

    def ask(base):
        call = litellm.acount_tokens(
            model="gemini/gemini-2.5-flash",
            messages=[{"role": "user", "content": "hi"}],
            api_base=base,
            api_key="sk",
        )
        return asyncio.run(call)

    with use_cassette(tmp_path / "x.yaml", mode="record"):
        live = ask(provider.base)
    if live.tokenizer_type == "local_tokenizer":
        pytest.skip("this LiteLLM counts Gemini's tokens itself")
    before = provider.count
    with use_cassette(tmp_path / "x.yaml"):
        assert ask(GONE) == live
    assert (live.total_tokens, provider.count) == (7, before)


@pytest.mark.parametrize("change", ["name", "content"])
def test_another_file_is_another_question(change, provider, tmp_path):
    """A file is part of the question by its content and its name, not by where it lies; a temporary name is none."""
    name, content = SOUND

    def ask(name, content):
        return litellm.transcription(
            **openai(provider.base, model="openai/whisper-1", file=named_file(name, content))
        )

    with use_cassette(tmp_path / "x.yaml", mode="record"):
        ask(name, content)
        ask("/tmp/tmp0abc_xyz.mp3", content)
    with use_cassette(tmp_path / "x.yaml"):
        ask(f"/elsewhere/{name}", content)
        ask("/var/tmp1abc_xyz.mp3", content)
    with pytest.raises(CassetteMiss), use_cassette(tmp_path / "x.yaml"):
        ask(*(("other.mp3", content) if change == "name" else (name, content + b"!")))


def test_binary_answers_can_be_read_in_every_way(provider, tmp_path):
    """Speech has its content, in one piece and in several, and can be written to a file; the file holds it packed."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        live = ask("speech", provider.base, is_async=False)
    with use_cassette(tmp_path / "x.yaml"):
        stored = ask("speech", GONE, is_async=False)
    stored.write_to_file(tmp_path / "out.mp3")
    assert (
        (tmp_path / "out.mp3").read_bytes()
        == stored.content
        == b"".join(stored.iter_bytes(100))
        == live.content
    )
    assert "content: !bytes " in (tmp_path / "x.yaml").read_text()


class Strange:
    """An object of the suite's own."""


@pytest.mark.parametrize("mode", ["record", "live"])
def test_an_answer_that_does_not_come_back_is_refused_while_recording(mode, tmp_path, monkeypatch):
    """The test fails at once and names the entry point, not on replay; a live call passes."""

    class Handler(litellm.CustomLLM):
        def image_generation(self, *_args, model_response, **_more):
            model_response.size = Strange()
            return model_response

    monkeypatch.setattr(litellm, "custom_provider_map", [{"provider": "own", "custom_handler": Handler()}])
    call = functools.partial(litellm.image_generation, model="own/painter", prompt="goat")
    if mode == "live":
        with use_cassette(tmp_path / "x.yaml", mode="live"):
            assert isinstance(call().size, Strange)
        return
    with (
        pytest.raises(
            UnrecordableError,
            match=r"cannot record this answer of LiteLLM's image_generation\(\): `size` of it is",
        ) as caught,
        use_cassette(tmp_path / "x.yaml", mode="record"),
    ):
        call()
    assert "mode='live'" in str(caught.value)
    assert not (tmp_path / "x.yaml").exists()


@pytest.mark.parametrize(
    "path",
    [
        "subprocess:Popen",
        "litellm:os.path",
        "litellm.main:completion",
        "litellm:Router",
        "openai:OpenAI",
        "=litellm.types.rerank:RerankResponse.__class__",
        "openai.pagination:SyncCursorPage[subprocess:Popen]",
        7,
    ],
)
def test_a_file_names_no_other_class(path, provider, tmp_path):
    """Only classes of answers are built by name: what else a file names is an error, and is neither run nor imported."""
    with use_cassette(tmp_path / "x.yaml", mode="record"):
        ask("rerank", provider.base, is_async=False)
    text = (tmp_path / "x.yaml").read_text()
    (tmp_path / "x.yaml").write_text(text.replace("response:\n", f"response:\n  of_class: {path}\n"))
    with pytest.raises(CassetteError, match="of_class"), use_cassette(tmp_path / "x.yaml"):
        ask("rerank", GONE, is_async=False)
