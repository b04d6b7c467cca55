"""Formatters, run over a cassette as pre-commit runs them: none changes a question, an answer or a key."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import EXACT, NASTY, call, fields_of, interaction, record, reply, stream, tagged

from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.cli.main import main
from pytest_lmcache.interaction import Answer, Kind

pytestmark = pytest.mark.slow

YAMLFMT = [Path(sys.executable).with_name("yamlfmt"), "-formatter"]
# npm installs it there (see Makefile) where there is one; a machine without Node.js has no prettier either.
PRETTIER = shutil.which("prettier", path=Path(sys.prefix, "prettier/node_modules/.bin")) or shutil.which(
    "prettier"
)
TEXTS = [
    "Markdown's hard break  \nand the next line\n",
    "def f():\n\treturn 1\n",
    "\tfirst",
    "  indented\nthan not\n",
    "\n\nempty first",
    "empty last\n\n\n",
    "one\n\n\n\ntwo\n\nthree",
    "a  b   c \n d\te \n\n \n",
    "\r\nDOS\r\n\r\nends\r\n",
    "NEL\x85 and\u2028 others\u2029\n",
    "\xa0\n\u3000 wide \u3000\n\ufeff\n",
    "code:\n    if x:\n        y  # why\n",
    "| a | b |\n|---|---|\n| 1 |   |\n",
    "key: value\n- item\n# comment\n--- # 9\n...\n%YAML 1.1\n&a *b <<: c",
    "\"double\" 'single' \\ back\\\nslash\\\\\n",
    '"double" and a tab\t"\n',
    "long " * 60 + "\n" + "  long " * 60 + " \n",
    "long " * 60,
    "very long: " * 120,
    "trailing ",
    " leading",
    "it's",
    "🐐 漢字\n\x1b[0m🐐\n",
    "\ud83d half \n",
    "{{ jinja }}\n{% if x %}\n",
    "yes",
    "1e5",
    "'",
]


def nasty(seed):
    """More texts, made of what YAML and its tools are known to stumble over."""
    chance = random.Random(seed)
    lines = [*NASTY, "word", "more words", "\n", "\n", " ", "  ", "\t", "- a: b", "# c"]
    return ["".join(chance.choices(lines, k=chance.randint(1, 12))) for _ in range(150)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A cassette with questions, answers, streams, errors and server-sent events of such texts."""
    path = tmp_path_factory.mktemp("written") / "test_x.yaml"
    texts = [*TEXTS, *nasty(1)]
    error = {"class": "BadRequestError", "message": "no  \n\tnever \n\n"}
    said = [interaction(call(text), reply(text)) for text in texts]
    deep = {"a": [[text, {text: [text]}] for text in texts], "f": [0.1, 1e-05, 1e16], "v": [0.5] * 20}
    said += [
        interaction("stream", stream(*texts)),
        interaction("events", Answer(Kind.STREAM, [{"bytes": text} for text in texts])),
        interaction("error", Answer(Kind.ERROR, error)),
        interaction(call("tools", tools=deep), reply("x", more=deep)),
    ]
    record(path, *said)
    return path


@pytest.fixture
def cassette(written, tmp_path):
    """That cassette, to be changed."""
    return Path(shutil.copy(written, tmp_path))


def contents(path):
    return [tagged(fields_of(entry.interaction())) for entry in Cassette(path, EXACT).entries]


def assert_same(cassette, written):
    """The file holds what it held, to whoever replays it and to ``check``, and can be added to."""
    assert contents(cassette) == contents(written)
    assert main(["check", str(cassette)]) == 0
    added = interaction("one more", "yes")
    assert record(cassette, added, keep_unused=True)
    assert contents(cassette)[:-1] == contents(written)


@pytest.mark.parametrize("hook", ["trailing_whitespace_fixer", "end_of_file_fixer", "mixed_line_ending"])
def test_pre_commits_hooks_change_no_byte(written, cassette, hook):
    """A repository with pre-commit's common hooks commits a cassette as it was recorded."""
    module = pytest.importorskip(f"pre_commit_hooks.{hook}")
    assert module.main([str(cassette)]) == 0
    assert cassette.read_bytes() == written.read_bytes()


@pytest.mark.parametrize("ends", ["crlf", "cr", "lf"])
def test_line_endings_change_nothing(written, cassette, ends):
    """On Windows git and editors give every line another end: question, answer and key stay the same."""
    from pre_commit_hooks.mixed_line_ending import main as fixed

    fixed([f"--fix={ends}", str(cassette)])
    assert (b"\r" in cassette.read_bytes()) == (ends != "lf")
    assert_same(cassette, written)


def test_an_editor_changes_nothing(written, cassette):
    """What an .editorconfig asks for is so already: no tabs, no whitespace at ends, one newline at the end."""
    text = cassette.read_text(encoding="utf-8")
    lines = [line.rstrip() for line in text.expandtabs(4).split("\n")]
    assert "\n".join(lines).rstrip() + "\n" == text


@pytest.mark.parametrize(
    "options",
    [
        "indent=2",
        "retain_line_breaks=true",
        "retain_line_breaks_single=true",
        "include_document_start=true,indentless_arrays=true",
        "trim_trailing_whitespace=true,eof_newline=true,drop_merge_tag=true,pad_line_comments=2",
        "line_ending=crlf,indent=4,scan_folded_as_literal=true,disallow_anchors=true",
        "max_line_length=60",
        "force_quote_style=double",
    ],
)
def test_yamlfmt_changes_no_text(written, cassette, options):
    """A cassette that yamlfmt has laid out anew has the same questions, answers and keys."""
    subprocess.run([*YAMLFMT, options, cassette], check=True, capture_output=True)
    assert cassette.read_bytes() != written.read_bytes()
    assert_same(cassette, written)


@pytest.mark.skipif(
    PRETTIER is None, reason="prettier is not installed: this machine has no npm (see Makefile)"
)
@pytest.mark.parametrize(
    "options",
    [
        "--tab-width=2",
        "--prose-wrap=always --print-width=40",
        "--prose-wrap=never --tab-width=4",
        "--single-quote --end-of-line=crlf",
        "--no-bracket-spacing --quote-props=as-needed",
    ],
)
def test_prettier_changes_no_text(written, cassette, options):
    """A cassette that prettier has laid out anew has the same questions, answers and keys."""
    subprocess.run([str(PRETTIER), *options.split(), "--write", cassette], check=True, capture_output=True)
    assert cassette.read_bytes() != written.read_bytes()
    assert_same(cassette, written)
