"""Run a crawl inside a test and keep all that came out of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from scrapy import Request, Spider
from scrapy.crawler import Crawler, CrawlerRunner
from scrapy.http import Response
from scrapy.settings import Settings
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

TOKEN = "test-token-0123456789"

on_other_reactors = pytest.mark.parametrize(
    "reactor",
    [
        {"TWISTED_REACTOR": "twisted.internet.selectreactor.SelectReactor"},
        {"TWISTED_REACTOR_ENABLED": False},
    ],
    ids=["select", "none"],
)


@dataclass
class Crawl:
    """What a crawl brought home."""

    pages: list[Response] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    crawler: Crawler | None = None
    reason: str = ""

    @property
    def all_stats(self) -> dict[str, Any]:
        assert self.crawler is not None
        return self.crawler.stats.get_stats()

    @property
    def stats(self) -> dict[str, Any]:
        """The plugin's stats, without seconds, which no two runs share."""
        return {
            key.removeprefix("acecaptcha/"): value
            for key, value in self.all_stats.items()
            if key.startswith("acecaptcha/") and key != "acecaptcha/elapsed_seconds"
        }

    @property
    def records(self) -> list[str]:
        """Headings of the record pages, in order."""
        return sorted(
            (h for page in self.pages if (h := page.css("h1.record::text").get())),
            key=lambda heading: int(heading.split()[-1]),
        )

    @property
    def errors(self) -> list[Any]:
        return [failure.value for failure in self.failures]

    @property
    def error(self) -> Any:
        """The one error of the crawl."""
        assert len(self.failures) == 1, self.failures
        return self.failures[0].value


class CollectingSpider(Spider):
    """Follows a listing's links to its records and keeps every response and failure."""

    name = "collecting"

    def __init__(self, start: Iterable[str | Request], crawl: Crawl, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start_from = start
        self.crawl = crawl

    async def start(self) -> Any:
        for url in self.start_from:
            if isinstance(url, Request):
                yield url.replace(
                    callback=url.callback or self.keep, errback=url.errback or self.fail
                )
            else:
                yield Request(url, self.parse, errback=self.fail)

    def parse(self, response: Response) -> Any:
        links = response.css("a.record::attr(href)").getall()
        if not links:
            self.keep(response)
        for link in links:
            yield response.follow(link, self.keep, errback=self.fail)

    def keep(self, response: Response) -> None:
        self.crawl.pages.append(response)

    def fail(self, failure: Failure) -> None:
        self.crawl.failures.append(failure)

    def closed(self, reason: str) -> None:
        self.crawl.reason = reason


BASE_SETTINGS: dict[str, Any] = {
    "ADDONS": {"scrapy_acecaptcha.Addon": 500},
    "ACECAPTCHA_TOKEN": TOKEN,
    "ACECAPTCHA_RETRIES": 0,
    "ACECAPTCHA_TIMEOUT": 20,
    "TELNETCONSOLE_ENABLED": False,
    "LOG_LEVEL": "DEBUG",
    "RETRY_TIMES": 1,
    "CONCURRENT_REQUESTS": 1,
    "CONCURRENT_REQUESTS_PER_DOMAIN": 64,
    "HTTPERROR_ALLOW_ALL": True,
    "DOWNLOAD_DELAY": 0,
}


def run_crawl(
    start: Iterable[str | Request],
    settings: dict[str, Any],
    *,
    prepare: Callable[[Crawler], None] | None = None,
    spider: type[CollectingSpider] = CollectingSpider,
    **attributes: Any,
) -> Deferred[Crawl]:
    """Crawl from *start* and fire with all that came out."""
    crawl = Crawl()
    crawler = CrawlerRunner(Settings({**BASE_SETTINGS, **settings})).create_crawler(spider)
    crawl.crawler = crawler
    if prepare is not None:
        prepare(crawler)
    logging.getLogger("tldextract").setLevel(logging.CRITICAL)  # it tries to go online
    deferred = crawler.crawl(start=start, crawl=crawl, **attributes)
    return cast("Deferred[Any]", deferred).addCallback(lambda _: crawl)
