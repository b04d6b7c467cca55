"""The command ``show``: recordings as conversations."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from pytest_lmcache.cassette.facts import CallFacts, CassetteFacts
from pytest_lmcache.cli.frame import Command
from pytest_lmcache.cli.output import finish, json_option, print_json, write
from pytest_lmcache.cli.project import shown
from pytest_lmcache.cli.reading import Problem, each_cassette, parsed, place
from pytest_lmcache.cli.targets import Selection, takes_targets
from pytest_lmcache.clock import seconds_since
from pytest_lmcache.conversation import Conversation, Message, conversation, repeated, tool_name
from pytest_lmcache.interaction import Kind
from pytest_lmcache.tags import to_json
from pytest_lmcache.wording import age, counted, dollars

ROLES = {
    "system": "magenta",
    "developer": "magenta",
    "user": "green",
    "assistant": "cyan",
    "tool": "yellow",
    "value": "cyan",
}


@click.command(
    "show", cls=Command, example='pytest-lmcache show "tests/test_agent.py::test_plan[a]" --call=2'
)
@takes_targets
@click.option(
    "--call",
    "number",
    type=click.IntRange(min=1),
    metavar="N",
    help="Show only the n-th call of each cassette.",
)
@click.option("--full", is_flag=True, help="Repeat the messages that an earlier call of the test has too.")
@json_option
def command(selection: Selection, *, number: int | None, full: bool, as_json: bool) -> int:
    """Show recordings as conversations.

    It shows roles, texts, tool calls and their results, reasoning and errors. The chunks of a stream are joined.
    Images, sound and files are named. Messages that an earlier call of the same test has too are left out, unless you
    give --full.
    """
    problems: list[Problem] = []
    cassettes: list[dict[str, Any]] = []
    for facts in each_cassette(selection, problems):
        if as_json:
            cassettes.append({**place(facts), "calls": [*_calls_as_json(facts, number, problems)]})
        else:
            _show(facts, number, problems, full=full)
    if as_json:
        print_json({"cassettes": cassettes, "broken": [each.as_json() for each in problems]})
    return finish(problems, [selection.emptiness])


def _show(facts: CassetteFacts, number: int | None, problems: list[Problem], *, full: bool) -> None:
    write(facts.test or shown(facts.path), style="bold")
    if facts.test:
        write(shown(facts.path), style="dim")
    earlier: list[tuple[int, Conversation]] = []
    for at, call in enumerate(facts.calls, 1):
        interaction = parsed(call, problems)
        if interaction is None:
            write(f"\n#{at} is broken, see below", style="red")
            continue
        said = conversation(interaction.call, interaction.answer)
        if number in {None, at}:
            _show_call(at, call, said, [] if full or number else earlier)
        earlier.append((at, said))
    if number is not None and number > len(facts.calls):
        write(
            f"\nthere is no call {number}: the cassette has {counted(len(facts.calls), 'call')}", style="dim"
        )
    write()


def _show_call(at: int, call: CallFacts, said: Conversation, earlier: list[tuple[int, Conversation]]) -> None:
    answered = said.answered_model
    other = f" (answered: {answered})" if answered and not said.model.endswith(answered) else ""
    facts = [
        f"{call.tokens[0]:,} + {call.tokens[1]:,} tokens" if any(call.tokens) else "",
        dollars(call.usd) if call.usd is not None else "",
        f"{call.seconds:.2f} s",
        "streamed" if call.kind is Kind.STREAM else "",
        f"{age(seconds_since(call.recorded))} ago",
    ]
    write(f"\n#{at} {call.name}  {said.model}{other}".rstrip(), style="bold")
    write(", ".join(filter(None, facts)), indent=3, style="dim")
    if said.parameters:
        write(
            "  ".join(f"{name}={_brief(value)}" for name, value in said.parameters.items()),
            indent=3,
            style="dim",
        )
    if said.tools:
        write(f"tools: {', '.join(map(tool_name, said.tools))}", indent=3, style="dim")
    known, source = max(((repeated([each], said.asked), number) for number, each in earlier), default=(0, 0))
    if known:
        write(f"… {counted(known, 'message')} as in #{source}", indent=3, style="dim")
    for message in said.asked[known:]:
        _show_message(message)
    for choice, message in enumerate(said.answered, 1):
        _show_message(message, f" (choice {choice})" if len(said.answered) > 1 else "")
    if said.finish_reason not in {"", "stop", "completed", "end_turn"}:
        write(f"finished: {said.finish_reason}", indent=3, style="dim")
    if said.error:
        write("error", indent=3, style="bold red")
        write(said.error, indent=5, style="red")


def _show_message(message: Message, choice: str = "") -> None:
    answers = f" {message.tool_call_id}" if message.tool_call_id else ""
    write(f"{message.role}{answers}{choice}", indent=3, style=f"bold {ROLES.get(message.role, 'white')}")
    if message.reasoning:
        write("reasoning:", indent=5, style="dim italic")
        write(message.reasoning, indent=7, style="dim italic")
    if message.text:
        write(message.text, indent=5)
    for each in message.attachments:
        write(f"[{each.kind}: {each.name}]", indent=5, style="blue")
    for call in message.tool_calls:
        arguments = call.arguments
        texts = (
            [f"{name}={_brief(value)}" for name, value in arguments.items()]
            if isinstance(arguments, dict)
            else [str(arguments)]
        )
        own_id = f"  {call.id}" if call.id else ""
        write(f"→ {call.name}({', '.join(texts)}){own_id}", indent=5, style="yellow")


def _brief(value: Any) -> str:
    return json.dumps(to_json(value), ensure_ascii=False)


def _calls_as_json(facts: CassetteFacts, number: int | None, problems: list[Problem]) -> Any:
    for at, call in enumerate(facts.calls, 1):
        if number not in {None, at} or (interaction := parsed(call, problems)) is None:
            continue
        said = asdict(conversation(interaction.call, interaction.answer))
        for message in (*said["asked"], *said["answered"]):
            for each in message["attachments"]:
                if each["url"].startswith("data:"):
                    del each["url"]  # its content; the cassette has it
        yield {
            "number": at,
            "name": call.name,
            "key": call.entry.key,
            "kind": call.kind,
            "input_tokens": call.tokens[0],
            "output_tokens": call.tokens[1],
            "usd": call.usd,
            "seconds": call.seconds,
            "recorded": call.recorded,
            **said,
        }
