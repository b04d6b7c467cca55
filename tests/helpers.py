"""What several test files use: a user's suite, interactions of cassettes, and plain data of every kind."""

from __future__ import annotations

import math
import re
import struct
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pytest_lmcache.cassette.document import entry_of
from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.cassette.merge import CallToSave
from pytest_lmcache.cassette.yaml_writer import Lines
from pytest_lmcache.interaction import Answer, Call, Interaction, Kind
from pytest_lmcache.keys.strategies import strategy
from pytest_lmcache.stream_chunks import pack

APP = '''
"""What the users' tests call."""
import asyncio
import litellm

SETTINGS = {{"model": "openai/gpt-4o-mini", "api_base": {url!r}, "api_key": "sk-local-123456", "max_retries": 0}}

def said(text):
    return [{{"role": "user", "content": text}}]

def ask(text="hello", **more):
    return litellm.completion(messages=said(text), **{{**SETTINGS, **more}}).choices[0].message.content

async def aask(text="hello", **more):
    answer = await litellm.acompletion(messages=said(text), **{{**SETTINGS, **more}})
    return answer.choices[0].message.content
'''
# They add lines to every report, and more under pytest-xdist.
NO_SNAPSHOTS = ("-p", "no:syrupy", "-p", "no:inline_snapshot")
ALONE = (
    *NO_SNAPSHOTS,
    *("-p", "no:randomly", "-p", "no:mockllm", "-p", "no:cacheprovider"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),
)
# Every call of a recorded test reaches the provider, unless a test is about the layers.
NO_LAYERS = ("-o", "lm_enable_memory_cache=false", "-o", "lm_enable_disk_cache=false")


class Keeper:
    """Keeps the modules that an inner run was the first to import: LiteLLM's, for the next inner run."""

    def __init__(self, own):
        self.own = own
        self.modules = {}

    def pytest_unconfigure(self):
        self.modules = {
            name: module
            for name, module in sys.modules.items()
            if not str(getattr(module, "__file__", None) or self.own).startswith(str(self.own))
        }


def keep(modules):
    """Put modules back that pytester took out: some, such as numpy's, cannot be imported twice."""
    for name, module in modules.items():
        sys.modules.setdefault(name, module)


class Suite:
    """A suite in a folder of its own; ``app.py`` in it holds ``ask`` and ``aask``."""

    def __init__(self, pytester, provider, imported):
        self.pytester = pytester
        self.imported = imported
        self.provider = provider
        self.folder = pytester.path
        self._asked = provider.count
        self.options = (*ALONE, *NO_LAYERS)
        self.file("app.py", APP.format(url=provider.url))

    def file(self, name, text):
        """Write a file of the suite."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    def test(self, text, name="test_it.py"):
        """Write a test file; ``ask``, ``aask``, ``asyncio``, ``litellm`` and ``pytest`` are there."""
        head = "import asyncio, litellm, pytest\nfrom app import SETTINGS, aask, ask, said\n"
        return self.file(name, head + dedent(text))

    def run(self, *args, alone=None):
        """Run the suite within this process."""
        keeper = Keeper(self.folder)
        with warnings.catch_warnings():
            # As in a user's run: LiteLLM and pytest-asyncio leave event loops and sockets to the garbage.
            warnings.simplefilter("default")
            warnings.filterwarnings("error", module="pytest_lmcache")
            options = self.options if alone is None else alone
            result = self.pytester.runpytest_inprocess(
                *options, *args, plugins=[keeper], no_reraise_ctrlc=True
            )
        keep(keeper.modules)
        self.imported.update(keeper.modules)
        return result

    def record(self, *args):
        """Run the suite with --lm-record; it has to pass."""
        result = self.run("--lm-record", *args)
        assert result.ret == 0, result.stdout.str()
        return result

    def spawn(self, *args, alone=None):
        """Run the suite in a process of its own."""
        options = self.options if alone is None else alone
        command = [sys.executable, "-m", "pytest", *options, *args]
        return subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=120,
        )

    def asked(self):
        """How many requests reached the provider since this was last asked."""
        before, self._asked = self._asked, self.provider.count
        return self._asked - before

    def cassettes(self):
        """The files under the cassette folder, as sorted posix paths."""
        root = self.folder / "cassettes"
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def toml(value):
    return {True: "true", False: "false"}.get(value) if isinstance(value, bool) else repr(value)


def classic(value):
    return "\n    ".join(["", *value]) if isinstance(value, list) else value


def configure(suite, kind, **keys):
    """Write the suite's configuration file."""
    if kind == "toml":
        lines = [f"{name} = {toml(value)}" for name, value in keys.items()]
        # Types in TOML came with pytest 9; 8 reads this table's values as text.
        table = "tool.pytest" if pytest.version_tuple >= (9,) else "tool.pytest.ini_options"
        suite.file("pyproject.toml", "\n".join([f"[{table}]", *lines]))
    else:
        lines = [f"{name} = {classic(value)}" for name, value in keys.items()]
        suite.file("pytest.ini", "\n".join(["[pytest]", *lines]))


