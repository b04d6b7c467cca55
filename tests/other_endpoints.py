"""What the loopback provider answers beside chats: images, sound, moderation, rerank, search, Gemini, files, batches."""

from __future__ import annotations

import base64
import re
import time
import uuid

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(64))).decode()


class Media(bytes):
    """The content of a file, with its type in ``media``."""

    media = "audio/mpeg"


def new_id(prefix):
    """An id that no other answer has."""
    return prefix + uuid.uuid4().hex[:24]


def answer(request, path):
    """The body of the answer; None for an endpoint that is not here."""
    for method, pattern, shape in ENDPOINTS:
        if method == request.method and (found := re.search(pattern + "$", path)) is not None:
            return shape(request.body, *found.groups())
    return None


# ---- OpenAI


def images(body):
    """Images in base64 if asked for, or from a model that gives nothing else; else their addresses."""
    is_data = body.get("response_format") == "b64_json" or "gpt-image" in str(body.get("model"))
    image = {"b64_json": PIXEL} if is_data else {"url": f"https://images.example/{new_id('img-')}.png"}
    usage = {"total_tokens": 30, "input_tokens": 10, "output_tokens": 20}
    details = {"input_tokens_details": {"text_tokens": 10, "image_tokens": 0}}
    count = int(body.get("n") or 1)
    return {"created": int(time.time()), "data": [image] * count, "usage": usage | details}


def speech(body):
    """Sound: bytes that are no text."""
    return Media(b"ID3\x04\x00\xff\xfb" + body["input"].encode() + bytes(range(256)))


def transcription(body):
    """The words of a file, with their times if they are asked for."""
    said = {"text": f"{body['file']} bytes of sound"}
    if body.get("response_format") == "verbose_json":
        segment = {
            "id": 0,
            "start": 0.0,
            "end": 1.5,
            "text": said["text"],
            "avg_logprob": -0.25,
            "tokens": [1],
        }
        return {**said, "task": "transcribe", "language": "english", "duration": 1.5, "segments": [segment]}
    return {**said, "usage": {"type": "duration", "seconds": 2}}


def moderation(body):
    """A verdict for each text."""
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    results = [
        {
            "flagged": "hate" in str(text),
            "categories": {"hate": "hate" in str(text), "violence": False},
            "category_scores": {"hate": 0.75, "violence": 1e-05},
            "category_applied_input_types": {"hate": ["text"], "violence": ["text"]},
        }
        for text in texts
    ]
    return {"id": new_id("modr-"), "model": body.get("model", "omni-moderation-latest"), "results": results}


def file(_body, file_id=None):
    """A file."""
    own_id = file_id or new_id("file-")
    more = {"bytes": 12, "created_at": 1700000000, "filename": "in.jsonl", "purpose": "batch"}
    return {"id": own_id, "object": "file", "status": "processed", **more}


def batch(body, batch_id=None, *_):
    """A batch that has been taken, or one that is done."""
    done = {"status": "completed", "output_file_id": "file-out"} if batch_id else {"status": "validating"}
    return {
        "id": batch_id or new_id("batch_"),
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "input_file_id": body.get("input_file_id", "file-in"),
        "completion_window": "24h",
        "created_at": 1700000000,
        "request_counts": {"total": 1, "completed": int(bool(batch_id)), "failed": 0},
        **done,
    }


def fine_tuning_job(body, job_id=None, *_):
    """A job of fine-tuning."""
    return {
        "id": job_id or new_id("ftjob-"),
        "object": "fine_tuning.job",
        "created_at": 1700000000,
        "model": body.get("model", "gpt-4o-mini"),
        "organization_id": "org-x",
        "result_files": [],
        "seed": 7,
        "status": "queued",
        "training_file": body.get("training_file", "file-in"),
        "hyperparameters": {"n_epochs": "auto"},
    }


def vector_store(body, store_id=None):
    """A vector store."""
    counts = {"in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0, "total": 0}
    return {
        "id": store_id or new_id("vs_"),
        "object": "vector_store",
        "created_at": 1700000000,
        "name": body.get("name", "store"),
        "usage_bytes": 0,
        "file_counts": counts,
        "status": "completed",
    }


def vector_store_file(_body, store_id, file_id="file-1"):
    """A file in a vector store."""
    return {
        "id": file_id,
        "object": "vector_store.file",
        "created_at": 1700000000,
        "usage_bytes": 12,
        "vector_store_id": store_id,
        "status": "completed",
        "attributes": {"n": 1},
        "last_error": None,
        "chunking_strategy": {"type": "other"},
    }


def found(body, _store_id):
    """What a vector store finds."""
    result = {"file_id": "file-a", "filename": "a.txt", "score": 0.5, "attributes": {"n": 1.0}}
    content = [{"type": "text", "text": f"about {body['query']}"}]
    data = [{**result, "content": content}]
    return {"object": "vector_store.search_results.page", "search_query": body["query"], "data": data}


def response(_body, response_id, *_):
    """A response that was made before."""
    part = {"type": "output_text", "text": "as said before", "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": response_id,
        "object": "response",
        "created_at": 1700000000,
        "model": "gpt-4o-mini",
        "status": "completed",
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 3, "output_tokens": 3, "total_tokens": 6},
    }


