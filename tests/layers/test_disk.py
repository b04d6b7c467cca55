"""The disk layer: nothing of it is ever unpickled, nothing put is lost, and no trouble is more than a LayerError."""

import gc
import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from diskcache import FanoutCache
from freezegun import freeze_time

from pytest_lmcache.errors import LayerError
from pytest_lmcache.layers import disk
from pytest_lmcache.layers.disk import DiskLayer

MODE_RAW, MODE_BINARY, MODE_TEXT, MODE_PICKLE = 1, 2, 3, 4


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def layer(folder):
    layer = DiskLayer(folder)
    yield layer
    layer.close()


@pytest.fixture
def impatient(monkeypatch):
    """Waits for a lock of others no longer than a moment."""
    monkeypatch.setattr(disk, "DB_TIMEOUT", 0.05)


def database(folder):
    return sqlite3.connect(folder / "000" / "cache.db", isolation_level=None)


def rows(folder):
    connection = database(folder)
    try:
        return connection.execute("SELECT count(*) FROM Cache").fetchone()[0]
    finally:
        connection.close()


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def evil(folder):
    """A pickle, and the file that is there once it was unpickled; shown to work."""
    path = folder.parent / "unpickled"
    data = pickle.dumps(Evil(path))
    pickle.loads(data)
    assert path.exists()
    path.unlink()
    return data, path


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param(lambda data: {"mode": MODE_PICKLE, "value": data}, id="pickle"),
        pytest.param(
            lambda data: {"mode": MODE_PICKLE, "value": None, "filename": "a/b.val"}, id="pickle-in-file"
        ),
        pytest.param(lambda data: {"value": data}, id="bytes"),
        pytest.param(
            lambda data: {"mode": MODE_BINARY, "value": None, "filename": "a/b.val"}, id="bytes-in-file"
        ),
        pytest.param(
            lambda data: {"mode": MODE_TEXT, "value": None, "filename": "../../secret"}, id="text-in-file"
        ),
        pytest.param(lambda data: {"filename": "../../secret"}, id="text-and-file"),
        pytest.param(lambda data: {"mode": "3", "value": "{}"}, id="mode-of-text"),
        pytest.param(lambda data: {"mode": None}, id="no-mode"),
        pytest.param(lambda data: {"value": 5}, id="number"),
        pytest.param(lambda data: {"value": None}, id="nothing"),
        pytest.param(lambda data: {"value": "{"}, id="no-json"),
        pytest.param(lambda data: {"value": "[1]"}, id="json-of-a-list"),
        pytest.param(lambda data: {"value": "[" * 100_000}, id="json-too-deep"),
    ],
)
def test_foreign_row(folder, layer, columns):
    """A row of any other kind, a pickled one above all, is not there, runs nothing, and is removed."""
    data, path = evil(folder)
    layer.put("k1", {"a": 1})
    layer.put("k2", {"a": 2})
    secret = folder.parent / "secret"
    secret.write_text('{"a": "secret"}')
    (folder / "000" / "a").mkdir()
    (folder / "000" / "a" / "b.val").write_bytes(data)
    planted = columns(data)
    with database(folder) as connection:
        connection.execute(
            f"UPDATE Cache SET {', '.join(f'{name} = ?' for name in planted)} WHERE key = 'k1'",
            list(planted.values()),
        )
    connection.close()
    assert layer.get("k1") is None
    assert not path.exists()
    assert rows(folder) == 1, "and is gone"
    assert secret.exists(), "what a row names as its file is no file of ours"
    assert layer.get("k2") == {"a": 2}
    layer.put("k1", {"a": 3})
    assert layer.get("k1") == {"a": 3}


def test_pickled_key(folder):
    """A row with a pickled key runs nothing, neither when the database is opened nor when the row is evicted."""
    data, path = evil(folder)
    layer = DiskLayer(folder, size_limit_bytes=300_000)
    layer.put("k1", {"a": 1})
    layer.close()
    with database(folder) as connection:
        for raw in (0, 1):
            connection.execute(
                "INSERT INTO Cache(key, raw, access_time, mode, value, expire_time, tag)"
                " VALUES (?, ?, 0, ?, ?, 1, ?)",
                (data, raw, MODE_PICKLE, data, data),
            )
        connection.execute("INSERT INTO Settings VALUES ('disk_other', ?)", (data,))
        connection.execute("DELETE FROM Settings WHERE key = 'disk_other'")
    connection.close()
    layer = DiskLayer(folder, size_limit_bytes=300_000)
    assert layer.get("k1") == {"a": 1}
    assert rows(folder) == 3
    for turn in range(100):
        layer.put(f"k{turn}", {"a": "x" * 10_000})
    layer.close()
    with database(folder) as connection:
        assert connection.execute("SELECT count(*) FROM Cache WHERE key = ?", (data,)).fetchone() == (0,)
    connection.close()
    assert not path.exists()


