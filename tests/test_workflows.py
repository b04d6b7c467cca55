"""The workflow files of docs/: they are valid, and their scripts do what they say."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).resolve().parent.parent / "docs"
FILES = sorted(DOCS.glob("*.yml"))


def steps(file):
    """The steps of a workflow's only job."""
    [job] = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].values()
    return job["steps"]


def scripts(file):
    return [step["run"] for step in steps(file) if "run" in step]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_is_a_workflow(file):
    """It runs by the clock and by hand, with no more rights than it needs, and its scripts are shell."""
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert set(workflow[True]) == {"schedule", "workflow_dispatch"}  # YAML 1.1 reads `on` as true
    assert workflow["permissions"]["contents"] == ("write" if file.name == "refresh.yml" else "read")
    assert all(isinstance(step.get("uses", step.get("run")), str) for step in steps(file))
    for script in scripts(file):
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_options_exist(pytester):
    """Every option that a workflow gives to pytest is one of the plugin's."""
    used = {
        option for file in FILES for option in re.findall(r"--lm-[a-z]+", file.read_text(encoding="utf-8"))
    }
    assert used == {"--lm-rewrite", "--lm-budget", "--lm-mode"}
    assert used <= set(re.findall(r"--lm-[a-z]+", pytester.runpytest("--help").stdout.str()))


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_pull_request(tmp_path, outcome):
    """The script pushes the new cassettes and opens a pull request with the diff and the tests that failed."""
    [script] = [script for script in scripts(DOCS / "refresh.yml") if "gh pr create" in script]
    there, here, tools, temporary = (tmp_path / name for name in ("there", "here", "tools", "temporary"))
    for folder in (tools, temporary):
        folder.mkdir()
    for name, text in {
        "gh": 'echo "$@" >> "$RUNNER_TEMP/gh.txt"',
        "pytest-lmcache": 'echo "## Recordings: $*"',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    (temporary / "run.txt").write_text("FAILED test_it.py::test_one - AssertionError\n1 failed\n")
    environment = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RUNNER_TEMP": str(temporary),
        "BRANCH": "fresh-recordings",
        "OUTCOME": outcome,
        **{f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }

    def run(*command):
        subprocess.run(command, check=True, cwd=here, env=environment, capture_output=True)

    subprocess.run(["git", "init", "-q", "--bare", there], check=True)
    subprocess.run(["git", "clone", "-q", there, here], check=True, capture_output=True)
    (here / "cassettes").mkdir()
    (here / "cassettes/x.yaml").write_text("old\n")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "first")
    run("bash", "-e", "-c", script)
    assert not (temporary / "gh.txt").exists(), "nothing has changed"
    (here / "cassettes/x.yaml").write_text("new\n")
    run("bash", "-e", "-c", script)
    asked = (temporary / "gh.txt").read_text()
    assert asked.startswith("pr create --title Fresh recordings --body-file ")
    text = (temporary / "text.md").read_text()
    assert text.startswith("## Recordings: diff --git HEAD --markdown\n")
    assert ("FAILED test_it.py::test_one" in text) == (outcome == "failure")
    shown = subprocess.run(
        ["git", "show", "fresh-recordings:cassettes/x.yaml"],
        cwd=there,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "new\n"
