"""The one table of LiteLLM's entry points: all that is known of one stands in its row, and only there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pytest_lmcache.libraries.litellm import compat
from pytest_lmcache.libraries.litellm.answers import AnswerCodec, class_named
from pytest_lmcache.libraries.litellm.any_answers import AnyAnswerCodec, AnyChunkCodec, chunk_from_plain
from pytest_lmcache.libraries.litellm.chunks import (
    ChunkCodec,
    bytes_from_plain,
    event_from_plain,
    of_class,
    text_as_chat,
)
from pytest_lmcache.libraries.litellm.streams import (
    ReplayedAnyStream,
    ReplayedChatStream,
    ReplayedMessagesStream,
    ReplayedResponsesStream,
    ReplayedTextStream,
    StreamKind,
)


def is_mocked(kwargs: Mapping[str, Any]) -> bool:
    """Whether a call asks LiteLLM itself for the answer, by a text: no provider is asked."""
    mock = kwargs.get("mock_response")
    return isinstance(mock, str) and bool(mock)


def is_mocked_with_anything(kwargs: Mapping[str, Any]) -> bool:
    """The same for an entry point that takes any value as an answer."""
    return kwargs.get("mock_response") is not None


def is_mocked_chat(kwargs: Mapping[str, Any]) -> bool:
    """The same for a chat, which can also be asked for tool calls and for a time-out."""
    return any(map(kwargs.get, ("mock_response", "mock_tool_calls", "mock_timeout")))


def same_provider(_model: str, provider: str | None) -> str | None:
    """The provider of a model as LiteLLM names it."""
    return provider


def text_provider(model: str, provider: str | None) -> str | None:
    """The provider of a model for text completions, for which LiteLLM has another name of OpenAI's."""
    import litellm

    is_other = provider == "openai" and model not in litellm.open_ai_chat_completion_models
    return "text-completion-openai" if is_other else provider


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """A function of LiteLLM's whose calls are recorded.

    ``name`` stands in cassettes and keys, ``async_name`` is that of its async form, ``async_flag`` the argument by
    which LiteLLM marks that an async call is under way. ``question`` is the argument that holds what is asked: LiteLLM
    reports it to callbacks apart from the other parameters. ``stream`` is None if there are no streams.
    ``has_fast_path``: the wrapper adds no more to an answer than `fast_path` knows. ``home`` is the package that defines
    the functions, if others of LiteLLM's have the same names.
    """

    name: str
    async_name: str
    async_flag: str
    question: str
    answer: AnswerCodec | AnyAnswerCodec
    stream: StreamKind | None = None
    is_mocked: Callable[[Mapping[str, Any]], bool] = is_mocked
    provider: Callable[[str, str | None], str | None] = same_provider
    has_fast_path: bool = False
    home: str = ""

    @property
    def functions(self) -> tuple[str, str]:
        """The names of the sync and the async function where LiteLLM defines them."""
        return self.name.rpartition(".")[2], self.async_name

    @property
    def is_own(self) -> bool:
        """Whether the answers have a codec of their own: every LiteLLM has such a function."""
        return isinstance(self.answer, AnswerCodec)


CHAT_STREAM = StreamKind(
    ChunkCodec(of_class("litellm.types.utils:ModelResponseStream"), is_chat=True),
    ReplayedChatStream,
    partial(class_named, "litellm:CustomStreamWrapper"),
)


def _any(name: str, question: str = "input", usual: str = "", **more: Any) -> EntryPoint:
    """A row whose answers have the codec that takes any; the async function has an ``a`` before the sync one's name."""
    async_name = f"a{name.rpartition('.')[2]}"
    names = {"async_name": async_name, "async_flag": async_name}
    return EntryPoint(
        name, **{"question": question, "answer": AnyAnswerCodec(usual), "stream": ANY_STREAM, **names, **more}
    )


def _names(functions: str, home: str = "") -> list[str]:
    return [f"{home}{name}" for name in functions.split()]


