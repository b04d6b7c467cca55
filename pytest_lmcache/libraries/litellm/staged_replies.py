"""The answers of LiteLLM's entry points, whole or streamed, built from the replies of a test."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pytest_lmcache.conversation import ToolCall
from pytest_lmcache.errors import SettingsError
from pytest_lmcache.staged_answers import Reply, Usage

STOP_REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}
"""Anthropic's words for OpenAI's."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A reply to one call: ``number`` counts the replies of the test, from 1, and makes their ids."""

    reply: Reply
    model: str
    request: Mapping[str, Any]
    number: int

    @property
    def finish_reason(self) -> str:
        """Why the answer ends, in OpenAI's words."""
        return self.reply.finish_reason or ("tool_calls" if self.reply.tool_calls else "stop")

    def tool_calls(self) -> Iterator[tuple[str, str, str]]:
        """The id, the name and the arguments, as text, of each tool call."""
        for place, call in enumerate(self.reply.tool_calls, 1):
            yield call.id or f"call_reply_{self.number}_{place}", call.name, arguments_text(call)

    def refuse(self, what: str, function: str) -> NoReturn:
        """Raise the error for a part of a reply that an entry point cannot give."""
        raise SettingsError(f"lm_cache.reply: {function}() gives no {what}. Leave it out for this call.")


def arguments_text(call: ToolCall) -> str:
    """The arguments of a tool call as text."""
    return call.arguments if isinstance(call.arguments, str) else json.dumps(dict(call.arguments))


def chat_usage(usage: Usage | None) -> dict[str, int]:
    """A usage in OpenAI's words for chats, zeros for none."""
    given = dict(usage or {})
    prompt, completion = (given.pop(name, 0) for name in ("prompt_tokens", "completion_tokens"))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **given,
    }


def event_usage(usage: Usage | None) -> dict[str, int]:
    """The same in the words of OpenAI's responses and Anthropic's messages."""
    counted = chat_usage(usage)
    return {"input_tokens": counted["prompt_tokens"], "output_tokens": counted["completion_tokens"]}


def _refuse_embedding(draft: Draft, function: str) -> None:
    if draft.reply.embedding is not None:
        draft.refuse("embedding", function)


# ---------------------------------------------------------------- chats


def chat(draft: Draft) -> dict[str, Any]:
    """A response of ``completion()``."""
    _refuse_embedding(draft, "completion")
    reply = draft.reply
    has_text = bool(reply.whole_text) or not reply.tool_calls
    message: dict[str, Any] = {"role": "assistant", "content": reply.whole_text if has_text else None}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = [
            {"id": own, "type": "function", "function": {"name": name, "arguments": arguments}}
            for own, name, arguments in draft.tool_calls()
        ]
    return {
        **_head(draft, "chatcmpl", "chat.completion"),
        "choices": [{"finish_reason": draft.finish_reason, "index": 0, "message": message}],
        "usage": chat_usage(reply.usage),
    }


