"""AceCaptchaMiddleware: the Scrapy front end; wiring, no policy."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from scrapy import Request, signals
from scrapy.exceptions import NotConfigured
from scrapy.utils.asyncio import create_looping_call

from scrapy_acecaptcha.crawl.browser_visits import BrowserVisits
from scrapy_acecaptcha.crawl.captcha_page import shows_captcha
from scrapy_acecaptcha.crawl.challenge import ScrapyChallenge
from scrapy_acecaptcha.crawl.crawl_solver import CrawlSolver
from scrapy_acecaptcha.crawl.each_time import EachTime
from scrapy_acecaptcha.crawl.failure import FailurePolicy
from scrapy_acecaptcha.crawl.frames import enter_frame
from scrapy_acecaptcha.crawl.inner_requests import INNER, InnerRequests, check_target
from scrapy_acecaptcha.crawl.progress import Progress
from scrapy_acecaptcha.crawl.redirects import again, original_request
from scrapy_acecaptcha.crawl.rule_health import MAX_REFUSED, RuleHealths
from scrapy_acecaptcha.crawl.scrapy_internals import is_stopping
from scrapy_acecaptcha.crawl.sessions import SessionDropped, Sessions
from scrapy_acecaptcha.crawl.settings import whole_number
from scrapy_acecaptcha.crawl.solving import GatedSolving
from scrapy_acecaptcha.crawl.traffic import Traffic
from scrapy_acecaptcha.crawl.waiting import Stopped, Waits
from scrapy_acecaptcha.errors import AceCaptchaError
from scrapy_acecaptcha.page.images import DEFAULT_MAX_BYTES
from scrapy_acecaptcha.rule_book import RuleBook
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.solver import SolverOwner

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from scrapy.utils.asyncio import AsyncioLoopingCall
    from twisted.internet.task import LoopingCall
    from typing_extensions import Self

    from scrapy_acecaptcha.crawl.held import Turn

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5  # between two looks whether the crawl is stopping


class AceCaptchaMiddleware(SolverOwner):
    """Downloader middleware that solves the captchas of the sites in ACECAPTCHA_RULES.

    :raises SettingsError: rules but no token, or a setting that cannot work; the crawl does not
        start
    :raises scrapy.exceptions.NotConfigured: ACECAPTCHA_ENABLED is False, or neither rules nor token
    """

    def __init__(self, crawler: Crawler) -> None:
        settings = crawler.settings
        if not settings.getbool("ACECAPTCHA_ENABLED", True):
            raise NotConfigured
        self.crawler = crawler
        rules = RuleBook(settings.get("ACECAPTCHA_RULES") or {})
        self._max_image_bytes = whole_number(
            settings, "ACECAPTCHA_MAX_IMAGE_BYTES", DEFAULT_MAX_BYTES, least=1
        )
        self._healths = RuleHealths(
            rules, whole_number(settings, "ACECAPTCHA_MAX_REFUSED", MAX_REFUSED, least=0)
        )
        self._waits = Waits()
        self._inner_requests = InnerRequests.from_crawler(crawler, self._waits)
        self._failure = FailurePolicy(crawler, self._waits, self._count)
        self.solver: CrawlSolver = CrawlSolver(
            crawler, self._waits, self._failure, needed=len(rules) > 0
        )
        self._sessions = Sessions(rules, has_cookies=settings.getbool("COOKIES_ENABLED"))
        self._each_time = EachTime(self._healths)
        self._traffic = Traffic(crawler, self._sessions, self._each_time, self._waits, self._count)
        self.solver.gate = self._traffic.gate
        self._solving = GatedSolving(
            crawler,
            rules=rules,
            healths=self._healths,
            solver=self.solver,
            traffic=self._traffic,
            waits=self._waits,
            count=self._count,
        )
        self._visits = BrowserVisits(
            sessions=self._sessions,
            traffic=self._traffic,
            solving=self._solving,
            failure=self._failure,
            healths=self._healths,
            max_image_bytes=self._max_image_bytes,
        )
        self._tick: AsyncioLoopingCall | LoopingCall | None = None  # made when there is a loop
        self._progress = Progress(crawler)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Make the middleware and connect its signals."""
        middleware = cls(crawler)
        for method, signal in (
            (middleware.spider_opened, signals.spider_opened),
            (middleware.spider_closed, signals.spider_closed),
            (middleware._traffic.detours.request_scheduled, signals.request_scheduled),
            (middleware._traffic.detours.request_dropped, signals.request_dropped),
            (middleware._traffic.detours.page_delivered, signals.response_received),
        ):
            crawler.signals.connect(method, signal=signal)
        return middleware

    # What Scrapy calls

    def spider_opened(self, spider: Spider) -> None:
        """Start to look out for the end of the crawl."""
        self._stats.set_value("acecaptcha/challenges", 0)
        self._tick = create_looping_call(self._on_tick)
        self._tick.start(TICK_SECONDS, now=False)
        self._progress.start()

    async def spider_closed(self, spider: Spider, reason: str) -> None:
        """Close the connections to the API, and the journal."""
        if self._tick is not None and self._tick.running:
            self._tick.stop()
        self._progress.stop()
        self._healths.crawl_ends(spider)
        await self.solver.close_async(finished=reason == "finished")

    async def process_request(self, request: Request) -> Request | None:
        """Hold a request of a session whose captcha is being solved."""
        if INNER in request.meta:
            await check_target(request)
            return None
        request.meta.pop("acecaptcha_result", None)  # a page's result, passed on by response.meta
        instead = await self._traffic.hold(request)
        if instead is None and not self._visits.plan(request):
            self._traffic.request_leaves(request)
        return instead

    async def process_response(self, request: Request, response: Response) -> Request | Response:
        """Solve the captcha that *response* shows instead of what the spider asked for."""
        if INNER in request.meta:
            rule = self._sessions.rule(request)
            if rule is not None and shows_captcha(response, rule):
                # A captcha is an answer, even with a 503 or a refresh in some minutes.
                request.meta.update(dont_redirect=True, dont_retry=True)
            return response
        early = self._traffic.early_turn(request)
        try:
            return await self._receive(request, response, early)
        finally:
            self._traffic.end_turn(request, early)

    async def _receive(
        self, request: Request, response: Response, early: Turn | None
    ) -> Request | Response:
        # Scrapy's HTTP cache keeps captchas, too.
        stale = self._traffic.request_is_back(request, is_cached="cached" in response.flags)
        from_browser = self._visits.end(request, response)
        if from_browser is not None:
            return await from_browser
        rule = self._sessions.rule(request)
        if rule is None:
            return response
        return await self._look_at(request, response, rule, stale, early)

    async def process_exception(self, request: Request, exception: Exception) -> Request | None:
        """Let *request* land, and deal with a captcha that was not solved in the browser."""
        self._traffic.end_turn(request, self._traffic.early_turn(request))
        self._traffic.request_is_back(request)
        return await self._visits.fail(request, exception)

    # Captchas

    async def _look_at(
        self,
        request: Request,
        response: Response,
        rule: CaptchaRule,
        stale: bool,
        early: Turn | None,
    ) -> Request | Response:
        """Pass the captcha of a page under a rule, if it shows one."""
        if rule.frame:
            try:
                response.request = response.request or original_request(request)
                response = await enter_frame(self._inner_requests, response, rule)
            except (Stopped, AceCaptchaError) as error:
                return self._failure.request_after(original_request(request), error)
        is_captcha = shows_captcha(response, rule)
        self._healths.page_seen(request.url, rule, response, is_captcha)
        instead = self._traffic.page_seen(
            request, response, rule, is_captcha=is_captcha, early=early
        )
        if not is_captcha and not (rule.fields and self._traffic.was_solved(request)):
            return instead or response  # it has never shown one, or this is what was asked for
        asked = original_request(request)
        challenge = ScrapyChallenge(
            asked,
            response,
            rule,
            requests=self._inner_requests,
            watch=self._solving.watch(rule, asked, request),
            max_image_bytes=self._max_image_bytes,
        )
        if is_captcha and challenge.is_for_the_spider:
            self._tell_of_login(response, rule)
        elif is_captcha or challenge.is_bare_form:
            return await self._pass(challenge, request, stale, early)
        return instead or response

    async def _pass(
        self, challenge: ScrapyChallenge, request: Request, stale: bool, early: Turn | None
    ) -> Request | Response:
        """Get *request* behind its captcha, or into its query's form."""
        try:
            key = self._sessions.key(request)
            return await self._solving.answer(challenge, key, stale, early)
        except SessionDropped:
            return again(challenge.request)
        except (Stopped, AceCaptchaError) as error:
            return self._failure.request_after(challenge.request, error, sent=request)
        finally:
            self._traffic.detours.passed(request)

    def _tell_of_login(self, response: Response, rule: CaptchaRule) -> None:
        logger.info(
            "The page %(url)s is handed on as it is, though it shows a captcha (%(image)s): its "
            "form asks for a password, and empty ones would lock the account. The captcha is "
            "solved when the spider posts the form; or give the rule `fields`",
            {"url": response.url, "image": rule.image},
            extra={"spider": self.crawler.spider},
        )

    # The end of the crawl

    def _on_tick(self) -> None:
        """Let go of everyone who waits once the crawl is stopping, so that it can."""
        if is_stopping(self.crawler.engine):
            self._waits.stop()
            return
        self.solver.update_stats()
        self._traffic.tidy()

    @property
    def _stats(self) -> Any:
        return self.crawler.stats

    def _count(self, event: str, by: float = 1) -> None:
        if by:
            self._stats.inc_value(f"acecaptcha/{event}", by)
