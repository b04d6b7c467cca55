"""A whole run, from the tests to what a reader sees in Chromium."""

import pytest

pytestmark = pytest.mark.slow

SUITE = """
SYSTEM = "You are a geographer.\\nAnswer in one word.\\n</script><script>window.hacked = 1</script>"

@pytest.mark.lm_cache
@pytest.mark.parametrize("city", range(12))
def test_capital(city):
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Capital {city}?"}]
    chunks = litellm.completion(messages=messages, stream=True, **SETTINGS)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
"""


def test_red_run_is_understood_and_mended(suite, read):
    """A prompt is edited: the page groups the misses, shows the changed words, and after the mending what changed."""
    suite.test(SUITE)
    suite.record()
    suite.test(SUITE.replace("Answer in one word.", "Answer in two words."))
    assert suite.spawn("--lm-report=red.html", "-n2", "-p", "xdist").returncode == 1
    reader = read(path=suite.folder / "red.html")
    assert "12\nmissed" in reader.text(".figures").replace(" ", "")
    reader.page.get_by_role("link", name="Misses").click()
    reader.page.wait_for_selector(".miss")
    assert reader.text(".miss h2") == "messages[0].content (system) changed"
    assert reader.text(".miss .facts").startswith("12 calls in 12 tests")
    assert reader.page.locator(".miss del").all_inner_texts() == ["one word"]
    assert reader.page.locator(".miss ins").all_inner_texts() == ["two words"]
    assert "pytest --lm-record" in reader.text(".mends")
    reader.press("j")
    assert reader.page.evaluate("document.activeElement.className") == "miss"
    assert reader.page.locator(".places a").count() == 6
    reader.page.get_by_role("button", name="6 more").click()
    reader.page.locator(".places a").nth(11).click()
    reader.page.wait_for_selector(".talk")
    assert "Answer in two words." in reader.text(".talk")
    assert "No recording answers this call" in reader.text(".problem")
    assert suite.run("--lm-record", "--lm-report=green.html").ret == 0
    reader = read(path=suite.folder / "green.html", address="#/conversations?compared=yes")
    assert len(reader.rows()) == 12
    assert reader.page.locator(".compare .diff ins").all_inner_texts() == ["two words"]
    assert reader.page.locator(".rhythm rect").count() > 1
    assert reader.page.evaluate("window.hacked") is None
