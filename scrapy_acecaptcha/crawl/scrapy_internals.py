"""What the middleware needs of Scrapy's engine beyond what Scrapy documents, in one place."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scrapy.utils.defer import deferred_from_coro

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.core.engine import ExecutionEngine
    from scrapy.crawler import Crawler

logger = logging.getLogger(__name__)

MAX_HELD = 1000  # ACECAPTCHA_MAX_HELD: requests that may wait beside CONCURRENT_REQUESTS


def is_stopping(engine: ExecutionEngine) -> bool:
    """Whether the spider is being closed; Scrapy has no signal for the beginning of the end."""
    slot = engine._slot
    # Not `running`: that is False, too, while handlers start, as a browser's does for a second.
    return not engine._starting or (slot is not None and slot.closing is not None)


def is_sent(engine: ExecutionEngine, request: Request) -> bool:
    """Whether *request* has reached the downloader and has not left it."""
    slot = engine.downloader.slots.get(request.meta.get("download_slot", ""))
    return slot is not None and request in slot.active


@contextmanager
def beside_the_limit(engine: ExecutionEngine, request: Request) -> Iterator[None]:
    """Let *request* wait without taking the place of other hosts' requests.

    Scrapy counts what a middleware holds as being downloaded, so CONCURRENT_REQUESTS goes up as
    long as it waits; and the scheduler, which prefers the hosts with the fewest downloads, is shown
    one more for this host.
    """
    downloader = engine.downloader
    slot = downloader.slots.get(downloader.get_slot_key(request))
    most = engine.settings.getint("ACECAPTCHA_MAX_HELD", MAX_HELD)
    extra = int(downloader.total_concurrency > 0 and _beside(engine) < most)
    downloader.total_concurrency += extra
    if slot is not None and request in slot.active:
        slot = None  # it waits in its download, in a browser: it is shown already
    if slot is not None:
        slot.active.add(request)
    if engine._slot is not None:
        engine._slot.nextcall.schedule()  # now, not at the next heartbeat
    try:
        yield
    finally:
        downloader.total_concurrency -= extra
        if slot is not None:
            slot.active.discard(request)


def _beside(engine: ExecutionEngine) -> int:
    return engine.downloader.total_concurrency - engine.settings.getint("CONCURRENT_REQUESTS")


def close_spider(crawler: Crawler, reason: str, error: Exception) -> None:
    """Close the spider; requests given back to the scheduler meanwhile are kept by JOBDIR."""
    logger.error(
        "Closing the spider (%(reason)s): %(error)s",
        {"reason": reason, "error": error},
        extra={"spider": crawler.spider},
    )
    closed = deferred_from_coro(crawler.engine.close_spider_async(reason=reason))
    closed.addErrback(
        lambda failure: logger.error(
            "Closing the spider failed: %(failure)s",
            {"failure": failure},
            extra={"spider": crawler.spider},
        )
    )
