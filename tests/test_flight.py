"""Single flight: of those that ask the same at once on one machine, one goes ahead and the others wait a while."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from freezegun import freeze_time

from pytest_lmcache.layers import flight
from pytest_lmcache.layers.flight import LOCKS, Flight

HOLD = (
    "import sys\n"
    "from pathlib import Path\n"
    "from pytest_lmcache.layers.flight import Flight\n"
    "with Flight(Path(sys.argv[1])).enter('k1', 0) as alone:\n"
    "    print(alone, flush=True)\n"
    "    sys.stdin.readline()\n"
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def holder(folder):
    """Another process that holds the lock of k1."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"True\n"
        yield process
        process.kill()


def test_one_at_a_time(folder, holder):
    """While another process asks, a caller waits as long as it said and is told that it is not alone."""
    here = Flight(folder)
    with here.enter("k1", 0.05) as alone:
        assert not alone
    with here.enter("k2", 0) as alone:
        assert alone, "another key is free"


def test_next_one(folder, holder):
    """Once the other has its answer, the one that waits goes ahead."""
    holder.stdin.write(b"\n")
    holder.stdin.flush()
    with Flight(folder).enter("k1", 60) as alone:
        assert alone


def test_killed_holder(folder, holder):
    """A process that is killed holds nobody up."""
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with Flight(folder).enter("k1", 0) as alone:
        assert alone


def test_failure_inside(folder):
    """A call that fails lets the next one in."""
    here = Flight(folder)
    with pytest.raises(ValueError, match="failed"), here.enter("k1", 0) as alone:
        assert alone
        raise ValueError("failed")
    assert here.try_acquire("k1") is not None


def test_stopped_clock(folder):
    """Waiting has an end also for a test that has stopped the clock."""
    here = Flight(folder)
    held = here.try_acquire("k1")
    with freeze_time("2026-11-25"), here.enter("k1", 0.05) as alone:
        assert not alone
    held.release()
    held.release()
    assert here.try_acquire("k1") is not None


def test_async(folder):
    """Tasks of one event loop exclude each other too, by asking again after a sleep."""
    log, kept = [], []

    async def ask(number):
        while (held := Flight(folder).try_acquire("k1")) is None:  # noqa: ASYNC110 - the way to use it
            await asyncio.sleep(0.001)
        log.append(number)
        await asyncio.sleep(0.005)
        log.append(number)
        await asyncio.to_thread(held.release)
        kept.append(held)

    async def main():
        async with asyncio.timeout(60):
            await asyncio.gather(*map(ask, range(4)))

    asyncio.run(main())
    assert log[::2] == log[1::2]
    assert sorted(log[::2]) == [0, 1, 2, 3]


def test_lock_files_do_not_pile_up(folder, monkeypatch):
    """However many calls a suite makes, its lock files stay few, out of git, and beside the layer's database."""
    monkeypatch.setattr(flight, "LOCKS", 4)
    here = Flight(folder)
    for number in range(100):
        here.try_acquire(f"k{number}").release()
    assert len(list((folder / "locks").iterdir())) <= 4
    assert (folder / ".gitignore").exists()
    assert LOCKS == 1024


@pytest.mark.parametrize("key", ["", "ä🐐", "\ud800", "../../x", "x" * 10_000])
def test_any_key(folder, key):
    """Whatever a key looks like, its lock lies in the folder."""
    with Flight(folder).enter(key, 0) as alone:
        assert alone
        assert len(list((folder / "locks").iterdir())) == 1


def test_folder_that_cannot_be(tmp_path, monkeypatch):
    """Where there can be no lock file, calls are made without."""
    (tmp_path / "file").touch()
    with Flight(tmp_path / "file").enter("k1", 0) as alone:
        assert not alone
    monkeypatch.setattr(Path, "mkdir", lambda *_given, **_more: (_ for _ in ()).throw(PermissionError()))
    assert Flight(tmp_path / "new").try_acquire("k1") is None
