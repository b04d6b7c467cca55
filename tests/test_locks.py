"""The lock beside a cassette: one process at a time writes it, who hangs is named, and nothing else is touched."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import filelock
import pytest
from helpers import contents, interaction, record

from pytest_lmcache import locks
from pytest_lmcache.errors import CassetteError, LMCacheWarning
from pytest_lmcache.locks import exclusive_writing

HOLD = """
import sys
from pathlib import Path
from pytest_lmcache.locks import exclusive_writing
with exclusive_writing(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path):
    """A cassette, alone in its folder."""
    path = tmp_path / "cassettes" / "test_x.yaml"
    record(path, interaction("a", "A"))
    return path


@pytest.fixture
def beside(path):
    """Where the cassette's lock file lies while it is held."""
    return path.with_name(".test_x.yaml.lock")


@pytest.fixture
def holder(path):
    """Another process that holds the lock, and has another temporary folder."""
    environment = {**os.environ, "TMPDIR": str(path.parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.readline() == b"locked\n"
        yield process
        process.kill()


def test_a_lock_that_hangs_is_told_with_its_holder(path, holder, monkeypatch):
    """A process that is stopped while it writes does not stop all others in silence."""
    monkeypatch.setattr(locks, "HOLD_LIMIT", 0.05)
    before = path.read_bytes()
    with pytest.raises(CassetteError) as refused:
        record(path, interaction("b", "B"))
    assert f"{path} cannot be written: process {holder.pid} on {platform.node()} (" in str(refused.value)
    assert "pytest --lm-record" in str(refused.value)
    assert path.read_bytes() == before


def test_what_the_command_was_given_is_not_written_down(path, beside, monkeypatch):
    """A secret on the command line does not get into a file that others may read."""
    monkeypatch.setattr(sys, "argv", ["/opt/bin/pytest", "--token=sk-proj-4f3kQ9zL2m"])
    with exclusive_writing(path):
        assert "(bin/pytest, since " in beside.read_text()
        assert "sk-proj" not in beside.read_text()
    monkeypatch.setattr(sys, "argv", [])
    with exclusive_writing(path):
        assert "(python, since " in beside.read_text()


@pytest.mark.parametrize("end", ["done", "killed"])
def test_the_next_one_writes(path, beside, holder, end):
    """Once the other has written, or is dead, the next one does; its lock file does not stay."""
    if end == "done":
        holder.stdin.write(b"\n")
        holder.stdin.flush()
    else:
        holder.kill()
    holder.wait()
    assert beside.exists() == (end == "killed")
    assert record(path, interaction("b", "B"), keep_unused=True)
    assert contents(path) == ["A", "B"]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "file", "pipe"])
def test_what_stands_in_its_place_harms_nothing(path, beside, tmp_path, kind):
    """A link with the lock file's name, from a checkout or from another user, has no other file overwritten."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    if kind == "hard link":
        beside.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(beside)
    elif kind == "file":
        beside.write_text("left by a crash")
    else:
        beside.symlink_to(victim if kind == "link" else tmp_path / "new")
    assert record(path, interaction("b", "B"))
    assert victim.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == [path.parent, victim]
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_in_its_place_is_told(path, beside):
    """What cannot be removed is an error with the file's name, and the cassette is left alone."""
    beside.mkdir()
    before = path.read_bytes()
    with pytest.raises(CassetteError, match=r"test_x.yaml cannot be written: .*\.test_x\.yaml\.lock"):
        record(path, interaction("b", "B"))
    assert path.read_bytes() == before


def test_a_file_system_without_locks_is_told(path, beside, monkeypatch):
    """Where the system can lock nothing, recording goes on, and says what that may cost."""

    def refuse(*_, **__):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(filelock, "lock_descriptor", refuse)
    with pytest.warns(LMCacheWarning, match="file system without locks .*Operation not supported"):
        record(path, interaction("b", "B"), keep_unused=True)
    assert contents(path) == ["A", "B"]
    assert not beside.exists()


def test_a_name_as_long_as_can_be(tmp_path):
    """The longest name that a cassette may have leaves room for its lock."""
    path = tmp_path / f"{'x' * 250}.yaml"
    assert record(path, interaction("a", "A"))
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_no_lock(path, monkeypatch):
    """Where nothing can be written any more that is what the error says, this time and the next."""

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        patch.setattr(Path, "write_bytes", full)
        for _ in range(2):
            with pytest.raises(CassetteError, match="cannot be written: No space left on device"):
                record(path, interaction("b", "B"))
    assert list(path.parent.iterdir()) == [path]
    assert record(path, interaction("b", "B"))
