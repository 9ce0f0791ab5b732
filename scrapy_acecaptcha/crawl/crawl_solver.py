"""The crawl's own Solver: its waits end with the crawl, its counts are Scrapy's stats."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrapy.exceptions import NotConfigured
from scrapy.utils.asyncio import run_in_thread

from scrapy_acecaptcha.crawl.failure import FailurePolicy, is_fatal
from scrapy_acecaptcha.crawl.settings import open_journal, positive_number, whole_number
from scrapy_acecaptcha.crawl.waiting import Stopped
from scrapy_acecaptcha.errors import AceCaptchaError, CrawlStopped, TokenMissing
from scrapy_acecaptcha.flow import CaptchaResult, drive_async
from scrapy_acecaptcha.recognition.budget import Budget, SharedBudget
from scrapy_acecaptcha.recognition.client import (
    DEFAULT_CONCURRENCY,
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT,
    AceCaptchaClient,
)
from scrapy_acecaptcha.solver import DEFAULT_MAX_ATTEMPTS, Reading, Solver

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings

    from scrapy_acecaptcha.crawl.gates import Gates
    from scrapy_acecaptcha.crawl.waiting import Waits
    from scrapy_acecaptcha.flow import Challenge, Steps
    from scrapy_acecaptcha.recognition.waits import Waits as AnyWaits


class CrawlSolver(Solver):
    """The Solver of one crawl, made of its settings.

    :param waits: what the requests of the crawl wait for
    :param failure: closes the spider where no other call would fare better
    :raises SettingsError: a setting cannot work
    :raises scrapy.exceptions.NotConfigured: there is no token, and *needed* is False
    """

    _budget_name = "ACECAPTCHA_BUDGET"

    def __init__(
        self, crawler: Crawler, waits: Waits, failure: FailurePolicy, *, needed: bool
    ) -> None:
        settings = crawler.settings
        # The spider's own name: a class need not have one.
        name = crawler.spider.name if crawler.spider else getattr(crawler.spidercls, "name", "")
        client = _client(settings, needed)
        self._job = (settings.get("JOBDIR") and str(Path(settings["JOBDIR"]).absolute())) or ""
        super().__init__(
            client=client,
            journal=open_journal(settings),
            budget=_budget(settings, name),
            local_reader=settings.get("ACECAPTCHA_LOCAL_READER"),
            max_attempts=whole_number(
                settings, "ACECAPTCHA_MAX_ATTEMPTS", DEFAULT_MAX_ATTEMPTS, least=1
            ),
            name=name,
        )
        self._own_client = True
        self._waits = waits
        self._crawl_waits = waits
        self._crawler = crawler
        self._failure = failure
        self._in_stats: Counter[str] = Counter()
        self.gate: Gates | None = None  # the crawl's, once there is one
        self.recognizer.check_may_call = self._check_may_call

    async def read_async(self, image: bytes, *, url: str = "") -> Reading:
        """Return the text in *image*, like :meth:`Solver.read_async`.

        :raises CrawlStopped: the crawl is stopping
        """
        try:
            return await super().read_async(image, url=url)
        except Stopped:
            raise _stopped() from None
        except AceCaptchaError as error:
            self._close_spider_if_fatal(error)
            raise
        finally:
            self.update_stats()

    def update_stats(self) -> None:
        """Hand on what was counted in threads: Scrapy's stats belong to its own thread."""
        counts = self.counts
        for event, number in (counts - self._in_stats).items():
            self._add(event, number)
        self._in_stats = counts

    async def close_async(self, *, finished: bool) -> None:
        """Close journal and connections, and complete the stats."""
        await run_in_thread(lambda: self.close(finished=finished))  # the journal may be locked
        self.update_stats()

    def _must_await(self, challenge: Any) -> bool:
        return True

    def _solving(self, challenge: Any, session: Hashable, waits: AnyWaits) -> Steps[CaptchaResult]:
        started = time.monotonic()
        self._add("challenges", 1)
        try:
            result = yield from super()._solving(challenge, session, waits)
        except Stopped:
            raise _stopped() from None
        except AceCaptchaError as error:
            self._add("failed", 1)
            self._close_spider_if_fatal(error)
            raise
        finally:
            self._add("elapsed_seconds", time.monotonic() - started)
            self.update_stats()
        if result.answer:
            self._add("solved", 1)
        return result

    def _solving_in_turn(
        self, challenge: Challenge, session: Hashable, waits: AnyWaits
    ) -> Steps[CaptchaResult]:
        result: CaptchaResult = yield self._behind_gate(challenge, ("solver", session))
        return result

    async def _behind_gate(self, challenge: Challenge, key: Hashable) -> CaptchaResult:
        """Take one's turn as the requests of the crawl do; no other request is held."""
        assert self.gate is not None
        started = time.monotonic()
        stale = False
        while True:
            async with self.gate.session(key).turn(stale) as turn:
                if turn.stale and await drive_async(_renewed(challenge)) is False:
                    self.gate.session(key).release_all(turn)
                    return CaptchaResult("", 0, time.monotonic() - started, b"")
                if turn.leads:
                    return await drive_async(self.steps(challenge))
            stale = True

    def _close_spider_if_fatal(self, error: AceCaptchaError) -> None:
        if is_fatal(error):
            self._failure.close_spider(error)

    def _check_may_call(self) -> None:
        if self._crawl_waits.stopped:
            raise Stopped

    def _add(self, event: str, number: float) -> None:
        stats: Any = self._crawler.stats
        stats.inc_value(f"acecaptcha/{event}", number)


def _renewed(challenge: Challenge) -> Steps[bool | None]:
    free: bool | None = yield challenge.renew()
    return free


def _stopped() -> CrawlStopped:
    return CrawlStopped("The crawl is stopping, so no captcha is read any more")


def _client(settings: BaseSettings, needed: bool) -> AceCaptchaClient:
    try:
        return AceCaptchaClient(
            token=settings.get("ACECAPTCHA_TOKEN"),
            base_url=settings.get("ACECAPTCHA_API_BASE_URL"),
            timeout=positive_number(settings, "ACECAPTCHA_TIMEOUT", DEFAULT_TIMEOUT),
            retries=whole_number(settings, "ACECAPTCHA_RETRIES", DEFAULT_RETRIES, least=0),
            concurrency=whole_number(
                settings, "ACECAPTCHA_CONCURRENCY", DEFAULT_CONCURRENCY, least=1
            ),
            tasks=settings.getbool("ACECAPTCHA_TASKS"),
        )
    except TokenMissing:
        if needed:
            raise
        raise NotConfigured("there are no ACECAPTCHA_RULES and no ACECAPTCHA_TOKEN") from None


def _budget(settings: BaseSettings, name: str) -> Budget | int:
    limit = whole_number(settings, "ACECAPTCHA_BUDGET", 0, least=0)
    shared = settings.get("ACECAPTCHA_BUDGET_REDIS")
    if shared:
        return SharedBudget(limit, shared, f"acecaptcha:budget:{name}")
    return limit
