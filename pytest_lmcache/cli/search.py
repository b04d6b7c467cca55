"""The command ``search``: finds a text in what was asked and answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import click

from pytest_lmcache.cassette.facts import CallFacts
from pytest_lmcache.cli.frame import FINE, FOUND, Command, Misuse
from pytest_lmcache.cli.output import finish, json_option, print_json, write
from pytest_lmcache.cli.project import shown
from pytest_lmcache.cli.reading import Problem, each_cassette, parsed
from pytest_lmcache.cli.targets import Selection, takes_targets
from pytest_lmcache.conversation import Conversation, Message, conversation, repeated
from pytest_lmcache.errors import CassetteError
from pytest_lmcache.interaction import Call, Kind
from pytest_lmcache.tags import to_json

# Written as they are in YAML and in JSON, so that they are found without parsing.
WORD = re.compile(r"[A-Za-z0-9]{2,}")
AROUND = 80  # characters of a line that are shown on each side of a match


class Match(NamedTuple):
    """One match. ``line`` is the line that has it, from ``start`` to ``end``; ``part`` is what of the message it is."""

    file: str
    test: str
    number: int
    call: CallFacts
    role: str
    part: str
    line: str
    start: int
    end: int


@click.command(
    "search", cls=Command, example='pytest-lmcache search "capital of" --role=user tests/test_agent.py'
)
@click.argument("text")
@takes_targets
@click.option("-e", "--regex", is_flag=True, help="TEXT is a regular expression.")
@click.option("-i", "--ignore-case", is_flag=True, help="Ignore upper and lower case.")
@click.option(
    "--role",
    type=click.Choice(["system", "developer", "user", "assistant", "tool", "value"]),
    help="Search only messages of this role.",
)
@click.option("--model", metavar="NAME", help="Search only calls of models whose name contains this.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there is a match.")
@json_option
def command(
    selection: Selection,
    text: str,
    *,
    regex: bool,
    ignore_case: bool,
    role: str | None,
    model: str | None,
    exit_code: bool,
    as_json: bool,
) -> int:
    """Find TEXT in prompts and answers.

    It also searches tool calls and their results, reasoning, tools, parameters and errors. It prints one line for each
    match: cassette, number of the call, role, and the line of the message. A message that several calls of a test have
    in common is searched once.
    """
    if not text:
        raise click.UsageError("search takes the TEXT to look for, and it is empty.")
    try:
        pattern = re.compile(text if regex else re.escape(text), re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise Misuse(f"{text!r} is not a regular expression: {error}") from None
    problems: list[Problem] = []
    matches = []
    words = [] if regex else [word.encode() for word in WORD.findall(text.lower() if ignore_case else text)]
    for match in _matches(selection, pattern, words, problems, role=role, model=model or ""):
        matches.append(match)
        if not as_json:
            _show(match)
    if as_json:
        print_json({"matches": [*map(_as_json, matches)], "broken": [each.as_json() for each in problems]})
    code = finish(problems, [selection.emptiness])
    return FOUND if code is FOUND or (exit_code and matches) else FINE


def _matches(
    selection: Selection,
    pattern: re.Pattern[str],
    words: Sequence[bytes],
    problems: list[Problem],
    *,
    role: str | None,
    model: str,
) -> Iterator[Match]:
    for facts in each_cassette(selection, problems):
        earlier: list[Conversation] = []
        file = shown(facts.path)
        for number, call in enumerate(facts.calls, 1):
            if model not in call.model or not _may_match(call, pattern, words):
                continue
            interaction = parsed(call, problems)
            if interaction is None:
                continue
            said = conversation(interaction.call, interaction.answer)
            for who, part, text in _texts(said, repeated(earlier, said.asked), role):
                for found in pattern.finditer(text):
                    if not found[0]:
                        continue  # a pattern such as `x*` matches between any two characters
                    start = text.rfind("\n", 0, found.start()) + 1
                    end = text.find("\n", found.end())
                    line = text[start:] if end < 0 else text[start:end]
                    span = found.start() - start, found.end() - start
                    yield Match(file, facts.test, number, call, who, part, line, *span)
            earlier.append(said)


def _may_match(call: CallFacts, pattern: re.Pattern[str], words: Sequence[bytes]) -> bool:
    """Whether an interaction is worth parsing: it is not if a word of the text is not in it.

    Only a stream has words in pieces. Its answer is read faster than its request.
    """
    text = call.entry.text
    text = text.lower() if pattern.flags & re.IGNORECASE else text
    if all(word in text for word in words) or call.kind is not Kind.STREAM:
        return all(word in text for word in words)
    try:
        said = conversation(Call(call.name, {}), call.entry.answer())
    except CassetteError:
        return True  # told when it is parsed
    return any(pattern.search(text) is not None for _, _, text in _texts(said, 0, None))


def _texts(said: Conversation, known: int, role: str | None) -> Iterator[tuple[str, str, str]]:
    """Role, part and text of all that can be searched; not of the first messages, which an earlier call has."""
    for message in (*said.asked[known:], *said.answered):
        if role in {None, message.role}:
            yield from _texts_of(message)
    if role is None:
        for tool in said.tools:
            yield "", "tools", _json(tool)
        if said.parameters:
            yield "", "parameters", _json(said.parameters)
        yield "", "error", said.error


def _texts_of(message: Message) -> Iterator[tuple[str, str, str]]:
    yield message.role, "text", message.text
    yield message.role, "reasoning", message.reasoning
    for call in message.tool_calls:
        arguments = call.arguments if isinstance(call.arguments, str) else _json(call.arguments)
        yield message.role, "tool call", f"{call.name}({arguments})"
    for each in message.attachments:
        yield message.role, each.kind, each.name


def _json(value: Any) -> str:
    return json.dumps(to_json(value), ensure_ascii=False)


def _show(match: Match) -> None:
    part = match.part if match.part != "text" else ""
    head = f"{match.file} #{match.number} {' '.join(filter(None, (match.role, part)))}: "
    start = max(match.start - AROUND, 0)
    end = min(match.end + AROUND, len(match.line))
    line = ("…" if start else "") + match.line[start:end] + ("…" if end < len(match.line) else "")
    at = len(head) + bool(start) + match.start - start
    text = (head + line).replace("\n", " ")
    write(text, marked=(at, at + match.end - match.start))


def _as_json(match: Match) -> dict[str, Any]:
    return {
        "file": match.file,
        "test": match.test,
        "call": match.number,
        "name": match.call.name,
        "model": match.call.model,
        "role": match.role,
        "part": match.part,
        "line": match.line,
        "start": match.start,
        "end": match.end,
    }
