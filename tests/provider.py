"""A language-model provider on loopback HTTP that speaks the OpenAI and Anthropic wire formats.

    with Provider() as provider:
        litellm.completion(model="openai/gpt-4o-mini", api_base=provider.url, api_key="sk-local", messages=…)

What is asked decides the shape of the answer: ``tools`` gives tool calls, ``response_format`` JSON,
``reasoning_effort`` reasoning, ``thinking`` thinking blocks, ``web_search_options`` annotations,
``modalities: [audio]`` sound, ``vendor_extras: true`` fields no API defines; ``n``, ``logprobs``, ``stream``
and ``stream_options`` mean what they always do. Only ids and ``created`` differ from one answer to the next.

A test that wants something else queues it, ``provider.script(Reply(failure="rate_limit"), Reply(text="yes"))``,
or sets ``provider.answer`` to a function ``Request -> Reply | str``; from a shell: ``python tests/provider.py``.
"""

from __future__ import annotations

import argparse
import array
import base64
import hashlib
import json
import math
import re
import socket
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import other_endpoints

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived: header names in lower case, ``body`` parsed from JSON, ``at`` in seconds of time.time()."""

    method: str
    path: str
    headers: dict[str, str]
    body: Json
    at: float

    @property
    def prompt(self):
        """The text of the last message that was sent."""
        said = self.body.get("messages") or self.body.get("input") or self.body.get("prompt") or ""
        if isinstance(said, list) and said:
            said = said[-1]
        return plain_text(said)


@dataclass(frozen=True, slots=True)
class Reply:
    """How to answer one request; everything left out is as in the default answer."""

    text: str | None = None  # the words of an otherwise default answer
    model: str | None = None  # the model that answers, by another name than it was asked for
    edit: Callable[[Json], object] | None = None  # changes an otherwise default answer, in place
    body: Any = None  # the whole body instead: JSON, str or bytes as they are, or a list of Event to stream
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds before the first byte
    drop: bool = False  # close the connection without a byte
    failure: str | None = None  # a name in FAILURES, in the shape of the API that was asked
    cut: int | None = None  # stream this many events, then end: by `failure` as an event, or by a dead line


class Event(NamedTuple):
    """One server-sent event: OpenAI's chat events have no name."""

    name: str | None
    data: Json | str


class Failure(NamedTuple):
    """An error as the two APIs word it."""

    status: int
    openai_type: str
    code: str | None
    anthropic_type: str
    message: str
    headers: Mapping[str, str] = {}


_BAD, _ABAD = "invalid_request_error", "invalid_request_error"
FAILURES = {
    "invalid_request": Failure(400, _BAD, None, _ABAD, "'temperature' must be at most 2."),
    "context_length_exceeded": Failure(
        400,
        _BAD,
        "context_length_exceeded",
        _ABAD,
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 200000 tokens.",
    ),
    "prompt_too_long": Failure(400, _BAD, None, _ABAD, "prompt is too long: 210000 tokens > 200000 maximum"),
    "content_policy_violation": Failure(
        400,
        _BAD,
        "content_policy_violation",
        _ABAD,
        "Your request was rejected as a result of our safety system.",
    ),
    "content_filter": Failure(
        400,
        _BAD,
        "content_filter",
        _ABAD,
        "The response was filtered due to the prompt triggering the content management policy.",
    ),
    "authentication": Failure(
        401, _BAD, "invalid_api_key", "authentication_error", "Incorrect API key provided: {key}."
    ),
    "permission": Failure(403, "permission_error", None, "permission_error", "You may not use this model."),
    "not_found": Failure(
        404, _BAD, "model_not_found", "not_found_error", "The model `{model}` does not exist."
    ),
    "timeout": Failure(408, "timeout", None, "timeout_error", "Request timed out."),
    "unprocessable": Failure(422, _BAD, None, _ABAD, "Unprocessable entity: messages.0.role"),
    "rate_limit": Failure(
        429,
        "requests",
        "rate_limit_exceeded",
        "rate_limit_error",
        "Rate limit reached for {model}. Please try again in 1s.",
        {"retry-after": "1"},
    ),
    "server": Failure(
        500, "server_error", None, "api_error", "The server had an error while processing your request."
    ),
    "overloaded": Failure(503, "server_error", None, "overloaded_error", "Overloaded"),
}


