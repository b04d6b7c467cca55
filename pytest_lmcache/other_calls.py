"""Calls that are no chats (images, sound, rerank, search, Gemini's own form) in the form of a chat, for a person to read."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytest_lmcache.tags import to_json

Json = dict[str, Any]
CHATS = frozenset({"completion", "text_completion", "embedding", "responses", "anthropic_messages", "dspy"})
"""The calls whose answers `conversation` reads as they are."""
ASKED = frozenset({"contents", "query", "documents", "file", "image", "mask", "document"})
"""The arguments that `asked_as_chat` makes messages of."""


def asked_as_chat(name: str, request: Json) -> Json:
    """The request of a call, with its question as messages."""
    if name in CHATS or not ASKED & request.keys():
        return request
    messages = [*_contents(request.get("contents"))]
    parts = [
        *_texts(request.get("query")),
        *_documents(request.get("documents")),
        *(_file(name, request[key]) for key in ("file", "image", "mask", "document") if key in request),
    ]
    return {**request, "messages": [*messages, *([{"role": "user", "content": parts}] if parts else [])]}


def answered_as_chat(name: str, response: Json) -> Json:
    """The response of a call as that of a chat; as it is if it is one, or if it is empty or an error."""
    if name in CHATS or " " in name or not response or response.keys() <= {"model", "error", "choices"}:
        return response
    response = {field: value for field, value in response.items() if field != "of_class"}
    candidates = response.get("candidates")
    if isinstance(candidates, list):
        return {
            "model": response.get("modelVersion"),
            "choices": [_candidate(each) for each in _mappings(candidates)],
        }
    read: Callable[[Json], Any] = ANSWERS[name] if name in ANSWERS else as_json  # noqa: SIM401 - for mypy
    try:
        content = read(response)
    except (TypeError, KeyError, ValueError, AttributeError):  # somebody has edited the file
        content = as_json(response)
    return {"model": response.get("model"), "choices": [{"message": {"content": content}}]}


# ---- what was asked ------------------------------------------------------------------------------------


def _texts(value: Any) -> Iterator[Json]:
    for text in value if isinstance(value, list) else [] if value is None else [value]:
        yield {"type": "text", "text": text if isinstance(text, str) else as_json(text)}


def _documents(value: Any) -> Iterator[Json]:
    for number, document in enumerate(value if isinstance(value, list) else []):
        text = document.get("text") if isinstance(document, dict) else document
        yield {"type": "text", "text": f"[{number}] {text if isinstance(text, str) else as_json(document)}"}


def _file(name: str, value: Any) -> Json:
    """A file of a request: a digest, its name and digest, or what an HTTP client takes."""
    if isinstance(value, list) and len(value) > 1 and all(isinstance(part, str) for part in value[:2]):
        value = {"name": value[0], "content": value[1]}
    kind = "audio" if name == "transcription" else "image" if name.startswith("image") else "file"
    fields = value if isinstance(value, dict) else {"content": value}
    address = fields.get("document_url") or fields.get("image_url")
    return {"type": kind, "filename": fields.get("name"), "url": address, "data": fields.get("content")}


def _contents(value: Any) -> Iterator[Json]:
    for content in value if isinstance(value, list) else [] if value is None else [value]:
        if isinstance(content, dict) and isinstance(content.get("parts"), list):
            yield _gemini(content)
        else:
            yield {"role": "user", "content": [*_texts(content)]}


def _gemini(content: Mapping[str, Any]) -> Json:
    """A message of Gemini's."""
    parts: list[Json] = []
    calls: list[Json] = []
    for part in _mappings(content.get("parts")):
        data = part.get("inlineData") or part.get("inline_data")
        called = part.get("functionCall") or part.get("function_call")
        if isinstance(called, dict):
            calls.append({"function": {"name": called.get("name"), "arguments": called.get("args")}})
        elif isinstance(data, dict):
            media = str(data.get("mimeType") or data.get("mime_type") or "")
            kind = media.partition("/")[0]
            kind = kind if kind in {"image", "audio", "video"} else "file"
            parts.append({"type": kind, "media_type": media, "data": data.get("data")})
        elif isinstance(part.get("text"), str):
            parts.append({"type": "thinking" if part.get("thought") else "text", "text": part["text"]})
        else:
            parts.append({"type": "text", "text": as_json(part)})
    role = {"model": "assistant", None: "user"}.get(content.get("role"), content.get("role"))
    return {"role": role, "content": parts, "tool_calls": calls}


# ---- what came back ------------------------------------------------------------------------------------


def _candidate(candidate: Json) -> Json:
    content = candidate.get("content")
    message = _gemini(content if isinstance(content, dict) else {})
    return {"message": {**message, "role": "assistant"}, "finish_reason": candidate.get("finishReason")}


def _ranking(response: Json) -> str:
    return "\n".join(f"[{each['index']}] {each['relevance_score']:g}" for each in response["results"])


def _verdicts(response: Json) -> str:
    verdicts = []
    for result in response["results"]:
        found = [name for name, is_found in result["categories"].items() if is_found]
        verdicts.append(f"flagged: {', '.join(found)}" if result["flagged"] else "not flagged")
    return "\n".join(verdicts)


def _images(response: Json) -> list[Json]:
    parts = []
    for image in response["data"]:
        data = image.get("b64_json")
        url = image.get("url") or (f"data:image/png;base64,{data}" if data else "")
        parts.append({"type": "image", "url": url})
        parts += _texts(image.get("revised_prompt") or None)
    return parts


def _binary(kind: str) -> Callable[[Json], list[Json]]:
    def read(response: Json) -> list[Json]:
        data = b64encode(response["content"]).decode()
        return [{"type": kind, "media_type": response.get("content_type"), "data": data}]

    return read


def _transcript(response: Json) -> Any:
    return response["text"]


def _results(response: Json) -> str:
    found = response.get("results") or response.get("data") or []
    return "\n\n".join(
        "\n".join(str(each[name]) for name in ("title", "url", "snippet") if each.get(name)) for each in found
    )


def as_json(value: Any) -> str:
    """Plain data as JSON, with tags for what JSON does not have."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):  # bytes, integers of very many digits
        return json.dumps(to_json(value), ensure_ascii=False)


def _mappings(value: Any) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


ANSWERS: Mapping[str, Callable[[Json], Any]] = {
    "rerank": _ranking,
    "moderation": _verdicts,
    **dict.fromkeys(("image_generation", "image_edit", "image_variation"), _images),
    "speech": _binary("audio"),
    "file_content": _binary("file"),
    "transcription": _transcript,
    "search": _results,
}
