"""What the tests of the command share: cassettes, and the command run in this process."""

from pytest_lmcache.cassette.document import entry_of
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.cassette.merge import CallToSave
from pytest_lmcache.interaction import Answer, Call, Interaction, Kind
from pytest_lmcache.keys.strategies import strategy


def write(path, *texts):
    """A cassette with one recorded completion for each text."""
    keys = strategy("exact")
    asked = []
    for text in texts:
        call = Call("completion", {"model": "m", "messages": [{"role": "user", "content": text}]})
        answer = Answer(Kind.RESPONSE, {"id": "x", "choices": []}, seconds=0.5)
        key = keys.key(call)
        asked.append(
            CallToSave(key, 0, entry_of(Interaction(key, call, answer, "2026-11-23T09:12:44Z"), path))
        )
    assert Cassette(path, keys).save(asked, keep_unused=False, rewrite=False)
    return path
