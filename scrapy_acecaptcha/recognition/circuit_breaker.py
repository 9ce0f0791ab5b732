"""Stop calling an API that is down, and look now and then whether it is back."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scrapy_acecaptcha.crawl.waiting import Waits
from scrapy_acecaptcha.errors import ApiError

logger = logging.getLogger(__name__)

FAILURES = 20  # recognitions in a row that failed past all their retries
FIRST_PAUSE = 1.0  # seconds before the first probe; doubled after each that fails
LONGEST_PAUSE = 60.0  # seconds
PATIENCE = 3600.0  # seconds that a request waits for the API to come back


class CircuitBreaker:
    """Counts failures in a row; from the twentieth on, everyone waits for one probe to succeed.

    An API that is down for an hour at night then costs that hour, and not every request's retries.
    """

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._next_probe = 0.0
        self._probing = False
        self._error: ApiError | None = None

    @property
    def is_on(self) -> bool:
        """Whether the API counts as down."""
        return self._failures >= FAILURES

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Enter when a call may be sent: at once, as the probe, or when the API is back.

        :raises ApiError: the last one, when the API did not come back within PATIENCE
        """
        is_probe = await self._may_call()
        try:
            yield
        except ApiError as error:
            if error.retryable:
                self._failed(error, is_probe)
            else:
                self._answered()
            raise
        else:
            self._answered()
        finally:
            if is_probe:
                self._probing = False

    async def _may_call(self) -> bool:
        """Wait for one's turn; True if this call is the probe."""
        give_up = time.monotonic() + PATIENCE
        while self.is_on:
            now = time.monotonic()
            if now >= self._next_probe and not self._probing:
                self._probing = True
                return True
            if now >= give_up and self._error is not None:
                raise self._error
            await self._waits.sleep(min(max(self._next_probe - now, 0.05), 1.0))
        return False

    def _answered(self) -> None:
        if self.is_on:
            logger.info("The recognition API is back")
        self._failures = 0
        self._pause = FIRST_PAUSE

    def _failed(self, error: ApiError, is_probe: bool) -> None:
        self._error = error
        self._failures += 1
        if is_probe:
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if is_probe or not self._probing:
            self._next_probe = time.monotonic() + self._pause
        if self._failures == FAILURES:
            logger.error(
                "The recognition API failed %(failures)d times in a row, the last time with "
                "%(error)s. No more calls are sent; one probe at a time, after pauses of "
                "%(first)g to %(longest)g s, tells when it is back, and captcha pages wait for it",
                {
                    "failures": FAILURES,
                    "error": error,
                    "first": FIRST_PAUSE,
                    "longest": LONGEST_PAUSE,
                },
            )
