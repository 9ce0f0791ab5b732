"""Awaiting that works on every reactor and that the end of the crawl can interrupt."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from scrapy.utils.asyncio import call_later, is_asyncio_available
from scrapy.utils.defer import deferred_from_coro, maybe_deferred_to_future
from twisted.internet.defer import CancelledError, Deferred

T = TypeVar("T")

GRACE_SECONDS = 3.0  # for a call or a download under way when the crawl stops
SPACING_SECONDS = 0.005  # between two answers: Scrapy needs as long for one captcha's downloads
Handler = Callable[[Deferred[None]], None]


class Stopped(Exception):
    """The crawl is stopping: what was awaited will not be."""


class Waits:
    """Everything that requests of one crawl are waiting for.

    Twisted's Deferreds are what works on all reactors; :meth:`stop` lets go of them all.
    """

    def __init__(self) -> None:
        self._pending: set[Deferred[None]] = set()
        self._answered: deque[Deferred[None]] = deque()
        self._resting = False
        self._downloads: set[Deferred[Any]] = set()
        self.stopped = False
        self._is_over = False  # GRACE_SECONDS after that

    def __len__(self) -> int:
        return len(self._pending)

    def stop(self) -> None:
        """Raise Stopped wherever something is awaited, now and from now on."""
        if not self.stopped:
            self.stopped = True
            call_later(GRACE_SECONDS, self._cancel_downloads)
        for pending in list(self._pending):
            fire(pending)

    def _cancel_downloads(self) -> None:
        self._is_over = True
        for download in list(self._downloads):
            download.cancel()

    async def on(self, event: Deferred[None]) -> None:
        """Wait until *event* is fired.

        :raises Stopped: the crawl is stopping
        """
        if self.stopped:
            raise Stopped
        self._pending.add(event)
        try:
            await maybe_deferred_to_future(event)
        finally:
            self._pending.discard(event)
        if self.stopped:
            raise Stopped

    async def sleep(self, seconds: float) -> None:
        """Wait for *seconds*."""
        event: Deferred[None] = Deferred()
        call_later(seconds, fire, event)
        await self.on(event)

    async def for_thread(self, future: Future[T]) -> T:
        """Wait for a future that a thread completes.

        When the crawl stops, the future has GRACE_SECONDS left: its call may be paid for.

        :raises Stopped: the crawl is stopping; the thread goes on by itself
        """
        event: Deferred[None] = Deferred()
        call = _caller_from_thread()
        future.add_done_callback(lambda _: call(self._pass_on, event))
        try:
            await self.on(event)
        except Stopped:
            if not future.done():
                last: Deferred[None] = Deferred()
                future.add_done_callback(lambda _: call(fire, last))
                call_later(GRACE_SECONDS, fire, last)
                await maybe_deferred_to_future(last)
            if not future.done():
                raise
        return future.result()

    async def for_download(self, start: Callable[[], Awaitable[T]]) -> T:
        """Start a download, or a look-up for one, and wait for it.

        When the crawl stops, it has GRACE_SECONDS left, as it may bring the answer to a captcha
        that was paid for. Then it is cancelled: Scrapy waits for every download that is under way,
        which may take as long as DOWNLOAD_TIMEOUT.

        :raises Stopped: the crawl has stopped
        """
        if self._is_over:
            raise Stopped
        download: Deferred[T] = deferred_from_coro(start())
        self._downloads.add(download)
        try:
            return await maybe_deferred_to_future(download)
        except (asyncio.CancelledError, CancelledError):
            if self._is_over:
                raise Stopped from None
            raise
        finally:
            self._downloads.discard(download)

    def _pass_on(self, event: Deferred[None]) -> None:
        """Fire *event*, a little after the one before it.

        Requests whose answers come together would do all their downloads together, and then ask the
        API together, which would have nothing to do meanwhile; again and again, as in a convoy.
        """
        self._answered.append(event)
        if not self._resting:
            self._fire_next()

    def _fire_next(self) -> None:
        self._resting = bool(self._answered)
        if self._resting:
            fire(self._answered.popleft())
            call_later(SPACING_SECONDS, self._fire_next)


def fire(event: Deferred[None]) -> None:
    """Fire *event*, if nobody has."""
    if not event.called:
        event.callback(None)


def _caller_from_thread() -> Callable[[Handler, Deferred[None]], None]:
    """A function that has an event handled in this very thread when it is called in another."""
    if is_asyncio_available():
        loop = asyncio.get_running_loop()

        def call(handler: Handler, event: Deferred[None]) -> None:
            if not loop.is_closed():  # else the crawl is over and nobody waits
                loop.call_soon_threadsafe(handler, event)

        return call
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    call_in_reactor: Callable[[Handler, Deferred[None]], None] = reactor.callFromThread
    return call_in_reactor
