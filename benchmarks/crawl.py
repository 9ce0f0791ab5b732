"""One crawl in a process of its own: ``python -m benchmarks.crawl SPIDER ARGUMENTS SETTINGS``.

ARGUMENTS and SETTINGS are JSON objects. Prints one JSON object: what the spider measured, seconds
and CPU seconds from its first request to its last response, and the plugin's stats.
"""

from __future__ import annotations

import cProfile
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any, cast

import psutil
from scrapy import FormRequest, Request, Spider
from scrapy.crawler import CrawlerProcess
from scrapy.http import HtmlResponse, Response

from benchmarks.servers import RULE, read

SETTINGS: dict[str, Any] = {
    "LOG_LEVEL": "ERROR",
    "TELNETCONSOLE_ENABLED": False,
    "HTTPERROR_ALLOW_ALL": True,
    "CONCURRENT_REQUESTS": 16,
    "CONCURRENT_REQUESTS_PER_DOMAIN": 64,
    "DOWNLOAD_DELAY": 0,
    "ACECAPTCHA_TOKEN": "token",
}


def with_addon(site: str, api: str = "https://api.acedata.cloud", **fields: Any) -> dict[str, Any]:
    """Settings that turn the add-on on for *site*, with *fields* in its rule."""
    return {
        "ADDONS": {"scrapy_acecaptcha.Addon": 500},
        "ACECAPTCHA_RULES": {site.partition("://")[2]: {**RULE, **fields}},
        "ACECAPTCHA_API_BASE_URL": api,
    }


def run(
    spider: str, settings: dict[str, Any], *, profile: str = "", **arguments: Any
) -> dict[str, Any]:
    """Run a crawl in a process of its own and return what it printed.

    :param profile: file for a profile of the crawl
    """
    command = [sys.executable, "-m", "benchmarks.crawl", spider]
    command += [json.dumps(arguments), json.dumps(settings), profile]
    same_hashes = {**os.environ, "PYTHONHASHSEED": "0"}  # one cause of noise less
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=same_hashes)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Timed(Spider):
    """Starts at the site's front page, and from there measures its *n* requests.

    :param path: pages are at <site>/<path>/<number>
    """

    site: str
    path: str
    n: int

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        vars(self).update(arguments)
        self.result: dict[str, Any] = {"pages": 0}

    async def start(self) -> AsyncIterator[Request]:
        yield Request(self.site, self.begin)

    def begin(self, response: Response) -> Iterator[Request]:
        self.started = _clocks()
        yield from self.requests()

    def requests(self) -> Iterator[Request]:
        for i in range(self.n):
            yield self.request(i)

    def request(self, i: int, **meta: Any) -> Request:
        return Request(f"{self.site}/{self.path}/{i}", meta=meta)

    def parse(self, response: Response) -> Any:
        self.result["pages"] += b"<title>Record" in response.body
        self.done = _clocks()

    def closed(self, reason: str) -> None:
        self.result["bytes_at_the_end"] = psutil.Process().memory_info().rss
        self.result.update({clock: self.done[clock] - self.started[clock] for clock in self.done})
        self.result["stats"] = {
            key.partition("/")[2]: value
            for key, value in self.crawler.stats.get_stats().items()
            if key.startswith("acecaptcha/")
        }


def _clocks() -> dict[str, float]:
    """Seconds by the clock on the wall, of the process's CPU time, and of its main thread's."""
    return {
        "seconds": time.perf_counter(),
        "cpu": time.process_time(),
        "main_cpu": time.thread_time(),
    }


class Pages(Timed):
    """Pages of which the spider looks at nothing: what is left is Scrapy's own work."""

    name = "pages"


class Titles(Timed):
    """Pages of which the spider reads something, as most spiders do."""

    name = "titles"

    def parse(self, response: Response) -> None:
        assert response.css("title::text").get()
        super().parse(response)


class Sessions(Timed):
    """Pages that are each asked for in a session of its own."""

    name = "sessions"

    def requests(self) -> Iterator[Request]:
        for i in range(self.n):
            yield self.request(i, cookiejar=i)


class Jars(Timed):
    """Pages that are spread over so many cookiejars by hand."""

    name = "jars"
    jars: int

    def requests(self) -> Iterator[Request]:
        for i in range(self.n):
            yield self.request(i, cookiejar=i % self.jars)


class OneByOne(Timed):
    """By turns, a page whose captcha the add-on solves, and the same downloads by hand."""

    name = "one_by_one"

    def requests(self) -> Iterator[Request]:
        self.result.update(solved=[], plain=[])
        yield self.turn(0)

    def turn(self, i: int) -> Request:
        by_hand = i % 2 == 1
        self.began = time.perf_counter()
        request = self.request(i, cookiejar=i, **({"acecaptcha": False} if by_hand else {}))
        return request.replace(
            callback=self.by_hand if by_hand else self.solved, cb_kwargs={"i": i}
        )

    def solved(self, response: Response, i: int) -> Iterator[Request]:
        assert "acecaptcha" in response.flags
        yield from self.next("solved", response, i)

    async def by_hand(self, response: HtmlResponse, i: int) -> AsyncIterator[Request]:
        download = self.crawler.engine.download_async
        meta = {"cookiejar": i, "acecaptcha": False}
        image = await download(Request(response.urljoin("../captcha.png"), meta=meta))
        form = {"code": read(image.body)}
        page = await download(FormRequest(response.url, formdata=form, meta=meta))
        for request in self.next("plain", page, i):
            yield request

    def next(self, kind: str, response: Response, i: int) -> Iterator[Request]:
        self.result[kind].append(time.perf_counter() - self.began)
        self.parse(response)
        if i + 1 < 2 * self.n:
            yield self.turn(i + 1)


class Memory(Sessions):
    """Samples the process's memory, and asks for a page whenever it has one: no queue shrinks."""

    name = "memory"
    every = 100  # pages between two samples

    def requests(self) -> Iterator[Request]:
        self.process = psutil.Process()
        self.result["bytes"] = []
        # A filter remembers all.
        self.rest = (request.replace(dont_filter=True) for request in super().requests())
        yield from islice(self.rest, self.settings.getint("CONCURRENT_REQUESTS"))

    def parse(self, response: Response) -> Iterator[Request]:
        super().parse(response)
        if self.result["pages"] % self.every == 0:
            self.result["bytes"].append(self.process.memory_info().rss)
        yield from islice(self.rest, 1)


SPIDERS = {spider.name: spider for spider in (Pages, Titles, Sessions, Jars, OneByOne, Memory)}


def main(spider: str, arguments: str, settings: str, profile: str = "") -> None:
    process = CrawlerProcess({**SETTINGS, **json.loads(settings)})
    crawler = process.create_crawler(SPIDERS[spider])
    process.crawl(crawler, **json.loads(arguments))
    if profile:
        with cProfile.Profile() as profiler:
            process.start()
        profiler.dump_stats(profile)
    else:
        process.start()
    print(json.dumps(cast("Timed", crawler.spider).result))


if __name__ == "__main__":
    main(*sys.argv[1:])
