"""The desk's test suite; the model is small, so it asks for the shape of what the desk says, not for sense."""

import pytest
from tickets import Desk, handle, handle_all, write_reply

pytestmark = pytest.mark.lm_cache

TOPICS = {"payment", "delivery", "repair"}


@pytest.mark.parametrize(
    "ticket", ["Please give me my money back!", "Where is my package?"], ids=["money", "package"]
)
def test_topic_and_reply(ticket, lm_cache):
    handled = handle(ticket)
    assert handled.topic in TOPICS
    assert handled.reply
    assert len(lm_cache.calls) == 2  # one to sort it, one to answer it


def test_usage_is_counted():
    [(model, usage)] = handle("The sleeping bag has a hole.").get_lm_usage().items()
    assert model == "openai/smollm2"
    assert usage["prompt_tokens"] > usage["completion_tokens"] > 0


@pytest.mark.asyncio
async def test_many_at_once():
    handled = await handle_all(["I paid, but the order is not there.", "The stove does not burn."])
    assert [each.topic in TOPICS for each in handled] == [True, True]


@pytest.mark.asyncio
async def test_reply_is_written_piece_by_piece():
    pieces = [piece async for piece in write_reply("I want my money back.", "payment")]
    assert len(pieces) > 3
    assert "".join(pieces).strip()


def test_saved_desk_is_the_same(tmp_path):
    Desk().save(tmp_path / "desk.json")
    desk = Desk()
    desk.sort.demos = []
    desk.load(tmp_path / "desk.json")
    assert handle("Where is my parcel?", desk).topic in TOPICS
