"""What the tests of the command share: cassettes, and the command run in this process or on a terminal."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from pytest_lmcache.cassette.document import entry_of
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.cassette.merge import CallToSave
from pytest_lmcache.cli.main import main
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


USD = {"gpt-4o": 0.5, "local": None}


def record(path, *said, test=""):
    """A cassette of conversations: pairs of messages and a text, or of a request and an `Answer`."""
    keys = strategy("exact")
    lines = [f"# pytest-lmcache cassette of {test}\n"] if test else []
    lines.append("lmcache: 2\nkey: exact/1\n")
    for number, (asked, answered) in enumerate(said):
        request = {"model": "gpt-4o", "messages": asked} if isinstance(asked, list) else asked
        call = Call("completion", request)
        answer = answered
        if isinstance(answered, str):
            message = {"role": "assistant", "content": answered}
            usage = {"prompt_tokens": 1000 * len(said), "completion_tokens": 5}
            choices = [{"finish_reason": "stop", "message": message}]
            answer = Answer(Kind.RESPONSE, {"model": request["model"], "choices": choices, "usage": usage}, seconds=0.5, usd=USD.get(request["model"]))  # fmt: skip
        interaction = Interaction(keys.key(call), call, answer, f"2026-11-{10 + number}T09:12:44Z")
        lines.append(f"--- # {number + 1}\n{entry_of(interaction, path).text.decode()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def user(text):
    return {"role": "user", "content": text}


def run(capsys, *arguments):
    """What a command prints on standard output and standard error, and its exit code."""
    code = main([*arguments])
    out, err = capsys.readouterr()
    return out, err, code


def on_terminal(folder, *arguments, columns=80, **environment):
    """What a command prints on a terminal of so many columns."""
    import fcntl
    import pty
    import struct
    import subprocess
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color", **environment}
    for name in ("COLUMNS", "LINES", *(() if "NO_COLOR" in environment else ("NO_COLOR",))):
        env.pop(name, None)
    program = Path(sys.executable).with_name("pytest-lmcache")
    process = subprocess.Popen([program, *arguments], stdout=follower, stderr=follower, cwd=folder, env=env)
    os.close(follower)
    text = b""
    try:
        while piece := os.read(leader, 65536):
            text += piece
    except OSError:
        pass  # Linux says so at the end
    os.close(leader)
    return text.decode().replace("\r\n", "\n"), process.wait()


def labelled(path, label, *texts):
    """A cassette whose first lines name its owner, as a run writes them."""
    write(path, *(texts or ("x",)))
    head = f"# pytest-lmcache cassette of {label}\n"
    if "::" in label:
        head += f'# record again: pytest --lm-rewrite "{label}"\n'
    path.write_text(head + path.read_text())
    return path


def with_cache_folder(suite):
    """Let the runs of a suite keep pytest's cache folder, which has the record of the last run."""
    at = suite.options.index("no:cacheprovider")
    suite.options = (*suite.options[: at - 1], *suite.options[at + 1 :])
    return suite


def git(folder, *arguments):
    """Run git in a folder, as nobody in particular."""
    identity = ("-c", "user.name=x", "-c", "user.email=x@x.invalid", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def lazily(suite, text, name="test_it.py"):
    """Write a test file of a suite that does not import LiteLLM when it is collected, which takes seconds."""
    head = "import pytest\n\ndef ask(text):\n    from app import ask\n    return ask(text)\n\n"
    return suite.file(name, head + dedent(text))
