"""How a new answer differs from the recording whose place it takes."""

from __future__ import annotations

import json
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.cassette.merge import most_similar, places
from pytest_lmcache.conversation import Message, conversation
from pytest_lmcache.errors import CassetteError
from pytest_lmcache.interaction import Answer, Call
from pytest_lmcache.keys.plain import canonical
from pytest_lmcache.nearest import ABSENT, Difference, nearest
from pytest_lmcache.saving import calls_to_save
from pytest_lmcache.settings import Mode
from pytest_lmcache.tags import to_json
from pytest_lmcache.word_diff import words

if TYPE_CHECKING:
    from pytest_lmcache.cassette.document import Entry
    from pytest_lmcache.recorder import Recorder

LONGEST: Final = 50_000  # characters of a text that is compared word by word


def replaced(recorder: Recorder) -> dict[int, Entry]:
    """Return the recordings whose places new ones took when a test ended, by the ``id()`` of the new one."""
    before = recorder.open_cassette()
    if recorder.changes is None or recorder.path is None or not isinstance(before, Cassette):
        return {}
    saved = calls_to_save(recorder.everything, before, rewrite=recorder.mode is Mode.REWRITE)
    old = places(before.entries)
    new = {(each.key, each.nth): each.new for each in saved if each.new is not None}
    kept = places(Cassette(recorder.path, before.strategy).entries)
    gone = {place: entry for place, entry in old.items() if place not in kept}
    added = {place: entry for place, entry in new.items() if place not in old}
    pairs = {place: place for place in new if place in old} | most_similar(added, gone)
    return {id(new[place]): old[other] for place, other in pairs.items()}


def before(old: Entry, call: Call, answer: Answer) -> dict[str, Any] | None:
    """What a recording said that is replaced, and how it differs; None if nothing that is shown does."""
    try:
        old_call, old_answer, recorded = old.call(), old.answer(), old.recorded()
    except CassetteError:  # it could not be read before either
        return None
    found = nearest(call, [old_call])
    question = [*map(difference_data, found.differences)] if found is not None else []
    old_read, read = conversation(old_call, old_answer), conversation(call, answer)
    texts = zip_longest(map(_as_text, old_read.answered), map(_as_text, read.answered), fillvalue="")
    answers = [_words(*pair) for pair in texts]
    if (
        not question
        and old_read.error == read.error
        and all(tag == "same" for each in answers for tag, _ in each)
    ):
        return None
    return {
        "question": question,
        "answers": answers,
        "recorded": recorded,
        "model": old_read.model,
        "tokens": [*old_answer.tokens],
        "usd": old_answer.usd,
        "seconds": old_answer.seconds,
        "finish": old_read.finish_reason,
        "error": old_read.error,
    }


def difference_data(difference: Difference) -> dict[str, Any]:
    """One place where two requests differ, as its path and a word diff."""
    texts = ["" if value is ABSENT else as_text(value) for value in (difference.before, difference.after)]
    within = f" ({difference.within})" if difference.within else ""
    return {"path": f"{difference.path}{within}", "words": _words(*texts)}


def _words(before: str, after: str) -> list[tuple[str, str]]:
    if before != after and max(len(before), len(after)) > LONGEST:
        return [pair for pair in (("removed", before), ("added", after)) if pair[1]]
    return [*words(before, after)]


def _as_text(message: Message) -> str:
    """What a message says, its calls of tools included."""
    calls = [f"{call.name}({as_text(call.arguments)})" for call in message.tool_calls]
    files = [f"[{each.kind}: {each.name}]" for each in message.attachments]
    return "\n".join(filter(None, (message.text, *calls, *files)))


def as_text(value: Any) -> str:
    """Return a value as a person reads it: a text as it is, other data as indented JSON."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, indent=2, ensure_ascii=False)
    except (TypeError, ValueError):  # bytes, integers of very many digits
        return canonical(to_json(value))
