"""The line in front of sessions side by side: each request goes to the session that can take it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from scrapy_acecaptcha.crawl.held import Held, TakesGate, Turn, Waiting

if TYPE_CHECKING:
    from scrapy_acecaptcha.crawl.gate import Session
    from scrapy_acecaptcha.crawl.waiting import Waits


class SharedLine:
    """Requests that may go to any session of a pool, and wait until one can take them.

    :param waits: what requests wait for
    :param sessions: those of the pool; of equals the first one is taken
    :param width: requests that may be on their way at a time in all of them together
    """

    def __init__(self, waits: Waits, sessions: Callable[[], Iterable[Session]], width: int) -> None:
        self._waits = waits
        self._sessions = sessions
        self._width = width
        self._waiting: deque[Held] = deque()
        self._serving = False

    @property
    def is_waited_for(self) -> bool:
        """Whether requests wait for a session."""
        return bool(self._waiting)

    async def enter(
        self,
        takes_gate: TakesGate,
        waiting: Waiting = nullcontext,
        on_wait: Callable[[], object] = lambda: None,
    ) -> tuple[Session, Turn | None]:
        """Wait for a session; return it, and a turn if the request has taken its gate.

        :param takes_gate: whether the request will meet a captcha, asked when it may go
        :param waiting: makes a context to wait in
        :param on_wait: called if it has to wait
        :raises Stopped: the crawl is stopping
        """
        held = Held(takes_gate)
        session = None if self._waiting else self._free_session()
        if session is not None:
            session.let_go(held)
        else:
            on_wait()
            self._waiting.append(held)
            await held.wait(self._waits, waiting, self._waiting)
        assert held.session is not None
        return held.session, await held.session.going_on(held)

    def serve(self) -> None:
        """Let requests go to the sessions that can take them."""
        if self._serving:
            return  # one that was let go has ended at once: the loop below goes on
        self._serving = True
        try:
            while self._waiting and (session := self._free_session()) is not None:
                session.let_go(self._waiting.popleft())
        finally:
            self._serving = False

    def close(self) -> bool:
        """Let go of the sessions, if nobody waits and nobody is on the way."""
        sessions = list(self._sessions())
        if self._waiting or not all(session.idle for session in sessions):
            return False
        for session in sessions:
            session.shared = None
        return True

    def _free_session(self) -> Session | None:
        """The session with the least to do, if any can take a request."""
        sessions = list(self._sessions())
        if sum(session.going for session in sessions) >= self._width:
            return None
        # A wall that asks again turns back all requests of a session that are on their way: not all
        # of the crawl's may gather in the one session that is open.
        width = -(-self._width // len(sessions))
        free = [s for s in sessions if not s.is_full and s.going < width]
        return min(free, key=lambda session: session.load, default=None)