def test_text_is_all_there_is(folder, layer):
    """A person can read the cache: JSON in one table, large values too, short keys, and no files beside it."""
    value = {"text": "ä" * 100_000, "n": [1.5, None]}
    layer.put("k1", value)
    connection = database(folder)
    [(mode, filename, text)] = connection.execute("SELECT mode, filename, value FROM Cache").fetchall()
    connection.close()
    assert (mode, filename, json.loads(text)) == (MODE_RAW, None, value)
    layer.put("ä" * 100_000, {})
    layer.put("x" * 100_000, {})
    with database(folder) as connection:
        assert connection.execute("SELECT max(length(key)) FROM Cache").fetchone()[0] <= 200
    connection.close()
    assert {path.name.partition("-")[0] for path in (folder / "000").iterdir()} == {"cache.db"}


def test_a_database_of_an_earlier_version(folder, layer):
    """What 0.1 kept by way of diskcache's FanoutCache is there, and is evicted in its turn."""
    with FanoutCache(folder, shards=1, eviction_policy="least-recently-used", cull_limit=0) as before:
        before.set("k1", '{"a":1}')
    assert layer.get("k1") == {"a": 1}
    layer.close()
    small = DiskLayer(folder, size_limit_bytes=100_000)
    small.put("k2", {"a": "x" * 100_000})
    assert small.get("k1") is None
    small.close()


def test_nothing_before_it_is_used(folder):
    """Making the layer, and closing it, leaves no trace on disk."""
    DiskLayer(folder).close()
    assert not folder.exists()


def test_new_folder_is_kept_out_of_git(folder, layer):
    """Git, and what makes backups, take no notice of a folder that the layer has made."""
    layer.put("k1", {})
    assert (folder / ".gitignore").read_text().splitlines()[-1] == "*"
    assert (folder / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")


def test_nobody_else_reads_it(folder, layer):
    """The folder and its folders are open to their owner alone, and so is each file."""
    layer.put("k1", {"a": 1})
    layer.single_flight.claim("k1")
    modes = {
        path.relative_to(folder.parent): path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))
    }
    assert len(modes) > 5
    for path, mode in modes.items():
        assert mode == (0o700 if (folder.parent / path).is_dir() else 0o600), path


def test_folder_of_others_stays_in_git(folder, layer):
    """A folder that was there, the project's own maybe, is not hidden from git."""
    folder.mkdir()
    layer.put("k1", {})
    assert [path.name for path in folder.iterdir()] == ["000"]


def test_folder_stays_where_it_was(tmp_path, monkeypatch):
    """A test that changes the current folder does not move the cache."""
    monkeypatch.chdir(tmp_path)
    layer = DiskLayer(Path("cache"))
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    layer.put("k1", {})
    layer.close()
    assert (tmp_path / "cache" / "000").is_dir()


def test_least_recently_used_goes_first(folder):
    """Up to its limit the layer keeps all; then what was not used for longest goes, and the folder stays small."""
    layer = DiskLayer(folder, size_limit_bytes=1_000_000)
    layer.put("used", {"a": "x" * 1000})
    for turn in range(3000):
        layer.put(f"k{turn}", {"a": "x" * 1000})
        assert layer.get("used") is not None
    assert layer.get("k0") is None
    assert layer.get("k2999") is not None
    assert 500 < rows(folder) < 1000
    layer.close()
    assert (folder / "000" / "cache.db").stat().st_size < 1_100_000


