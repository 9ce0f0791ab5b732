"""One solve at a time per browsing session; everyone else waits.

Most sites keep one expected answer per session, so two solves in one session spoil each other, and
sixteen requests that hit one wall need one solve. The four steps:

1. New requests of a session whose gate is shut are held.
2. A request that met a captcha takes the gate and lets the session's requests in flight land first:
   their responses may still replace the session's cookie.
3. If there were any, or if somebody else held the gate before, its captcha is stale: the page is
   downloaded again before anybody pays. No captcha any more? Then the gate is opened, for free.
4. Otherwise the captcha is solved, and the gate goes to the next one in line or is opened.

A request that is known to meet a captcha takes the gate before its download, so that its page is
downloaded once. So does one that is likely to, because it was redirected to a captcha's page or
because the last captcha was good for no more pages: others in flight would be made in vain.
Sessions side by side share one line of held requests, see `shared_line.py`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Set
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from scrapy_acecaptcha.crawl.allowance import Allowance
from scrapy_acecaptcha.crawl.held import Held, TakesGate, Turn, Waiting, never
from scrapy_acecaptcha.crawl.waiting import Waits, fire

if TYPE_CHECKING:
    from scrapy_acecaptcha.crawl.shared_line import SharedLine

GONE_SECONDS = 0.01  # that one with the gate may be in nobody's hands
KEPT_SECONDS = 0.5  # that another middleware may keep it before it is sent
LANDING_SECONDS = 0.005  # between two looks whether all have landed
Active = Callable[[], Set[Hashable]]
IsSent = Callable[[Any], bool]


class Session:
    """One browsing session at one site, and the gate in front of it.

    :param key: names it
    :param waits: what its requests wait for
    :param active: all requests that the downloader and its middlewares are busy with
    :param is_sent: whether a request has reached the downloader and has not left it
    :param width: held requests that may go at a time once the gate is open
    """

    def __init__(self, key: Any, waits: Waits, active: Active, is_sent: IsSent, width: int) -> None:
        self.key = key
        self.allowance = Allowance()
        self.shut = False
        self.shared: SharedLine | None = None  # of requests that any session of a pool may take
        self._waits = waits
        self._active = active
        self._is_sent = is_sent
        self._width = width
        self._in_flight: dict[Hashable, int] = {}  # -> how many had landed when it took off
        self._received = 0
        self._looking = 0  # second looks at a page, which are in flight, too
        self._released = 0  # let go, but not on their way yet
        self._admitting = False
        self._held: deque[Held] = deque()
        self._early: tuple[Hashable, Turn] | None = None  # who took the gate before its download
        self._is_scheduled = False  # that one is in the scheduler
        self._lost_since: float | None = None  # that one
        self._line: deque[tuple[Turn, Deferred[None]]] = deque()

    @property
    def going(self) -> int:
        """Requests that have been let go and are not back."""
        return self._released + sum(map(self._is_sent, self._in_flight))

    @property
    def is_used_up(self) -> bool:
        """Whether one more request is likely to meet a captcha."""
        return self.allowance.is_used_up(len(self._in_flight) + self._released)

    @property
    def load(self) -> int:
        """Requests that are to be dealt with before a new one."""
        return len(self._in_flight) + self._released + self._looking + len(self._line)

    @property
    def idle(self) -> bool:
        """Whether nobody would notice if this session were forgotten."""
        self._forget_gone()
        return not (
            self.shut
            or self._in_flight
            or self._looking
            or self._held
            or self._released
            or self._line
        )

    # Requests in flight

    def request_started(self, request: Hashable) -> None:
        """*request* is on its way to the downloader."""
        self._forget_gone()
        self._in_flight[request] = self._received

    def take_early(self, request: Hashable, turn: Turn) -> None:
        """*request* has taken the gate before its download."""
        self._early, self._lost_since, self._is_scheduled = (request, turn), None, False

    def early_turn(self, request: Hashable) -> Turn | None:
        """The turn that *request* took before its download, and has to end now."""
        if self._early is None or self._early[0] is not request:
            return None
        turn, self._early = self._early[1], None
        return turn

    def expect(self, request: Hashable, before: Hashable, *, captcha: bool) -> None:
        """*request*, to which *before* was redirected, comes from the scheduler.

        :param captcha: it is likely to meet one, so that it takes the gate at once
        """
        turn = self.early_turn(before)
        if turn is None and captcha and not self.shut:
            self.shut, turn = True, Turn(leads=True, stale=False)
        if turn is not None:
            self.take_early(request, turn)
            self._is_scheduled = True

    async def follow(self, request: Hashable) -> bool:
        """Let *request* go on with the turn that was taken for it in the scheduler, if any was.

        :raises Stopped: the crawl is stopping
        """
        # A queue on disk makes another object of it.
        if self._early is None or not (self._early[0] is request or self._is_gone()):
            return False
        turn = self._early[1]
        self.take_early(request, turn)
        try:
            await self._all_received()
        except BaseException:
            self._early = None
            self.end(turn)
            raise
        return True

    def _is_gone(self) -> bool:
        return self._early is not None and self._early[0] not in self._active()

    def find_lost(self, *, scheduled: bool = False) -> Hashable | None:
        """Open the gate for one that took it and has been of no use for a while; return it.

        Another middleware may have dropped it, or keep it until it has a page of this session.

        :param scheduled: look for one in the scheduler, too, which has some time to come back
        """
        if self._early is None:
            return None
        request, turn = self._early
        is_gone = self._is_gone()
        if is_gone and self._is_scheduled and not scheduled:
            return None
        if not is_gone and (request not in self._in_flight or self._is_sent(request)):
            self._lost_since = None
            return None
        now = time.monotonic()
        self._lost_since = self._lost_since or now
        if now - self._lost_since < (GONE_SECONDS if is_gone else KEPT_SECONDS):
            return None
        self._early = None
        self.allowance.good_for = None
        self.end(turn)
        return request

    def response_received(self, request: Hashable) -> bool:
        """The response of *request* has arrived: its cookies are in the jar.

        Return whether others landed while it was in flight: then its page may belong to a session
        that they have replaced.
        """
        self._forget_gone()
        overtaken = self._in_flight.pop(request, self._received) != self._received
        self._received += 1
        self.admit()
        return overtaken

    def short_circuited(self, request: Hashable) -> None:
        """*request* was answered before it reached the site."""
        self._in_flight.pop(request, None)
        self.admit()

    def _forget_gone(self) -> None:
        """Count as landed what other middlewares dealt with: redirected, dropped, failed."""
        active = self._active()  # may be a thousand, most of them held
        for request in [one for one in self._in_flight if one not in active]:
            del self._in_flight[request]
            self._received += 1

    async def _all_received(self) -> None:
        """Wait for requests that are in flight or take off meanwhile.

        Not for those that another middleware keeps: it may wait for a request that is held here.
        """
        awaited: set[Hashable] = set()
        while True:
            self._forget_gone()
            awaited.update(filter(self._is_sent, self._in_flight))
            if not self._looking and awaited.isdisjoint(self._in_flight):
                return
            await self._waits.sleep(LANDING_SECONDS)

    # New requests

    @property
    def is_waited_for(self) -> bool:
        """Whether requests wait to be let into this session, or into any of its pool."""
        return bool(self._held) or (self.shared is not None and self.shared.is_waited_for)

    @property
    def is_full(self) -> bool:
        """Whether new requests must wait: the gate is shut, or others are waiting already."""
        return self.shut or bool(self._held)

    async def enter(
        self,
        takes_gate: TakesGate = never,
        waiting: Waiting = nullcontext,
        *,
        first: bool = False,
    ) -> Turn | None:
        """Wait until the gate is open; return a turn if the request has taken it with it.

        :param takes_gate: whether the request will meet a captcha, asked when it may go
        :param waiting: makes a context to wait in
        :param first: before all others, as it was sent before and redirected
        :raises Stopped: the crawl is stopping
        """
        must_wait = self.shut if first else self.is_full
        if not must_wait and not takes_gate(self):
            return None  # as nearly always
        held = Held(takes_gate)
        if must_wait:
            (self._held.appendleft if first else self._held.append)(held)
            await held.wait(self._waits, waiting, self._held)
        else:
            self.let_go(held)
        return await self.going_on(held)

    def let_go(self, held: Held) -> None:
        """Let a request go that has waited."""
        held.session = self
        if held.takes_gate(self):
            self.shut = True
            held.turn = Turn(leads=True, stale=False)
        else:
            self._released += 1
        fire(held.event)

    async def going_on(self, held: Held) -> Turn | None:
        """*held* goes on its way, with nobody else of its session if it has taken the gate.

        :raises Stopped: the crawl is stopping
        """
        if held.turn is None:
            self._released -= 1
            return None
        try:
            self._forget_gone()
            if self._in_flight or self._looking:
                await self._all_received()
        except BaseException:
            self.end(held.turn)
            raise
        return held.turn

    def give_up(self, held: Held) -> None:
        """*held* was let go and does not go, as the crawl is stopping."""
        if held.turn is None:
            self._released -= 1
        else:
            self.end(held.turn)

    def admit(self) -> None:
        """Let held requests go, as many as may be in flight.

        Called again for each request that ended, was redirected or turned back, and now and then
        for those that never took off.
        """
        if self._admitting:
            return  # one that was let go has ended at once: the loop below goes on
        self._admitting = True
        try:
            while self._held and not self.shut and self.going < self._width:
                self.let_go(self._held.popleft())
        finally:
            self._admitting = False
        if self.shared is not None:
            self.shared.serve()

    # Captchas

    @asynccontextmanager
    async def turn(
        self, stale: bool = False, waiting: Waiting = nullcontext, early: Turn | None = None
    ) -> AsyncIterator[Turn]:
        """Wait for one's turn at the captcha.

        :param stale: the captcha is known to be stale
        :param waiting: makes a context to wait in
        :param early: the turn that the request took before its download
        :raises Stopped: the crawl is stopping
        """
        if early is not None and early.leads:
            early.stale = stale
            try:
                yield early
            finally:
                self.end(early)
            return
        turn = Turn(leads=True, stale=stale or self.shut)
        if self.shut:
            event: Deferred[None] = Deferred()
            self._line.append((turn, event))
            try:
                with waiting():
                    await self._waits.on(event)
            except BaseException:
                self._give_back(turn, event)
                raise
        looks = not turn.leads
        self._looking += looks
        try:
            if turn.leads:
                self.shut = True
                self._forget_gone()
                if self._in_flight or self._looking:
                    turn.stale = True
                    await self._all_received()
            yield turn
        finally:
            self._looking -= looks
            self.end(turn)

    def _give_back(self, turn: Turn, event: Deferred[None]) -> None:
        """Somebody gave up waiting, perhaps just when it was given the gate."""
        if (turn, event) in self._line:
            self._line.remove((turn, event))
        else:
            self.end(turn)

    def end(self, turn: Turn) -> None:
        """Hand the gate to the next in line, or open it; once."""
        if not turn.leads:
            return
        turn.leads = False
        if self._line:
            fire(self._line.popleft()[1])
        else:
            self.shut = False
            self.admit()

    def release_all(self, turn: Turn) -> None:
        """No captcha any more: open the gate, and let all who wait in line look for themselves."""
        if not turn.leads:
            return
        turn.leads = False
        self.shut = False
        line, self._line = self._line, deque()
        for waiting, event in line:
            waiting.leads = False
            fire(event)
        self.admit()