class Provider:
    """The server: a context manager, ready when entered, gone with every connection when left."""

    def __init__(self, port=0, *, delay=0.0, pause=0.0, numbered=False):
        """Delay every answer by ``delay`` seconds and pause after each event of a stream.

        ``numbered``: the n-th identical request gets "answer n".
        """
        self.delay = delay
        self.pause = pause
        self.numbered = numbered
        self.answer = lambda _: Reply()
        self.requests = []
        self._lock = threading.Lock()
        self._queue = deque()
        self._seen = Counter()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.provider = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def base(self):
        """Where Anthropic's API lies; OpenAI's is ``url``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self):
        """The ``api_base`` of OpenAI's API."""
        return f"{self.base}/v1"

    @property
    def count(self):
        """How many requests have arrived."""
        return len(self.requests)

    def script(self, *replies):
        """Queue replies for the next requests; a str is the words of a default answer."""
        with self._lock:
            self._queue.extend(_reply(reply) for reply in replies)

    def stop(self):
        """Close the port and every open connection; a second time does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._server.hang_up()
            self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def take(self, request):
        """Note the request and choose its reply, the words filled in."""
        with self._lock:
            self.requests.append(request)
            same = json.dumps([request.path, request.body], sort_keys=True)
            self._seen[same] += 1
            number = self._seen[same]
            scripted = self._queue.popleft() if self._queue else None
        if "x-refuse" in request.headers:
            return Reply(failure="server_error")
        reply = scripted or _reply(self.answer(request))
        if reply.text is not None:
            return reply
        text = f"answer {number}" if self.numbered else f"You said: {request.prompt}"
        return Reply(**{name: getattr(reply, name) for name in Reply.__slots__} | {"text": text})


def _reply(reply):
    return Reply(text=reply) if isinstance(reply, str) else reply


# --- the wire ---------------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    provider: Provider

    def __init__(self, *args):
        self.lines = set()
        super().__init__(*args)

    def process_request(self, request, client_address):
        self.lines.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.lines.discard(request)
        super().shutdown_request(request)

    def hang_up(self):
        """End kept-alive connections too, so that a stopped provider answers nobody."""
        for line in list(self.lines):
            _kill(line)

    def handle_error(self, request, client_address):
        """A client that leaves a stream early is no error; anything else is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _kill(line):
    try:
        line.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client was first


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        self._serve({})

    def do_DELETE(self):
        self.do_POST()

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        is_form = self.headers.get("content-type", "").startswith("multipart/")
        self._serve(form(raw) if is_form else json.loads(raw or b"{}"))

    def _serve(self, body):
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body, time.time())
        provider = self.server.provider
        reply = provider.take(request)
        time.sleep(provider.delay + reply.delay)
        if reply.drop:
            self.close_connection = True
            _kill(self.connection)
            return
        status, extra, content = render(request, reply)
        self.send_response(status)
        self.send_header("x-request-id", new_id("req_"))
        for name, value in {**extra, **reply.headers}.items():
            self.send_header(name, value)
        if isinstance(content, list):
            self._stream(content, dead=reply.cut is not None and reply.failure is None)
        else:
            self._whole(content)

    def _whole(self, content):
        data = (
            content if isinstance(content, bytes) else content.encode() if isinstance(content, str) else None
        )
        if data is None:
            data = json.dumps(content).encode()
        self.send_header("content-type", getattr(content, "media", "application/json"))
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events, *, dead):
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for name, data in events:
            text = data if isinstance(data, str) else json.dumps(data)
            event = (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
            encoded = event.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(encoded), encoded))
            self.wfile.flush()
            time.sleep(self.server.provider.pause)
        if dead:
            self.close_connection = True
            _kill(self.connection)
        else:
            self.wfile.write(b"0\r\n\r\n")


# --- what is said -----------------------------------------------------------------------------------------


