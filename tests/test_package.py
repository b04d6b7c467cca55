"""The wheel that is built from this tree, installed by itself and used away from the source."""

import email
import os
import subprocess
import sys
import tarfile
import tomllib
from configparser import ConfigParser
from pathlib import Path
from zipfile import ZipFile

import pytest
from helpers import blocks

import pytest_lmcache

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Says which package it got; the README's example is beside it.
WHERE = """
from pathlib import Path
import pytest_lmcache

def test_where(request):
    plugin = request.config.pluginmanager.get_plugin("lmcache")
    assert plugin.__name__ == "pytest_lmcache.plugin"
    assert Path(plugin.__file__).is_relative_to({site!r})
    assert Path(pytest_lmcache.__file__).is_relative_to({site!r})
"""


def run(*command, cwd, **environment):
    """Run a Python of its own, without what this run's environment adds to its path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=cwd,
        env=kept | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the wheel and the source archive, built without a network."""
    folder = tmp_path_factory.mktemp("dist")
    run("hatchling", "build", "--directory", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    [path] = built.glob("*.whl")
    with ZipFile(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def site(built, tmp_path_factory):
    """A folder with nothing in it but what the wheel installs."""
    folder = tmp_path_factory.mktemp("site")
    [path] = built.glob("*.whl")
    run("pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, path, cwd=folder)
    return folder


def dist_info(wheel, name):
    [path] = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


def test_wheel_holds_the_package_alone(wheel):
    """No other module comes along: ``lmcache`` in particular is the name of an unrelated package."""
    tops = {path.partition("/")[0] for path in wheel.namelist()}
    assert tops == {
        "pytest_lmcache",
        "pytest_lmcache.pth",
        f"pytest_lmcache-{pytest_lmcache.__version__}.dist-info",
    }
    files = [
        path for path in (ROOT / "pytest_lmcache").rglob("*") if path.is_file() and path.suffix != ".pyc"
    ]
    sources = {path.relative_to(ROOT).as_posix() for path in files}
    assert {path.rpartition(".")[2] for path in sources} == {"py", "typed", "j2", "css", "js"}
    held = {path for path in wheel.namelist() if path.startswith("pytest_lmcache/")}
    assert held == sources


def test_entry_points(wheel):
    """pytest loads the plugin as ``lmcache``; no command has that name."""
    found = ConfigParser()
    found.read_string(dist_info(wheel, "entry_points.txt"))
    assert dict(found["pytest11"]) == {"lmcache": "pytest_lmcache.plugin"}
    assert dict(found["console_scripts"]) == {"pytest-lmcache": "pytest_lmcache.cli.main:main"}
    assert set(found.sections()) == {"pytest11", "console_scripts"}


def test_metadata(wheel):
    """What an index shows of the project, and what an installer needs to know, is right."""
    metadata = email.message_from_string(dist_info(wheel, "METADATA"))
    assert metadata["Name"] == "pytest-lmcache"
    assert metadata["Version"] == pytest_lmcache.__version__
    assert metadata["License-Expression"] == "MIT"
    assert "MIT License" in dist_info(wheel, "licenses/LICENSE")
    assert metadata["Requires-Python"] == ">=3.11"
    extras = PROJECT["optional-dependencies"]
    assert set(metadata.get_all("Provides-Extra")) == set(extras) == {"redis"}
    optional = {f"{needs}; extra == {name!r}" for name, all_of_it in extras.items() for needs in all_of_it}
    assert set(metadata.get_all("Requires-Dist")) == {*PROJECT["dependencies"], *optional}
    assert {"Framework :: Pytest", "Typing :: Typed"} <= set(metadata.get_all("Classifier"))
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_replays_away_from_the_source(site, tmp_path):
    """Installed, and with nothing configured, the plugin is there and replays the README's example."""
    example, cassette = blocks("suite")[0], blocks("cassette")[0]
    (tmp_path / example.name).write_text(example.text, encoding="utf-8")
    path = tmp_path / "cassettes/test_capital/test_capital.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(cassette.text, encoding="utf-8")
    (tmp_path / "test_where.py").write_text(WHERE.format(site=str(site)), encoding="utf-8")
    told = run("pytest", "-q", "-p", "no:mockllm", cwd=tmp_path, PYTHONPATH=str(site))
    assert "1 replayed" in told
    assert "2 passed" in told


def test_command_is_installed(site, tmp_path):
    """The command of the installed package looks at cassettes."""
    path = tmp_path / "cassettes/one.yaml"
    path.parent.mkdir()
    path.write_text(blocks("cassette")[0].text, encoding="utf-8")
    script = site / "bin" / "pytest-lmcache"
    told = subprocess.run(
        [script, "check", "--files-only"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.startswith("1 cassette, 1 interaction, ")


def test_source_archive_can_be_tested(built):
    """The source archive brings the tests, the example with its recordings, and nothing of a working copy."""
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {
        "pytest_lmcache/plugin/hooks.py",
        "tests/test_package.py",
        "examples/test_assistant.py",
        "LICENSE",
    }
    assert tracked <= held
    assert any(name.startswith("cassettes/examples/") for name in held)
    assert not any(
        part.startswith(".venv") or part == "__pycache__" for name in held for part in name.split("/")
    )
