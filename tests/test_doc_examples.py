"""Every Python block of docs/ is run as it stands, as somebody would who copies it; the other blocks are checked."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import yaml
from helpers import ALONE, Suite
from provider import Reply

import pytest_lmcache
from pytest_lmcache import Cache
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.cli.main import group
from pytest_lmcache.interaction import Kind
from pytest_lmcache.keys.strategies import strategy
from pytest_lmcache.settings import SETTINGS, CacheSettings

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(page):
    """The fenced blocks of a page: line, language, text."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start()) + 1, found[1], found[2]) for found in FENCE.finditer(text)]


def named(text):
    """The file that a block's first line names, if it names one."""
    found = re.match(r"# (\w+\.py)\n", text)
    return found[1] if found else ""


BLOCKS = [
    pytest.param(page, text, id=f"{page.name}:{line}")
    for page in PAGES
    for line, language, text in blocks(page)
    if language == "python"
]


# The one of caches.md has no cassette: it is run below.
SUITES = [
    each
    for each in BLOCKS
    if named(each.values[1]).startswith("test_") and each.values[0].name != "caches.md"
]
ANSWERS = {"dspy.md": "[[ ## capital ## ]]\nParis\n\n[[ ## completed ## ]]"}


@pytest.fixture
def reader(tmp_path, monkeypatch, valkey, client):
    """Somebody in an empty folder, with a server at hand on which there is nothing."""
    monkeypatch.setenv("CACHE_URL", valkey)
    monkeypatch.setattr(pytest_lmcache, "cache", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("page", "text"), SUITES)
def test_suite_is_recorded_and_replayed(suite, page, text, monkeypatch):
    """A test file that is copied records its calls, and replays without provider and key."""
    monkeypatch.setenv("OPENAI_BASE_URL", suite.provider.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-local-123456")
    for _, _, other in blocks(page):
        if named(other) and not named(other).startswith("test_"):
            suite.file(named(other), other)
    suite.file(named(text), text)
    monkeypatch.setattr(suite.provider, "answer", lambda _: ANSWERS.get(page.name) or Reply())
    suite.record()
    assert suite.cassettes()
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.delenv("OPENAI_API_KEY")
    suite.asked()
    result = suite.run()
    assert result.ret == 0, result.stdout.str()
    assert suite.asked() == 0


@pytest.mark.slow
@pytest.mark.parametrize(("page", "text"), BLOCKS)
def test_block_runs(reader, page, text, monkeypatch):
    """A block that is copied, with the files that its page names, runs and says the truth."""
    for _, _, other in blocks(page):
        if named(other):
            (reader / named(other)).write_text(other, encoding="utf-8")
            monkeypatch.delitem(sys.modules, named(other).removesuffix(".py"), raising=False)
    space = {"__name__": "__main__"}
    exec(compile(text, page.name, "exec"), space)
    for thing in (*space.values(), pytest_lmcache.cache):
        if isinstance(thing, Cache):
            thing.close()


def test_key_of_what_the_messages_say(reader):
    """The recipe's key is one for a message of tool calls too, which says nothing."""
    [text] = [text for page in PAGES for _, _, text in blocks(page) if "class ContentCache" in text]
    [answer] = [text for page in PAGES for _, _, text in blocks(page) if named(text) == "answer.py"]
    (reader / "answer.py").write_text(answer, encoding="utf-8")
    space = {}
    exec(text, space)
    asked = {"role": "user", "content": "Sum?"}
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}
    answers = {"role": "tool", "content": "3"}
    assert space["cache"].cache_key({"messages": [asked, called, answers]}) == "Sum?\n\n3"


def test_test_file_passes(imported, pytester, loopback, monkeypatch):
    """A test file that a page shows, beside the conftest that it shows, passes as it stands."""
    monkeypatch.setenv("OPENAI_BASE_URL", loopback.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-local-123456")
    suite = Suite(pytester, loopback, imported)
    suite.options = ALONE
    files = {named(text): text for page in PAGES for _, _, text in blocks(page) if named(text)}
    for name in ("test_cached.py", "conftest.py"):
        suite.file(name, files[name])
        result = suite.run()
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["0 replayed, 1 from memory, 1 asked and only cached"])


