"""A call and its answer as a conversation of messages, in the same form for every entry point."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pytest_lmcache.interaction import CANCELLED, Answer, Call, Kind
from pytest_lmcache.joined_streams import joined
from pytest_lmcache.other_calls import ASKED, CHATS, answered_as_chat, as_json, asked_as_chat

AttachmentKind = Literal["image", "audio", "video", "file"]
QUESTION = frozenset(
    {"model", "messages", "input", "prompt", "instructions", "system", "tools", "functions", "stream"}
)
DATA_URL = re.compile(r"data:([^;,]*)(?:;[^,]*)?,")
# What a request has in the place of bytes; see `keys.plain`.
DIGEST = re.compile(r"<bytes sha256:([0-9a-f]{6})[0-9a-f]* ([0-9]{1,15}) bytes>")
LEFT_EARLY = "left early"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model calls. ``arguments`` is the parsed JSON, or the text if that is no JSON."""

    name: str
    arguments: Any
    id: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part of a message that is not text.

    ``name`` is its file name, id or address, or for data its type, size and a short hash. ``url`` is its address, or a
    data URL; empty if there is only a name.
    """

    kind: AttachmentKind
    name: str
    url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    """What one side says.

    ``role`` is ``system``, ``developer``, ``user``, ``assistant`` or ``tool``; ``value`` for what a test remembered, or
    a recorded function returned. ``tool_call_id`` names the call that a message of role ``tool`` answers.
    """

    role: str
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A call and its answer.

    - ``model``, ``answered_model``: the model that was asked for, and the name under which it answered
    - ``asked``: the messages, the system prompt first
    - ``answered``: one message for each choice; none if there is no answer. For embeddings, their number and length
    - ``tools``: the tools as the request has them
    - ``parameters``: all other arguments of the call
    - ``finish_reason``: as the provider gave it, ``left early`` for a stream that the caller did not read to its end;
      those of several choices are joined with a comma
    - ``error``: what ended the call or the stream, empty for an answer
    """

    model: str
    asked: tuple[Message, ...]
    answered: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
    parameters: dict[str, Any]
    finish_reason: str
    error: str
    answered_model: str = ""


def conversation(call: Call, answer: Answer | None) -> Conversation:
    """Read a call and its answer, which is None for a miss.

    It reads whatever a cassette can hold: a part that it does not know is shown as JSON.
    """
    request = asked_as_chat(call.name, call.request)
    response, error = _answered(answer)
    response = answered_as_chat(call.name, response)
    messages, reasons = _answers(response)
    if call.is_value:
        messages, reasons = [Message("value", _text(response["value"]))] if "value" in response else [], []
    known = QUESTION | ASKED if call.name not in CHATS else QUESTION
    if answer is not None and not answer.complete and answer.ended is None:
        reasons = [LEFT_EARLY]
    return Conversation(
        model=_text(request.get("model")),
        asked=tuple(_asked(request)),
        answered=tuple(messages),
        tools=tuple(_mappings(request.get("tools")) + _mappings(request.get("functions"))),
        parameters={name: value for name, value in call.request.items() if name not in known},
        finish_reason=", ".join(dict.fromkeys(filter(None, reasons))),
        error=error,
        answered_model=(answer.hidden_model if answer else "") or _text(response.get("model")),
    )


def tool_name(tool: Mapping[str, Any]) -> str:
    """The name of a tool of `Conversation.tools`; that of its type if it has none."""
    function = tool.get("function")
    named = function if isinstance(function, dict) else tool
    return _text(named.get("name") or tool.get("type"))


def repeated(earlier: Iterable[Conversation], asked: tuple[Message, ...]) -> int:
    """How many messages at the start of a question stand in an earlier conversation, with its answer."""
    longest = 0
    for each in earlier:
        same = 0
        for one, other in zip(each.asked, asked, strict=False):
            if one != other:
                break
            same += 1
        if same == len(each.asked) < len(asked) and asked[same] in each.answered:
            same += 1
        longest = max(longest, same)
    return longest


# ---- what was asked ------------------------------------------------------------------------------------