ANY_STREAM = StreamKind(AnyChunkCodec(chunk_from_plain), ReplayedAnyStream, lambda: None)
IMAGES: dict[str, Any] = {
    "usual": "litellm.types.utils:ImageResponse",
    "is_mocked": is_mocked_with_anything,
}
ENTRY_POINTS = (
    EntryPoint(
        "completion",
        async_name="acompletion",
        async_flag="acompletion",
        question="messages",
        answer=AnswerCodec(
            "litellm.types.utils:ModelResponse",
            mark=compat.mark_refusals,
            adapt=compat.move_refusals,
            finish=compat.put_refusals_last,
        ),
        stream=CHAT_STREAM,
        is_mocked=is_mocked_chat,
        has_fast_path=True,
    ),
    EntryPoint(
        "text_completion",
        async_name="atext_completion",
        async_flag="acompletion",
        question="prompt",
        answer=AnswerCodec("litellm.types.utils:TextCompletionResponse"),
        stream=StreamKind(
            ChunkCodec(of_class("litellm.types.utils:TextCompletionResponse")),
            ReplayedTextStream,
            partial(class_named, "litellm.utils:TextCompletionStreamWrapper"),
            source=CHAT_STREAM,
            to_source=text_as_chat,
        ),
        is_mocked=is_mocked_chat,
        provider=text_provider,
    ),
    EntryPoint(
        "embedding",
        async_name="aembedding",
        async_flag="aembedding",
        question="input",
        answer=AnswerCodec("litellm.types.utils:EmbeddingResponse"),
        is_mocked=is_mocked_with_anything,
        has_fast_path=True,
    ),
    EntryPoint(
        "responses",
        async_name="aresponses",
        async_flag="aresponses",
        question="input",
        answer=AnswerCodec("litellm.types.llms.openai:ResponsesAPIResponse"),
        stream=StreamKind(
            ChunkCodec(event_from_plain),
            ReplayedResponsesStream,
            partial(class_named, "litellm.responses.streaming_iterator:ResponsesAPIStreamingIterator"),
        ),
    ),
    EntryPoint(
        "anthropic_messages",
        async_name="anthropic_messages",
        async_flag="aanthropic_messages",
        question="messages",
        answer=AnswerCodec("pytest_lmcache.libraries.litellm.answers:Message"),
        stream=StreamKind(ChunkCodec(bytes_from_plain), ReplayedMessagesStream, compat.messages_stream_class),
    ),
    _any("rerank", "query", "litellm.types.rerank:RerankResponse"),
    _any("moderation", usual="litellm.types.llms.openai:OpenAIModerationResponse"),
    _any("image_generation", "prompt", **IMAGES, async_flag="aimg_generation"),
    _any("image_edit", "prompt", **IMAGES),
    _any("image_variation", "image", **IMAGES),
    _any("speech"),
    _any("transcription", "file", "litellm.types.utils:TranscriptionResponse"),
    _any("ocr", "document"),
    _any("search", "query", home="search"),
    _any("generate_content", "contents", home="google_genai"),
    _any("generate_content_stream", "contents", home="google_genai"),
    *map(partial(_any, question="response_id"), _names("get_responses delete_responses cancel_responses")),
    *map(partial(_any, question="response_id"), _names("list_input_items")),
    _any("compact_responses"),
    _any("acount_tokens", "messages", async_name="acount_tokens"),
    *map(partial(_any, question="file"), _names("create_file")),
    *map(partial(_any, question="file_id"), _names("file_retrieve file_content file_delete file_list")),
    _any("create_batch", "input_file_id"),
    *map(partial(_any, question="batch_id"), _names("retrieve_batch cancel_batch list_batches")),
    _any("create_fine_tuning_job", "training_file"),
    *map(
        partial(_any, question="fine_tuning_job_id"),
        _names("retrieve_fine_tuning_job cancel_fine_tuning_job list_fine_tuning_jobs"),
    ),
    *map(
        partial(_any, question="query", home="vector_stores"),
        _names("create search retrieve list update delete", "vector_stores."),
    ),
    *map(
        partial(_any, question="file_id", home="vector_store_files"),
        _names("create list retrieve retrieve_content update delete", "vector_store_files."),
    ),
)
BY_FUNCTION = {
    f"{entry.home}.{name}" if entry.home else name: entry
    for entry in ENTRY_POINTS
    for name in entry.functions
}
"""The entry points by the names of their functions, sync and async, after the package that they have for a home."""

# Functions that ask a provider, and that LiteLLM does not build with its decorator `client`: those without a row in
# ENTRY_POINTS are refused on replay. By their place in the package `litellm`; the value is the name under which users know them.
_PUBLIC = """
moderation ocr aocr acount_tokens
get_assistants create_assistants delete_assistant create_thread get_thread add_message get_messages run_thread
aget_assistants acreate_assistants adelete_assistant acreate_thread aget_thread a_add_message aget_messages arun_thread
cancel_batch acancel_batch list_fine_tuning_jobs alist_fine_tuning_jobs file_content_streaming realtime_health_check
"""
UNDECORATED = {name: name for name in _PUBLIC.split()} | {
    "utils._get_valid_models_from_provider_api": "get_valid_models",
    "realtime_api.main._realtime_health_check": "ahealth_check",
    "a2a_protocol.main.asend_message_streaming": "a2a_protocol.asend_message_streaming",
    "a2a_protocol.main.create_a2a_client": "a2a_protocol.create_a2a_client",
    "a2a_protocol.main.aget_agent_card": "a2a_protocol.aget_agent_card",
    "guardrails.apply": "guardrails.apply",
}
