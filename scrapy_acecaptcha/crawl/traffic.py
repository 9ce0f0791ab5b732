"""The requests of the crawl on their way: held at the gate, in flight, back."""

from __future__ import annotations

from collections.abc import Callable
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
from scrapy_acecaptcha.crawl.waiting import Stopped

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

    from scrapy_acecaptcha.crawl.sessions import Sessions
    from scrapy_acecaptcha.crawl.waiting import Waits


class Traffic:
    """Holds requests whose session's captcha is being solved, and knows which are in flight.

    :param count: adds to a stat
    """

    def __init__(
        self, crawler: Crawler, sessions: Sessions, waits: Waits, count: Callable[[str], None]
    ) -> None:
        self._crawler = crawler
        self._sessions = sessions
        self._count = count
        self._in: dict[Request, Session] = {}  # of what the downloader is busy with
        self.gate = Gate(
            waits,
            active=lambda: crawler.engine.downloader.active,
            is_sent=lambda request: is_sent(crawler.engine, request),
            width=crawler.settings.getint("CONCURRENT_REQUESTS") or 16,
        )

    async def hold(self, request: Request) -> Request | None:
        """Hold *request* while its session's gate is shut; a request to be made instead, if any."""
        if is_redirected(request):
            if request.meta[SENT].pop("filtered", False):
                request.dont_filter = False  # as the spider made it
        elif self._sessions.rule(request) is not None:
            note_original(request)
        key = self._sessions.key(request)
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
                await session.hold(self.beside(request), first=redirected)
            except Stopped:
                return again(request)
            session = self.gate.session(key)  # idle ones have been forgotten
        if not redirected:
            request.meta[SENT_AT] = self.gate.solves
        elif self.gate.solved_since(key, request.meta.get(SENT_AT, 0)):
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
        self.gate.tidy(in_use=set(self._in.values()))
