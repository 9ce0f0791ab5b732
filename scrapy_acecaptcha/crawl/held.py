"""A request that waits in front of a gate, and the turn at a captcha that it may have."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from scrapy_acecaptcha.crawl.gate import Session
    from scrapy_acecaptcha.crawl.waiting import Waits

Waiting = Callable[[], AbstractContextManager[None]]
TakesGate = Callable[[Any], bool]  # whether a request will meet a captcha in a session


@dataclass
class Turn:
    """One request's turn at the captcha of its session.

    :param leads: it holds the gate; otherwise it may only look whether the way is free
    :param stale: its captcha may have been replaced: download the page again before paying
    """

    leads: bool
    stale: bool


def never(_session: Session) -> bool:
    """Expect no captcha."""
    return False


@dataclass(eq=False)
class Held:
    """A request that waits to be let go.

    :param takes_gate: asked when it is let go: whether it will meet a captcha
    """

    takes_gate: TakesGate = never
    event: Deferred[None] = field(default_factory=Deferred)
    session: Session | None = None  # that has let it go
    turn: Turn | None = None  # if it took the gate

    async def wait(self, waits: Waits, waiting: Waiting, queue: deque[Held]) -> None:
        """Wait until a session has let it go and taken it out of *queue*.

        :param waiting: makes a context to wait in
        :raises Stopped: the crawl is stopping
        """
        try:
            with waiting():
                await waits.on(self.event)
        except BaseException:
            if self.session is None:
                queue.remove(self)
            else:
                self.session.give_up(self)
            raise