def render(request, reply):
    """The status, headers and body (a list of Event for a stream) of one reply."""
    failure = FAILURES[reply.failure] if reply.failure else None
    if failure and reply.cut is None:
        return failure.status, failure.headers, failure_body(request, failure)
    if reply.body is not None:
        return reply.status, {}, reply.body
    path = request.path.partition("?")[0]
    endpoint = next((ENDPOINTS[end] for end in ENDPOINTS if path.endswith(end)), None)
    if endpoint is None and (other := other_endpoints.answer(request, path)) is not None:
        return reply.status, {}, other
    if endpoint is None:
        return 404, {}, failure_body(request, FAILURES["not_found"])
    shape, events_of = endpoint
    body = request.body | ({"model": reply.model} if reply.model else {})
    content = shape(body, request.prompt, reply.text)
    if reply.edit:
        reply.edit(content)
    if body.get("stream") and events_of:
        content = events_of(body, content)
        if reply.cut is not None:
            content = content[: reply.cut]
        if failure:
            name = "error" if request.path.endswith(("/messages", "/responses")) else None
            content.append(Event(name, failure_body(request, failure)))
    return reply.status, {}, content


def failure_body(request, failure):
    """The error as the asked API words it; a 401 echoes the ends of the key, as the real one does."""
    key = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get(
        "x-api-key", ""
    )
    message = failure.message.format(key=f"{key[:8]}****{key[-4:]}", model=request.body.get("model"))
    if request.path.endswith("/messages"):
        error = {"type": failure.anthropic_type, "message": message}
        return {"type": "error", "error": error, "request_id": new_id("req_")}
    if request.path.endswith("/responses") and request.body.get("stream"):
        return {
            "type": "error",
            "code": failure.code,
            "message": message,
            "param": None,
            "sequence_number": 99,
        }
    return {"error": {"message": message, "type": failure.openai_type, "param": None, "code": failure.code}}


def new_id(prefix):
    """An id that no other answer has."""
    return prefix + uuid.uuid4().hex


def form(raw):
    """The fields of a multipart form; a file is its length."""
    fields = re.findall(
        rb'name="(\w+)"(; filename=[^\r]*)?\r\n(?:[^\r]+\r\n)*\r\n(.*?)\r\n--', raw, re.DOTALL
    )
    return {
        name.decode(): len(value) if is_file else value.decode(errors="replace")
        for name, is_file, value in fields
    }


def plain_text(value):
    """The text in a message, a list of content parts, or tokens."""
    if isinstance(value, dict):
        return plain_text(value.get("content") or value.get("text") or "")
    if isinstance(value, list):
        return " ".join(plain_text(part) for part in value)
    return str(value)


def pieces(text):
    """The text in the pieces it is streamed in: words with the space before them."""
    return re.findall(r"\s*\S+|\s+$", text) or [""]


def sample(schema, text):
    """A value that fits a JSON schema, with ``text`` in its strings."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: sample(part, text) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample(schema.get("items", {"type": "string"}), text)]
    return {"string": text, "integer": 7, "number": 0.5, "boolean": True, "null": None}[kind]


def chosen_tools(body):
    """The tools to call now: the named one, or all if parallel calls are asked for, or the first one."""
    tools = [
        tool.get("function", tool) for tool in body.get("tools") or [] if "name" in tool.get("function", tool)
    ]
    last = (body.get("messages") or body.get("input") or [{}])[-1]
    answered = isinstance(last, dict) and (
        last.get("role") == "tool" or "tool_result" in str(last) or last.get("type") == "function_call_output"
    )
    choice = body.get("tool_choice") or "auto"
    if answered or choice == "none":
        return []
    if isinstance(choice, dict) and choice.get("type") != "auto":
        name = choice.get("function", choice).get("name")
        return [tool for tool in tools if name in (None, tool["name"])]
    return tools if body.get("parallel_tool_calls") else tools[:1]


def words_of(body, text):
    """The answer's words: JSON where JSON was asked for."""
    asked = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    if asked.get("type") == "json_schema":
        return json.dumps(sample((asked.get("json_schema") or asked)["schema"], text))
    return json.dumps({"answer": text}) if asked.get("type") == "json_object" else text


