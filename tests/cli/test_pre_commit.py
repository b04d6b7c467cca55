"""The hooks for pre-commit: they look at the changed cassettes, and stop a commit with a key in one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import git, write

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
KEY = "sk-proj-" + "Ab3dEf6hIj9kLm2nOp5qRs8t" * 2  # of no account
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BIN / "pre-commit").exists(), reason="pre-commit is not installed"),
]


@pytest.fixture
def commit(tmp_path):
    """A project whose hook is this checkout's; returns what makes a commit there and gives its output."""
    hooks, project = tmp_path / "hooks", tmp_path / "project"
    for folder in (hooks, project):
        folder.mkdir()
        git(folder, "init")
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    git(hooks, "add", ".")
    git(hooks, "commit", "-m", "hooks")

    def run(hook):
        git(project, "add", ".")
        environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PRE_COMMIT_HOME": str(tmp_path / "home"),
        }
        command = [BIN / "pre-commit", "try-repo", str(hooks), hook, "--verbose"]
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout + done.stderr

    run.project = project
    return run


@pytest.mark.parametrize("hook", ["pytest-lmcache-check", "pytest-lmcache-scan"])
def test_a_planted_key_stops_the_commit(commit, hook):
    """The hook names the file, the line and the kind of the key, and not the key; without it the commit goes through."""
    path = write(commit.project / "cassettes/test_it/test one[a].yaml", "why")
    (commit.project / "notes.yaml").write_text(f"no cassette: {KEY}\n")
    sound = path.read_text()
    code, said = commit(hook)
    assert code == 0, said
    path.write_text(sound.replace("choices: []", f"choices: []\n  note: {KEY}"))
    code, said = commit(hook)
    assert code == 1
    line = path.read_text().splitlines().index(f"  note: {KEY}") + 1
    assert f"cassettes/test_it/test one[a].yaml:{line}: " in said
    assert "openai-key" in said
    assert KEY not in said