def summary_lines(result):
    """The lines of the summary's section, times of day aside."""
    lines = result.outlines
    (start,) = (number for number, line in enumerate(lines) if "= language-model calls =" in line)
    rest = lines[start + 1 :]
    end = next(number for number, line in enumerate(rest) if line.startswith("==="))
    return [line for line in rest[:end] if line]


# ---- cassettes -----------------------------------------------------------------------------------------

GOLDEN = sorted((Path(__file__).parent / "cassette" / "golden").glob("*.yaml"))
"""Cassettes of released formats, which never change."""
EXACT = strategy("exact")
WHEN = "2026-11-23T09:12:44Z"


def call(text, **more):
    return Call("completion", {"model": "openai/m", "messages": [{"role": "user", "content": text}], **more})


def reply(text, *, run=1, **more):
    """An answer as a provider gives it in one of several runs: its id and its time are of that run."""
    return Answer(
        Kind.RESPONSE,
        {
            "id": f"chatcmpl-{text}-{run}",
            "created": 1_700_000_000 + run,
            "system_fingerprint": f"fp_{run}",
            "choices": [{"message": {"role": "assistant", "content": text}}],
            **more,
        },
        seconds=0.5 + run,
    )


def stream(*texts, run=1, **more):
    chunks = [{"id": f"c-{run}", "created": run, "n": 0, "text": text} for text in texts]
    return Answer(Kind.STREAM, pack(chunks), seconds=1.5, **more)


def interaction(asked, answer, keys=EXACT):
    asked = call(asked) if isinstance(asked, str) else asked
    answer = reply(answer) if isinstance(answer, str) else answer
    return Interaction(keys.key(asked), asked, answer, WHEN)


def asked_for(*interactions):
    """What a test that got these answers hands to the cassette."""
    seen = {}
    asked = []
    for each in interactions:
        asked.append(CallToSave(each.key, seen.setdefault(each.key, 0), entry_of(each, Path())))
        seen[each.key] += 1
    return asked


def record(path, *interactions, keys=EXACT, **how):
    how = {"keep_unused": False, "rewrite": False, "comment": ["a comment"], **how}
    return Cassette(path, keys).save(asked_for(*interactions), **how)


def contents(path, keys=EXACT):
    """What the file answers, in the file's order."""
    return [entry.answer().data["choices"][0]["message"]["content"] for entry in Cassette(path, keys).entries]


def fields_of(each):
    answer = each.answer.with_whole_chunks()
    fields = {"key": each.key, "call": each.call.name, "request": each.call.request, "kind": str(answer.kind)}
    for name in ("data", "error", "complete", "hidden", "seconds", "usd"):
        fields[name] = getattr(answer, name)
    return {**fields, "recorded": each.recorded}


def tagged(value):
    """Plain data as JSON that keeps every bit and every order."""
    if isinstance(value, dict):
        return {"dict": [[name, tagged(item)] for name, item in value.items()]}
    if isinstance(value, list):
        return [tagged(item) for item in value]
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, float):
        return {"float": value.hex() if math.isfinite(value) else repr(value)}
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        return {"int": hex(value)}
    return value


# ---- plain data ----------------------------------------------------------------------------------------