def _asked(request: Mapping[str, Any]) -> Iterator[Message]:
    for name in ("instructions", "system"):
        if request.get(name):
            yield from _messages({"role": "system", "content": request[name]})
    for message in _listed(request.get("messages")):
        yield from _messages(message)
    yield from _items(request.get("input"))
    for prompt in _listed(request.get("prompt")):
        yield from _messages(prompt)


def _listed(value: Any) -> list[Any]:
    """The items of an argument: one for a text, and for the tokens of one."""
    if value is None:
        return []
    is_many = isinstance(value, list) and not (value and isinstance(value[0], int))
    return value if is_many else [value]


def _items(value: Any) -> Iterator[Message]:
    """The messages of the Responses API's items; what the assistant says in several items is one message."""
    last: Message | None = None
    for item in _listed(value):
        for message in _item(item):
            if last is not None and last.role == message.role == "assistant":
                last = _with(last, message)
                continue
            if last is not None:
                yield last
            last = message
    if last is not None:
        yield last


def _with(first: Message, second: Message) -> Message:
    return replace(
        first,
        text="\n".join(filter(None, (first.text, second.text))),
        reasoning="\n".join(filter(None, (first.reasoning, second.reasoning))),
        tool_calls=first.tool_calls + second.tool_calls,
        attachments=first.attachments + second.attachments,
    )


def _item(item: Any) -> list[Message]:
    kind = item.get("type") if isinstance(item, dict) else None
    if kind is None or kind == "message" or not isinstance(kind, str):
        return _messages(item)
    if kind.endswith("_output"):
        parts = _Parts("\n").read(item.get("output"))
        return [parts.message("tool", tool_call_id=_text(item.get("call_id")))]
    return [_Parts("\n").read([item]).message("assistant")]


def _messages(message: Any, joint: str = "\n") -> list[Message]:
    """A message as a chat has it, and before it the results of tools among its parts."""
    if not isinstance(message, dict):
        return [_Parts(joint).read(message).message("user")]
    role = _text(message.get("role")) or "user"
    parts = _Parts(joint)
    for name in ("content", "parts", "refusal"):
        parts.read(message.get(name))
    if isinstance(message.get("reasoning_content"), str):
        parts.reasoning.append(message["reasoning_content"])
    else:
        parts.read(message.get("thinking_blocks"))
    calls = _mappings(message.get("tool_calls"))
    for call in calls:
        function = call.get("function") or call.get("custom")
        parts.add_call(function if isinstance(function, dict) else call, call.get("id"))
    if isinstance(message.get("function_call"), dict) and not calls:
        parts.add_call(message["function_call"], "")
    if isinstance(message.get("audio"), dict):
        parts.attach("audio", message["audio"])
        if not parts.texts:
            parts.read(message["audio"].get("transcript"))
    for image in _mappings(message.get("images")):
        parts.attach("image", image)
    own = parts.message(role, tool_call_id=_text(message.get("tool_call_id")))
    is_only_results = parts.results and own == Message(role)
    return [*parts.results, *([] if is_only_results else [own])]


# ---- what came back ------------------------------------------------------------------------------------


def _answered(answer: Answer | None) -> tuple[dict[str, Any], str]:
    """The response as plain data, and the error that ended it."""
    if answer is None:
        return {}, ""
    response: dict[str, Any] = {}
    error = answer.error
    if answer.kind is Kind.STREAM:
        response = joined(answer.with_whole_chunks().data)
    elif answer.kind is Kind.RESPONSE:
        response = answer.data
    elif answer.kind is Kind.ERROR:
        error = answer.data
    if error is None and answer.ended is not None:
        return (
            response,
            "cancelled by the caller" if answer.ended == CANCELLED else f"ended with {answer.ended}",
        )
    return response, _error(error or response.get("error"))


def _error(error: Any) -> str:
    if not isinstance(error, dict):
        return _text(error)
    name = _text(error.get("class") or error.get("type"))
    message = _text(error.get("message"))
    return message if message.startswith(name) else f"{name}: {message}".removesuffix(": ")


