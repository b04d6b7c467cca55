"""The project that the command finds: rootdir, configuration and cassette folders, the same as pytest's."""

import re

import pytest

from pytest_lmcache.cli.frame import Misuse
from pytest_lmcache.cli.project import Project
from pytest_lmcache.settings import Settings

INI = "[pytest]\nlm_cassette_dir = of ini\n"
LAYOUTS = {
    "nothing": ({}, ".", []),
    "pytest.ini": ({"pytest.ini": INI}, ".", []),
    "empty pytest.ini": ({"pytest.ini": "", "pyproject.toml": "[tool.pytest.ini_options]\n"}, ".", []),
    "from below": ({"pytest.ini": INI, "a/b/x.py": ""}, "a/b", []),
    "native table": ({"pyproject.toml": "[tool.pytest]\nlm_cassette_dir = 'of toml'\n"}, ".", []),
    "old table": ({"pyproject.toml": "[tool.pytest.ini_options]\nlm_cassette_dir = 'of toml'\n"}, ".", []),
    "project without a section": ({"a/pyproject.toml": "[project]\nname = 'x'\n"}, "a", []),
    "a section above": ({"a/pyproject.toml": "[project]\nname = 'x'\n", "pytest.ini": INI}, "a", []),
    "pytest.toml": ({"pytest.toml": "[pytest]\nlm_cassette_dir = 'of toml'\n", "pytest.ini": INI}, ".", []),
    "hidden": ({".pytest.ini": INI, "tox.ini": "[pytest]\nlm_cassette_dir = of tox\n"}, ".", []),
    "tox.ini": ({"tox.ini": "[tox]\n[pytest]\nlm_cassette_dir = of tox\n"}, ".", []),
    "setup.cfg": ({"setup.cfg": "[tool:pytest]\nlm_cassette_dir = of cfg\n"}, ".", []),
    "others' files": ({"tox.ini": "[tox]\n", "setup.cfg": "[metadata]\n", "a/x.py": ""}, "a", []),
    "setup.py": ({"a/setup.py": "", "a/b/x.py": ""}, "a/b", []),
    "an argument": ({"one/pytest.ini": INI, "one/test_x.py": ""}, ".", ["one/test_x.py::test_y[a::b]"]),
    "two arguments": ({"pytest.ini": INI, "one/pytest.ini": "[pytest]\n", "two/x.py": ""}, ".", ["one", "two"]),
    "only below": ({"one/pytest.ini": INI, "two/x.py": ""}, ".", ["one", "two"]),
    "no such argument": ({"pytest.ini": INI}, ".", ["none/test_x.py"]),
    "another file": ({"ci/x.ini": INI, "pytest.ini": "[pytest]\n"}, ".", ["-c", "ci/x.ini"]),
    "another TOML file": ({"ci/x.toml": "[tool.pytest.ini_options]\nlm_cassette_dir = 'x'\n"}, ".", ["-c", "ci/x.toml"]),
    "rootdir": ({"pytest.ini": INI, "a/x.py": ""}, ".", ["--rootdir", "a"]),
    "override": ({"pytest.ini": INI}, ".", ["-o", "lm_cassette_dir=other"]),
    "environment": ({"pytest.ini": INI, "a/x.py": ""}, ".", ["PYTEST_ADDOPTS", "-q --rootdir=a -o lm_cassette_dir=b"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_as_pytest_finds_it(name, pytester, monkeypatch):
    """Rootdir, configuration file and cassette folder are those of pytest with the same arguments."""
    if name == "pytest.toml" and pytest.version_tuple < (9,):
        pytest.skip("since pytest 9")
    files, folder, arguments = LAYOUTS[name]
    for path, text in files.items():
        (pytester.path / path).parent.mkdir(parents=True, exist_ok=True)
        (pytester.path / path).write_text(text)
    monkeypatch.chdir(pytester.path / folder)
    if arguments[:1] == ["PYTEST_ADDOPTS"]:
        monkeypatch.setenv(*arguments)
        arguments = []
    config = pytester.parseconfig(*arguments)
    options = {"-c": "config_file", "--rootdir": "rootdir", "-o": "override_ini"}
    given = {}
    if arguments and arguments[0] in options:
        given[options[arguments[0]]] = [arguments[1]] if arguments[0] == "-o" else arguments[1]
        arguments = []
    paths = [(pytester.path / argument.partition("::")[0]) for argument in arguments]
    found = Project.find(paths, **given)
    assert found.rootdir == config.rootpath
    assert found.inipath == config.inipath
    assert found.cassette_dir == (config.getini("lm_cassette_dir") or "cassettes")


def test_settings_in_each_form(tmp_path, monkeypatch):
    """Lists, flags and texts are the same in an ini file and in TOML."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nlm_normalize =\n    uuid\n    date\nlm_share = yes\nlm_max_age = 90d\n"
    )
    ini = Project.find().settings(Settings)
    (tmp_path / "pytest.ini").unlink()
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest]\nlm_normalise = ["uuid", "date"]\nlm_share = true\nlm_max_age = "90d"\n'
    )
    toml = Project.find().settings(Settings)
    assert ini == toml
    assert (toml.normalize, toml.share, toml.max_age) == (("uuid", "date"), True, 90 * 86400)


def test_cassette_folders(tmp_path, monkeypatch):
    """Those of a monorepo's packages are found, beside tests too, but none in what pytest does not search."""
    monkeypatch.chdir(tmp_path)
    for name in ("cassettes/cassettes", "one/cassettes", "one/tests/cassettes", ".venv/cassettes", "env/cassettes", "build/cassettes"):  # fmt: skip
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "env/pyvenv.cfg").write_text("")

    def found(**given):
        return sorted(str(each.relative_to(tmp_path)) for each in Project.find(**given).cassette_folders())

    assert found() == ["cassettes", "one/cassettes", "one/tests/cassettes"]
    assert found(override_ini=["lm_cassette_dir={test_dir}/cassettes"]) == found()
    assert found(override_ini=["lm_cassette_dir=tests/cassettes"]) == ["one/tests/cassettes"]
    assert found(override_ini=[f"lm_cassette_dir={tmp_path}/env/cassettes"]) == ["env/cassettes"]
    assert found(override_ini=["norecursedirs=one"]) == [".venv/cassettes", "build/cassettes", "cassettes"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"config_file": "none.ini"}, "there is no configuration file none.ini"),
        ({"rootdir": "none"}, "there is no folder none"),
        ({"override_ini": ["x"]}, "-o/--override-ini takes name=value, not 'x'"),
    ],
)
def test_options_that_are_wrong(tmp_path, monkeypatch, given, said):
    """The error says what the option needs."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Misuse, match=re.escape(said)):
        Project.find(**given)


@pytest.mark.parametrize(("name", "text"), [("pyproject.toml", "x = ["), ("pytest.ini", "x\n[")])
def test_a_configuration_that_is_broken(tmp_path, monkeypatch, name, text):
    """The file is named, without a traceback."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(Misuse, match=f"{name} cannot be read"):
        Project.find()