NASTY = [
    *"\x00\x01\x07\x08\t\n\r\x0b\x0c\x1b\x1f \x7f\x80\x85\x9f\xa0\xad\u2028\u2029\ufeff\ufffe\uffff\ufffd\ud800\ude00\udfff",
    *"-:#'\"\\/,[]{}&*!|>%@`?=<~.+_0123456789eExXoOntfyNTFY",
    *"éß漢字🐐👩\u200d\u202e\ue000\U0001fffe\U0010ffff",
    "\n\n",
    "  \n",
    "\r\n",
    "\ud83d\ude00",
    "--- ",
    "\n--- # 1\n",
    "\n...\n",
    "\nresponse:",
    "- ",
    ": ",
    " #",
    "\\ud83d",
]
WORDS = (
    "", "~", "null", "Null", "NULL", "true", "True", "FALSE", "yes", "No", "on", "OFF", "y", "N", "=", "<<", "-",
    "?", ":", "---", "...", "0", "-1", "+1", "007", "0o17", "0x1F", "0b101", "1_000", "1:30", "190:20:30.15", "1.5",
    "1.", ".5", "1e5", "1.5e5", "12345e678901", "1e-05", ".inf", "-.INF", ".nan", "NaN", "nan", "inf", "Infinity",
    "2026-11-23", "2026-11-23T09:12:44Z", "2026-11-23 09:12:44", "2026-1-2t3:4:5.6 +1", "!f32", "!text x", "&a", "*a",
    "%YAML 1.1", "@x", "`x", "{}", "[]", "{a: b}", "[a, b]", "a: b", "a:", "a #b", "#a", "a#b", "- a", "-a", "'a'",
    '"a"', "it's", "it's C:\\new\\x: #", "it's \"a\"", " a", "a ", "a:b", "http://x.y/z?q=1#f", "C:\\x", "3f9a1c0e5d21b7aa", "exact/1", "_", "_1", "1_",
)  # fmt: skip

nasty_text = st.lists(st.sampled_from(NASTY), max_size=12).map("".join)
# Deferred, as `values` are, because Hypothesis warns of strategies that take long to print.
texts = st.deferred(
    lambda: (
        nasty_text
        | st.sampled_from(WORDS)
        | st.text(max_size=20)
        | st.text("abc :#\n-", max_size=12)
        | st.text(st.characters(), max_size=8)
    )
)
doubles = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack(">d", struct.pack(">Q", bits))[0])
floats = (
    st.floats() | doubles | st.sampled_from([-0.0, 1e5, 1e16, 1e-5, 1.5e300, 5e-324, math.nan, -math.nan])
)
integers = (
    st.integers() | st.integers(-(10**6000), 10**6000) | st.sampled_from([2**2047, 2**2048, -(2**2048)])
)
scalars = st.none() | st.booleans() | integers | floats | texts | st.binary(max_size=40)
keys = texts | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False)
vectors = st.lists(st.floats(width=32), min_size=14, max_size=18) | st.lists(floats, min_size=14, max_size=18)
values = st.deferred(
    lambda: st.recursive(
        scalars | vectors,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(keys, inner, max_size=4)
            | st.lists(st.dictionaries(keys, inner, max_size=3), max_size=3).map(Lines)
        ),
        max_leaves=12,
    )
)
documents = st.dictionaries(texts, values, max_size=4)
items = st.lists(st.dictionaries(texts, values, max_size=3) | texts, min_size=1, max_size=6)
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def exactly(value):
    """A value's types, order and bits, so that == compares all of them."""
    if isinstance(value, dict):
        return "dict", [(exactly(key), exactly(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return "list", [exactly(item) for item in value]
    if type(value) is float:
        return "float", struct.pack(">d", value)
    return type(value).__name__, value


# ---- README.md -----------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block of README.md; ``name`` is the file that its first line names."""

    line: int
    language: str
    text: str

    @property
    def name(self):
        found = re.match(r"# (\S+\.\w+)\n", self.text)
        return found[1] if found else ""

    @property
    def kind(self):
        """What the tests below do with the block; empty for one that they know nothing to do with."""
        first = self.text.partition("\n")[0]
        kinds = {
            "suite": self.language == "python" and self.name.startswith("test_"),
            "script": self.language == "python" and self.name != "" and not self.name.startswith("test_"),
            "cassette": self.language == "yaml" and first.startswith("# pytest-lmcache cassette of "),
            "workflow": self.language == "yaml" and "/workflows/" in first,
            "configuration": self.language == "toml" and self.name == "pyproject.toml",
            "commands": self.language == "shell",
            "summary": self.language == "text" and " language-model calls " in first,
            "miss": self.language == "text" and "CassetteMiss" in first,
        }
        return next((kind for kind, fits in kinds.items() if fits), "")


def blocks(kind=None):
    """The blocks of README.md, all or those of one kind."""
    found = [
        Block(README.count("\n", 0, match.start()) + 1, match[1], match[2])
        for match in FENCE.finditer(README)
    ]
    return [block for block in found if kind in (None, block.kind)]