# --- OpenAI: chat, legacy completions, embeddings ----------------------------------------------------------


def chat(body, prompt, text):
    """A chat.completion."""
    said = len(pieces(prompt)) + 8 * len(body["messages"])
    choices = [chat_choice(body, prompt, text, index) for index in range(body.get("n") or 1)]
    spoken = len(pieces(text)) * len(choices)
    thought = 12 if body.get("reasoning_effort") else 0
    usage = {
        "prompt_tokens": said,
        "completion_tokens": spoken + thought,
        "total_tokens": said + spoken + thought,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": thought,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    extras = (
        {"vendor_timing": {"queue": 0.25, "total": 1.5}, "vendor_none": None}
        if body.get("vendor_extras")
        else {}
    )
    return {
        "id": new_id("chatcmpl-"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": choices,
        "usage": usage,
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
        **extras,
    }


def chat_choice(body, prompt, text, index):
    """One choice of a chat answer; the second and later ones say which they are."""
    words = words_of(body, text) + (f" ({index + 1})" if index else "")
    message = {"role": "assistant", "content": words, "refusal": None, "annotations": []}
    finish = "stop"
    if tools := chosen_tools(body):
        finish, message["content"] = "tool_calls", None
        message["tool_calls"] = [
            {
                "id": new_id("call_"),
                "type": "function",
                "function": {
                    "name": tool["name"],
                    "arguments": json.dumps(sample(tool.get("parameters", {}), prompt)),
                },
            }
            for tool in tools
        ]
    if body.get("reasoning_effort"):
        message["reasoning_content"] = "First I think about it.\nThen I answer."
    if "web_search_options" in body:
        cited = {"start_index": 0, "end_index": 3, "title": "A page", "url": "https://example.com/page"}
        message["annotations"] = [{"type": "url_citation", "url_citation": cited}]
    if "audio" in body.get("modalities", ()):
        sound = base64.b64encode(hashlib.shake_256(text.encode()).digest(600)).decode()
        message["content"] = None
        message["audio"] = {
            "id": new_id("audio_"),
            "data": sound,
            "expires_at": int(time.time()) + 3600,
            "transcript": text,
        }
    if body.get("vendor_extras"):
        message["vendor_note"] = {"mood": "calm", "score": 0.125}
    logprobs = (
        {"content": [logprob(piece) for piece in pieces(words)], "refusal": None}
        if body.get("logprobs")
        else None
    )
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def logprob(piece):
    """The log probability of one token, with one alternative."""
    value = -(sum(piece.encode()) % 997) / 1000
    token = {"token": piece, "logprob": value, "bytes": list(piece.encode())}
    return {**token, "top_logprobs": [token, {"token": "no", "logprob": -9.25, "bytes": [110, 111]}]}


def chat_events(body, answer):
    """The same answer as a stream of chat.completion.chunk."""
    kept = {name: value for name, value in answer.items() if name not in ("choices", "usage", "object")}
    head = {**kept, "object": "chat.completion.chunk"}
    with_usage = (body.get("stream_options") or {}).get("include_usage")
    chunks = [chunk for choice in answer["choices"] for chunk in choice_chunks(choice)]
    if with_usage:
        head["usage"] = None
    events = [Event(None, {**head, "choices": [chunk]}) for chunk in chunks]
    if with_usage:
        events.append(Event(None, {**head, "choices": [], "usage": answer["usage"]}))
    return [*events, Event(None, "[DONE]")]


def choice_chunks(choice):
    """The deltas of one choice: role, reasoning, words or tool calls, finish."""
    message, logprobs = choice["message"], choice["logprobs"]

    def chunk(delta, finish=None, token=None):
        probability = {"content": [token], "refusal": None} if token else None
        return {"index": choice["index"], "delta": delta, "logprobs": probability, "finish_reason": finish}

    chunks = [
        chunk({"role": "assistant", "content": None if message.get("tool_calls") else "", "refusal": None})
    ]
    if "reasoning_content" in message:
        chunks += [chunk({"reasoning_content": piece}) for piece in pieces(message["reasoning_content"])]
    if message["content"] is not None:
        for number, piece in enumerate(pieces(message["content"])):
            chunks.append(chunk({"content": piece}, token=logprobs["content"][number] if logprobs else None))
    for number, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        opening = {**call, "index": number, "function": {**function, "arguments": ""}}
        chunks.append(chunk({"tool_calls": [opening]}))
        parts = [
            {"index": number, "function": {"arguments": piece}} for piece in pieces(function["arguments"])
        ]
        chunks += [chunk({"tool_calls": [part]}) for part in parts]
    others = {name: message[name] for name in ("annotations", "audio", "vendor_note") if message.get(name)}
    return [*chunks, chunk(others, choice["finish_reason"])]


def completion(body, prompt, text):
    """A text_completion of the legacy API; a list of prompts gets a choice each."""
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    if prompts and isinstance(prompts[0], int):
        prompts = [prompts]
    texts = [
        text if one is prompts[-1] else f"You said: {plain_text(one)}"
        for one in prompts
        for _ in range(body.get("n") or 1)
    ]
    said, spoken = (
        sum(len(pieces(plain_text(one))) for one in prompts),
        sum(len(pieces(one)) for one in texts),
    )
    return {
        "id": new_id("cmpl-"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [
            {"index": i, "text": one, "logprobs": None, "finish_reason": "stop"}
            for i, one in enumerate(texts)
        ],
        "usage": {"prompt_tokens": said, "completion_tokens": spoken, "total_tokens": said + spoken},
    }


def completion_events(body, answer):
    """The same answer as a stream of pieces."""
    usage, head = answer["usage"], {name: value for name, value in answer.items() if name != "usage"}
    events = []
    for choice in answer["choices"]:
        parts = [{**choice, "text": piece, "finish_reason": None} for piece in pieces(choice["text"])]
        parts.append({**choice, "text": ""})
        events += [Event(None, {**head, "choices": [part]}) for part in parts]
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(Event(None, {**head, "choices": [], "usage": usage}))
    return [*events, Event(None, "[DONE]")]


def embeddings(body, prompt, text):
    """A list of vectors, one for each input."""
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    if inputs and isinstance(inputs[0], int):
        inputs = [inputs]
    vectors = [vector(plain_text(one), body.get("dimensions") or 1536) for one in inputs]
    packed = body.get("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": base64.b64encode(v.tobytes()).decode() if packed else v.tolist(),
        }
        for i, v in enumerate(vectors)
    ]
    said = sum(len(pieces(plain_text(one))) for one in inputs)
    return {
        "object": "list",
        "data": data,
        "model": body["model"],
        "usage": {"prompt_tokens": said, "total_tokens": said},
    }


def vector(text, size=1536):
    """A unit vector of 32-bit floats, always the same for the same text."""
    raw = array.array("I", hashlib.shake_256(text.encode()).digest(4 * size))
    centred = [number / 2**31 - 1 for number in raw]
    length = math.sqrt(sum(number * number for number in centred))
    return array.array("f", (number / length for number in centred))


# --- OpenAI: responses ---------------------------------------------------------------------------------------


def response(body, prompt, text):
    """A response object."""
    output = []
    if body.get("reasoning"):
        summary = [{"type": "summary_text", "text": "I thought about it."}]
        output.append({"type": "reasoning", "id": new_id("rs_"), "summary": summary})
    if tools := chosen_tools(body):
        output += [
            {
                "type": "function_call",
                "id": new_id("fc_"),
                "call_id": new_id("call_"),
                "name": tool["name"],
                "arguments": json.dumps(sample(tool.get("parameters", {}), prompt)),
                "status": "completed",
            }
            for tool in tools
        ]
    else:
        part = {"type": "output_text", "text": words_of(body, text), "annotations": [], "logprobs": []}
        output.append(
            {
                "type": "message",
                "id": new_id("msg_"),
                "status": "completed",
                "role": "assistant",
                "content": [part],
            }
        )
    said, spoken = len(pieces(prompt)) + 8, len(pieces(text))
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": body["model"],
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": body.get("temperature", 1.0),
        "text": {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": said,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": spoken,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": said + spoken,
        },
        "user": None,
        "metadata": body.get("metadata") or {},
    }


