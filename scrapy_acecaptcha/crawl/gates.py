"""The gates of all browsing sessions of a crawl."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable
from typing import Any

from scrapy.utils.asyncio import call_later

from scrapy_acecaptcha.crawl.allowance import Allowance
from scrapy_acecaptcha.crawl.gate import Active, IsSent, Session
from scrapy_acecaptcha.crawl.waiting import Waits

WATCH_SECONDS = 0.02  # between two looks whether another middleware dropped what is waited for
REMEMBERED = 4096  # sessions whose last solve is remembered


class Gates:
    """All sessions of a crawl.

    :param waits: what requests wait for
    :param active: all requests that the downloader and its middlewares are busy with
    :param is_sent: whether a request has reached the downloader and has not left it
    :param width: held requests of a session that may go at a time
    """

    def __init__(self, waits: Waits, active: Active, is_sent: IsSent, width: int) -> None:
        self._session_args = (waits, active, is_sent, width)
        self._sessions: dict[Hashable, Session] = {}
        self._allowances: OrderedDict[Hashable, Allowance] = OrderedDict()
        self._waited_for: set[Session] = set()
        self._lost: list[Any] = []
        self.solves = 0

    def session(self, key: Hashable) -> Session:
        """The session called *key*."""
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = Session(key, *self._session_args)
            session.allowance = self._allowances.get(key) or session.allowance
        return session

    def note_solve(self, key: Hashable) -> None:
        """A captcha of session *key* was solved."""
        self.solves += 1
        allowance = self._allowances[key] = self.session(key).allowance
        allowance.solve(self.solves)
        self._allowances.move_to_end(key)
        if len(self._allowances) > REMEMBERED:
            self._allowances.popitem(last=False)

    def solved_since(self, key: Hashable, solves: int) -> bool:
        """Whether session *key* was solved after *solves* solves of the crawl."""
        known = self._allowances.get(key)
        return known is not None and known.solved > solves

    def watch(self, session: Session) -> None:
        """Look now and then for what nothing tells of, as long as requests wait for *session*.

        Other middlewares may drop the requests that they wait for.
        """
        if not self._waited_for:
            call_later(WATCH_SECONDS, self._look)
        self._waited_for.add(session)

    def _look(self) -> None:
        for session in self._waited_for:
            self._note_lost(session.find_lost())
            session.admit()
        self._waited_for = {session for session in self._waited_for if session.is_waited_for}
        if self._waited_for:
            call_later(WATCH_SECONDS, self._look)

    def _note_lost(self, request: Hashable | None) -> None:
        if request is not None:
            self._lost.append(request)

    def tidy(self, in_use: Collection[Session] = ()) -> list[Any]:
        """Forget idle sessions, and help those whose requests never took off.

        :param in_use: idle sessions of requests that are about to take off
        :return: requests that had taken a gate and never came back
        """
        for key, session in list(self._sessions.items()):
            self._note_lost(session.find_lost(scheduled=True))
            session.admit()
            if session.idle and session.shared is None and session not in in_use:
                del self._sessions[key]
        lost, self._lost = self._lost, []
        return lost
