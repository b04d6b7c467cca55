"""How a new answer differs from the recording whose place it takes."""

from __future__ import annotations

import json
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.cassette.merge import most_similar, places
from pytest_lmcache.conversation import Conversation, Message, conversation
from pytest_lmcache.errors import CassetteError
from pytest_lmcache.interaction import Interaction
from pytest_lmcache.keys.plain import canonical
from pytest_lmcache.nearest import ABSENT, Difference, nearest
from pytest_lmcache.saving import calls_to_save
from pytest_lmcache.settings import Mode
from pytest_lmcache.tags import to_json
from pytest_lmcache.word_diff import words

if TYPE_CHECKING:
    from pytest_lmcache.cassette.document import Entry
    from pytest_lmcache.recorder import Recorder
    from pytest_lmcache.verify import Comparison

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


def recorded_again(old: Entry, new: Interaction) -> dict[str, Any] | None:
    """What a recording said that is replaced, and how the new one differs; None if nothing that is shown does."""
    try:
        before = old.interaction()
    except CassetteError:  # it could not be read before either
        return None
    found = compared("recorded again", before, new)
    is_same = all(tag == "same" for words in found["answers"] for tag, _ in words)
    is_same = is_same and found["before"]["error"] == found["after"]["error"]
    return None if is_same and not found["question"] else found


def asked_again(found: Comparison, recorded: str) -> dict[str, Any]:
    """A recorded answer beside the one that a model gives now; nothing if there are not both of them."""
    if found.recorded is None or found.new is None:
        return {"problem": found.why} if found.why else {}
    now = found.call._replace(request={**found.call.request, "model": found.asked})
    before, after = Interaction("", found.call, found.recorded, recorded), Interaction("", now, found.new, "")
    verdict = f"{found.verdict}: {found.why}" if found.why else str(found.verdict)
    return {"comparison": {**compared("asked again", before, after, verdict), "question": []}}


def compared(kind: str, before: Interaction, after: Interaction, verdict: str = "") -> dict[str, Any]:
    """How two answers differ, and what they cost; their questions may differ too."""
    nearest_call = nearest(after.call, [before.call])
    old, new = conversation(before.call, before.answer), conversation(after.call, after.answer)
    texts = zip_longest(map(_as_text, old.answered), map(_as_text, new.answered), fillvalue="")
    return {
        "kind": kind,
        "verdict": verdict,
        "question": [] if nearest_call is None else [*map(_difference, nearest_call.differences)],
        "answers": [_words(*pair) for pair in texts],
        "before": _side(before, old),
        "after": _side(after, new),
    }


def _side(interaction: Interaction, read: Conversation) -> dict[str, Any]:
    answer = interaction.answer
    return {
        "recorded": interaction.recorded,
        "model": read.model,
        "tokens": [*answer.tokens],
        "usd": answer.usd,
        "seconds": answer.seconds,
        "finish": read.finish_reason,
        "error": read.error,
    }


def _difference(difference: Difference) -> dict[str, Any]:
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
