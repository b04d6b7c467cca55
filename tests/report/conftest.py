"""A real Chromium that opens pages of the report, without a network."""

import os
import shutil

import pytest
from helpers import EXACT

from pytest_lmcache.cassette.file import Cassette
from pytest_lmcache.report.data import of_cassette
from pytest_lmcache.report.page import Report, write

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
NO_NETWORK = ("--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9")


@pytest.fixture(scope="module")
def chromium():
    """Module scope: Playwright has an event loop of its own, which tests of other files must not see."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*options, *NO_NETWORK])
        yield browser
        browser.close()


class Reader:
    """Somebody who opens a page, and what the browser had to say about it."""

    def __init__(self, browser, path, **context):
        self.context = browser.new_context(viewport={"width": 1280, "height": 800}, **context)
        self.context.set_default_timeout(5000)
        self.page = self.context.new_page()
        self.path = path
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.log(`CSP ${event.effectiveDirective}`))"
        )

    def open(self, address=""):
        """Open the page, or another place in it."""
        self.page.goto(f"{self.path.as_uri()}{address}")
        return self

    def text(self, selector):
        """The text that a reader sees."""
        return self.page.inner_text(selector)

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def rows(self):
        """The conversations in sight of the list, by their first lines."""
        self.page.wait_for_selector(".call, .list .nothing")
        return self.page.locator(".call").evaluate_all(
            "rows => rows.sort((a, b) => a.dataset.place - b.dataset.place)"
            ".map(row => row.querySelector('.grow').textContent)"
        )

    def address(self):
        """What is behind the # of the address, once it has settled."""
        self.page.wait_for_timeout(250)
        return self.page.evaluate("decodeURIComponent(location.hash)")


@pytest.fixture
def read(chromium, tmp_path):
    """Opens a page of parts, or of a file; fails the test if the browser complained or asked for anything else."""
    readers = []

    def open_page(
        parts=(), address="", *, path=None, misses=(), mends=(), outcomes=None, is_run=True, **context
    ):
        if path is None:
            path = tmp_path / "report.html"
            report = Report(
                project="shop",
                about="mode replay",
                parts=list(parts),
                outcomes=outcomes or {},
                misses=misses,
                mends=mends,
                is_run=is_run,
            )
            write(report, path)
        readers.append(Reader(chromium, path, **context))
        return readers[-1].open(address)

    yield open_page
    for reader in readers:
        assert reader.complaints == []
        own = reader.path.as_uri()
        assert [url for url in reader.requests if url != own and not url.startswith("data:image/")] == []
        reader.context.close()


@pytest.fixture
def recorded(tmp_path):
    """The data of interactions that are written to a cassette and read from it."""
    from helpers import record

    def part(*interactions, test="test_shop.py::test_one", outcome=None):
        path = tmp_path / "cassettes" / f"{len(list(tmp_path.rglob('*.yaml')))}.yaml"
        record(path, *interactions)
        found = of_cassette(test, path.name, Cassette(path, EXACT).entries)
        for each in found["calls"]:
            each["outcome"] = outcome or each["outcome"]
        return found

    return part
