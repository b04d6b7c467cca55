"""Who is measured, and how each is switched on: one entry a contestant, the same tests for all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

PLUGINS = ("lmcache", "recording", "cassetter")


@dataclass(frozen=True)
class Contestant:
    """A way to answer the calls of a test suite."""

    name: str
    plugin: str | None = None  # its pytest11 name; the other contestants' plugins are switched off
    marker: str = ""  # the decorator on each test
    conftest: str = ""  # what the suite's conftest has besides
    match_on: tuple[str, ...] = ()  # what a request is compared by; its own default if empty
    record: tuple[str, ...] = ()
    replay: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    opener: str = ""  # an expression for inside.py: opens the cassette `path` in a {mode}, by {match_on}
    modes: tuple[str, str] = ("once", "none")  # its words for: record, replay
    longest: int = 10_000  # calls in one test that it gets through in reasonable time
    packages: tuple[str, ...] = ()

    def opened_to(self, deed: str) -> str:
        """The opener, to `record` or to `replay`."""
        return self.opener.format(mode=self.modes[deed == "replay"], match_on=self.match_on)

    @property
    def switches(self) -> list[str]:
        """The options that leave only this contestant's plugin on."""
        return [part for other in PLUGINS if other != self.plugin for part in ("-p", f"no:{other}")]


# What a careful person writes by hand: LiteLLM's own types, built anew for each call.
STUB = r"""
import re
import pytest
from litellm.types.utils import Delta, ModelResponseStream, StreamingChoices

@pytest.fixture(autouse=True)
def stub(monkeypatch):
    def completion(*, messages, stream=False, **_):
        text = f"You said: {messages[-1]['content']}"
        if stream:
            return (
                ModelResponseStream(choices=[StreamingChoices(index=0, delta=Delta(content=piece))])
                for piece in re.findall(r"\s*\S+", text)
            )
        return litellm.ModelResponse(
            model="gpt-4o-mini",
            choices=[{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            usage={"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16},
        )

    async def acompletion(**request):
        return completion(**request)

    monkeypatch.setattr(litellm, "completion", completion)
    monkeypatch.setattr(litellm, "acompletion", acompletion)
"""

# By default both peers match the method and the URL only: a changed prompt passes. Here they look at the body
# too, as LiteLLM's users need; how they do without is shown where it matters.
CONFIG = """
import pytest

@pytest.fixture(scope="session")
def vcr_config():
    return {{"match_on": {match_on}}}
"""
VCRPY_MATCH = ("method", "scheme", "host", "port", "path", "query", "body")
CASSETTER_MATCH = ("method", "uri", "json_body")

BARE = Contestant("no plugin")
STUBBED = Contestant("stub", conftest=STUB)
OURS = Contestant(
    "pytest-lmcache",
    plugin="lmcache",
    marker="@pytest.mark.lm_cache",
    record=("--lm-record",),
    modes=("record", "replay"),
    opener="__import__('pytest_lmcache').use_cassette(path, mode='{mode}')",
)
RECORDING = Contestant(
    "pytest-recording",
    plugin="recording",
    conftest=CONFIG.format(match_on=VCRPY_MATCH),
    match_on=VCRPY_MATCH,
    marker="@pytest.mark.vcr",
    record=("--record-mode=once",),
    replay=("--record-mode=none",),
    opener="__import__('vcr').use_cassette(str(path), record_mode='{mode}', match_on={match_on})",
    longest=1_000,
    packages=("pytest-recording", "vcrpy"),
)
CASSETTER = Contestant(
    "cassetter",
    plugin="cassetter",
    conftest=CONFIG.format(match_on=CASSETTER_MATCH),
    match_on=CASSETTER_MATCH,
    marker="@pytest.mark.vcr",
    record=("--record-mode=once",),
    replay=("--record-mode=none",),
    # Recording through LiteLLM's aiohttp transport fails with it, so it gets LiteLLM's httpx one.
    environ={"DISABLE_AIOHTTP_TRANSPORT": "True"},
    opener="__import__('cassetter').use_cassette(path, record_mode='{mode}', match_on={match_on})",
    longest=1_000,  # its reader stops at 250,000 YAML nodes: it cannot open the 4,000 that it has recorded
    packages=("cassetter",),
)
RECORDERS = (OURS, RECORDING, CASSETTER)
BY_URL = tuple(replace(one, name=f"{one.name}, URL only", conftest="") for one in (RECORDING, CASSETTER))
EVERYONE = {one.name: one for one in (BARE, STUBBED, *RECORDERS, *BY_URL)}