def response_events(body, answer):
    """The same response as its life in events."""
    begun = {**answer, "status": "in_progress", "output": [], "usage": None}
    bodies = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for place, item in enumerate(answer["output"]):
        bodies += item_events(place, item)
    bodies.append({"type": "response.completed", "response": answer})
    return [Event(data["type"], {**data, "sequence_number": number}) for number, data in enumerate(bodies)]


def item_events(place, item):
    """The events of one output item of a response."""
    where = {"item_id": item["id"], "output_index": place}
    middle = []
    started = {**item, "status": "in_progress"}
    if item["type"] == "function_call":
        started["arguments"] = ""
        kind = "response.function_call_arguments"
        middle = [{"type": f"{kind}.delta", **where, "delta": piece} for piece in pieces(item["arguments"])]
        middle.append({"type": f"{kind}.done", **where, "arguments": item["arguments"], "name": item["name"]})
    elif item["type"] == "message":
        started["content"] = []
        part = item["content"][0]
        where["content_index"] = 0
        deltas = [
            {"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}
            for piece in pieces(part["text"])
        ]
        middle = [
            {"type": "response.content_part.added", **where, "part": {**part, "text": ""}},
            *deltas,
            {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []},
            {"type": "response.content_part.done", **where, "part": part},
        ]
    return [
        {"type": "response.output_item.added", "output_index": place, "item": started},
        *middle,
        {"type": "response.output_item.done", "output_index": place, "item": item},
    ]


# --- Anthropic: messages --------------------------------------------------------------------------------------


def message(body, prompt, text):
    """A message."""
    content = []
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        signed = base64.b64encode(hashlib.sha256(prompt.encode()).digest()).decode()
        content.append(
            {"type": "thinking", "thinking": "First I think.\nThen I answer.", "signature": signed}
        )
    tools = chosen_tools(body)
    content += [
        {
            "type": "tool_use",
            "id": new_id("toolu_"),
            "name": tool["name"],
            "input": sample(tool.get("input_schema", {}), prompt),
        }
        for tool in tools
    ] or [{"type": "text", "text": text}]
    cached = 2048 if "cache_control" in json.dumps(body) else 0
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": "tool_use" if tools else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(pieces(prompt)) + 8,
            "cache_creation_input_tokens": cached,
            "cache_read_input_tokens": cached // 2,
            "cache_creation": {"ephemeral_5m_input_tokens": cached, "ephemeral_1h_input_tokens": 0},
            "output_tokens": len(pieces(text)),
            "service_tier": "standard",
        },
    }


