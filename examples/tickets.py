"""A desk for support tickets, written with DSPy: one step finds out what a ticket is about, one drafts a reply."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Literal

import dspy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

MODEL = os.environ.get("SUPPORT_CHAT_MODEL", "openai/smollm2")


def settings() -> dict[str, Any]:
    """The model, asked by DSPy's own engine also where OPENAI_API_BASE names another server than OpenAI's."""
    base = os.environ.get("OPENAI_API_BASE")
    lm = dspy.LM(MODEL, engine="lm15", api_base=base, temperature=0.0, max_tokens=60, seed=7)
    return {"lm": lm, "adapter": dspy.XMLAdapter(), "track_usage": True}


class Sort(dspy.Signature):
    """Say what the ticket is about."""

    ticket: str = dspy.InputField()
    topic: Literal["payment", "delivery", "repair"] = dspy.OutputField()


class Answer(dspy.Signature):
    """Answer the ticket in one friendly sentence."""

    ticket: str = dspy.InputField()
    topic: str = dspy.InputField()
    reply: str = dspy.OutputField()


EXAMPLES = [
    dspy.Example(ticket=ticket, topic=topic, reply=reply)
    for ticket, topic, reply in [
        ("I was charged twice.", "payment", "We are sorry, you get your money back today."),
        ("My parcel has not arrived.", "delivery", "We are sorry, we look for your parcel at once."),
        ("The zip of the tent is broken.", "repair", "We are sorry, we repair your tent for free."),
    ]
]


class Desk(dspy.Module):
    """Sorts a ticket and drafts a reply, each step taught by examples."""

    def __init__(self) -> None:
        super().__init__()
        self.sort = dspy.Predict(Sort)
        self.sort.demos = [example.without("reply") for example in EXAMPLES]
        self.answer = dspy.Predict(Answer)
        self.answer.demos = EXAMPLES[:2]

    def forward(self, ticket: str) -> dspy.Prediction:
        topic = self.sort(ticket=ticket).topic
        return dspy.Prediction(topic=topic, reply=self.answer(ticket=ticket, topic=topic).reply)

    async def aforward(self, ticket: str) -> dspy.Prediction:
        topic = (await self.sort.acall(ticket=ticket)).topic
        answered = await self.answer.acall(ticket=ticket, topic=topic)
        return dspy.Prediction(topic=topic, reply=answered.reply)


def handle(ticket: str, desk: Desk | None = None) -> dspy.Prediction:
    """Topic and reply of one ticket."""
    with dspy.context(**settings()):
        return (desk or Desk())(ticket=ticket)


async def handle_all(tickets: Iterable[str]) -> list[dspy.Prediction]:
    """The same for many tickets at once."""
    desk = Desk()
    with dspy.context(**settings()):
        return await asyncio.gather(*(desk.acall(ticket=ticket) for ticket in tickets))


async def write_reply(ticket: str, topic: str) -> AsyncIterator[str]:
    """A reply, piece by piece as the model writes it."""
    listener = dspy.streaming.StreamListener(signature_field_name="reply")
    write = dspy.streamify(Desk().answer, stream_listeners=[listener])
    with dspy.context(**settings()):
        async for piece in write(ticket=ticket, topic=topic):
            if isinstance(piece, dspy.streaming.StreamResponse):
                yield piece.chunk