# ---- Cohere, Tavily


def rerank(body):
    """The documents, the last one first."""
    results = [
        {"index": index, "relevance_score": 0.5 + index / 8}
        for index in reversed(range(len(body["documents"])))
    ]
    return {"id": new_id(""), "results": results, "meta": {"billed_units": {"search_units": 1}}}


def search(body):
    """One result of a search of the web."""
    result = {"title": "GOAT", "url": "https://example.com/goat", "content": body["query"], "score": 0.5}
    return {"query": body["query"], "results": [result], "response_time": 0.25}


# ---- Gemini


def gemini(body):
    """An answer of Gemini's, with its thoughts' signature."""
    text = body["contents"][-1]["parts"][0]["text"]
    parts = [{"text": f"You said: {text}", "thoughtSignature": "c2lnbmF0dXJl"}]
    usage = {"promptTokenCount": 4, "candidatesTokenCount": 5, "totalTokenCount": 9}
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-flash",
        "responseId": new_id(""),
    }


def gemini_stream(body):
    """The same in two events."""
    first, last = gemini(body), gemini(body)
    first["candidates"][0].pop("finishReason")
    last["candidates"][0]["content"]["parts"] = [{"text": " again"}]
    return [(None, first), (None, last)]


def counted(_body):
    """How many tokens a question has."""
    return {"totalTokens": 7, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 7}]}


def listed(shape):
    """A list of one of these."""
    return lambda body: {
        "object": "list",
        "data": [shape(body, "own-1")],
        "has_more": False,
        "first_id": "own-1",
        "last_id": "own-1",
    }


def deleted(_body, own_id):
    """What is gone."""
    return {"id": own_id, "object": "deleted", "deleted": True}


NAME = r"([\w.-]+)"
ENDPOINTS = (
    ("POST", "/images/(?:generations|edits|variations)", images),
    ("POST", "/audio/speech", speech),
    ("POST", "/audio/(?:transcriptions|translations)", transcription),
    ("POST", "/moderations", moderation),
    ("POST", "/rerank", rerank),
    ("POST", "/vector_stores", vector_store),
    ("GET", "/vector_stores", listed(vector_store)),
    ("GET", f"/vector_stores/{NAME}", vector_store),
    ("DELETE", f"/vector_stores/{NAME}", deleted),
    ("POST", f"/vector_stores/{NAME}/search", found),
    ("POST", f"/vector_stores/{NAME}", vector_store),
    ("POST", f"/vector_stores/{NAME}/files", vector_store_file),
    (
        "GET",
        f"/vector_stores/{NAME}/files",
        lambda body, store: listed(lambda _, own: vector_store_file({}, store, own))(body),
    ),
    ("GET", f"/vector_stores/{NAME}/files/{NAME}", vector_store_file),
    ("POST", f"/vector_stores/{NAME}/files/{NAME}", vector_store_file),
    ("DELETE", f"/vector_stores/{NAME}/files/{NAME}", lambda _body, _store, own: deleted({}, own)),
    (
        "GET",
        f"/vector_stores/{NAME}/files/{NAME}/content",
        lambda _body, _store, _own: {
            "object": "vector_store.file_content.page",
            "data": [{"type": "text", "text": "about goats"}],
            "has_more": False,
            "next_page": None,
        },
    ),
    ("POST", "/search", search),
    ("POST", "/files", file),
    ("GET", "/files", listed(file)),
    ("GET", f"/files/{NAME}", file),
    ("DELETE", f"/files/{NAME}", deleted),
    ("GET", f"/files/{NAME}/content", lambda _body, _id: Media(b'{"custom_id": "1"}\n\xff')),
    ("POST", "/batches", batch),
    ("GET", "/batches", listed(batch)),
    ("GET", f"/batches/{NAME}", batch),
    ("POST", f"/batches/{NAME}/cancel", batch),
    ("POST", "/fine_tuning/jobs", fine_tuning_job),
    ("GET", "/fine_tuning/jobs", listed(fine_tuning_job)),
    ("GET", f"/fine_tuning/jobs/{NAME}", fine_tuning_job),
    ("POST", f"/fine_tuning/jobs/{NAME}/cancel", fine_tuning_job),
    ("GET", f"/responses/{NAME}", response),
    ("DELETE", f"/responses/{NAME}", deleted),
    ("POST", f"/responses/{NAME}/cancel", response),
    (
        "GET",
        f"/responses/{NAME}/input_items",
        lambda body, _id: listed(lambda _body, own: {"id": own, "type": "message"})(body),
    ),
    ("POST", ":generateContent", gemini),
    ("POST", ":streamGenerateContent", gemini_stream),
    ("POST", ":countTokens", counted),
)