def _answers(response: Mapping[str, Any]) -> tuple[list[Message], list[str]]:
    """The messages of a response, one for each choice, and why each ended."""
    message = response.get("message")
    if isinstance(choices := response.get("choices"), list):
        found = [_choice(choice) for choice in _mappings(choices)]
        return found, [_text(choice.get("finish_reason")) for choice in _mappings(choices)]
    if isinstance(message, dict) and "parts" in message:
        return _one(_messages(message, "")), [_text(response.get("finish_reason"))]
    if isinstance(response.get("output"), list):
        return _one(_items(response["output"])), [_status(response)]
    if isinstance(response.get("content"), list | str):
        own = {"role": response.get("role") or "assistant", "content": response["content"]}
        return _one(_messages(own, "")), [_text(response.get("stop_reason"))]
    if isinstance(response.get("data"), list):
        return [Message("assistant", _vectors(response["data"]))], []
    is_known = not response or response.keys() <= {"model", "error"}
    return [] if is_known else [Message("assistant", as_json(response))], []


def _choice(choice: dict[str, Any]) -> Message:
    message = choice.get("message")
    if not isinstance(message, dict):
        message = {"content": choice.get("text"), "reasoning_content": choice.get("reasoning_content")}
    [*_, own] = _messages({**message, "role": message.get("role") or "assistant"}, "")
    return own


def _one(messages: Iterable[Message]) -> list[Message]:
    """An answer that has one choice as one message, with what its provider's own tools gave."""
    one: Message | None = None
    for message in messages:
        one = replace(message, role="assistant") if one is None else _with(one, message)
    return [] if one is None or one == Message("assistant") else [one]


def _status(response: Mapping[str, Any]) -> str:
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return ": ".join(filter(None, (_text(response.get("status")), _text(reason))))


def _vectors(items: list[Any]) -> str:
    lengths = {_length(item.get("embedding") if isinstance(item, dict) else item) for item in items}
    size = f" of {next(iter(lengths)):,} numbers" if len(lengths) == 1 else " of different lengths"
    return f"{len(items):,} vector{'' if len(items) == 1 else 's'}{size if items else ''}"


def _length(vector: Any) -> int:
    # In base64 each number has 4 bytes.
    return _size(vector) // 4 if isinstance(vector, str) else len(vector) if isinstance(vector, list) else 0


# ---- the parts of a message ----------------------------------------------------------------------------


