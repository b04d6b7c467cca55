"""A support assistant for a camping shop; every model it asks, it asks through LiteLLM."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import litellm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

CHAT_MODEL = os.environ.get("SUPPORT_CHAT_MODEL", "openai/smollm2")
EMBEDDING_MODEL = os.environ.get("SUPPORT_EMBEDDING_MODEL", "openai/smollm2-embed")
STEADY: dict[str, Any] = {"temperature": 0, "seed": 7, "max_tokens": 60}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def function(name: str, description: str, **properties: Any) -> dict[str, Any]:
    """Describe a tool whose properties are all required."""
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


def only(tool: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call whose answer must be a call of this tool."""
    choice = {"type": "function", "function": {"name": tool["function"]["name"]}}
    return {"tools": [tool], "tool_choice": choice}


def arguments(response: Any) -> dict[str, Any]:
    """Arguments of the one tool call that the model made."""
    [call] = response.choices[0].message.tool_calls
    return json.loads(call.function.arguments)


# Sorting tickets: a tool call, because its arguments can only be one of our topics.


class Topic(StrEnum):
    PAYMENT = "payment"
    DELIVERY = "delivery"
    ACCOUNT = "account"
    REPAIR = "repair"


FILE_TICKET = function(
    "file_ticket", "File the ticket.", category={"type": "string", "enum": [str(topic) for topic in Topic]}
)


def _triage_call(ticket: str) -> dict[str, Any]:
    task = "Classify the support ticket as payment, delivery, account or repair."
    return {"model": CHAT_MODEL, "messages": [system(task), user(ticket)], **only(FILE_TICKET), **STEADY}


def triage(ticket: str) -> Topic:
    """Which topic a ticket is about."""
    return Topic(arguments(litellm.completion(**_triage_call(ticket)))["category"])


async def triage_all(tickets: Iterable[str], at_once: int = 4) -> list[Topic]:
    """Sort many tickets, some of them at the same time."""
    gate = asyncio.Semaphore(at_once)

    async def sort(ticket: str) -> Topic:
        async with gate:
            return Topic(arguments(await litellm.acompletion(**_triage_call(ticket)))["category"])

    return await asyncio.gather(*map(sort, tickets))


# Reading tickets: JSON, taught by two examples.


@dataclass(frozen=True)
class Request:
    """What the customer wants to be done about which order."""

    order: str
    item: str
    wish: str


EXAMPLES = {
    "The lamp of order C-3001 is broken, please send a new one.": Request("C-3001", "lamp", "a new one"),
    "I want to give back the boots of order B-2210.": Request("B-2210", "boots", "give back"),
}


def read_request(ticket: str) -> Request:
    """Read a request out of a ticket; of one too long for the model, only how it begins."""
    messages = [system("Copy the order number, the item and what the customer wants into JSON.")]
    for example, request in EXAMPLES.items():
        messages += [user(example), {"role": "assistant", "content": json.dumps(vars(request))}]

    def ask(text: str) -> Any:
        return litellm.completion(
            model=CHAT_MODEL,
            messages=[*messages, user(text)],
            response_format={"type": "json_object"},
            **STEADY,
        )

    try:
        response = ask(ticket)
    except litellm.ContextWindowExceededError:
        response = ask(ticket[:200])
    return Request(**json.loads(response.choices[0].message.content))


# Answering from notes: the note nearest to the question goes into the prompt.


def embed(texts: list[str]) -> list[list[float]]:
    return [row["embedding"] for row in litellm.embedding(model=EMBEDDING_MODEL, input=texts).data]


def similarity(one: list[float], other: list[float]) -> float:
    """Cosine of the angle between two vectors."""
    return sum(x * y for x, y in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


class Notes:
    """What the support team knows, searchable by meaning."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(texts)
        self._vectors = embed(self.texts)

    def nearest(self, question: str) -> str:
        [wanted] = embed([question])
        scores = [similarity(wanted, vector) for vector in self._vectors]
        return self.texts[scores.index(max(scores))]


def answer(question: str, notes: Notes) -> str:
    """Answer a question with what the notes say."""
    task = "Answer the customer's question in one sentence. Use only this note: " + notes.nearest(question)
    response = litellm.completion(model=CHAT_MODEL, messages=[system(task), user(question)], **STEADY)
    return response.choices[0].message.content


# Looking up orders: the model asks for a tool, gets its result and words the answer.

FIND_ORDER = function(
    "find_order",
    "Look up an order by its number.",
    number={"type": "string", "pattern": "^[A-Z]-[0-9]{4}$"},
)


def order_status(question: str, orders: Mapping[str, str]) -> str:
    """Answer a question about an order; `orders` says how each one stands."""
    messages: list[Any] = [system("Answer the customer's question in one sentence."), user(question)]
    response = litellm.completion(model=CHAT_MODEL, messages=messages, **only(FIND_ORDER), **STEADY)
    number = arguments(response)["number"]
    if number not in orders:
        return f"I cannot find the order {number}."
    [call] = response.choices[0].message.tool_calls
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": orders[number]},
    ]
    response = litellm.completion(model=CHAT_MODEL, messages=messages, **STEADY)
    return response.choices[0].message.content


# Writing letters: streamed, so that the customer sees them being written.


def write_reply(ticket: str) -> Iterator[str]:
    """Write a friendly reply, piece by piece."""
    task = "Write a short, friendly answer to the customer."
    chunks = litellm.completion(
        model=CHAT_MODEL,
        messages=[system(task), user(ticket)],
        stream=True,
        stream_options={"include_usage": True},
        **STEADY,
    )
    for chunk in chunks:
        if chunk.choices and (text := chunk.choices[0].delta.content):
            yield text


def respond(ticket: str, notes: Notes, orders: Mapping[str, str]) -> str:
    """Answer a ticket: about a delivery from the order it names, anything else from the notes."""
    if triage(ticket) is Topic.DELIVERY and re.search(r"\b[A-Z]-\d{4}\b", ticket):
        return order_status(ticket, orders)
    return answer(ticket, notes)