def message_events(body, answer):
    """The same message as its events."""
    usage = answer["usage"]
    begun = {**answer, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    bodies = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for place, block in enumerate(answer["content"]):
        if block["type"] == "text":
            empty = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        elif block["type"] == "thinking":
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        else:
            empty = {**block, "input": {}}
            deltas = [
                {"type": "input_json_delta", "partial_json": piece}
                for piece in pieces(json.dumps(block["input"]))
            ]
        bodies.append({"type": "content_block_start", "index": place, "content_block": empty})
        bodies += [{"type": "content_block_delta", "index": place, "delta": delta} for delta in deltas]
        bodies.append({"type": "content_block_stop", "index": place})
    ended = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    bodies.append(
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": usage["output_tokens"]}}
    )
    bodies.append({"type": "message_stop"})
    return [Event(data["type"], data) for data in bodies]


# Found by the path's end: every OpenAI-like provider (Azure, Groq, …) has its own beginning.
ENDPOINTS = {
    "/chat/completions": (chat, chat_events),
    "/completions": (completion, completion_events),
    "/embeddings": (embeddings, None),
    "/responses": (response, response_events),
    "/messages": (message, message_events),
}


def main():
    """Serve until killed; the first line printed is the URL."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--numbered", action="store_true", help='the n-th identical request gets "answer n"')
    options = parser.parse_args()
    with Provider(options.port, delay=options.delay, numbered=options.numbered) as provider:
        print(provider.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
