"""Redirects: to a captcha's page and back, and those that have to do with no captcha."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from flask import make_response, redirect, request
from pytest_twisted import ensureDeferred
from scrapy import Request, Spider, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.utils.defer import deferred_from_coro

from scrapy_acecaptcha.crawl.allowance import Allowance
from tests.crawling import CollectingSpider, run_crawl
from tests.site import CaptchaSite
from tests.site.scenario import CheckPage, Scenario, Session
from tests.site.walls import OneCheck
from tests.stub import ApiStub


def records(count: int) -> list[str]:
    return [f"Record {i}" for i in range(count)]


class Moved(Scenario):
    """Pages that have moved: to one address, in circles, to themselves with a cookie."""

    name = "moved"

    def do_old(self, session: Session, i: str) -> Any:
        return redirect(f"/moved/record/{int(i) // 4}")

    def do_older(self, session: Session, i: str) -> Any:
        return redirect(f"/moved/new/{int(i) // 4}")

    def do_new(self, session: Session, i: str) -> Any:
        return redirect(f"/moved/record/{i}")

    def do_record(self, session: Session, i: str) -> Any:
        return self.record(i)

    def do_circle(self, session: Session, i: str) -> Any:
        return redirect(f"/moved/circle/{(int(i) + 1) % 3}")

    def do_self(self, session: Session, i: str) -> Any:
        if request.cookies.get("seen"):
            return self.record(i)
        response = make_response(redirect(f"/moved/self/{i}"))
        response.set_cookie("seen", "1")
        return response


class Elsewhere(CheckPage):
    """The check page is on another host, which sends visitors back with a pass."""

    name = "elsewhere"
    rule: ClassVar = {"image": "img#captcha", "input": "input[name=code]"}

    def check_url(self) -> str:
        other = self.site.other_host_url
        return f"{other}/elsewhere/check?back={request.host_url.rstrip('/')}&to={request.path}"

    def form(self, session: Session, message: str) -> str:
        return (
            "<html><body><form method=post><img id=captcha src=/elsewhere/captcha>"
            "<input name=code><button>Go</button></form></body></html>"
        )

    def accepted(self, session: Session) -> Any:
        return redirect(f"{request.args['back']}/elsewhere/enter?to={request.args['to']}")

    def do_enter(self, session: Session) -> Any:
        session.pages = 1000
        return redirect(request.args["to"])


class Counting(OneCheck):
    """One check page for all records; the record may only be seen by POST."""

    name = "counting"
    cookie = "counting_sid"

    def do_post(self, session: Session, i: str) -> Any:
        if request.method != "POST":
            return "<html><body>POST, please</body></html>", 400
        return self.record(i) if self.admit(session) else self.wall(session)


@pytest.fixture(scope="module")
def _own() -> Iterator[CaptchaSite]:
    with CaptchaSite([Moved, Elsewhere, Counting, OneCheck]) as own:
        yield own


@pytest.fixture
def own(_own: CaptchaSite) -> Iterator[CaptchaSite]:
    """A site of these scenarios."""
    _own.reset()
    yield _own
    _own.reset()


@pytest.fixture
def own_settings(own: CaptchaSite) -> Iterator[Any]:
    """Make the settings of a crawl of it: own_settings({host: rule}, CONCURRENT_REQUESTS=8)."""
    with ApiStub(own.answers) as stub:

        def make(rules: dict[str, Any], **more: Any) -> dict[str, Any]:
            hosts = {url.partition("://")[2]: rule for url, rule in rules.items()}
            return {"ACECAPTCHA_API_BASE_URL": stub.url, "ACECAPTCHA_RULES": hosts, **more}

        yield make


ONE_CHECK = OneCheck.rule


def came(site: CaptchaSite) -> Counter[str]:
    return Counter(f"{seen.method} {seen.path}" for seen in site.requests)


# Walls


@pytest.mark.parametrize("concurrency", [1, 8, 32])
@pytest.mark.parametrize("wall", ["redirect_again", "one_check"])
@ensureDeferred
async def test_few_requests_are_made_in_vain(
    site: CaptchaSite,
    api: ApiStub,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    wall: str,
    concurrency: int,
) -> None:
    """Those in flight when the first captchas come are; later ones are foreseen."""
    monkeypatch.setattr("scrapy_acecaptcha.crawl.middleware.TICK_SECONDS", 1000)
    site.every_k = 50
    start = [f"{site.url}/{wall}/record/{i}" for i in range(300)]
    crawl = await run_crawl(start, settings(wall, CONCURRENT_REQUESTS=concurrency))
    assert crawl.records == records(300)
    solves = len(api.calls)
    assert 6 <= solves <= 7
    # A captcha costs the redirect, its page, its image, the form, and at most two pages in return.
    assert len(site.requests) <= 300 + 2 * concurrency + 6 * solves


def test_what_a_captcha_is_good_for_is_learnt_and_forgotten() -> None:
    allowance = Allowance()
    allowance.solve(1)
    assert not allowance.is_used_up(1000)
    for _ in range(3):
        allowance.page_came(alone=False)
    allowance.solve(2)
    assert not allowance.is_used_up(2)
    assert allowance.is_used_up(3)
    for _ in range(3):
        allowance.page_came(alone=False)
    allowance.page_came(alone=True)  # the fourth
    assert not allowance.is_used_up(1000)
    allowance.solve(3)
    assert not allowance.is_used_up(3)
    assert allowance.is_used_up(4)


class DropsRedirected:
    """A downloader middleware that drops the captcha's page, the first time that it comes."""

    dropped = 0

    def process_response(self, request: Request, response: Response) -> Response:
        if "/check" in request.url and not self.dropped:
            self.dropped += 1
            raise IgnoreRequest("dropped")
        return response


