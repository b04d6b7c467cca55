"""The house: which file may import which, and which libraries none may import when it is loaded."""

import ast
import re
import sys
from pathlib import Path

import pytest

import pytest_lmcache

ROOT = Path(pytest_lmcache.__file__).parent
# Each file and what it may know of this package. Nothing below `recorder` knows of what is above it.
MAY_IMPORT = {
    "__init__": (
        "block call_record conversation errors fixture layers.stack remembered session staged_answers"
    ),
    "address": "",
    "answer_comparison": "conversation interaction joined_streams",
    "answer_sources": "call_record recorder settings staged_answers",
    "answering_models": "call_record cassette.document conversation errors",
    "block": (
        "answer_sources cassette.names commands errors fixture frozen_time miss_causes miss_groups "
        "random_seed recorder session settings"
    ),
    "blocked_connections": "errors hosts network origins recorder scopes",
    "call_assertions": "call_record",
    "call_record": (
        "cassette.document conversation errors interaction locks not_recorded staged_answers "
        "staged_delay wording"
    ),
    "cassette": "",
    "cassette.document": "cassette.yaml_reader cassette.yaml_writer errors interaction stream_chunks",
    "cassette.facts": "cassette.document cassette.reader interaction",
    "cassette.file": (
        "cassette.document cassette.merge cassette.reader errors interaction keys.strategies locks"
    ),
    "cassette.merge": "cassette.document errors interaction",
    "cassette.names": "errors redact",
    "cassette.reader": "cassette.document errors",
    "cassette.yaml_reader": "cassette.yaml_writer tags",
    "cassette.yaml_writer": "tags",
    "cassette_folders": "cassette.reader",
    "children": "",
    "children.boot": "children.remote children.starts environment libraries libraries.import_hook session",
    "children.parent": "children.server children.starts environment errors origins recorder",
    "children.remote": (
        "call_record children.starts children.wire errors interaction not_recorded redact settings"
    ),
    "children.server": (
        "call_record children.starts children.wire errors interaction libraries.staged not_recorded "
        "recorder settings"
    ),
    "children.starts": "environment libraries.import_hook",
    "children.wire": "errors interaction layers.values",
    "cli": "",
    "cli.check": (
        "cassette.file cli.frame cli.output cli.project cli.suite cli.targets errors keys.strategies "
        "maintenance.check maintenance.usage wording"
    ),
    "cli.diff": (
        "cli.frame cli.output cli.project cli.targets maintenance.differences maintenance.versions word_diff"
    ),
    "cli.explain": (
        "cassette.facts cli.frame cli.output cli.project cli.reading cli.suite cli.targets errors "
        "explanation keys.normalizers keys.strategies settings"
    ),
    "cli.frame": "errors",
    "cli.list_": "cassette.facts cli.frame cli.output cli.reading cli.targets clock wording",
    "cli.main": "__init__ cli.frame",
    "cli.move": (
        "cli.frame cli.output cli.project cli.suite cli.targets maintenance.move maintenance.suite "
        "maintenance.usage wording"
    ),
    "cli.output": "cli.frame tags",
    "cli.project": "cassette_folders cli.frame settings",
    "cli.prune": (
        "cli.frame cli.output cli.project cli.suite cli.targets maintenance.prune maintenance.usage wording"
    ),
    "cli.reading": "cassette.facts cli.project cli.targets errors interaction",
    "cli.rekey": (
        "cli.frame cli.output cli.project cli.suite cli.targets errors keys.normalizers keys.strategies "
        "maintenance.rekey maintenance.suite wording"
    ),
    "cli.report": (
        "cassette.reader cli.frame cli.output cli.project cli.suite cli.targets errors report.data "
        "report.page report.page_path run_record wording"
    ),
    "cli.scan": "cli.frame cli.output cli.project cli.suite cli.targets errors maintenance.secrets wording",
    "cli.search": (
        "cassette.facts cli.frame cli.output cli.project cli.reading cli.targets conversation errors "
        "interaction tags"
    ),
    "cli.show": (
        "cassette.facts cli.frame cli.output cli.project cli.reading cli.targets clock conversation "
        "interaction tags wording"
    ),
    "cli.stats": "call_record cassette.facts cli.frame cli.output cli.reading cli.targets clock wording",
    "cli.suite": "cli.project maintenance.suite settings",
    "cli.targets": (
        "cassette.facts cassette.names cassette_folders cli.frame cli.project cli.suite errors "
        "maintenance.suite wording"
    ),
    "cli.upgrade": (
        "cassette.file cli.frame cli.output cli.project cli.reading cli.targets errors keys.strategies "
        "wording"
    ),
    "clock": "",
    "commands": "",
    "comparison_report": "answer_comparison answering_models verify word_diff wording",
    "comparison_table": "verify wording",
    "conversation": "interaction joined_streams other_calls",
    "environment": "",
    "errors": "",
    "explanation": "errors interaction keys.normalizers keys.strategies redact.placeholders",
    "faults": "conversation errors recorder staged_answers staged_calls",
    "fixture": "call_assertions call_record faults not_recorded recorder remembered settings verify",
    "frozen_time": "cassette.reader clock recorder settings",
    "hosts": "",
    "interaction": "stream_chunks",
    "joined_streams": "",
    "keys": "keys.strategies",
    "keys.ignored_arguments": "redact",
    "keys.normalizers": "errors time_limit",
    "keys.plain": "errors keys.ignored_arguments",
    "keys.strategies": "errors interaction keys.normalizers keys.plain redact",
    "layers": "",
    "layers.answer_store": "address call_record clock errors interaction layers.values settings",
    "layers.caches": "layers.stack settings",
    "layers.contract": "clock errors",
    "layers.disk": "clock errors layers.contract layers.single_flight settings",
    "layers.memory": "interaction layers.contract",
    "layers.redis": "clock errors layers.contract settings",
    "layers.single_flight": "layers.contract locks",
    "layers.stack": (
        "errors keys layers.contract layers.disk layers.memory layers.redis layers.single_flight settings"
    ),
    "layers.values": "clock errors interaction layers.contract stream_chunks tags",
    "libraries": "",
    "libraries.asking_again": "clock interaction libraries.stream_recording stream_chunks verify",
    "libraries.bypassed_caches": "",
    "libraries.code_swap": "",
    "libraries.dspy": "",
    "libraries.dspy.answers": (
        "address interaction libraries.litellm.exceptions libraries.litellm.headers "
        "libraries.litellm.usage libraries.plain_data stream_chunks"
    ),
    "libraries.dspy.call": (
        "interaction keys.plain libraries.dspy.answers libraries.dspy.staged libraries.recorded_call "
        "libraries.stream_recording recorder recordings staged_answers stream_chunks"
    ),
    "libraries.dspy.compat": "",
    "libraries.dspy.intercept": (
        "errors libraries.dspy.call libraries.dspy.compat libraries.recorded_call libraries.waits "
        "recorder recordings"
    ),
    "libraries.dspy.staged": (
        "errors interaction libraries.dspy.answers libraries.litellm.staged_errors "
        "libraries.litellm.staged_replies libraries.plain_data libraries.provider_errors staged_answers "
        "stream_chunks"
    ),
    "libraries.import_gc": "libraries.import_hook",
    "libraries.import_hook": "",
    "libraries.interceptions": (
        "environment libraries libraries.bypassed_caches libraries.import_hook libraries.waits recorder"
    ),
    "libraries.litellm": "",
    "libraries.litellm.answers": "interaction libraries.litellm.headers libraries.plain_data",
    "libraries.litellm.any_answers": (
        "errors interaction libraries.litellm.answers libraries.litellm.chunks libraries.litellm.compat"
    ),
    "libraries.litellm.call": (
        "address interaction keys.ignored_arguments keys.plain libraries.dspy.compat "
        "libraries.litellm.answers libraries.litellm.callbacks libraries.litellm.compat "
        "libraries.litellm.entry_points libraries.litellm.exceptions libraries.litellm.staged "
        "libraries.litellm.usage libraries.recorded_call libraries.stream_recording recorder settings "
        "staged_answers stream_chunks"
    ),
    "libraries.litellm.callbacks": (
        "clock interaction libraries.litellm.compat libraries.litellm.entry_points libraries.stream_recording"
    ),
    "libraries.litellm.chunks": (
        "interaction libraries.litellm.answers libraries.litellm.compat libraries.litellm.exceptions "
        "libraries.plain_data libraries.recorded_call stream_chunks"
    ),
    "libraries.litellm.compat": "",
    "libraries.litellm.embedding": "libraries.litellm.callbacks",
    "libraries.litellm.entry_points": (
        "libraries.litellm.answers libraries.litellm.any_answers libraries.litellm.chunks "
        "libraries.litellm.compat libraries.litellm.streams"
    ),
    "libraries.litellm.exceptions": "errors libraries.litellm.headers libraries.plain_data",
    "libraries.litellm.fast_path": (
        "clock interaction libraries.litellm.call libraries.litellm.callbacks libraries.litellm.compat "
        "libraries.recorded_call recorder settings"
    ),
    "libraries.litellm.headers": "",
    "libraries.litellm.intercept": (
        "errors libraries.code_swap libraries.litellm.call libraries.litellm.callbacks "
        "libraries.litellm.compat libraries.litellm.entry_points libraries.litellm.fast_path "
        "libraries.litellm.public_face libraries.litellm.retry_waits libraries.litellm.streams "
        "libraries.recorded_call libraries.waits recorder settings"
    ),
    "libraries.litellm.public_face": "",
    "libraries.litellm.retry_waits": "libraries.litellm.compat libraries.waits",
    "libraries.litellm.staged": (
        "interaction libraries.litellm.staged_errors libraries.litellm.staged_replies "
        "libraries.litellm.usage staged_answers stream_chunks"
    ),
    "libraries.litellm.staged_errors": (
        "errors libraries.litellm.exceptions libraries.plain_data libraries.provider_errors staged_answers"
    ),
    "libraries.litellm.staged_replies": "conversation errors staged_answers",
    "libraries.litellm.streams": (
        "interaction libraries.litellm.answers libraries.litellm.chunks libraries.litellm.compat "
        "libraries.recorded_call libraries.stream_recording"
    ),
    "libraries.litellm.usage": (
        "interaction libraries.litellm.answers libraries.litellm.chunks libraries.plain_data stream_chunks"
    ),
    "libraries.other_sdks": "libraries libraries.import_hook scopes settings",
    "libraries.plain_data": "",
    "libraries.provider_errors": "",
    "libraries.recorded_call": (
        "call_record errors frozen_time interaction libraries.asking_again libraries.bypassed_caches "
        "libraries.stream_recording not_recorded recorder settings staged_answers"
    ),
    "libraries.staged": (
        "interaction libraries.dspy.staged libraries.litellm.call libraries.litellm.staged staged_answers"
    ),
    "libraries.stream_recording": "clock interaction stream_chunks",
    "libraries.tenacity": "",
    "libraries.tenacity.intercept": "libraries.code_swap libraries.waits",
    "libraries.waits": "recorder",
    "locks": "clock errors",
    "maintenance": "",
    "maintenance.check": "maintenance.findings maintenance.secrets maintenance.suite maintenance.usage",
    "maintenance.compare": (
        "cassette.document cassette.merge conversation interaction keys.plain tags word_diff"
    ),
    "maintenance.differences": (
        "errors maintenance.compare maintenance.header maintenance.versions word_diff wording"
    ),
    "maintenance.findings": (
        "cassette.document cassette.file cassette.reader clock errors keys.normalizers keys.strategies "
        "maintenance.secrets redact"
    ),
    "maintenance.header": "",
    "maintenance.move": (
        "cassette.document cassette.file cassette.reader errors keys.strategies maintenance.header "
        "maintenance.suite maintenance.usage run_record"
    ),
    "maintenance.prune": (
        "cassette.document cassette.file errors keys.strategies maintenance.suite maintenance.usage"
    ),
    "maintenance.rekey": "cassette.document cassette.file keys.strategies",
    "maintenance.secrets": "cassette.document cassette.reader errors recorder redact",
    "maintenance.suite": "errors",
    "maintenance.usage": (
        "cassette.reader cassette_folders errors maintenance.header maintenance.suite run_record"
    ),
    "maintenance.versions": "cassette.document cassette.reader errors",
    "miss": (
        "call_record cassette.document cassette.file commands errors interaction keys.strategies nearest "
        "settings volatile_values"
    ),
    "miss_causes": "cassette.document clock errors miss nearest recorder word_diff",
    "miss_groups": "commands miss_causes word_diff wording",
    "nearest": "errors interaction keys.plain word_diff",
    "network": "errors hosts",
    "not_recorded": "",
    "observer": "errors recorder",
    "origins": "",
    "other_calls": "tags",
    "plugin": "errors plugin.hooks plugin.options",
    "plugin.budget": (
        "commands plugin.cassette_paths plugin.node_recorders plugin.observer settings spending wording"
    ),
    "plugin.call_limits": "call_assertions errors plugin.node_recorders",
    "plugin.cassette_paths": "cassette.names cassette_folders errors plugin.samples settings",
    "plugin.comparisons": "comparison_report comparison_table plugin.run word_diff",
    "plugin.hooks": (
        "children.boot environment errors fixture layers.redis libraries libraries.import_gc origins "
        "plugin.call_limits plugin.cassette_paths plugin.comparisons plugin.import_warnings "
        "plugin.inputs plugin.node_recorders plugin.options plugin.progress plugin.reports plugin.run "
        "plugin.samples plugin.shared_fixtures settings"
    ),
    "plugin.import_warnings": "",
    "plugin.inputs": "frozen_time random_seed recorder",
    "plugin.listing": (
        "errors maintenance.suite plugin.cassette_paths plugin.hooks plugin.node_recorders plugin.run "
        "run_record settings"
    ),
    "plugin.miss_reports": "commands miss_causes miss_groups plugin.observer word_diff wording",
    "plugin.node_recorders": (
        "cassette.names cassette_folders commands errors plugin.cassette_paths plugin.renamed_tests "
        "recorder session settings"
    ),
    "plugin.observer": (
        "cassette_folders errors not_recorded observer origins plugin.node_recorders plugin.report_page "
        "plugin.reports plugin.run_notes recorder settings summary"
    ),
    "plugin.options": "environment errors setting_kinds settings",
    "plugin.progress": "clock plugin.budget plugin.node_recorders wording",
    "plugin.renamed_tests": "cassette_folders errors miss plugin.cassette_paths settings",
    "plugin.report_page": (
        "clock miss_groups recorder report.data report.misses report.page report.page_path settings"
    ),
    "plugin.reports": (
        "answer_sources errors miss_causes not_recorded plugin.node_recorders recorder settings"
    ),
    "plugin.run": (
        "cassette_folders children.starts comparison_report errors keys.normalizers libraries "
        "libraries.import_hook origins plugin.budget plugin.cassette_paths plugin.inputs "
        "plugin.miss_reports plugin.node_recorders plugin.observer plugin.options plugin.report_page "
        "plugin.run_notes recorder scopes session settings"
    ),
    "plugin.run_notes": "clock recorder run_record settings",
    "plugin.samples": "errors settings",
    "plugin.shared_fixtures": (
        "origins plugin.cassette_paths plugin.inputs plugin.node_recorders plugin.run recorder"
    ),
    "random_seed": "recorder",
    "recorder": (
        "answering_models call_record cassette.file cassette.merge clock commands errors interaction "
        "keys.strategies layers.answer_store miss not_recorded recordings redact saving settings "
        "spending verify"
    ),
    "recorders": (
        "cassette.file errors keys.normalizers keys.strategies layers.caches layers.stack recorder "
        "recordings redact same_text settings spending verify"
    ),
    "recordings": "cassette.document cassette.file clock errors interaction keys.strategies redact settings",
    "redact": "environment redact.names redact.placeholders redact.redactor redact.scan",
    "redact.formats": "",
    "redact.known_values": "redact.names redact.scan",
    "redact.names": "environment redact.placeholders",
    "redact.placeholders": "",
    "redact.redactor": (
        "errors redact.known_values redact.names redact.placeholders redact.scan redact.streams redact.text"
    ),
    "redact.scan": "environment redact.formats redact.names redact.placeholders",
    "redact.streams": "redact.placeholders redact.text stream_chunks",
    "redact.text": "errors redact.known_values redact.names redact.placeholders redact.scan time_limit",
    "remembered": (
        "errors frozen_time interaction keys.plain libraries.recorded_call recorder session settings"
    ),
    "report": "",
    "report.changes": (
        "cassette.document cassette.file cassette.merge conversation errors interaction keys.plain "
        "nearest recorder saving settings tags verify word_diff"
    ),
    "report.data": (
        "call_record cassette.document conversation errors interaction recorder redact report.changes "
        "stream_chunks summary"
    ),
    "report.misses": "miss_causes miss_groups wording",
    "report.page": "__init__ report.data summary",
    "report.page_path": "",
    "run_record": "errors",
    "same_text": "answer_comparison errors libraries.litellm.embedding setting_kinds",
    "saving": "call_record cassette.file cassette.merge",
    "scopes": "errors origins recorder settings",
    "session": (
        "blocked_connections children.parent children.remote children.starts environment "
        "keys.normalizers layers.caches libraries.bypassed_caches libraries.interceptions "
        "libraries.other_sdks libraries.waits observer origins recorder recorders scopes settings "
        "spending"
    ),
    "setting_kinds": "errors hosts",
    "settings": "errors setting_kinds",
    "spending": "call_record errors interaction wording",
    "staged_answers": "conversation errors interaction",
    "staged_calls": (
        "call_record clock conversation errors interaction recorder settings staged_answers staged_delay"
    ),
    "staged_delay": "clock",
    "stream_chunks": "",
    "summary": (
        "answer_sources call_record errors layers.stack miss_causes not_recorded recorder settings wording"
    ),
    "tags": "",
    "time_limit": "errors",
    "verify": "answer_comparison call_record conversation errors interaction recordings spending",
    "volatile_values": "errors interaction keys.normalizers keys.strategies nearest",
    "word_diff": "",
    "wording": "",
}
# Their price at start: LiteLLM alone takes five seconds.
HEAVY = {"litellm", "openai", "yaml", "diskcache", "cachetools", "redis", "dspy", "freezegun", "filelock"}
FILES = sorted(ROOT.rglob("*.py"))


