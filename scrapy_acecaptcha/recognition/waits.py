"""How a front end waits for what a thread does: blocking, in asyncio, or as Scrapy's crawl does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from scrapy_acecaptcha.flow import Step

T = TypeVar("T")


def in_thread(
    work: Callable[[], T], begun: Callable[[Future[T]], object] = lambda _: None
) -> Future[T]:
    """Do *work* in a thread and return its future.

    :param begun: is told of the future before the thread begins

    The thread is a daemon's, as ThreadPoolExecutor's are joined at exit: an interrupted program
    would hang there for as long as the API takes.
    """
    future: Future[T] = Future()
    begun(future)

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="acecaptcha", daemon=True).start()
    return future


class Waits(Protocol):
    """Ways to wait; what they return is yielded to the driver of the steps."""

    def for_thread(self, future: Future[T]) -> Step[T]:
        """Wait for a future that a thread completes, and return or raise what came of it."""

    def sleep(self, seconds: float) -> Step[None]:
        """Wait for *seconds*."""


class BlockingWaits:
    """For plain functions: this thread waits."""

    def for_thread(self, future: Future[T]) -> T:
        """Wait for *future*."""
        return future.result()

    def sleep(self, seconds: float) -> None:
        """Wait for *seconds*."""
        time.sleep(seconds)


class AsyncioWaits:
    """For coroutines: the event loop goes on."""

    async def for_thread(self, future: Future[T]) -> T:
        """Wait for *future*; cancelled, it cancels a future whose work has not begun."""
        return await asyncio.wrap_future(future)

    async def sleep(self, seconds: float) -> None:
        """Wait for *seconds*."""
        await asyncio.sleep(seconds)
