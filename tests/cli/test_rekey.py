"""The command rekey: keys by another strategy or other normalizers, without a call."""

import json

import pytest
from cli_helpers import labelled, write

from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.cli.main import main
from pytest_lmcache.keys.strategies import strategy


def test_another_strategy(tmp_path, capsys):
    """Each key and the header's become those of the strategy; nothing else of the file changes."""
    path = write(tmp_path / "one.yaml", "x", "y")
    before = path.read_text().splitlines()
    assert main(["rekey", "--key", "messages", "--normalize", "date", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 2 new keys\n1 cassette written\n"
    after = path.read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert changed[0] == ("key: exact/1", "key: messages/1+date/2")
    assert [(old[:6], new[:6]) for old, new in changed[1:]] == [("key: k", "key: k")] * 2
    keys = strategy("messages", ["date"])
    for entry in Cassette(path, keys).entries:
        assert entry.stored_key() == keys.key(entry.call())
    assert main(["rekey", "--key", "messages", "--normalize", "date", str(path)]) == 0
    assert capsys.readouterr().out == "0 cassettes written\n"
    assert main(["check", "--files-only", str(path)]) == 0


def test_calls_that_become_equal(tmp_path, capsys):
    """Calls that have one key now are told by their numbers; a dry run writes nothing."""
    path = write(tmp_path / "one.yaml", "on 2026-01-02", "x", "on 2026-01-03")
    before = path.read_text()
    assert main(["rekey", "--normalize", "date", "--dry-run", str(path)]) == 0
    assert capsys.readouterr().out == (
        f"{path}: 2 new keys\n  calls 1, 3 are equal now\n1 cassette to write; 1 group of calls became equal\n"
    )
    assert path.read_text() == before
    assert main(["rekey", "--normalize", "date", "--json", str(path)]) == 0
    [found] = json.loads(capsys.readouterr().out)["cassettes"]
    assert found == {"path": str(path), "written": True, "changed": 2, "equal_now": [[1, 3]]}


@pytest.mark.slow
def test_settings_of_each_test(tmp_path, capsys, monkeypatch):
    """Without options each cassette gets the keys of its test's mark, or of the configuration; functions are imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:randomly\nlm_key = content\n")
    (tmp_path / "keys_of_rekey.py").write_text("def model(request): return request['model']\n")
    (tmp_path / "test_a.py").write_text(
        "import pytest\n"
        "from keys_of_rekey import model\n"
        "@pytest.mark.lm_cache(key=model)\n"
        "def test_own(): pass\n"
        "@pytest.mark.lm_cache\n"
        "def test_ini(): pass\n"
        "@pytest.mark.lm_cache(key=lambda request: 'x')\n"
        "def test_lambda(): pass\n"
    )
    for name in ("test_own", "test_ini", "test_lambda"):
        labelled(tmp_path / f"cassettes/test_a/{name}.yaml", f"test_a.py::{name}", "x", "y")
    assert main(["rekey"]) == 1
    out, err = capsys.readouterr()
    assert err == (
        "cassettes/test_a/test_lambda.yaml: the key function of its test has no dotted path, so it cannot be called here. "
        "Define it in a module.\n"
    )
    assert "cassettes/test_a/test_own.yaml: 2 new keys\n  calls 1, 2 are equal now\n" in out
    for name, key in (("own", "own:keys_of_rekey.model"), ("ini", "content/1"), ("lambda", "exact/1")):
        assert f"\nkey: {key}\n" in (tmp_path / f"cassettes/test_a/test_{name}.yaml").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--key", "nothing"), "There is no key strategy 'nothing'. Use exact, messages, content"),
        (("--normalize", "re:("), "is not a regular expression"),
    ],
)
def test_wrong_settings(tmp_path, capsys, options, said):
    """A strategy or a normalizer that does not exist is wrong usage, and the valid ones are named."""
    path = write(tmp_path / "one.yaml", "x")
    assert main(["rekey", *options, str(path)]) == 2
    assert said in capsys.readouterr().err


def test_a_broken_cassette(tmp_path, capsys):
    """A broken file is named and left alone; the others are written."""
    broken, sound = write(tmp_path / "a.yaml", "x"), write(tmp_path / "b.yaml", "x")
    broken.write_text(broken.read_text().replace("request:", "request: ["))
    text = broken.read_text()
    assert main(["rekey", "--key", "messages", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert f"{broken}:" in err
    assert out == f"{sound}: 1 new key\n1 cassette written\n"
    assert broken.read_text() == text