def name_of(path):
    """A file's name within the package: ``plugin``, ``libraries.litellm``, ``__init__``."""
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


@pytest.mark.parametrize(
    ("libraries", "folder"),
    [
        ({"pytest", "_pytest"}, "plugin"),
        ({"litellm", "openai"}, "libraries.litellm"),
        ({"dspy"}, "libraries.dspy"),
    ],
    ids=["pytest", "litellm", "dspy"],
)
def test_one_folder_knows_a_library(libraries, folder):
    """Only ``plugin`` imports pytest, and LiteLLM and DSPy have a folder each: no other file knows their types."""
    know = {
        name_of(path)
        for path in FILES
        if {module.partition(".")[0] for module in imports(path, lazy=True)} & libraries
    }
    assert know
    assert not {name for name in know if not f"{name}.".startswith(f"{folder}.")}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_versions_are_named_in_one_file(path):
    """What differs between the versions of LiteLLM or DSPy is in that library's ``compat.py``."""
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"\b1\.(?:[89]|1[0-9])[0-9]\b.*|DSPy[^.\n]{0,25} [23]\.[0-9].*", text)
    assert path.name == "compat.py" or not named


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_private_names_stay_private(path):
    """No file imports another's private name; ruff sees to attributes, without an exception."""
    ours = (module for module in imports(path, lazy=True) if module.startswith("pytest_lmcache."))
    assert not [module for module in ours if re.search(r"\._(?!_)", module)]
    assert "noqa: SLF001" not in path.read_text(encoding="utf-8")


def test_engine_without_pytest():
    """``use_cassette`` can be imported and used where there is no pytest."""
    import subprocess

    code = (
        "import sys\n"
        "sys.modules['pytest'] = sys.modules['_pytest'] = None\n"
        "from pytest_lmcache import CassetteMiss, use_cassette\n"
        "with use_cassette('none.yaml') as tape:\n"
        "    assert tape.calls == []\n"
        "assert CassetteMiss.__mro__[2] is BaseException\n"
        "assert 'litellm' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_classes_stay_small(path):
    """No file has more than 450 lines, and no class more than 20 methods."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 450
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
            assert len(methods) <= 20, f"{node.name} has {len(methods)} methods"
