"""Requests that scrapy-playwright downloads: their captchas are solved in the page.

A page method of ours comes before and after the spider's own. Pages live in an event loop that on
Windows is another thread's, while gates, budget and stats live in the crawl's; so the page method
asks the crawl to pass the captcha, and the crawl asks the page for each step of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from scrapy import Request
from scrapy.http import Headers, Response
from scrapy.responsetypes import responsetypes
from scrapy.utils.misc import load_object

from scrapy_acecaptcha.crawl.redirects import original_request, same_page
from scrapy_acecaptcha.errors import CaptchaNotFound
from scrapy_acecaptcha.flow import CaptchaResult, Steps, drive_async

if TYPE_CHECKING:
    from scrapy_acecaptcha.playwright.challenge import PageChallenge
    from scrapy_acecaptcha.rules import CaptchaRule

T = TypeVar("T")

_METHODS = "playwright_page_methods"
_INIT = "playwright_page_init_callback"
_PAGE = "playwright_page"


def is_for_browser(request: Request) -> bool:
    """Whether scrapy-playwright is to download *request*."""
    return bool(request.meta.get("playwright"))


class PageCaptcha:
    """The captcha on a page, for the crawl's side; its steps are done on the page's.

    :param requested: the request that is in the browser; redirects have left their notes on it
    :param request: what the spider asked for
    :param loop: the page's
    """

    images_read = 0  # before the loop begins

    def __init__(
        self,
        requested: Request,
        request: Request,
        challenge: PageChallenge,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.requested = requested
        self.request = request
        self.rule: CaptchaRule = challenge.rule
        self.page: Response | None = None  # what the spider will get
        self._challenge = challenge
        self._loop = loop
        self._was_redirected = not same_page(challenge.url, request.url)
        if self._was_redirected:
            challenge.home.load_by = lambda: challenge.page.goto(request.url)

    @property
    def url(self) -> str:
        """Where the captcha stands."""
        return self._challenge.url

    def image(self) -> Awaitable[bytes]:
        """Take the image."""
        return self._on_page(self._challenge.image())

    def submit(self, answer: str) -> Awaitable[None]:
        """Fill in the form and send it."""
        return self._on_page(self._challenge.submit(answer))

    async def solved(self) -> bool | None:
        """Judge the page that the form led to, and go back where the spider wanted to be."""
        accepted = await self._on_page(self._challenge.solved())
        if not accepted:
            return accepted
        return not self._must_return() or await self.reload()

    def renew(self) -> Awaitable[bool]:
        """Get a fresh image."""
        return self._on_page(self._challenge.renew())

    def reload(self) -> Awaitable[bool]:
        """Load what the spider asked for again; True if no captcha stands in the way."""
        return self._on_page(self._challenge.reload())

    def _must_return(self) -> bool:
        # A query form asks for a captcha each time: what it leads to is what was wanted.
        return (
            self.rule.after == "auto"
            and self._was_redirected
            and not self.rule.fields
            and not same_page(self._challenge.url, self.request.url)
        )

    def _on_page(self, step: Steps[T]) -> Awaitable[T]:
        return _in_loop(self._loop, drive_async(step))


class Visit:
    """What happens to one request in the browser.

    :param pass_captcha: solves a captcha; called in the crawl's loop
    :param request_started: told, in the crawl's loop, when the page is about to be loaded
    """

    def __init__(
        self,
        request: Request,
        rule: CaptchaRule,
        *,
        max_image_bytes: int,
        pass_captcha: Callable[[PageCaptcha], Coroutine[Any, Any, CaptchaResult | None]],
        request_started: Callable[[Request], None],
    ) -> None:
        self.captcha: PageCaptcha | None = None  # that was met and passed
        self.result: CaptchaResult | None = None
        self.was_clear = False  # the page was looked at and showed nothing
        self._request = request
        self._rule = rule
        self._max_image_bytes = max_image_bytes
        self._pass_captcha = pass_captcha
        self._request_started = request_started
        self._crawl = asyncio.get_running_loop()
        self._pages: asyncio.AbstractEventLoop | None = None
        self._given = {
            name: request.meta[name] for name in (_METHODS, _INIT) if name in request.meta
        }
        self._status: int | None = None
        self._headers: dict[str, str] = {}
        self._file: bytes | None = None

    def begin(self) -> None:
        """Have the page looked at before and after the spider's own page methods."""
        from scrapy_playwright.page import PageMethod  # noqa: PLC0415 - an optional companion

        own = self._given.get(_METHODS) or ()
        own = list(own.values() if isinstance(own, dict) else own)
        look = PageMethod(self._look)
        self._request.meta[_METHODS] = [look, *own, *([PageMethod(self._look)] if own else ())]
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
            await _in_loop(self._pages, page.close())

    def response(self, response: Response) -> Response:
        """What stands on the page in the end; scrapy-playwright tells how it began."""
        if self._file is not None:
            headers = Headers(self._headers)
            kind = responsetypes.from_args(headers=headers, url=response.url, body=self._file)
            return kind(
                response.url, status=200, headers=headers, body=self._file, flags=response.flags
            )
        if self._status is None:  # a script sent the form and put the answer into the page
            return response.replace(status=200)
        return response.replace(status=self._status, headers=self._headers or response.headers)

    # In the page's loop

    async def _page_is_made(self, page: Any, request: Request) -> None:
        self._pages = asyncio.get_running_loop()
        self._crawl.call_soon_threadsafe(self._request_started, request)
        own = self._given.get(_INIT)
        if own:
            await load_object(own)(page, request)

    async def _look(self, page: Any) -> None:
        """Solve the captcha on *page*, if there is one.

        :raises AceCaptchaError: it cannot be solved
        """
        from scrapy_acecaptcha.playwright.challenge import PageChallenge  # noqa: PLC0415 - an extra

        challenge = PageChallenge(page, self._rule, max_image_bytes=self._max_image_bytes)
        try:
            await drive_async(challenge.guarded(self._pass(challenge)))
        except CaptchaNotFound as error:
            if type(error.__cause__).__name__ == "TargetClosedError":
                raise error.__cause__ from None  # type: ignore[misc]  # scrapy-playwright retries
            raise

    def _pass(self, challenge: PageChallenge) -> Steps[None]:
        self.was_clear = False
        stands = yield challenge.stands()
        if stands is None:
            self.was_clear = True
        if not stands:
            return
        self._pages = asyncio.get_running_loop()
        asked = original_request(self._request)
        if asked is not self._request:
            self._restore(asked)
        captcha = PageCaptcha(self._request, asked, challenge, self._pages)
        self.result = yield _in_loop(self._crawl, self._pass_captcha(captcha))
        self.captcha = captcha
        yield self._note(challenge)

    async def _note(self, challenge: PageChallenge) -> None:
        """Note with what status and headers the page came in the end."""
        navigation, download = challenge.observer.navigation, challenge.observer.download
        if navigation is not None:
            self._status = navigation.status
            self._headers = await navigation.all_headers()
            self._headers.pop("content-encoding", None)
        if download is not None:
            self._file = (await download.path()).read_bytes()


def solves_itself(request: Request) -> bool:
    """Whether the spider calls solve_captcha() on its page itself."""
    methods = request.meta.get(_METHODS) or ()
    own: Iterable[Any] = methods.values() if isinstance(methods, dict) else methods
    return any(
        getattr(getattr(one, "method", None), "__name__", "") == "solve_captcha" for one in own
    )


def _in_loop(loop: asyncio.AbstractEventLoop, steps: Coroutine[Any, Any, T]) -> Awaitable[T]:
    """Await *steps* in a loop which may be another thread's."""
    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(steps, loop))
