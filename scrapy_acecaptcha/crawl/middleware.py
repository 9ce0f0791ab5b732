"""AceCaptchaMiddleware: the Scrapy front end; wiring, no policy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from scrapy import Request, signals
from scrapy.exceptions import NotConfigured
from scrapy.utils.asyncio import create_looping_call

from scrapy_acecaptcha.crawl.captcha_page import shows_captcha
from scrapy_acecaptcha.crawl.challenge import ScrapyChallenge
from scrapy_acecaptcha.crawl.crawl_solver import CrawlSolver
from scrapy_acecaptcha.crawl.failure import FailurePolicy, again
from scrapy_acecaptcha.crawl.frames import enter_frame
from scrapy_acecaptcha.crawl.gate import Gate, Session
from scrapy_acecaptcha.crawl.inner_requests import INNER, InnerRequests, check_target
from scrapy_acecaptcha.crawl.progress import Progress
from scrapy_acecaptcha.crawl.redirects import (
    DELIVERED,
    SENT,
    is_redirected,
    note_original,
    original_request,
    original_url,
)
from scrapy_acecaptcha.crawl.rule_health import MAX_REFUSED, AnswerWatch, RuleHealths
from scrapy_acecaptcha.crawl.scrapy_internals import (
    beside_the_limit,
    is_sent,
    is_stopping,
)
from scrapy_acecaptcha.crawl.scrapy_playwright import (
    PageCaptcha,
    Visit,
    is_for_browser,
    solves_itself,
)
from scrapy_acecaptcha.crawl.settings import whole_number
from scrapy_acecaptcha.crawl.waiting import Stopped, Waits
from scrapy_acecaptcha.errors import (
    AceCaptchaError,
    CaptchaUnsolved,
)
from scrapy_acecaptcha.flow import CaptchaResult, drive_async
from scrapy_acecaptcha.page.images import DEFAULT_MAX_BYTES
from scrapy_acecaptcha.rule_book import RuleBook, site_of
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.signals import captcha_solved
from scrapy_acecaptcha.solver import SolverOwner

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from scrapy.utils.asyncio import AsyncioLoopingCall
    from twisted.internet.task import LoopingCall
    from typing_extensions import Self

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5  # between two looks whether the crawl is stopping
_SENT_AT = "_acecaptcha_sent_at"  # request.meta key: solves in the crawl when it was first sent


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
        self.rules = RuleBook(settings.get("ACECAPTCHA_RULES") or {})
        self.max_image_bytes = whole_number(
            settings, "ACECAPTCHA_MAX_IMAGE_BYTES", DEFAULT_MAX_BYTES, least=1
        )
        self.healths = RuleHealths(
            self.rules, whole_number(settings, "ACECAPTCHA_MAX_REFUSED", MAX_REFUSED, least=0)
        )
        self._inner_requests = InnerRequests.from_crawler(crawler)
        self._waits = Waits()
        self.failure = FailurePolicy(crawler, self._waits, self._count)
        self.solver: CrawlSolver = CrawlSolver(
            crawler, self._waits, self.failure, needed=len(self.rules) > 0
        )
        self._sessions: dict[Request, Session] = {}  # of what the downloader is busy with
        self._visits: WeakKeyDictionary[Request, Visit] = WeakKeyDictionary()
        self.gate = Gate(
            self._waits,
            active=lambda: crawler.engine.downloader.active,
            is_sent=lambda request: is_sent(crawler.engine, request),
            width=settings.getint("CONCURRENT_REQUESTS") or 16,
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
            (middleware.request_dropped, signals.request_dropped),
            (middleware.response_received, signals.response_received),
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
        self.healths.crawl_ends(spider)
        await self.solver.close_async(finished=reason == "finished")

    def response_received(self, response: Response, request: Request, spider: Spider) -> None:
        """The spider gets *response*, and may hand its meta on: our notes are not in it."""
        meta = request.meta
        for name in (SENT, _SENT_AT, DELIVERED):
            meta.pop(name, None)

    def request_dropped(self, request: Request, spider: Spider) -> None:
        """Bring back a request that was redirected to a page that others were redirected to, too.

        All requests of a wall may lead to one captcha page, which Scrapy's duplicate filter takes
        for a page that has been crawled.
        """
        if request.dont_filter or not is_redirected(request) or self._rule(request) is None:
            return  # no filter has dropped it, or it is none of ours
        brought_back = request.replace(dont_filter=True)
        brought_back.meta[SENT] = {**request.meta[SENT], "filtered": True}
        self.crawler.engine.crawl(brought_back)

    async def process_request(self, request: Request) -> Request | None:
        """Hold a request of a session whose captcha is being solved."""
        if INNER in request.meta:
            await check_target(request)
            return None
        request.meta.pop("acecaptcha_result", None)  # a page's result, passed on by response.meta
        again = await self._hold(request)
        if again is None and not (is_for_browser(request) and self._plan_visit(request)):
            self._request_started(request)
        return again

    async def _hold(self, request: Request) -> Request | None:
        """Hold *request* while its session's gate is shut; a request to be made instead, if any."""
        if is_redirected(request):
            if request.meta[SENT].pop("filtered", False):
                request.dont_filter = False  # as the spider made it
        elif self._rule(request) is not None:
            note_original(request)
        key = self._session_key(request)
        if key is None:
            return None
        session = self.gate.session(key)
        redirected = is_redirected(request)
        if redirected:
            # The request before the redirect has left its place to this one, which does not wait
            # behind new ones: they would all be redirected before anyone reached the captcha.
            session.admit()
        if session.shut if redirected else session.is_full:
            self._count("held")
            try:
                await session.hold(self._beside(request), first=redirected)
            except Stopped:
                return again(request)
            session = self.gate.session(key)  # idle ones have been forgotten
        if not redirected:
            request.meta[_SENT_AT] = self.gate.solves
        elif self.gate.solved_since(key, request.meta.get(_SENT_AT, 0)):
            # It was on its way to a captcha page that meanwhile was passed: who knows what that
            # page shows by now.
            request.meta[_SENT_AT] = self.gate.solves
            session.admit()
            return again(original_request(request))
        self._sessions[request] = session
        return None

    async def process_response(self, request: Request, response: Response) -> Request | Response:
        """Solve the captcha that *response* shows instead of what the spider asked for."""
        if INNER in request.meta:
            rule = self._rule(request)
            if rule is not None and shows_captcha(response, rule):
                # A captcha is an answer, even with a 503 or a refresh in some minutes.
                request.meta.update(dont_redirect=True, dont_retry=True)
            return response
        # Scrapy's HTTP cache keeps captchas, too.
        stale = self._response_received(request, is_cached="cached" in response.flags)
        rule = self._rule(request)
        visit = self._visits.pop(request, None) if is_for_browser(request) else None
        if visit is not None:
            visit.end()
            if "playwright" in response.flags:
                return await self._hand_over_visit(visit, request, response)
        return response if rule is None else await self._look_at(request, response, rule, stale)

    async def _look_at(
        self, request: Request, response: Response, rule: CaptchaRule, stale: bool
    ) -> Request | Response:
        """Pass the captcha of a page under a rule, if it shows one."""
        if rule.frame:
            try:
                response.request = response.request or original_request(request)
                response = await enter_frame(self._inner_requests, response, rule)
            except AceCaptchaError as error:
                return self.failure.request_after(original_request(request), error)
        is_captcha = shows_captcha(response, rule)
        self.healths.page_seen(request.url, rule, response, is_captcha)
        key = self._session_key(request)
        if not is_captcha and not (rule.fields and self.gate.solved_since(key, 0)):
            return response  # it has never shown one, or this is what was asked for
        challenge = ScrapyChallenge(
            original_request(request),
            response,
            rule,
            requests=self._inner_requests,
            watch=AnswerWatch(self.healths.of(request.url, rule), self._waits),
            max_image_bytes=self.max_image_bytes,
        )
        if not is_captcha and not challenge.is_bare_form:
            return response
        if is_captcha and challenge.is_for_the_spider:
            self._tell_of_login(response, rule)
            return response
        answer = await self._answer(challenge, key, stale)
        request.meta[DELIVERED] = True  # where the page refreshes to is a page of its own
        return answer

    def _tell_of_login(self, response: Response, rule: CaptchaRule) -> None:
        logger.info(
            "The page %(url)s is handed on as it is, though it shows a captcha (%(image)s): its "
            "form asks for a password, and empty ones would lock the account. The captcha is "
            "solved when the spider posts the form; or give the rule `fields`",
            {"url": response.url, "image": rule.image},
            extra={"spider": self.crawler.spider},
        )

    async def process_exception(self, request: Request, exception: Exception) -> Request | None:
        """Let *request* land, and deal with a captcha that was not solved in the browser."""
        self._response_received(request)
        visit = self._visits.pop(request, None)
        if visit is None:
            return None
        visit.end()
        if not isinstance(exception, (Stopped, AceCaptchaError)):
            return None
        again = self.failure.request_after(original_request(request), exception)
        await visit.close_page()
        again.meta.pop("playwright_page", None)
        return again

    async def _answer(
        self, challenge: ScrapyChallenge, key: Hashable | None, stale: bool
    ) -> Request | Response:
        """The page behind the captcha, or the request once more; or raise what went wrong."""
        result = None
        try:
            if not challenge.shows_captcha:  # the session has been let through meanwhile
                await challenge.send_query()
            # A query that was sent again without a captcha may ask for one after all.
            for _ in range(self.solver.max_attempts):
                if not challenge.shows_captcha:
                    break
                self._count("challenges")
                result = await self._pass(challenge, key, stale)
                stale = False
            else:
                raise challenge.unsolved()
        except (Stopped, AceCaptchaError) as error:
            return self.failure.request_after(challenge.request, error)
        finally:
            challenge.close()
        return self._hand_over(challenge, result)

    # In the browser

    def _plan_visit(self, request: Request) -> bool:
        """Have the captcha of a request for scrapy-playwright solved in its page.

        True if so; it takes off once there is a page.
        """
        rule = self._rule(request)
        if rule is None or solves_itself(request):
            return False
        visit = Visit(
            request,
            rule,
            max_image_bytes=self.max_image_bytes,
            pass_captcha=self._pass_in_page,
            request_started=self._request_started,
        )
        visit.begin()
        self._visits[request] = visit
        return True

    async def _pass_in_page(self, captcha: PageCaptcha) -> CaptchaResult | None:
        """Get behind a captcha on a page that waits for it."""
        self._count("challenges")
        stale = self._response_received(captcha.requested)
        return await self._pass(captcha, self._session_key(captcha.request), stale)

    async def _hand_over_visit(
        self, visit: Visit, request: Request, response: Response
    ) -> Request | Response:
        """What the spider gets of a page that was looked at in the browser."""
        if visit.captcha is not None:
            request.meta[DELIVERED] = True
            visit.captcha.page = visit.response(response)
            return self._hand_over(visit.captcha, visit.result)
        rule = self._rule(request)
        if visit.was_clear and rule is not None and shows_captcha(response, rule):
            error = CaptchaUnsolved(
                "The captcha came after the page was read", url=response.url, selector=rule.image
            )
            await visit.close_page()
            return self.failure.retry(original_request(request), error)
        return response

    # Passing a captcha

    async def _pass(
        self, challenge: ScrapyChallenge | PageCaptcha, key: Hashable | None, stale: bool
    ) -> CaptchaResult | None:
        """Get behind the captcha; None if there was nothing left to solve."""
        if self._waits.stopped:
            raise Stopped
        if key is None:
            if stale and await self._replay(challenge):
                return None
            return await self._solve(challenge)
        session = self.gate.session(key)
        if session.shut:
            self._count("held")
        while True:
            async with session.turn(stale, self._beside(challenge.request)) as turn:
                if turn.stale and await self._replay(challenge):
                    session.release_all(turn)
                    return None
                if turn.leads:
                    result = await self._solve(challenge)
                    self.gate.note_solve(key)
                    return result
            stale = True

    def _beside(self, request: Request) -> Callable[[], AbstractContextManager[None]]:
        """Where requests wait: not in the place of other hosts' requests."""
        return partial(beside_the_limit, self.crawler.engine, request)

    async def _replay(self, challenge: ScrapyChallenge | PageCaptcha) -> bool:
        self._count("replayed")
        return await challenge.reload()

    async def _solve(self, challenge: ScrapyChallenge | PageCaptcha) -> CaptchaResult:
        started = time.monotonic()
        try:
            account = self.rules.name_for(challenge.url) or ""
            result = await drive_async(self.solver.steps(challenge, account=account))
        finally:
            self.solver.update_stats()
            self._count("elapsed_seconds", time.monotonic() - started)
        if not result.answer:  # the site asks for no captcha any more, and took no answer
            return result
        self._count("solved")
        spider = self.crawler.spider
        logger.info(
            "Solved the captcha at %(url)s: %(attempts)d answers, %(elapsed).2f s",
            {"url": challenge.url, "attempts": result.attempts, "elapsed": result.elapsed},
            extra={"spider": spider},
        )
        self.crawler.signals.send_catch_log(
            captcha_solved, request=challenge.request, result=result, spider=spider
        )
        return result

    def _hand_over(
        self, challenge: ScrapyChallenge | PageCaptcha, result: CaptchaResult | None
    ) -> Response:
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

    # Rules and sessions

    def _rule(self, request: Request) -> CaptchaRule | None:
        """The rule for *request*: the host's, with the request's own laid over it."""
        return self.rules.find(request.url, request.meta.get("acecaptcha"))

    def _session_key(self, request: Request) -> Hashable | None:
        """Name the browsing session of *request*; None if nobody needs to wait for anybody."""
        meta = request.meta
        if INNER in meta:
            return None
        rule = self._rule(request)
        if rule is None or not rule.session:
            return None
        url = original_url(request)
        site = site_of(url)
        if url == f"{site}/robots.txt":
            return None
        # scrapy-playwright notes its default only when the request is on its way.
        context = meta.get("playwright_context", "default") if is_for_browser(request) else None
        return site.partition("://")[2], meta.get("cookiejar"), context

    def _request_started(self, request: Request) -> None:
        session = self._sessions.get(request)
        if session is not None:
            session.request_started(request)

    def _response_received(self, request: Request, is_cached: bool = False) -> bool:
        """Whether what *request* brought may be stale, now that it is back."""
        session = self._sessions.pop(request, None)
        if session is None:
            return is_cached
        if is_cached:
            session.short_circuited(request)
            return True
        return session.response_received(request)

    # The end of the crawl

    def _on_tick(self) -> None:
        """Let go of everyone who waits once the crawl is stopping, so that it can."""
        if is_stopping(self.crawler.engine):
            self._waits.stop()
            return
        active = self.crawler.engine.downloader.active
        self._sessions = {r: session for r, session in self._sessions.items() if r in active}
        self.solver.update_stats()
        self.gate.tidy(in_use=set(self._sessions.values()))

    @property
    def _stats(self) -> Any:
        return self.crawler.stats

    def _count(self, event: str, by: float = 1) -> None:
        if by:
            self._stats.inc_value(f"acecaptcha/{event}", by)