class _Parts:
    """Collects what the parts of one message say."""

    def __init__(self, joint: str) -> None:
        self.joint = joint
        self.texts: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[ToolCall] = []
        self.attachments: list[Attachment] = []
        self.results: list[Message] = []

    def read(self, content: Any) -> _Parts:
        """Add a text, a part, or a list of parts."""
        for part in content if isinstance(content, list) and not _is_tokens(content) else [content]:
            if isinstance(part, dict):
                self._add(part)
            elif part is not None and part != "":
                self.texts.append(_text(part))
        return self

    def message(self, role: str, *, tool_call_id: str = "") -> Message:
        """The message that the parts make."""
        return Message(
            role,
            self.joint.join(self.texts),
            "\n".join(filter(None, self.reasoning)),
            tuple(self.calls),
            tuple(self.attachments),
            tool_call_id,
        )

    def add_call(self, call: Mapping[str, Any], call_id: Any) -> None:
        """Add a call of a tool, whose arguments are JSON or, with some providers, data."""
        arguments = call.get("arguments", call.get("input"))
        if isinstance(arguments, str):
            with suppress(ValueError, RecursionError):  # what is no JSON is shown as it is
                arguments = json.loads(arguments)
        self.calls.append(ToolCall(_text(call.get("name")), arguments, _text(call_id)))

    def attach(self, kind: AttachmentKind, part: Mapping[str, Any]) -> None:
        """Add what is not text."""
        fields = dict(part)
        for name in ("image_url", "video_url", "audio_url", "input_audio", "source", "file"):
            inner = fields.pop(name, None)
            fields |= inner if isinstance(inner, dict) else {} if inner is None else {"url": inner}
        data = _text(fields.get("data") or fields.get("file_data") or fields.get("result"))
        url = _text(fields.get("url") or fields.get("file_url"))
        url = data if data.startswith("data:") else url
        if (found := DATA_URL.match(url)) is not None:
            media, data = found[1], url[found.end() :]
        else:
            media = _text(fields.get("media_type") or fields.get("format"))
            media = media if "/" in media or not media or kind == "file" else f"{kind}/{media}"
            url = url or (f"data:{media};base64,{data}" if data else "")
        named = fields.get("filename") or fields.get("title") or fields.get("name")
        own_id = fields.get("file_id") or fields.get("path") or fields.get("id")
        pieces = [_text(named or ("" if data else url or own_id) or media or kind)]
        if (found := DIGEST.fullmatch(data)) is not None:
            pieces += [f"{int(found[2]):,} bytes", found[1]]
            url = ""
        elif data:
            digest = hashlib.blake2b(data.encode(errors="surrogatepass"), digest_size=3).hexdigest()
            pieces += [f"{_size(data):,} bytes", digest]
        self.attachments.append(Attachment(kind, ", ".join(pieces), url))

    def _add(self, part: dict[str, Any]) -> None:
        kind = part.get("type")
        kind = kind if isinstance(kind, str) else "text" if "text" in part else ""
        if kind in ATTACHMENTS:
            source = part.get("source")
            if isinstance(source, dict) and source.get("type") in {"text", "content"}:
                self.read(source.get("data") or source.get("content"))
            else:
                self.attach(ATTACHMENTS[kind], part)
        elif (add := ADD.get(kind)) is not None:
            add(self, part)
        elif kind.endswith("tool_result"):
            own_id = _text(part.get("tool_use_id") or part.get("id"))
            self.results += _messages(
                {"role": "tool", "tool_call_id": own_id, "content": part.get("content")}
            )
        elif kind.endswith(("_call", "tool_use")):
            name = part.get("name") or kind
            given = {key: item for key, item in part.items() if key not in {"type", "id", "status"}}
            arguments = part.get("arguments", part.get("input", given))
            self.add_call({"name": name, "arguments": arguments}, part.get("call_id") or part.get("id"))
        else:
            self.texts.append(as_json(part))

    def add_text(self, part: Mapping[str, Any]) -> None:
        """Add a part that is text."""
        self.read(part.get("text", part.get("refusal")))

    def add_reasoning(self, part: Mapping[str, Any]) -> None:
        """Add what the model thought, or its summary of that; the encrypted form has no text."""
        for value in (part.get("thinking"), part.get("text"), part.get("summary"), part.get("content")):
            texts = value if isinstance(value, list) else [value]
            found = [text.get("text") if isinstance(text, dict) else text for text in texts]
            self.reasoning += [text for text in found if isinstance(text, str)]

    def add_citation(self, part: Mapping[str, Any]) -> None:
        """Add a source that the answer names."""
        name = " ".join(_text(part[key]) for key in ("title", "url", "text") if part.get(key))
        self.attachments.append(Attachment("file", name, _text(part.get("url"))))


ADD: Mapping[str, Callable[[_Parts, dict[str, Any]], None]] = {
    **dict.fromkeys(("text", "input_text", "output_text", "refusal"), _Parts.add_text),
    **dict.fromkeys(
        ("thinking", "redacted_thinking", "reasoning", "reasoning_text", "summary_text"), _Parts.add_reasoning
    ),
    "citation": _Parts.add_citation,
    "data": lambda parts, part: parts.texts.append(as_json(part.get("value"))),
}
ATTACHMENTS: Mapping[str, AttachmentKind] = {
    **dict.fromkeys(("image_url", "input_image", "image", "image_generation_call"), "image"),
    **dict.fromkeys(("input_audio", "audio", "audio_url"), "audio"),
    **dict.fromkeys(("video", "video_url", "input_video"), "video"),
    **dict.fromkeys(("file", "input_file", "document", "binary"), "file"),
}


def _is_tokens(value: list[Any]) -> bool:
    return bool(value) and isinstance(value[0], int)


def _size(base64: str) -> int:
    """The number of bytes that a text in base64 holds."""
    return (len(base64) - base64[-2:].count("=")) * 3 // 4


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else as_json(value)