def test_every_setting_of_the_layers_is_named():
    """The page of the cache has each setting of its layers, with its ini key."""
    page = next(page for page in PAGES if page.name == "caches.md").read_text(encoding="utf-8")
    for name, row in CacheSettings.rows.items():
        [line] = [line for line in page.splitlines() if line.startswith(f"| `{name}` ")]
        _, _, key, *_, default, _ = line.split("|")
        assert (key.strip(" `"), default.strip(" `")) == (row.ini, row.shown_default)


def test_there_are_blocks():
    """The pages have examples at all, and in no language that nobody checks; what stands in `text` is a picture."""
    assert len(BLOCKS) >= 6
    checked = {"python", "yaml", "toml", "diff", "shell", "console"}  # consoles in tests/cli/test_docs.py
    assert {language for page in PAGES for _, language, _ in blocks(page)} == checked | {"text"}


def test_every_fence_is_a_block():
    """No fence is overlooked, such as one with words after the language, or an indented one."""
    for page in PAGES:
        fences = re.findall(r"^\s*(?:```|~~~)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(blocks(page)), page.name


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "README.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    """A link within the repository leads to a file and, behind a `#`, to a heading of it."""
    for target in re.findall(r"\]\(([^)]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


def of_language(wanted):
    """The blocks of a language on all pages, as parameters of a test."""
    return [
        pytest.param(text, id=f"{page.name}:{line}")
        for page in PAGES
        for line, language, text in blocks(page)
        if language == wanted
    ]


PRE_COMMIT = "# .pre-commit-config.yaml\n"


@pytest.mark.parametrize(
    "text", [each for each in of_language("yaml") if not each.values[0].startswith(PRE_COMMIT)]
)
def test_cassettes_are_read(tmp_path, text):
    """A cassette that a page shows is one, but for what it leaves out."""
    path = tmp_path / "c.yaml"
    header = "lmcache: 1\nkey: exact/1\n" if text.startswith("---") else ""
    path.write_text(header + text.replace("  …\n", ""), encoding="utf-8")
    [entry] = Cassette(path, strategy("exact")).entries
    call, answer = entry.call(), entry.answer().with_whole_chunks()
    if call.is_value:
        assert set(answer.data) == {"value"}
    else:
        assert call.request["messages"]
        assert all(data["id"] for data in (answer.data if answer.kind is Kind.STREAM else [answer.data]))


def test_pre_commit_configuration():
    """The hooks that the page configures are those that this repository offers."""
    [text] = [
        text for (text,) in (each.values for each in of_language("yaml")) if text.startswith(PRE_COMMIT)
    ]
    offered = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    [repository] = yaml.safe_load(text)["repos"]
    assert {hook["id"] for hook in repository["hooks"]} <= {hook["id"] for hook in offered}


@pytest.mark.parametrize("text", of_language("toml"))
def test_configuration_is_known(text):
    """A configuration file that a page shows is TOML, with ini keys that there are and values that they take."""
    rows = {row.ini: row for row in SETTINGS.values() if row.ini}
    for name, value in tomllib.loads(text)["tool"]["pytest"].items():
        rows[name].kind.parse(value)


@pytest.mark.parametrize("text", of_language("shell"))
def test_commands_exist(text, suite):
    """A command that a page shows is shell, and names subcommands and options that there are."""
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    options = suite.run("--help").stdout.str() if "pytest " in text else ""
    for line in text.splitlines():
        match shlex.split(line, comments=True):
            case ["pytest", *words]:
                given = [word.partition("=")[0] for word in words if word.startswith("-")]
                assert all(re.search(rf"{re.escape(option)}\b", options) for option in given), line
            case ["pytest-lmcache", name, *words]:
                command = click.Context(group, info_name="pytest-lmcache")
                known = {option for each in group.get_command(command, name).params for option in each.opts}
                assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, line


def test_diff_is_of_the_readmes_cassette(tmp_path):
    """Applied to the cassette of README.md, the diff gives a cassette whose key is that of its request."""
    [(text,)] = [each.values for each in of_language("diff")]
    before = "".join(line[1:] for line in text.splitlines(keepends=True) if line[0] in " -")
    after = "".join(line[1:] for line in text.splitlines(keepends=True) if line[0] in " +")
    [cassette] = [
        text for _, language, text in blocks(ROOT / "README.md") if text.startswith("# pytest-lmcache")
    ]
    assert before in cassette
    path = tmp_path / "c.yaml"
    path.write_text(cassette.replace(before, after), encoding="utf-8")
    [entry] = Cassette(path, strategy("exact")).entries
    assert entry.key == strategy("exact").key(entry.interaction().call)
