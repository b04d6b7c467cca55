"""The suite of a project, for the commands that need to know its tests or apply its rules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pytest_lmcache.cli.project import Project
from pytest_lmcache.maintenance.suite import Suite, SuiteSettings
from pytest_lmcache.settings import Settings


def suite_of(project: Project) -> Suite:
    """The suite of a project without its tests, which `collect` adds; its modules can be imported from here on.

    Raises SettingsError for an invalid setting.
    """
    settings = project.settings(Settings)
    python_path = project.ini.get("pythonpath") or []
    folders = python_path.split() if isinstance(python_path, str) else python_path
    for folder in [str(project.rootdir), *(str(project.rootdir / each) for each in folders)]:
        if folder not in sys.path:
            sys.path.insert(0, folder)
    cache_dir = os.path.expandvars(str(project.ini.get("cache_dir") or ".pytest_cache"))
    options = [f"--rootdir={project.rootdir}"]
    if project.inipath is not None:
        options += ["-c", str(project.inipath)]
    for name, value in project.overrides.items():
        options += ["-o", f"{name}={value}"]
    return Suite(
        project.rootdir,
        project.rootdir / Path(cache_dir).expanduser(),
        SuiteSettings(
            settings.key if isinstance(settings.key, str) else None,
            settings.normalize,
            settings.max_age,
            settings.redact,
            tuple(each for each in settings.redact_with if isinstance(each, str)),
        ),
        tuple(options),
    )
