"""A user's suite, written into a folder of its own and run within this process."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from textwrap import dedent

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
ALONE = (
    *("-p", "no:randomly", "-p", "no:mockllm", "-p", "no:cacheprovider"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),
)
# Every call of a recorded test reaches the provider, unless a test is about the layers.
NO_LAYERS = ("-o", "lm_enable_memory_cache=false", "-o", "lm_enable_disk_cache=false")


class Keeper:
    """Keeps the modules that an inner run was the first to import: LiteLLM's, for the next inner run."""

    def __init__(self, own: Path) -> None:
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

    def __init__(self, pytester, provider, imported) -> None:
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
