"""The commands that messages name, as a user types them in the folder where pytest was started."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from pytest_lmcache.commands import Commands
from pytest_lmcache.plugin.rootdir import folders_between, relative

# pytest takes the folder of such a file for rootdir, for some of them only if they have a section of pytest's.
CONFIGURATIONS = (
    *("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"),
    "setup.py",
)


def test_commands(config: pytest.Config, nodeid: str, path: Path) -> Commands:
    """The commands that record a test, or all tests of a collector, again."""
    file, separator, names = nodeid.partition("::")
    # The id of a test outside of rootdir, such as one of --pyargs, is not its path.
    test = config.rootpath / file
    test = test if file and test.exists() else path
    shown = _relative(test, config) + separator + names
    quoted = shlex.quote(shown) if any(sign in shown for sign in '"$`\\!') else f'"{shown}"'
    arguments = f"{_rootdir_options(test, config)}{quoted}"
    return Commands(f"pytest --lm-record {arguments}", f"pytest --lm-rewrite {arguments}")


def _rootdir_options(test: Path, config: pytest.Config) -> str:
    """The options that make pytest take this run's rootdir and configuration for one file; empty if it does so anyway."""
    rootdir, inipath = config.rootpath, config.inipath
    is_given = config.getoption("inifilename") or config.getoption("rootdir")
    is_default = rootdir == (config.invocation_params.dir if inipath is None else inipath.parent)
    if is_default and not is_given and test.is_relative_to(rootdir):
        folders = folders_between(rootdir, test)
        if not any((folder / name).exists() for folder in folders for name in CONFIGURATIONS):
            return ""
    options = "" if inipath is None else f"-c {shlex.quote(_relative(inipath, config))} "
    if inipath is None or inipath.parent != rootdir:
        options += f"--rootdir={shlex.quote(_relative(rootdir, config))} "
    return options


def _relative(path: Path, config: pytest.Config) -> str:
    return relative(path, config.invocation_params.dir).replace(os.sep, "/")
