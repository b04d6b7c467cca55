"""Recordings that somebody edited: whatever a field holds, a call gets an answer or a CassetteError with its line."""

import asyncio
import copy
import random
import re
import warnings

import litellm
import pytest
from helpers import EXACT, GOLDEN
from litellm.integrations.custom_logger import CustomLogger

from pytest_lmcache import use_cassette
from pytest_lmcache.cassette import yaml_reader, yaml_writer
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.errors import CassetteError

HEADER = "lmcache: 1\nkey: exact/1\n--- # 1\n"
GONE = object()
WRONG = (None, True, 0, -1, 5, 10**400, 1.5, float("nan"), float("inf"), "", "x", "é\n", b"\xff",
         [], [1], [None], ["x"], [[]], [{}], {}, {"a": 1}, {"x": None}, {1: 2}, GONE)  # fmt: skip
ASKED = ("key", "call", "request")


def recordings():
    """A recording of each kind, as the document's fields."""
    golden = next(path for path in GOLDEN if path.stem == "calls")
    found = {}
    for number, entry in enumerate(Cassette(golden, EXACT).entries):
        fields = yaml_reader.load(entry.text)
        kind = next(name for name in ("response", "chunks", "error") if name in fields)
        found[f"{number}-{fields['call']}-{kind}"] = fields
    return found


RECORDED = recordings()


