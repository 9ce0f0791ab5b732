"""The captcha on a page in a browser, for the crawl: evidence for its decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from scrapy_acecaptcha.crawl.browser_page import BrowserPage, Document
from scrapy_acecaptcha.crawl.crawl_captcha import CrawlCaptcha
from scrapy_acecaptcha.crawl.evidence import see
from scrapy_acecaptcha.crawl.frames import inside_frame
from scrapy_acecaptcha.crawl.rule_health import AnswerWatch, Facts, digest
from scrapy_acecaptcha.errors import CaptchaUnsolved
from scrapy_acecaptcha.flow import ImageReplaced, Steps, drive_async
from scrapy_acecaptcha.hosts import same_page
from scrapy_acecaptcha.selectors import squeeze
from scrapy_acecaptcha.verdict import NOTHING, Asked, Seen

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.http import Response

    from scrapy_acecaptcha.playwright.challenge import PageChallenge
    from scrapy_acecaptcha.playwright.observer import Look

T = TypeVar("T")


class PageCaptcha(CrawlCaptcha):
    """The captcha on a page, for the crawl's side; its steps are done on the page's.

    :param requested: the request that is in the browser; redirects have left their notes on it
    :param request: what the spider asked for
    :param loop: the page's
    :param is_asked: it stands in the way of what the spider asked for, not of what a page method of
        the spider's has opened
    :param keeps_page: what comes after the crawl needs the page itself, not only its source
    :param shows_captcha: whether it does; else it shows the query's bare form
    """

    def __init__(
        self,
        requested: Request,
        request: Request,
        challenge: PageChallenge,
        page: BrowserPage,
        watch: AnswerWatch,
        *,
        loop: asyncio.AbstractEventLoop,
        is_asked: bool,
        keeps_page: bool,
        shows_captcha: bool,
    ) -> None:
        super().__init__(request, inside_frame(challenge.rule), watch)
        self.requested = requested
        self.stored: Document | None = None  # what the spider gets, if it is not on the page
        self._challenge = challenge
        self._page = page
        self._loop = loop
        self._is_asked = is_asked
        self._keeps_page = keeps_page
        self._shows_captcha = shows_captcha
        self._shows_bare_form = not shows_captcha
        self._stood_at = challenge.url  # when what the spider asked for was loaded
        self._image = b""  # digest of the newest
        self._was_judged = False
        self._answer: Document | None = None
        self._newest: Document | None = None  # that was loaded since
        if is_asked:
            challenge.home.load_by = lambda: page.load(request)

    @property
    def url(self) -> str:
        """Where the captcha stands."""
        return self._challenge.url

    @property
    def shows_captcha(self) -> bool:
        """Whether the page shows a captcha."""
        return self._shows_captcha

    # The four methods of a challenge

    async def image(self) -> bytes:
        """Take the image."""
        await self._watch.begin(self.url)
        self.images_read += 1
        data = await self._on_page(self._challenge.image())
        self._image = digest(data)
        return data

    async def submit(self, answer: str) -> None:
        """Fill in the form and send it."""
        self._unsent = ""
        self._seen, self._answer, self._newest, self.stored = NOTHING, None, None, None
        self._page.forget()
        try:
            await self._on_page(self._challenge.submit(answer))
        except ImageReplaced:
            self._watch.image_replaced()
            raise

    async def renew(self) -> bool:
        """Have a fresh image; False if the site lets us through."""
        if self._was_judged:
            self._was_judged = False
            await self._on_page(self._challenge.refused())
        return await self._on_page(self._challenge.finds_new_image()) or not await self.reload()

    # Evidence

    async def _see_answer(self) -> Seen:
        self._was_judged = True
        try:
            seen = await self._on_page(self._challenge.reaction())
        except CaptchaUnsolved as error:
            self._unsent = str(error)
            # Where no answer was ever sent, the rule is at fault: the next would not be, either.
            error.retry = self._watch.health.has_succeeded
            self._watch.told("unsent", self._facts())
            raise
        self._answer = await self._in_page(self._find_answer())
        self._shows_captcha = seen.captcha
        return self._completed(seen, self._answer)

    async def _find_answer(self) -> Document:
        download, popup = self._challenge.observer.download, self._challenge.popup
        if download is not None:
            return await self._page.file(download)
        if popup is None:
            return await self._page.document()
        page = BrowserPage(popup)
        try:
            return await page.document()
        finally:
            page.stop()

    def _completed(self, seen: Seen, document: Document) -> Seen:
        """What the browser has seen of an answer, and what its source tells."""
        if self.rule.frame or seen.kind != "page":
            return seen
        told = see(document.response(), self.rule, captcha=seen.captcha)
        kind = "text" if document.is_text else told.kind
        return replace(seen, kind=kind, sounds_refused=told.sounds_refused)

    def _asked(self) -> Asked | None:
        if not self._is_asked:
            return None
        url, answer = self.request.url, self._answer
        return Asked(
            came_back=(
                answer is not None
                and self.request.method == "GET"
                and answer.was_got
                and same_page(answer.url, url)
            ),
            stood_elsewhere=not same_page(self._stood_at, url),
        )

    async def _ask_again(self) -> Seen:
        """Load what the spider asked for again.

        :raises CaptchaUnsolved: that fails
        """
        look, document = await self._in_page(self._load())
        self._stood_at = self.url
        self._newest = document
        if look is None:
            self._shows_captcha = self._shows_bare_form = False
            self.stored = document
            return Seen("file", document.status)
        self._shows_captcha = look.image is not None and not look.success
        self._shows_bare_form = not self._shows_captcha and await self._on_page(
            self._challenge.shows_bare_form()
        )
        seen = see(
            document.response(),
            self.rule,
            captcha=self._shows_captcha,
            is_bare_form=self._shows_bare_form,
        )
        return replace(
            seen,
            success=look.success if self.rule.success else None,
            failure=look.failure if self.rule.failure else None,
        )

    async def _load(self) -> tuple[Look | None, Document]:
        from playwright.async_api import Error  # noqa: PLC0415 - an optional companion

        observer = self._challenge.observer
        observer.form_is_sent()
        try:
            look: Look | None = await drive_async(self._challenge.home.load())
            if observer.download is not None:
                return None, await self._page.file(observer.download)
            document = await self._page.document()
        except Error as error:
            if self._page.page.is_closed():
                raise
            raise self._not_loaded(error.message.partition("\n")[0]) from error
        if look is None:
            raise self._not_loaded("its document never came")
        return look, document

    def _not_loaded(self, why: str) -> CaptchaUnsolved:
        return CaptchaUnsolved(
            f"The page could not be loaded again: {why}",
            url=self.request.url,
            selector=self.rule.image,
        )

    def _is_same_text(self) -> bool:
        one, other = self._answer, self._newest
        return one is not None and other is not None and squeeze(one.text) == squeeze(other.text)

    async def _take_answer(self) -> None:
        """Have the answer in hand, even if the page shows another one since it was looked into."""
        is_left = self._newest is not None and not self._is_same_text()
        is_elsewhere = self._seen.kind == "file" or self._challenge.popup is not None
        if is_left and self._keeps_page:
            # The page itself is wanted, so it has to be got behind the captcha once more.
            if self._shows_bare_form:
                await self.send_query()
            return
        self._shows_captcha = False
        if is_left or is_elsewhere:
            self.stored = self._answer

    async def _send_bare_form(self, page: Response | None) -> Seen | None:
        if not self._shows_bare_form:
            original = await self._ask_again()
            if not self._shows_bare_form:
                return original
        self._shows_bare_form = False
        self._page.forget()
        self.stored = None
        seen = await self._on_page(self._challenge.send_query())
        if seen is None:
            return None
        document = await self._in_page(self._find_answer())
        if seen.kind == "file" or self._challenge.popup is not None:
            self.stored = document
        self._shows_captcha = seen.captcha
        return self._completed(seen, document)

    def _facts(self) -> Facts:
        return Facts(
            image=self._image,
            captcha_again=self._seen.captcha,
            said_nothing=self._seen.is_silent_text,
            empty_fields=self._challenge.empty_fields,
            unsent=self._unsent,
        )

    # The page's loop

    def _on_page(self, step: Steps[T]) -> Awaitable[T]:
        return in_loop(self._loop, drive_async(step))

    def _in_page(self, steps: Coroutine[Any, Any, T]) -> Awaitable[T]:
        return in_loop(self._loop, steps)


def in_loop(loop: asyncio.AbstractEventLoop, steps: Coroutine[Any, Any, T]) -> Awaitable[T]:
    """Await *steps* in a loop which may be another thread's."""
    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(steps, loop))
