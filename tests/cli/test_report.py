"""The command report: the page of cassettes."""

import json
import re

import pytest
from cli_helpers import write

from pytest_lmcache.cli.main import main


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def data_of(path):
    text = re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1]
    return json.loads(text)


def test_page_of_cassettes(project, capsys):
    """The page has the conversations of the cassettes that the targets name, by their tests; folders are made."""
    write(project / "cassettes/test_a/test_one.yaml", "one", "two")
    write(project / "cassettes/test_b/test_three.yaml", "three")
    assert main(["report", "-o", "out/page.html"]) == 0
    assert capsys.readouterr().out == "out/page.html: 2 cassettes, 3 recordings\n"
    data = data_of(project / "out/page.html")
    assert [message["text"] for message in data["messages"]] == ["one", "two", "three"]
    assert {call["outcome"] for call in data["calls"]} == {"saved"}
    assert data["tests"][0] == {
        "id": "cassettes/test_a/test_one.yaml",
        "outcome": "",
        "cassette": "cassettes/test_a/test_one.yaml",
    }
    assert main(["report", "--json", "cassettes/test_b"]) == 0
    expected = {"file": "lmcache-report.html", "cassettes": 1, "recordings": 1, "unused": 0}
    assert json.loads(capsys.readouterr().out) == expected
    assert [path.name for path in project.iterdir() if path.name.startswith(".")] == []


def test_what_the_last_run_knows(suite, monkeypatch, capsys):
    """After a run the page says how each test ended, and which recordings it did not ask for."""
    suite.file("pytest.ini", "[pytest]\n")
    text = """
        @pytest.mark.lm_cache
        def test_one():
            ask("one")
            ask("two")
    """
    suite.test(text)
    options = [*suite.options, "-p", "cacheprovider"]
    assert suite.run("--lm-record", alone=options).ret == 0
    suite.test(text.replace('ask("two")', ""))
    assert suite.run(alone=options).ret == 0
    monkeypatch.chdir(suite.folder)
    assert main(["report", "-o", "page.html"]) == 0
    data = data_of(suite.folder / "page.html")
    assert [call["outcome"] for call in data["calls"]] == ["saved", "unused"]
    assert data["tests"][0]["outcome"] == "passed"
    assert data["tests"][0]["id"] == "test_it.py::test_one"
    assert "the last run (" in (suite.folder / "page.html").read_text()
    capsys.readouterr()
    # Another file than the one that the run knows.
    path = suite.folder / "cassettes/test_it/test_one.yaml"
    path.write_text(f"# mine\n{path.read_text()}")
    assert main(["report", "-o", "page.html"]) == 0
    assert {call["outcome"] for call in data_of(suite.folder / "page.html")["calls"]} == {"saved"}


def test_broken_cassette(project, capsys):
    """A broken cassette is named with its line, the others are in the page, and the exit code is 1."""
    write(project / "cassettes/a.yaml", "one")
    broken = write(project / "cassettes/c.yaml", "two")
    broken.write_text(broken.read_text().replace("choices: []", "choices: ["))
    assert main(["report", "-o", "page.html"]) == 1
    assert "c.yaml:" in capsys.readouterr().err
    (project / "cassettes/b.yaml").write_text("lmcache: 1\nkey: exact/1\n--- # 1\nkey: [\n")
    assert main(["report", "-o", "page.html"]) == 1
    out, err = capsys.readouterr()
    assert "page.html: 3 cassettes, " in out
    assert "b.yaml:" in err
    assert "c.yaml:" in err
    data = data_of(project / "page.html")
    assert "one" in [message["text"] for message in data["messages"]]
    assert any("c.yaml:" in call["problem"] for call in data["calls"])


def test_nothing_to_show(project, capsys):
    """Without a cassette no page is written, and the exit code is 1."""
    assert main(["report"]) == 1
    assert "has no cassette of pytest-lmcache. The page was not written." in capsys.readouterr().err
    assert not (project / "lmcache-report.html").exists()


@pytest.mark.parametrize(
    ("path", "problem"), [(".", "it is a folder"), ("pytest.ini/x.html", "is no folder")]
)
def test_path_that_cannot_be(project, capsys, path, problem):
    """A path that no file can be written to is misuse."""
    write(project / "cassettes/a.yaml", "one")
    assert main(["report", "-o", path]) == 2
    assert problem in capsys.readouterr().err
