"""Which cassettes a command works on: files, folders, test files and node ids as they are given; by default all."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from pytest_lmcache.cassette.facts import named_owner
from pytest_lmcache.cassette.names import own_cassette
from pytest_lmcache.cassette_folders import (
    TEST_DIR,
    base_folder,
    cassette_folder,
    folders_between,
    is_cassette,
    relative,
    test_folder,
)
from pytest_lmcache.cli.frame import Misuse
from pytest_lmcache.cli.project import Project, files_below, shown
from pytest_lmcache.errors import LMCacheError
from pytest_lmcache.wording import counted

if TYPE_CHECKING:
    from pytest_lmcache.maintenance.suite import ListedTest

    _ParamType = click.ParamType[str]
else:
    _ParamType = click.ParamType  # older versions of click have no type of the value here


class Selection(NamedTuple):
    """The cassettes that the arguments of a command name, sorted.

    ``place`` says for messages where they were looked for. ``of_vcrpy`` are cassettes of vcrpy's beside them.
    """

    project: Project
    paths: Sequence[Path]
    place: str
    of_vcrpy: Sequence[Path]

    @property
    def emptiness(self) -> str:
        """What to say if there is no cassette; empty if there is one."""
        if self.paths:
            return ""
        vcrpy = ""
        if self.of_vcrpy:
            vcrpy = (
                f"; it has {counted(len(self.of_vcrpy), 'file')} of vcrpy, such as {shown(self.of_vcrpy[0])}"
            )
        return f"{self.place} has no cassette of pytest-lmcache{vcrpy}."


class NodeId(NamedTuple):
    """A test file, or the beginning of the id of tests in it. ``names`` are those of classes and the test."""

    file: Path
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, folder: Path) -> NodeId:
        """Parse an id whose file is relative to a folder."""
        head, bracket, parameters = text.partition("[")
        file, *names = head.split("::")
        if names:
            names[-1] += bracket + parameters
        return cls(Path(os.path.normpath(folder / file)), tuple(names))


class TargetType(_ParamType):
    """A cassette, a folder, a test file or a node id."""

    name = "target"

    def shell_complete(
        self, _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Files, by the shell itself; after ``::`` the ids of the tests that have cassettes."""
        if "::" not in incomplete:
            return [CompletionItem(incomplete, type="file")]
        node = NodeId.parse(incomplete, Path.cwd())
        try:
            project = Project.find([node.file])
            found = [path for folder in _own_folders(project, node.file) for path in files_below(folder)]
        except (click.ClickException, LMCacheError):
            return []
        file = incomplete.partition("::")[0]
        ids = {
            f"{file}::{node_id.partition('::')[2]}" for path in found if "::" in (node_id := owner_of(path))
        }
        return [CompletionItem(each) for each in sorted(ids) if each.startswith(incomplete)]


def takes_targets(
    function: Callable[..., Any], *, override: Sequence[str] = ("-o", "--override-ini")
) -> Callable[..., Any]:
    """Give a command the argument ``[TARGETS]...`` and the options that find the project.

    The function gets a `Selection` as its first argument. ``override`` are the names of the option for a value in
    place of the configuration's.
    """

    @click.argument("targets", nargs=-1, type=TargetType())
    @click.option("--rootdir", metavar="FOLDER", help="pytest's rootdir.")
    @click.option("-c", "--config-file", metavar="FILE", help="pytest's configuration file.")
    @click.option(
        *override,
        metavar="NAME=VALUE",
        multiple=True,
        help="Override a value of the configuration file.",
    )
    @wraps(function)
    def command(
        targets: tuple[str, ...],
        rootdir: str | None,
        config_file: str | None,
        override_ini: tuple[str, ...],
        **options: Any,
    ) -> Any:
        project = Project.find(
            [NodeId.parse(target, Path.cwd()).file for target in targets],
            rootdir=rootdir,
            config_file=config_file,
            override_ini=override_ini,
        )
        return function(select(project, targets), **options)

    return command


def select(project: Project, targets: Sequence[str]) -> Selection:
    """Find the cassettes that targets name, or all of the project. Raises Misuse for a target without a cassette."""
    paths: dict[Path, None] = {}
    of_vcrpy: list[Path] = []
    folders = project.cassette_folders()
    for found in [_named(project, target, folders) for target in targets] or [_all(project, folders)]:
        for path in found:
            if is_of_vcrpy(path) and path not in map(Path.cwd().joinpath, targets):
                of_vcrpy.append(path)
            else:
                paths[path] = None
    default = project.rootdir / project.cassette_dir.replace(TEST_DIR, "**")
    return Selection(project, sorted(paths), ", ".join(targets) or shown(default), of_vcrpy)


def owner_of(path: Path) -> str:
    """The test or fixture that the first line of a cassette names; empty if it names none."""
    try:
        with path.open("rb") as file:
            return named_owner(file.readline(8192))
    except OSError:
        return ""  # whoever reads the file reports the error


def is_of_vcrpy(path: Path) -> bool:
    """Whether a file is a cassette of vcrpy's, which may be in a folder of the same name."""
    try:
        with path.open("rb") as file:
            return file.readline(100).rstrip() == b"interactions:"
    except OSError:
        return False


