"""A line in the log now and then, in the rhythm of Scrapy's LogStats."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scrapy.utils.asyncio import create_looping_call

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.utils.asyncio import AsyncioLoopingCall
    from twisted.internet.task import LoopingCall

logger = logging.getLogger(__name__)

_SHOWN = ("challenges", "solved", "failed", "api_requests", "rejected", "held")


class Progress:
    """Logs the captcha stats every LOGSTATS_INTERVAL seconds, if they have changed."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler
        self._shown: list[float] = [0] * len(_SHOWN)
        self._interval = crawler.settings.getfloat("LOGSTATS_INTERVAL")
        self._task: AsyncioLoopingCall | LoopingCall | None = None

    def start(self) -> None:
        """Log from now on."""
        if self._interval > 0:
            self._task = create_looping_call(self.log)
            self._task.start(self._interval, now=False)

    def stop(self) -> None:
        """Log no more."""
        if self._task is not None and self._task.running:
            self._task.stop()

    def log(self) -> None:
        """Log the stats, unless they are those of the last time."""
        stats = self._crawler.stats
        assert stats is not None
        now = [stats.get_value(f"acecaptcha/{name}", 0) for name in _SHOWN]
        if now == self._shown:
            return
        self._shown = now
        logger.info(
            "Captchas met %d, solved %d, failed %d; API calls %d, refused answers %d; "
            "requests held %d",
            *now,
            extra={"spider": self._crawler.spider},
        )
