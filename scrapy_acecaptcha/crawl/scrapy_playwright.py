"""Requests that scrapy-playwright downloads: their captchas are solved in the page.

A page method of ours comes before and after the spider's own. Pages live in an event loop that on
Windows is another thread's, while gates, budget and stats live in the crawl's; so the page method
asks the crawl to pass the captcha, and the crawl asks the page for each step of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from scrapy import Request
from scrapy.http import Response
from scrapy.utils.misc import load_object

from scrapy_acecaptcha.crawl.browser_page import BrowserPage, Document
from scrapy_acecaptcha.crawl.evidence import matches
from scrapy_acecaptcha.crawl.frames import inside_frame
from scrapy_acecaptcha.crawl.page_captcha import PageCaptcha, in_loop
from scrapy_acecaptcha.crawl.redirects import original_request
from scrapy_acecaptcha.errors import CaptchaNotFound
from scrapy_acecaptcha.flow import CaptchaResult, Steps, drive_async
from scrapy_acecaptcha.hosts import same_page

if TYPE_CHECKING:
    from scrapy_acecaptcha.crawl.rule_health import AnswerWatch
    from scrapy_acecaptcha.playwright.challenge import PageChallenge
    from scrapy_acecaptcha.rules import CaptchaRule

_METHODS = "playwright_page_methods"
_INIT = "playwright_page_init_callback"
_PAGE = "playwright_page"


def is_for_browser(request: Request) -> bool:
    """Whether scrapy-playwright is to download *request*."""
    return bool(request.meta.get("playwright"))


class Visit:
    """What happens to one request in the browser.

    :param watch: is told what became of each answer
    :param pass_captcha: solves a captcha; called in the crawl's loop
    :param page_is_made: waits, in the crawl's loop, until the page may be loaded
    :param was_let_through: whether a captcha of this session has been solved before
    """

    def __init__(
        self,
        request: Request,
        rule: CaptchaRule,
        *,
        watch: AnswerWatch,
        max_image_bytes: int,
        pass_captcha: Callable[[PageCaptcha], Coroutine[Any, Any, CaptchaResult | None]],
        page_is_made: Callable[[Request], Coroutine[Any, Any, None]],
        was_let_through: Callable[[], bool],
    ) -> None:
        self.captcha: PageCaptcha | None = None  # that was met and passed
        self.result: CaptchaResult | None = None
        self.was_clear = False  # the page was looked at and showed nothing
        self._request = request
        self._rule = rule
        self._watch = watch
        self._max_image_bytes = max_image_bytes
        self._pass_captcha = pass_captcha
        self._await_turn = page_is_made
        self._was_let_through = was_let_through
        self._crawl = asyncio.get_running_loop()
        self._pages: asyncio.AbstractEventLoop | None = None
        self._page: BrowserPage | None = None
        self._given = {
            name: request.meta[name] for name in (_METHODS, _INIT) if name in request.meta
        }
        self._looks_left = 0
        self._stored: Document | None = None
        self._head: tuple[int, dict[str, str]] = (200, {})

    def begin(self) -> None:
        """Have the page looked at before and after the spider's own page methods."""
        from scrapy_playwright.page import PageMethod  # noqa: PLC0415 - an optional companion

        own = self._given.get(_METHODS) or ()
        own = list(own.values() if isinstance(own, dict) else own)
        looks = [PageMethod(self._look), *own, *([PageMethod(self._look)] if own else ())]
        self._looks = 2 if own else 1
        self._request.meta[_METHODS] = looks
        self._request.meta[_INIT] = self._page_is_made

    def end(self) -> None:
        """Leave the request as the spider made it."""
        self._restore(self._request)

    def _restore(self, request: Request) -> None:
        for name in (_METHODS, _INIT):
            request.meta.pop(name, None)
        request.meta.update(self._given)

    async def close_page(self) -> None:
        """Close the page that the spider was to have, as the request is made once more."""
        page = self._request.meta.pop(_PAGE, None)
        if page is not None and self._pages is not None:
            await in_loop(self._pages, page.close())

    def response(self, response: Response) -> Response:
        """What stands on the page in the end; scrapy-playwright tells how it began."""
        if self._stored is not None:
            return self._stored.response(response.flags)
        status, headers = self._head
        return response.replace(status=status, headers=headers or response.headers)

    # In the page's loop

    async def _page_is_made(self, page: Any, request: Request) -> None:
        self._pages = asyncio.get_running_loop()
        self._page = BrowserPage(page)
        self._looks_left = self._looks
        await in_loop(self._crawl, self._await_turn(request))
        own = self._given.get(_INIT)
        if own:
            await load_object(own)(page, request)

    async def _look(self, page: Any) -> None:
        """Solve the captcha on *page*, if there is one.

        :raises AceCaptchaError: it cannot be solved
        """
        from scrapy_acecaptcha.playwright.challenge import PageChallenge  # noqa: PLC0415 - an extra
        from scrapy_acecaptcha.playwright.scope import default_timeout  # noqa: PLC0415

        assert self._page is not None
        self._looks_left -= 1
        challenge = PageChallenge(
            page,
            inside_frame(self._rule),
            default_timeout(page) or 1e9,
            max_image_bytes=self._max_image_bytes,
        )
        try:
            await drive_async(challenge.guarded(self._pass(challenge, self._page)))
        except CaptchaNotFound as error:
            if type(error.__cause__).__name__ == "TargetClosedError":
                raise error.__cause__ from None  # type: ignore[misc]  # scrapy-playwright retries
            raise
        finally:
            if not self._looks_left:
                self._page.stop()

    def _pass(self, challenge: PageChallenge, page: BrowserPage) -> Steps[None]:
        stands = yield self._stands(challenge, page)
        is_bare = False
        if stands is None and self._rule.fields and self._was_let_through():
            is_bare = yield challenge.shows_bare_form()
        self.was_clear = stands is None and not is_bare
        if not stands and not is_bare:
            return
        self._pages = asyncio.get_running_loop()
        asked = original_request(self._request)
        if asked is not self._request:
            self._restore(asked)
        is_first = self._looks_left == self._looks - 1
        captcha = PageCaptcha(
            self._request,
            asked,
            challenge,
            page,
            self._watch,
            loop=self._pages,
            is_asked=is_first or same_page(page.page.url, asked.url),
            keeps_page=bool(self._looks_left or self._request.meta.get("playwright_include_page")),
            shows_captcha=not is_bare,
        )
        self.result = yield in_loop(self._crawl, self._pass_captcha(captcha))
        self.captcha, self._stored = captcha, captcha.stored
        self._head = yield page.head()
        if challenge.popup is not None:
            yield challenge.popup.close()

    def _stands(self, challenge: PageChallenge, page: BrowserPage) -> Steps[bool | None]:
        """See PageChallenge.stands(); `success` speaks of the page around a frame."""
        stands: bool | None = yield challenge.stands()
        if stands and self._rule.frame and self._rule.success:
            document: Document = yield page.document()
            if matches(document.response(), self._rule.success):
                return None
        return stands


def solves_itself(request: Request) -> bool:
    """Whether the spider calls solve_captcha() on its page itself."""
    methods = request.meta.get(_METHODS) or ()
    own: Iterable[Any] = methods.values() if isinstance(methods, dict) else methods
    return any(
        getattr(getattr(one, "method", None), "__name__", "") == "solve_captcha" for one in own
    )
