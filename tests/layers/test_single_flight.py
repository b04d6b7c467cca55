"""Single flight: of those that ask the same at once on one machine, one goes ahead."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest
from freezegun import freeze_time

from pytest_lmcache.layers import single_flight
from pytest_lmcache.layers.single_flight import LOCKS, SingleFlight

HOLD = (
    "import sys\n"
    "from pathlib import Path\n"
    "from pytest_lmcache.layers.single_flight import SingleFlight\n"
    "lock = SingleFlight(Path(sys.argv[1])).claim('k1')\n"
    "print(lock is not None, flush=True)\n"
    "sys.stdin.readline()\n"
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


@pytest.mark.parametrize("stopped", [False, True])
def test_one_at_a_time(folder, holder, stopped):
    """While another process asks there is no lock to be had, at once, also where a test has stopped the clock."""
    with freeze_time("2026-11-25") if stopped else nullcontext():
        assert SingleFlight(folder).claim("k1") is None
        assert SingleFlight(folder).claim("k2") is not None, "another key is free"


@pytest.mark.parametrize("end", ["done", "killed"])
def test_next_one(folder, holder, end):
    """Once the other has its answer, or is dead, the next one goes ahead."""
    if end == "done":
        holder.stdin.write(b"\n")
        holder.stdin.flush()
    else:
        os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert SingleFlight(folder).claim("k1") is not None


def test_async(folder):
    """Tasks of one event loop exclude each other too, by asking again after a sleep."""
    log = []

    async def ask(number):
        while (lock := SingleFlight(folder).claim("k1")) is None:  # noqa: ASYNC110 - the way to use it
            await asyncio.sleep(0.001)
        log.append(number)
        await asyncio.sleep(0.005)
        log.append(number)
        await asyncio.to_thread(lock.release)
        lock.release()

    async def main():
        await asyncio.gather(*map(ask, range(4)))

    asyncio.run(main())
    assert log[::2] == log[1::2]
    assert sorted(log[::2]) == [0, 1, 2, 3]


def test_lock_files_do_not_pile_up(folder, monkeypatch):
    """However many calls a suite makes, its lock files stay few, out of git, and beside the layer's database."""
    monkeypatch.setattr(single_flight, "LOCKS", 4)
    here = SingleFlight(folder)
    for number in range(100):
        here.claim(f"k{number}").release()
    assert len(list((folder / "locks").iterdir())) <= 4
    assert (folder / ".gitignore").exists()
    assert LOCKS == 1024


@pytest.mark.parametrize("key", ["", "ä🐐", "\ud800", "../../x", "x" * 10_000])
def test_any_key(folder, key):
    """Whatever a key looks like, its lock lies in the folder."""
    lock = SingleFlight(folder).claim(key)
    assert lock is not None
    assert len(list((folder / "locks").iterdir())) == 1
    lock.release()


def test_folder_that_cannot_be(tmp_path):
    """Where there can be no lock file, calls are made without, and wait for nothing."""
    (tmp_path / "file").touch()
    for _ in range(2):
        lock = SingleFlight(tmp_path / "file").claim("k1")
        assert lock is not None
    lock.release()


@pytest.mark.parametrize("linked", ["locks", "file"])
def test_a_link_in_the_place_of_a_lock(folder, tmp_path, linked):
    """A link puts no files elsewhere: calls are made without a lock."""
    SingleFlight(folder).claim("k1").release()
    (lock,) = (folder / "locks").iterdir()
    lock.unlink()
    out = tmp_path / "out"
    if linked == "locks":
        out.mkdir()
        (folder / "locks").rmdir()
        (folder / "locks").symlink_to(out)
    else:
        lock.symlink_to(out)
    for _ in range(2):
        assert SingleFlight(folder).claim("k1") is not None
    assert not out.exists() or not list(out.iterdir())


def test_a_lock_that_is_forgotten(folder):
    """A lock that nobody holds any more is free."""
    lock = SingleFlight(folder).claim("k1")
    assert SingleFlight(folder).claim("k1") is None
    del lock
    gc.collect()
    assert SingleFlight(folder).claim("k1") is not None


def test_a_lock_that_outlives_python(folder):
    """What is still referred to when Python ends, by a traceback that pytest keeps say, ends without a word."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom pytest_lmcache.layers.single_flight import SingleFlight\n"
        f"sys.kept = [SingleFlight(Path({str(folder)!r})).claim(key) for key in 'ab']\n"
        "sys.kept[0].release()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