@pytest.mark.parametrize("moved", ["2020-01-01", "2040-01-01"])
def test_a_moved_clock_makes_none_first_or_last_to_go(folder, moved):
    """What was stored where a test has moved the clock goes when its turn comes, neither before nor never."""
    layer = DiskLayer(folder, size_limit_bytes=400_000)
    layer.put("before", {"a": "x" * 100_000})
    with freeze_time(moved):
        layer.put("moved", {"a": "x" * 100_000})
    layer.put("after", {"a": "x" * 100_000})
    layer.put("one more", {"a": "x" * 100_000})
    assert [layer.get(key) is not None for key in ("before", "moved", "after")] == [False, True, True]
    layer.put("two more", {"a": "x" * 200_000})
    assert [layer.get(key) is not None for key in ("moved", "after", "one more")] == [False, True, False]
    layer.close()


def test_use_counts_in_other_processes(folder):
    """What an earlier run has read is not the first to go in a later one."""
    layer = DiskLayer(folder)
    for turn in range(300):
        layer.put(f"k{turn}", {"a": "x" * 1000})
    layer.close()
    layer = DiskLayer(folder)
    assert layer.get("k0") is not None
    layer.close()
    layer = DiskLayer(folder, size_limit_bytes=300_000)
    layer.put("new", {"a": "x" * 1000})
    assert layer.get("k0") is not None
    assert layer.get("k1") is None
    layer.close()


def test_large_values_fit_the_limit_too(folder):
    """However large a value is, it is there after it was put, and others go until it fits."""
    layer = DiskLayer(folder, size_limit_bytes=1_000_000)
    for turn in range(200):
        layer.put(f"small{turn}", {"a": "x" * 1000})
    for turn in range(10):
        layer.put(f"large{turn}", {"a": "x" * 300_000})
        assert layer.get(f"large{turn}") is not None
    assert rows(folder) == 3
    layer.put("huge", {"a": "x" * 2_000_000})
    assert layer.get("huge") is not None
    assert rows(folder) == 1
    layer.close()


def test_kill(folder):
    """A process that is killed as soon as ``put`` has returned has lost nothing, whatever the value's size."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from pytest_lmcache.layers.disk import DiskLayer\n"
        "layer = DiskLayer(Path(sys.argv[1]))\n"
        "for number, size in enumerate([10, 100_000, 5_000_000]):\n"
        "    layer.put(f'k{number}', {'a': 'x' * size})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    layer = DiskLayer(folder)
    assert [len(layer.get(f"k{number}")["a"]) for number in range(3)] == [10, 100_000, 5_000_000]
    layer.close()


def test_processes_at_once(folder):
    """The workers of one run may open a new folder at the same moment, and write and read it all the time."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pytest_lmcache.layers.disk import DiskLayer\n"
        "layer = DiskLayer(Path(sys.argv[1]))\n"
        "sys.stdin.readline()\n"
        "for turn in range(50):\n"
        "    layer.put(f'{sys.argv[2]}-{turn}', {'a': turn})\n"
        "    layer.put('shared', {'a': 'x' * 1000})\n"
        "    assert layer.get(f'{sys.argv[2]}-{turn}') == {'a': turn}\n"
        "    assert layer.get('shared') == {'a': 'x' * 1000}\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, folder, str(number)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number in range(4)
    ]
    for worker in workers:
        worker.stdin.write(b"\n")
        worker.stdin.flush()
    assert [worker.communicate(timeout=60)[1] for worker in workers] == [b""] * 4
    layer = DiskLayer(folder)
    assert all(layer.get(f"{number}-{turn}") == {"a": turn} for number in range(4) for turn in range(50))
    layer.close()


@pytest.fixture
def opened(monkeypatch):
    """Every connection that is made from now on; each knows whether it is closed."""
    connections = []

    class Connection(sqlite3.Connection):
        closed = False

        def close(self):
            super().close()
            self.closed = True

    connect = sqlite3.connect

    def remembered(*given, **more):
        connections.append(connect(*given, factory=Connection, **more))
        return connections[-1]

    monkeypatch.setattr(sqlite3, "connect", remembered)
    return connections


def test_threads_leave_no_connection(layer, opened):
    """A thread that ends leaves no open connection behind, about which Python would warn."""
    thread = threading.Thread(target=lambda: (layer.put("k1", {"a": 1}), layer.get("k1")))
    thread.start()
    thread.join()
    assert len(opened) > 1
    assert all(connection.closed for connection in opened)
    assert layer.get("k1") == {"a": 1}
    assert not opened[-1].closed, "the main thread's stays open"
    layer.close()
    assert all(connection.closed for connection in opened)


