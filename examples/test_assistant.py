"""The assistant's test suite."""

import pytest
from assistant import (
    Notes,
    Request,
    Topic,
    answer,
    order_status,
    read_request,
    respond,
    triage,
    triage_all,
    write_reply,
)

pytestmark = pytest.mark.lm_cache

NOTES = [
    "You can return any item within 30 days. Send it back in its box; we pay the postage.",
    "Parcels to Spain take 4 days, to other countries 10 days.",
    "Every tent has a warranty of 3 years. Broken poles and zips are repaired for free.",
    "To reset your password, click 'Forgot password' on the sign-in page. The link works for one hour.",
    "We accept credit cards, PayPal and bank transfer.",
]
ORDERS = {"A-1001": "The tent of order A-1001 arrives on Thursday."}


@pytest.fixture
def notes():
    return Notes(NOTES)


class TestTriage:
    @pytest.mark.parametrize(
        ("ticket", "topic"),
        [
            ("I was charged twice for my order, please give me my money back!", Topic.PAYMENT),
            ("Where is my package?", Topic.DELIVERY),
            ("How do I delete my account?", Topic.ACCOUNT),
            ("The sleeping bag has a hole. Can you repair it?", Topic.REPAIR),
        ],
        ids=list(Topic),
    )
    def test_topic(self, ticket, topic):
        assert triage(ticket) is topic

    @pytest.mark.asyncio
    async def test_many_at_once(self):
        tickets = [
            "My parcel has not arrived, it is a week late.",
            "I cannot log in, I forgot my password.",
            "I want my money back.",
            "The tent was delivered to the wrong house.",
            "Can I change the name on my account?",
        ]
        topics = await triage_all(tickets, at_once=2)
        assert topics == [Topic.DELIVERY, Topic.ACCOUNT, Topic.PAYMENT, Topic.DELIVERY, Topic.ACCOUNT]


class TestReadRequest:
    def test_short_ticket(self):
        request = read_request("My tent from order A-1001 has a hole, I would like my money back.")
        assert (request.order, request.item) == ("A-1001", "tent")

    def test_wish(self):
        ticket = "Hello! The stove in order D-7742 never arrived. Can you send it again?"
        assert read_request(ticket) == Request("D-7742", "stove", "send it again")

    def test_ticket_longer_than_the_context_window(self):
        ticket = "Please repair the radio of order E-5150. Its log says:\n" + "12:00 no signal\n" * 50
        request = read_request(ticket)
        assert (request.order, request.item) == ("E-5150", "radio")


class TestNotes:
    @pytest.mark.parametrize(
        ("question", "place"),
        [
            ("Can I send the boots back if they do not fit?", 0),
            ("Is there a warranty for a broken tent pole?", 2),
            ("How do I reset my password?", 3),
        ],
        ids=["returns", "warranty", "password"],
    )
    def test_nearest_note(self, notes, question, place):
        assert notes.nearest(question) == NOTES[place]

    def test_answer_comes_from_the_note(self, notes):
        assert "30 days" in answer("How many days do I have to return an item?", notes)
        assert "4 days" in answer("How long does a parcel to Spain take?", notes)


class TestOrders:
    def test_known_order(self):
        assert "Thursday" in order_status("Where is my order A-1001?", ORDERS)

    def test_unknown_order(self):
        assert order_status("Where is my order Z-9999?", ORDERS) == "I cannot find the order Z-9999."


def test_reply_is_written_piece_by_piece():
    pieces = list(write_reply("I love my new boots, thank you!"))
    assert len(pieces) > 5
    assert "boots" in "".join(pieces)


@pytest.mark.parametrize(
    ("ticket", "expected"),
    [
        ("My order A-1001 has not arrived. When is it delivered?", "Thursday"),
        ("Can I pay with PayPal?", "PayPal"),
    ],
    ids=["order", "notes"],
)
def test_respond(notes, ticket, expected):
    assert expected in respond(ticket, notes, ORDERS)
