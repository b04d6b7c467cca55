"""Every block of README.md is run, or held against what is really there; a block that no test takes up fails."""

import re
import runpy
import shlex
import tomllib

import pytest
import yaml
from helpers import FENCE, README, ROOT, Suite, blocks
from provider import Provider, Reply

from pytest_lmcache.keys.normalizers import NORMALIZERS
from pytest_lmcache.libraries.litellm.entry_points import ENTRY_POINTS
from pytest_lmcache.plugin.options import MARKER
from pytest_lmcache.settings import SETTINGS, Mode, Settings

WRITING = ("--lm-record", "--lm-rewrite", "--lm-mode=record", "--lm-mode=rewrite", "--lm-mode=once")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What each recording has anew.
OWN = re.compile(r"^(?P<name> *(?:id|created|recorded|seconds)): .*$")


def only(kind):
    [block] = blocks(kind)
    return block


def each(kind=None):
    """Have a test run once for each block of a kind."""
    return pytest.mark.parametrize("block", blocks(kind), ids=lambda block: f"line {block.line}")


def commands(block):
    """The commands of a shell block, comments aside, as lists of words."""
    lines = block.text.splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


class Reader(Suite):
    """Somebody who has copied blocks of README.md into a folder, online at first."""

    def __init__(self, environment, *given):
        super().__init__(*given)
        self.environment = environment
        self.online()

    def copy(self, *found):
        for block in found:
            self.file(block.name, block.text)

    def online(self):
        self.environment.setenv("OPENAI_BASE_URL", self.provider.url)
        self.environment.setenv("OPENAI_API_KEY", "sk-local-123456")

    def offline(self):
        self.environment.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        self.environment.delenv("OPENAI_API_KEY", raising=False)
        self.asked()


@pytest.fixture(scope="module")
def geographer():
    """A provider that answers as README.md has it."""
    with Provider() as provider:
        provider.answer = lambda request: "Paris." if "capital" in request.prompt else Reply()
        yield provider


@pytest.fixture
def reader(imported, pytester, geographer, monkeypatch):
    return Reader(monkeypatch, pytester, geographer, imported)


def passes(result):
    """Whether every test passed, and there was one."""
    return result.ret == 0 and set(result.parseoutcomes()) - {"warnings"} == {"passed"}


@each()
def test_every_block_is_taken_up(block):
    """A block that none of the tests here would run cannot be added unnoticed."""
    assert block.kind, f"README.md:{block.line}: no test takes up this block"


def test_every_fence_is_a_block():
    """No fence is overlooked, such as one with words after the language, or an unclosed one."""
    assert len(re.findall(r"^\s*(?:```|~~~)", README, re.MULTILINE)) == 2 * len(blocks())


@each("suite")
def test_test_file_is_recorded_and_replayed(reader, block):
    """A test file as it stands in README.md is recorded once and replays without provider and key."""
    reader.copy(block)
    assert passes(reader.record())
    assert reader.asked() > 0
    assert reader.cassettes()
    reader.offline()
    assert passes(reader.run())
    assert reader.asked() == 0


@each("script")
def test_script_is_recorded_and_replayed(reader, block, capsys):
    """A script as it stands in README.md asks on its first run and replays on its second."""
    reader.copy(block)
    runpy.run_path(block.name)
    assert capsys.readouterr().out == "Paris.\n0 replayed, 1 recorded\n"
    reader.offline()
    runpy.run_path(block.name)
    assert capsys.readouterr().out == "Paris.\n1 replayed, 0 recorded\n"
    assert reader.asked() == 0


def test_cassette_answers_the_first_example(reader):
    """The cassette that README.md shows lies where it says, and replays the test that it says."""
    block = only("cassette")
    file, test = re.match(r"# pytest-lmcache cassette of (\S+)\.py::(\S+)\n", block.text).groups()
    reader.copy(blocks("suite")[0])
    reader.file(f"cassettes/{file}/{test}.yaml", block.text)
    reader.offline()
    result = reader.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 replayed"])


def test_cassette_is_what_is_recorded(reader):
    """Each line of the cassette that README.md shows is, in this order, in the one that is recorded."""
    reader.copy(blocks("suite")[0])
    reader.record()
    path = reader.folder / "cassettes/test_capital/test_capital.yaml"
    written = [OWN.sub(r"\g<name>", line) for line in path.read_text(encoding="utf-8").splitlines()]
    left = iter(written)
    for line in only("cassette").text.splitlines():
        assert OWN.sub(r"\g<name>", line) in left, f"not recorded, or not in this place: {line}"


def test_configuration_acts(reader):
    """The configuration file as it stands in README.md records unmarked tests, settles ids and hides secrets."""
    reader.copy(only("configuration"))
    ask = "def test_run():\n    assert ask('I am customer-{customer}, on {day}, in run-{run}.')\n"
    reader.test(ask.format(customer="12345678", day="2026-01-31", run=1))
    reader.record().assert_outcomes(passed=1)
    [name] = reader.cassettes()
    assert "I am customer-<redacted:pattern>, on" in (reader.folder / "cassettes" / name).read_text()
    reader.offline()
    reader.test(ask.format(customer="87654321", day="2026-02-01", run=22))
    reader.run().assert_outcomes(passed=1)
    assert reader.asked() == 0


