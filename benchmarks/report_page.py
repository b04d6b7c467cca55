"""How long Chromium takes for the report's page of 5,000 conversations, by the browser's own clock.

    python benchmarks/report_page.py [conversations]

Needs Playwright and an installed Chromium.
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright

from pytest_lmcache.interaction import Answer, Call, Kind
from pytest_lmcache.report.data import call_data
from pytest_lmcache.report.page import Report, write

WORDS = "order parcel customer delivery address policy warranty tent boots please answer weather of in the".split()
CALLS_PER_TEST = 5
MEASURE = """async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => done(performance.now())));
  const middle = (all) => all.sort((one, other) => one - other)[all.length >> 1];
  const result = { open: performance.getEntriesByType("navigation")[0].duration };
  const list = document.querySelector(".list");
  const search = document.querySelector(".search input");
  let gaps = [];
  for (let last = await frame(), at = 0; at < 200; at++) {
    list.scrollTop += 1400;
    const now = await frame();
    gaps.push(now - last);
    last = now;
  }
  result["scroll, frame"] = middle(gaps);
  result["scroll, longest frame"] = Math.max(...gaps);
  const timed = (action) => {
    const start = performance.now();
    action();
    document.body.offsetHeight;
    return performance.now() - start;
  };
  const strokes = [];
  for (const end of Array.from("delivery policy", (_, at) => at + 1)) {
    strokes.push(timed(() => {
      search.value = "delivery policy".slice(0, end);
      search.dispatchEvent(new Event("input"));
    }));
    await frame();
  }
  result["search, first letter"] = strokes[0];
  result["search, each further letter"] = middle(strokes.slice(1));
  search.value = "";
  search.dispatchEvent(new Event("input"));
  const steps = [];
  for (let at = 0; at < 200; at++) {
    steps.push(timed(() => document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }))));
    await frame();
  }
  result["next conversation (j)"] = middle(steps);
  result.elements = document.querySelectorAll("*").length;
  return result;
}"""


def text(words: int, dice: random.Random) -> str:
    return " ".join(dice.choice(WORDS) for _ in range(words))


def report(conversations: int) -> Report:
    """Tests of five calls that share a system prompt of 400 words; each asks 120 words and gets 150."""
    dice = random.Random(1)
    system = {"role": "system", "content": text(400, dice)}
    parts = []
    for test in range(conversations // CALLS_PER_TEST):
        calls = []
        for _ in range(CALLS_PER_TEST):
            messages = [system, {"role": "user", "content": text(120, dice)}]
            answer = {"choices": [{"message": {"role": "assistant", "content": text(150, dice)}}]}
            call = Call("completion", {"model": f"openai/model-{dice.randrange(4)}", "messages": messages})
            calls.append(call_data("replayed", call, Answer(Kind.RESPONSE, answer, seconds=dice.random())))
        parts.append({"test": f"tests/test_{test // 20}.py::test_{test}", "cassette": "", "calls": calls})
    return Report(project="benchmark", about="", parts=parts)


def main() -> None:
    conversations = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "report.html"
        data = report(conversations)
        start = time.perf_counter()
        write(data, path)
        print(f"written in {time.perf_counter() - start:.2f} s, {path.stat().st_size / 1e6:.1f} MB")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{path.as_uri()}#/conversations")
        for name, value in page.evaluate(MEASURE).items():
            print(f"{name:28} {value:8.1f}{'' if name == 'elements' else ' ms'}")
        browser.close()


if __name__ == "__main__":
    main()
