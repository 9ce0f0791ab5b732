"""Stop calling an API that is down, and look now and then whether it is back."""

from __future__ import annotations

import logging
import threading
import time

from scrapy_acecaptcha.errors import ApiError

logger = logging.getLogger(__name__)

FAILURES = 20  # recognitions in a row that failed past all their retries
FIRST_PAUSE = 1.0  # seconds before the first probe; doubled after each that fails
LONGEST_PAUSE = 60.0  # seconds
PATIENCE = 3600.0  # seconds that a caller waits for the API to come back
LOOK_SECONDS = 1.0  # at most, between two looks whether the API is back


class CircuitBreaker:
    """Counts failures in a row; from the twentieth on, everyone waits for one probe to succeed.

    An API that is down for an hour at night then costs that hour, and not every caller's retries.
    It does not wait itself: :meth:`pause` says for how long its caller has to. Closed: calls go
    through. Open: none does. Half-open: one call, the probe, is under way.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._next_probe = 0.0
        self._probe: object | None = None
        self._error: ApiError | None = None
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the API counts as down."""
        return self._failures >= FAILURES

    def pause(self, caller: object, since: float) -> float:
        """Return the seconds to wait before *caller* asks again, 0 if its call may be sent now.

        A caller that may go must :meth:`leave`.

        :param caller: whoever wants to call, to know the probe by
        :param since: when it asked first, as of time.monotonic()
        :raises ApiError: the last one, when the API did not come back within PATIENCE
        """
        with self._lock:
            if not self.is_open:
                return 0
            now = time.monotonic()
            if now >= self._next_probe and self._probe is None:
                self._probe = caller
                return 0
            if now >= since + PATIENCE and self._error is not None:
                raise self._error
            return min(max(self._next_probe - now, 0.05), LOOK_SECONDS)

    def leave(self, caller: object, error: BaseException | None) -> None:
        """Note how the call of *caller* ended: with a text, or with *error*."""
        with self._lock:
            is_probe = self._probe is caller
            if is_probe:
                self._probe = None
            if error is None or (isinstance(error, ApiError) and not error.retryable):
                self._answered()
            elif isinstance(error, ApiError):
                self._failed(error, is_probe)

    def _answered(self) -> None:
        if self.is_open:
            logger.info("The recognition API is back")
        self._failures = 0
        self._pause = FIRST_PAUSE

    def _failed(self, error: ApiError, is_probe: bool) -> None:
        self._error = error
        self._failures += 1
        if is_probe:
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if is_probe or self._probe is None:
            self._next_probe = time.monotonic() + self._pause
        if self._failures == FAILURES:
            logger.error(
                "The recognition API failed %(failures)d times in a row, the last time with "
                "%(error)s. No more calls are sent; one probe at a time, after pauses of "
                "%(first)g to %(longest)g s, tells when it is back, and captchas wait for it",
                {
                    "failures": FAILURES,
                    "error": error,
                    "first": FIRST_PAUSE,
                    "longest": LONGEST_PAUSE,
                },
            )
