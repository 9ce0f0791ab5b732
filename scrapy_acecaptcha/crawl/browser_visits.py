"""Requests that a browser downloads: told to solve their captchas there, and handed over."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from scrapy import Request

from scrapy_acecaptcha.crawl.captcha_page import shows_captcha
from scrapy_acecaptcha.crawl.page_captcha import PageCaptcha
from scrapy_acecaptcha.crawl.redirects import original_request
from scrapy_acecaptcha.crawl.rule_health import RuleHealths
from scrapy_acecaptcha.crawl.scrapy_playwright import Visit, is_for_browser, solves_itself
from scrapy_acecaptcha.crawl.solving import hand_over
from scrapy_acecaptcha.crawl.waiting import Stopped
from scrapy_acecaptcha.errors import AceCaptchaError, CaptchaUnsolved

if TYPE_CHECKING:
    from scrapy.http import Response

    from scrapy_acecaptcha.crawl.failure import FailurePolicy
    from scrapy_acecaptcha.crawl.sessions import Sessions
    from scrapy_acecaptcha.crawl.solving import GatedSolving
    from scrapy_acecaptcha.crawl.traffic import Traffic
    from scrapy_acecaptcha.flow import CaptchaResult


class BrowserVisits:
    """What happens to the crawl's requests in the browser.

    :param healths: what the crawl has learnt of its rules
    :param max_image_bytes: largest image to accept, in bytes
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        traffic: Traffic,
        solving: GatedSolving,
        failure: FailurePolicy,
        healths: RuleHealths,
        max_image_bytes: int,
    ) -> None:
        self._sessions = sessions
        self._traffic = traffic
        self._solving = solving
        self._failure = failure
        self._healths = healths
        self._max_image_bytes = max_image_bytes
        self._visits: WeakKeyDictionary[Request, Visit] = WeakKeyDictionary()

    def plan(self, request: Request) -> bool:
        """Have the captcha of a request for scrapy-playwright solved in its page.

        True if so; it takes off once there is a page.
        """
        rule = self._sessions.rule(request) if is_for_browser(request) else None
        if rule is None or solves_itself(request):
            return False
        visit = Visit(
            request,
            rule,
            watch=self._solving.watch(rule, request),
            max_image_bytes=self._max_image_bytes,
            pass_captcha=self._pass_in_page,
            page_is_made=self._traffic.page_is_made,
            was_let_through=partial(self._was_let_through, request),
        )
        visit.begin()
        self._visits[request] = visit
        return True

    def end(self, request: Request, response: Response) -> Awaitable[Request | Response] | None:
        """What the spider gets of a page that was looked at in the browser; None if it was not."""
        visit = self._visits.pop(request, None) if is_for_browser(request) else None
        if visit is None:
            return None
        visit.end()
        if "playwright" not in response.flags:
            return None
        return self._hand_over(visit, request, response)

    async def fail(self, request: Request, exception: Exception) -> Request | None:
        """Deal with a captcha that was not solved in the browser."""
        visit = self._visits.pop(request, None)
        if visit is None:
            return None
        visit.end()
        if not isinstance(exception, (Stopped, AceCaptchaError)):
            return None
        again = self._failure.request_after(original_request(request), exception, sent=request)
        await visit.close_page()
        again.meta.pop("playwright_page", None)
        return again

    async def _pass_in_page(self, captcha: PageCaptcha) -> CaptchaResult | None:
        """Get behind a captcha on a page that waits for it."""
        stale = self._traffic.request_is_back(captcha.requested)
        key = self._sessions.key(captcha.request)
        return await self._solving.get_behind(captcha, key, stale)

    def _was_let_through(self, request: Request) -> bool:
        return self._traffic.gate.solved_since(self._sessions.key(request), 0)

    async def _hand_over(
        self, visit: Visit, request: Request, response: Response
    ) -> Request | Response:
        rule = self._sessions.rule(request)
        if rule is not None:
            self._healths.page_seen(request.url, rule, response, visit.captcha is not None)
        if visit.captcha is not None:
            self._traffic.detours.passed(request)
            visit.captcha.page = visit.response(response)
            return hand_over(visit.captcha, visit.result)
        if visit.was_clear and rule is not None and shows_captcha(response, rule):
            error = CaptchaUnsolved(
                "The captcha came after the page was read", url=response.url, selector=rule.image
            )
            await visit.close_page()
            return self._failure.retry(original_request(request), error)
        return response