@ensureDeferred
async def test_a_dropped_page_of_a_captcha_lets_the_next_one_go_without_the_tick(
    site: CaptchaSite, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scrapy_acecaptcha.crawl.middleware.TICK_SECONDS", 1000)
    start = [f"{site.url}/redirect/record/{i}" for i in range(20)]
    config = settings(
        "redirect", CONCURRENT_REQUESTS=8, DOWNLOADER_MIDDLEWARES={DropsRedirected: 595}
    )
    crawl = await run_crawl(start, config)
    assert len(crawl.records) == 19
    assert [str(error) for error in crawl.errors] == ["dropped"]


# What is no captcha's page


@pytest.mark.parametrize("concurrency", [1, 8])
@ensureDeferred
async def test_redirects_are_filtered_as_scrapy_does(
    own: CaptchaSite, own_settings: Any, concurrency: int
) -> None:
    paths = [f"{old}/{i}" for i in range(24) for old in ("old", "older")] + [
        "circle/0",
        "circle/1",
        "self/7",
        "self/8",
    ]
    start = [Request(f"{own.url}/moved/{path}") for path in paths]
    seen = []
    for rules in ({}, {own.url: ONE_CHECK}):
        own.reset()
        config = own_settings(rules, CONCURRENT_REQUESTS=concurrency)
        crawl = await run_crawl(start, {**config, "ADDONS": {}} if not rules else config)
        seen.append((sorted(page.url for page in crawl.pages), came(own), len(crawl.errors)))
    if concurrency > 1:  # which of those to itself has the cookie in time is chance
        for pages, requests, _ in seen:
            for i in "78":
                requests.pop(f"GET /moved/self/{i}", None)
            pages[:] = [url for url in pages if "/self/" not in url]
    assert seen[0] == seen[1]


@ensureDeferred
async def test_a_spider_that_makes_its_responses_requests_again_comes_to_an_end(
    site: CaptchaSite, settings: Any
) -> None:
    class Again(CollectingSpider):
        def keep(self, response: Response) -> Any:
            super().keep(response)
            request = response.request
            assert request is not None
            yield request.replace()

    start = [Request(f"{site.url}/redirect_again/record/{i}") for i in range(30)]
    crawl = await run_crawl(
        start,
        settings("redirect_again", CONCURRENT_REQUESTS=8, CLOSESPIDER_PAGECOUNT=500),
        spider=Again,
    )
    assert crawl.reason == "finished"
    assert crawl.records == records(30)


# What can be seen


SCRAPYS_OWN = ("download_", "redirect_", "depth", "is_start_request")


def describe(request: Request | None, spider: Spider | None) -> dict[str, Any]:
    assert request is not None
    assert spider is not None
    told = request.to_dict(spider=spider)
    told["meta"] = {k: v for k, v in told["meta"].items() if not k.startswith(SCRAPYS_OWN)}
    return told


class Watches:
    """A downloader middleware that notes what requests look like on their way."""

    seen: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Watches:
        cls.seen = []
        return cls(crawler)

    def process_request(self, request: Request) -> None:
        if "_acecaptcha_inner" not in request.meta:
            self.seen.append(describe(request, self.crawler.spider))


@ensureDeferred
async def test_requests_of_hosts_without_a_rule_are_left_as_they_are(
    own: CaptchaSite, own_settings: Any
) -> None:
    start = [Request(f"{own.url}/moved/old/{i}", meta={"i": i}) for i in range(4)]
    seen: list[list[dict[str, Any]]] = []
    for addons in ({}, {"scrapy_acecaptcha.Addon": 500}):
        config = own_settings({"http://example.org": ONE_CHECK}, ADDONS=addons)
        config["DOWNLOADER_MIDDLEWARES"] = {Watches: 587}
        await run_crawl(start, config)
        seen.append(Watches.seen)
    assert len(seen[0]) > 4
    assert seen[0] == seen[1]


@ensureDeferred
async def test_nothing_is_noted_where_a_spider_could_see_it(
    site: CaptchaSite, settings: Any
) -> None:
    start = [
        Request(f"{site.url}/one_check/record/{i}" + "x" * (i == 9), meta={"mine": i})
        for i in range(30)
    ]
    config = settings(
        "one_check",
        CONCURRENT_REQUESTS=8,
        DOWNLOADER_MIDDLEWARES={Watches: 587, DropsRedirected: 595},
    )
    crawl = await run_crawl(start, config)
    assert len(crawl.pages) == 29
    failed = [failure.request for failure in crawl.failures]  # type: ignore[attr-defined]
    told = [describe(page.request, crawl.crawler.spider) for page in crawl.pages]
    told += [describe(request, crawl.crawler.spider) for request in failed] + Watches.seen
    names = {name for one in told for name in one["meta"]}
    assert names == {"mine", "acecaptcha_result"}
    assert not any(one["dont_filter"] for one in told)


# What lies on a disk


class ClosesOnRedirect:
    """An extension that closes the spider when a request has been redirected."""

    closes = False

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler
        crawler.signals.connect(self.scheduled, signals.request_scheduled)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> ClosesOnRedirect:
        return cls(crawler)

    def scheduled(self, request: Request) -> None:
        if "redirect_urls" in request.meta and ClosesOnRedirect.closes:
            ClosesOnRedirect.closes = False
            assert self.crawler.engine is not None
            deferred_from_coro(self.crawler.engine.close_spider_async(reason="redirected"))


@pytest.mark.parametrize("path", ["record", "post"])
@ensureDeferred
async def test_a_redirected_request_is_resumed_as_the_spider_made_it(
    own: CaptchaSite, own_settings: Any, tmp_path: Path, path: str
) -> None:
    start = [
        Request(
            f"{own.url}/counting/{path}/{i}",
            method="POST" if path == "post" else "GET",
            body=b"a=1" if path == "post" else b"",
            priority=5,
        )
        for i in range(12)
    ]
    config = own_settings(
        {own.url: Counting.rule},
        JOBDIR=str(tmp_path),
        CONCURRENT_REQUESTS=4,
        EXTENSIONS={ClosesOnRedirect: 0},
    )
    ClosesOnRedirect.closes = True
    crawl = await run_crawl(start, config)
    assert crawl.reason == "redirected"
    resumed = await run_crawl([], config)
    assert resumed.reason == "finished"
    assert sorted(crawl.records + resumed.records) == sorted(records(12))
    assert {page.request.priority for page in resumed.pages} == {5}
    assert not any(page.request.dont_filter for page in resumed.pages)


@ensureDeferred
async def test_what_another_run_has_seen_is_looked_at_once(
    own: CaptchaSite, own_settings: Any, tmp_path: Path
) -> None:
    """The filter knows the pages of another run, of which this one cannot know what they show."""
    config = own_settings({own.url: ONE_CHECK}, JOBDIR=str(tmp_path), CONCURRENT_REQUESTS=4)
    await run_crawl([Request(f"{own.url}/moved/old/{i}") for i in range(4)], config)
    await run_crawl([Request(f"{own.url}/one_check/record/{i}") for i in range(4)], config)
    own.reset()
    moved = await run_crawl([Request(f"{own.url}/moved/old/{i}?") for i in range(4, 8)], config)
    assert moved.pages[0].url == f"{own.url}/moved/record/1"
    own.reset()
    again = await run_crawl([Request(f"{own.url}/moved/old/{i}?2") for i in range(8)], config)
    assert again.pages + again.errors == []
    assert came(own)["GET /moved/record/0"] == came(own)["GET /moved/record/1"] == 1
    walled = [Request(f"{own.url}/one_check/record/{i}") for i in range(4, 8)]
    crawl = await run_crawl(walled, config)
    assert crawl.errors == []
    assert crawl.records == [f"Record {i}" for i in range(4, 8)]


# A rule for the captcha's host alone


@ensureDeferred
async def test_a_rule_for_the_host_of_the_captcha_is_enough(
    own: CaptchaSite, own_settings: Any
) -> None:
    start = [
        Request(f"{own.url}/elsewhere/record/{i}", meta={"mine": i}, headers={"X-Mine": "1"})
        for i in range(12)
    ]
    config = own_settings(
        {own.other_host_url: Elsewhere.rule},
        CONCURRENT_REQUESTS=4,
        DOWNLOADER_MIDDLEWARES={Watches: 587},
    )
    crawl = await run_crawl(start, config)
    assert crawl.errors == []
    assert crawl.records == records(12)
    # Requests of the first host are not held, as it has no rule: one more may be on its way.
    assert own.stats["elsewhere"]["solved"] <= 2
    assert {page.request.url for page in crawl.pages} == {request.url for request in start}
    assert all(page.request.headers["X-Mine"] == b"1" for page in crawl.pages)
    assert {name for one in Watches.seen for name in one["meta"]} == {"mine"}
