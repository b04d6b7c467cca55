"""The project that a command works on: rootdir, configuration and cassette folders, found as pytest finds them.

pytest itself is not imported: it would take longer than most commands.
"""

from __future__ import annotations

import argparse
import os
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pytest_lmcache.cassette_folders import TEST_DIR
from pytest_lmcache.cli.frame import Misuse
from pytest_lmcache.settings import CacheSettings, RunSettings, Setting, Settings

# In pytest's order, each with whether it counts without a section of pytest's.
CONFIGURATIONS = {
    "pytest.toml": True,
    ".pytest.toml": True,
    "pytest.ini": True,
    ".pytest.ini": True,
    "pyproject.toml": False,
    "tox.ini": False,
    "setup.cfg": False,
}
NOT_SEARCHED = ("*.egg", ".*", "_darcs", "build", "CVS", "dist", "node_modules", "venv", "{arch}")
FLAGS = {
    "1": True,
    "yes": True,
    "true": True,
    "on": True,
    "0": False,
    "no": False,
    "false": False,
    "off": False,
}

_Group = TypeVar("_Group", Settings, CacheSettings, RunSettings)


@dataclass(frozen=True, slots=True)
class Project:
    """Where pytest runs the tests, and what its configuration says.

    ``inipath`` is the configuration file, None if there is none; ``ini`` has its values, as they are written, with those that
    ``overrides`` puts in their place.
    """

    rootdir: Path
    inipath: Path | None
    ini: Mapping[str, Any]
    overrides: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(
        cls,
        paths: Sequence[Path] = (),
        *,
        rootdir: str | None = None,
        config_file: str | None = None,
        override_ini: Sequence[str] = (),
    ) -> Project:
        """Find the project of some paths, or of the current folder, with the values of pytest's options.

        The environment variable ``PYTEST_ADDOPTS`` counts as it does for pytest. Raises Misuse.
        """
        given = _addopts()
        config_file, rootdir = config_file or given.config_file, rootdir or given.rootdir
        here = Path.cwd()
        folders = [path if path.is_dir() else path.parent for path in paths if path.exists()]
        ancestor = Path(os.path.commonpath(folders)) if folders else here
        inipath: Path | None = None
        if config_file is not None:
            inipath = here / config_file
            if not inipath.is_file():
                raise Misuse(f"there is no configuration file {config_file}; --config-file needs one")
            found = inipath.parent
            ini = _values(inipath) or {}
        else:
            found, inipath, ini = _located([ancestor], folders, here)
        if rootdir is not None:
            found = here / os.path.expandvars(rootdir)
            if not found.is_dir():
                raise Misuse(f"there is no folder {rootdir}; --rootdir needs one")
        overrides = dict(_override(text) for text in [*given.override_ini, *override_ini])
        return cls(Path(os.path.normpath(found)), inipath, {**ini, **overrides}, overrides)

    def settings(self, group: type[_Group]) -> _Group:
        """The settings of the configuration file; those of marks are not known. Raises SettingsError."""
        values = {}
        for name, row in group.rows.items():
            for key in filter(None, (row.ini, row.alias and f"lm_{row.alias}")):
                value = _converted(self.ini.get(key), row)
                if value not in (None, "", []):
                    values[name] = row.parse(value, f"ini: {key}")
        return group().with_values(values)

    @property
    def cassette_dir(self) -> str:
        """The setting ``lm_cassette_dir``."""
        return self.settings(Settings).cassette_dir

    @property
    def cassette_name(self) -> PurePath:
        """The path of a cassette folder within that of rootdir or of tests; empty if it is that folder itself."""
        return PurePath(self.cassette_dir.replace(TEST_DIR, "."))

    def cassette_folders(self) -> list[Path]:
        """All folders of the name that ``lm_cassette_dir`` gives, in rootdir or, in a monorepo, below it."""
        name = self.cassette_name
        if name.is_absolute():
            return [folder for folder in [Path(name)] if folder.is_dir()]
        if name == PurePath():
            return [self.rootdir]
        found: dict[str, None] = {}
        skipped = self.ini.get("norecursedirs") or NOT_SEARCHED
        skipped = skipped.split() if isinstance(skipped, str) else skipped
        for folder, names, _ in os.walk(self.rootdir):
            inner = os.path.normpath(os.path.join(folder, name))  # noqa: PTH118 - many folders
            if os.path.isdir(inner):  # noqa: PTH112
                found[inner] = None
            names[:] = [
                each
                for each in sorted(names)
                if os.path.join(folder, each) not in found  # noqa: PTH118
                and not any(fnmatch(each, pattern) for pattern in skipped)
                and not os.path.exists(os.path.join(folder, each, "pyvenv.cfg"))  # noqa: PTH110, PTH118
            ]
        return [Path(folder) for folder in found]


