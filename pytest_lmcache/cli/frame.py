"""What all commands of ``pytest-lmcache`` share: their class with an example, the group that loads them, exit codes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.core import ParameterSource

from pytest_lmcache.errors import LMCacheError

FINE, FOUND, MISUSE = 0, 1, 2
"""The exit codes: all is well; something was found, such as a broken cassette; wrong usage."""
BROKEN_PIPE = 141  # as a shell says it of a program that SIGPIPE has ended


class Command(click.Command):
    """A command, with an example of its usage for its help. It returns its exit code; None is `FINE`."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example below the options."""
        with formatter.section("Example"):
            for line in self.example.splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Group(click.Group):
    """The commands by name, each in a module that is loaded when it is used; its command is named ``command``."""

    def __init__(self, *args: Any, modules: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.modules = modules

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return [*self.modules]

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Load a command."""
        module = self.modules.get(name)
        if module is None:
            return None
        command: click.Command = import_module(module).command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find a command by its name; an error for a wrong one names the nearest."""
        name = args[0]
        if name not in self.modules and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name, self.modules, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Commands: {', '.join(self.modules)}."
            raise click.UsageError(f"There is no command {name!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the arguments name, and exit with its code."""
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except LMCacheError as problem:
            raise Misuse(str(problem)) from None
        except BrokenPipeError:
            # The reader, such as `head`, has seen enough. Python would complain when it flushes again at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = BROKEN_PIPE
        ctx.exit(code or FINE)


def again(*more: str) -> str:
    """The command line of the command that runs, with more options: the same targets and settings."""
    ctx = click.get_current_context()
    words: list[str] = []
    for param in ctx.command.params:
        if ctx.get_parameter_source(param.name or "") is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[param.name or ""]
        values = value if isinstance(value, tuple) else (value,)
        if isinstance(param, click.Argument):
            words += values
        elif isinstance(param, click.Option):
            name = max(param.opts, key=len)
            words += [name] if param.is_flag else [f"{name}={each}" for each in values]
    return " ".join([ctx.command_path, *more, *map(shlex.quote, words)])


class Misuse(click.ClickException):
    """Raised for what the user has to change: a setting, a target, a file that cannot be written. Exit code 2."""

    exit_code = MISUSE
