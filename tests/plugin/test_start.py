"""Starting and leaving: what a run without model calls loads, and what the plugin leaves when it is not wanted."""

import json
import os

import pytest

pytestmark = pytest.mark.slow

HEAVY = ["litellm", "yaml", "diskcache", "cachetools", "redis", "dspy", "freezegun", "filelock"]
PROBE = """
import json, os, sys
import pytest

@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    facts = {
        "modules": sorted(sys.modules),
        "meta_path": [type(finder).__module__ for finder in sys.meta_path],
        "environment": {name: value for name, value in os.environ.items() if name.startswith("LITELLM")},
        "hooks": sorted(type(plugin).__module__ for plugin in config.pluginmanager.get_plugins()),
    }
    with open(os.environ["FACTS"], "w") as file:
        json.dump(facts, file)
"""


def facts(suite, monkeypatch, *args):
    """What a run in a process of its own had loaded at its end."""
    path = suite.folder / "facts.json"
    monkeypatch.setenv("FACTS", str(path))
    for name in [name for name in os.environ if name.startswith("LITELLM")]:
        monkeypatch.delenv(name)
    suite.file("conftest.py", PROBE)
    result = suite.spawn("-p", "no:recording", "-p", "no:hypothesispytest", *args)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(path.read_text()), result


def test_light_without_model_calls(suite, monkeypatch):
    """Marked or not, tests that call no model import neither LiteLLM nor anything else that is heavy."""
    suite.file(
        "test_it.py",
        "import pytest\n\ndef test_one():\n    pass\n\n@pytest.mark.lm_cache\ndef test_two():\n    pass\n",
    )
    for args in ((), ("--lm-record",), ("-o", "lm_auto=true")):
        found, result = facts(suite, monkeypatch, *args)
        assert not set(HEAVY) & set(found["modules"]), args
        assert "2 passed" in result.stdout
    suite.file("test_it.py", "def test_one():\n    pass\n")
    found, _ = facts(suite, monkeypatch)
    ours = {name for name in found["modules"] if name.startswith("pytest_lmcache")}
    light = {
        "",
        ".cassette_folders",
        ".clock",
        ".commands",
        ".environment",
        ".errors",
        ".hosts",
        ".libraries",
        ".libraries.import_hook",
        ".observer",
        ".origins",
        ".setting_kinds",
        ".settings",
        ".wording",
    }
    engine = {name for name in ours if not name.startswith("pytest_lmcache.plugin")}
    assert engine == {f"pytest_lmcache{name}" for name in light}
    assert "pytest_lmcache.libraries.import_hook" not in found["meta_path"]


def test_litellm_is_imported_offline(suite, monkeypatch):
    """LiteLLM reads its own price map, unless the user decided otherwise."""
    suite.file("test_it.py", "def test_one():\n    pass\n")
    found, _ = facts(suite, monkeypatch)
    assert found["environment"] == {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def test_users_choice_of_price_map_stays(suite, monkeypatch):
    """The user's own setting of that variable is not touched."""
    suite.file("conftest.py", "")
    suite.file(
        "test_it.py",
        "import os\n\ndef test_one():\n    assert os.environ['LITELLM_LOCAL_MODEL_COST_MAP'] == 'false'\n",
    )
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "false")
    assert suite.spawn().returncode == 0


def test_blocked_leaves_no_trace(suite, monkeypatch):
    """With ``-p no:lmcache`` there is no option, no mark, no module, no finder and no environment variable."""
    suite.file("test_it.py", "def test_one():\n    pass\n")
    found, result = facts(suite, monkeypatch, "-p", "no:lmcache")
    assert "lmcache" not in result.stdout
    for name in ("modules", "meta_path", "hooks"):
        assert not [module for module in found[name] if module.startswith("pytest_lmcache")]
    assert found["environment"] == {}
    assert "unrecognized arguments: --lm-record" in suite.spawn("-p", "no:lmcache", "--lm-record").stderr
    assert "lm_cache" not in suite.spawn("-p", "no:lmcache", "--markers").stdout
    assert "--lm-" not in suite.spawn("-p", "no:lmcache", "--help").stdout


def test_named_where_autoload_is_off(suite, monkeypatch):
    """With PYTEST_DISABLE_PLUGIN_AUTOLOAD the plugin is loaded by its name."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    suite.file("pytest.ini", "[pytest]\n")
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    ask()\n")
    for args in (["--lm-record"], []):
        result = suite.run(*args, alone=["-p", "pytest_lmcache.plugin"])
        result.assert_outcomes(passed=1)
    assert suite.asked() == 1


def test_a_replay_loads_no_more_than_it_needs(suite, monkeypatch):
    """Replaying LiteLLM's calls loads neither DSPy's interception nor the cache layers' stores."""
    suite.test("@pytest.mark.lm_cache\ndef test_one():\n    ask()\n")
    suite.record().assert_outcomes(passed=1)
    found, _ = facts(suite, monkeypatch)
    assert "pytest_lmcache.libraries.litellm.intercept" in found["modules"]
    unneeded = {
        "libraries.dspy.intercept",
        "libraries.dspy.answers",
        "layers.disk",
        "layers.single_flight",
        "layers.redis",
    }
    assert not {f"pytest_lmcache.{name}" for name in unneeded} & set(found["modules"])
