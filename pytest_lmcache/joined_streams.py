"""Joins the chunks of a stream into the response that the call would return without streaming."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

Json = dict[str, Any]


def joined(chunks: Sequence[Json]) -> Json:
    """Join whole chunks, of any entry point, as plain data.

    The result has the fields that a person reads: texts, reasoning, tool calls, finish reason, model. An error among
    the chunks becomes ``error``. What cannot be recognized is left out.
    """
    events = [*_events(chunks)]
    kinds = {event["type"] for event in events if isinstance(event.get("type"), str)}
    if any("choices" in event for event in events):
        return _chat(events)
    if any("candidates" in event for event in events):
        return _gemini(events)
    if any(kind.startswith("response.") for kind in kinds):
        return _responses(events)
    if kinds & {"message_start", "content_block_start", "content_block_delta"}:
        return _anthropic(events)
    if kinds & {"start", "delta", "end"}:
        return _dspy(events)
    error = next((event["error"] for event in events if event.get("error")), None)
    texts = [event["text"] for event in events if isinstance(event.get("text"), str)]
    return {"choices": [{"text": "".join(texts)}] if texts else [], "error": error}


def _events(chunks: Iterable[Json]) -> Iterable[Json]:
    """The chunks, with server-sent events as the data that they carry."""
    sent = ""
    for chunk in chunks:
        if isinstance(chunk.get("bytes"), str):
            sent += chunk["bytes"]
        elif isinstance(chunk.get("event"), dict):
            yield chunk["event"]
        else:
            yield chunk
    for line in sent.splitlines():
        if line.startswith("data:"):
            try:
                data = json.loads(line.removeprefix("data:"))
            except ValueError:
                continue  # `[DONE]`, or an event that the caller did not read to its end
            if isinstance(data, dict):
                yield data


def _gemini(events: Sequence[Json]) -> Json:
    parts: list[Any] = []
    finish = model = None
    for event in events:
        model = event.get("modelVersion") or model
        for candidate in _mappings(event.get("candidates"))[:1]:
            parts += _mappings(_mapping(candidate.get("content")).get("parts"))
            finish = candidate.get("finishReason") or finish
    texts = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    others = [part for part in parts if not isinstance(part.get("text"), str)]
    content = {"role": "model", "parts": [{"text": texts}, *others]}
    return {"modelVersion": model, "candidates": [{"content": content, "finishReason": finish}]}


def _mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _append(target: Json, piece: Json, names: Iterable[str]) -> None:
    """Append the texts of a piece to those of a target."""
    for name in names:
        if isinstance(piece.get(name), str):
            target[name] = str(target.get(name) or "") + piece[name]


def _place(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _chat(events: Iterable[Json]) -> Json:
    choices: dict[int, Json] = {}
    model = ""
    for event in events:
        model = model or str(event.get("model") or "")
        for piece in _mappings(event.get("choices")):
            choice = choices.setdefault(_place(piece.get("index")), {})
            if piece.get("finish_reason"):
                choice["finish_reason"] = piece["finish_reason"]
            _append(choice, piece, ["text"])
            delta = piece.get("delta")
            if isinstance(delta, dict):
                _add_delta(choice.setdefault("message", {}), delta)
    return {"model": model, "choices": [choices[index] for index in sorted(choices)]}


def _add_delta(message: Json, delta: Json) -> None:
    _append(message, delta, ["content", "reasoning_content", "refusal"])
    if delta.get("role"):
        message["role"] = delta["role"]
    calls: list[Json] = message.setdefault("tool_calls", [])
    for piece in _mappings(delta.get("tool_calls")):
        index = piece.get("index")
        call = next((each for each in calls if each["index"] == index), None)
        if call is None:
            calls.append(call := {"index": index, "function": {}})
        if piece.get("id"):
            call["id"] = piece["id"]
        _append(call["function"], _mapping(piece.get("function")), ["name", "arguments"])
    for name, texts in {
        "function_call": ["name", "arguments"],
        "audio": ["id", "data", "transcript"],
    }.items():
        if isinstance(delta.get(name), dict):
            _append(message.setdefault(name, {}), delta[name], texts)
    if isinstance(delta.get("images"), list):
        message.setdefault("images", []).extend(delta["images"])


def _responses(events: Iterable[Json]) -> Json:
    response: Json = {}
    items: dict[int, Json] = {}
    error: Any = None
    for event in events:
        kind = str(event.get("type"))
        response = _mapping(event.get("response")) or response
        place = _place(event.get("output_index"))
        if isinstance(event.get("item"), dict):
            items[place] = {**event["item"]}
        elif kind.endswith(".delta") and isinstance(event.get("delta"), str):
            _add_to_item(items.setdefault(place, {"type": "message"}), kind, event)
        elif kind == "error":
            error = event.get("error") or event
    output = response.get("output") or [items[place] for place in sorted(items)]
    return {**response, "output": output, "error": error or response.get("error")}


def _add_to_item(item: Json, kind: str, event: Json) -> None:
    """Add a piece to an item whose end was not read."""
    if "function_call_arguments" in kind:
        _append(item, {"arguments": event["delta"]}, ["arguments"])
        return
    name, part_type = {
        "response.refusal.delta": ("content", "refusal"),
        "response.reasoning_text.delta": ("content", "reasoning_text"),
        "response.reasoning_summary_text.delta": ("summary", "summary_text"),
    }.get(kind, ("content", "output_text"))
    parts = [*_mappings(item.get(name))]
    item[name] = parts
    if not parts or parts[-1].get("type") != part_type:
        parts.append({"type": part_type})
    parts[-1] = {**parts[-1]}
    field = "refusal" if part_type == "refusal" else "text"
    _append(parts[-1], {field: event["delta"]}, [field])


def _anthropic(events: Iterable[Json]) -> Json:
    message: Json = {}
    blocks: dict[int, Json] = {}
    error: Any = None
    for event in events:
        place = _place(event.get("index"))
        match event.get("type"):
            case "message_start":
                message = {**_mapping(event.get("message"))}
            case "content_block_start":
                blocks[place] = {**_mapping(event.get("content_block"))}
            case "content_block_delta":
                block, delta = blocks.setdefault(place, {"type": "text"}), _mapping(event.get("delta"))
                _append(block, delta, ["text", "thinking", "partial_json"])
            case "message_delta":
                message.update(_mapping(event.get("delta")))
            case "error":
                error = event.get("error")
    content = [blocks[place] for place in sorted(blocks)]
    for block in content:
        if "partial_json" in block:
            block["input"] = block.pop("partial_json")
    return {**message, "content": content, "error": error}


def _dspy(events: Iterable[Json]) -> Json:
    response: Json = {}
    parts: dict[int, Json] = {}
    for event in events:
        response.update({name: event[name] for name in ("model", "finish_reason", "error") if name in event})
        delta = _mapping(event.get("delta"))
        if not delta or delta.get("type") == "continuation":
            continue
        part = parts.setdefault(_place(delta.get("part_index")), {})
        _append(part, delta, ["text", "input", "data"])
        part.update({name: value for name, value in delta.items() if name not in {"text", "input", "data"}})
    return {**response, "message": {"role": "assistant", "parts": [parts[place] for place in sorted(parts)]}}