@each("commands")
def test_commands(reader, block):
    """The commands do what README.md says: those of pytest are typed in, the others lead to what is there."""
    for words in commands(block):
        match words:
            case ["pytest", *options]:
                reader.copy(blocks("suite")[0])
                writes = any(option in WRITING for option in options)
                (reader.online if writes else reader.offline)()
                assert passes(reader.run(*options))
                assert writes or reader.asked() == 0
            case ["export", setting]:
                name, _, value = setting.partition("=")
                reader.environment.setenv(name, value.replace("…", "local-123456"))
            case ["git", "add", path]:
                assert (reader.folder / path).is_dir()
            case ["git", "clone", "$REPOSITORY", folder]:
                assert folder == PROJECT["name"]
            case ["mkdir", folder, "&&", "cd", entered]:
                assert entered == folder
            case ["python3", "-m", "venv", folder, "&&", "source", activate]:
                assert activate == f"{folder}/bin/activate"
            case ["pip", "install", path]:
                assert path == f"../{PROJECT['name']}"
            case _:
                pytest.fail(f"README.md:{block.line}: no test takes up {shlex.join(words)}")


def test_ci_recipe_replays():
    """The workflow that README.md shows installs and runs pytest without a key or a writing mode; make targets exist."""
    [job] = yaml.safe_load(only("workflow").text)["jobs"].values()
    assert [words[0] for step in job["steps"] if (words := step.get("run", "").split())] == ["pip", "pytest"]
    assert "env" not in job
    assert not any(option in only("workflow").text for option in WRITING)
    targets = re.findall(r"`make (\w+)`", README)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def plain(line):
    """A line of pytest's output, without what differs from terminal to terminal and from run to run."""
    line = re.sub(r"={3,}", "===", line.rstrip())
    return re.sub(r"^E +", "E  ", re.sub(r"\d+\.\d\ds\b", "0.00s", line))


def assert_printed(block, result):
    """The lines of a block are in the output, one right after the other."""
    printed = [plain(line) for line in result.outlines]
    shown = [plain(line) for line in block.text.splitlines()]
    assert any(printed[at : at + len(shown)] == shown for at in range(len(printed))), result.stdout.str()


def test_summary_is_what_is_printed(reader):
    """The summary that README.md shows is the one of its first example."""
    reader.copy(blocks("suite")[0])
    reader.record()
    assert_printed(only("summary"), reader.run())


def test_miss_is_what_is_printed(reader):
    """The miss that README.md shows is that of its first example with the prompt changed as the miss says."""
    block = only("miss")
    recorded, asked = re.search(r'recorded "(.*)", asked "(.*)"', block.text).groups()
    example = blocks("suite")[0]
    reader.copy(example)
    reader.record()
    assert recorded in example.text
    reader.file(example.name, example.text.replace(recorded, asked))
    result = reader.run()
    result.assert_outcomes(failed=1)
    assert_printed(block, result)


def section(title):
    """The text of a section of README.md."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)[1]


def cells(text, column):
    """What stands in code marks in a column of a table."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row[column])}


def choices_of(row):
    """The values of a setting that has a fixed number of them."""
    return row.kind.parse if isinstance(row.kind.parse, type) else ()


def test_tables_are_complete(suite):
    """README.md names every setting, in each of its forms, every mode and every choice, and no other."""
    table = {}
    for line in section("Settings").splitlines():
        if line.startswith("| ") and not line.startswith("| marker"):
            name, key, value, default = (cell.strip() for cell in line.strip("|").split("|"))
            table[name.strip("`"), key.strip("`")] = value, default.strip("`")
    for_run = [("", SETTINGS[name]) for name in ("auto", "unmarked")]  # what no mark can set has no name
    rows = [*Settings.rows.items(), *for_run]
    assert set(table) == {(name, row.ini) for name, row in rows}
    for name, row in rows:
        value, default = table[name, row.ini]
        assert default == (row.shown_default if name != "cache" else "")
        assert name == "mode" or set(choices_of(row)) <= set(re.findall(r"`([^`]+)`", value))
    assert set(re.match(r"lm_cache\((.*)\):", MARKER)[1].split(", ")) == set(Settings.rows)
    assert cells(section("Modes"), 0) == set(Mode)
    assert all(re.search(rf"[`\"]{name}[`\"]", section("Keys")) for name in ("exact", "messages", "content"))
    told = set(re.findall(r"--lm-[a-z]+", README))
    assert told == set(re.findall(r"--lm-[a-z]+", suite.run("--help").stdout.str()))


def test_names_are_complete():
    """README.md names every normalizer and every entry point that is recorded."""
    keys = section("Keys")
    assert all(f"`{name}`" in keys for name in NORMALIZERS)
    recorded = section("What is recorded, and what is not yet")
    assert all(
        f"`{name.replace('anthropic_', 'anthropic.')}`" in recorded
        for name in (entry.name for entry in ENTRY_POINTS)
    )


def test_links_lead_somewhere():
    """A link within the repository leads to a file, one within the page to a heading."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", README), re.MULTILINE)
    anchors = {f"#{re.sub(r'[^a-z0-9 -]', '', heading.lower()).replace(' ', '-')}" for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (
            target.startswith("https://") or target in anchors or (ROOT / target.partition("#")[0]).exists()
        ), target


def test_length():
    """A reader sees a runnable example before line 30, and the whole in under 300."""
    assert blocks("suite")[0].line < 30
    assert README.count("\n") < 300
