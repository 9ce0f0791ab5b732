"""The examples of README and docs/playwright.md, on pages of the kind that they speak of."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import playwright.async_api
import playwright.sync_api
import pytest
import scrapy
from pytest_twisted import ensureDeferred

from scrapy_acecaptcha.flow import Steps
from scripts.browser import launch_options
from tests.browsers import on_page
from tests.crawl_browser import HANDLER
from tests.crawling import TOKEN, run_crawl
from tests.lab import Lab, form
from tests.stub import ApiStub
from tests.test_docs import ROOT

SEARCH = form("""<input name=name><img id=captcha src=/captcha.png>
    <input id=code name=code><button>Search</button>""")
CANVAS = form("""<canvas width=140 height=50></canvas><input id=code name=code>
    <button>Search</button><script>
    const image = new Image();
    image.onload = () => document.querySelector("canvas").getContext("2d").drawImage(image, 0, 0);
    image.src = "/captcha.png";</script>""")
FOUND = ("<!DOCTYPE html><p id=result>Smith ./. Jones", {"Content-Type": "text/html"})


pytestmark = pytest.mark.browser


@pytest.fixture
def court(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A court's search form; token, API and browser are where a user would have them."""
    lab.page, lab.record = SEARCH, FOUND
    for module in (playwright.sync_api, playwright.async_api):
        launch = module.BrowserType.launch
        monkeypatch.setattr(
            module.BrowserType,
            "launch",
            lambda self, launch=launch, **_: launch(self, **launch_options()),
        )
    with ApiStub(lab.gallery.answer) as api:
        monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", TOKEN)
        monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", api.url)
        yield lab


def example(page: str, function: str, url: str) -> Any:
    """A function of the page's examples, at *url*."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    (block,) = [block for block in blocks if f"def {function}(" in block]
    namespace: dict[str, Any] = {"scrapy": scrapy}
    exec(block.replace("https://court.example.org/search", url), namespace)
    return namespace[function]


def in_thread(function: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(60)


def in_sync(visit: Callable[[Any], str]) -> str:
    """What *visit* makes of a page of the sync API."""

    def run() -> str:
        with playwright.sync_api.sync_playwright() as driver:
            return visit(driver.chromium.launch().new_page())

    return str(in_thread(run))


def test_readme(court, browser):
    search = example("README.md", "search", court.url)

    def body(page: Any) -> Steps[Any]:
        yield page.goto(court.url)
        result = yield search(page)
        return result.attempts, (yield page.locator("#result").count())

    assert on_page(browser, body) == (1, 1)


def test_sync(court, capsys):
    search = example("docs/playwright.md", "search", court.url)
    assert "Smith ./. Jones" in in_thread(lambda: search("Smith"))
    (sent,) = court.sent
    assert sent["name"] == ["Smith"]
    assert capsys.readouterr().out.startswith(f"{sent['code'][0]} 1 ")


def test_async(court):
    court.page = CANVAS
    records = example("docs/playwright.md", "records", court.url)

    async def visit() -> list[str]:
        return [page async for page in records([court.url, court.url + "record"])]

    pages = in_thread(lambda: asyncio.run(visit()))
    assert ["Smith ./. Jones" in page for page in pages] == [True, True]
    assert len(court.sent) == 1


def test_watching(court):
    court.page = """<button onclick="document.title = 'Next'">Next</button>
        <div style="position: fixed; inset: 0; background: #fff"
            ><form onsubmit="event.preventDefault(); fetch('/check?code=' + this.code.value)
                .then(reply => reply.json()).then(answer => answer.ok && this.parentNode.remove())">
        <img id=captcha src=/captcha.png><input id=code name=code><button>Go</button>
        </form></div>"""
    browse = example("docs/playwright.md", "browse", court.url)

    def visit(page: Any) -> str:
        page.goto(court.url)
        browse(page)
        return str(page.title())

    assert in_sync(visit) == "Next"
    assert len(court.sent) == 1


def test_filling_in(court):
    court.page = form("""<label>Name <input name=name></label><img id=captcha src=/captcha.png>
        <label>Letters <input name=code></label><button>Search</button>""")
    find = example("docs/playwright.md", "find", court.url)
    assert in_sync(lambda page: find(page, "Smith")) == "Smith ./. Jones"
    assert court.sent[0]["name"] == ["Smith"]


def test_frames(court):
    court.page, court.frame = "<iframe id=query src=/frame></iframe>", SEARCH
    framed = example("docs/playwright.md", "framed", court.url)
    assert in_sync(framed) == "Smith ./. Jones"


@ensureDeferred
async def test_scrapy_playwright(court):
    court.page = CANVAS
    start = example("docs/playwright.md", "start", court.url)
    settings = {
        "DOWNLOAD_HANDLERS": {"http": HANDLER, "https": HANDLER},
        "PLAYWRIGHT_LAUNCH_OPTIONS": launch_options(),
    }
    crawl = await run_crawl([request async for request in start(None)], settings)
    assert [page.css("#result::text").get() for page in crawl.pages] == ["Smith ./. Jones"]
