"""The command upgrade: it rewrites streams in the newest format."""

import json
from pathlib import Path

from cli_helpers import write

from pytest_lmcache.cli.main import main

GOLDEN = Path(__file__).parents[1] / "cassette" / "golden"


def test_upgrade_writes_streams_in_the_newest_format(tmp_path, capsys):
    """It names the files that it changed, and what it could not read; others are left alone."""
    path = tmp_path / "cassettes" / "calls.yaml"
    write(path.with_name("new.yaml"), "x")
    path.write_bytes((GOLDEN / "format1" / "calls.yaml").read_bytes())
    path.with_name("vcr.yaml").write_text("interactions:\n- {}\n")
    assert main(["upgrade", str(tmp_path)]) == 0
    assert capsys.readouterr() == (f"{path}\n1 cassette written\n", "")
    assert path.read_bytes() == (GOLDEN / "format2" / "calls.yaml").read_bytes()
    assert main(["upgrade", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "0 cassettes written\n"
    path.write_text("lmcache: 1\n")
    assert main(["upgrade", str(path)]) == 1
    assert f"{path}:1: this cassette is cut off" in capsys.readouterr().err


def test_json(tmp_path, capsys):
    """The fields name what was written, and what is broken."""
    path = tmp_path / "calls.yaml"
    path.write_bytes((GOLDEN / "format1" / "calls.yaml").read_bytes())
    (tmp_path / "x.yaml").write_text("lmcache: 1\n")
    assert main(["upgrade", "--json", str(tmp_path)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["written"] == [str(path)]
    assert [each["file"] for each in found["broken"]] == [str(tmp_path / "x.yaml")]
