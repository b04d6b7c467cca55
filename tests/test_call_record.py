"""What messages and reports say of a call in one line."""

import pytest

from pytest_lmcache.call_record import described

PICTURE = [
    {"type": "text", "text": "what is it"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"messages": [{"role": "user", "content": PICTURE}]}, "model m, 1 message, what is it (image_url)"),
        ({"input": ["a", "b"]}, "model m, 2 inputs, b"),
        ({"input": "a", "stream": True}, "model m, streamed, a"),
    ],
)
def test_a_call_in_one_line(request_, text):
    """A call is described by its model, the number of its messages and the text of the last one."""
    assert described({"model": "m", **request_}) == text
