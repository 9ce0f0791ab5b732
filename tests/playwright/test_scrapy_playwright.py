"""Captchas of requests that scrapy-playwright downloads, with rules alone and with PageMethod."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import pytest_twisted
from scrapy import Request
from scrapy_playwright.page import PageMethod

from scrapy_acecaptcha import CaptchaNotFound, CaptchaUnsolved
from scrapy_acecaptcha.playwright import solve_captcha
from tests.crawling import CollectingSpider, run_crawl
from tests.site import RULES
from tests.stub import ApiStub


@pytest.fixture
def browser_settings(settings: Any, browser_crawls: dict[str, Any]) -> Any:
    """The settings of a crawl of one scenario in the browser."""

    def make(scenario: str, rule: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        return settings(
            scenario,
            rule,
            **{**browser_crawls, **more},
        )

    return make


def pages(site: Any, path: str, count: int = 1, **meta: Any) -> list[Request]:
    meta = {"playwright": True, **meta}
    return [Request(f"{site.url}/{path}/record/{i}", meta=dict(meta)) for i in range(count)]


def assert_no_page_is_left(crawl: Any) -> None:
    """Every page that was made has been closed, says scrapy-playwright."""
    stats = crawl.all_stats
    assert stats["playwright/page_count/closed"] == stats["playwright/page_count"]


@pytest_twisted.ensureDeferred
async def test_a_rule_is_enough(site, api, browser_settings):
    """Each scenario has a session of its own, by its browser context."""
    scenarios = ["forbidden", "redirect", "through", "metarefresh", "canvas"]
    start = [
        request
        for name in scenarios
        for request in pages(site, name, 4, playwright_context=name, acecaptcha=RULES[name])
    ]
    settings = browser_settings("", ACECAPTCHA_RULES={}, CONCURRENT_REQUESTS=8)
    crawl = await run_crawl(start, settings)
    assert crawl.errors == []
    assert crawl.records == sorted([f"Record {i}" for i in range(4)] * 5)
    assert [page.status for page in crawl.pages] == [200] * 20
    assert (crawl.stats["solved"], crawl.stats["api_requests"]) == (5, len(api.calls))
    assert len(api.calls) == 5
    solved = [page for page in crawl.pages if "acecaptcha" in page.flags]
    assert {page.url.split("/")[3] for page in solved} == set(scenarios)
    results = [page.meta["acecaptcha_result"] for page in solved]
    assert [bool(result["answer"]) for result in results] == [True] * 5
    assert [result["attempts"] for result in results] == [1] * 5
    assert_no_page_is_left(crawl)
    assert all("playwright_page_methods" not in page.meta for page in crawl.pages)


@pytest_twisted.ensureDeferred
async def test_more_requests_than_pages_do_not_wait_for_each_other(site, api, browser_settings):
    settings = browser_settings(
        "inplace", CONCURRENT_REQUESTS=12, PLAYWRIGHT_MAX_PAGES_PER_CONTEXT=2
    )
    crawl = await run_crawl(pages(site, "inplace", 12), settings)
    assert len(crawl.records) == 12
    assert len(api.calls) == 1


@pytest_twisted.ensureDeferred
async def test_query_forms_with_wrong_answers(site, api, browser_settings):
    api.script += ["WRONG", api.answers, api.answers, "WRONG"]
    scenarios = ["query", "queryget"]
    start = [
        request
        for name in scenarios
        for request in pages(site, name, 3, playwright_context=name, acecaptcha=RULES[name])
    ]
    crawl = await run_crawl(start, browser_settings("", ACECAPTCHA_RULES={}))
    assert crawl.records == sorted([f"Record {i}" for i in range(3)] * 2)
    assert crawl.stats["solved"] == 6
    assert crawl.stats["rejected"] == sum(site.stats[name]["wrong"] for name in scenarios) == 2
    assert sum(site.stats[name]["spoiled"] for name in scenarios) == 0
    assert_no_page_is_left(crawl)


@pytest_twisted.ensureDeferred
async def test_the_file_behind_the_captcha(lab, browser_settings):
    lab.record = (
        b"%PDF-1.4",
        {"Content-Type": "application/pdf", "Content-Disposition": "attachment"},
    )
    with ApiStub(lab.gallery.answer) as api:
        host = lab.url.split("/")[2]
        settings = browser_settings("", ACECAPTCHA_API_BASE_URL=api.url)
        settings["ACECAPTCHA_RULES"] = {host: {"image": "#captcha", "input": "[name=code]"}}
        crawl = await run_crawl([Request(lab.url, meta={"playwright": True})], settings)
    assert crawl.errors == []
    assert crawl.pages[0].body == b"%PDF-1.4"
    assert crawl.pages[0].headers["Content-Type"] == b"application/pdf"
    assert crawl.pages[0].flags == ["playwright", "acecaptcha"]
    assert_no_page_is_left(crawl)


@pytest_twisted.ensureDeferred
async def test_a_captcha_that_cannot_be_solved_reaches_the_errback(site, api, browser_settings):
    api.answers = lambda image: "WRONG"
    settings = browser_settings("inplace", ACECAPTCHA_MAX_ATTEMPTS=2, RETRY_TIMES=1)
    crawl = await run_crawl(pages(site, "inplace"), settings)
    assert isinstance(crawl.error, CaptchaUnsolved)
    assert crawl.all_stats["retry/reason_count/captcha_unsolved"] == 1
    assert crawl.stats["failed"] == 2
    assert len(api.calls) == 4
    assert_no_page_is_left(crawl)


@pytest_twisted.ensureDeferred
async def test_a_page_that_is_included_is_the_solved_one(site, api, browser_settings):
    titles = []

    class Including(CollectingSpider):
        async def keep(self, response):  # type: ignore[override]
            page = response.meta["playwright_page"]
            titles.append(await page.title())
            await page.close()
            self.crawl.pages.append(response)

    start = pages(site, "forbidden", playwright_include_page=True)
    crawl = await run_crawl(start, browser_settings("forbidden"), spider=Including)
    assert titles == ["Record 0"]
    assert crawl.pages[0].status == 200


@pytest_twisted.ensureDeferred
async def test_included_pages_do_not_pile_up_on_retries(site, api, browser_settings):
    still_open = []

    class Including(CollectingSpider):
        def fail(self, failure):
            super().fail(failure)
            context = failure.request.meta["playwright_page"].context
            still_open.append(len(context.pages))

    api.answers = lambda image: "WRONG"
    settings = browser_settings("inplace", ACECAPTCHA_MAX_ATTEMPTS=1, RETRY_TIMES=2)
    start = pages(site, "inplace", playwright_include_page=True)
    crawl = await run_crawl(start, settings, spider=Including)
    assert isinstance(crawl.error, CaptchaUnsolved)
    assert still_open == [1]


@pytest_twisted.ensureDeferred
async def test_page_methods_of_the_spider_see_the_solved_page(site, api, browser_settings):
    methods = [PageMethod("title"), PageMethod("wait_for_selector", "h1.record", timeout=2000)]
    start = pages(site, "forbidden", playwright_page_methods=methods)
    crawl = await run_crawl(start, browser_settings("forbidden"))
    assert crawl.pages[0].meta["playwright_page_methods"] == methods
    assert methods[0].result == "Record 0"


@pytest_twisted.ensureDeferred
async def test_a_form_keeps_the_headers_of_the_spider(site, api, browser_settings):
    settings = browser_settings("inplace", USER_AGENT="Tester/1.0")
    crawl = await run_crawl(pages(site, "inplace"), settings)
    assert crawl.records == ["Record 0"]
    posted = [seen for seen in site.requests if seen.method == "POST"]
    assert posted[0].headers["User-Agent"] == "Tester/1.0"


@pytest_twisted.ensureDeferred
async def test_wrong_token_closes_the_spider_and_no_page_stays(site, browser_settings):
    with ApiStub(site.answers, token="another") as api:
        settings = browser_settings("inplace", ACECAPTCHA_API_BASE_URL=api.url)
        crawl = await run_crawl(pages(site, "inplace", 3), settings)
    assert crawl.reason == "acecaptcha_invalid_token"
    assert crawl.pages == []
    assert_no_page_is_left(crawl)


@pytest_twisted.ensureDeferred
async def test_page_method_works_as_it_stands(site, api, browser_settings, monkeypatch):
    monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", "token")
    monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", api.url)
    method = PageMethod(solve_captcha, RULES["inplace"], timeout=3000)
    start = pages(site, "inplace", playwright_page_methods=[method])
    settings = browser_settings("inplace", ACECAPTCHA_RULES={}, ACECAPTCHA_TOKEN=None)
    crawl = await run_crawl(start, settings)
    assert crawl.records == ["Record 0"]
    assert method.result.attempts == 1
    method = PageMethod(solve_captcha, RULES["nocaptcha"], timeout=300)
    start = pages(site, "nocaptcha", playwright_page_methods=[method])
    crawl = await run_crawl(start, browser_settings("nocaptcha"))
    assert isinstance(crawl.error, CaptchaNotFound)
    assert_no_page_is_left(crawl)


def test_page_method_can_be_pickled():
    method = PageMethod(solve_captcha, image="#captcha", timeout=500)
    again = pickle.loads(pickle.dumps(method))
    assert again.method is solve_captcha
    assert again.kwargs == method.kwargs


@pytest_twisted.ensureDeferred
async def test_requests_wait_in_a_jobdir(site, api, browser_settings, tmp_path, caplog):
    settings = browser_settings(
        "every_k", JOBDIR=str(tmp_path), CONCURRENT_REQUESTS=2, SCHEDULER_DEBUG=True
    )
    start = pages(site, "every_k", 8, playwright_page_methods=[PageMethod("title")])
    crawl = await run_crawl(start, settings)
    assert len(crawl.records) == 8
    assert crawl.all_stats["scheduler/enqueued/disk"] == 8
    assert "Unable to serialize" not in caplog.text


@pytest_twisted.ensureDeferred
async def test_pages_without_a_captcha_are_left_alone(site, api, browser_settings):
    crawl = await run_crawl(pages(site, "nocaptcha", 3), browser_settings("nocaptcha"))
    assert len(crawl.records) == 3
    assert crawl.stats == {"challenges": 0}
    assert not any("acecaptcha" in page.flags for page in crawl.pages)


@pytest_twisted.ensureDeferred
async def test_plain_requests_beside_those_of_the_browser(site, api, browser_settings):
    start = [*pages(site, "inplace", 2), Request(f"{site.url}/inplace/record/2")]
    crawl = await run_crawl(start, browser_settings("inplace"))
    assert len(crawl.records) == 3
    assert len(api.calls) == 2  # two sessions: the browser's and Scrapy's own


@pytest_twisted.ensureDeferred
async def test_a_captcha_that_a_script_inserts_later(lab, browser_settings):
    build = f"document.body.innerHTML = '{lab.page}'"
    lab.page = f"Loading...<script>fetch('/slow').then(() => {{ {build} }})</script>"
    with ApiStub(lab.gallery.answer) as api:
        settings = browser_settings("", ACECAPTCHA_API_BASE_URL=api.url)
        rule = {"image": "#captcha", "input": "[name=code]", "after": "stay"}
        settings["ACECAPTCHA_RULES"] = {lab.url.split("/")[2]: rule}
        crawl = await run_crawl([Request(lab.url, meta={"playwright": True})], settings)
    assert crawl.errors == []
    assert crawl.records == ["Record 1"]