def _addopts() -> argparse.Namespace:
    """The options of the environment that say where the project is."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config-file")
    parser.add_argument("--rootdir")
    parser.add_argument("-o", "--override-ini", action="append", default=[])
    try:
        return parser.parse_known_args(shlex.split(os.environ.get("PYTEST_ADDOPTS", "")))[0]
    except (ValueError, SystemExit):
        raise Misuse("the environment variable PYTEST_ADDOPTS cannot be read") from None


def _override(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise Misuse(f"-o/--override-ini takes name=value, not {text!r}")
    return name.strip(), value.strip()


def _located(
    ancestors: Sequence[Path], folders: Sequence[Path], here: Path
) -> tuple[Path, Path | None, Mapping[str, Any]]:
    """Rootdir, the configuration file and its values, for the folders that the arguments name."""
    [ancestor] = ancestors
    if (found := _configuration(ancestors)) is not None:
        return found
    for folder in (ancestor, *ancestor.parents):
        if (folder / "setup.py").is_file():
            return folder, None, {}
    if (found := _configuration(folders)) is not None:
        return found
    common = Path(os.path.commonpath([here, ancestor]))
    return ancestor if common == common.parent else common, None, {}


def _configuration(folders: Iterable[Path]) -> tuple[Path, Path, Mapping[str, Any]] | None:
    without_section = None
    for start in folders:
        for folder in (start, *start.parents):
            for name in CONFIGURATIONS:
                path = folder / name
                if not path.is_file():
                    continue
                if (values := _values(path)) is not None:
                    return folder, path, values
                if name == "pyproject.toml" and without_section is None:
                    without_section = folder, path, dict[str, Any]()
    return without_section


def _values(path: Path) -> Mapping[str, Any] | None:
    """What a file says to pytest; None if it says nothing. Raises Misuse if it cannot be read."""
    import iniconfig

    always = CONFIGURATIONS.get(path.name, False)
    try:
        if path.suffix == ".toml":
            data = tomllib.loads(path.read_text(encoding="utf-8"))
            if always:
                own: Mapping[str, Any] = data.get("pytest", {})
                return own
            table = data.get("tool", {}).get("pytest")
            if table is None:
                return None
            # The old table stands within the new one.
            return {
                **{name: value for name, value in table.items() if name != "ini_options"},
                **table.get("ini_options", {}),
            }
        sections = iniconfig.IniConfig(str(path))
    except (OSError, ValueError, iniconfig.ParseError) as problem:
        raise Misuse(f"{path} cannot be read: {problem}") from None
    section = "tool:pytest" if path.suffix == ".cfg" else "pytest"
    if section in sections:
        return dict(sections[section].items())
    return {} if always else None


def _converted(value: Any, row: Setting) -> Any:
    """A value of a configuration file in its type, as pytest's ``getini`` gives it."""
    if not isinstance(value, str):
        return value
    match row.kind.ini:
        case "linelist":
            return [line.strip() for line in value.splitlines() if line.strip()]
        case "bool":
            return FLAGS.get(value.strip().lower(), value)
        case "float":
            try:
                return float(value)
            except ValueError:
                return value
    return value


def shown(path: Path) -> str:
    """A path for messages and tables: relative to the current folder if it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def files_below(folder: Path) -> Iterator[Path]:
    """The YAML files below a folder, sorted."""
    for parent, names, files in os.walk(folder):
        names.sort()
        for name in sorted(files):
            if name.endswith((".yaml", ".yml")):
                yield Path(parent, name)
