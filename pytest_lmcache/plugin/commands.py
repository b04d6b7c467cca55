"""The command lines that messages name, as they are typed where pytest was started."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from pytest_lmcache import places
from pytest_lmcache.commands import Commands


def test_commands(config: pytest.Config, nodeid: str, path: Path) -> Commands:
    """The commands that record a test, or all that a collector holds."""
    file, separator, names = nodeid.partition("::")
    place = config.rootpath / file
    # Of a test that lies elsewhere, such as one of --pyargs, the id says less.
    test = place if file and place.exists() else path
    given = places.options(
        test,
        config.rootpath,
        config.inipath,
        config.invocation_params.dir,
        is_given=bool(config.getoption("inifilename") or config.getoption("rootdir")),
    )
    shown = places.relative(test, config.invocation_params.dir).replace(os.sep, "/") + separator + names
    quoted = shlex.quote(shown) if any(sign in shown for sign in '"$`\\!') else f'"{shown}"'
    return Commands(f"pytest --lm-record {given}{quoted}", f"pytest --lm-rewrite {given}{quoted}")
