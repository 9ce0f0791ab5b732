"""The requests of the crawl on their way: held at the gate, in flight, back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING

from scrapy import Request

from scrapy_acecaptcha.crawl.detours import Detours
from scrapy_acecaptcha.crawl.gate import Session
from scrapy_acecaptcha.crawl.gates import Gates
from scrapy_acecaptcha.crawl.held import TakesGate, never
from scrapy_acecaptcha.crawl.redirects import again, origin_of
from scrapy_acecaptcha.crawl.scrapy_internals import beside_the_limit, is_sent
from scrapy_acecaptcha.crawl.scrapy_playwright import is_for_browser
from scrapy_acecaptcha.crawl.sessions import SESSION
from scrapy_acecaptcha.crawl.shared_line import SharedLine
from scrapy_acecaptcha.crawl.waiting import Stopped

if TYPE_CHECKING:
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
        self._lines: dict[SessionPool, SharedLine] = {}
        self.each_time = each_time
        self._in: dict[Request, Session] = {}  # of what the downloader is busy with
        self.gate = Gates(
            waits,
            active=lambda: crawler.engine.downloader.active,
            is_sent=lambda request: is_sent(crawler.engine, request),
            width=most or 16,
        )
        self.detours = Detours(crawler, sessions, self.gate, waits)

    # On the way to the downloader

    async def hold(self, request: Request) -> Request | None:
        """Hold *request* while its session's gate is shut; a request to be made instead, if any."""
        was_filtered = self.detours.arrived(request)
        rule = self._sessions.rule(request)
        if rule is not None:
            try:
                instead = await self.detours.find_out(request) if was_filtered else None
                self.detours.seek(request)
                instead = instead or await self._let_in(request, rule)
            except Stopped:
                return again(request)
            if instead is not None:
                return instead
        self.detours.sent(request)
        return None

    async def _let_in(self, request: Request, rule: CaptchaRule) -> Request | None:
        """Wait for a session that can take *request*; a request to be made instead, if any."""
        origin = origin_of(request)
        pool = self._sessions.pool(request, rule)
        if pool is not None and self._sessions.renew(request, pool) and origin is not None:
            return again(request)
        key = self._sessions.key(request, rule)
        if key is not None and self.detours.was_passed(key, origin):
            self.detours.end_early(request)
            return again(request)
        if pool is not None and self._sessions.must_choose(request):
            session = await self._enter_any(request, pool, key, rule)
        else:
            session = None if key is None else await self._enter(request, key, rule)
        if pool is not None and pool.use(request.meta[SESSION]):
            self._count("sessions")
        if session is None:
            return None
        if self.detours.was_passed(session.key, origin):
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
        line = self._line(pool, key)

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

    def _line(self, pool: SessionPool, key: Key) -> SharedLine:
        """The line in front of the sessions of *pool*."""
        line = self._lines.get(pool)
        if line is None:

            def sessions() -> Iterator[Session]:
                for name in pool.names:
                    session = self.gate.session(key._replace(name=name))
                    session.shared = line
                    yield session

            line = self._lines[pool] = SharedLine(self._waits, sessions, self._width)
        return line

    def _takes_gate(self, request: Request, rule: CaptchaRule) -> TakesGate:
        """Whether *request* will meet a captcha, so that it takes the gate before its download."""
        origin = origin_of(request)
        if is_for_browser(request):
            return never
        if origin is not None:
            return lambda session: self.detours.is_likely_captcha(request, origin, session.key)
        return lambda session: session.is_used_up or self.each_time.expects(request, rule)

    async def page_is_made(self, request: Request) -> None:
        """*request* has a page in a browser, to be loaded when its session's gate is open.

        Making a page takes a while, in which another one may have met the session's captcha.
        """
        session = self._in.get(request)
        if session is not None and session.shut:
            self._count("held")
            with suppress(Stopped):
                await session.enter(waiting=self.beside(request), first=True)
        self.request_leaves(request)

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
        # What RetryMiddleware asks for again says nothing of what its page shows.
        if not is_captcha and response.status >= HTTP_ERRORS:
            return None
        return self.detours.page_seen(request, captcha=is_captcha)

    def was_solved(self, request: Request) -> bool:
        """Whether a captcha was solved in the session of *request*."""
        key = self._sessions.key(request)
        return self.gate.solved_since(key, 0)

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
        for pool, line in list(self._lines.items()):
            if line.close():
                del self._lines[pool]
        self.detours.wake()

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