def test_forgotten_layer_leaves_no_connection(folder, opened):
    """A layer that nobody closes, and nobody has any more, leaves no open connection behind either."""
    DiskLayer(folder).put("k1", {"a": 1})
    gc.collect()
    assert opened
    assert all(connection.closed for connection in opened)


# ---- trouble ------------------------------------------------------------------------------------------------


def troubled(act, folder, problem):
    """The disk is in trouble, and the error says where, which, and what mends it."""
    with pytest.raises(LayerError) as caught:
        act()
    text = str(caught.value)
    assert text.startswith(f"The cache in {folder} cannot be used: ")
    assert problem in text.partition("\n")[0]
    assert "delete the folder, or name another one (lm_disk_dir, disk_cache_dir=...)" in text


def both(layer):
    return (lambda: layer.get("k1"), lambda: layer.put("k1", {"a": 1}))


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_broken_database(folder, layer, content):
    """A database that is none, or was damaged, is left alone and told of."""
    (folder / "000").mkdir(parents=True)
    (folder / "000" / "cache.db").write_bytes(content)
    for act in both(layer):
        troubled(act, folder, "file is not a database")
    assert (folder / "000" / "cache.db").read_bytes() == content


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DROP TABLE Cache; CREATE TABLE Cache (a)", "no such column"),
        ("INSERT INTO Settings VALUES ('disk_other', 1)", "unexpected keyword"),
        ("INSERT INTO Settings VALUES ('sqlite_no;', 1)", ""),
        ("INSERT INTO Settings VALUES ('_sql', 1)", ""),
    ],
)
def test_strange_database(folder, layer, damage, problem):
    """A database of another make is told of, however it shows."""
    layer.put("k1", {"a": 1})
    layer.close()
    connection = database(folder)
    connection.executescript(damage)
    connection.close()
    troubled(lambda: (layer.get("k1"), layer.put("k1", {})), folder, problem)


@pytest.mark.parametrize(
    ("opened", "begin"),
    [
        (True, "BEGIN EXCLUSIVE"),
        (False, "BEGIN EXCLUSIVE"),
        (False, "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE"),
    ],
)
def test_locked(folder, layer, impatient, opened, begin):
    """A database that somebody keeps locked is waited for a little while, not for ever; then all is well again."""
    first = DiskLayer(folder)
    first.put("k1", {"a": 1})
    first.close()
    if opened:
        layer.get("k1")
    other = database(folder)
    other.executescript(begin)
    read, write = both(layer)
    troubled(write, folder, "database is locked")
    if opened:
        assert read() == {"a": 1}, "readers do not wait for a writer"
    else:
        troubled(read, folder, "database is locked")
    other.execute("ROLLBACK")
    other.close()
    assert layer.get("k1") == {"a": 1}


def test_full(folder, layer, monkeypatch):
    """A full disk loses nothing that was there before."""
    connect = sqlite3.connect

    def full(*given, **more):
        connection = connect(*given, **more)
        connection.execute("PRAGMA max_page_count = 20")
        return connection

    layer.put("k1", {"a": 1})
    layer.close()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", full)
        troubled(lambda: layer.put("k2", {"a": "x" * 1_000_000}), folder, "full")
        assert layer.get("k1") == {"a": 1}
        layer.close()
    layer.put("k2", {"a": 2})
    assert layer.get("k2") == {"a": 2}


def test_read_only_database(folder, layer, monkeypatch):
    """A database that must not be written to is told of."""
    connect = sqlite3.connect

    def read_only(*given, **more):
        connection = connect(*given, **more)
        connection.execute("PRAGMA query_only = ON")
        return connection

    layer.put("k1", {"a": 1})
    layer.close()
    monkeypatch.setattr(sqlite3, "connect", read_only)
    for act in both(layer):
        troubled(act, folder, "attempt to write a readonly database")


def test_read_only_folder(folder, layer, monkeypatch):
    """A folder that cannot be made for want of rights is told of."""

    def refuse(*_given, **_more):
        raise PermissionError(13, os.strerror(13), "cache")

    monkeypatch.setattr(Path, "mkdir", refuse)
    for act in both(layer):
        troubled(act, folder, "Permission denied")


@pytest.mark.parametrize("where", ["file", "file/below", "nul\0"])
def test_impossible_folder(tmp_path, where):
    """A folder that cannot be one is told of."""
    (tmp_path / "file").touch()
    layer = DiskLayer(tmp_path / where)
    for act in both(layer):
        troubled(act, tmp_path / where, "")
