"""The command scan: secrets in cassettes by file, line and kind, never the secret."""

import json

import pytest
from cli_helpers import write

from pytest_lmcache.cli.main import main

KEY = "sk-proj-" + "Ab3dEf6hIj9kLm2nOp5qRs8t" * 2  # of no account


def plant(path, text):
    """A cassette that somebody has edited, or that older rules have recorded."""
    write(path, "why")
    path.write_text(path.read_text().replace("choices: []", f"choices: []\n  note: {text}"))
    return path


def found(capsys, *arguments):
    code = main(["scan", "--json", *arguments])
    out, err = capsys.readouterr()
    assert KEY not in out + err
    secrets = json.loads(out)["secrets"]
    assert code == (1 if secrets else 0)
    return [(each["line"], each["kind"]) for each in secrets]


def test_a_planted_key(tmp_path, capsys):
    """The key is found with its line and its kind; the exit code is 1, and the key is not printed."""
    path = plant(tmp_path / "one.yaml", f'"look: {KEY}"')
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if KEY in text)
    assert main(["scan", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == f"{path}:{line}: openai-key\n1 cassette, 1 secret\n"
    assert KEY not in err
    assert "pytest --lm-rewrite" in err
    assert found(capsys, str(path)) == [(line, "openai-key")]


def test_clean_cassettes(tmp_path, capsys):
    """Cassettes with placeholders, and our own recordings, have none."""
    path = plant(tmp_path / "one.yaml", "<redacted:openai-key:3f9a1c>")
    assert found(capsys, str(path)) == []
    assert main(["scan", str(path)]) == 0
    assert capsys.readouterr() == ("1 cassette, 0 secrets\n", "")


def piece(text):
    """A chunk of a stream, as a cassette has it."""
    return f'- {{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}\n'


@pytest.mark.parametrize("where", ["comment", "broken file", "request", "stream"])
def test_every_part_of_a_file_is_read(tmp_path, capsys, where):
    """A key in a comment, in a file that cannot be parsed, in a question or cut in pieces by a stream is found."""
    path = write(tmp_path / "one.yaml", "why")
    text = path.read_text()
    old, new = {
        "comment": ("lmcache: 1", f"# {KEY}\nlmcache: 1"),
        "broken file": ("choices: []", f"choices: ]\n  x: {KEY}"),
        "request": ("content: why", f"content: why {KEY}"),
        "stream": (
            "response:\n  id: x\n  choices: []",
            f"chunks:\n{piece(f'key {KEY[:20]}')}{piece(KEY[20:])}".rstrip("\n"),
        ),
    }[where]
    assert old in text
    path.write_text(text.replace(old, new))
    [(line, kind)] = found(capsys, str(path))
    assert kind == "openai-key"
    assert KEY[:10] in path.read_text().splitlines()[line - 1]


def test_rules_of_the_suite(tmp_path, capsys, monkeypatch):
    """The values of this machine's variables, and the configuration's own patterns and functions, count too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACME_API_KEY", "wunderbar-4711-xyz")
    path = plant(tmp_path / "cassettes/one.yaml", '"wunderbar-4711-xyz and customer-12345678 and Bob"')
    (tmp_path / "rules_of_scan.py").write_text("def names(text): return text.replace('Bob', 'someone')\n")
    assert [kind for _, kind in found(capsys)] == ["ACME_API_KEY"]
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\npythonpath = .\nlm_redact = customer-[0-9]+\nlm_redact_with = rules_of_scan:names\n"
    )
    assert [kind for _, kind in found(capsys)] == ["ACME_API_KEY", "pattern"]
    path.write_text(path.read_text().replace("wunderbar-4711-xyz and customer-12345678 and ", ""))
    assert [kind for _, kind in found(capsys)] == ["redact_with"]
    (tmp_path / "pytest.ini").write_text("[pytest]\nlm_redact_with = nowhere:names\n")
    assert main(["scan"]) == 2
    assert "redact_with: 'nowhere:names' cannot be imported" in capsys.readouterr().err


def test_an_empty_folder(tmp_path, capsys):
    """Nothing to scan is nothing found."""
    assert main(["scan", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "0 cassettes, 0 secrets\n"
