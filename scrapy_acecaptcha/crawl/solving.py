"""The way behind a captcha: its turn at the gate, the loop, and what the spider gets."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from scrapy_acecaptcha.crawl.challenge import ScrapyChallenge
from scrapy_acecaptcha.crawl.image_limit import ImageLimit, tries
from scrapy_acecaptcha.crawl.page_captcha import PageCaptcha
from scrapy_acecaptcha.crawl.rule_health import AnswerWatch, RuleHealths
from scrapy_acecaptcha.crawl.session_hint import SessionHint
from scrapy_acecaptcha.crawl.sessions import SessionDropped
from scrapy_acecaptcha.crawl.waiting import Stopped, Waits
from scrapy_acecaptcha.errors import CaptchaUnsolved
from scrapy_acecaptcha.flow import CaptchaResult, drive_async
from scrapy_acecaptcha.signals import captcha_solved

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler
    from scrapy.http import Response

    from scrapy_acecaptcha.crawl.crawl_solver import CrawlSolver
    from scrapy_acecaptcha.crawl.held import Turn
    from scrapy_acecaptcha.crawl.sessions import Key
    from scrapy_acecaptcha.crawl.traffic import Traffic
    from scrapy_acecaptcha.rule_book import RuleBook
    from scrapy_acecaptcha.rules import CaptchaRule

logger = logging.getLogger(__name__)

Captcha = ScrapyChallenge | PageCaptcha


class GatedSolving:
    """Gets requests behind their captchas, one at a time in each session.

    :param healths: what the crawl has learnt of its rules
    :param count: adds to a stat
    """

    def __init__(
        self,
        crawler: Crawler,
        *,
        rules: RuleBook,
        healths: RuleHealths,
        solver: CrawlSolver,
        traffic: Traffic,
        waits: Waits,
        count: Callable[..., None],
    ) -> None:
        self._crawler = crawler
        self._rules = rules
        self._healths = healths
        self._solver = solver
        self._traffic = traffic
        self._waits = waits
        self._count = count
        self._hint = SessionHint(crawler, traffic.each_time)

    def watch(self, rule: CaptchaRule, *requests: Request) -> AnswerWatch:
        """Watch over the answers for a request, which are bounded over its retries and refreshes.

        :param requests: the request in its versions: as the spider made it, as it was downloaded
        """
        most = self._solver.attempts_for(rule) * tries(self._crawler.settings, requests[0])
        health = self._healths.of(requests[-1].url, rule)
        return AnswerWatch(health, self._waits, ImageLimit(most, *requests))

    async def answer(
        self, challenge: ScrapyChallenge, key: Key | None, stale: bool, early: Turn | None = None
    ) -> Response:
        """The page that the spider gets instead of a captcha, or of a query's bare form.

        See :meth:`get_behind`.
        """
        return hand_over(challenge, await self.get_behind(challenge, key, stale, early))

    async def get_behind(
        self, challenge: Captcha, key: Key | None, stale: bool, early: Turn | None = None
    ) -> CaptchaResult | None:
        """Solve captchas until none is asked for; None if there was nothing to solve.

        :param key: names the session
        :param stale: the captcha may have been replaced
        :param early: the turn that the request took before its download
        :raises Stopped: the crawl is stopping
        :raises SessionDropped: the session has been dropped
        :raises AceCaptchaError: there is no getting behind the captcha
        """
        result = None
        try:
            if not challenge.shows_captcha:  # the session has been let through meanwhile
                await challenge.send_query()
            # A query that was sent again without a captcha may ask for one after all.
            most = self._solver.attempts_for(challenge.rule)
            while challenge.shows_captcha:
                if challenge.images_read >= most:
                    raise challenge.unsolved()
                self._count("challenges")
                result = await self._pass_captcha(challenge, key, stale, early)
                stale = False
        finally:
            challenge.close()
        return result

    async def _pass_captcha(
        self, challenge: Captcha, key: Key | None, stale: bool, early: Turn | None
    ) -> CaptchaResult | None:
        """Get behind one captcha, when it is the session's turn, as :meth:`get_behind` does."""
        if self._waits.stopped:
            raise Stopped
        if key is None:
            if stale and await self._replay(challenge):
                return None
            return await self._solve(challenge)
        session = self._traffic.gate.session(key)
        if session.shut and early is None:
            self._count("held")
        while True:
            async with session.turn(stale, self._traffic.beside(challenge.request), early) as turn:
                if self._traffic.is_dropped(challenge.request):
                    raise SessionDropped
                if turn.stale and await self._replay(challenge):
                    session.allowance.pages += 1
                    session.release_all(turn)
                    return None
                if turn.leads:
                    return await self._solve_in_session(challenge, key)
            stale = True

    async def _solve_in_session(self, challenge: Captcha, key: Key) -> CaptchaResult:
        try:
            result = await self._solve(challenge)
        except CaptchaUnsolved as error:
            if error.attempts:  # answers that the site refused
                self._traffic.drop_session(challenge.request)
            raise
        self._traffic.gate.note_solve(key)
        if result.answer:
            self._hint.solved(self._rules.name_for(challenge.url) or "", challenge)
        return result

    async def _replay(self, challenge: Captcha) -> bool:
        self._count("replayed")
        return await challenge.reload()

    async def _solve(self, challenge: Captcha) -> CaptchaResult:
        started = time.monotonic()
        account = self._rules.name_for(challenge.url) or ""
        try:
            used = challenge.images_read
            result = await drive_async(self._solver.steps(challenge, account=account, used=used))
        finally:
            self._solver.update_stats()
            self._count("elapsed_seconds", time.monotonic() - started)
        if not result.answer:  # the site asks for no captcha any more, and took no answer
            return result
        self._count("solved")
        spider = self._crawler.spider
        logger.info(
            "Solved the captcha at %(url)s: %(attempts)d answers, %(elapsed).2f s",
            {"url": challenge.url, "attempts": result.attempts, "elapsed": result.elapsed},
            extra={"spider": spider},
        )
        self._crawler.signals.send_catch_log(
            captcha_solved, request=challenge.request, result=result, spider=spider
        )
        return result


def hand_over(challenge: Captcha, result: CaptchaResult | None) -> Response:
    """The page behind the captcha, as the answer to the request that the spider made."""
    page = challenge.page
    assert page is not None
    page.request = challenge.request
    if result is not None and result.answer:
        page.flags.append("acecaptcha")
        challenge.request.meta["acecaptcha_result"] = {
            "answer": result.answer,
            "attempts": result.attempts,
            "elapsed": result.elapsed,
        }
    return page