def _all(project: Project, folders: Sequence[Path]) -> list[Path]:
    return [path for folder in folders for path in _in_folder(project, folder)]


def _in_folder(project: Project, folder: Path) -> Iterator[Path]:
    """The cassettes in a folder, with broken files; only cassettes if they are beside other files."""
    is_mixed = project.cassette_name == PurePath()
    return (path for path in files_below(folder) if not is_mixed or is_cassette(path) or is_of_vcrpy(path))


def _named(project: Project, target: str, folders: Sequence[Path]) -> list[Path]:
    """The cassettes of one target."""
    path = Path(os.path.normpath(Path.cwd() / target))
    if path.is_dir():
        return _of_folder(project, path, folders)
    if path.is_file() and path.suffix != ".py":
        return [path]
    node = NodeId.parse(target, Path.cwd())
    if not node.file.exists() and (elsewhere := NodeId.parse(target, project.rootdir)).file.exists():
        node = elsewhere
    if not node.names and node.file.suffix in {".yaml", ".yml"}:
        raise Misuse(f"there is no cassette {target}")
    looked = [*_own_folders(project, node.file)]
    found = [path for folder in looked for path in _of_node(folder, node)]
    if not found:
        # Items of other plugins have names of their own; a marker may name a file, or another folder.
        everything = _all(project, folders)
        found = [path for path in everything if _is_within(owner_of(path), node, project.rootdir)]
        tests = _collected(project, node) if not found else []
        found += [own for test in tests if (own := test.cassette) is not None and own.is_file()]
    if not found:
        raise Misuse(
            f"{target} has no cassette. Looked in {', '.join(dict.fromkeys(map(shown, looked)))}, for its name in the "
            f"first lines of {counted(len(everything), 'cassette')}, and in what pytest collects.\n"
            f"{_remedy(target, node, tests)}"
        )
    return found


def _remedy(target: str, node: NodeId, tests: Sequence[ListedTest]) -> str:
    """What to do about a target without a cassette: record its tests, if it has any."""
    if not node.file.exists():
        return f"There is no file {shown(node.file)} either."
    if not tests:
        return (
            "pytest collects no test of that name. To see the names: "
            f"pytest --collect-only -q {shlex.quote(shown(node.file))}"
        )
    if all(test.cassette is None for test in tests):
        return "It is set to have none: @pytest.mark.lm_cache(cassette=None)."
    return f"To record it: pytest --lm-record {shlex.quote(target)}"


def _of_folder(project: Project, path: Path, folders: Sequence[Path]) -> list[Path]:
    """The cassettes in a folder, or those of the tests in a folder of tests."""
    if any(path.is_relative_to(folder) for folder in folders):
        return [*_in_folder(project, path)]
    inside = [folder for folder in folders if folder.is_relative_to(path)]
    if path.is_relative_to(project.rootdir):
        inside += [
            mirror
            for folder in _own_folders(project, path / "x")
            if (mirror := folder.parent).is_dir() and mirror not in inside and mirror not in folders
        ]
    return [each for folder in inside or [path] for each in _in_folder(project, folder)]


def _own_folders(project: Project, file: Path) -> Iterator[Path]:
    """Where the cassettes of a test file may be: below rootdir, or below a folder between that and the file."""
    setting = project.cassette_dir
    base = base_folder(file, project.rootdir)
    for each in (base, *folders_between(base, file.parent)):
        seen_from = test_folder(file) if TEST_DIR in setting else each
        folder = cassette_folder(each, setting, file)
        parts = Path(relative(file, seen_from).removesuffix(".py")).parts
        yield own_cassette(parts, "x", folder).parent


def _of_node(folder: Path, node: NodeId) -> list[Path]:
    """The cassettes in the folder of a test file that belong to a node id, or to what is within it."""
    if not folder.is_dir():
        return []
    if not node.names:
        return [*files_below(folder)]
    exact = own_cassette((), ".".join(node.names), folder)
    if exact.stem.endswith("]"):
        return [exact] if exact.is_file() else []
    return [
        path
        for path in files_below(folder)
        if path == exact or path.name.startswith((f"{exact.stem}.", f"{exact.stem}["))
    ]


def _collected(project: Project, node: NodeId) -> list[ListedTest]:
    """The tests that a node id names, as pytest collects them, which takes a while. Raises LMCacheError if pytest fails."""
    from pytest_lmcache.cli.suite import suite_of
    from pytest_lmcache.maintenance.suite import collect

    if not node.file.is_file():
        return []
    tests = collect(suite_of(project), [str(node.file)]).tests
    return [test for test in tests if _is_within(test.nodeid, node, project.rootdir)]


def _is_within(node_id: str, node: NodeId, rootdir: Path) -> bool:
    """Whether a node id that a cassette names is another one, or within it."""
    found = NodeId.parse(node_id, rootdir)
    if not node_id or found.file != node.file:
        return False
    own, wanted = "::".join(found.names), "::".join(node.names)
    return not wanted or own == wanted or own.startswith((f"{wanted}::", f"{wanted}["))
