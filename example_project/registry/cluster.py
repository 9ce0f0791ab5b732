"""What a worker of a cluster needs beside scrapy-redis: see docs/scaling.md."""

from __future__ import annotations

import time
from collections import deque

from scrapy import Request, Spider, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import DontCloseSpider, NotConfigured
from scrapy_redis.scheduler import Scheduler as RedisScheduler


class Scheduler(RedisScheduler):  # type: ignore[misc] # it has no types
    """scrapy-redis's scheduler, but who was redirected follows the redirect itself.

    The queue is shared, a browsing session is not: a captcha page that one worker was sent to is of
    no use to the next, and the first would never get to see its own.
    """

    def open(self, spider: Spider) -> None:
        self._redirected: deque[Request] = deque()
        super().open(spider)

    def enqueue_request(self, request: Request) -> bool:
        if not request.meta.get("redirect_urls"):
            return bool(super().enqueue_request(request))
        if not request.dont_filter and self.df.request_seen(request):
            return False
        self._redirected.append(request)
        return True

    def next_request(self) -> Request | None:
        return self._redirected.popleft() if self._redirected else super().next_request()

    def __len__(self) -> int:
        return len(self._redirected) + int(super().__len__())

    def close(self, reason: str) -> None:
        for request in self._redirected:
            self.queue.push(request)
        super().close(reason)


class StayOpen:
    """Keeps a worker without work open for CLUSTER_IDLE_SECONDS.

    Scrapy closes a spider that has nothing to do. In a cluster, another worker may be about to put
    new requests into Redis; an idle worker looks there every five seconds.
    """

    def __init__(self, crawler: Crawler) -> None:
        self._patience = crawler.settings.getfloat("CLUSTER_IDLE_SECONDS")
        if self._patience <= 0:
            raise NotConfigured
        self._idle_since: float | None = None
        crawler.signals.connect(self.idle, signals.spider_idle)
        crawler.signals.connect(self.busy, signals.request_reached_downloader)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> StayOpen:
        return cls(crawler)

    def idle(self) -> None:
        now = time.monotonic()
        if self._idle_since is None:
            self._idle_since = now
        if now - self._idle_since < self._patience:
            raise DontCloseSpider

    def busy(self) -> None:
        self._idle_since = None