def chat_chunks(draft: Draft) -> list[dict[str, Any]]:
    """The chunks of a stream of ``completion()``."""
    _refuse_embedding(draft, "completion")
    reply = draft.reply
    head = _head(draft, "chatcmpl", "chat.completion.chunk")

    def chunk(delta: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        return {**head, "choices": [{**more, "index": 0, "delta": {**delta}}]}

    chunks = [chunk({"role": "assistant", "content": ""})]
    if reply.reasoning is not None:
        chunks.append(chunk({"reasoning_content": reply.reasoning}))
    chunks += [chunk({"content": piece}) for piece in reply.pieces if piece]
    for place, (own, name, arguments) in enumerate(draft.tool_calls()):
        opening = {"id": own, "type": "function", "index": place, "function": {"name": name, "arguments": ""}}
        rest = {
            "id": None,
            "type": "function",
            "index": place,
            "function": {"name": None, "arguments": arguments},
        }
        chunks += [chunk({"tool_calls": [call]}) for call in (opening, rest)]
    chunks.append(chunk({}, finish_reason=draft.finish_reason))
    if (draft.request.get("stream_options") or {}).get("include_usage"):
        chunks.append({**head, "choices": [], "usage": chat_usage(reply.usage)})
    return chunks


def _head(draft: Draft, prefix: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"{prefix}-reply-{draft.number}",
        "created": int(time.time()),
        "model": draft.model,
        "object": kind,
    }


# ---------------------------------------------------------------- text completions, embeddings


def text_completion(draft: Draft) -> dict[str, Any]:
    """A response of ``text_completion()``."""
    _check_text(draft)
    choice = {"finish_reason": draft.finish_reason, "index": 0, "text": draft.reply.whole_text}
    return {
        **_head(draft, "cmpl", "text_completion"),
        "choices": [choice],
        "usage": chat_usage(draft.reply.usage),
    }


def text_chunks(draft: Draft) -> list[dict[str, Any]]:
    """The chunks of a stream of ``text_completion()``."""
    _check_text(draft)
    head = _head(draft, "cmpl", "text_completion")
    ends = [(piece, None) for piece in draft.reply.pieces if piece] + [(None, draft.finish_reason)]
    return [
        {**head, "choices": [{"finish_reason": end, "index": 0, "text": piece, "logprobs": None}]}
        for piece, end in ends
    ]


def _check_text(draft: Draft) -> None:
    _refuse_embedding(draft, "text_completion")
    if draft.reply.tool_calls:
        draft.refuse("tool call", "text_completion")
    if draft.reply.reasoning is not None:
        draft.refuse("reasoning", "text_completion")


def embedding(draft: Draft) -> dict[str, Any]:
    """A response of ``embedding()``: a vector for each input."""
    vectors: Any = draft.reply.embedding
    inputs = draft.request.get("input")
    count = len(inputs) if isinstance(inputs, list) and not all(isinstance(one, int) for one in inputs) else 1
    if vectors is None:
        raise SettingsError(
            "lm_cache.reply: a call of embedding() gets a vector, not a text: lm_cache.reply(embedding=[0.1, 0.2])."
        )
    vectors = [vectors] * count if not vectors or isinstance(vectors[0], int | float) else [*vectors]
    if len(vectors) != count:
        raise SettingsError(
            f"lm_cache.reply: this call of embedding() has {count} inputs, and the reply has {len(vectors)} vectors."
        )
    data = [
        {"embedding": [*map(float, vector)], "index": place, "object": "embedding"}
        for place, vector in enumerate(vectors)
    ]
    return {"model": draft.model, "data": data, "object": "list", "usage": chat_usage(draft.reply.usage)}


# ---------------------------------------------------------------- responses


def response(draft: Draft) -> dict[str, Any]:
    """A response of ``responses()``."""
    _refuse_embedding(draft, "responses")
    return _response(draft, _items(draft))


def _items(draft: Draft) -> list[dict[str, Any]]:
    reply, number = draft.reply, draft.number
    items: list[dict[str, Any]] = []
    if reply.reasoning is not None:
        summary = [{"type": "summary_text", "text": reply.reasoning}]
        items.append({"type": "reasoning", "id": f"rs_reply_{number}", "summary": summary})
    if reply.whole_text or not reply.tool_calls:
        part = {"type": "output_text", "text": reply.whole_text, "annotations": [], "logprobs": []}
        items.append(
            {
                "type": "message",
                "id": f"msg_reply_{number}",
                "status": "completed",
                "role": "assistant",
                "content": [part],
            }
        )
    for own, name, arguments in draft.tool_calls():
        call = {"id": f"fc_{own}", "call_id": own, "name": name, "arguments": arguments}
        items.append({"type": "function_call", **call, "status": "completed"})
    return items


def _response(draft: Draft, items: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    usage = event_usage(draft.reply.usage)
    return {
        "id": f"resp_reply_{draft.number}",
        "created_at": int(time.time()),
        "error": None,
        "incomplete_details": None,
        "instructions": draft.request.get("instructions"),
        "metadata": {},
        "model": draft.model,
        "object": "response",
        "output": items,
        "parallel_tool_calls": True,
        "temperature": draft.request.get("temperature", 1.0),
        "tool_choice": draft.request.get("tool_choice", "auto"),
        "tools": draft.request.get("tools", []),
        "top_p": draft.request.get("top_p", 1.0),
        "status": "completed",
        "text": {"format": {"type": "text"}},
        "usage": {
            **usage,
            "total_tokens": sum(usage.values()),
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
        **more,
    }


def response_events(draft: Draft) -> list[dict[str, Any]]:
    """The events of a stream of ``responses()``."""
    _refuse_embedding(draft, "responses")
    items = _items(draft)
    begun = _response(draft, [], status="in_progress", usage=None)
    events: list[dict[str, Any]] = [
        {"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")
    ]
    for place, item in enumerate(items):
        started = {**item, "status": "in_progress"} if "status" in item else item
        started = started | ({"content": []} if "content" in item else {})
        started = started | ({"arguments": ""} if "arguments" in item else {})
        where = {"item_id": item["id"], "output_index": place}
        events.append({"type": "response.output_item.added", "output_index": place, "item": started})
        if item["type"] == "message":
            events += _text_events(item["content"][0], {**where, "content_index": 0}, draft.reply.pieces)
        elif item["type"] == "function_call":
            kind, arguments = "response.function_call_arguments", item["arguments"]
            events.append({"type": f"{kind}.delta", **where, "delta": arguments})
            events.append({"type": f"{kind}.done", **where, "arguments": arguments, "name": item["name"]})
        events.append({"type": "response.output_item.done", "output_index": place, "item": item})
    events.append({"type": "response.completed", "response": _response(draft, items)})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _text_events(
    part: Mapping[str, Any], where: Mapping[str, Any], pieces: list[str]
) -> list[dict[str, Any]]:
    text = "response.output_text"
    deltas = [{"type": f"{text}.delta", **where, "delta": piece, "logprobs": []} for piece in pieces if piece]
    return [
        {"type": "response.content_part.added", **where, "part": {**part, "text": ""}},
        *deltas,
        {"type": f"{text}.done", **where, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **where, "part": {**part}},
    ]


# ---------------------------------------------------------------- Anthropic's messages


def message(draft: Draft) -> dict[str, Any]:
    """An answer of ``anthropic.messages``."""
    blocks = _blocks(draft)
    for block in blocks:
        if block["type"] == "tool_use":
            try:
                block["input"] = json.loads(block["input"])
            except ValueError:
                raise SettingsError(
                    "lm_cache: the arguments of a tool call are data in a whole answer of anthropic.messages(), so "
                    "they cannot be malformed JSON. They can be in a stream."
                ) from None
    return _message(draft, blocks, event_usage(draft.reply.usage), draft.finish_reason)


def _blocks(draft: Draft) -> list[dict[str, Any]]:
    """The blocks of a message; the input of tools as text."""
    _refuse_embedding(draft, "anthropic.messages")
    reply = draft.reply
    blocks: list[dict[str, Any]] = []
    if reply.reasoning is not None:
        blocks.append({"type": "thinking", "thinking": reply.reasoning, "signature": ""})
    if reply.whole_text or not reply.tool_calls:
        blocks.append({"type": "text", "text": reply.whole_text})
    blocks += [
        {"type": "tool_use", "id": own, "name": name, "input": arguments}
        for own, name, arguments in draft.tool_calls()
    ]
    return blocks


def _message(
    draft: Draft, blocks: list[dict[str, Any]], usage: Mapping[str, int], reason: str | None
) -> dict[str, Any]:
    return {
        "id": f"msg_reply_{draft.number}",
        "type": "message",
        "role": "assistant",
        "model": draft.model,
        "content": blocks,
        "stop_reason": STOP_REASONS.get(reason, reason) if reason else None,
        "stop_sequence": None,
        "usage": dict(usage),
    }


def message_events(draft: Draft) -> list[dict[str, Any]]:
    """The server-sent events of a stream of ``anthropic.messages``, each a chunk of bytes."""
    usage = event_usage(draft.reply.usage)
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": _message(draft, [], {**usage, "output_tokens": 0}, None)}
    ]
    for place, block in enumerate(_blocks(draft)):
        kind = block["type"]
        if kind == "text":
            empty = {**block, "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in draft.reply.pieces if piece]
        elif kind == "thinking":
            empty = {**block, "thinking": ""}
            deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
        else:
            empty = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": block["input"]}]
        events.append({"type": "content_block_start", "index": place, "content_block": empty})
        events += [{"type": "content_block_delta", "index": place, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": place})
    reason = STOP_REASONS.get(draft.finish_reason, draft.finish_reason)
    ended = {"stop_reason": reason, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ended, "usage": usage})
    events.append({"type": "message_stop"})
    return [{"bytes": f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"} for event in events]


WHOLE: dict[str, Callable[[Draft], dict[str, Any]]] = {
    "completion": chat,
    "text_completion": text_completion,
    "embedding": embedding,
    "responses": response,
    "anthropic_messages": message,
}
STREAMED: dict[str, Callable[[Draft], list[dict[str, Any]]]] = {
    "completion": chat_chunks,
    "text_completion": text_chunks,
    "responses": response_events,
    "anthropic_messages": message_events,
}
