"""The requests of the crawl on their way: held at the gate, in flight, back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakSet, WeakValueDictionary

from scrapy import Request

from scrapy_acecaptcha.crawl.check_pages import CheckPages
from scrapy_acecaptcha.crawl.gate import Session
from scrapy_acecaptcha.crawl.gates import Gates
from scrapy_acecaptcha.crawl.held import TakesGate, never
from scrapy_acecaptcha.crawl.image_limit import forget
from scrapy_acecaptcha.crawl.redirects import NOTE, Origin, Redirects, again, origin_of
from scrapy_acecaptcha.crawl.scrapy_internals import beside_the_limit, is_sent
from scrapy_acecaptcha.crawl.scrapy_playwright import is_for_browser
from scrapy_acecaptcha.crawl.sessions import CHOSEN, SESSION
from scrapy_acecaptcha.crawl.shared_line import SharedLine
from scrapy_acecaptcha.crawl.waiting import Stopped
from scrapy_acecaptcha.errors import RuleError

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.crawler import Crawler
    from scrapy.http import Response

    from scrapy_acecaptcha.crawl.each_time import EachTime
    from scrapy_acecaptcha.crawl.held import Turn
    from scrapy_acecaptcha.crawl.session_pool import SessionPool
    from scrapy_acecaptcha.crawl.sessions import Key, Sessions
    from scrapy_acecaptcha.crawl.waiting import Waits
    from scrapy_acecaptcha.rules import CaptchaRule

logger = logging.getLogger(__name__)

UNLIMITED = 1_000_000  # requests at a time
HTTP_ERRORS = 400  # and above
MOST_WAITS = 20  # for another request that is to tell what a page shows; one is a tick at most


class Traffic:
    """Holds requests whose session's captcha is being solved, and knows which are in flight.

    :param each_time: knows which requests will meet a captcha
    :param count: adds to a stat
    """

    def __init__(
        self,
        crawler: Crawler,
        sessions: Sessions,
        each_time: EachTime,
        waits: Waits,
        count: Callable[[str], None],
    ) -> None:
        self._crawler = crawler
        self._sessions = sessions
        self._waits = waits
        self._count = count
        most = crawler.settings.getint("CONCURRENT_REQUESTS")  # 0: no limit
        self._width = most or UNLIMITED
        self._lines: dict[tuple[SessionPool, str], SharedLine] = {}
        self.each_time = each_time
        self._in: dict[Request, Session] = {}  # of what the downloader is busy with
        self._redirects = Redirects(self._page)
        self._check_pages = CheckPages(waits)
        self._seeking: WeakValueDictionary[int, Request] = WeakValueDictionary()  # by their pages
        self._queued: WeakSet[Request] = WeakSet()  # redirected, in the scheduler
        # What only finds out what a page shows: the duplicate filter has dropped it.
        self._lookers: WeakSet[Request] = WeakSet()
        self.gate = Gates(
            waits,
            active=lambda: crawler.engine.downloader.active,
            is_sent=lambda request: is_sent(crawler.engine, request),
            width=most or 16,
        )

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
            self._seek(request)
        key = self._sessions.key(request)
        if key is not None:
            likely = self._is_likely_captcha(request, origin, key)
            self.gate.session(key).expect(request, before, captcha=likely)

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
            self._end_early(request)
            return
        back = self._redirects.brought_back(request, filtered=state == "unknown")
        if state == "unknown":
            back.priority = origin.priority  # behind the one that will tell
            self._end_early(request)
            self._queued.add(back)
            self._seek(back)
        elif (key := self._sessions.key(request)) is not None:
            self.gate.session(key).expect(back, request, captcha=False)
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

    async def hold(self, request: Request) -> Request | None:
        """Hold *request* while its session's gate is shut; a request to be made instead, if any."""
        was_filtered = self._redirects.arrived(request)
        self._queued.discard(request)
        rule = self._sessions.rule(request)
        if rule is not None:
            try:
                instead = await self._filtered(request) if was_filtered else None
                self._seek(request)
                instead = instead or await self._let_in(request, rule)
            except Stopped:
                return again(request)
            if instead is not None:
                return instead
        self._redirects.sent(request, self.gate.solves)
        return None

    async def _filtered(self, request: Request) -> Request | None:
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

    async def _let_in(self, request: Request, rule: CaptchaRule) -> Request | None:
        """Wait for a session that can take *request*; a request to be made instead, if any."""
        origin = origin_of(request)
        pool = self._sessions.pool(request, rule)
        if pool is not None and self._sessions.renew(request, pool) and origin is not None:
            return again(request)
        key = self._sessions.key(request, rule)
        if key is not None and self._has_been_passed(key, origin):
            self._end_early(request)
            return again(request)
        if pool is not None and self._sessions.must_choose(request):
            session = await self._enter_any(request, pool, key, rule)
        else:
            session = None if key is None else await self._enter(request, key, rule)
        if pool is not None and pool.use(request.meta[SESSION]):
            self._count("sessions")
        if session is None:
            return None
        if self._has_been_passed(session.key, origin):
            session.admit()
            return again(request)
        self._in[request] = session
        return None

    async def _enter(self, request: Request, key: Key, rule: CaptchaRule) -> Session:
        """Let *request* into the session that it names."""
        session = self.gate.session(key)
        redirected = origin_of(request) is not None
        if redirected:
            # The request before the redirect has left its place to this one, which does not wait
            # behind new ones: they would all be redirected before anyone reached the captcha.
            session.admit()
            if await session.follow(request):
                return session
        if session.shut if redirected else session.is_full:
            self._count("held")
            self.gate.watch(session)
        turn = await session.enter(
            self._takes_gate(request, rule), self.beside(request), first=redirected
        )
        session = self.gate.session(key)  # idle ones have been forgotten
        if turn is not None:
            session.take_early(request, turn)
        return session

    async def _enter_any(
        self, request: Request, pool: SessionPool, key: Key | None, rule: CaptchaRule
    ) -> Session | None:
        """Let *request* into the session of the pool that can take it soonest."""
        if key is None:  # nobody waits for anybody
            self._sessions.choose(request, pool.names[0])
            return None
        line = self._line(request, pool, key)

        def waits() -> None:
            self._count("held")
            self.gate.watch(self.gate.session(key._replace(name=pool.names[0])))

        session, turn = await line.enter(
            self._takes_gate(request, rule), self.beside(request), waits
        )
        self._sessions.choose(request, session.key.name)
        if turn is not None:
            session.take_early(request, turn)
        return session

    def _line(self, request: Request, pool: SessionPool, key: Key) -> SharedLine:
        """The line in front of the sessions of *pool* at the site of *request*."""
        line = self._lines.get((pool, key.site))
        if line is None:

            def sessions() -> Iterator[Session]:
                for name in pool.names:
                    session = self.gate.session(key._replace(name=name))
                    session.shared = line
                    yield session

            line = self._lines[pool, key.site] = SharedLine(self._waits, sessions, self._width)
        return line

    def _takes_gate(self, request: Request, rule: CaptchaRule) -> TakesGate:
        """Whether *request* will meet a captcha, so that it takes the gate before its download."""
        origin = origin_of(request)
        if is_for_browser(request):
            return never
        if origin is not None:
            return lambda session: self._is_likely_captcha(request, origin, session.key)
        return lambda session: session.is_used_up or self.each_time.expects(request, rule)

    def _is_likely_captcha(self, request: Request, origin: Origin, key: Key) -> bool:
        """Whether a captcha is where a redirect led *request*."""
        likely = self._check_pages.expects_captcha(request.url)
        return likely and not (is_for_browser(request) or self._has_been_passed(key, origin))

    def _has_been_passed(self, key: Key, origin: Origin | None) -> bool:
        """Whether a captcha page, to which a request was redirected, was passed meanwhile.

        Who knows what it shows by now.
        """
        return origin is not None and self.gate.solved_since(key, origin.sent_at)

    def _end_early(self, request: Request) -> None:
        """End the turn that was taken for *request* while it was in the scheduler."""
        key = self._sessions.key(request)
        if key is not None:
            session = self.gate.session(key)
            turn = session.early_turn(request)
            if turn is not None:
                session.end(turn)

    def request_leaves(self, request: Request) -> None:
        """*request* is on its way to the downloader."""
        session = self._in.get(request)
        if session is not None:
            session.request_started(request)

    def page_seen(
        self,
        request: Request,
        response: Response,
        rule: CaptchaRule,
        *,
        is_captcha: bool,
        early: Turn | None,
    ) -> Request | None:
        """Note whether a page under a rule shows a captcha, though its session was let through.

        Return a request to be made instead, if any.
        """
        key = self._sessions.key(request, rule)
        if key is not None:
            session = self.gate.session(key)
            if not is_captcha:
                session.allowance.page_came(alone=early is not None)
                if response.status < HTTP_ERRORS:
                    self.each_time.seen(request, rule, captcha=False)
            elif self.gate.solved_since(key, 0) and (early is not None or not session.shut):
                # Those of one wall are not counted: they come while its captcha is being solved.
                self.each_time.seen(request, rule, captcha=True)
        origin = origin_of(request)
        # What RetryMiddleware asks for again says nothing of what its page shows.
        is_error = response.status >= HTTP_ERRORS
        is_looker = not is_captcha and not is_error and request in self._lookers
        if origin is not None and (is_captcha or is_looker):
            self._seen(request, origin, captcha=is_captcha)
        return _to_be_filtered(request) if is_looker else None

    def was_solved(self, request: Request) -> bool:
        """Whether a captcha was solved in the session of *request*."""
        key = self._sessions.key(request)
        return self.gate.solved_since(key, 0)

    def passed(self, request: Request) -> None:
        """The captcha that *request* brought was dealt with.

        Where the page behind it refreshes to is a page of its own.
        """
        self._redirects.ended(request)

    def early_turn(self, request: Request) -> Turn | None:
        """The turn that *request* took before its download; it is to be ended by end_turn()."""
        session = self._in.get(request)
        return None if session is None else session.early_turn(request)

    def end_turn(self, request: Request, turn: Turn | None) -> None:
        """Let the next one of the session of *request* have its turn, unless it has it."""
        key = None if turn is None else self._sessions.key(request)
        if turn is not None and key is not None:
            self.gate.session(key).end(turn)

    def request_is_back(self, request: Request, is_cached: bool = False) -> bool:
        """Whether what *request* brought may be stale, now that it is back."""
        session = self._in.pop(request, None)
        if session is None:
            return is_cached
        if is_cached:
            session.short_circuited(request)
            return True
        return session.response_received(request)

    def beside(self, request: Request) -> Callable[[], AbstractContextManager[None]]:
        """Where requests wait: not in the place of other hosts' requests."""
        return partial(beside_the_limit, self._crawler.engine, request)

    def tidy(self) -> None:
        """Forget what has ended without a word, and sessions that nobody uses."""
        active = self._crawler.engine.downloader.active
        self._in = {r: session for r, session in self._in.items() if r in active}
        for request in self.gate.tidy(in_use=set(self._in.values())):
            # Redirected, or dropped by another middleware: it was no help that it had the gate.
            rule = self._sessions.rule(request)
            if rule is not None:
                self.each_time.seen(request, rule, captcha=False)
        for key, line in list(self._lines.items()):
            if line.close():
                del self._lines[key]
        self._check_pages.wake()

    def drop_session(self, request: Request) -> None:
        """Have a fresh session in the place of that of *request*, in which answers are refused.

        The session of a cookiejar that the spider has chosen stays.
        """
        pool, key = self._sessions.pool(request), self._sessions.key(request)
        if pool is None or key is None or not pool.drop(key.name):
            return
        self._count("sessions_dropped")
        logger.info(
            "Dropped the session %(name)s, which is refused each answer; a fresh one replaces it",
            {"name": key.name},
            extra={"spider": self._crawler.spider},
        )
        dropped = self.gate.session(key)
        dropped.shared, line = None, dropped.shared
        if line is not None:
            line.serve()

    def is_dropped(self, request: Request) -> bool:
        """Whether the session of *request* has been replaced."""
        return self._sessions.is_dropped(request)

    # Helpers

    def _seek(self, request: Request) -> None:
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
