"""Makes the screenshots of report.md: the page of the example suite's recordings, as Chromium shows it.

Run it as: .venv/bin/python docs/screenshots.py
"""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).resolve().parent
CONVERSATION = "examples/test_assistant.py::test_reply_is_written_piece_by_piece/1"
SHOTS = {
    "report-light.png": ("light", "#/"),
    "report-dark.png": ("dark", f"#/conversations?call={CONVERSATION}"),
}


def main() -> None:
    """Replay the examples and photograph their page."""
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "report.html"
        command = [sys.executable, "-m", "pytest", "-q", "examples", f"--lm-report={page}"]
        subprocess.run(command, cwd=DOCS.parent, check=True)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-lcd-text"]
        )
        for name, (scheme, address) in SHOTS.items():
            shown = browser.new_page(viewport={"width": 1100, "height": 700}, color_scheme=scheme)
            shown.goto(f"{page.as_uri()}{address}")
            shown.screenshot(path=DOCS / name)
        browser.close()


main()
