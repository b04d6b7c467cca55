"""LiteLLM and DSPy that are reloaded, or imported anew: no call goes by unseen."""

import pytest

pytestmark = pytest.mark.slow

HEAD = """
import importlib, sys

from litellm import completion as early
EARLY_MODULE = litellm

def anew(package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    return importlib.import_module(package)

def reload(*names):
    for name in names:
        importlib.reload(sys.modules[name])
    return sys.modules[names[0].partition(".")[0]]

def calls(module):
    given = {**SETTINGS, "messages": said("hello")}
    yield lambda: module.completion(**given)
    yield lambda: module.main.completion(**given)
    yield lambda: asyncio.run(module.acompletion(**given))
    yield lambda: early(**given)
    yield lambda: EARLY_MODULE.completion(**given)
    yield lambda: sys.modules["litellm"].completion(**given)
"""
WAYS = {
    "main": 'reload("litellm.main")',
    "package": 'reload("litellm")',
    "utils and main": 'reload("litellm.utils", "litellm.main", "litellm")',
    "anew": 'anew("litellm")',
    "main anew": '(sys.modules.pop("litellm.main"), importlib.import_module("litellm.main"), reload("litellm"))[-1]',
}
TESTS = """
def ask_all(module):
    for number, call in enumerate(calls(module)):
        answer = call()
        assert answer.choices[0].message.content == "You said: hello"
        assert isinstance(answer, module.ModelResponse) or number > 2  # the early ones are another LiteLLM's

@pytest.mark.lm_cache
@pytest.mark.parametrize("way", WAYS)
def test_within(way):
    ask_all(eval(WAYS[way]))

def test_unmarked():
    reload("litellm.main")

def test_refused():
    from pytest_lmcache import UnsupportedCall, use_cassette
    for module in (litellm, reload("litellm.assistants.main"), reload("litellm")):
        with pytest.raises(UnsupportedCall):
            with use_cassette("none.yaml"):
                litellm.get_assistants(custom_llm_provider="openai", api_key="k")

@pytest.mark.lm_cache
def test_after():
    ask_all(sys.modules["litellm"])
"""
DSPY = """
import dspy
from pytest_lmcache import CassetteMiss, use_cassette

@pytest.mark.parametrize("way", WAYS)
def test_within(way):
    early = dspy.LM(**LM)
    with pytest.raises(CassetteMiss):
        with use_cassette("none.yaml"):
            module = eval(WAYS[way])
            for model in (early, dspy.LM(**LM), module.LM(**LM)):
                with pytest.raises(CassetteMiss):
                    model("hello")
"""
DSPY_WAYS = {
    "engine": 'reload("dspy.clients.engines.lm15_engine")',
    "execution": 'reload("dspy.clients.execution")',
    "engine and execution": 'reload("dspy.clients.engines.lm15_engine", "dspy.clients.execution")',
    "anew": 'anew("dspy")',
}


def test_litellm_reloaded(suite):
    """Recorded and replayed from the first call on, whatever name it is made by, in this test and in the next one."""
    suite.test(f"WAYS = {WAYS!r}\n{HEAD}{TESTS}")
    # In processes of their own: LiteLLM would stay as it is then.
    recorded = suite.spawn("-p", "no:randomly", "--lm-record")
    assert recorded.returncode == 0, recorded.stdout[-3000:]
    calls = (len(WAYS) + 1) * 6
    assert suite.asked() == calls
    replayed = suite.spawn("-p", "no:randomly")
    assert replayed.returncode == 0, replayed.stdout[-3000:]
    assert f"{calls} replayed" in replayed.stdout
    assert suite.asked() == 0


def test_dspy_reloaded(suite, loopback):
    """The engine that DSPy has then is seen from the first call on, and so is the one of before."""
    lm = {
        "model": "openai/gpt-4o-mini",
        "api_base": loopback.url,
        "api_key": "sk-local-123456",
        "cache": False,
    }
    suite.test(f"WAYS, LM = {DSPY_WAYS!r}, {lm!r}\n{HEAD}{DSPY}")
    result = suite.spawn("-p", "no:randomly")
    assert result.returncode == 0, result.stdout[-3000:]
    assert suite.asked() == 0