def places(value, path=()):
    """The path to each field of a recording beside the question."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        if path or name not in ASKED:
            yield (*path, name)
            # The chunks in the middle of a stream are alike.
            if path != ("chunks",) or name in {0, 1, len(value) - 1}:
                yield from places(item, (*path, name))


def edited(fields, path, value):
    changed = copy.deepcopy(fields)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    if value is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


EDITS = [
    (kind, path, value) for kind, fields in RECORDED.items() for path in places(fields) for value in WRONG
]


def write(path, fields):
    path.write_text(HEADER + yaml_writer.dump(fields), encoding="utf-8")
    return path


def answered(name, request, *, is_async):
    """All that a caller may look at of an answer, as text."""
    if name == "anthropic_messages":
        return asyncio.run(aanswered(litellm.anthropic.messages.acreate, request))
    if is_async:
        return asyncio.run(aanswered(getattr(litellm, f"a{name}"), request))
    answer = getattr(litellm, name)(**request)
    if request.get("stream"):
        return "".join(map(shown, answer))
    return shown(answer)


async def aanswered(function, request):
    answer = await function(**request)
    if request.get("stream"):
        return "".join([shown(chunk) async for chunk in answer])
    return shown(answer)


def shown(answer):
    return repr(answer) + str(answer)


def outcome(path, fields, how):
    """``answer``, ``error`` for a recorded one, or ``refused``; anything else that is raised fails the test."""
    request = {**fields["request"], "api_key": "sk-local"}
    how = {**how}
    is_async, is_heard = how.pop("is_async", False), how.pop("is_heard", False)
    try:
        with (
            pytest.MonkeyPatch.context() as patch,
            use_cassette(path, mode="replay", **how) as tape,
        ):
            patch.setattr(litellm, "callbacks", [CustomLogger()] if is_heard else [])
            try:
                answered(fields["call"], request, is_async=is_async)
            except CassetteError:
                raise
            except Exception as error:
                # The recorded one, which may be looked at.
                if type(error).__module__.split(".")[0] not in {"litellm", "openai"} or tape.faults:
                    raise
                shown(error)
                return "error"
            assert [call.source for call in tape.calls] == ["cassette"]
            assert tape.usage["total_tokens"] < 10**15
            return "answer"
    except CassetteError as refused:
        assert re.match(re.escape(f"{path}:") + "[1-9][0-9]*: ", str(refused)), refused
        return "refused"


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic's, of a field that is printed with another type
        yield


@pytest.mark.parametrize("kind", RECORDED)
def test_recordings_replay_as_they_are(tmp_path, kind, quiet):
    """Each kind of recording is answered, or raises what was recorded, before anything is edited."""
    fields = RECORDED[kind]
    ends = "error" if "error" in fields else "answer"
    if fields.get("left_early"):
        return
    assert outcome(write(tmp_path / "x.yaml", fields), fields, {}) == ends


SAMPLE = random.Random(1).sample(EDITS, 300)  # all 15,000 pass too, in seven minutes
WAYS = [{}, {"usage": "empty"}, {"is_async": True}, {"is_heard": True}]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_whatever_a_field_holds_is_answered_or_refused(tmp_path, part, quiet):
    """No edit of a recorded answer becomes an exception that the code under test, or its author, cannot place."""
    faults = []
    for number, (kind, path, value) in enumerate(SAMPLE[part::4]):
        how = WAYS[number % len(WAYS)]
        fields = edited(RECORDED[kind], path, value)
        if RECORDED[kind].get("left_early"):
            continue
        file = write(tmp_path / f"{number}.yaml", fields)
        try:
            outcome(file, fields, how)
        except BaseException as error:
            faults.append(f"{kind} {path} = {value!r:.40} {how}: {type(error).__name__}: {str(error)[:200]}")
    assert not faults, "\n".join(faults)


def text_of(kind):
    return HEADER + yaml_writer.dump(RECORDED[next(name for name in RECORDED if name.endswith(kind))])


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("completion-response", r"seconds: .*", f"seconds: {'9' * 400}"),
        ("completion-response", r"seconds: .*", "seconds: .nan"),
        ("completion-response", r"lmcache: 1", f"lmcache: {'9' * 5000}"),
        ("completion-response", r"lmcache: 1", f"lmcache: {'9' * 12}"),
        ("completion-response", r"total_tokens: .*", f"total_tokens: {'9' * 5000}"),
        ("completion-response", r"recorded: .*", "hidden: [1]\nrecorded: 2026-11-23T09:12:44Z"),
        (
            "completion-response",
            r"recorded: .*",
            "hidden: {additional_headers: 5}\nrecorded: 2026-11-23T09:12:44Z",
        ),
        ("completion-chunks", r"(?s)chunks:.*recorded:", "chunks: [{choices: 5}]\nrecorded:"),
        ("embedding-response", r"(?s)response:.*recorded:", 'chunks:\n- {"id": "x"}\nrecorded:'),
        ("completion-error", r"  num_retries: .*\n", ""),
        ("completion-error", r"  class: .*\n", "  class: litellm.exceptions.NoSuchError\n"),
    ],
)
def test_edits_that_were_met(tmp_path, kind, old, new, quiet):
    """What once came out as OverflowError, AttributeError or KeyError names the file and the line."""
    text = text_of(kind)
    assert re.search(old, text)
    path = tmp_path / "x.yaml"
    path.write_text(re.sub(old, new, text, count=1))
    fields = RECORDED[next(name for name in RECORDED if name.endswith(kind))]
    assert outcome(path, fields, {}) == "refused"


@pytest.mark.parametrize("old", [r"prompt_tokens: .*", r"completion_tokens: .*"])
def test_counts_that_can_be_none_count_as_nothing(tmp_path, old, quiet):
    """A summary is printed whatever a provider, or an editor, wrote for a number of tokens."""
    path, fields = tmp_path / "x.yaml", RECORDED["0-completion-response"]
    path.write_text(
        re.sub(old, lambda found: found[0].split(":")[0] + ": " + "9" * 400, text_of("0-completion-response"))
    )
    assert outcome(path, fields, {}) == "answer"
    details = "prompt_tokens_details: [1]\n    prompt_tokens:"
    path.write_text(re.sub(r"prompt_tokens:", details, text_of("0-completion-response"), count=1))
    assert outcome(path, fields, {}) in {"answer", "refused"}
