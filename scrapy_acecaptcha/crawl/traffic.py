"""The requests of the crawl on their way: held at the gate, in flight, back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from scrapy import Request

from scrapy_acecaptcha.crawl.failure import again
from scrapy_acecaptcha.crawl.gate import Gate, Session
from scrapy_acecaptcha.crawl.redirects import (
    SENT,
    SENT_AT,
    is_redirected,
    note_original,
    original_request,
)
from scrapy_acecaptcha.crawl.scrapy_internals import beside_the_limit, is_sent
from scrapy_acecaptcha.crawl.scrapy_playwright import is_for_browser
from scrapy_acecaptcha.crawl.sessions import SESSION
from scrapy_acecaptcha.crawl.shared_line import SharedLine
from scrapy_acecaptcha.crawl.waiting import Stopped

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.http import Response

    from scrapy_acecaptcha.crawl.each_time import EachTime
    from scrapy_acecaptcha.crawl.gate import Turn
    from scrapy_acecaptcha.crawl.session_pool import SessionPool
    from scrapy_acecaptcha.crawl.sessions import Key, Sessions
    from scrapy_acecaptcha.crawl.waiting import Waits

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
        self._lines: dict[tuple[SessionPool, str], SharedLine] = {}
        self.each_time = each_time
        self._in: dict[Request, Session] = {}  # of what the downloader is busy with
        self.gate = Gate(
            waits,
            active=lambda: crawler.engine.downloader.active,
            is_sent=lambda request: is_sent(crawler.engine, request),
            width=most or 16,
        )

    async def hold(self, request: Request) -> Request | None:
        """Hold *request* while its session's gate is shut; a request to be made instead, if any."""
        if is_redirected(request):
            if request.meta[SENT].pop("filtered", False):
                request.dont_filter = False  # as the spider made it
        elif self._sessions.rule(request) is not None:
            note_original(request)
        if self._sessions.renew(request) and is_redirected(request):
            return again(original_request(request))
        pool = self._sessions.pool(request)
        key = self._sessions.key(request)
        try:
            if pool is not None and self._sessions.must_choose(request):
                session = await self._enter_any(request, pool, key)
            else:
                session = None if key is None else await self._enter(request, key)
        except Stopped:
            return again(request)
        if pool is not None and pool.use(request.meta[SESSION]):
            self._count("sessions")
        return None if session is None else self._check_turned_back(request, session)

    async def _enter(self, request: Request, key: Key) -> Session:
        """Let *request* into the session that it names."""
        session = self.gate.session(key)
        redirected = is_redirected(request)
        if redirected:
            # The request before the redirect has left its place to this one, which does not wait
            # behind new ones: they would all be redirected before anyone reached the captcha.
            session.admit()
            if session.follow(request):
                return session
        if session.shut if redirected else session.is_full:
            self._count("held")
        turn = await session.enter(
            self._takes_gate(request), self.beside(request), first=redirected
        )
        session = self.gate.session(key)  # idle ones have been forgotten
        if turn is not None:
            session.take_early(request, turn)
        return session

    async def _enter_any(
        self, request: Request, pool: SessionPool, key: Key | None
    ) -> Session | None:
        """Let *request* into the session of the pool that can take it soonest."""
        if key is None:  # nobody waits for anybody
            self._sessions.choose(request, pool.names[0])
            return None
        line = self._line(request, pool, key)
        session, turn = await line.enter(
            self._takes_gate(request), self.beside(request), partial(self._count, "held")
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

    def _takes_gate(self, request: Request) -> Callable[[], bool]:
        """Whether *request* will meet a captcha, so that it takes the gate before its download."""
        rule = self._sessions.rule(request)
        if rule is None or is_redirected(request) or is_for_browser(request):
            return lambda: False
        return partial(self.each_time.expects, request, rule)

    def _check_turned_back(self, request: Request, session: Session) -> Request | None:
        if not is_redirected(request):
            request.meta[SENT_AT] = self.gate.solves
        elif self.gate.solved_since(session.key, request.meta.get(SENT_AT, 0)):
            # It was on its way to a captcha page that meanwhile was passed: who knows what that
            # page shows by now.
            request.meta[SENT_AT] = self.gate.solves
            session.admit()
            return again(original_request(request))
        self._in[request] = session
        return None

    def request_leaves(self, request: Request) -> None:
        """*request* is on its way to the downloader."""
        session = self._in.get(request)
        if session is not None:
            session.request_started(request)

    def page_seen(
        self, request: Request, response: Response, is_captcha: bool, early: Turn | None
    ) -> None:
        """Note whether a page under a rule shows a captcha though its session was let through."""
        key, rule = self._sessions.key(request), self._sessions.rule(request)
        if key is None or rule is None:
            return
        if not is_captcha:
            if response.status < HTTP_ERRORS:
                self.each_time.seen(request, rule, captcha=False)
        elif early is not None or (
            # Those of one wall are not counted: they come while its captcha is being solved.
            not self.gate.session(key).shut and self.gate.solved_since(key, 0)
        ):
            self.each_time.seen(request, rule, captcha=True)

    def early_turn(self, request: Request) -> Turn | None:
        """The turn that *request* took before its download; it is to be ended by end_turn()."""
        session = self._in.get(request)
        return None if session is None else session.early_turn(request)

    def end_turn(self, request: Request, turn: Turn | None) -> None:
        """Let the next one of the session of *request* have its turn, unless it has it."""
        key = self._sessions.key(request)
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
