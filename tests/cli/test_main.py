"""The command as a whole: what it is called, what it loads, what its help says, how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import write
from click.testing import CliRunner

from pytest_lmcache import __version__
from pytest_lmcache.cli.frame import Command
from pytest_lmcache.cli.main import COMMANDS, group, main

PROGRAM = Path(sys.executable).with_name("pytest-lmcache")


def help_of(name):
    return CliRunner().invoke(group, [name, "--help"], prog_name="pytest-lmcache").output


@pytest.mark.slow
def test_installed_command():
    """The command is installed under the project's name and tells its version."""
    done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pytest-lmcache {__version__}\n"


@pytest.mark.slow
def test_help_loads_little():
    """Help comes at once: it imports no table, no YAML, no LiteLLM and no pytest."""
    code = (
        "import sys; from pytest_lmcache.cli.main import main; assert main(['--help']) == 0; "
        "print([name for name in ('rich', 'yaml', 'litellm', 'pytest', '_pytest') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(name):
    """Each command says what it does, and has an example, which names it and options that it has."""
    text = help_of(name)
    command = group.get_command(None, name)
    assert isinstance(command, Command)
    assert command.name == name
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options
    for line in command.example.splitlines():
        assert line.startswith(f"pytest-lmcache {name}")
        assert f"Example:\n  {command.example.splitlines()[0]}\n" in text
        assert {word.partition("=")[0] for word in line.split() if word.startswith("-")} <= options


def test_a_command_that_does_not_exist(capsys):
    """The error names the nearest command, and wrong usage exits with 2."""
    assert main(["chek"]) == 2
    assert "There is no command 'chek'. Did you mean 'check'?" in capsys.readouterr().err
    assert main(["xyz"]) == 2
    assert f"Commands: {', '.join(COMMANDS)}." in capsys.readouterr().err
    assert main(["check", "--no-such-option"]) == 2


@pytest.mark.slow
def test_a_reader_that_leaves(tmp_path):
    """`pytest-lmcache … | head -1` prints one line and no complaint, however much is left to print."""
    for number in range(300):
        write(tmp_path / f"cassettes/{'long' * 20}/{number}.yaml", "x")
    script = f'"{PROGRAM}" list --json | head -1; echo "${{PIPESTATUS[0]}}"'
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "",
    }  # without a buffer Python does not notice that a pipe broke
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert (done.stdout, done.stderr) == ("{\n141\n", "")
