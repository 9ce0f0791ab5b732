"""Requests that were redirected: scheduled, dropped as duplicates, brought back, on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet, WeakValueDictionary

from scrapy import Request

from scrapy_acecaptcha.crawl.check_pages import CheckPages
from scrapy_acecaptcha.crawl.image_limit import forget
from scrapy_acecaptcha.crawl.redirects import NOTE, Origin, Redirects, origin_of
from scrapy_acecaptcha.crawl.scrapy_internals import beside_the_limit
from scrapy_acecaptcha.crawl.scrapy_playwright import is_for_browser
from scrapy_acecaptcha.crawl.sessions import CHOSEN
from scrapy_acecaptcha.errors import RuleError

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.crawler import Crawler
    from scrapy.http import Response

    from scrapy_acecaptcha.crawl.gates import Gates
    from scrapy_acecaptcha.crawl.sessions import Key, Sessions
    from scrapy_acecaptcha.crawl.waiting import Waits

MOST_WAITS = 20  # for another request that is to tell what a page shows; one is a tick at most


class Detours:
    """Follows redirected requests, and brings those back that a captcha's page was taken from.

    All requests behind a wall may be redirected to one address: the duplicate filter drops them.
    """

    def __init__(self, crawler: Crawler, sessions: Sessions, gates: Gates, waits: Waits) -> None:
        self._crawler = crawler
        self._sessions = sessions
        self._gates = gates
        self._redirects = Redirects(self._page)
        self._check_pages = CheckPages(waits)
        self._seeking: WeakValueDictionary[int, Request] = WeakValueDictionary()  # by their pages
        self._queued: WeakSet[Request] = WeakSet()  # redirected, in the scheduler
        # What only finds out what a page shows: the duplicate filter has dropped it.
        self._lookers: WeakSet[Request] = WeakSet()

    # Signals of Scrapy

    def request_scheduled(self, request: Request, spider: Spider) -> None:
        """Follow a request that was redirected, before a queue on disk may take it."""
        before = self._redirects.scheduled(request)
        origin = origin_of(request)
        if NOTE in request.meta or self._has_no_rule(request):
            return
        if not request.dont_filter:
            self._check_pages.scheduled(self._page(request), redirected=origin is not None)
        if origin is None:
            return
        self._redirects.note(request)
        if before is not None:
            self._queued.add(request)
            self.seek(request)
        key = self._sessions.key(request)
        if key is not None:
            likely = self.is_likely_captcha(request, origin, key)
            self._gates.session(key).expect(request, before, captcha=likely)

    def request_dropped(self, request: Request, spider: Spider) -> None:
        """Bring back a request that was redirected to a captcha's page, as others were, too."""
        origin = origin_of(request)
        self._queued.discard(request)
        if origin is None or self._has_no_rule(request):
            return
        page = self._page(request)
        state = self._check_pages.state(page)
        if request.dont_filter or page in origin.chain or state == "clear":
            # Dropped for good: by no filter, in a circle, or as the duplicate that it is.
            self._check_pages.seen(list(origin.chain), request.url, captcha=False)
            self.end_early(request)
            return
        back = self._redirects.brought_back(request, filtered=state == "unknown")
        if state == "unknown":
            back.priority = origin.priority  # behind the one that will tell
            self.end_early(request)
            self._queued.add(back)
            self.seek(back)
        elif (key := self._sessions.key(request)) is not None:
            self._gates.session(key).expect(back, request, captcha=False)
        self._crawler.engine.crawl(back)

    def page_delivered(self, response: Response, request: Request, spider: Spider) -> None:
        """The spider gets *response*: what it makes of it are requests of their own."""
        request.meta.pop(CHOSEN, None)
        forget(request)
        origin = origin_of(request)
        if origin is not None and not self._has_no_rule(request):
            self._seen(request, origin, captcha=False)
        self._redirects.ended(request)

    # On the way to the downloader

    def arrived(self, request: Request) -> bool:
        """*request* has come from the scheduler; return whether it was dropped as a duplicate."""
        self._queued.discard(request)
        return self._redirects.arrived(request)

    async def find_out(self, request: Request) -> Request | None:
        """A request that the duplicate filter is to drop after all; None if it goes on."""
        page = self._page(request)
        waits = 0
        while self._check_pages.state(page) == "unknown":
            if waits == MOST_WAITS or not self._is_sought(page, by_other_than=request):
                self._lookers.add(request)
                return None
            waits += 1
            with beside_the_limit(self._crawler.engine, request):
                await self._check_pages.wait(page)
        if self._check_pages.state(page) == "captcha":
            return None
        origin = origin_of(request)
        if origin is not None:
            self._seen(request, origin, captcha=False)
        return _to_be_filtered(request)

    def sent(self, request: Request) -> None:
        """*request* goes on to the downloader."""
        self._redirects.sent(request, self._gates.solves)

    def is_likely_captcha(self, request: Request, origin: Origin, key: Key) -> bool:
        """Whether a captcha is where a redirect led *request*."""
        likely = self._check_pages.expects_captcha(request.url)
        return likely and not (is_for_browser(request) or self.was_passed(key, origin))

    def was_passed(self, key: Key, origin: Origin | None) -> bool:
        """Whether a captcha page, to which a request was redirected, was passed meanwhile.

        Who knows what it shows by now.
        """
        return origin is not None and self._gates.solved_since(key, origin.sent_at)

    def end_early(self, request: Request) -> None:
        """End the turn that was taken for *request* while it was in the scheduler."""
        key = self._sessions.key(request)
        if key is not None:
            session = self._gates.session(key)
            turn = session.early_turn(request)
            if turn is not None:
                session.end(turn)

    # Back

    def page_seen(self, request: Request, *, captcha: bool) -> Request | None:
        """*request* brought a page; return a request to be made instead, if any."""
        is_looker = not captcha and request in self._lookers
        origin = origin_of(request)
        if origin is not None and (captcha or is_looker):
            self._seen(request, origin, captcha=captcha)
        return _to_be_filtered(request) if is_looker else None

    def passed(self, request: Request) -> None:
        """The captcha that *request* brought was dealt with.

        Where the page behind it refreshes to is a page of its own.
        """
        self._redirects.ended(request)

    def wake(self) -> None:
        """Let those who wait for others to find out look whether these are still on their way."""
        self._check_pages.wake()

    # What pages show

    def seek(self, request: Request) -> None:
        """Note that a redirected *request* is on its way to show what its pages are."""
        origin = origin_of(request)
        if origin is not None:
            for page in (*origin.chain, self._page(request)):
                if not self._is_sought(page):
                    self._seeking[page] = request

    def _is_sought(self, page: int, by_other_than: Request | None = None) -> bool:
        request = self._seeking.get(page)
        if request is None or request is by_other_than:
            return False
        return request in self._queued or request in self._crawler.engine.downloader.active

    def _seen(self, request: Request, origin: Origin, *, captcha: bool) -> None:
        pages = [*origin.chain, self._page(request)]
        self._check_pages.seen(pages, request.url, captcha=captcha)

    def _page(self, request: Request) -> int:
        """What the duplicate filter tells the page of *request* by."""
        fingerprinter = self._crawler.request_fingerprinter
        assert fingerprinter is not None
        return int.from_bytes(fingerprinter.fingerprint(request)[:8], "big")

    def _has_no_rule(self, request: Request) -> bool:
        try:
            return self._sessions.rule(request) is None
        except RuleError:
            return True  # it is raised where the request's errback hears of it


def _to_be_filtered(request: Request) -> Request:
    """*request* for the scheduler, which is to drop it as the duplicate that it is."""
    return request.replace(dont_filter=False)
