"""``lm_fast_import``: the garbage collector rests while LiteLLM is imported."""

import pytest

STAND_IN = """
import gc
ENABLED = gc.isenabled()
assert not FAILS
"""


@pytest.fixture
def importing(suite):
    """Runs a test of a suite in a process of its own, in which LiteLLM and DSPy are small packages."""

    def run(test, *options, litellm=STAND_IN, dspy="import litellm"):
        for name, text in {"litellm": litellm, "dspy": dspy}.items():
            (suite.folder / name).mkdir(exist_ok=True)
            (suite.folder / name / "__init__.py").write_text(text.replace("FAILS", "False"))
        (suite.folder / "test_it.py").write_text(f"import gc\nimport pytest\nimport sys\n\n{test}")
        options = (*options, "-p", "no:randomly", "-p", "no:mockllm", "-p", "no:cacheprovider")
        return suite.pytester.runpytest_subprocess("-o", "pythonpath=.", *options)

    return run


ON = ("-o", "lm_fast_import=true")
RESTED = """
def test_it():
    before = gc.get_freeze_count()
    import dspy, litellm
    assert not litellm.ENABLED
    assert gc.isenabled()
    assert gc.get_freeze_count() > before
"""


@pytest.mark.slow
def test_the_collector_rests_while_litellm_is_imported(suite, importing):
    """It is on again afterwards, and what is there then is frozen; also if DSPy or a conftest imports LiteLLM, and in a worker."""
    importing(RESTED, *ON).assert_outcomes(passed=1)
    importing(RESTED, *ON, "-n", "1").assert_outcomes(passed=1)
    (suite.folder / "conftest.py").write_text("import litellm")
    importing(RESTED.replace("before = gc.get_freeze_count()", "before = 0"), *ON).assert_outcomes(passed=1)


@pytest.mark.slow
def test_by_default_it_works_as_ever(importing):
    """Without the setting nothing is switched off or frozen."""
    test = """
def test_it():
    import litellm
    assert litellm.ENABLED and gc.isenabled() and gc.get_freeze_count() == 0
"""
    importing(test).assert_outcomes(passed=1)


@pytest.mark.slow
def test_an_import_that_fails(importing):
    """The collector is on after an import that raises, and rests in the next one."""
    test = """
def test_it():
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            import litellm
        assert not sys.ENABLED
        assert gc.isenabled()
"""
    text = "import gc, sys\nsys.ENABLED = gc.isenabled()\n1 / 0\n"
    importing(test, *ON, litellm=text).assert_outcomes(passed=1)


@pytest.mark.slow
def test_a_collector_that_is_off_stays_off(importing):
    """A suite that has switched the collector off, or whose import switches it on, is left alone."""
    off = """
def test_it():
    gc.disable()
    import litellm
    assert not gc.isenabled() and gc.get_freeze_count() == 0
"""
    importing(off, *ON).assert_outcomes(passed=1)
    on = """
def test_it():
    import litellm
    assert gc.isenabled() and gc.get_freeze_count() == 0
"""
    importing(on, *ON, litellm="import gc\ngc.enable()\n").assert_outcomes(passed=1)


@pytest.mark.slow
def test_imports_in_threads(importing):
    """Of two packages that threads import at once, the last one ends the rest."""
    test = """
import threading

def test_it():
    threads = [threading.Thread(target=__import__, args=[name]) for name in ("litellm", "dspy")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gc.isenabled() and gc.get_freeze_count() > 0
"""
    slow = "import time\ntime.sleep(0.3)\n"
    importing(test, *ON, litellm=slow, dspy=slow * 2).assert_outcomes(passed=1)
