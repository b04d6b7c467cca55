"""The house: which file may import which, and which libraries none may import when it is loaded."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import pytest_lmcache

ROOT = Path(pytest_lmcache.__file__).parent
# Each file and what it may know of this package. Nothing below `recorder` knows of what is above it.
MAY_IMPORT = {
    "errors": "",
    "clock": "",
    "origins": "",
    "late_calls": "errors not_recorded origins recorder",
    "locks": "clock errors",
    "not_recorded": "",
    "import_warnings": "",
    "places": "cassette.file errors",
    "address": "",
    "answer_sources": "",
    "interaction": "",
    "environment": "",
    "children": "",
    "children.starts": "doors.imports environment",
    "children.boot": "children.remote children.starts doors.imports environment session",
    "children.wire": "interaction values",
    "children.remote": "call_record children.starts children.wire errors interaction locks not_recorded recorder redact settings",
    "children.server": "call_record children.starts children.wire errors interaction locks not_recorded recorder settings",
    "children.parent": "children.server children.starts environment errors origins recorder",
    "doors": "",
    "doors.imports": "",
    "doors.fronts": "",
    "settings": "errors",
    "layers": "clock errors",
    "layers.memory": "interaction layers",
    "layers.disk": "clock errors layers layers.flight",
    "layers.redis": "errors layers",
    "layers.flight": "layers locks",
    "values": "clock cassette.yaml_writer errors interaction",
    "caches": "errors keys layers layers.disk layers.flight layers.memory layers.redis settings",
    "keys": "keys.strategies",
    "keys.strategies": "errors interaction keys.normalizers keys.plain redact",
    "keys.plain": "errors redact",
    "keys.normalizers": "errors time_limit",
    "time_limit": "errors",
    "redact": "environment redact.names redact.redactor redact.scan",
    "redact.names": "environment",
    "redact.formats": "redact.names",
    "redact.scan": "environment redact.formats redact.names",
    "redact.known_values": "redact.names redact.scan",
    "redact.own_rules": "errors",
    "redact.stream_texts": "",
    "redact.redactor": "errors interaction redact.known_values redact.names redact.own_rules redact.scan redact.stream_texts time_limit",
    "old_placeholders": "cassette.document errors interaction keys.strategies redact",
    "nearest": "interaction keys.plain",
    "two_engines": "interaction keys.plain lm15",
    "mends": "errors interaction keys.normalizers keys.strategies",
    "cassette": "",
    "cassette.file": "cassette.document cassette.merge errors keys.strategies locks",
    "cassette.document": "cassette.yaml_reader cassette.yaml_writer errors interaction",
    "cassette.merge": "cassette.document errors",
    "cassette.names": "",
    "cassette.yaml_reader": "cassette.yaml_writer",
    "cassette.yaml_writer": "interaction",
    "answers": "errors interaction",
    "streams": "answers interaction",
    "recorder": "address answer_sources call_record cassette.document cassette.file cassette.merge clock errors interaction keys.strategies locks miss not_recorded old_placeholders redact settings two_engines values",
    "call_record": "cassette.document errors interaction not_recorded",
    "miss": "call_record cassette.file errors interaction keys.strategies mends nearest settings",
    "doors.standin": "",
    "doors.litellm": "doors.litellm_visit doors.quick doors.standin doors.visit errors interaction recorder streams",
    "doors.litellm_visit": "address answers doors.visit interaction keys.plain recorder settings streams",
    "doors.quick": "clock doors.litellm_visit interaction recorder",
    "lm15": "address answers errors interaction",
    "doors.visit": "call_record doors.fronts errors interaction locks not_recorded recorder settings streams",
    "doors.dspy": "doors.visit errors interaction keys.plain lm15 recorder settings streams",
    "session": "caches cassette.file cassette.names children.parent children.remote children.starts doors.dspy doors.fronts doors.imports doors.litellm environment errors keys.normalizers keys.strategies late_calls origins recorder redact settings",
    "report": "answer_sources caches call_record errors not_recorded recorder settings",
    "cli": "__init__ cassette.file errors keys.strategies",
    "plugin": "plugin.hooks plugin.options",
    "plugin.options": "errors session settings",
    "plugin.items": "recorder",
    "plugin.cassette_names": "places session settings",
    "plugin.commands": "places",
    "plugin.tracebacks": "errors plugin.items",
    "plugin.hooks": "children.starts doors.imports errors import_warnings layers.redis keys.normalizers not_recorded origins places plugin.cassette_names plugin.commands plugin.items plugin.options plugin.tracebacks recorder report session settings",
    "__init__": "caches errors session",
}
# Their price at start: LiteLLM alone takes five seconds.
HEAVY = {"litellm", "openai", "yaml", "diskcache", "cachetools", "redis", "dspy", "freezegun", "filelock"}
FILES = sorted(ROOT.rglob("*.py"))


def name_of(path):
    """A file's name within the package: ``plugin``, ``doors.litellm``, ``__init__``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path, *, lazy):
    """The modules that a file imports, also under TYPE_CHECKING; ``lazy``: within functions as well."""
    todo = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            todo += ast.iter_child_nodes(node)


def ours(path):
    """The files of this package that a file imports."""
    known = {name_of(file) for file in FILES}
    found = set()
    for module in imports(path, lazy=True):
        package, _, name = module.partition(".")
        if package == "pytest_lmcache":
            while name and name not in known:
                name = name.rpartition(".")[0]
            found.add(name or "__init__")
    return found


def test_table_is_of_the_files_there_are():
    """A new file gets its line in the table, one that is gone loses it."""
    assert set(MAY_IMPORT) == {name_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_who_imports_whom(path):
    """A file knows just those of the package that the table allows it, and the table allows no more."""
    assert ours(path) == set(MAY_IMPORT[name_of(path)].split())


def test_no_cycle():
    """No file imports itself by way of others, not even within a function or for types."""
    left = {name_of(path): ours(path) for path in FILES}
    while left:
        free = {name for name, needs in left.items() if not needs & left.keys()}
        assert free, f"a cycle among {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in free}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_libraries_only_within_functions(path):
    """Loading a file loads no heavy library: those are imported where they are used."""
    assert not {module.partition(".")[0] for module in imports(path, lazy=False)} & HEAVY


def test_only_the_plugin_knows_pytest():
    """The engine works without pytest: no file outside of ``plugin`` imports it."""
    know = {
        name_of(path)
        for path in FILES
        if {module.partition(".")[0] for module in imports(path, lazy=True)} & {"pytest", "_pytest"}
    }
    assert {name.partition(".")[0] for name in know} == {"plugin"}


def test_engine_without_pytest():
    """``use_cassette`` can be imported and used where there is no pytest."""
    import subprocess

    code = (
        "import sys\n"
        "sys.modules['pytest'] = sys.modules['_pytest'] = None\n"
        "from pytest_lmcache import CassetteMiss, use_cassette\n"
        "with use_cassette('none.yaml') as tape:\n"
        "    assert tape.calls == []\n"
        "assert CassetteMiss.__mro__[1] is BaseException\n"
        "assert 'litellm' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
